r"""Normalisation after ReLU: units of unit norm on the training inputs (2209.15265).

.. math::

    f(x) = \sum_j \frac{(x^⊤w_j)_+}{\|(Xw_j)_+\|_2}\, s_j a_j, \qquad
    R = \tfrac12 \sum_j (s_j^2 + a_j^2)

with X the training inputs, s_j the scale of the normalisation layer and a_j the output weight
(Wang, Hua, Candès & Pilanci, 2022, where w_j is not penalised either: outputs do not depend on its
length).  f and R are both of degree two in (s, a), and :math:`\tfrac12(s^2 + a^2) ≥ |sa|`, with
equality where |s| = |a|: training is the Lasso over all normalised outputs.

*The paper's program.*  With :math:`D_iX = U_iΣ_iV_i^⊤` and z free in the null space N_i of D_iX

.. math::

    \min_{w_i, z_i} ℓ\Big(\sum_i ±U_i w_i,\; y\Big) + β\sum_i \|w_i\|_2 \quad \text{subject to }
    (2D_i − I) X (V_iΣ_i^{-1} w_i + N_i z_i) ≥ 0

because :math:`(Xw)_+ = U_i(Σ_iV_i^⊤w)` on the cell of pattern i.  Where D_iX has the rank of X
there is no z.  Where it has less, leaving z out asks one particular w with the right outputs to be
in the cell, and loses units *of that pattern*: a program over given patterns needs z.  Over all
patterns it does not.  Moving w along z, outputs unchanged, ends at a sample's hyperplane, in the
closure of a cell that has that sample on, and whose D_iX has a larger rank; so closed cells of full
rank have all outputs (`tests/test_normalised_relu.py` checks both).

*Prices* are those of the cones of outputs, cell by cell (`landscape.pricing.normalised`): exact
where the cells can be listed, in the plane for hundreds of samples, and for X of rank n; a
relaxation labelled so elsewhere.  Suprema are attained, also where outputs tend to zero on the way.

*New inputs* are divided by the norms on the training inputs, which a network carries as a fixed
parameter ``inputs``; `folded` is the same function without them.  Products x·w below their rounding
count as zero, so that a direction on a kink does not live on its rounding; and units whose outputs
rounding may change by more than 1e-6 put out nothing (weights that all but cancel, see
`landscape.architectures.whitening.CLEAR`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
import torch

from landscape import arrangements, dictionary
from landscape.architectures.parallel import Amplified, distinct, split
from landscape.architectures.rows import seeded_normal
from landscape.architectures.whitening import SAME, clear, rounding
from landscape.arrangements.rays import cost
from landscape.dictionary import Columns, Lasso, Priced
from landscape.errors import BadInput
from landscape.pricing.normalised import LISTED, Climbs, ListedCells, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscape.architectures.base import ConvexPoint, Floats, Parameters
    from landscape.arrangements import Arrangements
    from landscape.dictionary import Oracle, Units
    from landscape.problem import Problem

MOST = 24
"""Units that one pricing returns at most."""
EXACT = 1e-9
"""A bound counts as attained up to this, relatively."""


@dataclass(frozen=True)
class OnNormalised(Lasso):
    """The Lasso over normalised outputs, which knows the inputs that norms are taken on.

    Attributes:
        inputs: X, shape (n, d).
    """

    inputs: Floats


@dataclass(frozen=True)
class NormalisedReLU(Amplified):
    """A two-layer network with normalisation after its ReLUs, and one output."""

    name: ClassVar[str] = "normalised_relu"
    fixed: ClassVar[tuple[str, ...]] = ("inputs",)
    shared: ClassVar[tuple[str, ...]] = ("inputs",)

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with w ~ N(0, I/d), s = ``scale`` and a ~ N(0, scale²/m)."""
        d = problem.X.shape[1]
        draws = seeded_normal(seeds, width, d + 1)
        return {
            "hidden": draws[..., :d] / d**0.5,
            "amplitude": torch.full_like(draws[..., d], scale),
            "output": scale / width**0.5 * draws[..., d],
            "inputs": torch.as_tensor(problem.X).repeat(len(seeds), 1, 1),
        }

    def each(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return the output of every unit, shape (…, n, m)."""
        hidden = parameters["hidden"]
        gain = parameters["amplitude"] * parameters["output"] / self.norms(parameters)
        return _outputs(hidden, X)[0] * gain[..., None, :]

    def norms(self, parameters: Parameters) -> torch.Tensor:
        """Return ‖(Xw)_+‖ on the training inputs, shape (…, m).

        1 for units that are off there; infinite for those whose outputs are little but rounding.
        """
        trained, blurred = _outputs(parameters["hidden"], parameters["inputs"])
        norms = torch.linalg.vector_norm(trained, dim=-2)
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        return torch.where(blurred, torch.full_like(norms, torch.inf), norms)

    def units(self, parameters: Parameters) -> Units:
        """Return the directions of the units whose size is not zero, (m, d)."""
        hidden = parameters["hidden"].detach().cpu().numpy().astype(np.float64)
        return {"directions": _unit(hidden[(self.sizes(parameters) > 0).cpu().numpy()])}

    def scaled(self, units: Units, z: Floats) -> Parameters:
        """Return weights with s = √|z| and a = ±√|z|; the inputs are the program's to add."""
        return {"hidden": torch.as_tensor(np.asarray(units["directions"])), **split(z)}

    def program(
        self, problem: Problem, patterns: Arrangements | Units, signs: Floats | None = None
    ) -> OnNormalised:
        """Return the Lasso over the normalised outputs of these directions."""
        units = dictionary.by_name(self.label, patterns)
        atoms = Columns(columns(problem.X, units), units, self.reach(problem))
        lasso = Lasso.of(problem.loss, problem.y, problem.beta, atoms)
        parts = {f.name: getattr(lasso, f.name) for f in fields(Lasso)}
        return OnNormalised(**parts, inputs=problem.X)

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the units of one network with their sizes and signs."""
        return super().lift(problem, self.attached(problem, parameters))

    def attached(self, problem: Problem, parameters: Parameters) -> Parameters:
        """Return a network whose norms are taken on the problem's X, if its own inputs are that.

        In any order, which changes no norm, and up to single precision.
        """
        inputs, X = parameters["inputs"].detach().cpu().double().numpy(), problem.X
        near = SAME * np.abs(X).max(axis=0)
        unit = np.where(near > 0, near, 1.0)
        orders = [(inputs, X), tuple(v[np.lexsort(np.round(v / unit).T)] for v in (inputs, X))]
        if inputs.shape != X.shape or not any((np.abs(a - b) <= near).all() for a, b in orders):
            raise BadInput(
                f"network is normalised on {len(inputs)} inputs that are not the problem's "
                f"{len(X)}: train it on these, or replace its parameter 'inputs' by them."
            )
        return {**parameters, "inputs": torch.tensor(X)}

    def lower(self, point: ConvexPoint) -> Parameters:
        """Return the balanced network, one unit a column that is not zero."""
        inputs = cast("OnNormalised", point.program).inputs
        return {**super().lower(point), "inputs": torch.as_tensor(inputs.copy())}

    def reach(self, problem: Problem) -> Floats:
        """Return ones: what a unit puts out at most."""
        return np.ones(len(problem.y))

    def first(self, problem: Problem, seed: int) -> Units:
        """Return random directions and those of the samples, and what climbs to the targets."""
        nu = -problem.loss.gradient(np.zeros(problem.y.shape), problem.y)
        rng, d = np.random.default_rng(seed), problem.X.shape[1]
        climbs = Climbs(problem.X, seed)
        found = [climbs(side * nu).directions for side in (1.0, -1.0)]
        directions = np.vstack([rng.standard_normal((4 * d, d)), *found])
        return {"directions": _unit(directions[directions.any(axis=1)])}

    def oracle(self, problem: Problem, effort: int) -> Oracle:
        """Return what prices all units: the list of cells where it is short, else a relaxation."""
        n, X = problem.X.shape[0], problem.X
        size = cost(X)
        listed = size <= min(LISTED, effort) and np.linalg.matrix_rank(X) < n and whole(X)
        priced = Climbs(X)
        if listed:
            with suppress(arrangements.Undecided):  # rows too nearly degenerate to be listed
                priced = ListedCells(X, LISTED)

        def price(nu: Floats, target: float = 0.0) -> Priced:
            both = [priced(side * nu, target) for side in (1.0, -1.0)]
            bound = max(one.bound for one in both)
            units: Units = {"directions": _unit(np.vstack([one.directions for one in both]))}
            values = columns(X, units)
            prices = np.abs(nu @ values)
            attained = float(prices.max(initial=0.0))
            exact = bound <= attained * (1 + EXACT) + 1e-12 * float(np.linalg.norm(nu))
            order = np.where(prices > target, prices, -np.inf)
            best = distinct(units, values, order, MOST)
            return Priced(bound, exact, best, size if listed else 0)

        return price

    def folded(self, parameters: Parameters) -> Parameters:
        """Return the same function without normalisation, as a network of TwoLayer().

        Its weights are s w/‖(Xw)_+‖: what one would deploy; it holds no training inputs.
        """
        sign = parameters["amplitude"].sign()
        gain = (parameters["amplitude"].abs() / self.norms(parameters)).detach()
        return {
            "hidden": gain[:, None] * parameters["hidden"].detach(),
            "output": (sign * parameters["output"]).detach(),
        }

    def without_padding(self, parameters: Parameters) -> Parameters:
        """Return one network without units of size zero."""
        used = self.sizes(parameters) > 0
        return {k: v if k in self.shared else v[used] for k, v in parameters.items()}


def _unit(directions: Floats) -> Floats:
    """Return directions (m, d) at length one, zeros as they are; squares do not overflow."""
    largest = np.abs(directions).max(axis=1, keepdims=True, initial=0.0)
    directions = directions / np.where(largest > 0, largest, 1.0)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    return directions / np.where(lengths > 0, lengths, 1.0)


def _outputs(hidden: torch.Tensor, X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (Xw)_+ (…, n, m), products below their rounding zero, and which units are blurred.

    Those are (…, m) the units that are on, but too much of whose outputs rounding may change.
    """
    before = X @ hidden.mT
    doubt = rounding(hidden.shape[-1], before.dtype) * (X.abs() @ hidden.detach().abs().mT)
    seen = before.detach()
    outputs = torch.relu(before) * (seen > doubt)
    doubt = torch.linalg.vector_norm(doubt * (seen >= -doubt), dim=-2)
    norms = torch.linalg.vector_norm(outputs.detach(), dim=-2)
    return outputs, (norms > 0) & (doubt > clear(before.dtype) * norms)


def columns(X: Floats, units: Units) -> Floats:
    """Return normalised outputs of directions on the inputs themselves, shape (n, m)."""
    found = _outputs(torch.as_tensor(np.asarray(units["directions"])), torch.as_tensor(X))
    outputs, blurred = (one.numpy() for one in found)
    norms = np.where(blurred, np.inf, np.linalg.norm(outputs, axis=0))
    return outputs / np.where(norms > 0, norms, 1.0)
