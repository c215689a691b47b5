"""Lower bounds in closed form: the best multiple of a dual point, scopes, skips, relaxations."""

from __future__ import annotations

from dataclasses import replace

import cvxpy
import numpy as np
import pytest
from cases import planted

from landscape import arrangements, bounds
from landscape.architectures import GatedReLU, StandardDeep, TwoLayer, Wedge
from landscape.bounds import (
    EXACT,
    FEATURES,
    GIVEN,
    RELAXED,
    SEARCH,
    AllPatterns,
    beta_max,
    bound_over,
    lower_bound,
    lower_bound_at,
    relative_gap,
)
from landscape.dictionary import Priced
from landscape.pricing import supremum
from landscape.problem import Problem
from landscape.solvers import reference

RNG = np.random.default_rng


def program_of(y, loss="squared", bias="none", beta=0.5, seed=0, **options):
    """A program of few patterns; `lower_bound_at` reads its loss, targets and free part only."""
    n = len(y)
    problem = Problem(
        RNG([seed, n]).standard_normal((n, 2)), y, beta, loss=loss,
        architecture=TwoLayer(bias, **options),
    )  # fmt: skip
    return problem.architecture.program(problem, arrangements.sample(problem.design, 3, seed=0))


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("ratio", [0.0, 1e-3, 0.5, 1.0, 3.0, 1e4])
def test_of_squares_the_best_multiple_is_a_clipped_quotient(n, ratio):
    """Max over 0 ≤ t ≤ 1/ratio of t νᵀy − t²‖ν‖²/2 (t ≤ 1 where no price is known above 0)."""
    for seed in range(6):
        rng = RNG([seed, n])
        y, nu = rng.standard_normal(n), rng.standard_normal(n) * 10.0 ** rng.integers(-3, 4)
        along, size = float(nu @ y), float(nu @ nu)
        t = min(max(along / size, 0.0), 1.0 / ratio if ratio > 0 else 1.0)
        value, feasible = lower_bound_at(program_of(y), nu, ratio)
        exact = t * along - 0.5 * t**2 * size
        scale = float(y @ y)
        assert value == pytest.approx(exact, rel=1e-9, abs=1e-12 * scale)
        assert value <= exact + 1e-15 * scale
        if ratio > 0:  # what is returned is feasible: prices at it are at most β
            assert np.abs(feasible).max() * ratio <= np.abs(nu).max()
        np.testing.assert_allclose(feasible, t * nu, atol=1e-5 * np.abs(y).max())


@pytest.mark.parametrize("loss", ["logistic", "hinge", "huber"])
@pytest.mark.parametrize("ratio", [0.2, 1.0, 5.0])
def test_multiples_stay_within_the_domain_of_other_losses(loss, ratio):
    """Against a fine grid of multiples, up to the end of the domain or of the prices."""
    for seed in range(5):
        rng = RNG(seed)
        y = np.where(np.arange(7) % 2, 1.0, -1.0) * (1 if loss != "huber" else 2.0)
        program = program_of(y, loss)
        nu = program.loss.into_domain(rng.uniform(0, 0.4, 7) * y * (1 if seed else 0.01), y)
        top = min(1.0 / ratio, program.loss.reach(nu))
        grid = np.linspace(0.0, top * (1 - 1e-12), 1001)
        most = max(float(program.loss.dual_value(t * nu, y)) for t in grid)
        value, feasible = lower_bound_at(program, nu, ratio)
        assert np.isfinite(program.loss.dual_value(feasible, y))
        assert most * (1 - 1e-9) <= value <= most * (1 + 1e-3) + 1e-12
        assert value <= float(program.loss.dual_value(feasible, y)) + 1e-15


def test_points_that_prove_nothing_give_the_bound_of_zero():
    """NaN, an unknown price, or a point on the wrong side: ν = 0 is feasible always."""
    y = np.array([1.0, -2.0, 0.5])
    program = program_of(y)
    for nu, ratio in (
        (np.array([1.0, np.nan, 0.0]), 1.0),
        (np.array([np.inf, 0.0, 0.0]), 1.0),
        (y, np.inf),
        (y, np.nan),
        (-y, 0.5),
        (0 * y, 0.0),
    ):
        value, feasible = lower_bound_at(program, nu, ratio)
        assert value == 0.0
        assert not feasible.any()
    value, feasible, ratio = lower_bound(program, np.full(3, np.nan))
    assert (value, ratio) == (0.0, 0.0)
    assert not feasible.any()


def test_relative_gaps_of_values_lost_in_rounding_are_measured_by_the_zero_network():
    assert relative_gap(2.0, 1.5, 10.0) == 0.25
    assert relative_gap(-2.0, -2.5, 10.0) == 0.25
    assert relative_gap(1.0, 1.5, 10.0) == -0.5
    eps = np.finfo(float).eps
    assert relative_gap(1e-20, 0.0, 10.0) == pytest.approx(1e-20 / (10 * eps))
    assert relative_gap(0.0, 0.0, 0.0) == 0.0
    assert np.isfinite(relative_gap(0.0, -1e-310, 0.0))


def test_scopes_of_a_part_are_no_scopes_of_the_whole():
    for scope in (GIVEN, FEATURES, f"{FEATURES}: {EXACT}"):
        assert bounds.of_a_part(scope)
    for scope in (EXACT, RELAXED, SEARCH):
        assert not bounds.of_a_part(scope)


SKIPPED = {
    "one line": (np.array([[1.0], [-1.0]]), np.array([1.0, -1.0])),
    "a plane": (RNG(1).standard_normal((7, 2)), RNG(2).standard_normal(7)),
    "antipodal": (np.vstack([np.eye(2), -np.eye(2)]), np.array([1.0, 0.5, -1.0, -0.5])),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_a_skip_connection_prices_too(name):
    """Its price ‖Xᵀν‖ is added to those of the neurons; on a line it is twice theirs."""
    X, nu = SKIPPED[name]
    plain = Problem(X, nu, 0.2)
    problem = plain.replace(architecture=TwoLayer(skip="penalised"))
    neurons = AllPatterns(plain, 20_000)(nu).ratio
    bound = AllPatterns(problem, 20_000)(nu)
    expected = max(neurons, float(np.linalg.norm(X.T @ nu)) / 0.2)
    assert bound.ratio == pytest.approx(expected, rel=1e-8)
    assert bound.scope == EXACT
    if name != "a plane":
        assert bound.ratio == pytest.approx(2 * neurons, rel=1e-8)
    every = problem.architecture.program(problem, arrangements.enumerate(X))
    assert bound.ratio == pytest.approx(lower_bound(every, nu)[2], rel=1e-8)
    assert beta_max(problem) == pytest.approx(0.2 * expected, rel=1e-8)


def optimum_of(problem):
    """The program over every pattern, written out block by block and solved by Clarabel."""
    design, total, penalty, held = problem.design, 0.0, 0.0, []
    linear = problem.architecture.skip == "penalised"
    free = cvxpy.Variable() if problem.architecture.bias == "free" else 0.0
    for mask in np.asarray(arrangements.enumerate(design)):
        for sign in (1.0, -1.0):
            u = cvxpy.Variable(design.shape[1])
            total = total + sign * cvxpy.multiply(mask.astype(float), design @ u)
            held.append(cvxpy.multiply(2.0 * mask - 1.0, design @ u) >= 0)
            penalty = penalty + cvxpy.norm(u[:-1] if problem.architecture.bias == "free" else u)
    if linear:
        u = cvxpy.Variable(design.shape[1])
        total, penalty = total + design @ u, penalty + cvxpy.norm(u)
    loss = 0.5 * cvxpy.sum_squares(total + free - problem.y)
    one = cvxpy.Problem(cvxpy.Minimize(loss + problem.beta * penalty), held)
    one.solve(solver=cvxpy.CLARABEL)
    return float(one.value)


@pytest.mark.parametrize(
    "options", [{}, {"skip": "penalised"}, {"bias": "penalised"}, {"bias": "free"}], ids=str
)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 1), (4, 2)])
def test_no_dual_point_bounds_above_the_optimum_written_out(options, n, d):
    """Whatever way all patterns are priced: by branch and bound, by a list, or relaxed."""
    rng = RNG([n, d])
    problem = Problem(
        rng.standard_normal((n, d)), 1.0 + rng.standard_normal(n), 0.2,
        architecture=TwoLayer(**options),
    )  # fmt: skip
    optimum, scopes = optimum_of(problem), set()
    for effort in (20_000, 3):
        try:
            every = AllPatterns(problem, effort)
        except arrangements.TooManyPatterns:
            continue
        for seed in range(5 if effort > 3 else 1):
            scale = 10.0 ** RNG(seed).uniform(-2, 2)
            nu = problem.y + 0.3 * RNG(seed).standard_normal(n) if seed else problem.y.copy()
            bound = every(scale * nu)
            scopes.add(bound.scope)
            assert bound.value <= optimum * (1 + 1e-7) + 1e-9
            assert bound.value >= 0.0
    assert EXACT in scopes


def test_without_effort_the_bound_is_a_relaxation_and_not_better():
    problem = planted(7, 3)
    exact, relaxed = AllPatterns(problem, 20_000), AllPatterns(problem, 100)
    for seed in range(2):
        nu = RNG(seed).standard_normal(7)
        sharp, loose = exact(nu), relaxed(nu)
        assert (sharp.scope, loose.scope) == (EXACT, RELAXED)
        assert sharp.ratio <= loose.ratio * (1 + 1e-9)
        assert loose.value <= sharp.value + 1e-12
        assert np.isfinite(loose.ratio)
        assert loose.patterns == sharp.patterns == arrangements.count(7, 3)
        # What is scaled by a larger price is the same point, shorter.
        shorter = exact(nu).nu
        assert np.linalg.norm(loose.nu) <= np.linalg.norm(shorter) * (1 + 1e-6)


def test_a_bound_says_over_which_and_how_many_patterns_it_holds():
    problem = planted(8, 2)
    patterns = arrangements.enumerate(problem.design)[:5]
    program = problem.architecture.program(problem, patterns)
    bound = bound_over(program, problem.y)
    assert (bound.scope, bound.patterns) == (GIVEN, 5)
    assert bound_over(program, problem.y, scope=EXACT).scope == EXACT
    value, feasible, ratio = lower_bound(program, problem.y)
    assert (bound.value, bound.ratio) == (value, ratio)
    np.testing.assert_array_equal(bound.nu, feasible)
    prices = [np.linalg.norm(A.T @ problem.y) for A in map(program.atoms.matrix, range(5))]
    assert ratio <= max(prices) / problem.beta * (1 + 1e-12)
    gated = problem.replace(architecture=GatedReLU())
    program = gated.architecture.program(gated, patterns)
    masks = np.asarray(patterns).astype(float)
    own = max(np.linalg.norm(problem.X.T @ (mask * problem.y)) for mask in masks)
    assert bound_over(program, problem.y).ratio == pytest.approx(own / problem.beta, rel=1e-12)
    assert beta_max(gated, patterns) == pytest.approx(own, rel=1e-12)


@pytest.mark.parametrize("bias", ["none", "free"])
def test_the_largest_beta_of_given_patterns_is_where_their_optimum_leaves_zero(bias):
    """Solved on both sides by Clarabel."""
    problem = planted(10, 2).replace(architecture=TwoLayer(bias=bias))
    patterns = arrangements.enumerate(problem.design)[:6]
    largest = beta_max(problem, patterns)
    y = problem.y
    nothing = 0.5 * float((y - (y.mean() if bias == "free" else 0.0)) @ y)
    for beta, used in ((largest * 1.01, False), (largest * 0.95, True)):
        one = problem.replace(beta=beta)
        value = reference.solve_primal(one.architecture.program(one, patterns)).value
        assert (value < nothing * (1 - 1e-6)) == used
        assert value <= nothing * (1 + 1e-6)


def test_deep_networks_are_bounded_by_the_envelope_of_all_points_priced_so_far():
    """Every further dual point can only raise the bound, whatever it is."""
    problem = Problem(
        RNG(0).standard_normal((6, 2)), np.abs(RNG(1).standard_normal(6)), 0.05,
        architecture=StandardDeep(depth=3),
    )  # fmt: skip
    every, before = AllPatterns(problem, 2_000), -np.inf
    for seed in range(5):
        nu = problem.y * RNG(seed).uniform(0.1, 1.0, 6)
        bound = every(nu)
        assert bound.value >= before - 1e-12
        assert bound.scope == RELAXED
        before = bound.value
    assert 0.0 < before <= 0.5 * float(problem.y @ problem.y)
    assert every.envelope is not None
    assert len(every.envelope.points) == 7  # zero, the residual of the zero network, and five
    np.testing.assert_array_equal(every.envelope.points[1], problem.y)
    # At the largest β no bound is above what the zero network pays, and it is attained.
    largest = beta_max(problem)
    one = AllPatterns(problem.replace(beta=largest * (1 + 1e-9)), 2_000)
    assert one(problem.y).value == pytest.approx(0.5 * float(problem.y @ problem.y), rel=1e-9)


def test_an_oracles_relaxed_bound_is_replaced_only_where_neurons_bound_it():
    """`_sharpened` keeps the smaller of the two, and never calls it exact."""
    problem = Problem(
        RNG(3).standard_normal((6, 2)), RNG(4).standard_normal(6), 0.1,
        architecture=Wedge(2),
    )  # fmt: skip
    assert problem.architecture.within_neurons
    every = AllPatterns(problem, 20_000)
    nu = bounds.dual_point(every.program, problem.y)
    units = {name: value[:0] for name, value in every.oracle(nu).units.items()}
    loose = Priced(1e9, False, units, 0)
    found = every._sharpened(nu, 0.0, loose)
    neurons = supremum(problem.design, nu, free_bias=True)
    assert neurons.bound == pytest.approx(found.bound, rel=1e-6)
    assert not found.exact
    sharp = replace(loose, bound=1e-3)
    assert every._sharpened(nu, 0.0, sharp) is sharp
    exact = replace(loose, exact=True)
    assert every._sharpened(nu, 0.0, exact) is exact
    # Units above the target are worth more than a bound, and cones have to be paid for.
    some = replace(loose, units=every.oracle(nu).units)
    assert every._sharpened(nu, 1e-3, some) is some
    assert every._sharpened(nu, 0.0, some).bound == found.bound
    poor = AllPatterns(problem, 5 * 2**4 - 1)
    assert poor._sharpened(nu, 0.0, loose) is loose


@pytest.mark.parametrize("rank", [1, 2])
def test_branch_and_bound_is_tried_where_its_first_cones_are_a_small_share(rank):
    """64 · 2^(rank + 1) cones are enough; with one less the bound is a relaxation."""
    problem = planted(5, 2)
    if rank == 1:
        problem = problem.replace(X=np.outer(problem.X[:, 0], [1.0, 2.0]))
    least = bounds.FIRST * 2 ** (rank + 1)
    assert AllPatterns(problem, least)(problem.y).scope == EXACT
    assert AllPatterns(problem, least - 1)(problem.y).scope == RELAXED
