"""Convex losses as sums over the data, each with its gradient, conjugate and cvxpy forms.

Every array method takes numpy arrays or torch tensors and gives the same kind back. ``f`` may have
leading batch axes; values are sums over the last ``y.ndim`` axes.
"""

from __future__ import annotations

from landscape.errors import unknown
from landscape.losses.base import Loss, rms
from landscape.losses.classification import Hinge, Logistic
from landscape.losses.regression import Huber, Squared

__all__ = ["NAMES", "Hinge", "Huber", "Logistic", "Loss", "Squared", "get", "rms"]

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
