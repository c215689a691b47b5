"""Prices of blocks: what multipliers bound, ties, exact sums, sums of norms, balanced data."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import cvxpy
import numpy as np
import pytest

from landscape import arrangements
from landscape.architectures import TwoLayer
from landscape.dense import Parts
from landscape.errors import BadInput
from landscape.pricing import balance, blocks, coarse_prices, groups, largest_price, prices
from landscape.problem import Problem
from landscape.programs import Euclidean

RNG = np.random.default_rng

DESIGNS = {
    "one number": np.array([[2.0]]),
    "a line": np.array([[1.0], [-2.0], [0.5]]),
    "generic": RNG(0).standard_normal((6, 2)),
    "duplicates": RNG(1).standard_normal((3, 2))[[0, 1, 2, 0, 1]] * [[1], [1], [1], [2], [1]],
    "antipodal": np.vstack([np.eye(2), -np.eye(2), [[1.0, 1.0]]]),
    "zero rows": np.vstack([np.zeros((2, 2)), RNG(2).standard_normal((3, 2))]),
    "rank deficient": np.outer([1.0, -1.0, 2.0, 0.5], [1.0, 2.0, -1.0]),
}


def whole(X, bias="none"):
    """The program over every pattern."""
    problem = Problem(X, np.ones(len(X)), 0.3, architecture=TwoLayer(bias))
    return problem.architecture.program(problem, arrangements.enumerate(problem.design))


def block_prices(program, nu):
    """Each block's price as a convex program of its own: sup ⟨A_gᵀν, u⟩, ‖u‖ ≤ 1, u in the cone."""
    found = []
    for g in range(program.atoms.size):
        u = cvxpy.Variable(program.atoms.dimension)
        held = [cvxpy.norm(u) <= 1, program.cones.rows(g) @ u >= 0]
        one = cvxpy.Problem(cvxpy.Maximize((program.atoms.matrix(g).T @ nu) @ u), held)
        one.solve(solver=cvxpy.CLARABEL)
        found.append(float(one.value))
    return np.array(found)


@pytest.mark.parametrize("name", DESIGNS)
def test_prices_are_the_optima_of_their_convex_programs(name):
    """And multipliers, however bad, change no answer: the largest price stays what it is."""
    X = DESIGNS[name]
    program, rng = whole(X), RNG(3)
    nu = rng.standard_normal(len(X))
    exact, found = block_prices(program, nu), prices(program, nu)
    np.testing.assert_allclose(found, exact, atol=1e-6)
    top = found.max()
    coarse = coarse_prices(program, nu, program.atoms.adjoint(nu))
    assert (coarse >= found).all()
    for scale in (0.0, 1.0, -1.0, 1e3):
        multipliers = scale * rng.random((program.atoms.size, len(X)))
        largest, block = largest_price(program, nu, multipliers)
        assert largest == pytest.approx(top, rel=1e-10, abs=1e-13)
        assert found[block] == pytest.approx(top, rel=1e-10, abs=1e-13)
    settled = prices(program, nu, settled=0.5 * top)
    assert (settled >= found * (1 - 1e-12)).all()
    sharp = coarse > 0.5 * top
    np.testing.assert_allclose(settled[sharp], found[sharp], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(settled[~sharp], coarse[~sharp])


def test_good_multipliers_spare_the_projections(monkeypatch):
    """Those of the projections themselves make the coarse bounds sharp at once."""
    program = whole(DESIGNS["generic"])
    nu = RNG(4).standard_normal(6)
    xi = program.atoms.adjoint(nu)
    multipliers = np.array(
        [
            blocks.least_squares(program.cones.rows(g).T, -xi[g])[0]
            for g in range(program.atoms.size)
        ]
    )
    expected, calls = largest_price(program, nu), []
    price = blocks._cone_price

    def counted(*given):
        calls.append(given)
        return price(*given)

    monkeypatch.setattr(blocks, "_cone_price", counted)
    found = largest_price(program, 2.0**40 * nu, 2.0**40 * multipliers)
    assert found[0] == pytest.approx(2.0**40 * expected[0], rel=1e-12)
    assert found[1] == expected[1]
    assert len(calls) <= 2


@pytest.mark.parametrize("scale", [1.0, 2.0**-600, 2.0**600])
def test_prices_scale_with_their_dual_point(scale):
    program = whole(DESIGNS["generic"])
    nu = RNG(5).standard_normal(6)
    np.testing.assert_allclose(prices(program, scale * nu) / scale, prices(program, nu), rtol=1e-13)
    assert largest_price(program, scale * nu)[0] / scale == largest_price(program, nu)[0]


@pytest.mark.parametrize("seed", range(6))
def test_prices_resolved_cover_every_way_to_resolve_the_ties(seed):
    """Every pattern that differs on ties only, each priced exactly, whatever D stands there."""
    rng = RNG(seed)
    X = rng.standard_normal((6, 2))
    program, nu = whole(X), rng.standard_normal(6)
    G = program.atoms.size
    masks = program.atoms.masks[program.atoms.index].astype(float)
    tied = rng.random((G, 6)) < 0.4
    masks = np.where(tied, rng.random((G, 6)), masks)
    bounds = blocks.resolved_prices(program, nu, masks, tied)
    reached = False
    for g in range(G):
        at = np.flatnonzero(tied[g])
        for sides in product([False, True], repeat=len(at)):
            on = masks[g] > 0.5
            on[at] = sides
            rows = np.where(on, 1.0, -1.0)[:, None] * X
            xi = program.atoms.signs[g] * X.T @ (on * nu)
            price = blocks.least_squares(rows.T, -xi)[1]
            assert bounds[g] >= price * (1 - 1e-12)
            reached |= bool(bounds[g] <= price + 1e-6 * np.abs(nu).sum()) and len(at) > 0
        if not len(at):
            own = np.linalg.norm(X.T @ (masks[g] * nu))
            assert bounds[g] == pytest.approx(own, rel=1e-12)
    np.testing.assert_allclose(
        blocks.resolved_prices(program, 2.0**300 * nu, masks, tied), 2.0**300 * bounds
    )


@pytest.mark.parametrize("seed", range(10))
def test_products_that_cancel_are_exact_and_never_below(seed):
    rng = RNG(seed)
    a, b = rng.standard_normal(30), rng.standard_normal(30) * 10.0 ** rng.integers(-8, 9, 30)
    a, b = np.append(a, 1.0), np.append(b, -float(a @ b))
    exact = abs(sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)))
    found = blocks.size_of_product(a, b)
    assert exact <= Fraction(found)
    assert found == pytest.approx(float(exact), rel=1e-14)
    assert blocks.size_of_product(-a, b) == found
    assert blocks.size_of_product(np.array([1e300]), np.array([1e300])) == np.inf


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_no_neuron_lets_more_through_than_the_sizes_of_samples(bias):
    """A free bias is as large as the farthest sample: the neuron is then zero on some sample."""
    X = 2.0 * RNG(6).standard_normal((7, 2)) + 1.0
    program = whole(X, bias)
    sizes = blocks.sample_sizes(program)
    radius = blocks.free_coordinate_radius(program)
    lengths = np.linalg.norm(X, axis=1)
    expected = {
        "none": lengths,
        "penalised": np.hypot(lengths, 1.0),
        "free": lengths + lengths.max(),
    }[bias]
    np.testing.assert_allclose(sizes, expected)
    if bias == "free":
        assert radius == pytest.approx(lengths.max())
        rng = RNG(7)
        for w in rng.standard_normal((200, 2)):
            w /= np.linalg.norm(w)
            for x in X:  # a neuron that vanishes on a sample
                assert (np.abs(X @ w - x @ w) <= sizes * (1 + 1e-12)).all()


def test_what_is_left_along_a_free_bias_is_charged_by_its_radius():
    """Multipliers that leave an equality open are charged |rest| times the largest bias."""
    X = np.array([[1.0], [-2.0], [3.0]])
    program, nu = whole(X, "free"), np.array([1.0, -2.0, 1.0])
    xi = program.atoms.adjoint(nu)
    coarse = coarse_prices(program, nu, xi)
    np.testing.assert_allclose(coarse, np.abs(xi[:, 0]) + 3.0 * np.abs(xi[:, 1]), atol=1e-12)
    for w, b in ((1.0, 2.0), (1.0, -1.0), (1.0, -3.0), (-1.0, -2.0), (-1.0, 3.0), (-1.0, 1.0)):
        value = np.maximum(w * X[:, 0] + b, 0.0) @ nu
        assert abs(value) <= largest_price(program, nu)[0] * (1 + 1e-12)


def test_what_is_not_finite_has_no_price():
    program = whole(DESIGNS["a line"])
    for bad in (np.nan, np.inf):
        for nu in (np.full(3, bad), np.array([1.0, bad, 2.0])):
            with pytest.raises(BadInput, match="finite"):
                blocks.resolved_prices(program, nu, np.ones((6, 3)), np.ones((6, 3)) > 0)
            with pytest.raises(BadInput, match="finite"):
                largest_price(program, nu)


@pytest.mark.parametrize("seed", range(5))
def test_rounding_is_charged_whatever_the_multipliers_are(seed):
    """On a line ξ + Gᵀλ is a sum of numbers, here in rational arithmetic; much of it cancels."""
    rng = RNG(seed)
    x, nu = rng.standard_normal(12), rng.standard_normal(12)
    program = whole(x[:, None])
    G = program.atoms.size
    multipliers = rng.random((G, 12)) * 10.0 ** rng.integers(-2, 5, (G, 12))
    found = blocks._bounds_by(program, nu, program.atoms.adjoint(nu), multipliers)
    for g in range(G):
        mask, sign = program.atoms.masks[program.atoms.index[g]], program.atoms.signs[g]
        rest = Fraction(0)
        for k in range(12):
            pull = Fraction(float(sign * nu[k])) if mask[k] else Fraction(0)
            side = 1 if mask[k] else -1
            rest += (pull + side * Fraction(float(multipliers[g, k]))) * Fraction(float(x[k]))
        assert abs(rest) <= Fraction(float(found[g]))
        assert found[g] <= float(abs(rest)) + 1e-9 * (multipliers[g] @ np.abs(x) + 1.0)


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("scale", [1.0, 1e-170, 1e170])
def test_balanced_samples_are_the_samples_again(name, scale):
    """Terms |ν_k| x_k = 2^e · weighted, entries at most one, zero terms gone."""
    X = DESIGNS[name]
    nu = RNG(8).standard_normal(len(X))
    nu[0] = 0.0 if len(X) > 1 else 1.0
    found = balance.balanced(scale * X, nu / scale)
    kept = (nu != 0) & X.any(axis=1)
    assert len(found.side) == kept.sum()
    np.testing.assert_allclose(
        np.ldexp(found.weighted, found.exponent), np.abs(nu[kept])[:, None] * X[kept], rtol=1e-12
    )
    np.testing.assert_array_equal(found.side, np.sign(nu[kept]))
    largest = np.abs(found.samples).max(axis=1)
    assert ((largest >= 0.5) & (largest < 1.0)).all()
    assert 0.25 <= np.abs(found.weighted).max() < 1.0
    cosine = (found.samples * X[kept]).sum(axis=1) / (
        np.linalg.norm(found.samples, axis=1) * np.linalg.norm(X[kept], axis=1)
    )
    np.testing.assert_allclose(cosine, 1.0)
    assert (found.stretch, found.farthest) == (0, 0.0)


def test_a_free_bias_is_measured_by_the_other_columns():
    X = np.array([[300.0, -400.0, 1.0], [30.0, 40.0, 1.0]])
    found = balance.balanced(X, np.array([1.0, -1.0]), free_bias=True)
    assert found.stretch == 9  # 2^8 ≤ 400 < 2^9
    assert found.farthest == 500.0 / 2.0**9
    u, b = np.array([0.6, -0.8]), 0.3
    here = found.weighted @ np.append(u, b)  # b in units of 2^stretch
    there = np.array([1.0, 1.0]) * (X[:, :2] @ u + b * 2.0**9)
    np.testing.assert_allclose(np.ldexp(here, found.exponent), there)


def test_samples_far_below_every_rounding_error_go():
    X, nu = np.ones((3, 1)), np.array([1.0, 2.0**-398, 2.0**-420])
    assert len(balance.balanced(X, nu).side) == 2
    nothing = balance.balanced(X, np.zeros(3))
    assert (len(nothing.side), nothing.exponent) == (0, 0)


@pytest.mark.parametrize(
    ("bound", "exponent"), [(1.5, 3), (1.0, -1070), (1.0 + 2.0**-52, -1040), (0.7, -2000)]
)
def test_magnified_bounds_are_never_rounded_down(bound, exponent):
    found = balance.magnified(bound, exponent)
    assert Fraction(found) >= Fraction(bound) * Fraction(2) ** exponent
    assert found <= float(np.ldexp(bound, exponent)) + 1e-323


def test_magnified_bounds_beyond_floating_point_are_infinite():
    assert balance.magnified(1.0, 1100) == np.inf
    assert balance.magnified(np.nan, 0) == np.inf
    assert balance.magnified(np.inf, -5) == np.inf
    assert balance.magnified(0.0, -2000) == 0.0
    for value, exponent in ((1.0, 1), (0.75, 0), (0.5, 0), (0.0, 0), (-3.0, 2)):
        assert balance.exponent_of(np.array([value])) == exponent


def cone(seed, q, p):
    """Rows of a cone with an interior, one of them zero where there are several."""
    rng = RNG([seed, q, p])
    rows = rng.standard_normal((q, p))
    rows *= np.sign(rows @ rng.standard_normal(p))[:, None]
    if q > 2:
        rows[1] = 0.0
    return rows, rng.standard_normal(p)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize(("size", "q"), [(1, 1), (2, 4), (3, 6)])
def test_prices_of_sums_of_norms_are_those_of_the_conic_program(parts, size, q):
    """Primal and dual at once: the maximiser is feasible and attains what multipliers prove."""
    gauge = Parts(parts, size)
    for seed in range(3):
        rows, xi = cone(seed, q, parts * size)
        theta = cvxpy.Variable(parts * size)
        norms = sum(cvxpy.norm(theta[k * size : (k + 1) * size]) for k in range(parts))
        one = cvxpy.Problem(cvxpy.Maximize(xi @ theta), [norms <= 1, rows @ theta >= 0])
        one.solve(solver=cvxpy.CLARABEL)
        multipliers = groups.projection(gauge, rows, xi)
        assert (multipliers >= 0).all()
        bound = float(gauge.polar((xi + rows.T @ multipliers)[None])[0])
        assert bound == pytest.approx(float(one.value), rel=1e-6, abs=1e-7)
        found, price = groups.maximiser(gauge, rows, xi)
        assert price == pytest.approx(bound, rel=1e-9, abs=1e-12)
        if price > 1e-6:
            assert gauge.value(found[None])[0] == pytest.approx(1.0)
            assert (rows @ found >= -1e-6).all()
            assert xi @ found == pytest.approx(price, rel=1e-5)


def test_the_euclidean_projection_is_the_same_as_that_of_one_part():
    rows, xi = cone(9, 5, 3)
    plain = groups.projection(Euclidean(np.ones(3, dtype=bool)), rows, xi)
    np.testing.assert_allclose(groups.projection(Parts(1, 3), rows, xi), plain, atol=1e-12)
    u = cvxpy.Variable(3)
    one = cvxpy.Problem(cvxpy.Maximize(xi @ u), [cvxpy.norm(u) <= 1, rows @ u >= 0])
    one.solve(solver=cvxpy.CLARABEL)
    assert np.linalg.norm(xi + rows.T @ plain) == pytest.approx(float(one.value), rel=1e-6)
