r"""Where units make every pattern of the samples, training by the squared loss is clipping.

With columns :math:`\{0, 1\}^n` the Lasso's norm of a fit δ is :math:`\|δ_+\|_∞ + \|(−δ)_+\|_∞`, and

.. math:: \min_δ \tfrac12 \|δ − y\|^2 + β (\|δ_+\|_∞ + \|(−δ)_+\|_∞)

parts by sign: δ is y clipped at levels t, −t' with :math:`\sum_k (y_k − t)_+ = β` (t = 0 if the sum
is below β there), and the same of −y.  With columns :math:`\{−1, 1\}^n` the norm is
:math:`\|δ\|_∞`, and :math:`\sum_k (|y_k| − t)_+ = β`.  Units are the level sets of δ: as many as it
has levels (Ergen, Gulluk, Lacotte & Pilanci, ICLR 2023).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landscape.arrangements.cells import Floats

Bools = NDArray[np.bool_]


def water_level(values: Floats, counts: Floats, beta: float) -> float:
    """Return the t ≥ 0 with Σ c_k (v_k − t)_+ = β, or 0 if the sum at 0 is less.

    Args:
        values: v, shape (n,).
        counts: how often each occurs, shape (n,).
        beta: β > 0.

    Example:
        >>> import numpy
        >>> water_level(numpy.array([3.0, 1.0]), numpy.ones(2), 1.0)
        2.0
    """
    order = np.argsort(-values, kind="stable")
    v, c = np.maximum(values[order], 0.0), np.cumsum(counts[order])
    filled = np.cumsum(counts[order] * v) - c * v  # what lies above each level
    last = int(np.searchsorted(filled, beta, side="left")) - 1  # it lies below this level
    return max(0.0, (float((counts[order] * v)[: last + 1].sum()) - beta) / float(c[last]))


def clipped(y: Floats, counts: Floats, beta: float, activation: str) -> Floats:
    """Return the optimal fit δ over all patterns, shape (n,).

    Args:
        y: targets, or the means of those that share a sample, shape (n,).
        counts: how many share it, shape (n,).
        beta: weight of the norm.
        activation: "threshold" or "sign".
    """
    if activation == "sign":
        t = water_level(np.abs(y), counts, beta)
        return np.clip(y, -t, t)
    return np.clip(y, -water_level(-y, counts, beta), water_level(y, counts, beta))


def level_sets(fit: Floats, activation: str) -> Bools:
    """Return the patterns whose combination is the fit at least norm, shape (k, n).

    Threshold: the sets {δ ≥ t} of levels t > 0 and {δ ≤ t} of levels t < 0.  Sign: the sets
    {δ ≥ t} of all levels (at the lowest all of them).
    """
    levels = np.unique(fit)
    if activation == "sign":
        return fit >= levels[:, None]
    up, down = levels[levels > 0], levels[levels < 0]
    return np.concatenate([fit >= up[:, None], fit <= down[:, None]])
