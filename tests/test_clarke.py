"""Stationarity at kinks against an active set method and the reference's counterexample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from landscape.clarke import box_least_squares, residuals


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
