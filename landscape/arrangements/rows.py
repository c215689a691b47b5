"""The distinct hyperplanes behind a design matrix, in well-conditioned coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landscape.arrangements.cells import EPSILON, Floats
from landscape.errors import BadInput

TOLERANCE = 1e-12  # angles below this are zero


@dataclass(frozen=True)
class Hyperplanes:
    """What an arrangement is made of, once nothing is counted twice.

    Attributes:
        X: the design matrix, shape (n, d).
        Z: unit normals of the distinct hyperplanes, shape (u, r), of rank r.
        lift: turns a direction g of R^r into one of R^d, shape (d, r).
        owner: which hyperplane each row of X is, −1 for zero rows, shape (n,).
        turned: whether the row is its hyperplane's normal negated, shape (n,).
        tolerance: what counts as zero against the unit normals.
    """

    X: Floats
    Z: Floats
    lift: Floats
    owner: NDArray[np.intp]
    turned: NDArray[np.bool_]
    tolerance: float

    @property
    def rank(self) -> int:
        """The rank of X."""
        return self.Z.shape[1]


def design(X: ArrayLike) -> Floats:
    """Return X as a float64 matrix, or refuse it.

    Raises:
        BadInput: if it is no matrix of finite real numbers.
    """
    try:
        X = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise BadInput(f"X must be a matrix of numbers; numpy says: {problem}.") from problem
    if X.ndim != 2:
        raise BadInput(f"X has shape {X.shape}: it must have two axes, rows × columns.")
    if not np.isfinite(X).all():
        raise BadInput("X has NaN or infinite entries: drop those rows or fill them in.")
    return X


def hyperplanes(X: ArrayLike) -> Hyperplanes:
    """Reduce a design matrix to its rank and to its distinct hyperplanes.

    Cells don't change under an invertible map of the columns nor under positive factors of the
    rows, so both are chosen to make the rows well conditioned: rows and columns are equilibrated,
    then singular vectors are scaled by their singular values.
    """
    X = design(X)
    n, d = X.shape
    rows, columns = _equilibrated(X)
    rows = rows / _length(rows)
    U, sigma, Vt = np.linalg.svd(rows, full_matrices=False)
    keep = sigma > max(n, d, 50) * 100 * EPSILON * sigma.max(initial=0.0)
    sigma, Vt = sigma[keep], Vt[keep]
    lift = columns[:, None] * (Vt.T / sigma)
    Z = U[:, keep]
    nonzero = np.flatnonzero((X != 0).any(axis=1))
    Z = Z / _length(Z)
    condition = sigma.max() / sigma.min() if sigma.size else 1.0
    tolerance = max(TOLERANCE, 64 * EPSILON * condition)
    owner = np.full(n, -1, dtype=np.intp)
    turned = np.zeros(n, dtype=bool)
    first: list[int] = []
    for group in collinear(Z, nonzero, tolerance):
        head = group.min()
        owner[group] = len(first)
        turned[group] = Z[group] @ Z[head] < 0
        first.append(int(head))
    return Hyperplanes(X, Z[first], lift, owner, turned, tolerance)


def collinear(Z: Floats, rows: NDArray[np.intp], tol: float) -> list[NDArray[np.intp]]:
    """Split some unit rows of Z into classes of collinear ones, up to angles of about ``tol``."""
    if rows.size == 0:
        return []
    # collinear unit rows have the same |z·g|; a sort brings them together
    shadow = np.abs(Z[rows] @ np.random.default_rng(0).standard_normal(Z.shape[1]))
    order = np.argsort(shadow, kind="stable")
    gaps = np.flatnonzero(np.diff(shadow[order]) > 8 * tol * np.sqrt(Z.shape[1])) + 1
    classes = []
    for group in np.split(rows[order], gaps):
        while group.size:
            sign = np.where(Z[group] @ Z[group[0]] < 0, -1.0, 1.0)
            same = np.linalg.norm(sign[:, None] * Z[group] - Z[group[0]], axis=1) <= 2 * tol
            classes.append(group[same])
            group = group[~same]
    return sorted(classes, key=lambda group: int(group.min()))


def column_scales(X: Floats) -> Floats:
    """Return powers of two (d,) that bring columns to one size: nothing is rounded."""
    sizes = np.abs(X).max(axis=0, initial=0.0)
    return np.ldexp(1.0, -np.frexp(sizes)[1].clip(-1000, 1000))


def _equilibrated(X: Floats) -> tuple[Floats, Floats]:
    """Scale rows and columns by powers of two, so without rounding, until both have size one.

    Returns the scaled matrix and the columns' factors, shape (d,); Ruiz's iteration (2001).
    """
    columns = np.ones(X.shape[1])
    for _ in range(12):
        for axis in (1, 0):
            size = np.abs(X).max(axis=axis, keepdims=True, initial=0.0)
            factor = np.exp2(-np.round(np.log2(np.where(size == 0, 1.0, size)) / 2))
            X = X * factor
            if axis == 0:
                columns = columns * factor[0]
    return X, columns


def _length(X: Floats) -> Floats:
    """Return the lengths of the rows, shape (n, 1), 1 for zero rows."""
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return np.where(length == 0, 1.0, length)
