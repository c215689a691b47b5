"""`OptimalSet`: what is known of all optimal networks from one certified solution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.linalg import null_space
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

from landscape import arrangements
from landscape.architectures.base import ConvexPoint
from landscape.bounds import residual
from landscape.errors import BadInput, NotConverged
from landscape.network import Network
from landscape.nonnegative import least_squares
from landscape.optimal_set.directions import NEAR
from landscape.optimal_set.finding import is_lasso, optimal_directions
from landscape.optimal_set.functions import vanish
from landscape.optimal_set.polytope import RANK, ZERO, Polytope
from landscape.optimal_set.ramps import at_samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from landscape.architectures.base import Parameters
    from landscape.arrangements import Arrangements
    from landscape.programs import Floats
    from landscape.solvers.solution import Solution

CARRIED = 1e-6
"""What of the fit (relative) the directions may fail to carry."""


class Components(NamedTuple):
    """The components of the optimal set at one width, neurons labelled.

    Attributes:
        segments: components of more than one point.
        isolated: components of one point.
    """

    segments: int
    isolated: int


class OptimalSet:
    """All optimal networks of a solved problem.

    Args:
        solution: a certified solution; its scope is inherited by everything here.
        patterns: of scope "given patterns": the patterns over which it was solved.
        limit: patterns up to which directions are found by pricing every one of them; beyond,
            or where branch and bound proved the solution without a list, they are sought by
            climbs, and ``listed`` is False.
        rays, seconds: limits of the searches for vertices (see `Polytope`).
        seed: of the climbs.

    Attributes:
        directions: unit blocks ū_k of price β, shape (K, p), with ``signs`` (K,).
        features: what each adds to the fit, A, shape (n, K).
        polytope: {c ≥ 0 : Ac = ŷ}; with a free output bias of A and ŷ without their means.
        offset: what outputs have beside those of directions: the mean of ŷ, or 0 without a free
            output bias.
        scope: of the solution.
        listed: whether every pattern in scope was priced to find the directions.
        spread, separation: how far prices that count as β are from it (relative), and how far
            below β the next price is: a set is clear if the second is much the larger.

    Raises:
        BadInput: where the set is no such polytope: a loss that is not strictly convex (optima
            differ in their fit), several outputs (the set is not polyhedral), a free bias with
            several inputs (with one it is a Lasso over ramps, see `landscape.optimal_set.ramps`:
            networks are those with kinks at samples, to which `coefficients` brings others).
        NotConverged: if the directions found do not carry the fit.

    Example:
        >>> from landscape import Problem, data, solve
        >>> toy = data.load("toy_sqrt3")
        >>> optima = OptimalSet(solve(Problem(toy.X, toy.y, 0.1)))
        >>> optima.m_star, optima.M_star, optima.components(2)
        (1, 2, Components(segments=1, isolated=2))
    """

    def __init__(
        self,
        solution: Solution,
        *,
        patterns: Arrangements | None = None,
        limit: int = 200_000,
        rays: int = 20_000,
        seconds: float = 30.0,
        seed: int = 0,
    ) -> None:
        problem = self.problem = solution.problem
        self.solution, self.scope = solution, solution.certificate.scope
        self._check()
        nu = residual(solution.point)
        found, self.listed = optimal_directions(solution, nu, patterns, limit, seed)
        self.directions, self.signs = found.units, found.signs
        self.masks, self._gates = found.masks, found.gates
        self.spread, self.separation = found.spread, 1.0 - found.below
        if self.spread > NEAR:
            raise NotConverged(
                f"A direction prices {self.spread:.1e} above β, relatively: the dual point is too "
                "rough to tell which directions are optimal. Solve with a smaller tolerance."
            )
        every = arrangements.Arrangements.from_bool(self.masks, found.gates)
        self.program = problem.architecture.program(problem, every, self.signs)
        self.features = self._features()
        fit = solution.point.program.fit(solution.point.theta, solution.point.constant)
        # A free output bias takes up the mean of every feature, and of the fit.
        self._means = self.features.mean(axis=0) * self._ramps
        self.offset = float(fit.mean()) * self._ramps
        varying, aim = self.features - self._means, fit - self.offset
        c, rest = least_squares(varying, aim)
        if rest > CARRIED * float(np.linalg.norm(fit)):
            raise NotConverged(
                f"The {len(self.signs)} directions of price β leave {rest:.1e} of the fit: the "
                "dual point is too rough, or limit too low. Solve with a smaller tolerance."
            )
        self.fit = varying @ c + self.offset
        self.polytope = Polytope(varying, varying @ c, rays, seconds)

    def _check(self) -> None:
        """Refuse problems whose optimal set is not the polytope of the theorem."""
        problem = self.problem
        if problem.y.ndim != 1:
            raise BadInput(
                "solution has several outputs: their optimal set is no polytope (blocks are "
                "matrices, and a nuclear norm has curved faces)."
            )
        if problem.architecture.searched and not problem.architecture.plain_neurons:
            raise BadInput(
                f"solution has architecture {problem.architecture.label}: optimal sets are known "
                "here for two-layer ReLU networks without a skip connection, and for gated ones."
            )
        if not problem.loss.strict:
            raise BadInput(
                f"solution has the {problem.loss.name} loss, which is not strictly convex: its "
                "optima differ in their fit. Use squared or logistic."
            )
        self._ramps = is_lasso(problem)
        if getattr(problem.architecture, "bias", "none") == "free" and not self._ramps:
            raise BadInput(
                "solution has a free bias: a neuron open on all samples can be shifted against the "
                "output bias, so optimal directions are not finitely many. Use bias='penalised', "
                "or a two-layer network with one input."
            )

    def _features(self) -> Floats:
        columns = [self.program.atoms.matrix(k) @ unit for k, unit in enumerate(self.directions)]
        return np.column_stack(columns) if columns else np.zeros((len(self.problem.y), 0))

    @property
    def vertices(self) -> Floats:
        """Coefficients of the optima with independent features, shape (V, K), fewest first."""
        return self.polytope.vertices

    @property
    def edges(self) -> np.ndarray:
        """Pairs of adjacent vertices, shape (E, 2)."""
        return self.polytope.edges

    @property
    def unique(self) -> bool:
        """Whether there is one optimal network up to permutation and splitting."""
        return self.polytope.unique

    @property
    def one_function(self) -> bool:
        r"""Whether all optimal networks are one function, at every input.

        At small β they usually are many networks and one function: once p independent pairs ±ū_k
        are optimal, :math:`X^⊤ν^* = 0`, so every direction comes with its opposite, and
        :math:`(x^⊤ū)_+ - (-x^⊤ū)_+` is linear: only sums of those are determined.
        """
        used = self.polytope.used
        null = null_space(self.polytope.equations[0][:, used], RANK)
        weights = self.signs[used] / self.polytope.scales[used]
        blocks = weights[:, None] * self.directions[used]
        shifts = -self._means[used] / self.polytope.scales[used]
        inputs = self.problem.X.shape[1]
        return vanish(null, blocks, self._gates[used], shifts, inputs, CARRIED)

    @property
    def m_star_bounds(self) -> tuple[int, int]:
        """Bounds of the fewest neurons of an optimal network, equal where known."""
        if self.polytope.complete:
            least = int(self.polytope.supports.sum(axis=1).min())
            return least, least
        return self.polytope.fewest()

    @property
    def M_star_bounds(self) -> tuple[int, int]:
        """Bounds of the most neurons of an optimal network with independent features."""
        most = int(self.polytope.supports.sum(axis=1).max())
        return most, most if self.polytope.complete else self.polytope.rank

    @property
    def m_star(self) -> int:
        """The fewest neurons of an optimal network."""
        return self._known("m_star", self.m_star_bounds)

    @property
    def M_star(self) -> int:
        """The most neurons of an optimal network with linearly independent features."""
        return self._known("M_star", self.M_star_bounds)

    def _known(self, name: str, bounds: tuple[int, int]) -> int:
        if bounds[0] != bounds[1]:
            raise BadInput(
                f"{name} is only known to lie between {bounds[0]} and {bounds[1]} "
                f"({name}_bounds): {self.polytope.status}"
            )
        return bounds[0]

    def components(self, width: int) -> Components:
        """Count the components of the set of optimal networks of ``width`` labelled neurons.

        Isolated points are the relabellings of the vertices with exactly ``width`` neurons; the
        others are those of `members`.

        Raises:
            BadInput: as `members`.
        """
        segments = len(self.members(width))
        counts = self.polytope.supports.sum(axis=1)
        if not counts.any():  # the zero network, at every width
            return Components(0, 1)
        return Components(segments, math.factorial(width) * int((counts == width).sum()))

    def members(self, width: int) -> list[np.ndarray]:
        """Return which vertices are in each component of more than one point at a width.

        Those with fewer neurons, joined by edges on which at most ``width`` neurons are in use; a
        spare neuron allows any relabelling.  `route` goes between two of one component.

        Raises:
            BadInput: if not all vertices are known, or for fixed gates, which have no width.
        """
        if not self.problem.architecture.plain_neurons:
            raise BadInput(
                f"architecture {self.problem.architecture.label} has fixed gates: its networks "
                "have no width to vary. The polytope itself is connected."
            )
        if self._ramps:
            raise BadInput(
                "components: with a free bias kinks move between samples at no cost; only the "
                "networks with kinks at samples are a polytope, which is connected."
            )
        if not self.polytope.complete:
            raise BadInput(f"components need all vertices. {self.polytope.status}")
        labels = self.polytope.components(width)
        return [np.flatnonzero(labels == k) for k in range(int(labels.max(initial=-1)) + 1)]

    @property
    def theorem_width(self) -> int:
        """Width from which on the theorem has the set connected: min(m* + M*, n + 1)."""
        return min(self.m_star + self.M_star, len(self.problem.y) + 1)

    @property
    def connected_bounds(self) -> tuple[int, int]:
        """Bounds of the width from which on the set is connected, equal where known.

        By counting if all vertices are known.  Otherwise: two adjacent vertices use at most
        rank + 1 directions together, so that width is enough; and at width m* ≥ 2 there are
        several relabellings of isolated points.
        """
        if not self.polytope.complete:
            least = self.m_star_bounds[0]
            return least + (least > 1), self.polytope.rank + 1
        width = self.theorem_width
        while width > max(self.m_star, 1) and sum(self.components(width - 1)) == 1:
            width -= 1
        return width, width

    @property
    def connected_width(self) -> int:
        """Width from which on the set is connected."""
        return self._known("connected_width", self.connected_bounds)

    def route(self, first: Floats, last: Floats, width: int) -> Floats:
        """Return points of the set; straight lines from one to the next stay in it.

        No line has more than ``width`` coefficients in use: it leads from an end to a vertex of
        its face, or along an edge.

        Args:
            first: coefficients of one end, shape (K,).
            last: of the other.
            width: neurons at hand, as many as each end has positive coefficients or more.

        Returns:
            Coefficients, shape (L, K), with both ends.

        Raises:
            BadInput: if there is no such route: the ends lie in different components.
        """
        supports, pairs = self.polytope.supports, self.edges
        counts = supports.sum(axis=1)
        joint = (supports[pairs[:, 0]] | supports[pairs[:, 1]]).sum(axis=1)
        pairs = pairs[(joint <= width) & (counts[pairs] < width).all(axis=1)]
        graph = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(counts),) * 2)
        ends = []
        for c in (first, last):
            if (np.asarray(c) > 0).sum() > width:
                raise BadInput(f"width is {width}: an end has {(np.asarray(c) > 0).sum()} neurons.")
            below = ~(supports & ~(np.asarray(c) > 0)).any(axis=1)
            if not below.any():
                raise BadInput("an end of the route is no point of the optimal set.")
            ends.append(int(np.flatnonzero(below)[0]))  # vertices with few neurons come first
        far, before = shortest_path(
            graph.tocsr(), directed=False, indices=ends[0], return_predecessors=True
        )
        if not np.isfinite(far[ends[1]]):
            raise BadInput(f"the ends lie in different components of the set at width {width}.")
        route = [ends[1]]
        while route[-1] != ends[0]:
            route.append(int(before[route[-1]]))
        points = np.vstack([first, self.vertices[route[::-1]], last])
        moved = np.abs(np.diff(points, axis=0)).max(axis=1) > 0
        return points[np.r_[True, moved]]

    def point(self, coefficients: Floats) -> ConvexPoint:
        """Return the optimum with coefficients c (K,) as a point of the convex program."""
        c = np.asarray(coefficients, dtype=np.float64)
        if c.shape != (len(self.signs),) or not (c >= 0).all():
            raise BadInput(f"coefficients must be non-negative, one of {len(self.signs)} each.")
        if not self._carries(c, CARRIED):
            raise BadInput(
                "coefficients do not give the optimal fit: they are no point of the set."
            )
        constant = self.program.zero()[1] + self.offset - self._means @ c
        return ConvexPoint(self.program, c[:, None] * self.directions, constant)

    def _carries(self, c: Floats, tolerance: float) -> bool:
        """Return whether coefficients give the optimal fit, relatively."""
        fit = (self.features - self._means) @ c + self.offset
        return bool(np.linalg.norm(fit - self.fit) <= tolerance * np.linalg.norm(self.fit))

    def network(self, coefficients: Floats) -> Network:
        """Return the balanced network of coefficients c (K,), one neuron a positive entry."""
        architecture = self.problem.architecture
        return Network(architecture, architecture.lower(self.point(coefficients)))

    def coefficients(self, network: torch.nn.Module | Parameters) -> Floats:
        """Return the coefficients of an optimal network, collinear neurons joined, shape (K,).

        Raises:
            BadInput: if it has a neuron that no optimal network has, or another fit.
        """
        architecture = self.problem.architecture
        read = architecture.read(network) if isinstance(network, torch.nn.Module) else network
        point = architecture.lift(self.problem, read)
        c = np.zeros(len(self.signs))
        sizes = point.program.gauge.value(point.theta)
        atoms = point.program.atoms
        blocks = zip(point.theta, atoms.signs, sizes, atoms.masks[atoms.index], strict=True)
        for theta, sign, size, mask in blocks:
            if size <= ZERO * sizes.max():
                continue
            unit = theta / size
            for share, part in at_samples(self.problem, unit) if self._ramps else [(1.0, unit)]:
                apart = np.linalg.norm(self.directions - part, axis=1)
                apart[self.signs != sign] = np.inf
                if point.program.cones is None:  # a gate's pattern is not that of its weights
                    apart[(self.masks != mask).any(axis=1)] = np.inf
                if len(apart) and apart.min() <= 1e-4:
                    c[int(apart.argmin())] += share * size
                elif share > 1e-4:
                    raise BadInput("network has a neuron whose direction no optimal network has.")
        if not self._carries(c, 1e-4):
            raise BadInput("network has another fit than the optimal networks.")
        return c

    def least(self) -> Floats:
        """Return the coefficients of an optimal network of m* neurons."""
        return self.vertices[0]

    def most(self) -> Floats:
        """Return coefficients that use every direction in use at a known vertex."""
        return self.vertices.mean(axis=0)

    def smallest(self) -> Floats:
        """Return the coefficients of least Σ‖u‖² (the min-ℓ2 member of Mishkin & Pilanci)."""
        import cvxpy

        return self._minimiser(cvxpy.sum_squares)

    def largest_l1(self) -> Floats:
        """Return the coefficients of largest Σ‖u‖₁ (their max-ℓ1 member), a vertex."""
        counted = self.problem.architecture.penalised(self.problem)
        return self.polytope.largest(np.abs(self.directions[:, counted]).sum(axis=1))[1]

    def outputs(self, X: Floats) -> Floats:
        """Return what each direction adds to the outputs at new inputs X (N, d), shape (N, K).

        Outputs of the network of coefficients c are these times c, plus `offset`.
        """
        architecture, columns = self.problem.architecture, [np.zeros((len(X), 0))]
        for k in range(len(self.signs)):
            alone = ConvexPoint(
                self.program.take(np.array([k])),
                self.directions[k : k + 1],
                self.program.zero()[1] - self._means[k],
            )
            network = Network(architecture, architecture.lower(alone))
            with torch.no_grad():
                columns.append(network(np.asarray(X, dtype=np.float64)).numpy()[:, None])
        return np.hstack(columns)

    def best(self, X: Floats, y: Floats) -> Floats:
        """Return the coefficients of least loss on held-out data, over the whole set.

        Args:
            X: held-out inputs, shape (N, d).
            y: their targets, shape (N,).
        """
        outputs, loss = self.outputs(X), self.problem.loss
        return self._minimiser(lambda c: loss.expression(outputs @ c + self.offset, loss.check(y)))

    def _minimiser(self, objective: Callable[[Any], Any]) -> Floats:
        """Return the point of the polytope that minimises a convex function of c (Clarabel)."""
        import cvxpy

        if self.unique:  # nothing to choose, and no interior for a solver to move in
            return self.vertices[0]
        rows, r = self.polytope.equations
        c, scales = cvxpy.Variable(len(self.signs)), self.polytope.scales
        program = cvxpy.Problem(
            cvxpy.Minimize(objective(c)), [rows @ cvxpy.multiply(scales, c) == r, c >= 0]
        )
        program.solve(solver=cvxpy.CLARABEL)
        if c.value is None:
            raise NotConverged(f"Clarabel found no member of the optimal set: {program.status}.")
        found = np.maximum(c.value, 0.0)
        return np.where(found > ZERO * found.max(initial=0.0), found, 0.0)  # Clarabel's dust goes
