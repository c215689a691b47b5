r"""Prices of dense blocks from above: by cone duality, any λ ≥ 0 bounds, the best is sharp.

.. math:: \sup_{γ(θ) ≤ 1,\; Gθ ≥ 0} ⟨A^⊤ν, θ⟩ = \min_{λ ≥ 0} γ°(A^⊤ν + G^⊤λ)

For the Euclidean norm that is a non-negative least squares.  For a sum of norms of parts γ° is the
longest part; with :math:`\sum_j \|θ_j\| = \min_η (\sum_j \|θ_j\|^2/η_j)^{1/2}` over shares η (≥ 0,
summing to 1) the price is the largest, over η, of weighted least squares values, and the shares
that the maximiser's parts have are the best ones.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq

from landscape.dense import Parts
from landscape.nonnegative import least_squares
from landscape.pricing.balance import EPSILON

if TYPE_CHECKING:
    from landscape.dense import GroupProgram
    from landscape.programs import Floats

SWEEPS = 20
"""Most sweeps over the pairs of parts."""
LEAST = 1e-9
"""The smallest share of a part."""


def cone_price(program: GroupProgram, nu: Floats, block: int, xi: Floats) -> float:
    """Return an upper bound of the price of one block, sharp up to rounding.

    Args:
        program: the blocks, with cones.
        nu: dual point, shape (n,).
        block: which one.
        xi: A_gᵀν, shape (p,).
    """
    assert program.cones is not None
    one = np.array([block])
    multipliers = projection(program.gauge, program.cones.rows(block), xi)
    return float(bounds_by(program.take(one), nu, xi[None], multipliers[None])[0])


def bounds_by(program: GroupProgram, nu: Floats, xi: Floats, multipliers: Floats) -> Floats:
    """Return γ°(ξ_g + G_gᵀλ_g) of all blocks for given λ ≥ 0 (G, q), rounding charged."""
    assert program.cones is not None
    rows = program.cones.matrices
    rest = xi + (multipliers[:, None] @ rows)[:, 0]
    terms = program.atoms.terms(nu) + (multipliers[:, None] @ np.abs(rows))[:, 0]
    count = len(nu) + rows.shape[1] + 16
    return program.gauge.polar(rest) + 2.0 * count * EPSILON * program.gauge.polar(terms)


def projection(gauge: object, rows: Floats, xi: Floats) -> Floats:
    """Return multipliers λ ≥ 0 that make γ°(ξ + rowsᵀλ) small, shape (q,).

    Args:
        gauge: Euclidean, or a sum over `Parts`.
        rows: of the cone, shape (q, p); zero rows are left out.
        xi: shape (p,).
    """
    return _projected(gauge, rows, xi)[0]


def maximiser(gauge: Parts, rows: Floats, xi: Floats) -> tuple[Floats, float]:
    """Return θ of the cone with γ(θ) = 1 that makes ⟨ξ, θ⟩ largest, and the price."""
    multipliers, theta = _projected(gauge, rows, xi)
    rest = xi + rows.T @ multipliers
    size = float(gauge.value(theta[None])[0])
    return theta / (size or 1.0), float(gauge.polar(rest[None])[0])


def _projected(gauge: object, rows: Floats, xi: Floats) -> tuple[Floats, Floats]:
    """Return the best multipliers (q,), and the best θ (p,) of the cone up to its length."""
    out, there = np.zeros(len(rows)), np.flatnonzero(rows.any(axis=1))
    rows = rows[there]
    if not isinstance(gauge, Parts) or gauge.count == 1:
        out[there] = _least_squares(rows, xi, np.ones(len(xi)))
        return out, xi + rows.T @ out[there]
    count, best, highest, theta = gauge.count, np.inf, -np.inf, np.zeros(len(xi))

    def lengths(shares: Floats) -> Floats:
        """Return the parts' lengths at the best λ for given shares; keep the best of all.

        The longest part is a bound, the weighted length is attained: where λ is the same for
        all shares only the latter tells which shares are the best.
        """
        nonlocal best, highest, theta
        found = _least_squares(rows, xi, np.repeat(np.sqrt(shares), gauge.size))
        rest = xi + rows.T @ found
        parts = gauge.lengths(rest)
        if parts.max() < best:
            best, out[there] = float(parts.max()), found
        if shares @ parts**2 > highest:
            highest, theta = float(shares @ parts**2), rest * np.repeat(shares, gauge.size)
        return parts

    shares, before = np.full(count, 1.0 / count), np.inf
    for _ in range(SWEEPS):  # the price is concave in the shares: pair by pair
        for i, j in itertools.combinations(range(count), 2):
            both = shares[i] + shares[j]

            def ahead(share: float, i: int = i, j: int = j, both: float = both) -> float:
                shares[i] = max(share * both, LEAST)
                shares[j] = max((1.0 - share) * both, LEAST)
                parts = lengths(shares.copy())
                return float(parts[i] - parts[j])

            if ahead(1.0 - LEAST) >= 0.0:
                continue
            if ahead(LEAST) > 0.0:
                brentq(ahead, LEAST, 1.0 - LEAST, xtol=1e-13, disp=False)
        if count == 2 or best >= before * (1.0 - 1e-12):
            break
        before = best
    return out, theta


def _least_squares(rows: Floats, xi: Floats, weights: Floats) -> Floats:
    """Return the λ ≥ 0 that minimises ‖weights ∘ (ξ + rowsᵀλ)‖."""
    return least_squares((rows * weights).T, -xi * weights)[0]
