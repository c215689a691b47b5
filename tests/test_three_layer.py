"""Parallel three-layer and deeper networks: program, bridge, pricing, the two-layer optimum."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch

from landscape import certify, dictionary, nonnegative, solve, train
from landscape.architectures import ParallelDeep, ParallelThreeLayer, StandardDeep, TwoLayer
from landscape.arrangements import TooManyPatterns
from landscape.arrangements.trees import Tree
from landscape.bounds import EXACT, SEARCH, beta_max
from landscape.errors import BadInput
from landscape.pricing import largest_price, prices
from landscape.pricing.layered import Rays, layered_supremum
from landscape.pricing.trees import TreeOracle, climbed
from landscape.problem import Problem
from landscape.solvers import reference
from landscape.theory.exactness import adversary, instance

KINDS = [
    ParallelThreeLayer(),
    ParallelThreeLayer(regulariser="cubic"),
    ParallelThreeLayer(branching=3, bias="penalised"),
    ParallelDeep(depth=4),
]
LABELS = [kind.label for kind in KINDS]
THREE = KINDS[:2]


def one_sample(architecture, x=1.0, y=2.0, beta=0.5):
    return Problem(np.array([[x]]), np.array([y]), beta, architecture=architecture)


@pytest.mark.parametrize(
    ("architecture", "reach"),
    [(KINDS[0], sqrt(2)), (KINDS[1], 1.0), (ParallelThreeLayer(branching=3), sqrt(3)),
     (KINDS[3], 2.0)],
)  # fmt: skip
def test_one_sample_is_a_soft_threshold(architecture, reach):
    """Equal neurons put out √m |x| at size one (cubic: |x|), and y shrinks by β over that."""
    for y in (2.0, -3.0):
        solution = solve(one_sample(architecture, y=y), tolerance=1e-9)
        shrunk = min(abs(y), 0.5 / reach)
        expected = 0.5 * shrunk**2 + 0.5 * (abs(y) - shrunk) / reach
        assert solution.objective == pytest.approx(expected, rel=1e-8)


def whole(problem):
    """The program over every group."""
    every = problem.architecture.oracle(problem, 100_000).every.units
    mirrored = {**every, "outputs": -every["outputs"]}
    return problem.architecture.program(problem, dictionary.join(every, mirrored))


@pytest.mark.parametrize("architecture", THREE, ids=LABELS[:2])
@pytest.mark.parametrize("seed", [2])
def test_program_dual_and_mapped_network_agree(architecture, seed):
    problem = instance(architecture, seed, n=6)
    solution = solve(problem, tolerance=1e-8)
    program = whole(problem)
    assert solution.certificate.scope == "all patterns, exact"
    assert reference.solve_primal(program).value == pytest.approx(solution.objective, rel=1e-6)
    assert reference.solve_dual(program)[0] == pytest.approx(solution.objective, rel=1e-6)
    assert float(problem.objective(solution.network())) == pytest.approx(solution.point.value)
    assert solution.active >= 3
    bound = solution.certificate.price_ratio * problem.beta
    assert adversary(problem, solution.dual, 16, 60) <= bound * (1 + 1e-9)
    # Groups that are missing are missed: those that hold the best units, on faces several.
    pays = prices(program, solution.dual)
    left = np.flatnonzero(pays < 0.999 * problem.beta)
    assert reference.solve_primal(program.take(left)).value > solution.objective * (1 + 1e-6)


def test_the_path_optimum_is_below_two_layers_at_a_smaller_weight_and_cubic_may_be_below_two():
    """Mathematics §9: 'ℓ2,1 equalled two layers on two tiny instances' is not general."""
    strict = []
    for seed in (0,):
        path = instance(THREE[0], seed, n=6)
        two = solve(path.replace(architecture=TwoLayer(), beta=path.beta / sqrt(2))).objective
        assert solve(path).objective <= two * (1 + 1e-7)
        cubic = path.replace(architecture=THREE[1])
        two = solve(path.replace(architecture=TwoLayer())).objective
        three = solve(cubic).objective
        assert three <= two * (1 + 1e-7)
        strict.append(three < two * (1 - 1e-3))
    assert any(strict)
    orthogonal = Problem(np.eye(3), np.array([1.0, -2.0, 3.0]), 0.1, architecture=THREE[1])
    plain = solve(orthogonal.replace(architecture=TwoLayer())).objective
    assert solve(orthogonal).objective == pytest.approx(plain, rel=1e-7)


@pytest.mark.parametrize("architecture", KINDS, ids=LABELS)
def test_bridges_keep_the_fit_and_never_raise_the_objective(architecture):
    problem = instance_of(architecture, 3, n=7)
    for seed in range(2):
        net = {k: v[0] for k, v in architecture.initial(problem, 6, [seed]).items()}
        net["output"][0] = 0.0
        point = architecture.lift(problem, net)
        fit = architecture.forward(net, torch.as_tensor(problem.X)).numpy()
        np.testing.assert_allclose(point.program.fit(point.theta, point.constant), fit, atol=1e-12)
        assert point.program.violation(point.theta) <= 1e-12
        before, lowered = float(problem.objective(net)), architecture.lower(point)
        after = float(problem.objective(lowered))
        assert point.value <= before * (1 + 1e-12)
        assert after == pytest.approx(point.value, rel=1e-12)
        clarke, _, balance = architecture.stationarity(problem, lowered, problem.y)
        assert len(clarke) <= 5
        assert balance.max() <= 1e-12


def instance_of(architecture, seed, n):
    rng = np.random.default_rng(seed)
    return Problem(
        rng.standard_normal((n, 2)), rng.standard_normal(n), 0.1, architecture=architecture
    )


@pytest.mark.parametrize("architecture", KINDS, ids=LABELS)
def test_symmetries_of_units_change_nothing(architecture):
    """Rescaling between layers (path), exchanging children with all below them, permuting units."""
    problem = instance_of(architecture, 4, n=6)
    net = {k: v[0] for k, v in architecture.initial(problem, 4, [0]).items()}
    order = torch.tensor([2, 0, 3, 1])
    other = {k: v[order].clone() for k, v in net.items()}
    if architecture.depth == 3:
        other["hidden"], other["inner"] = other["hidden"].flip(1), other["inner"].flip(1)
    if architecture.regulariser == "path":
        other["hidden"], other["output"] = 3.0 * other["hidden"], other["output"] / 3.0
    assert float(problem.objective(other)) == pytest.approx(float(problem.objective(net)))
    here, there = (architecture.lift(problem, one).value for one in (net, other))
    assert there == pytest.approx(here, rel=1e-12)


@pytest.mark.parametrize(("depth", "n"), [(3, 6), (4, 3)])
def test_every_unit_belongs_to_a_listed_group(depth, n):
    rng = np.random.default_rng(0)
    X, tree = rng.standard_normal((n, 1 if depth == 4 else 2)), Tree(depth, 2)
    masks, signs = tree.every(X, 10_000)
    maps, rows = tree.maps(X, masks, signs)
    for _ in range(20):
        nu = rng.standard_normal(n)
        V, s, price = climbed(tree, X, nu, False, int(rng.integers(99)), 8, 10)
        own, cone = tree.maps(X, tree.masks(X, V, s), s)
        flat = V.reshape(len(V), V.shape[1] * V.shape[2])
        fits = (own @ flat[:, :, None])[:, :, 0]
        np.testing.assert_allclose(fits @ nu, price, rtol=1e-9, atol=1e-12)
        assert ((cone @ flat[:, :, None]) >= -1e-12).all()
    assert len(maps) == len(rows) == len(masks)


@pytest.mark.parametrize("architecture", [*THREE, ParallelDeep(depth=4)], ids=str)
def test_no_unit_prices_above_the_oracle_listed_or_bounded(architecture):
    small = architecture.depth == 4
    problem = instance_of(architecture, 5, n=4 if small else 5)
    if small:
        problem = problem.replace(X=problem.X[:, :1])
    rng = np.random.default_rng(0)
    listed, bounded = (architecture.oracle(problem, effort) for effort in (200_000, 10))
    assert isinstance(listed, TreeOracle)
    assert listed.every is not None
    assert bounded.every is None
    for _ in range(2):
        nu = rng.standard_normal(len(problem.y))
        exact, above = listed(nu), bounded(nu)
        assert exact.exact
        assert not above.exact
        best = max(
            climbed(architecture.tree, problem.X, side * nu, listed.summed, 1, 64, 60)[2].max(
                initial=0.0
            )
            for side in (1, -1)
        )
        assert best <= exact.bound * (1 + 1e-12)
        assert exact.bound <= above.bound * (1 + 1e-9)
        assert above.attained <= exact.bound * (1 + 1e-9)
        assert best >= 0.97 * exact.bound
        units = architecture.program(problem, exact.units)
        assert largest_price(units, nu)[0] == pytest.approx(exact.bound, rel=1e-9)


@pytest.mark.parametrize("architecture", THREE, ids=LABELS[:2])
def test_beyond_lists_a_search_says_what_it_is(architecture):
    problem = instance_of(architecture, 6, n=6)
    exact = solve(problem, tolerance=1e-7)
    searched = solve(problem, tolerance=1e-6, limit=100)
    assert searched.certificate.scope == SEARCH
    assert searched.certificate.climbs > 0
    assert searched.certificate.relaxed <= exact.objective
    assert exact.certificate.dual <= searched.objective <= exact.objective * 1.01
    own = certify(problem, searched.network(), effort="low", dual=searched.dual)
    assert own.scope == "given patterns"
    assert own.relative_gap <= 1e-6


@pytest.mark.parametrize("architecture", THREE, ids=LABELS[:2])
def test_trained_networks_stay_above_and_come_close(architecture):
    problem = instance(architecture, 2, n=6)
    solution = solve(problem, tolerance=1e-8)
    runs = train(problem, width=10, seeds=range(2), steps=200, learning_rate=0.02)
    assert runs.objectives.min() >= solution.certificate.dual
    assert runs.objectives.min() <= 1.3 * solution.objective
    zero = {k: torch.zeros_like(v[0]).requires_grad_() for k, v in runs.parameters.items()}
    problem.objective(zero).backward()
    assert all(bool(torch.isfinite(v.grad).all()) for v in zero.values())


def test_what_has_no_program_is_refused_with_the_reason():
    with pytest.raises(BadInput, match="not convex"):
        ParallelThreeLayer(regulariser="l2")
    with pytest.raises(BadInput, match="three layers only"):
        ParallelDeep(depth=4, regulariser="cubic")
    with pytest.raises(BadInput, match="Did you mean"):
        ParallelThreeLayer(regulariser="pathh")
    with pytest.raises(BadInput, match="has three layers"):
        ParallelThreeLayer(depth=4)
    with pytest.raises(TooManyPatterns):
        Tree(3, 2).every(np.random.default_rng(0).standard_normal((40, 3)), 1000)


def antipodal():
    """Samples of which three have antipodes with the same targets."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((7, 2)), rng.standard_normal(7)
    X, y = np.vstack([X, -X[:3]]), np.r_[y, y[:3]]
    problem = Problem(X, y, 1.0, architecture=ParallelThreeLayer())
    return problem.replace(beta=0.05 * beta_max(problem, limit=20_000))


def test_antipodal_rows_are_priced_exactly():
    """Cones with rows that are each other's negatives are where `scipy.optimize.nnls` errs."""
    solution = solve(antipodal(), limit=20_000, tolerance=1e-8)
    assert solution.certificate.relative_gap <= 1e-8
    assert solution.certificate.scope == EXACT
    assert len(solution.history) < 10


@pytest.mark.parametrize("wrong", [np.zeros(4), np.full(4, 3.0), -np.ones(4), RuntimeError()])
def test_wrong_least_squares_are_found_out(wrong, monkeypatch):
    """Repeated and antipodal columns: whatever comes back, the residual is the least."""
    A = np.array([[1.0, -1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 2.0], [1.0, -1.0, 1.0, 1.0]])
    b = np.array([1.0, -1.0, 2.0])
    expected = nonnegative.least_squares(A, b)

    def nnls(A, b, maxiter):
        if isinstance(wrong, Exception):
            raise wrong
        return wrong, 0.0

    monkeypatch.setattr(nonnegative, "nnls", nnls)
    x, rest = nonnegative.least_squares(A, b)
    assert (x >= 0).all()
    assert rest == pytest.approx(np.linalg.norm(A @ x - b), rel=1e-14)
    assert rest == pytest.approx(sqrt(1.5), rel=1e-14)
    assert rest == pytest.approx(expected[1], rel=1e-14)


def test_least_squares_without_columns():
    assert nonnegative.least_squares(np.zeros((2, 0)), np.array([3.0, 4.0]))[1] == 5.0


def test_a_price_is_exact_only_where_a_unit_attains_it(monkeypatch):
    """Multipliers that are not the best make a bound too large, and no unit prices as high."""
    problem = antipodal()
    nu = np.random.default_rng(0).standard_normal(len(problem.y))
    right = problem.architecture.oracle(problem, 20_000)(nu)
    assert right.exact
    monkeypatch.setattr("landscape.pricing.groups.least_squares", lambda A, b: (0 * A[0], 0.0))
    wrong = problem.architecture.oracle(problem, 20_000)(nu)
    assert wrong.bound > right.bound * 1.01
    assert not wrong.exact


def test_generation_ends_where_pricing_offers_nothing_new(monkeypatch):
    problem = one_sample(KINDS[0])
    price = TreeOracle.__call__

    def repeating(self, nu, target=0.0):
        found = price(self, nu)
        return replace(found, bound=3.0 * found.bound, exact=False)

    monkeypatch.setattr(TreeOracle, "__call__", repeating)
    solution = solve(problem, throw=False)
    assert len(solution.history) < 10
    assert solution.certificate.relative_gap > 0.1
    assert solution.certificate.relative_gap == pytest.approx(
        1 - solution.certificate.dual / solution.objective
    )


@pytest.mark.parametrize("architecture", [*THREE, KINDS[3]], ids=[*LABELS[:2], LABELS[3]])
@pytest.mark.parametrize("limit", [20_000, 10])
def test_without_inputs_the_zero_network_is_the_best(architecture, limit):
    y = np.array([1.0, -2.0, 0.5])
    problem = Problem(np.zeros((3, 2)), y, 0.1, architecture=architecture)
    solution = solve(problem, limit=limit)
    assert solution.active == 0
    assert solution.objective == pytest.approx(0.5 * y @ y, rel=1e-14)
    assert solution.certificate.relative_gap <= 1e-12
    assert beta_max(problem, limit=limit) == 0.0


def test_without_inputs_deep_networks_put_out_nothing():
    y = np.array([1.0, -2.0, 0.5])
    assert layered_supremum(Rays(np.zeros((3, 2))), y, 1000).bound == 0.0
    problem = Problem(np.zeros((3, 2)), y, 0.1, architecture=StandardDeep(4, regulariser="power"))
    solution = solve(problem, start=train(problem, 4, range(2), steps=30))
    assert solution.objective == pytest.approx(0.5 * y @ y, rel=1e-14)
    assert solution.certificate.relative_gap <= 1e-12
