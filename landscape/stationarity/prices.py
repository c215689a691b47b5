"""What all patterns price at a network's residual, found and bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from landscape import arrangements
from landscape.bounds import EXACT, RELAXED, SEARCH, AllPatterns, Bound, bound_over, of_a_part
from landscape.errors import BadInput
from landscape.pricing import largest_price
from landscape.solvers.search import Neurons, find

if TYPE_CHECKING:
    from landscape.architectures.base import ConvexPoint
    from landscape.certificate import Certificate
    from landscape.problem import Problem
    from landscape.programs import Floats

ROUGH = 1e-3
"""Relative accuracy of prices that are known to be above β."""
STARTS = 2000
"""Directions from which neurons that price above β are sought."""


class Prices:
    """Prices of one problem's neurons; what its networks share is computed once.

    Args:
        problem: the training problem.
        floor: a certificate over all patterns whose bound is kept where it is the better one.
        tolerance: relative excess over β up to which a price counts as β.
        effort: cones that branch and bound may visit.
        seed: of the directions from which prices are climbed.
    """

    def __init__(
        self, problem: Problem, floor: Certificate | None, tolerance: float, effort: int, seed: int
    ) -> None:
        self.problem, self.tolerance = problem, tolerance
        self.floor = None if floor is None else _floor(problem, floor)
        self.every: AllPatterns | None = None
        try:
            self.every = AllPatterns(problem, effort)
        except (arrangements.TooManyPatterns, arrangements.Undecided):
            self.every = None  # then only what the search attains is known
        draws = np.random.default_rng(seed).standard_normal((STARTS, problem.design.shape[1]))
        self.starts = np.vstack([draws, problem.design, -problem.design])[: 2 * STARTS]
        self.starts = self.starts[self.starts[:, problem.architecture.penalised(problem)].any(1)]

    def largest(self, point: ConvexPoint, nu: Floats) -> tuple[float, Bound]:
        """Return the largest price found over all patterns, divided by β, and the lower bound."""
        beta = self.problem.beta
        if self.every is None:  # only its own patterns can be priced, which bounds nothing
            own = bound_over(point.program, nu)
            return own.ratio, self._better(own._replace(value=-np.inf, ratio=np.inf))
        if self.every.enumerated:
            bound = self.every(nu)
            return bound.ratio, self._better(bound)
        if self.every.oracle is not None:
            bound, priced = self.every.priced(nu, beta)
            some = self.problem.architecture.program(self.problem, priced.units)
            exact = bound.scope == EXACT
            price = bound.ratio if exact else largest_price(some, nu)[0] / beta
            return price, self._better(bound)
        # With a floor at hand, how far a price lies above β matters only roughly.
        accuracy = 1e-9 if self.floor is None else ROUGH
        bound, found = self.every.searched(nu, beta, accuracy)
        price = 0.0 if found is None else found.attained / beta
        if self.every.linear.atoms.size:
            price = max(price, largest_price(self.every.linear, nu)[0] / beta)
        if bound.scope != EXACT:
            for side in (1.0, -1.0):
                _, largest = self._climbed(side * nu, point)
                price = max(price, largest / beta)
        return price, self._better(bound)

    def best_neuron(self, point: ConvexPoint, nu: Floats) -> tuple[float, Floats, float] | None:
        """Return price, unit direction and sign of the best neuron found above β, or None."""
        beta = self.problem.beta
        best: tuple[float, Floats, float] | None = None
        if self.every is not None and not self.every.enumerated:
            found = self.every.searched(nu, target=beta)[1]
            if found is not None and found.attained > beta:
                best = (found.attained, found.direction, float(found.sign))
        if best is None:
            for side in (1.0, -1.0):
                neurons, _ = self._climbed(side * nu, point)
                if len(neurons.prices) and (best is None or neurons.prices[0] > best[0]):
                    best = (float(neurons.prices[0]), neurons.directions[0], side)
        return best if best is not None and best[0] > beta * (1 + self.tolerance) else None

    def _better(self, bound: Bound) -> Bound:
        """Return the better of a bound and the floor that the caller brought, ratio kept."""
        if self.floor is None or not self.floor.value > bound.value:
            return bound
        return self.floor._replace(ratio=bound.ratio)

    def _climbed(self, pull: Floats, point: ConvexPoint) -> tuple[Neurons, float]:
        """Return neurons that price above β for one sign, by local search."""
        penalised = point.program.gauge.penalised
        near = point.theta[point.theta[:, penalised].any(axis=1)]
        near = near / np.linalg.norm(near[:, penalised], axis=1, keepdims=True)
        starts = np.vstack([self.starts, near])
        return find(
            self.problem.design, penalised, pull, self.problem.beta, starts, near, 1,
            sharp=True, tolerance=self.tolerance, leak=self.problem.architecture.leak,
        )  # fmt: skip


def _floor(problem: Problem, certificate: Certificate) -> Bound:
    """Return the lower bound over all patterns that a certificate of the problem carries."""
    c = certificate
    if not (hasattr(c, "scope") and hasattr(c, "relaxed")):
        raise BadInput(
            f"floor is a {type(c).__name__}: it must be a certificate, such as "
            "solve(problem).certificate."
        )
    if np.shape(c.nu) != problem.y.shape or c.at_zero != problem.loss.at_zero(problem.y):
        raise BadInput(
            f"floor is of another problem: its zero network has objective {c.at_zero:.8g}, this "
            f"problem's {problem.loss.at_zero(problem.y):.8g}; pass solve(problem).certificate."
        )
    if of_a_part(c.scope):
        raise BadInput(
            f"floor has scope {c.scope!r}: it must be the certificate of a solution over all "
            "patterns, as solve(problem) returns it."
        )
    if c.scope == SEARCH:
        return Bound(c.relaxed, c.nu, c.price_ratio, RELAXED, c.patterns)
    return Bound(c.dual, c.nu, c.price_ratio, c.scope, c.patterns)
