r"""Stationarity of two-layer networks at their kinks.

Neuron j with weight w, output a is Clarke stationary if some :math:`\tilde D`, equal to the
pattern off the ties :math:`x_k^⊤w = 0` and in [0, 1] on them, gives

.. math:: \operatorname{sign}(a) X^⊤ \tilde D ν = β\, w/\|w\|.

That is not enough for a local minimum.  *Directional* stationarity also asks
:math:`\operatorname{sign}(a) ν_k ≤ 0` at every tie: otherwise one side of the kink descends
(Wang, Lacotte & Pilanci 2022; X = [(1,0),(0,1),(1,−1)], w = (1,0), ν = (.3,.4,.2), β = .5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import lsq_linear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.programs import Floats

TIE = 1e-9
"""A sample is on a neuron's kink if |x·w| ≤ TIE ‖x‖‖w‖."""


def ties(design: Floats, weights: Floats, tolerance: float = TIE) -> NDArray[np.bool_]:
    """Return which samples lie on which neurons' kinks, shape (m, n); zero rows never do."""
    lengths = np.linalg.norm(design, axis=1)
    scale = np.linalg.norm(weights, axis=1)[:, None] * lengths
    return (np.abs(weights @ design.T) <= tolerance * scale) & (lengths > 0)


def residuals(
    design: Floats,
    penalised: NDArray[np.bool_],
    weights: Floats,
    signs: Floats,
    nu: Floats,
    beta: float,
    tolerance: float = TIE,
) -> tuple[Floats, Floats]:
    """Return each neuron's Clarke residual and the worst wrong-signed tie.

    Args:
        design: rows that neurons see, shape (n, p).
        penalised: which coordinates of a weight the regulariser counts, shape (p,).
        weights: hidden weights, shape (m, p), none of them zero.
        signs: signs of the output weights, shape (m,).
        nu: residual −∇ℓ at the network, shape (n,).
        beta: regularisation weight.
        tolerance: what counts as a kink.

    Returns:
        ``(clarke, wrong)``, both (m,): the residual divided by β, so that a tiny neuron counts
        like a large one, and max(0, sign·ν_k) over its ties divided by max|ν|.
    """
    on_kink = ties(design, weights, tolerance)
    clarke, wrong = np.zeros(len(weights)), np.zeros(len(weights))
    largest = float(np.abs(nu).max(initial=0.0))
    for j, (w, s) in enumerate(zip(weights, signs, strict=True)):
        tied = on_kink[j]
        target = np.where(penalised, w, 0.0)
        length = np.linalg.norm(target)
        target = beta * target / length if length > 0 else target
        pull = s * design[(design @ w > 0) & ~tied].T @ nu[(design @ w > 0) & ~tied] - target
        if tied.any():
            columns = s * (design[tied] * nu[tied, None]).T
            share = np.linalg.lstsq(columns, -pull)[0]
            if (share < 0).any() or (share > 1).any():  # else the bounds do not matter
                share = lsq_linear(columns, -pull, bounds=(0.0, 1.0), method="bvls", tol=1e-14).x
            pull = pull + columns @ share
            wrong[j] = max(0.0, float((s * nu[tied]).max())) / max(largest, 1e-300)
        clarke[j] = np.linalg.norm(pull) / beta
    return clarke, wrong
