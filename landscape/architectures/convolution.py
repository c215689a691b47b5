r"""Two-layer convolutional networks whose patches are summed or averaged (Ergen & Pilanci, 2021).

.. math::

    f(x) = c \sum_j a_j \sum_{k=1}^{K} φ(x_k^⊤u_j), \qquad
    R = \tfrac12 \sum_j (\|u_j\|^2 + a_j^2)

with x_k ∈ R^h the patches of a signal or an image, c = 1 (sum) or 1/K (average) and φ as in
`TwoLayer`.  Let M (nK × h) hold the patches of all samples and P sum those of each, times c.  One
filter is a ReLU neuron on M, so that the patterns are those of M, and

.. math::

    \min_{u_i, v_i ∈ K_i} ℓ\Big(\sum_i P D_i M (u_i − v_i),\; y\Big) + β \sum_i (\|u_i\| + \|v_i\|),
    \qquad K_i = \{u : (2D_i − I) M u ≥ 0\}

("Implicit convex regularizers of CNN architectures", ICLR 2021, arXiv 2006.14798).  There are at
most :math:`2\sum_{k<h}\binom{nK−1}{k}` patterns, polynomial in n: the rank of M is at most h, the
size of the filter.  A filter prices as :math:`±(P^⊤ν)^⊤(Mu)_+`, in h dimensions whatever the size
of the image, and branch and bound prices all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from landscape.architectures.activations import activated
from landscape.architectures.on_patches import OnPatches
from landscape.architectures.patches import check_pooling
from landscape.architectures.two_layer import TwoLayer
from landscape.errors import BadInput
from landscape.pooled import PooledAtoms

if TYPE_CHECKING:
    import torch

    from landscape.architectures.base import Floats, Parameters
    from landscape.architectures.patches import Patches
    from landscape.arrangements import Arrangements
    from landscape.problem import Problem
    from landscape.programs import Program


@dataclass(frozen=True)
class Convolution(OnPatches, TwoLayer):
    """A two-layer convolutional network with one output.

    Attributes:
        bias: "none", or "penalised": a coordinate of the filter.
        activation, slope: as in `TwoLayer`.
        skip: "none".
        kernel: width of a filter along every axis, one number or one each.
        stride: places from one patch to the next.
        shape: what a row of X is, (d,), (h, w) or (channels, h, w); None for a signal (d,).
        pooling: "sum" or "average" over all patches.
    """

    kernel: int | tuple[int, ...] = 2
    stride: int = 1
    shape: tuple[int, ...] | None = None
    pooling: Literal["sum", "average"] = "sum"
    name: ClassVar[str] = "convolution"

    def __post_init__(self) -> None:
        """Refuse choices that are unknown or have no pooled program."""
        super().__post_init__()
        check_pooling(self.pooling)
        self.settle()
        if self.bias == "free" or self.skip != "none":
            raise BadInput(
                f"bias is {self.bias!r} and skip {self.skip!r}: a convolution takes bias 'none' or "
                "'penalised', and no skip connection."
            )

    @property
    def plain_neurons(self) -> bool:
        """False: neurons see patches, not samples."""
        return False

    def config(self) -> dict[str, Any]:
        """Return name and choices; ReLU goes without saying, and there is no skip connection."""
        choices = {**super().config(), "name": self.name}
        return {k: v for k, v in choices.items() if k != "skip"}

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n)."""
        places = self.patches(X.shape[1])
        each = super().forward(parameters, places.rows(X))
        return places.factor(self.pooling) * each.unflatten(-1, (-1, places.count)).sum(-1)

    def maps(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return what filters of size one put out at every patch, shape (n, m, *grid)."""
        places, hidden = self.patches(X.shape[1]), parameters["hidden"]
        unit = hidden / hidden.norm(dim=1, keepdim=True).clamp_min(1e-300)
        before = places.rows(X) @ unit[:, : places.size].mT
        if self.bias != "none":
            before = before + unit[:, -1]
        return by_place(activated(before, self.leak), places)

    def program(
        self, problem: Problem, patterns: Arrangements, signs: Floats | None = None
    ) -> Program:
        """Return the program over patterns of all patches, their rows pooled."""
        places = self.patches(problem.X.shape[1])
        program = super().program(problem, patterns, signs)
        return pooled(program, places.count, places.factor(self.pooling))

    def on_rows(self, problem: Problem, nu: Floats) -> Floats:
        """Return what every patch sees of a dual point, shape (nK,)."""
        places = self.patches(problem.X.shape[1])
        return places.factor(self.pooling) * np.repeat(nu, places.count)

    def ramps(self, problem: Problem, nu: Floats) -> tuple[Floats, Floats]:
        """Return rows and weights over which filters price as ReLU neurons."""
        return super().ramps(problem, self.on_rows(problem, nu))


def pooled(program: Program, count: int, scale: float) -> Program:
    """Return a program whose rows are patches as one whose rows are pooled over each sample."""
    free = np.zeros((len(program.y), 0))
    return replace(program, atoms=PooledAtoms.of(program.atoms, count, scale), free=free)


def by_place(values: torch.Tensor, places: Patches) -> torch.Tensor:
    """Return values (nK, m) of filters at patches as maps, shape (n, m, *grid)."""
    return values.unflatten(0, (-1, places.count)).mT.unflatten(-1, places.grid)
