r"""Networks of parallel units: what deep narrow, threshold and wedge networks have in common.

.. math::

    f(x) = \sum_k z_k\, g(x; ω_k) + ξ, \qquad
    \min_{z, ξ} \; ℓ\Big(\sum_g z_g\, g(X; ω_g) + ξ 1,\; y\Big) + β \sum_g |z_g|

A unit g(·; ω) of size one is scaled by rescaling its layers; the regulariser of the layers is at
least |z|, and is |z| where they are balanced.  So the training problem is a Lasso over the outputs
of units, and an architecture says only what its units are and how they are priced.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch

from landscape import dictionary
from landscape.architectures.base import Architecture, ConvexPoint
from landscape.architectures.modules import read_own
from landscape.dictionary import Columns, Lasso
from landscape.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscape.architectures.base import Floats, Parameters
    from landscape.arrangements import Arrangements
    from landscape.dictionary import Units
    from landscape.problem import Problem


STEP = 1e-5
"""Of one-sided differences, relative to the length of a unit's weights."""


class Parallel(Architecture):
    """A sum of units, each scaled by one number; subclasses say what a unit is.

    A network's parameters have their units on the first axis, and ``output`` (m,) weighs them;
    ``constant`` is the output bias ξ, where the architecture has one.  Subclasses also give
    `initial`, `penalty`, `units` (at size one, output weight positive), `first` and `oracle`.
    """

    has_constant: ClassVar[bool] = False
    """Whether there is a free output bias ξ."""

    @abstractmethod
    def each(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return what every unit adds to the output, shape (…, n, m), at inputs X (n, d)."""

    @abstractmethod
    def sizes(self, parameters: Parameters) -> torch.Tensor:
        """Return |z| of every unit, shape (…, m): the least penalty of one that does the same."""

    @abstractmethod
    def scaled(self, units: Units, z: Floats) -> Parameters:
        """Return the balanced network of units of size one times z (m,), without constant."""

    @abstractmethod
    def reach(self, problem: Problem) -> Floats:
        """Return bounds of |g(x_k; ω)| over every unit of size one worth considering, (n,)."""

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n)."""
        fit = self.each(parameters, X).sum(-1)
        return fit + parameters["constant"][..., None] if self.has_constant else fit

    def gates(self, parameters: Parameters) -> Floats:
        """Refuse: units have no gates of their own."""
        raise BadInput(
            f"architecture {self.label}: its units are no half-spaces, so they have no activation "
            "patterns; use `units` instead."
        )

    def program(
        self, problem: Problem, patterns: Arrangements | Units, signs: Floats | None = None
    ) -> Lasso:
        """Return the Lasso over the outputs of these units (``signs`` are z's own)."""
        units = dictionary.by_name(self.label, patterns)
        network = self.scaled(units, np.ones(dictionary.count(units)))
        with torch.no_grad():
            values = self.each(network, torch.as_tensor(problem.X)).numpy()
        free = np.ones((len(problem.y), 1)) if self.has_constant else None
        columns = Columns(values, units, self.reach(problem))
        return Lasso.of(problem.loss, problem.y, problem.beta, columns, free)

    def checked_units(self, problem: Problem, units: Any) -> Units:
        """Return units of size one, refusing others: they must be those of their own network."""
        units = super().checked_units(problem, units)
        count, other = dictionary.count(units), list(units)
        own = self.units(self.scaled(units, np.ones(count)))
        if dictionary.count(own) == count:
            other = [k for k, v in units.items() if not dictionary.same(own[k], v)]
        if other:
            raise BadInput(
                f"patterns: {', '.join(other)} are not those of units of size one; pass what "
                "`units(parameters)` of a network returns."
            )
        return own

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the units of one network with their sizes and signs."""
        taking_part = self.sizes(parameters) > 0
        kept = self._some(parameters, taking_part)
        z = self.sizes(kept) * kept["output"].sign()
        constant = np.zeros(int(self.has_constant))
        if self.has_constant:
            constant[0] = float(parameters["constant"].detach()) + self._dead(problem, parameters)
        program = self.program(problem, self.units(kept))
        return ConvexPoint(program, z.detach().cpu().numpy()[:, None], constant)

    def _some(self, parameters: Parameters, units: torch.Tensor) -> Parameters:
        """Return a network of some of its units; what they share stays whole."""
        whole = {k for k, v in parameters.items() if k in self.shared or not v.ndim}
        return {k: v if k in whole else v[units] for k, v in parameters.items()}

    def _dead(self, problem: Problem, parameters: Parameters) -> float:
        """Return the constant that units of size zero put out (behind free biases)."""
        with torch.no_grad():
            out = self.each(parameters, torch.as_tensor(problem.X))[0]
        return float(out[self.sizes(parameters) == 0].sum())

    def lower(self, point: ConvexPoint) -> Parameters:
        """Return the balanced network, one unit a column that is not zero."""
        z = point.theta[:, 0]
        used = z != 0
        columns = cast("Columns", point.program.atoms)
        parameters = self.scaled(dictionary.take(columns.units, used), z[used])
        if self.has_constant:
            parameters["constant"] = torch.tensor(float(point.constant[0]), dtype=torch.float64)
        return parameters

    def own(self, problem: Problem, parameters: Parameters) -> Lasso:
        """Return the program over the units of one network."""
        return cast("Lasso", self.lift(problem, parameters).program)

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return what units lack: in size |sign(z) νᵀa/β − 1|, sideways, and their imbalance.

        Sideways one weight of a unit moves at a time (`sideways`): at a local minimum nothing is
        lacking; at kinks that is not sufficient, because several weights may have to move at once.
        """
        point = self.lift(problem, parameters)
        signs = np.sign(point.theta[:, 0])
        clarke = np.abs(
            signs * (nu @ cast("Columns", point.program.atoms).values) / problem.beta - 1
        )
        lacking, wrong = self.sideways(problem, point, nu)
        clarke = np.maximum(clarke, lacking)
        if self.has_constant:
            clarke = np.append(clarke, abs(float(nu.sum())) / problem.beta)
        sizes = self.sizes(parameters)
        alive = sizes > 0
        kept = self._some(parameters, alive)
        with torch.no_grad():
            own = {k: v[:, None] for k, v in kept.items() if v.ndim and k not in self.shared}
            each = self.penalty(own)
        balance = 1.0 - (sizes[alive] / each).detach().cpu().numpy()
        return clarke, wrong, np.maximum(balance, 0.0)

    def sideways(self, problem: Problem, point: ConvexPoint, nu: Floats) -> tuple[Floats, Floats]:
        """Return what units of a point lack as one of their weights moves (function `sideways`)."""
        return sideways(self, problem, point, nu)

    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of our own `Network`."""
        return read_own(self, module)


def sideways(
    architecture: Architecture, problem: Problem, point: ConvexPoint, nu: Floats
) -> tuple[Floats, Floats]:
    r"""Return Clarke residuals and fastest falls as one weight of a unit moves either way.

    With r(±e) the one-sided rates at which :math:`ν^⊤f − βR` of a balanced unit of size one rises
    over β as a weight moves by the unit's own length, the fall is max r(±e) and the residual
    min(r(e), −r(−e)) if positive: at smooth points both are slopes, at a concave kink the second
    is zero.  Rates are differences at two steps, extrapolated, right to about 1e-9.

    Args:
        architecture: of parallel units, the first axis of their parameters.
        problem: the training problem.
        point: the convex point of a network.
        nu: its dual point, shape (n,).
    """
    sizes = point.program.gauge.value(point.theta)[:, None]
    if not len(sizes):
        return np.zeros(0), np.zeros(0)
    one = architecture.lower(replace(point, theta=point.theta / sizes))
    whole = {k: v for k, v in one.items() if k in architecture.shared or not v.ndim}
    own = {k: v[:, None].double() for k, v in one.items() if k not in whole}
    moved = [k for k in own if k not in (*architecture.fixed, "output")]
    length = sum((own[k] ** 2).flatten(1).sum(1) for k in moved).sqrt()  # (m,)
    X, pull = torch.as_tensor(problem.X), torch.as_tensor(nu)

    def height(parameters: Parameters) -> torch.Tensor:
        return architecture.forward({**parameters, **whole}, X) @ pull / problem.beta - (
            architecture.penalty(parameters)
        )

    lacking, wrong = torch.zeros_like(length), torch.zeros_like(length)
    with torch.no_grad():
        start = height(own)
        for name in moved:
            shape = own[name].shape
            for entry in range(own[name][0].numel()):
                rates = []
                for way in (1.0, -1.0):
                    slopes = []
                    for step in (STEP, STEP / 2):
                        flat = own[name].flatten(1).clone()
                        flat[:, entry] += way * step * length
                        trial = height({**own, name: flat.reshape(shape)})
                        slopes.append((trial - start) / step)
                    rates.append(2 * slopes[1] - slopes[0])
                lacking, wrong = faster(lacking, wrong, *rates)
    return lacking.numpy(), wrong.numpy()


def faster(
    lacking: torch.Tensor, wrong: torch.Tensor, up: torch.Tensor, down: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Clarke residuals and falls, (m,), with the rates of one more weight either way."""
    both = torch.maximum(torch.minimum(up, -down), torch.minimum(down, -up))
    return torch.maximum(lacking, both), torch.maximum(wrong, torch.maximum(up, down))


class Amplified(Parallel):
    """Units that do not change with the size of their weights: s a g(x), with s, a of their own.

    Parameters ``amplitude`` (m,) and ``output`` (m,); R = ½ Σ(s² + a²).
    """

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return ½ Σ(s² + a²), shape (…,)."""
        return 0.5 * (parameters["amplitude"] ** 2 + parameters["output"] ** 2).sum(-1)

    def sizes(self, parameters: Parameters) -> torch.Tensor:
        """Return |s a|, shape (…, m)."""
        return (parameters["amplitude"] * parameters["output"]).abs()


def split(z: Floats) -> Parameters:
    """Return the balanced amplitudes s = √|z| and output weights a = ±√|z| of sizes z."""
    share = np.sqrt(np.abs(z))
    return {"amplitude": torch.as_tensor(share), "output": torch.as_tensor(np.sign(z) * share)}


def constants(seeds: Sequence[int]) -> torch.Tensor:
    """Return an output bias of zero for every seed."""
    return torch.zeros(len(seeds), dtype=torch.float64)


def distinct(
    units: Units, values: Floats, order: Floats, most: int, alike: float = 1 - 1e-12
) -> dict[str, Any]:
    """Return the first units in an order of whose columns (n, G) no two have this |cosine|."""
    unit = values / np.maximum(np.linalg.norm(values, axis=0), 1e-300)
    taken: list[int] = []
    left = np.array(order, dtype=np.float64)
    while len(taken) < most and len(left) and np.isfinite(left).any():
        taken.append(int(left.argmax()))
        left[np.abs(unit[:, taken[-1]] @ unit) >= alike] = -np.inf
        left[taken[-1]] = -np.inf
    return dictionary.take(units, np.array(taken, dtype=np.int64))
