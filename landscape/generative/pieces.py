r"""Piecewise mean matching: ReLU discriminators beyond the line, and lower bounds of their games.

Samples :math:`g_1 … g_m` are moved themselves.  No ReLU neuron may price above β,

.. math::

    E_X(x^⊤u + b)_+ − β \;\le\; \frac1m \sum_j (g_j^⊤u + b)_+ \;\le\; E_X(x^⊤u + b)_+ + β
    \quad ∀ \|u\| \le 1,\, b

The right side is convex in the samples, the left is not; but with the pattern S of a neuron on the
samples *given*, :math:`\frac1m\sum_{j ∈ S}(g_j^⊤u + b)` is linear and never above the sum, and the
program over given patterns of data and samples is convex (Sahiner et al., ICLR 2022).  Neurons that
price highest are added until none prices above β; then the program is solved again with the
patterns of its own samples, which are feasible there: values never rise.  What it ends with is an
upper bound of the game, once all neurons are priced.

*Lower bound.*  For every orthonormal basis Huber's functions of the coordinates are a
discriminator that generators pay for: the game is at least the sum of the games on its axes (see
`landscape.generative.wgan`).  The gap between both is not closed in general, and labelled so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import BadInput, NotConverged, whole
from landscape.generative.wgan import Game

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MARGIN = 5e-3
"""Share of β that the program keeps, for the neurons between those that are searched."""
SETTLED = 2e-3
"""Relative fall of the value below which patterns are not taken anew."""
BASES = 64


@dataclass(frozen=True)
class Pieces:
    """Samples that no ReLU neuron tells from the data at the price β.

    Attributes:
        game: what was solved.
        generated: the samples, shape (m, d).
        price: no neuron prices above this.
        exact: whether that price is attained.
        bound: a lower bound of the game, relaxed.
        history: the values of the programs, each over the patterns of the last one's samples.
    """

    game: Game
    generated: Floats
    price: float
    exact: bool
    bound: float
    history: tuple[float, ...]

    @property
    def value(self) -> float:
        """The energy of the samples: an upper bound of the game."""
        return self.game.energy(self.generated)


def axes_bound(game: Game, seed: int = 0) -> float:
    """Return the largest sum of games on the axes of a basis: principal axes and random ones."""
    X, d = game.X, game.X.shape[1]
    bases = [np.linalg.svd(X, full_matrices=True)[2].T, np.eye(d)]
    draws = np.random.default_rng(seed).standard_normal((BASES, d, d))
    bases += list(np.linalg.qr(draws)[0])
    return max(sum(_on_line(game, X @ axis) for axis in basis.T) for basis in bases)


def _on_line(game: Game, x: Floats) -> float:
    return Game(x, game.beta, "relu").solve().bound


def match_pieces(
    game: Game, samples: int | None = None, rounds: int = 100, seed: int = 0
) -> Pieces:
    """Return samples of low energy that match the piecewise means of the data.

    Args:
        game: of ReLU discriminators.
        samples: m; the number of data by default.  They begin as data.
        rounds: of the program, at most.
        seed: of the first samples and of directions.

    Raises:
        BadInput: for another discriminator.
        NotConverged: if a neuron prices above β at the end.
    """
    if game.discriminator != "relu":
        raise BadInput(f"game has {game.discriminator} discriminators: pieces are of ReLU neurons.")
    m = len(game.X) if samples is None else whole("samples", samples)
    # Prices have the unit of the data, energies its square: Clarabel's tolerances have none.
    unit = 2.0 ** int(np.frexp(np.abs(game.X).max())[1])  # a power of two: nothing is rounded
    G, history = _matched(Game(game.X / unit, game.beta / unit), m, whole("rounds", rounds), seed)
    price, exact = game.price(G * unit)
    if not history or price > game.beta:
        raise NotConverged(
            f"A neuron prices {price / game.beta:.4g} β after {rounds} rounds: raise rounds."
        )
    values = tuple(value * unit**2 for value in history)
    return Pieces(game, G * unit, price, exact, axes_bound(game), values)


def _matched(game: Game, m: int, rounds: int, seed: int) -> tuple[Floats, list[float]]:
    """Return m samples by rounds of programs, and the values of those that ended feasible."""
    rng, n = np.random.default_rng(seed), len(game.X)
    G = game.X[rng.permutation(n)[:m]] if m <= n else game.X[rng.integers(n, size=m)]
    held, d, history = G, game.X.shape[1], list[float]()
    cuts = _highest(game, np.zeros_like(G), _directions(d, rng), 48)
    for _ in range(rounds):
        G, value = _moved(game, held, cuts)
        found = _highest(game, G, _directions(d, rng), 16)
        if _prices(game, G, found).max() > game.beta * (1 - MARGIN / 2):
            cuts = np.vstack([cuts, found])
            continue
        held = G  # no neuron prices above β: its patterns are the next program's
        if history and history[-1] - value <= SETTLED * value:
            break
        history.append(value)
    return held, history


def _directions(d: int, rng: np.random.Generator) -> Floats:
    """Return unit directions: evenly spread in the plane from a random one on, random beyond."""
    if d == 2:
        angles = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2 * np.pi, 181)[:-1]
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    drawn = rng.standard_normal((100 * d, d))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.vstack([drawn, -drawn])


def _prices(game: Game, G: Floats, neurons: Floats) -> Floats:
    """Return |E_X D − E_G D| of neurons (u, b), shape (K, d + 1)."""
    on = [np.maximum(Z @ neurons[:, :-1].T + neurons[:, -1], 0).mean(0) for Z in (game.X, G)]
    return np.abs(on[0] - on[1])


def _highest(game: Game, G: Floats, directions: Floats, most: int) -> Floats:
    """Return the neurons of highest price along given directions, kinks at data or samples."""
    Z = np.vstack([game.X, G])
    best = []
    for u in directions:
        neurons = np.hstack([np.tile(u, (len(Z), 1)), -(Z @ u)[:, None]])
        prices = _prices(game, G, neurons)
        k = int(prices.argmax())
        best.append((prices[k], neurons[k]))
    best.sort(key=lambda pair: -pair[0])
    return np.array([neuron for _, neuron in best[:most]])


def _moved(game: Game, held: Floats, cuts: Floats) -> tuple[Floats, float]:
    """Solve the convex program over the patterns of given samples at these neurons."""
    import cvxpy as cp

    limit, m = game.beta * (1 - MARGIN), len(held)
    Z: Any = cp.Variable(held.shape)
    wanted = np.maximum(game.X @ cuts[:, :-1].T + cuts[:, -1], 0).mean(0)
    before: Any = Z @ cuts[:, :-1].T + np.ones((m, 1)) @ cuts[None, :, -1]
    on = (held @ cuts[:, :-1].T + cuts[:, -1] > 0).astype(float)
    constraints = [
        cp.sum(cp.pos(before), axis=0) / m <= wanted + limit,
        cp.sum(cp.multiply(on, before), axis=0) / m >= wanted - limit,
    ]
    program = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Z) / m), constraints)
    program.solve(solver="CLARABEL")
    if program.status not in ("optimal", "optimal_inaccurate"):
        raise NotConverged(f"Clarabel found the program over patterns {program.status}.")
    value: Any = program.value
    return np.asarray(Z.value), float(value)
