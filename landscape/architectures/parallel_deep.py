r"""Parallel deep ReLU networks: sums of trees of neurons (Ergen & Pilanci, NeurIPS 2023).

.. math::

    f(x) = \sum_k \Big(\sum_j (x^⊤w_{1kj})_+\, w_{2kj}\Big)_+ w_{3k} \qquad (L = 3)

and for L > 3 every neuron above the first layer sums m neurons of its own in the same way.  With
the path variables :math:`v_{kj} = w_{1kj} |w_{2kj} w_{3k}|` (for L > 3 one for every way from an
input neuron to the output) a unit is a positively homogeneous function of its
:math:`V_k = (v_{kj})_j` and of signs.  Regularisers, with γ the program's gauge:

* "path": :math:`R = \sum_k \sqrt{\sum_j \|w_{1kj}\|^2 w_{2kj}^2}\, |w_{3k}|`, γ(V) = ‖V‖_F.
* "cubic" (L = 3): :math:`R = \tfrac13 \sum_k (\|W_{1k}\|_F^3 + \|w_{2k}\|^3 + |w_{3k}|^3)`, at
  least :math:`\|W_{1k}\|_F \|w_{2k}\| |w_{3k}|` (means), at least :math:`γ(V) = \sum_j \|v_{kj}\|`
  (Cauchy–Schwarz), and equal to it at :math:`|w_3| = t^{1/3}`,
  :math:`|w_{2j}| = t^{1/3} (\|v_j\|/t)^{1/2}`, t = γ(V).
* :math:`\sum \|\cdot\|_F^2` is refused: its least value is a multiple of :math:`t^{2/3}`, which is
  not convex in t.  So is a power of the layers' norms for L = 4: its least value is
  :math:`(\sum_i t_i^{2/3})^{3/2}` in the sizes t_i of the units below the top.

Fixed patterns of all neurons and signs leave f linear in V on a cone, hence the program

.. math:: \min \; ℓ\Big(\sum_g ±D_2 \sum_j s_j D_{i_j} X v^g_j\Big) + β \sum_g γ(V^g), \quad
    (2D_{i_j} − I) X v^g_j ≥ 0, \quad (2D_2 − I) \sum_j s_j D_{i_j} X v^g_j ≥ 0 .

Its values stand to the two-layer optimum p₂(β) (same bias) as follows, for every data set:
p(β) ≤ p₂(β) for both, because a unit may have one input neuron.  "path": p(β) ≤ p₂(β/√m) for L = 3,
because m equal input neurons put out m(x^⊤v)_+ at the price √m ‖v‖; so with m ≥ 2 it is strictly
lower whenever p₂(β) is not that of the zero network.  "cubic": equal in some instances (orthogonal
samples), *strictly lower in general* (by .014 % to 20 % on random samples, n = 6): a neuron
((x^⊤u)_+ − (x^⊤v)_+)_+ is a bump of size ‖u‖ + ‖v‖, for which ramps may have to pay more.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import torch

from landscape import dictionary
from landscape.architectures.base import Architecture, ConvexPoint
from landscape.architectures.modules import read_own
from landscape.architectures.parallel import sideways
from landscape.architectures.rows import (
    seeded_normal,
)
from landscape.arrangements.trees import Tree
from landscape.dense import DenseAtoms, DenseCones, GroupProgram, Parts
from landscape.errors import BadInput, unknown, whole
from landscape.pricing.trees import STEPS, TreeOracle, climbed

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Oracle, Units
    from landscape.problem import Problem

BIASES = ("none", "penalised")
REGULARISERS = ("path", "cubic")
FIRST = 32
"""Units of each sign that column generation begins with."""


@dataclass(frozen=True)
class ParallelDeep(Architecture):
    """Parallel units of L layers, every neuron above the first layer with m neurons of its own.

    Attributes:
        depth: number of layers L, the output's included; at least 3.
        branching: neurons m that feed one of the next layer, within a unit.
        regulariser: "path", or "cubic" for three layers (see the module's text).
        bias: "none", or "penalised": a coordinate of the first layer's weights.
    """

    depth: int = 4
    branching: int = 2
    regulariser: Literal["path", "cubic"] = "path"
    bias: Literal["none", "penalised"] = "none"
    name: ClassVar[str] = "parallel_deep"

    def __post_init__(self) -> None:
        """Refuse unknown choices, and regularisers that have no convex program."""
        whole("depth", self.depth, 3)
        whole("branching", self.branching, 1)
        if self.bias not in BIASES:
            raise unknown("bias", self.bias, BIASES)
        if self.regulariser in ("l2", "weight_decay", "decay", "squared"):
            raise BadInput(
                f"regulariser is {self.regulariser!r}: the least Σ‖W_l‖_F² of a unit of size t is "
                "a multiple of t^(2/L), which is not convex, so there is no convex program; use "
                "'path' or, for three layers, 'cubic'."
            )
        if self.regulariser not in REGULARISERS:
            raise unknown("regulariser", self.regulariser, REGULARISERS)
        if self.regulariser == "cubic" and self.depth != 3:
            raise BadInput(
                f"regulariser is 'cubic' and depth {self.depth}: powers of layer norms are convex "
                "in the path variables for three layers only; use regulariser='path'."
            )

    @property
    def tree(self) -> Tree:
        """The shape of a unit."""
        return Tree(self.depth, self.branching)

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with normal weights of variance scale² over the layer's inputs."""
        p, tree = problem.design.shape[1], self.tree
        draws = seeded_normal(seeds, width, tree.leaves * p + tree.edges + 1)
        hidden = draws[..., : tree.leaves * p].unflatten(-1, (tree.leaves, p))
        return {
            "hidden": scale / p**0.5 * hidden,
            "inner": scale / self.branching**0.5 * draws[..., tree.leaves * p : -1],
            "output": scale / width**0.5 * draws[..., -1],
        }

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n)."""
        hidden, width = parameters["hidden"], X.shape[-1]
        out = X @ hidden[..., :width].flatten(-3, -2).mT  # (…, n, m·leaves)
        if self.bias != "none":
            out = out + hidden[..., -1].flatten(-2)[..., None, :]
        out = torch.relu(out).unflatten(-1, hidden.shape[-3:-1])
        sizes = self.tree.widths[1:]
        for weights in reversed(parameters["inner"].split(sizes, dim=-1)):
            weighted = out * weights[..., None, :, :]
            out = torch.relu(weighted.unflatten(-1, (-1, self.branching)).sum(-1))
        return (out[..., 0] * parameters["output"][..., None, :]).sum(-1)

    def _paths(self, parameters: Parameters) -> torch.Tensor:
        """Return V of every unit with signed weights, shape (…, m, leaves, p)."""
        product = parameters["output"][..., None]
        for weights in parameters["inner"].split(self.tree.widths[1:], dim=-1):
            product = product.repeat_interleave(self.branching, dim=-1) * weights
        return parameters["hidden"] * product[..., None]

    def _each(self, parameters: Parameters) -> torch.Tensor:
        """Return the regulariser of every unit, shape (…, m)."""
        if self.regulariser == "path":
            return self.sizes(parameters)
        hidden = torch.linalg.vector_norm(parameters["hidden"], dim=(-1, -2)) ** 3
        inner = torch.linalg.vector_norm(parameters["inner"], dim=-1) ** 3
        return (hidden + inner + parameters["output"].abs() ** 3) / 3

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return R, shape (…,)."""
        return self._each(parameters).sum(-1)

    def sizes(self, parameters: Parameters) -> torch.Tensor:
        """Return γ(V) of every unit, shape (…, m): the least regulariser of one that does this."""
        V = self._paths(parameters)
        if self.regulariser == "path":
            return torch.linalg.vector_norm(V, dim=(-1, -2))
        return torch.linalg.vector_norm(V, dim=-1).sum(-1)

    def gates(self, parameters: Parameters) -> Floats:
        """Refuse: units have no gates of their own."""
        raise BadInput(
            f"architecture {self.label}: its units are no half-spaces, so they have no activation "
            "patterns; use `own(problem, parameters).units` instead."
        )

    def program(self, problem: Problem, patterns: Any, signs: Floats | None = None) -> GroupProgram:
        """Return the program over groups: masks of all neurons, signs, output signs."""
        units = dictionary.by_name(self.label, patterns)
        maps, rows = self.tree.maps(problem.design, units["masks"], units["signs"])
        reach = np.linalg.norm(problem.design, axis=1)
        if self.regulariser == "path":
            reach = reach * self.tree.leaves**0.5
        parts, p = self.tree.leaves, problem.design.shape[1]
        return GroupProgram.of(
            problem.loss,
            problem.y,
            problem.beta,
            DenseAtoms(maps * units["outputs"][:, None, None], units, reach),
            Parts(1, parts * p) if self.regulariser == "path" else Parts(parts, p),
            DenseCones(rows),
        )

    def checked_units(self, problem: Problem, units: Any) -> Units:
        """Return masks of all neurons with signs of units and outputs, refusing others."""
        units = super().checked_units(problem, units)
        for name in ("signs", "outputs"):
            dictionary.check_signs(name, units[name])
        return units

    def _groups(self, problem: Problem, V: Floats, signs: Floats, outputs: Floats) -> Units:
        """Return the groups of units with leaf vectors V (m, leaves, p)."""
        masks = self.tree.masks(problem.design, V, signs)
        return {"masks": masks, "signs": signs, "outputs": outputs}

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the path variables, units of one group merged, which cannot raise γ."""
        V, signs, outputs = self._alive(parameters)
        groups = self._groups(problem, V, signs, outputs)
        bits = groups["masks"].shape[1] * groups["masks"].shape[2]
        masks = groups["masks"].reshape(len(V), bits)
        keys = np.hstack([masks, signs > 0, outputs[:, None] > 0])
        _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        theta = np.zeros((len(first), V.shape[1] * V.shape[2]))
        np.add.at(theta, group.reshape(-1), V.reshape(len(V), theta.shape[1]))
        program = self.program(problem, dictionary.take(groups, first))
        return ConvexPoint(program, theta, np.zeros(0))

    def _alive(self, parameters: Parameters) -> tuple[Floats, Floats, Floats]:
        """Return V (m', leaves, p), signs of edges and outputs of the units that take part."""
        kept = self.sizes(parameters) > 0
        hidden, inner, output = (
            parameters[name][kept].detach().cpu().numpy().astype(np.float64)
            for name in ("hidden", "inner", "output")
        )
        paths = self.tree.paths(np.abs(inner)) * np.abs(output)[:, None]
        return (
            hidden * paths[:, :, None],
            np.where(inner < 0, -1.0, 1.0),
            np.sign(output),
        )

    def lower(self, point: ConvexPoint) -> Parameters:
        """Return the balanced network, one unit a block that is not zero."""
        program = cast("GroupProgram", point.program)
        used = program.gauge.value(point.theta) > 0
        units, tree = program.units, self.tree
        count, p = int(used.sum()), point.theta.shape[1] // tree.leaves
        V = point.theta[used].reshape(count, tree.leaves, p)
        mass = [np.linalg.norm(V, axis=2)]  # of the leaves below every node, by level
        for width in tree.widths[-2::-1]:
            mass.insert(0, mass[0].reshape(count, width, self.branching).sum(axis=2))
        unit = mass[0] ** (1.0 / self.depth)  # (m, 1)
        edges, product = [], unit
        for above, below in itertools.pairwise(mass):
            whole_ = np.repeat(above, self.branching, axis=1)
            share = np.divide(below, whole_, out=np.zeros_like(below), where=whole_ > 0)
            edges.append(unit * np.sqrt(share))
            product = np.repeat(product, self.branching, axis=1) * edges[-1]
        scale = np.divide(1.0, product, out=np.zeros_like(product), where=product > 0)
        return {
            "hidden": torch.as_tensor(V * scale[:, :, None]),
            "inner": torch.as_tensor(np.concatenate(edges, axis=1) * units["signs"][used]),
            "output": torch.as_tensor(unit[:, 0] * units["outputs"][used]),
        }

    def own(self, problem: Problem, parameters: Parameters) -> GroupProgram:
        """Return the program over the groups of one network."""
        return cast("GroupProgram", self.lift(problem, parameters).program)

    def first(self, problem: Problem, seed: int) -> Units:
        """Return the groups of units that climb the price of the targets."""
        nu = -problem.loss.gradient(np.zeros(problem.y.shape), problem.y)
        summed, groups = self.regulariser == "cubic", []
        for side in (1.0, -1.0):
            V, signs, _ = climbed(self.tree, problem.design, side * nu, summed, seed, FIRST, STEPS)
            groups.append(self._groups(problem, V, signs, np.full(len(V), side)))
        return dictionary.join(*groups)

    def oracle(self, problem: Problem, effort: int) -> Oracle:
        """Return what prices all groups: a list where it is short, else climbs and a bound."""
        return TreeOracle(
            self.tree,
            problem.design,
            lambda units: self.program(problem, units),
            effort,
        )

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return what units lack in size, |νᵀa/(βγ) − 1| for outputs a, sideways, and imbalance."""
        point = self.lift(problem, parameters)
        program = point.program
        sizes = program.gauge.value(point.theta)
        gains = (program.atoms.adjoint(nu) * point.theta).sum(axis=1)
        clarke = np.abs(gains / (sizes * problem.beta) - 1)
        size = self.sizes(parameters)
        alive = size > 0
        balance = 1.0 - (size[alive] / self._each(parameters)[alive]).detach().cpu().numpy()
        lacking, wrong = sideways(self, problem, point, nu)
        return np.maximum(clarke, lacking), wrong, np.maximum(balance, 0.0)

    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of our own `Network`."""
        return read_own(self, module)
