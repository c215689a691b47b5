"""Column generation: the optimum over all patterns from short programs.

Solve over a few signed patterns, look for neurons that price above β at the residual, add them,
drop what carries nothing, and stop when no neuron can be found.  Early rounds are inexact: few
interior-point steps and climbs only.  Near the end the search is polished exactly and the program
is resumed by Newton from the round before.  What is found is only a search; whether nothing was
missed is asked of `everything`, an exact price of all patterns, where there is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.arrangements import Arrangements
from landscape.bounds import lower_bound_at, relative_gap
from landscape.errors import NotConverged
from landscape.solvers import restricted, search

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.problem import Problem
    from landscape.programs import Floats, Program
    from landscape.solvers.reference import Optimum

VERSION = 4
RESTARTS = 600
"""Random climbs per sign and round."""
ADDED = 60
"""Most neurons added per sign and round."""
FEW = 20
"""New neurons up to which Newton from the last round is tried before the interior point."""
ROUNDS = 200
AIMS = (1e-3, 1e-4, 1e-8)
"""Relative gaps to which the restricted program is solved, stage by stage."""
DUST = ((1e-7, 1e-7), (2e-4, 2e-3), (np.inf, 1e-2))
"""Up to this gap, blocks smaller than this share of the largest count as zero."""


@dataclass
class Columns:
    """Signed patterns with a direction strictly inside each cell.

    Attributes:
        gates: directions, shape (m, p).
        signs: ±1, shape (m,).
        masks: patterns, shape (m, n), boolean.
    """

    gates: Floats
    signs: Floats
    masks: NDArray[np.bool_]

    @staticmethod
    def of(problem: Problem, gates: Floats, signs: Floats) -> Columns:
        """Return the distinct signed patterns of some directions."""
        gates, signs = problem.architecture.representatives(problem, gates, signs)
        masks = gates @ problem.design.T >= 0
        columns = Columns(gates, signs, masks)
        return columns.take(list({key: i for i, key in enumerate(columns._keys())}.values()))

    @staticmethod
    def of_program(program: Program, theta: Floats) -> Columns:
        """Return the blocks of a program with cones, gates from inside its cells.

        Patterns given as arrays have no gates: there the blocks ``theta`` (G, p) lead inside.
        """
        masks = program.atoms.masks[program.atoms.index]
        gates = program.patterns.gates[program.atoms.index].copy()
        closed = True if program.cones is None else ~program.cones.open
        for g in np.flatnonzero(~gates.any(axis=1) & closed):
            gates[g] = search.inner_gate(program.atoms.design, masks[g], theta[g])
        return Columns(gates, program.atoms.signs, masks)

    def _keys(self) -> list[bytes]:
        packed = np.packbits(np.hstack([self.masks, self.signs[:, None] > 0]), axis=1)
        return [row.tobytes() for row in packed]

    def without(self, others: Columns) -> Columns:
        """Return the columns that are not among others."""
        known = set(others._keys())
        return self.take([i for i, key in enumerate(self._keys()) if key not in known])

    def join(self, others: Columns) -> Columns:
        """Return both, which share nothing."""
        return Columns(
            np.vstack([self.gates, others.gates]),
            np.concatenate([self.signs, others.signs]),
            np.vstack([self.masks, others.masks]),
        )

    def take(self, kept: Any) -> Columns:
        """Return some of them."""
        return Columns(self.gates[kept], self.signs[kept], self.masks[kept])

    def program(self, problem: Problem) -> Program:
        """Return the restricted program."""
        patterns = Arrangements.from_bool(self.masks, self.gates)
        return problem.architecture.program(problem, patterns, self.signs)


Everything = Callable[["Floats", float], tuple["Floats", "Floats"]]
"""From ν and a target: gates (m, p) and signs (m,) of neurons that price above the target; none
if there are none or none could be found."""


def generate(
    problem: Problem,
    first: Columns,
    tolerance: float,
    seed: int,
    everything: Everything,
    warm: tuple[Floats, Floats] | None = None,
    rounds: int = ROUNDS,
    device: str = "cpu",
    throw: bool = True,
) -> tuple[Optimum, Program, dict[str, Any], tuple[dict[str, Any], ...]]:
    """Return the optimum over all patterns, as far as search and exact prices can tell.

    Args:
        problem: a problem whose neurons price as ±νᵀ(Xu)_+.
        first: columns to begin with.
        tolerance: stop when what the largest price seen leaves open is below this relative gap.
        seed: of the random climbs.
        everything: exact prices of all patterns, asked when the search finds nothing more.
        warm: blocks and free part of a nearby optimum over the first columns, one row each.
        rounds: most rounds, at least 1.
        device: where restricted programs are solved.
        throw: raise if the rounds run out; otherwise the gap tells.

    Returns:
        The optimum, its restricted program, the entry of its round (such as the largest price
        found at its residual over β, and by how many climbs), and the entries of all rounds.

    Raises:
        NotConverged: if the restricted solver fails, or the rounds run out and ``throw``.
    """
    beta = problem.beta
    at_zero = problem.loss.at_zero(problem.y)
    rng, began = np.random.default_rng(seed), time.perf_counter()
    columns, before, lowest = first, None, np.inf
    best: tuple[Optimum, Program, dict[str, Any]] | None = None
    history: list[dict[str, Any]] = []
    stage, ended = 0, False
    if warm is not None and len(columns.signs) == len(warm[0]):
        stage, before = 1, warm
    for number in range(rounds):
        program = columns.program(problem)
        optimum, how = _solve(program, before, max(tolerance / 4, AIMS[stage]), device)
        carrying = _carrying(program, optimum)
        found, ratio, count = _search(
            problem, optimum, columns, carrying, rng, stage > 0, tolerance
        )
        found = found.without(columns)
        reached = lower_bound_at(program, optimum.nu, max(1.0, ratio))[0]
        open_gap = relative_gap(optimum.value, reached, at_zero)
        history.append(
            {
                "round": number,
                "value": optimum.value,
                "blocks": len(columns.signs),
                "active": int(carrying.sum()),
                "price_ratio": ratio,
                "open_gap": open_gap,
                "climbs": count,
                "solver": how,
                "seconds": time.perf_counter() - began,
            }
        )
        if best is None or optimum.value < best[0].value:
            best = optimum, program, history[-1]
        sure = stage == 2 or (stage == 1 and optimum.gap <= tolerance)
        if (open_gap <= tolerance or not len(found.signs)) and not sure:
            # Nothing to add at this accuracy: raise it, on the blocks that carry something.
            stage = 1 if stage == 0 and optimum.gap <= tolerance else 2
            columns, before = columns.take(carrying) if carrying.any() else columns, None
            continue
        if open_gap <= tolerance or not len(found.signs):
            found = Columns.of(problem, *everything(optimum.nu, beta * (1 + tolerance / 10)))
            found = found.without(columns)
            if not len(found.signs):
                ended = True
                break
        gain = (lowest - optimum.value) / optimum.value
        if stage == 0 and (ratio < 1.03 or gain < 3e-3):
            stage = 1
        elif stage == 1 and (ratio < 1.002 or gain < 1e-5):
            stage = 2
        # What carries nothing goes, but only after progress: where the dual is not unique (hinge)
        # dropping at equal values can cycle.
        progress = optimum.value < lowest - 1e-9 * abs(optimum.value)
        kept = carrying if progress else np.ones_like(carrying)
        lowest = min(lowest, optimum.value)
        before = (optimum.theta[kept], optimum.constant) if optimum.gap <= 1e-7 else None
        columns = columns.take(kept).join(found)
    assert best is not None  # there is at least one round
    # The last round need not be the best: at equal accuracy it drops what it can.
    optimum, program, entry = (optimum, program, history[-1]) if ended else best
    if not ended and throw:
        raise NotConverged(
            f"Column generation ran {rounds} rounds and still leaves a relative gap of "
            f"{entry['open_gap']:.1e}. Pass start= with trained networks, or raise the tolerance."
        )
    return replace(optimum, history=tuple(history)), program, entry, tuple(history)


def _solve(
    program: Program, before: tuple[Floats, Floats] | None, aim: float, device: str
) -> tuple[Optimum, str]:
    """Solve the restricted program: by Newton from the last round if little is new."""
    if before is not None and program.atoms.size - len(before[0]) <= FEW:
        theta = np.zeros((program.atoms.size, program.atoms.dimension))
        theta[: len(before[0])] = before[0]
        optimum = restricted.resume(program, theta, before[1], device=device)
        if optimum is not None and optimum.gap <= aim:
            return optimum, "newton"
    return restricted.minimise(program, aim, throw=False, device=device), "interior"


def _carrying(program: Program, optimum: Optimum) -> NDArray[np.bool_]:
    """Return the blocks that count as non-zero at the accuracy of the optimum.

    A rough interior point leaves something in every block; what is small goes, and comes back by
    its price if it should not have.
    """
    sizes = program.gauge.value(optimum.theta)
    cut = next(cut for gap, cut in DUST if optimum.gap <= gap)
    carrying = sizes > cut * sizes.max(initial=0.0)
    return carrying if program.cones is None else carrying | program.cones.open  # these stay


def _search(
    problem: Problem,
    optimum: Optimum,
    columns: Columns,
    carrying: NDArray[np.bool_],
    rng: np.random.Generator,
    sharp: bool,
    tolerance: float,
) -> tuple[Columns, float, int]:
    """Search both signs; return new columns, the largest price over β, and the climbs made."""
    X, beta, architecture = problem.design, problem.beta, problem.architecture
    penalised, p = architecture.penalised(problem), X.shape[1]
    gates, signs, largest, count = [], [], 0.0, 0
    carrying = carrying & columns.gates.any(axis=1)  # a linear block is no neuron
    nu = architecture.on_rows(problem, optimum.nu)
    for sign in (1.0, -1.0):
        near = optimum.theta[carrying & (columns.signs == sign)]
        norms = np.linalg.norm(near[:, penalised], axis=1)
        near = near[norms > 0] / norms[norms > 0, None]
        starts = [rng.standard_normal((RESTARTS, p))]
        if len(near):
            around = np.repeat(near, 2, axis=0)
            starts.append(around + 0.2 / p**0.5 * rng.standard_normal(around.shape))
        starts = np.vstack(starts)
        found, best = search.find(
            X,
            penalised,
            sign * nu,
            beta,
            starts,
            near,
            ADDED,
            sharp,
            tolerance / 10 if sharp else 1e-3,
            architecture.leak,
        )
        gates.append(found.gates)
        signs.append(np.full(len(found.prices), sign))
        largest, count = max(largest, best), count + len(starts)
    found = Columns.of(problem, np.vstack(gates), np.concatenate(signs))
    return found, largest / beta, count
