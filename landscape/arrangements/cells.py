r"""All cells of a central hyperplane arrangement, each charged to one vertex; no linear programs.

Take a random flag of subspaces :math:`L_1\subset\dots\subset L_r=R^r` (here: the first k axes
after a random rotation).  A cell that meets :math:`L_k` but not :math:`L_{k-1}` is, in the chart
:math:`h_k=1` of :math:`L_k`, a bounded region: it has one lowest vertex along axis k−1.  Vertices
are the flats of rank k−1; at a flat of k−1 rows exactly one cell is lowest, read off one inverse
matrix.  At a flat with more rows (concurrent hyperplanes) the lowest cells are the bounded cells
of the arrangement of those rows, one dimension lower: a recursion.  Cells that are unbounded in
the chart are found again lower in the flag, or as a complement, and merged.

The numbers :math:`w_k` of cells charged to flats of rank k are the Whitney numbers of the
arrangement, so it has :math:`2(w_{r-1}+w_{r-3}+\dots)` cells (Zaslavsky 1975; Greene and
Zaslavsky 1983).  Every level of the recursion is checked against that count, and every
independent subset of rows must have been met at exactly one flat.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

EPSILON = float(np.finfo(np.float64).eps)
CHUNK = 2_000_000  # numbers in one block of work
LOOSE = 1e-8  # rows that a projection calls dependent must be so, this closely, before it


class Unlucky(ArithmeticError):
    """A sign could not be decided under this rotation."""


def distinct(packed: Bytes) -> NDArray[np.intp]:
    """Return the indices of first occurrences among the rows, in their order."""
    if packed.shape[1] == 0:
        return np.arange(min(len(packed), 1))
    words = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
    words[:, : packed.shape[1]] = packed
    keys = words.view(np.uint64)
    odd = np.random.default_rng(0).integers(2**63, size=keys.shape[1], dtype=np.uint64) * 2 + 1
    digest = (keys * odd).sum(axis=1)
    digest ^= digest >> np.uint64(32)
    order = np.argsort(digest, kind="stable")  # the first of equal rows comes first
    differ = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    if (differ & (digest[order[1:]] == digest[order[:-1]])).any():  # a collision: sort the rows
        order = np.lexsort(keys.T)
        differ = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    return np.sort(order[np.r_[True, differ][: len(order)]])


def half(Z: Floats, tol: float) -> tuple[Bytes, Floats, int]:
    """Enumerate the cells of the rows' hyperplanes on the positive side of row 0.

    Args:
        Z: rows, shape (n, r), of rank r, none zero, no two collinear, in generic coordinates.
        tol: what counts as zero against unit vectors.

    Returns:
        ``(packed, gates, cut)``: packed patterns (P/2, ceil(n/8)), gates (P/2, r), and how many of
        them, the first ones, meet the plane where the last coordinate is 0.

    Raises:
        Unlucky: if these coordinates leave a sign undecided.
    """
    Z = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    r = Z.shape[1]
    levels = [_level(Z, k, tol) for k in range(1, r + 1)]
    packed = np.concatenate([level[0] for level in levels])
    gates = np.concatenate([level[1] for level in levels])
    first = distinct(packed)
    # a cell of a low level is whole there, so a second copy of it can only come from above
    if len(first) != sum(len(level[0]) for level in levels[::-1][::2]):
        raise Unlucky("the cells don't add up to the Whitney numbers")
    cut = int(np.searchsorted(first, sum(len(level[0]) for level in levels[:-1])))
    return packed[first], gates[first], cut


def _level(Z: Floats, k: int, tol: float) -> tuple[Bytes, Floats]:
    """Return the cells charged to flats of rank k−1, turned to row 0's positive side."""
    n, r = Z.shape
    if k == 1:
        return _finish(Z[None, :, 0] > 0, np.eye(1, r))
    Y = Z[:, :k]
    found: list[tuple[Bytes, Floats]] = []
    crowded: list[Bytes] = []
    left = math.comb(n, k - 1)  # subsets not yet seen
    held = 0  # independent subsets of crowded flats, as found less as expected
    for rows in _subsets(n, k - 1, max(1, CHUNK // n)):
        left -= len(rows)
        inverse, rows = _inverses(Z, rows, tol)
        if len(rows) == 0:
            continue
        vertices = np.concatenate(
            [-np.einsum("vij,vj->vi", inverse, Y[rows, k - 1]), np.ones((len(rows), 1))], axis=1
        )
        size = np.linalg.norm(inverse, axis=(1, 2))
        values = vertices @ Y.T  # (V, n)
        near = np.maximum(tol, 256 * EPSILON * size) * np.linalg.norm(vertices, axis=1)
        np.put_along_axis(values, rows, np.inf, axis=1)
        zero = np.abs(values) <= near[:, None]
        simple = ~zero.any(axis=1)
        if not simple.all():
            np.put_along_axis(zero, rows, True, axis=1)
            crowded.append(np.packbits(zero[~simple], axis=1))
            held += len(crowded[-1])
            inverse, rows, size = inverse[simple], rows[simple], size[simple]
            vertices, values = vertices[simple], values[simple]
        # axis k−1 as a combination of the rows: its signs say on which side the lowest cell is
        weights = inverse[:, k - 2]
        if (np.abs(weights) <= 64 * EPSILON * size[:, None] ** 2).any():
            raise Unlucky("a cell has no lowest vertex to speak of")
        inward = np.einsum("vij,vj->vi", inverse, np.sign(weights))
        signs = values > 0
        np.put_along_axis(signs, rows, weights > 0, axis=1)
        found.append(_finish(signs, _gates(vertices, values, inward, Y, r)))
    for flat, vertex in _flats(Z, k, crowded, tol):
        for rows in _subsets(len(flat), k - 1, max(1, CHUNK // n)):
            held -= len(_inverses(Z, flat[rows], tol)[1])
        values = Y @ vertex
        values[flat] = np.inf
        local, inward = _bounded(Z[flat, : k - 1], tol)
        signs = np.repeat(values[None] > 0, len(local), axis=0)
        signs[:, flat] = local
        several = np.repeat(vertex[None], len(local), axis=0)
        values = np.repeat(values[None], len(local), axis=0)
        found.append(_finish(signs, _gates(several, values, inward, Y, r)))
    if left or held or not found:
        raise Unlucky("the vertices don't add up to all subsets of the rows")
    return np.concatenate([p for p, _ in found]), np.concatenate([g for _, g in found])


def _subsets(n: int, size: int, chunk: int) -> Iterator[NDArray[np.intp]]:
    """Yield all subsets of range(n) of that size, in blocks (V, size)."""
    every = itertools.combinations(range(n), size)
    while True:
        block = itertools.chain.from_iterable(itertools.islice(every, chunk))
        rows = np.fromiter(block, dtype=np.intp).reshape(-1, size)
        if len(rows) == 0:
            return
        yield rows


def _inverses(Z: Floats, rows: NDArray[np.intp], tol: float) -> tuple[Floats, NDArray[np.intp]]:
    """Invert each subset's leading square block; dependent subsets are left out."""
    k = rows.shape[1]
    blocks = Z[:, :k][rows]
    regular = np.linalg.det(blocks) != 0  # an exact zero would make `inv` raise for all
    inverse = np.asarray(np.linalg.inv(blocks[regular]), dtype=np.float64)
    large = np.linalg.norm(inverse, axis=(1, 2)) * tol >= 1
    regular[regular] = ~large
    if not regular.all():
        least = np.linalg.svd(Z[rows[~regular]], compute_uv=False)[:, -1]
        if (least > LOOSE).any():
            raise Unlucky("independent rows look dependent")
    return inverse[~large], rows[regular]


def _flats(
    Z: Floats, k: int, crowded: list[Bytes], tol: float
) -> Iterator[tuple[NDArray[np.intp], Floats]]:
    """Yield the flats of rank k−1 that have more rows than their rank, and their vertices."""
    if not crowded:
        return
    n, seen = len(Z), set()
    packed = np.concatenate(crowded)
    for mask in np.unpackbits(packed[distinct(packed)], axis=1, count=n).astype(bool):
        # the vertex from all of the flat's rows is more accurate than from any k−1 of them
        vertex = np.linalg.svd(Z[mask, :k])[2][-1]
        flat = np.flatnonzero(np.abs(Z[:, :k] @ vertex) <= 16 * tol)
        if flat.tobytes() in seen:
            continue
        seen.add(flat.tobytes())
        scale = np.linalg.svd(Z[flat], compute_uv=False)
        if len(flat) < k or abs(vertex[-1]) <= tol or scale[k - 2] <= tol:
            raise Unlucky("a flat is out of reach")
        if len(scale) >= k and scale[k - 1] > LOOSE:
            raise Unlucky("a flat has too high a rank")
        yield flat, vertex / vertex[-1]


def _bounded(Z: Floats, tol: float) -> tuple[Bools, Floats]:
    """Return the cells where the last coordinate is positive throughout, and their gates."""
    packed, gates, cut = half(Z, tol)
    signs = np.unpackbits(packed[cut:], axis=1, count=len(Z)).astype(bool)
    gates = gates[cut:]
    below = gates[:, -1] < 0
    signs[below] ^= True
    gates[below] *= -1
    return signs, gates


def _gates(vertices: Floats, values: Floats, inward: Floats, Y: Floats, r: int) -> Floats:
    """Step from the vertices into the cells, half-way to the nearest other hyperplane."""
    slope = np.abs(inward @ Y[:, :-1].T)
    with np.errstate(divide="ignore"):
        step = 0.5 * (np.abs(values) / slope).min(axis=1)
    step = np.minimum(step, np.linalg.norm(vertices, axis=1) / np.linalg.norm(inward, axis=1))
    gates = np.zeros((len(vertices), r))
    gates[:, : vertices.shape[1]] = vertices
    gates[:, : inward.shape[1]] += step[:, None] * inward
    return gates / np.linalg.norm(gates, axis=1, keepdims=True)


def _finish(signs: Bools, gates: Floats) -> tuple[Bytes, Floats]:
    """Turn cells to the positive side of row 0 and pack them."""
    below = ~signs[:, 0]
    gates = np.where(below[:, None], -gates, gates)
    return np.packbits(signs ^ below[:, None], axis=1), gates
