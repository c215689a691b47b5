r"""Sequences of zeros and ones along a line that switch a bounded number of times.

The heaviest, :math:`\max \sum_k ν_k v_k` over v with at most K switches, is found by dynamic
programming in O(nK): the best beginning that ends in v after at most k switches is

.. math:: F_i(k, v) = ν_i v + \max(F_{i−1}(k, v),\, F_{i−1}(k − 1, 1 − v)),

and with the same from the end every entry learns the best sequence in which it has either value.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from landscape.arrangements.cells import EPSILON, Floats

Bools = NDArray[np.bool_]

MOST = 24
"""Sequences that one search along one direction returns at most."""
DIRECTIONS = 8
"""Directions along which sequences are sought where there are several inputs."""


@dataclass(frozen=True)
class Ordered:
    """Distinct samples in their order along a direction.

    Attributes:
        order: of the samples.
        direction: shape (d,).
        points: ascending, shape (N,).
    """

    order: NDArray[np.int64]
    direction: Floats
    points: Floats

    def cuts(self, sequence: Bools) -> tuple[Floats, Floats]:
        """Return where a sequence switches: the point t for tests x ≥ t, and for tests x ≤ t.

        They are the middles, except between neighbouring numbers of floating point.
        """
        at = np.flatnonzero(sequence[1:] != sequence[:-1])
        low, high = self.points[at], self.points[at + 1]
        middle = low + 0.5 * (high - low)
        return np.where(middle > low, middle, high), np.where(middle < high, middle, low)


class Lines:
    """Patterns of samples that switch a bounded number of times along some direction.

    Args:
        X: inputs, shape (n, d).
        budget: how often a pattern may switch.

    Attributes:
        counts: how many samples share each of the N distinct inputs.
        complete: whether all patterns of distinct inputs are among them.
        exact: whether bounds are those of these patterns, not of all 2^N.
        orders: along the line; of several inputs, along directions in which all differ.
    """

    def __init__(self, X: Floats, budget: int) -> None:
        rows, place = np.unique(X, axis=0, return_inverse=True)
        self.place, self.budget = place.reshape(-1), budget
        self.counts = np.bincount(self.place).astype(np.float64)
        n, d = rows.shape
        self.complete = budget >= n - 1
        self.exact = self.complete or d == 1
        every = not self.exact or self.complete
        self.count = 2**n if every else 2 * sum(comb(n - 1, k) for k in range(budget + 1))
        self.orders = _directions(rows, 1 if self.exact else DIRECTIONS)

    def merged(self, nu: Floats) -> Floats:
        """Return the sums of ν over the samples that are equal, shape (N,)."""
        return np.bincount(self.place, nu, len(self.counts)).astype(np.float64)

    def heaviest(self, nu: Floats) -> tuple[float, list[tuple[Ordered, Bools]]]:
        """Return the largest weight of a pattern, from above, and heavy ones along directions.

        Args:
            nu: weights of the distinct inputs, shape (N,).
        """
        found = []
        bound = float(np.maximum(nu, 0.0).sum())
        bound += 4.0 * (len(nu) + 16) * EPSILON * float(np.abs(nu).sum())
        for ordered in self.orders:
            weights = nu[ordered.order]
            if self.complete:
                sequences = _levels(weights)
            else:
                best, sequences = heaviest(weights, self.budget, MOST)
                bound = best if self.exact else bound
            found.append((ordered, sequences))
        return bound, found


def _levels(nu: Floats) -> Bools:
    """Return the heaviest set, and the sets {ν ≥ t} of several sizes."""
    sizes = np.unique(np.linspace(1, len(nu), MOST).astype(int))
    levels = np.sort(nu)[::-1][sizes - 1]
    return np.concatenate([(nu > 0)[None], nu >= levels[:, None]])


def _directions(rows: Floats, many: int) -> list[Ordered]:
    """Return orders along directions in which all rows differ as widely as some draws allow."""
    d = rows.shape[1]
    if d == 1:
        return [Ordered(np.arange(len(rows)), np.ones(1), rows[:, 0])]
    draws = np.random.default_rng(0).standard_normal((32 * many, d))
    spread = np.sort(rows @ draws.T, axis=0)
    apart = np.diff(spread, axis=0).min(axis=0, initial=np.inf) / np.linalg.norm(draws, axis=1)
    found = []
    for direction in draws[np.argsort(-apart, kind="stable")[:many]]:
        points = rows @ direction
        order = np.argsort(points, kind="stable")
        found.append(Ordered(order, direction, points[order]))
    return found


def heaviest(nu: Floats, switches: int, most: int) -> tuple[float, Bools]:
    """Return the largest weight of a sequence, from above, and heavy sequences, best first.

    Args:
        nu: weights along the line, shape (n,).
        switches: how often a sequence may switch at most.
        most: the most sequences to return: the best of all, and best ones that differ from it at
            some entry.

    Returns:
        ``(bound, sequences)``: rounding is charged to the bound; sequences (k, n) are distinct.

    Example:
        >>> import numpy
        >>> bound, found = heaviest(numpy.array([2.0, -1.0, 2.0]), 1, 1)
        >>> round(bound, 9), found.astype(int).tolist()
        (3.0, [[1, 1, 1]])
    """
    n = len(nu)
    budget = min(switches, n - 1)
    ahead, back = _tables(nu, budget), _tables(nu[::-1], budget)[::-1]
    # Of an entry and its value: the switches that the beginning may use, the end has the others.
    joined = ahead + back[:, ::-1] - np.outer(nu, [0.0, 1.0])[:, None]  # (n, K + 1, 2)
    value = joined.max(axis=1).reshape(-1)
    order = np.argsort(-value, kind="stable")
    scale = max(float(np.abs(nu).sum()), 1e-300)
    _, first = np.unique(np.round(value[order] / scale, 13), return_index=True)
    found = []
    for at in order[np.sort(first)][:most]:
        i, v = divmod(int(at), 2)
        k = int(joined[i, :, v].argmax())
        left = _traced(ahead[: i + 1][::-1], nu[: i + 1][::-1], k, v)[::-1]
        right = _traced(back[i:], nu[i:], budget - k, v)
        found.append(np.concatenate([left, right[1:]]))
    sequences = np.unique(np.array(found, dtype=bool), axis=0)
    weigh = sequences @ nu
    charge = 4.0 * (n + 16) * EPSILON * float(np.abs(nu).sum())
    return float(value.max()) + charge, sequences[np.argsort(-weigh, kind="stable")]


def _tables(nu: Floats, budget: int) -> Floats:
    """Return F_i(k, v), shape (n, K + 1, 2)."""
    table = np.empty((len(nu), budget + 1, 2))
    table[0] = [0.0, nu[0]]
    for i in range(1, len(nu)):
        stay = table[i - 1]
        table[i] = stay
        np.maximum(stay[1:], stay[:-1, ::-1], out=table[i, 1:])
        table[i, :, 1] += nu[i]
    return table


def _traced(table: Floats, nu: Floats, k: int, v: int) -> Bools:
    """Return the best sequence whose first entry is v, from tables towards the other end."""
    values = np.empty(len(table), dtype=bool)
    values[0] = v
    for i in range(1, len(table)):
        before = table[i]
        if k > 0 and before[k - 1, 1 - v] > before[k, v]:
            k, v = k - 1, 1 - v
        values[i] = v
    return values
