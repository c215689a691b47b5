r"""Bounds of piecewise polynomials in Bernstein form, and of convex losses of them.

On [0, 1] a polynomial :math:`\sum_i b_i B_i(t)` lies between its least and largest *control
point* :math:`b_i`, and the first and the last are its values at the ends.  For a convex loss of
polynomial outputs with control points :math:`b_i`,

.. math:: ℓ(f(t)) ≤ \sum_i B_i(t)\, ℓ(b_i), \qquad
    ℓ(f(t)) ≥ \sum_i B_i(t) \big(ℓ(f_*) + ⟨∇ℓ(f_*), b_i − f_*⟩\big),

with :math:`f_*` the outputs at the middle.  Either way the largest (smallest) control value bounds
the piece, and halving pieces (de Casteljau) closes the bound quadratically.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from landscape.architectures.base import Floats
    from landscape.problem import Problem

HALVINGS = 60
"""Of a piece at most: its width is then rounding."""


class Peak:
    """The largest value found so far, where, and a bound over all pieces seen."""

    def __init__(self) -> None:
        self.best = self.bound = -np.inf
        self.at = 0.0

    def climb(
        self,
        controls: Floats,
        left: Floats,
        width: Floats,
        score: Callable[[Floats], tuple[Floats, Floats]],
        tolerance: float,
        rounding: float,
    ) -> None:
        """Halve the pieces whose bound is above the best value until none is.

        Args:
            controls: Bernstein control points, (pieces, …, degree + 1).
            left: where pieces begin, shape (pieces,).
            width: of the pieces, shape (pieces,).
            score: gives bounds (pieces,) and the values at both ends (pieces, 2).
            tolerance: bounds above the best value by this share of it are left as they are.
            rounding: and so are those above it by this much.
        """
        for _ in range(HALVINGS):
            bounds, values = score(controls)
            piece, side = np.unravel_index(np.argmax(values), values.shape)
            if values[piece, side] > self.best:
                self.best = float(values[piece, side])
                self.at = float(left[piece] + side * width[piece])
            slack = max(tolerance * abs(self.best), rounding)
            open_ = bounds > self.best + slack
            self.bound = max(self.bound, float(bounds[~open_].max(initial=self.best)))
            if not open_.any():
                return
            controls, left, width = controls[open_], left[open_], width[open_] / 2
            first, second = halves(controls)
            controls = np.concatenate([first, second])
            left, width = np.concatenate([left, left + width]), np.tile(width, 2)
        self.bound = max(self.bound, float(score(controls)[0].max()))


def halves(controls: Floats) -> tuple[Floats, Floats]:
    """Split Bernstein forms along the last axis in the middle (de Casteljau)."""
    rows = [controls]
    while rows[-1].shape[-1] > 1:
        rows.append((rows[-1][..., :-1] + rows[-1][..., 1:]) / 2)
    left = np.stack([row[..., 0] for row in rows], axis=-1)
    return left, np.stack([row[..., -1] for row in rows[::-1]], axis=-1)


def polynomial(controls: Floats) -> Floats:
    """Turn Bernstein forms on [0, 1] along the last axis into coefficients of 1, t, t², …."""
    degree = controls.shape[-1] - 1
    rows = [
        [(-1) ** (i - j) * comb(degree, i) * comb(i, j) for j in range(degree + 1)]
        for i in range(degree + 1)
    ]
    return controls @ np.array(rows, dtype=np.float64).T


def product(a: Floats, b: Floats) -> Floats:
    """Multiply polynomials whose coefficients lie along the last axis."""
    degree = a.shape[-1] + b.shape[-1] - 2
    found = np.zeros((*np.broadcast_shapes(a.shape[:-1], b.shape[:-1]), degree + 1))
    for i in range(a.shape[-1]):
        found[..., i : i + b.shape[-1]] += a[..., i : i + 1] * b
    return found


def bernstein(power: Floats, left: Floats, width: Floats) -> Floats:
    """Turn polynomials Σ_i c_i t^i into Bernstein form on [left, left + width].

    Args:
        power: coefficients, shape (pieces, …, degree + 1).
        left: shape (pieces,).
        width: shape (pieces,).
    """
    degree = power.shape[-1] - 1
    wide = [v.reshape(-1, *[1] * (power.ndim - 2)) for v in (left, width)]
    local = [
        sum(comb(i, j) * power[..., i] * wide[0] ** (i - j) for i in range(j, degree + 1))
        * wide[1] ** j
        for j in range(degree + 1)
    ]
    return np.stack(
        [
            sum(comb(i, j) / comb(degree, j) * local[j] for j in range(i + 1))
            for i in range(degree + 1)
        ],
        axis=-1,
    )


def score_polynomial(controls: Floats, sign: float) -> tuple[Floats, Floats]:
    """Return bounds and end values of polynomials (times the sign), (pieces,) and (pieces, 2)."""
    return (sign * controls).max(axis=1), sign * controls[:, [0, -1]]


def score_loss(problem: Problem, controls: Floats, sign: float) -> tuple[Floats, Floats]:
    """Return bounds and end values of ℓ(f) + penalty (times the sign) on pieces.

    Args:
        problem: gives the loss.
        controls: of the n outputs and, last, of the penalty: (pieces, n + 1, degree + 1).
        sign: 1 for maxima, −1 for minima.
    """
    loss, y = problem.loss, problem.y
    fit, penalty = np.swapaxes(controls[:, :-1], 1, 2), controls[:, -1]
    values = loss.value(fit, y) + penalty
    ends = sign * values[:, [0, -1]]
    if sign > 0:
        return values.max(axis=1), ends
    degree = fit.shape[1] - 1
    weights = np.array([comb(degree, i) for i in range(degree + 1)]) / 2.0**degree
    middle = np.einsum("i,pik->pk", weights, fit)
    slope = loss.gradient(middle, y)
    tangent = loss.value(middle, y)[:, None] + ((fit - middle[:, None]) * slope[:, None]).sum(2)
    return -(tangent + penalty).min(axis=1), ends
