r"""Cells by their extreme rays: directions on r − 1 hyperplanes, and which cells they bound.

On the closure of a cell :math:`(Xw)_+` is linear, so it maps the cell, the cone of its extreme
rays, onto the cone of the rays' images.  That holds where D_iX is rank deficient, and where the
images of some rays vanish, as well as anywhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from landscape import arrangements
from landscape.arrangements.cells import EPSILON, Floats, distinct
from landscape.arrangements.rows import Hyperplanes, hyperplanes

CHUNK = 50_000


@dataclass(frozen=True)
class CellRays:
    r"""The extreme rays of all full-dimensional cells.

    Attributes:
        directions: unit rays, shape (K, d).
        images: :math:`(Xw)_+` of every ray, exactly zero on ties, shape (K, n).
        rounding: what rounding may have changed of a ray's image, a length, shape (K,).
        cells: the rays of every cell, P arrays of numbers.
    """

    directions: Floats
    images: Floats
    rounding: Floats
    cells: list[NDArray[np.intp]]


def cost(X: Floats) -> int:
    """Return how many cells or rays there may be at most, whichever are more."""
    planes = hyperplanes(X)
    if planes.rank == 0:
        return 0
    u = len(planes.Z)
    return max(arrangements.count(u, planes.rank), 2 * math.comb(u, planes.rank - 1))


def cell_rays(X: Floats, limit: int) -> CellRays:
    """Return the rays of all cells, each once, and the rays of every cell.

    Args:
        X: design matrix, shape (n, d).
        limit: the most cells that there may be.

    Raises:
        TooManyPatterns: if hyperplanes in general position would have more cells.
        Undecided: if the rows are so nearly degenerate that no sign can be trusted.

    Example:
        >>> [len(rays) for rays in cell_rays(np.array([[1.0, 0.0], [1.0, 1.0]]), 10).cells]
        [2, 2, 2, 2]
    """
    planes = hyperplanes(X)
    if planes.rank == 0:
        return CellRays(np.zeros((0, X.shape[1])), np.zeros((0, len(X))), np.zeros(0), [])
    rays, sides = _rays(planes)
    w = rays @ planes.lift.T
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    on = sides[:, planes.owner] * np.where(planes.turned, -1, 1) > 0
    on &= planes.owner >= 0
    images = np.where(on, np.maximum(w @ X.T, 0.0), 0.0)
    charge = 8.0 * (X.shape[1] + 4) * EPSILON
    rounding = charge * np.linalg.norm(np.where(on, np.abs(w) @ np.abs(X).T, 0.0), axis=1)
    patterns = np.asarray(arrangements.enumerate(X, limit))
    head = np.array([np.flatnonzero(planes.owner == k)[0] for k in range(len(planes.Z))])
    cell_sides = np.where(patterns[:, head] ^ planes.turned[head], 1.0, -1.0)
    return CellRays(w, images, rounding, _incident(cell_sides, sides))


def _rays(planes: Hyperplanes) -> tuple[Floats, NDArray[np.int8]]:
    """Return the directions on r − 1 independent hyperplanes (K, r), and their sides (K, u)."""
    Z, r, tol = planes.Z, planes.rank, 16 * planes.tolerance
    subsets = np.array(list(combinations(range(len(Z)), r - 1)), dtype=np.intp)
    found, seen = [], []
    for start in range(0, len(subsets), CHUNK):
        rows = Z[subsets[start : start + CHUNK]]  # (k, r − 1, r)
        sizes, V = np.linalg.svd(rows, full_matrices=True)[1:]
        ray = V[:, -1][sizes.min(axis=1, initial=1.0) > tol]
        values = ray @ Z.T
        found.append(ray)
        seen.append(np.where(np.abs(values) <= tol, 0, np.sign(values)).astype(np.int8))
    rays, sides = np.concatenate(found), np.concatenate(seen)
    rays, sides = np.concatenate([rays, -rays]), np.concatenate([sides, -sides])
    first = distinct(np.packbits(np.hstack([sides > 0, sides < 0]), axis=1))  # it is its sides
    return rays[first], sides[first]


def _incident(cells: Floats, rays: NDArray[np.int8]) -> list[NDArray[np.intp]]:
    """Return the rays that leave no hyperplane on the wrong side of each cell."""
    count, found = np.abs(rays).sum(axis=1, dtype=np.int64), []
    size = max(1, 20_000_000 // max(1, len(rays)))
    for start in range(0, len(cells), size):
        agreeing = cells[start : start + size] @ rays.T.astype(np.float64)
        cell, ray = np.nonzero(agreeing > count - 0.5)
        found += np.split(ray, np.searchsorted(cell, np.arange(1, len(agreeing))))
    return found
