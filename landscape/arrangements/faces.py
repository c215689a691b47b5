r"""Patterns 1[Xh ≥ 0] of all directions, lower faces and h = 0 included: ties count as on.

A direction on the hyperplanes of some rows turns them all on.  Where some v has
:math:`x_k^⊤ v > 0` on those rows, a step along v reaches a full-dimensional cell with the same
pattern, so only rows that are *positively dependent* (Σ λ_k x_k = 0, λ > 0) add patterns: all rows
at once for h = 0, antipodal pairs, and flats with more rows than their rank.  In general position
nothing but the all-ones pattern of h = 0 is added.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landscape import arrangements
from landscape.arrangements.cells import Bools, Floats
from landscape.arrangements.patterns import Arrangements
from landscape.arrangements.rows import Hyperplanes, hyperplanes

CENTRING = 60
"""Most Newton steps towards the middle of a cell."""


def enumerate_closed(X: ArrayLike, limit: int = 2_000_000) -> Arrangements:
    r"""Return every pattern :math:`1[Xh ≥ 0]`, h anything, each with a direction.

    A direction on hyperplanes lies on them up to rounding; full-dimensional cells come first.

    Args:
        X: design matrix, shape (n, d).
        limit: the most full-dimensional cells there may be.

    Raises:
        TooManyPatterns: if distinct hyperplanes in general position would have more cells.
        BadInput: if X is no finite matrix.
        Undecided: if the rows are so nearly degenerate that no sign can be trusted.

    Example:
        >>> len(enumerate_closed([[1.0], [-1.0]]))
        3
    """
    cells = arrangements.enumerate(X, limit)
    planes = hyperplanes(X)
    parts = [_face(planes, flat) for flat in _flats(planes)]
    zero = np.zeros((1, planes.X.shape[1]))
    nothing = Arrangements.from_bool(np.ones((1, len(planes.X)), dtype=bool), zero)
    return cells.union(*parts, nothing)


def two_sided(planes: Hyperplanes) -> Bools:
    """Return which hyperplanes have rows on both sides, antipodal ones, shape (u,)."""
    sides = [np.zeros(len(planes.Z), dtype=bool) for _ in range(2)]
    for side, mask in zip(sides, (~planes.turned, planes.turned), strict=True):
        side[planes.owner[mask & (planes.owner >= 0)]] = True
    return sides[0] & sides[1]


def _flats(planes: Hyperplanes) -> list[Bools]:
    """Return the flats below full rank that may be positively dependent, masks over planes."""
    Z, both = planes.Z, two_sided(planes)
    found: dict[bytes, Bools] = {}
    for rank in range(1 if both.any() else 2, planes.rank):
        for subset in combinations(range(len(Z)), rank):
            sizes, basis = np.linalg.svd(Z[list(subset)], full_matrices=False)[1:]
            if sizes[-1] <= 16 * planes.tolerance:
                continue
            flat = np.linalg.norm(Z - (Z @ basis.T) @ basis, axis=1) <= 16 * planes.tolerance
            if flat.sum() > rank or (flat & both).any():
                found[flat.tobytes()] = flat
    return list(found.values())


def _face(planes: Hyperplanes, flat: Bools) -> Arrangements:
    """Return the patterns of directions on exactly the hyperplanes of a flat."""
    rank = int(np.linalg.matrix_rank(planes.Z[flat], tol=16 * planes.tolerance))
    normal = np.linalg.svd(planes.Z[flat])[2][rank:]  # (r − rank, r): directions on the flat
    inside = arrangements.enumerate(planes.Z[~flat] @ normal.T)
    gates = inside.gates @ normal
    sides = gates @ planes.Z.T > 0  # (P, u)
    return Arrangements.from_bool(on_rows(planes, sides, flat), gates @ planes.lift.T)


def on_rows(planes: Hyperplanes, sides: Bools, tied: Bools) -> Bools:
    """Return patterns over the rows of X, (P, n), from sides (P, u) and ties of the planes."""
    zero = planes.owner < 0
    on = np.take(sides, planes.owner, axis=-1) ^ planes.turned
    return on | np.take(tied, planes.owner, axis=-1) | zero


def middle(Z: Floats, sides: NDArray[np.float64], gate: Floats) -> Floats:
    r"""Move a direction to the analytic centre of its cell, or of its face where rows are tied.

    It maximises :math:`\sum_k \log s_k z_k^⊤ w − \tfrac n2 \|w\|^2` by Newton steps that stay
    inside, so that neither rounding nor small changes of the samples alter the pattern.

    Args:
        Z: normals, shape (u, r).
        sides: the side of every row, ±1, or 0 where it is tied and stays so, shape (u,).
        gate: a direction with these sides, shape (r,).
    """
    tied = sides == 0
    basis = np.eye(Z.shape[1])
    if tied.any():
        sizes, rows = np.linalg.svd(Z[tied])[1:]
        basis = rows[int((sizes > 1e-10).sum()) :]
    signed = sides[~tied, None] * (Z[~tied] @ basis.T)  # (k, q), positive inside
    w = basis @ gate
    k = len(signed)
    if not k or not (signed @ w > 0).all():
        return gate
    w = w * np.sqrt(1.0 / max(float(w @ w), 1e-300))
    for _ in range(CENTRING):
        t = signed @ w
        slope = signed.T @ (1.0 / t) - k * w
        curvature = (signed / t[:, None] ** 2).T @ signed + k * np.eye(len(w))
        step = np.linalg.solve(curvature, slope)
        decrement = float(np.sqrt(max(0.0, slope @ step)))
        if decrement < 1e-6:
            break
        moved = w + step / (1.0 + decrement)  # stays inside: the barrier is self-concordant
        if not (signed @ moved > 0).all():
            break
        w = moved
    return basis.T @ (w / np.linalg.norm(w))
