r"""One input and a free bias: a Lasso over ramps with their kinks at samples.

With :math:`|w| = 1` a neuron's price :math:`± ν^⊤(wx + b)_+` is linear in b between two samples, so
that its largest values are at kinks :math:`x_k`, and the convex program is the Lasso

.. math:: \min_{z, ξ}\; ℓ\Big(\sum_k z_k (s_k(x - x_k))_+ + ξ,\; y\Big) + β\|z\|_1

(Pilanci & Ergen 2020; Zeger et al. 2024).  A neuron with its kink between two samples has, on the
data, the outputs of its two neighbours mixed; one that is open on all samples differs from that
with its kink at the outermost sample by a constant, which ξ takes up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from landscape.optimal_set.directions import NEAR, Directions, clear

if TYPE_CHECKING:
    from landscape.problem import Problem
    from landscape.programs import Floats


def of_ramps(problem: Problem, nu: Floats) -> Directions:
    """Return the ramps (w, b), w = ±1, with kinks at samples and price β, for ν that sums to 0."""
    x = np.unique(problem.X[:, 0])
    slopes = np.repeat([1.0, -1.0], len(x) - 1)
    units = np.column_stack([slopes, -slopes * np.r_[x[:-1], x[1:]]])
    prices = nu @ np.maximum(problem.design @ units.T, 0.0) / problem.beta
    signs, ratios = np.where(prices >= 0, 1.0, -1.0), np.abs(prices)
    near = ratios >= 1.0 - NEAR
    masks = units[near] @ problem.design.T >= 0
    return Directions(units[near], signs[near], masks, units[near], *clear(ratios))


def at_samples(problem: Problem, unit: Floats) -> list[tuple[float, Floats]]:
    """Return the ramps with kinks at samples that mix to a neuron's outputs, up to a constant.

    Args:
        problem: with one input and a free bias.
        unit: (w, b) with |w| = 1.

    Returns:
        Shares and ramps: none for a dead neuron, otherwise one or two of total share 1.
    """
    x = np.unique(unit[0] * problem.X[:, 0])  # as the neuron sees them: it opens to the right
    place = np.interp(-unit[1], x, np.arange(len(x)))  # k, and a share of the way to the next
    k, share = int(place), float(place - int(place))
    parts = [(1.0 - share, k), (share, k + 1)]
    return [(s, np.array([unit[0], -x[j]])) for s, j in parts if s > 0 and j < len(x) - 1]
