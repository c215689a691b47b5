"""Column generation over a dictionary of units that an oracle prices.

Solve over a few units, ask for those that price above β at the residual, add them, drop what
carries nothing, and stop when no unit of the whole dictionary prices above β.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape import dictionary
from landscape.dictionary import Lasso
from landscape.solvers.restricted import minimise
from landscape.solvers.sliding import slide

if TYPE_CHECKING:
    from landscape.bounds import AllPatterns, Bound
    from landscape.dictionary import Units
    from landscape.problem import Problem
    from landscape.programs import Floats, Program
    from landscape.solvers.reference import Optimum

VERSION = 3
NEAR = 0.8
"""Units that carry nothing stay while they price above this share of β."""
STALE = 3
"""So many rounds with no better value or bound and no unit that was not there before end it."""
MOVED = 1e-12
"""Values and bounds that differ by less, relatively, did not move."""


def generate(
    problem: Problem, source: AllPatterns, first: Units, tolerance: float, rounds: int
) -> tuple[Optimum, Program, Bound, tuple[dict[str, Any], ...]]:
    """Return the optimum over a dictionary, its program, the best bound, one entry a round.

    Args:
        problem: the training problem.
        source: prices the dictionary.
        first: units to begin with.
        tolerance: relative gap at which to stop.
        rounds: stop after this many in any case.
    """
    began, history, units = time.perf_counter(), [], first
    best: tuple[Optimum, Program] | None = None
    bound: Bound | None = None
    warm: tuple[Floats, Floats] | None = None
    known: set[bytes] = set()
    stale = 0
    for _ in range(rounds):
        known.update(_names(units))
        before = (best[0].value, bound.value) if best and bound else None
        program = problem.architecture.program(problem, units)
        optimum = minimise(program, tolerance / 10, throw=False, start=warm)
        if best is None or optimum.value <= best[0].value:
            best = optimum, program
        found, priced = source.priced(optimum.nu, program.beta * (1 + tolerance / 10))
        if bound is None or found.value > bound.value:
            bound = found
        history.append(
            {
                "value": optimum.value,
                "blocks": dictionary.count(units),
                "active": int((optimum.theta != 0).any(axis=1).sum()),
                "bound": found.value,
                "price_ratio": found.ratio,
                "attained": priced.attained,
                "climbs": priced.climbs,
                "seconds": time.perf_counter() - began,
            }
        )
        gap = best[0].value - bound.value
        new = dictionary.count(priced.units)
        moved = (
            before is None
            or best[0].value < before[0] - MOVED * abs(before[0])
            or bound.value > before[1] + MOVED * abs(before[1])
        )
        stale = 0 if moved or not known.issuperset(_names(priced.units)) else stale + 1
        if (
            gap <= tolerance / 4 * abs(best[0].value)
            or found.ratio <= 1 + tolerance / 10
            or not new
            or stale >= STALE
        ):
            break
        sizes = program.gauge.value(optimum.theta)
        # What carries nothing and prices low goes, but only after progress: it could cycle.
        fell = len(history) < 2 or optimum.value < history[-2]["value"] * (1 - MOVED)
        # Without its cone a block prices too high to tell.
        cones = program.cones is not None
        prices = 0.0 if cones else program.gauge.polar(program.atoms.adjoint(optimum.nu))
        used = (sizes > 1e-9 * sizes.max(initial=0.0)) | (prices > NEAR * program.beta)
        kept = np.flatnonzero(used) if fell else np.arange(len(sizes))
        parts = [dictionary.take(units, kept), priced.units]  # pyright: ignore[reportArgumentType]
        if problem.architecture.smooth_units and problem.loss.smooth:
            parts.append(slide(problem, program, optimum))
        units = dictionary.join(*parts)
        if isinstance(program, Lasso):  # its active set begins where the last one ended
            theta = np.zeros((dictionary.count(units), 1))
            theta[: len(kept)] = optimum.theta[kept]
            warm = theta, optimum.constant
    assert best is not None
    assert bound is not None
    if not np.isfinite(bound.ratio):  # the rounds ran out before a bound was asked for
        bound = max(bound, source.priced(best[0].nu)[0], key=lambda one: one.value)
    return replace(best[0], history=tuple(history)), best[1], bound, tuple(history)


def _names(units: Units) -> list[bytes]:
    """Return bytes that tell units from each other."""
    parts = [np.ascontiguousarray(value) for value in units.values()]
    return [b"".join(part[k].tobytes() for part in parts) for k in range(dictionary.count(units))]
