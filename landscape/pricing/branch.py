r"""The largest price over all activation patterns, without a list of them: branch and bound.

.. math:: \sup_{\|u\| \le 1} f(u), \qquad f(u) = s \sum_k ν_k (x_k^⊤u)_+, \quad s = ±1,

is bounded on simplicial cones :math:`u = \sum_i c_i r_i`, c ≥ 0, spanned by unit rays r_i.  There
f is the sum of a convex part P (samples with s ν_k > 0) and a concave one, so that

.. math::

    f(u) \le \sum_i c_i P(r_i) − \sum_{sν_k<0} |ν_k|\, t_k\, x_k^⊤u \le \|g\|
    \quad \text{for any } t ∈ [0, 1]^n \text{ and any } g \text{ with }
    r_i^⊤g \ge P(r_i) − \sum_{sν_k<0} |ν_k|\, t_k\, x_k^⊤r_i .

The first step is the concave envelope of P on the cone (conical branch and bound: Tuy, 1964; Horst
and Tuy, Global Optimization, 1996), the second is weak duality, tight at the best (t, g): a least
squares problem with bounds.  So a cone that no hyperplane of a sample with s ν_k > 0 cuts is
settled exactly, wherever on kinks its maximiser lies, and a search at an optimal dual point ends
after finitely many splits although many prices equal β there.

Whatever t and g are found by, the inequality is checked for the numbers as they are, with an
allowance for rounding: bounds hold in floating point, at every moment of the search.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import lsq_linear

from landscape.arrangements.rows import collinear
from landscape.errors import at_least_zero, whole
from landscape.pricing.balance import EPSILON, balanced, magnified
from landscape.pricing.descent import Descent

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from landscape.pricing.balance import Balanced
    from landscape.programs import Floats

CHUNK = 2048  # nodes in one block of work
ROUNDS = 6  # of two sweeps of coordinate descent each, before a node is solved by an active set
ROUND = 0.25  # edges shorter than this share of a cone's longest are not split
STRETCH = 4.0  # a free bias is scaled as if its bound were this many times larger
WEIGHT = 1e4  # of a free coordinate in the least squares of a single node
CLOSE = 1e-9  # samples at an angle below this are joined, and charged
FLAT = 1e10  # a cone whose inverse is larger than this is not split any more
SHARP = 1e-6  # relative; where rounding leaves more open than this, a supremum is not exact


@dataclass(frozen=True)
class Supremum:
    """What is known of the largest price over all patterns.

    Attributes:
        bound: no pattern prices above this; valid in floating point.
        attained: the price at ``direction``, so the supremum is at least this (up to rounding).
        direction: a vector u with ‖u‖ = 1 (‖w‖ ≤ 1 with a free bias), shape (p,).
        sign: the sign s of the block that attains it, ±1.
        exact: whether the question is settled: ``bound`` is at most the target, or at most
            ``attained`` up to the tolerance (or SHARP, where rounding allows no better).
        nodes: how many cones were bounded.
    """

    bound: float
    attained: float
    direction: Floats = field(repr=False)
    sign: int
    exact: bool
    nodes: int


def supremum(
    design: ArrayLike,
    nu: ArrayLike,
    *,
    free_bias: bool = False,
    target: float = 0.0,
    tolerance: float = 1e-9,
    nodes: int = 200_000,
) -> Supremum:
    r"""Bound :math:`\max_{s=±1} \sup_{\|u\|\le1} s \sum_k ν_k (x_k^⊤u)_+` by branch and bound.

    Args:
        design: rows x_k, shape (n, p).
        nu: dual point, shape (n,); with a free bias its entries sum to zero.
        free_bias: whether the last coordinate b of u = (w, b) is not penalised.  The supremum is
            then over ‖w‖ ≤ 1 and |b| ≤ the largest ‖x_k‖ (see `free_coordinate_radius`).
        target: cones are no longer split once they are known to hold no price above it; 0 asks
            for the supremum itself.
        tolerance: relative accuracy asked of the supremum where it is above the target.
        nodes: bound at most this many cones; the bound that stands then is returned.

    Returns:
        The bound, the best direction found, and whether the two settle the question.

    Raises:
        BadInput: for shapes that disagree, numbers that are not finite, a negative target or
            tolerance, no nodes.

    Example:
        >>> found = supremum([[1.0, 0.0], [0.0, 1.0]], [3.0, 4.0])
        >>> found.exact, round(found.attained, 9), found.sign
        (True, 5.0, 1)
    """
    target, tolerance = at_least_zero("target", target), at_least_zero("tolerance", tolerance)
    nodes = whole("nodes", nodes)
    terms = balanced(design, nu, free_bias)
    form = _reduced(terms, free_bias)
    frontier = _roots(form)
    with np.errstate(over="ignore", under="ignore"):
        target = float(np.ldexp(target, -form.exponent))
    best, where, sign = 0.0, np.zeros(form.rows.shape[1]), 1
    limit = max(target, 4.0 * form.allowance)
    settled, done = 0.0, 0
    while len(frontier.sign) and done < nodes:
        # Largest bounds first; large shares at a time, so that copying stays cheap.
        share = min(max(CHUNK, len(frontier.sign) // 4), nodes - done)
        order = np.argsort(-frontier.bound, kind="stable")
        batch, frontier = frontier.take(order[:share]), frontier.take(order[share:])
        done += len(batch.sign)
        children = []
        for begin in range(0, len(batch.sign), CHUNK):
            cones = Cones(form, batch.take(slice(begin, begin + CHUNK)))
            top = cones.tighten(max(limit, best * (1.0 + tolerance), best + 4.0 * form.allowance))
            if top > best:
                best, where, sign = cones.incumbent()
            limit = max(limit, best * (1.0 + tolerance), best + 4.0 * form.allowance)
            children.append(cones.split(limit))
            settled = max(settled, cones.settled)
        frontier = _Nodes.joined([frontier, *children])
        closed = frontier.bound <= limit
        settled = max(settled, float(frontier.bound[closed].max(initial=0.0)))
        frontier = frontier.take(~closed)
    bound, direction = max(settled, float(frontier.bound.max(initial=0.0))), form.lift @ where
    # What the samples themselves say, before any were joined.
    best = max(0.0, sign * float(terms.side @ np.maximum(terms.weighted @ direction, 0.0)))
    known = bound <= max(target, best * (1.0 + max(tolerance, SHARP)))  # false for NaN
    direction[len(direction) - free_bias :] *= 2.0**form.stretch
    bound = magnified(bound, form.exponent)
    with np.errstate(over="ignore", under="ignore"):
        attained = float(np.ldexp(best, form.exponent))
    exact = bool(known and np.isfinite(bound))
    return Supremum(bound, attained, direction, sign, exact, done)


@dataclass(frozen=True)
class _Form:
    """f(u) = s (linear·u + Σ side_k (row_k·u)_+), in coordinates of the row space.

    Attributes:
        rows: |ν_k| x_k, shape (n, r), one a hyperplane, without samples that say nothing.
        side: the signs of ν_k, shape (n,).
        linear: what merging samples of one hyperplane leaves, shape (r,).
        lift: shape (p, r): u = lift @ coordinates; orthonormal but for a free bias's column.
        reach: bound on the last coordinate, which no norm counts then; 0 if all are penalised.
        radius: bound on the norm of all coordinates.
        size: Σ |ν_k| ‖x_k‖, a Lipschitz constant of f.
        allowance: what the reduction and the sums over samples lose by rounding.
        exponent, stretch: powers of two that were taken out (see `Balanced`).
    """

    rows: Floats
    side: Floats
    linear: Floats
    lift: Floats
    reach: float
    radius: float
    size: float
    allowance: float
    exponent: int
    stretch: int


def _reduced(terms: Balanced, free_bias: bool) -> _Form:
    """Turn the row space to its singular vectors and merge samples of one hyperplane."""
    weighted = terms.weighted
    n, p = weighted.shape
    count, reach, unit = p - free_bias, 0.0, 1.0
    if free_bias:
        # b is measured in units of STRETCH times its bound, so that one ball nearly fits.
        reach = 1.0 / STRETCH
        unit = STRETCH * terms.farthest
    plain = weighted[:, :count]
    _, sigma, directions = np.linalg.svd(plain, full_matrices=False)
    kept = directions[sigma > max(n, p) * EPSILON * sigma.max(initial=0.0)].T
    lift = kept
    if free_bias:
        lift = np.zeros((p, kept.shape[1] + 1))
        lift[:count, :-1], lift[-1, -1] = kept, unit
    rows, r = weighted @ lift, lift.shape[1]
    size, radius = float(np.linalg.norm(rows, axis=1).sum()), float(np.hypot(1.0, reach))
    # What the kept directions miss, and their own lack of orthogonality, is charged in full.
    lost = float(np.linalg.norm(plain - plain @ kept @ kept.T, axis=1).sum())
    rows, side, linear, moved = _merged(rows, terms.side)
    allowance = lost + radius * moved + 16 * r * (n + p + 16) * EPSILON * radius * size
    return _Form(
        rows, side, linear, lift, reach, radius, radius * size, allowance,
        terms.exponent, terms.stretch,
    )  # fmt: skip


def _merged(rows: Floats, side: Floats) -> tuple[Floats, Floats, Floats, float]:
    """Join samples on one hyperplane: (c t)_+ = c t_+, and for c < 0 it is c t + |c| t_+.

    Samples nearly on one hyperplane are joined too, and what that moves is charged: they would
    have to be told apart by cones as narrow as they are close.

    Args:
        rows: weighted samples in reduced coordinates, shape (n, r).
        side: signs of their weights, shape (n,).

    Returns:
        Rows, sides, the linear part, and a bound on how far samples were moved, in all.
    """
    sizes = np.linalg.norm(rows, axis=1)
    heavy = np.flatnonzero(sizes > 0)
    linear, moved, gone = np.zeros(rows.shape[1]), 0.0, sizes == 0
    rows, side = rows.copy(), side.copy()
    units = rows / np.where(gone, 1.0, sizes)[:, None]
    for group in collinear(units, heavy, CLOSE):
        if len(group) == 1:
            continue
        head = group[np.argmax(sizes[group])]
        along = rows[group] @ units[head]
        moved += float(np.linalg.norm(rows[group] - along[:, None] * units[head], axis=1).sum())
        ahead, behind = side[group] * np.maximum(along, 0), side[group] * np.maximum(-along, 0)
        gone[group[group != head]] = True
        linear -= behind.sum() * units[head]
        weight = float(ahead.sum() + behind.sum())
        rows[head], side[head] = abs(weight) * units[head], np.sign(weight)
    gone |= side == 0
    return rows[~gone], side[~gone], linear, moved


@dataclass
class _Nodes:
    """Simplicial cones that are still open, one a row.

    Attributes:
        rays: unit rays r_i, all in one orthant, shape (N, r, r).
        inverse: the inverses of ``rays``: c = u @ inverse, shape (N, r, r).
        sign: the sign s, shape (N,).
        slopes: tangents t_k to begin with, shape (N, n); halves a double's memory.
        depth: number of splits, shape (N,).
        bound: what f is known not to exceed, shape (N,).
    """

    rays: Floats
    inverse: Floats
    sign: Floats
    slopes: NDArray[np.float32]
    depth: NDArray[np.int64]
    bound: Floats

    def take(self, which: object) -> _Nodes:
        """Return some of the nodes."""
        return _Nodes(*(getattr(self, f.name)[which] for f in fields(self)))

    @staticmethod
    def joined(parts: list[_Nodes]) -> _Nodes:
        """Return the nodes of all parts."""
        return _Nodes(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(_Nodes))
        )


def _roots(form: _Form) -> _Nodes:
    """Return the orthants, for both signs."""
    n, r = form.rows.shape
    if r == 0:
        shape = (0, 0, 0)
        empty = np.zeros(0)
        return _Nodes(
            np.zeros(shape), np.zeros(shape), empty, np.zeros((0, n), np.float32),
            np.zeros(0, np.int64), empty,
        )  # fmt: skip
    corners = np.array(list(itertools.product([1.0, -1.0], repeat=r)))
    rays = np.tile(corners[:, :, None] * np.eye(r), (2, 1, 1))
    sign = np.repeat([1.0, -1.0], len(corners))
    return _Nodes(
        rays=rays,
        inverse=rays.copy(),
        sign=sign,
        slopes=np.full((len(rays), n), 0.5, dtype=np.float32),
        depth=np.zeros(len(rays), dtype=np.int64),
        bound=np.full(len(rays), form.size * (1 + EPSILON * n) + form.allowance),
    )


class Cones:
    """One block of nodes while it is being bounded, sorted by how many samples matter.

    Attributes:
        settled: the largest bound among the nodes that `split` did not split.
    """

    def __init__(self, form: _Form, nodes: _Nodes) -> None:
        n, r = form.rows.shape
        values = (nodes.rays.reshape(-1, r) @ form.rows.T).reshape(len(nodes.sign), r, n)
        convex = nodes.sign[:, None] * form.side > 0
        on, off = (values > 0).any(axis=1), (values < 0).any(axis=1)
        cut = on & off & ~convex
        order = np.argsort(-cut.sum(axis=1), kind="stable")
        self.form, self.nodes = form, nodes.take(order)
        self.values, self.convex, self.cut = values[order], convex[order], cut[order]
        # P at the rays, without and with the linear part.
        self.peak = np.einsum("nik,nk->ni", np.maximum(self.values, 0), self.convex.astype(float))
        self.top = self.peak + self.nodes.sign[:, None] * (self.nodes.rays @ form.linear)
        # Concave samples that are not cut have one tangent.
        self.slopes = np.where(self.cut, self.nodes.slopes, (on & ~convex)[order]).astype(float)
        count = len(order)
        self.bound = self.nodes.bound.copy()
        self.low = np.full(count, -np.inf)  # the relaxation's own value at `weights`
        self.value = np.full(count, -np.inf)  # f there
        self.weights = np.zeros((count, r))  # coordinates c of a point of the cone
        self.settled = 0.0

    def tighten(self, limit: float) -> float:
        """Bound all nodes, with effort only where it can decide; return the best value of f."""
        live = np.arange(len(self.bound))
        descent = Descent(self, live)
        for _ in range(ROUNDS):
            descent.sweep()
            descent.sweep()
            live = descent.nodes
            self.slopes[live] = descent.slopes()
            self._record(live, descent.g.T)
            limit = max(limit, float(self.value[live].max(initial=0.0)))
            # Below the limit a node is settled; where the relaxation itself is above, only a
            # split can help.
            undecided = (self.bound[live] > limit) & (self.low[live] <= limit)
            if not undecided.any():
                break
            descent.keep(undecided)
        convex = np.maximum(self.values.sum(axis=1), 0.0)
        slack = self.peak.sum(axis=1) - (convex * self.convex).sum(axis=1)
        tight = slack <= 1e-14 * self.form.size  # the relaxation is f itself
        for node in np.flatnonzero((self.bound > limit) & (tight | (self.low <= limit))):
            self._solve(int(node))
        return float(self.value.max())

    def incumbent(self) -> tuple[float, Floats, int]:
        """Return the best value of f found in the block, its unit direction and its sign."""
        best = int(self.value.argmax())
        u = self.weights[best] @ self.nodes.rays[best]
        return float(self.value[best]), u, int(self.nodes.sign[best])

    def _penalised(self, u: Floats) -> tuple[Floats, Floats]:
        """Return the norms that count and the sizes of a free coordinate, shape (N,) each."""
        if not self.form.reach:
            return np.linalg.norm(u, axis=1), np.zeros(len(u))
        return np.linalg.norm(u[:, :-1], axis=1), np.abs(u[:, -1])

    def _record(self, which: NDArray[np.intp], g: Floats, free_weight: float = 1.0) -> None:
        """Take over what vectors ``g`` and the slopes prove, and try their directions."""
        form, nodes, r = self.form, self.nodes.take(which), g.shape[1]
        counted, free = self._penalised(g)
        size = counted + form.reach * free
        drag = self.slopes[which] @ form.rows
        missing = self.top[which] - np.einsum("nij,nj->ni", nodes.rays, g + drag)
        # On the cone Σ c_i ≤ √r ‖u‖, because its rays lie in one orthant.
        bound = size + form.radius * np.sqrt(r) * np.maximum(missing.max(axis=1), 0.0)
        rounding = 16 * (r + 4) ** 2 * EPSILON * (size + form.size)
        # Rays are rounded: a split may miss points, as far from it as their rounding.
        rounding = rounding + 8 * EPSILON * nodes.depth * form.size
        proved = bound + rounding + form.allowance
        self.bound[which] = np.fmin(self.bound[which], proved)  # NaN proves nothing
        # The maximiser of the relaxation is g/‖g‖ where (t, g) are optimal; move it into the cone.
        scale = np.ones(r)
        scale[-1] = free_weight**2
        weights = np.maximum(np.einsum("nj,nji->ni", g * scale, nodes.inverse), 0.0)
        u = np.einsum("ni,nij->nj", weights, nodes.rays)
        length, free = self._penalised(u)
        if form.reach:
            length = np.maximum(length, free / form.reach)
        good = length > 0
        weights[good] /= length[good, None]
        u[good] /= length[good, None]
        values = np.maximum(u @ form.rows.T, 0.0)
        convex = self.convex[which]
        concave = (values * ~convex).sum(axis=1)
        low = (weights * self.top[which]).sum(axis=1) - concave
        value = (values * convex).sum(axis=1) - concave + nodes.sign * (u @ form.linear)
        better = value > self.value[which]
        self.low[which] = np.maximum(self.low[which], low)
        self.value[which] = np.where(better, value, self.value[which])
        self.weights[which[better]] = weights[better]

    def _solve(self, node: int) -> None:
        """Find one node's best (t, g) by an active set method."""
        cut, inverse = np.flatnonzero(self.cut[node]), self.nodes.inverse[node]
        self.slopes[node, cut] = 0.0
        start = inverse @ self.top[node] - self.slopes[node] @ self.form.rows
        columns = np.hstack([self.form.rows[cut].T, -inverse])
        high = np.concatenate([np.ones(len(cut)), np.full(len(inverse), np.inf)])
        weight = np.ones(len(inverse))
        if self.form.reach:
            weight[-1] = WEIGHT  # what remains along a free coordinate is charged in full
        found = lsq_linear(
            weight[:, None] * columns, weight * start, (0.0, high), method="bvls", tol=1e-15
        )
        self.slopes[node, cut] = np.clip(found.x[: len(cut)], 0.0, 1.0)
        self._record(np.array([node]), (start - columns @ found.x)[None], weight[-1])

    def split(self, limit: float) -> _Nodes:
        """Return the children of the nodes whose bound is above ``limit``."""
        width = np.linalg.norm(self.nodes.inverse, axis=(1, 2))
        r = self.top.shape[1]
        split = (self.bound > limit) & (width < FLAT) & (r > 1)
        self.settled = float(self.bound[~split].max(initial=0.0))
        which = np.flatnonzero(split)
        nodes, every = self.nodes.take(which), np.arange(len(which))
        if len(which) == 0:
            return nodes
        first, second = self._edges(which)
        middle = nodes.rays[every, first] + nodes.rays[every, second]
        length = np.linalg.norm(middle, axis=1)[:, None]
        children = []
        for old, kept in ((first, second), (second, first)):
            rays, inverse = nodes.rays.copy(), nodes.inverse.copy()
            rays[every, old] = middle / length
            # u = … + c_old r_old + c_kept r_kept = … + c_old ‖·‖ middle + (c_kept − c_old) r_kept
            inverse[every, :, kept] -= inverse[every, :, old]
            inverse[every, :, old] *= length
            children.append(
                _Nodes(
                    rays, inverse, nodes.sign, self.slopes[which].astype(np.float32),
                    nodes.depth + 1, self.bound[which],
                )
            )  # fmt: skip
        return _Nodes.joined(children)

    def _edges(self, which: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Choose the edge whose bisection lowers the envelope of P most at the found point."""
        values, peak, rays = self.values[which], self.peak[which], self.nodes.rays[which]
        weights, convex = self.weights[which], self.convex[which].astype(float)
        pairs = np.array(list(itertools.combinations(range(peak.shape[1]), 2)))
        gain, edge = np.empty((2, len(pairs), len(which)))
        for k, (i, j) in enumerate(pairs):
            joint = np.einsum("nk,nk->n", np.maximum(values[:, i] + values[:, j], 0.0), convex)
            gain[k] = (peak[:, i] + peak[:, j] - joint) * np.minimum(weights[:, i], weights[:, j])
            edge[k] = np.linalg.norm(rays[:, i] - rays[:, j], axis=1)
        gain += 1e-3 * edge * np.abs(self.bound[which])
        gain[edge < ROUND * edge.max(axis=0)] = -1.0
        chosen = pairs[gain.argmax(axis=0)]
        return chosen[:, 0], chosen[:, 1]
