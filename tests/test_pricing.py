"""Bounds over all patterns against enumeration, closed forms and adversarial search."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from cases import CASES, kgon, planted
from scipy.optimize import nnls

from landscape import arrangements
from landscape.errors import BadInput
from landscape.pricing import branch, largest_price, supremum

RNG = np.random.default_rng


def enumerated(X, nu):
    """The largest price over the enumerated patterns, each by non-negative least squares."""
    best = 0.0
    for mask in np.asarray(arrangements.enumerate(X)):
        rows = np.where(mask, 1.0, -1.0)[:, None] * X
        for sign in (1.0, -1.0):
            xi = sign * (mask * nu) @ X
            if np.linalg.norm(xi) > best:
                # columns of one size: the cone does not change, nnls copes with any scaling
                size = np.linalg.norm(rows, axis=1, keepdims=True)
                best = max(best, nnls((rows / np.where(size > 0, size, 1.0)).T, -xi)[1])
    return best


def price(X, nu, u, sign=1.0):
    return sign * np.maximum(X @ (u / np.linalg.norm(u)), 0.0) @ nu


def searched(X, nu, seed=0, starts=500, steps=60):
    """The largest price that ascent on the sphere finds."""
    u, best = RNG(seed).standard_normal((starts, X.shape[1])), 0.0
    for step in range(steps):
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        values = np.maximum(u @ X.T, 0.0) @ nu
        best = max(best, values.max(), -values.min())
        slope = ((u @ X.T > 0) * nu) @ X * np.sign(values)[:, None]
        size = np.linalg.norm(slope, axis=1, keepdims=True)
        u = u + 0.9**step * slope / np.where(size > 0, size, 1.0)
    return float(best)


def random_design(kind, seed):
    rng = RNG([seed, len(kind)])
    p = seed % 5 + 1
    n = [8, 12, 10, 9, 7][p - 1]
    X = rng.standard_normal((n, p))
    if kind == "duplicates":
        X[n // 2 :] = X[: n - n // 2] * rng.uniform(0.5, 2.0, (n - n // 2, 1))
    elif kind == "antipodal":
        X[n // 2 :] = -X[: n - n // 2]
    elif kind == "rank-deficient":
        X = X @ rng.standard_normal((p, p + 1))
    elif kind == "zero rows":
        X[::3] = 0.0
    elif kind == "bias":
        X[:, -1] = 1.0
    elif kind == "lattice":
        X = np.round(X)
    elif kind == "scaled":
        X = X * 10.0 ** rng.integers(-6, 7, p)
    nu = rng.standard_normal(n)
    if seed % 3 == 0:
        nu[rng.integers(n)] = 0.0
    return X, nu


KINDS = (
    "generic", "duplicates", "antipodal", "rank-deficient", "zero rows", "bias", "lattice",
    "scaled",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_supremum_equals_enumeration(kind):
    for seed in range(10):
        X, nu = random_design(kind, seed)
        found, expected = supremum(X, nu), enumerated(X, nu)
        scale = np.abs(nu) @ np.linalg.norm(X, axis=1)
        assert found.exact
        assert found.attained == pytest.approx(expected, rel=2e-9, abs=1e-11 * scale)
        assert expected - 1e-13 * scale <= found.bound
        assert found.bound <= expected * (1 + 2e-9) + 1e-11 * scale
        assert np.linalg.norm(found.direction) <= 1 + 1e-12
        assert price(X, nu, found.direction, found.sign) == pytest.approx(
            found.attained, rel=1e-12, abs=1e-13 * scale
        )
