"""What a loss is: values, slopes, conjugates, the labels it takes; helpers for its kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from landscape.errors import BadInput

Array = Any  # numpy.ndarray or torch.Tensor; a method returns the kind that its first argument has


def like(f: Array, y: ArrayLike) -> tuple[Array, Array]:
    """Return f as a floating array and y as the same kind, dtype and device."""
    if isinstance(f, torch.Tensor):
        return f, torch.as_tensor(y, dtype=f.dtype, device=f.device)
    f = np.asarray(f)
    f = f if np.issubdtype(f.dtype, np.floating) else f.astype(np.float64)
    y = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
    return f, y.astype(f.dtype, copy=False)


def _total(terms: Array, y: Array) -> Array:
    """Sum over the axes that belong to the labels."""
    return terms.sum(tuple(range(-y.ndim, 0))) if y.ndim else terms


def where(condition: Array, yes: Array, no: float) -> Array:
    """Return ``yes`` where a condition holds and a number elsewhere, of the kind of ``yes``."""
    module = torch if isinstance(yes, torch.Tensor) else np
    return module.where(condition, yes, no)


def rms(values: NDArray[np.float64]) -> float:
    """Return the root mean square, 1 where everything is zero."""
    largest = float(np.abs(values).max(initial=0.0))
    return largest * float(np.sqrt(np.mean((values / largest) ** 2))) if largest > 0 else 1.0


@dataclass(frozen=True)
class Loss(ABC):
    r"""A convex loss :math:`\ell(f) = \sum_k \ell_k(f_k; y_k)`.

    Subclasses give the terms; this class does the sums and the sign conventions. The dual variable
    is :math:`\nu = -\nabla\ell(f)`, and :math:`\ell^*(u) = \sup_f \langle u, f\rangle - \ell(f)`.

    Attributes:
        name: the name that `get` knows.
        smooth: whether the gradient exists everywhere.
        strict: whether the loss is strictly convex, so that all optima have one fit.
        classes: whether the labels must be −1 and +1.
    """

    name: ClassVar[str]
    smooth: ClassVar[bool] = True
    strict: ClassVar[bool] = False
    classes: ClassVar[bool] = False

    def value(self, f: Array, y: ArrayLike) -> Array:
        """Return the loss, summed over the last ``y.ndim`` axes of ``f``.

        Args:
            f: predictions, shape (..., *y.shape).
            y: labels.

        Returns:
            The sums, shape (...).
        """
        f, y = like(f, y)
        return _total(self._terms(f, y), y)

    def unit(self, y: ArrayLike) -> float:
        """Return the size of the targets; 1 where they are classes, whose size means something."""
        return 1.0 if self.classes else rms(np.asarray(y, dtype=np.float64))

    def per_unit(self, unit: float) -> Loss:
        """Return the loss ℓ' of targets measured in a unit: ℓ(f; y) = unit² ℓ'(f/unit; y/unit).

        Args:
            unit: positive; for class labels there is no other than 1 (see `unit`).
        """
        assert unit == 1.0 or not self.classes
        return self

    def simplest(self, y: ArrayLike) -> Loss:
        """Return a loss of the same values wherever a network does at least as well as zero."""
        return self

    def at_zero(self, y: ArrayLike) -> float:
        """Return the loss of outputs that are zero: what the zero network pays."""
        y = np.asarray(y, dtype=np.float64)
        return float(self.value(np.zeros(y.shape), y))

    def gradient(self, f: Array, y: ArrayLike) -> Array:
        """Return the derivative at each prediction, shaped like ``f``."""
        return self._slopes(*like(f, y))

    def curvature(self, f: Array, y: ArrayLike) -> Array:
        """Return the second derivative at each prediction (the Hessian's diagonal), like ``f``."""
        return self._curvatures(*like(f, y))

    def majorant(self, f: Array, y: ArrayLike) -> Array:
        """Return the curvature, or where it vanishes that of a parabola touching from above."""
        return self.curvature(f, y)

    def conjugate(self, u: Array, y: ArrayLike) -> Array:
        r"""Return :math:`\ell^*(u) = \sup_f \langle u,f\rangle-\ell(f)`; +inf off its domain.

        Args:
            u: slopes, shape (..., *y.shape).
            y: labels.

        Returns:
            The sums, shape (...).
        """
        u, y = like(u, y)
        return _total(self._conjugates(u, y), y)

    def dual_value(self, nu: Array, y: ArrayLike) -> Array:
        r"""Return :math:`-\ell^*(-\nu)`, the dual objective; −inf off its domain. Shape (...)."""
        return -self.conjugate(-like(nu, y)[0], y)

    def into_domain(self, nu: Array, y: ArrayLike) -> Array:
        r"""Return the nearest ν at which `dual_value` is finite: the end of rounding errors."""
        return self._nearest(*like(nu, y))

    def _nearest(self, nu: Array, y: Array) -> Array:
        return y * (y * nu).clip(0.0, 1.0) if self.classes else nu

    def reach(self, nu: NDArray[np.float64]) -> float:
        """Return the largest t such that tν is still in the dual's domain, for ν within it."""
        largest = float(np.abs(nu).max(initial=0.0))
        return self._radius / largest if largest > 0 else float("inf")

    @property
    def _radius(self) -> float:
        return 1.0 if self.classes else float("inf")

    def constant_radius(self, value: float, y: ArrayLike) -> float:
        """Return a bound of |c| for constants c whose loss is at most a value.

        For labels each class bounds c on one side; both occur (see `check`).

        Args:
            value: the loss, summed.
            y: labels.
        """
        largest = 0.0 if self.classes else float(np.abs(y).max(initial=0.0))
        return largest + self._distance(value)

    @abstractmethod
    def _distance(self, value: float) -> float:
        """Return how far |r|, or −yf where there are classes, may go at a loss of one sample."""

    def check(self, y: ArrayLike) -> NDArray[np.float64]:
        """Return the labels as float64, or refuse those that don't fit the loss.

        Args:
            y: labels, at least one.

        Returns:
            A float64 copy.

        Raises:
            BadInput: for text, complex numbers, NaN, infinities or no labels; where the loss needs
                classes, for anything but both of −1 and +1.
        """
        y = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
        if y.dtype.kind in "OmM":
            raise BadInput(f"y must hold real numbers; found {y.dtype} entries. Convert them.")
        if y.dtype.kind in "USV":
            raise BadInput(
                f"y must hold numbers; found text such as {str(y.flat[0])!r}. "
                "Map the classes to −1 and +1, e.g. numpy.where(y == 'yes', 1.0, -1.0)."
                if y.size
                else "y must hold numbers; found an empty array of text."
            )
        if y.dtype.kind == "c":
            raise BadInput("y must be real; found complex numbers. Give real and imaginary parts.")
        y = np.array(y, dtype=np.float64)
        if y.size == 0:
            raise BadInput("y must have at least one label; found none.")
        if not np.isfinite(y).all():
            raise BadInput(
                f"y must be finite; found {int((~np.isfinite(y)).sum())} NaN or infinite labels. "
                "Drop those rows or fill them in."
            )
        if self.classes:
            self._check_classes(y)
        return y

    def _check_classes(self, y: NDArray[np.float64]) -> None:
        found = np.unique(y)
        if np.array_equal(found, [-1.0, 1.0]):
            return
        shown = ", ".join(f"{v:g}" for v in found[:4]) + (", …" if found.size > 4 else "")
        need = f"the {self.name} loss needs labels −1 and +1"
        if found.size == 1:
            raise BadInput(f"y has one class only ({shown}); {need}. Give data of both classes.")
        if found.size == 2:
            raise BadInput(
                f"y has the labels {shown}; {need}. "
                f"Map them with numpy.where(y == {found[1]:g}, 1.0, -1.0)."
            )
        raise BadInput(
            f"y has {found.size} different labels ({shown}); {need}. "
            'Pick two classes, or use loss="squared" for real-valued targets.'
        )

    @abstractmethod
    def _terms(self, f: Array, y: Array) -> Array: ...

    @abstractmethod
    def _slopes(self, f: Array, y: Array) -> Array: ...

    @abstractmethod
    def _curvatures(self, f: Array, y: Array) -> Array: ...

    @abstractmethod
    def _conjugates(self, u: Array, y: Array) -> Array: ...

    @abstractmethod
    def expression(self, f: Any, y: NDArray[np.float64]) -> Any:
        """Return the loss as a convex cvxpy expression of the expression ``f``, shaped like y."""

    @abstractmethod
    def dual_expression(self, nu: Any, y: NDArray[np.float64]) -> tuple[Any, list[Any]]:
        r"""Return :math:`-\ell^*(-\nu)` in cvxpy, concave, and the constraints of its domain."""
