r"""What a trained network is: a global optimum, a spurious stationary point, or not one at all.

A network of signed patterns B is a global optimum of the convex program over B, kinks resolved,
iff it is balanced and *directionally* stationary (Wang, Lacotte & Pilanci, ICLR 2022): zero
Clarke residual and :math:`s\,ν_k \le 0` at every tie of a neuron with output sign s.  It is a
global optimum of training iff, besides, no pattern of either sign prices above β.

With shares :math:`\tilde D` of the ties that bring the Clarke residual to zero, the multipliers
:math:`λ_k = |ν_k|(1 − \tilde D_k)` (resolved on) and :math:`|ν_k|\tilde D_k` (resolved off) prove
that *every* resolution of a neuron's kinks prices at most

.. math::
    \| s X^⊤ \tilde D ν \| + \sum_{k \text{ tied}} (s ν_k)_+ \|x_k\| ,

so the floor of the own program needs no list of the up to :math:`2^{p−1}` resolutions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from landscape.architectures.base import ConvexPoint
from landscape.bounds import EPSILON, bound_over, lower_bound_at, relative_gap, residual
from landscape.clarke import settled_masks, ties
from landscape.errors import BadInput, share, whole
from landscape.network import read, several
from landscape.pricing import largest_price, resolved_prices
from landscape.solvers import restricted
from landscape.stationarity.escapes import Escape, new_neuron, off_a_kink
from landscape.stationarity.points import kinks, resolved, used
from landscape.stationarity.prices import Prices

if TYPE_CHECKING:
    from landscape.architectures.base import Parameters
    from landscape.certificate import Certificate
    from landscape.problem import Problem
    from landscape.programs import Floats

GLOBAL = "global optimum"
SPURIOUS = "spurious stationary point"
UNDECIDED = "stationary, global or not undecided"
CLARKE = "Clarke-stationary only"
MOVING = "not stationary"
VERDICTS = (GLOBAL, SPURIOUS, UNDECIDED, CLARKE, MOVING)
"""The verdicts of `classify`."""

ROUGH = 1e-6
"""Relative accuracy of own optima of networks that are not stationary."""


@dataclass(frozen=True)
class StationaryPoint:
    """One network, judged.

    Attributes:
        verdict: one of `VERDICTS`.
        objective: of the network.
        clarke: largest Clarke residual over its neurons and free directions, divided by β.
        wrong: largest wrong-signed tie divided by max|ν|.
        balance: worst relative difference of a neuron's two norms.
        neurons: blocks after merging neurons of one signed pattern.
        kinks: neurons that lie on kinks.
        own: optimum of the convex program over the network's own signed patterns, kinks
            resolved (the objective of a point of it).
        own_bound: certified lower bound of that program.
        price: largest price over all patterns and both signs, divided by β: where branch and
            bound or climbs look for it, one that a neuron attains; where patterns are enumerated,
            a bound of it (which the accuracy of projections exceeds by their rounding).
        bound: certified lower bound of the problem, and its scope.
        at_zero: objective of the zero network.
    """

    verdict: str
    objective: float
    clarke: float
    wrong: float
    balance: float
    neurons: int
    kinks: int
    own: float
    own_bound: float
    price: float
    bound: float
    scope: str
    at_zero: float
    point: ConvexPoint = field(repr=False)
    nu: Floats = field(repr=False)

    @property
    def own_gap(self) -> float:
        """(objective − own lower bound) / objective: zero at directionally stationary points."""
        return relative_gap(self.objective, self.own_bound, self.at_zero)

    @property
    def gap(self) -> float:
        """(objective − lower bound over all patterns) / objective."""
        return relative_gap(self.objective, self.bound, self.at_zero)

    def __str__(self) -> str:
        """One line for a log."""
        return (
            f"{self.verdict}: objective {self.objective:.8g}, own optimum {self.own:.8g}, "
            f"largest price {self.price:.4g} β, gap {self.gap:.1e} ({self.scope}), residual "
            f"{self.clarke:.1e}, {self.kinks} of {self.neurons} neurons on kinks"
        )


class Classifier:
    """Judges networks of one problem; what they share is computed once.

    Args:
        problem: the training problem.
        floor: the certificate of an optimum over all patterns (``solve(problem).certificate``):
            a stationary network of which no price above β is known is global at its bound, also
            where the network's own dual point does not prove it.  Without it, an own dual point
            that is accurate to the tolerance must.
        tolerance: of the residual (relative to β), of wrong-signed ties and of balance.
        global_tolerance: relative excess of the largest price over β, and relative gap, up to
            which a stationary point counts as global.
        effort: cones that branch and bound may visit for the price over all patterns.
        seed: of the directions from which prices are climbed.
    """

    def __init__(
        self,
        problem: Problem,
        floor: Certificate | None = None,
        *,
        tolerance: float = 1e-7,
        global_tolerance: float = 1e-6,
        effort: int = 20_000,
        seed: int = 0,
    ) -> None:
        if not problem.loss.smooth:
            raise BadInput(
                f"loss is {problem.loss.name}, whose slope at its own kinks the outputs do not "
                "tell, so that optima would read as not stationary: judge by a dual point, "
                "certify(problem, network, dual=solution.dual), or use a smooth loss."
            )
        self.problem = problem
        self.tolerance = share("tolerance", tolerance)
        self.global_tolerance = share("global_tolerance", global_tolerance)
        effort, seed = whole("effort", effort, 0), whole("seed", seed, 0)
        self.prices = Prices(problem, floor, self.global_tolerance, effort, seed)

    def __call__(self, network: torch.nn.Module | Parameters) -> StationaryPoint:
        """Return the verdict on one network (a `Network`, a readable module, or parameters)."""
        problem, architecture = self.problem, self.problem.architecture
        parameters = read(problem, network)
        with torch.no_grad():
            objective = float(problem.objective(parameters))
            fit = architecture.forward(parameters, torch.as_tensor(problem.X)).numpy()
        slope = -problem.loss.gradient(fit, problem.y)
        clarke, wrong, balance = (
            float(values.max(initial=0.0))
            for values in architecture.stationarity(problem, parameters, slope)
        )
        point = architecture.lift(problem, parameters)
        nu = residual(point)
        stationary = clarke <= self.tolerance and balance <= self.tolerance
        directional = stationary and (wrong <= self.tolerance or self._settled(point, nu))
        own, own_bound = self._own(point, nu, directional)
        price, bound = self.prices.largest(point, nu)
        at_zero = problem.loss.at_zero(problem.y)
        gap = relative_gap(objective, bound.value, at_zero)
        if bound.value > objective + self.global_tolerance * max(objective, EPSILON * at_zero):
            raise BadInput(
                f"floor is {bound.value:.8g} and the network's objective {objective:.8g}: that is "
                "no lower bound of this problem; pass solve(problem).certificate."
            )
        if not stationary:
            verdict = MOVING
        elif not directional:
            verdict = CLARKE
        elif price > 1 + self.global_tolerance:
            verdict = SPURIOUS
        elif gap <= self.global_tolerance or bound.ratio <= 1 + self.global_tolerance:
            verdict = GLOBAL
        else:
            verdict = UNDECIDED
        return StationaryPoint(
            verdict=verdict,
            objective=objective,
            clarke=clarke,
            wrong=wrong,
            balance=balance,
            neurons=int(used(point.theta).sum()),
            kinks=self._on_kinks(point),
            own=own,
            own_bound=own_bound,
            price=price,
            bound=bound.value,
            scope=bound.scope,
            at_zero=at_zero,
            point=point,
            nu=nu,
        )

    def own(self, network: torch.nn.Module | Parameters) -> tuple[float, float]:
        """Return optimum and lower bound of the program over a network's own signed patterns."""
        point = self.problem.architecture.lift(self.problem, read(self.problem, network))
        return self._own(point, residual(point), directional=False)

    def price(self, network: torch.nn.Module | Parameters) -> float:
        """Return the largest price found at a network's residual, divided by β: 1 at an optimum."""
        point = self.problem.architecture.lift(self.problem, read(self.problem, network))
        return self.prices.largest(point, residual(point))[0]

    def _on_kinks(self, point: ConvexPoint) -> int:
        """Count the neurons that lie on kinks."""
        return int(kinks(self.problem, point).any(axis=1).sum())

    def _settled(self, point: ConvexPoint, nu: Floats) -> bool:
        """Whether no resolution of the kinks prices above β.

        Where ties are linearly dependent the sign condition is only sufficient.
        """
        own, every = resolved(self.problem, point)
        return every and largest_price(own.program, nu)[0] <= self.problem.beta * (
            1 + self.tolerance
        )

    def _own(self, point: ConvexPoint, nu: Floats, directional: bool) -> tuple[float, float]:
        """Return optimum and lower bound of the program over the network's own patterns."""
        ratio = self._own_price(point, nu) / self.problem.beta
        bound = lower_bound_at(point.program, nu, ratio)[0]
        at_zero = self.problem.loss.at_zero(self.problem.y)
        if directional and relative_gap(point.value, bound, at_zero) <= self.tolerance:
            return point.value, bound  # the point itself is the optimum, and proved to be
        own, every = resolved(self.problem, point)
        if directional:
            start, accuracy = (own.theta, own.constant), self.tolerance / 10
        else:  # far from it, and a start that is no good costs more than none
            start, accuracy = None, ROUGH
        found = restricted.minimise(own.program, accuracy, throw=False, start=start)
        if every:  # else only the first bound covers the resolutions that are not listed
            bound = max(bound, bound_over(own.program, found.nu, found.multipliers).value)
        return min(found.value, own.value), bound

    def _own_price(self, point: ConvexPoint, nu: Floats) -> float:
        """Bound the prices of the network's own signed patterns, every resolution of its kinks."""
        program = point.program
        if not self.problem.architecture.plain_neurons:
            own, every = resolved(self.problem, point)
            return largest_price(own.program, nu)[0] if every else float("inf")
        design, penalised = self.problem.design, program.gauge.penalised
        tied = ties(design, point.theta)
        masks = settled_masks(
            design, penalised, point.theta, program.atoms.signs, nu, program.beta, tied
        )
        return float(resolved_prices(program, nu, masks, tied).max(initial=0.0))

    def escape(self, network: torch.nn.Module | Parameters) -> Escape | None:
        """Return a way down from a network, or None if none was found (at a global optimum).

        A new neuron that prices above β enters at its best size; where only a kink is wrong, the
        neuron leaves it to the side that descends.  Plain ReLU neurons only.

        Raises:
            BadInput: for an architecture whose neurons are not plain ReLUs.
        """
        problem = self.problem
        if not problem.architecture.plain_neurons:
            raise BadInput(
                f"architecture {problem.architecture.label}: escape directions are those of plain "
                "ReLU neurons."
            )
        point = problem.architecture.lift(problem, read(problem, network))
        nu = residual(point)
        ways = [new_neuron(self.prices, point, nu), off_a_kink(problem, point, nu, self.tolerance)]
        found = [way for way in ways if way is not None and way.objective < point.value]
        return min(found, key=lambda way: way.objective) if found else None


def classify(
    problem: Problem,
    network: torch.nn.Module | Parameters | Iterable[torch.nn.Module | Parameters],
    **options: Any,
) -> Any:
    """Return the `StationaryPoint` of a network, or a list of them for an iterable of networks.

    Args:
        problem: the training problem.
        network: a `Network`, a module that the architecture can read, parameters by name, or
            many of these.
        **options: of `Classifier`.

    Raises:
        BadInput: for something that is no network of the problem's architecture, or weights that
            are not finite.
    """
    networks, single = several(network)
    judge = Classifier(problem, **options)
    points = [judge(one) for one in networks]
    return points[0] if single else points
