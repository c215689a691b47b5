r"""Parallel deep networks on one input with one neuron a layer (Zeger et al., arXiv 2403.01046).

.. math::

    g(x) = σ(w_{L−1} ⋯ σ(w_2\, σ(w_1 x + b_1) + b_2) ⋯ + b_{L−1}), \qquad
    f(x) = \sum_k a_k\, g_k(x) + ξ, \qquad R = \tfrac1L \sum_k \Big(\sum_l |w_{kl}|^L + |a_k|^L\Big)

with free biases and a free ξ.  At size one every :math:`|w_l| = 1`, and R is at least
:math:`|z| = |a| \prod |w_l|`.  What the dictionary is follows from what g can be:

*ReLU.*  A composition of monotone functions is monotone, and every layer cuts a half-line off: for
every L ≥ 3, g is a constant plus a *clipped ramp* :math:`(x − s)_+ − (x − t)_+`, s < t, up to
sign, one end possibly at infinity; for L = 2 the finite end is missing.  With
:math:`F(t) = \sum_k ν_k (x_k − t)_+` its price is |F(s) − F(t)|, so that the largest price of all
is max F − min F, at two samples (or infinity).  Hence depth 3, 4, 5, … have one optimal value, and
*no reflection is needed*: features with a breakpoint at R(x_i, x_j) = 2 x_j − x_i, which networks
of L = 4 layers reach from samples alone, tie with mixtures of others and never price higher.

*Absolute value.*  With :math:`H(t) = \sum_k ν_k |x_k − t|` the price of :math:`|x − a|` is H(a), at
a sample; that of :math:`||x − a| − c|` is H(a − c) − H(a) + H(a + c), piecewise linear in (a, c),
hence largest where two of a − c, a, a + c are samples: then the third is a *reflection*, or a
*midpoint* (a, where a ± c are the samples).  Both kinds are needed.  For L = 4 three of up to seven
kinks are samples; beyond, g is at least 1-Lipschitz, and no unit prices above
:math:`\int |\sum_{x_k ≤ t} ν_k| \, dt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch

from landscape.architectures.parallel import Parallel, constants
from landscape.architectures.two_layer import check_bias_column, seeded_normal
from landscape.arrangements import mirrors
from landscape.dictionary import Oracle, Priced
from landscape.errors import BadInput, unknown, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Units
    from landscape.problem import Problem

ACTIVATIONS = ("relu", "abs")
EPSILON = float(np.finfo(np.float64).eps)
MOST = 24
"""Units that one pricing returns at most."""


@dataclass(frozen=True)
class DeepNarrow(Parallel):
    """Parallel units of one neuron a layer, on one input.

    Attributes:
        depth: number of layers L, the output's included; at least 2.
        activation: "relu" or "abs".
    """

    depth: int = 3
    activation: Literal["relu", "abs"] = "relu"
    name: ClassVar[str] = "deep_narrow"
    inputs: ClassVar[int | None] = 1
    has_constant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse an unknown activation or a depth below two."""
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        whole("depth", self.depth, 2)

    def check(self, X: Floats, y: Floats) -> None:
        """Refuse inputs of more than one coordinate, and ones that do not vary."""
        super().check(X, y)
        if X.shape[1] != 1:
            raise BadInput(
                f"X has {X.shape[1]} columns: architecture {self.label} has one input; pass one "
                "column (of a series: lags=1)."
            )
        check_bias_column("free", X)

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return units with |w| near ``scale``, kinks among the samples, and a ~ N(0, scale²/m)."""
        layers = self.depth - 1
        draws = seeded_normal(seeds, width, 2 * layers + 1)
        w = scale * (draws[..., :layers].sign() + 0.3 * draws[..., :layers])
        x = torch.as_tensor(problem.X[:, 0])
        spread, middle = float(x.std(correction=0)), float(x.mean())
        # A layer sees what the one before put out: kinks are placed at its values near a sample.
        at = middle + 1.5 * spread * draws[..., layers : 2 * layers]
        shift, before = [], at[..., 0]
        for layer in range(layers):
            shift.append(-w[..., layer] * before)
            if layer + 1 < layers:
                before = 0.5 * spread * scale ** (layer + 1) * at[..., layer + 1].abs()
        return {
            "hidden": torch.stack([w, torch.stack(shift, -1)], -1),
            "output": scale / width**0.5 * draws[..., -1],
            "constant": constants(seeds),
        }

    def each(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return the output of every unit, shape (…, n, m)."""
        return self._nested(parameters, X) * parameters["output"][..., None, :]

    def _nested(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        hidden, out = parameters["hidden"], X[..., :1]
        act = torch.relu if self.activation == "relu" else torch.abs
        for layer in range(self.depth - 1):
            out = act(out * hidden[..., None, :, layer, 0] + hidden[..., None, :, layer, 1])
        return out

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return (1/L) Σ(Σ_l |w_l|^L + |a|^L), shape (…,); biases do not count."""
        weights = parameters["hidden"][..., 0].abs() ** self.depth
        return (weights.sum((-1, -2)) + (parameters["output"].abs() ** self.depth).sum(-1)) / (
            self.depth
        )

    def sizes(self, parameters: Parameters) -> torch.Tensor:
        """Return |a| Π|w_l|, shape (…, m)."""
        return parameters["output"].abs() * parameters["hidden"][..., 0].abs().prod(-1)

    def units(self, parameters: Parameters) -> Units:
        """Return signs and biases of the units at |w_l| = 1, each (m, L − 1)."""
        hidden = parameters["hidden"].detach().cpu().numpy().astype(np.float64)
        weights, shift = hidden[..., 0], hidden[..., 1]
        alive = (weights != 0).all(axis=1) & (parameters["output"].detach().cpu().numpy() != 0)
        weights, shift = weights[alive], shift[alive]
        return {
            "signs": np.sign(weights),
            "biases": shift / np.cumprod(np.abs(weights), axis=1),
        }

    def scaled(self, units: Units, z: Floats) -> Parameters:
        """Return the network whose layers all weigh |z|^{1/L}."""
        share = np.abs(z) ** (1.0 / self.depth)
        powers = share[:, None] ** np.arange(1, self.depth)
        hidden = np.stack([share[:, None] * units["signs"], powers * units["biases"]], axis=-1)
        output = np.sign(z) * share
        return {
            "hidden": torch.as_tensor(hidden),
            "output": torch.as_tensor(output),
            "constant": torch.tensor(0.0, dtype=torch.float64),
        }

    def reach(self, problem: Problem) -> Floats:
        """Return the range of the inputs: what a unit varies by, constants aside."""
        return np.full(len(problem.y), float(np.ptp(problem.X)))

    def first(self, problem: Problem, seed: int) -> Units:
        """Return the line through all samples."""
        x = problem.X[:, 0]
        if self.activation == "relu":
            return self._ramps(np.array([x.min()]), np.array([np.inf]))
        return self._mirrored(np.array([[x.min(), *[0.0] * (self.depth - 2)]]))

    def _ramps(self, low: Floats, high: Floats) -> Units:
        """Return the units (x − s)_+ − (x − t)_+ (constants aside) of ends s < t, each (k,)."""
        layers = self.depth - 1
        signs, biases = np.ones((len(low), layers)), np.zeros((len(low), layers))
        rising = ~np.isfinite(high)  # one kink: x ↦ (x − s)_+
        biases[rising, 0] = -low[rising]
        falling = ~np.isfinite(low)  # x ↦ (t − x)_+, the same up to sign and constant
        signs[~rising, 0], biases[~rising, 0] = -1.0, high[~rising]
        clipped = ~rising & ~falling
        if clipped.any():
            signs[clipped, 1], biases[clipped, 1] = -1.0, (high - low)[clipped]
        return {"signs": signs, "biases": biases}

    def _mirrored(self, parameters: Floats) -> Units:
        """Return the units |⋯||x − a| − c_1| ⋯ − c_{L−2}| of (a, c…), shape (k, L − 1)."""
        return {"signs": np.ones(parameters.shape), "biases": -parameters}

    def oracle(self, problem: Problem, effort: int) -> Oracle:
        """Return what prices every unit (see the module's text for why that is exact)."""
        x = problem.X[:, 0]
        middle = 0.5 * (x.min() + x.max())  # sums of moments are shortest there

        def price(nu: Floats, target: float = 0.0) -> Priced:
            line = mirrors.Line(x - middle, nu)
            charge = 8.0 * (len(x) + 16) * EPSILON * float(np.abs(nu).sum() * np.ptp(x))
            if self.activation == "relu":
                found, low, high = self._steepest(line)
                units = self._ramps(low + middle, high + middle)
                return Priced(found + charge, True, units, len(x) * (len(x) + 1) // 2)
            most, exact = MOST, self.depth <= 4
            if self.depth == 2:
                value = np.abs(line.apart(line.x))
                best = np.argsort(-value, kind="stable")[:most]
                largest = float(value[best[0]])
                found = mirrors.Found(largest, largest, line.x[best, None])
            elif self.depth == 3:
                found = mirrors.two(line, most)
            else:
                found = mirrors.three(line, most, effort)
                exact = exact and found.bound <= found.attained * (1 + 1e-9)
            members = found.parameters
            for _ in range(self.depth - 4):
                members = self._nested_further(line, members)
            members[:, 0] += middle
            bound = found.bound if self.depth <= 4 else line.variation
            return Priced((bound + charge) * (1 + 4 * EPSILON), exact, self._mirrored(members), 0)

        return price

    def _steepest(self, line: mirrors.Line) -> tuple[float, Floats, Floats]:
        """Return max |F(s) − F(t)| and the ends of the best ramps, ±∞ among them."""
        ends = np.concatenate([[-np.inf], line.x[1:-1], [np.inf]])
        F = np.concatenate([[line.moment], line.above(line.x[1:-1]), [0.0]])
        if self.depth == 2:  # one end at infinity
            one, other = np.abs(F - F[-1]), np.abs(F - F[0])
            price = np.concatenate([one[:-1], other[1:-1]])
            low = np.concatenate([ends[:-1], np.full(len(ends) - 2, -np.inf)])
            high = np.concatenate([np.full(len(ends) - 1, np.inf), ends[1:-1]])
        else:
            top = np.argsort(-F, kind="stable")[:MOST]
            bottom = np.argsort(F, kind="stable")[:MOST]
            s, t = (side.reshape(-1) for side in np.meshgrid(top, bottom))
            price = np.abs(F[s] - F[t])
            low, high = ends[np.minimum(s, t)], ends[np.maximum(s, t)]
            apart = s != t
            price, low, high = price[apart], low[apart], high[apart]
        best = np.argsort(-price, kind="stable")[:MOST]
        low, high = low[best], high[best]
        # The line through all samples is the ramp from the first one.
        both = ~np.isfinite(low) & ~np.isfinite(high)
        return float(price[best[0]]), np.where(both, line.x[0], low), high

    def _nested_further(self, line: mirrors.Line, members: Floats) -> Floats:
        """Return members with one more layer, its kink where it prices best."""
        hidden = torch.as_tensor(np.stack([np.ones(members.shape), -members], -1))
        out = torch.as_tensor(line.x)[:, None]
        for layer in range(members.shape[1]):
            out = torch.abs(out * hidden[:, layer, 0] + hidden[:, layer, 1])
        values = out.numpy()  # (n, k)
        price = np.abs(np.einsum("i,ijk->jk", line.nu, np.abs(values[:, None] - values[None])))
        shift = values[price.argmax(axis=0), np.arange(len(members))]
        plain = np.abs(line.nu @ values) >= price.max(axis=0)
        return np.column_stack([members, np.where(plain, 0.0, shift)])
