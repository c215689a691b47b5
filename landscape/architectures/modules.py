"""A user's own ``torch.nn.Sequential`` as parameters of a two-layer architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from landscape.errors import BadInput

if TYPE_CHECKING:
    from landscape.architectures.base import Parameters
    from landscape.architectures.two_layer import TwoLayer


def read_sequential(architecture: TwoLayer, module: torch.nn.Module) -> Parameters:
    """Return the parameters of Sequential(Linear, activation, Linear), ReLU or LeakyReLU.

    Raises:
        BadInput: for another module, another activation, several outputs, or biases that the
            architecture has not.
    """
    own = getattr(module, "architecture", None)
    parts = list(module.children()) if isinstance(module, torch.nn.Sequential) else []
    linear, kinds = torch.nn.Linear, [type(part) for part in parts]
    wanted = {"relu": torch.nn.ReLU, "leaky_relu": torch.nn.LeakyReLU}.get(architecture.activation)
    if architecture.skip != "none" or wanted is None:
        takes = "its own networks only."
    else:
        takes = f"its own networks and Sequential(Linear(d, m), {wanted.__name__}(), Linear(m, 1))."
    if own is not None or takes.endswith("only.") or kinds != [linear, wanted, linear]:
        found = own.label if own is not None else " → ".join(k.__name__ for k in kinds)
        raise BadInput(
            f"network is {found or type(module).__name__}: architecture {architecture.label} reads "
            f"{takes}"
        )
    if isinstance(parts[1], torch.nn.LeakyReLU) and parts[1].negative_slope != architecture.leak:
        raise BadInput(
            f"network has LeakyReLU({parts[1].negative_slope:g}) and the architecture slope="
            f"{architecture.leak:g}: pass TwoLayer(activation='leaky_relu', slope="
            f"{parts[1].negative_slope:g})."
        )
    first, last = cast(torch.nn.Linear, parts[0]), cast(torch.nn.Linear, parts[2])
    weights, shift = first.weight.detach().double(), _bias(first)
    constant, bias = _bias(last), architecture.bias
    if len(last.weight) != 1:
        raise BadInput(f"network has {len(last.weight)} outputs: {architecture.label} has one.")
    if (bias == "none" and bool(shift.any())) or (bias != "free" and bool(constant.any())):
        raise BadInput(
            f"network has biases that architecture {architecture.label} has not: use "
            "TwoLayer(bias='penalised') for a hidden bias under weight decay, or "
            "TwoLayer(bias='free') for hidden and output biases without it."
        )
    if bias != "none":
        weights = torch.hstack([weights, shift[:, None]])
    parameters = {"hidden": weights, "output": last.weight.detach().double()[0]}
    if bias == "free":
        parameters["constant"] = constant[0]
    return parameters


def _bias(layer: torch.nn.Linear) -> torch.Tensor:
    if layer.bias is None:
        return torch.zeros(len(layer.weight)).double()
    return layer.bias.detach().double()
