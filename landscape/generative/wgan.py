r"""Wasserstein GANs with two-layer discriminators (Sahiner et al., ICLR 2022): the games, solved.

A generator moves mass at the price of its energy, a discriminator with weight decay tells data X
from what is generated:

.. math::

    \min_G \max_D\; V(G, D) = \tfrac12 E_G\|g\|^2 + E_X D − E_G D − β R(D)

D is a sum of neurons and R at best its gauge, so the maximum is infinite unless no single neuron
*prices* above β, :math:`\sup_{γ(D) \le 1} E_X D − E_G D \le β`, and then it is 0: the generator has
to match what neurons see, up to β, with the least energy.  G is any distribution; here are its
optima, which the empirical X, moved, attains:

* *linear neurons: the mean*, :math:`\|m_X − m_G\| \le β`.  All mass at
  :math:`(1 − β/\|m_X\|)_+ m_X`; value :math:`\tfrac12(\|m_X\| − β)_+^2`; D is the same vector.
* *quadratic neurons* :math:`(x^⊤u)^2`: *second moments*, :math:`\|S_X − S_G\|_2 \le β`.
  Eigenvalues are soft-thresholded, :math:`S_G = \sum (λ_i − β)_+ q_iq_i^⊤`; value
  :math:`\tfrac12\sum(λ_i − β)_+`; :math:`D = \tfrac12\sum_{λ_i > β}(q_i^⊤x)^2`.
* *ReLU neurons with a free bias on a line: piecewise means*,
  :math:`|E_X(x − t)_+ − E_G(x − t)_+| \le β` for all t, and to the left.  Data are **clipped**:
  G = clip(X, −t_−, t_+) with :math:`E_X(x − t_+)_+ = β = E_X(−x − t_−)_+` (0 where a side has less
  than β to give).  D is **Huber's function**, x²/2 between the ends of the clip and linear beyond.

*Why.*  Each pair is a saddle point: D prices the generator's moves at no more than they cost,
:math:`\min_g \tfrac12\|g\|^2 − D(g) = 0` (−½‖m_G‖² for linear neurons), which makes
:math:`\min_G V(·, D)` a lower bound of the game for every generator; and it equals the energy of
the G above, which no neuron prices above β.  For ReLU, Huber's function is
:math:`\int_0^{t_+}(x − s)_+ ds + \int_0^{t_−}(−x − s)_+ ds`, of gauge t_+ + t_−.  The linear and
the quadratic case are the paper's; clipping is derived here.

A linear generator of noise, :math:`g = W^⊤z` with :math:`E zz^⊤ = I`, reaches the quadratic
optimum with :math:`W = S_G^{1/2}`: that is how `Equilibrium.sample` draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from landscape.architectures import Polynomial, TwoLayer
from landscape.bounds import EXACT, AllPatterns
from landscape.errors import BadInput, above_zero, known, reals, whole
from landscape.problem import LARGEST, Problem

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from landscape.architectures.base import Architecture

    Floats = NDArray[np.float64]

DISCRIMINATORS: dict[str, Architecture] = {
    "linear": Polynomial(0.0, 1.0, 0.0),
    "quadratic": Polynomial(1.0, 0.0, 0.0),
    "relu": TwoLayer(bias="free"),
}
EFFORT = 100_000
"""Cones that pricing ReLU neurons may visit."""


class Game:
    """Data, a discriminator and its weight decay.

    Args:
        X: data, shape (n, d), or (n,) on a line.
        beta: β; expectations are means, so its unit is that of one sample.
        discriminator: "linear", "quadratic" or "relu".

    Raises:
        BadInput: naming the argument.
    """

    def __init__(self, X: ArrayLike, beta: float, discriminator: str = "relu") -> None:
        self.discriminator = known("discriminator", discriminator, DISCRIMINATORS)
        self.architecture = DISCRIMINATORS[self.discriminator]
        X = reals("X", X)
        X = X[:, None] if X.ndim == 1 else X
        self.X = Problem(X, np.ones(X.shape[:1]), 1.0).X  # checks shape and sizes
        self.beta = above_zero("beta", beta)

    def energy(self, G: ArrayLike) -> float:
        """Return ½E‖g‖² of generated samples (m, d)."""
        G = self._samples(G)
        return 0.5 * float((G**2).sum(1).mean())

    def beside(self, G: ArrayLike) -> tuple[Problem, Floats]:
        """Return a problem whose rows are data and samples, and the weights of D on them.

        The weights w are 1/n on data and −1/m on samples, so that wᵀD = E_X D − E_G D: what prices
        neurons at a dual point prices them here.
        """
        G = self._samples(G)
        sizes = np.abs(G).max(axis=1)
        wrong = sizes[(sizes > LARGEST) | ((sizes > 0) & (sizes < 1 / LARGEST))]
        if len(wrong):
            raise BadInput(
                f"G has a sample of size {wrong[0]:.3g}: sizes must be zero or between "
                f"{1 / LARGEST:g} and {LARGEST:g}; set it to zero or rescale data and samples."
            )
        n, m = len(self.X), len(G)
        weights = np.concatenate([np.full(n, 1.0 / n), np.full(m, -1.0 / m)])
        rows = np.vstack([self.X, G])
        return Problem(rows, weights, self.beta, architecture=self.architecture), weights

    def price(self, G: ArrayLike) -> tuple[float, bool]:
        """Return an upper bound of every neuron's price, and whether it is attained.

        By the oracle of the architecture: rounding is included.

        Args:
            G: generated samples (m, d).

        Raises:
            BadInput: for samples of another shape.
        """
        problem, weights = self.beside(G)
        found = AllPatterns(problem, EFFORT)(weights)
        return found.ratio * self.beta, found.scope == EXACT

    def mismatch(self, G: ArrayLike) -> float:
        """Return the largest price in closed form; ReLU neurons on a line only.

        Args:
            G: generated samples (m, d).

        Raises:
            BadInput: for samples of another shape, and for ReLU neurons in more than one
                dimension (`price` does those).
        """
        G = self._samples(G)
        if self.discriminator == "linear":
            return float(np.linalg.norm(self.X.mean(0) - G.mean(0)))
        if self.discriminator == "quadratic":
            apart = self.X.T @ self.X / len(self.X) - G.T @ G / len(G)
            return float(np.abs(np.linalg.eigvalsh(apart)).max())
        self._check_line("mismatch")
        kinks = np.concatenate([self.X[:, 0], G[:, 0]])
        sides = [
            np.maximum(s * (self.X - kinks), 0).mean(0) - np.maximum(s * (G - kinks), 0).mean(0)
            for s in (1.0, -1.0)
        ]
        return float(np.abs(sides).max())

    def solve(self) -> Equilibrium:
        """Return the saddle point in closed form.

        Raises:
            BadInput: for ReLU neurons in more than one dimension (`generative.pieces` does those).
        """
        X, beta = self.X, self.beta
        if self.discriminator == "linear":
            mean = X.mean(0)
            size = float(np.linalg.norm(mean))
            matched = max(0.0, 1.0 - beta / size) * mean if size > 0 else mean
            G = np.tile(matched, (len(X), 1))
            bound = float(matched @ mean - beta * np.linalg.norm(matched) - matched @ matched / 2)
            return Equilibrium(self, G, bound, matched[:, None])
        if self.discriminator == "quadratic":
            values, Q = np.linalg.eigh(X.T @ X / len(X))
            kept = values > beta
            shrunk = np.sqrt(np.maximum(values - beta, 0.0) / np.where(kept, values, 1.0))
            bound = 0.5 * float((((X @ Q[:, kept]) ** 2).mean(0) - beta).sum())
            return Equilibrium(self, X @ (Q * shrunk) @ Q.T, bound, Q[:, kept])
        self._check_line("solve")
        low, high, bound = clip(X[:, 0], beta)
        return Equilibrium(self, np.clip(X, low, high), bound, np.array([[low, high]]))

    def _samples(self, G: ArrayLike) -> Floats:
        """Return generated samples as float64, or refuse their shape or their numbers."""
        return reals("G", G, ("m", self.X.shape[1]))

    def _check_line(self, what: str) -> None:
        if self.X.shape[1] != 1:
            raise BadInput(
                f"X has {self.X.shape[1]} columns: {what} of ReLU discriminators in closed form is "
                "for data on a line; use landscape.generative.match_pieces."
            )


@dataclass(frozen=True)
class Equilibrium:
    """A saddle point of a game.

    Attributes:
        game: what was solved.
        generated: the optimal distribution as moved data, shape (n, d).
        bound: min over all generators of V(·, D) at `discriminate`: a lower bound of the game, up
            to rounding.
        directions: of D: a vector (d, 1), unit vectors (d, k), or the ends of the clip (1, 2).
    """

    game: Game
    generated: Floats
    bound: float
    directions: Floats

    @property
    def value(self) -> float:
        """The energy of `generated`: the value of the game if no neuron prices above β."""
        return self.game.energy(self.generated)

    def price(self) -> tuple[float, bool]:
        """Return what no neuron's price is above, and whether it is attained (`Game.price`)."""
        return self.game.price(self.generated)

    def discriminate(self, x: ArrayLike) -> Floats:
        """Return the optimal D at points (N, d)."""
        x = reals("x", x, ("N", self.game.X.shape[1]), empty=True)
        along = x @ self.directions if self.game.discriminator != "relu" else x[:, 0]
        if self.game.discriminator == "linear":
            return along[:, 0]
        if self.game.discriminator == "quadratic":
            return 0.5 * (along**2).sum(1)
        return _huber(along, *self.directions[0])

    def sample(self, n: int, seed: int = 0) -> Floats:
        """Draw from an optimal generator, shape (n, d).

        Quadratic neurons: a linear map of Gaussian noise.  Otherwise moved data are drawn.
        """
        rng, n = np.random.default_rng(whole("seed", seed, 0)), whole("n", n)
        if self.game.discriminator != "quadratic":
            return self.generated[rng.integers(len(self.generated), size=n)]
        values, Q = np.linalg.eigh(self.generated.T @ self.generated / len(self.generated))
        noise = rng.standard_normal((n, len(values)))
        return (noise * np.sqrt(np.maximum(values, 0.0))) @ Q.T


def clip(x: Floats, beta: float) -> tuple[float, float, float]:
    """Return the ends of the clip of data (n,) on a line, and the lower bound of their game."""
    low, high = -_excess(-x, beta), _excess(x, beta)
    return low, high, float(_huber(x, low, high).mean() - beta * (high - low))


def _excess(x: Floats, beta: float) -> float:
    """Return the t ≥ 0 with E(x − t)_+ = β, or 0 if E(x)_+ is at most β."""
    top = np.sort(x[x > 0])[::-1]
    if top.sum() <= beta * len(x):
        return 0.0
    # With k samples above it t is (their sum − nβ)/k: the right k is the largest of these.
    return float(((np.cumsum(top) - beta * len(x)) / np.arange(1, len(top) + 1)).max())


def _huber(x: Floats, low: float, high: float) -> Floats:
    """Return x²/2 in [low, high], linear beyond."""
    inside = np.clip(x, low, high)
    return inside * x - 0.5 * inside**2
