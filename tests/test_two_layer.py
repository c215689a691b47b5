"""Activations and skip connections of two-layer networks against programs written out by hand."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
import pytest
import torch

from landscape import Problem, arrangements, certify, classify, solve, train
from landscape.architectures import TwoLayer, get
from landscape.bounds import EXACT, AllPatterns, beta_max, lower_bound
from landscape.errors import BadInput
from landscape.network import Network
from landscape.optimal_set import OptimalSet
from landscape.slices import segment_extrema

SLOPE = 0.3
LEAKS = {"relu": 0.0, "leaky_relu": SLOPE, "abs": -1.0}
BIASES, SKIPS = ("none", "penalised", "free"), ("none", "free", "penalised")
ALL = list(itertools.product(LEAKS, BIASES, SKIPS))
NAMES = ["-".join(one) for one in ALL]
LATIN = [  # every pair of two choices once
    (activation, bias, SKIPS[(i + j) % 3])
    for i, activation in enumerate(LEAKS)
    for j, bias in enumerate(BIASES)
]


def architecture(activation, bias, skip):
    return TwoLayer(activation=activation, bias=bias, skip=skip, slope=SLOPE)


def instance(activation, bias, skip, seed=1, loss="squared", share=0.03, n=8):
    """Targets of both signs that no linear function fits; β a share of β_max."""
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * (np.arange(n) + 0.5 * rng.random(n)) / n
    X = rng.uniform(0.7, 1.3, n)[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    y = np.cos(2 * angles) + 0.4 * np.sin(3 * angles + 1) + 0.3 * rng.standard_normal(n)
    y = np.where(y > 0, 1.0, -1.0) if loss == "logistic" else 2 * y
    problem = Problem(X, y, 1.0, loss=loss, architecture=architecture(activation, bias, skip))
    return problem.replace(beta=share * beta_max(problem))


def patterns_of(rows):
    """Sign patterns of full-dimensional cells, by brute force over directions."""
    gates = np.random.default_rng(5).standard_normal((60_000, rows.shape[1]))
    return np.unique(gates @ rows.T > 0, axis=0)


def written_out(problem, activation, bias, skip, both=True):
    """The program and its dual from the mathematics alone: patterns, slopes, cones, norms."""
    X, y, beta, n = problem.X, problem.y, problem.beta, len(problem.y)
    rows = X if bias == "none" else np.hstack([X, np.ones((n, 1))])
    p, counted = rows.shape[1], rows.shape[1] - (bias == "free")
    S = patterns_of(rows)
    D, side = np.where(S, 1.0, LEAKS[activation]).T, np.where(S, 1.0, -1.0).T  # (n, P)
    U, V = cp.Variable((p, len(S))), cp.Variable((p, len(S)))
    fit = cp.sum(cp.multiply(D, rows @ (U - V)), axis=1)
    size = sum(cp.sum(cp.norm(B[:counted], 2, axis=0)) for B in (U, V))
    cones = [cp.multiply(side, rows @ B) >= 0 for B in (U, V)]
    if bias == "free":
        fit = fit + cp.Variable()
    if skip != "none":
        w = cp.Variable(p if bias == "penalised" else X.shape[1])
        fit = fit + (rows if bias == "penalised" else X) @ w
        size = size + cp.norm(w) * (skip == "penalised")
    if problem.loss.name == "squared":
        loss, nu = 0.5 * cp.sum_squares(fit - y), cp.Variable(n)
        reward, limits = y @ nu - 0.5 * cp.sum_squares(nu), []
    else:
        q = cp.Variable(n)
        loss, nu = cp.sum(cp.logistic(cp.multiply(-y, fit))), cp.multiply(y, q)
        reward, limits = cp.sum(cp.entr(q) + cp.entr(1 - q)), [q >= 0, q <= 1]
    primal = cp.Problem(cp.Minimize(loss + beta * size), cones).solve(solver=cp.CLARABEL)
    if not both:  # the certificate's own bound is one
        return primal, primal
    for sign in (1, -1):
        L = cp.Variable(D.shape, nonneg=True)
        spread = cp.reshape(nu, (n, 1), order="F") @ np.ones((1, len(S)))
        pull = rows.T @ (cp.multiply(sign * D, spread) + cp.multiply(side, L))
        limits += [cp.norm(pull[:counted], 2, axis=0) <= beta]
        limits += [pull[counted:] == 0] if bias == "free" else []
    limits += [cp.sum(nu) == 0] if bias == "free" else []
    skipped = rows if bias == "penalised" else X
    limits += {
        "none": [],
        "free": [skipped.T @ nu == 0],
        "penalised": [cp.norm(skipped.T @ nu) <= beta],
    }[skip]
    return primal, cp.Problem(cp.Maximize(reward), limits).solve(solver=cp.CLARABEL)


def objective_of(problem, network, activation, bias, skip):
    """A network's objective, in numpy alone."""
    v = {k: t.detach().numpy() for k, t in network.values.items()}
    ones = np.ones((len(problem.X), 1))
    rows = problem.X if bias == "none" else np.hstack([problem.X, ones])
    before = rows @ v["hidden"].T
    fit = np.where(before > 0, before, LEAKS[activation] * before) @ v["output"]
    counted = v["hidden"][:, :-1] if bias == "free" else v["hidden"]
    squares = (counted**2).sum() + (v["output"] ** 2).sum()
    if skip != "none":
        linear = rows[:, : len(v["skip"])] @ v["skip"]
        fit = fit + linear * v.get("skip_output", 1.0)
        if skip == "penalised":
            squares += (v["skip"] ** 2).sum() + v["skip_output"] ** 2
    fit = fit + v.get("constant", 0.0)
    if problem.loss.name == "squared":
        loss = 0.5 * ((fit - problem.y) ** 2).sum()
    else:
        loss = np.logaddexp(0, -problem.y * fit).sum()
    return loss + problem.beta * 0.5 * squares


@pytest.mark.parametrize(
    ("activation", "bias", "skip"), LATIN, ids=["-".join(one) for one in LATIN]
)
def test_optimum_dual_and_mapped_network_agree_with_the_program_written_out(activation, bias, skip):
    place = LATIN.index((activation, bias, skip))
    loss = "logistic" if place % 4 == 1 else "squared"
    problem = instance(activation, bias, skip, loss=loss)
    solution = solve(problem)
    primal, dual = written_out(problem, activation, bias, skip, place % 4 < 2)
    assert solution.objective == pytest.approx(primal, rel=1e-6)
    assert dual == pytest.approx(primal, rel=1e-6)
    assert solution.certificate.scope == EXACT
    assert -1e-12 <= solution.certificate.relative_gap <= 1e-7
    value = objective_of(problem, solution.network(), activation, bias, skip)
    assert value == pytest.approx(solution.objective, rel=1e-12)
    signs = solution.network().values["output"].detach().numpy()
    assert len(signs) + (skip != "none") >= 3
    assert (signs > 0).any()
    assert (signs < 0).any()


@pytest.mark.parametrize(
    ("activation", "bias", "skip"),
    [("leaky_relu", "none", "penalised"), ("abs", "none", "free")],
)
def test_trained_networks_never_go_below_the_optimum_and_reach_it(activation, bias, skip):
    problem = instance(activation, bias, skip)
    optimum = solve(problem).certificate.dual
    runs = train(problem, width=30, seeds=range(2), optimizer="lbfgs", steps=200)
    assert runs.objectives.min() >= optimum * (1 - 1e-9)
    assert runs.objectives.min() <= optimum * (1 + 5e-3)


@pytest.mark.parametrize(("activation", "bias", "skip"), ALL, ids=NAMES)
def test_lift_then_lower_keeps_the_fit_and_never_raises_the_objective(activation, bias, skip):
    problem = instance(activation, bias, skip, share=0.1)
    own, X = problem.architecture, torch.as_tensor(problem.X)
    for seed in range(3):
        parameters = {k: v[0] + 0.1 for k, v in own.initial(problem, 7, [seed]).items()}
        parameters["output"][0], parameters["hidden"][1] = 0.0, 0.0
        parameters["hidden"][2] = parameters["hidden"][3]
        parameters["hidden"][4, 0] = 50.0 * (1 if bias == "none" else 0)
        fit = own.forward(parameters, X).numpy()
        point = own.lift(problem, parameters)
        np.testing.assert_allclose(point.program.fit(point.theta, point.constant), fit, atol=1e-10)
        assert point.program.violation(point.theta) <= 1e-12
        assert point.value <= float(problem.objective(parameters)) * (1 + 1e-12)
        lowered = own.lower(point)
        assert float(problem.objective(lowered)) == pytest.approx(point.value, rel=1e-12)
        np.testing.assert_allclose(own.forward(lowered, X).numpy(), fit, atol=1e-10)
        again = own.balanced(problem, parameters)[0]
        np.testing.assert_allclose(own.forward(again, X).numpy(), fit, atol=1e-10)
        assert float(own.penalty(again)) <= float(own.penalty(parameters)) * (1 + 1e-12)


@pytest.mark.parametrize("bias", ["penalised"])
def test_behind_a_free_skip_connection_all_activations_are_one_up_to_scale(bias):
    problem = instance("relu", bias, "free")
    values = []
    for activation, leak in LEAKS.items():
        own = architecture(activation, bias, "free")
        same = problem.replace(beta=problem.beta * (1 - leak), architecture=own)
        values.append(solve(same).objective)
    np.testing.assert_allclose(values, values[0], rtol=1e-7)


def test_skip_connections_are_ordered():
    free, paid, none = (
        solve(
            instance("abs", "none", "none").replace(architecture=TwoLayer(activation="abs", skip=s))
        )
        for s in ("free", "penalised", "none")
    )
    assert free.objective < paid.objective * 0.999 < none.objective * 0.998


def test_the_absolute_value_does_not_see_mirrored_samples():
    problem = instance("abs", "none", "none")
    mirrored = problem.replace(X=problem.X * np.resize([1.0, -1.0], (8, 1)))
    optimum = solve(problem).objective
    assert solve(mirrored).objective == pytest.approx(optimum, rel=1e-8)
    ramp = problem.replace(architecture=TwoLayer())
    assert solve(ramp).objective != pytest.approx(optimum, rel=1e-2)


def test_no_function_is_counted_twice():
    problem = instance("abs", "none", "none")
    every = arrangements.enumerate(problem.design)
    assert problem.architecture.program(problem, every).atoms.size == len(every)  # of 2P
    paid = problem.replace(architecture=TwoLayer(activation="abs", skip="penalised"))
    program = paid.architecture.program(paid, every)
    assert program.cones.open.sum() == 1
    again = paid.architecture.program(paid, program.patterns)
    np.testing.assert_array_equal(again.atoms.index, program.atoms.index)


ROWS = {
    "rank one": lambda rng: rng.standard_normal((7, 1)) @ rng.standard_normal((1, 3)),
    "duplicates": lambda rng: np.repeat(rng.standard_normal((4, 2)), 2, axis=0),
    "antipodes": lambda rng: np.kron([[1.0], [-2.0]], rng.standard_normal((4, 2))),
    "zero samples": lambda rng: np.vstack([rng.standard_normal((6, 2)), np.zeros((2, 2))]),
    "one-hot": lambda rng: np.vstack([np.eye(3)] * 3)[:8],
    "n < d": lambda rng: rng.standard_normal((4, 5)),
}


@pytest.mark.parametrize(
    ("kind", "skip"),
    [(kind, SKIPS[1 + place // 2 % 2]) for place, kind in enumerate(ROWS)],
)
def test_degenerate_samples_are_certified(kind, skip):
    rng = np.random.default_rng(2)
    X = ROWS[kind](rng)
    names = list(LEAKS)
    activation = names[(list(ROWS).index(kind) + (skip == "free")) % 3]
    bias = "none" if kind in ("n < d", "one-hot") else "free"
    own = architecture(activation, bias, skip)
    problem = Problem(X, rng.standard_normal(len(X)), 0.1, architecture=own)
    solution = solve(problem)
    assert solution.certificate.scope == EXACT
    if kind == "n < d" and skip == "free":
        assert solution.objective <= 1e-25
    else:
        primal, dual = written_out(problem, activation, bias, skip)
        assert solution.objective == pytest.approx(primal, rel=2e-6)
        assert dual == pytest.approx(primal, rel=2e-6)


@pytest.mark.parametrize(("activation", "bias", "skip"), ALL[1::3], ids=NAMES[1::3])
def test_no_unit_prices_above_the_bound_and_one_attains_it(activation, bias, skip):
    problem = instance(activation, bias, skip, n=6)
    every, rows, rng = AllPatterns(problem, 100_000), problem.design, np.random.default_rng(3)
    U = rng.standard_normal((5000, rows.shape[1]))
    U /= np.linalg.norm(U[:, problem.architecture.penalised(problem)], axis=1)[:, None]
    before = U @ rows.T
    values = np.where(before > 0, before, LEAKS[activation] * before)
    free = every.program.free
    for _ in range(10):
        nu = rng.standard_normal(6)
        nu = nu - free @ np.linalg.lstsq(free, nu)[0] if free.size else nu
        bound, found = (every(nu), None) if bias == "free" else every.searched(nu)
        units = np.abs(values @ nu)
        linear = np.linalg.norm((rows.T @ nu)[problem.architecture.penalised(problem)])
        best = max(units.max(), linear if skip == "penalised" else 0.0)
        assert bound.ratio * problem.beta >= best * (1 - 1e-12)
        if found is None:
            continue
        before = rows @ found.direction
        attained = abs(np.where(before > 0, before, LEAKS[activation] * before) @ nu)
        attained = max(attained, linear if skip == "penalised" else 0.0)
        assert found.exact
        assert attained == pytest.approx(bound.ratio * problem.beta, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "skip"),
    [("huber", "none"), ("logistic", "free"), ("hinge", "penalised")],
)
def test_any_dual_point_gives_a_bound_and_the_optimum_sharp_ones(loss, skip):
    problem = instance("leaky_relu", "none", skip, loss="logistic")
    problem = problem.replace(loss=loss)
    solution = solve(problem, throw=False)
    assert solution.certificate.relative_gap <= 1e-6
    every, rng = AllPatterns(problem, 100_000), np.random.default_rng(0)
    for _ in range(8):
        nu = problem.y * rng.random(len(problem.y))
        assert every(nu).value <= solution.objective * (1 + 1e-12)


def test_a_dual_point_that_sees_the_skip_connection_is_worth_nothing_by_itself():
    problem = instance("relu", "none", "free")
    program = AllPatterns(problem, 100_000).program
    value, feasible, _ = lower_bound(program, problem.y)
    assert np.linalg.norm(problem.X.T @ feasible) <= 1e-12
    assert value <= solve(problem).objective
    # Scaled without the projection it would pass for one above the optimum.
    scaled = problem.replace(architecture=TwoLayer())
    wrong = AllPatterns(scaled, 100_000)(problem.y).nu
    assert problem.X.T @ wrong != pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("activation", LEAKS)
def test_clarke_residuals_take_slopes_between_both_sides_of_a_kink(activation):
    own = architecture(activation, "none", "none")
    X, beta = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]), 0.5
    problem = Problem(X, np.ones(3), beta, architecture=own)
    parameters = {"hidden": torch.tensor([[1.0, 0.0]]).double(), "output": torch.ones(1).double()}
    nu = np.array([0.7, -0.4, -0.1])
    shares = np.linspace(LEAKS[activation], 1.0, 2001)
    pulls = np.stack([nu[0] + 0 * shares - beta, (nu[1] + 2 * nu[2]) * shares], axis=1)
    clarke, wrong, balance = own.stationarity(problem, parameters, nu)
    assert clarke[0] == pytest.approx(np.linalg.norm(pulls, axis=1).min() / beta, abs=1e-3)
    assert wrong[0] == 0
    assert balance[0] == 0
    assert own.stationarity(problem, parameters, -nu)[1][0] > 0


@pytest.mark.parametrize("skip", SKIPS[::2])
def test_optima_are_judged_global_and_others_not(skip):
    problem = instance("abs", "penalised", skip)
    solution = solve(problem, tolerance=1e-9)
    assert (
        classify(problem, solution.network(), floor=solution.certificate).verdict
        == "global optimum"
    )
    worse = train(problem, width=1, seeds=[0], optimizer="lbfgs", steps=300, polish=True)
    assert (
        classify(problem, worse.networks[0], floor=solution.certificate).verdict != "global optimum"
    )
    assert certify(problem, worse.networks[0]).dual <= solution.objective * (1 + 1e-12)


def test_stored_networks_and_names_are_those_of_before(tmp_path):
    assert TwoLayer().config() == {"name": "two_layer_relu", "bias": "none"}
    assert TwoLayer(bias="free").label == "two_layer_relu(bias=free)"
    assert TwoLayer(activation="abs").label == "two_layer(bias=none, activation=abs)"
    for one in ALL:
        config = architecture(*one).config()
        again = get(config.pop("name"), **config)
        assert (again.activation, again.bias, again.skip, again.leak) == (*one, LEAKS[one[0]])
    problem = instance("abs", "free", "penalised")
    solution = solve(problem)
    loaded = type(solution).load(solution.save(tmp_path / "s"), problem)
    assert loaded.objective == pytest.approx(solution.objective, rel=1e-12)
    network = Network.load(solution.network().save(tmp_path / "n"))
    torch.testing.assert_close(network(problem.X), solution.network()(problem.X), rtol=0, atol=0)


def test_a_users_leaky_module_is_read_and_others_are_refused():
    module = torch.nn.Sequential(
        torch.nn.Linear(2, 5, bias=False),
        torch.nn.LeakyReLU(SLOPE),
        torch.nn.Linear(5, 1, bias=False),
    ).double()
    own = architecture("leaky_relu", "none", "none")
    X = torch.randn(6, 2).double()
    torch.testing.assert_close(own.forward(own.read(module), X), module(X)[:, 0])
    with pytest.raises(BadInput, match=r"slope=0\.3"):
        TwoLayer(activation="leaky_relu").read(module)
    for other in (TwoLayer(), TwoLayer(activation="abs"), TwoLayer(skip="free")):
        with pytest.raises(BadInput, match="reads"):
            other.read(module)


def test_choices_and_rooms_that_do_not_fit_are_refused():
    X, y = np.arange(-3.0, 4.0)[:, None], np.sign(np.arange(-3.0, 4.0) - 0.5)
    with pytest.raises(BadInput, match="separates"):
        Problem(X, y, 0.1, loss="logistic", architecture=TwoLayer(bias="free", skip="free"))
    for wrong in ({"activation": "tanh"}, {"skip": "some"}, {"slope": 1.0}, {"slope": 0}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            TwoLayer(**wrong)
    problem = instance("leaky_relu", "none", "none")
    solution = solve(problem)
    a, b = train(problem, width=3, seeds=[0, 1], steps=5).networks
    with pytest.raises(BadInput, match="known for two-layer ReLU"):
        segment_extrema(problem, a, b)
    with pytest.raises(BadInput, match="optimal sets"):
        OptimalSet(solution)


@pytest.mark.parametrize("seed", [2, 3, 6, 11])
def test_a_hinge_with_a_free_skip_connection_is_certified(seed):
    """Dual points have entries at the ends of the domain, and see the skip connection exactly."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((8, 2)), np.sign(rng.standard_normal(8))
    problem = Problem(X, y, 1.0, loss="hinge", architecture=TwoLayer(skip="free"))
    solution = solve(problem.replace(beta=0.1 * beta_max(problem)))
    assert solution.certificate.relative_gap <= 1e-7
