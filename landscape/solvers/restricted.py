"""The program over given patterns: interior point, Newton finish, the reference as last resort.

`minimise` is the fast solver behind `solve`.  It stops when its own multipliers prove the gap;
what is claimed in the end is proved again by the certificate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linprog

from landscape.bounds import lower_bound, relative_gap
from landscape.dense import GroupProgram
from landscape.dictionary import Lasso
from landscape.errors import NotConverged
from landscape.free_directions import refit_free
from landscape.pooled import PooledAtoms
from landscape.solvers import active_set, dense, group_lasso, reference
from landscape.solvers.blocks import Blocks, threads_for
from landscape.solvers.finish import finish, identify
from landscape.solvers.interior import Interior, centre
from landscape.solvers.reference import Optimum

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.programs import Floats, Program

VERSION = 4
ROUGH = (1e-5, 1e-6, 1e-7, 1e-8)
"""Gaps of the interior point from which the finish is tried, one after the other."""
NEARLY = 1e-7
"""Dense blocks solved to this gap do not go to the reference, which would take long."""
INEXACT = 1e-4
"""A tolerance from this on is left to the interior point alone."""
FEASIBLE = 1e-9
"""Cone violation (sine) from which on a point of the finish is not one of the program."""
MARGIN = 1e-9
"""A cone without a direction this far (sine) from all its rows counts as one without interior."""


def minimise(
    program: Program,
    tolerance: float = 1e-10,
    throw: bool = True,
    device: str = "cpu",
    start: tuple[Floats, Floats] | None = None,
) -> Optimum:
    """Return the optimum of a program over given blocks, with cones or without.

    Args:
        program: the blocks; any loss (the hinge has no curvature and goes to the reference).
        tolerance: relative gap wanted; early rounds of column generation ask for 1e-3 or so.
        throw: raise if the gap stays above the tolerance.
        device: where the arithmetic runs: "cpu", "cuda".
        start: blocks (G, p) and free part (q,) of a nearby optimum, from which Newton tries alone.

    Returns:
        The optimum with its dual point and multipliers that prove its prices.

    Raises:
        NotConverged: if the gap stays above the tolerance and ``throw``.
    """
    found, reason = None, _unsuited(program)
    if not reason and (not program.atoms.size or not program.loss.at_zero(program.y)):
        return _without_blocks(program)  # targets of zero are met by nothing
    if not reason and isinstance(program, Lasso):
        return active_set.minimise(program, tolerance, start, throw)
    if not reason and (isinstance(program, GroupProgram) or _pooled(program)):
        with threads_for(_work(program)):
            found, reason = dense.minimise(program, tolerance, device)
        if found is not None and found.gap <= max(tolerance, NEARLY):
            if found.gap > tolerance and throw:
                raise NotConverged(f"{found.status} The tolerance is {tolerance:g}: raise it.")
            return found
    elif not reason and program.cones is None:
        with threads_for(_work(program)):
            return group_lasso.minimise(program, tolerance, start, throw, device)
    if not reason and start is not None:
        warm = resume(program, *start, device=device)
        if warm is not None and warm.gap <= tolerance:
            return warm
    if not reason:
        with torch.inference_mode(), threads_for(_work(program)):
            found, reason = _fast(program, tolerance, device)
        if found is not None and found.gap <= tolerance:
            return found
    # The reference is slow and robust; the better of the two by one judge is returned.
    slow = reference.solve_primal(program, throw and found is None)
    slow = replace(slow, gap=_gap(program, slow), status=f"{slow.status} ({reason})")
    best = slow if found is None or slow.gap < found.gap else found
    if best.gap > tolerance and throw:
        raise NotConverged(
            f"The restricted program was solved to a gap of {best.gap:.1e} only, above "
            f"{tolerance:g}: {best.status}"
        )
    return best


def resume(
    program: Program, theta: Floats, constant: Floats, budget: int = 60, device: str = "cpu"
) -> Optimum | None:
    """Return the optimum reached by the finish alone from a nearby point, or None if it is not.

    The warm start of late rounds of column generation and of regularisation paths: blocks that
    are zero in ``theta`` enter where they price above β.
    """
    if _unsuited(program) or program.cones is None or _pooled(program):
        return None
    with torch.inference_mode(), threads_for(_work(program)):
        blocks = Blocks(program, device)
        z = blocks.scaled(theta)
        norms = z[:, : blocks.penalised].norm(dim=1)
        active = norms > 0
        slack = blocks.slack(z)
        binding = (slack <= 1e-9 * norms[:, None]) & active[:, None]
        c = blocks.scaled_free(constant)
        done = finish(blocks, z, c, active, binding, torch.zeros_like(slack), budget)
        if not done.settled:
            return None
        optimum = _optimum(blocks, done.z, done.c, done.multipliers)
    if not program.violation(optimum.theta) <= FEASIBLE:
        return None
    gap = _gap(program, optimum)
    status = f"Newton from a warm start ({done.steps} steps) to {gap:.1e}."
    return replace(optimum, gap=gap, status=status)


def _without_blocks(program: Program) -> Optimum:
    """Return the optimum where all blocks are zero."""
    theta, constant = program.zero()
    constant = refit_free(program, np.zeros(program.y.shape), constant)
    fit = program.fit(theta, constant)
    optimum = Optimum(
        theta=theta,
        constant=constant,
        nu=-program.loss.gradient(fit, program.y),
        value=program.value(theta, constant),
        status="Without blocks: the free part was refitted.",
    )
    return replace(optimum, gap=_gap(program, optimum))


def _work(program: Program) -> int:
    """Return how many numbers the blocks' matrices would hold."""
    rows = len(program.y) if program.units is not None else len(program.atoms.design)
    return program.atoms.size * rows * program.atoms.dimension


def _pooled(program: Program) -> bool:
    """Return whether rows of the design are pooled, which only dense blocks can do."""
    return isinstance(program.atoms, PooledAtoms)


def _unsuited(program: Program) -> str:
    """Return why the fast solver does not apply, or nothing."""
    if not program.loss.smooth:
        return f"the {program.loss.name} loss has no curvature, so the reference solved it"
    if isinstance(program, GroupProgram):
        return ""
    if program.cones is not None and not program.atoms.design.any():
        return "every sample is zero, so the reference solved it"
    return ""


def _gap(program: Program, optimum: Optimum) -> float:
    """Return the relative gap of an optimum's value to the bound of its own dual point."""
    if not np.isfinite(optimum.value):
        return np.inf
    bound = lower_bound(program, optimum.nu, optimum.multipliers)[0]
    return relative_gap(optimum.value, bound, program.loss.at_zero(program.y))


def _fast(program: Program, tolerance: float, device: str) -> tuple[Optimum | None, str]:
    """Return the best point found, and what kept it from the tolerance."""
    blocks = Blocks(program, device)
    inside = _interior_directions(blocks)
    if inside is None:
        return None, "some cone has no interior, so the reference solved it"
    method = Interior(blocks, inside)
    best, history = None, []
    for rough in ROUGH if tolerance < INEXACT else (tolerance,):
        point = method.run(rough)
        if not np.isfinite(point.gap):
            break
        own = replace(_optimum(blocks, point.z, point.c, point.mu), gap=point.gap)
        if point.gap < 0:  # its estimate is none where a free part is far from its optimum
            own = replace(own, gap=_gap(program, own))
        if program.violation(own.theta) > FEASIBLE:  # antipodal rows on one side: a lower face
            return None, "some cone has no interior, so the reference solved it"
        candidates = [own]
        if rough <= ROUGH[0] and point.gap < 1e-3:
            done = finish(blocks, point.z, point.c, *identify(blocks, point), point.mu)
            sharp = _optimum(blocks, done.z, done.c, done.multipliers)
            if np.isfinite(sharp.value) and program.violation(sharp.theta) <= FEASIBLE:
                candidates.append(replace(sharp, gap=_gap(program, sharp)))
        best = min(candidates if best is None else [best, *candidates], key=lambda one: one.gap)
        history.append({"steps": point.steps, "value": best.value, "gap": best.gap})
        if best.gap <= tolerance:
            status = f"Interior point ({point.steps} steps) and Newton finish to {best.gap:.1e}."
            return replace(best, status=status, history=tuple(history)), ""
        if point.gap > 10 * rough:
            break
    if best is None:
        return None, "the interior point broke down, so the reference solved it"
    status = f"Interior point and Newton finish stopped at a gap of {best.gap:.1e}."
    return replace(best, status=status, history=tuple(history)), status


def _optimum(blocks: Blocks, z: Tensor, c: Tensor, mu: Tensor) -> Optimum:
    """Return scaled blocks as an optimum of the program, dual point at their fit."""
    program = blocks.program
    theta, constant = blocks.original(z), blocks.original_free(c)
    fit = program.fit(theta, constant)
    return Optimum(
        theta=theta,
        constant=constant,
        nu=-program.loss.gradient(fit, program.y),
        value=program.value(theta, constant),
        status="",
        multipliers=blocks.multipliers(mu),
    )


def _interior_directions(blocks: Blocks) -> Tensor | None:
    """Return a direction well inside every block's cone, shape (G, p), or None."""
    gates = blocks.scaled(blocks.program.patterns.gates[blocks.used])
    centred, inside = centre(blocks, gates)
    anywhere = ~(blocks.pattern_sides != 0).any(1)
    centred[anywhere], inside[anywhere] = 1.0, True
    for i in torch.nonzero(~inside)[:, 0].tolist():
        found = _deepest(blocks, i)
        if found is None:
            return None
        centred[i] = found
    return centred[blocks.index]


def _deepest(blocks: Blocks, pattern: int) -> Tensor | None:
    """Return the direction in a box with the largest margin to the cone's rows."""
    rows = (blocks.pattern_sides[pattern][:, None] * blocks.cone).cpu().numpy()
    k, p = rows.shape
    found = linprog(
        np.r_[np.zeros(p), -1.0],
        A_ub=np.hstack([-rows, np.ones((k, 1))]),
        b_ub=np.zeros(k),
        bounds=[(-1, 1)] * p + [(0, 1)],
        method="highs",
    )
    if found.x is None or found.x[-1] <= MARGIN:
        return None
    return torch.as_tensor(found.x[:-1], device=blocks.X.device)
