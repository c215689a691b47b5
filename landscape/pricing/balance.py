"""Data brought to size one by powers of two, so that no square of a price over- or underflows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from landscape.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from landscape.programs import Floats

EPSILON = float(np.finfo(np.float64).eps)
FAINT = 400
"""Samples whose weight is below 2^−FAINT of the largest go: far below every rounding error."""


class Balanced(NamedTuple):
    """The terms |ν_k| x_k of a price, each a sample of size one and a weight.

    Attributes:
        samples: x_k times a power of two, entries in [−1, 1], shape (n, p).
        weighted: |ν_k| x_k times one power of two for all, shape (n, p).
        side: the signs of ν_k, shape (n,).
        exponent: prices of the originals are 2^exponent times those of ``weighted``.
        stretch: with a free bias, its originals are 2^stretch times its values here,
        farthest: and the largest norm of the other columns' rows is this, in the units here.
    """

    samples: Floats
    weighted: Floats
    side: Floats
    exponent: int
    stretch: int
    farthest: float


def balanced(design: ArrayLike, nu: ArrayLike, free_bias: bool = False) -> Balanced:
    """Return the samples that carry weight, or refuse the arguments.

    Raises:
        BadInput: for shapes that disagree or numbers that are not finite.
    """
    X, weights = np.array(design, dtype=np.float64), np.asarray(nu, dtype=np.float64)
    if X.ndim != 2 or weights.shape != X.shape[:1]:
        raise BadInput(
            f"design has shape {X.shape} and nu {weights.shape}: they must be (n, p) and (n,)."
        )
    if not (np.isfinite(X).all() and np.isfinite(weights).all()):
        raise BadInput("design or nu has NaN or infinite entries: a price needs finite numbers.")
    stretch = 0
    if free_bias:  # it is bounded by the size of the other columns, so these set its unit
        stretch = exponent_of(X[:, :-1])
        X[:, :-1] = np.ldexp(X[:, :-1], -stretch)
    farthest = float(np.linalg.norm(X[:, :-1], axis=1).max(initial=0.0)) if free_bias else 0.0
    sizes = np.abs(X).max(axis=1, initial=0.0)
    heights, levels = _exponents(sizes), _exponents(weights)
    kept = (weights != 0) & (sizes > 0)
    top = int((heights + levels)[kept].max(initial=-(2**20)))
    kept &= heights + levels > top - FAINT
    X, weights, heights = X[kept], weights[kept], heights[kept]
    samples = np.ldexp(X, -heights[:, None])
    shares = np.ldexp(np.abs(weights), heights - top)
    exponent = top + stretch if kept.any() else 0
    return Balanced(
        samples, shares[:, None] * samples, np.sign(weights), exponent, stretch, farthest
    )


def magnified(bound: float, exponent: int) -> float:
    """Return an upper bound of bound · 2^exponent; infinity where floating point has no larger."""
    if not np.isfinite(bound):
        return np.inf
    with np.errstate(over="ignore", under="ignore"):
        value = float(np.ldexp(bound, exponent))
    tiny = bool(abs(value) < np.finfo(np.float64).tiny and bound != 0)
    return float(np.nextafter(value, np.inf)) if tiny else value


def exponent_of(values: Floats) -> int:
    """Return e with 2^(e−1) ≤ max |values| < 2^e; 0 if all are zero."""
    return int(_exponents(np.abs(values).max(initial=0.0)))


def _exponents(values: Floats | float) -> NDArray[np.int64]:
    return np.frexp(values)[1].astype(np.int64)
