r"""Prices of dense blocks from above: by cone duality, any λ ≥ 0 bounds, the best is sharp.

.. math:: \sup_{γ(θ) ≤ 1,\; Gθ ≥ 0} ⟨A^⊤ν, θ⟩ = \min_{λ ≥ 0} γ°(A^⊤ν + G^⊤λ)

For the Euclidean norm that is a non-negative least squares.  For a sum of norms of parts γ° is the
longest part, and with shares η (≥ 0, summing to 1) of the parts

.. math:: \min_{λ ≥ 0} \max_j \|ρ_j(λ)\|^2 = \max_η \min_{λ ≥ 0} \sum_j η_j \|ρ_j(λ)\|^2,
    \qquad ρ(λ) = A^⊤ν + G^⊤λ.

An interior point finds λ and η together (`_balanced`).  For its shares, non-negative least squares
give :math:`θ_j = η_j ρ_j`, which lies in the cone up to rounding whatever the shares are; so a
price from above and one that is attained are at hand, and their difference is the proof.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from landscape.dense import Parts
from landscape.nonnegative import least_squares
from landscape.pricing.balance import EPSILON

if TYPE_CHECKING:
    from landscape.dense import GroupProgram
    from landscape.programs import Floats

STEPS = 40
"""Most steps of the interior point; some eight are the rule."""
CLOSED = 1e-13
"""It ends at this relative gap between the squares of the two prices,"""
LEVEL = 1e-9
"""if its multipliers are stationary to this; or a thousandth of the gap, whatever they are."""
INSIDE = 0.995
"""Share of the way to the boundary that one step goes."""
TINY = (1e-15, 1e-12, 1e-9, 1e-6)
"""What is added to the diagonal of a matrix before it is factored, relatively: what suffices."""


def cone_price(program: GroupProgram, nu: Floats, block: int, xi: Floats) -> float:
    """Return an upper bound of the price of one block, sharp to some 1e-9 of ‖ξ‖, rounding charged.

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
    """Return θ of the cone with γ(θ) = 1 that makes ⟨ξ, θ⟩ largest, and a bound of the price.

    θ is the best at hand.  Where ⟨ξ, θ⟩ is the bound, and it is up to some 1e-9 of ‖ξ‖ if the
    interior point ends as it should, each proves the other.  Where nothing in the cone gains, θ is
    zero or rounding.  The bound is charged for rounding.
    """
    multipliers, theta = _projected(gauge, rows, xi)
    size = float(gauge.value(theta[None])[0])
    rest, terms = xi + rows.T @ multipliers, np.abs(xi) + np.abs(rows).T @ multipliers
    charge = 2.0 * (len(rows) + 16) * EPSILON * float(gauge.polar(terms[None])[0])
    return theta / (size or 1.0), float(gauge.polar(rest[None])[0]) + charge


def _projected(gauge: object, rows: Floats, xi: Floats) -> tuple[Floats, Floats]:
    """Return the best multipliers (q,), and the best θ (p,) of the cone up to its length."""
    out, there = np.zeros(len(rows)), np.flatnonzero(rows.any(axis=1))
    rows = rows[there]
    if not isinstance(gauge, Parts) or gauge.count == 1:
        out[there] = _least_squares(rows, xi, np.ones(len(xi)))
        return out, xi + rows.T @ out[there]
    sizes = np.linalg.norm(rows, axis=1)
    rows = rows / sizes[:, None]
    lowest, highest, theta = np.inf, -np.inf, np.zeros(len(xi))

    def bounded(multipliers: Floats) -> Floats:
        """Return ξ + Gᵀλ, keep λ if its longest part is the shortest so far."""
        nonlocal lowest
        rest = xi + rows.T @ multipliers
        if (longest := float(gauge.lengths(rest).max())) < lowest:
            lowest, out[there] = longest, multipliers / sizes
        return rest

    def attained(shares: Floats) -> None:
        """Keep the θ of these shares if it prices the highest so far."""
        nonlocal highest, theta
        rest = bounded(_least_squares(rows, xi, np.repeat(np.sqrt(shares), gauge.size)))
        lengths = gauge.lengths(rest)
        price = shares @ lengths**2 / max(shares @ lengths, 1e-300)
        if price > highest:
            highest, theta = float(price), rest * np.repeat(shares, gauge.size)

    attained(np.full(gauge.count, 1.0 / gauge.count))
    if not len(rows):
        attained(np.eye(gauge.count)[gauge.lengths(xi).argmax()])
    elif lowest - highest > EPSILON * lowest and highest > 1e-14 * np.linalg.norm(xi):
        start = out[there] * (sizes / lowest)
        multipliers, shares = _balanced(gauge, rows, xi / lowest, start)
        bounded(multipliers * lowest)
        attained(shares)
    return out, theta


def _balanced(gauge: Parts, rows: Floats, xi: Floats, start: Floats) -> tuple[Floats, Floats]:
    r"""Return the λ ≥ 0 that makes the longest part of ξ + Gᵀλ shortest, and the parts' shares.

    Newton on the conditions of optimality of :math:`\min τ` subject to
    :math:`w_j = τ - \|ρ_j(λ)\|^2/2 ≥ 0` and λ ≥ 0, with products λμ and wη that go to zero,
    where :math:`μ = G(η ∘ ρ)` and :math:`\sum_j η_j = 1`; predictor and corrector by Mehrotra.

    Args:
        gauge: the parts.
        rows: of length one, shape (q, p), at least one.
        xi: of the size of the price, shape (p,).
        start: λ to begin near, shape (q,).
    """
    q, shape = len(rows), (gauge.count, gauge.size)
    lam = start + 0.1
    rho = (xi + rows.T @ lam).reshape(shape)
    half = 0.5 * (rho**2).sum(axis=1)
    tau = 1.5 * float(half.max())
    low, high = np.r_[lam, tau - half], np.full(q + len(half), 1.0 / len(half))  # λ, w; μ, η
    high[:q] = low[q:].mean() / len(half) / lam
    best = np.inf, lam, high[q:]
    for _ in range(STEPS):
        newton = _Newton(rows, rho, low, high, tau - half - low[q:])
        gap, unfit = float(low @ high / half.max()), float(np.abs(newton.level).max())
        if max(gap, unfit) < best[0]:
            best = max(gap, unfit), low[:q], high[q:]
        if gap <= (CLOSED if unfit <= LEVEL else 1e-3 * CLOSED):
            break
        d_low, d_high, _ = newton.step(-low * high)
        length = min(1.0, _longest(low, d_low), _longest(high, d_high))
        left = float((low + length * d_low) @ (high + length * d_high))
        centre = left**3 / float(low @ high) ** 2 / len(low)
        d_low, d_high, d_tau = newton.step(centre - low * high - d_low * d_high)
        length = min(1.0, INSIDE * _longest(low, d_low), INSIDE * _longest(high, d_high))
        if not np.isfinite(d_tau) or not length > 0.0:
            break
        low, high, tau = low + length * d_low, high + length * d_high, tau + length * d_tau
        rho = (xi + rows.T @ low[:q]).reshape(shape)
        half = 0.5 * (rho**2).sum(axis=1)
    return best[1], best[2] / best[2].sum()


class _Newton:
    """The linearised conditions at one point of `_balanced`.

    Attributes:
        level: μ − G(η ∘ ρ), shape (q,).
    """

    def __init__(self, rows: Floats, rho: Floats, low: Floats, high: Floats, slack: Floats) -> None:
        self.q, self.low, self.high, self.slack = len(rows), low, high, slack
        eta = high[self.q :]
        self.slopes = (rows.reshape(len(rows), *rho.shape) * rho).sum(axis=2)  # (q, parts)
        self.level = high[: self.q] - self.slopes @ eta
        self.pulls = eta / low[self.q :]
        shares = np.repeat(np.sqrt(eta), rho.shape[1])
        wide = np.hstack([rows * shares, self.slopes * np.sqrt(self.pulls)])
        matrix = wide @ wide.T
        matrix[np.diag_indices(len(matrix))] += high[: self.q] / low[: self.q]
        self.factor = _factored(matrix)
        self.joint = self.slopes @ self.pulls
        self.across = self.solve(self.joint)
        self.bend = float(self.pulls.sum() - self.joint @ self.across)

    def solve(self, r: Floats) -> Floats:
        """Return the matrix of λ inverted, diag(μ/λ) and what the parts add, applied to r."""
        return cho_solve(self.factor, r, check_finite=False)

    def step(self, products: Floats) -> tuple[Floats, Floats, float]:
        """Return steps in (λ, w), (μ, η) and τ that change the products by what is given."""
        q, low, high = self.q, self.low, self.high
        own = products[q:] / low[q:] - self.pulls * self.slack
        x = self.solve(self.level + products[:q] / low[:q] - self.slopes @ own)
        d_tau = float(own.sum() - 1.0 + high[q:].sum() + self.joint @ x) / self.bend
        d_lam = x + self.across * d_tau
        d_low = np.r_[d_lam, d_tau - d_lam @ self.slopes + self.slack]
        return d_low, (products - high * d_low) / low, d_tau


def _factored(matrix: Floats) -> tuple[Floats, bool]:
    """Return the Cholesky factor of a matrix that is positive definite but for rounding."""
    diagonal = matrix.diagonal().copy()
    for tiny in TINY:
        np.fill_diagonal(matrix, (1.0 + tiny) * diagonal)
        try:
            return cho_factor(matrix, check_finite=False)
        except np.linalg.LinAlgError:
            continue
    return np.diag(np.sqrt(diagonal)), False


def _longest(at: Floats, move: Floats) -> float:
    """Return how many times a move leads to the boundary of what is positive, inf for never."""
    down = move < 0.0
    return float((at[down] / -move[down]).min(initial=np.inf))


def _least_squares(rows: Floats, xi: Floats, weights: Floats) -> Floats:
    """Return the λ ≥ 0 that minimises ‖weights ∘ (ξ + rowsᵀλ)‖."""
    return least_squares((rows * weights).T, -xi * weights)[0]
