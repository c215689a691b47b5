"""Bernstein forms against numpy's polynomials; bounds of pieces against fine grids."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import Polynomial

from landscape import losses
from landscape.problem import Problem
from landscape.slices.bernstein import (
    Peak,
    bernstein,
    halves,
    polynomial,
    product,
    score_loss,
    score_polynomial,
)

T = np.linspace(0.0, 1.0, 2001)
DEGREES = [0, 1, 2, 3, 6]


def values(power, t):
    """Return polynomials of these coefficients (…, degree + 1) at t, shape (…, T)."""
    return sum(power[..., i, None] * t**i for i in range(power.shape[-1]))


@pytest.mark.parametrize("degree", DEGREES)
def test_forms_on_any_piece_are_the_polynomial(degree):
    """On [left, left + width]: turned into powers of the piece's own t it has the same values."""
    rng = np.random.default_rng(degree)
    power = rng.standard_normal((4, 3, degree + 1))
    left, width = np.array([0.0, 0.3, -1.0, 0.5]), np.array([1.0, 0.2, 3.0, 0.0])
    controls = bernstein(power, left, width)
    local = values(polynomial(controls), T)
    for piece in range(4):
        direct = values(power[piece], left[piece] + width[piece] * T)
        np.testing.assert_allclose(local[piece], direct, atol=1e-11)
        ends = direct[:, [0, -1]]
        np.testing.assert_allclose(controls[piece][:, [0, -1]], ends, atol=1e-12)
        assert (direct <= controls[piece].max(axis=1)[:, None] + 1e-12).all()
        assert (direct >= controls[piece].min(axis=1)[:, None] - 1e-12).all()


@pytest.mark.parametrize("degree", DEGREES)
def test_halves_are_the_two_pieces(degree):
    power = np.random.default_rng(degree).standard_normal((5, degree + 1))
    first, second = halves(bernstein(power, np.zeros(5), np.ones(5)))
    half = np.full(5, 0.5)
    np.testing.assert_allclose(first, bernstein(power, np.zeros(5), half), atol=1e-13)
    np.testing.assert_allclose(second, bernstein(power, half, half), atol=1e-13)


@pytest.mark.parametrize(
    "shapes", [((3,), (3,)), ((2, 1, 4), (5, 2)), ((1,), (4,)), ((0, 2), (3,))]
)
def test_products_are_those_of_numpy(shapes):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape) for shape in shapes)
    found = product(a, b)
    wide = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    assert found.shape == (*wide, a.shape[-1] + b.shape[-1] - 1)
    for at in np.ndindex(wide):
        one, two = (np.broadcast_to(v, (*wide, v.shape[-1]))[at] for v in (a, b))
        np.testing.assert_allclose(found[at], np.convolve(one, two), atol=1e-14)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("degree", [1, 2, 5])
def test_the_peak_is_that_of_the_roots_of_the_derivative(degree, sign):
    rng = np.random.default_rng(degree)
    power = rng.standard_normal((6, degree + 1))
    edges = np.linspace(0.0, 1.0, 7)
    left, width = edges[:-1], np.diff(edges)
    best, at = -np.inf, 0.0
    for row, a, b in zip(power, left, edges[1:], strict=True):
        poly = Polynomial(row)
        roots = poly.deriv().roots() if degree > 1 else np.zeros(0)
        places = [a, b, *(r.real for r in roots if abs(r.imag) < 1e-12 and a < r.real < b)]
        top = max(places, key=lambda t: sign * poly(t))
        if sign * poly(top) > best:
            best, at = sign * poly(top), top

    def score(controls):
        return score_polynomial(controls, sign)

    for tolerance, rounding in ((1e-12, 0.0), (0.1, 0.0), (0.0, 0.05)):
        peak = Peak()
        peak.climb(bernstein(power, left, width), left, width, score, tolerance, rounding)
        slack = max(tolerance * abs(best), rounding) + 1e-13
        assert peak.best <= best + 1e-13 and best <= peak.bound + 1e-13
        assert peak.bound - peak.best <= slack * 1.2
        if tolerance == 1e-12:
            assert peak.at == pytest.approx(at, abs=1e-5)
        again = peak.bound, peak.best
        low = bernstein(power - sign * 100.0 * np.eye(degree + 1)[0], left, width)
        peak.climb(low, left, width, score, tolerance, rounding)
        assert (peak.bound, peak.best) == again  # lower pieces change nothing


@pytest.mark.parametrize("loss", losses.NAMES)
@pytest.mark.parametrize("degree", [1, 2, 4])
def test_bounds_of_losses_of_polynomial_outputs_hold_on_a_fine_grid(loss, degree):
    """From above by the losses of control points, from below by tangents; they close as t does."""
    rng = np.random.default_rng(degree)
    y = np.array([1.0, -1.0, 1.0])
    problem = Problem(np.eye(3), y, 0.1, loss=loss)
    power = rng.standard_normal((2, 4, degree + 1))  # three outputs, and the penalty last
    for width in (1.0, 1e-3):
        left, wide = np.array([0.2, 0.7]), np.full(2, width)
        controls = bernstein(power, left, wide)
        for piece in range(2):
            along = values(power[piece], left[piece] + width * T)
            exact = problem.loss.value(along[:3].T, y) + along[3]
            for sign in (1.0, -1.0):
                bounds, ends = score_loss(problem, controls, sign)
                np.testing.assert_allclose(ends[piece], sign * exact[[0, -1]], atol=1e-12)
                top = (sign * exact).max()
                assert bounds[piece] >= top - 1e-12
                if width < 1 and (sign > 0 or problem.loss.smooth):
                    assert bounds[piece] <= top + 100 * width**2
