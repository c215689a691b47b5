"""Programs of dense group blocks: the interior point, to the accuracy of its linear algebra."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape.bounds import lower_bound, relative_gap
from landscape.dense import DenseAtoms, DenseCones, GroupProgram
from landscape.dictionary import Columns, Lasso
from landscape.pricing import sample_sizes
from landscape.solvers import active_set
from landscape.solvers.blocks import rays
from landscape.solvers.dense_blocks import DenseBlocks
from landscape.solvers.dense_interior import DenseInterior
from landscape.solvers.reference import Optimum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.programs import Floats, Program
    from landscape.solvers.dense_interior import Iterate

VERSION = 1
DUST = 1e-9
"""Blocks this small (relative) are on their way to zero."""
ROUNDING = 1e-12
SAME = 1e-10
"""Columns whose cosine is above one less this are those of one unit."""
CLOSE = 1e-2
"""The interior point is asked for this share of the gap wanted: rounding takes the rest."""


def minimise(
    program: Program, tolerance: float = 1e-9, device: str = "cpu"
) -> tuple[Optimum | None, str]:
    """Return the optimum of a program over dense blocks, and what kept it from the tolerance.

    Args:
        program: the blocks, with cones that have an interior, or without cones; a smooth loss.
            Blocks that are masked copies of a design are written out.
        tolerance: relative gap wanted.
        device: where the arithmetic runs.

    Returns:
        The optimum, its gap proved by its own multipliers, or None where a cone has no interior
        or the iteration breaks down; and a reason, empty if the tolerance was met.
    """
    if not isinstance(program, GroupProgram):
        return _written_out(program, tolerance, device)
    with torch.inference_mode():
        blocks = DenseBlocks(program, device)
        inside = blocks.inside()
        if inside is None:
            return None, "some cone has no interior"
        method = DenseInterior(blocks, inside)
        best: Optimum | None = None
        for wanted in (tolerance / 2, tolerance * CLOSE):
            point = method.run(wanted)
            if not np.isfinite(point.gap):
                break
            found = _candidates(blocks, point)
            if found[-1].gap <= tolerance:
                return found[-1], ""
            found += [] if best is None else [best]
            best = found[int(np.argmin([one.gap for one in found]))]
            if best.gap <= tolerance:
                return best, ""
    if best is None:
        return None, "the interior point broke down"
    return best, f"the interior point stopped at a gap of {best.gap:.1e}"


def _written_out(program: Program, tolerance: float, device: str) -> tuple[Optimum | None, str]:
    """Solve with a matrix for every block; collinear rows of the design cut one half-space."""
    design, blocks = program.atoms.design, range(program.atoms.size)
    maps = np.array([program.atoms.matrix(g) for g in blocks])
    reach, first, cones = sample_sizes(program), np.zeros(0, dtype=np.intp), None
    if program.cones is not None:
        first = rays(design)[1]
        sides = program.cones.sides[program.cones.index][:, first]
        cones = DenseCones(sides[:, :, None] * design[first])
    atoms = DenseAtoms(maps, {"block": np.arange(program.atoms.size)}, reach)
    written = GroupProgram.of(
        program.loss, program.y, program.beta, atoms, program.gauge, cones, program.free
    )
    found, reason = minimise(written, tolerance, device)
    if found is not None and found.multipliers is not None and cones is not None:
        multipliers = np.zeros((program.atoms.size, len(design)))
        multipliers[:, first] = found.multipliers
        found = replace(found, multipliers=multipliers)
    return found, reason


def _candidates(blocks: DenseBlocks, point: Iterate) -> list[Optimum]:
    """Return the point as an optimum, and one of as few blocks as its directions allow."""
    program = blocks.program
    theta, constant = point.z.cpu().numpy() * blocks.scale, point.c.cpu().numpy() * blocks.y_scale
    found = []
    for blocks_now, free in ((theta, constant), _thinned(program, theta, constant)):
        optimum = Optimum(
            theta=blocks_now,
            constant=free,
            nu=-program.loss.gradient(program.fit(blocks_now, free), program.y),
            value=program.value(blocks_now, free),
            status="",
            multipliers=blocks.multipliers(point.mu),
        )
        bound = lower_bound(program, optimum.nu, optimum.multipliers)[0]
        gap = relative_gap(optimum.value, bound, program.loss.at_zero(program.y))
        status = f"Interior point on dense blocks ({point.steps} steps) to {gap:.1e}."
        found.append(replace(optimum, gap=gap, status=status))
    return found


def _thinned(program: GroupProgram, theta: Floats, constant: Floats) -> tuple[Floats, Floats]:
    """Return a point of fewer blocks along the same directions, at an objective that is no higher.

    Units on a face that groups share are spread over all of these by an interior point.  With
    directions fixed the sizes are a Lasso, and its active set drops columns that depend on others.
    """
    sizes = program.gauge.value(theta)
    kept = np.flatnonzero(sizes > DUST * sizes.max(initial=0.0))
    units = theta[kept] / sizes[kept, None]
    values = program.atoms.take(kept).matrices @ units[:, :, None]
    columns = Columns(values[:, :, 0].T, {"block": kept}, program.atoms.reach)
    first, size = _merged(columns.values, sizes[kept])
    kept, units, columns = kept[first], units[first], columns.take(first)
    lasso = Lasso.of(program.loss, program.y, program.beta, columns, program.free)
    found = active_set.minimise(lasso, 1e-12, (size[:, None], constant), throw=False)
    thin = np.zeros_like(theta)
    thin[kept] = found.theta * units
    before = program.value(theta, constant)
    worse = program.value(thin, found.constant) > before + ROUNDING * abs(before)
    return (theta, constant) if worse or (found.theta < 0).any() else (thin, found.constant)


def _merged(values: Floats, sizes: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Return the largest of every set of (nearly) equal columns (n, G), and the sets' sizes."""
    lengths = np.maximum(np.linalg.norm(values, axis=0), 1e-300)
    unit, left = values / lengths, np.ones(len(sizes), dtype=bool)
    first, total = [], []
    for g in np.argsort(-sizes, kind="stable"):
        if left[g]:
            same = left & (unit[:, g] @ unit > 1.0 - SAME)
            same[g] = True
            left &= ~same
            first.append(int(g))
            total.append(float((sizes * lengths)[same].sum() / lengths[g]))
    return np.array(first, dtype=np.intp), np.array(total)
