r"""Densities with known scores, sampling by scores, and scores of noisy series.

*Denoising* (Vincent, 2011): of :math:`\tilde x = x + σε` the score of the noisy density is
:math:`E[−ε/σ \mid \tilde x]`, a regression: the squared-loss program of any architecture fits it
with its certificate, in any dimension and given other inputs, here the lags of a series.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from landscape.errors import BadInput, above_zero, reals, whole

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians on a line.

    Attributes:
        weights: of the components, summing to one, shape (k,).
        means: shape (k,).
        deviations: standard deviations, shape (k,).

    Raises:
        BadInput: naming the argument.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the numbers and that there are as many of each."""
        weights = reals("weights", self.weights, ("k",))
        reals("means", self.means, weights.shape)
        deviations = reals("deviations", self.deviations, weights.shape)
        if weights.min() < 0 or abs(weights.sum() - 1) > 1e-8:
            raise BadInput(
                f"weights are {self.weights}: they must be at least 0 and sum to one; divide them "
                "by their sum."
            )
        if deviations.min() <= 0:
            raise BadInput(f"deviations are {self.deviations}: they must be positive.")

    def _parts(self, x: Floats) -> Floats:
        """Return the density of every component times its weight, shape (…, k)."""
        w, m, s = (np.asarray(v) for v in (self.weights, self.means, self.deviations))
        apart = (x[..., None] - m) / s
        return w * np.exp(-0.5 * apart**2) / (s * np.sqrt(2 * np.pi))

    def density(self, x: ArrayLike) -> Floats:
        """Return p at points of any shape."""
        return self._parts(reals("x", x, empty=True)).sum(-1)

    def score(self, x: ArrayLike) -> Floats:
        """Return (log p)' at points of any shape."""
        x = reals("x", x, empty=True)
        parts = self._parts(x)
        pull = (np.asarray(self.means) - x[..., None]) / np.square(self.deviations)
        return (parts * pull).sum(-1) / parts.sum(-1)

    def sample(self, n: int, seed: int = 0) -> Floats:
        """Draw n samples."""
        rng, n = np.random.default_rng(whole("seed", seed, 0)), whole("n", n)
        which = rng.choice(len(self.weights), size=n, p=self.weights)
        return np.asarray(self.means)[which] + np.asarray(self.deviations)[
            which
        ] * rng.standard_normal(n)


def langevin(
    score: Callable[[Floats], Floats], start: ArrayLike, step: float, steps: int, seed: int = 0
) -> Floats:
    r"""Sample by :math:`x ← x + η s(x) + \sqrt{2η}\,ε`, all chains at once.

    Args:
        score: s at points of the shape of ``start``.
        start: where the chains begin.
        step: η.
        steps: how many.
        seed: of the noise.

    Returns:
        The ends of the chains.

    Raises:
        BadInput: naming the argument; if a chain leaves the range of numbers the step is too large,
            or the score does not point inward far out.
    """
    step, steps = above_zero("step", step), whole("steps", steps)
    rng, x = np.random.default_rng(whole("seed", seed, 0)), reals("start", start)
    for _ in range(steps):
        slope = score(x)
        if np.shape(slope) != x.shape:
            raise BadInput(
                f"score has shape {np.shape(slope)} at points of shape {x.shape}: they must agree."
            )
        x = x + step * slope + np.sqrt(2.0 * step) * rng.standard_normal(x.shape)
        if not np.abs(x).max() < 1e100:
            raise BadInput(
                f"step is {step:g}: a chain has left the range of numbers; take a smaller one, or "
                "a score that points inward."
            )
    return x


def denoising(
    past: ArrayLike, value: ArrayLike, sigma: float, copies: int = 1, seed: int = 0
) -> tuple[Floats, Floats]:
    r"""Return the regression whose optimum is the score of a value, given what came before.

    Rows are :math:`(p, v + σε)`, targets −ε/σ; the best function is :math:`∂ \log p_σ(v \mid p)`.

    Args:
        past: p, such as the lags of a series, shape (n, k); k = 0 for none.
        value: v, shape (n,).
        sigma: σ.
        copies: draws of the noise for every value.
        seed: of the noise.

    Returns:
        Inputs (n · copies, k + 1) and targets (n · copies,).

    Raises:
        BadInput: naming the argument.
    """
    past, value = reals("past", past, empty=True), reals("value", value)
    sigma, copies = above_zero("sigma", sigma), whole("copies", copies)
    if past.ndim != 2 or value.shape != past.shape[:1]:
        raise BadInput(
            f"past has shape {past.shape} and value {value.shape}: they must be (n, k) and (n,)."
        )
    noise = np.random.default_rng(whole("seed", seed, 0)).standard_normal((copies, len(past)))
    noisy = (value + sigma * noise).reshape(-1, 1)
    return np.hstack([np.tile(past, (copies, 1)), noisy]), -noise.reshape(-1) / sigma
