r"""The directions that neurons of optimal networks can have: finitely many, fixed by the dual.

At a dual optimum ν* every cone K_i holds at most one unit vector of price β for either sign,

.. math:: \bar u_i = \arg\max_{u ∈ K_i, \|u\| \le 1} \pm ν^{*⊤} D_i X u ,

the normalised projection of :math:`\pm X^⊤D_iν^*` on the cone (Kim, Mishkin & Pilanci, ICLR 2025,
Theorem 1).  Optimal networks are combinations c ≥ 0 of these with one and the same fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from landscape.nonnegative import least_squares
from landscape.pricing import coarse_prices
from landscape.solvers.search import find

if TYPE_CHECKING:
    from landscape.problem import Problem
    from landscape.programs import Floats, Program

NEAR = 1e-6
"""Prices this close to β (relative) count as β."""
CLEAR = 1e-3
"""Relative distance from β down to which prices are looked at, to tell how clear that is."""
SAME = 1e-7
"""Directions of one sign at a distance below this are one."""
STARTS = 4000
"""Climbs by which directions are sought where patterns cannot be listed."""


class Directions(NamedTuple):
    """Unit blocks of price β.

    Attributes:
        units: shape (K, p).
        signs: of the output, shape (K,).
        masks: activation patterns 1[Xu ≥ 0], or those of fixed gates, shape (K, n).
        gates: directions whose signs give the masks, shape (K, p).
        spread: the largest |price/β − 1| among them.
        below: the largest price/β that did not count, 0 if none was seen.
    """

    units: Floats
    signs: Floats
    masks: np.ndarray
    gates: Floats
    spread: float
    below: float


def of_program(program: Program, nu: Floats) -> Directions:
    """Return the directions of price β over a program's own blocks, by exact cone projections."""
    beta = program.beta
    coarse = coarse_prices(program, nu, program.atoms.adjoint(nu))
    units, ratios, blocks = [], [], []
    for g in np.flatnonzero(coarse > beta * (1.0 - CLEAR)):
        pull = program.atoms.matrix(int(g)).T @ nu
        if program.cones is not None:
            rows = program.cones.rows(int(g))
            pull = pull + rows.T @ least_squares(rows.T, -pull)[0]
        size = float(np.linalg.norm(pull))
        if size > 0:
            units.append(pull / size)
            ratios.append(size / beta)
            blocks.append(g)
    found = np.array(units).reshape(-1, program.atoms.dimension)
    kept, signs = np.array(blocks, dtype=np.int64), program.atoms.signs
    if program.cones is None:  # each gate has one direction, and its own pattern
        near = np.array(ratios) >= 1.0 - NEAR
        index = program.atoms.index[kept[near]]
        return Directions(
            found[near],
            signs[kept[near]],
            program.atoms.masks[index],
            program.patterns.gates[index],
            *clear(np.array(ratios)),
        )
    return _distinct(program.atoms.design, found, signs[kept], np.array(ratios))


def by_search(problem: Problem, known: Floats, signs: Floats, nu: Floats, seed: int) -> Directions:
    """Return the directions of price β that climbs find, those known among them.

    Args:
        problem: with plain ReLU neurons.
        known: unit directions of a solution, shape (k, p).
        signs: theirs, shape (k,).
        nu: dual point.
        seed: of the climbs.
    """
    X, beta = problem.design, problem.beta
    penalised = problem.architecture.penalised(problem)
    draws = np.random.default_rng(seed).standard_normal((STARTS, X.shape[1]))
    units, sides = [known], [signs]
    for side in (1.0, -1.0):
        near = known[signs == side]
        found, _ = find(
            X, penalised, side * nu, beta * (1.0 - CLEAR), np.vstack([draws, near]), near,
            1000, sharp=True, tolerance=0.0,
        )  # fmt: skip
        units.append(found.directions)
        sides.append(np.full(len(found.directions), side))
    together, sides_ = np.vstack(units), np.concatenate(sides)
    ratios = sides_ * (np.maximum(together @ X.T, 0.0) @ nu) / beta
    return _distinct(X, together, sides_, ratios)


def _distinct(design: Floats, units: Floats, signs: Floats, ratios: Floats) -> Directions:
    """Keep those of price β, each once: cells that meet in a face share its direction."""
    kept: list[int] = []
    for g in np.flatnonzero(ratios >= 1.0 - NEAR):
        others = [k for k in kept if signs[k] == signs[g]]
        if not any(np.linalg.norm(units[k] - units[g]) <= SAME for k in others):
            kept.append(int(g))
    units = units[kept].reshape(len(kept), design.shape[1])
    values = units @ design.T
    lengths = np.linalg.norm(design, axis=1)
    values[np.abs(values) <= SAME * lengths] = 0.0
    return Directions(units, signs[kept], values >= 0, units, *clear(ratios))


def clear(ratios: Floats) -> tuple[float, float]:
    """Return how far the prices that count are from β, and the largest that does not."""
    near = ratios >= 1.0 - NEAR
    spread = float(np.abs(ratios[near] - 1.0).max(initial=0.0))
    return spread, float(ratios[~near].max(initial=0.0))
