r"""Certificates: what any network's loss is worth beside a rigorous lower bound.

This module judges points against `landscape.bounds`; it knows neither solvers nor trainers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from landscape import arrangements
from landscape.arrangements import Arrangements
from landscape.bounds import (
    FEATURES,
    SEARCH,
    AllPatterns,
    Bound,
    bound_over,
    relative_gap,
    residual,
)
from landscape.errors import BadInput, unknown
from landscape.network import read, several

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Units
    from landscape.problem import Problem

EFFORT = {"low": 0, "normal": 20_000, "high": 2_000_000}
"""How many cones branch and bound may visit, or how many patterns may be enumerated and priced."""


@dataclass(frozen=True)
class Certificate:
    """One point of a problem beside a lower bound.

    Attributes:
        primal: objective of the network, an upper bound of the optimum in every scope.
        dual: lower bound of the optimum of the program in ``scope``.
        stationarity: largest Clarke residual over the neurons, divided by β.
        wrong_ties: largest wrong-signed tie (see `landscape.clarke`), 0 if directionally fine.
        balance: largest |‖w‖ − |a|| / max(‖w‖, |a|) over the neurons.
        violation: largest −(±x_kᵀu)/(‖x_k‖‖u‖) of the convex point; 0 for a network.
        price_ratio: largest price at the network's own residual, divided by β; 1 at an optimum.
        scope: what the dual holds for.  "all patterns, exact": every pattern's price is known
            to the tolerance.  "all patterns, relaxed": a bound of them that may be far from
            sharp.  "given patterns": the program over some patterns only.  "all patterns, local
            search": no lower bound at all, but what the dual would be if the search had missed
            nothing; it names its climbs, and ``relaxed`` is the lower bound.  "given features: …":
            a sub-problem, the last two layers on what those below put out; ``relaxed`` is the
            lower bound of the whole.
        patterns: how many patterns the scope holds; of degenerate rows an upper bound.
        nu: the dual point that gives ``dual``, shape (n,).
        relaxed: a rigorous lower bound over all patterns where the scope is "local search" or
            that of a sub-problem; −inf if there is none.
        at_zero: objective of the zero network.
        climbs: how many local searches found nothing better, where that is the scope.
    """

    primal: float
    dual: float
    stationarity: float
    wrong_ties: float
    balance: float
    violation: float
    price_ratio: float
    scope: str
    patterns: int
    nu: Floats = field(repr=False)
    relaxed: float = -np.inf
    climbs: int = 0
    at_zero: float = 0.0

    @property
    def gap(self) -> float:
        """Primal minus dual: how far above the optimum of the scope the network can be.

        In scope "local search" the dual is no bound, and this is what the search left open.
        """
        return self.primal - self.dual

    @property
    def bound(self) -> float:
        """The lower bound of its scope: the dual, or ``relaxed`` where that is a search's value."""
        return self.relaxed if self.scope == SEARCH else self.dual

    @property
    def relative_gap(self) -> float:
        """(primal − dual) / |primal|, or by the rounding of ``at_zero`` where that is more."""
        return relative_gap(self.primal, self.dual, self.at_zero)

    def __str__(self) -> str:
        """Return one readable line."""
        if self.scope.startswith(FEATURES):
            whole = (
                f"; lower bound of the whole {self.relaxed:.8g}" if self.relaxed > -np.inf else ""
            )
            return (
                f"objective {self.primal:.8g}, with its last two layers within "
                f"{self.relative_gap:.1e} of their best on its features ({self.scope}){whole}"
            )
        if self.scope == SEARCH:
            return (
                f"objective {self.primal:.8g}; {self.climbs} climbs found no neuron to lower it "
                f"by more than {self.relative_gap:.1e} ({self.scope}; lower bound "
                f"{self.relaxed:.8g})"
            )
        patterns = f", {self.patterns} patterns" if self.patterns else ""
        return (
            f"objective {self.primal:.8g} ≥ optimum ≥ {self.dual:.8g} "
            f"(relative gap {self.relative_gap:.1e}; {self.scope}{patterns})"
        )


def certify(
    problem: Problem,
    network: torch.nn.Module | Parameters | Iterable[torch.nn.Module | Parameters],
    *,
    patterns: Arrangements | Units | None = None,
    dual: Floats | Sequence[Floats] = (),
    effort: str = "normal",
) -> Any:
    """Judge a network, or many, against a lower bound of the convex program.

    Args:
        problem: the training problem.
        network: a `Network`, a module that the architecture can read (such as
            ``Sequential(Linear, ReLU, Linear)``), its parameters by name, or an iterable of them.
        patterns: price these patterns only, scope "given patterns".  By default all patterns are
            priced by branch and bound, scope "all patterns, exact" if it ends and "all patterns,
            relaxed" if its nodes run out; where neurons are not plain ReLUs with penalised
            weights, patterns are enumerated instead, and if there are too many of them the
            network's own patterns are priced.
        dual: dual points to try besides the network's residual (for example
            ``solution.dual``); the best bound is kept.  Where the loss has kinks (hinge) the
            residual of a network with few neurons does not settle the dual point, and a
            solver's is much sharper.
        effort: "low" (own patterns only), "normal" (20 000 cones or patterns) or "high"
            (2 000 000).

    Returns:
        A `Certificate`, or a list of them for an iterable of networks.

    Raises:
        BadInput: for an unknown effort, a module that is not the problem's architecture or has
            weights that are not finite, or dual points or patterns that do not fit the data.
    """
    if effort not in EFFORT:
        raise unknown("effort", effort, EFFORT)
    networks, single = several(network)
    duals = _dual_points(problem, dual)
    if isinstance(patterns, Arrangements) and patterns.n != len(problem.design):
        rows = len(problem.design)
        raise BadInput(f"patterns are over {patterns.n} samples, problem has {rows}.")
    own = [read(problem, one) for one in networks]
    sources: list[Callable[[Floats], Bound]] = []
    if patterns is not None:
        program = problem.architecture.program(problem, patterns)
        sources = [lambda nu: bound_over(program, nu)]
    elif EFFORT[effort]:
        # Too many to price at this effort: each network is judged on its own patterns.
        with suppress(arrangements.TooManyPatterns):
            sources = [AllPatterns(problem, EFFORT[effort])]
    shared = [source(nu) for source in sources for nu in duals]
    certificates = []
    for parameters in own:
        source, bounds = sources[0] if sources else None, shared
        if source is None:
            source = partial(bound_over, problem.architecture.own(problem, parameters))
            bounds = [source(nu) for nu in duals]
        certificates.append(judge(problem, parameters, bounds, source))
    return certificates[0] if single else certificates


def _dual_points(problem: Problem, dual: Any) -> list[Floats]:
    """Return the given dual points as a list, or refuse them."""
    try:
        points = np.asarray(dual, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadInput(
            f"dual is a {type(dual).__name__}: it must hold numbers, one point of shape "
            f"{problem.y.shape} or several."
        ) from None
    if not points.size:
        return []
    points = points[None] if points.ndim == problem.y.ndim else points
    if points.shape[1:] != problem.y.shape:
        raise BadInput(
            f"dual has shape {np.shape(dual)}: its points must have the shape of y, "
            f"{problem.y.shape}."
        )
    if not np.isfinite(points).all():
        raise BadInput("dual has NaN or infinite entries: such a point proves nothing.")
    return list(points)


def judge(
    problem: Problem,
    parameters: Parameters,
    bounds: Sequence[Bound] = (),
    source: Callable[[Floats], Bound] | None = None,
    violation: float = 0.0,
) -> Certificate:
    """Judge one network against lower bounds.

    Args:
        problem: the training problem.
        parameters: one network.
        bounds: lower bounds at hand; the best is kept.
        source: makes one more bound, from the network's own residual.
        violation: cone violation of the convex point that the network came from.
    """
    with torch.no_grad():
        primal = float(problem.objective(parameters))
    point = problem.architecture.lift(problem, parameters)
    own = [] if source is None else [source(residual(point))]
    best = max([*own, *bounds], key=lambda bound: bound.value)
    slope = -problem.loss.gradient(point.program.fit(point.theta, point.constant), problem.y)
    clarke, wrong, balance = problem.architecture.stationarity(problem, parameters, slope)
    return Certificate(
        primal=primal,
        dual=best.value,
        stationarity=float(clarke.max(initial=0.0)),
        wrong_ties=float(wrong.max(initial=0.0)),
        balance=float(balance.max(initial=0.0)),
        violation=violation,
        price_ratio=own[0].ratio if own else best.ratio,
        scope=best.scope,
        patterns=best.patterns,
        nu=best.nu,
        at_zero=problem.loss.at_zero(problem.y),
    )
