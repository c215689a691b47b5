"""Column generation over a list of all patterns, for architectures that need one.

Solve over a few patterns, price the list at the residual, add those that price above β, drop
those that carry nothing, and stop when no pattern prices above β beyond the tolerance.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from landscape.errors import NotConverged
from landscape.pricing import prices
from landscape.solvers.restricted import minimise

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
        optimum = minimise(restricted, tolerance / 10, throw=False)
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
    """Return the blocks that price furthest above β, and the largest price over β."""
    exact = prices(program, nu, settled=program.beta)
    above = np.flatnonzero(exact > program.beta * (1 + tolerance))
    best = above[np.argsort(-exact[above], kind="stable")[:ADDED]]
    return best, float(exact.max(initial=0.0)) / program.beta
