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

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from landscape import arrangements
from landscape.architectures.base import ConvexPoint
from landscape.bounds import (
    EXACT,
    GIVEN,
    RELAXED,
    SEARCH,
    AllPatterns,
    Bound,
    bound_over,
    lower_bound_at,
    relative_gap,
    residual,
)
from landscape.clarke import bends, settled_masks, ties
from landscape.errors import BadInput
from landscape.network import Network
from landscape.pricing import largest_price, resolved_prices
from landscape.solvers import restricted
from landscape.solvers.search import Neurons, find

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from landscape.architectures.base import Parameters
    from landscape.certificate import Certificate
    from landscape.problem import Problem
    from landscape.programs import Floats, Program

GLOBAL = "global optimum"
SPURIOUS = "spurious stationary point"
UNDECIDED = "stationary, global or not undecided"
CLARKE = "Clarke-stationary only"
MOVING = "not stationary"
VERDICTS = (GLOBAL, SPURIOUS, UNDECIDED, CLARKE, MOVING)
"""The verdicts of `classify`."""

CELLS = 512
"""Resolutions of one neuron's kinks that are listed for the own program's optimum."""
ROUGH = 1e-3
"""Relative accuracy of prices that are known to be above β; its square is that of own optima of
networks that are not stationary."""
HALVINGS = 60
"""Of a step that is looked for along a way down."""
STARTS = 2000
"""Directions from which neurons that price above β are sought."""


@dataclass(frozen=True)
class Escape:
    """A way down from a network that is not a global optimum.

    Attributes:
        kind: "new neuron" (it prices above β) or "kink" (a neuron leaves a tie).
        rate: slope of the objective along the unit direction, negative: β − price for a new
            neuron u of unit norm in the coordinates |a|w; per unit length of |a|w for a kink.
        network: a network further down along it.
        objective: its objective.
    """

    kind: str
    rate: float
    network: Network = field(repr=False)
    objective: float


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
        price: largest price found over all patterns and both signs, divided by β (attained).
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
            a network at its bound is global, whatever the network's own dual point proves.
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
        for name, value in (("tolerance", tolerance), ("global_tolerance", global_tolerance)):
            if not 0 < value < 1:
                raise BadInput(f"{name} is {value!r}: it must lie between 0 and 1.")
        self.problem, self.floor = problem, None if floor is None else _bound_of(floor)
        self.tolerance, self.global_tolerance = tolerance, global_tolerance
        self.every: AllPatterns | None = None
        try:
            self.every = AllPatterns(problem, effort)
        except (arrangements.TooManyPatterns, arrangements.Undecided):
            self.every = None  # then only what the search attains is known
        draws = np.random.default_rng(seed).standard_normal((STARTS, problem.design.shape[1]))
        self.starts = np.vstack([draws, problem.design, -problem.design])[: 2 * STARTS]
        self.starts = self.starts[self.starts[:, problem.architecture.penalised(problem)].any(1)]

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
        price, bound = self._prices(point, nu)
        at_zero = problem.loss.at_zero(problem.y)
        gap = relative_gap(objective, bound.value, at_zero)
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
            neurons=int(_used(point.theta).sum()),
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
        return self._prices(point, residual(point))[0]

    def _on_kinks(self, point: ConvexPoint) -> int:
        """Count the neurons that lie on kinks."""
        if not self.problem.architecture.plain_neurons:
            return 0
        return int(ties(self.problem.design, point.theta).any(axis=1).sum())

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
            start, accuracy = None, ROUGH**2
        found = restricted.minimise(own.program, accuracy, throw=False, start=start)
        if every:  # else only the first bound covers the resolutions that are not listed
            bound = max(bound, bound_over(own.program, found.nu, found.multipliers).value)
        return min(found.value, own.value), bound

    def _own_price(self, point: ConvexPoint, nu: Floats) -> float:
        """Bound the prices of the network's own signed patterns, every resolution of its kinks."""
        program = point.program
        if not self.problem.architecture.plain_neurons:
            return largest_price(program, nu)[0]
        design, penalised = self.problem.design, program.gauge.penalised
        tied = ties(design, point.theta)
        masks = settled_masks(
            design, penalised, point.theta, program.atoms.signs, nu, program.beta, tied
        )
        return float(resolved_prices(program, nu, masks, tied).max(initial=0.0))

    def _prices(self, point: ConvexPoint, nu: Floats) -> tuple[float, Bound]:
        """Return the largest price found over all patterns, divided by β, and the lower bound."""
        beta = self.problem.beta
        if self.every is None:  # only its own patterns can be priced, which bounds nothing
            own = bound_over(point.program, nu)
            return own.ratio, self._better(own._replace(value=-np.inf, ratio=np.inf))
        if self.every.enumerated:
            bound = self.every(nu)
            return bound.ratio, self._better(bound)
        # With a floor at hand, how far a price lies above β matters only roughly.
        accuracy = 1e-9 if self.floor is None else ROUGH
        bound, found = self.every.searched(nu, beta, accuracy)
        price = 0.0 if found is None else found.attained / beta
        if bound.scope != EXACT:
            for side in (1.0, -1.0):
                _, largest = self._climbed(side * nu, point, most=1)
                price = max(price, largest / beta)
        return price, self._better(bound)

    def _better(self, bound: Bound) -> Bound:
        """Return the better of a bound and the floor that the caller brought, ratio kept."""
        if self.floor is None or not self.floor.value > bound.value:
            return bound
        return self.floor._replace(ratio=bound.ratio)

    def _climbed(self, pull: Floats, point: ConvexPoint, most: int) -> tuple[Neurons, float]:
        """Return neurons that price above β for one sign, by local search."""
        penalised = point.program.gauge.penalised
        near = point.theta[point.theta[:, penalised].any(axis=1)]
        near = near / np.linalg.norm(near[:, penalised], axis=1, keepdims=True)
        starts = np.vstack([self.starts, near])
        return find(
            self.problem.design, penalised, pull, self.problem.beta, starts, near, most,
            sharp=True, tolerance=self.global_tolerance,
        )  # fmt: skip

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
        ways = [self._new_neuron(point, nu), self._off_a_kink(point, nu)]
        found = [way for way in ways if way is not None and way.objective < point.value]
        return min(found, key=lambda way: way.objective) if found else None

    def _new_neuron(self, point: ConvexPoint, nu: Floats) -> Escape | None:
        """Return the network with the neuron of the largest price, at its best size."""
        beta, design = self.problem.beta, self.problem.design
        best: tuple[float, Floats, float] | None = None
        if self.every is not None and not self.every.enumerated:
            found = self.every.searched(nu, target=beta)[1]
            if found is not None and found.attained > beta:
                best = (found.attained, found.direction, float(found.sign))
        if best is None:
            for side in (1.0, -1.0):
                neurons, _ = self._climbed(side * nu, point, most=1)
                if len(neurons.prices) and (best is None or neurons.prices[0] > best[0]):
                    best = (float(neurons.prices[0]), neurons.directions[0], side)
        if best is None or not best[0] > beta * (1 + self.global_tolerance):
            return None
        price, direction, side = best
        column, fit = side * np.maximum(design @ direction, 0.0), point_fit(point)
        loss, y = self.problem.loss, self.problem.y

        def along(size: float) -> float:
            return float(loss.value(fit + size * column, y)) + beta * size

        # A step that no loss of curvature at most 1 overshoots; where it has kinks, shorter ones.
        longest = (price - beta) / max(float(column @ column), 1e-300)
        for _ in range(HALVINGS):
            if along(longest) < along(0.0):
                break
            longest *= 0.5
        for _ in range(HALVINGS):
            if not along(2.0 * longest) < along(longest):
                break
            longest *= 2.0
        size = float(
            minimize_scalar(
                along, bounds=(0.0, 2.0 * longest), method="bounded",
                options={"xatol": 1e-9 * longest},
            ).x
        )  # fmt: skip
        size = min((size, longest), key=along)
        return self._escaped("new neuron", beta - price, with_block(point, size * direction, side))

    def _off_a_kink(self, point: ConvexPoint, nu: Floats) -> Escape | None:
        """Return the network whose worst neuron has left a tie with s ν_k > 0.

        Along d with x_kᵀd = ±1 and x_lᵀd = 0 at its other ties the objective falls at the rate
        s ν_k (1 − D_k), or s ν_k D_k to the other side, D the shares of the Clarke residual.  Where
        ties are dependent there is no such d, and the nearest one is tried.
        """
        program, design = point.program, self.problem.design
        signs, theta, penalised = program.atoms.signs, point.theta, program.gauge.penalised
        tied = ties(design, theta)
        kinks, wrong = bends(design, signs, nu, tied)
        if not wrong.size or not wrong.max() > 0:
            return None
        j, k = np.unravel_index(int(wrong.argmax()), wrong.shape)
        masks = settled_masks(design, penalised, theta, signs, nu, program.beta, tied)
        rows = np.flatnonzero(kinks[j])
        side = 1.0 if masks[j, k] <= 0.5 else -1.0
        step = side * np.linalg.lstsq(design[rows], (rows == k).astype(float))[0]
        step /= np.linalg.norm(step)
        unit = np.where(penalised, theta[j], 0.0)
        moving = design @ step
        slopes = np.where(tied[j], np.maximum(moving, 0.0), (design @ theta[j] > 0) * moving)
        rate = program.beta * float(unit @ step) / float(np.linalg.norm(unit))
        rate -= float(signs[j] * nu @ slopes)
        if not rate < -self.tolerance * program.beta:
            return None
        loss, y, before = self.problem.loss, self.problem.y, point.value
        length = float(np.linalg.norm(theta[j]))
        rest = point_fit(point) - signs[j] * np.maximum(design @ theta[j], 0.0)
        others = program.beta * float(np.delete(program.gauge.value(theta), j).sum())
        for _ in range(HALVINGS):
            moved = theta[j] + length * step
            fit = rest + signs[j] * np.maximum(design @ moved, 0.0)
            value = float(loss.value(fit, y)) + others
            if value + program.beta * float(np.linalg.norm(moved[penalised])) < before:
                kept = np.arange(len(theta)) != j
                without = replace(
                    point, program=program.take(np.flatnonzero(kept)), theta=theta[kept]
                )
                return self._escaped("kink", rate, with_block(without, moved, float(signs[j])))
            length *= 0.5
        return None

    def _escaped(self, kind: str, rate: float, point: ConvexPoint) -> Escape:
        """Return the network of a point and its objective."""
        parameters = self.problem.architecture.lower(point)
        with torch.no_grad():
            objective = float(self.problem.objective(parameters))
        network = Network(self.problem.architecture, parameters)
        return Escape(kind, float(rate), network, objective)


def _bound_of(certificate: Certificate) -> Bound:
    """Return the lower bound over all patterns that a certificate carries."""
    c = certificate
    if c.scope == GIVEN:
        raise BadInput(
            f"floor has scope {c.scope!r}: it must be the certificate of a solution over all "
            "patterns, as solve(problem) returns it."
        )
    if c.scope == SEARCH:
        return Bound(c.relaxed, c.nu, c.price_ratio, RELAXED, c.patterns)
    return Bound(c.dual, c.nu, c.price_ratio, c.scope, c.patterns)


def classify(
    problem: Problem, network: torch.nn.Module | Iterable[torch.nn.Module], **options: Any
) -> Any:
    """Return the `StationaryPoint` of a network, or a list of them for an iterable of networks.

    Args:
        problem: the training problem.
        network: a `Network`, a module that the architecture can read, or many.
        **options: of `Classifier`.

    Raises:
        BadInput: for something that is no network of the problem's architecture, or weights that
            are not finite.
    """
    judge = Classifier(problem, **options)
    if isinstance(network, torch.nn.Module):
        return judge(network)
    return [judge(one) for one in network]


@dataclass(frozen=True)
class Census:
    """Many networks of one problem, judged, as arrays over networks.

    Attributes:
        verdicts: positions in `VERDICTS`, shape (N,).
        objectives, own, own_bounds, gaps, prices: of the networks (see `StationaryPoint`).
        clarke, wrong: residuals relative to β, and wrong-signed ties.
        neurons, kinks: blocks after merging, and how many of them lie on kinks.
        group: which distinct point each network is (see `distinct`), −1 where not stationary.
        scopes: of the lower bounds.
    """

    verdicts: NDArray[np.int64]
    objectives: Floats
    own: Floats
    own_bounds: Floats
    gaps: Floats
    prices: Floats
    clarke: Floats
    wrong: Floats
    neurons: NDArray[np.int64]
    kinks: NDArray[np.int64]
    group: NDArray[np.int64]
    scopes: tuple[str, ...]

    def share(self, verdict: str) -> float:
        """Return the share of networks with a verdict."""
        return float(np.mean(self.verdicts == VERDICTS.index(verdict)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that is numbers, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "scopes"}
        return {name: np.asarray(values) for name, values in named.items()}


def census(
    judge: Classifier, networks: Iterable[torch.nn.Module], tolerance: float = 1e-6
) -> Census:
    """Judge many networks and tell which are the same point (see `distinct` for the tolerance)."""
    return summarise([judge(network) for network in networks], tolerance)


def summarise(points: Sequence[StationaryPoint], tolerance: float = 1e-6) -> Census:
    """Return the census of points that have been judged."""
    settled = [i for i, p in enumerate(points) if p.verdict in (GLOBAL, SPURIOUS, UNDECIDED)]
    group = np.full(len(points), -1)
    group[settled] = distinct([points[i] for i in settled], tolerance)[0]

    def every(name: str) -> np.ndarray:
        return np.array([getattr(point, name) for point in points])

    return Census(
        verdicts=np.array([VERDICTS.index(p.verdict) for p in points], dtype=np.int64),
        objectives=every("objective"),
        own=every("own"),
        own_bounds=every("own_bound"),
        gaps=every("gap"),
        prices=every("price"),
        clarke=every("clarke"),
        wrong=every("wrong"),
        neurons=every("neurons"),
        kinks=every("kinks"),
        group=group,
        scopes=tuple(dict.fromkeys(point.scope for point in points)),
    )


def read(problem: Problem, network: torch.nn.Module | Parameters) -> Parameters:
    """Return the parameters of a module, or parameters as they are, if finite."""
    parameters = network
    if isinstance(network, torch.nn.Module):
        parameters = problem.architecture.read(network)
    parameters = {k: v.detach().cpu().double() for k, v in cast("Parameters", parameters).items()}
    if not all(bool(torch.isfinite(values).all()) for values in parameters.values()):
        raise BadInput("network has NaN or infinite weights: it is no point of the landscape.")
    return parameters


def resolved(problem: Problem, point: ConvexPoint) -> tuple[ConvexPoint, bool]:
    """Return the same point in the program with its kinks resolved, own signs only.

    Every neuron on kinks contributes all full-dimensional cells that touch it, unless they may be
    more than CELLS; the second value says whether all are there.
    """
    architecture, design, program = problem.architecture, problem.design, point.program
    tied = ties(design, point.theta) if architecture.plain_neurons else None
    if tied is None or not tied.any():
        return point, True
    few = np.array(
        [
            arrangements.count(int(t), min(int(t), design.shape[1])) <= CELLS
            for t in tied.sum(axis=1)
        ]
    )
    masks, gates, signs, theta = [], [], [], []
    for side in (1.0, -1.0):
        mine = program.atoms.signs == side
        own = program.patterns[program.atoms.index[mine]]
        # Merging may have put two neurons of one pattern together; the pattern comes first here.
        all_ = own.union(arrangements.of(point.theta[mine & few], design))
        masks.append(np.asarray(all_))
        gates.append(all_.gates)
        signs.append(np.full(len(all_), side))
        placed = np.zeros((len(all_), point.theta.shape[1]))
        placed[: len(own)] = point.theta[mine]
        theta.append(placed)
    patterns = arrangements.Arrangements.from_bool(np.vstack(masks), np.vstack(gates))
    program = architecture.program(problem, patterns, np.concatenate(signs))
    return ConvexPoint(program, np.vstack(theta), point.constant), bool(few.all())


def both_signs(problem: Problem, point: ConvexPoint) -> Program:
    """Return the program over the patterns of a point with blocks of both signs."""
    own = resolved(problem, point)[0].program.patterns
    masks, first = np.unique(np.asarray(own), axis=0, return_index=True)
    return problem.architecture.program(
        problem, arrangements.Arrangements.from_bool(masks, own.gates[first])
    )


def point_fit(point: ConvexPoint) -> Floats:
    """Return the outputs of a convex point, shape (n,)."""
    return point.program.fit(point.theta, point.constant)


def with_block(point: ConvexPoint, u: Floats, sign: float) -> ConvexPoint:
    """Return the point with one more block, a plain neuron u = |a| w of output sign ``sign``."""
    program = point.program
    masks = np.vstack([program.atoms.masks[program.atoms.index], program.atoms.design @ u >= 0])
    patterns = arrangements.Arrangements.from_bool(
        masks, np.vstack([program.patterns.gates[program.atoms.index], u])
    )
    signs = np.append(program.atoms.signs, sign)
    index = np.arange(len(masks))
    atoms = replace(program.atoms, masks=masks, index=index, signs=signs)
    cones = None if program.cones is None else replace(program.cones, masks=masks, index=index)
    program = replace(program, atoms=atoms, cones=cones, patterns=patterns)
    return ConvexPoint(program, np.vstack([point.theta, u]), point.constant)


def distinct(
    points: Sequence[StationaryPoint], tolerance: float = 1e-6
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group points that are one up to permutation, positive rescaling and splitting of neurons.

    Two points are one if, after merging, they have the same number of blocks, and block for block
    the same sign (and gates) and the same u = |a| w within ``tolerance`` times the largest block.

    Returns:
        ``(group, first)``: the group of every point, shape (N,), and the position of each group's
        first point, groups in the order in which they appear.
    """
    group, first = np.full(len(points), -1), []
    for i, one in enumerate(points):
        for g, position in enumerate(first):
            if _same(one.point, points[position].point, tolerance):
                group[i] = g
                break
        else:
            group[i] = len(first)
            first.append(i)
    return group, np.array(first, dtype=np.int64)


def _same(a: ConvexPoint, b: ConvexPoint, tolerance: float) -> bool:
    """Whether two points have the same blocks, in any order."""
    (kinds, A), (others, B) = _blocks(a), _blocks(b)
    if A.shape != B.shape:
        return False
    p, targets = a.program.atoms.dimension, float(np.abs(a.program.y).max())
    scale = max(float(np.abs(M[:, :p]).max(initial=0.0)) for M in (A, B))
    near = np.full(A.shape[1:], tolerance * max(scale, 1e-300))
    near[p:] = tolerance * targets  # constants are outputs
    if a.program.cones is not None and not np.allclose(
        a.constant, b.constant, rtol=tolerance, atol=tolerance * targets
    ):
        return False
    left = list(range(len(B)))
    for kind, row in zip(kinds, A, strict=True):
        found = [
            j for j in left
            if np.array_equal(others[j], kind) and (np.abs(B[j] - row) <= near).all()
        ]  # fmt: skip
        if not found:
            return False
        left.remove(found[0])
    return True


def _blocks(point: ConvexPoint) -> tuple[Floats, Floats]:
    """Return what the blocks that are not zero are.

    Returns:
        ``(kinds, values)``: what must agree exactly, the sign and, where a block does not tell its
        pattern (gates), the pattern, shape (m, ·); θ, with its free part if every block has one,
        shape (m, p, c) or (m, p), (m, p + 1).
    """
    program, values = point.program, point.theta
    used, kinds = _used(values), program.atoms.signs[:, None]
    if program.cones is None:
        masks = program.atoms.masks[program.atoms.index]
        kinds = np.hstack([kinds, masks.astype(np.float64)])
        if len(point.constant) == len(values):
            values = np.concatenate([values, point.constant[:, None]], axis=1)
            used = _used(values)
    return kinds[used], values[used]


def _used(theta: Floats) -> NDArray[np.bool_]:
    """Which blocks are not zero, shape (G,)."""
    return np.asarray(theta.any(axis=tuple(range(1, theta.ndim))))
