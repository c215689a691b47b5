"""The largest of many lines: exact arithmetic, brute force, and the β from which zero is best."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import numpy as np
import pytest

from landscape import losses
from landscape.envelope import Envelope, _upper

RNG = np.random.default_rng


def envelope(loss="squared", n=6, beta=0.3, degree=0.5, points=4, seed=0):
    """Random dual points within the domain, and prices that are only plausible."""
    rng = RNG([n, seed])
    y = rng.standard_normal(n)
    chosen = losses.get(loss)
    y = np.where(np.arange(n) % 2, 1.0, -1.0) if chosen.classes else y
    found = Envelope(chosen, y, beta, degree)
    given = []
    for _ in range(points):
        nu = chosen.into_domain(rng.uniform(0.1, 1.2) * y + 0.2 * rng.standard_normal(n), y)
        given.append((nu, float(rng.uniform(0.1, 2.0))))
        found.add(*given[-1])
    return found, given


@pytest.mark.parametrize("seed", range(20))
def test_only_lines_that_are_largest_somewhere_stay(seed):
    """Small whole numbers, so that lines repeat, are parallel, and meet in one point."""
    rng = RNG(seed)
    lines = np.column_stack(
        [rng.integers(-3, 7, 9), rng.integers(0, 6, 9), np.arange(9), np.ones(9)]
    ).astype(float)
    lines[0, 1] = 0.0
    kept = _upper(lines)
    assert {tuple(line) for line in kept} <= {tuple(line) for line in lines}
    at = np.linspace(0.0, 30.0, 6001)
    heights = lines[:, :1] - lines[:, 1:2] * at
    own = kept[:, :1] - kept[:, 1:2] * at
    np.testing.assert_allclose(own.max(axis=0), heights.max(axis=0), atol=1e-12)
    assert (np.diff(kept[:, 1]) < 0).all()
    for k in range(len(kept)):  # without it the largest line is lower somewhere
        others = np.delete(own, k, axis=0)
        if len(others):
            assert (own[k] > others.max(axis=0) + 1e-9).any()


@pytest.mark.parametrize("seed", range(10))
def test_no_line_is_above_the_dual_value_of_its_point(seed):
    """In exact arithmetic: heights are charged for rounding, and so are the prices."""
    found, given = envelope(n=40, points=2, seed=seed)
    y = [Fraction(float(v)) for v in found.y]
    for height, price, which, scale in found.lines:
        nu = [Fraction(float(v)) * Fraction(float(scale)) for v in found.points[int(which)]]
        value = sum(a * b - a * a / 2 for a, b in zip(nu, y, strict=True))
        assert Fraction(float(height)) <= value
        own = 0.0 if which == 0 else given[int(which) - 1][1]
        assert Fraction(float(price)) >= Fraction(float(scale)) * Fraction(own)


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "hinge"])
@pytest.mark.parametrize("seed", range(3))
def test_every_multiple_of_a_point_within_the_domain_has_its_line(loss, seed):
    """Up to twice the point: against a fine grid of multiples and of sizes t."""
    found, given = envelope(loss, seed=seed)
    t = np.append(found.kinks(), np.geomspace(1e-4, 1e3, 600))
    lines = np.zeros_like(t)
    for nu, price in given:
        top = min(2.0, found.loss.reach(nu) * (1 - 1e-14))
        for s in np.linspace(0.0, top, 385):
            lines = np.maximum(lines, float(found.loss.dual_value(s * nu, found.y)) - t * s * price)
    brute = float((lines + found.beta / found.degree * t**found.degree).min())
    value, at, nu = found.least()
    assert value <= brute * (1 + 1e-9) + 1e-12
    assert value == pytest.approx(brute, rel=2e-3)
    assert at >= 0.0
    assert np.isfinite(found.loss.dual_value(nu, found.y))
    heights = [h for h, _, which, _ in found.lines if which > 0]
    assert max(heights) == pytest.approx(lines[0], rel=1e-3)


def test_the_point_where_the_bound_is_least_is_on_its_line():
    found, _ = envelope(seed=5)
    value, at, nu = found.least()
    prices = {float(w): p for (_, p), w in zip(envelope(seed=5)[1], range(1, 9), strict=False)}
    row = min(found.lines, key=lambda line: np.abs(line[3] * found.points[int(line[2])] - nu).max())
    paid = found.beta / found.degree * at**found.degree
    assert value == pytest.approx(row[0] - at * row[1] + paid, rel=1e-12)
    own = prices.get(float(row[2]), 0.0)
    assert row[1] == pytest.approx(row[3] * own, rel=1e-12)
    dual = float(found.loss.dual_value(nu, found.y))
    assert value == pytest.approx(dual - at * row[3] * own + paid, rel=1e-10)


@pytest.mark.parametrize("seed", range(8))
def test_the_least_bound_is_not_above_its_line_in_exact_arithmetic(seed):
    """κ = 1/2, so that what the penalty pays is a root, here from below to thirty digits."""
    found, _ = envelope(n=20, beta=0.1 + 0.1 * seed, seed=seed)
    value, at, nu = found.least()
    t = Fraction(at)
    root = Fraction(isqrt(int(t * 10**60)), 10**30)
    paid = Fraction(found.beta) / Fraction(found.degree) * root
    apart = [np.abs(line[3] * found.points[int(line[2])] - nu).max() for line in found.lines]
    height, price = (Fraction(float(v)) for v in found.lines[int(np.argmin(apart))][:2])
    exact = height - t * price + paid
    assert Fraction(value) <= exact
    assert value == pytest.approx(float(exact), rel=1e-12)


def test_a_point_without_a_price_adds_nothing():
    found, _ = envelope(points=2)
    before = found.lines.copy()
    found.add(found.y, np.inf)
    found.add(found.y, np.nan)
    np.testing.assert_array_equal(found.lines, before)
    assert len(found.points) == 3


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("degree", [0.4, 0.5, 2 / 3])
def test_from_the_largest_beta_on_the_zero_network_is_the_best_bound(loss, degree):
    """The residual of zero is a point: just above no size t is below ℓ(0), just below some is."""
    found, _ = envelope(loss, degree=degree, points=3, seed=2)
    found.add(-found.loss.gradient(np.zeros_like(found.y), found.y), 1.5)
    nothing, largest = found.loss.at_zero(found.y), found.beta_max()
    assert largest > 0
    for beta, lower in ((largest * (1 + 1e-9), False), (largest * 0.99, True)):
        found.beta = beta
        t = np.append(found.kinks(), np.geomspace(1e-6, 1e4, 4000))
        lines = (found.lines[:, :1] - found.lines[:, 1:2] * t).max(axis=0)
        value = float((lines + beta / degree * t**degree)[1:].min())
        assert (value < nothing * (1 - 1e-6)) == lower


def test_of_one_point_and_one_price_the_bound_is_the_closed_form():
    """One sample y = 1, ν = s: lines s − s²/2 − ts, largest 1/2 (1 − t)²; κ = 1/2."""
    found = Envelope(losses.get("squared"), np.ones(1), 0.1, 0.5)
    found.add(np.ones(1), 1.0)
    t = np.linspace(0.0, 1.0, 2_000_001)
    exact = float((0.5 * (1 - t) ** 2 + 0.2 * np.sqrt(t)).min())
    assert found.least()[0] <= exact
    assert found.least()[0] == pytest.approx(exact, abs=1e-4)
    # (ℓ(0) − ½(1 − t)²) κ / √t = (t − t²/2) / (2√t) is largest at t = 2/3
    assert found.beta_max() == pytest.approx((2 / 3) ** 0.5 * (1 - 1 / 3) / 2, rel=1e-3)
