r"""Exact extrema of the objective along segments and quadratic curves of two-layer networks.

With parameters polynomial of degree q in t (1: a segment, 2: a quadratic Bézier curve) every
pre-activation :math:`z_{kj}(t) = x_k^⊤w_j(t)` is, and each output has degree 2q between
*breakpoints*, where some pre-activation changes its sign:

.. math:: f_k(t) = \sum_{j\ \text{active}} z_{kj}(t)\, a_j(t) + ξ(t).

For the squared loss the objective has degree 4q between neighbouring breakpoints and its
coefficients jump by what one sample changes.  For any other convex loss the outputs of every piece
are bounded (see `landscape.slices.bernstein`).

Breakpoints are rounded, those of nearly double roots to half the digits, but the roots of
:math:`z` as computed are those of a quadratic whose coefficients differ by a few units in the last
place: an activation that is taken wrongly is one of rounding's size, and is charged as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import comb
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape.architectures import TwoLayer
from landscape.bounds import EPSILON
from landscape.errors import BadInput, above_zero
from landscape.slices.bernstein import (
    Peak,
    bernstein,
    polynomial,
    product,
    score_loss,
    score_polynomial,
)
from landscape.slices.directions import aligned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Floats, Parameters
    from landscape.problem import Problem

HELD = 1 << 21
"""Control points of outputs held at a time."""


@dataclass(frozen=True)
class Extrema:
    """The least and the largest objective on a segment or curve.

    Attributes:
        minimum: objective of the network at ``at_minimum``, attained.
        at_minimum: t in [0, 1].
        maximum: objective of the network at ``at_maximum``, attained.
        at_maximum: t in [0, 1].
        lower: no network of the curve has an objective below this, rounding charged.
        upper: no network of the curve has an objective above this, rounding charged.
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
    return curve_extrema(problem, [a, b], tolerance)


def curve_extrema(
    problem: Problem,
    controls: Sequence[torch.nn.Module | Parameters],
    tolerance: float = 1e-12,
    minus: tuple[float, float] = (0.0, 0.0),
) -> Extrema:
    r"""Return the extrema of the objective along the Bézier curve of two or three networks.

    Two networks a, b give the segment; three, a, c, b, give
    :math:`(1 − t)^2 a + 2 t (1 − t) c + t^2 b`.  Exact in the same sense as `segment_extrema`.

    Args:
        problem: data, loss and β; the architecture `TwoLayer`.
        controls: the control networks, ends included; narrower ones are padded by zero neurons.
        tolerance: as in `segment_extrema`.
        minus: values at t = 0 and t = 1 of a linear function that is subtracted from the
            objective, so that the extrema are those of its height above a line.

    Raises:
        BadInput: for another architecture or number of networks, weights that are not finite, or
            a tolerance that is not positive.
    """
    architecture = problem.architecture
    if type(architecture) is not TwoLayer or not architecture.plain_neurons:
        raise BadInput(
            f"architecture is {problem.architecture.label}: exact extrema along a segment are "
            "known for two-layer ReLU networks; sample with landscape.slices.through."
        )
    tolerance = above_zero("tolerance", tolerance)
    if len(controls) not in (2, 3):
        raise BadInput(
            f"controls are {len(controls)} networks: give two (a segment) or three (a curve)."
        )
    same = aligned(problem, controls)
    curve = _Curve(problem, same, minus)
    if problem.loss.name == "squared":
        pieces, score = curve.squared, score_polynomial
    else:
        pieces, score = curve.outputs, partial(score_loss, problem)
    tops, bottoms = Peak(), Peak()
    for forms, left, width in pieces():
        for peak, sign in ((tops, 1.0), (bottoms, -1.0)):
            peak.climb(forms, left, width, partial(score, sign=sign), tolerance, curve.rounding)
    maximum, at_maximum = curve.attained(tops, 1.0)
    minimum, at_minimum = curve.attained(bottoms, -1.0)
    return Extrema(
        minimum=minimum,
        at_minimum=at_minimum,
        maximum=maximum,
        at_maximum=at_maximum,
        lower=min(minimum, -bottoms.bound - curve.rounding),
        upper=max(maximum, tops.bound + curve.rounding),
        breakpoints=curve.when,
    )


def along(controls: Sequence[Parameters], t: Floats) -> Parameters:
    """Return the networks of a Bézier curve at parameters t (T,), a leading axis over t.

    Args:
        controls: control networks of one width, ends included.
        t: in [0, 1].
    """
    t_ = torch.as_tensor(np.atleast_1d(t), dtype=torch.float64)
    degree = len(controls) - 1
    weights = torch.stack(
        [comb(degree, i) * t_**i * (1 - t_) ** (degree - i) for i in range(degree + 1)]
    )
    return {
        k: torch.einsum("it,i...->t...", weights, torch.stack([one[k] for one in controls]))
        for k in controls[0]
    }


def rounding(problem: Problem, controls: Sequence[Parameters]) -> float:
    """Bound the rounding of outputs and loss anywhere on the Bézier curve of networks."""
    loss, design = problem.loss, problem.design
    hidden = [one["hidden"].numpy() for one in controls]
    a = np.max([abs(one["output"].numpy()) for one in controls], axis=0)  # (m,)
    z = np.max([abs(design @ one.T) for one in hidden], axis=0)  # (n, m)
    terms = z @ a + max(abs(float(one.get("constant", 0.0))) for one in controls)  # ≥ |f_k|
    # The coefficients of a polynomial of degree q are together at most 3^q times its control
    # points, so those of a product 9^q times; m are added and qm jumps follow, and the
    # breakpoints of lines (parabolas) move them by less than 16 (64) roundings.  A product of p
    # numbers behind each pre-activation is charged at its size.
    norms = sum(np.linalg.norm(one, axis=1) for one in hidden)
    products = np.linalg.norm(design, axis=1) * float(norms @ a)
    q, m, p = len(controls) - 1, len(a), design.shape[1]
    error = EPSILON * (9**q * ((q + 1) * m + 16 * q**2) * terms + (p + 16) * products)
    steep = np.maximum(*(abs(loss.gradient(side * terms, problem.y)) for side in (-1.0, 1.0)))
    values = sum(float(loss.value(side * terms, problem.y)) for side in (-1.0, 1.0))  # ≥ any loss
    return float(steep @ error + 32 * EPSILON * values)


class _Curve:
    """The piecewise polynomial outputs and penalty along a curve of networks of one width."""

    def __init__(
        self, problem: Problem, controls: Sequence[Parameters], minus: tuple[float, float]
    ) -> None:
        self.problem, self.controls, self.minus = problem, controls, minus
        self.degree = q = len(controls) - 1
        hidden = np.stack([one["hidden"].numpy() for one in controls], axis=-1)  # (m, p, q + 1)
        output = np.stack([one["output"].numpy() for one in controls], axis=-1)  # (m, q + 1)
        design = problem.design
        z = np.stack([design @ hidden[..., i].T for i in range(q + 1)], axis=-1)  # (n, m, q + 1)
        forms = polynomial(z)
        # What an active neuron adds to an output: coefficients of 1, t, …, shape (n, m, 2q + 1).
        self.share = product(forms, polynomial(output))
        roots = _roots(forms)  # (n, m, q)
        active = _active(forms, roots)  # (n, m, q + 1): between roots
        self.active = active[..., 0]  # at t = 0+
        # Each crossing in the order of t: its sample, and the coefficients that outputs jump by.
        change = active[..., 1:].astype(np.float64) - active[..., :-1]
        sample, neuron, _ = crossing = np.nonzero(change)
        order = np.argsort(roots[crossing], kind="stable")
        self.when, self.sample = roots[crossing][order], sample[order]
        self.jump = (change[crossing][:, None] * self.share[sample, neuron])[order]
        constants = np.array([float(one.get("constant", 0.0)) for one in controls])
        self.constant = np.zeros(2 * q + 1)
        self.constant[: q + 1] = polynomial(constants)
        kept = problem.architecture.penalised(problem)
        squares = [
            product(v, v).reshape(-1, 2 * q + 1).sum(axis=0)
            for v in (polynomial(hidden[:, kept]), polynomial(output))
        ]
        self.penalty = 0.5 * problem.beta * (squares[0] + squares[1])
        self.rounding = rounding(problem, controls)
        self.rounding += EPSILON * (hidden.size + 16) * float(abs(self.penalty).sum())
        self.rounding += 4 * EPSILON * max(map(abs, minus))
        self.penalty[:2] -= minus[0], minus[1] - minus[0]

    def _start(self) -> Floats:
        """Return the coefficients of the outputs at t = 0+, shape (n, 2q + 1)."""
        return (self.active[..., None] * self.share).sum(axis=1) + self.constant

    def squared(self) -> Iterator[tuple[Floats, Floats, Floats]]:
        """Yield the pieces of the squared loss: objective's control points (pieces, 4q + 1)."""
        start = self._start()
        start[:, 0] -= self.problem.y
        # Residuals before and after every crossing: running sums within each sample.
        order = np.argsort(self.sample, kind="stable")
        ends = np.cumsum(np.bincount(self.sample, minlength=len(start)))
        after = np.empty_like(self.jump)
        for first, rows in zip(start, np.split(order, ends[:-1]), strict=True):
            after[rows] = first + self.jump[rows].cumsum(axis=0)
        before = after - self.jump
        halves = [product(v, v) / 2 for v in (before, after)]
        begin = (product(start, start) / 2).sum(axis=0)
        begin[: 2 * self.degree + 1] += self.penalty
        whole = np.concatenate([begin[None], begin + (halves[1] - halves[0]).cumsum(axis=0)])
        sizes = abs(whole).sum(axis=1)
        moved = sum(float(abs(v).sum()) for v in halves)
        self.rounding += EPSILON * float(sizes.sum() + 4 * moved + 32 * self.degree * sizes.max())
        edges = np.concatenate([[0.0], self.when, [1.0]])
        left, width = edges[:-1], np.diff(edges)
        yield bernstein(whole, left, width), left, width

    def outputs(self) -> Iterator[tuple[Floats, Floats, Floats]]:
        """Yield pieces of any loss: control points of outputs, penalty last, (s, n + 1, 2q + 1)."""
        n, size = len(self.problem.y), 2 * self.degree + 1
        start = self._start()
        edges = np.concatenate([[0.0], self.when, [1.0]])
        count = max(1, HELD // (size * (n + 1)))
        for begin in range(0, len(edges) - 1, count):
            left = edges[begin : begin + count + 1]
            left, width = left[:-1], np.diff(left)
            last = begin + len(left) - 1
            power = np.zeros((len(left), n + 1, size))
            power[0, :n] = start
            power[np.arange(1, len(left)), self.sample[begin:last]] = self.jump[begin:last]
            power = power.cumsum(axis=0)
            power[:, n] = self.penalty
            start = power[-1, :n].copy()
            if last < len(self.when):  # the crossing between this batch and the next
                start[self.sample[last]] += self.jump[last]
            yield bernstein(power, left, width), left, width

    def attained(self, peak: Peak, sign: float) -> tuple[float, float]:
        """Return the best of the objectives where the peak was found and at the two ends."""
        t = np.unique([0.0, peak.at, 1.0])
        values = self.problem.objective(along(self.controls, t)).numpy()
        values = values - ((1 - t) * self.minus[0] + t * self.minus[1])
        best = int(np.argmax(sign * values))
        return float(values[best]), float(t[best])


def _roots(forms: Floats) -> Floats:
    """Return the roots inside (0, 1) of polynomials of degree 1 or 2, ascending, else infinity.

    Args:
        forms: coefficients of 1, t and t², shape (…, q + 1).
    """
    with np.errstate(all="ignore"):
        if forms.shape[-1] == 2:
            found = -forms[..., :1] / forms[..., 1:]
        else:
            c, b, a = np.moveaxis(forms, -1, 0)
            half = -(b + np.copysign(np.sqrt(b * b - 4 * a * c), b)) / 2  # NaN: no root is real
            found = np.stack([half / a, c / half], axis=-1)
    return np.sort(np.where((found > 0) & (found < 1), found, np.inf), axis=-1)


def _active(forms: Floats, roots: Floats) -> NDArray[np.bool_]:
    """Return whether polynomials are positive between their roots, shape (…, q + 1).

    The sign is that of the integral (Simpson's rule, exact here): where it is wrong by rounding,
    the polynomial itself is of rounding's size on the whole interval.
    """
    zero = np.zeros((*roots.shape[:-1], 1))
    edges = np.concatenate([zero, np.minimum(roots, 1.0), zero + 1.0], axis=-1)
    left, right = edges[..., :-1], edges[..., 1:]
    total = np.zeros_like(left)
    for weight, t in ((1.0, left), (4.0, (left + right) / 2), (1.0, right)):
        total += weight * sum(forms[..., i : i + 1] * t**i for i in range(forms.shape[-1]))
    active = total > 0
    for i in range(1, active.shape[-1]):  # behind the last root nothing changes
        gone = np.isinf(roots[..., i - 1])
        active[..., i] = np.where(gone, active[..., i - 1], active[..., i])
    return active
