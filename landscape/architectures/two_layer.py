r"""Two-layer ReLU networks and their convex program (Pilanci & Ergen, ICML 2020).

.. math::

    f(x) = \sum_j (x^⊤w_j + b_j)_+ a_j + ξ, \qquad R = \tfrac12 \sum_j (\|w_j\|^2 + a_j^2)

    \min_{u_i, v_i ∈ K_i} ℓ\Big(\sum_i D_i X (u_i − v_i) + ξ 1,\; y\Big)
        + β \sum_i (\|u_i\| + \|v_i\|)

Bias "none": no b, no ξ.  "penalised": b is a coordinate of w on a column of ones, no ξ.  "free":
neither b nor ξ is penalised; ξ is then needed, because without it the infimum may not be attained
(w → 0, b → ∞).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import numpy as np
import torch

from landscape.architectures.base import Architecture, ConvexPoint
from landscape.arrangements import Arrangements
from landscape.clarke import residuals
from landscape.errors import BadInput, unknown
from landscape.programs import Euclidean, MaskedAtoms, PatternCones, Program

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Floats, Parameters
    from landscape.network import Network
    from landscape.problem import Problem

EPSILON = float(np.finfo(np.float64).eps)
BIASES = ("none", "penalised", "free")


def with_ones(X: Floats) -> Floats:
    """Return [X, 1], shape (n, d + 1)."""
    return np.hstack([X, np.ones((len(X), 1))])


def check_scalar_output(name: str, y: Floats) -> None:
    """Refuse targets with several columns."""
    if y.ndim != 1:
        raise BadInput(
            f"y has shape {y.shape}: architecture {name!r} has one output, so y must have shape "
            f"({len(y)},)."
        )


def check_bias_column(bias: str, X: Floats) -> None:
    """Refuse a constant column beside a bias: the two would be the same direction twice."""
    constant = np.flatnonzero(np.ptp(X, axis=0) == 0)
    if len(X) > 1 and bias != "none" and len(constant):
        raise BadInput(
            f"X has a constant column ({constant[0]}) and the architecture has a bias, which is "
            "the same direction: drop the column or set bias='none'."
        )


def seeded_normal(seeds: Sequence[int], *shape: int) -> torch.Tensor:
    """Return standard normal draws (S, …), each seed's independent of the other seeds."""
    draws = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(int(seed))
        draws.append(torch.randn(shape, generator=generator, dtype=torch.float64))
    return torch.stack(draws)


@dataclass(frozen=True)
class TwoLayer(Architecture):
    """A two-layer ReLU network with one output.

    Attributes:
        bias: "none", "penalised" or "free" (see the module's text).
    """

    bias: Literal["none", "penalised", "free"] = "none"
    name: ClassVar[str] = "two_layer_relu"
    plain_neurons: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse an unknown kind of bias."""
        if self.bias not in BIASES:
            raise unknown("bias", self.bias, BIASES)

    def check(self, X: Floats, y: Floats) -> None:
        """Refuse targets with several columns, and a constant column beside a bias."""
        check_scalar_output(self.name, y)
        check_bias_column(self.bias, X)

    def design(self, X: Floats) -> Floats:
        """Return X, or [X, 1] with a bias."""
        return X if self.bias == "none" else with_ones(X)

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with w ~ N(0, scale²/p) and a ~ N(0, scale²/m); ξ = 0."""
        p = problem.design.shape[1]
        draws = seeded_normal(seeds, width, p + 1)
        parameters = {
            "hidden": scale / p**0.5 * draws[..., :p],
            "output": scale / width**0.5 * draws[..., p],
        }
        if self.bias == "free":
            parameters["constant"] = torch.zeros(len(seeds), dtype=torch.float64)
        return parameters

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n)."""
        hidden, output = parameters["hidden"], parameters["output"]
        before = X @ hidden[..., : X.shape[1]].mT  # (…, n, m)
        if self.bias != "none":
            before = before + hidden[..., None, :, -1]
        fit = (torch.relu(before) @ output[..., None])[..., 0]
        return fit + parameters["constant"][..., None] if self.bias == "free" else fit

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return ½ Σ(‖w‖² + a²), shape (…,); a free bias does not count."""
        hidden = parameters["hidden"]
        if self.bias == "free":
            hidden = hidden[..., :-1]
        return 0.5 * ((hidden**2).sum((-1, -2)) + (parameters["output"] ** 2).sum(-1))

    def gates(self, parameters: Parameters) -> Floats:
        """Return the hidden weights of the neurons that take part, shape (m', p)."""
        hidden = _numpy(parameters["hidden"])
        return hidden[(_numpy(parameters["output"]) != 0) & hidden.any(axis=1)]

    def program(
        self, problem: Problem, patterns: Arrangements, signs: Floats | None = None
    ) -> Program:
        """Return the program over blocks (i, ±), or over the given signed patterns only."""
        design, count = problem.design, len(patterns)
        index = np.arange(count)
        if signs is None:
            index, signs = np.tile(index, 2), np.repeat([1.0, -1.0], count)
        masks = np.asarray(patterns)
        return Program(
            loss=problem.loss,
            y=problem.y,
            beta=problem.beta,
            atoms=MaskedAtoms(design, masks, index, np.asarray(signs, dtype=np.float64)),
            gauge=Euclidean(self.penalised(problem)),
            cones=PatternCones(design, masks, index),
            free=np.ones((len(design), int(self.bias == "free"))),
            patterns=patterns,
        )

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the convex point: u_i = Σ w_j|a_j| over the neurons of one signed pattern.

        Merging neurons keeps the fit and cannot raise the penalty.  A neuron on kinks, up to the
        rounding of Xw, is put into one full-dimensional cell whose closed cone contains it.
        """
        hidden, output = _numpy(parameters["hidden"]), _numpy(parameters["output"])
        constant = np.zeros(int(self.bias == "free"))
        if self.bias == "free":
            flat = ~hidden[:, :-1].any(axis=1)  # w = 0: the neuron is a constant
            lifted = (np.maximum(hidden[flat, -1], 0) * output[flat]).sum()
            constant += float(parameters["constant"].detach()) + lifted
            hidden, output = hidden[~flat], output[~flat]
        taking_part = (output != 0) & hidden.any(axis=1)
        hidden, output = hidden[taking_part], output[taking_part]
        # On kinks one direction decides for all neurons: copies of one are not told apart by the
        # rounding of their products, and antipodal samples not put on one side together.
        before = hidden @ problem.design.T
        terms = np.abs(hidden) @ np.abs(problem.design).T
        near = np.abs(before) <= 4 * (hidden.shape[1] + 2) * EPSILON * terms
        tilt = np.random.default_rng(0).standard_normal(hidden.shape[1])
        masks = np.where(near, problem.design @ tilt >= 0, before > 0)
        keys = np.hstack([masks, output[:, None] > 0])
        _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        theta = np.zeros((len(first), hidden.shape[1]))
        np.add.at(theta, group.reshape(-1), np.abs(output)[:, None] * hidden)
        patterns = Arrangements.from_bool(masks[first], hidden[first])
        program = self.program(problem, patterns, np.sign(output[first]))
        return ConvexPoint(program, theta, constant)

    def lower(self, point: ConvexPoint) -> Parameters:
        """Return the balanced network: u ↦ (u/√‖u‖, ±√‖u‖), one neuron a non-zero block."""
        program, theta = point.program, point.theta
        norms = program.gauge.value(theta)
        active = norms > 0
        scale = np.sqrt(norms[active])
        parameters = {
            "hidden": torch.as_tensor(theta[active] / scale[:, None]),
            "output": torch.as_tensor(program.atoms.signs[active] * scale),
        }
        if self.bias == "free":
            flat = ~active & program.atoms.masks[program.atoms.index].all(axis=1)
            added = (program.atoms.signs[flat] * theta[flat, -1]).sum()
            parameters["constant"] = torch.tensor(point.constant[0] + added)
        return parameters

    def sizes(self, problem: Problem, hidden: torch.Tensor) -> torch.Tensor:
        """Return the norms of the penalised parts of hidden weights (…, m, p), shape (…, m)."""
        return (hidden * torch.as_tensor(self.penalised(problem))).norm(dim=-1)

    def balanced(self, problem: Problem, parameters: Parameters) -> tuple[Parameters, torch.Tensor]:
        """Rescale every neuron of one network until ‖w‖ = |a|: outputs stay, the penalty is least.

        Neurons that do nothing vanish; behind a free bias those of w = 0 are constants, which the
        output bias takes over.

        Returns:
            The parameters, neurons in their places, and log(|a_j|/‖w_j‖)/2 of every neuron (m,).
        """
        hidden, output = parameters["hidden"], parameters["output"]
        lengths = self.sizes(problem, hidden)
        alive = (lengths > 0) & (output != 0)
        rates = torch.zeros_like(output)
        rates[alive] = 0.5 * (output[alive].abs() / lengths[alive]).log()
        factor = rates.exp()
        end = {"hidden": hidden * factor[:, None], "output": output / factor}
        end["hidden"][output == 0], end["output"][~alive] = 0.0, 0.0
        if "constant" in parameters:
            flat = (lengths == 0) & (output != 0)
            constants = (hidden[flat, -1].clamp_min(0) * output[flat]).sum()
            end["constant"] = parameters["constant"] + constants
        return end, rates

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return Clarke residuals (of ξ too), wrong-signed ties and imbalances of the neurons."""
        hidden, output = _numpy(parameters["hidden"]), _numpy(parameters["output"])
        penalised = self.penalised(problem)
        lengths, sizes = np.linalg.norm(hidden[:, penalised], axis=1), np.abs(output)
        there = np.maximum(lengths, sizes) > 0
        balance = np.abs(lengths - sizes)[there] / np.maximum(lengths, sizes)[there]
        both = (lengths > 0) & (sizes > 0)
        clarke, wrong = residuals(
            problem.design, penalised, hidden[both], np.sign(output[both]), nu, problem.beta
        )
        if self.bias == "free":
            clarke = np.append(clarke, abs(float(nu.sum())) / problem.beta)
        return clarke, wrong, balance

    def penalised(self, problem: Problem) -> NDArray[np.bool_]:
        """Which coordinates of a hidden weight the regulariser counts."""
        penalised = np.ones(problem.design.shape[1], dtype=bool)
        penalised[-1] = self.bias != "free"
        return penalised

    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of our `Network` or of Sequential(Linear, ReLU, Linear)."""
        own = getattr(module, "architecture", None)
        if own is not None and own == self:
            return cast("Network", module).values
        parts = list(module.children()) if isinstance(module, torch.nn.Sequential) else []
        linear, kinds = torch.nn.Linear, [type(part) for part in parts]
        if own is not None or kinds != [linear, torch.nn.ReLU, linear]:
            found = own.label if own is not None else " → ".join(k.__name__ for k in kinds)
            raise BadInput(
                f"network is {found or type(module).__name__}: architecture {self.label} reads "
                "its own networks and Sequential(Linear(d, m), ReLU(), Linear(m, 1))."
            )
        first, last = cast(torch.nn.Linear, parts[0]), cast(torch.nn.Linear, parts[2])
        weights, shift = first.weight.detach().double(), _bias(first)
        constant = _bias(last)
        if len(last.weight) != 1:
            raise BadInput(f"network has {len(last.weight)} outputs: {self.name} has one.")
        if (self.bias == "none" and bool(shift.any())) or (
            self.bias != "free" and bool(constant.any())
        ):
            raise BadInput(
                f"network has biases that architecture {self.label} has not: use "
                "TwoLayer(bias='penalised') for a hidden bias under weight decay, or "
                "TwoLayer(bias='free') for hidden and output biases without it."
            )
        if self.bias != "none":
            weights = torch.hstack([weights, shift[:, None]])
        parameters = {"hidden": weights, "output": last.weight.detach().double()[0]}
        if self.bias == "free":
            parameters["constant"] = constant[0]
        return parameters


def _bias(layer: torch.nn.Linear) -> torch.Tensor:
    return (
        torch.zeros(len(layer.weight)).double()
        if layer.bias is None
        else (layer.bias.detach().double())
    )


def _numpy(tensor: torch.Tensor) -> Floats:
    return tensor.detach().cpu().numpy().astype(np.float64)
