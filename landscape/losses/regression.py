"""Losses of real targets: squared and Huber."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landscape.errors import BadInput
from landscape.losses.base import Array, Loss, like, where


@dataclass(frozen=True)
class Squared(Loss):
    r"""Half the sum of squares, :math:`\tfrac12\|f-y\|^2`; conjugate ½‖u‖² + uᵀy."""

    name: ClassVar[str] = "squared"
    strict: ClassVar[bool] = True

    def _distance(self, value: float) -> float:
        return (2.0 * value) ** 0.5

    def _terms(self, f: Array, y: Array) -> Array:
        return 0.5 * (f - y) ** 2

    def _slopes(self, f: Array, y: Array) -> Array:
        return f - y

    def _curvatures(self, f: Array, y: Array) -> Array:
        return 0.0 * (f - y) + 1.0

    def _conjugates(self, u: Array, y: Array) -> Array:
        return u * (0.5 * u + y)

    def expression(self, f: Any, y: NDArray[np.float64]) -> Any:
        import cvxpy as cp

        return 0.5 * cp.sum_squares(f - y)

    def dual_expression(self, nu: Any, y: NDArray[np.float64]) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        return cp.sum(cp.multiply(y, nu)) - 0.5 * cp.sum_squares(nu), []


@dataclass(frozen=True)
class Huber(Loss):
    r"""Squares near zero and lines beyond: ½r² for |r| ≤ δ, else δ|r| − ½δ², with r = f − y.

    Its conjugate is that of `Squared` on |u| ≤ δ. The second derivative at |r| = δ, where it jumps,
    is given as 1.

    Attributes:
        delta: where the lines begin, in the units of y.
    """

    delta: float = 1.0
    name: ClassVar[str] = "huber"

    def __post_init__(self) -> None:
        """Refuse a delta that isn't positive and finite."""
        if not (isinstance(self.delta, (int, float)) and 0 < self.delta < float("inf")):
            raise BadInput(
                f"delta must be positive and finite; found {self.delta!r}. "
                'Use loss="squared" for its limit at infinity.'
            )

    def _distance(self, value: float) -> float:
        linear = value > 0.5 * self.delta**2
        return value / self.delta + 0.5 * self.delta if linear else (2.0 * value) ** 0.5

    def per_unit(self, unit: float) -> Huber:
        return Huber(self.delta / unit)

    def simplest(self, y: ArrayLike) -> Loss:
        # a residual of size δ alone costs ½δ²
        return Squared() if self.at_zero(y) < 0.5 * self.delta**2 else self

    def _terms(self, f: Array, y: Array) -> Array:
        r = f - y
        inner = r.clip(-self.delta, self.delta)  # without abs, autograd is right at r = 0 too
        return inner * (r - 0.5 * inner)

    def _slopes(self, f: Array, y: Array) -> Array:
        return (f - y).clip(-self.delta, self.delta)

    def _curvatures(self, f: Array, y: Array) -> Array:
        r = f - y
        return where(abs(r) <= self.delta, 0.0 * r + 1.0, 0.0)

    def majorant(self, f: Array, y: ArrayLike) -> Array:
        # the weights of iteratively reweighted least squares (Huber 1981)
        f, y = like(f, y)
        return self.delta / abs(f - y).clip(self.delta)

    def _conjugates(self, u: Array, y: Array) -> Array:
        return where(abs(u) <= self.delta, u * (0.5 * u + y), float("inf"))

    def _nearest(self, nu: Array, y: Array) -> Array:
        return nu.clip(-self.delta, self.delta)

    @property
    def _radius(self) -> float:
        return self.delta

    def expression(self, f: Any, y: NDArray[np.float64]) -> Any:
        import cvxpy as cp

        width: Any = self.delta  # cvxpy annotates it as an int and takes any positive number
        return 0.5 * cp.sum(cp.huber(f - y, width))

    def dual_expression(self, nu: Any, y: NDArray[np.float64]) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        value = cp.sum(cp.multiply(y, nu)) - 0.5 * cp.sum_squares(nu)
        return value, [cp.abs(nu) <= self.delta]
