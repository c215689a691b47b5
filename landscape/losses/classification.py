"""Losses of labels ±1: logistic and hinge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import entr, expit

from landscape.losses.base import Array, Loss, where


@dataclass(frozen=True)
class Logistic(Loss):
    r"""The logistic loss, :math:`\sum\log(1+e^{-y f})` with :math:`y\in\{-1,1\}`.

    Its conjugate is the negative entropy of p = −uy on [0, 1]: p log p + (1−p) log(1−p).
    """

    name: ClassVar[str] = "logistic"
    strict: ClassVar[bool] = True
    classes: ClassVar[bool] = True

    def _distance(self, value: float) -> float:
        return value

    def _terms(self, f: Array, y: Array) -> Array:
        # logsigmoid, not softplus: torch's softplus is cut to the identity above 20 (error 2e-9)
        if isinstance(f, torch.Tensor):
            return -torch.nn.functional.logsigmoid(y * f)
        return np.logaddexp(0.0, -y * f)

    def _slopes(self, f: Array, y: Array) -> Array:
        return -y * (torch.sigmoid if isinstance(f, torch.Tensor) else expit)(-y * f)

    def _curvatures(self, f: Array, y: Array) -> Array:
        sigmoid = torch.sigmoid if isinstance(f, torch.Tensor) else expit
        return sigmoid(y * f) * sigmoid(-y * f)

    def _conjugates(self, u: Array, y: Array) -> Array:
        p = -u * y
        # entr is p ↦ −p log p, 0 at 0 and −inf below: the domain 0 ≤ p ≤ 1 comes with it
        entropy = torch.special.entr if isinstance(u, torch.Tensor) else entr
        return -(entropy(p) + entropy(1.0 - p))

    def expression(self, f: Any, y: NDArray[np.float64]) -> Any:
        import cvxpy as cp

        return cp.sum(cp.logistic(cp.multiply(-y, f)))

    def dual_expression(self, nu: Any, y: NDArray[np.float64]) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        p = cp.multiply(y, nu)
        return cp.sum(cp.entr(p)) + cp.sum(cp.entr(1 - p)), [p >= 0, p <= 1]


@dataclass(frozen=True)
class Hinge(Loss):
    r"""The hinge, :math:`\sum(1-yf)_+` with :math:`y\in\{-1,1\}`; conjugate uy on −1 ≤ uy ≤ 0.

    At the kink yf = 1 `gradient` returns −y/2, one subgradient among [−1, 0]·y: a dual point built
    from it alone can be far from the best, so optimise over the subgradients at kinks.
    """

    name: ClassVar[str] = "hinge"
    smooth: ClassVar[bool] = False
    classes: ClassVar[bool] = True

    def _distance(self, value: float) -> float:
        return value - 1.0 if value > 1.0 else 0.0

    def _terms(self, f: Array, y: Array) -> Array:
        slack = 1.0 - y * f
        return 0.5 * (slack + abs(slack))  # autograd then gives −y/2 at the kink, as `gradient`

    def _slopes(self, f: Array, y: Array) -> Array:
        slack = 1.0 - y * f
        sign = torch.sign(slack) if isinstance(slack, torch.Tensor) else np.sign(slack)
        return -0.5 * y * (1.0 + sign)

    def _curvatures(self, f: Array, y: Array) -> Array:
        return 0.0 * (f - y)

    def _conjugates(self, u: Array, y: Array) -> Array:
        margin = u * y
        return where((margin >= -1.0) & (margin <= 0.0), margin, float("inf"))

    def expression(self, f: Any, y: NDArray[np.float64]) -> Any:
        import cvxpy as cp

        return cp.sum(cp.pos(1 - cp.multiply(y, f)))

    def dual_expression(self, nu: Any, y: NDArray[np.float64]) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        margin = cp.multiply(y, nu)
        return cp.sum(margin), [margin >= 0, margin <= 1]
