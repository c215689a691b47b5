r"""Two-layer networks with a quadratic activation (Bartan & Pilanci, arXiv 2101.02429).

.. math::

    f(x) = \sum_j a_j \|w_j\|^2 σ\big(x^⊤w_j / \|w_j\|\big), \quad σ(t) = at^2 + bt + c, \qquad
    R = \tfrac13 \sum_j (2\|w_j\|^3 + |a_j|^3)

A neuron sees the direction of its weights; a constant input is a column of X.  R is at least
:math:`\sum_j |α_j|`, :math:`α_j = a_j\|w_j\|^2`, and equals it where :math:`\|w_j\| = |a_j|`: this
is the paper's problem over :math:`\|u_j\| = 1` with penalty :math:`β\sum|α_j|`, in weights that
gradient training may move freely.  (f is smooth in them, and of degree three as R is.)

*Exact in polynomial time.*  With :math:`M = X^⊤\mathrm{diag}(ν)X` a neuron prices at
:math:`|a\,u^⊤Mu + b\,(X^⊤ν)^⊤u + c\,1^⊤ν|`, which is largest where a trust-region problem says.
The same optimum is the semidefinite program over :math:`Z, Z' ⪰ 0` of order d + 1

.. math::

    \min\; ℓ(ŷ, y) + β(Z_4 + Z_4'), \quad
    ŷ_i = a\,x_i^⊤(Z_1 − Z_1')x_i + b\,x_i^⊤(Z_2 − Z_2') + c\,(Z_4 − Z_4'), \quad
    \mathrm{tr}\,Z_1 = Z_4,\; \mathrm{tr}\,Z_1' = Z_4'

(`landscape.solvers.spectrahedra`), and its neural decomposition (`landscape.semidefinite`) is an
optimal network.

*Plain weight decay* ½Σ(‖w‖² + a²) of a quadratic network is no such program: rescaling turns it
into a multiple of :math:`\sum|α_j|^{2/3}`, concave in the sizes, and to minimise it is NP-hard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from landscape import dictionary, semidefinite
from landscape.architectures.parallel import Parallel
from landscape.architectures.rows import seeded_normal
from landscape.dictionary import Oracle, Priced
from landscape.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Units
    from landscape.problem import Problem

EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Polynomial(Parallel):
    """Neurons of norm one with activation at² + bt + c.

    Attributes:
        quadratic: a.
        linear: b.
        constant: c.  The defaults are the least squares fit of a ReLU on [−5, 5].
        decay: "cubic"; "squared" is refused with the reason.
    """

    quadratic: float = 0.09375
    linear: float = 0.5
    constant: float = 0.46875
    decay: str = "cubic"
    name: ClassVar[str] = "polynomial"
    smooth_units: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse an activation that is zero or not finite, and plain weight decay."""
        coefficients = (self.quadratic, self.linear, self.constant)
        if not np.isfinite(coefficients).all() or not any(coefficients):
            raise BadInput(
                f"activation is {self.quadratic}·t² + {self.linear}·t + {self.constant}: its "
                "coefficients must be finite and not all zero."
            )
        if self.decay != "cubic":
            raise BadInput(
                f"decay is {self.decay!r}: it must be 'cubic'. Weight decay ½Σ(‖w‖² + a²) of "
                "a quadratic activation charges |α|^(2/3) for a neuron α·(xᵀu)², which is concave: "
                "no convex program has its optimum, and finding it is NP-hard (Bartan & Pilanci)."
            )

    def activation(self, t: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """Return size²·σ(t/size) = a t² + b t·size + c·size²."""
        return self.quadratic * t**2 + self.linear * t * size + self.constant * size**2

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with w ~ N(0, scale²/d) and a ~ N(0, scale²/m)."""
        d = problem.X.shape[1]
        draws = seeded_normal(seeds, width, d + 1)
        return {
            "hidden": scale / d**0.5 * draws[..., :d],
            "output": scale / width**0.5 * draws[..., d],
        }

    def each(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return the output of every neuron, shape (…, n, m)."""
        hidden = parameters["hidden"]
        size = hidden.norm(dim=-1)[..., None, :]
        return self.activation(X @ hidden.mT, size) * parameters["output"][..., None, :]

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return ⅓ Σ(2‖w‖³ + |a|³), shape (…,)."""
        cubes = 2.0 * parameters["hidden"].norm(dim=-1) ** 3 + parameters["output"].abs() ** 3
        return cubes.sum(-1) / 3.0

    def sizes(self, parameters: Parameters) -> torch.Tensor:
        """Return |α| = |a|‖w‖², shape (…, m)."""
        return parameters["output"].abs() * (parameters["hidden"] ** 2).sum(-1)

    def units(self, parameters: Parameters) -> Units:
        """Return the directions of the neurons that are not zero, (m, d)."""
        hidden = parameters["hidden"].detach().cpu().numpy().astype(np.float64)
        lengths = np.linalg.norm(hidden, axis=1)
        alive = (lengths > 0) & (parameters["output"].detach().cpu().numpy() != 0)
        return {"directions": hidden[alive] / lengths[alive, None]}

    def scaled(self, units: Units, z: Floats) -> Parameters:
        """Return the network with ‖w‖ = |a| = |z|^{1/3}."""
        share = np.abs(z) ** (1.0 / 3.0)
        return {
            "hidden": torch.as_tensor(share[:, None] * units["directions"]),
            "output": torch.as_tensor(np.sign(z) * share),
        }

    def reach(self, problem: Problem) -> Floats:
        """Return |a|‖x‖² + |b|‖x‖ + |c| of every sample."""
        lengths = np.linalg.norm(problem.X, axis=1)
        a, b, c = abs(self.quadratic), abs(self.linear), abs(self.constant)
        return a * lengths**2 + b * lengths + c

    def first(self, problem: Problem, seed: int) -> Units:
        """Return the coordinate directions."""
        return {"directions": np.eye(problem.X.shape[1])}

    def oracle(self, problem: Problem, effort: int) -> Oracle:
        """Return what prices every neuron on the sphere: two trust-region problems."""
        X, reach = problem.X, self.reach(problem)

        def price(nu: Floats, target: float = 0.0) -> Priced:
            A = self.quadratic * (X.T @ (nu[:, None] * X))
            A, h = (A + A.T) / 2.0, self.linear * (nu @ X)
            level = self.constant * float(nu.sum())
            charge = 4.0 * (sum(X.shape) + 8) * EPSILON * float(np.abs(nu) @ reach)
            peaks = [semidefinite.peak(sign * A, sign * h) for sign in (1.0, -1.0)]
            bound = max(p.bound + sign * level for p, sign in zip(peaks, (1.0, -1.0), strict=True))
            found = np.stack([peak.where for peak in peaks])
            unit = {"directions": found}
            values = np.abs(np.einsum("kd,de,ke->k", found, A, found) + found @ h + level)
            order = np.argsort(-values, kind="stable")
            order = order[values[order] > target]
            return Priced(max(0.0, bound) + charge, True, dictionary.take(unit, order), 0)

        return price

    def matrices(self, parameters: Parameters) -> tuple[Floats, Floats]:
        """Return Z and Z' of one network: its neurons of positive and of negative output weight.

        Both are positive semidefinite of order d + 1 with tr Z_1 = Z_4, and the penalty of a
        balanced network is Z_4 + Z_4'.
        """
        alive = self.sizes(parameters) > 0
        kept = {k: v[alive] for k, v in parameters.items()}
        directions = np.asarray(self.units(kept)["directions"])
        z = (self.sizes(kept) * kept["output"].sign()).detach().cpu().numpy()
        up, down = (semidefinite.lifted(directions, np.maximum(s * z, 0.0)) for s in (1.0, -1.0))
        return up, down

    def network_of(self, Z: Floats, Z_negative: Floats) -> Parameters:
        """Return a balanced network of two matrices of the semidefinite program.

        Raises:
            BadInput: if a matrix is no sum of neurons (see `semidefinite.decomposed`).
        """
        size = float(np.trace(Z) + np.trace(Z_negative))
        parts = [semidefinite.decomposed(part, size) for part in (Z, Z_negative)]
        z = np.concatenate([parts[0][1], -parts[1][1]])
        return self.scaled({"directions": np.concatenate([part[0] for part in parts])}, z)
