"""`solve`: the convex program over given patterns, or over all of them by column generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from landscape import arrangements
from landscape.arrangements import Arrangements
from landscape.certificate import EXACT, GIVEN, Certificate, judge, lower_bound
from landscape.errors import BadInput, NotConverged
from landscape.solvers import generation, reference
from landscape.solvers.solution import Solution, without_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import ConvexPoint
    from landscape.problem import Problem
    from landscape.programs import Program
    from landscape.solvers.reference import Optimum


def solve(
    problem: Problem,
    patterns: str | Arrangements | NDArray[np.bool_] = "all",
    *,
    start: Any = None,
    tolerance: float = 1e-7,
    limit: int = 400_000,
    seed: int = 0,
    throw: bool = True,
) -> Solution:
    """Solve the convex program of a problem and certify the outcome.

    Args:
        problem: the training problem.
        patterns: "all" for the global optimum over every activation pattern (column generation,
            every pattern priced exactly at the end); or the patterns of a restricted program, as
            `Arrangements` or a boolean array (P, n), for both its primal and, solved apart, its
            dual.
        start: networks whose patterns column generation begins with: `train`'s runs, a network or
            a list of networks.
        tolerance: relative gap at which the outcome counts as solved.
        limit: refuse to enumerate more patterns than this.
        seed: of the random patterns that column generation begins with.
        throw: raise if the gap stays above the tolerance; otherwise ``status`` says so.

    Returns:
        The certified solution.

    Raises:
        TooManyPatterns: if "all" means more than ``limit`` patterns.
        NotConverged: if the certified gap stays above ``tolerance``.
        BadInput: for patterns that do not fit the data.
    """
    if not isinstance(patterns, str):
        given = _as_arrangements(problem, patterns)
        program = problem.architecture.program(problem, given)
        optimum = reference.solve_primal(program, throw)
        value, nu = reference.solve_dual(program, throw)
        bound = lower_bound(program, nu)[:2]
        history: tuple[dict[str, float], ...] = ({"primal": optimum.value, "dual": value},)
        return _finish(problem, program, optimum, bound, GIVEN, history, tolerance, throw)
    if patterns != "all":
        raise BadInput(f"patterns is {patterns!r}: it must be 'all', Arrangements or an array.")
    every = problem.architecture.all_patterns(problem, limit)
    first = starting_patterns(problem, start, seed)
    program = problem.architecture.program(problem, every)
    optimum, restricted, history = generation.generate(problem, program, first, tolerance, throw)
    bound = lower_bound(program, optimum.nu)[:2]
    whole = (restricted, program)
    return _finish(problem, whole, optimum, bound, EXACT, history, tolerance, throw)


def starting_patterns(problem: Problem, start: Any, seed: int) -> Arrangements:
    """Return the patterns of the given networks and a few random ones."""
    patterns = arrangements.sample(problem.design, 10 * problem.design.shape[1], seed=seed)
    if start is None:
        return patterns
    networks = getattr(start, "networks", None)
    if networks is None:
        networks = [start] if isinstance(start, torch.nn.Module) else list(start)
    for network in networks:
        gates = problem.architecture.gates(problem.architecture.read(network))
        patterns = patterns.union(arrangements.of(gates, problem.design))
    return patterns


def _as_arrangements(problem: Problem, patterns: Arrangements | NDArray[np.bool_]) -> Arrangements:
    """Return given patterns as `Arrangements`, refusing arrays of another kind or shape."""
    if isinstance(patterns, Arrangements):
        count = patterns.n
    else:
        patterns = np.asarray(patterns)
        if patterns.dtype != bool or patterns.ndim != 2:
            raise BadInput(
                f"patterns is an array of {patterns.dtype} with shape {patterns.shape}: it must be "
                "boolean with shape (P, n)."
            )
        count = patterns.shape[1]
    if count != len(problem.y):
        raise BadInput(f"patterns are over {count} samples, the problem has {len(problem.y)}.")
    if len(patterns) == 0:
        raise BadInput("patterns is empty: there must be at least one.")
    if isinstance(patterns, Arrangements):
        return patterns
    return Arrangements.from_bool(patterns, np.zeros((len(patterns), problem.design.shape[1])))


def _finish(
    problem: Problem,
    program: Program | tuple[Program, Program],
    optimum: Optimum,
    bound: tuple[float, Any],
    scope: str,
    history: tuple[dict[str, float], ...],
    tolerance: float,
    throw: bool,
) -> Solution:
    """Clean, map to a network, certify, and say how it ended."""
    solved, priced = program if isinstance(program, tuple) else (program, program)
    point: ConvexPoint = without_noise(problem, solved, optimum)
    certificate: Certificate = judge(
        problem,
        problem.architecture.lower(point),
        priced,
        [bound],
        scope,
        violation=point.program.violation(point.theta),
    )
    status = optimum.status
    if not certificate.relative_gap <= tolerance:
        status = (
            f"The certified relative gap is {certificate.relative_gap:.1e}, above the tolerance "
            f"{tolerance:g}. {status}"
        )
        if throw:
            raise NotConverged(status + " Raise the tolerance, or pass throw=False to see it.")
    return Solution(problem, point, certificate, certificate.nu, status, history)
