r"""Prices of normalised ReLU units: the largest :math:`ν^⊤(Xw)_+ / \|(Xw)_+\|` over all w.

On the closure of a cell the outputs :math:`x = (Xw)_+ ≥ 0` are the cone of the images p_j of the
cell's extreme rays (`landscape.arrangements.rays`), and the price is that of a cone,

.. math:: \sup_{x ∈ \mathrm{cone}\{p_j\},\; \|x\| = 1} ν^⊤x = \Big\|\sum_j μ_j p_j\Big\|, \qquad
    μ = \arg\min_{μ ≥ 0} \Big\|ν − \sum_j μ_j p_j\Big\|,

if it is positive.  The cone is closed and pointed (x ≥ 0), so the supremum is attained, also where
it is approached by units whose outputs tend to zero: the limit of their ratios is the image of
another w of the same closed cell.  Any μ ≥ 0 gives a bound: with :math:`ρ = ν − \sum_j μ_jp_j`

.. math:: ν^⊤x ≤ \Big\|\sum_j μ_j p_j\Big\|\,\|x\| + \max_j (ρ^⊤p̂_j)_+ \sum_j μ'_j, \qquad
    x = \sum_j μ'_j p̂_j, \quad \sum_j μ'_j ≤ \|x\|_1 ≤ \sqrt n\,\|x\|

Beyond listing, x ≥ 0 alone bounds the price by :math:`\|(ν)_+\|`: exact where X has rank n, a
relaxation elsewhere; units then come from climbs.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import null_space

from landscape.arrangements import rays
from landscape.arrangements.rows import column_scales, hyperplanes
from landscape.nonnegative import least_squares
from landscape.pricing.balance import EPSILON

if TYPE_CHECKING:
    from landscape.programs import Floats

LISTED = 12_000
"""Up to this many cells and rays are listed."""
MOST = 12
"""Units that one pricing finds at least, where so many price above its target."""
STARTS = 48
OFF = 1e-9
"""Units whose outputs are this small (relative) are not climbed with."""
STEPS = 60
SHARES = 0.5 ** np.arange(8)
"""Steps of a climb: shares of the way to the best outputs on its pattern, and along the slope."""


class Prices(NamedTuple):
    """What prices say at one dual point, for one sign.

    Attributes:
        bound: no unit prices above this.
        directions: w of the best units found, shape (k, d).
        prices: what these attain, shape (k,).
    """

    bound: float
    directions: Floats
    prices: Floats


class ListedCells:
    """Prices of all cells, listed with their rays.

    Args:
        X: inputs, shape (n, d).
        limit: the most cells that there may be.
    """

    def __init__(self, X: Floats, limit: int) -> None:
        scale = column_scales(X)
        found = rays.cell_rays(X * scale, limit)
        sizes = np.linalg.norm(found.images, axis=1)
        alive = sizes > 0
        safe = np.where(alive, sizes, 1.0)
        self.n = len(X)
        self.unit = found.images / safe[:, None]  # p̂, (K, n)
        self.directions = found.directions * scale / safe[:, None]
        self.rounding = found.rounding / safe
        cells = {cell[alive[cell]].tobytes(): cell[alive[cell]] for cell in found.cells}
        self.cells = [cell for cell in cells.values() if len(cell)]
        most = max(map(len, self.cells), default=0)
        rank = min(most, *X.shape)
        self.bases = np.zeros((len(self.cells), self.n, rank))
        self.cones = np.zeros((len(self.cells), rank, most))  # p̂ in every cell's basis
        lengths = np.array([len(cell) for cell in self.cells], dtype=np.int64)
        for count in np.unique(lengths):
            some = np.flatnonzero(lengths == count)
            images = self.unit[np.array([self.cells[g] for g in some])]  # (k, count, n)
            U, S, _ = np.linalg.svd(images.transpose(0, 2, 1), full_matrices=False)
            kept = min(U.shape[2], rank)
            U = np.where(S[:, None] > self.n * EPSILON * S[:, None, :1], U, 0.0)[:, :, :kept]
            self.bases[some, :, :kept] = U
            self.cones[some, :kept, :count] = U.transpose(0, 2, 1) @ images.transpose(0, 2, 1)
        self.spread = np.array([self.rounding[cell].max() for cell in self.cells])

    def __call__(self, nu: Floats, target: float = 0.0) -> Prices:
        """Return the largest νᵀx, units that attain it, and others that price above a target."""
        size = float(np.linalg.norm(nu))
        if not self.cells:
            return Prices(0.0, np.zeros((0, self.directions.shape[1])), np.zeros(0))
        charge = 8.0 * (self.n + 16) * EPSILON * size + self.n**0.5 * 2.0 * size * self.spread
        inside = np.einsum("gnr,n->gr", self.bases, nu)  # ν seen from every cell's span
        coarse = self._bounds(inside) + charge
        bound, found, attained = 0.0, [], []
        for g in np.argsort(-coarse, kind="stable"):
            if coarse[g] <= bound and (coarse[g] <= target or len(found) >= MOST):
                break
            cell = self.cells[g]
            mu, _ = least_squares(self.cones[g, :, : len(cell)], inside[g])
            x = mu @ self.unit[cell]
            length = float(np.linalg.norm(x))
            excess = float((self.unit[cell] @ (nu - x)).max())
            own = length + self.n**0.5 * max(excess, 0.0) + charge[g]
            bound = max(bound, min(own, float(coarse[g])))
            if length > 0.0:
                found.append(mu @ self.directions[cell])
                attained.append(float(nu @ x) / length)
        directions = np.array(found).reshape(-1, self.directions.shape[1])
        return Prices(bound, directions, np.array(attained))

    def _bounds(self, inside: Floats) -> Floats:
        """Return bounds of all cells' prices, of ν seen from their spans (P, r).

        Of the best outputs in the span, and of the best on one ray or between two.
        """
        along = np.einsum("gr,grk->gk", inside, self.cones)
        x = self._on_rays(inside, along)
        excess = np.einsum("gr,grk->gk", inside - x, self.cones).max(axis=1, initial=0.0)
        faces = np.linalg.norm(x, axis=1) + self.n**0.5 * excess
        return np.minimum(np.linalg.norm(inside, axis=1), faces)

    def _on_rays(self, inside: Floats, along: Floats) -> Floats:
        """Return the x of largest νᵀx/‖x‖ on one ray or between two, its length that price."""
        rows = np.arange(len(inside))
        one = along.argmax(axis=1)
        best = np.maximum(along[rows, one], 0.0)
        x = best[:, None] * self.cones[rows, :, one]
        for i, j in combinations(range(along.shape[1]), 2):
            p, q = self.cones[:, :, i], self.cones[:, :, j]
            cosine = (p * q).sum(axis=1)
            rest = 1.0 - cosine**2
            there = rest > 1e-12
            rest = np.where(there, rest, 1.0)
            first = (along[:, i] - cosine * along[:, j]) / rest
            second = (along[:, j] - cosine * along[:, i]) / rest
            value = np.sqrt(np.maximum(first * along[:, i] + second * along[:, j], 0.0))
            better = there & (first >= 0.0) & (second >= 0.0) & (value > best)
            between = first[:, None] * p + second[:, None] * q
            x = np.where(better[:, None], between, x)
            best = np.where(better, value, best)
        return x


class Climbs:
    """Units by climbs from random directions, and the bound of all x ≥ 0.

    Args:
        X: inputs, shape (n, d).
        seed: of the starts.
    """

    def __init__(self, X: Floats, seed: int = 0) -> None:
        self.scale = column_scales(X)
        self.X = X = X * self.scale
        self.inverse = np.linalg.pinv(X)
        self.size = float(np.linalg.norm(X))
        self.starts = np.random.default_rng(seed).standard_normal((STARTS, X.shape[1]))

    def __call__(self, nu: Floats, target: float = 0.0) -> Prices:
        """Return ‖(ν)_+‖ and the best units found."""
        every = float(np.linalg.norm(np.maximum(nu, 0.0)))
        best = self.X[np.argsort(-nu)[:STARTS]]
        w = np.vstack([self.starts, best, (self.inverse @ nu)[None]])
        value = self._values(w, nu)
        w, value = w[np.isfinite(value)], value[np.isfinite(value)]
        for _ in range(STEPS if len(w) else 0):
            before = w @ self.X.T
            x = np.maximum(before, 0.0)
            size = np.linalg.norm(x, axis=1, keepdims=True)
            w = w * (np.where(value > 0.0, value, 1.0)[:, None] / size)
            slope = (before > 0) * (nu - value[:, None] * x / size) @ self.X
            slope /= np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-300)
            slope *= np.linalg.norm(w, axis=1, keepdims=True)
            steps = np.stack([self._aims(before > 0, nu) - w, slope], axis=1)[:, :, None]
            trial = (w[:, None, None] + SHARES[:, None] * steps).reshape(
                len(w), 2 * len(SHARES), -1
            )
            reached = self._values(trial, nu)
            at = reached.argmax(axis=1)
            rows = np.arange(len(w))
            better = reached[rows, at] > value * (1 + 1e-12)
            if not better.any():
                break
            w = np.where(better[:, None], trial[rows, at], w)
            value = np.where(better, reached[rows, at], value)
        kept = value > 0.0
        bound = every * (1 + (len(nu) + 16) * EPSILON)
        return Prices(bound, w[kept] * self.scale, value[kept])

    def _values(self, w: Floats, nu: Floats) -> Floats:
        """Return νᵀx/‖x‖ of directions (…, d), −∞ where x is all but zero."""
        x = np.maximum(w @ self.X.T, 0.0)
        size = np.linalg.norm(x, axis=-1)
        there = size > OFF * self.size * np.linalg.norm(w, axis=-1)
        return np.where(there, x @ nu / np.where(there, size, 1.0), -np.inf)

    def _aims(self, on: np.ndarray, nu: Floats) -> Floats:
        """Return the w whose outputs on each pattern (k, n) are closest to ν, shape (k, d)."""
        gram = (on[:, None] * self.X.T) @ self.X  # (k, d, d)
        ridge = 1e-12 * np.trace(gram, axis1=1, axis2=2)[:, None, None] + 1e-300
        gram = gram + ridge * np.eye(self.X.shape[1])
        return np.linalg.solve(gram, ((on * nu) @ self.X)[:, :, None])[:, :, 0]


def whole(X: Floats) -> bool:
    """Return whether lists of cells have all directions along which outputs are more than rounding.

    `landscape.arrangements.rows.hyperplanes` leaves out directions in which rows are short; of
    other networks they move little, but outputs at norm one are as large along them as along any.
    """
    X = X * column_scales(X)
    planes = hyperplanes(X)
    if planes.rank == X.shape[1]:
        return True
    left_out = null_space(planes.lift.T)  # (d, d − rank)
    rounding = 16.0 * (X.shape[1] + 2) * EPSILON * np.abs(X) @ np.abs(left_out)
    return bool((np.abs(X @ left_out) <= rounding).all())
