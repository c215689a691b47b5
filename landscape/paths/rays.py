"""Constructive paths for every architecture: lines between points of its convex program.

Blocks keep their directions and only their sizes move, so fit and penalty are linear and the
objective is convex along each piece.  The networks are those that the points are lowered to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from landscape import dictionary
from landscape.architectures.base import ConvexPoint
from landscape.arrangements import Arrangements
from landscape.bounds import EPSILON
from landscape.errors import BadInput
from landscape.paths.pieces import NO_LINE, Line, Piece
from landscape.sparsity.blocks import balanced_point, reductions, scaled
from landscape.training.runs import padded

if TYPE_CHECKING:
    import torch

    from landscape.architectures.base import Floats, Parameters
    from landscape.problem import Problem


@dataclass(frozen=True)
class Rays(Line):
    """A line of convex points: block g has the share (1 − t) first_g + t last_g of θ_g.

    Attributes:
        problem: gives the bridge.
        point: the blocks, each a ray.
        shares: of the blocks at both ends, shape (2, G).
        constants: free parts at both ends, shape (2, q).
    """

    problem: Problem = field(repr=False)
    point: ConvexPoint = field(repr=False)
    shares: Floats = field(repr=False)
    constants: Floats = field(repr=False)

    @staticmethod
    def between(
        kind: str, problem: Problem, point: ConvexPoint, shares: Floats, constants: Floats
    ) -> Rays:
        """Return the line between two choices of shares."""
        first, last = (
            _lowered(problem, point, s, c) for s, c in zip(shares, constants, strict=True)
        )
        return Rays(kind, first, last, problem, point, shares, constants)

    def at(self, t: Floats) -> Parameters:
        found = []
        for one in np.atleast_1d(t):
            shares = (1 - one) * self.shares[0] + one * self.shares[1]
            constant = (1 - one) * self.constants[0] + one * self.constants[1]
            network = _lowered(self.problem, self.point, shares, constant)
            found.append({k: v[None] for k, v in network.items()})
        return padded(found)

    @property
    def neurons(self) -> int:
        """How many blocks are in use."""
        return int((self.shares > 0).any(axis=0).sum())

    @property
    def fewest(self) -> int:
        """The blocks in use at the end that has fewer."""
        return int((self.shares > 0).sum(axis=1).min())

    def allowance(self, problem: Problem, minus: tuple[float, float] = NO_LINE) -> float:
        """Return a bound of the rounding of the objective at the ends, to first order."""
        program, worst = self.point.program, 0.0
        sizes = program.gauge.value(self.point.theta)
        F = self.point.features
        for shares, constant in zip(self.shares, self.constants, strict=True):
            spread = np.abs(F) @ shares + np.abs(program.free) @ np.abs(constant)
            fit = F @ shares + program.free @ constant
            slope = np.abs(program.loss.gradient(fit, program.y))
            terms = len(shares) + self.point.theta.shape[1] + 16
            moved = float(slope @ spread) * terms
            rest = float(program.loss.value(fit, program.y)) * (len(program.y) + 8)
            rest += program.beta * float(sizes @ shares) * terms
            worst = max(worst, 8 * EPSILON * (moved + rest))
        return worst + 4 * EPSILON * max(map(abs, minus))


def _lowered(problem: Problem, point: ConvexPoint, shares: Floats, constant: Floats) -> Parameters:
    return problem.architecture.lower(scaled(point, shares, constant))


def prune(problem: Problem, point: ConvexPoint) -> tuple[list[Piece], Floats, Floats]:
    """Return the pieces down to independent features, and shares and free part at their end."""
    shares, constant = np.ones(len(point.theta)), point.constant
    pieces: list[Piece] = []
    for less, moved in reductions(point):
        ends = np.stack([shares, less]), np.stack([constant, moved])
        pieces.append(Rays.between("prune", problem, point, *ends))
        shares, constant = less, moved
    return pieces, shares, constant


def level(
    problem: Problem, first: torch.nn.Module | Parameters, last: torch.nn.Module | Parameters
) -> list[Piece]:
    """Return the pieces that prune both networks and join them by a line."""
    a, b = (balanced_point(problem, one) for one in (first, last))
    down, shares, constant = prune(problem, a)
    up, others, end = prune(problem, b)
    line = _beside(problem, a, b, (shares, others), (constant, end))
    return [*down, line, *(piece.reversed() for piece in up[::-1])]


def valley(
    problem: Problem,
    first: torch.nn.Module | Parameters,
    last: torch.nn.Module | Parameters,
    optimum: torch.nn.Module | Parameters,
) -> list[Piece]:
    """Return the pieces that lead down to an optimum and up to the other network."""
    heights = [float(problem.objective(one)) for one in (first, last, optimum)]
    if min(heights[:2]) <= heights[2]:
        return level(problem, first, last)
    up = monotone(problem, last, optimum)
    return [*monotone(problem, first, optimum), *(piece.reversed() for piece in up[::-1])]


def monotone(
    problem: Problem, first: torch.nn.Module | Parameters, last: torch.nn.Module | Parameters
) -> list[Piece]:
    """Return the pieces that prune a network and lead in a line to an optimum."""
    a, b = (balanced_point(problem, one) for one in (first, last))
    down, shares, constant = prune(problem, a)
    line = _beside(problem, a, b, (shares, np.ones(len(b.theta))), (constant, b.constant))
    found = [*down, line]
    slack = line.allowance(problem)
    if b.value > a.value + slack:
        raise BadInput(
            f"end has objective {b.value:.8g}, by {b.value - a.value:.1e} above the start's: a "
            "path that never rises leads to an optimum (method='level' joins networks of equal "
            "height)."
        )
    return found


def _beside(
    problem: Problem,
    a: ConvexPoint,
    b: ConvexPoint,
    shares: tuple[Floats, Floats],
    constants: tuple[Floats, Floats],
) -> Rays:
    """Return the line on which one point fades while the other grows."""
    both = _joined(problem, a, b)
    first = np.concatenate([shares[0], np.zeros(len(b.theta))])
    last = np.concatenate([np.zeros(len(a.theta)), shares[1]])
    return Rays.between("line", problem, both, np.stack([first, last]), np.stack(constants))


def _joined(problem: Problem, a: ConvexPoint, b: ConvexPoint) -> ConvexPoint:
    """Return the point of both points' blocks, in one program; its free part is the first's."""
    architecture, programs = problem.architecture, (a.program, b.program)
    if a.constant.shape != b.constant.shape:
        raise BadInput(
            f"connect: the programs of the two networks have {len(a.constant)} and "
            f"{len(b.constant)} free directions: networks whose constants belong to their own "
            "gates have no line between them."
        )
    if a.program.units is not None:
        units = dictionary.join(a.program.units, b.program.units)
        program = architecture.program(problem, units)
    else:
        atoms = [one.atoms for one in programs]
        masks = np.vstack([one.masks[one.index] for one in atoms])
        gates = np.vstack([one.patterns.gates[one.atoms.index] for one in programs])
        patterns = Arrangements.from_bool(masks, gates)
        program = architecture.program(
            problem, patterns, np.concatenate([one.signs for one in atoms])
        )
    return ConvexPoint(program, np.concatenate([a.theta, b.theta]), a.constant)
