"""Non-negative least squares whose answers are checked.

`scipy.optimize.nnls` can return a wrong vector, and a wrong residual beside it, where columns
repeat or are each other's negatives; it raises nothing.  Here its conditions of optimality are
recomputed, and where they fail a second method is asked; the shortest rest of all is returned,
which may be short of optimal where rows differ by many orders of magnitude.  Bounds do not rest on
it: they charge what an answer leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import lsq_linear, nnls

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SLOPE = 1e-10
"""Slopes this small are zero, relative to a column's length times that of the target; and so is
their product with x, relative to the target's square."""


def least_squares(A: Floats, b: Floats) -> tuple[Floats, float]:
    """Return the x ≥ 0 that minimises ‖Ax − b‖, and ‖Ax − b‖ recomputed from it.

    Args:
        A: shape (m, k).
        b: shape (m,).
    """
    nothing = np.zeros(A.shape[1])
    if not A.size:
        return nothing, float(np.sqrt(b @ b))
    try:
        x = nnls(A, b, maxiter=30 * A.shape[1] + 100)[0]
    except RuntimeError:  # its iteration limit
        x = nothing
    rest = A @ x - b
    if _optimal(A, b, x, rest):
        return x, float(np.sqrt(rest @ rest))
    found = lsq_linear(A, b, (0.0, np.inf), method="bvls", tol=1e-14).x
    tried = [x, np.maximum(found, 0.0), nothing]
    sizes = [float(np.linalg.norm(A @ one - b)) for one in tried]
    best = int(np.argmin(sizes))
    return tried[best], sizes[best]


def _optimal(A: Floats, b: Floats, x: Floats, rest: Floats) -> bool:
    """Return whether x ≥ 0, no slope is downhill, and all slopes are zero where x is not."""
    slope, size = rest @ A, b @ b
    if not (abs(slope @ x) <= SLOPE * size and x.min() >= 0.0):
        return False
    if slope.min() >= 0.0:
        return True
    lengths = np.sqrt(np.einsum("ij,ij->j", A, A) * size)
    return bool((slope >= -SLOPE * lengths).all())
