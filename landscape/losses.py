"""Convex losses as sums over the data, each with its gradient, conjugate and cvxpy forms.

Every array method takes numpy arrays or torch tensors and gives the same kind back. ``f`` may have
leading batch axes; values are sums over the last ``y.ndim`` axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, expit

from landscape.errors import BadInput, unknown

Array = Any  # numpy.ndarray or torch.Tensor; a method returns the kind that its first argument has


def _like(f: Array, y: ArrayLike) -> tuple[Array, Array]:
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


def _where(condition: Array, yes: Array, no: float) -> Array:
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
        f, y = _like(f, y)
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
        return self._slopes(*_like(f, y))

    def curvature(self, f: Array, y: ArrayLike) -> Array:
        """Return the second derivative at each prediction (the Hessian's diagonal), like ``f``."""
        return self._curvatures(*_like(f, y))

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
        u, y = _like(u, y)
        return _total(self._conjugates(u, y), y)

    def dual_value(self, nu: Array, y: ArrayLike) -> Array:
        r"""Return :math:`-\ell^*(-\nu)`, the dual objective; −inf off its domain. Shape (...)."""
        return -self.conjugate(-_like(nu, y)[0], y)

    def into_domain(self, nu: Array, y: ArrayLike) -> Array:
        r"""Return the nearest ν at which `dual_value` is finite: the end of rounding errors."""
        return self._nearest(*_like(nu, y))

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
        return _where(abs(r) <= self.delta, 0.0 * r + 1.0, 0.0)

    def majorant(self, f: Array, y: ArrayLike) -> Array:
        # the weights of iteratively reweighted least squares (Huber 1981)
        f, y = _like(f, y)
        return self.delta / abs(f - y).clip(self.delta)

    def _conjugates(self, u: Array, y: Array) -> Array:
        return _where(abs(u) <= self.delta, u * (0.5 * u + y), float("inf"))

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
        return _where((margin >= -1.0) & (margin <= 0.0), margin, float("inf"))

    def expression(self, f: Any, y: NDArray[np.float64]) -> Any:
        import cvxpy as cp

        return cp.sum(cp.pos(1 - cp.multiply(y, f)))

    def dual_expression(self, nu: Any, y: NDArray[np.float64]) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        margin = cp.multiply(y, nu)
        return cp.sum(margin), [margin >= 0, margin <= 1]


_KINDS: dict[str, type[Loss]] = {kind.name: kind for kind in (Squared, Logistic, Huber, Hinge)}
NAMES: tuple[str, ...] = tuple(_KINDS)


def get(loss: str | Loss) -> Loss:
    """Return the loss of that name, or the loss itself.

    Args:
        loss: one of `NAMES`, or a `Loss`.

    Returns:
        The loss.

    Raises:
        BadInput: if the name is unknown; the nearest known one is suggested.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str) and loss in _KINDS:
        return _KINDS[loss]()
    raise unknown("loss", loss, NAMES)
