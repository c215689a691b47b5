r"""Two-layer threshold and sign networks and their Lasso (Ergen et al., ICLR 2023).

.. math::

    f(x) = \sum_j a_j s_j\, 1[x^⊤w_j ≥ 0], \quad R = \tfrac12 \sum_j (s_j^2 + a_j^2)
    \qquad \min_z \; ℓ(Dz, y) + β \|z\|_1

The columns of D are all patterns :math:`1[Xw ≥ 0]`, of lower faces and of w = 0 too: a tie counts
as on.  On the regular triangle with y = 1 and β = .1 cells alone give .14625; the optimum, by the
all-ones pattern, is .09833.  The hidden weights are free, so a bias needs no penalty either: it is
a column of ones beside X.  Bias "penalised": constants are paid for as the all-ones pattern;
"free": an output bias ξ is free besides.

Without a bias a product x·w counts as zero where rounding could hide it, at
:math:`|x^⊤w| ≤ 16(p + 2) ε ‖x‖‖w‖`, so that a direction on several hyperplanes makes the same
pattern on every machine.  With one, patterns of lower faces are patterns of cells too.  Antipodal
samples closer than 1e-12 to being so are taken to be (see `arrangements.enumerate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch

from landscape import arrangements
from landscape.architectures.complete import clipped, level_sets
from landscape.architectures.parallel import constants
from landscape.architectures.rows import BIASES, seeded_normal
from landscape.architectures.steps import Steps
from landscape.arrangements import Arrangements
from landscape.arrangements.faces import two_sided
from landscape.arrangements.halfspaces import Halfspaces
from landscape.arrangements.rows import hyperplanes
from landscape.arrangements.switches import Lines
from landscape.dictionary import Priced
from landscape.errors import unknown

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Lasso, Oracle, Units
    from landscape.problem import Problem

MOST = 24
"""Units that one pricing returns at most, for each sign."""


@dataclass(frozen=True)
class Threshold(Steps):
    """A two-layer network of threshold or sign neurons with one output.

    Attributes:
        bias: "none", "penalised" or "free" (see the module's text).
    """

    bias: Literal["none", "penalised", "free"] = "none"
    name: ClassVar[str] = "threshold"

    def __post_init__(self) -> None:
        """Refuse unknown choices."""
        super().__post_init__()
        if self.bias not in BIASES:
            raise unknown("bias", self.bias, BIASES)

    @property
    def has_constant(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether there is a free output bias ξ."""
        return self.bias == "free"

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with w ~ N(0, 1/p), s = ``scale`` and a ~ N(0, scale²/m)."""
        p = problem.design.shape[1]
        draws = seeded_normal(seeds, width, p + 1)
        parameters = {
            "hidden": draws[..., :p] / p**0.5,
            "amplitude": torch.full_like(draws[..., p], scale),
            "output": scale / width**0.5 * draws[..., p],
        }
        return parameters | ({"constant": constants(seeds)} if self.has_constant else {})

    def steps(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return the steps of all neurons, shape (…, n, m)."""
        hidden = parameters["hidden"]
        before = X @ hidden[..., : X.shape[-1]].mT
        if self.bias != "none":  # rows (x, 1) are never positively dependent
            return self.step(before + hidden[..., None, :, -1])
        rounding = 16.0 * (hidden.shape[-1] + 2) * torch.finfo(before.dtype).eps
        size = hidden.detach().norm(dim=-1)[..., None, :]
        return self.step(before, rounding * X.norm(dim=-1)[..., None] * size)

    def gates(self, parameters: Parameters) -> Floats:
        """Return the hidden weights of the neurons that take part, shape (m', p)."""
        return np.asarray(self.units(parameters)["hidden"])

    def program(
        self, problem: Problem, patterns: Arrangements | Units, signs: Floats | None = None
    ) -> Lasso:
        """Return the Lasso over the patterns of these gates, an `Arrangements`' or by name."""
        if isinstance(patterns, Arrangements):
            patterns = {"hidden": patterns.gates}
        return super().program(problem, patterns, signs)

    def first(self, problem: Problem, seed: int) -> Units:
        """Return random neurons, w = 0 and, if all patterns exist, levels of the clipped fit."""
        p = problem.design.shape[1]
        gates = [arrangements.sample(problem.design, 4 * p, seed=seed).gates, np.zeros((1, p))]
        planes = hyperplanes(problem.design)
        complete = len(planes.Z) == planes.rank and not two_sided(planes).any()
        if complete and (planes.owner >= 0).all() and problem.loss.name == "squared":
            counts = np.bincount(planes.owner).astype(np.float64)
            mean = np.bincount(planes.owner, problem.y) / counts
            fit = clipped(mean, counts, problem.beta, self.activation)
            sides = np.where(level_sets(fit, self.activation), 1.0, -1.0)
            gates.append(np.linalg.lstsq(planes.Z, sides.T)[0].T @ planes.lift.T)
        return {"hidden": np.vstack(gates)}

    def oracle(self, problem: Problem, effort: int) -> Oracle:
        """Return what prices all patterns: exact at low rank or if all patterns exist."""
        if problem.X.shape[1] == 1 and self.bias != "none":
            return self._on_a_line(problem)
        halfspaces = Halfspaces(problem.design, effort)
        count = arrangements.count(halfspaces.u, halfspaces.rank) + 1

        def price(nu: Floats, target: float = 0.0) -> Priced:
            high, heavy = halfspaces.heaviest(nu, MOST)
            low, light = halfspaces.heaviest(-nu, MOST)
            units = {"hidden": np.vstack([heavy, light])}
            bound, exact, best = self.priced(problem, units, nu, (high, low), target)
            return Priced(bound, exact, best, count)

        return price

    def _on_a_line(self, problem: Problem) -> Oracle:
        """Return what prices half-lines, samples told apart however close they are."""
        lines = Lines(problem.X, 1)

        def price(nu: Floats, target: float = 0.0) -> Priced:
            merged, gates = lines.merged(nu), []
            high, heavy = lines.heaviest(merged)
            low, light = lines.heaviest(-merged)
            for ordered, sequences in (*heavy, *light):
                for sequence in sequences:
                    up, down = ordered.cuts(sequence)
                    start = bool(sequence[0])
                    gate = [0.0, 2.0 * start - 1.0]
                    if len(up):
                        gate = [-1.0, down[0]] if start else [1.0, -up[0]]
                    gates.append(gate)
            units = {"hidden": np.array(gates)}
            bound, exact, best = self.priced(problem, units, nu, (high, low), target)
            return Priced(bound, exact, best, lines.count)

        return price
