r"""Weights on points of a line: sums of ramps and distances at every point, one rounding each.

With :math:`F(t) = \sum_k ν_k (x_k − t)_+` and :math:`\sum_k ν_k = 0` the ramp
:math:`(x − s)_+ − (x − t)_+` prices at F(s) − F(t), and the distance |x − t| at
:math:`H(t) = \sum_k ν_k |x_k − t|`.  F and H are linear between points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EPSILON = float(np.finfo(np.float64).eps)


class Line:
    """Weights ν on points of a line, summing to zero, with F and H at the points.

    Their sums are formed in whole numbers, so that each value has one rounding.

    Args:
        x: points, shape (n,).
        nu: weights, shape (n,).

    Attributes:
        x: the points, ascending, each once.
        nu: their weights.
        F: Σ ν_k (x_k − x)_+ at the points; to their left it is as at the first, to the right 0.
        H: Σ ν_k |x_k − x| at the points; beyond them it is as at the nearest one.
    """

    def __init__(self, x: Floats, nu: Floats) -> None:
        self.x, place = np.unique(x, return_inverse=True)
        points, step = _whole(self.x)
        weights, unit = _whole(nu)
        sums = [0] * len(points)
        for k, weight in zip(place.reshape(-1).tolist(), weights, strict=True):
            sums[k] += weight
        self.nu = np.array([total / unit for total in sums])
        F, tail = [0] * len(points), 0
        for k in range(len(points) - 1, 0, -1):
            tail += sums[k]
            F[k - 1] = F[k] + tail * (points[k] - points[k - 1])
        self.F = np.array([value / (step * unit) for value in F])
        self.H = np.array([(2 * value - F[0]) / (step * unit) for value in F])

    def apart(self, t: Floats) -> Floats:
        """Return H(t) at points of any shape."""
        return np.interp(t, self.x, self.H)

    def rounding(self) -> float:
        """Bound the rounding of a sum of seven values of H between points, and of the points."""
        size = float(np.abs(self.x).max() + 4 * np.ptp(self.x))
        largest = float(np.abs(self.H).max())
        return 32 * EPSILON * (float(np.abs(self.nu).sum()) * size + 8 * largest)

    def mirrored(self, way: int, sign: int) -> Line:
        """Return the line seen from the other side (``way`` −1), or of −ν (``sign`` −1)."""
        other = object.__new__(Line)
        other.x, other.nu = way * self.x[::way], sign * self.nu[::way]
        other.H = sign * self.H[::way]
        other.F = sign * (self.F if way > 0 else self.F[::-1] - self.F[0])
        return other

    def wiggle(self, kinks: int) -> float:
        """Bound the prices of functions with slopes ±1 and at most so many changes of slope.

        Σ ν_k g(x_k) is the integral of g' times the weight to its right: a sum over the gaps
        between points, whose best signs with few changes are found by dynamic programming.
        """
        gains = np.diff(self.F)[::-1]
        best = np.zeros((2, kinks + 1))
        for gain in gains:
            turned = np.full_like(best, -np.inf)
            turned[:, 1:] = best[::-1, :-1]
            best = np.maximum(best, turned) + np.array([[gain], [-gain]])
        slack = 2 * len(gains) * EPSILON * float(np.abs(gains).sum() + np.abs(self.F).max())
        return float(best.max()) + slack


def _whole(values: Floats) -> tuple[list[int], int]:
    """Return numbers as whole multiples of one over a power of two, and that power."""
    ratios = [float(value).as_integer_ratio() for value in values]
    unit = max((below for _, below in ratios), default=1)
    return [above * (unit // below) for above, below in ratios], unit


def peaks(values: Floats, most: int) -> NDArray[np.int64]:
    """Return the places of the largest local maxima of a sequence, ends included."""
    padded = np.concatenate([[-np.inf], values, [-np.inf]])
    found = np.flatnonzero((values >= padded[:-2]) & (values >= padded[2:]))
    return found[np.argsort(-values[found], kind="stable")[:most]]


def steepest(line: Line, most: int, clipped: bool) -> tuple[float, Floats, Floats]:
    """Return the largest |F(s) − F(t)| and the ends of the best ramps, ±∞ among them.

    Args:
        line: the samples and their weights.
        most: ramps returned at most.
        clipped: whether ramps have two finite ends (else one is at infinity).
    """
    F, last = line.F, len(line.x) - 1
    if not last:  # one point sees constants only
        return 0.0, line.x, np.array([np.inf])
    # Beyond the samples F stays as it is: the first and the last stand for ∓∞.
    if clipped:
        s, t = (part.reshape(-1) for part in np.meshgrid(peaks(F, most), peaks(-F, most)))
    else:
        rising, falling = peaks(np.abs(F - F[-1]), most), peaks(np.abs(F - F[0]), most)
        s = np.concatenate([rising, np.zeros_like(falling)])
        t = np.concatenate([np.full_like(rising, last), falling])
    s, t = np.minimum(s, t)[s != t], np.maximum(s, t)[s != t]
    price = np.abs(F[s] - F[t])
    best = np.argsort(-price, kind="stable")[:most]
    s, t = s[best], t[best]
    low, high = np.where(s == 0, -np.inf, line.x[s]), np.where(t == last, np.inf, line.x[t])
    # The line through all samples is the ramp from the first one.
    both = ~np.isfinite(low) & ~np.isfinite(high)
    return float(price[best[0]]), np.where(both, line.x[0], low), high
