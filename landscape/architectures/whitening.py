"""Means and spreads of inputs: what normalised networks carry of those they are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from landscape.architectures.bridge import array
from landscape.errors import BadInput

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters

EPSILON = float(np.finfo(np.float64).eps)
SAME = 1e-6
"""Statistics that differ by less, relative to the columns' sizes, are those of the same inputs."""


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
    mean = X.mean(axis=0)
    centred = X - mean
    sizes = np.linalg.norm(centred, axis=0)
    rounding = max(X.shape) * EPSILON
    varies = sizes > 4.0 * rounding * np.linalg.norm(X, axis=0)
    scale = np.where(varies, sizes, 1.0)
    U, values, V = np.linalg.svd(np.where(varies, centred, 0.0) / scale, full_matrices=False)
    kept = values > 4.0 * rounding * values.max(initial=0.0)
    return Whitening(mean, values[kept, None] * V[kept] * np.where(varies, scale, 0.0), U[:, kept])


def statistics(X: Floats) -> Parameters:
    """Return mean (d,), spread (r, d) and number of the training inputs."""
    mean, spread, _ = of(X)
    return {
        "mean": torch.as_tensor(mean),
        "spread": torch.as_tensor(spread),
        "samples": torch.tensor(float(len(X)), dtype=torch.float64),
    }


def check(X: Floats, design: Floats, parameters: Parameters) -> None:
    """Refuse a network that carries the statistics of other inputs: it is none of this problem's.

    Args:
        X: the problem's inputs, shape (n, d).
        design: [U, 1/√n] of these.
        parameters: mean, spread and number of samples of the network.

    Raises:
        BadInput: if these are not those of X.
    """
    mean, spread, samples = (array(parameters[k]) for k in ("mean", "spread", "samples"))
    own = design[:, :-1].T @ (X - X.mean(axis=0))
    sizes = np.linalg.norm(own, axis=0) + 1e-9 * np.linalg.norm(X, axis=0)
    moved = np.abs(mean - X.mean(axis=0)) > SAME * sizes
    turned = np.abs(spread.T @ spread - own.T @ own) > SAME * np.outer(sizes, sizes)
    if samples != len(X) or moved.any() or turned.any():
        raise BadInput(
            f"network is normalised with the statistics of {samples:g} inputs that are not the "
            f"problem's {len(X)}: train it on these, or replace its statistics, "
            "{**parameters, **whitening.statistics(problem.X)}."
        )
