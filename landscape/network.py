"""Networks as torch modules: one class for every architecture, saved without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from landscape import archive
from landscape.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from landscape.architectures.base import Architecture, Parameters


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
        """Return the outputs, shape (n,), at inputs X (n, d), an array or a tensor."""
        some = next(iter(self.parameters()))
        return self.architecture.forward(
            self.values, torch.as_tensor(X, dtype=some.dtype, device=some.device)
        )

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
