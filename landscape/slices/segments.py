r"""Exact extrema of the objective along a straight segment between two-layer networks.

With parameters linear in t every pre-activation is linear and every output weight is, so each
output is quadratic in t between *breakpoints*, where some :math:`x_k^⊤w_j(t)` changes its sign:

.. math:: f_k(t) = \sum_{j\ \text{active}} (z_{kj} + t δ_{kj})(a_j + t α_j) + ξ(t).

For the squared loss the objective is quartic between neighbouring breakpoints and its
coefficients jump by what one sample changes.  For any other convex loss, write the outputs of a
piece in Bernstein form with control points :math:`b_0, b_1, b_2`; by convexity

.. math:: ℓ(f(t)) ≤ \sum_i B_i(t)\, ℓ(b_i), \qquad
    ℓ(f(t)) ≥ \sum_i B_i(t) \big(ℓ(f_*) + ⟨∇ℓ(f_*), b_i − f_*⟩\big),

with :math:`f_*` the outputs at the middle.  Either way the largest (smallest) control value bounds
the piece, and halving pieces closes the bound quadratically.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import comb
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape.architectures import TwoLayer
from landscape.bounds import EPSILON
from landscape.errors import BadInput
from landscape.slices.directions import aligned

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.problem import Problem

HALVINGS = 60
"""Of a piece at most: its width is then rounding."""
HELD = 1 << 21
"""Control points of outputs held at a time."""


@dataclass(frozen=True)
class Extrema:
    """The least and the largest objective on a segment.

    Attributes:
        minimum: objective of the network at ``at_minimum``, attained.
        at_minimum: t in [0, 1].
        maximum: objective of the network at ``at_maximum``, attained.
        at_maximum: t in [0, 1].
        lower: no network of the segment has an objective below this, rounding charged.
        upper: no network of the segment has an objective above this, rounding charged.
        breakpoints: where an activation changes, ascending, strictly inside (0, 1).
    """

    minimum: float
    at_minimum: float
    maximum: float
    at_maximum: float
    lower: float
    upper: float
    breakpoints: Floats


def segment_extrema(
    problem: Problem,
    a: torch.nn.Module | Parameters,
    b: torch.nn.Module | Parameters,
    tolerance: float = 1e-12,
) -> Extrema:
    """Return the extrema of the objective over all networks (1 − t)·a + t·b, t in [0, 1].

    Not a sample: ``upper`` bounds the objective at every t, so ``upper`` minus the larger end is a
    barrier that no finer grid can exceed.

    Args:
        problem: data, loss and β; the architecture `TwoLayer`.
        a: the network at t = 0.
        b: the network at t = 1; the narrower one is padded by zero neurons.
        tolerance: how far bound and attained value may be apart, relative to the largest value,
            before rounding, which is charged.

    Raises:
        BadInput: for another architecture, weights that are not finite, or a tolerance that is
            not positive.
    """
    if type(problem.architecture) is not TwoLayer:
        raise BadInput(
            f"architecture is {problem.architecture.label}: exact extrema along a segment are "
            "known for two-layer ReLU networks; sample with landscape.slices.through."
        )
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise BadInput(f"tolerance is {tolerance!r}: it must be a positive number.")
    ends = aligned(problem, [a, b])
    if not all(bool(torch.isfinite(v).all()) for end in ends for v in end.values()):
        raise BadInput("network has NaN or infinite weights: the segment has no extrema.")
    segment = _Segment(problem, ends[0], ends[1])
    pieces = segment.quartics if problem.loss.name == "squared" else segment.quadratics
    score = _ends_of if problem.loss.name == "squared" else segment.score
    tops, bottoms = _Peak(), _Peak()
    for controls, left, width in pieces():
        for peak, sign in ((tops, 1.0), (bottoms, -1.0)):
            peak.climb(
                controls, left, width, partial(score, sign=sign), tolerance, segment.rounding
            )
    maximum, at_maximum = segment.attained(tops, 1.0)
    minimum, at_minimum = segment.attained(bottoms, -1.0)
    return Extrema(
        minimum=minimum,
        at_minimum=at_minimum,
        maximum=maximum,
        at_maximum=at_maximum,
        lower=min(minimum, -bottoms.bound - segment.rounding),
        upper=max(maximum, tops.bound + segment.rounding),
        breakpoints=segment.breakpoints,
    )


class _Peak:
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
            first, second = _halves(controls)
            controls = np.concatenate([first, second])
            left, width = np.concatenate([left, left + width]), np.tile(width, 2)
        self.bound = max(self.bound, float(score(controls)[0].max()))


def _halves(controls: Floats) -> tuple[Floats, Floats]:
    """Split Bernstein forms along the last axis in the middle (de Casteljau)."""
    rows = [controls]
    while rows[-1].shape[-1] > 1:
        rows.append((rows[-1][..., :-1] + rows[-1][..., 1:]) / 2)
    left = np.stack([row[..., 0] for row in rows], axis=-1)
    return left, np.stack([row[..., -1] for row in rows[::-1]], axis=-1)


def _ends_of(controls: Floats, sign: float) -> tuple[Floats, Floats]:
    """Return the bound and the end values of polynomials in Bernstein form."""
    return (sign * controls).max(axis=1), sign * controls[:, [0, -1]]


def _bernstein(power: Floats, left: Floats, width: Floats) -> Floats:
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


class _Segment:
    """The piecewise polynomial outputs and penalty between two networks of one width."""

    def __init__(self, problem: Problem, a: Parameters, b: Parameters) -> None:
        self.problem, self.a, self.b = problem, a, b
        X = problem.design
        z, far = ((X @ end["hidden"].numpy().T) for end in (a, b))  # (n, m)
        u, v = (end["output"].numpy() for end in (a, b))
        delta, alpha = far - z, v - u
        # What an active neuron adds to an output: coefficients of 1, t, t², shape (n, m, 3).
        self.share = np.stack([z * u, delta * u + z * alpha, delta * alpha], axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            when = -z / delta
        crossing = (z * far < 0) & (when > 0) & (when < 1)
        self.active = np.where(crossing, z > 0, (z > 0) | (far > 0))  # at t = 0+
        self.when = np.where(crossing, when, np.inf)
        # Rank one change at each crossing: the neuron enters (far > 0) or leaves.
        self.jump = np.where(crossing, np.sign(far), 0.0)[..., None] * self.share
        self.breakpoints = np.sort(when[crossing])
        constant = [float(end["constant"]) if "constant" in end else 0.0 for end in (a, b)]
        self.constant = np.array([constant[0], constant[1] - constant[0], 0.0])
        self.penalty = self._penalty()
        self.rounding = self._charge(z, far, u, v, max(map(abs, constant)))

    def _penalty(self) -> Floats:
        """Return β R as a polynomial in t, from its values at 0, ½ and 1."""
        half = {k: (self.a[k] + self.b[k]) / 2 for k in self.a}
        R = self.problem.architecture.penalty
        zero, middle, one = (float(R(end)) for end in (self.a, half, self.b))
        square = 2 * (zero + one) - 4 * middle
        return self.problem.beta * np.array([zero, one - zero - square, square])

    def _charge(self, z: Floats, far: Floats, u: Floats, v: Floats, constant: float) -> float:
        """Bound the rounding of outputs, loss and penalty anywhere on the segment."""
        loss, y, m = self.problem.loss, self.problem.y, len(u)
        terms = np.maximum(abs(z), abs(far)) @ np.maximum(abs(u), abs(v)) + constant  # (n,)
        # Coefficients are sums of at most 9 times the terms, after m additions each; a product
        # of p numbers behind each pre-activation is charged at its size.
        length = np.linalg.norm(self.problem.design, axis=1)
        weights = sum(np.linalg.norm(end["hidden"].numpy(), axis=1) for end in (self.a, self.b))
        products = length * float(weights @ np.maximum(abs(u), abs(v)))
        p = self.problem.design.shape[1]
        error = EPSILON * (9 * (m + 16) * terms + (p + 16) * products)
        steep = np.maximum(*(abs(loss.gradient(side * terms, y)) for side in (-1.0, 1.0)))
        values = sum(float(loss.value(side * terms, y)) for side in (-1.0, 1.0))  # ≥ any loss
        weight = abs(self.penalty).sum() * (m * p + 16)
        return float(steep @ error + EPSILON * (weight + 32 * values))

    def quartics(self) -> Iterator[tuple[Floats, Floats, Floats]]:
        """Yield the pieces of the squared loss: objective's control points (pieces, 5)."""
        order = np.argsort(self.when, axis=1)
        when = np.take_along_axis(self.when, order, axis=1)  # (n, m), each row ascending
        jump = np.take_along_axis(self.jump, order[..., None], axis=1)
        start = (self.active[..., None] * self.share).sum(axis=1) + self.constant
        start[:, 0] -= self.problem.y
        residual = np.concatenate([start[:, None], start[:, None] + jump.cumsum(axis=1)], axis=1)
        c, s, q = np.moveaxis(residual, -1, 0)  # (n, m + 1)
        halves = np.stack([c * c / 2, c * s, s * s / 2 + c * q, s * q, q * q / 2], axis=-1)
        there = np.isfinite(when)
        steps = (halves[:, 1:] - halves[:, :-1])[there]
        order = np.argsort(when[there])
        begin = halves[:, 0].sum(axis=0)
        begin[:3] += self.penalty
        whole = np.concatenate([begin[None], begin + steps[order].cumsum(axis=0)])
        sizes = abs(whole).sum(axis=1)
        moved = abs(halves[:, 1:])[there].sum() + abs(halves[:, :-1])[there].sum()
        self.rounding += EPSILON * float(sizes.sum() + 4 * moved + 32 * sizes.max())
        edges = np.concatenate([[0.0], self.breakpoints, [1.0]])
        left, width = edges[:-1], np.diff(edges)
        yield _bernstein(whole, left, width), left, width

    def quadratics(self) -> Iterator[tuple[Floats, Floats, Floats]]:
        """Yield pieces of any loss: control points of outputs and penalty, (pieces, n + 1, 3)."""
        n = len(self.problem.y)
        at = self.when[np.isfinite(self.when)]
        order = np.argsort(at)
        sample = np.nonzero(np.isfinite(self.when))[0][order]
        jump = self.jump[np.isfinite(self.when)][order]
        edges = np.concatenate([[0.0], at[order], [1.0]])
        count = max(1, HELD // (3 * (n + 1)))
        for begin in range(0, len(edges) - 1, count):
            left = edges[begin : begin + count + 1]
            left, width = left[:-1], np.diff(left)
            # Afresh for every batch of pieces, so that rounding does not add up.
            on = np.where(self.when <= left[0], ~self.active, self.active)
            on = np.where(np.isfinite(self.when), on, self.active)
            power = np.zeros((len(left), n + 1, 3))
            power[0, :n] = (on[..., None] * self.share).sum(axis=1) + self.constant
            inside = slice(begin, begin + len(left) - 1)
            power[np.arange(1, len(left)), sample[inside]] = jump[inside]
            power = power.cumsum(axis=0)
            power[:, n] = self.penalty
            yield _bernstein(power, left, width), left, width

    def score(self, controls: Floats, sign: float) -> tuple[Floats, Floats]:
        """Return bounds and end values of the objective (times the sign) on pieces."""
        loss, y = self.problem.loss, self.problem.y
        fit, penalty = np.swapaxes(controls[:, :-1], 1, 2), controls[:, -1]  # (s, 3, n), (s, 3)
        values = loss.value(fit, y) + penalty
        ends = sign * values[:, [0, 2]]
        if sign > 0:
            return values.max(axis=1), ends
        middle = (fit[:, 0] + 2 * fit[:, 1] + fit[:, 2]) / 4
        slope = loss.gradient(middle, y)
        tangent = loss.value(middle, y)[:, None] + ((fit - middle[:, None]) * slope[:, None]).sum(2)
        return -(tangent + penalty).min(axis=1), ends

    def attained(self, peak: _Peak, sign: float) -> tuple[float, float]:
        """Return the best of the objectives where the peak was found and at the two ends."""
        at = np.unique([0.0, peak.at, 1.0])
        t = torch.as_tensor(at)
        networks = {
            k: self.a[k] + t.reshape(-1, *[1] * self.a[k].ndim) * (self.b[k] - self.a[k])
            for k in self.a
        }
        values = self.problem.objective(networks).numpy()
        best = int(np.argmax(sign * values))
        return float(values[best]), float(at[best])
