r"""Two-layer ReLU networks with several outputs under weight decay (Sahiner et al., ICLR 2021).

.. math::

    f(x) = \sum_j (x^⊤u_j)_+\, v_j, \quad v_j ∈ R^c, \qquad
    R = \tfrac12 \sum_j (\|u_j\|_2^2 + \|v_j\|_2^2)

    \min_{V_i} \; ℓ\Big(\sum_i D_i X V_i,\; Y\Big) + β \sum_i \|V_i\|_{*, K_i}, \qquad
    \|V\|_{*,K} = \text{gauge of } \mathrm{conv}\{u v^⊤ : u ∈ K,\; \|u\|, \|v\| \le 1\}

Without the cones the gauge is the nuclear norm: the gated program (`GatedReLU`,
``outputs="nuclear"``).  A neuron prices at :math:`\sup_{\|u\| \le 1} \|N^⊤(Xu)_+\|_2`, N the dual
point (n, c) (`landscape.pricing.vectors`): exact at rank ≤ 2 and wherever branch and bound ends;
beyond that only bounded, and the certificate says "relaxed".

*Units* are directions u, ‖u‖ = 1; a unit's block holds its output weights, A_u = (Xu)_+ ⊗ I_c with
the Euclidean norm.  Targets (n, c) are stored row by row, (nc,).

*Order of optima* on the same data and β (each step is a theorem: the feasible set grows to the
left, or the penalty falls):

.. math:: p_{\text{gated, nuclear}} \le p_{\text{ReLU}} \le p_{\text{ReLU, per class}}
    \le p_{\text{ReLU}}(\sqrt c\, β), \qquad
    p_{\text{gated, nuclear}} \le p_{\text{gated, per class}} \le p_{\text{ReLU, per class}},

gated programs over all patterns, "per class" with ‖v_j‖₁ for ‖v_j‖₂ (one network for each output),
the last step because ‖v‖₁ ≤ √c ‖v‖₂.  ReLU and gated per class stand in neither order in general.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import torch

from landscape import dictionary
from landscape.architectures.base import Architecture, ConvexPoint
from landscape.architectures.bridge import array
from landscape.architectures.modules import read_own
from landscape.architectures.rows import check_bias_column, seeded_normal
from landscape.clarke import residuals
from landscape.dense import DenseAtoms, GroupProgram
from landscape.errors import BadInput, unknown
from landscape.pricing.vectors import VectorOracle
from landscape.programs import Euclidean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Units
    from landscape.problem import Problem

BIASES = ("none", "penalised")


@dataclass(frozen=True)
class VectorReLU(Architecture):
    """A ReLU network whose neurons feed all outputs.

    Attributes:
        bias: "none", or "penalised": a coordinate of the hidden weights on a column of ones.
    """

    bias: Literal["none", "penalised"] = "none"
    name: ClassVar[str] = "vector_relu"
    flat_outputs: ClassVar[bool] = True
    smooth_units: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse an unknown bias."""
        if self.bias not in BIASES:
            raise unknown("bias", self.bias, BIASES)

    @property
    def drawn_outputs(self) -> int:
        """Two: with one it is the two-layer network."""
        return 2

    def check(self, X: Floats, y: Floats) -> None:
        """Refuse a constant column beside a bias; any number of outputs will do."""
        check_bias_column(self.bias, X)

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with u ~ N(0, scale²/p) and v ~ N(0, scale²/m)."""
        p, c = problem.design.shape[1], problem.outputs
        draws = seeded_normal(seeds, width, p + c)
        return {
            "hidden": scale / p**0.5 * draws[..., :p],
            "output": scale / width**0.5 * draws[..., p:],
        }

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return the outputs of all samples side by side, shape (…, nc)."""
        hidden, d = parameters["hidden"], X.shape[-1]
        before = X @ hidden[..., :d].mT
        if self.bias != "none":
            before = before + hidden[..., None, :, -1]
        return (torch.relu(before) @ parameters["output"]).flatten(-2)

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return ½ Σ(‖u‖² + ‖v‖²), shape (…,)."""
        hidden, output = parameters["hidden"], parameters["output"]
        return 0.5 * ((hidden**2).sum((-1, -2)) + (output**2).sum((-1, -2)))

    def sizes(self, parameters: Parameters) -> torch.Tensor:
        """Return ‖u‖‖v‖ of every neuron, shape (…, m): the least penalty that does the same."""
        return parameters["hidden"].norm(dim=-1) * parameters["output"].norm(dim=-1)

    def gates(self, parameters: Parameters) -> Floats:
        """Return the hidden weights of the neurons that take part, shape (m', p)."""
        return array(parameters["hidden"][self.sizes(parameters) > 0])

    def units(self, parameters: Parameters) -> Units:
        """Return the directions of the neurons that are not zero, (m', p)."""
        hidden = self.gates(parameters)
        return {"directions": hidden / np.linalg.norm(hidden, axis=1, keepdims=True)}

    def program(self, problem: Problem, patterns: Any, signs: Floats | None = None) -> GroupProgram:
        """Return the program over some directions: blocks (Xu)_+ ⊗ I_c without cones."""
        units = dictionary.by_name(self.label, patterns)
        c, design = problem.outputs, problem.design
        columns = np.maximum(units["directions"] @ design.T, 0.0)  # (G, n)
        blocks = columns[:, :, None, None] * np.eye(c)  # (G, n, c, c)
        return GroupProgram.of(
            problem.loss,
            problem.y,
            problem.beta,
            DenseAtoms(
                blocks.reshape(len(columns), problem.y.size, c),
                units,
                np.repeat(np.linalg.norm(design, axis=1), c),
            ),
            Euclidean(np.ones(c, dtype=bool)),
            None,
        )

    def checked_units(self, problem: Problem, units: Any) -> Units:
        """Return directions, refusing those whose length is not one."""
        units = super().checked_units(problem, units)
        lengths = np.linalg.norm(units["directions"], axis=1)
        if not dictionary.same(lengths, 1.0):
            far = lengths[np.abs(lengths - 1.0).argmax()]
            raise BadInput(f"patterns: a direction has length {far:.6g}: all must have length 1.")
        return {"directions": units["directions"] / lengths[:, None]}

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the directions of one network with blocks ‖u‖v; equal directions are merged."""
        alive = self.sizes(parameters) > 0
        directions, first, group = np.unique(
            np.asarray(self.units(parameters)["directions"]),
            axis=0,
            return_index=True,
            return_inverse=True,
        )
        hidden, output = (array(parameters[k][alive]) for k in ("hidden", "output"))
        theta = np.zeros((len(first), problem.outputs))
        blocks = np.linalg.norm(hidden, axis=1, keepdims=True) * output
        np.add.at(theta, group.reshape(-1), blocks)
        return ConvexPoint(self.program(problem, {"directions": directions}), theta, np.zeros(0))

    def lower(self, point: ConvexPoint) -> Parameters:
        """Return the balanced network, one neuron a block that is not zero."""
        lengths = np.linalg.norm(point.theta, axis=1)
        used = lengths > 0
        root = np.sqrt(lengths[used])[:, None]
        directions = np.asarray(point.program.units["directions"])[used]
        return {
            "hidden": torch.as_tensor(root * directions),
            "output": torch.as_tensor(point.theta[used] / root),
        }

    def own(self, problem: Problem, parameters: Parameters) -> GroupProgram:
        """Return the program over the directions of one network."""
        return cast("GroupProgram", self.lift(problem, parameters).program)

    def first(self, problem: Problem, seed: int) -> Units:
        """Return the coordinate directions, both ways."""
        eye = np.eye(problem.design.shape[1])
        return {"directions": np.vstack([eye, -eye])}

    def oracle(self, problem: Problem, effort: int) -> VectorOracle:
        """Return what prices all directions."""
        return VectorOracle(problem.design, problem.outputs, effort)

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return Clarke residuals in u and in v (the larger), wrong-signed ties and imbalances."""
        hidden, output = array(parameters["hidden"]), array(parameters["output"])
        lengths, sizes = np.linalg.norm(hidden, axis=1), np.linalg.norm(output, axis=1)
        there = np.maximum(lengths, sizes) > 0
        balance = np.abs(lengths - sizes)[there] / np.maximum(lengths, sizes)[there]
        both = np.flatnonzero((lengths > 0) & (sizes > 0))
        N, design, beta = nu.reshape(len(problem.X), -1), problem.design, problem.beta
        counted, one = np.ones(design.shape[1], dtype=bool), np.ones(1)
        clarke, wrong = np.zeros(len(both)), np.zeros(len(both))
        for k, j in enumerate(both):
            v = output[j] / sizes[j]
            own, tied = residuals(design, counted, hidden[j : j + 1], one, N @ v, beta)
            out = np.maximum(design @ hidden[j], 0.0) @ N / lengths[j]
            clarke[k] = max(own[0], np.linalg.norm(out / beta - v))
            wrong[k] = tied[0]
        return clarke, wrong, balance

    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of our own `Network`."""
        return read_own(self, module)
