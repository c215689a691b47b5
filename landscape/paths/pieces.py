"""Pieces of paths: each knows its networks and bounds the objective along all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from landscape.bounds import EPSILON
from landscape.slices.bernstein import Peak, score_loss
from landscape.slices.segments import Extrema, along, curve_extrema
from landscape.sparsity.pruning import check

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.problem import Problem

TOLERANCE = 1e-12
"""Relative distance of a bound from an attained value at which bounding stops."""
NO_LINE = (0.0, 0.0)


class Piece(ABC):
    """One piece of a path, t from 0 to 1.

    Attributes:
        kind: what the piece is, for labels.
        start: parameters at t = 0.
        end: parameters at t = 1; neuron j of both is the same neuron.
        convex: whether the objective is a convex function of t.
    """

    kind: str
    start: Parameters
    end: Parameters
    convex: ClassVar[bool] = True

    @abstractmethod
    def at(self, t: Floats) -> Parameters:
        """Return the networks at parameters t (T,), a leading axis over t."""

    @abstractmethod
    def extrema(self, problem: Problem, minus: tuple[float, float] = NO_LINE) -> Extrema:
        """Return bounds of the objective along the piece, and the extreme values attained.

        Args:
            problem: whose objective it is.
            minus: values at t = 0 and t = 1 of a linear function that is subtracted.
        """

    def reversed(self) -> Piece:
        """Return the same networks from the end to the start."""
        return Reversed(self)

    @cached_property
    def neurons(self) -> int:
        """How many neurons the piece has in use."""
        return int(torch.stack([_used(one) for one in (self.start, self.end)]).any(dim=0).sum())

    @cached_property
    def fewest(self) -> int:
        """The neurons in use at the end that has fewer."""
        return min(int(_used(one).sum()) for one in (self.start, self.end))

    def _heights(self, problem: Problem, t: Floats, minus: tuple[float, float]) -> Floats:
        """Return objectives at t (T,) above the linear function."""
        values = problem.objective(self.at(t)).numpy()
        return values - ((1 - t) * minus[0] + t * minus[1])

    def allowance(self, problem: Problem, minus: tuple[float, float] = NO_LINE) -> float:
        """Return a bound of the rounding of the objective at the ends of a convex piece."""
        ends = [rounding(problem, one) for one in (self.start, self.end)]
        return max(ends) + 4 * EPSILON * max(map(abs, minus))


def rounding(problem: Problem, network: Parameters) -> float:
    """Return a bound of the rounding of one network's objective, to first order, twice over."""
    design = problem.design
    hidden, output = network["hidden"].numpy(), network["output"].numpy()
    m, p = hidden.shape
    sizes = (np.abs(design) @ np.abs(hidden).T) @ np.abs(output)  # ≥ Σ_j of |terms| of f_k
    sizes += abs(float(network.get("constant", 0.0)))
    fit = problem.architecture.forward(network, torch.as_tensor(problem.X)).numpy()
    moved = float(np.abs(problem.loss.gradient(fit, problem.y)) @ sizes) * (p + m + 4)
    penalty = problem.beta * float(problem.architecture.penalty(network)) * (hidden.size + 8)
    value = float(problem.loss.value(fit, problem.y)) * (len(problem.y) + 8)
    return 2 * EPSILON * (moved + penalty + value)


def _used(parameters: Parameters) -> torch.Tensor:
    """Return which neurons have an output and an input, shape (m,)."""
    return (parameters["output"] != 0) & parameters["hidden"].any(dim=1)


@dataclass(frozen=True)
class Balance(Piece):
    """Rescaling :math:`(w_j r_j^t, a_j r_j^{-t})` until ‖w_j‖ = |a_j|: a fit that stays.

    Attributes:
        start: a network.
        end: the balanced network.
        rates: log r_j of every neuron, shape (m,).
    """

    start: Parameters
    end: Parameters
    rates: torch.Tensor
    kind: str = "balance"

    @staticmethod
    def of(problem: Problem, parameters: Parameters) -> Balance:
        """Return the balancing of a network."""
        return Balance(dict(parameters), *check("connect", problem).balanced(problem, parameters))

    def at(self, t: Floats) -> Parameters:
        t_ = torch.as_tensor(np.atleast_1d(t), dtype=torch.float64)[:, None]
        hidden, output = self.start["hidden"], self.start["output"]
        power = torch.exp(self.rates * t_)
        gone = (self.end["output"] == 0)[:, None]  # these fade out, and constants take over
        fading = torch.lerp(hidden, self.end["hidden"], t_[..., None])
        found = {
            "hidden": torch.where(gone, fading, hidden * power[..., None]),
            "output": torch.where(gone[:, 0], (1 - t_) * output, output / power),
        }
        return _with_constant(found, self.start, self.end, t_)

    def extrema(self, problem: Problem, minus: tuple[float, float] = NO_LINE) -> Extrema:
        """Convex, and falling before the line is subtracted: both extremes are at ends."""
        ends = self._heights(problem, np.array([0.0, 1.0]), minus)
        low, high = int(ends.argmin()), int(ends.argmax())
        allowance = self.allowance(problem, minus)
        least = float(problem.objective(self.end)) - max(minus)
        return Extrema(
            minimum=float(ends[low]),
            at_minimum=float(low),
            maximum=float(ends[high]),
            at_maximum=float(high),
            lower=min(float(ends[low]), least) - allowance,
            upper=float(ends[high]) + allowance,
            breakpoints=np.empty(0),
        )


@dataclass(frozen=True)
class Line(Piece):
    """A straight line in the coordinates u = |a| w of balanced neurons with fixed directions.

    Fit and penalty are linear in t, so the objective is convex.

    Attributes:
        kind: "prune" or "line".
        start: a balanced network.
        end: a balanced network; a neuron's weights at both ends are multiples of one direction.
    """

    kind: str
    start: Parameters
    end: Parameters

    @staticmethod
    def beside(start: Parameters, end: Parameters) -> Line:
        """Put two balanced networks beside each other: one fades while the other grows."""
        names = ("hidden", "output")
        first = {k: torch.cat([start[k], torch.zeros_like(end[k])]) for k in names}
        last = {k: torch.cat([torch.zeros_like(start[k]), end[k]]) for k in names}
        if "constant" in start:
            first["constant"], last["constant"] = start["constant"], end["constant"]
        return Line("line", first, last)

    def at(self, t: Floats) -> Parameters:
        t_ = torch.as_tensor(np.atleast_1d(t), dtype=torch.float64)[:, None]
        hidden, output = self.start["hidden"], self.start["output"]
        last, last_output = self.end["hidden"], self.end["output"]
        share = (1 - t_) * output.abs() ** 2 + t_ * last_output.abs() ** 2
        larger = output.abs() >= last_output.abs()
        base = torch.where(larger[:, None], hidden, last)
        size = torch.where(larger, output, last_output)
        factor = torch.where(size != 0, (share / size.square()).sqrt(), 0.0)
        found = {"hidden": base * factor[..., None], "output": size * factor}
        return _with_constant(found, self.start, self.end, t_)

    def extrema(self, problem: Problem, minus: tuple[float, float] = NO_LINE) -> Extrema:
        architecture, X = problem.architecture, torch.as_tensor(problem.X)
        ends = (self.start, self.end)
        fits = np.stack([architecture.forward(one, X).numpy() for one in ends], axis=1)  # (n, 2)
        penalties = [problem.beta * float(architecture.penalty(one)) for one in ends]
        forms = np.vstack([fits, np.subtract(penalties, minus)])[None]  # (1, n + 1, 2)
        allowance, whole = self.allowance(problem, minus), (np.zeros(1), np.ones(1))
        peaks = []
        for sign in (1.0, -1.0):
            peaks.append(Peak())
            score = partial(score_loss, problem, sign=sign)
            peaks[-1].climb(forms, *whole, score, TOLERANCE, allowance)
        t = np.unique([0.0, peaks[0].at, peaks[1].at, 1.0])
        values = self._heights(problem, t, minus)
        low, high = int(values.argmin()), int(values.argmax())
        return Extrema(
            minimum=float(values[low]),
            at_minimum=float(t[low]),
            maximum=float(values[high]),
            at_maximum=float(t[high]),
            lower=min(float(values[low]), -peaks[1].bound - allowance),
            upper=max(float(values[high]), peaks[0].bound + allowance),
            breakpoints=np.empty(0),
        )


@dataclass(frozen=True)
class Curve(Piece):
    """A segment or quadratic Bézier curve in the parameters.

    Attributes:
        controls: two or three networks of one width, ends included.
    """

    controls: tuple[Parameters, ...]
    convex: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        return "segment" if len(self.controls) == 2 else "bezier"

    @property
    def start(self) -> Parameters:
        return self.controls[0]

    @property
    def end(self) -> Parameters:
        return self.controls[-1]

    @cached_property
    def neurons(self) -> int:
        return int(torch.stack([_used(one) for one in self.controls]).any(dim=0).sum())

    def at(self, t: Floats) -> Parameters:
        return along(self.controls, t)

    def extrema(self, problem: Problem, minus: tuple[float, float] = NO_LINE) -> Extrema:
        return curve_extrema(problem, self.controls, TOLERANCE, minus)

    def reversed(self) -> Piece:
        return Curve(self.controls[::-1])


@dataclass(frozen=True)
class Reversed(Piece):
    """A piece walked from its end to its start.

    Attributes:
        piece: the piece as it was made.
    """

    piece: Piece

    @property
    def kind(self) -> str:
        return self.piece.kind

    @property
    def start(self) -> Parameters:
        return self.piece.end

    @property
    def end(self) -> Parameters:
        return self.piece.start

    @property
    def convex(self) -> bool:
        return self.piece.convex

    @property
    def neurons(self) -> int:
        return self.piece.neurons

    @property
    def fewest(self) -> int:
        return self.piece.fewest

    def allowance(self, problem: Problem, minus: tuple[float, float] = NO_LINE) -> float:
        return self.piece.allowance(problem, (minus[1], minus[0]))

    def at(self, t: Floats) -> Parameters:
        return self.piece.at(1.0 - np.atleast_1d(t))

    def extrema(self, problem: Problem, minus: tuple[float, float] = NO_LINE) -> Extrema:
        found = self.piece.extrema(problem, (minus[1], minus[0]))
        return replace(
            found,
            at_minimum=1.0 - found.at_minimum,
            at_maximum=1.0 - found.at_maximum,
            breakpoints=1.0 - found.breakpoints[::-1],
        )

    def reversed(self) -> Piece:
        return self.piece


def _with_constant(
    found: Parameters, start: Parameters, end: Parameters, t: torch.Tensor
) -> Parameters:
    """Add a free output bias, which moves linearly."""
    if "constant" in start:
        found["constant"] = (1 - t[:, 0]) * start["constant"] + t[:, 0] * end["constant"]
    return found
