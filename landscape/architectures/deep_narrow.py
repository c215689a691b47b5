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

*Absolute value.*  :math:`(x − s)_+ − (x − t)_+` is half of |x − s| − |x − t| up to a constant, so
two layers of absolute values do no worse than any depth of ReLUs.  With :math:`H(t) = \sum_k ν_k
|x_k − t|` the price of :math:`|x − a|` is H(a), at a sample; that of :math:`||x − a| − c|` is H(a
− c) − H(a) + H(a + c), piecewise linear in (a, c), hence largest where two of a − c, a, a + c are
samples: then the third is a *reflection*, or a *midpoint* (a, where a ± c are the samples).  Both
kinds are needed: on x = (0, 5, 6, 11), y = (.472, −1.775, 1.684, −.381), β = 3.505 samples and
reflections alone leave the zero function (3.177213), and one unit with its centre at (5 + 11)/2
reaches 3.168668.  For L = 4 three of up to seven kinks are samples, and all such vertices are
listed (`landscape.arrangements.mirrors`) where N³ allows.  Beyond, and for L > 4, the bound is a
relaxation: the best function with slopes ±1 and at most 2^{L−1} − 1 changes of slope.

Bounds are those of exact arithmetic.  Where inputs lie 10⁵ and more of their ranges from zero, x w
+ b itself rounds, and a network's evaluated objective may lie below them by that: centre inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch

from landscape.architectures.parallel import Parallel, constants, distinct, faster
from landscape.architectures.rows import check_bias_column, seeded_normal
from landscape.arrangements import mirrors
from landscape.arrangements.lines import Line, peaks, steepest
from landscape.dictionary import Oracle, Priced
from landscape.errors import BadInput, unknown, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscape.architectures.base import ConvexPoint, Floats, Parameters
    from landscape.dictionary import Units
    from landscape.problem import Problem

ACTIVATIONS = ("relu", "abs")
EPSILON = float(np.finfo(np.float64).eps)
MOST = 24
"""Units that one pricing returns at most."""
TIE = 1e-9
"""Samples this near a kink, relative to the largest terms of its sum, count as on it."""
QUICK = 1e6
"""Up to this many vertices all are priced at once, without climbing first."""
GAIN = 1.01
"""Units found by climbing that price above β by this factor spare the others' prices."""
ALIKE = 0.99
"""Of mirrored units whose columns, less their means, have a cosine above this one is returned."""


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

    def sideways(self, problem: Problem, point: ConvexPoint, nu: Floats) -> tuple[Floats, Floats]:
        """Return what units lack as one weight or bias moves either way, over β|z|.

        One-sided rates at kinks (samples within `TIE` of one count as on it); weights are measured
        by their own size and biases by the range of the inputs.
        """
        kept, z = self.lower(point), torch.as_tensor(np.abs(point.theta[:, 0]))
        weights, output = kept["hidden"][..., 0], kept["output"]
        x, pull = torch.as_tensor(problem.X), torch.as_tensor(nu)[:, None]
        lacking, wrong = torch.zeros_like(z), torch.zeros_like(z)
        for layer in range(self.depth - 1):
            # A bias of this layer reaches the output through the later weights.
            later = output.abs() * weights[:, layer + 1 :].abs().prod(1)
            shift = float(np.ptp(problem.X)) * z / later
            for step, weight in ((weights[:, layer], True), (shift, False)):
                rates = []
                for way in (1.0, -1.0):
                    change = self._one_sided(kept["hidden"], x, layer, way * step, weight)
                    rate = (pull * change * output).sum(0)
                    if weight:
                        rate = rate - problem.beta * way * step.abs() ** self.depth
                    rates.append(rate / (problem.beta * z))
                lacking, wrong = faster(lacking, wrong, *rates)
        return lacking.numpy(), wrong.numpy()

    def _one_sided(
        self, hidden: torch.Tensor, x: torch.Tensor, moved: int, step: torch.Tensor, weight: bool
    ) -> torch.Tensor:
        """Return the one-sided derivative of unit outputs (n, m) as one parameter moves."""
        out, change = x, torch.zeros(len(x), len(hidden), dtype=x.dtype)
        for layer in range(self.depth - 1):
            before = out * hidden[:, layer, 0]
            change = change * hidden[:, layer, 0]
            if layer == moved:
                change = change + (out * step if weight else step)
            terms = before.abs() + hidden[:, layer, 1].abs()
            before = before + hidden[:, layer, 1]
            tie = before.abs() <= TIE * terms.amax(0)
            if self.activation == "relu":
                change = torch.where(tie, change.clamp_min(0), change * (before > 0))
                out = before.clamp_min(0)
            else:
                change = torch.where(tie, change.abs(), change * before.sign())
                out = before.abs()
        return change

    def oracle(self, problem: Problem, effort: int) -> Oracle:
        """Return what prices every unit (see the module's text for why that is exact).

        For absolute values of depth 4 ``effort`` counts thousands of vertices.
        """
        x = problem.X[:, 0]
        span = float(np.ptp(x))
        seeds = [np.zeros((0, self.depth - 1))]  # the last call's units: the next begins with them

        def price(nu: Floats, target: float = 0.0) -> Priced:
            seen = abs(float(nu.sum())) * span  # a dual point sees no constant: up to rounding
            if self.activation == "relu":
                line = Line(x, nu)
                found, low, high = steepest(line, MOST, clipped=self.depth > 2)
                bound = found + seen + 8 * EPSILON * float(np.abs(line.F).max())
                return Priced(bound, True, self._ramps(low, high), len(x) * (len(x) + 1) // 2)
            middle = 0.5 * (x.min() + x.max())  # sums of kinks round least there
            line = Line(x - middle, nu)
            bound, exact, found = self._steepest_mirrored(line, 1024.0 * effort, target, seeds[0])
            seeds[0] = members = self._unlike(line, found)
            bound += seen + line.rounding()
            members = members + middle * (np.arange(self.depth - 1) == 0)
            return Priced(bound, exact, self._mirrored(members), 0)

        return price

    def _steepest_mirrored(
        self, line: Line, effort: float, target: float, seeds: Floats
    ) -> tuple[float, bool, mirrors.Found]:
        """Return a bound of all prices, whether it is attained, and good members."""
        if self.depth == 2:
            at = peaks(np.abs(line.H), MOST)
            prices = np.abs(line.H[at])
            found = mirrors.Found(float(prices[0]), prices, line.x[at, None])
            return found.largest, True, found
        flat = mirrors.two(line, 64 * MOST)
        if self.depth == 3:
            return flat.largest, True, flat
        all_vertices = self.depth == 4 and mirrors.cost(line) <= effort
        found = None
        if not all_vertices or mirrors.cost(line) > QUICK:
            begin = self._unlike(line, flat)
            begin = np.hstack([begin, np.zeros((len(begin), self.depth - 3))])
            found = mirrors.climb(line, np.concatenate([begin, seeds]))
        if all_vertices and not (found and found.largest > GAIN * target > 0):
            found = mirrors.three(line, MOST)
            return found.largest, True, found
        assert found is not None
        kinks = min(len(line.x), 2 ** (self.depth - 1) - 1)
        return max(found.largest, line.wiggle(kinks)), False, found

    def _unlike(self, line: Line, found: mirrors.Found) -> Floats:
        """Return the best members of which no two are nearly the same function."""
        values = mirrors.nested(line.x, found.parameters)
        values -= values.mean(axis=0)
        return distinct({"all": found.parameters}, values, found.prices, MOST, ALIKE)["all"]
