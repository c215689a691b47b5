r"""Activation patterns of the data: all of them, a sample of them, or those of a network.

A pattern is :math:`1[Xh\ge0]` for a direction h off every hyperplane :math:`x_k^\top h=0` with
:math:`x_k\neq0`; zero rows count as active always.  X is the design matrix that neurons see.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from landscape.arrangements import cells
from landscape.arrangements.patterns import Arrangements
from landscape.arrangements.rows import Hyperplanes, design, hyperplanes
from landscape.errors import BadInput, unknown

__all__ = ["Arrangements", "TooManyPatterns", "Undecided", "count", "enumerate", "of", "sample"]

ROTATIONS = 8  # tries before giving up on data that no rotation decides
TIED_LIMIT = 20_000  # cells around one neuron


class TooManyPatterns(BadInput):
    """There are more patterns than the limit allows."""


class Undecided(BadInput, ArithmeticError):
    """Rows are so nearly degenerate that floating point cannot tell their cells apart."""


def count(n: int, rank: int) -> int:
    r"""Return the number of patterns of n rows in general position.

    .. math:: P = 2\sum_{k<r}\binom{n-1}{k}

    Args:
        n: rows that are not zero.
        rank: the rank r of the design matrix.

    Returns:
        The exact number, 1 if n or the rank is 0; for degenerate rows an upper bound.

    Raises:
        BadInput: for negative numbers.

    Example:
        >>> count(100, 4)
        323600
    """
    if n < 0 or rank < 0:
        raise BadInput(f"n={n} and rank={rank} must not be negative.")
    if n == 0 or rank == 0:
        return 1
    return 2 * sum(math.comb(n - 1, k) for k in range(min(rank, n)))


def enumerate(X: ArrayLike, limit: int = 2_000_000) -> Arrangements:
    """Return all patterns of a design matrix, of any rank and in degenerate position too.

    Hyperplanes closer than about 1e-12 (relative, in well-conditioned coordinates) to being the
    same or to meeting in one flat are taken to do so.  Every gate is checked against X.

    Args:
        X: design matrix, shape (n, d).
        limit: the most patterns that may be returned.

    Returns:
        The patterns, each once; the second half are the complements of the first.

    Raises:
        TooManyPatterns: if distinct hyperplanes in general position would have more than `limit`.
        BadInput: if X is no finite matrix.
        Undecided: if the rows are so nearly degenerate that no sign can be trusted.

    Example:
        >>> len(enumerate([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 2.0]]))
        6
    """
    planes = hyperplanes(X)
    n, d = planes.X.shape
    expected = count(len(planes.Z), planes.rank)
    if expected > limit:
        raise TooManyPatterns(
            f"X has {len(planes.Z):,} distinct hyperplanes of rank {planes.rank}: up to "
            f"{expected:,} patterns, above limit={limit:,}. Use arrangements.sample(X, size), "
            "or raise the limit."
        )
    if planes.rank == 0:
        return Arrangements.from_bool(np.ones((1, n), dtype=bool), np.eye(1, d))
    for seed in range(ROTATIONS):
        generator = np.random.default_rng(seed)
        turn = np.linalg.qr(generator.standard_normal((planes.rank, planes.rank)))[0]
        try:
            packed, gates, _ = cells.half(planes.Z @ turn, planes.tolerance)
            return _lifted(planes, packed, gates @ turn.T)
        except cells.Unlucky as problem:
            why = problem
    raise Undecided(
        f"X is so nearly degenerate that its cells could not be told apart ({why}): merge "
        "near-duplicate rows, rescale the columns, or use arrangements.sample."
    )


def _lifted(planes: Hyperplanes, packed: cells.Bytes, gates: cells.Floats) -> Arrangements:
    """Carry half of the cells back to the rows of X, check them there and add complements."""
    n = len(planes.X)
    gates = gates @ planes.lift.T
    gates /= np.linalg.norm(gates, axis=1, keepdims=True)
    zero = planes.owner < 0
    every = np.empty((2 * len(packed), -(-n // 8)), dtype=np.uint8)
    size = max(1, cells.CHUNK // n)
    for start in range(0, len(packed), size):
        block = slice(start, min(start + size, len(packed)))
        signs = np.unpackbits(packed[block], axis=1, count=len(planes.Z)).astype(bool)
        signs = np.take(signs, planes.owner, axis=1) ^ planes.turned
        values = gates[block] @ planes.X.T
        if not (((values > 0) == signs) & (values != 0) | zero).all():
            raise cells.Unlucky("a gate is not inside its cell")
        opposite = slice(block.start + len(packed), block.stop + len(packed))
        every[block] = np.packbits(signs | zero, axis=1)
        every[opposite] = np.packbits(~signs | zero, axis=1)
    return Arrangements(every, n, np.concatenate([gates, -gates]))


def sample(X: ArrayLike, size: int, seed: int = 0, method: str = "gaussian") -> Arrangements:
    """Return the distinct patterns among `size` random ones.

    Args:
        X: design matrix, shape (n, d).
        size: how many directions to draw.
        seed: of the random numbers.
        method: "gaussian" draws directions from the standard normal distribution, so that wide
            cells come up more often; "data" draws rank−1 of the hyperplanes and steps off the
            vector where they meet, both ways, so that narrow cells come up as often as wide ones.

    Returns:
        At most `size` patterns, in the order in which they were drawn.

    Raises:
        BadInput: if X is no finite matrix, the size is negative or the method unknown.

    Example:
        >>> len(sample([[1.0, 0.0], [0.0, 1.0]], 100))
        4
    """
    X = design(X)
    if size < 0 or int(size) != size:
        raise BadInput(f"size must be a whole number, at least 0; found {size!r}.")
    generator = np.random.default_rng(seed)
    if method == "gaussian":
        return _realised(X, generator.standard_normal((int(size), X.shape[1])))
    if method != "data":
        raise unknown("method", method, ("gaussian", "data"))
    planes = hyperplanes(X)
    if planes.rank == 0:
        return _realised(X, generator.standard_normal((int(size), X.shape[1])))
    # keep subsets of one size: (V, r − 1) rows for V = ⌈size / 2⌉ draws
    draws = [
        generator.permutation(len(planes.Z))[: planes.rank - 1] for _ in range(-(-int(size) // 2))
    ]
    gates = np.zeros((2 * len(draws), planes.rank))
    for j, rows in zip(range(len(draws)), draws, strict=True):
        meeting = np.linalg.svd(planes.Z[rows], full_matrices=True)[2][-1]
        meeting = meeting * generator.choice((-1.0, 1.0))
        # generic, with random signs on the rows: also decides other rows through the same vector
        inward = generator.standard_normal(planes.rank)
        values, slope = planes.Z @ meeting, np.abs(planes.Z @ inward)
        values[rows] = np.inf
        values[np.abs(values) <= 1e-9] = np.inf
        step = 0.5 * min(1.0, float((np.abs(values) / slope).min()))
        gates[2 * j], gates[2 * j + 1] = meeting + step * inward, meeting - step * inward
    return _realised(X, gates[: int(size)] @ planes.lift.T)


def _realised(X: cells.Floats, gates: cells.Floats) -> Arrangements:
    """Return the distinct patterns of the gates; those too close to a hyperplane are left out."""
    values = gates @ X.T
    lengths = np.linalg.norm(X, axis=1)
    reach = np.linalg.norm(gates, axis=1, keepdims=True) * lengths
    clear = (np.abs(values) > 16 * cells.EPSILON * X.shape[1] * reach) | (lengths == 0)
    inside = clear.all(axis=1)
    return Arrangements.from_bool(values[inside] >= 0, gates[inside]).distinct()


def of(network: Any, X: ArrayLike, tol: float = 1e-9) -> Arrangements:
    r"""Return the patterns of a network's neurons on the rows of X.

    A neuron w on hyperplanes, :math:`|x_k^\top w|\le tol\,\|x_k\|\|w\|`, contributes every
    full-dimensional cell that touches it; a zero neuron contributes none.

    Args:
        network: weight rows (m, d), or an object whose method ``gates()`` returns them.
        X: design matrix, shape (n, d).
        tol: relative size of a tie.

    Returns:
        The distinct patterns, in the order of the neurons.

    Raises:
        BadInput: if the weights don't fit X or are not finite.
        TooManyPatterns: if one neuron touches more than 20 000 cells.
    """
    X = design(X)
    weights = network.gates() if hasattr(network, "gates") else network
    weights = weights.detach().cpu().numpy() if hasattr(weights, "detach") else weights
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] != X.shape[1]:
        raise BadInput(
            f"the weights have shape {weights.shape}: they must be (m, {X.shape[1]}), one row for "
            f"each neuron and one column for each of X's, which has shape {X.shape}."
        )
    if not np.isfinite(weights).all():
        raise BadInput("the weights have NaN or infinite entries: the network has diverged.")
    weights = weights[(weights != 0).any(axis=1)]
    weights = weights / np.abs(weights).max(axis=1, keepdims=True)
    values = weights @ X.T
    lengths = np.linalg.norm(X, axis=1)
    room = tol * lengths * np.linalg.norm(weights, axis=1, keepdims=True)
    tied = (np.abs(values) <= room) & (lengths > 0)
    parts = [Arrangements.from_bool(np.zeros((0, len(X)), bool), np.zeros((0, X.shape[1])))]
    start = 0
    for j in [*np.flatnonzero(tied.any(axis=1)), len(weights)]:
        plain = slice(start, j)
        parts.append(Arrangements.from_bool(values[plain] >= 0, weights[plain]))
        if j < len(weights):
            parts.append(_touching(weights[j], X, tied[j], tol))
        start = int(j) + 1
    return parts[0].union(*parts[1:])


def _touching(w: cells.Floats, X: cells.Floats, tied: cells.Bools, tol: float) -> Arrangements:
    """Return the full-dimensional cells whose closure holds w, which lies on the tied rows."""
    lengths = np.linalg.norm(X, axis=1)
    nonzero = lengths > 0
    while True:
        unit = X[tied] / lengths[tied, None]
        centre = w - np.linalg.lstsq(unit, unit @ w, rcond=1e-9)[0]
        values = X @ centre
        more = nonzero & (np.abs(values) <= tol * lengths * np.linalg.norm(w))
        if not (more & ~tied).any():
            break
        tied = tied | more
    around = enumerate(X[tied], limit=TIED_LIMIT)
    others = nonzero & ~tied
    if not others.any():
        gates = around.gates
    else:
        slope = np.abs(around.gates @ X[others].T)
        with np.errstate(divide="ignore"):
            step = 0.5 * (np.abs(values[others]) / slope).min(axis=1, keepdims=True)
        gates = centre + np.minimum(step, np.linalg.norm(centre)) * around.gates
    signs = np.repeat((values >= 0)[None], len(around), axis=0)
    signs[:, ~nonzero] = True
    signs[:, tied] = around.patterns
    return Arrangements.from_bool(signs, gates)
