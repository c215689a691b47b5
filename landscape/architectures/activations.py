r"""Activations with one kink: :math:`φ(t) = t` for t ≥ 0 and :math:`φ(t) = αt` below.

ReLU is α = 0, leaky ReLU 0 < α < 1, the absolute value α = −1.  What they have in common:

.. math:: φ(t) = (t)_+ − α\,(−t)_+ = \tfrac{1+α}{2}\, t + \tfrac{1−α}{2}\, |t|

so a neuron is two ramps, of its sample and of the sample's mirror image, and prices of neurons are
those of ReLU neurons over the rows [X; −X] with weights [ν; −αν].
"""

from __future__ import annotations

import numpy as np
import torch

from landscape.errors import BadInput, number, unknown

ACTIVATIONS = ("relu", "leaky_relu", "abs")


def leak_of(activation: str, slope: float) -> float:
    """Return α, or refuse an unknown activation and slopes that are none of a leaky ReLU.

    Args:
        activation: "relu", "leaky_relu" or "abs".
        slope: α of leaky ReLU; the others have their own.

    Raises:
        BadInput: for another name, or a slope outside of (0, 1).
    """
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    if not 0.0 < number("slope", slope) < 1.0:
        raise BadInput(
            f"slope is {slope!r}: that of a leaky ReLU must lie between 0 and 1; for its limits "
            "use activation='relu' or a linear regression."
        )
    return {"relu": 0.0, "abs": -1.0}.get(activation, float(slope))


def activated(before: torch.Tensor, leak: float) -> torch.Tensor:
    """Return φ(t) of every entry."""
    if leak == 0.0:
        return torch.relu(before)
    if leak == -1.0:  # its slope at 0 is 0, as autograd has it
        return before.abs()
    return torch.nn.functional.leaky_relu(before, leak)


def activated_array(before: np.ndarray, leak: float) -> np.ndarray:
    """Return φ(t) of every entry of an array."""
    return np.maximum(before, 0.0) + leak * np.minimum(before, 0.0)
