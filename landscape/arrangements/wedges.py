r"""Hyperplanes through samples: cross products, sampled, sketched, and priced in pencils.

D − 1 rows in R^D are orthogonal to one direction, their generalised cross product

.. math:: u = ⋆(z_1 ∧ ⋯ ∧ z_{D−1}),

and a neuron of direction u puts out signed volumes over a base volume,
:math:`z^⊤u/\|u\| = \mathrm{vol}(z, z_1, …, z_{D−1}) / \mathrm{vol}(z_1, …, z_{D−1})`.  With a free
bias rows are (x, 1), and hyperplanes pass through d samples; without, through the origin and d − 1
samples.  Rows (e_k, 0) stand for hyperplanes parallel to a coordinate axis.  Pilanci, *From
complexity to clarity*, arXiv 2309.16512; *Randomized geometric algebra*, arXiv 2406.02806.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from landscape import arrangements
from landscape.arrangements.patterns import Arrangements
from landscape.errors import BadInput, whole

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

EPSILON = float(np.finfo(np.float64).eps)
BLOCK = 1 << 16
"""Numbers in one block of work."""
SINE = 0.1
"""Rows of a pencil closer than this to dependence are taken in every order (see `Pencils`)."""
NOTHING = 64 * EPSILON
"""A row this small on a pencil does not cut it."""


def cross(rows: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the unit vectors orthogonal to D − 1 rows, and which rows determine theirs.

    Args:
        rows: shape (B, D − 1, D).

    Returns:
        Directions (B, D), the generalised cross products up to length and sign, and whether rows
        are linearly independent beyond rounding, (B,).
    """
    _, sizes, right = np.linalg.svd(rows, full_matrices=True)
    if not sizes.shape[1]:
        return right[:, -1], np.ones(len(rows), dtype=bool)
    return right[:, -1], sizes[:, -1] > 1e-10 * sizes[:, 0]


def rows_of(X: Floats, bias: bool, axes: bool) -> tuple[Floats, Floats, float]:
    """Return the rows that hyperplanes contain, in units in which samples are of size one.

    Args:
        X: samples, shape (n, d).
        bias: whether hyperplanes are affine.
        axes: whether coordinate axes follow the samples.

    Returns:
        Rows (n[ + d], D), the centre c (d,) and the radius r of the samples: a row is
        ((x − c)/r, 1), or x/r without bias.
    """
    centre = (X.min(axis=0) + X.max(axis=0)) / 2.0 if bias else np.zeros(X.shape[1])
    moved = X - centre
    radius = float(np.linalg.norm(moved, axis=1).max()) or 1.0
    rows = moved / radius
    if axes:
        rows = np.vstack([rows, np.eye(X.shape[1])])
    if bias:
        rows = np.hstack([rows, (np.arange(len(rows)) < len(X))[:, None].astype(float)])
    return rows, centre, radius


def subsets(n: int, size: int) -> Whole:
    """Return every subset of a size, shape (C(n, size), size)."""
    count = math.comb(n, size)
    flat = itertools.chain.from_iterable(itertools.combinations(range(n), size))
    return np.fromiter(flat, np.int64, count * size).reshape(count, size)


def draws(n: int, size: int, count: int, seed: int) -> Whole:
    """Return random subsets of a size, shape (count, size), each equally likely."""
    generator = np.random.default_rng(seed)
    return np.stack([generator.choice(n, size, replace=False) for _ in range(count)])


def sketching(d: int, size: int, seed: int, sparsity: int = 4) -> Floats:
    """Return a sparse Johnson–Lindenstrauss map from d coordinates to few, shape (d, size).

    Every coordinate goes to ``sparsity`` of the new ones (one of each block of them) with random
    signs; ``sparsity=1`` is CountSketch.
    """
    whole("sketch", size, 1)
    generator = np.random.default_rng([seed, d, size])
    each = min(sparsity, size)
    out = np.zeros((d, size))
    for block in np.array_split(np.arange(size), each):
        place = block[generator.integers(0, len(block), d)]
        out[np.arange(d), place] = generator.choice((-1.0, 1.0), d) / each**0.5
    return out


def sample(X: Floats, count: int, seed: int = 0, sketch: int | None = None) -> Arrangements:
    """Return activation patterns beside the hyperplanes through random samples.

    A drawn direction is orthogonal to rank − 1 rows of X, all of which it leaves undecided; gates
    step off it, and come with their opposites.

    Args:
        X: design matrix, shape (n, d), a column of ones included where there is a bias.
        count: how many gates to draw, opposites included.
        seed: of the random numbers.
        sketch: draw directions after mapping the d columns to this many (`sketching`): subsets
            are then of sketch − 1 rows, and gates lie in the range of the map.

    Returns:
        At most ``count`` patterns with their gates.
    """
    X = np.asarray(X, dtype=np.float64)
    S = np.eye(X.shape[1]) if sketch is None else sketching(X.shape[1], sketch, seed)
    half = arrangements.sample(X @ S, -(-whole("count", count, 0) // 2), seed, method="data")
    gates = half.gates @ S.T
    gates = np.concatenate([gates, -gates])
    values = gates @ X.T
    return Arrangements.from_bool(values >= 0, gates).distinct()


class Swept(NamedTuple):
    """What a sweep of all pencils found.

    Attributes:
        largest: the largest prices per unit ‖w‖₁ and ‖w‖₂, each over all hyperplanes.
        members: rows that the best hyperplanes contain, shape (k, D − 1).
        charge: what rounding may have hidden of either price.
    """

    largest: tuple[float, float]
    members: Whole
    charge: float


class Pencils:
    r"""Prices of all hyperplanes through D − 1 rows, n log n for the n of one pencil.

    Hyperplanes through D − 2 rows form a pencil: their normals are a circle,
    u(θ) = p cos θ + q sin θ.  A row is on one side of u(θ) for half the circle, so that with rows
    sorted by where they change sides, prefix sums of ν z^⊤p and ν z^⊤q give the prices
    Σ ν_k (z_k^⊤u)_+ of all hyperplanes of the pencil, one through each row.

    *Rounding.*  A pencil is the null space of its rows, found by orthogonalising one after the
    other.  By induction over them the largest price is that of data moved by a few ε: on the
    hyperplane of the first row, what the others see of it is known up to ε, and the hyperplane of
    the next is exact for those data; however close the two are, nothing is divided by their angle.
    That needs all orders of the rows; where they are well apart (sines above `SINE`) the orders
    agree up to a moderate factor, and one is enough.

    Args:
        rows: shape (N, D), D at least 2; samples first, then axes (of weight zero).
        bias: whether the last coordinate is the bias, which no norm counts.
        samples: how many rows are samples.
    """

    def __init__(self, rows: Floats, bias: bool, samples: int) -> None:
        self.rows, self.samples = rows, samples
        self.counted = rows.shape[1] - bias
        size = rows.shape[1] - 2
        self.sets, bases = self._bases(subsets(len(rows), size))
        self.p, self.q = bases[:, :, 0], bases[:, :, 1]
        self.pure: NDArray[np.bool_] = np.all(self.sets < samples, axis=1)
        self.amplified = (1.0 + 1.0 / SINE) ** max(0, size - 1)

    def _bases(self, sets: Whole) -> tuple[Whole, Floats]:
        """Return the pencils' rows and orthonormal bases (B, D, 2), degenerate ones left out."""
        D, size = self.rows.shape[1], sets.shape[1]
        kept, bases = [], []
        step = max(1, BLOCK // (D * D))
        orders = list(itertools.permutations(range(size)))
        for begin in range(0, len(sets), step):
            part = sets[begin : begin + step]
            for number, order in enumerate(orders):
                Q, sines = self._orthogonal(part[:, order])
                there = sines > NOTHING
                kept.append(part[there])
                bases.append(Q[there, :, size:])
                if number == 0:
                    part = part[sines < SINE]
                if not len(part):
                    break
        return np.concatenate(kept), np.concatenate(bases)

    def _orthogonal(self, sets: Whole) -> tuple[Floats, Floats]:
        """Return orthogonal matrices (B, D, D), rows first, and how independent the rows are."""
        D, size = self.rows.shape[1], sets.shape[1]
        if size == 0:
            return np.tile(np.eye(D), (len(sets), 1, 1)), np.ones(len(sets))
        vectors = self.rows[sets]
        Q, R = np.linalg.qr(vectors.swapaxes(1, 2), mode="complete")
        lengths = np.linalg.norm(vectors, axis=2)
        sizes = np.abs(np.einsum("bii->bi", R[:, :size]))
        with np.errstate(invalid="ignore"):
            sines = np.where(lengths > 0, sizes / lengths, 0.0)
        return Q, sines.min(axis=1)

    def sweep(self, nu: Floats, norm: int, axes: bool, most: int, target: float) -> Swept:
        """Return the largest prices |Σ ν_k (z_k^⊤u)_+| and the hyperplanes of the best.

        Args:
            nu: weights of the samples, shape (n,); they sum to zero where there is a bias.
            norm: 1 or 2, by which the best are chosen.
            axes: whether those may contain axes.
            most: how many pencils' best hyperplanes to return, at most.
            target: only those that price above this.
        """
        weights = np.concatenate([nu, np.zeros(len(self.rows) - self.samples)])
        largest, found = [0.0, 0.0], []
        for block in self._blocks():
            order, prices = self._prices(block, weights)
            largest = [max(largest[k], float(prices[k].max(initial=0.0))) for k in (0, 1)]
            chosen = prices[norm - 1]
            if not axes:
                within = (order < self.samples) & self.pure[block, None]
                chosen = np.where(within, chosen, 0.0)
            at = chosen.argmax(axis=1)
            best = chosen[np.arange(len(at)), at]
            good = np.flatnonzero(best > target)
            good = good[np.argsort(-best[good], kind="stable")[:most]]
            members = np.column_stack([self.sets[block][good], order[good, at[good]]])
            found.append((best[good], members))
        value = np.concatenate([part[0] for part in found])
        members = np.sort(np.concatenate([part[1] for part in found]), axis=1)
        _, first = np.unique(members, axis=0, return_index=True)
        first = first[np.argsort(-value[first], kind="stable")][:most]
        N, D = self.rows.shape
        size = float(np.abs(weights) @ np.linalg.norm(self.rows, axis=1))
        charge = 4.0 * (N + 32.0 * D * D * self.amplified) * EPSILON * size
        if self.counted < D:  # constants price by what the weights lack to sum to zero
            charge += 4.0 * abs(math.fsum(nu))
        return Swept((largest[0], largest[1]), members[first], charge)

    def _blocks(self) -> Iterator[slice]:
        step = max(1, BLOCK // len(self.rows))
        for begin in range(0, len(self.p), step):
            yield slice(begin, begin + step)

    def _prices(self, block: slice, weights: Floats) -> tuple[Whole, tuple[Floats, Floats]]:
        """Return rows in the order of their angles, and prices by ‖w‖₁ and ‖w‖₂, (B, N) each."""
        p, q = self.p[block], self.q[block]
        A, B = p @ self.rows.T, q @ self.rows.T
        reach = np.hypot(A, B)
        cuts = reach > NOTHING
        scale = np.where(cuts, reach, 1.0)
        # The row is zero at ±(B, −A); of the two the one with sin θ ≥ 0, θ in [0, π).
        up = (A < 0) | ((A == 0) & (B > 0))
        side = np.where(up, 1.0, -1.0)
        cos, sin = side * B / scale, -side * A / scale
        order = np.argsort(-cos / (np.abs(cos) + sin + ~cuts), axis=1)
        pull = weights * np.where(cuts, reach, 0.0)
        # Rows on the side that is positive before their angle; they leave, the others enter.
        low = np.where(up, 0.0, pull)
        early_p, early_q = (low * sin).sum(axis=1), -(low * cos).sum(axis=1)
        whole_p, whole_q = -(side * pull * sin).sum(axis=1), (side * pull * cos).sum(axis=1)
        cos, sin, pull, cuts = (
            np.take_along_axis(a, order, axis=1) for a in (cos, sin, pull, cuts)
        )
        on_p = early_p[:, None] - np.cumsum(pull * sin, axis=1)
        on_q = early_q[:, None] + np.cumsum(pull * cos, axis=1)
        value = cos * on_p + sin * on_q  # of u; of −u it is less what all rows say
        other = value - cos * whole_p[:, None] - sin * whole_q[:, None]
        price = np.where(cuts, np.maximum(np.abs(value), np.abs(other)), 0.0)
        one, two = np.zeros(price.shape), np.zeros(price.shape)
        for k in range(self.counted):
            w = cos * p[:, k, None] + sin * q[:, k, None]
            one += np.abs(w)
            two += w * w
        price = np.where(two > 0.25, price, 0.0)  # w = 0 is no hyperplane
        two = np.sqrt(np.maximum(two, 0.25))
        return order, (price / np.maximum(one, 0.5), price / two)


def check_count(pencils: int, rows: int, limit: int, advice: str) -> None:
    """Refuse a sweep of too many hyperplanes, saying how many they are and what to do."""
    if pencils > limit:
        raise arrangements.TooManyPatterns(
            f"X has {pencils * rows:,} hyperplanes through its samples, in {pencils:,} pencils, "
            f"above limit={limit:,}: {advice}"
        )


def check_enough(n: int, needed: int) -> None:
    """Refuse to draw hyperplanes through more samples than there are."""
    if n < needed:
        raise BadInput(
            f"X has {n} samples: hyperplanes without coordinate axes pass through {needed} of "
            "them; set axes=True, or use a sketch of fewer columns."
        )
