"""Directions that turn on circles past hyperplanes, each hyperplane passed twice a turn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from landscape.arrangements.cells import Floats

APART = 1e-11
"""Events closer than this angle are not told apart: together they are one."""
FLAT = 1e-10
"""A hyperplane whose normal is this short in a circle's plane holds all of it."""
BLOCK = 500_000
"""Events worked on at a time."""


class Events(NamedTuple):
    """Places on circles: the circle, the event's number on it, and which of its two directions."""

    circle: NDArray[np.int64]
    place: NDArray[np.int64]
    side: NDArray[np.int64]


class Circles:
    """Circles of directions, and the order in which each passes the hyperplanes.

    Half a turn suffices, from the middle of the widest gap: the other half is its mirror image.

    Args:
        Z: unit normals of the hyperplanes, shape (u, r).
        bases: two orthonormal directions a circle, shape (V, r, 2).
    """

    def __init__(self, Z: Floats, bases: Floats) -> None:
        self.Z, self.bases = Z, bases
        shape = (len(bases), len(Z))
        kind = np.int16 if len(Z) < 2**15 else np.int32
        self.order = np.empty(shape, dtype=kind)
        self.before = np.empty(shape, dtype=np.int8)  # side before the event; 0: no event
        self.turn = np.empty(shape)  # angle since the start
        self.start = np.empty(len(bases))
        for block in self._blocks():
            self._sort(block)
        close = np.diff(np.minimum(self.turn, 2 * np.pi), axis=1) <= APART
        close &= np.isfinite(self.turn[:, 1:])
        self.ends = _groups(close) if close.any() else None

    def _blocks(self) -> list[slice]:
        size = max(1, BLOCK // max(1, len(self.Z)))
        return [slice(at, at + size) for at in range(0, len(self.bases), size)]

    def _sort(self, block: slice) -> None:
        """Order the events of some circles, from the middle of the widest gap on."""
        seen = self.Z @ self.bases[block]  # (v, u, 2)
        flat = (seen**2).sum(-1) <= FLAT**2
        angle = np.where(flat, np.inf, np.mod(np.arctan2(-seen[..., 0], seen[..., 1]), np.pi))
        ascending = np.sort(angle, axis=1)
        last = np.maximum((~flat).sum(axis=1) - 1, 0)
        rows = np.arange(len(ascending))
        following = np.roll(ascending, -1, axis=1)
        following[rows, last] = ascending[:, 0] + np.pi
        ends = np.isfinite(ascending)
        gaps = np.where(ends, following, -1.0) - np.where(ends, ascending, 0.0)
        widest = gaps.argmax(axis=1)
        start = ascending[rows, widest] + 0.5 * gaps[rows, widest]
        start = np.where(np.isfinite(start), start, 0.0)
        turn = np.mod(np.where(flat, 0.0, angle) - start[:, None], np.pi)
        turn[flat] = np.inf
        order = np.argsort(turn, axis=1, kind="stable")
        at = seen[..., 0] * np.cos(start)[:, None] + seen[..., 1] * np.sin(start)[:, None]
        side = np.where(flat, 0, np.sign(at)).astype(np.int8)
        self.order[block] = order
        self.turn[block] = np.take_along_axis(turn, order, axis=1)
        self.before[block] = np.take_along_axis(side, order, axis=1)
        self.start[block] = start

    def heaviest(self, plus: Floats, minus: Floats, best: Floats) -> tuple[Floats, Events]:
        """Return the largest weight at an event of every circle, and where.

        At an event its hyperplanes, and those that hold the circle, choose their sides.

        Args:
            plus: what hyperplanes weigh on their positive sides, shape (u,).
            minus: what they weigh on their negative sides.
            best: what they weigh at most.

        Returns:
            Values (V, 2) of both halves of every turn, and the events, arrays of length 2V.
        """
        values = np.empty((len(self.bases), 2))
        places = np.empty((len(self.bases), 2), dtype=np.int64)
        for block in self._blocks():
            weigh = self._at_events(block, plus, minus, best)
            for half, at in enumerate(weigh):
                place = at.argmax(axis=1)
                places[block, half] = place
                values[block, half] = at[np.arange(len(at)), place]
        circle = np.repeat(np.arange(len(self.bases)), 2)
        return values, Events(circle, places.reshape(-1), np.tile([0, 1], len(self.bases)))

    def _sides(self, block: slice, plus: Floats, minus: Floats) -> tuple[Floats, Floats]:
        """Return what the hyperplane of every event weighs before and after it, (v, u)."""
        p, q = plus[self.order[block]], minus[self.order[block]]
        side = self.before[block]
        return (
            np.where(side > 0, p, np.where(side < 0, q, 0.0)),
            np.where(side > 0, q, np.where(side < 0, p, 0.0)),
        )

    def _at_events(
        self, block: slice, plus: Floats, minus: Floats, best: Floats
    ) -> tuple[Floats, Floats]:
        """Return the weights at all events, in the first and in the second half turn."""
        b, a = self._sides(block, plus, minus)
        none = self.before[block] == 0
        top = np.where(none, 0.0, best[self.order[block]])
        holding = np.where(none, -np.inf, best.sum() - top.sum(axis=1, keepdims=True))
        passed = np.cumsum(a - b, axis=1) - (a - b)
        first = b.sum(axis=1, keepdims=True) + passed
        second = a.sum(axis=1, keepdims=True) - passed
        gain, back = top - b, top - a
        if self.ends is not None:
            low, high = (ends[block] for ends in self.ends)

            def together(values: Floats) -> Floats:
                sums = np.cumsum(values, axis=1)
                return np.take_along_axis(sums, high, 1) - np.take_along_axis(sums - values, low, 1)

            first, second = (np.take_along_axis(v, low, 1) for v in (first, second))
            gain, back = together(gain), together(back)
        return holding + first + gain, holding + second + back

    def rays(self, circle: NDArray[np.int64], place: NDArray[np.int64], side: NDArray[np.int64]):
        """Return the directions of some events, shape (k, r)."""
        turn = self.turn[circle, place]
        angle = self.start[circle] + turn
        both = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        rays = np.einsum("krj,kj->kr", self.bases[circle], both)
        return np.where(side == 0, 1.0, -1.0)[:, None] * rays

    def best_arcs(self, plus: Floats, minus: Floats) -> Floats:
        """Return the middle of the heaviest arc between events of every circle, (V, r)."""
        every = slice(0, len(self.bases))
        b, a = self._sides(every, plus, minus)
        steps = np.cumsum(a - b, axis=1)
        weigh = np.stack([b.sum(1)[:, None] + steps, a.sum(1)[:, None] - steps], axis=2)
        turn = np.minimum(self.turn, np.pi)
        ends = np.concatenate([turn[:, 1:], np.full((len(turn), 1), np.pi)], axis=1)
        weigh[ends - turn <= APART] = -np.inf  # no room in between
        at = weigh.reshape(len(weigh), -1).argmax(axis=1)
        rows, place, side = np.arange(len(at)), at // 2, at % 2
        angle = self.start + 0.5 * (turn + ends)[rows, place]
        both = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return np.where(side == 0, 1.0, -1.0)[:, None] * np.einsum("vrj,vj->vr", self.bases, both)


def _groups(close: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last event of the group that each event belongs to, (V, u)."""
    v, gaps = close.shape
    place = np.broadcast_to(np.arange(gaps + 1), (v, gaps + 1))
    opens = np.concatenate([np.ones((v, 1), dtype=bool), ~close], axis=1)
    closes = np.concatenate([~close, np.ones((v, 1), dtype=bool)], axis=1)
    low = np.maximum.accumulate(np.where(opens, place, 0), axis=1)
    high = np.where(closes, place, gaps)
    high = np.minimum.accumulate(high[:, ::-1], axis=1)[:, ::-1]
    return low, high
