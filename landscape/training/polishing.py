r"""Polishing: from where training stopped to a directionally stationary point.

Gradient methods end near kinks, never on them, and L-BFGS stalls at kinks that are not
stationary.  In the coordinates :math:`u_j = |a_j| w_j` of a balanced network the objective

.. math:: ℓ\Big(\sum_j s_j (X u_j)_+ + ξ\Big) + β \sum_j \|u_j\|

is smooth as long as no :math:`x_k^⊤u_j` changes its sign.  So: Newton steps on the manifold of the
current ties, a line search on the true objective that may stop on a kink (a new tie), and, once the
manifold's minimum is reached, the release of a tie whose multiplier has the wrong sign.  The
objective never rises beyond rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape.architectures import TwoLayer
from landscape.clarke import ties
from landscape.errors import BadInput, above_zero, whole
from landscape.network import read
from landscape.training.descending import descend
from landscape.training.manifold import Descent, State
from landscape.training.runs import Runs, padded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Parameters
    from landscape.problem import Problem

    Floats = NDArray[np.float64]

VERSION = 8
REACHED = 1e-7
"""Residual relative to β up to which a run counts as stationary in the status."""


def polish(
    problem: Problem, runs: Runs | Parameters, tolerance: float = 1e-9, iterations: int = 500
) -> Runs:
    """Move every run to a directionally stationary point, its objective never rising.

    Neurons of one signed pattern are merged first, which cannot raise the objective; neurons that
    cost more than they give are dropped on the way.  A run that diverged stays as it is.  Networks
    that are no plain two-layer ReLU networks go as far as L-BFGS leads (`descending`), which may
    be a kink short of a stationary point: ``residuals`` and the status say so.

    Args:
        problem: the training problem, with a smooth loss.
        runs: trained networks, or parameters with a leading axis over networks.
        tolerance: stop when the reduced gradient is below tolerance × β.
        iterations: most Newton steps a run.

    Returns:
        Runs with the same seeds and widths; ``objectives`` and the end of ``trace`` are new, and
        ``residuals`` and ``directional`` say how close each run came.

    Raises:
        BadInput: for a loss that has no second derivative, or runs of another architecture.
    """
    if not problem.loss.smooth:
        raise BadInput(f"polish needs a smooth loss: the problem has the {problem.loss.name} loss.")
    tolerance, iterations = above_zero("tolerance", tolerance), whole("iterations", iterations, 0)
    if not isinstance(runs, Runs):
        runs = _untrained(problem, runs)
    elif runs.architecture != problem.architecture:
        raise BadInput(
            f"runs are {runs.architecture.label} networks: the problem has "
            f"{problem.architecture.label}."
        )
    polished, residuals, directional = [], [], []
    newton, parameters = problem.architecture.plain_neurons, runs.parameters
    if not newton:
        parameters = descend(problem, parameters, np.isfinite(runs.objectives), iterations)
    for run in range(len(runs)):
        values = {k: v[run].detach().cpu().double() for k, v in parameters.items()}
        if np.isfinite(runs.objectives[run]):
            values = _polished(problem, values, tolerance, iterations) if newton else values
            residual, wrong = _judged(problem, values)
        else:
            residual, wrong = np.nan, np.nan
        polished.append(values)
        residuals.append(residual)
        directional.append(wrong <= 1e3 * tolerance)
    parameters = padded([{k: v[None] for k, v in one.items()} for one in polished])
    with torch.no_grad():
        objectives = problem.objective(parameters).numpy()
    return replace(
        runs,
        parameters=parameters,
        objectives=objectives,
        trace=np.hstack([runs.trace[:, :-1], objectives[:, None]]),
        status=f"{runs.status} {_status(np.array(residuals), np.array(directional))}",
        residuals=np.array(residuals),
        directional=np.array(directional),
    )


def _status(residuals: Floats, directional: NDArray[np.bool_]) -> str:
    """Return a sentence that names what did not converge."""
    finite = np.isfinite(residuals)
    left = finite & ~((residuals <= REACHED) & directional)
    if not left.any():
        return f"Polished: {int(finite.sum())} of {len(finite)} runs are stationary."
    return (
        f"Polished: {int(left.sum())} of {len(finite)} runs did not become stationary "
        f"(largest residual {float(residuals[left].max()):.1e} β)."
    )


def _untrained(problem: Problem, parameters: Parameters) -> Runs:
    """Wrap parameters with a leading axis as runs that took no step."""
    if not isinstance(parameters, dict) or not parameters:
        raise BadInput(
            f"runs are a {type(parameters).__name__}: polish takes Runs, or parameters by name "
            "with a leading axis over networks."
        )
    if parameters.get("output", torch.zeros(())).ndim != 2:
        raise BadInput("parameters have no leading axis over networks, or more: polish takes one.")
    for run in range(len(parameters["output"])):
        read(problem, {k: v[run] for k, v in parameters.items()})
    with torch.no_grad():
        objectives = problem.objective(parameters).cpu().numpy().astype(np.float64)
    if not len(objectives):
        raise BadInput("parameters hold no networks: their leading axis is empty.")
    count, width = parameters["output"].shape
    return Runs(
        architecture=problem.architecture,
        parameters=parameters,
        objectives=objectives,
        trace=objectives[:, None],
        trace_steps=np.zeros(1, dtype=np.int64),
        trace_seconds=np.zeros(1),
        widths=np.full(count, width),
        seeds=np.arange(count),
        optimizer="none",
        minimises="the regularised objective",
        status="Not trained.",
    )


def _judged(problem: Problem, parameters: Parameters) -> tuple[float, float]:
    """Return the largest Clarke residual relative to β and the worst wrong-signed tie."""
    with torch.no_grad():
        fit = problem.architecture.forward(parameters, torch.as_tensor(problem.X)).numpy()
    nu = -problem.loss.gradient(fit, problem.y)
    clarke, wrong, _ = problem.architecture.stationarity(problem, parameters, nu)
    return float(clarke.max(initial=0.0)), float(wrong.max(initial=0.0))


def _polished(
    problem: Problem, parameters: Parameters, tolerance: float, iterations: int
) -> Parameters:
    """Return one network, polished; the better of it and what came in."""
    before = float(problem.objective(parameters))
    point = problem.architecture.lift(problem, parameters)
    free = isinstance(problem.architecture, TwoLayer) and problem.architecture.bias == "free"
    work = Descent(problem, point.program.gauge.penalised, free)
    tied = work.on_lines(ties(problem.design, point.theta))
    state = State(
        point.theta,
        point.program.atoms.signs,
        float(point.constant[0]) if free else 0.0,
        tied,
        (point.theta @ problem.design.T > 0) & ~tied,
    )
    state, value = work.thinned(state, work.value(state))
    held: State | None = None  # before the last release, while that has gained nothing
    one = False
    for _ in range(iterations):
        step, slope = work.newton(state)
        moved = work.search(state, value, step, slope)
        gain = 0.0 if moved is None else value - moved[1]
        same = moved is None or len(moved[0].u) == len(state.u)  # no neuron was dropped
        if moved is not None:
            state, value = moved
            held, one = None, False
        # The decrement says little of a tiny neuron, the gradient little of flat directions.
        small = tolerance * problem.beta
        settled = same and slope > -(small**2) and work.steepest <= 10 * small
        if work.redamped(gain, slope, settled, value):
            continue
        if moved is None and not settled:
            sharper = work.sharpened(state, value, slope)
            if sharper is not None:
                state, value = sharper
                continue
        if moved is None or settled:
            if moved is None and held is not None:
                # Ties released together may get in each other's way: then one at a time.
                if one:
                    break
                state, one = held, True
            held = state
            released = work.release(state, tolerance, one)
            if released is None:
                break
            state = released
    # Blocks change their patterns on the way, so the way back starts from neurons, not blocks.
    sizes = np.linalg.norm(state.u[:, work.penalised], axis=1)
    alive = sizes > 0
    scale = np.sqrt(sizes[alive])
    after: Parameters = {
        "hidden": torch.as_tensor(state.u[alive] / scale[:, None]),
        "output": torch.as_tensor(state.signs[alive] * scale),
    }
    if free:
        after["constant"] = torch.tensor(state.constant, dtype=torch.float64)
    # What the last steps gain may drown in the rounding of the objective, but not in the residual.
    rounding = 64 * np.finfo(float).eps * abs(before)
    return after if float(problem.objective(after)) <= before + rounding else parameters
