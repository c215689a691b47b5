"""Dual points from primal ones: −∇ℓ where the free part is best, chosen among subgradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import lsq_linear

from landscape.free_directions import refit_free

if TYPE_CHECKING:
    from landscape.architectures.base import ConvexPoint
    from landscape.programs import Floats


def residual(point: ConvexPoint) -> Floats:
    """Return −∇ℓ at a convex point after its free part has been re-optimised, shape (n,)."""
    program = point.program
    constant = refit_free(program, program.atoms.apply(point.theta), point.constant)
    fit = program.fit(point.theta, constant)
    if program.loss.smooth:
        return -program.loss.gradient(fit, program.y)
    return _best_subgradient(point, fit)


def _best_subgradient(point: ConvexPoint, fit: Floats) -> Floats:
    """Return −(a subgradient) of a loss with kinks, chosen there to make the point stationary.

    On the samples at a kink the subgradient is free within an interval.  The choice is the
    bounded least squares fit of the stationarity of the active blocks,
    A_gᵀν + Σ λ_k row_k = β θ_g/‖θ_g‖ with λ ≥ 0 on the rows on which the block lies, and of
    A_0ᵀν = 0.  A plug-in choice can leave most of the gap open at the exact optimum.  Where few
    blocks are active this does not settle ν either: then pass a solver's dual to `certify`.
    """
    program, y = point.program, point.program.y
    step = 1e-6 * (1.0 + np.abs(fit))
    below, above = (-program.loss.gradient(fit + side * step, y) for side in (-1, 1))
    low, high = np.minimum(below, above), np.maximum(below, above)
    kinks = np.flatnonzero(high > low)
    if y.ndim == 2:  # with several outputs the middle is taken: a valid bound, not a sharp one
        return (low + high) / 2
    nu = np.where(high > low, 0.0, low)
    sizes = program.gauge.value(point.theta)
    blocks = np.flatnonzero(sizes > 1e-7 * sizes.max(initial=0.0))  # directions of dust say nothing
    if not len(kinks) or not len(blocks):
        return np.where(high > low, (low + high) / 2, low)
    equations, targets, on_face = [program.free.T], [np.zeros(program.free.shape[1])], []
    for position, block in enumerate(blocks):
        theta = np.where(program.gauge.penalised, point.theta[block], 0.0)
        equations.append(program.atoms.matrix(int(block)).T)
        targets.append(program.beta * theta / np.linalg.norm(theta))
        if program.cones is not None:
            rows = program.cones.rows(int(block))
            slack = rows @ point.theta[block]
            size = np.linalg.norm(rows, axis=1) * np.linalg.norm(point.theta[block])
            on_face += [(position, row) for row in rows[slack <= 1e-6 * size]]
    A, p = np.vstack(equations), program.atoms.dimension
    faces = np.zeros((len(A), len(on_face)))
    for column, (position, row) in enumerate(on_face):
        begin = program.free.shape[1] + position * p
        faces[begin : begin + p, column] = row
    bounds = (
        np.concatenate([low[kinks], np.zeros(len(on_face))]),
        np.concatenate([high[kinks], np.full(len(on_face), np.inf)]),
    )
    wanted = np.concatenate(targets) - A @ nu
    found = lsq_linear(np.hstack([A[:, kinks], faces]), wanted, bounds, method="bvls", tol=1e-14)
    nu[kinks] = found.x[: len(kinks)]
    return nu
