"""What architectures share whose neurons see patches of signals or images, and not whole rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.architectures.base import Architecture
from landscape.architectures.modules import read_own
from landscape.architectures.patches import Patches, patches, whole_numbers
from landscape.architectures.rows import check_scalar_output, with_bias
from landscape.errors import whole

if TYPE_CHECKING:
    import torch

    from landscape.architectures.base import Floats, Parameters


class OnPatches(Architecture):
    """An architecture whose design rows are the patches of all samples.

    Subclasses have the fields ``kernel`` (width of a filter along every axis, one number or one
    each), ``stride`` (places from one patch to the next) and ``shape`` (what a row of X is, (d,),
    (h, w) or (channels, h, w); None for a signal that fills the row).
    """

    kernel: int | tuple[int, ...]
    stride: int
    shape: tuple[int, ...] | None

    def settle(self) -> None:
        """Make tuples of lists, refusing numbers that are no widths."""
        object.__setattr__(self, "kernel", whole_numbers("kernel", self.kernel))
        object.__setattr__(self, "shape", whole_numbers("shape", self.shape))
        whole("stride", self.stride)

    @property
    def inputs(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many inputs it takes, where a shape is given."""
        return None if self.shape is None else int(np.prod(self.shape))

    def config(self) -> dict[str, Any]:
        """Return name and choices, tuples as lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in super().config().items()}

    def patches(self, inputs: int) -> Patches:
        """Return where the patches of a row of so many inputs lie."""
        return patches(self.shape, self.kernel, self.stride, inputs)

    def check(self, X: Floats, y: Floats) -> None:
        """Refuse several outputs, and rows that the shape does not fill."""
        check_scalar_output(self.label, y)
        self.patches(X.shape[1])

    def design(self, X: Floats) -> Floats:
        """Return all patches, those of a sample together, (nK, h), or (nK, h + 1) with a bias."""
        return with_bias(self.hidden_bias, self.patches(X.shape[1]).rows(X))

    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of our own `Network`."""
        return read_own(self, module)
