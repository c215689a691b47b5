r"""Heads: units of two matrices, whose sums are matrices of low rank.

.. math::

    f(x) = \sum_j g(x; W_{1j}, W_{2j}), \qquad
    R = \tfrac12 \sum_j \big(\|W_{1j}\|_F^2 + \|W_{2j}\|_F^2\big)
        \ge \sum_j \|W_{1j}\|_F \|W_{2j}\|_F

with g of degree one in either matrix.  Where g is linear in both, the heads of one gate add up to
:math:`Z = \sum_j \mathrm{vec}(W_{1j}) \mathrm{vec}(W_{2j})^⊤`; the least R of that sum is its
nuclear norm, reached by its singular vectors, as many heads as its rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from landscape.architectures.base import ConvexPoint
from landscape.architectures.parallel import Parallel

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Units
    from landscape.problem import Problem

NOISE = 16 * float(np.finfo(np.float64).eps)
"""Singular values up to this times the size of the block, relative to the largest, are rounding."""


class Heads(Parallel):
    """Units of two matrices: parameters ``hidden`` (m, a, b), ``output`` (m, e, c), maybe ``gate``.

    A gate is the number of one of finitely many, (m,); subclasses give `each` and `bilinear`.
    """

    fixed: ClassVar[tuple[str, ...]] = ("gate",)
    flat_outputs: ClassVar[bool] = True
    smooth_units: ClassVar[bool] = True

    @property
    def bilinear(self) -> bool:
        """Whether heads of one gate are linear in both matrices."""
        return True

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return ½ Σ(‖W_1‖² + ‖W_2‖²), shape (…,)."""
        squares = [(parameters[k] ** 2).sum((-1, -2, -3)) for k in ("hidden", "output")]
        return 0.5 * (squares[0] + squares[1])

    def sizes(self, parameters: Parameters) -> torch.Tensor:
        """Return ‖W_1‖‖W_2‖ of every head, shape (…, m)."""
        return _norms(parameters["hidden"]) * _norms(parameters["output"])

    def units(self, parameters: Parameters) -> Units:
        """Return the heads at size one: W_1 and W_2 of norm one, and the gate's number."""
        hidden, output = parameters["hidden"], parameters["output"]
        alive = self.sizes(parameters) > 0
        units = {
            "first": hidden[alive] / _norms(hidden)[alive][:, None, None],
            "second": output[alive] / _norms(output)[alive][:, None, None],
        }
        if "gate" in parameters:
            units["gate"] = parameters["gate"][alive]
        return {k: v.detach().cpu().numpy().astype(np.float64) for k, v in units.items()}

    def scaled(self, units: Units, z: Floats) -> Parameters:
        """Return the network with ‖W_1‖ = ‖W_2‖ = √|z|."""
        share = np.sqrt(np.abs(z))[:, None, None]
        parameters = {
            "hidden": torch.as_tensor(share * units["first"]),
            "output": torch.as_tensor(np.sign(z)[:, None, None] * share * units["second"]),
        }
        if "gate" in units:
            parameters["gate"] = torch.as_tensor(units["gate"])
        return parameters

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the heads of one network with their sizes, those of one gate made orthogonal."""
        few = self.fewest(parameters)
        z = self.sizes(few).detach().cpu().numpy()
        program = self.program(problem, self.units(few))
        return ConvexPoint(program, z[z > 0][:, None], np.zeros(0))

    def lower(self, point: ConvexPoint) -> Parameters:
        """Return the balanced network of a point, with as few heads as its blocks have rank."""
        return self.fewest(super().lower(point))

    def fewest(self, parameters: Parameters) -> Parameters:
        """Return a balanced network with the same outputs and as few heads as the rank of Z.

        Heads are singular vectors of every gate's Z, so its penalty is Σ‖Z_g‖_*, no more than
        before; heads that are not linear in both matrices stay as they are.  Outputs are the same
        up to the rounding of Z: heads that are rounding beside the largest go.
        """
        if not self.bilinear:
            sizes = self.sizes(parameters).detach().cpu().double().numpy()
            return self.scaled(self.units(parameters), sizes[sizes > 0])
        hidden, output = (parameters[k].detach().cpu().double() for k in ("hidden", "output"))
        gate = parameters["gate"].detach().cpu() if "gate" in parameters else hidden[:, 0, 0] * 0.0
        parts = []
        for g in torch.unique(gate):
            left, right = (M[gate == g].flatten(1).numpy() for M in (hidden, output))
            U, S, V = _singular(left, right)
            noise = NOISE * max(left.shape[1], right.shape[1]) * S.max(initial=0.0)
            kept = noise < S
            parts.append((U[kept], V[kept], np.full(kept.sum(), float(g)), S[kept]))
        if not parts:
            return parameters
        U, V, g, S = (np.concatenate(part) for part in zip(*parts, strict=True))
        units = {
            "first": U.reshape(-1, *hidden.shape[1:]),
            "second": V.reshape(-1, *output.shape[1:]),
        }
        return self.scaled({**units, "gate": g} if "gate" in parameters else units, S)

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return what heads of size one lack, ‖∂(νᵀf)/∂W/β − W‖ (at kinks torch's slope), balance.

        The larger of the two matrices counts; imbalance is that of ‖W_1‖ and ‖W_2‖.
        """
        units = self.units(parameters)
        one = self.scaled(units, np.ones(len(units["first"])))
        leaves = {k: v.clone().requires_grad_(k != "gate") for k, v in one.items()}
        gain = (self.each(leaves, torch.as_tensor(problem.X)).sum(-1) * torch.as_tensor(nu)).sum()
        matrices = [leaves["hidden"], leaves["output"]]
        slopes = torch.autograd.grad(gain, matrices)
        lacks = [_norms(s / problem.beta - w) for s, w in zip(slopes, matrices, strict=True)]
        lacking = torch.maximum(*lacks).detach().numpy()
        first, second = (_norms(parameters[k]).detach().cpu() for k in ("hidden", "output"))
        larger = torch.maximum(first, second)
        balance = ((first - second).abs() / larger)[larger > 0].numpy()
        return lacking, np.zeros(len(lacking)), balance


def _norms(matrices: torch.Tensor) -> torch.Tensor:
    """Return Frobenius norms, shape (…,)."""
    return torch.linalg.vector_norm(matrices, dim=(-1, -2))


def _singular(left: Floats, right: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the singular value decomposition of leftᵀ right, factors (m, p) and (m, q)."""
    (Q, R), (Q_, R_) = np.linalg.qr(left.T), np.linalg.qr(right.T)
    U, S, V = np.linalg.svd(R @ R_.T)
    return (Q @ U)[:, : len(S)].T, S, (V @ Q_.T)[: len(S)]
