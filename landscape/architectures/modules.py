"""Networks of ours, and a user's own ``torch.nn.Sequential``, as parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from landscape.errors import BadInput

if TYPE_CHECKING:
    from landscape.architectures.base import Architecture, Parameters
    from landscape.architectures.standard_deep import StandardDeep
    from landscape.architectures.two_layer import TwoLayer
    from landscape.network import Network


def read_own(architecture: Architecture, module: torch.nn.Module) -> Parameters:
    """Return the parameters of a `Network` of this architecture.

    Raises:
        BadInput: for any other module.
    """
    if getattr(module, "architecture", None) != architecture:
        raise BadInput(
            f"network is {type(module).__name__}: architecture {architecture.label} reads its own "
            "networks (landscape.network.Network)."
        )
    return cast("Network", module).values


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


def read_layers(architecture: StandardDeep, module: torch.nn.Module) -> Parameters:
    """Return the parameters of Sequential(Linear, ReLU, …, Linear), layers padded to one width.

    Raises:
        BadInput: for another module, several outputs, or biases that the architecture has not.
    """
    own = getattr(module, "architecture", None)
    parts = list(module.children()) if isinstance(module, torch.nn.Sequential) else []
    kinds = [type(part) for part in parts]
    wanted = [torch.nn.Linear, torch.nn.ReLU] * (architecture.depth - 1) + [torch.nn.Linear]
    if own is not None or kinds != wanted:
        found = own.label if own is not None else " → ".join(k.__name__ for k in kinds)
        raise BadInput(
            f"network is {found or type(module).__name__}: architecture {architecture.label} reads "
            f"its own networks and Sequential of {architecture.depth} Linear with ReLU between."
        )
    return _padded(architecture, cast("list[torch.nn.Linear]", parts[::2]))


def _padded(architecture: StandardDeep, layers: list[torch.nn.Linear]) -> Parameters:
    """Return the parameters of linear layers, narrower ones padded by zero neurons."""
    weights = [layer.weight.detach().double() for layer in layers]
    shifts = [None if layer.bias is None else layer.bias.detach().double() for layer in layers]
    late = any(b is not None and bool(b.any()) for b in shifts[1:])
    if late or (architecture.bias == "none" and shifts[0] is not None and bool(shifts[0].any())):
        raise BadInput(
            f"network has biases that architecture {architecture.label} has not: with "
            "bias='penalised' the first layer has them, the others never."
        )
    if len(weights[-1]) != 1:
        raise BadInput(f"network has {len(weights[-1])} outputs: {architecture.name} has one.")
    if architecture.bias != "none":
        shift = torch.zeros(len(weights[0])).double() if shifts[0] is None else shifts[0]
        weights[0] = torch.hstack([weights[0], shift[:, None]])
    width = max(len(w) for w in weights[:-1])
    hidden = torch.zeros(width, weights[0].shape[1]).double()
    hidden[: len(weights[0])] = weights[0]
    inner = torch.zeros(architecture.depth - 2, width, width).double()
    for layer, w in enumerate(weights[1:-1]):
        inner[layer, : w.shape[0], : w.shape[1]] = w
    output = torch.zeros(width).double()
    output[: weights[-1].shape[1]] = weights[-1][0]
    return {"hidden": hidden, "inner": inner, "output": output}


def _bias(layer: torch.nn.Linear) -> torch.Tensor:
    if layer.bias is None:
        return torch.zeros(len(layer.weight)).double()
    return layer.bias.detach().double()
