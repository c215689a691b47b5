"""Dense group blocks: prices, the interior point against Clarabel, both gauges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from landscape import losses
from landscape.architectures import ParallelThreeLayer
from landscape.bounds import lower_bound
from landscape.dense import DenseAtoms, DenseCones, GroupProgram, Parts
from landscape.errors import NotConverged
from landscape.pricing import largest_price, prices, trees
from landscape.pricing.groups import maximiser, projection
from landscape.problem import Problem
from landscape.programs import Euclidean
from landscape.solvers import dense, reference, restricted


def program(seed=0, G=5, n=12, parts=2, size=3, q=7, gauge="parts", loss="squared", free=0):
    """Random blocks whose cones all hold one direction of their own."""
    rng = np.random.default_rng(seed)
    p = parts * size
    rows = rng.standard_normal((G, q, p))
    inside = rng.standard_normal((G, p))
    rows *= np.sign(rows @ inside[:, :, None])
    rows[:, -1] = 0.0  # a row that says nothing
    atoms = DenseAtoms(rng.standard_normal((G, n, p)), {"number": np.arange(G)}, np.full(n, 10.0))
    y = rng.standard_normal(n)
    chosen = losses.get(loss)
    y = np.sign(y) if chosen.classes else y
    norm = {
        "parts": Parts(parts, size),
        "whole": Parts(1, p),
        "euclidean": Euclidean(np.ones(p, dtype=bool)),
    }[gauge]
    A_0 = np.ones((n, free))
    return GroupProgram.of(chosen, y, 0.4, atoms, norm, DenseCones(rows), A_0)


@pytest.mark.parametrize("gauge", ["parts", "whole", "euclidean"])
@pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])
def test_the_interior_point_is_clarabel_only_sharper(gauge, loss):
    problem = program(1, gauge=gauge, loss=loss)
    found, reason = dense.minimise(problem, 1e-9)
    assert not reason
    slow, dual = reference.solve_primal(problem), reference.solve_dual(problem)[0]
    assert found.value == pytest.approx(slow.value, rel=1e-7)
    assert dual == pytest.approx(slow.value, rel=1e-7)
    assert found.gap <= 1e-9
    assert problem.violation(found.theta) <= 1e-12
    bound, _, ratio = lower_bound(problem, found.nu, found.multipliers)
    assert found.value * (1 - 1e-9) <= bound <= found.value
    assert ratio <= 1 + 1e-8


def test_free_directions_cones_that_are_none_and_many_sizes():
    for seed, options in enumerate(
        [{"free": 1}, {"parts": 3, "size": 1}, {"G": 1}, {"G": 30, "n": 8}, {"q": 1}]
    ):
        problem = program(seed, **options)
        found = restricted.minimise(problem, 1e-9)
        assert "dense blocks" in found.status
        assert found.value == pytest.approx(reference.solve_primal(problem).value, rel=1e-7)
    open_ = replace(program(0), cones=None)
    found = restricted.minimise(open_, 1e-9)
    assert found.value == pytest.approx(reference.solve_primal(open_).value, rel=1e-7)


def test_units_spread_over_copies_come_back_in_one():
    problem = program(2)
    twice = problem.take(np.repeat(np.arange(problem.atoms.size), 2))
    one, two = restricted.minimise(problem, 1e-9), restricted.minimise(twice, 1e-9)
    assert two.value == pytest.approx(one.value, rel=1e-8)
    assert two.theta.any(axis=1).sum() == one.theta.any(axis=1).sum()


def test_without_an_interior_the_reference_takes_over_and_says_so():
    problem = program(3, G=2)
    rows = problem.cones.matrices.copy()
    rows[0, 0] = -rows[0, 1]
    problem = replace(problem, cones=DenseCones(rows))
    assert dense.minimise(problem)[0] is None
    found = restricted.minimise(problem, 1e-6)
    assert "Clarabel" in found.status
    assert "no interior" in found.status
    with pytest.raises(NotConverged):
        restricted.minimise(program(0), 1e-16)


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_prices_are_sharp_upper_bounds(parts):
    """Any λ ≥ 0 bounds a price, the best is attained by the maximiser."""
    problem = program(4, parts=parts, G=20)
    rng = np.random.default_rng(0)
    for _ in range(3):
        nu = rng.standard_normal(12)
        xi = problem.atoms.adjoint(nu)
        exact = prices(problem, nu)
        for g in range(problem.atoms.size):
            theta, price = maximiser(problem.gauge, problem.cones.rows(g), xi[g])
            if price <= 1e-6:
                assert exact[g] <= 1e-6  # nothing in the cone gains, and what is left is rounding
                continue
            assert problem.gauge.value(theta[None])[0] == pytest.approx(1.0)
            assert problem.take(np.array([g])).violation(theta[None]) <= 1e-9
            assert xi[g] @ theta == pytest.approx(price, rel=1e-9, abs=1e-9)
            assert exact[g] >= price
            assert exact[g] == pytest.approx(price, rel=1e-9, abs=1e-9)
            multipliers = projection(problem.gauge, problem.cones.rows(g), xi[g])
            other = multipliers * rng.uniform(0.5, 2.0, len(multipliers))
            rest = xi[g] + problem.cones.rows(g).T @ other
            assert problem.gauge.polar(rest[None])[0] >= xi[g] @ theta * (1 - 1e-9)
        assert largest_price(problem, nu)[0] == pytest.approx(exact.max(), rel=1e-9)


# Shares on whose edges the price bends, and such on which it does not depend.
BENT = [
    ([[-1, 0, -2], [1, 2, 1], [-2, 0, -1]], [3, 3, -2], 3.0),
    ([[2, -1, -2], [-1, -2, 2], [-1, 0, -1]], [3, -2, 0], 2.0),
    ([[0, 1, 1, -1], [0, -1, 0, 1], [0, 0, 0, 0]], [0, 1, -2, 2], 1.5),
    ([[0, 0, 0, 0]], [1, -2, 5, 3], 5.0),
    (  # pair by pair, shares stopped at 2.3356899 (linear programming: the sum is that of |θ|)
        [
            [-0.46, 1.65, 0.18, 1.42],
            [2.25, -0.78, 0.28, -0.29],
            [0.92, 1.27, 0.11, 0.83],
            [-0.29, 1.08, -0.56, -2.47],
        ],
        [0.0, 0.37, 2.57, -1.55],
        2.299858577866942,
    ),
]


@pytest.mark.parametrize(("rows", "xi", "expected"), BENT)
def test_the_best_unit_attains_the_price_whatever_the_shares(rows, xi, expected):
    rows, xi = np.array(rows, dtype=float), np.array(xi, dtype=float)
    theta, price = maximiser(Parts(len(xi), 1), rows, xi)
    assert price == pytest.approx(expected, rel=1e-12)
    assert xi @ theta == pytest.approx(expected, rel=1e-9)
    assert np.abs(theta).sum() == pytest.approx(1.0, rel=1e-12)
    assert (rows @ theta >= -1e-12).all()


@pytest.mark.parametrize("parts", [2, 3, 4, 6])
@pytest.mark.parametrize("kind", ["open", "opposite rows", "one row many times", "many rows"])
def test_price_and_best_unit_prove_each_other(parts, kind):
    """Both are found apart; where they agree neither can be wrong."""
    for seed in range(12):
        rng = np.random.default_rng([seed, parts])
        size = int(rng.integers(1, 4))
        rows = rng.standard_normal((50 if kind == "many rows" else 6, parts * size))
        xi = rng.standard_normal(parts * size)
        if kind == "many rows":
            rows *= np.sign(rows @ rng.standard_normal(parts * size))[:, None]
        if kind == "opposite rows":
            rows[1] = -rows[0]
        if kind == "one row many times":
            rows[2:] = rows[0] * 10.0 ** rng.uniform(-6, 6, (4, 1))
        gauge = Parts(parts, size)
        theta, price = maximiser(gauge, rows, xi)
        if price < 1e-9:
            continue
        assert gauge.value(theta[None])[0] == pytest.approx(1.0, rel=1e-12)
        assert (rows @ theta >= -1e-10 * np.linalg.norm(rows, axis=1)).all()
        assert xi @ theta == pytest.approx(price, rel=1e-7, abs=1e-9)
        multipliers = projection(gauge, rows, xi)
        assert (multipliers >= 0).all()
        rest = xi + rows.T @ multipliers
        assert xi @ theta <= gauge.polar(rest[None])[0] * (1 + 1e-9) <= price * (1 + 2e-9)


def test_multipliers_that_are_wrong_cost_nothing_but_time():
    problem = program(5)
    found = restricted.minimise(problem, 1e-9)
    good = lower_bound(problem, found.nu, found.multipliers)[0]
    bad = lower_bound(problem, found.nu, 5.0 + np.abs(found.multipliers))[0]
    assert bad == pytest.approx(good, rel=1e-9)
    assert lower_bound(problem, found.nu, -found.multipliers)[0] <= found.value


def test_gauges_are_polar_to_each_other():
    rng = np.random.default_rng(1)
    gauge = Parts(3, 2)
    theta, xi = rng.standard_normal((2, 100, 6))
    products = np.abs((theta * xi).sum(axis=1))
    assert (products <= gauge.value(theta) * gauge.polar(xi) * (1 + 1e-12)).all()
    whole = Parts(1, 6)
    np.testing.assert_allclose(whole.value(theta), np.linalg.norm(theta, axis=1))
    np.testing.assert_allclose(whole.polar(xi), np.linalg.norm(xi, axis=1))


def test_violation_sees_a_block_outside_its_cone():
    problem = program(6)
    inside = restricted.minimise(problem, 1e-9).theta
    assert problem.violation(inside) <= 1e-12
    assert problem.violation(-inside) > 1e-3


@pytest.mark.parametrize("regulariser", ["path", "cubic"])
def test_searches_count_what_units_attain_not_what_bounds_them(regulariser, monkeypatch):
    rng = np.random.default_rng(5)
    architecture = ParallelThreeLayer(regulariser=regulariser)
    X, y, nu = rng.standard_normal((5, 2)), rng.standard_normal(5), rng.standard_normal(5)
    problem = Problem(X, y, 0.1, architecture=architecture)
    exact = architecture.oracle(problem, 200_000)(nu)
    best = trees.maximiser

    def loose(gauge, rows, xi):
        theta, price = best(gauge, rows, xi)
        return theta, 2.0 * price

    monkeypatch.setattr(trees, "maximiser", loose)
    found = architecture.oracle(problem, 10)(nu, 1e9)  # nothing prices so high: all are polished
    assert 0.9 * exact.bound <= found.attained <= exact.bound * (1 + 1e-9)
