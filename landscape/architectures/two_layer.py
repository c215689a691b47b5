r"""Two-layer networks and their convex program (Pilanci & Ergen, ICML 2020).

.. math::

    f(x) = \sum_j φ(x^⊤w_j + b_j)\, a_j + ξ, \qquad R = \tfrac12 \sum_j (\|w_j\|^2 + a_j^2)

    \min_{u_i, v_i ∈ K_i} ℓ\Big(\sum_i D_i X (u_i − v_i) + ξ 1,\; y\Big)
        + β \sum_i (\|u_i\| + \|v_i\|)

with φ(t) = t for t ≥ 0 and αt below: ReLU (α = 0), leaky ReLU (0 < α < 1), absolute value
(α = −1).  D_i has entries 1 where pattern i is on and α where it is off, and K_i is the pattern's
cone for every φ.  |t| = |−t|, so that a pattern and its complement are then the same atoms.

Bias "none": no b, no ξ.  "penalised": b is a coordinate of w on a column of ones, no ξ.  "free":
neither b nor ξ is penalised; ξ is then needed, because without it the infimum may not be attained
(w → 0, b → ∞).

Skip "free": f gains :math:`x^⊤w_0` (with a penalised bias (x, 1)ᵀw_0) that R does not count, the
program free directions A_0 = X.  Directions that X has only by rounding are not counted as
directions.  As φ(t) − (1+α)t/2 is (1−α)|t|/2, all three activations are then one up to the scale of
β: α costs what ReLU costs at β/(1−α); and a pattern and its complement are the same atoms again.
Skip "penalised": f gains a linear neuron :math:`c\, x^⊤v`, R gains ½(‖v‖² + c²): at best ‖cv‖, the
program a block X without a cone, which contains the blocks of the pattern that is on everywhere
and stands in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import torch

from landscape.architectures import bridge
from landscape.architectures.activations import activated, leak_of
from landscape.architectures.base import Architecture, ConvexPoint
from landscape.architectures.modules import read_sequential
from landscape.architectures.rows import (
    BIASES,
    linear_separates,
    seeded_normal,
)
from landscape.arrangements import Arrangements
from landscape.errors import BadInput, unknown
from landscape.programs import Euclidean, MaskedAtoms, PatternCones, Program

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Floats, Parameters
    from landscape.losses import Loss
    from landscape.network import Network
    from landscape.problem import Problem

SKIPS = ("none", "free", "penalised")


@dataclass(frozen=True)
class TwoLayer(Architecture):
    """A two-layer network with one output.

    Attributes:
        bias: "none", "penalised" or "free" (see the module's text).
        activation: "relu", "leaky_relu" or "abs".
        slope: of leaky ReLU below zero; the others have their own.
        skip: connection from input to output: "none", "free" or "penalised".
    """

    bias: Literal["none", "penalised", "free"] = "none"
    activation: Literal["relu", "leaky_relu", "abs"] = "relu"
    slope: float = 0.1
    skip: Literal["none", "free", "penalised"] = "none"
    name: ClassVar[str] = "two_layer_relu"
    searched: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse unknown choices, and slopes that are none of a leaky ReLU."""
        if self.bias not in BIASES:
            raise unknown("bias", self.bias, BIASES)
        if self.skip not in SKIPS:
            raise unknown("skip", self.skip, SKIPS)
        leak_of(self.activation, self.slope)

    @property
    def leak(self) -> float:
        """The slope α of the activation below zero."""
        return leak_of(self.activation, self.slope)

    @property
    def plain_neurons(self) -> bool:
        """Whether all units are ReLU neurons."""
        return self.activation == "relu" and self.skip == "none"

    @property
    def mirrored(self) -> bool:
        """Whether a pattern and its complement are the same atoms (up to the free part)."""
        return self.activation == "abs" or self.skip == "free"

    def config(self) -> dict[str, Any]:
        """Return name and choices; ReLU without a skip connection goes without saying."""
        choices = super().config()
        if self.activation == "relu":
            del choices["activation"]
        else:
            choices["name"] = "two_layer"
        if self.activation != "leaky_relu":
            del choices["slope"]
        if self.skip == "none":
            del choices["skip"]
        return choices

    def check_loss(self, X: Floats, y: Floats, loss: Loss) -> None:
        """Refuse labels that a free skip connection separates: its weights would go to infinity."""
        if self.skip != "free" or not (loss.classes and loss.smooth):
            return
        if linear_separates(self.design(X), y):
            raise BadInput(
                f"y is such that a linear function separates labels, and the {loss.name} loss of a "
                "free skip connection then falls for ever as its weights grow: pass "
                "skip='penalised', or loss='hinge'."
            )

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with w ~ N(0, scale²/p) and a ~ N(0, scale²/m); free parts are 0."""
        p, linear = problem.design.shape[1], self.skip == "penalised"
        draws = seeded_normal(seeds, width + linear, p + 1)
        weights, outputs = scale / p**0.5 * draws[..., :p], scale / width**0.5 * draws[..., p]
        parameters = {"hidden": weights[:, :width], "output": outputs[:, :width]}
        skipped = p - (self.bias == "free")
        if linear:
            parameters |= {"skip": weights[:, -1, :skipped], "skip_output": outputs[:, -1]}
        elif self.skip == "free":
            parameters["skip"] = torch.zeros(len(seeds), skipped, dtype=torch.float64)
        if self.bias == "free":
            parameters["constant"] = torch.zeros(len(seeds), dtype=torch.float64)
        return {k: v.clone() for k, v in parameters.items()} if linear else parameters

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n)."""
        hidden, output = parameters["hidden"], parameters["output"]
        before = X @ hidden[..., : X.shape[1]].mT  # (…, n, m)
        if self.bias != "none":
            before = before + hidden[..., None, :, -1]
        fit = (activated(before, self.leak) @ output[..., None])[..., 0]
        if self.skip != "none":
            fit = fit + self._skipped(parameters, X)
        return fit + parameters["constant"][..., None] if self.bias == "free" else fit

    def _skipped(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return what the skip connection adds to the outputs (…, n)."""
        skip = parameters["skip"]
        linear = (X @ skip[..., : X.shape[1], None])[..., 0]
        if self.bias == "penalised":
            linear = linear + skip[..., None, -1]
        return linear * parameters["skip_output"][..., None] if self.skip != "free" else linear

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return ½ Σ(‖w‖² + a²), shape (…,); a free bias or skip connection does not count."""
        hidden = parameters["hidden"]
        if self.bias == "free":
            hidden = hidden[..., :-1]
        squares = (hidden**2).sum((-1, -2)) + (parameters["output"] ** 2).sum(-1)
        if self.skip == "penalised":
            squares = squares + (parameters["skip"] ** 2).sum(-1) + parameters["skip_output"] ** 2
        return 0.5 * squares

    def gates(self, parameters: Parameters) -> Floats:
        """Return the hidden weights of the neurons that take part, shape (m', p)."""
        hidden = bridge.array(parameters["hidden"])
        return hidden[(bridge.array(parameters["output"]) != 0) & hidden.any(axis=1)]

    def without_padding(self, parameters: Parameters) -> Parameters:
        """Return one network without the zero neurons that pad it to a batch's width."""
        neurons = {k: v for k, v in parameters.items() if k in ("hidden", "output")}
        return {**parameters, **super().without_padding(neurons)}

    def program(
        self, problem: Problem, patterns: Arrangements, signs: Floats | None = None
    ) -> Program:
        """Return the program over blocks (i, ±), or over the given signed patterns only.

        With a penalised skip connection the pattern that is on everywhere, added last where it is
        missing, stands for the linear block.
        """
        design, linear = problem.design, self.skip == "penalised"
        if linear and not np.asarray(patterns).all(axis=1).any():
            one = np.ones((1, len(design)), dtype=bool)
            whole = Arrangements.from_bool(one, np.zeros((1, design.shape[1])))
            patterns = Arrangements(
                np.vstack([patterns.packed, whole.packed]),
                len(design),
                np.vstack([patterns.gates, whole.gates]),
            )
            signs = None if signs is None else np.append(signs, 1.0)
        masks = np.asarray(patterns)
        index = np.arange(len(patterns))
        if signs is None:
            index, signs = self._blocks(design, masks)
        return Program(
            loss=problem.loss,
            y=problem.y,
            beta=problem.beta,
            atoms=MaskedAtoms(
                design, masks, index, np.asarray(signs, dtype=np.float64), leak=self.leak
            ),
            gauge=Euclidean(self.penalised(problem)),
            cones=PatternCones(design, masks, index, linear=linear),
            free=design
            if self.skip == "free"
            else np.ones((len(design), int(self.bias == "free"))),
            patterns=patterns,
        )

    def _blocks(self, design: Floats, masks: NDArray[np.bool_]) -> tuple[Any, Floats]:
        """Return pattern and sign of both blocks of every pattern that says something new."""
        whole = masks.all(axis=1) & (self.skip == "penalised")
        index = np.flatnonzero(~whole)
        if self.mirrored:
            seen = masks[index][:, design.any(axis=1)]
            turn = ~seen[:, :1]
            _, first = np.unique(seen ^ turn, axis=0, return_index=True)
            index = index[np.sort(first)]
        linear = np.flatnonzero(whole)[:1]
        signs = np.repeat([1.0, -1.0, 1.0], [len(index), len(index), len(linear)])
        return np.concatenate([index, index, linear]), signs

    def representatives(
        self, problem: Problem, gates: Floats, signs: Floats
    ) -> tuple[Floats, Floats]:
        """Return one of the neurons that are the same atom; the zero gate is the linear block."""
        if self.mirrored:
            gates = bridge.turned(problem.design, gates)
        if self.skip == "penalised":
            whole = (gates @ problem.design.T >= 0).all(axis=1)
            gates = np.vstack([gates[~whole], np.zeros((1, gates.shape[1]))])
            signs = np.append(signs[~whole], 1.0)
        return gates, signs

    def ramps(self, problem: Problem, nu: Floats) -> tuple[Floats, Floats]:
        """Return rows and weights over which ReLU neurons price as this architecture's do."""
        if not self.leak:
            return problem.design, nu
        rows = np.vstack([problem.design, -problem.design])
        return rows, np.concatenate([nu, -self.leak * nu])

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the convex point: u_i = Σ w_j|a_j| over the neurons of one signed pattern."""
        return bridge.lift(self, problem, parameters)

    def lower(self, point: ConvexPoint) -> Parameters:
        """Return the balanced network: u ↦ (u/√‖u‖, ±√‖u‖), one neuron a non-zero block."""
        return bridge.lower(self, point)

    def sizes(self, problem: Problem, hidden: torch.Tensor) -> torch.Tensor:
        """Return the norms of the penalised parts of hidden weights (…, m, p), shape (…, m)."""
        return (hidden * torch.as_tensor(self.penalised(problem))).norm(dim=-1)

    def balanced(self, problem: Problem, parameters: Parameters) -> tuple[Parameters, torch.Tensor]:
        """Rescale every neuron of one network until ‖w‖ = |a| (see `bridge.balanced`)."""
        return bridge.balanced(self, problem, parameters)

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return Clarke residuals (of ξ too), wrong-signed ties and imbalances of the neurons."""
        return bridge.stationarity(self, problem, parameters, nu)

    def penalised(self, problem: Problem) -> NDArray[np.bool_]:
        """Which coordinates of a hidden weight the regulariser counts."""
        penalised = np.ones(problem.design.shape[1], dtype=bool)
        penalised[-1] = self.bias != "free"
        return penalised

    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of our `Network`, or of Sequential(Linear, activation, Linear)."""
        if getattr(module, "architecture", None) == self:
            return cast("Network", module).values
        return read_sequential(self, module)
