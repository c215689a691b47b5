"""Threshold and sign networks: every pattern, exact prices, networks that make them, training."""

from __future__ import annotations

from itertools import product

import clarabel
import numpy as np
import pytest
import torch
from cases import kgon
from scipy.optimize import linprog
from scipy.sparse import csc_matrix, eye

from landscape import arrangements, certify, data, solve, train
from landscape.architectures import DeepThreshold, Threshold
from landscape.architectures.complete import clipped, level_sets
from landscape.architectures.steps import SURROGATES
from landscape.arrangements import switches
from landscape.arrangements.faces import enumerate_closed
from landscape.arrangements.halfspaces import Halfspaces
from landscape.bounds import EXACT, RELAXED, AllPatterns, beta_max
from landscape.errors import BadInput
from landscape.problem import Problem
from landscape.solvers import reference

INSTANCES = range(8)
TWO_LAYER = [Threshold(a, bias=b) for a in ("threshold", "sign") for b in ("none", "penalised")]
DEEP = [
    DeepThreshold("threshold", widths=(2,)),
    DeepThreshold("sign", widths=(3, 2)),
    DeepThreshold("threshold", widths=(2, 2), tree=True),
    DeepThreshold("sign", widths=(1, 3), tree=True),
    DeepThreshold("threshold", widths=(9,)),
    DeepThreshold("sign", widths=(9,)),
]
FULLY = [TWO_LAYER[0], TWO_LAYER[3], DEEP[2], DEEP[3]]
"""These on all instances, the others on five."""


def instance(architecture, seed, n=8):
    """A random problem at β = β_max / 20; every third one has antipodal and equal rows."""
    rng = np.random.default_rng(seed)
    d = 1 if isinstance(architecture, DeepThreshold) else 2
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    if seed % 3 == 0:
        X[1], X[3] = -X[0], X[2]
    problem = Problem(X, y, 1.0, architecture=architecture)
    return problem.replace(beta=0.05 * beta_max(problem))


def dictionary(problem):
    """Every column, listed: patterns (linear programs confirm them below), or all sequences."""
    architecture, n = problem.architecture, len(problem.y)
    if isinstance(architecture, DeepThreshold):
        order = np.argsort(problem.X[:, 0], kind="stable")
        x = problem.X[order, 0]
        columns = []
        for bits in product([0, 1], repeat=n):
            changes = np.diff(bits) != 0
            if changes.sum() <= architecture.switches and not changes[np.diff(x) == 0].any():
                columns.append(np.array(bits)[np.argsort(order)])
    else:
        columns = np.asarray(enumerate_closed(problem.design))
    D = np.array(columns, dtype=np.float64).T
    return D if architecture.activation == "threshold" else 2 * D - 1


def _made(problem, bits):
    X, on = problem.design, np.array(bits, dtype=bool)
    found = linprog(
        np.zeros(X.shape[1]),
        A_ub=np.vstack([-X[on], X[~on]]),
        b_ub=np.concatenate([np.zeros(on.sum()), -np.ones((~on).sum())]),
        bounds=[(None, None)] * X.shape[1],
    )
    return found.status == 0


def lasso(D, y, beta):
    """The dual, solved by Clarabel: max yᵀν − ½‖ν‖² with |Dᵀν| ≤ β."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    sides = csc_matrix(np.vstack([D.T, -D.T]))
    cone = [clarabel.NonnegativeConeT(2 * D.shape[1])]
    limits = np.full(2 * D.shape[1], beta)
    solver = clarabel.DefaultSolver(eye(len(y), format="csc"), -y, sides, limits, cone, settings)
    return -solver.solve().obj_val


@pytest.mark.parametrize("seed", range(15))
def test_patterns_are_those_that_linear_programs_find(seed):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(3, 7)), int(rng.integers(1, 4))
    X = rng.integers(-2, 3, (n, d)).astype(float) if seed % 3 else rng.standard_normal((n, d))
    problem = Problem(X, np.ones(n), 1.0, architecture=Threshold())
    found = enumerate_closed(X)
    wanted = {bits for bits in product([0, 1], repeat=n) if _made(problem, bits)}
    assert {tuple(row) for row in np.asarray(found).astype(int).tolist()} == wanted
    assert len(found) == len(wanted)
    program = problem.architecture.program(problem, {"hidden": found.gates})
    np.testing.assert_array_equal(program.atoms.values.T > 0, np.asarray(found))


@pytest.mark.parametrize("seed", range(12))
def test_turning_prices_all_patterns(seed, monkeypatch):
    """Against the list; where too many planes meet the bound may be above, and never below."""
    monkeypatch.setattr("landscape.arrangements.halfspaces.LISTED", 0)
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(4, 11)), int(rng.integers(1, 5))
    X, general = rng.standard_normal((n, d)), seed % 3 != 2
    if seed % 3 == 1:
        X[-1] = -2.0 * X[0]
    if not general:
        X = rng.integers(-2, 3, (n, d)).astype(float)
    halfspaces = Halfspaces(X, 10_000)
    D = np.asarray(enumerate_closed(X)).astype(float)
    assert halfspaces.turned or halfspaces.independent
    for nu in rng.standard_normal((10, n)):
        bound, gates = halfspaces.heaviest(nu, 8)
        largest = float((D @ nu).max())
        assert bound >= largest
        if general:
            assert bound == pytest.approx(largest, abs=1e-9)
            problem = Problem(X, nu, 1.0, architecture=Threshold())
            made = problem.architecture.program(problem, {"hidden": gates}).atoms.values
            assert float((nu @ made).max()) == pytest.approx(largest, abs=1e-9)


def test_rows_nearly_but_not_quite_collinear_may_be_told_apart():
    X = np.array([[1.0, 0.3], [1.0, 0.3 + 1e-13], [-0.4, 1.0], [0.2, -1.0]])
    nu = np.array([3.0, -2.0, 0.5, 0.1])
    bound, _ = Halfspaces(X, 100).heaviest(nu, 4)
    assert bound >= 3.5  # a direction between the first two: on, off, on, off


@pytest.mark.parametrize("seed", range(10))
def test_heaviest_sequences(seed):
    rng = np.random.default_rng(seed)
    n, budget = int(rng.integers(1, 9)), int(rng.integers(0, 6))
    nu = rng.standard_normal(n)
    every = [np.array(b) for b in product([0, 1], repeat=n) if (np.diff(b) != 0).sum() <= budget]
    bound, found = switches.heaviest(nu, budget, 12)
    assert bound == pytest.approx(max(float(b @ nu) for b in every), abs=1e-12)
    assert float(found[0] @ nu) == pytest.approx(bound, abs=1e-12)
    assert ((np.diff(found, axis=1) != 0).sum(axis=1) <= budget).all()


@pytest.mark.parametrize("widths", [(2, 2), (3, 2), (1, 3), (2, 1, 2)])
@pytest.mark.parametrize("activation", ["threshold", "sign"])
def test_trees_switch_as_often_as_the_product_of_their_widths(widths, activation):
    """All trees over few samples with weights −1, 0, 1 make these sequences, and no others."""
    n = 6
    made = {tuple(bool(b) != up for b in np.arange(n) < t) for t in range(n + 1) for up in (0, 1)}
    for width in widths:
        rows = np.array(sorted(made), dtype=float)
        values = rows if activation == "threshold" else 2 * rows - 1
        sums = {tuple(np.zeros(n))}
        for _ in range(width):
            sums = {tuple(np.add(s, w * v)) for s in sums for v in values for w in (-1, 0, 1)}
        totals = np.array(sorted(sums))
        made = {tuple(row) for c in np.arange(-4, 5) + 0.5 for row in totals + c >= 0}
    wanted = {
        tuple(map(bool, bits))
        for bits in product([0, 1], repeat=n)
        if (np.diff(bits) != 0).sum() <= np.prod(widths)
    }
    assert made == wanted
    architecture = DeepThreshold(activation, widths=widths, tree=True)
    x = np.sort(np.random.default_rng(0).standard_normal(n))[:, None]
    problem = Problem(x, np.zeros(n), 1.0, architecture=architecture)
    line = switches.Lines(x, architecture.switches)
    sequences = np.array(sorted(wanted))
    units = architecture._units(line.orders[0], sequences)
    values = architecture.program(problem, units).atoms.values
    np.testing.assert_array_equal(values.T > 0, sequences)


@pytest.mark.parametrize("activation", ["threshold", "sign"])
def test_no_random_unit_switches_more_often(activation):
    x = torch.linspace(-2, 2, 400, dtype=torch.float64)[:, None]
    problem = Problem(x.numpy(), np.zeros(400), 1.0, architecture="threshold")
    for widths, tree in (((3,), False), ((2, 3), True), ((3, 5), False)):
        architecture = DeepThreshold(activation, widths=widths, tree=tree)
        parameters = architecture.initial(problem, 500, range(2))
        changes = (architecture.steps(parameters, x).diff(dim=-2) != 0).sum(-2)
        assert int(changes.max()) <= architecture.switches


@pytest.mark.parametrize("activation", ["threshold", "sign"])
@pytest.mark.parametrize("seed", [1, 3])
def test_clipping_solves_the_complete_program(activation, seed):
    import cvxpy

    rng = np.random.default_rng(seed)
    y, counts, beta = rng.standard_normal(12), rng.integers(1, 4, 12).astype(float), 0.7
    if seed == 3:
        y, beta = np.abs(y), 20.0
    fit = cvxpy.Variable(12)
    norm = cvxpy.norm_inf(fit)
    if activation == "threshold":
        norm = cvxpy.max(cvxpy.pos(fit)) + cvxpy.max(cvxpy.neg(fit))
    loss = 0.5 * cvxpy.sum(cvxpy.multiply(counts, cvxpy.square(fit - y)))
    program = cvxpy.Problem(cvxpy.Minimize(loss + beta * norm))
    program.solve(solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    found = clipped(y, counts, beta, activation)
    np.testing.assert_allclose(found, fit.value, atol=1e-6)
    patterns = level_sets(found, activation)
    size = np.abs(found).max()
    if activation == "threshold":
        size = max(found.max(), 0) + max(-found.min(), 0)
        columns = patterns.T.astype(float)
    else:
        columns = 2.0 * patterns.T - 1
    if columns.shape[1]:
        z = np.linalg.lstsq(columns, found, rcond=None)[0]
        np.testing.assert_allclose(columns @ z, found, atol=1e-12)
        assert np.abs(z).sum() == pytest.approx(size, abs=1e-9)
    else:
        assert size == 0


@pytest.mark.parametrize(
    "architecture", [*TWO_LAYER, *DEEP], ids=lambda one: one.label.split("(")[1]
)
def test_optimum_is_the_dual_over_the_listed_dictionary_and_the_mapped_network(architecture):
    carried = 0
    seeds = INSTANCES if architecture in FULLY else INSTANCES[:5]
    for seed in seeds:
        problem = instance(architecture, seed)
        solution = solve(problem, tolerance=1e-9)
        D = dictionary(problem)
        optimum = lasso(D, problem.y, problem.beta)
        assert solution.objective == pytest.approx(optimum, rel=1e-6)
        assert solution.certificate.scope == EXACT
        assert problem.objective(solution.network()) == pytest.approx(optimum, rel=1e-6)
        signs = np.sign(solution.network().values["output"].detach().numpy())
        both = len(set(signs)) == 2 or architecture.activation == "sign"  # −g is a sign unit too
        carried += solution.active >= 3 and both
        every = AllPatterns(problem, 20_000)
        for nu in np.random.default_rng(seed).standard_normal((4, len(problem.y))):
            bound = every.oracle(nu)
            assert bound.exact
            assert bound.bound >= np.abs(nu @ D).max() * (1 - 1e-14)
            assert bound.bound == pytest.approx(np.abs(nu @ D).max(), rel=1e-9)
            assert every(nu).value <= optimum * (1 + 1e-9)  # weak duality
    assert carried >= 0.75 * len(seeds)


def test_without_the_lower_faces_the_triangle_costs_more():
    problem = kgon(3, architecture=Threshold())
    cells = solve(problem, arrangements.enumerate(problem.design))
    assert cells.objective == pytest.approx(0.14625, abs=1e-9)
    assert solve(problem).objective == pytest.approx(0.1 - 0.01 / 6, abs=1e-12)


@pytest.mark.parametrize("architecture", [TWO_LAYER[0], TWO_LAYER[3], DEEP[0], DEEP[3]])
def test_no_unit_prices_above_the_bound(architecture):
    """Random and tied gates, thousands of them, at random dual points."""
    problem = instance(architecture, 3, n=12)
    oracle = problem.architecture.oracle(problem, 20_000)
    parameters = architecture.initial(problem, 2000, [0])
    units = architecture.units({k: v[0] for k, v in parameters.items()})
    values = architecture.program(problem, units).atoms.values
    if isinstance(architecture, Threshold):
        rng, tied = np.random.default_rng(1), []
        for _ in range(300):
            row = problem.design[rng.integers(len(problem.y))]
            tied.append(np.linalg.svd(row[None])[2][1:].T @ rng.standard_normal(len(row) - 1))
        more = architecture.program(problem, {"hidden": np.array(tied)}).atoms.values
        values = np.hstack([values, more])
    for nu in np.random.default_rng(0).standard_normal((50, 12)):
        assert np.abs(nu @ values).max() <= oracle(nu).bound


@pytest.mark.parametrize("architecture", [TWO_LAYER[0], TWO_LAYER[3], DEEP[2]])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_trained_networks_are_never_below(architecture, surrogate):
    kind = type(architecture)
    options = {**architecture.config(), "surrogate": surrogate}
    options.pop("name")
    problem = instance(kind(**options), 1)
    solution = solve(problem)
    runs = train(problem, width=[4, 16], seeds=range(2), steps=60)
    assert runs.objectives.min() >= solution.certificate.dual
    objectives = [problem.objective(runs[i]) for i in range(len(runs))]
    np.testing.assert_allclose(runs.objectives, objectives, rtol=1e-12)
    assert np.median(runs.objectives) < np.median(runs.trace[:, 0])
    for certificate in certify(problem, runs.networks):
        assert certificate.dual <= certificate.primal
        assert certificate.dual <= solution.objective * (1 + 1e-9)


def test_gradients_are_the_surrogates_and_values_the_steps():
    before = torch.tensor([-2.0, -0.5, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    slopes = {
        "identity": [1, 1, 1, 1],
        "relu": [0, 0, 1, 1],
        "leaky_relu": [0.01, 0.01, 1, 1],
        "clipped_relu": [0, 0, 1, 0],
    }
    for surrogate, wanted in slopes.items():
        out = Threshold(surrogate=surrogate).step(before)
        assert out.tolist() == [0, 0, 1, 1]
        assert torch.autograd.grad(out.sum(), before)[0].tolist() == wanted
    out = Threshold("sign").step(before)
    assert out.tolist() == [-1, -1, 1, 1]
    assert torch.autograd.grad(out.sum(), before)[0].tolist() == [0, 1, 1, 0]
    mini = train(instance(Threshold(), 1), 4, [0], steps=20, batch_size=3)
    assert np.isfinite(mini.objectives).all()


@pytest.mark.parametrize("architecture", [*TWO_LAYER, DEEP[1], DEEP[2]])
def test_lifting_and_symmetries(architecture):
    problem = instance(architecture, 2)
    parameters = {k: v[0] for k, v in architecture.initial(problem, 12, [4]).items()}
    point = architecture.lift(problem, parameters)
    fit = architecture.forward(parameters, torch.as_tensor(problem.X)).numpy()
    np.testing.assert_allclose(point.program.fit(point.theta, point.constant), fit, atol=1e-12)
    before, after = problem.objective(parameters), problem.objective(architecture.lower(point))
    assert after <= before * (1 + 1e-12)
    assert point.value == pytest.approx(float(after), rel=1e-12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    other = {k: v[order] for k, v in parameters.items()}
    other["hidden"] = 3.0 * other["hidden"]  # a step does not see it
    other["amplitude"], other["output"] = -2.0 * other["amplitude"], -0.5 * other["output"]
    again = architecture.lift(problem, other)
    assert again.value == pytest.approx(point.value, rel=1e-12)
    best = solve(problem).network()
    values = {k: v.detach() for k, v in best.values.items()}
    raised = problem.objective(architecture.lower(architecture.lift(problem, values)))
    assert float(raised) == pytest.approx(problem.objective(best), rel=1e-12)


def test_optimal_networks_keep_their_patterns_beside_the_samples():
    problem = instance(Threshold(bias="penalised"), 4, n=12)
    network = solve(problem).network()
    moved = problem.X + 1e-8 * np.random.default_rng(0).standard_normal(problem.X.shape)
    torch.testing.assert_close(network(moved), network(problem.X), rtol=0, atol=0)


@pytest.mark.parametrize("loss", ["logistic", "huber", "hinge"])
def test_other_losses_against_the_listed_program(loss):
    for architecture in (Threshold(bias="free"), DeepThreshold(widths=(3,), constant=True)):
        problem = instance(architecture, 5)
        y = np.where(problem.y > 0, 1.0, -1.0) if loss in ("logistic", "hinge") else problem.y
        problem = problem.replace(y=y, loss=loss, beta=0.2)
        solution = solve(problem, tolerance=1e-6)
        D = dictionary(problem)
        program = architecture.program(problem, architecture.first(problem, 0))
        from landscape.dictionary import Columns, Lasso

        columns = Columns(D, {"number": np.arange(D.shape[1])}, np.ones(len(y)))
        listed = Lasso.of(problem.loss, y, problem.beta, columns, program.free)
        assert solution.objective == pytest.approx(reference.solve_dual(listed)[0], rel=2e-6)


def test_beyond_enumeration_the_scope_says_so():
    rng = np.random.default_rng(0)
    problem = Problem(rng.standard_normal((40, 8)), rng.standard_normal(40), 0.5, "squared")
    solution = solve(problem.replace(architecture=Threshold()), throw=False, rounds=5)
    assert solution.certificate.scope == RELAXED
    assert solution.certificate.dual < solution.objective
    wide = Problem(rng.standard_normal((15, 30)), rng.standard_normal(15), 0.1, "squared")
    solution = solve(wide.replace(architecture=Threshold("sign")))
    assert solution.certificate.scope == EXACT


def test_real_data_exactly():
    sample = data.load("diabetes", n=80, rank=2)
    problem = Problem(sample.X, sample.y, 2.0, architecture=Threshold(bias="penalised"))
    solution = solve(problem)
    assert solution.certificate.scope == EXACT
    assert solution.certificate.relative_gap <= 1e-7
    series = data.load("nino", lags=1, n=60)
    problem = Problem(series.X, series.y, 2.0, architecture=DeepThreshold(widths=(2, 2), tree=True))
    assert solve(problem).certificate.scope == EXACT


def test_neighbouring_numbers_are_told_apart():
    x = np.array([1.0, np.nextafter(1.0, 2.0), 2.0, np.nextafter(2.0, 1.0), -3.0])[:, None]
    y = np.array([1.0, -1.0, 1.0, -1.0, 0.5])
    for architecture in (DeepThreshold(widths=(4,)), DeepThreshold(widths=(2, 2), tree=True)):
        problem = Problem(x, y, 0.01, architecture=architecture)
        solution = solve(problem)
        fit = clipped(y, np.ones(5), 0.01, "threshold")
        np.testing.assert_allclose(solution.network()(x).detach().numpy(), fit, atol=1e-9)
        assert solution.certificate.scope == EXACT


def test_refusals():
    with pytest.raises(BadInput, match="Did you mean 'threshold'"):
        Threshold("treshold")
    with pytest.raises(BadInput, match="surrogate"):
        Threshold(surrogate="gelu")
    with pytest.raises(BadInput, match="bias"):
        Threshold(bias="some")
    with pytest.raises(BadInput, match="widths"):
        DeepThreshold(widths=())
    with pytest.raises(BadInput, match="a width"):
        DeepThreshold(widths=(0,))
    problem = instance(Threshold(), 0)
    other = problem.replace(architecture=Threshold("sign"))
    network = solve(other).network()
    with pytest.raises(BadInput, match="reads its own networks"):
        problem.architecture.read(network)
    trained = problem.replace(architecture=Threshold(surrogate="identity"))
    assert certify(trained, solve(problem).network()).relative_gap < 1e-7
