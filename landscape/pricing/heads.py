r"""Prices of heads, units of two matrices (`landscape.architectures.tokens`): exact and from above.

*Linear in both.*  A head prices at :math:`w^⊤ M_g v`, M_g the adjoint of its block at ν, so the
supremum over unit w, v is a spectral norm, attained at singular vectors.

*ReLU.*  With rows a_r that the ReLU sees and c_r that it is spread to (weighted by ν) a head prices
at :math:`v^⊤g(w)`, :math:`g(w) = \sum_r (a_r^⊤w)_+ c_r`, so the supremum is that of ‖g(w)‖, for
which no polynomial algorithm is known.  Two bounds; the smaller holds:

.. math::

    \|g(w)\| \le \tfrac12 \|A^⊤C\|_2 + \tfrac12 \min_{κ>0}
        \big(\|A^⊤\mathrm{diag}(κ)A\|_2\, \|C^⊤\mathrm{diag}(κ)^{-1}C\|_2\big)^{1/2}, \qquad
    \|g(w)\| \le \Big(\sum_k \sup_w |g(w)^⊤e_k|^2\Big)^{1/2} .

The first is :math:`(t)_+ = (t + |t|)/2` and Cauchy–Schwarz: it covers every mask in [0, 1]^R,
realisable or not.  The second, in any orthonormal basis e_k, asks for prices of ReLU neurons with
one output, which branch and bound or a relaxation gives; with one output it is no relaxation at
all.  Climbs from many starts find heads; what they attain says how much the bound may leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from landscape import dictionary
from landscape.dictionary import Priced
from landscape.pricing.balance import EPSILON
from landscape.pricing.branch import supremum
from landscape.pricing.relaxed import relaxed_supremum

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from landscape.programs import Floats

MOST = 12
"""Heads that one pricing proposes at most."""
STARTS = 48
EFFORTS = (1, 4, 16)
"""A search that finds nothing is repeated from this many times as many starts."""
WORK = 10_000_000
"""Starts times numbers in the rows of a search; one that finds nothing may have four times that."""
FEWEST = 8
KNOWN = 16
"""Heads that one pricing hands to the next to begin from."""
STEPS = 60
SWEEPS = 25
"""Of the weights κ."""
ALIKE = 1 - 1e-7
"""Heads with a cosine above this are one."""
FIRST = 64
"""Branch and bound is tried where its first cones, 2^(rank+1), are at most effort / FIRST."""
FLAT = 4
"""Rank up to which heads of several outputs are bounded output by output."""
NODES = 2_000
"""Cones that the price of one of them may visit."""
SMALL = 1_000
"""Rows times their length up to which that, or the relaxation of one output, is tried."""


class SpectralHeads:
    """Prices heads whose outputs are linear in w vᵀ, block by block.

    Args:
        features: returns Φ, shape (P, p, e, N): what unit weights w put before v.
        reach: bounds of outputs of heads of size one, shape (Nc,).
        shapes: of the two matrices of a head, (a, b) and (e, c).
        terms: how many products an entry of Φ sums (for rounding).
        gated: whether units name their block.
    """

    def __init__(
        self,
        features: Callable[[], Floats],
        reach: Floats,
        shapes: tuple[tuple[int, int], tuple[int, int]],
        terms: int,
        gated: bool,
    ) -> None:
        self.make, self.reach, self.shapes, self.terms = features, reach, shapes, terms
        self.gated, self.features = gated, None

    def __call__(self, nu: Floats, target: float = 0.0) -> Priced:
        """Return the largest spectral norm and the singular pairs above the target."""
        first, second = self.shapes
        if self.features is None:
            self.features = self.make()
        blocks = self.features @ nu.reshape(-1, second[1])  # (P, p, e, c)
        U, S, V = np.linalg.svd(blocks.reshape(*blocks.shape[:2], -1), full_matrices=False)
        size = len(nu) + self.terms + sum(blocks.shape) + 16
        charge = 4.0 * size * EPSILON * float(np.abs(nu) @ self.reach)
        order = np.argsort(-S, axis=None, kind="stable")[:MOST]
        order = order[S.reshape(-1)[order] > target]
        g, k = np.unravel_index(order, S.shape)
        units = {"first": U[g, :, k].reshape(-1, *first), "second": V[g, k].reshape(-1, *second)}
        if self.gated:
            units["gate"] = g.astype(np.float64)
        return Priced(float(S.max(initial=0.0)) + charge, True, units, 0)


class ReLUHeads:
    """Bounds prices of ReLU heads, and climbs to heads that price high.

    Args:
        rows: returns A (N, R, p), what the ReLU sees, and B (N, R, e), what it is spread to.
        whole: returns the first matrices (m, a, b) of directions w (m, p).
        reach: bounds of outputs of heads of size one, shape (Nc,).
        second: shape (e, c) of the second matrix.
        effort: cones that branch and bound may visit for one price.
    """

    def __init__(
        self,
        rows: Callable[[], tuple[Floats, Floats]],
        whole: Callable[[Floats], Floats],
        reach: Floats,
        second: tuple[int, int],
        effort: int,
    ) -> None:
        self.make, self.whole, self.reach = rows, whole, reach
        self.second, self.effort = second, effort
        self.rows: tuple[Floats, Floats] | None = None
        self.known: Floats | None = None
        self.rounds = 0

    def __call__(self, nu: Floats, target: float = 0.0) -> Priced:
        """Return a bound of the largest price, and the heads that climbs find above the target.

        Where climbs find some, no bound is sought beside a positive target.
        """
        if self.rows is None:
            self.rows = self.make()
        A, B = self.rows
        C = B[..., None] * nu.reshape(-1, 1, 1, self.second[1])  # (N, R, e, c)
        A, C = A.reshape(-1, A.shape[-1]), C.reshape(A.shape[0] * A.shape[1], -1)
        seen = A.any(axis=1) & C.any(axis=1)
        A, C = A[seen], C[seen]
        climbs, least = 0, int(np.clip(WORK // max(A.size, 1), FEWEST, STARTS))
        for effort in EFFORTS if target > 0.0 else EFFORTS[:2]:
            if climbs and effort * least * A.size > 4 * WORK:
                break
            w, g = self._climbed(A, C, effort * least)
            prices, climbs = np.linalg.norm(g, axis=1), climbs + effort * least
            chosen = _distinct(w, g, prices, target)
            if target > 0.0 and len(chosen):
                break
        v = g[chosen] / prices[chosen, None]
        units = {"first": self.whole(w[chosen]), "second": v.reshape(-1, *self.second)}
        attained = float(prices.max(initial=0.0))
        bound, exact = np.inf, False
        if target <= 0.0 or not dictionary.count(units):
            best = g[int(prices.argmax())] if len(C) else np.zeros(C.shape[1])
            bound, exact = self._bound(A, C, best)
            size = len(nu) + len(A) + sum(A.shape[1:]) + C.shape[1] + 16
            bound += 4.0 * size * EPSILON * float(np.abs(nu) @ self.reach)
        return Priced(bound, exact, units, 0, attained, 0 if exact else climbs)

    def _climbed(self, A: Floats, C: Floats, starts: int) -> tuple[Floats, Floats]:
        """Return directions w (m, p) to which climbs from many starts lead, and their g (m, q)."""
        rng = np.random.default_rng(self.rounds)
        self.rounds += 1
        w = rng.standard_normal((starts, A.shape[1]))
        w = w if self.known is None else np.vstack([self.known, w])
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        g, step = np.maximum(w @ A.T, 0.0) @ C, np.ones((len(w), 1))
        value = np.linalg.norm(g, axis=1)
        for _ in range(STEPS):
            v = g / np.maximum(value, 1e-300)[:, None]
            slope = ((w @ A.T > 0) * (v @ C.T)) @ A
            slope /= np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-300)
            there = (1.0 - step) * w + step * slope
            there /= np.maximum(np.linalg.norm(there, axis=1, keepdims=True), 1e-300)
            new = np.maximum(there @ A.T, 0.0) @ C
            height = np.linalg.norm(new, axis=1)
            better = height > value
            w[better], g[better], value[better] = there[better], new[better], height[better]
            step = np.where(better[:, None], np.minimum(2.0 * step, 1.0), 0.5 * step)
        self.known = w[np.argsort(-value, kind="stable")[:KNOWN]]
        return w, g

    def _bound(self, A: Floats, C: Floats, along: Floats) -> tuple[float, bool]:
        """Return an upper bound of ‖g(w)‖ over ‖w‖ ≤ 1, and whether it is attained."""
        if not len(A):
            return 0.0, True
        rank = int(np.linalg.matrix_rank(A))
        if C.shape[1] == 1 and FIRST * 2 ** (rank + 1) <= self.effort:
            found = supremum(A, C[:, 0], nodes=self.effort)
            if found.exact:
                return found.bound, True
        bound = 0.5 * (float(np.linalg.norm(A.T @ C, 2)) + _masked(A, C))
        if C.shape[1] == 1 and A.size <= SMALL:
            bound = min(bound, relaxed_supremum(A, C[:, 0]))
        elif rank <= FLAT and A.size <= SMALL:
            Q, _ = np.linalg.qr(np.column_stack([along, np.eye(len(along))]))
            each = [supremum(A, C @ e, nodes=NODES, tolerance=1e-3).bound for e in Q.T]
            # Q is orthogonal up to rounding
            bound = min(bound, np.linalg.norm(each) * (1 + 64 * len(along) ** 2 * EPSILON))
        return float(bound), False


def _masked(A: Floats, C: Floats) -> float:
    """Return an upper bound of ‖AᵀDC‖₂ over diagonal |D| ≤ I.

    The weights are √(c_rᵀYc_r / a_rᵀXa_r) for density matrices X, Y that maximise
    Σ √(a_rᵀXa_r · c_rᵀYc_r), its dual; whatever they are, the bound holds.
    """
    X, Y = (np.eye(M.shape[1]) / M.shape[1] for M in (A, C))
    best = np.inf
    for _ in range(SWEEPS):
        a, c = (np.einsum("ri,ij,rj->r", M, D, M) for M, D in ((A, X), (C, Y)))
        kappa = np.sqrt(np.maximum(c, 1e-300) / np.maximum(a, 1e-300))
        kappa = np.clip(kappa, 1e-8 * kappa.max(), None)
        parts = (A.T * kappa) @ A, (C.T / kappa) @ C
        best = min(best, float(np.prod([np.linalg.norm(part, 2) for part in parts])) ** 0.5)
        X, Y = (_risen(D, part) for D, part in zip((X, Y), parts, strict=True))
    return best


def _risen(density: Floats, pull: Floats) -> Floats:
    """Return D^½ (pull) D^½ with trace one: the multiplicative step."""
    values, vectors = np.linalg.eigh(density)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    risen = root @ pull @ root
    return risen / max(float(np.trace(risen)), 1e-300)


def _distinct(w: Floats, g: Floats, prices: Floats, target: float) -> NDArray[np.int64]:
    """Return the best of heads above the target of which no two are nearly parallel."""
    taken: list[int] = []
    unit = g / np.maximum(prices, 1e-300)[:, None]
    for k in np.argsort(-prices, kind="stable"):
        if len(taken) == MOST or prices[k] <= max(target, 0.0):
            break
        alike = (w[taken] @ w[k]) * (unit[taken] @ unit[k])
        if (np.abs(alike) < ALIKE).all():
            taken.append(int(k))
    return np.array(taken, dtype=np.int64)
