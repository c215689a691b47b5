r"""Kinks of functions on a line, and the largest price of a nested absolute value.

With :math:`H(t) = \sum_k ν_k |x_k − t|`, :math:`\sum_k ν_k = 0`, a function that is piecewise
linear with slopes ±1 and changes of slope 2σ_i at its kinks t_i prices at Σ_i σ_i H(t_i).  Of
:math:`|\cdots||x − a| − c_1| \cdots − c_{L−2}|` the kinks are sums of a and ±c, and the price is
piecewise linear in (a, c): it is largest at a vertex, where as many independent kinks as there are
parameters are samples.

Two parameters: all vertices are listed, N² of them.  Three: with p, q = a ∓ c the price is

.. math::

    V_d(p) + V_d(q) − H(\tfrac{p + q}2), \quad V_d(t) = H(t − d) − H(t) + H(t + d), \qquad d ≤ c,

    H(P) − H(P + d) + H(\tfrac{P + Q}2) − H(Q − d) + H(Q), \quad P, Q = a ∓ (c + d), \qquad d ≥ c.

At a vertex inside either region that is a maximum, three independent kinks lie at samples with
σ_i ν_k < 0: otherwise the price would be convex along some line, and no less at one of its ends.
Those vertices are listed, about 4 N³ of them, and beside them the ones with d = 0 or c = d, which
have two parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from landscape.arrangements.lines import Line

Floats = NDArray[np.float64]
Vertices = Callable[[Floats, Floats], tuple[Floats, Floats, Floats]]

CHUNK = 1 << 18
"""Vertices priced at a time."""


class Found(NamedTuple):
    """The largest price over a family, and parameters of the best members.

    Attributes:
        largest: no member has |price| above it, rounding aside.
        prices: |price| of some members, largest first, shape (k,).
        parameters: these members, shape (k, parameters).
    """

    largest: float
    prices: Floats
    parameters: Floats

    @staticmethod
    def best(prices: Floats, parameters: Floats, most: int) -> Found:
        """Return the members with the largest |price|."""
        size = np.abs(prices)
        order = np.argsort(-size, kind="stable")[:most]
        return Found(float(size[order[0]]), size[order], parameters[order])


def pairs(x: Floats) -> Floats:
    """Return every vertex (a, c) of ||x − a| − c|: centres with reflections, and midpoints."""
    x = np.unique(x)
    i, j = np.triu_indices(len(x), 1)
    far = x[j] - x[i]
    centre = np.concatenate([x, x[i], x[j], (x[i] + x[j]) / 2])
    return np.column_stack([centre, np.concatenate([0.0 * x, far, far, far / 2])])


def two(line: Line, most: int) -> Found:
    """Return the largest price of ||x − a| − c|."""
    every = pairs(line.x)
    a, c = every.T
    price = line.apart(a - c) - line.apart(a) + line.apart(a + c)
    price = np.where(c == 0, line.apart(a), price)
    return Found.best(price, every, most)


def three(line: Line, most: int) -> Found:
    """Return the largest price of |||x − a| − c| − d|, ``most`` members of every chunk kept."""
    flat = two(line, most)
    parts = [(flat.prices, np.column_stack([flat.parameters, np.zeros(len(flat.prices))]))]
    parts.append(_equal(line, most))
    for prices, members in _inside(line):
        kept = np.argpartition(-prices, most)[:most] if len(prices) > most else slice(None)
        parts.append((prices[kept], members[kept]))
    prices = np.concatenate([price for price, _ in parts])
    return Found.best(prices, np.concatenate([member for _, member in parts]), len(prices))


def nested(x: Floats, parameters: Floats) -> Floats:
    """Return |⋯||x − a| − c_1| ⋯| at points (n,), shape (n, k), of parameters (k, L − 1)."""
    out = np.broadcast_to(x[:, None], (len(x), len(parameters)))
    for shift in parameters.T:
        out = np.abs(out - shift)
    return out


def climb(line: Line, parameters: Floats, rounds: int = 2) -> Found:
    """Raise the price of members of any depth, one parameter after the other.

    With the others fixed the price is piecewise linear, with bends where a kink is a sample.
    """
    climbed, prices = parameters.copy(), np.zeros(len(parameters))
    for member, p in enumerate(climbed):
        for _ in range(rounds):
            for place in reversed(range(len(p))):
                before = nested(line.x, p[None, :place])[:, 0]
                offsets = [0.0]  # what the later layers need to bend there
                for shift in p[:place:-1]:
                    offsets = [0.0, *(way * (shift + one) for one in offsets for way in (1, -1))]
                values = (before[:, None] - np.unique(offsets)).reshape(-1)
                values = np.append(values if place == 0 else values[values >= 0], p[place])
                out = np.abs(before[:, None] - values)
                for shift in p[place + 1 :]:
                    out = np.abs(out - shift)
                price = np.abs(line.nu @ out)
                p[place] = values[price.argmax()]
                prices[member] = price.max()
    return Found.best(prices, climbed, len(climbed))


def cost(line: Line) -> float:
    """Return about how many vertices `three` prices."""
    return 4.0 * len(line.x) ** 3


def _equal(line: Line, most: int) -> tuple[Floats, Floats]:
    """Return the best of |||x − a| − c| − c|: kinks a, a ± c, a ± 2c, two of them at samples."""
    x, members = line.x, []
    if len(x) < 2:
        return np.zeros(0), np.zeros((0, 3))
    i, j = np.triu_indices(len(x), 1)
    for one in range(-2, 3):
        for other in range(one + 1, 3):
            c = (x[j] - x[i]) / (other - one)
            members.append(np.column_stack([x[i] - one * c, c, c]))
    every = np.concatenate(members)
    a, c, _ = every.T
    kinks = [(-1) ** k * line.apart(a + k * c) for k in range(-2, 3)]
    found = Found.best(np.sum(kinks, axis=0), every, most)
    return found.prices, found.parameters


def _inside(line: Line) -> Iterator[tuple[Floats, Floats]]:
    """Yield prices and members (a, c, d) at vertices inside the two regions, in chunks.

    Families are written for one side of the mirror and positive prices; −x and −ν give the rest.
    """
    for way in (1, -1):
        for sign in (1, -1):
            seen = line.mirrored(way, sign)
            for first, second, vertices, inner in _families(seen):
                s, t = (part.reshape(-1, 1) for part in np.meshgrid(first, second, indexing="ij"))
                rows = np.flatnonzero(s < t)
                step = max(1, CHUNK // max(1, len(seen.x)))
                for at in range(0, len(rows), step):
                    chosen = rows[at : at + step]
                    prices, members = _priced(seen, vertices(s[chosen], t[chosen]), inner)
                    members[:, 0] *= way
                    yield prices, members


def _families(line: Line) -> Iterator[tuple[Floats, Floats, Vertices, bool]]:
    """Yield the samples s < t of two kinks and what makes (p, q, d) of them and of a third kink.

    Samples with ν < 0 carry kinks of σ = 1, those with ν > 0 kinks of σ = −1.  The last entry
    tells the region; outside of d ≤ c the vertices are (P, Q, d).
    """
    up, down = line.x[line.nu < 0], line.x[line.nu > 0]
    # Two kinks near p; the third is q, q ± d or the middle.
    for first, second, made in (
        (up, down, lambda s, t: (t, t - s)),
        (down, up, lambda s, t: (s, t - s)),
        (up, up, lambda s, t: ((s + t) / 2, (t - s) / 2)),
    ):
        for other in (
            lambda p, d: down,
            lambda p, d: up + d,
            lambda p, d: up - d,
            lambda p, d: 2 * down - p,
        ):
            yield first, second, _completed(made, other), True
    # p, the middle and q ± d; p + d, the middle and q + d.
    yield down, down, lambda p, m: (p, 2 * m - p, np.abs(up - (2 * m - p))), True
    yield up, down, lambda s, m: (m - (up - s) / 2, m + (up - s) / 2, (s + up) / 2 - m), True
    # Outside: P, P + d and a third one; P, the middle and Q − d.
    for other in (lambda P, d: up, lambda P, d: down + d, lambda P, d: 2 * up - P):
        yield up, down, _completed(lambda s, t: (s, t - s), other), False
    yield up, up, lambda P, m: (P, 2 * m - P, 2 * m - P - down), False


def _completed(
    made: Callable[[Floats, Floats], tuple[Floats, Floats]],
    other: Callable[[Floats, Floats], Floats],
) -> Vertices:
    """Return what makes (p, q, d) where two kinks give (p, d), and these with a third one q."""

    def vertices(s: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
        p, d = made(s, t)
        return p, other(p, d), d

    return vertices


def _priced(
    line: Line, vertices: tuple[Floats, Floats, Floats], inner: bool
) -> tuple[Floats, Floats]:
    """Return prices of vertices inside their region, and members (a, c, d)."""
    H = line.apart
    p, q, d = vertices
    apart = q - p
    held = (d > 0) & (apart >= 2 * d) & ((apart <= 4 * d) | inner)
    # What belongs to p alone is looked up once a row where p and d are the same along it.
    own = H(p - d) - H(p) + H(p + d) if inner else H(p) - H(p + d)
    own, p, q, d = (part[held] for part in np.broadcast_arrays(own, p, q, d))
    middle = (p + q) / 2
    if inner:
        price = own - H(middle) + (H(q - d) - H(q) + H(q + d))
        return price, np.column_stack([middle, (q - p) / 2, d])
    return own + H(middle) + H(q) - H(q - d), np.column_stack([middle, (q - p) / 2 - d, d])
