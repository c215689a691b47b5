"""The set of optima: the published table as integers, brute force over supports, symmetry."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial

import cvxpy
import numpy as np
import pytest
import torch
from cases import kgon, planted
from optima import optima_of, supports, supports_by_linear_programs

from landscape import arrangements, data, solve
from landscape.architectures import GatedReLU, TwoLayer
from landscape.bounds import beta_max, residual
from landscape.errors import BadInput, NotConverged
from landscape.optimal_set import OptimalSet, Polytope
from landscape.problem import Problem


def toy():
    x = np.array([[-math.sqrt(3), 1.0], [math.sqrt(3), 1.0]])
    return Problem(x, np.ones(2), 0.1)


def made(name):
    sample = data.load(name)
    return Problem(sample.X, sample.y, sample.beta)


def square_with_bias():
    X = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    return Problem(X, np.array([1.0, -1.0, -1.0, 1.0]), 0.1, architecture=TwoLayer("penalised"))


SYMMETRIC = {
    **{name: partial(made, name) for name in ("octahedron", "cube", "two_rings")},
    "square with bias": square_with_bias,
}


# Directions, m*, M*, the theorem's width, and the width from which on the set is connected: for the
# octahedron and the rings it is connected before the theorem says so.
EXPECTED = {
    "octahedron": (8, 2, 4, 6, 5),
    "cube": (6, 2, 2, 4, 4),
    "two_rings": (12, 6, 8, 13, 9),
    "square with bias": (4, 4, 4, 5, 5),
}


@pytest.mark.parametrize(
    ("problem", "directions", "rank", "m_star", "M_star", "threshold", "table"),
    [
        (toy(), 3, 2, 1, 2, 3, {1: (0, 1), 2: (1, 2), 3: (1, 0)}),
        (kgon(3), 6, 3, 2, 3, 4, {2: (0, 6), 3: (3, 12), 4: (1, 0)}),
        (kgon(4), 4, 3, 2, 2, 4, {2: (0, 4), 3: (2, 0), 4: (1, 0)}),
        (kgon(6), 6, 5, 3, 3, 6, {3: (0, 12), 4: (2, 0), 5: (2, 0), 6: (1, 0)}),
    ],
)
def test_the_published_staircases(problem, directions, rank, m_star, M_star, threshold, table):
    optima = optima_of(problem)
    assert (len(optima.signs), optima.polytope.rank) == (directions, rank)
    assert (optima.m_star, optima.M_star) == (m_star, M_star)
    assert optima.theorem_width == threshold == min(m_star + M_star, len(problem.y) + 1)
    assert {m: tuple(optima.components(m)) for m in table} == table
    assert optima.scope == "all patterns, exact" and optima.listed
    assert optima.spread < 1e-9 and optima.separation > 0.1


def test_where_the_set_is_connected_before_the_theorem_says_so():
    """And connectivity is not monotone: 12 points are connected at width 6 and not at 7."""
    found = {k: optima_of(kgon(k)) for k in (5, 7, 8, 10, 12)}
    widths = {k: (o.theorem_width, o.connected_width) for k, o in found.items()}
    assert widths == {5: (6, 6), 7: (8, 8), 8: (9, 6), 10: (11, 8), 12: (10, 8)}
    assert tuple(found[12].components(6)) == (1, 0)
    assert tuple(found[12].components(7)) == (1, 12 * math.factorial(7))


@pytest.mark.parametrize(
    "problem", [toy(), *(kgon(k) for k in (3, 4, 5, 6, 8)), *(f() for f in SYMMETRIC.values())]
)
def test_vertices_are_those_of_linear_programs_over_all_supports(problem):
    optima = optima_of(problem)
    assert len(optima.signs) <= 14
    assert supports(optima) == supports_by_linear_programs(optima)


@pytest.mark.parametrize(
    "problem", [toy(), *(kgon(k) for k in (3, 4, 5, 6, 8)), *(f() for f in SYMMETRIC.values())]
)
def test_components_are_those_of_all_faces(problem):
    """No edges: every face {c : supp c ⊆ U} is convex, so all vertices in it are connected."""
    optima = optima_of(problem)
    K, own = len(optima.signs), [set(s) for s in supports(optima)]
    for width in range(optima.m_star, min(optima.theorem_width + 2, K + 1)):
        inside = [i for i, s in enumerate(own) if len(s) < width]
        group = {i: i for i in inside}
        for U in itertools.combinations(range(K), width):
            there = [i for i in inside if own[i] <= set(U)]
            for i in there[1:]:
                old, new = group[i], group[there[0]]
                group = {k: new if g == old else g for k, g in group.items()}
        alone = sum(len(s) == width for s in own)
        expected = (len(set(group.values())), math.factorial(width) * alone)
        assert tuple(optima.components(width)) == expected


@pytest.mark.parametrize("k", [7, 11])
def test_vertices_have_the_symmetry_of_the_data(k):
    """Thousands of them; for prime k all but two lie in orbits of k."""
    optima = optima_of(kgon(k))
    angle = 2 * np.pi / k
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    to = [int(np.linalg.norm(optima.directions - turn @ u, axis=1).argmin()) for u in
          optima.directions]  # fmt: skip
    assert sorted(to) == list(range(2 * k))
    found = supports(optima)
    assert {tuple(sorted(to[i] for i in s)) for s in found} == found
    assert len(found) % k == 2
    assert len(found) == {7: 198, 11: 6272}[k]


@pytest.mark.parametrize("name", SYMMETRIC)
def test_own_symmetric_sets_against_the_theorem(name):
    optima = optima_of(SYMMETRIC[name]())
    found = (
        len(optima.signs), optima.m_star, optima.M_star, optima.theorem_width,
        optima.connected_width,
    )  # fmt: skip
    assert found == EXPECTED[name]
    assert optima.connected_width <= optima.theorem_width
    for width in range(optima.connected_width, optima.theorem_width + 3):
        assert sum(optima.components(width)) == 1
    if optima.connected_width > max(optima.m_star, 1):
        assert sum(optima.components(optima.connected_width - 1)) > 1


@pytest.mark.parametrize("problem", [kgon(5), made("cube"), square_with_bias()])
def test_every_member_is_an_optimal_network(problem):
    optima = optima_of(problem)
    best, rng = optima.solution.objective, np.random.default_rng(0)
    shares = rng.dirichlet(np.full(len(optima.vertices), 0.3), 20)
    for c in [*optima.vertices, *(shares @ optima.vertices)]:
        network = optima.network(c)
        assert float(problem.objective(network)) == pytest.approx(best, rel=1e-10)
        assert len(network.values["output"]) == (c > 0).sum()
        assert optima.coefficients(network) == pytest.approx(c, abs=1e-9)
    split = optima.network(optima.vertices[0]).values
    halves = {k: torch.cat([v, v]) / math.sqrt(2) for k, v in split.items()}
    assert optima.coefficients(halves) == pytest.approx(optima.vertices[0], abs=1e-9)


def test_extreme_members():
    problem = kgon(5)
    optima = optima_of(problem)
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((40, 2)), rng.standard_normal(40)
    some = rng.dirichlet(np.full(len(optima.vertices), 0.3), 200) @ optima.vertices

    def held_out(c):
        return float(0.5 * ((optima.outputs(X) @ c - y) ** 2).sum())

    best = held_out(optima.best(X, y))
    assert best <= min(held_out(c) for c in [*some, *optima.vertices]) * (1 + 1e-7)
    with torch.no_grad():
        outputs = optima.network(optima.best(X, y))(X).numpy()
    assert 0.5 * ((outputs - y) ** 2).sum() == pytest.approx(best, rel=1e-5)
    least = (optima.smallest() ** 2).sum()
    assert least <= (some**2).sum(axis=1).min() * (1 + 1e-9)
    lengths = np.abs(optima.directions).sum(axis=1)
    assert optima.largest_l1() @ lengths >= (some @ lengths).max() * (1 - 1e-9)
    assert (optima.least() > 0).sum() == optima.m_star
    assert (optima.most() > 0).sum() == len(optima.signs)
    for c in (optima.smallest(), optima.largest_l1(), optima.most(), optima.best(X, y)):
        assert np.abs(optima.features @ c - optima.fit).max() <= 1e-6


def test_routes_stay_in_the_set_and_within_the_width():
    problem = kgon(6)
    optima = optima_of(problem)
    first, last = optima.vertices
    with pytest.raises(BadInput, match="different components of the set at width 5"):
        optima.route(first, last, 5)
    for start, end in ((first, last), (0.3 * first + 0.7 * last, last)):
        route = optima.route(start, end, 6)
        assert np.array_equal(route[0], start) and np.array_equal(route[-1], end)
        for a, b in itertools.pairwise(route):
            assert ((a > 0) | (b > 0)).sum() <= 6
            for t in np.linspace(0, 1, 11):
                value = float(problem.objective(optima.network((1 - t) * a + t * b)))
                assert value == pytest.approx(optima.solution.objective, rel=1e-10)
    twelve = optima_of(kgon(12))
    labels = twelve.polytope.components(5)
    for i, j in itertools.combinations(np.flatnonzero(labels >= 0), 2):
        ends = twelve.vertices[i], twelve.vertices[j]
        if labels[i] == labels[j]:
            assert len(twelve.route(*ends, 5)) >= 2
        else:
            with pytest.raises(BadInput, match="different components"):
                twelve.route(*ends, 5)


def test_real_and_planted_data_have_one_optimum():
    problem = planted(50, 3)
    optima = optima_of(problem)
    assert optima.unique
    assert (optima.m_star, optima.M_star, len(optima.vertices)) == (9, 9, 1)
    assert tuple(optima.components(9)) == (0, math.factorial(9))
    assert tuple(optima.components(10)) == (1, 0)
    assert optima.spread < 1e-8 < optima.separation
    searched = optima_of(problem, limit=100)
    assert not searched.listed
    assert supports(searched) == supports(optima)
    order = [
        int(np.linalg.norm(optima.directions - u, axis=1).argmin()) for u in searched.directions
    ]
    assert searched.directions == pytest.approx(optima.directions[order], abs=1e-6)


def noise(n, d, seed=0, beta=0.02, **options):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    return Problem(X, y, beta, **options)


@pytest.mark.parametrize("bias", ["none", "penalised"])
@pytest.mark.parametrize("n", [20, 25])
def test_small_beta_makes_a_family_of_networks_that_are_one_function(bias, n):
    """In general position: no symmetry of the data takes part."""
    d = 2 if bias == "none" else 1
    problem = noise(n, d, architecture=TwoLayer(bias))
    optima = optima_of(problem)
    pairs, p = len(optima.signs) / 2, problem.design.shape[1]
    assert np.abs(problem.design.T @ residual(optima.solution.point)).max() < 1e-10
    apart = np.linalg.norm(optima.directions[:, None] + optima.directions, axis=2)
    assert apart.min(axis=1).max() < 1e-7  # every direction comes with its opposite
    assert pairs > p and optima.polytope.rank == pairs + p
    assert not optima.unique and optima.one_function
    assert optima.m_star == optima.M_star == pairs + p
    assert optima.connected_width == pairs + p + 1 < optima.theorem_width
    at = 10 * np.random.default_rng(1).standard_normal((200, d))
    outputs = optima.outputs(at) @ optima.vertices.T
    assert np.ptp(outputs, axis=1).max() < 1e-8 * np.abs(outputs).max()
    assert np.ptp(optima.vertices, axis=0).max() > 0.01 * optima.vertices.max()


def test_that_family_is_the_optimum_with_absolute_values_and_a_free_linear_part():
    """Clarabel on another program: (x)_+ = ½|x| + ½x, and the linear part costs nothing."""
    problem = noise(20, 2)
    v, terms, cost, held = cvxpy.Variable(2), [], [], []
    for mask in np.asarray(arrangements.enumerate(problem.X)):
        signed = (2.0 * mask - 1)[:, None] * problem.X
        for sign in (1, -1):
            u = cvxpy.Variable(2)
            terms.append(sign * signed @ u / 2)
            cost.append(cvxpy.norm(u))
            held.append(signed @ u >= 0)
    rest = sum(terms) + problem.X @ v - problem.y
    free = cvxpy.Problem(
        cvxpy.Minimize(cvxpy.sum_squares(rest) / 2 + problem.beta * sum(cost)), held
    )
    optimum = free.solve(solver=cvxpy.CLARABEL)
    assert optimum == pytest.approx(solve(problem, tolerance=1e-8).objective, rel=1e-7)
    # At a large β the linear part is not free.
    large = problem.replace(beta=0.5 * beta_max(problem))
    free = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(rest) / 2 + large.beta * sum(cost)), held)
    assert free.solve(solver=cvxpy.CLARABEL) < 0.99 * solve(large, tolerance=1e-8).objective


@pytest.mark.parametrize(
    "problem",
    [toy(), kgon(3), kgon(4), kgon(6), kgon(8), kgon(10), made("cube"), square_with_bias(),
     kgon(4, architecture=GatedReLU()), kgon(6, architecture=GatedReLU("penalised"))],
)  # fmt: skip
def test_one_function_is_what_outputs_say(problem):
    optima = optima_of(problem)
    at = 5 * np.random.default_rng(0).standard_normal((2000, problem.X.shape[1]))
    spread = np.ptp(optima.outputs(at) @ optima.vertices.T, axis=1).max()
    assert optima.one_function == (spread < 1e-8)


def test_the_zero_network_is_a_set_of_one():
    optima = optima_of(kgon(4, beta=2.0))
    assert optima.unique and (optima.m_star, optima.M_star) == (0, 0)
    for width in (0, 1, 5):
        assert tuple(optima.components(width)) == (0, 1)
    assert optima.network(optima.least()).values["output"].shape == (0,)


def test_a_huge_polytope_says_what_is_known():
    optima = optima_of(kgon(9), rays=50)
    assert not optima.polytope.complete
    assert "more than 50 rays" in optima.polytope.status
    low, high = optima.m_star_bounds
    assert low <= 8 <= high
    low, high = optima.M_star_bounds
    assert low <= 9 <= high
    assert not optima.unique
    assert not optima.one_function
    low, high = optima.connected_bounds
    assert low <= 10 <= high
    with pytest.raises(BadInput, match="connected_width is only known to lie between"):
        _ = optima.connected_width
    for refused in (lambda: optima.edges, lambda: optima.components(9)):
        with pytest.raises(BadInput, match="more than 50 rays"):
            refused()
    short = optima_of(kgon(9), seconds=0.0)
    assert "longer than 0 s" in short.polytope.status


def test_the_fewest_by_mixed_integer_programming():
    for problem in (toy(), kgon(5), kgon(8), kgon(12), made("cube")):
        optima = optima_of(problem)
        assert optima.polytope.fewest() == (optima.m_star, optima.m_star)


def test_gated_networks_have_a_polytope_too():
    problem = kgon(4, architecture=GatedReLU())
    optima = optima_of(problem)
    assert supports(optima) == supports_by_linear_programs(optima)
    assert not optima.unique
    for c in optima.vertices:
        value = float(problem.objective(optima.network(c)))
        assert value == pytest.approx(optima.solution.objective, rel=1e-9)
    with pytest.raises(BadInput, match="fixed gates"):
        optima.components(3)


def test_gated_optima_keep_the_patterns_of_their_gates():
    """A gate's pattern is not the sign of its weights: on random data the two differ."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 8)), rng.standard_normal(30)
    problem = Problem(X, y, 0.05, architecture=GatedReLU())
    gates = arrangements.sample(X, 40, seed=0)
    solution = solve(problem, gates, tolerance=1e-10)
    optima = OptimalSet(solution, patterns=gates)
    assert ((optima.directions @ X.T >= 0) != optima.masks).any()
    assert optima.unique and optima.polytope.rank == len(optima.signs) == solution.active
    network = optima.network(optima.least())
    assert float(problem.objective(network)) == pytest.approx(solution.objective, rel=1e-9)
    assert optima.coefficients(network) == pytest.approx(optima.least(), rel=1e-8)
    assert optima.coefficients(solution.network()) == pytest.approx(optima.least(), rel=1e-5)


def test_a_dual_point_that_is_too_rough_is_refused():
    solution = solve(kgon(5), tolerance=1e-2)
    rough = replace(solution, point=replace(solution.point, theta=0.999 * solution.point.theta))
    with pytest.raises(NotConverged, match="too rough to tell"):
        OptimalSet(rough)


def test_given_patterns_are_those_of_the_solution():
    problem = kgon(6)
    every = arrangements.enumerate(problem.design)
    solution = solve(problem, every, tolerance=1e-8)
    with pytest.raises(BadInput, match="pass patterns="):
        OptimalSet(solution)
    optima = OptimalSet(solution, patterns=every)
    assert optima.scope == "given patterns"
    assert len(optima.signs) == 6


def test_what_is_no_polytope_is_refused():
    X, y = kgon(6).X, np.array([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
    for loss in ("huber", "hinge"):
        solution = solve(Problem(X, y, 0.1, loss=loss), tolerance=1e-5)
        with pytest.raises(BadInput, match="not strictly convex"):
            OptimalSet(solution)
    free = solve(Problem(X, y, 0.1, architecture=TwoLayer("free")))
    with pytest.raises(BadInput, match="free bias"):
        OptimalSet(free)
    outputs = np.column_stack([y, y])
    architecture = GatedReLU(outputs="nuclear")
    several = solve(Problem(X, outputs, 0.1, architecture=architecture), arrangements.enumerate(X))
    with pytest.raises(BadInput, match="several outputs"):
        OptimalSet(several)
    optima = optima_of(kgon(6))
    with pytest.raises(BadInput, match="non-negative"):
        optima.network(-np.ones(6))
    with pytest.raises(BadInput, match="optimal fit"):
        optima.network(np.ones(6))
    with pytest.raises(BadInput, match="another fit"):
        optima.coefficients({k: 1.1 * v for k, v in optima.network(optima.least()).values.items()})


def test_logistic_optima_have_one_fit_too():
    problem = Problem(kgon(6).X, np.array([1.0, -1.0] * 3), 0.05, loss="logistic")
    optima = optima_of(problem)
    assert supports(optima) == supports_by_linear_programs(optima)


def test_a_polytope_by_hand():
    """The square 0 ≤ x, y ≤ 1 with slacks, and a degenerate corner (an inequality twice)."""
    A = np.array([[1.0, 0, 1, 0, 0], [0, 1, 0, 1, 0], [1, 1, 0, 0, 1]])
    square = Polytope(A, np.array([1.0, 1.0, 2.0]))
    assert len(square.vertices) == 4 and len(square.edges) == 4
    assert not square.unique
    assert square.largest(np.array([1.0, 2.0, 0, 0, 0]))[0] == pytest.approx(3.0)
    corner = square.vertices[0]
    assert corner == pytest.approx([1, 1, 0, 0, 0]) and (corner > 0).sum() == 2
