"""Convex training of the last two layers of a deep network on the features of the others.

They are a two-layer network on what the layers below put out, so the program of `TwoLayer` solves
them globally.  That optimum is the best *given the features*: its certificate is one of the
sub-problem, and beside it stands the bound of the whole, which is a relaxation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from landscape.architectures.base import ConvexPoint
from landscape.bounds import FEATURES, AllPatterns, Bound, residual
from landscape.certificate import Certificate, judge
from landscape.errors import BadInput, NotConverged
from landscape.network import Network, read
from landscape.solvers import layered
from landscape.solvers.solution import Solution

if TYPE_CHECKING:
    from landscape.architectures.base import Parameters
    from landscape.architectures.standard_deep import StandardDeep
    from landscape.problem import Problem

VERSION = 1
NODES = 5_000
"""Cones that branch and bound may visit to prove that no pattern of the features was missed."""

Solve = Callable[..., Solution]


@dataclass(frozen=True)
class OnFeatures:
    """The last two layers, trained on the features of a network.

    Attributes:
        point: the optimum of the sub-problem as a point of the deep problem.
        parameters: the network.
        certificate: of the sub-problem, in the units of the deep objective; its scope begins
            with "given features".
        solution: of the two-layer problem on the features, or None where the network was kept
            because nothing better was found.
    """

    point: ConvexPoint = field(repr=False)
    parameters: Parameters = field(repr=False)
    certificate: Certificate
    solution: Solution = field(repr=False)


def on_features(
    problem: Problem, parameters: Parameters, solve: Solve, patterns: Any = "all", **options: Any
) -> OnFeatures:
    """Solve the program of the last two layers on the features of one network.

    Args:
        problem: a problem of a deep architecture (`Architecture.layered`).
        parameters: one network.
        solve: solves two-layer problems.
        patterns: of the features: "all", or a number that are sampled beside the network's own.
        **options: of ``solve``.

    Returns:
        A network whose objective is not higher, and its certificate.
    """
    architecture = cast("StandardDeep", problem.architecture)
    sub, last = architecture.last_two(problem, parameters)
    alive = bool((last["hidden"].any(1) & (last["output"] != 0)).any())
    start = Network(sub.architecture, last) if alive else None
    given = {} if patterns == "all" else {"patterns": sampled(sub, last, patterns)}
    options = {"limit": NODES, **options}
    solution = solve(sub, start=start if not given else None, **given, **options)
    program = architecture.on_features(problem, parameters, solution.point.program)
    point = replace(solution.point, program=program)
    better = architecture.lower(point)
    if float(problem.objective(better)) > float(problem.objective(parameters)):
        point, better = architecture.lift(problem, parameters), parameters
    certificate = judged(problem, better, solution, architecture.offset(problem, parameters))
    return OnFeatures(point, better, certificate, solution)


def sampled(problem: Problem, parameters: Parameters, count: int) -> Any:
    """Return patterns of one network and random ones besides."""
    from landscape import arrangements

    own = arrangements.of(problem.architecture.gates(parameters), problem.design)
    return arrangements.sample(problem.design, max(count, 1), seed=0).union(own)


def judged(
    problem: Problem, parameters: Parameters, solution: Solution, offset: float
) -> Certificate:
    """Return the certificate of a sub-problem's solution as one of the deep network."""
    own = solution.certificate
    bound = Bound(
        own.dual + offset, own.nu, own.price_ratio, f"{FEATURES}: {own.scope}", own.patterns
    )
    judged = judge(problem, parameters, [bound], violation=own.violation)
    return replace(judged, climbs=own.climbs)


def solve_deep(
    problem: Problem,
    networks: list[torch.nn.Module],
    solve: Solve,
    limit: int,
    tolerance: float,
    throw: bool,
    **options: Any,
) -> Solution:
    """Refit the best of some networks; the certificate is of the whole problem, and relaxed.

    Raises:
        BadInput: if there are no networks: there is no program without features.
        NotConverged: if the sub-problem's gap stays above ``tolerance`` and ``throw``.
    """
    if not networks:
        raise BadInput(
            f"start is missing: no convex program is known for architecture "
            f"{problem.architecture.label}.  Pass start= trained networks, whose last two layers "
            "are then solved on their features, or train layer by layer (landscape.layerwise)."
        )
    found = [read(problem, network) for network in networks]
    best = min(found, key=lambda one: float(problem.objective(one)))
    done = on_features(problem, best, solve, tolerance=tolerance, throw=False, **options)
    own = done.certificate
    whole = layered.bound(problem, AllPatterns(problem, limit), residual(done.point))
    certificate = judge(problem, done.parameters, [whole], violation=own.violation)
    status = (
        f"The last two layers were solved to {own.relative_gap:.1e} on the features of the best "
        f"start ({own.scope}).  The lower bound is a relaxation of the whole problem."
    )
    if throw and not own.relative_gap <= tolerance:
        raise NotConverged(f"{status} Raise the tolerance, or pass throw=False to see it.")
    history = done.solution.history
    return Solution(problem, done.point, certificate, certificate.nu, status, history)
