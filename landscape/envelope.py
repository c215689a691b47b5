r"""Lower bounds where the regulariser is at least a concave function of a gauge.

Let every network of size t (its outputs on the samples have gauge at most t) pay at least
:math:`R \ge t^κ/κ`, 0 < κ < 1: weight decay on L layers has :math:`\tfrac12 \sum_l \|W_l\|_F^2
\ge \tfrac L2 t^{2/L}` with :math:`t = \prod_l \|W_l\|_F`.  Weak duality at fixed t bounds the loss
by lines, one for every dual point ν of price p(ν), so that

.. math:: \min_θ \; ℓ + βR \;\; \ge \;\; \min_{t \ge 0} \; \max_ν \, \bigl[−ℓ^*(−ν) − t\, p(ν)\bigr]
          + \tfrac βκ t^κ ,

with any finite set of ν.  Between two kinks of the largest line the sum is concave: the minimum is
at a kink or at t = 0.  Every ν gives the lines of all sν, s ≥ 0, and ν = 0 one that stays level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from landscape.pricing import EPSILON

if TYPE_CHECKING:
    from landscape.losses import Loss
    from landscape.programs import Floats

SCALES = np.linspace(0.0, 2.0, 129)[1:]
"""The s of the lines of sν; 1 is among them."""


class Envelope:
    """The largest of many lines below a loss as a function of the gauge t.

    Args:
        loss: the loss ℓ.
        y: targets, shape (n,).
        beta: weight of the regulariser.
        degree: κ.
    """

    def __init__(self, loss: Loss, y: Floats, beta: float, degree: float) -> None:
        self.loss, self.y, self.beta, self.degree = loss, y, beta, degree
        self.points: list[Floats] = []
        self.lines = np.zeros((0, 4))  # height, price, which point, scale
        self.add(np.zeros_like(y), 0.0)

    def add(self, nu: Floats, price: float) -> None:
        """Use a dual point (n,) of the dual's domain; ``price`` bounds p(ν) from above."""
        if not np.isfinite(price):
            return
        top = min(1.0, (1.0 - 4.0 * EPSILON) * self.loss.reach(nu) / SCALES[-1])
        scales = SCALES * top if top < 1.0 else SCALES
        scales = np.append(scales, 1.0) if top * SCALES[-1] >= 1.0 else scales
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.asarray(self.loss.dual_value(scales[:, None] * nu, self.y))
        terms = scales * float(np.abs(nu) @ np.abs(self.y)) + scales**2 * float(nu @ nu)
        terms += len(self.y) if self.loss.classes else 0.0
        values = values - (len(self.y) + 16) * EPSILON * (np.abs(values) + terms)
        which = np.full(len(scales), float(len(self.points)))
        lines = np.column_stack([values, scales * price * (1 + 2 * EPSILON), which, scales])
        self.points.append(nu)
        self.lines = _upper(np.vstack([self.lines, lines[np.isfinite(values)]]))

    def kinks(self) -> Floats:
        """Return 0 and the t at which the largest line changes, ascending."""
        height, price = self.lines[:, 0], self.lines[:, 1]
        return np.concatenate([[0.0], -np.diff(height) / -np.diff(price)])

    def least(self) -> tuple[float, float, Floats]:
        """Return the lower bound, the t that gives it and the dual point (n,) there."""
        t, height, price = self.kinks(), self.lines[:, 0], self.lines[:, 1]
        paid = self.beta / self.degree * t**self.degree
        terms = np.abs(height) + t * price + paid
        bounds = height - t * price + paid - 64 * EPSILON * terms
        at = int(bounds.argmin())
        return (
            float(bounds[at]),
            float(t[at]),
            self.lines[at, 3] * self.points[int(self.lines[at, 2])],
        )

    def beta_max(self) -> float:
        """Return a β from which on no network beats the zero network (rounding aside).

        The largest κ (ℓ(0) − lines(t))/t^κ, which on every segment falls before it rises.
        """
        t, nothing = self.kinks()[1:], self.loss.at_zero(self.y)
        gain = nothing - (self.lines[1:, 0] - t * self.lines[1:, 1])
        return float((self.degree * gain / t**self.degree).max(initial=0.0)) * (1 + 64 * EPSILON)


def _upper(lines: Floats) -> Floats:
    """Return the lines that are largest somewhere on t ≥ 0, steepest first."""
    lines = lines[np.lexsort((-lines[:, 0], -lines[:, 1]))]
    kept: list[Floats] = []
    for line in lines:  # prices fall: each line is the largest from some t on, or never
        if kept and line[1] == kept[-1][1]:
            continue
        while kept and line[0] >= kept[-1][0]:
            kept.pop()
        while len(kept) > 1:
            one, two = kept[-2], kept[-1]
            first = (one[0] - two[0]) / (one[1] - two[1])
            if (two[0] - line[0]) / (two[1] - line[1]) > first:
                break
            kept.pop()
        kept.append(line)
    return np.array(kept)
