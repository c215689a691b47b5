"""Means and spreads of inputs: what normalised networks carry of those they are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from landscape.architectures.bridge import array
from landscape.arrangements.rows import column_scales
from landscape.errors import BadInput

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters

EPSILON = float(np.finfo(np.float64).eps)
SAME = 1e-6
"""Statistics that differ by less, relative to the columns' sizes, are those of the same inputs."""
OWN = ("mean", "spread", "samples")
"""What a network carries of its training inputs."""


class Whitening(NamedTuple):
    """X − 1μᵀ = U T with orthonormal U.

    Attributes:
        mean: μ, shape (d,).
        spread: T, shape (r, d).
        U: shape (n, r).
    """

    mean: Floats
    spread: Floats
    U: Floats


def of(X: Floats) -> Whitening:
    """Return mean, spread and whitened inputs; what X has by rounding only is not counted.

    Args:
        X: inputs, shape (n, d).
    """
    exact = column_scales(X)  # squares must not underflow
    mean, X = X.mean(axis=0), X * exact
    centred = X - mean * exact
    sizes = np.linalg.norm(centred, axis=0)
    rounding = max(X.shape) * EPSILON
    varies = sizes > 4.0 * rounding * np.linalg.norm(X, axis=0)
    scale = np.where(varies, sizes, 1.0)
    U, values, V = np.linalg.svd(np.where(varies, centred, 0.0) / scale, full_matrices=False)
    kept = values > 4.0 * rounding * values.max(initial=0.0)
    spread = values[kept, None] * V[kept] * np.where(varies, scale, 0.0) / exact
    return Whitening(mean, spread, U[:, kept])


def statistics(X: Floats) -> Parameters:
    """Return mean (d,), spread (r, d) and number of the training inputs."""
    mean, spread, _ = of(X)
    return {
        "mean": torch.as_tensor(mean),
        "spread": torch.as_tensor(spread),
        "samples": torch.tensor(float(len(X)), dtype=torch.float64),
    }


def attached(X: Floats, parameters: Parameters) -> Parameters:
    """Return a network with the statistics of these inputs, if its own are theirs.

    T is theirs up to a rotation, which changes no function, and both up to single precision.

    Args:
        X: the problem's inputs, shape (n, d).
        parameters: among them mean, spread and number of samples of the network.

    Raises:
        BadInput: if these are those of other inputs.
    """
    given, own = ({k: array(some[k]) for k in OWN} for some in (parameters, statistics(X)))
    scale = column_scales(X)
    whole = np.linalg.norm(X * scale, axis=0)
    moved = np.abs(given["mean"] - own["mean"]) * scale
    spreads = [some["spread"] * scale for some in (given, own)]
    turned = np.abs(spreads[0].T @ spreads[0] - spreads[1].T @ spreads[1])
    sizes, rounding = np.linalg.norm(spreads[1], axis=0), 4.0 * max(X.shape) * EPSILON * whole
    near = np.outer(sizes, rounding)
    near = SAME * np.outer(sizes, sizes) + near + near.T + np.outer(rounding, rounding)
    if given["samples"] != len(X) or (moved > SAME * whole).any() or (turned > near).any():
        raise BadInput(
            f"network is normalised with the statistics of {given['samples']:g} inputs that are "
            f"not the problem's {len(X)}: train it on these, or replace its statistics, "
            "{**parameters, **whitening.statistics(problem.X)}."
        )
    kind = parameters["hidden"]
    return {**parameters, **{k: v.to(kind) for k, v in statistics(X).items()}}
