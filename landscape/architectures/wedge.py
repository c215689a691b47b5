r"""Two-layer ReLU networks by hyperplanes through samples (Pilanci, arXiv 2309.16512).

.. math::

    f(x) = \sum_j (x^⊤w_j + b_j)_+ a_j + ξ, \qquad R = \tfrac12 \sum_j (\|w_j\|_p^2 + a_j^2),
    \qquad p ∈ \{1, 2\}

with free b and ξ, or neither.  The program is a Lasso over neurons whose hyperplane passes through
d samples (d − 1 and the origin without bias): generalised cross products of differences of samples.

*ℓ1 is exact* once hyperplanes may also be parallel to coordinate axes.  On a cell of the
arrangement of samples *and* axes a price is linear and :math:`\|w\|_1` is, so that the ratio is
largest at an extreme ray, where d of the hyperplanes :math:`x_k^⊤w + b = 0`, :math:`w_k = 0` meet.
With hyperplanes through samples alone (``axes=False``) the Lasso is an upper bound only.

*ℓ2 is an approximation* unless d = 1: neurons of the best network need not contain d samples.  The
Lasso's optimum is an upper bound of that of `TwoLayer`, and lower bounds here are those of the
continuous problem: by branch and bound over all neurons where that ends, else by
:math:`\|w\|_1 \le \sqrt d\,\|w\|_2`, within a factor √d of the largest price in polynomial time.
Coordinates of ℓ2 are the principal axes, so that turning the data changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch

from landscape import dictionary
from landscape.architectures.parallel import Parallel, constants, distinct
from landscape.architectures.rows import seeded_normal
from landscape.arrangements import wedges
from landscape.dictionary import Oracle, Priced
from landscape.errors import BadInput, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Units
    from landscape.problem import Problem

EPSILON = float(np.finfo(np.float64).eps)
BIASES = ("free", "none")
MOST = 64
"""Neurons that one pricing returns at most."""
CANDIDATES = 512
"""Hyperplanes among which they are chosen, no two alike."""
ALIKE = 0.999
"""Cosine of outputs from which on a second neuron adds little."""
LEAST = 100_000
"""Pencils that are always swept, whatever the effort."""


@dataclass(frozen=True)
class Wedge(Parallel):
    """A two-layer ReLU network whose convex face is a Lasso over wedge products.

    Attributes:
        norm: p of the norm of hidden weights: 1 (exact) or 2 (an approximation).
        bias: "free" (and a free output bias), or "none".
        axes: whether hyperplanes parallel to coordinate axes are in the dictionary.
    """

    norm: int = 1
    bias: Literal["free", "none"] = "free"
    axes: bool = True
    name: ClassVar[str] = "wedge"

    def __post_init__(self) -> None:
        """Refuse unknown norms and biases."""
        if self.norm not in (1, 2):
            raise BadInput(f"norm is {self.norm!r}: it must be 1 or 2.")
        if self.bias not in BIASES:
            raise unknown("bias", self.bias, BIASES)

    @property
    def has_constant(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether there is a free output bias ξ."""
        return self.bias == "free"

    @property
    def within_neurons(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """ℓ2: every unit is a ReLU neuron of norm one."""
        return self.norm == 2

    def check(self, X: Floats, y: Floats) -> None:
        """Refuse what all refuse, and too few samples for a hyperplane."""
        super().check(X, y)
        if not self.axes:
            wedges.check_enough(len(X), X.shape[1] - (self.bias == "none"))

    def penalised(self, problem: Problem) -> NDArray[np.bool_]:
        """Return which coordinates of a hidden weight count: a bias does not."""
        return np.arange(problem.design.shape[1]) < problem.X.shape[1]

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with (w, b) ~ N(0, scale²/D) and a ~ N(0, scale²/m); ξ = 0."""
        p = problem.design.shape[1]
        draws = seeded_normal(seeds, width, p + 1)
        parameters = {
            "hidden": scale / p**0.5 * draws[..., :p],
            "output": scale / width**0.5 * draws[..., p],
        }
        if self.has_constant:
            parameters["constant"] = constants(seeds)
        return parameters

    def each(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return the output of every neuron, shape (…, n, m)."""
        hidden = parameters["hidden"]
        before = X @ hidden[..., : X.shape[1]].mT
        if self.has_constant:
            before = before + hidden[..., None, :, -1]
        return torch.relu(before) * parameters["output"][..., None, :]

    def _lengths(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return ‖w‖_p, shape (…, m)."""
        weights = hidden[..., :-1] if self.has_constant else hidden
        return weights.norm(p=self.norm, dim=-1)

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return ½ Σ(‖w‖_p² + a²), shape (…,); biases do not count."""
        lengths = self._lengths(parameters["hidden"])
        return 0.5 * (lengths**2 + parameters["output"] ** 2).sum(-1)

    def sizes(self, parameters: Parameters) -> torch.Tensor:
        """Return ‖w‖_p |a|, shape (…, m)."""
        return self._lengths(parameters["hidden"]) * parameters["output"].abs()

    def gates(self, parameters: Parameters) -> Floats:
        """Return the hidden weights of the neurons that take part, shape (m', D)."""
        alive = self.sizes(parameters) > 0
        return parameters["hidden"][alive].detach().cpu().numpy().astype(np.float64)

    def units(self, parameters: Parameters) -> Units:
        """Return hidden weights and biases at ‖w‖_p = 1, (m, D)."""
        alive = self.sizes(parameters) > 0
        hidden = parameters["hidden"][alive].detach()
        return {"hidden": (hidden / self._lengths(hidden)[:, None]).cpu().numpy().astype(float)}

    def scaled(self, units: Units, z: Floats) -> Parameters:
        """Return the network with ‖w‖_p = |a| = √|z|."""
        share = np.sqrt(np.abs(z))
        return {
            "hidden": torch.as_tensor(share[:, None] * units["hidden"]),
            "output": torch.as_tensor(np.sign(z) * share),
        }

    def reach(self, problem: Problem) -> Floats:
        """Return how far a sample can be from a hyperplane through another (or the origin)."""
        X, dual = problem.X, np.inf if self.norm == 1 else 2
        if self.has_constant:
            X = np.maximum(X.max(axis=0) - X, X - X.min(axis=0))
        return np.linalg.norm(X, ord=dual, axis=1)

    def first(self, problem: Problem, seed: int) -> Units:
        """Return the coordinate axes, or some random hyperplanes where those do not count."""
        if not self.axes:
            return self.features(problem, count=4 * problem.design.shape[1], seed=seed)
        X, bias = self._coordinates(problem)
        hidden = np.vstack([np.eye(X.shape[1]), -np.eye(X.shape[1])])
        if bias:
            hidden = np.column_stack([hidden, -(X @ hidden.T).min(axis=0)])
        return self._unscaled(problem, hidden)

    def features(
        self, problem: Problem, count: int | None = None, seed: int = 0, sketch: int | None = None
    ) -> Units:
        """Return neurons on hyperplanes through samples, both signs, as units.

        Args:
            problem: the data.
            count: how many hyperplanes to draw; None lists all of them, axes included.
            seed: of the random numbers.
            sketch: draw hyperplanes after mapping the columns of X to this many: they then
                contain as many samples, and w lies in the range of the map.

        Raises:
            TooManyPatterns: if all are asked for and are more than 100 000.
        """
        X, bias = self._coordinates(problem)
        lift = np.eye(X.shape[1]) if sketch is None else wedges.sketching(X.shape[1], sketch, seed)
        enough = X.shape[1] - (not bias) <= len(X)
        axes = self.axes and sketch is None and (count is None or not enough)
        rows, centre, radius = wedges.rows_of(X @ lift, bias, axes)
        size = rows.shape[1] - 1
        wedges.check_enough(len(rows), size)
        if count is None:
            total = math.comb(len(rows), size)
            wedges.check_count(total, 1, LEAST, "pass count=, or let solve price them.")
            sets = wedges.subsets(len(rows), size)
        else:
            sets = wedges.draws(len(rows), size, count, seed)
        hidden = self._hyperplanes(rows, sets, centre, radius)
        if not len(hidden):
            raise BadInput(
                "no drawn hyperplane is determined by its samples: draw more, or sketch to fewer "
                "columns than X has independent ones."
            )
        weights = hidden[:, : lift.shape[1]] @ lift.T
        return self._unscaled(problem, np.hstack([weights, hidden[:, lift.shape[1] :]]))

    def _coordinates(self, problem: Problem) -> tuple[Floats, bool]:
        """Return samples in coordinates of the norm: X, or for ℓ2 on its principal axes."""
        if self.norm == 1:
            return problem.X, self.has_constant
        return problem.X @ self._turn(problem), self.has_constant

    def _turn(self, problem: Problem) -> Floats:
        """Return the principal axes along which samples differ, shape (d, r)."""
        X = problem.X
        if self.has_constant:
            X = X - X.mean(axis=0)
        _, sizes, right = np.linalg.svd(X, full_matrices=False)
        kept = sizes > max(X.shape) * EPSILON * sizes.max(initial=0.0)
        return right[kept].T if kept.any() else np.eye(X.shape[1])[:, :1]

    def _hyperplanes(
        self, rows: Floats, sets: NDArray[np.int64], centre: Floats, radius: float
    ) -> Floats:
        """Return (w, b) of the hyperplanes through these rows, both signs, in coordinates of X."""
        u, determined = wedges.cross(rows[sets])
        d = len(centre)
        u = u[determined & (np.linalg.norm(u[:, :d], axis=1) > 0.5)]
        u = np.where(np.abs(u) <= 4 * d * EPSILON, 0.0, u)
        hidden = u[:, :d] / radius
        if self.has_constant:
            hidden = np.column_stack([hidden, u[:, -1] - hidden @ centre])
        return np.concatenate([hidden, -hidden])

    def _unscaled(self, problem: Problem, hidden: Floats) -> Units:
        """Return units of hidden weights in the coordinates of the norm."""
        if self.norm == 2:
            turn = self._turn(problem)
            weights = hidden[:, : turn.shape[1]] @ turn.T
            hidden = np.hstack([weights, hidden[:, turn.shape[1] :]])
        d = problem.X.shape[1]
        return {"hidden": hidden / np.linalg.norm(hidden[:, :d], self.norm, axis=1)[:, None]}

    def oracle(self, problem: Problem, effort: int) -> Oracle:
        """Return what prices every hyperplane through samples and axes, pencil by pencil.

        Raises:
            TooManyPatterns: if there are more pencils than ``effort`` and 100 000 (an effort of 0
                is no effort: nothing is refused before it is priced).
        """
        X, bias = self._coordinates(problem)
        one, padded = X.shape[1] == 1, X.shape[1] + bias == 1
        if padded:  # one input through the origin, w = ±1: in the plane, on its axes
            X = np.hstack([X, np.zeros((len(X), 1))])
        pencils = math.comb(len(X) + X.shape[1], X.shape[1] + bias - 2)
        limit = max(effort, LEAST)
        advice = (
            "project the data on fewer columns, raise the limit, or solve over a sample of them, "
            "solve(problem, patterns=architecture.features(problem, count=2000))."
        )
        if effort:
            wedges.check_count(pencils, len(X), limit, advice)
        rows, centre, radius = wedges.rows_of(X, bias, axes=True)
        swept: list[wedges.Pencils] = []

        def price(nu: Floats, target: float = 0.0) -> Priced:
            wedges.check_count(pencils, len(X), limit, advice)
            if not swept:
                swept.append(wedges.Pencils(rows, bias, len(X)))
            found = swept[0].sweep(nu, self.norm, self.axes, CANDIDATES, target / radius)
            bound = radius * (found.largest[0] + found.charge)
            hidden = self._hyperplanes(rows, found.members, centre, radius)
            if padded:
                hidden = hidden[hidden[:, 0] != 0, :1]
            units = self._unscaled(problem, hidden)
            columns = self.program(problem, units).atoms.values
            prices = np.abs(nu @ columns)
            above = np.flatnonzero(prices > target)
            units = dictionary.take(units, above)
            units = distinct(units, columns[:, above], prices[above], MOST, ALIKE)
            if self.norm == 2 and not one:
                bound *= X.shape[1] ** 0.5
            count = 2 * math.comb(len(rows), rows.shape[1] - 1)
            return Priced(bound * (1 + 8 * EPSILON), one or self.norm == 1, units, count)

        return price
