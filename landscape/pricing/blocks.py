r"""Prices: upper bounds of what a pattern's best neuron could still gain.

The price of block g at a dual point ν is :math:`\sup ⟨A_g^⊤ν, θ⟩` over γ(θ) ≤ 1, θ ∈ C_g.  ν is
feasible for the dual iff no price exceeds β.  By cone duality the price of a pattern is

.. math:: \min_{λ ≥ 0} \| A_g^⊤ν + G_g^⊤ λ \|, \qquad G_g \text{ the rows of the cone,}

and the right side bounds it from above for *any* λ ≥ 0.  Bounds here use that value plus an
allowance for rounding, never a primal argmax, so that they hold whatever the accuracy of the
non-negative least squares behind them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from landscape.dictionary import Lasso
from landscape.errors import BadInput
from landscape.nonnegative import least_squares
from landscape.pricing import groups
from landscape.pricing.balance import EPSILON, exponent_of, magnified

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.programs import Floats, Program

EQUALITY_WEIGHT = 1e5
"""How much more an equality weighs in a cone projection than what is minimised."""
NEARLY = 1e-13
"""Bounds this close to the largest (relative) are taken as they are: sharper ones gain nothing."""


def projection_weights(design: Floats, penalised: NDArray[np.bool_]) -> Floats:
    """Return the weights of the coordinates in the least squares of a cone projection.

    A price is finite only if nothing pulls along a free coordinate: an equality, met by a large
    weight.  It is measured by the size of the other coordinates, so that units do not matter.
    What the projection leaves of it is charged in full: the weight decides sharpness, not
    validity.

    Args:
        design: rows x_k, shape (n, p).
        penalised: which coordinates the norm counts, shape (p,).
    """
    size = float(np.linalg.norm(design[:, penalised], axis=1).max(initial=0.0))
    return np.where(penalised, 1.0, EQUALITY_WEIGHT * (size or 1.0))


def prices(program: Program, nu: Floats, settled: float = -np.inf) -> Floats:
    """Return an upper bound of every block's price.

    Args:
        program: the blocks.
        nu: dual point, shape (n,), orthogonal to the program's free directions.
        settled: blocks whose price without the cone is at most this keep that coarse bound.

    Returns:
        Bounds, shape (G,), valid in floating point.

    Raises:
        BadInput: if ν is not finite.
    """
    nu, exponent = _of_size_one(nu)
    xi = program.atoms.adjoint(nu)  # (G, p)
    bounds = coarse_prices(program, nu, xi)
    with np.errstate(over="ignore"):
        settled = float(np.ldexp(settled, -exponent))
    for block in np.flatnonzero(bounds > settled) if program.cones is not None else ():
        bounds[block] = np.fmin(bounds[block], _cone_price(program, nu, int(block), xi[block]))
    return np.array([magnified(bound, exponent) for bound in bounds])


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

    Raises:
        BadInput: if ν is not finite.
    """
    nu, exponent = _of_size_one(nu)
    xi = program.atoms.adjoint(nu)
    coarse = coarse_prices(program, nu, xi)
    if multipliers is not None and program.cones is not None:
        with np.errstate(over="ignore"):
            shares = np.maximum(np.ldexp(multipliers, -exponent), 0.0)
        coarse = np.fmin(coarse, _bounds_by(program, nu, xi, shares))
    best, where = 0.0, -1
    for block in np.argsort(-coarse):
        if coarse[block] <= best * (1.0 + NEARLY):
            best = max(best, float(coarse[block]))
            break
        bound = coarse[block]
        if program.cones is not None:
            bound = np.fmin(bound, _cone_price(program, nu, int(block), xi[block]))
        elif isinstance(program, Lasso):
            bound = np.fmin(bound, size_of_product(program.atoms.values[:, block], nu))
        if not bound <= best:
            best, where = float(bound), int(block)
    return magnified(best, exponent), where


def resolved_prices(program: Program, nu: Floats, masks: Floats, tied: NDArray[np.bool_]) -> Floats:
    r"""Bound, for every block, the prices of all patterns that differ from it on its ties only.

    With :math:`λ_k = |ν_k| (1 − D_k)` on a tied row resolved on and :math:`|ν_k| D_k` off, a
    pattern's price is at most :math:`\|s X^⊤Dν\|`, and a tie with s ν_k > 0 adds at most
    :math:`s ν_k \|x_k\|`.

    Args:
        program: the blocks, of plain ReLU neurons.
        nu: dual point, shape (n,).
        masks: the D of every block, in [0, 1] on its ties and 0 or 1 elsewhere, shape (G, n).
        tied: its ties, shape (G, n).

    Returns:
        Bounds, shape (G,), valid in floating point.
    """
    nu, exponent = _of_size_one(nu)
    sides = program.atoms.signs[:, None] * nu
    rest = (masks * sides) @ program.atoms.design
    wrong = np.where(tied, np.maximum(sides, 0.0), 0.0)
    weights = 2.0 * np.abs(nu) + wrong
    bounds = _charged(program, rest, weights)
    bounds = bounds + (1.0 + len(nu) * EPSILON) * (wrong @ sample_sizes(program))
    return np.array([magnified(bound, exponent) for bound in bounds])


def size_of_product(a: Floats, b: Floats) -> float:
    """Return |aᵀb| with one rounding charged, however much cancels.

    Every product is split into two numbers without error (Dekker), and these are summed exactly.
    """
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    with np.errstate(all="ignore"):
        products = a * b
        errors = ((a1 * b1 - products) + a1 * b2 + a2 * b1) + a2 * b2
    if not (np.isfinite(products).all() and np.isfinite(errors).all()):
        return np.inf
    total = math.fsum(np.concatenate([products, errors]))
    return abs(total) * (1.0 + 4.0 * EPSILON) + len(a) * 1e-300  # products may be subnormal


def _halves(a: Floats) -> tuple[Floats, Floats]:
    """Return numbers of half the digits each that add up to a."""
    with np.errstate(all="ignore"):
        large = a * (2.0**27 + 1.0)
        first = large - (large - a)
    return first, a - first


def _of_size_one(nu: Floats) -> tuple[Floats, int]:
    """Return ν over the power of two that brings it to size one, and its exponent."""
    if not np.isfinite(nu).all():
        raise BadInput("nu has NaN or infinite entries: a price needs finite numbers.")
    exponent = exponent_of(nu)
    return np.ldexp(nu, -exponent), exponent


def _bounds_by(program: Program, nu: Floats, xi: Floats, multipliers: Floats) -> Floats:
    """Return ‖ξ_g + G_gᵀλ_g‖ for given λ ≥ 0, rounding and free coordinates charged."""
    assert program.cones is not None
    if program.units is not None:
        return groups.bounds_by(program, nu, xi, multipliers)  # pyright: ignore[reportArgumentType]
    cones = program.cones
    weights = cones.sides[cones.index] * multipliers
    rows = np.abs(program.atoms.on_rows(nu))
    return _charged(program, xi + weights @ cones.design, rows + multipliers)


def coarse_prices(program: Program, nu: Floats, xi: Floats) -> Floats:
    """Return the prices that blocks would have without their cones, rounding included."""
    if program.units is not None:
        terms = program.gauge.polar(program.atoms.terms(nu))  # pyright: ignore[reportAttributeAccessIssue]
        return program.gauge.polar(xi) + 2.0 * (len(nu) + 16) * EPSILON * terms
    rows = np.abs(program.atoms.on_rows(nu))
    if nu.ndim == 2:  # every polar used is at most the Frobenius norm, a sum over outputs
        lengths = np.linalg.norm(program.atoms.design, axis=1)
        decomposed = 64 * EPSILON * np.linalg.norm(xi, axis=(1, 2)) * max(xi.shape[1:])
        return program.gauge.polar(xi) + decomposed + _allowance(lengths, rows.sum(axis=1))
    # Without its cone a free coordinate is unbounded; within it, see `free_coordinate_radius`.
    return _charged(program, xi, rows)


def free_coordinate_radius(program: Program) -> float:
    """Return a bound on |b| over the neurons (w, b) with ‖w‖ ≤ 1 that are worth considering.

    Of units: a bound of what they put out.  With a free output bias a neuron that is positive on
    all samples may be shifted until it vanishes on one, and one that is negative on all is zero.
    So some sample has xᵀw + b = 0.
    """
    if program.units is not None:
        return float(program.atoms.reach.max(initial=0.0))
    columns = program.atoms.design[:, program.gauge.penalised]
    return float(np.linalg.norm(columns, axis=1).max(initial=0.0))


def sample_sizes(program: Program) -> Floats:
    """Return how much of a sample any neuron worth considering can let through, shape (n,)."""
    if program.units is not None:
        return program.atoms.reach
    design, penalised = program.atoms.design, program.gauge.penalised
    free = np.abs(design[:, ~penalised]).sum(axis=1) * free_coordinate_radius(program)
    return program.atoms.pooled(np.linalg.norm(design[:, penalised], axis=1) + free)


def _cone_price(program: Program, nu: Floats, block: int, xi: Floats) -> float:
    """Return min over λ ≥ 0 of ‖ξ + Gᵀλ‖ (plus what is left along free coordinates)."""
    assert program.cones is not None
    if program.units is not None:
        return groups.cone_price(program, nu, block, xi)  # pyright: ignore[reportArgumentType]
    rows = program.cones.rows(block)
    weight = projection_weights(program.atoms.design, program.gauge.penalised)
    multipliers, _ = least_squares((rows * weight).T, -xi * weight)
    weights = np.abs(program.atoms.on_rows(nu)) + multipliers
    return float(_charged(program, xi + rows.T @ multipliers, weights))


def _charged(program: Program, rest: Floats, weights: Floats) -> Floats:
    """Return bounds of prices from what their projections leave, rounding charged.

    Args:
        program: the blocks.
        rest: A_gᵀν + G_gᵀλ, computed, shape (…, p).
        weights: |ν| + λ, shape (…, n).
    """
    design, penalised = program.atoms.design, program.gauge.penalised
    lengths = np.linalg.norm(design[:, penalised], axis=1)
    bounds = np.linalg.norm(rest[..., penalised], axis=-1) + _allowance(lengths, weights)
    if penalised.all():
        return bounds
    sizes = np.abs(design[:, ~penalised]).sum(axis=1)
    along = np.abs(rest[..., ~penalised]).sum(axis=-1) + _allowance(sizes, weights)
    return bounds + along * free_coordinate_radius(program)


def _allowance(lengths: Floats, weights: Floats) -> Floats:
    """Bound the rounding of Σ_k weight_k x_k, a sum of n products, in every norm used here."""
    return 2.0 * (len(lengths) + 16) * EPSILON * (weights @ lengths)
