r"""The heaviest half-space: the largest :math:`\sum_k ν_k 1[x_k^⊤ h ≥ 0]` over all h.

Rows on one hyperplane act together: on its positive side they weigh :math:`p_k`, on its negative
side :math:`q_k`, and on the hyperplane itself :math:`p_k + q_k`, ties being on.  A pattern is that
of a cell or of a face, and the closure of each holds a ray on which r − 1 independent hyperplanes
meet.  Next to that ray all other rows keep their sides, and independent hyperplanes take any sides
one likes.  So, in place of listing patterns, a direction is turned once past all hyperplanes in the
plane orthogonal to each set of r − 2 of them; their order does not depend on ν, and O(n^{r−1})
additions price O(n^{r−1}) patterns, lower faces included.  Where more than r − 1 hyperplanes meet
in one ray, letting each choose its side bounds from above what is possible.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from landscape.arrangements import Arrangements, Undecided, count
from landscape.arrangements.cells import EPSILON, Bools, Floats
from landscape.arrangements.circles import Circles
from landscape.arrangements.faces import enumerate_closed, middle
from landscape.arrangements.rows import Hyperplanes, hyperplanes

LARGEST = 20_000_000
"""Most events (circles × hyperplanes) that are kept in order."""
MEETING = 1e-10
"""A hyperplane this close (sine) to a ray goes through it."""
LISTED = 4_096
"""Up to this many cells all patterns are listed, which is exact in any position."""
CROWD = 2_000
"""Most cells of the hyperplanes through one ray that are listed."""


class Weights(NamedTuple):
    """What each hyperplane weighs on its positive and on its negative side, shape (u,)."""

    plus: Floats
    minus: Floats

    @property
    def choice(self) -> Floats:
        """The side on which each weighs most: 1, −1, or 0 on the hyperplane."""
        options = np.stack([self.plus, self.minus, self.plus + self.minus])
        return np.array([1.0, -1.0, 0.0])[options.argmax(axis=0)]

    def on(self, sides: Floats) -> Floats:
        """Return what hyperplanes with these sides (…, u) weigh together, shape (…,)."""
        return (sides >= 0) @ self.plus + (sides <= 0) @ self.minus


class Halfspaces:
    """Half-spaces of the rows of one design matrix, prepared for weights that come and go.

    Args:
        X: design matrix, shape (n, d).
        circles: the most circles to turn on.

    Attributes:
        independent: whether hyperplanes are independent: each may take any side.
        apart: which hyperplanes stand for rows on one side that are only nearly collinear: bounds
            let directions next to them turn on any of these, shape (u,).
        listed: whether patterns are few, and priced one by one.
        turned: whether turning prices all patterns; if none of these, bounds are a relaxation and
            gates come from local search.
    """

    def __init__(self, X: ArrayLike, circles: int) -> None:
        self.planes: Hyperplanes = hyperplanes(X)
        self.u, self.rank = self.planes.Z.shape
        self.independent = self.u == self.rank
        needed = comb(self.u, max(self.rank - 2, 0))
        small = needed <= max(circles, 1) and needed * self.u <= LARGEST
        self.apart = _apart(self.planes)
        few = count(self.u, self.rank) <= LISTED
        self.listed = few and not self.independent and not self.apart.any()
        self.turned = small and not self.independent

    def heaviest(self, nu: Floats, most: int) -> tuple[float, Floats]:
        """Return the largest weight, from above, and directions that weigh about as much.

        Args:
            nu: weights of the rows, shape (n,).
            most: about as many directions are returned, as far as they are told apart.

        Returns:
            ``(bound, gates)``, gates (k, d); rounding is charged to the bound.
        """
        if self.listed and self._list is not None:
            return self._listed(nu, most)
        w = self._weights(nu)
        zero = float(nu[self.planes.owner < 0].sum())  # rows that are zero are always on
        if self.turned:
            bound, gates = self._turning(w, self._best(w, nu), most)
        else:
            bound = float(self._best(w, nu).sum())
            gates = self._levels(w, most) if self.independent else self._climbing(w, most)
        bound = max(bound + zero, float(nu.sum()))  # the direction 0 turns all rows on
        every = np.zeros((1, self.planes.X.shape[1]))
        return bound + _charge(nu), np.vstack([gates @ self.planes.lift.T, every])

    @cached_property
    def _list(self) -> Arrangements | None:
        try:
            return enumerate_closed(self.planes.X, LISTED)
        except Undecided:  # turning still bounds, whatever rounding hides
            return None

    def _listed(self, nu: Floats, most: int) -> tuple[float, Floats]:
        """Price every pattern."""
        assert self._list is not None
        weigh = self._patterns @ nu
        top = np.argsort(-weigh, kind="stable")[:most]
        return float(weigh[top[0]]) + _charge(nu), self._list.gates[top]

    @cached_property
    def _patterns(self) -> Floats:
        return np.asarray(self._list, dtype=np.float64)

    def _weights(self, nu: Floats) -> Weights:
        owner, turned = self.planes.owner, self.planes.turned
        sides = [(owner >= 0) & ~turned, (owner >= 0) & turned]
        weights = [np.bincount(owner[s], nu[s], self.u).astype(np.float64) for s in sides]
        return Weights(*weights)

    def _best(self, w: Weights, nu: Floats) -> Floats:
        """Return the most that every hyperplane can weigh for directions next to it, (u,)."""
        plus, minus = w
        if self.apart.any():  # rows that are not told apart may be, by directions in between
            split = self._weights(np.maximum(nu, 0.0))
            plus = np.where(self.apart, split.plus, plus)
            minus = np.where(self.apart, split.minus, minus)
        return np.maximum(np.maximum(plus, minus), plus + minus)

    @cached_property
    def _circles(self) -> Circles:
        Z, r = self.planes.Z, self.rank
        if r == 2:
            return Circles(Z, np.eye(2)[None])
        through = np.array(list(combinations(range(self.u), r - 2)))
        rows = np.linalg.svd(Z[through])
        independent = rows[1][:, -1] > MEETING  # of dependent ones the ray lies on other circles
        return Circles(Z, rows[2][independent, r - 2 :].swapaxes(1, 2))

    def _turning(self, w: Weights, best: Floats, most: int) -> tuple[float, Floats]:
        """Return the bound by turning on all circles, and gates at their best events."""
        values, events = self._circles.heaviest(*w, best)
        order = np.argsort(-values.reshape(-1), kind="stable")
        _, first = np.unique(np.round(values.reshape(-1)[order], 12), return_index=True)
        chosen = order[np.sort(first)][:most]
        rays = self._circles.rays(*(index[chosen] for index in events))
        return float(values.max()), np.array([self._beside(w, ray) for ray in rays])

    def _beside(self, w: Weights, ray: Floats) -> Floats:
        """Return a direction next to a ray, with the hyperplanes through it where they are best."""
        Z = self.planes.Z
        values = Z @ ray
        through = np.abs(values) <= MEETING
        wanted = w.choice[through]
        inward = np.linalg.lstsq(Z[through], wanted)[0]
        if np.abs(Z[through] @ inward - wanted).max(initial=0.0) > 1e-6:  # too many meet here
            inward, wanted = self._best_of(Z[through], Weights(*(side[through] for side in w)))
        with np.errstate(divide="ignore"):
            room = np.abs(values[~through]) / np.abs(Z[~through] @ inward)
        length = max(float(np.linalg.norm(inward)), 1e-300)
        step = min(0.5 * float(room.min(initial=np.inf)), 1.0 / length)
        sides = np.sign(values)
        sides[through] = wanted
        return middle(Z, sides, ray + step * inward)

    @staticmethod
    def _best_of(Z: Floats, w: Weights) -> tuple[Floats, Floats]:
        """Return the best direction among hyperplanes of a ray, and its sides."""
        try:
            gates = enumerate_closed(Z, CROWD).gates
        except ValueError:  # too many, or too nearly degenerate, to be listed
            gates = np.random.default_rng(0).standard_normal((64, Z.shape[1]))
        sides = np.where(np.abs(gates @ Z.T) <= MEETING, 0.0, np.sign(gates @ Z.T))
        at = int(w.on(sides).argmax())
        return gates[at], sides[at]

    def _levels(self, w: Weights, most: int) -> Floats:
        """Return directions on whose positive side lie the heaviest k of independent rows."""
        order = np.argsort(-(w.plus - w.minus), kind="stable")
        sizes = np.unique(np.linspace(0, self.u, most + 1).astype(int))
        sides = np.full((len(sizes) + 1, self.u), -1.0)
        for row, size in zip(sides[1:], sizes, strict=True):
            row[order[:size]] = 1.0
        sides[0] = w.choice
        return np.asarray(np.linalg.lstsq(self.planes.Z, sides.T)[0].T, dtype=np.float64)

    def _climbing(self, w: Weights, most: int, rounds: int = 40) -> Floats:
        """Return directions from turning on circles through the best ones so far."""
        Z, rng = self.planes.Z, np.random.default_rng(0)
        gates = rng.standard_normal((most, self.rank))
        pull = w.plus - w.minus
        gates[0] = pull @ Z
        for turn in range(rounds):
            other = rng.standard_normal(gates.shape)
            if turn % 2 == 0:  # towards rows on their wrong side, by weight
                missing = np.where(gates @ Z.T * pull < 0, pull, 0.0)
                other = (missing * rng.random(missing.shape)) @ Z + 1e-3 * other
            bases = np.linalg.qr(np.stack([gates, other], axis=2))[0]
            gates = Circles(Z, bases).best_arcs(*w)
        values = w.on(np.sign(gates @ Z.T))
        order = np.argsort(-values, kind="stable")
        return np.array([middle(Z, np.sign(Z @ g), g) for g in gates[order]])


def _apart(planes: Hyperplanes) -> Bools:
    """Return which hyperplanes stand for rows of one side that are not quite collinear, (u,)."""
    apart = np.zeros(len(planes.Z), dtype=bool)
    for side in (False, True):
        rows = np.flatnonzero((planes.owner >= 0) & (planes.turned == side))
        first: dict[int, int] = {}
        for k in rows:
            head = first.setdefault(int(planes.owner[k]), int(k))
            apart[planes.owner[k]] |= not _collinear(planes.X[head], planes.X[k])
    return apart


def _collinear(a: Floats, b: Floats) -> bool:
    """Say whether two rows are collinear, in exact arithmetic."""
    if np.array_equal(a, b):
        return True
    at = int(np.abs(a).argmax())
    p, q = Fraction(float(a[at])), Fraction(float(b[at]))
    pairs = zip(a, b, strict=True)
    return all(p * Fraction(float(y)) == q * Fraction(float(x)) for x, y in pairs)


def _charge(nu: Floats) -> float:
    """Bound the rounding of sums of ν."""
    return 4.0 * (len(nu) + 16) * EPSILON * float(np.abs(nu).sum())
