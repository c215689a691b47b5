"""The training problem: data, loss, weight of the regulariser, architecture; checked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from landscape import architectures, losses
from landscape.errors import BadInput, reals

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from landscape.architectures.base import Architecture, Parameters
    from landscape.losses import Loss


LARGEST = 1e50
"""Data are accepted up to this size, and down to its inverse."""


class Problem:
    r"""Regularised training of one architecture on one data set.

    .. math:: \min_θ \; ℓ(f_θ(X), y) + β\, R(θ), \qquad
        \text{by default } \tfrac12 \sum_k (f_θ(x_k) − y_k)^2
        + \tfrac β2 \sum_j (\|w_j\|^2 + a_j^2)

    Losses are sums over samples, not means, and the squared loss carries its ½; converters from
    other conventions are in `landscape.units`.

    Args:
        X: inputs, shape (n, d); any array of finite real numbers.
        y: targets, shape (n,), or (n, c) where the architecture has several outputs.
        beta: regularisation weight β > 0.
        loss: "squared", "logistic", "huber", "hinge" or a `landscape.losses.Loss`.
        architecture: a name known to `landscape.architectures` or an architecture itself.

    Raises:
        BadInput: naming the argument, what was found and what to do.

    Example:
        >>> import numpy
        >>> Problem(numpy.eye(3), numpy.ones(3), beta=0.1)
        Problem(n=3, d=3, beta=0.1, loss=squared, architecture=two_layer_relu(bias=none))
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        beta: float,
        loss: str | Loss = "squared",
        architecture: str | Architecture = "two_layer_relu",
    ) -> None:
        self.X = reals("X", X)
        self.loss = losses.get(loss)
        self.architecture = architectures.get(architecture)
        self.y = given = reals("y", y)
        self.beta = _positive("beta", beta)
        if self.X.ndim != 2:
            raise BadInput(
                f"X has shape {self.X.shape}: it must have two axes, samples × features "
                "(one feature: X.reshape(-1, 1))."
            )
        if 0 in self.X.shape:
            raise BadInput(f"X has shape {self.X.shape}: there must be samples and features.")
        if len(self.y) != len(self.X):
            raise BadInput(f"y has {len(self.y)} entries for the {len(self.X)} rows of X.")
        _check_sizes(self.X, self.y, self.beta)
        if self.architecture.flat_outputs:
            self.y = given.reshape(-1)
        self._given = given
        self.y = self.loss.check(self.y)
        self.architecture.check(self.X, self.y)
        self.architecture.check_loss(self.X, self.y, self.loss)

    @property
    def outputs(self) -> int:
        """How many numbers the network puts out for one sample."""
        return self.y.size // len(self.X)

    @cached_property
    def design(self) -> NDArray[np.float64]:
        """The rows that a neuron sees, shape (n, p): X, or [X, 1] with a hidden bias."""
        return self.architecture.design(self.X)

    def objective(self, network: torch.nn.Module | Parameters) -> Any:
        """Return ℓ(f(X), y) + β R of a network (a float) or of batched parameters (a tensor).

        Args:
            network: a `landscape.network.Network`, or a parameter dictionary of the architecture
                with any leading batch axes, whose objectives come back with those axes.
        """
        if isinstance(network, Mapping):
            some = next(iter(network.values()))
            X, y = (torch.as_tensor(v, dtype=some.dtype, device=some.device) for v in self._data)
            fit = self.architecture.forward(network, X)
            return self.loss.value(fit, y) + self.beta * self.architecture.penalty(network)
        with torch.no_grad():
            own = {k: v.double() for k, v in self.architecture.read(network).items()}
            return float(self.objective(self.architecture.attached(self, own)))

    def replace(self, **changes: Any) -> Problem:
        """Return the same problem with some of its arguments changed."""
        now: dict[str, Any] = {
            "X": self.X,
            "y": self._given,
            "beta": self.beta,
            "loss": self.loss,
            "architecture": self.architecture,
        }
        return Problem(**{**now, **changes})

    @property
    def _data(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.X, self.y

    def __repr__(self) -> str:
        """Return one line with sizes and choices."""
        n, d = self.X.shape
        return (
            f"Problem(n={n}, d={d}, beta={self.beta:g}, loss={self.loss.name}, "
            f"architecture={self.architecture.label})"
        )


def _check_sizes(X: NDArray[np.float64], y: NDArray[np.float64], beta: float) -> None:
    """Refuse numbers whose products would leave the range of floating point."""
    rows = np.abs(X).max(axis=1)
    for name, sizes in (("X", rows), ("y", np.abs(y)), ("beta", np.array([beta]))):
        largest = float(sizes.max())
        if largest > LARGEST or 0 < largest < 1 / LARGEST:
            raise BadInput(
                f"{name} is of size {largest:.3g}: it must lie between {1 / LARGEST:g} and "
                f"{LARGEST:g}, or squares of prices leave floating point; rescale the data."
            )
    small = rows[rows > 0].min(initial=np.inf)
    if small < 1 / LARGEST:
        raise BadInput(
            f"X has a row of size {small:.3g}, which is neither zero nor above {1 / LARGEST:g}: "
            "set it to zero or rescale it."
        )


def _positive(name: str, value: float) -> float:
    """Return ``value`` as a float if it is a positive finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadInput(f"{name} is {value!r}: it must be a positive number.") from None
    if not (np.isfinite(number) and number > 0):
        raise BadInput(
            f"{name} is {number:g}: it must be positive and finite; the equivalence with a convex "
            "program needs regularisation."
        )
    return number
