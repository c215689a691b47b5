r"""Lower bounds of a convex program from any dual point.

They need no solver: take a residual ν, remove what it sees of the free directions, bound every
price from above, scale ν until no price exceeds β, evaluate −ℓ*(−ν).  Rounding is charged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from landscape import arrangements, dictionary
from landscape.architectures.base import ConvexPoint
from landscape.envelope import Envelope
from landscape.free_directions import (
    charge_inside,
    charge_moved,
    dual_point,
    largest_move,
    only_constant,
    onto_free,
    unseen,
)
from landscape.pricing import (
    EPSILON,
    Supremum,
    largest_price,
    relaxed_supremum,
    sample_sizes,
    supremum,
)
from landscape.residuals import residual

if TYPE_CHECKING:
    from landscape.architectures.base import Floats
    from landscape.arrangements import Arrangements
    from landscape.dictionary import Priced
    from landscape.problem import Problem
    from landscape.programs import Program

EXACT = "all patterns, exact"
RELAXED = "all patterns, relaxed"
SEARCH = "all patterns, local search"
GIVEN = "given patterns"
FEATURES = "given features"
"""Before the scope of a sub-problem: layers below are those of one network.  Never a lower bound
of the training problem."""
FIRST = 64
"""Branch and bound is tried where its first cones, 2^(rank+1), are at most effort / FIRST."""
EASY = 1e-12
"""Charges smaller than this share of a bound are not made smaller."""
SHARE = 5
"""Effort for units is divided by this where it buys cones of branch and bound."""
SHARP = 1e-7
"""Relative accuracy of the largest price of all neurons where units are some of them."""
SHORT = 20_000
"""Up to this many patterns are enumerated where that is faster."""


class Bound(NamedTuple):
    """A lower bound of a program's optimum.

    Attributes:
        value: the bound.
        nu: the feasible dual point that gives it, shape (n,).
        ratio: largest price at the point it was made from, divided by β.
        scope: which patterns it holds for (see `Certificate`).
        patterns: how many patterns that are; for all patterns of degenerate rows an upper bound.
    """

    value: float
    nu: Floats
    ratio: float
    scope: str
    patterns: int


def relative_gap(value: float, bound: float, at_zero: float) -> float:
    """Return (value − bound) / |value|; a value lost in the rounding of ``at_zero`` counts as that.

    Args:
        value: objective, an upper bound of the optimum.
        bound: lower bound of the optimum.
        at_zero: objective of the zero network.
    """
    size = max(abs(value), EPSILON * at_zero, float(np.finfo(np.float64).tiny))
    return float(value - bound) / size


def of_a_part(scope: str) -> bool:
    """Return whether a scope is that of a sub-problem, whose bound is none of the whole."""
    return scope == GIVEN or scope.startswith(FEATURES)


class AllPatterns:
    """Lower bounds over all activation patterns of a problem.

    Args:
        problem: the training problem.
        effort: how many cones branch and bound may visit; for neurons whose price is not
            ±νᵀ(Xu)_+ with all of u penalised, how many patterns may be enumerated.

    Raises:
        TooManyPatterns: if patterns must be enumerated and are too many.
        Undecided: if they must be enumerated and the data are too nearly degenerate.
    """

    def __init__(self, problem: Problem, effort: int) -> None:
        self.problem, self.effort = problem, effort
        self.envelope: Envelope | None = None
        self.oracle = problem.architecture.oracle(problem, effort)
        if self.oracle is not None:
            self.enumerated = False
            some = problem.architecture.first(problem, 0)
            self.program = problem.architecture.program(problem, some)
            degree = problem.architecture.degree
            if degree < 1.0:
                self.envelope = Envelope(problem.loss, problem.y, problem.beta, degree)
            return
        self.rank = int(np.linalg.matrix_rank(problem.design))
        # With a free bias branch and bound is less sharp: short lists are priced faster.
        free = not problem.architecture.penalised(problem).all()
        short = arrangements.count(len(problem.design), self.rank) <= min(effort, SHORT)
        searched = problem.architecture.searched
        some = None
        if not searched or (free and short):
            try:
                some = problem.architecture.all_patterns(problem, effort)
            except arrangements.Undecided:
                if not searched:
                    raise
        self.enumerated = some is not None
        some = some or arrangements.sample(problem.design, 1, seed=0)
        self.program = problem.architecture.program(problem, some)
        cones = self.program.cones
        linear = np.flatnonzero(cones.open) if cones is not None else np.zeros(0, dtype=np.intp)
        self.linear = self.program.take(linear)

    def __call__(self, nu: Floats) -> Bound:
        """Return the bound that a dual point gives."""
        if self.oracle is not None:
            return self.priced(nu)[0]
        if self.enumerated:
            return bound_over(self.program, nu, scope=EXACT)
        return self.searched(nu)[0]

    def priced(self, nu: Floats, target: float = 0.0) -> tuple[Bound, Priced]:
        """Return the bound by the oracle of the architecture, and what it found.

        Args:
            nu: dual point, shape (n,).
            target: prices up to this need not be told apart.
        """
        assert self.oracle is not None
        nu = dual_point(self.program, nu)
        found = self._sharpened(nu, target, self.oracle(nu, target))
        ratio = found.bound / self.program.beta
        if self.envelope is None:
            value, feasible = lower_bound_at(self.program, nu, ratio)
        else:
            self._add(nu, found.bound)
            value, _, feasible = self.envelope.least()
        return Bound(value, feasible, ratio, EXACT if found.exact else RELAXED, found.count), found

    def _sharpened(self, nu: Floats, target: float, found: Priced) -> Priced:
        """Return what an oracle found, its relaxed bound replaced by that of all neurons.

        Only where its units are neurons, and no unit of its own prices above the target any more.
        The bound stays a relaxed one: the dictionary need not have a neuron that attains it.
        """
        architecture, design = self.problem.architecture, self.problem.design
        more = target > 0.0 and dictionary.count(found.units) > 0
        if found.exact or not architecture.within_neurons or more:
            return found
        nodes = self.effort // SHARE  # each costs as much as many units
        if 2 ** (design.shape[1] + 1) > nodes:
            return found
        free = not architecture.penalised(self.problem).all()
        every = supremum(design, nu, free_bias=free, target=target, tolerance=SHARP, nodes=nodes)
        if every.bound >= found.bound:
            return found
        return replace(found, bound=every.bound)

    def _add(self, nu: Floats, price: float) -> None:
        """Add a dual point to the envelope, and first that of the zero network."""
        assert self.oracle is not None
        assert self.envelope is not None
        if len(self.envelope.points) == 1:
            nothing = dual_point(self.program, residual(self.nothing()))
            self.envelope.add(nothing, self.oracle(nothing).bound)
        self.envelope.add(nu, price)

    def nothing(self) -> ConvexPoint:
        """Return the point of the network that has only its free part."""
        return ConvexPoint(self.program, *self.program.zero())

    def searched(
        self, nu: Floats, target: float = 0.0, tolerance: float = 1e-9
    ) -> tuple[Bound, Supremum | None]:
        """Return the bound by branch and bound, and what it found.

        Where its first cones alone would use up much of the effort it is not tried; where it does
        not end, the relaxation is asked too and the better bound is kept.

        Args:
            nu: dual point, shape (n,).
            target: prices up to this need not be told apart.
            tolerance: relative accuracy asked of a largest price above it.
        """
        program = self.program
        free = bool((~program.gauge.penalised).any())
        nu = dual_point(program, nu)
        design, weights = self.problem.architecture.ramps(self.problem, nu)
        found, bound = None, np.inf
        if FIRST * 2 ** (self.rank + 1) <= self.effort:
            found = supremum(
                design, weights, free_bias=free, target=target, tolerance=tolerance,
                nodes=self.effort,
            )  # fmt: skip
            bound = found.bound
        exact = found is not None and found.exact
        if not exact and not free:
            bound = min(bound, relaxed_supremum(design, weights))
        if self.linear.atoms.size:  # a skip connection prices, too
            bound = max(bound, largest_price(self.linear, nu)[0])
        ratio = bound / program.beta
        value, feasible = lower_bound_at(program, nu, ratio)
        count = arrangements.count(len(self.problem.design), self.rank)
        return Bound(value, feasible, ratio, EXACT if exact else RELAXED, count), found


def bound_over(
    program: Program, nu: Floats, multipliers: Floats | None = None, scope: str = GIVEN
) -> Bound:
    """Return the lower bound of a program over just its own blocks (see `lower_bound`)."""
    value, feasible, ratio = lower_bound(program, nu, multipliers)
    blocks = len(program.patterns) if program.units is None else program.atoms.size
    if program.given:
        value, scope = value + program.offset, f"given {program.given}: {scope}"
        value -= 2 * EPSILON * (abs(value) + program.offset)
    return Bound(value, feasible, ratio, scope, blocks)


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
    nu = dual_point(program, nu)
    ratio = largest_price(program, nu, multipliers)[0] / program.beta
    return *lower_bound_at(program, nu, ratio), ratio


def lower_bound_at(program: Program, nu: Floats, ratio: float) -> tuple[float, Floats]:
    """Return the dual value at ν scaled until prices are feasible, and the scaled point.

    A lower bound over whatever the ratio covers, rounding charged.

    Args:
        program: its loss, targets, β and free directions; its blocks play no role.
        nu: dual point, shape (n,).
        ratio: an upper bound of the prices at ν, divided by β.
    """
    loss, y = program.loss, program.y
    given, nu = nu, dual_point(program, nu)
    if not np.array_equal(given, nu):  # its prices may have moved, too
        rows = np.abs(nu - given).reshape(len(y), -1)
        ratio = ratio + float(rows.sum(axis=1) @ sample_sizes(program)) / program.beta
    top = (1.0 - 4.0 * EPSILON) / ratio if ratio > 0.0 else 1.0
    top = min(top, (1.0 - 4.0 * EPSILON) * loss.reach(nu))
    if not np.isfinite(ratio):  # nothing is known of the prices: only ν = 0 is feasible
        top = 0.0

    def value(scale: float) -> float:
        found = float(loss.dual_value(scale * nu, y))
        return found if np.isfinite(found) else -np.inf

    # The dual value is concave along the ray; 0 is always feasible and the domain is convex.
    with np.errstate(over="ignore", invalid="ignore"):  # where ν is almost 0 the ray is long
        found = minimize_scalar(lambda t: -value(t), bounds=(0.0, top), method="bounded")
    scale = max((0.0, float(found.x), min(top, 1.0), top), key=value)
    feasible = scale * nu
    bound = value(scale)
    # What rounding may have added: n terms of the sum, and what ν still sees of free directions.
    terms = float(np.vdot(np.abs(feasible), np.abs(y) + np.abs(feasible)))
    terms += y.size if loss.classes else 0.0  # entropies are of size one
    bound -= (y.size + 16) * EPSILON * (abs(bound) + terms)
    if not unseen(program, nu) and loss.classes and not only_constant(program):
        bound -= charge_inside(program, feasible, bound)
    elif not unseen(program, nu):
        rest = float(np.linalg.norm(onto_free(program, feasible)))
        rest += program.y.size * EPSILON * float(np.linalg.norm(feasible))
        charge = (
            charge_moved(program, feasible, bound, rest)
            if y.ndim == 1 and not loss.classes
            else np.inf
        )
        bound -= charge if charge < EASY * abs(bound) else min(charge, rest * largest_move(program))
    nothing = value(0.0)
    return (bound, feasible) if bound >= nothing else (nothing, 0.0 * feasible)


def beta_max(problem: Problem, patterns: Arrangements | None = None, limit: int = 400_000) -> float:
    """Return the β from which on the zero network (free parts aside) is optimal, from above.

    It is the largest price at the residual of the network that has only its free part.

    Args:
        problem: the training problem; its own β plays no role.
        patterns: price these only; by default all patterns.
        limit: how many cones branch and bound may visit (what it knows then is still an upper
            bound), or, where it does not apply, how many patterns may be enumerated.
    """
    every = None
    if patterns is None:
        every = AllPatterns(problem, limit)
        program = every.program
    else:
        program = problem.architecture.program(problem, patterns)
    nothing = ConvexPoint(program, *program.zero())
    nu = dual_point(program, residual(nothing))
    if every and every.envelope is not None:
        every.priced(nu)
        return every.envelope.beta_max()
    if every and every.oracle is not None:
        return every.priced(nu)[0].ratio * problem.beta
    if every and not every.enumerated:
        return every.searched(nu)[0].ratio * problem.beta
    return largest_price(program, nu)[0]
