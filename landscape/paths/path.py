"""Paths of networks: the objective along them with its certified maximum, barriers, lengths."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from landscape.errors import BadInput
from landscape.sparsity.pruning import check, in_use

if TYPE_CHECKING:
    from collections.abc import Callable

    from landscape.architectures.base import Floats, Parameters
    from landscape.network import Network
    from landscape.paths.pieces import Piece
    from landscape.problem import Problem
    from landscape.slices.segments import Extrema

CHORDS = 256
"""Of a piece's length, before Richardson's extrapolation from half as many."""


class Barriers(NamedTuple):
    r"""The barrier of a path θ(t), t in [0, 1], from a to b, in the three usual definitions.

    Attributes:
        above_ends: :math:`\max_t L(θ(t)) − \max(L(a), L(b))`: zero iff the path stays in the
            sublevel set of the higher end (Freeman & Bruna, ICLR 2017).
        above_line: :math:`\max_t [L(θ(t)) − (1 − t) L(a) − t L(b)]` (Entezari, Sedghi, Saukh &
            Neyshabur, ICLR 2022), t running equally over the pieces.
        above_mean: :math:`\max_t L(θ(t)) − (L(a) + L(b))/2`: the instability to linear
            interpolation of Frankle, Dziugaite, Roy & Carbin (ICML 2020), who take errors for L.
    """

    above_ends: float
    above_line: float
    above_mean: float


@dataclass(frozen=True)
class Path:
    """A path through networks, made of pieces.

    Attributes:
        problem: whose objective it is about.
        pieces: one after the other; where they meet the networks are the same up to the order of
            neurons and to neurons that are zero.
        method: how it was made.
    """

    problem: Problem = field(repr=False)
    pieces: tuple[Piece, ...] = field(repr=False)
    method: str

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The objectives of the first and the last network."""
        first, last = self.pieces[0].start, self.pieces[-1].end
        return float(self.problem.objective(first)), float(self.problem.objective(last))

    @cached_property
    def extrema(self) -> tuple[Extrema, ...]:
        """Least and largest objective of every piece, attained and bounded."""
        return tuple(piece.extrema(self.problem) for piece in self.pieces)

    @property
    def maximum(self) -> float:
        """The largest objective found on the path, attained."""
        return max(one.maximum for one in self.extrema)

    @property
    def upper(self) -> float:
        """No network of the path has an objective above this: no sample, rounding charged."""
        return max(one.upper for one in self.extrema)

    @cached_property
    def _above_line(self) -> tuple[float, float]:
        """The largest height above the line between the ends: attained, and its bound."""
        heights = np.linspace(*self.ends, len(self.pieces) + 1)
        found = [
            piece.extrema(self.problem, (float(a), float(b)))
            for piece, a, b in zip(self.pieces, heights, heights[1:], strict=False)
        ]
        return max(one.maximum for one in found), max(one.upper for one in found)

    @property
    def barriers(self) -> Barriers:
        """The barriers as certified bounds: no network of the path is higher."""
        a, b = self.ends
        return Barriers(self.upper - max(a, b), self._above_line[1], self.upper - (a + b) / 2)

    @property
    def attained(self) -> Barriers:
        """The barriers as far as networks that were found on the path attain them."""
        a, b = self.ends
        return Barriers(self.maximum - max(a, b), self._above_line[0], self.maximum - (a + b) / 2)

    @property
    def barrier(self) -> float:
        """The certified barrier above the higher end."""
        return self.barriers.above_ends

    @cached_property
    def rise(self) -> float:
        """A bound on how far the objective rises above its lowest value before, anywhere.

        Of convex pieces from values and slopes at ends; of a segment or curve its largest
        value above the lowest up to its end, which is too much where it falls after its maximum.
        Rounding of the values is charged.
        """
        rise, lowest, lost = 0.0, np.inf, 0.0
        for number, piece in enumerate(self.pieces):
            with torch.no_grad():
                ends = [float(self.problem.objective(one)) for one in (piece.start, piece.end)]
            first, last = ends
            lowest = min(lowest, first)
            if piece.convex:
                # A line is at least last + slope (t − 1), so it dipped at most that far; the
                # other kinds keep the fit, and their penalty moves one way.
                dip = max(0.0, self._slope(piece)) if piece.kind == "line" else 0.0
                rise = max(rise, first - lowest, last - min(lowest, last - dip))
                lowest = min(lowest, last - dip)
                lost = max(lost, piece.allowance(self.problem))
            else:
                found = self.extrema[number]
                lowest = min(lowest, found.lower)
                rise = max(rise, found.upper - lowest)
        return rise + 2 * lost

    def _slope(self, piece: Piece) -> float:
        """Return a slope of the objective at the end of a line, from inside."""
        problem = self.problem
        ends = (piece.start, piece.end)
        with torch.no_grad():
            X = torch.as_tensor(problem.X)
            first, last = (problem.architecture.forward(one, X).numpy() for one in ends)
            sizes = [float(problem.architecture.penalty(one)) for one in ends]
        gradient = problem.loss.gradient(last, problem.y)
        return float(gradient @ (last - first)) + problem.beta * (sizes[1] - sizes[0])

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons in use on each piece."""
        return tuple(piece.neurons for piece in self.pieces)

    @property
    def width(self) -> int:
        """The most neurons in use anywhere."""
        return max(self.widths, default=0)

    @property
    def fewest(self) -> int:
        """The fewest neurons in use where pieces begin and end."""
        return min((piece.fewest for piece in self.pieces), default=0)

    @cached_property
    def length(self) -> float:
        r"""The length in the parameters, ℓ2: :math:`\int \|\dot θ\| dt`."""
        return self._length(_flat)

    @cached_property
    def convex_length(self) -> float:
        r"""The length in the convex coordinates, ℓ2, neuron by neuron.

        A neuron is the pair :math:`(a_j)_+ w_j, (−a_j)_+ w_j`; neurons of one pattern are not
        merged, and rescaling a neuron has no length.
        """
        return self._length(_blocks)

    def _length(self, coordinates: Callable[[Parameters], torch.Tensor]) -> float:
        """Add up chords, t = sin²φ: neurons that leave zero like √t are smooth in φ."""
        check("the length of a path", self.problem)  # elsewhere neurons need not keep their places
        total = 0.0
        for piece in self.pieces:
            t = np.sin(np.linspace(0.0, np.pi / 2, CHORDS + 1)) ** 2
            with torch.no_grad():
                points = coordinates(piece.at(t))
            fine, coarse = (float(points[::step].diff(dim=0).norm(dim=1).sum()) for step in (1, 2))
            total += (4 * fine - coarse) / 3
        return total

    def objectives(self, points: int = 51) -> tuple[Floats, Floats]:
        """Return positions in [0, number of pieces] and the objective there, ends included."""
        where, values = [], []
        for number, piece in enumerate(self.pieces):
            t = np.linspace(0.0, 1.0, points)
            with torch.no_grad():
                values.append(self.problem.objective(piece.at(t)).numpy())
            where.append(number + t)
        return np.concatenate(where), np.concatenate(values)

    def network(self, position: float) -> Network:
        """Return the network at a position in [0, number of pieces]."""
        if not 0 <= position <= len(self.pieces):
            raise BadInput(f"position is {position}: it must lie in [0, {len(self.pieces)}].")
        number = min(int(position), len(self.pieces) - 1)
        found = self.pieces[number].at(np.array([position - number]))
        return in_use(self.problem, {k: v[0] for k, v in found.items()})


def _flat(parameters: Parameters) -> torch.Tensor:
    """Return networks (T, …) as rows."""
    return torch.cat([v.reshape(len(v), -1) for v in parameters.values()], dim=1)


def _blocks(parameters: Parameters) -> torch.Tensor:
    """Return networks (T, …) as rows of the blocks of both signs, and of a free constant."""
    hidden, output = parameters["hidden"], parameters["output"][..., None]
    rows = [(side * output).clamp_min(0) * hidden for side in (1.0, -1.0)]
    rows += [parameters["constant"][:, None]] if "constant" in parameters else []
    return torch.cat([v.reshape(len(v), -1) for v in rows], dim=1)
