"""What most architectures ask of data and of randomness: columns of ones, checks, normal draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linprog

from landscape.errors import BadInput

if TYPE_CHECKING:
    from landscape.architectures.base import Floats
BIASES = ("none", "penalised", "free")
"""What a hidden bias may be: no coordinate, one under the regulariser, one beside it."""
SEPARATED = 1e-6
"""Margin (of one, where it can be had) from which a linear function separates some labels."""


def with_ones(X: Floats) -> Floats:
    """Return [X, 1], shape (n, d + 1)."""
    return np.hstack([X, np.ones((len(X), 1))])


def with_bias(bias: str, X: Floats) -> Floats:
    """Return what neurons see: X, or [X, 1] with a bias."""
    return X if bias == "none" else with_ones(X)


def check_scalar_output(name: str, y: Floats) -> None:
    """Refuse targets with several columns."""
    if y.ndim != 1:
        raise BadInput(
            f"y has shape {y.shape}: architecture {name!r} has one output, so y must have shape "
            f"({len(y)},)."
        )


def check_bias_column(bias: str, X: Floats) -> None:
    """Refuse a constant column beside a bias: the two would be the same direction twice."""
    constant = np.flatnonzero(np.ptp(X, axis=0) == 0)
    if len(X) > 1 and bias != "none" and len(constant):
        raise BadInput(
            f"X has a constant column ({constant[0]}) and the architecture has a bias, which is "
            "the same direction: drop the column or set bias='none'."
        )


def linear_separates(rows: Floats, y: Floats) -> bool:
    """Return whether a linear function of rows (n, p) has the signs of some labels, of none wrong.

    Its loss then falls for ever as its weights grow, where these cost nothing.
    """
    margins = y[:, None] * rows
    found = linprog(
        -margins.sum(axis=0),
        A_ub=np.vstack([margins, -margins]),
        b_ub=np.repeat([1.0, 0.0], len(y)),
        bounds=(None, None),
        method="highs",
    )
    return found.x is not None and bool((margins @ found.x).max() > SEPARATED)


def seeded_normal(seeds: Sequence[int], *shape: int) -> torch.Tensor:
    """Return standard normal draws (S, …), each seed's independent of the other seeds."""
    draws = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(int(seed))
        draws.append(torch.randn(shape, generator=generator, dtype=torch.float64))
    return torch.stack(draws)
