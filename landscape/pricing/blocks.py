r"""Prices: upper bounds of what a pattern's best neuron could still gain.

The price of block g at a dual point ν is :math:`\sup ⟨A_g^⊤ν, θ⟩` over γ(θ) ≤ 1, θ ∈ C_g.  ν is
feasible for the dual iff no price exceeds β.  By cone duality the price of a pattern is

.. math:: \min_{λ ≥ 0} \| A_g^⊤ν + G_g^⊤ λ \|, \qquad G_g \text{ the rows of the cone,}

and the right side bounds it from above for *any* λ ≥ 0.  Bounds here use that value plus an
allowance for rounding, never a primal argmax, so that they hold whatever the accuracy of the
non-negative least squares behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

if TYPE_CHECKING:
    from landscape.programs import Floats, Program

# Weight of the equality "no component along a free coordinate" in the least squares; what remains
# of that component is charged in full, so the weight decides sharpness, not validity.
EQUALITY_WEIGHT = 1e5
EPSILON = float(np.finfo(np.float64).eps)
NEARLY = 1e-13
"""Bounds this close to the largest (relative) are taken as they are: sharper ones gain nothing."""


def prices(program: Program, nu: Floats, settled: float = -np.inf) -> Floats:
    """Return an upper bound of every block's price.

    Args:
        program: the blocks.
        nu: dual point, shape (n,), orthogonal to the program's free directions.
        settled: blocks whose price without the cone is at most this keep that coarse bound.

    Returns:
        Bounds, shape (G,), valid in floating point.
    """
    xi = program.atoms.adjoint(nu)  # (G, p)
    bounds = coarse_prices(program, nu, xi)
    for block in np.flatnonzero(bounds > settled) if program.cones is not None else ():
        bounds[block] = min(bounds[block], _cone_price(program, nu, int(block), xi[block]))
    return bounds


def largest_price(
    program: Program, nu: Floats, multipliers: Floats | None = None
) -> tuple[float, int]:
    """Return the largest price over the blocks, bounded from above, and the block that has it.

    Blocks are visited in the order of their coarse bounds, so that the exact price of a block is
    computed only while it could still be the largest.

    Args:
        program: the blocks.
        nu: dual point, shape (n,).
        multipliers: λ ≥ 0 of the cones' rows, shape (G, n), such as a solver's; good ones make
            the coarse bounds sharp and spare most projections.
    """
    xi = program.atoms.adjoint(nu)
    coarse = coarse_prices(program, nu, xi)
    if multipliers is not None and program.cones is not None:
        coarse = np.minimum(coarse, _bounds_by(program, nu, xi, np.maximum(multipliers, 0.0)))
    best, where = 0.0, -1
    for block in np.argsort(-coarse):
        if coarse[block] <= best * (1.0 + NEARLY):
            best = max(best, float(coarse[block]))
            break
        bound = coarse[block]
        if program.cones is not None:
            bound = min(bound, _cone_price(program, nu, int(block), xi[block]))
        if bound > best:
            best, where = float(bound), int(block)
    return best, where


def _bounds_by(program: Program, nu: Floats, xi: Floats, multipliers: Floats) -> Floats:
    """Return ‖ξ_g + G_gᵀλ_g‖ for given λ ≥ 0, rounding and free coordinates charged."""
    assert program.cones is not None
    cones, penalised = program.cones, program.gauge.penalised
    weights = np.where(cones.masks[cones.index], multipliers, -multipliers)
    rest = xi + weights @ cones.design
    lengths = np.linalg.norm(cones.design, axis=1)
    total = (np.abs(nu) + multipliers) @ lengths
    rounding = 2.0 * (len(lengths) + 16) * EPSILON * total
    bounds = np.linalg.norm(rest[:, penalised], axis=1) + rounding
    if penalised.all():
        return bounds
    along = np.abs(rest[:, ~penalised]).sum(axis=1) + rounding
    return bounds + along * free_coordinate_radius(program)


def coarse_prices(program: Program, nu: Floats, xi: Floats) -> Floats:
    """Return the prices that blocks would have without their cones, rounding included."""
    lengths = np.linalg.norm(program.atoms.design, axis=1)
    if nu.ndim == 2:  # every polar used is at most the Frobenius norm, a sum over outputs
        rounding = _allowance(lengths, np.abs(nu).sum(axis=1))
        decomposed = 64 * EPSILON * np.linalg.norm(xi, axis=(1, 2))
        return program.gauge.polar(xi) + decomposed * max(xi.shape[1:]) + rounding
    rounding = _allowance(lengths, np.abs(nu))
    penalised = program.gauge.penalised
    bounds = np.linalg.norm(xi[:, penalised], axis=1) + rounding
    if penalised.all():
        return bounds
    # Without its cone a free coordinate is unbounded; within it, see `free_coordinate_radius`.
    along = np.abs(xi[:, ~penalised]).sum(axis=1) + rounding
    return bounds + along * free_coordinate_radius(program)


def free_coordinate_radius(program: Program) -> float:
    """Return a bound on |b| over the neurons (w, b) with ‖w‖ ≤ 1 that are worth considering.

    With a free output bias a neuron that is positive on all samples may be shifted until it
    vanishes on one, and one that is negative on all is zero.  So some sample has xᵀw + b = 0.
    """
    columns = program.atoms.design[:, program.gauge.penalised]
    return float(np.linalg.norm(columns, axis=1).max(initial=0.0))


def _cone_price(program: Program, nu: Floats, block: int, xi: Floats) -> float:
    """Return min over λ ≥ 0 of ‖ξ + Gᵀλ‖ (plus what is left along free coordinates)."""
    assert program.cones is not None
    penalised = program.gauge.penalised
    rows = program.cones.rows(block)
    weight = np.where(penalised, 1.0, EQUALITY_WEIGHT)
    try:
        multipliers, _ = nnls((rows * weight).T, -xi * weight)
    except RuntimeError:  # its iteration limit: λ = 0 is still a valid bound
        multipliers = np.zeros(len(rows))
    rest = xi + rows.T @ multipliers
    lengths = np.linalg.norm(rows, axis=1)
    rounding = _allowance(lengths, np.abs(nu) + multipliers)
    bound = float(np.linalg.norm(rest[penalised])) + rounding
    if penalised.all():
        return bound
    along = float(np.abs(rest[~penalised]).sum()) + rounding
    return bound + along * free_coordinate_radius(program)


def _allowance(lengths: Floats, weights: Floats) -> float:
    """Bound the rounding of Σ_k weight_k x_k, a sum of n products, in every norm used here."""
    return 2.0 * (len(lengths) + 16) * EPSILON * float(lengths @ weights)
