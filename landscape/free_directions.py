r"""Free directions A_0 and dual points: what sees none of them, and what it costs to see a little.

A dual point is feasible only where :math:`A_0^⊤ν = 0` exactly.  Points near one are projected, sums
to zero made exact, and what rounding leaves is charged to the bound.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from landscape.pricing import EPSILON, free_coordinate_radius, sample_sizes

if TYPE_CHECKING:
    from landscape.programs import Floats, Program

INSIDE = (1e-12, 1e-14)
"""Entries of a dual point of classes this far from the ends of the domain may be moved."""
NEAR_END = 1e-8
"""Entries of a hinge's dual point this near an end of the domain are tried at it."""


def dual_point(program: Program, nu: Floats) -> Floats:
    """Return the point of the dual's domain near ν that does not see free directions.

    A point that is not finite proves nothing, and 0 is always feasible.
    """
    nu = np.asarray(nu, dtype=np.float64)
    if not np.isfinite(nu).all():
        nu = np.zeros_like(nu)
    nu = program.loss.into_domain(nu, program.y)
    if unseen(program, nu):
        return nu
    nu = program.loss.into_domain(nu - onto_free(program, nu), program.y)
    if only_constant(program):
        return program.loss.into_domain(_summing_to_zero(nu), program.y)
    kinked = program.loss.classes and not program.loss.smooth
    return _ends_first(program, nu) if kinked and nu.ndim == 1 else nu


def _ends_first(program: Program, nu: Floats) -> Floats:
    """Return ν with entries near an end of the domain put there, the others moved to make up.

    A projection leaves such entries beside their end, where they can neither stay nor be moved.
    """
    A = program.directions[0]
    inside = np.minimum(np.abs(nu), 1.0 - np.abs(nu)) > NEAR_END
    if not inside.any():
        return nu
    moved = np.where(inside, nu, np.round(nu))
    moved[inside] -= np.linalg.lstsq(A[inside].T, A.T @ moved)[0]
    held = np.array_equal(program.loss.into_domain(moved, program.y), moved)
    return moved if held and np.linalg.norm(A.T @ moved) <= np.linalg.norm(A.T @ nu) else nu


def _summing_to_zero(nu: Floats) -> Floats:
    """Return entries near ν whose sum is zero exactly: whole multiples of one power of two.

    A sum lost in rounding would be charged by as much as an output can be: where β is small by
    more than the bound itself.
    """
    largest = float(np.abs(nu).max(initial=0.0))
    quantum = int(np.frexp(largest)[1]) - 52
    counts = np.trunc(np.ldexp(nu, -quantum))  # towards zero, so as to stay in the domain
    # What is left of the sum goes to an entry that is neither small nor at the domain's end.
    at = int(np.abs(np.abs(nu) - 0.5 * largest).argmin())
    counts[at] -= sum(map(int, counts))
    return np.ldexp(counts, quantum)


def unseen(program: Program, nu: Floats) -> bool:
    """Return whether ν is orthogonal to the free directions exactly, as far as one can tell."""
    return not program.free.shape[1] or (only_constant(program) and math.fsum(nu) == 0.0)


def only_constant(program: Program) -> bool:
    """Return whether the only free direction is a constant added to one output."""
    return program.free.shape[1] == 1 and program.y.ndim == 1 and bool((program.free == 1.0).all())


def onto_free(program: Program, nu: Floats) -> Floats:
    """Return the projection of ν on the range of A_0."""
    if not program.free.shape[1]:
        return np.zeros_like(nu)
    Q = program.directions[0]
    return Q @ np.linalg.lstsq(Q, nu)[0]


def refit_free(program: Program, fit: Floats, constant: Floats) -> Floats:
    """Return the free part that minimises ℓ(fit + A_0 θ_0), by damped Newton steps.

    Any outcome is valid for a certificate; a minimiser makes the bound sharp.
    """
    A, y, loss = program.free, program.y, program.loss
    if A.shape[1] == 0 or not loss.smooth:
        return constant
    if y.ndim == 2:
        one = [replace(program, y=column) for column in y.T]
        found = [refit_free(p, f, c) for p, f, c in zip(one, fit.T, constant.T, strict=True)]
        return np.stack(found, axis=1)
    value, above = float(loss.value(fit + A @ constant, y)), False
    for _ in range(50):
        current = fit + A @ constant
        slope = A.T @ loss.gradient(current, y)
        # Where there is no curvature (every loss a line) a parabola from above takes its place.
        weights = (loss.majorant if above else loss.curvature)(current, y)
        hessian = A.T @ (weights[:, None] * A)
        step = -np.linalg.lstsq(hessian + 1e-14 * np.trace(hessian) * np.eye(len(slope)), slope)[0]
        length = 1.0
        while length > 1e-12:
            trial = float(loss.value(current + A @ (length * step), y))
            if trial < value:
                constant, value = constant + length * step, trial
                break
            length /= 2
        else:
            if above or np.array_equal(weights, loss.majorant(current, y)):
                return constant
        above = not above and length < 1.0
    return constant


def largest_move(program: Program) -> float:
    """Bound ‖A_0 θ_0‖ at an optimum, from the objective p of the best free-only network.

    Loss and penalty are at most p there, so atoms that vanish on one sample each add at most
    2 r p/β to an output, r the largest norm of a sample, and the constant covers the rest.
    """
    constant = refit_free(program, np.zeros(program.y.shape), program.zero()[1])
    p = float(program.loss.value(program.free @ constant, program.y))
    atoms = 2.0 * free_coordinate_radius(program) * p / program.beta
    return program.y.size**0.5 * (program.loss.constant_radius(p, program.y) + atoms)


def charge_moved(program: Program, nu: Floats, value: float, rest: float) -> float:
    """Bound what a dual value of real targets loses where ν is moved off the free directions.

    The move is by at most ``rest``.  It raises prices, and an entry above the end of the domain;
    then the whole is scaled back, which costs a share of the value (that of ν = 0 is 0).  Between
    them the value is a quadratic function, −½‖ν‖² + yᵀν.
    """
    sizes = float(np.linalg.norm(sample_sizes(program)))
    radius = program.loss.reach(nu) * float(np.abs(nu).max(initial=0.0))
    share = rest * max(sizes / program.beta, 1.0 / radius if 0 < radius < np.inf else 0.0)
    slope = float(np.linalg.norm(program.y)) + float(np.linalg.norm(nu)) + rest
    return (1.0 + 1e-9) * (rest * slope + share * abs(value))


def charge_inside(program: Program, nu: Floats, value: float) -> float:
    """Bound what a dual value loses where ν is moved until it sees no free direction at all.

    With classes and several free directions an infimum may lie at infinity, so that what ν still
    sees has no price.  But entries near an end of the domain can be put there, and the others
    moved by δ with A_0ᵀ(ν + δ) = 0, ‖δ‖ ≤ ‖A_0ᵀν‖/σ.  Infinite where that is not possible.
    """
    return min(_charge_from(program, nu, value, margin) for margin in INSIDE)


def _charge_from(program: Program, nu: Floats, value: float, margin: float) -> float:
    """Return the charge where entries further than a margin from the ends are moved."""
    A, far, lost = program.directions[0], 0.0, 0.0
    whole = bool(np.isin(A, (0.0, 1.0)).all())
    # Slopes of the dual are at most this much off its ends.
    steep = float(np.log(2.0 / margin)) + 1.0
    rank = int(np.linalg.matrix_rank(A))
    for output in nu.reshape(len(nu), -1).T:
        inside = np.minimum(np.abs(output), 1.0 - np.abs(output)) > margin
        ends = np.where(inside, 0.0, np.round(output))
        fixed = A.T @ ends  # whole numbers where A_0 is made of 0 and 1
        sizes = np.linalg.svd(A[inside], compute_uv=False)
        sizes = sizes[sizes > 1e-10 * sizes.max(initial=0.0)]
        if len(sizes) < rank and (fixed.any() or not whole):
            return np.inf
        moved = np.where(inside, output, ends)
        sums = [math.fsum(column * moved) for column in A.T]  # exact up to one rounding each
        seen = float(np.linalg.norm(sums)) * (1.0 + 4.0 * EPSILON * len(A.T))
        if not whole:  # and one of every product
            seen += EPSILON * float(np.linalg.norm(np.abs(A).T @ np.abs(moved)))
        delta = seen / float(sizes.min()) if len(sizes) else 0.0
        if delta > 0.5 * margin:
            return np.inf
        put = np.abs(output - moved)
        put = put[put > 0]  # what lies this close to an end adds at most an entropy of its size
        lost += len(nu) ** 0.5 * delta * steep + float((put * (1.0 - np.log(put))).sum())
        far += len(nu) ** 0.5 * delta + float(put.sum())
    # Prices move too, and ν is scaled back.
    return lost + far * float(np.linalg.norm(sample_sizes(program))) / program.beta * abs(value)
