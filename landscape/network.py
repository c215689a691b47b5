"""Networks as torch modules: one class for every architecture, saved without pickle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from landscape import archive
from landscape.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from landscape.architectures.base import Architecture, Parameters
    from landscape.problem import Problem


class Network(torch.nn.Module):
    """One network of an architecture, callable on new points.

    Args:
        architecture: gives ``forward``; it also names the parameters.
        parameters: one network's tensors, without batch axes.
    """

    def __init__(self, architecture: Architecture, parameters: Parameters) -> None:
        super().__init__()
        self.architecture = architecture
        for name, value in parameters.items():
            tensor = torch.as_tensor(value).detach().clone()
            if name in architecture.fixed:
                self.register_buffer(name, tensor)
            else:
                self.register_parameter(name, torch.nn.Parameter(tensor))

    @property
    def values(self) -> Parameters:
        """The parameter dictionary that the architecture's functions take."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def forward(self, X: NDArray[np.float64] | torch.Tensor) -> torch.Tensor:
        """Return the outputs, (n,) or (n, c), at inputs X (n, d), an array or a tensor."""
        some = next(iter(self.parameters()))
        X = torch.as_tensor(X, dtype=some.dtype, device=some.device)
        out = self.architecture.forward(self.values, X)
        flat = self.architecture.flat_outputs and out.shape[-1] > len(X)
        return out.unflatten(-1, (len(X), -1)) if flat else out

    def gates(self) -> NDArray[np.float64]:
        """Return the directions whose signs on the design rows are the neurons' patterns."""
        return self.architecture.gates(self.values)

    def save(self, path: str | Path) -> Path:
        """Write the network to an ``.npz`` file that holds only numbers and a JSON text."""
        arrays = {k: v.detach().cpu().numpy() for k, v in self.values.items()}
        return archive.write(path, self.architecture.config(), arrays)

    @staticmethod
    def load(path: str | Path) -> Network:
        """Read a network written by `save`.

        Raises:
            BadInput: if the file is not one.
        """
        from landscape import architectures

        config, arrays = archive.read(path, "network")
        if "name" not in config:
            raise BadInput(f"{path} holds no saved network: it names no architecture.")
        architecture = architectures.get(config.pop("name"), **config)
        return Network(architecture, {k: torch.as_tensor(v) for k, v in arrays.items()})


def read(problem: Problem, network: torch.nn.Module | Parameters) -> Parameters:
    """Return a copy of one network's parameters in float64; the network stays as it is.

    Args:
        problem: gives the architecture, the width of the data, and the number of outputs.
        network: a `Network`, a module that the architecture can read, or its parameters by name.

    Raises:
        BadInput: for anything else, for parameters whose names or shapes are not those of the
            problem's networks, for weights that are not finite, and for networks that are
            normalised with other inputs.
    """
    architecture = problem.architecture
    if isinstance(network, torch.nn.Module):
        network = architecture.read(network)
    elif not isinstance(network, dict):
        raise BadInput(
            f"network is a {type(network).__name__}: it must be a Network, a module that "
            f"architecture {architecture.label} reads, or a dictionary of its parameters."
        )
    wanted = shapes(problem)
    if set(network) != set(wanted):
        raise BadInput(
            f"network has the parameters {', '.join(sorted(network)) or 'none'}: those of "
            f"architecture {architecture.label} are {', '.join(sorted(wanted))}."
        )
    found, width = {}, None
    for name, shape in wanted.items():
        try:
            value = torch.as_tensor(network[name]).detach().cpu().double().clone()
        except (TypeError, ValueError, RuntimeError):
            raise BadInput(f"network's {name} holds no numbers: it must be a tensor.") from None
        sizes = [s for s, w in zip(value.shape, shape, strict=False) if w is None]
        width = sizes[0] if sizes and width is None else width
        if tuple(value.shape) != tuple(width if w is None else w for w in shape):
            form = ", ".join("m" if w is None else str(w) for w in shape)
            raise BadInput(
                f"network's {name} has shape {tuple(value.shape)}: one network of this problem has "
                f"({form}){'' if width is None else f', here with m = {width} neurons'}."
            )
        if not bool(torch.isfinite(value).all()):
            raise BadInput("network has NaN or infinite weights: it is no point of the landscape.")
        found[name] = value
    return architecture.attached(problem, found)


def several(
    network: torch.nn.Module | Parameters | Iterable[torch.nn.Module | Parameters],
) -> tuple[list[torch.nn.Module | Parameters], bool]:
    """Return one network or many as a list, and whether it is one.

    Raises:
        BadInput: if it is neither.
    """
    if isinstance(network, torch.nn.Module | dict):
        return [cast("torch.nn.Module | Parameters", network)], True
    if not isinstance(network, Iterable) or isinstance(network, str):
        raise BadInput(
            f"network is a {type(network).__name__}: it must be a module, parameters by name, or "
            "an iterable of them (of a solution: solution.network())."
        )
    return list(network), False


def shapes(problem: Problem) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of every parameter of one network, None where the width stands."""
    one, two = (problem.architecture.initial(problem, width, [0]) for width in (1, 2))
    return {
        k: tuple(a if a == b else None for a, b in zip(v.shape[1:], two[k].shape[1:], strict=True))
        for k, v in one.items()
    }
