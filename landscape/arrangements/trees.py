r"""Trees of ReLUs: their patterns, the linear maps and cones of these, and a list of all.

A unit of L layers that branches m-fold has one node at the top, m below it, … and
:math:`m^{L−2}` leaves; edges carry signs.  A leaf puts out :math:`(Xv)_+`, every other node

.. math:: \Big(\sum_c s_c\, g_c\Big)_+ \quad \text{of the outputs of its children.}

Once every node's mask D is fixed, the outputs are linear in the leaf vectors, and the masks hold
on a cone.  Nodes are numbered from the top down, level by level; edge e leads to node e + 1.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from landscape import arrangements
from landscape.arrangements.cells import EPSILON
from landscape.nonnegative import least_squares

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


THIN = 1e-10
"""A convex combination of unit walls this short means that their cone has no interior."""


@dataclass(frozen=True)
class Tree:
    """The shape of a unit.

    Attributes:
        depth: number of layers L, the weight of the top included; at least 3.
        branching: children m of every node but the leaves.
    """

    depth: int
    branching: int

    @property
    def widths(self) -> list[int]:
        """Number of nodes on every level, from the top down."""
        return [self.branching**level for level in range(self.depth - 1)]

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return self.widths[-1]

    @property
    def edges(self) -> int:
        """Number of edges."""
        return sum(self.widths) - 1

    def levels(self, values: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Return values (G, nodes, …) of all nodes, level by level."""
        return np.split(values, np.cumsum(self.widths)[:-1], axis=1)

    def signs(self, signs: Floats) -> list[Floats]:
        """Return signs (G, edges) of the edges, by the level on which they end, from the second."""
        return np.split(signs, np.cumsum(self.widths[1:])[:-1], axis=1)

    def paths(self, weights: Floats) -> Floats:
        """Return the product of the weights (G, edges) along the way to every leaf, (G, leaves)."""
        product = np.ones((len(weights), 1))
        for level in self.signs(weights):
            product = np.repeat(product, self.branching, axis=1) * level
        return product

    def masks(self, X: Floats, V: Floats, signs: Floats) -> Bools:
        """Return the masks of every node at leaf vectors V (G, leaves, p), shape (G, nodes, n).

        On a kink, up to rounding, the side is that of a small step in one direction, the same for
        all units: so every mask belongs to a cell with interior whose closure holds V.
        """
        tilt = np.random.default_rng(0).standard_normal(V.shape[1:])
        rounding = 4 * (V.shape[2] + 2) * EPSILON
        terms = np.abs(V) @ np.abs(X).T
        value, slope = V @ X.T, np.broadcast_to(tilt @ X.T, terms.shape)
        found: list[Bools] = []
        for s in [None, *reversed(self.signs(signs))]:
            if s is not None:
                value, slope = (_summed(v, s, self.branching) for v in (value, slope))
                terms = _summed(terms, np.abs(s), self.branching)
                rounding *= 2
            near = np.abs(value) <= rounding * terms
            mask = np.where(near, slope >= 0, value > 0)
            found.append(mask)
            value, slope, terms = (np.where(mask, v, 0.0) for v in (value, slope, terms))
        return np.concatenate(found[::-1], axis=1)

    def maps(self, X: Floats, masks: Bools, signs: Floats) -> tuple[Floats, Floats]:
        """Return what units put out as matrices, and the rows of their cones.

        Args:
            X: rows, shape (n, p).
            masks: of every node, shape (G, nodes, n).
            signs: of every edge, shape (G, edges).

        Returns:
            Matrices (G, n, leaves·p), and rows (G, nodes·n, leaves·p); rows that others imply
            (where all that reaches a node has one sign) are zero.
        """
        (n, p), m, G = X.shape, self.branching, len(masks)
        rows = np.zeros((G, masks.shape[1], n, self.leaves * p))
        first = np.cumsum([0, *self.widths])
        below, below_live = np.zeros((G, 0, n, 0)), np.zeros((G, 0, n), dtype=bool)
        for level in reversed(range(len(self.widths))):
            D = masks[:, first[level] : first[level + 1]]
            if level == len(self.widths) - 1:
                before = np.broadcast_to(X, (*D.shape, p))
                live = mixed = np.broadcast_to(X.any(axis=1), D.shape)
                implied = np.zeros(D.shape, dtype=bool)
            else:
                s = self.signs(signs)[level].reshape(G, D.shape[1], m)
                parts = below.reshape(G, D.shape[1], m, n, below.shape[-1]) * s[..., None, None]
                before = np.moveaxis(parts, 2, 3).reshape(G, D.shape[1], n, m * below.shape[-1])
                reach = below_live.reshape(G, D.shape[1], m, n)
                plus, minus = (
                    (reach & (side * s[..., None] > 0)).any(axis=2) for side in (1.0, -1.0)
                )
                live, mixed = plus | minus, plus & minus
                implied = ~mixed & ((plus | ~minus) == D)
            turned = np.where(D & ~implied, 1.0, np.where(implied, 0.0, -1.0))
            width = before.shape[-1]
            for node in range(self.widths[level]):
                span = slice(node * width, (node + 1) * width)
                rows[:, first[level] + node, :, span] = turned[:, node, :, None] * before[:, node]
            below, below_live = D[..., None] * before, D & live
        return below[:, 0], rows.reshape(G, masks.shape[1] * n, self.leaves * p)

    def every(self, X: Floats, limit: int) -> tuple[Bools, Floats]:
        """Return masks (G, nodes, n) and signs (G, edges) of all units worth considering.

        Children may be exchanged, so each combination comes once; children that put out nothing
        are left out (a leaf vector may be zero); of units whose top has no minus sign those with
        equal children are enough, because Σ_c g_c costs no less than copies of each g_c.

        Raises:
            TooManyPatterns: if more than ``limit`` combinations would have to be tried.
        """
        cells: Sequence[_Cell] = ()
        count = arrangements.count(int(X.any(axis=1).sum()), int(np.linalg.matrix_rank(X)))
        for level in reversed(range(len(self.widths) - 1)):
            if count**self.branching > limit:
                raise arrangements.TooManyPatterns(
                    f"units of {self.depth} layers would need {count**self.branching:,} "
                    f"combinations of patterns to be tried, above limit={limit:,}."
                )
            cells = cells or list(_leaves(X))
            cells = list(self._composed(X, cells, top=level == 0))
            count = len(cells)
        masks = np.array([cell.masks for cell in cells])
        masks = masks.astype(bool).reshape(len(cells), sum(self.widths), len(X))
        return masks, np.array([cell.signs for cell in cells]).reshape(len(cells), self.edges)

    def _composed(self, X: Floats, cells: Sequence[_Cell], top: bool) -> Iterator[_Cell]:
        """Yield the cells of a node whose children are among the given ones."""
        m = self.branching
        for plus in range(1, m + 1):
            if top and plus == m:
                chosen: Iterator[tuple[_Cell, ...]] = ((cell,) * m for cell in cells)
            else:
                pick = itertools.combinations_with_replacement
                chosen = (
                    (*ahead, *behind)
                    for ahead in pick(cells, plus)
                    for behind in pick(cells, m - plus)
                )
            signs = np.repeat([1.0, -1.0], [plus, m - plus])
            for children in chosen:
                yield from _above(children, signs)


@dataclass(frozen=True)
class _Cell:
    """A node with everything below it, masks fixed.

    Attributes:
        masks: nodes by level from this one down, each (nodes, n).
        signs: edges by level, each (edges,).
        output: D h as a matrix, shape (n, q).
        walls: rows of the cone that are not implied by others, shape (f, q).
        live: samples on which it may put out something, shape (n,).
    """

    masks_by_level: tuple[Bools, ...]
    signs_by_level: tuple[Floats, ...]
    output: Floats
    walls: Floats
    live: Bools

    @property
    def masks(self) -> Bools:
        return np.concatenate(self.masks_by_level)

    @property
    def signs(self) -> Floats:
        return np.concatenate(self.signs_by_level) if self.signs_by_level else np.zeros(0)


def _leaves(X: Floats) -> Iterator[_Cell]:
    there = X.any(axis=1)
    for mask in arrangements.enumerate(X).patterns:
        live = mask & there
        if live.any():
            rows = np.where(mask, 1.0, -1.0)[:, None] * X
            yield _Cell((mask[None],), (), mask[:, None] * X, _walls(rows[there]), live)


def _walls(rows: Floats) -> Floats:
    """Return the rows of a cone that are no non-negative combinations of the others."""
    kept = list(range(len(rows)))
    for row in range(len(rows)):
        others = [k for k in kept if k != row]
        rest = least_squares(rows[others].T, rows[row])[1]
        if rest <= 1e-12 * np.linalg.norm(rows[row]):
            kept = others
    return rows[kept]


def _above(children: tuple[_Cell, ...], signs: Floats) -> Iterator[_Cell]:
    """Yield the cells of a node over given children."""
    before = np.hstack([s * c.output for s, c in zip(signs, children, strict=True)])
    live = np.array([c.live for c in children])
    plus, minus = live[signs > 0].any(axis=0), live[signs < 0].any(axis=0)
    mixed = np.flatnonzero(plus & minus)
    walls = np.zeros((0, before.shape[1]))
    at = 0
    for child in children:
        wide = np.zeros((len(child.walls), before.shape[1]))
        wide[:, at : at + child.output.shape[1]] = child.walls
        walls, at = np.vstack([walls, wide]), at + child.output.shape[1]
    mask: Bools = np.asarray(plus | ~minus)
    patterns = mask.reshape(1, -1)
    if len(mixed):
        inside = _cut(walls, before[mixed])
        patterns = np.repeat(patterns, len(inside), axis=0)
        patterns[:, mixed] = inside
    depth = len(children[0].masks_by_level)
    below = tuple(np.concatenate([c.masks_by_level[k] for c in children]) for k in range(depth))
    edges = tuple(np.concatenate([c.signs_by_level[k] for c in children]) for k in range(depth - 1))
    for pattern in patterns:
        alive = pattern & live.any(axis=0)
        if alive.any():
            turned = np.where(pattern[mixed], 1.0, -1.0)[:, None] * before[mixed]
            yield _Cell(
                (pattern[None], *below),
                (signs, *edges),
                np.where(pattern[:, None], before, 0.0),
                np.vstack([walls, turned]),
                alive,
            )


def _cut(walls: Floats, rows: Floats) -> Bools:
    """Return the patterns that rows have within the cone of some walls, shape (cells, rows).

    A cell that is too thin to be told from an empty one counts: it does no harm.
    """
    cells: list[tuple[Floats, tuple[bool, ...]]] = [(walls, ())]
    for row in rows:
        sides = [(np.vstack([w, s * row]), (*past, s > 0)) for w, past in cells for s in (1, -1)]
        cells = [(w, past) for w, past in sides if _open(w)]
    return np.array([past for _, past in cells], dtype=bool).reshape(-1, len(rows))


def _open(walls: Floats) -> bool:
    """Return whether a cone has an interior: iff no convex combination of walls is 0 (Gordan)."""
    unit = walls / np.linalg.norm(walls, axis=1, keepdims=True)
    goal = np.zeros(walls.shape[1] + 1)
    goal[-1] = 1.0
    return least_squares(np.vstack([unit.T, np.ones(len(unit))]), goal)[1] > THIN


def _summed(values: Floats, signs: Floats, m: int) -> Floats:
    """Return Σ_c s_c value_c over the children of every node, shape (G, nodes, n)."""
    weighted = values * signs[:, :, None]
    return weighted.reshape(len(values), values.shape[1] // m, m, values.shape[2]).sum(axis=2)
