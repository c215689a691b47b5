"""Parallel three-layer ReLU networks: `ParallelDeep` at the depth that has two regularisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.architectures.parallel_deep import ParallelDeep
from landscape.errors import BadInput


@dataclass(frozen=True)
class ParallelThreeLayer(ParallelDeep):
    """Parallel three-layer ReLU networks.

    Attributes:
        branching: neurons m of the first layer in each unit.
        regulariser: "path" or "cubic" (see the module's text).
        bias: "none" or "penalised".
    """

    depth: int = 3
    name: ClassVar[str] = "parallel_three_layer"

    def __post_init__(self) -> None:
        """Refuse other depths, and what `ParallelDeep` refuses."""
        if self.depth != 3:
            raise BadInput(
                f"depth is {self.depth}: {self.name} has three layers; use ParallelDeep."
            )
        super().__post_init__()

    def config(self) -> dict[str, Any]:
        """Return name and choices; the depth goes without saying."""
        return {k: v for k, v in super().config().items() if k != "depth"}
