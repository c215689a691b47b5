"""Stationarity at kinks against an active set method and the reference's counterexample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from landscape.clarke import box_least_squares, lines, residuals, settled_masks, ties


@pytest.mark.parametrize("shape", [(40, 6, 1), (40, 6, 5), (40, 6, 6), (40, 4, 9)])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_box_least_squares_is_that_of_an_active_set_method(shape, scale):
    rng = np.random.default_rng(shape)
    columns, target = rng.standard_normal(shape), 2.0 * rng.standard_normal(shape[:2])
    columns[::4, :, -1] = columns[::4, :, 0]  # the same sample twice
    columns[1::4, :, 0] = 0.0
    x = box_least_squares(scale * columns, scale * target)
    assert x.shape == (shape[0], shape[2])
    assert ((x >= 0) & (x <= 1)).all()
    for A, b, mine in zip(columns, target, x, strict=True):
        theirs = lsq_linear(A, b, bounds=(0.0, 1.0), method="bvls", tol=1e-14).x
        own, other = (np.linalg.norm(A @ v - b) for v in (mine, theirs))
        assert own <= other + 1e-12 * np.linalg.norm(b)


@pytest.mark.parametrize("axis", [1, 2])
def test_box_least_squares_of_badly_scaled_data(axis):
    """Coordinates, or samples, whose units differ by up to 1e18."""
    rng = np.random.default_rng(axis)
    size = (200, 6, 1) if axis == 1 else (200, 1, 6)
    columns = rng.standard_normal((200, 6, 6)) * 10.0 ** rng.integers(-9, 10, size)
    target = rng.standard_normal((200, 6)) * np.abs(columns).max(axis=2)
    for A, b, mine in zip(columns, target, box_least_squares(columns, target), strict=True):
        unit = np.abs(A).max()
        theirs = lsq_linear(A / unit, b / unit, bounds=(0.0, 1.0), method="bvls", tol=1e-14).x
        own, other = (np.linalg.norm(A @ np.clip(v, 0, 1) - b) / unit for v in (mine, theirs))
        assert own <= other + 1e-12


def test_a_clarke_stationary_neuron_with_a_wrong_sign_at_its_tie():
    """The three points of the reference: descent is possible although the residual is zero."""
    X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    nu, beta = np.array([0.3, 0.4, 0.2]), 0.5
    w = np.array([[1.0, 0.0], [0.0, 2.0]])
    clarke, wrong = residuals(X, np.ones(2, bool), w, np.ones(2), nu, beta)
    assert clarke[0] == pytest.approx(0.0, abs=1e-15)
    assert wrong[0] == pytest.approx(1.0)  # ν₂ = 0.4 at its tie, the largest entry
    # The other one is on the kink of the first sample: (0.3 t, 0.4) − (0, 0.5), t = 0.
    assert clarke[1] == pytest.approx(0.2)
    assert wrong[1] == pytest.approx(0.75)


def test_samples_on_one_line_share_one_kink():
    """Signs add up over a line, and shares of its samples are one number or one minus it."""
    tied, beta, w = np.array([0.0, 1.0]), 0.5, np.array([[1.0, 0.0]])
    for other, factor in ((1.0, 1.0), (-1.0, 1.0), (3.0, 3.0), (-0.25, 0.25)):
        X = np.array([[1.0, 0.2], tied, other * tied])
        for last, right in ((-0.4, True), (-0.3, False)):
            nu = np.array([0.5, 0.4, last / factor])
            # The line bends by the sum; where it opens backwards its share 0 adds ν₂ x₂.
            start = 0.1 + (nu[2] * other if other < 0 else 0.0)
            least = np.clip(0.0, *sorted((start, start + nu[1] + factor * nu[2])))
            clarke, wrong = residuals(X, np.ones(2, bool), w, np.ones(1), nu, beta)
            assert clarke[0] == pytest.approx(abs(least) / beta, abs=1e-12)
            assert (wrong[0] <= 1e-12) == right
            masks = settled_masks(X, np.ones(2, bool), w, np.ones(1), nu, beta, ties(X, w))
            assert masks[0, 1] == pytest.approx(masks[0, 2] if other > 0 else 1 - masks[0, 2])


def test_lines_are_named_by_their_longest_row():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6, 3))
    rows = np.vstack([X, -3.0 * X[:2], np.zeros((1, 3)), 0.1 * X[:1], X[5:]])
    head, ratio = lines(rows)
    assert head.tolist() == [6, 7, 2, 3, 4, 5, 6, 7, 8, 6, 5]
    np.testing.assert_allclose(ratio[:, None] * rows[head], rows, atol=1e-15)
    assert (lines(X)[0] == np.arange(6)).all()
