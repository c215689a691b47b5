r"""A bound of all prices in polynomial time: a relaxation of Shor's kind, without a solver of it.

With :math:`(t)_+ = (t + |t|)/2` and t_k = x_kᵀu a price is half of

.. math:: F(u) = s\, b^⊤u + \sum_k s ν_k |x_k^⊤u|, \qquad b = X^⊤ν, \quad \|u\| \le 1,

and :math:`|t| \le κ t^2/2 + 1/(2κ)` for κ > 0, :math:`−|t| \le −t (σ + a^⊤u)` for |σ| + ‖a‖ ≤ 1.
So F is at most a quadratic form on the ball, and that at most

.. math:: \min_{λ I ⪰ Q} \; λ + \tfrac14 q^⊤ (λ I − Q)^{-1} q + \text{constant}

(Q, q: the form's quadratic and linear part).  The best κ, σ, a, λ give, by duality,

.. math::
    \max_{U ⪰ vv^⊤,\; \operatorname{tr} U \le 1} s b^⊤v + \sum_{sν_k>0} |ν_k| \sqrt{x_k^⊤Ux_k}
        − \sum_{sν_k<0} |ν_k| \max(\|U x_k\|, |x_k^⊤v|);

Shor's relaxation of the same supremum, in u and z_k = (x_kᵀu)_+, is this without ‖U x_k‖.
The parameters are sought by L-BFGS under a log-determinant barrier; a bound is computed from
whatever they are, its one condition (λI − Q is positive semidefinite) met with room for rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from landscape.pricing.balance import EPSILON, balanced, magnified

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from landscape.pricing.balance import Balanced
    from landscape.programs import Floats

BARRIERS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def relaxed_supremum(design: ArrayLike, nu: ArrayLike, *, steps: int = 200) -> float:
    """Return an upper bound of every price, over all patterns and both signs.

    Args:
        design: rows x_k, shape (n, p).
        nu: dual point, shape (n,).
        steps: most iterations of L-BFGS at each strength of the barrier.

    Returns:
        The bound, valid in floating point.

    Raises:
        BadInput: for shapes that disagree or numbers that are not finite.

    Example:
        >>> round(relaxed_supremum([[1.0, 0.0], [0.0, 1.0]], [3.0, 4.0]), 3)
        5.0
    """
    terms = balanced(design, nu)
    if not len(terms.side):
        return 0.0
    bounds = [_Form(terms, sign).bound(steps) for sign in (1.0, -1.0)]
    return magnified(max(bounds), terms.exponent)


class _Form:
    """F of one sign, scaled to size one, and its quadratic majorants."""

    def __init__(self, terms: Balanced, sign: float) -> None:
        lengths, side = np.linalg.norm(terms.weighted, axis=1), sign * terms.side
        self.size = float(lengths.sum())
        weights = lengths / self.size
        unit = terms.samples / np.linalg.norm(terms.samples, axis=1, keepdims=True)
        self.linear = (side * weights) @ unit
        up = side > 0
        self.up, self.up_weights = unit[up], weights[up]
        self.down, self.down_weights = unit[~up], weights[~up]
        self.n, self.p = unit.shape

    def bound(self, steps: int) -> float:
        """Return an upper bound of F/2."""
        m, p = self.down.shape
        start = np.concatenate(
            [np.full(len(self.up), 0.5 * np.log(p)), np.zeros(3 * m), self.down.ravel()]
        )
        best = 2.0  # F ≤ 2 Σ |ν_k| ‖x_k‖
        for barrier in BARRIERS:
            found = minimize(
                self._objective, start, args=(barrier,), jac=True, method="L-BFGS-B",
                options={"maxiter": steps, "maxcor": 10, "ftol": 1e-7, "gtol": 1e-9},
            )  # fmt: skip
            start = found.x
            best = min(best, self._rigorous(start))
        rounding = 32 * self.p * (self.n + self.p + 16) * EPSILON
        return 0.5 * (best + rounding) * self.size

    def _majorant(self, parameters: Floats) -> tuple[Floats, ...]:
        """Return κ, the shares of (σ > 0, σ < 0, a), directions of a, and Q, q, the constant."""
        k, m = len(self.up), len(self.down)
        kappa = np.exp(np.clip(parameters[:k], -30.0, 30.0))
        logits = parameters[k : k + 3 * m].reshape(m, 3)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        ahead = parameters[k + 3 * m :].reshape(m, self.p)
        ahead = ahead / np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-300)
        pull = self.down_weights * (shares[:, 0] - shares[:, 1])
        bend = (self.down_weights * shares[:, 2])[:, None] * self.down
        half = bend.T @ ahead
        Q = 0.5 * ((self.up_weights * kappa)[:, None] * self.up).T @ self.up - 0.5 * (half + half.T)
        q = self.linear - pull @ self.down
        return kappa, shares, ahead, Q, q, 0.5 * (self.up_weights / kappa).sum()

    def _objective(self, parameters: Floats, barrier: float) -> tuple[float, Floats]:
        """Return the bound and a barrier, −log det(λI − Q) − Σ log shares, and the gradient.

        λ is the best one, so the gradient is that at fixed λ.  Without the barrier of the shares
        the descent would stop where one of them vanishes.
        """
        kappa, shares, ahead, Q, q, constant = self._majorant(parameters)
        values, vectors = np.linalg.eigh(Q)
        squares = (vectors.T @ q) ** 2
        gaps = _gaps(values, squares, barrier)
        inverse = (vectors / gaps) @ vectors.T
        v = 0.5 * inverse @ q
        U = np.outer(v, v) + barrier * inverse
        value = gaps[-1] + values[-1] + (0.25 * squares / gaps - barrier * np.log(gaps)).sum()
        up = self.up_weights * (0.5 * kappa * ((self.up @ U) * self.up).sum(axis=1) - 0.5 / kappa)
        seen = self.down @ U
        slope = self.down @ v
        gradient = -self.down_weights[:, None] * np.column_stack(
            [slope, -slope, (seen * ahead).sum(axis=1)]
        )
        interior = (barrier * self.down_weights)[:, None]
        value -= (interior * np.log(shares)).sum()
        logits = shares * (gradient - (shares * gradient).sum(axis=1, keepdims=True))
        logits += interior * (3.0 * shares - 1.0)
        turn = -(self.down_weights * shares[:, 2])[:, None] * seen
        turn -= (turn * ahead).sum(axis=1, keepdims=True) * ahead
        norm = np.linalg.norm(
            parameters[len(self.up) + 3 * len(self.down) :].reshape(ahead.shape), axis=1
        )
        turn /= np.maximum(norm, 1e-300)[:, None]
        return float(value + constant), np.concatenate([up, logits.ravel(), turn.ravel()])

    def _rigorous(self, parameters: Floats) -> float:
        """Return an upper bound of F that no rounding of λ, v or eigenvalues can spoil.

        For M = λI − Q ⪰ 0 and any v: uᵀQu + qᵀu ≤ λ + vᵀMv + ‖q − 2Mv‖ on the ball.
        """
        kappa, _, _, Q, q, constant = self._majorant(parameters)
        values, vectors = np.linalg.eigh(Q)
        best = np.inf
        # Sums over samples: of Q, q and the constant, as large as their terms.
        terms = 2.0 + float(self.up_weights @ (kappa + 1.0 / kappa))
        rounding = (self.n + self.p + 16) * EPSILON * terms
        for barrier in (1e-7, 1e-9, 1e-12):
            gaps = _gaps(values, (vectors.T @ q) ** 2, barrier)
            level = float(values[-1] + gaps[-1])
            M = level * np.eye(self.p) - Q
            room = 16 * self.p**2 * EPSILON * (np.linalg.norm(Q) + abs(level))
            short = max(0.0, room - float(np.linalg.eigvalsh(M)[0]))
            level, M = level + short, M + short * np.eye(self.p)
            v = 0.5 * (vectors / (gaps + short)) @ (vectors.T @ q)
            value = max(level, 0.0) + v @ M @ v + np.linalg.norm(q - 2.0 * M @ v)
            best = min(best, float(value) * (1 + 64 * self.p * EPSILON) + constant)
        return best + rounding


def _gaps(values: Floats, squares: Floats, barrier: float) -> Floats:
    """Return λ − values at the λ that minimises λ + ¼ Σ squares/(λ − values) − barrier Σ log.

    The derivative 1 − Σ (squares/(2 gap)² + barrier/gap) is increasing and concave in λ, so
    Newton's method from the left climbs to its zero.
    """
    apart = values[-1] - values
    gap = max(0.5 * squares[-1] ** 0.5, barrier, 1e-300)  # there the derivative is ≤ 0
    for _ in range(100):
        gaps = gap + apart
        slope = 1.0 - (0.25 * squares / gaps**2 + barrier / gaps).sum()
        step = -slope / (0.5 * squares / gaps**3 + barrier / gaps**2).sum()
        gap += step
        if step <= 1e-14 * gap:
            break
    return gap + apart
