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
SINGLE = 2.0**-23
"""Rounding of means in single precision, relative to the largest input."""
CLEAR, COARSE = 1e-6, 0.1
"""In double and in other precision: outputs that rounding may change by more count as none.

Normalised, they would be outputs of rounding: of weights whose effects cancel all but for that.
Bounds are for double precision; networks that train in single precision are judged in double.
"""
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
    mine = statistics(X)
    own = {k: array(v) for k, v in mine.items()}
    given = {k: parameters[k].detach().cpu().double().numpy() for k in OWN}
    scale = column_scales(X)
    spreads = [some["spread"] * scale for some in (given, own)]
    sizes, rounding = np.linalg.norm(spreads[1], axis=0), 4.0 * max(X.shape) * EPSILON
    whole = np.linalg.norm(X * scale, axis=0)
    near = np.outer(sizes, rounding * whole)
    near = SAME * np.outer(sizes, sizes) + near + near.T + rounding**2 * np.outer(whole, whole)
    still = SAME * sizes + SINGLE * np.abs(X * scale).max(axis=0)
    same = given["samples"] == len(X) and given["mean"].shape == own["mean"].shape
    same = same and bool((np.abs(given["mean"] - own["mean"]) * scale <= still).all())
    turned = np.abs(spreads[0].T @ spreads[0] - spreads[1].T @ spreads[1]) if same else near
    if not (same and (turned <= near).all()):  # NaN is none of these
        raise BadInput(
            f"network is normalised with the statistics of {given['samples']:g} inputs that are "
            f"not the problem's {len(X)}: train it on these, or replace its statistics, "
            "{**parameters, **whitening.statistics(problem.X)}."
        )
    return {**parameters, **mine}


def seen(hidden: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Tw (…, m, r) and its lengths (…, m), zero where they are little more than rounding.

    In exact arithmetic Tw = 0 where w has no outputs; rounded, it is a direction of its own.
    """
    inside = hidden @ spread.mT
    sizes = torch.linalg.vector_norm(inside, dim=-1)
    most = (hidden.detach().abs() * torch.linalg.vector_norm(spread, dim=-2)[..., None, :]).sum(-1)
    there = sizes.detach() > rounding(hidden.shape[-1], hidden.dtype) / clear(hidden.dtype) * most
    return inside, torch.where(there, sizes, torch.zeros_like(sizes))


def clear(kind: torch.dtype) -> float:
    """Return the share of outputs that rounding may change (see `CLEAR`)."""
    return CLEAR if kind is torch.float64 else COARSE


def rounding(d: int, kind: torch.dtype) -> float:
    """Return what rounding may change of a product of d terms, relative to their sizes."""
    return 16.0 * (d + 2) * torch.finfo(kind).eps
