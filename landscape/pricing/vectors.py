r"""Prices of ReLU neurons with several outputs: :math:`\sup_{\|u\| \le 1} \|N^⊤(Xu)_+\|_2`.

A row N_k of N (n, c) holds the dual point of one sample.  With ‖v‖ ≤ 1 for the output weights this
is the largest :math:`⟨N, (Xu)_+ v^⊤⟩`.

*Rank 1 or 2: exact.*  On an arc of the circle between two kinks the square is a quadratic form in
(cos φ, sin φ): largest at its eigen-direction if that lies in the arc, else at an end.

*Higher rank.*  Branch and bound on cones (`landscape.pricing.vector_cones`), exact where it ends.
Where its cones run out, climbs from many starts find columns, and the bound is the better one of
that search and of the relaxation there; to attain it is hard in general (with XXᵀ = I it is a
non-negative principal component; Sahiner et al., ICLR 2021, write it as a copositive program).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from landscape.dictionary import Priced
from landscape.pricing.balance import EPSILON
from landscape.pricing.vector_cones import Found, relaxed, searched, size, values

if TYPE_CHECKING:
    from landscape.programs import Floats

SLACK = 1e-7
"""An eigen-direction that misses its arc by less than this (radians) counts as inside."""
CONES = 5
"""Branch and bound is tried up to this rank."""
STARTS = 96
STEPS = 60
POLISH = 60
ALIKE = 1 - 1e-12
"""Directions whose cosine is above this are one."""
MOST = 24
"""Units that one pricing returns at most."""


def circle(rows: Floats, weights: Floats) -> Found:
    """Return the supremum for samples in the plane, with its local maxima.

    Args:
        rows: x_k, shape (n, 2).
        weights: N, shape (n, c).
    """
    heavy = rows.any(axis=1) & weights.any(axis=1)
    rows, weights = rows[heavy], weights[heavy]
    if not len(rows):
        return Found(0.0, True, np.zeros((0, 2)), np.zeros(0))
    scale = size(rows, weights)
    charge = 8.0 * (len(rows) + weights.shape[1] + 32) * EPSILON * scale
    normals = np.arctan2(rows[:, 1], rows[:, 0])
    begin = np.unique(np.mod(np.concatenate([normals - np.pi / 2, normals + np.pi / 2]), 2 * np.pi))
    width = np.diff(np.append(begin, begin[0] + 2 * np.pi))
    on = _directions(begin + width / 2) @ rows.T > 0  # (arcs, n)
    products = (weights[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    maps = (on @ products).reshape(len(begin), -1, 2)  # NᵀDX of every arc
    forms = maps.mT @ maps
    half = (forms[:, 0, 0] - forms[:, 1, 1]) / 2
    spread = np.hypot(half, forms[:, 0, 1])
    highest = (forms[:, 0, 0] + forms[:, 1, 1]) / 2 + spread
    offset = np.mod(0.5 * np.arctan2(forms[:, 0, 1], half) - begin, np.pi)
    inside = (offset <= width + SLACK) | (offset >= np.pi - SLACK)
    ends = np.stack([begin, begin + width], axis=1)
    edge = np.linalg.norm(np.einsum("acp,aep->aec", maps, _directions(ends)), axis=2)  # (arcs, 2)
    bounds = np.where(inside, np.sqrt(highest * (1 + 64 * EPSILON)), edge.max(axis=1))
    best = np.where(offset <= width, begin + offset, ends[np.arange(len(begin)), edge.argmax(1)])
    peak = (bounds >= np.roll(bounds, 1)) & (bounds >= np.roll(bounds, -1))
    directions = _directions(best[peak])
    attained = values(rows, weights, directions)
    order = np.argsort(-attained, kind="stable")
    return Found(float(bounds.max()) + charge, True, directions[order], attained[order])


def climbed(rows: Floats, weights: Floats, starts: Floats) -> tuple[Floats, Floats]:
    """Climb f on the sphere from unit vectors (k, r); return where they end and f there.

    Gradient steps of falling length, then fixed-point steps u ↦ ∇f/‖∇f‖ as long as they rise.
    """
    best, top = np.full(len(starts), -np.inf), starts
    u = starts
    for step in range(STEPS + POLISH):
        heights = u @ rows.T
        out = np.maximum(heights, 0.0) @ weights
        found = np.linalg.norm(out, axis=1)
        better = found > best
        best, top = np.where(better, found, best), np.where(better[:, None], u, top)
        if step >= STEPS and not better.any():
            break
        slope = ((out @ weights.T) * (heights > 0)) @ rows / np.maximum(found, 1e-300)[:, None]
        if step < STEPS:
            slope = slope - (slope * u).sum(axis=1, keepdims=True) * u
            length = np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-300)
            u = u + 0.5 * 0.04 ** (step / STEPS) * slope / length
        elif step == STEPS:
            u = top
            continue
        else:
            u = np.where(better[:, None], slope, u)
        u = u / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-300)
    order = np.argsort(-best, kind="stable")
    return top[order], best[order]


class VectorOracle:
    """Prices all neurons u, ‖u‖ ≤ 1, of a design at dual points (nc,), samples row by row.

    Args:
        design: rows that neurons see, shape (n, p).
        outputs: c.
        effort: cones that branch and bound may visit.
    """

    def __init__(self, design: Floats, outputs: int, effort: int) -> None:
        self.design, self.outputs, self.effort = design, outputs, effort
        _, sigma, turned = np.linalg.svd(design, full_matrices=False)
        kept = sigma > max(design.shape) * EPSILON * sigma.max(initial=0.0)
        self.basis = turned[kept].T  # (p, r)
        if design.shape[1] <= 2:
            self.basis = np.eye(design.shape[1])
        self.rows = design @ self.basis
        self.lost = np.linalg.norm(design - self.rows @ self.basis.T, axis=1)
        self.known = np.zeros((0, self.basis.shape[1]))
        self.rounds = 0

    def __call__(self, nu: Floats, target: float = 0.0) -> Priced:
        """Return the bound of all prices, and the directions that price above the target."""
        weights = nu.reshape(len(self.design), self.outputs)
        found, climbs, attained = self._found(weights, target)
        directions = _distinct(found.directions, found.values, target)
        units = {"directions": directions @ self.basis.T}
        lost = float(self.lost @ np.linalg.norm(weights, axis=1))
        lost += 4.0 * (self.design.shape[1] + 4) * EPSILON * size(self.rows, weights)
        return Priced(found.bound + lost, found.exact, units, 0, attained, climbs)

    def _found(self, weights: Floats, target: float) -> tuple[Found, int, float]:
        """Return what the best search that applies knows; how many climbs, and what they reached.

        Climbs count only where they leave something open.
        """
        r = self.rows.shape[1]
        if r <= 2:
            wide = np.hstack([self.rows, np.zeros((len(self.rows), 2 - r))])
            found = circle(wide, weights)
            return found._replace(directions=found.directions[:, :r]), 0, np.inf
        unit = self._climbed(weights)
        attained = float(unit[1].max(initial=0.0))
        if target > 0.0 and attained > target * (1 + 1e-3):
            # Columns are at hand: a bound would be of no use before the next program is solved.
            return Found(np.inf, False, *unit), len(unit[1]), attained
        bound = np.inf
        if r <= CONES:
            found = searched(self.rows, weights, self.effort, target)
            if found.exact:
                both = np.vstack([found.directions, unit[0]]), np.append(found.values, unit[1])
                return Found(found.bound, True, *both), 0, np.inf
            bound = found.bound
            unit = np.vstack([found.directions, unit[0]]), np.append(found.values, unit[1])
        bound = min(bound, relaxed(self.rows, weights))
        return Found(bound, False, *unit), len(unit[1]), float(unit[1].max(initial=0.0))

    def _climbed(self, weights: Floats) -> tuple[Floats, Floats]:
        """Climb from random directions and from those known to price high."""
        self.rounds += 1
        rng = np.random.default_rng(self.rounds)
        starts = rng.standard_normal((STARTS, self.rows.shape[1]))
        starts = np.vstack([starts / np.linalg.norm(starts, axis=1, keepdims=True), self.known])
        found, reached = climbed(self.rows, weights, starts)
        self.known = _distinct(found, reached, 0.0)
        return found, reached


def _directions(angles: Floats) -> Floats:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _distinct(directions: Floats, prices: Floats, target: float) -> Floats:
    """Return the best directions above the target of which no two are alike."""
    taken: list[int] = []
    for k in np.argsort(-prices, kind="stable"):
        if len(taken) == MOST or not prices[k] > target:
            break
        if not taken or float((directions[taken] @ directions[k]).max()) < ALIKE:
            taken.append(int(k))
    return directions[taken]
