r"""Units that put out a step: what threshold and sign networks, two-layer and deep, share.

.. math:: f(x) = \sum_k a_k s_k\, g_k(x) + ξ, \qquad R = \tfrac12 \sum_k (s_k^2 + a_k^2)

with :math:`g_k(x) = 1[h_k(x) ≥ 0]` ("threshold") or :math:`g_k(x) = ±1` by the same test ("sign";
sign 0 = 1).  The weights inside h_k are free: scaling them changes nothing.  By
:math:`\tfrac12 (s^2 + a^2) ≥ |as|`, with equality where |s| = |a|, training is a Lasso over the
patterns g(X) that units can make (Ergen, Gulluk, Lacotte & Pilanci, ICLR 2023).

A step has no slope.  *Straight-through* training runs the step forward and a surrogate's slope
backward: that of the identity, of ReLU, of leaky ReLU (0.01), or of a ramp clipped to the step's
range.  Objectives are always those of the true step.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch

from landscape import dictionary
from landscape.architectures.base import ConvexPoint
from landscape.architectures.parallel import Amplified, split
from landscape.arrangements.cells import distinct
from landscape.dictionary import Columns
from landscape.errors import BadInput, unknown

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Units
    from landscape.network import Network
    from landscape.problem import Problem

ACTIVATIONS = ("threshold", "sign")
SURROGATES = ("identity", "relu", "leaky_relu", "clipped_relu")
OWN = ("amplitude", "output", "constant")
"""Parameters that scale units; all others say what units are."""
EPSILON = float(np.finfo(np.float64).eps)
EXACT = 1e-9
"""A bound counts as attained up to this, relatively."""


@dataclass(frozen=True)
class Steps(Amplified):
    """A sum of steps, each with an amplitude s and an output weight a.

    Attributes:
        activation: "threshold" (0 or 1) or "sign" (−1 or 1), in every layer.
        surrogate: whose slope training uses: "identity", "relu", "leaky_relu" or "clipped_relu".
    """

    activation: Literal["threshold", "sign"] = "threshold"
    surrogate: Literal["identity", "relu", "leaky_relu", "clipped_relu"] = "clipped_relu"

    def __post_init__(self) -> None:
        """Refuse unknown activations and surrogates."""
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.surrogate not in SURROGATES:
            raise unknown("surrogate", self.surrogate, SURROGATES)

    @abstractmethod
    def steps(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return the steps g_k(x_i) of all units, shape (…, n, m)."""

    def each(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return the output of every unit, shape (…, n, m)."""
        weight = parameters["amplitude"] * parameters["output"]
        return self.steps(parameters, X) * weight[..., None, :]

    def step(self, before: torch.Tensor, slack: torch.Tensor | float = 0.0) -> torch.Tensor:
        """Return the step of h ≥ −slack, with the surrogate's slope behind it.

        Args:
            before: what is tested, h.
            slack: how far below zero it still counts as a tie, on which steps are on.
        """
        on = (before.detach() >= -slack).to(before.dtype)
        sign = self.activation == "sign"
        soft = before
        if self.surrogate == "relu":
            soft = torch.relu(before)
        elif self.surrogate == "leaky_relu":
            soft = torch.nn.functional.leaky_relu(before, 0.01)
        elif self.surrogate == "clipped_relu":
            soft = before.clamp(-1.0 if sign else 0.0, 1.0)
        return (2.0 * on - 1.0 if sign else on) + (soft - soft.detach())

    def units(self, parameters: Parameters) -> Units:
        """Return the inner weights of the units whose size is not zero."""
        alive = self.sizes(parameters) > 0
        inner = {k: v[alive] for k, v in parameters.items() if k not in OWN}
        return {k: v.detach().cpu().numpy().astype(np.float64) for k, v in inner.items()}

    def scaled(self, units: Units, z: Floats) -> Parameters:
        """Return the network with s = √|z| and a = ±√|z|."""
        parameters = {k: torch.as_tensor(np.asarray(v)) for k, v in units.items()} | split(z)
        if self.has_constant:
            parameters["constant"] = torch.tensor(0.0, dtype=torch.float64)
        return parameters

    def reach(self, problem: Problem) -> Floats:
        """Return ones: what a step puts out at most."""
        return np.ones(len(problem.y))

    def sideways(self, problem: Problem, point: ConvexPoint, nu: Floats) -> tuple[Floats, Floats]:
        """Return zeros: between jumps a step does not change with its inner weights."""
        zero = np.zeros(len(point.theta))
        return zero, zero

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the patterns of one network with z = Σ a s over the units of each.

        Merging units of one pattern keeps the fit and cannot raise the penalty.
        """
        z = (parameters["amplitude"] * parameters["output"]).detach().cpu().numpy()
        constant = np.zeros(int(self.has_constant))
        if self.has_constant:
            constant[0] = float(parameters["constant"].detach())
        program = self.program(problem, self.units(parameters))
        z = z[z != 0].astype(np.float64)
        packed = np.packbits(program.atoms.values.T > 0, axis=1)
        kept = distinct(packed)
        place = {packed[at].tobytes(): g for g, at in enumerate(kept)}
        theta = np.zeros((len(kept), 1))
        np.add.at(theta[:, 0], [place[row.tobytes()] for row in packed], z)
        return ConvexPoint(program.take(kept), theta, constant)

    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of our own `Network`, whatever surrogate it was trained with."""
        own = getattr(module, "architecture", None)
        if not isinstance(own, Steps) or replace(own, surrogate=self.surrogate) != self:
            raise BadInput(
                f"network is {own.label if own else type(module).__name__}: architecture "
                f"{self.label} reads its own networks (landscape.network.Network)."
            )
        return cast("Network", module).values

    def priced(
        self,
        problem: Problem,
        units: Units,
        nu: Floats,
        weights: tuple[float, float],
        target: float,
    ) -> tuple[float, bool, Units]:
        """Judge units by what they really put out.

        Args:
            problem: the data.
            units: found by a search.
            nu: dual point, shape (n,).
            weights: bounds from above of Σ ν_k over where a unit is on, and of −Σ ν_k.
            target: units that price less are not wanted.

        Returns:
            The bound of |νᵀg|, whether it is attained, and the units of distinct patterns that
            price above the target, the best first.
        """
        values = cast("Columns", self.program(problem, units).atoms).values
        prices = np.abs(nu @ values)
        total, size = float(nu.sum()), float(np.abs(nu).sum())
        bound = max(weights)
        if self.activation == "sign":
            bound = max(2.0 * weights[0] - total, 2.0 * weights[1] + total)
        bound += (len(nu) + 16) * EPSILON * size
        order = np.argsort(-prices, kind="stable")
        attained = float(prices[order[0]])
        order = order[prices[order] > target]
        order = order[distinct(np.packbits(values.T[order] > 0, axis=1))]
        exact = bound <= attained * (1 + EXACT) + 1e-12 * size
        return bound, exact, dictionary.take(units, order)
