r"""Is a convex program really the training problem?  One check for every architecture.

What must hold on any problem, with p* the optimum of the convex program:

1. the optimum of a second solver (cvxpy with Clarabel, primal and dual apart) over the blocks that
   carry the optimum is p*, and the oracle's dual point proves that no other block lowers it;
2. the mapped network has objective p*;
3. no trained network is below the lower bound, and the best comes close to p*;
4. *adversarial pricing*: no network of one unit, trained by gradients to maximise
   :math:`ν^⊤f_θ(X) / R(θ)` from many random starts at the optimal and at random dual points, prices
   above the bound of the oracle.  This, and not agreement on friendly instances, tells whether a
   dictionary is complete;
5. weak duality: the bound of any dual point is at most the objective of any network, random ones,
   the optimal one and trained ones;
6. lifting a network and lowering it again never raises its objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape import architectures
from landscape.bounds import EXACT, AllPatterns, beta_max
from landscape.pricing import prices as block_prices
from landscape.problem import Problem
from landscape.solvers import reference, solve
from landscape.training import polish, train

if TYPE_CHECKING:
    from landscape.architectures.base import Architecture, Floats, Parameters
    from landscape.solvers import Solution

SHARE = 0.05
"""β of an instance over its β_max."""
EFFORT = 100_000
TOLERANCE = 1e-8
"""Relative gap to which instances are solved."""


@dataclass(frozen=True)
class Exactness:
    """What one instance showed; differences are relative to the optimum.

    Attributes:
        optimum: of the convex program, the objective of its mapped network.
        scope: of its lower bound.
        gap: certified relative gap of the mapped network.
        primal, dual: difference of Clarabel's values over the carrying blocks to the optimum.
        mapped: |network's objective − program's value at the point it came from|.
        trained: objective of the best trained network over the optimum, minus one.
        below: how far a trained network lies below the lower bound (0: none does).
        adversary: largest price that gradients found over the oracle's bound, at the optimal dual
            point and at random ones; at most 1 if nothing is missing (0 where the regulariser is
            no gauge, and there is no price).
        attained: the oracle's bound over what its own best unit attains, at the same points; 1 if
            exact (0 where patterns are listed: there a price is a cone projection; bounds that name
            themselves relaxed do not count).
        duality: largest excess of a dual point's bound over a network's objective (0: none).
        raised: largest relative rise by lift and lower (0: none).
        active: units of the optimal network.
        signs: of its outputs: 2 if both occur.
    """

    optimum: float
    scope: str
    gap: float
    primal: float
    dual: float
    mapped: float
    trained: float
    below: float
    adversary: float
    attained: float
    duality: float
    raised: float
    active: int
    signs: int


def instance(
    architecture: str | Architecture, seed: int, n: int = 8, d: int = 2, share: float = SHARE
) -> Problem:
    """Return a random problem of an architecture, drawn before anything is known of it.

    Inputs and targets are standard normal, targets (n, c) where networks have c outputs; β is
    ``share`` times β_max.

    Args:
        architecture: a name or an architecture.
        seed: of the data.
        n: samples.
        d: inputs, where the architecture does not fix their number.
        share: β over β_max.
    """
    architecture = architectures.get(architecture)
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, architecture.inputs or d))
    c = architecture.drawn_outputs
    y = rng.standard_normal(n if c == 1 else (n, c))
    problem = Problem(X, y, 1.0, architecture=architecture)
    return problem.replace(beta=share * beta_max(problem, limit=EFFORT))


def exactness(
    problem: Problem,
    solution: Solution | None = None,
    *,
    width: int = 16,
    seeds: Sequence[int] = range(8),
    steps: int = 2000,
    starts: int = 64,
    draws: int = 4,
    seed: int = 0,
) -> Exactness:
    """Check the convex face of one problem (see the module's text).

    Args:
        problem: best tiny; its architecture is what is judged.
        solution: of the problem, to 1e-8, if it is known.
        width: of trained networks.
        seeds: of training; none leaves ``trained`` NaN.
        steps: of Adam, before polishing.
        starts: random units from which the adversary climbs, at each dual point.
        draws: random dual points beside the optimal one.
        seed: of the adversary.
    """
    runs = None
    if len(seeds):
        runs = polish(problem, train(problem, width, seeds, "adam", steps, learning_rate=0.02))
    start = runs if problem.architecture.layered else None  # its program is over their features
    if solution is None:
        solution = solve(problem, start=start, tolerance=TOLERANCE, limit=EFFORT, throw=False)
    certificate, point = solution.certificate, solution.point
    optimum, size = solution.objective, max(abs(solution.objective), 1e-300)
    first = reference.solve_primal(point.program, throw=False).value + point.program.offset
    second = reference.solve_dual(point.program, throw=False)[0] + point.program.offset
    every = AllPatterns(problem, EFFORT)
    rng, prices, attained = np.random.default_rng(seed), [], []
    duals = [solution.dual, *rng.standard_normal((draws, *problem.y.shape))]
    networks = [*_random(problem, width, range(draws)), problem.architecture.lower(point)]
    trained, below = np.nan, 0.0
    if runs is not None:
        objectives = runs.objectives[np.isfinite(runs.objectives)]
        trained = float(objectives.min()) / size - 1
        below = max(0.0, (certificate.dual - float(objectives.min())) / size)
        networks += [runs[int(i)].values for i in np.flatnonzero(np.isfinite(runs.objectives))]
    with torch.no_grad():
        lowest = min(float(problem.objective(one)) for one in networks)
    duality = 0.0
    for number, nu in enumerate(duals):
        nu = _seen(problem, point.program.free, nu)
        bound = every(nu)
        top = bound.ratio * problem.beta
        if problem.architecture.degree == 1.0:
            prices.append(adversary(problem, nu, starts, seed=seed + number) / top)
        if every.oracle is not None and bound.scope == EXACT:
            units = every.priced(nu)[1].units
            own = problem.architecture.program(problem, units)
            best = float(block_prices(own, nu).max(initial=0.0))
            attained.append(top / max(best, 1e-300))
        duality = max(duality, (bound.value - lowest) / size)
    signs = np.sign(problem.architecture.lower(point)["output"].detach().numpy())
    return Exactness(
        optimum=optimum,
        scope=certificate.scope,
        gap=certificate.relative_gap,
        primal=abs(first - optimum) / size,
        dual=abs(second - optimum) / size,
        mapped=abs(point.value - optimum) / size,
        trained=trained,
        below=below,
        adversary=max(prices, default=0.0),
        attained=max(attained, default=0.0),
        duality=duality,
        raised=max(_rise(problem, one) for one in networks),
        active=solution.active,
        signs=len(np.unique(signs[signs != 0])),
    )


def adversary(
    problem: Problem, nu: Floats, starts: int = 64, steps: int = 150, seed: int = 0
) -> float:
    """Return the largest price at a dual point that networks of one unit reach by gradients.

    Args:
        problem: the training problem.
        nu: dual point, orthogonal to the free directions, shape (n,), or (n, c).
        starts: random networks, half of them for either sign.
        steps: of Adam on log(±νᵀf/R).
        seed: of the networks.
    """
    architecture = problem.architecture
    parameters = architecture.initial(problem, 1, range(seed * starts, (seed + 1) * starts))
    names = [k for k in parameters if k not in architecture.fixed and k != "constant"]
    X, pull = torch.as_tensor(problem.X), torch.as_tensor(nu)
    sides = torch.ones(starts, dtype=torch.float64)
    sides[starts // 2 :] = -1.0
    leaves = {k: v.clone().requires_grad_(k in names) for k, v in parameters.items()}
    rule = torch.optim.Adam([leaves[k] for k in names], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(rule, steps)
    for _ in range(steps):
        rule.zero_grad()
        output = architecture.forward(leaves, X)
        gain = (
            sides
            * (output * pull).flatten(1).sum(1)
            / architecture.penalty(leaves).clamp_min(1e-300)
        )
        (-gain.sum()).backward()
        rule.step()
        schedule.step()
    found = 0.0
    for start in range(starts):
        one = {k: v[start].detach() for k, v in leaves.items()}
        point = architecture.lift(problem, one)
        size = float(point.program.gauge.value(point.theta).sum())
        if size > 0 and np.isfinite(size):
            fit = point.program.fit(point.theta, np.zeros_like(point.constant))
            found = max(found, abs(float(np.vdot(nu, fit))) / size)
    return found


def _seen(problem: Problem, free: Floats, nu: Floats) -> Floats:
    """Return the dual point without what it sees of free directions."""
    if not free.shape[1]:
        return nu
    return nu - free @ np.linalg.lstsq(free, nu)[0]


def _random(problem: Problem, width: int, seeds: Sequence[int]) -> list[Parameters]:
    batch = problem.architecture.initial(problem, width, seeds)
    return [{k: v[s] for k, v in batch.items()} for s in range(len(seeds))]


def _rise(problem: Problem, parameters: Parameters) -> float:
    """Return by how much lifting and lowering raises an objective, relative to it, at least 0."""
    architecture = problem.architecture
    with torch.no_grad():
        before = float(problem.objective(parameters))
        after = float(problem.objective(architecture.lower(architecture.lift(problem, parameters))))
    return max(0.0, after / before - 1)
