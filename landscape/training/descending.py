"""Polishing networks of any architecture: through the convex program and back, then L-BFGS.

Two-layer ReLU networks have Newton steps on their activation manifold (`polishing`).  Here a
network is lifted and lowered, which balances it, joins what is one unit and never raises the
objective; then all runs take steps of L-BFGS together.  The two alternate while that gains.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape.training.gradients import Flat
from landscape.training.optimizers import lbfgs
from landscape.training.runs import padded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Parameters
    from landscape.problem import Problem

ROUNDS = 3
SMALL = (0.0, 1e-4, 1e-2)
"""Sizes relative to the largest below which blocks are left out, where that is no loss."""
STEPS = 100
"""Of L-BFGS in a round, at most."""
GAIN = 1e-7
"""Relative gain of a round below which no further one is tried."""


def descend(
    problem: Problem, parameters: Parameters, finite: NDArray[np.bool_], iterations: int
) -> Parameters:
    """Return parameters with a leading axis over runs, no finite run's objective higher.

    Args:
        problem: the training problem.
        parameters: of the runs.
        finite: which runs take part, shape (S,).
        iterations: most L-BFGS steps a round.
    """
    runs = np.flatnonzero(finite)
    if not len(runs):
        return parameters
    best = padded([_one(parameters, int(run)) for run in runs])
    value = _values(problem, best)
    for _ in range(ROUNDS):
        before = value.clone()
        for move in (_through_program, _quasi_newton):
            trial = move(problem, best, iterations)
            reached = _values(problem, trial)
            better = torch.isfinite(reached) & (reached <= value)
            groups = [_one(trial if b else best, i) for i, b in enumerate(better.tolist())]
            best, value = padded(groups), torch.where(better, reached, value)
        if bool((before - value <= GAIN * before.abs()).all()):
            break
    rows = {int(run): i for i, run in enumerate(runs)}
    return padded(
        [
            _one(best, rows[run]) if run in rows else _one(parameters, run)
            for run in range(len(finite))
        ]
    )


def _one(parameters: Parameters, run: int) -> Parameters:
    """Return one run with its leading axis."""
    return {k: v[run : run + 1].detach().cpu().double() for k, v in parameters.items()}


def _values(problem: Problem, parameters: Parameters) -> torch.Tensor:
    with torch.no_grad():
        return problem.objective(parameters)


def _through_program(problem: Problem, parameters: Parameters, iterations: int) -> Parameters:
    """Lift and lower every run, without blocks so small that they are on their way out."""
    architecture, found = problem.architecture, []
    for run in range(len(next(iter(parameters.values())))):
        one = architecture.without_padding({k: v[run] for k, v in parameters.items()})
        point = architecture.lift(problem, one)
        sizes = point.program.gauge.value(point.theta)
        kept = [np.flatnonzero(sizes >= least * sizes.max(initial=0.0)) for least in SMALL]
        choices = [
            replace(point, program=point.program.take(k), theta=point.theta[k]) for k in kept
        ]
        lowered = [architecture.lower(choice) for choice in choices]
        best = min(lowered, key=lambda network: float(problem.objective(network)))
        found.append({k: v.detach()[None] for k, v in best.items()})
    return padded(found)


def _quasi_newton(problem: Problem, parameters: Parameters, iterations: int) -> Parameters:
    flat = Flat(problem, parameters)
    return flat.parameters(lbfgs(flat, flat.start, min(STEPS, iterations), lambda *_: None))
