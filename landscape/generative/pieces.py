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
from landscape.generative.wgan import clip
from landscape.problem import LARGEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.generative.wgan import Game

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
        history: the values of the programs, each over the patterns of the last one's samples, as
            far as that of the samples.
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
    draws = np.random.default_rng(whole("seed", seed, 0)).standard_normal((BASES, d, d))
    bases += list(np.linalg.qr(draws)[0])
    return max(sum(clip(X @ axis, game.beta)[2] for axis in basis.T) for basis in bases)


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
        BadInput: for another discriminator, and naming the argument.
        NotConverged: if no samples settled, or a neuron prices those above β.
    """
    if game.discriminator != "relu":
        raise BadInput(f"game has {game.discriminator} discriminators: pieces are of ReLU neurons.")
    m = len(game.X) if samples is None else whole("samples", samples)
    # Prices have the unit of the data, energies its square: Clarabel's tolerances have none.
    unit = 2.0 ** int(np.frexp(np.abs(game.X).max())[1])  # a power of two: nothing is rounded
    rounds, seed = whole("rounds", rounds), whole("seed", seed, 0)
    settled, history = _matched(game.X / unit, game.beta / unit, m, rounds, seed)
    if not settled:
        raise NotConverged(
            f"Neurons still priced above β in the last of rounds={rounds}, so that no samples "
            "settled: raise rounds."
        )
    least = np.inf
    for value, G in sorted(settled, key=lambda pair: pair[0]):
        G = G * unit  # what is too small to be priced may as well be zero
        G = np.where(np.abs(G).max(axis=1, keepdims=True) < 1 / LARGEST, 0.0, G)
        price, exact = game.price(G)
        if price <= game.beta:
            fell = [one for one in history if one >= value] or [value]
            values = tuple(one * unit**2 for one in fell)
            return Pieces(game, G, price, exact, axes_bound(game), values)
        least = min(least, price)
    raise NotConverged(
        f"Samples settled within rounds={rounds}, but a neuron that was not searched may price "
        f"{least / game.beta:.6g} β: take another seed or more samples."
    )


def _matched(
    X: Floats, beta: float, m: int, rounds: int, seed: int
) -> tuple[list[tuple[float, Floats]], list[float]]:
    """Match by rounds of programs.

    Returns:
        Values and samples (m, d) that no searched neuron prices above β, and the values that fell.
    """
    rng, (n, d) = np.random.default_rng(seed), X.shape
    held = X[rng.permutation(n)[:m]] if m <= n else X[rng.integers(n, size=m)]
    settled: list[tuple[float, Floats]] = []
    history: list[float] = []
    cuts = _highest(X, np.zeros_like(held), _directions(d, rng), 48)
    for _ in range(rounds):
        G, value = _moved(X, beta, held, cuts)
        found = _highest(X, G, _directions(d, rng), 16)
        if _prices(X, G, found).max() > beta * (1 - MARGIN / 2):
            cuts = np.vstack([cuts, found])
            continue
        held = G  # no neuron prices above β: its patterns are the next program's
        settled.append((value, G))
        if history and history[-1] - value <= SETTLED * value:
            break
        history.append(value)
    return settled, history


def _directions(d: int, rng: np.random.Generator) -> Floats:
    """Return unit directions: evenly spread in the plane from a random one on, random beyond."""
    if d == 2:
        angles = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2 * np.pi, 181)[:-1]
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    drawn = rng.standard_normal((100 * d, d))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.vstack([drawn, -drawn])


def _prices(X: Floats, G: Floats, neurons: Floats) -> Floats:
    """Return |E_X D − E_G D| of neurons (u, b), shape (K, d + 1)."""
    on = [np.maximum(Z @ neurons[:, :-1].T + neurons[:, -1], 0).mean(0) for Z in (X, G)]
    return np.abs(on[0] - on[1])


def _highest(X: Floats, G: Floats, directions: Floats, most: int) -> Floats:
    """Return the neurons of highest price along given directions, kinks at data or samples."""
    Z = np.vstack([X, G])
    best = []
    for u in directions:
        neurons = np.hstack([np.tile(u, (len(Z), 1)), -(Z @ u)[:, None]])
        prices = _prices(X, G, neurons)
        k = int(prices.argmax())
        best.append((prices[k], neurons[k]))
    best.sort(key=lambda pair: -pair[0])
    return np.array([neuron for _, neuron in best[:most]])


def _moved(X: Floats, beta: float, held: Floats, cuts: Floats) -> tuple[Floats, float]:
    """Solve the convex program over the patterns of given samples at these neurons."""
    import cvxpy as cp

    limit, m = beta * (1 - MARGIN), len(held)
    Z: Any = cp.Variable(held.shape)
    wanted = np.maximum(X @ cuts[:, :-1].T + cuts[:, -1], 0).mean(0)
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
