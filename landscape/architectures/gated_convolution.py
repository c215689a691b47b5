r"""Gated convolutional networks: fixed gates on patches, hence a group lasso without cones.

.. math::

    f(x) = c \sum_j a_j \sum_{k=1}^{K} 1[x_k^⊤g_j ≥ 0]\, x_k^⊤w_j, \qquad
    \min_{w_i} ℓ\Big(\sum_i P D_i M w_i,\; y\Big) + β \sum_i \|w_i\|

with R = ½ Σ(‖w‖² + a²), patches x_k, M and P as in `landscape.architectures.convolution` and gates
as in `landscape.architectures.gated`.  A block's map is the sum of a sample's gated patches, linear
in its filter, so that a layer with hundreds of gates is a short convex program; layers of such
blocks, one after the other, make deep networks (`landscape.layerwise`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from landscape.architectures.convolution import by_place, pooled
from landscape.architectures.gated import GatedReLU
from landscape.architectures.on_patches import OnPatches
from landscape.architectures.patches import check_pooling
from landscape.errors import BadInput

if TYPE_CHECKING:
    import torch

    from landscape.architectures.base import Floats, Parameters
    from landscape.arrangements import Arrangements
    from landscape.problem import Problem
    from landscape.programs import Program


@dataclass(frozen=True)
class GatedConvolution(OnPatches, GatedReLU):
    """A gated convolutional network with one output; its gates are drawn, not trained.

    Attributes:
        bias: "none", or "penalised": a coordinate of gates and filters.
        outputs: "one".
        kernel, stride, shape, pooling: as in `Convolution`.
    """

    kernel: int | tuple[int, ...] = 2
    stride: int = 1
    shape: tuple[int, ...] | None = None
    pooling: Literal["sum", "average"] = "sum"
    name: ClassVar[str] = "gated_convolution"

    def __post_init__(self) -> None:
        """Refuse choices that are unknown or have no pooled program."""
        super().__post_init__()
        check_pooling(self.pooling)
        self.settle()
        if self.bias == "free" or self.outputs != "one":
            raise BadInput(
                f"bias is {self.bias!r} and outputs {self.outputs!r}: a gated convolution takes "
                "bias 'none' or 'penalised', and one output."
            )

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n)."""
        places = self.patches(X.shape[1])
        each = super().forward(parameters, places.rows(X))
        return places.factor(self.pooling) * each.unflatten(-1, (-1, places.count)).sum(-1)

    def maps(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return what filters of size one put out at every patch, shape (n, m, *grid)."""
        places, gate, hidden = self.patches(X.shape[1]), parameters["gate"], parameters["hidden"]
        unit = hidden / hidden.norm(dim=1, keepdim=True).clamp_min(1e-300)
        rows, h = places.rows(X), places.size
        opened, before = rows @ gate[:, :h].mT, rows @ unit[:, :h].mT
        if self.bias != "none":
            opened, before = opened + gate[:, -1], before + unit[:, -1]
        return by_place((opened >= 0) * before, places)

    def program(
        self, problem: Problem, patterns: Arrangements, signs: Floats | None = None
    ) -> Program:
        """Return the group lasso over patterns of all patches, their rows pooled."""
        places = self.patches(problem.X.shape[1])
        whole_ = super().program(problem, patterns, signs)
        return pooled(whole_, places.count, places.factor(self.pooling))

    def on_rows(self, problem: Problem, nu: Floats) -> Floats:
        """Return what every patch sees of a dual point, shape (nK,)."""
        places = self.patches(problem.X.shape[1])
        return places.factor(self.pooling) * np.repeat(nu, places.count)

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return gradient residuals and imbalances; a gate has no kinks."""
        return super().stationarity(problem, parameters, self.on_rows(problem, nu))
