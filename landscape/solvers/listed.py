"""Column generation: the optimum over a long list of patterns from a short program.

Solve over a few patterns, price the others at the residual, add those that price above β, drop
those that carry nothing, and stop when no pattern prices above β beyond the tolerance.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from landscape.errors import NotConverged
from landscape.pricing import prices
from landscape.solvers import reference

if TYPE_CHECKING:
    from landscape.arrangements import Arrangements
    from landscape.problem import Problem
    from landscape.programs import Floats, Program
    from landscape.solvers.reference import Optimum

VERSION = 3
ADDED = 40
"""Most patterns added in one round."""


def generate(
    problem: Problem,
    program: Program,
    first: Arrangements,
    tolerance: float,
    throw: bool,
    rounds: int = 60,
) -> tuple[Optimum, Program, tuple[dict[str, float], ...]]:
    """Return the optimum over all blocks of ``program``.

    Args:
        problem: the training problem.
        program: the program over every pattern, used only for prices.
        first: the patterns to begin with.
        tolerance: stop when no price exceeds β (1 + tolerance / 10).
        throw: whether the restricted solver may raise.
        rounds: stop after this many rounds in any case.

    Returns:
        The optimum, the restricted program that it belongs to, and one entry a round.

    Raises:
        NotConverged: if the rounds run out and ``throw``.
    """
    history: list[dict[str, float]] = []
    began, patterns, lowest = time.perf_counter(), first, np.inf
    for _ in range(rounds):
        restricted = problem.architecture.program(problem, patterns)
        optimum = reference.solve_primal(restricted, throw)
        new, largest = improving_blocks(program, optimum.nu, tolerance / 10)
        history.append(
            {
                "value": optimum.value,
                "patterns": len(patterns),
                "price_ratio": largest,
                "seconds": time.perf_counter() - began,
            }
        )
        if not len(new):
            return replace(optimum, history=tuple(history)), restricted, tuple(history)
        added = program.patterns[np.unique(program.atoms.index[new])]
        grown = patterns.union(added)
        if len(grown) == len(patterns):  # nothing new: accuracy is used up
            return replace(optimum, history=tuple(history)), restricted, tuple(history)
        # Patterns that carry nothing go, but only after progress: where the dual is not unique
        # (hinge), dropping at equal values can cycle.
        if optimum.value < lowest - 1e-9 * abs(optimum.value):
            sizes = restricted.gauge.value(optimum.theta)
            carrying = np.unique(restricted.atoms.index[sizes > 1e-7 * sizes.max(initial=0.0)])
            lowest, grown = optimum.value, patterns[carrying].union(added)
        patterns = grown
    sentence = f"Column generation ran {rounds} rounds without closing its gap."
    if throw:
        raise NotConverged(sentence + " Pass start= with trained networks, or throw=False.")
    return replace(optimum, status=sentence), restricted, tuple(history)


def improving_blocks(program: Program, nu: Floats, tolerance: float) -> tuple[np.ndarray, float]:
    """Return blocks that price above β, the steepest of each neighbourhood, and max price / β.

    Neighbouring cells see almost the same neuron, so a cell is taken first if its own gradient
    lies inside it (a local maximum of the price over the sphere); only when there are no such
    cells above β are all blocks priced one by one.
    """
    beta = program.beta
    xi = program.atoms.adjoint(nu)
    sizes = program.gauge.polar(xi)
    if program.cones is None:
        above = np.flatnonzero(sizes > beta * (1 + tolerance))
        return above[np.argsort(-sizes[above])[:ADDED]], float(sizes.max(initial=0.0)) / beta
    if program.gauge.penalised.all():
        inside = _contains_own_gradient(program, xi) & (sizes > beta * (1 + tolerance))
        found = np.flatnonzero(inside)
        if len(found) >= 3:
            best = found[np.argsort(-sizes[found])[:ADDED]]
            return best, float(sizes[best[0]]) / beta
    exact = prices(program, nu, settled=beta)
    above = np.flatnonzero(exact > beta * (1 + tolerance))
    order = above[np.argsort(-exact[above])]
    return _spread(program, order), float(exact.max(initial=0.0)) / beta


def _contains_own_gradient(program: Program, xi: Floats) -> np.ndarray:
    """Return for every block whether ξ_g lies in the cone of its pattern."""
    assert program.cones is not None
    inside = np.empty(len(xi), dtype=bool)
    masks, index = program.cones.masks, program.cones.index
    for begin in range(0, len(xi), 65536):
        chunk = slice(begin, begin + 65536)
        inside[chunk] = ((xi[chunk] @ program.cones.design.T >= 0) == masks[index[chunk]]).all(1)
    return inside


def _spread(program: Program, order: np.ndarray) -> np.ndarray:
    """Return up to `ADDED` blocks of ``order``, skipping near-copies of ones already taken."""
    taken: list[int] = []
    atoms = program.atoms
    for block in order:
        mask = atoms.masks[atoms.index[block]]
        near = [
            t
            for t in taken
            if atoms.signs[t] == atoms.signs[block]
            and (atoms.masks[atoms.index[t]] != mask).sum() <= 1
        ]
        if not near:
            taken.append(int(block))
        if len(taken) == ADDED:
            break
    return np.asarray(taken, dtype=np.int64)
