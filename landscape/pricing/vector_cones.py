r"""Prices of ReLU neurons with several outputs, from above: on cones by branch and bound, relaxed.

.. math:: \sup_{\|u\| \le 1} f(u), \qquad f(u) = \|N^⊤(Xu)_+\|_2 .

On a simplicial cone :math:`u = \sum_i c_i r_i`, c ≥ 0, let D be 1 for samples that are on, ½ for
those that the cone's rays see from both sides (*cut*), 0 for the others.  As (t)_+ = t/2 + |t|/2,

.. math::
    f(u) \le F(u) = \|N^⊤DXu\| + \tfrac12 \sum_{\text{cut}} \|N_k\| |x_k^⊤u|
    \le \sum_i c_i F(r_i) \le \|g\| \quad \text{for any g with } r_i^⊤g \ge F(r_i),

because F is convex.  Cones are split along hyperplanes of cut samples, then at their longest edge;
without cut samples f = F, the error is of second order in the size of the cone, and f is at most
:math:`σ_{\max}(N^⊤DX)` besides, which is attained wherever its direction lies in the cone.  The
inequality is checked for the numbers as they are, rounding charged, so bounds hold in floating
point at every moment of the search.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import minimize

from landscape.pricing.balance import EPSILON

if TYPE_CHECKING:
    from landscape.programs import Floats

BATCH = 4096
"""Nodes that are bounded at once."""
ZERO = 1e-13
"""A sample this close (sine) to a ray's hyperplane lies on it; what that moves is charged."""
SHARP = 1e-6
"""Relative; where rounding leaves more open than this, a supremum is not exact."""
KEPT = 64
"""Directions that a search returns at most."""


class Found(NamedTuple):
    """What a search knows.

    Attributes:
        bound: f is nowhere above this.
        exact: whether ``bound`` is at most the target, or attained.
        directions: unit vectors, best first, shape (k, r).
        values: f there, shape (k,).
    """

    bound: float
    exact: bool
    directions: Floats
    values: Floats


def size(rows: Floats, weights: Floats) -> float:
    """Return Σ ‖N_k‖‖x_k‖, a Lipschitz constant of f."""
    return float(np.linalg.norm(rows, axis=1) @ np.linalg.norm(weights, axis=1))


def values(rows: Floats, weights: Floats, directions: Floats) -> Floats:
    """Return f of directions (k, r), shape (k,)."""
    return np.linalg.norm(np.maximum(directions @ rows.T, 0.0) @ weights, axis=1)


def searched(
    rows: Floats, weights: Floats, nodes: int, target: float = 0.0, tolerance: float = 1e-9
) -> Found:
    """Bound f by branch and bound on simplicial cones.

    Args:
        rows: samples x_k in coordinates of the row space, shape (n, r).
        weights: N, shape (n, c).
        nodes: cones that may be bounded; the bound that stands then is returned.
        target: cones known to hold nothing above it are not split.
        tolerance: relative accuracy asked of a supremum above the target.
    """
    r, scale = rows.shape[1], size(rows, weights)
    rounding = 4.0 * (sum(rows.shape) + weights.shape[1] + 16) * EPSILON
    charge = (rounding + r**0.5 * ZERO) * scale  # a unit vector's c_i add up to √r at most at first
    rays = np.array(list(itertools.product([1.0, -1.0], repeat=r)))[:, :, None] * np.eye(r)
    bounds = np.full(len(rays), np.inf)
    directions, attained = np.zeros((0, r)), np.zeros(0)
    settled, done = 0.0, 0
    while len(rays) and done < nodes:
        order = np.argsort(-bounds, kind="stable")
        share = min(BATCH, nodes - done)
        batch, rest = order[:share], order[share:]
        done += len(batch)
        cones = _Cones(rows, weights, rays[batch], charge)
        directions = np.vstack([directions, cones.candidates()])
        attained = np.append(attained, values(rows, weights, directions[len(attained) :]))
        best = np.argsort(-attained, kind="stable")[: 4 * KEPT]
        directions, attained = directions[best], attained[best]
        top = float(attained[0])
        limit = max(target, top * (1.0 + tolerance), top + 4.0 * charge)
        own = np.minimum(cones.bounds, bounds[batch])
        open_ = own > limit
        settled = max(settled, float(own[~open_].max(initial=0.0)))
        split, parents = cones.split(np.flatnonzero(open_))
        rays = np.concatenate([rays[rest], split])
        bounds = np.concatenate([bounds[rest], own[parents]])
        closed = bounds <= limit
        settled = max(settled, float(bounds[closed].max(initial=0.0)))
        rays, bounds = rays[~closed], bounds[~closed]
    bound = max(settled, float(bounds.max(initial=0.0)))
    bound = min(bound, scale * (1.0 + charge / max(scale, 1e-300)) + charge)
    top = float(attained.max(initial=0.0))
    exact = bound <= max(target, top * (1.0 + max(tolerance, SHARP)), top + 8.0 * charge)
    return Found(bound, exact, directions[:KEPT], attained[:KEPT])


class _Cones:
    """Simplicial cones (K, r, r), rays in rows, with the bounds of f on them.

    Attributes:
        bounds: of f, shape (K,).
    """

    def __init__(self, rows: Floats, weights: Floats, rays: Floats, charge: float) -> None:
        self.rays, self.r = rays, rays.shape[1]
        lengths = np.linalg.norm(rows, axis=1)
        heights = rays @ rows.T  # (K, r, n)
        heights[np.abs(heights) <= ZERO * lengths] = 0.0
        on, off = np.any(heights > 0, axis=1), np.any(heights < 0, axis=1)
        self.heights, self.cut = heights, np.logical_and(on, off)  # (K, n)
        self.norms = np.linalg.norm(weights, axis=1)
        D = on - 0.5 * self.cut
        linear = np.linalg.norm((D[:, None] * heights) @ weights, axis=2)
        bent = 0.5 * (np.abs(heights) @ (self.cut * self.norms)[:, :, None])[:, :, 0]
        peaks = linear + bent + charge  # F at the rays, (K, r)
        maps = np.einsum("kn,nr,nc->krc", D, rows, weights, optimize=True)
        spectrum, turned = np.linalg.eigh(maps @ maps.mT)
        self.top = turned[:, :, -1]
        whole = np.sqrt(np.maximum(spectrum[:, -1], 0.0) * (1.0 + 64 * self.r * EPSILON)) + charge
        self.bounds, self.dual = _least(rays, peaks)
        uncut = ~self.cut.any(axis=1)
        self.bounds = np.where(uncut, np.minimum(self.bounds, whole), self.bounds)

    def candidates(self) -> Floats:
        """Return directions that may attain the bounds, both signs of singular vectors."""
        lengths = np.linalg.norm(self.dual, axis=1)
        dual = self.dual[lengths > 0] / lengths[lengths > 0, None]
        return np.concatenate([dual, self.top, -self.top, self.rays[:, 0]])

    def split(self, nodes: np.ndarray) -> tuple[Floats, np.ndarray]:
        """Return the halves of some cones (2k, r, r), and whose halves they are."""
        if not len(nodes):
            return np.zeros((0, self.r, self.r)), nodes
        rays, here = self.rays[nodes], np.arange(len(nodes))
        heights = self.heights[nodes]
        depth = np.minimum(heights.max(axis=1), -heights.min(axis=1)) * self.norms  # (k, n)
        sample = np.where(self.cut[nodes], depth, -np.inf).argmax(axis=1)
        seen = heights[here, :, sample]  # (k, r)
        cut = self.cut[nodes].any(axis=1)
        cosines = rays @ rays.mT + 2.0 * np.eye(self.r)
        longest = cosines.reshape(len(nodes), -1).argmin(axis=1)
        first = np.where(cut, seen.argmax(axis=1), longest // self.r)
        second = np.where(cut, seen.argmin(axis=1), longest % self.r)
        a, b = rays[here, first], rays[here, second]
        share = np.where(cut, -seen[here, second], 1.0)[:, None]
        other = np.where(cut, seen[here, first], 1.0)[:, None]
        middle = share * a + other * b
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        halves = np.stack([rays, rays])  # (2, k, r, r)
        halves[0, here, first] = middle
        halves[1, here, second] = middle
        return halves.reshape(-1, self.r, self.r), np.concatenate([nodes, nodes])


def _least(rays: Floats, peaks: Floats) -> tuple[Floats, Floats]:
    """Return the least ‖g‖ (K,) with r_iᵀg ≥ peak_i, from above, and the g (K, r).

    The best g is the least-norm solution of some of the equations; whichever is tried is made
    longer until it satisfies all of them.
    """
    K, r = peaks.shape
    best, where = np.full(K, np.inf), np.zeros((K, r))
    for count in range(1, r + 1):
        for chosen in map(list, itertools.combinations(range(r), count)):
            part = rays[:, chosen]
            gram = part @ part.mT + 1e-15 * np.eye(count)
            with np.errstate(all="ignore"):
                try:
                    weights = np.linalg.solve(gram, peaks[:, chosen, None])
                except np.linalg.LinAlgError:
                    continue
                g = (part.mT @ weights)[:, :, 0]
                length = np.linalg.norm(g, axis=1)
                along = (rays @ g[:, :, None])[:, :, 0] - 4 * r * EPSILON * length[:, None]
                longer = np.where(along > 0, peaks / along, np.inf).max(axis=1)
                bound = length * np.maximum(longer, 0.0) * (1.0 + 8 * r * EPSILON)
            better = bound < best
            best[better], where[better] = bound[better], g[better]
    return best, where


def relaxed(rows: Floats, weights: Floats, steps: int = 60) -> float:
    r"""Return an upper bound of f on the ball in polynomial time, rounding charged.

    With :math:`s\,t_+ \le \tfrac14(\sqrt{w} t + s/\sqrt{w})^2` for s = N_kᵀv, t = x_kᵀu,

    .. math:: f \le \tfrac12 \big\|[W^{1/2}X,\; W^{-1/2}N]\big\|_2^2 \quad \text{for any } W ≻ 0,

    convex in W, which is sought by L-BFGS on a soft maximum of the eigenvalues.
    """
    norms = np.linalg.norm(rows, axis=1), np.linalg.norm(weights, axis=1)
    alive = (norms[0] > 0) & (norms[1] > 0)
    if not alive.any():
        return 0.0
    x, nu = rows[alive], weights[alive]
    start = np.log(norms[1][alive] / norms[0][alive])
    r = x.shape[1]

    def stacked(log: Floats) -> Floats:
        root = np.exp(0.5 * log)[:, None]
        return np.hstack([root * x, nu / root])

    sharpness = 30.0 / np.linalg.norm(stacked(start), 2) ** 2

    def soft(log: Floats) -> tuple[float, Floats]:
        Z = stacked(log)
        spectrum, Q = np.linalg.eigh(Z.T @ Z)
        share = np.exp(sharpness * (spectrum - spectrum[-1]))
        value = spectrum[-1] + np.log(share.sum()) / sharpness
        inner = Z @ (Q * (share / share.sum())) @ Q.T
        slope = (inner[:, :r] * Z[:, :r]).sum(axis=1) - (inner[:, r:] * Z[:, r:]).sum(axis=1)
        return float(value), slope

    best = np.inf
    for _ in range(3):
        found = minimize(soft, start, jac=True, method="L-BFGS-B", options={"maxiter": steps})
        start, sharpness = np.clip(found.x, -600.0, 600.0), 5.0 * sharpness
        Z = stacked(start)
        charge = 1.0 + 16.0 * (sum(Z.shape) + 16) * EPSILON
        best = min(best, 0.5 * float(np.linalg.norm(Z, 2)) ** 2 * charge)
    return best
