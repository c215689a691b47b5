"""Patches of signals and images that lie in the rows of X: which entries a filter sees at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import BadInput, unknown, whole

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

POOLINGS = ("sum", "average")


@dataclass(frozen=True)
class Patches:
    """Where patches lie in a row of X.

    Attributes:
        channels: values at one place; a filter sees all of them.
        extent: places along every axis: (d,) for a signal, (h, w) for an image.
        kernel: places of a patch along every axis.
        stride: places from one patch to the next, along every axis.
    """

    channels: int
    extent: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int

    @property
    def grid(self) -> tuple[int, ...]:
        """How many patches there are along every axis."""
        sizes = zip(self.extent, self.kernel, strict=True)
        return tuple((size - width) // self.stride + 1 for size, width in sizes)

    @property
    def count(self) -> int:
        """How many patches there are, K."""
        return int(np.prod(self.grid))

    @property
    def size(self) -> int:
        """How many entries a patch has."""
        return self.channels * int(np.prod(self.kernel))

    def factor(self, pooling: str) -> float:
        """Return what the sum over patches is multiplied by: 1, or 1/K for an average."""
        return 1.0 / self.count if pooling == "average" else 1.0

    def deeper(self, maps: int, window: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return shape and kernel of the next layer, on so many averaged maps of these patches."""
        grid = (1, *self.grid)[-2:]
        shape = tuple(max(1, size // window) for size in grid)
        kernel = (1, *self.kernel)[-2:]
        return (maps, *shape), tuple(min(k, s) for k, s in zip(kernel, shape, strict=True))

    @cached_property
    def index(self) -> NDArray[np.intp]:
        """Which entries of a row every patch holds, shape (K, size), channel by channel."""
        places = np.arange(self.channels * int(np.prod(self.extent)))
        axes = tuple(range(1, 1 + len(self.extent)))
        windows = np.lib.stride_tricks.sliding_window_view(
            places.reshape(self.channels, *self.extent), self.kernel, axis=axes
        )
        steps = (slice(None), *[slice(None, None, self.stride)] * len(self.extent))
        every = np.moveaxis(windows[steps], 0, len(self.extent))
        return every.reshape(self.count, self.size).copy()  # torch wants it writable

    def rows(self, X: Any) -> Any:
        """Return all patches of rows X (n, d), those of a row together: (nK, size)."""
        return X[:, self.index].reshape(-1, self.size)


def averaged(maps: torch.Tensor, window: int) -> torch.Tensor:
    """Return maps (n, m, *grid) averaged over windows, as rows, shape (n, m · places).

    Axes shorter than a window are averaged whole; what is left over at an end does not count.
    """
    for axis in range(2, maps.ndim):
        width = min(window, maps.shape[axis])
        count = maps.shape[axis] // width
        maps = maps.narrow(axis, 0, count * width).unflatten(axis, (count, width)).mean(axis + 1)
    return maps.flatten(1)


def patches(shape: Any, kernel: Any, stride: int, inputs: int) -> Patches:
    """Return the patches of rows of so many inputs.

    Args:
        shape: (d,), (h, w) or (channels, h, w); None for a signal that fills the row.
        kernel: width of a patch along every axis, or of all.
        stride: places from one patch to the next.
        inputs: how many columns X has.

    Raises:
        BadInput: where the shape does not fill the row, or no patch fits in.
    """
    shape = (inputs,) if shape is None else shape
    if int(np.prod(shape)) != inputs:
        raise BadInput(
            f"shape is {shape}, {int(np.prod(shape))} entries, and X has {inputs} columns: every "
            "row of X must be one flattened signal or image."
        )
    channels, extent = (shape[0], shape[1:]) if len(shape) == 3 else (1, shape)
    widths = tuple(kernel) if isinstance(kernel, tuple) else (kernel,) * len(extent)
    if len(widths) != len(extent) or any(w > e for w, e in zip(widths, extent, strict=True)):
        raise BadInput(
            f"kernel is {kernel}: it must have a width for each axis of {extent}, none larger."
        )
    return Patches(channels, extent, widths, stride)


def whole_numbers(name: str, values: Any) -> Any:
    """Return an option that is a number or a list of numbers as a number or a tuple."""
    if values is None:
        return None
    if isinstance(values, int):
        return whole(name, values)
    found = tuple(whole(name, value) for value in values)
    if not 1 <= len(found) <= 3:
        raise BadInput(f"{name} is {values!r}: it must have one to three entries.")
    return found


def check_pooling(pooling: str) -> None:
    """Refuse an unknown pooling; the largest patch is another architecture's."""
    if pooling == "max":
        raise BadInput(
            "pooling is 'max': networks that keep the largest patch have other cones; use "
            "architecture 'convolution_max'."
        )
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
