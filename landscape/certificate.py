r"""Certificates: what any network's loss is worth beside a rigorous lower bound.

The dual bound needs no solver: take a residual ν, remove what it sees of the free directions,
bound every price from above, scale ν down until no price exceeds β, evaluate −ℓ*(−ν).  This
module judges points; it knows neither solvers nor trainers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import lsq_linear, minimize_scalar

from landscape import arrangements
from landscape.architectures.base import ConvexPoint
from landscape.arrangements import Arrangements
from landscape.errors import BadInput
from landscape.pricing import EPSILON, free_coordinate_radius, largest_price

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.problem import Problem
    from landscape.programs import Program

EXACT = "all patterns, exact"
GIVEN = "given patterns"
EFFORT = {"low": 0, "normal": 20_000, "high": 2_000_000}
"""How many patterns `certify` is ready to enumerate and price at each effort."""


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
        scope: "all patterns, exact" or "given patterns"; the dual holds in this scope only.
        patterns: how many patterns were priced.
        nu: the feasible dual point that gives ``dual``, shape (n,).
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

    @property
    def gap(self) -> float:
        """Primal minus dual: how far above the optimum (of the scope) the network can be."""
        return self.primal - self.dual

    @property
    def relative_gap(self) -> float:
        """(primal − dual) / max(|primal|, tiny)."""
        return self.gap / max(abs(self.primal), np.finfo(np.float64).tiny)

    def __str__(self) -> str:
        """Return one readable line."""
        return (
            f"objective {self.primal:.8g} ≥ optimum ≥ {self.dual:.8g} "
            f"(relative gap {self.relative_gap:.1e}; {self.scope}, {self.patterns} patterns)"
        )


def certify(
    problem: Problem,
    network: torch.nn.Module | Iterable[torch.nn.Module],
    *,
    patterns: Arrangements | None = None,
    dual: Floats | Sequence[Floats] = (),
    effort: str = "normal",
) -> Any:
    """Judge a network, or many, against a lower bound of the convex program.

    Args:
        problem: the training problem.
        network: a `Network`, a module that the architecture can read (such as
            ``Sequential(Linear, ReLU, Linear)``), or an iterable of them.
        patterns: price these patterns only, scope "given patterns".  By default all patterns
            are enumerated and priced if there are few enough for the effort, scope "all
            patterns, exact"; otherwise the network's own patterns are.
        dual: dual points to try besides the network's residual (for example
            ``solution.dual``); the best bound is kept.
        effort: "low" (own patterns only), "normal" (enumerate up to 20 000 patterns) or "high"
            (up to 2 000 000).

    Returns:
        A `Certificate`, or a list of them for an iterable of networks.

    Raises:
        BadInput: for an unknown effort or a module that is not the problem's architecture.
    """
    if effort not in EFFORT:
        raise BadInput(f"effort is {effort!r}: it must be one of {', '.join(EFFORT)}.")
    single = isinstance(network, torch.nn.Module)
    networks = [network] if isinstance(network, torch.nn.Module) else list(network)
    duals = np.atleast_2d(np.asarray(dual, dtype=np.float64)) if len(dual) else []
    read = [problem.architecture.read(one) for one in networks]
    scope = GIVEN
    if patterns is None and EFFORT[effort]:
        # Too many to price at this effort: each network is judged on its own patterns.
        with suppress(arrangements.TooManyPatterns):
            patterns = problem.architecture.all_patterns(problem, EFFORT[effort])
            scope = EXACT
    # Bounds hold for the whole problem, so networks share them.
    bounded: list[tuple[float, Floats]] = []
    program = None if patterns is None else problem.architecture.program(problem, patterns)
    if program is not None:
        bounded = [lower_bound(program, nu)[:2] for nu in duals]
    certificates = []
    for parameters in read:
        priced = program
        if priced is None:
            own = arrangements.of(problem.architecture.gates(parameters), problem.design)
            priced = problem.architecture.program(problem, own)
            bounded = [lower_bound(priced, nu)[:2] for nu in duals]
        certificates.append(judge(problem, parameters, priced, bounded, scope))
    return certificates[0] if single else certificates


def judge(
    problem: Problem,
    parameters: Parameters,
    program: Program,
    bounds: Sequence[tuple[float, Floats]] = (),
    scope: str = GIVEN,
    violation: float = 0.0,
) -> Certificate:
    """Judge one network against a program, with further lower bounds already at hand.

    Args:
        problem: the training problem.
        parameters: one network.
        program: the blocks to price.
        bounds: pairs (lower bound, its feasible dual point) in the same scope.
        scope: what the program's patterns are.
        violation: cone violation of the convex point that the network came from.
    """
    with torch.no_grad():
        primal = float(problem.objective(parameters))
    point = problem.architecture.lift(problem, parameters)
    nu = residual(point)
    own_bound, own_nu, ratio = lower_bound(program, nu)
    dual, feasible = max([(own_bound, own_nu), *bounds], key=lambda pair: pair[0])
    slope = -problem.loss.gradient(point.program.fit(point.theta, point.constant), problem.y)
    clarke, wrong, balance = problem.architecture.stationarity(problem, parameters, slope)
    return Certificate(
        primal=primal,
        dual=dual,
        stationarity=float(clarke.max(initial=0.0)),
        wrong_ties=float(wrong.max(initial=0.0)),
        balance=float(balance.max(initial=0.0)),
        violation=violation,
        price_ratio=ratio,
        scope=scope,
        patterns=len(program.patterns),
        nu=feasible,
    )


def residual(point: ConvexPoint) -> Floats:
    """Return −∇ℓ at a convex point after its free part has been re-optimised, shape (n,)."""
    program = point.program
    constant = refit_free(program, program.atoms.apply(point.theta), point.constant)
    fit = program.fit(point.theta, constant)
    if program.loss.smooth:
        return -program.loss.gradient(fit, program.y)
    return _best_subgradient(point, fit)


def _best_subgradient(point: ConvexPoint, fit: Floats) -> Floats:
    """Return −(a subgradient) of a loss with kinks, chosen there to make the point stationary.

    On the samples at a kink the subgradient is free within an interval.  The choice is the
    bounded least squares fit of the stationarity of the active blocks,
    A_gᵀν + Σ λ_k row_k = β θ_g/‖θ_g‖ with λ ≥ 0 on the rows on which the block lies, and of
    A_0ᵀν = 0.  A plug-in choice can leave most of the gap open at the exact optimum.  Where few
    blocks are active this does not settle ν either: then pass a solver's dual to `certify`.
    """
    program, y = point.program, point.program.y
    step = 1e-6 * (1.0 + np.abs(fit))
    below, above = (-program.loss.gradient(fit + side * step, y) for side in (-1, 1))
    low, high = np.minimum(below, above), np.maximum(below, above)
    kinks = np.flatnonzero(high > low)
    nu = np.where(high > low, 0.0, low)
    sizes = program.gauge.value(point.theta)
    blocks = np.flatnonzero(sizes > 1e-7 * sizes.max(initial=0.0))  # directions of dust say nothing
    if not len(kinks) or not len(blocks):
        return np.where(high > low, (low + high) / 2, low)
    equations, targets, on_face = [program.free.T], [np.zeros(program.free.shape[1])], []
    for position, block in enumerate(blocks):
        theta = np.where(program.gauge.penalised, point.theta[block], 0.0)
        equations.append(program.atoms.matrix(int(block)).T)
        targets.append(program.beta * theta / np.linalg.norm(theta))
        if program.cones is not None:
            rows = program.cones.rows(int(block))
            slack = rows @ point.theta[block]
            size = np.linalg.norm(rows, axis=1) * np.linalg.norm(point.theta[block])
            on_face += [(position, row) for row in rows[slack <= 1e-6 * size]]
    A, p = np.vstack(equations), program.atoms.dimension
    faces = np.zeros((len(A), len(on_face)))
    for column, (position, row) in enumerate(on_face):
        begin = program.free.shape[1] + position * p
        faces[begin : begin + p, column] = row
    bounds = (
        np.concatenate([low[kinks], np.zeros(len(on_face))]),
        np.concatenate([high[kinks], np.full(len(on_face), np.inf)]),
    )
    wanted = np.concatenate(targets) - A @ nu
    found = lsq_linear(np.hstack([A[:, kinks], faces]), wanted, bounds, method="bvls", tol=1e-14)
    nu[kinks] = found.x[: len(kinks)]
    return nu


def refit_free(program: Program, fit: Floats, constant: Floats) -> Floats:
    """Return the free part that minimises ℓ(fit + A_0 θ_0), by damped Newton steps.

    Any outcome is valid for a certificate; a minimiser makes the bound sharp.
    """
    A, y, loss = program.free, program.y, program.loss
    if A.shape[1] == 0 or not loss.smooth:
        return constant
    value = float(loss.value(fit + A @ constant, y))
    for _ in range(50):
        current = fit + A @ constant
        slope = A.T @ loss.gradient(current, y)
        hessian = A.T @ (loss.curvature(current, y)[:, None] * A)
        step = -np.linalg.lstsq(hessian + 1e-14 * np.trace(hessian) * np.eye(len(slope)), slope)[0]
        length = 1.0
        while length > 1e-12:
            trial = float(loss.value(current + A @ (length * step), y))
            if trial < value:
                break
            length /= 2
        else:
            return constant
        constant, value = constant + length * step, trial
    return constant


def lower_bound(
    program: Program, nu: Floats, multipliers: Floats | None = None
) -> tuple[float, Floats, float]:
    """Return a rigorous lower bound of a program from any dual point.

    Args:
        program: the blocks; the bound holds for the program over just these.
        nu: any point of the dual's space, shape (n,), best near −∇ℓ at an optimum.
        multipliers: of the cones' rows at ν, shape (G, n), if known (see `largest_price`); they
            save time and are not trusted.

    Returns:
        ``(bound, feasible, ratio)``: the bound, the feasible point that gives it, and the
        largest price at the given ν divided by β.
    """
    loss, y = program.loss, program.y
    nu = loss.into_domain(np.asarray(nu, dtype=np.float64), y)
    nu = loss.into_domain(nu - _onto_free(program, nu), y)
    ratio = largest_price(program, nu, multipliers)[0] / program.beta
    top = (1.0 - 4.0 * EPSILON) / ratio if ratio > 0.0 else 1.0
    top = min(top, (1.0 - 4.0 * EPSILON) * loss.reach(nu))

    def value(scale: float) -> float:
        return float(loss.dual_value(scale * nu, y))

    # The dual value is concave along the ray; 0 is always feasible and the domain is convex.
    found = minimize_scalar(lambda t: -value(t), bounds=(0.0, top), method="bounded")
    scale = max((0.0, float(found.x), min(top, 1.0), top), key=value)
    feasible = scale * nu
    bound = value(scale)
    # What rounding may have added: n terms of the sum, and what ν still sees of free directions.
    terms = float(np.abs(feasible) @ (np.abs(y) + np.abs(feasible))) + len(y)
    bound -= (len(y) + 16) * EPSILON * (abs(bound) + terms)
    if program.free.shape[1]:
        rest = float(np.linalg.norm(_onto_free(program, feasible)))
        bound -= (rest + EPSILON * float(np.abs(feasible).sum())) * _free_radius(program)
    return bound, feasible, ratio


def judge_value(program: Program, nu: Floats, value: float, ratio: float) -> float:
    """Return the relative gap of a value to the dual value at ν if its largest price is ratio·β.

    No certificate: ``ratio`` may come from a search.  Column generation stops by it.
    """
    loss, y = program.loss, program.y
    nu = loss.into_domain(nu - _onto_free(program, nu), y)
    bound = float(loss.dual_value(min(1.0 / ratio, loss.reach(nu)) * nu, y))
    return (value - bound) / max(abs(value), float(np.finfo(np.float64).tiny))


def beta_max(problem: Problem, patterns: Arrangements | None = None, limit: int = 400_000) -> float:
    """Return the β from which on the zero network (free parts aside) is optimal, from above.

    It is the largest price at the residual of the network that has only its free part.

    Args:
        problem: the training problem; its own β plays no role.
        patterns: price these only; by default all patterns, enumerated.
        limit: refuse to enumerate more patterns than this.
    """
    if patterns is None:
        patterns = problem.architecture.all_patterns(problem, limit)
    program = problem.architecture.program(problem, patterns)
    theta = np.zeros((program.atoms.size, program.atoms.dimension))
    nothing = ConvexPoint(program, theta, np.zeros(program.free.shape[1]))
    nu = residual(nothing)
    return largest_price(program, nu - _onto_free(program, nu))[0]


def _onto_free(program: Program, nu: Floats) -> Floats:
    """Return the projection of ν on the range of A_0."""
    if not program.free.shape[1]:
        return np.zeros_like(nu)
    return program.free @ np.linalg.lstsq(program.free, nu)[0]


def _free_radius(program: Program) -> float:
    """Bound ‖A_0 θ_0‖ at an optimum, from the objective p of the best free-only network.

    The loss is at most p there, which keeps outputs near the targets (for labels, on one side:
    both classes occur), and the penalty is at most p, so atoms that vanish on one sample each
    add at most 2 r p/β to an output, r the largest norm of a sample.
    """
    start = np.zeros(program.free.shape[1])
    constant = refit_free(program, np.zeros(len(program.y)), start)
    p = float(program.loss.value(program.free @ constant, program.y))
    delta = getattr(program.loss, "delta", 1.0)
    reach = float(np.abs(program.y).max()) + 1.0 + np.sqrt(2 * p) + p * (1.0 + 1.0 / delta)
    atoms = 2.0 * free_coordinate_radius(program) * p / program.beta
    return len(program.y) ** 0.5 * (reach + atoms)


__all__ = [
    "EFFORT",
    "EXACT",
    "GIVEN",
    "Certificate",
    "beta_max",
    "certify",
    "judge",
    "lower_bound",
    "residual",
]
