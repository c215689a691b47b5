r"""Prices of deep ReLU networks from above: three layers or more, whatever their widths.

Let :math:`g(x) = W_L σ(W_{L−1} ⋯ σ(W_1 x))` with all :math:`\|W_l\|_F ≤ 1`, L ≥ 3, and

.. math:: Q(μ) = \sup_{\|u\| \le 1} \sum_k μ_k (x_k^⊤u)_+ ,

the price of one ReLU neuron.  For every ν = p − q with p, q ≥ 0 and any 0 ≤ q' ≤ q, 0 ≤ p' ≤ p,

.. math:: |ν^⊤g(X)| \; \le \; \max\{Q(p − q'), \; Q(q'), \; Q(q − p'), \; Q(p')\}.

*Proof.*  Rows of the last two layers scale, so by Cauchy–Schwarz g(X) is a convex combination of
vectors ±σ(z), z ∈ C_{L−2}, where C_0 = {Xu : ‖u‖ ≤ 1} and C_l is the convex hull of ±σ(C_{l−1}).
As −σ(t) ≤ 0 and −σ(t) ≤ −t,

.. math:: ν^⊤σ(z) \; \le \; p^⊤σ(z) − q'^⊤z \quad \text{for } 0 \le q' \le q ,

which is convex in z, hence on C_l largest at some z = ±σ(z'), z' ∈ C_{l−1}: it is at most
(p − q')ᵀσ(z'), or q'ᵀσ(z').  On C_0 these are Q(p − q') and Q(q').  With more layers in between
the same step applies to μ = p − q', whose negative part is split off whole once more (so that the
first price stays and the second is at most Q(q')), and to q' ≥ 0, which has none.  The other sign
of νᵀσ(z) exchanges p and q.  ∎

The bound is attained where ν has one sign, where X Xᵀ is a multiple of the identity, and where all
samples lie on one line through the origin (after samples on one ray are joined, which is done
here).  It is at least the price of two layers, and the same for every L ≥ 3.  The best p', q' are a
convex problem, solved by cutting planes; whatever they are, the four prices are bounded rigorously.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import linprog

from landscape.dictionary import Priced
from landscape.pricing.balance import EPSILON
from landscape.pricing.branch import supremum
from landscape.pricing.relaxed import relaxed_supremum

if TYPE_CHECKING:
    from landscape.programs import Floats

CLOSE = 1e-12
"""Unit rows this close are one ray; what that may change is charged."""
ROUNDS = 12
SHARP = 1e-4
"""A price attained to this relative accuracy is exact."""
OPEN = 5e-3
"""Cutting planes stop where the best split is known to this relative accuracy."""
CLIMBS = 40
STEPS = 40
ADDED = 10
"""Neurons that a climb may add to the cuts."""
FIRST = 64
"""Branch and bound is tried where its first cones, 2^(rank+1), are at most nodes / FIRST."""


class Layered(NamedTuple):
    """What is known of the largest |νᵀg(X)|.

    Attributes:
        bound: no network prices above this; valid in floating point.
        attained: some network of one neuron a layer prices this much (up to rounding).
        direction: its first layer, shape (p,).
        exact: whether the two agree.
    """

    bound: float
    attained: float
    direction: Floats
    exact: bool


class Rays:
    """Samples joined by rays, and neurons that price well there.

    Args:
        design: rows x_k, shape (n, p).
    """

    def __init__(self, design: Floats) -> None:
        self.sizes = np.linalg.norm(design, axis=1)
        unit = design / np.where(self.sizes > 0, self.sizes, 1.0)[:, None]
        self.n, self.p = design.shape
        self.ray, first = _joined(unit, self.sizes > 0)
        first = first if len(first) else self.ray[:1]  # no sample but zeros: a ray of none
        self.rows = unit[first]  # (g, p)
        self.apart = np.linalg.norm(unit - self.rows[self.ray], axis=1)
        self.rank = int(np.linalg.matrix_rank(self.rows))
        self.outputs = np.zeros((0, len(first)))
        self.directions = np.zeros((0, self.p))

    def joined(self, nu: Floats) -> tuple[Floats, float]:
        """Return the weights of the rays, shape (g,), and what joining and rounding may cost."""
        weight = np.abs(nu) * self.sizes
        cost = float(weight @ (self.apart + 8.0 * (self.n + self.p + 16) * EPSILON))
        sums = np.zeros(len(self.rows))
        np.add.at(sums, self.ray, nu * self.sizes)
        return sums, cost

    def spread(self, weights: Floats, whole: Floats, nu: Floats) -> Floats:
        """Return what of every ν_k belongs to a part ``weights`` of a ray's ``whole``, (n,)."""
        share = np.divide(weights, whole, out=np.zeros_like(whole), where=whole != 0)
        return nu * share[self.ray]

    def climb(self, mu: Floats) -> float:
        """Find neurons of large price μᵀ(Xu)_+, remember them, and return the best price."""
        rng = np.random.default_rng(len(self.directions))
        some = self.rows[np.argsort(-np.abs(mu), kind="stable")[:CLIMBS]]
        starts = np.vstack(
            [some, -some, rng.standard_normal((CLIMBS, self.p)), self.directions[-CLIMBS:]]
        )
        u = starts / np.maximum(np.linalg.norm(starts, axis=1, keepdims=True), 1e-300)
        best, top = np.full(len(u), -np.inf), u
        for step in range(STEPS + 1):
            before = u @ self.rows.T
            value = np.maximum(before, 0.0) @ mu
            better = value > best
            best, top = np.where(better, value, best), np.where(better[:, None], u, top)
            pull = ((before > 0) * mu) @ self.rows
            pull -= (pull * u).sum(axis=1, keepdims=True) * u
            length = 0.5 * 0.004 ** (step / STEPS)
            u = u + length * pull / np.maximum(np.linalg.norm(pull, axis=1, keepdims=True), 1e-300)
            u /= np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-300)
        order = np.argsort(-best, kind="stable")
        self.remember(top[order[:ADDED]])
        return max(float(best[order[0]]), 0.0)

    def remember(self, directions: Floats) -> None:
        """Keep unit neurons (k, p) for cuts to come, those that are new."""
        for u in directions:
            if not len(self.directions) or (self.directions @ u).max() < 1 - 1e-9:
                self.directions = np.vstack([self.directions, u])
                self.outputs = np.vstack([self.outputs, np.maximum(self.rows @ u, 0.0)])

    def split(self, plus: Floats, minus: Floats) -> Floats:
        """Return q' with 0 ≤ q' ≤ minus that makes max(Q(plus − q'), Q(q')) small, shape (g,)."""
        part, free = 0.5 * minus, np.flatnonzero(minus)
        if not len(free):
            return part
        best, least = part, np.inf
        for _ in range(ROUNDS):
            value = max(self.climb(plus - part), self.climb(part))
            if value < least:
                best, least = part, value
            A = self.outputs[:, free]
            level = -np.ones((len(A), 1))
            rows = np.vstack([np.hstack([-A, level]), np.hstack([A, level])])
            right = np.concatenate([-self.outputs @ plus, np.zeros(len(A))])
            bounds = [(0.0, float(m)) for m in minus[free]] + [(0.0, None)]
            cost = np.r_[np.zeros(len(free)), 1.0]
            found = linprog(cost, A_ub=rows, b_ub=right, bounds=bounds, method="highs")
            if found.x is None or found.x[-1] >= least * (1 - OPEN):
                break
            part = np.zeros_like(minus)
            part[free] = np.clip(found.x[:-1], 0.0, minus[free])
        return best

    def price(self, mu: Floats, nodes: int) -> float:
        """Return an upper bound of Q(μ), or of Q(−μ) where that is larger."""
        if not mu.any():
            return 0.0
        if FIRST * 2 ** (self.rank + 1) <= nodes:
            found = supremum(self.rows, mu, tolerance=SHARP / 10, nodes=nodes)
            self.remember(found.direction[None])
            if found.exact:
                return found.bound
            return min(found.bound, relaxed_supremum(self.rows, mu))
        return relaxed_supremum(self.rows, mu)


class LayeredOracle:
    """Prices all networks of unit layers at once, from above (see the module's text).

    Its one unit is the best network found with one neuron a layer, as the parameters of
    `landscape.architectures.StandardDeep`.

    Args:
        design: rows x_k, shape (n, p).
        nodes: how many cones branch and bound may visit for each of four prices.
        depth: number of layers L ≥ 3.
    """

    def __init__(self, design: Floats, nodes: int, depth: int) -> None:
        self.rays, self.nodes, self.depth = Rays(design), nodes, depth
        self.parts: tuple[Floats, Floats, Floats] | None = None

    def suggest(self, nu: Floats, less_plus: Floats, less_minus: Floats) -> None:
        """Keep p' and q' (on the rays, (g,) each) for the time when ν is priced."""
        self.parts = nu.copy(), less_plus, less_minus

    def __call__(self, nu: Floats, target: float = 0.0) -> Priced:
        """Return an upper bound of every |νᵀg(X)|."""
        known = self.parts if self.parts and np.array_equal(self.parts[0], nu) else None
        found = layered_supremum(self.rays, nu, self.nodes, known[1:] if known else None)
        unit = {
            "hidden": found.direction[None],
            "inner": np.ones((self.depth - 2, 1, 1)),
            "output": np.ones(1),
        }
        return Priced(found.bound, False, unit, 0)


def layered_supremum(
    rays: Rays, nu: Floats, nodes: int, parts: tuple[Floats, Floats] | None = None
) -> Layered:
    r"""Bound :math:`\sup |ν^⊤g(X)|` over networks of L ≥ 3 layers with :math:`\|W_l\|_F ≤ 1`.

    Args:
        rays: the samples.
        nu: dual point, shape (n,).
        nodes: how many cones branch and bound may visit for each of four prices.
        parts: p' and q' on the rays, if good ones are known; they need not fit exactly.

    Returns:
        The bound, valid for every L ≥ 3 and all widths.
    """
    weights, cost = rays.joined(nu)
    plus, minus = np.maximum(weights, 0.0), np.maximum(-weights, 0.0)
    bound, attained = 0.0, max(rays.climb(weights), rays.climb(-weights))
    found = np.abs(rays.outputs @ weights)
    if parts is not None:  # ν = p − q for larger p, q, too
        more = np.maximum(np.maximum(parts[0] - plus, parts[1] - minus), 0.0)
        plus, minus = plus + more, minus + more
    for side, (one, other) in enumerate(((plus, minus), (minus, plus))):
        part = rays.split(one, other) if parts is None else np.maximum(parts[1 - side], 0.0)
        bound = max(bound, rays.price(one - part, nodes), rays.price(part, nodes))
    bound = bound * (1 + 4 * EPSILON) + cost
    direction = rays.directions[int(found.argmax())] if len(found) else np.zeros(rays.p)
    return Layered(bound, attained, direction, bound <= attained * (1 + SHARP))


def _joined(unit: Floats, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ray of each unit row (n,), and the first row of each ray."""
    ray, first = np.zeros(len(unit), dtype=np.intp), []
    for k in np.flatnonzero(alive):
        if first:
            near = np.linalg.norm(unit[first] - unit[k], axis=1)
            if near.min() <= CLOSE:
                ray[k] = int(near.argmin())
                continue
        ray[k] = len(first)
        first.append(int(k))
    return ray, np.array(first, dtype=np.intp)
