r"""Standard deep ReLU networks: layers of one width, neurons feed all neurons of the next layer.

.. math::

    f(x) = W_L\, σ(W_{L−1} ⋯ σ(W_1 x)), \qquad
    R = \tfrac12 \sum_l \|W_l\|_F^2 \;\text{ ("decay")} \quad\text{or}\quad
    R = \tfrac1L \sum_l \|W_l\|_F^L \;\text{ ("power")}

Bias "penalised": a coordinate of the first layer's rows on a column of ones, under the regulariser.

*Two layers* are `TwoLayer`, with its program.  *Three or more*: no exact convex program is known.
By the inequality of the means R is at least :math:`\tfrac L2 t^{2/L}`, or t, where
:math:`t = \prod_l \|W_l\|_F`, and f = t g with g of unit layers.  Whatever bounds all
:math:`|ν^⊤g(X)|` hence bounds the objective from below: `landscape.pricing.layered` does, with
proof.  It is the bound of a larger program, that of *parallel* networks, in which every output
neuron has hidden layers of its own, and so may stay below every standard network: on x = ±1 with
y = ±1 a standard network of size t = 2√2 fits and none of three layers is smaller, while parallel
ones of size 2 do.  Outputs of one sign need no second channel (see `landscape.closed_forms`).

*Given features*, training is convex: the last two layers of a network are a two-layer network on
the outputs h of the layers before.  "decay": the features are what they are and their layers'
penalty is a constant.  "power": the scale of the features is free, because all layers are balanced
in the end (then R = t); they are divided by :math:`\prod_{l<L−1} \|W_l\|_F`, and there is no
constant.  `lift` and `lower` are the bridge of this sub-problem.  Its optimum is no lower bound of
the training problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import torch

from landscape.architectures import features
from landscape.architectures.base import Architecture, ConvexPoint
from landscape.architectures.modules import read_layers
from landscape.architectures.rows import (
    seeded_normal,
)
from landscape.architectures.two_layer import TwoLayer
from landscape.errors import BadInput, unknown, whole
from landscape.pricing.layered import LayeredOracle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscape.architectures.base import Floats, Parameters
    from landscape.architectures.features import OnFeatures
    from landscape.dictionary import Oracle, Units
    from landscape.network import Network
    from landscape.problem import Problem
    from landscape.programs import Program

BIASES = ("none", "penalised")
REGULARISERS = ("decay", "power")


@dataclass(frozen=True)
class StandardDeep(Architecture):
    """A standard deep ReLU network with one output.

    Attributes:
        depth: number of layers L, the output's included; at least 2.
        bias: "none" or "penalised" (see the module's text).
        regulariser: "decay" or "power" (see the module's text).
    """

    depth: int = 3
    bias: Literal["none", "penalised"] = "none"
    regulariser: Literal["decay", "power"] = "decay"
    name: ClassVar[str] = "standard_deep"

    def __post_init__(self) -> None:
        """Refuse a depth below two and unknown choices."""
        whole("depth", self.depth, 2)
        if self.bias not in BIASES:
            raise unknown("bias", self.bias, BIASES)
        if self.regulariser not in REGULARISERS:
            raise unknown("regulariser", self.regulariser, REGULARISERS)

    @property
    def plain_neurons(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """With two layers, yes."""
        return self.depth == 2

    @property
    def degree(self) -> float:
        """R ≥ t^κ/κ: κ = 2/L for weight decay, else 1."""
        return 2.0 / self.depth if self.regulariser == "decay" else 1.0

    @property
    def layered(self) -> bool:
        """Three layers or more."""
        return self.depth > 2

    @property
    def two(self) -> TwoLayer:
        """The two-layer architecture with this bias."""
        return TwoLayer(bias=self.bias)

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with W_1 ~ N(0, 2 scale²/p), W_l ~ N(0, 2 scale²/m), W_L half of that."""
        if self.depth == 2:
            return self.two.initial(problem, width, seeds, scale)
        p, inner = problem.design.shape[1], self.depth - 2
        draws = seeded_normal(seeds, width, p + inner * width + 1)
        gain = scale * (2.0 / width) ** 0.5
        middle = draws[..., p:-1].unflatten(-1, (inner, width))
        return {
            "hidden": scale * (2.0 / p) ** 0.5 * draws[..., :p],
            "inner": gain * middle.transpose(1, 2).contiguous(),
            "output": gain / 2**0.5 * draws[..., -1],
        }

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n)."""
        after = self.after(parameters, X, self.depth - 1)
        return (after @ parameters["output"][..., None])[..., 0]

    def after(self, parameters: Parameters, X: torch.Tensor, layers: int) -> torch.Tensor:
        """Return what the neurons of a hidden layer put out, shape (…, n, m)."""
        hidden = parameters["hidden"]
        before = X @ hidden[..., : X.shape[1]].mT
        if self.bias != "none":
            before = before + hidden[..., None, :, -1]
        after = torch.relu(before)
        for layer in range(layers - 1):
            after = torch.relu(after @ parameters["inner"][..., layer, :, :].mT)
        return after

    def squares(self, parameters: Parameters) -> torch.Tensor:
        """Return ‖W_l‖_F² of every layer, shape (…, L)."""
        parts = [parameters["hidden"].square().sum((-1, -2))[..., None]]
        if self.depth > 2:
            parts.append(parameters["inner"].square().sum((-1, -2)))
        return torch.cat([*parts, parameters["output"].square().sum(-1)[..., None]], -1)

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return R, shape (…,)."""
        squares = self.squares(parameters)
        if self.regulariser == "decay" or self.depth == 2:
            return 0.5 * squares.sum(-1)
        return (squares ** (self.depth / 2)).sum(-1) / self.depth

    def gates(self, parameters: Parameters) -> Floats:
        """Return the hidden weights of two layers; deeper, patterns are not those of samples."""
        if self.depth == 2:
            return self.two.gates(parameters)
        raise BadInput(
            f"architecture {self.label}: its patterns are those of features, not of the data; "
            "use `lift(problem, parameters).program.patterns`."
        )

    def last_two(self, problem: Problem, parameters: Parameters) -> tuple[Problem, Parameters]:
        """Return the two-layer problem on the features of one network, and its last two layers.

        Its optimum plus `offset` is the least objective of networks with these features.
        """
        return features.last_two(self, problem, parameters)

    def offset(self, problem: Problem, parameters: Parameters) -> float:
        """Return what the layers below the last two pay whatever these are."""
        return features.offset(self, problem, parameters)

    def program(self, problem: Problem, patterns: Any, signs: Floats | None = None) -> Program:
        """Return the program over patterns; deeper, over those of a network (its parameters)."""
        if self.depth == 2:
            return self.two.program(problem, patterns, signs)
        if not isinstance(patterns, Mapping):
            raise BadInput(
                f"patterns is a {type(patterns).__name__}: no convex program is known for "
                f"architecture {self.label}; its last two layers have one on the features of a "
                "network (landscape.refit)."
            )
        network = {k: torch.as_tensor(v) for k, v in patterns.items()}
        return self.own(problem, network)

    def own(self, problem: Problem, parameters: Parameters) -> Program:
        """Return the program over the patterns of one network (of its features, if deeper)."""
        if self.depth == 2:
            return super().own(problem, parameters)
        sub, last = self.last_two(problem, parameters)
        return self.on_features(problem, parameters, features.LAST.own(sub, last))

    def on_features(self, problem: Problem, parameters: Parameters, program: Program) -> OnFeatures:
        """Return a program of the last two layers as that of the network with its features."""
        return features.on_features(self, problem, parameters, program)

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the convex point, of the sub-problem on its features if deeper than two layers."""
        if self.depth == 2:
            return self.two.lift(problem, parameters)
        sub, last = self.last_two(problem, parameters)
        point = features.LAST.lift(sub, last)
        return replace(point, program=self.on_features(problem, parameters, point.program))

    def lower(self, point: ConvexPoint) -> Parameters:
        """Return a network with the objective of a point; layers are padded to one width."""
        if self.depth == 2:
            return self.two.lower(point)
        last = features.LAST.lower(point)
        return features.assembled(self, cast("OnFeatures", point.program).inner, last)

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return what the last hidden layer's neurons lack on their features, and the layers below.

        For a layer below the last two: its gradient's norm over β times its own norm, one-sided at
        kinks, and how far its norm is from the largest.
        """
        if self.depth == 2:
            return self.two.stationarity(problem, parameters, nu)
        sub, last = self.last_two(problem, parameters)
        clarke, wrong, balance = features.LAST.stationarity(sub, last, nu)
        names = ("hidden", "inner")
        leaves = {k: parameters[k].detach().clone().requires_grad_(True) for k in names}
        own = {**leaves, "output": parameters["output"].detach()}
        slope = -(self.forward(own, torch.as_tensor(problem.X)) * torch.as_tensor(nu)).sum()
        slope = slope + problem.beta * self.penalty(own)
        first, inner = torch.autograd.grad(slope, list(leaves.values()))
        norms = self.squares(parameters).detach().sqrt()
        pulls = torch.stack([first.norm(), *[g.norm() for g in inner[:-1]]])
        alive = norms[:-2] > 0
        below = (pulls[alive] / (problem.beta * norms[:-2][alive])).numpy()
        apart = (1 - norms / norms.max().clamp_min(1e-300)).numpy()
        return np.append(clarke, below), wrong, np.append(balance, apart)

    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of our `Network`, or of Sequential(Linear, ReLU, …, Linear)."""
        own = getattr(module, "architecture", None)
        if own is not None and own == self:
            return cast("Network", module).values
        return self.two.read(module) if self.depth == 2 else read_layers(self, module)

    def without_padding(self, parameters: Parameters) -> Parameters:
        """Return one network without the places at which every layer's neuron is zero."""
        if self.depth == 2:
            return super().without_padding(parameters)
        hidden, inner, output = (parameters[k] for k in ("hidden", "inner", "output"))
        used = hidden.any(1) | inner.any(0).any(1) | inner.any(0).any(0) | (output != 0)
        used[:1] |= ~used.any()  # layers of no neuron have no features
        return {"hidden": hidden[used], "inner": inner[:, used][:, :, used], "output": output[used]}

    def oracle(self, problem: Problem, effort: int) -> Oracle | None:
        """Return what prices all networks of unit layers, from above; None for two layers."""
        return None if self.depth == 2 else LayeredOracle(problem.design, effort, self.depth)

    def first(self, problem: Problem, seed: int) -> Units:
        """Return the parameters of a network of one neuron a layer."""
        network = self.initial(problem, 1, [seed])
        return {k: v[0].numpy() for k, v in network.items()}

    def units(self, parameters: Parameters) -> Units:
        """Return the parameters of one network: what `program` makes its features from."""
        return {k: v.detach().cpu().numpy() for k, v in parameters.items()}
