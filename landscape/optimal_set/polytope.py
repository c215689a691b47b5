r"""Polytopes {c ≥ 0 : Ac = b}: all their vertices, edges and faces, combinatorially.

A point is a vertex iff the columns of its support are linearly independent, so a support stands
for a vertex and everything about faces is set inclusion.  Vertices come from the double
description method (Motzkin, Raiffa, Thompson & Thrall 1953; Fukuda & Prodon 1996): the orthant's
rays are cut by one equation after the other, and two rays are combined iff no third one lies on
their smallest common face.  Degenerate vertices appear once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from landscape.errors import BadInput
from landscape.nonnegative import least_squares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.programs import Floats

RANK = 1e-9
"""Singular values up to this share of the largest count as zero; columns have unit length."""
ZERO = 1e-8
"""Coefficients up to this share of the largest count as zero."""
PAIRS = 50_000_000
"""Most pairs of rays at any step of the enumeration."""
SLAB = 20_000_000
"""Numbers in one slab of the comparisons of pairs with rays."""


@dataclass(frozen=True)
class Polytope:
    """The polytope {c ≥ 0 : Ac = b}, bounded and not empty.

    Attributes:
        columns: A, shape (n, K), no column zero.
        target: b, shape (n,).
        limit: most rays in any step of the enumeration.
        seconds: most time for it, and for the search for the fewest positive coefficients.
    """

    columns: Floats
    target: Floats
    limit: int = 20_000
    seconds: float = 30.0

    @property
    def size(self) -> int:
        """The number K of columns."""
        return self.columns.shape[1]

    @cached_property
    def scales(self) -> Floats:
        """Lengths of the columns over that of the target, shape (K,)."""
        lengths = np.linalg.norm(self.columns, axis=0)
        return lengths / (float(np.linalg.norm(self.target)) or 1.0)

    @cached_property
    def equations(self) -> tuple[Floats, Floats]:
        """Independent rows R, r with R c' = r for the scaled coefficients c' = scales · c."""
        length = float(np.linalg.norm(self.target)) or 1.0
        unit = self.columns / (self.scales * length)
        left, sizes, right = np.linalg.svd(unit, full_matrices=False)
        kept = sizes > RANK * sizes.max(initial=1.0)
        right = right[kept]
        r = (left[:, kept].T @ self.target / length) / sizes[kept]
        return right, r

    @property
    def rank(self) -> int:
        """The rank of A."""
        return len(self.equations[1])

    @cached_property
    def _described(self) -> tuple[Floats, str]:
        """Vertices (V, K) in the columns' units, and why they may not be all of them."""
        if not np.any(self.target):
            return np.zeros((1, self.size)), ""
        rays, sentence = _rays(*self.equations, self.limit, self.seconds)
        if sentence:
            rays = self._sampled()
        supports = np.unique(rays > ZERO * rays.max(axis=1, keepdims=True, initial=0.0), axis=0)
        found = [self._solved(support) for support in supports]
        return np.array([c for c in found if c is not None]).reshape(-1, self.size), sentence

    @property
    def vertices(self) -> Floats:
        """The vertices, shape (V, K), by increasing number of positive coefficients."""
        found = self._described[0]
        return found[np.argsort((found > 0).sum(axis=1), kind="stable")]

    @property
    def complete(self) -> bool:
        """Whether `vertices` has every vertex."""
        return not self._described[1]

    @property
    def status(self) -> str:
        """Say how many vertices there are, or why only some are known."""
        count = len(self.vertices)
        if self.complete:
            return f"All {count} vertices were enumerated."
        return f"{self._described[1]} {count} vertices were sampled by linear programs."

    @cached_property
    def supports(self) -> NDArray[np.bool_]:
        """Which coefficients are positive at each vertex, shape (V, K)."""
        return self.vertices > 0

    @cached_property
    def edges(self) -> NDArray[np.int64]:
        """Pairs of adjacent vertices, shape (E, 2): no third one lies in the union of supports."""
        if not self.complete:
            raise BadInput(f"edges need all vertices. {self.status}")
        members = self.supports.astype(np.float32)
        sizes, found = members.sum(axis=1), []
        joint_size = sizes[:, None] + sizes - members @ members.T
        # An edge is a face of dimension one: its columns have one dependence.
        first, second = np.nonzero(np.triu(joint_size <= self.rank + 1, 1))
        width = max(1, SLAB // len(members))
        for begin in range(0, len(first), width):
            part = slice(begin, begin + width)
            joint = np.maximum(members[first[part]], members[second[part]])
            adjacent = (joint @ members.T == sizes).sum(axis=1) == 2
            found.append(np.column_stack([first[part][adjacent], second[part][adjacent]]))
        return np.vstack([np.zeros((0, 2), np.int64), *found])

    def components(self, width: int) -> NDArray[np.int64]:
        """Label the vertices with fewer than ``width`` positive coefficients by component.

        Two are connected if a chain of edges leads from one to the other on which no more than
        ``width`` coefficients are positive at once.

        Returns:
            Labels from 0 on, shape (V,); −1 for the other vertices.
        """
        counts = self.supports.sum(axis=1)
        inside = counts < width
        pairs = self.edges[inside[self.edges].all(axis=1)]
        joint = (self.supports[pairs[:, 0]] | self.supports[pairs[:, 1]]).sum(axis=1)
        pairs = pairs[joint <= width]
        graph = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(counts),) * 2)
        labels = connected_components(graph, directed=False)[1].astype(np.int64)
        labels[inside] = np.unique(labels[inside], return_inverse=True)[1]
        labels[~inside] = -1
        return labels

    def _solved(self, support: NDArray[np.bool_]) -> Floats | None:
        """Return the vertex of a support, or None if there is none."""
        rows, r = self.equations
        part, *_ = np.linalg.lstsq(rows[:, support], r)
        if np.abs(rows[:, support] @ part - r).max(initial=0.0) > ZERO or (part <= 0).any():
            return None
        c = np.zeros(self.size)
        c[support] = part / self.scales[support]
        return c

    def _sampled(self, draws: int = 200) -> Floats:
        """Return vertices that random linear objectives attain, scaled."""
        rows, r = self.equations
        rng, found = np.random.default_rng(0), []
        for _ in range(draws):
            solved = linprog(rng.standard_normal(self.size), A_eq=rows, b_eq=r, method="highs-ds")
            if solved.x is not None:
                found.append(solved.x)
        return np.array(found).reshape(-1, self.size)

    def largest(self, weights: Floats) -> tuple[float, Floats]:
        """Maximise a linear function wᵀc over the polytope (HiGHS).

        Returns:
            The maximum and a vertex that attains it, shape (K,).
        """
        rows, r = self.equations
        solved = linprog(-weights / self.scales, A_eq=rows, b_eq=r, method="highs-ds")
        if solved.x is None:
            raise BadInput(f"the polytope could not be searched: {solved.message}")
        c = solved.x / self.scales
        return float(weights @ c), c

    @cached_property
    def used(self) -> NDArray[np.bool_]:
        """Which coefficients are positive somewhere in the polytope, shape (K,)."""
        if self.complete:
            return np.logical_or.reduce(self.supports, axis=0)
        tops = np.array([self.largest(row)[0] for row in np.eye(self.size)])
        return np.greater(tops * self.scales, ZERO)

    @property
    def dimension(self) -> int:
        """The dimension of the polytope: dependences among the columns in use."""
        rows = self.equations[0][:, self.used]
        return rows.shape[1] - (int(np.linalg.matrix_rank(rows, RANK)) if rows.size else 0)

    @property
    def unique(self) -> bool:
        """Whether the polytope is one point: the columns in use are linearly independent."""
        return self.dimension == 0

    def fewest(self) -> tuple[int, int]:
        """Bound the fewest positive coefficients of any point, by mixed-integer programming.

        Returns:
            ``(lower, upper)``, proved by HiGHS within its tolerances, equal if it ended in time.
        """
        rows, r = self.equations
        if not np.any(self.target):
            return 0, 0
        K, top = self.size, np.array([self.largest(row)[0] for row in np.eye(self.size)])
        top = np.maximum(top * self.scales, ZERO)
        solved = linprog(
            np.r_[np.zeros(K), np.ones(K)],
            A_ub=np.hstack([np.eye(K), -np.diag(top)]),
            b_ub=np.zeros(K),
            A_eq=np.hstack([rows, np.zeros_like(rows)]),
            b_eq=r,
            bounds=[(0.0, None)] * K + [(0.0, 1.0)] * K,
            integrality=np.r_[np.zeros(K), np.ones(K)],
            options={"time_limit": self.seconds},
            method="highs",
        )
        lower = max(1, int(np.ceil((getattr(solved, "mip_dual_bound", None) or 1.0) - 1e-6)))
        upper = min(self.rank, K)
        if solved.x is not None:  # whatever HiGHS tolerated: the columns chosen must carry b
            chosen = solved.x[K:] > 0.5
            part, rest = least_squares(rows[:, chosen], r)
            upper = min(upper, int((part > 0).sum())) if rest <= ZERO else upper
        upper = min([upper, *(int(s.sum()) for s in self.supports)])
        return min(lower, upper), upper


def _rays(rows: Floats, r: Floats, limit: int, seconds: float) -> tuple[Floats, str]:
    """Return the extreme rays of {(c, t) ≥ 0 : rows c = r t} with t = 1, or why they are too many.

    Args:
        rows: orthonormal rows, shape (m, K).
        r: shape (m,).
        limit: most rays at any step.
        seconds: most time.
    """
    began = time.monotonic()
    K = rows.shape[1]
    system = _echelon(np.column_stack([rows, -r]))
    rays, positive = np.eye(K + 1), np.eye(K + 1, dtype=bool)
    for step, row in enumerate(system):
        values = rays @ row
        values[np.abs(values) <= RANK * np.abs(row).max()] = 0.0  # rays have largest entry 1
        above, below = np.flatnonzero(values > 0), np.flatnonzero(values < 0)
        stay = values == 0
        if len(above) * len(below) > PAIRS:
            return rays[:0, :K], f"There are {len(above)} × {len(below)} pairs of rays at a step."
        # Set sizes by matrix products of zeros and ones, exact in single precision.
        members = positive.astype(np.float32)
        sizes = members.sum(axis=1)
        joint_size = sizes[above, None] + sizes[below] - members[above] @ members[below].T
        # A ray of the cone after this step has at most step + 2 positive entries.
        first, second = np.nonzero(joint_size <= step + 2)
        i, j = above[first], below[second]
        adjacent = np.zeros(len(i), dtype=bool)
        width = max(1, SLAB // len(rays))
        for begin in range(0, len(i), width):
            part = slice(begin, begin + width)
            joint = (positive[i[part]] | positive[j[part]]).astype(np.float32)
            adjacent[part] = (joint @ members.T == sizes).sum(axis=1) == 2
            if time.monotonic() - began > seconds:
                return rays[:0, :K], f"The enumeration took longer than {seconds:g} s."
        i, j = i[adjacent], j[adjacent]
        new = values[i, None] * rays[j] - values[j, None] * rays[i]
        new /= new.max(axis=1, keepdims=True, initial=1e-300)
        rays = np.vstack([rays[stay], new])
        positive = np.vstack([positive[stay], positive[i] | positive[j]])
        if len(rays) > limit:
            return rays[:0, :K], f"There are more than {limit} rays at a step."
    bounded = positive[:, K]
    return rays[bounded, :K] / rays[bounded, K:], ""


def _echelon(system: Floats) -> Floats:
    """Return the system with an identity on some of its columns: rows as sparse as can be."""
    system = system.copy()
    for i in range(len(system)):
        j = int(np.abs(system[i, :-1]).argmax())
        system[i] /= system[i, j]
        others = np.arange(len(system)) != i
        system[others] -= np.outer(system[others, j], system[i])
    return np.where(np.abs(system) > RANK * np.abs(system).max(axis=1, keepdims=True), system, 0.0)
