"""Networks as points of the convex program: their signed blocks, with kinks resolved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from landscape import arrangements
from landscape.architectures.base import ConvexPoint
from landscape.clarke import ties

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.problem import Problem
    from landscape.programs import Floats, Program

CELLS = 512
"""Resolutions of one neuron's kinks that are listed for the own program's optimum."""


def resolved(problem: Problem, point: ConvexPoint) -> tuple[ConvexPoint, bool]:
    """Return the same point in the program with its kinks resolved, own signs only.

    Every neuron on kinks contributes all full-dimensional cells that touch it, unless they may be
    more than CELLS; the second value says whether all are there.
    """
    architecture, design, program = problem.architecture, problem.design, point.program
    tied = kinks(problem, point)
    if not tied.any():
        return point, True
    few = np.array(
        [
            arrangements.count(int(t), min(int(t), design.shape[1])) <= CELLS
            for t in tied.sum(axis=1)
        ]
    )
    neurons = few & ~_linear(program)
    masks, gates, signs, theta = [], [], [], []
    for side in (1.0, -1.0):
        mine = program.atoms.signs == side
        own = program.patterns[program.atoms.index[mine]]
        # Merging may have put two neurons of one pattern together; the pattern comes first here.
        all_ = own.union(arrangements.of(point.theta[mine & neurons], design))
        masks.append(np.asarray(all_))
        gates.append(all_.gates)
        signs.append(np.full(len(all_), side))
        placed = np.zeros((len(all_), point.theta.shape[1]))
        placed[: len(own)] = point.theta[mine]
        theta.append(placed)
    patterns = arrangements.Arrangements.from_bool(np.vstack(masks), np.vstack(gates))
    program = architecture.program(problem, patterns, np.concatenate(signs))
    return ConvexPoint(program, np.vstack(theta), point.constant), bool(few.all())


def kinks(problem: Problem, point: ConvexPoint) -> NDArray[np.bool_]:
    """Return which samples lie on which blocks' kinks, shape (G, n); gates have none."""
    if not problem.architecture.searched:
        return np.zeros((len(point.theta), len(problem.y)), dtype=bool)
    return ties(problem.design, point.theta) & ~_linear(point.program)[:, None]


def _linear(program: Program) -> NDArray[np.bool_]:
    """Which blocks are no neurons, shape (G,)."""
    if program.cones is None:
        return np.zeros(program.atoms.size, dtype=bool)
    return program.cones.open


def both_signs(problem: Problem, point: ConvexPoint) -> Program:
    """Return the program over the patterns of a point with blocks of both signs."""
    own = resolved(problem, point)[0].program.patterns
    masks, first = np.unique(np.asarray(own), axis=0, return_index=True)
    return problem.architecture.program(
        problem, arrangements.Arrangements.from_bool(masks, own.gates[first])
    )


def point_fit(point: ConvexPoint) -> Floats:
    """Return the outputs of a convex point, shape (n,)."""
    return point.program.fit(point.theta, point.constant)


def with_block(point: ConvexPoint, u: Floats, sign: float) -> ConvexPoint:
    """Return the point with one more block, a plain neuron u = |a| w of output sign ``sign``."""
    program = point.program
    masks = np.vstack([program.atoms.masks[program.atoms.index], program.atoms.design @ u >= 0])
    patterns = arrangements.Arrangements.from_bool(
        masks, np.vstack([program.patterns.gates[program.atoms.index], u])
    )
    signs = np.append(program.atoms.signs, sign)
    index = np.arange(len(masks))
    atoms = replace(program.atoms, masks=masks, index=index, signs=signs)
    cones = None if program.cones is None else replace(program.cones, masks=masks, index=index)
    program = replace(program, atoms=atoms, cones=cones, patterns=patterns)
    return ConvexPoint(program, np.vstack([point.theta, u]), point.constant)


def used(theta: Floats) -> NDArray[np.bool_]:
    """Which blocks are not zero, shape (G,)."""
    return np.asarray(theta.any(axis=tuple(range(1, theta.ndim))))
