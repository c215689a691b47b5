"""Ways down from networks that are not global optima."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from landscape.clarke import bends, settled_masks, ties
from landscape.network import Network
from landscape.stationarity.points import point_fit, with_block

if TYPE_CHECKING:
    from landscape.architectures.base import ConvexPoint
    from landscape.problem import Problem
    from landscape.programs import Floats
    from landscape.stationarity.prices import Prices

HALVINGS = 60
"""Of a step that is looked for along a way down."""


@dataclass(frozen=True)
class Escape:
    """A way down from a network that is not a global optimum.

    Attributes:
        kind: "new neuron" (it prices above β) or "kink" (a neuron leaves a tie).
        rate: slope of the objective along the unit direction, negative: β − price for a new
            neuron u of unit norm in the coordinates |a|w; per unit length of |a|w for a kink.
        network: a network further down along it.
        objective: its objective.
    """

    kind: str
    rate: float
    network: Network = field(repr=False)
    objective: float


def new_neuron(prices: Prices, point: ConvexPoint, nu: Floats) -> Escape | None:
    """Return the network with the neuron of the largest price, at its best size."""
    problem, best = prices.problem, prices.best_neuron(point, nu)
    if best is None:
        return None
    beta, (price, direction, side) = problem.beta, best
    column, fit = side * np.maximum(problem.design @ direction, 0.0), point_fit(point)
    loss, y = problem.loss, problem.y

    def along(size: float) -> float:
        return float(loss.value(fit + size * column, y)) + beta * size

    # A step that no loss of curvature at most 1 overshoots; where it has kinks, shorter ones.
    longest = (price - beta) / max(float(column @ column), 1e-300)
    for _ in range(HALVINGS):
        if along(longest) < along(0.0):
            break
        longest *= 0.5
    for _ in range(HALVINGS):
        if not along(2.0 * longest) < along(longest):
            break
        longest *= 2.0
    size = float(
        minimize_scalar(
            along, bounds=(0.0, 2.0 * longest), method="bounded",
            options={"xatol": 1e-9 * longest},
        ).x
    )  # fmt: skip
    size = min((size, longest), key=along)
    return _escaped(problem, "new neuron", beta - price, with_block(point, size * direction, side))


def off_a_kink(problem: Problem, point: ConvexPoint, nu: Floats, tolerance: float) -> Escape | None:
    """Return the network whose worst neuron has left a tie with s ν_k > 0.

    Along d with x_kᵀd = ±1 and x_lᵀd = 0 at its other ties the objective falls at the rate
    s ν_k (1 − D_k), or s ν_k D_k to the other side, D the shares of the Clarke residual.  Where
    ties are dependent there is no such d, and the nearest one is tried.
    """
    program, design = point.program, problem.design
    signs, theta, penalised = program.atoms.signs, point.theta, program.gauge.penalised
    tied = ties(design, theta)
    kinks, wrong = bends(design, signs, nu, tied)
    if not wrong.size or not wrong.max() > 0:
        return None
    j, k = np.unravel_index(int(wrong.argmax()), wrong.shape)
    masks = settled_masks(design, penalised, theta, signs, nu, program.beta, tied)
    rows = np.flatnonzero(kinks[j])
    side = 1.0 if masks[j, k] <= 0.5 else -1.0
    step = side * np.linalg.lstsq(design[rows], (rows == k).astype(float))[0]
    step /= np.linalg.norm(step)
    unit = np.where(penalised, theta[j], 0.0)
    moving = design @ step
    slopes = np.where(tied[j], np.maximum(moving, 0.0), (design @ theta[j] > 0) * moving)
    rate = program.beta * float(unit @ step) / float(np.linalg.norm(unit))
    rate -= float(signs[j] * nu @ slopes)
    if not rate < -tolerance * program.beta:
        return None
    loss, y, before = problem.loss, problem.y, point.value
    length = float(np.linalg.norm(theta[j]))
    rest = point_fit(point) - signs[j] * np.maximum(design @ theta[j], 0.0)
    others = program.beta * float(np.delete(program.gauge.value(theta), j).sum())
    for _ in range(HALVINGS):
        moved = theta[j] + length * step
        fit = rest + signs[j] * np.maximum(design @ moved, 0.0)
        value = float(loss.value(fit, y)) + others
        if value + program.beta * float(np.linalg.norm(moved[penalised])) < before:
            kept = np.arange(len(theta)) != j
            without = replace(point, program=program.take(np.flatnonzero(kept)), theta=theta[kept])
            return _escaped(problem, "kink", rate, with_block(without, moved, float(signs[j])))
        length *= 0.5
    return None


def _escaped(problem: Problem, kind: str, rate: float, point: ConvexPoint) -> Escape:
    """Return the network of a point and its objective."""
    parameters = problem.architecture.lower(point)
    with torch.no_grad():
        objective = float(problem.objective(parameters))
    network = Network(problem.architecture, parameters)
    return Escape(kind, float(rate), network, objective)
