"""Where the directions of price β are sought: all patterns, given ones, ramps, or by climbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from landscape import arrangements
from landscape.bounds import EXACT, GIVEN
from landscape.errors import BadInput
from landscape.optimal_set.directions import Directions, by_search, of_program
from landscape.optimal_set.ramps import of_ramps

if TYPE_CHECKING:
    from landscape.arrangements import Arrangements
    from landscape.problem import Problem
    from landscape.programs import Floats
    from landscape.solvers.solution import Solution


def is_lasso(problem: Problem) -> bool:
    """Return whether the problem is a Lasso over ramps: plain neurons, one input, a free bias."""
    architecture = problem.architecture
    free = architecture.plain_neurons and not architecture.penalised(problem).all()
    return free and problem.X.shape[1] == 1


def optimal_directions(
    solution: Solution, nu: Floats, patterns: Arrangements | None, limit: int, seed: int
) -> tuple[Directions, bool]:
    """Return the directions of price β at ν, and whether every pattern in scope was priced.

    Args:
        solution: certified.
        nu: its dual point, shape (n,).
        patterns: those over which it was solved, if they were given.
        limit: patterns up to which every one is priced.
        seed: of the climbs where they are not.

    Raises:
        BadInput: for a solution over given patterns without them, or with a free bias.
    """
    problem, point = solution.problem, solution.point
    if is_lasso(problem):
        if solution.certificate.scope == GIVEN:
            raise BadInput(
                "solution has scope 'given patterns': with a free bias solve over all patterns."
            )
        return of_ramps(problem, nu), True
    if patterns is not None:
        return of_program(problem.architecture.program(problem, patterns), nu), True
    scope, rank = solution.certificate.scope, int(np.linalg.matrix_rank(problem.design))
    if scope == GIVEN:
        raise BadInput(
            "solution has scope 'given patterns': pass patterns=, those it was solved over."
        )
    few = arrangements.count(len(problem.y), rank) <= limit
    if scope == EXACT and (few or not problem.architecture.plain_neurons):
        every = problem.architecture.all_patterns(problem, limit)
        return of_program(problem.architecture.program(problem, every), nu), True
    sizes = point.program.gauge.value(point.theta)
    units = point.theta[sizes > 0] / sizes[sizes > 0, None]
    return by_search(problem, units, point.program.atoms.signs[sizes > 0], nu, seed), False
