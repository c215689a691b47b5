r"""The dual of score matching: a string in a tube around the empirical counting function.

With :math:`Σν_i = 0` the function :math:`F(t) = \sum_i ν_i (x_i − t)_+` is what ν is the second
difference of, and the price of a ramp at t is :math:`F(t) − \#\{x_i > t\}`, or with ≥.  To the left
it is the same function minus F at the first sample, beside :math:`−\#\{x_i < t\}`; with a free skip
connection, where :math:`Σν_ix_i = n`, it is the same price.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Tube:
    """Samples on a line, and what they allow a dual point to be; in rational arithmetic.

    Args:
        x: samples, ascending, shape (n,).
        tilted: whether Σν_i x_i = n is asked for (a free skip connection).

    Attributes:
        points: the samples, each once.
        counts: how often each occurs.
        least: the smallest β with a dual point.
    """

    def __init__(self, x: Floats, tilted: bool) -> None:
        self.x, self.tilted = x, tilted
        self.points, self.counts = np.unique(x, return_counts=True)
        counts = self.counts.tolist()
        self.least = max(Fraction(counts[0]), Fraction(counts[-1]), Fraction(max(counts), 2))

    def lower_bound(self, nu: Floats, beta: float, slopes: Sequence[int]) -> float:
        """Return −½‖ν‖² of a feasible dual point next to ν, rounded down.

        ν is moved until its sums hold exactly; then it goes so far towards the `middle` of the tube
        that no ramp prices above β.

        Args:
            nu: any dual point, shape (n,).
            beta: β, above `least`.
            slopes: φ'(0) of the ramps that are priced, at kinks on samples.
        """
        own = self.admissible(nu)
        largest, limit = self.largest_price(own, slopes), Fraction(beta)
        if largest > limit:
            share = (largest - limit) / (largest - self.least)
            pairs = zip(own, self.middle(), strict=True)
            own = [(1 - share) * v + share * w for v, w in pairs]
        bound = -sum(v * v for v in own) / 2
        rounded = float(bound)
        return rounded if Fraction(rounded) <= bound else float(np.nextafter(rounded, -np.inf))

    def admissible(self, nu: Floats) -> list[Fraction]:
        """Return ν with its first and last entries changed until the sums hold exactly."""
        x, own = _exact(self.x), _exact(nu)
        lacking = -sum(own)
        if self.tilted:
            tilt = len(x) - sum(v * t for v, t in zip(own, x, strict=True))
            last = (tilt - x[0] * lacking) / (x[-1] - x[0])
            own[-1] += last
            lacking -= last
        own[0] += lacking
        return own

    def largest_price(self, nu: list[Fraction], slopes: Sequence[int] = (0, 1)) -> Fraction:
        """Return the largest |price| of ν that is admissible, over kinks at samples.

        With both slopes no kink anywhere prices higher.
        """
        n, last = len(nu), len(nu)
        total = sum(v * t for v, t in zip(nu, _exact(self.x), strict=True))
        largest = F = weight = Fraction(0)
        above, later = 0, Fraction(0)
        for here, count in zip(_exact(self.points)[::-1], self.counts.tolist()[::-1], strict=True):
            F += weight * (later - here)  # the weight of the first step is zero
            prices = [F - above - at * count for at in slopes]
            if not self.tilted:  # (t − x)_+ = (x − t)_+ − (x − t), the other slope, and Σν = 0
                prices += [F - above - (1 - at) * count - total + n for at in slopes]
            largest = max(largest, *map(abs, prices))
            weight += sum(nu[last - count : last])
            above, last, later = above + count, last - count, here
        return largest

    def middle(self) -> list[Fraction]:
        """Return an admissible ν with no price above `least`: F halfway up every jump."""
        t, counts = _exact(self.points), self.counts.tolist()
        above = (len(self.x) - np.cumsum(self.counts)).tolist()
        F = [Fraction(2 * a + m, 2) for a, m in zip(above, counts, strict=True)]
        F[0], F[-1] = Fraction(len(self.x)), Fraction(0)
        inner = [(F[k + 1] - F[k]) / (t[k + 1] - t[k]) for k in range(len(t) - 1)]
        slopes = [Fraction(0), *inner, Fraction(0)]
        bends = [slopes[k + 1] - slopes[k] for k in range(len(t))]
        return [bend / m for bend, m in zip(bends, counts, strict=True) for _ in range(m)]


def _exact(values: Floats) -> list[Fraction]:
    return [Fraction(float(value)) for value in values]
