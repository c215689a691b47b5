r"""Kinks of functions on a line, and the largest price of a nested absolute value.

With :math:`H(t) = \sum_k ν_k |x_k − t|`, :math:`\sum_k ν_k = 0`, a function that is piecewise
linear with slopes ±1 and changes of slope 2σ_i at its kinks t_i prices at Σ_i σ_i H(t_i).  Of
:math:`|\cdots||x − a| − c_1| \cdots − c_{L−2}|` the kinks are sums of a and ±c, and the price is
piecewise linear in (a, c): it is largest at a vertex, where as many independent kinks as there are
parameters are samples.  Two parameters: all vertices are listed, N² of them.  Three: branch and
bound over boxes of parameters, in which a box is dropped where the price has a slope of one sign,
or its bound is below the best vertex; small boxes list their vertices.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEW = 9
"""Lines (kink, sample) through a box up to which its vertices are listed."""
BATCH = 4096
"""Boxes split at a time."""

# Kinks of |||x − a| − c| − d| as integer combinations of (a, c, d), and half their slope changes:
# first where d ≤ c, then where d ≥ c.
INNER = (
    np.array([[1, 0, 0], [1, -1, 0], [1, 1, 0], [1, -1, -1], [1, -1, 1], [1, 1, -1], [1, 1, 1]]),
    np.array([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0]),
)
OUTER = (
    np.array([[1, 0, 0], [1, -1, 0], [1, 1, 0], [1, -1, -1], [1, 1, 1]]),
    np.array([1.0, -1.0, -1.0, 1.0, 1.0]),
)


class Line:
    """Weights ν on sorted points of a line, summing to zero, with their moments.

    Args:
        x: points, shape (n,).
        nu: weights, shape (n,).
    """

    def __init__(self, x: Floats, nu: Floats) -> None:
        self.x, place = np.unique(x, return_inverse=True)
        self.nu = np.bincount(place.reshape(-1), nu, len(self.x))
        self.moment = float(self.nu @ self.x)
        self.zeroth = np.concatenate([[0.0], np.cumsum(self.nu)])
        self.first = np.concatenate([[0.0], np.cumsum(self.nu * self.x)])

    def above(self, t: Floats) -> Floats:
        """Return F(t) = Σ ν_k (x_k − t)_+ at points of any shape."""
        at = np.searchsorted(self.x, t, side="right")
        return (self.moment - self.first[at]) - t * (self.zeroth[-1] - self.zeroth[at])

    def apart(self, t: Floats) -> Floats:
        """Return H(t) = Σ ν_k |x_k − t| at points of any shape."""
        return 2.0 * self.above(t) - self.moment + t * self.zeroth[-1]

    def slopes(self) -> Floats:
        """Return H' before the first point, between points and after the last, shape (n + 1,)."""
        return 2.0 * self.zeroth - self.zeroth[-1]

    @property
    def variation(self) -> float:
        """∫ |Σ_{x_k ≤ t} ν_k| dt, which no function of Lipschitz constant one prices above."""
        return float(np.abs(self.zeroth[1:-1]) @ np.diff(self.x))


class Found(NamedTuple):
    """The largest price over a family, from above, and parameters of the best members.

    Attributes:
        bound: no member has |price| above it.
        attained: the largest |price| found.
        parameters: the best members, shape (k, parameters), best first.
    """

    bound: float
    attained: float
    parameters: Floats


def pairs(x: Floats) -> Floats:
    """Return every vertex (a, c) of ||x − a| − c|: centres with reflections, and midpoints."""
    x = np.unique(x)
    i, j = np.triu_indices(len(x), 1)
    far = x[j] - x[i]
    centre = np.concatenate([x, x[i], x[j], (x[i] + x[j]) / 2])
    return np.column_stack([centre, np.concatenate([0.0 * x, far, far, far / 2])])


def two(line: Line, most: int) -> Found:
    """Return the largest price of ||x − a| − c|."""
    every = pairs(line.x)
    a, c = every.T
    price = np.abs(line.apart(a - c) - line.apart(a) + line.apart(a + c))
    price = np.where(c == 0, np.abs(line.apart(a)), price)
    best = np.argsort(-price, kind="stable")[:most]
    largest = float(price[best[0]])
    return Found(largest, largest, every[best])


def three(line: Line, most: int, effort: int) -> Found:
    """Return the largest price of |||x − a| − c| − d|, by branch and bound."""
    parts = [
        _Search(line, kinks, sign * weights, inner).run(effort // 4)
        for kinks, weights, inner in ((*INNER, True), (*OUTER, False))
        for sign in (1.0, -1.0)
    ]
    attained = max(part.attained for part in parts)
    order = sorted(parts, key=lambda part: -part.attained)
    members = np.concatenate([part.parameters for part in order])[:most]
    return Found(max(attained, *(part.bound for part in parts)), attained, members)


class _Search:
    """Maximises Σ σ_i H(T_i·p) over p = (a, c, d), c, d ≥ 0, on one side of c = d."""

    def __init__(self, line: Line, kinks: NDArray[np.int64], weights: Floats, inner: bool) -> None:
        self.line, self.kinks, self.weights, self.inner = line, kinks, weights, inner
        self.extent = np.maximum(kinks, 0), np.minimum(kinks, 0)
        values = line.apart(line.x)
        self.tops, self.bottoms = _Ranges(values, np.maximum), _Ranges(values, np.minimum)
        slopes = line.slopes()
        self.steep, self.shallow = _Ranges(slopes, np.maximum), _Ranges(slopes, np.minimum)

    def value(self, p: Floats) -> Floats:
        """Return prices of parameters (k, 3)."""
        return self.line.apart(p @ self.kinks.T) @ self.weights

    def run(self, effort: int) -> Found:
        """Branch, bound, and list the vertices of small boxes."""
        low, high = self.line.x[0], self.line.x[-1]
        span = high - low
        boxes = np.array([[[low - span, high + span], [0.0, 2 * span], [0.0, 2 * span]]])
        # What is best among vertices with d = 0 is known: the family of two parameters.
        start = two(self.line, 64).parameters
        start = np.column_stack([start, np.zeros(len(start))])
        prices = self.value(start)
        best = start[np.argsort(-prices)[:8]]
        attained, left, visited = float(prices.max()), -np.inf, 0
        bounds = np.array([np.inf])
        while len(boxes):
            if visited >= effort:
                left = float(bounds.max())
                break
            order = np.argsort(-bounds)[:BATCH]
            chosen, rest = boxes[order], np.delete(np.arange(len(boxes)), order)
            boxes, bounds = boxes[rest], bounds[rest]
            visited += len(chosen)
            parts = self._halved(chosen)
            kept, tops, lines = self._bounded(parts, attained)
            parts, tops, lines = parts[kept], tops[kept], lines[kept]
            small = lines <= FEW
            for box in parts[small]:
                members = self._vertices(box)
                if len(members):
                    prices = self.value(members)
                    if prices.max() > attained:
                        attained = float(prices.max())
                    best = np.concatenate([best, members[np.argsort(-prices)[:2]]])
                    best = best[np.argsort(-self.value(best), kind="stable")[:8]]
            boxes = np.concatenate([boxes, parts[~small]])
            bounds = np.concatenate([bounds, tops[~small]])
            alive = bounds > attained * (1 + 1e-12)
            boxes, bounds = boxes[alive], bounds[alive]
        return Found(max(left, attained), attained, best)

    def _halved(self, boxes: Floats) -> Floats:
        """Split every box across its longest side; drop halves on the wrong side of c = d."""
        at = np.ptp(boxes, axis=2).argmax(axis=1)
        row = np.arange(len(boxes))
        middle = boxes[row, at].mean(axis=1)
        lower, upper = boxes.copy(), boxes.copy()
        lower[row, at, 1], upper[row, at, 0] = middle, middle
        parts = np.concatenate([lower, upper])
        c, d = parts[:, 1], parts[:, 2]
        return parts[c[:, 1] >= d[:, 0] if self.inner else d[:, 1] >= c[:, 0]]

    def _bounded(self, boxes: Floats, target: float) -> tuple[NDArray[np.bool_], Floats, Floats]:
        """Return which boxes may hold a better vertex, their bounds, and lines through them."""
        positive, negative = self.extent
        low = boxes[:, :, 0] @ positive.T + boxes[:, :, 1] @ negative.T  # (B, k)
        high = boxes[:, :, 1] @ positive.T + boxes[:, :, 0] @ negative.T
        x = self.line.x
        begin, end = np.searchsorted(x, low, "left"), np.searchsorted(x, high, "right")
        ends = self.line.apart(low), self.line.apart(high)
        top = np.maximum(np.maximum(*ends), self.tops.over(begin, end))
        bottom = np.minimum(np.minimum(*ends), self.bottoms.over(begin, end))
        weights = self.weights
        plain = np.where(weights > 0, top, -bottom).sum(axis=1)
        steep, shallow = self.steep.over(begin, end + 1), self.shallow.over(begin, end + 1)
        # Slopes of the price along a, c, d from those of H on the kinks' intervals.
        factor = weights[:, None] * self.kinks  # (k, 3)
        up = steep @ np.maximum(factor, 0) + shallow @ np.minimum(factor, 0)
        down = shallow @ np.maximum(factor, 0) + steep @ np.minimum(factor, 0)
        half = np.ptp(boxes, axis=2) / 2
        mean = self.value(boxes.mean(axis=2)) + (np.maximum(np.abs(up), np.abs(down)) * half).sum(1)
        tops = np.minimum(plain, mean)
        # A slope of one sign leads out of the box, to one that is kept (c = 0 and c = d apart,
        # where the family is that of the other side, or of two parameters).
        leaving = ((down > 0) | (up < 0)).any(axis=1)
        return ~leaving & (tops > target), tops, (end - begin).sum(axis=1)

    def _vertices(self, box: Floats) -> Floats:
        """Return the points of a box at which three independent kinks are samples."""
        positive, negative = self.extent
        low = positive @ box[:, 0] + negative @ box[:, 1]
        high = positive @ box[:, 1] + negative @ box[:, 0]
        x = self.line.x
        rows, right = [], []
        for kink, a, b in zip(self.kinks, low, high, strict=True):
            inside = x[np.searchsorted(x, a, "left") : np.searchsorted(x, b, "right")]
            rows += [kink] * len(inside)
            right += inside.tolist()
        if len(rows) < 3:
            return np.zeros((0, 3))
        triples = np.array(list(combinations(range(len(rows)), 3)))
        systems, targets = np.array(rows, float)[triples], np.array(right)[triples]
        regular = np.abs(np.linalg.det(systems)) > 0.5  # of integers
        points = np.linalg.solve(systems[regular], targets[regular][..., None])[..., 0]
        slack = 1e-12 * (np.abs(x[[0, -1]]).max() + np.ptp(x))
        held = ((points >= box[:, 0] - slack) & (points <= box[:, 1] + slack)).all(axis=1)
        points = np.maximum(points[held], [-np.inf, 0.0, 0.0])
        c, d = points[:, 1], points[:, 2]
        return points[c >= d - slack if self.inner else d >= c - slack]


class _Ranges:
    """Largest (or smallest) entries over ranges, in constant time each.

    Args:
        values: shape (n,).
        best: `numpy.maximum` or `numpy.minimum`.
    """

    def __init__(self, values: Floats, best: np.ufunc) -> None:
        self.best, self.levels = best, [values]
        while (step := 1 << (len(self.levels) - 1)) * 2 <= len(values):
            above = self.levels[-1]
            self.levels.append(best(above[:-step], above[step:]))
        empty = -np.inf if best is np.maximum else np.inf
        self.table = np.full((len(self.levels), len(values) + 1), empty)
        for level, row in enumerate(self.levels):
            self.table[level, : len(row)] = row

    def over(self, begin: NDArray[np.int64], end: NDArray[np.int64]) -> Floats:
        """Return the best entry of every range begin:end; an empty one has none (±∞)."""
        length = np.maximum(end - begin, 1)
        level = np.frexp(length.astype(np.float64))[1] - 1
        other = np.maximum(end - (1 << level), begin)
        found = self.best(self.table[level, begin], self.table[level, other])
        empty = -np.inf if self.best is np.maximum else np.inf
        return np.where(end > begin, found, empty)
