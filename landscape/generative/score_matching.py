r"""Score matching by two-layer networks on a line, as a convex program (Zhang & Pilanci, 2024).

A score :math:`s ≈ (\log p)'` is fitted to samples :math:`x_1 … x_n` of p without knowing p
(Hyvärinen, 2005):

.. math::

    \min_θ\; \sum_i \tfrac12 s(x_i)^2 + s'(x_i) + β R, \qquad
    s(x) = \sum_j a_j (w_j x + b_j)_+ + ξ \;[+\, v x], \quad R = \tfrac12 \sum_j (w_j^2 + a_j^2)

Biases, ξ and v (a free skip connection) are not penalised.  A neuron is z times a ramp
:math:`(x − t)_+` or :math:`(t − x)_+`, :math:`|z| = |aw|`.  With the values a of a ramp at the
samples and the sum b of its slopes there,

.. math:: \min_{z, ξ}\; \tfrac12 \|Az + A_0ξ\|^2 + b^⊤z + b_0^⊤ξ + β\|z\|_1, \qquad
    \max_ν −\tfrac12\|ν\|^2 \;\text{ s.t. }\; |a_j^⊤ν − b_j| \le β,\; A_0^⊤ν = b_0

*Kinks.*  b counts samples, :math:`b(t) = \#\{x_i > t\}`, and jumps where t crosses a sample, while
a(t) goes on continuously.  Between two samples b is constant and a(t) linear: a ramp there is the
mixture of the *limits* at both ends, with the same sum of |z|.  So kinks at samples are all that is
needed, but **with both one-sided slopes**, :math:`φ'(0) = 0` and :math:`φ'(0) = 1`: the infimum
over all networks is the program over both, whatever φ'(0) an automatic differentiation takes,
because a kink next to its sample is as good as one on it.  Either convention alone has a strictly
larger optimum in general.  The infimum need not be attained; `Score.network` puts every kink beside
its sample and comes as close as rounding allows.

*The dual is a string in a tube.*  With :math:`F(t) = \sum_i ν_i (x_i − t)_+` the constraints are
:math:`|F(x_k) − \#\{x_i ≥ x_k\}| \le β` and :math:`|F(x_k) − \#\{x_i > x_k\}| \le β` (and their
mirror images, where there is no skip connection): the score is minus the second difference of the
smoothest function within β of the empirical counting function.  The tube is not empty iff
:math:`β \ge β_{\min}`, the number of samples at either end of the data or half the number of
samples in one place: 1 for distinct samples.  Below it the objective has no lower bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from landscape.architectures import TwoLayer
from landscape.errors import (
    BadInput,
    NotConverged,
    above_zero,
    at_least_zero,
    known,
    reals,
    whole,
    wholes,
)
from landscape.generative.scores import Ramps, Score, minimise
from landscape.generative.tubes import Tube
from landscape.problem import Problem
from landscape.training.optimizers import RULES

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from landscape.architectures.base import Parameters

    Floats = NDArray[np.float64]

SLOPES = {"both": (0, 1), "zero": (0,), "one": (1,)}
"""What φ'(0) may be at a kink on a sample."""


class ScoreMatching:
    """The training problem of a score.

    Args:
        x: samples, shape (n,), at least two of them different.
        beta: β, above `beta_min`.
        skip: "none", or "free" for a linear part that is not penalised.

    Raises:
        BadInput: naming the argument.
    """

    def __init__(self, x: ArrayLike, beta: float, skip: Literal["none", "free"] = "none") -> None:
        known("skip", skip, ("none", "free"))
        self.architecture = TwoLayer(bias="free", skip=skip)
        values = reals("x", x, ("n",))
        Problem(values[:, None], np.zeros(len(values)), 1.0)  # checks sizes
        self.x = np.sort(values)
        self.tube = Tube(self.x, skip == "free")
        self.points = self.tube.points
        if len(self.points) < 2:
            raise BadInput(f"x has the value {self.x[0]:g} only: two values at least are needed.")
        self.beta, self.skip = above_zero("beta", beta), skip
        if self.beta <= self.beta_min:
            raise BadInput(
                f"beta is {self.beta:g}: it must be above {self.beta_min:g}, or the objective of "
                "these samples has no lower bound (a kink beside a sample gains a slope for free)."
            )

    @property
    def beta_min(self) -> float:
        """The β from which on the objective is bounded from below."""
        return float(self.tube.least)

    @property
    def beta_max(self) -> float:
        """The β from which on no neuron is used (at least `beta_min`)."""
        A, sums = self.free
        fit = -np.linalg.pinv(A).T @ sums
        return max(self.beta_min, float(np.abs(self.prices(-fit)).max()))

    @property
    def free(self) -> tuple[Floats, Floats]:
        """A_0 (n, q) and b_0 (q,): a constant, and x less its `centre` with a skip connection."""
        ones, n = np.ones(len(self.x)), float(len(self.x))
        if self.skip == "none":
            return ones[:, None], np.zeros(1)
        return np.stack([ones, self.x - self.centre], axis=1), np.array([0.0, n])

    @property
    def scale(self) -> float:
        """Size of values: what the linear score loses that fits best, n²/2Σ(x_i − centre)²."""
        return float(0.5 * len(self.x) ** 2 / ((self.x - self.centre) ** 2).sum())

    @property
    def centre(self) -> float:
        """Where the linear part is zero: an offset of the samples costs the program no digits."""
        return float(self.x[0] + (self.x - self.x[0]).mean())

    def ramps(self, slopes: str = "both") -> Ramps:
        """Return the ramps at samples, with both slopes at the kink, or with "zero" or "one".

        With a free skip connection all are the same: (t − x)_+ is (x − t)_+ with the other slope
        at its kink, less a linear part.
        """
        sides, values = (1.0, -1.0), SLOPES[known("slopes", slopes, SLOPES)]
        if self.skip == "free":
            sides, values = (1.0,), SLOPES["both"]
        listed = [(t, side, at) for side in sides for at in values for t in self.points]
        kinks, side, at = (np.array(part) for part in zip(*listed, strict=True))
        apart = side * (self.x[:, None] - kinks)
        sums = side * ((apart > 0) + at * (apart == 0)).sum(0)
        return Ramps(kinks, side, at, np.maximum(apart, 0.0), sums)

    def prices(self, nu: ArrayLike, ramps: Ramps | None = None) -> Floats:
        """Return aᵀν − b of ramps, of all that there are by default."""
        nu = reals("nu", nu, self.x.shape)
        ramps = self.ramps() if ramps is None else ramps
        return nu @ ramps.columns - ramps.sums

    def objective(self, parameters: Parameters) -> torch.Tensor:
        """Return Σ ½s(x_i)² + s'(x_i) + βR of networks with any leading axes.

        Parameters are those of ``TwoLayer(bias="free", skip=…)``; φ'(0) = 0.
        """
        hidden = parameters["hidden"]
        X = torch.as_tensor(self.x[:, None], dtype=hidden.dtype)
        score = self.architecture.forward(parameters, X)
        slope, bias = hidden[..., 0], hidden[..., 1]
        on = (X * slope[..., None, :] + bias[..., None, :]) > 0
        derivative = (on * (slope * parameters["output"])[..., None, :]).sum(-1)
        if self.skip == "free":
            derivative = derivative + parameters["skip"]
        value = (0.5 * score**2 + derivative).sum(-1)
        return value + self.beta * self.architecture.penalty(parameters)

    def lower_bound(self, nu: ArrayLike) -> float:
        """Return a lower bound of every network's objective, rigorous in floating point.

        Args:
            nu: any dual point, shape (n,), in the order of `x`, ascending.
        """
        return self.tube.lower_bound(reals("nu", nu, self.x.shape), self.beta, SLOPES["both"])

    def solve(self, slopes: str = "both", *, tolerance: float = 1e-6, throw: bool = True) -> Score:
        """Solve the program.

        Args:
            slopes: φ'(0) allowed at kinks on samples: "both" for the infimum over all networks,
                "zero" or "one" for kinks on samples under one convention.
            tolerance: relative gap of the network at which the outcome counts as solved.
            throw: raise if the gap stays above the tolerance; otherwise `Score.gap` says so.

        Raises:
            NotConverged: if the gap stays above ``tolerance``.
        """
        at_least_zero("tolerance", tolerance)
        ramps = self.ramps(slopes)
        score = Score(self, *minimise(self, ramps), ramps)
        if throw and not score.gap <= tolerance:
            raise NotConverged(
                f"The network's gap is {score.gap:.1e}, above tolerance {tolerance:g}: centre and "
                "scale x, join samples that are nearly equal, or take a beta further above "
                f"{self.beta_min:g}, where the objective loses its lower bound."
            )
        return score

    def lift(self, parameters: Parameters) -> tuple[Floats, Floats]:
        """Return (z, ξ) of one network over `ramps`: its value never exceeds the objective."""
        ramps = self.ramps()
        z, free = np.zeros(len(ramps.kinks)), np.zeros(self.free[0].shape[1])
        free[0] = float(parameters["constant"].detach())
        if self.skip == "free":
            free[1] = float(parameters["skip"].detach()[0])
            free[0] += free[1] * self.centre
        places = {
            (s, at, t): g
            for g, (s, at, t) in enumerate(zip(ramps.sides, ramps.slopes, ramps.kinks, strict=True))
        }
        for (w, b), a in zip(
            parameters["hidden"].tolist(), parameters["output"].tolist(), strict=True
        ):
            if w == 0.0:
                free[0] += a * max(b, 0.0)
                continue
            size, kink, side = abs(w) * a, -b / w, 1.0 if w > 0 else -1.0
            if self.skip == "free" and side < 0:  # (t − x)_+ = (x − t)_+ − x + t
                free += size * np.array([kink - self.centre, -1.0])
                side = 1.0
            for share, at, point in self._ends(kink, side):
                z[places[side, at, point]] += share * size
            beyond = (self.points[0] - kink) if side > 0 else (kink - self.points[-1])
            free[0] += size * max(beyond, 0.0)
        return z, free

    def _ends(self, kink: float, side: float) -> list[tuple[float, int, float]]:
        """Return a kink as a mixture (share, φ'(0), sample) of limits at its neighbours."""
        below, above = int(side < 0), int(side > 0)  # φ'(0) of kinks just above, just below
        k = int(np.searchsorted(self.points, kink))
        if k < len(self.points) and self.points[k] == kink:
            return [(1.0, 0, kink)]
        if k == 0:
            return [(1.0, above, float(self.points[0]))]
        if k == len(self.points):
            return [(1.0, below, float(self.points[-1]))]
        low, high = float(self.points[k - 1]), float(self.points[k])
        share = (kink - low) / (high - low)
        return [(1.0 - share, below, low), (share, above, high)]

    def value(self, z: ArrayLike, free: ArrayLike, ramps: Ramps | None = None) -> float:
        """Return the program's objective at (z, ξ)."""
        ramps = self.ramps() if ramps is None else ramps
        A, sums = self.free
        z, free = reals("z", z, ramps.kinks.shape), reals("free", free, sums.shape)
        fit = ramps.columns @ z + A @ free
        return float(0.5 * fit @ fit + ramps.sums @ z + sums @ free + self.beta * np.abs(z).sum())

    def train(
        self, width: int, seeds: Iterable[int], steps: int = 3000, learning_rate: float = 0.03
    ) -> tuple[Parameters, Floats]:
        """Train networks by Adam, one a seed, all at once; the rate falls as a cosine.

        The derivative jumps where kinks cross samples, and gradients do not see jumps: this is what
        training does with this objective.  The best network on the way is kept, seed by seed.

        Returns:
            Parameters with a leading axis over seeds, and the trace of objectives (steps + 1, S).

        Raises:
            BadInput: naming the argument.
        """
        width, seeds = whole("width", width), wholes("seeds", seeds, least=0)
        steps, learning_rate = whole("steps", steps, 0), above_zero("learning_rate", learning_rate)
        start = self.architecture.initial(self._of_architecture(), width, seeds)
        parameters = {k: v.clone().requires_grad_(True) for k, v in start.items()}
        leaves = list(parameters.values())
        follow = RULES["adam"].make(list(parameters), leaves, {})
        best, trace = {k: v.detach().clone() for k, v in start.items()}, []
        lowest = torch.full((len(start["output"]),), torch.inf, dtype=torch.float64)
        for step in range(steps + 1):
            values = self.objective(parameters)
            better = values.detach() < lowest
            lowest = torch.where(better, values.detach(), lowest)
            for name, value in parameters.items():
                best[name][better] = value.detach()[better]
            trace.append(values.detach().numpy().copy())
            if step < steps:
                slopes = torch.autograd.grad(values.sum(), leaves)
                with torch.no_grad():
                    follow(list(slopes), learning_rate * 0.5 * (1 + np.cos(np.pi * step / steps)))
        return best, np.array(trace)

    def _of_architecture(self) -> Problem:
        return Problem(self.x[:, None], self.x, self.beta, architecture=self.architecture)
