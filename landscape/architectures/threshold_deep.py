r"""Parallel deep threshold and sign networks, each unit with inner layers of its own.

.. math:: g_k(x) = σ(v_k^⊤ σ(⋯ σ(W_k x + b_k) ⋯) + c_k), \qquad f(x) = \sum_k a_k s_k g_k(x) (+ ξ)

A unit has widths :math:`(m_1, …, m_{L−2})` and one neuron on top; only s and a are penalised
(Ergen, Gulluk, Lacotte & Pilanci, ICLR 2023).  In a *rectangular* unit every neuron sees all of
the layer below; in a *tree* it has :math:`m_{l−1}` neurons below to itself.

*One input.*  A neuron of the first layer has one breakpoint, so a unit switches at most as often
along the line as it has first neurons: K = m_1 in a rectangle, K = Π m_l in a tree.  Every sequence
with up to K switches is one: in a rectangle the second layer adds up the steps, each with the sign
of its switch, and the layers above pass that on.  In a tree cut the switches into m parts of
consecutive ones and give one to each child, which holds its first (last) value before (after) its
part.  As a part ends in the value with which the next begins, the children's sum is, up to one
constant, the sequence itself; so by induction on the depth.  The largest price is found by dynamic
programming, O(nK).

*Any dimension.*  Along a direction in which all distinct samples differ the same holds, so that
K ≥ N − 1, N distinct samples, suffices for all 2^N patterns: then the price is
max(Σ ν_+, Σ ν_−) (‖ν‖_1 for signs), and the program is that of `complete`.  Below that, with
several inputs, the same is a relaxation and units are sought along directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from landscape import dictionary
from landscape.architectures.complete import clipped, level_sets
from landscape.architectures.parallel import constants
from landscape.architectures.rows import seeded_normal
from landscape.architectures.steps import Steps
from landscape.arrangements.switches import Lines, Ordered
from landscape.dictionary import Priced
from landscape.errors import BadInput, whole

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.arrangements.switches import Bools
    from landscape.dictionary import Oracle, Units
    from landscape.problem import Problem


@dataclass(frozen=True)
class DeepThreshold(Steps):
    """Parallel units of at least three layers.

    Attributes:
        widths: neurons of the inner layers, (m_1, …, m_{L−2}); in a tree, under each neuron.
        tree: whether neurons have their own neurons below.
        constant: whether there is a free output bias ξ.
    """

    widths: tuple[int, ...] = (4,)
    tree: bool = False
    constant: bool = False
    name: ClassVar[str] = "threshold_deep"

    def __post_init__(self) -> None:
        """Refuse unknown choices and widths below one."""
        super().__post_init__()
        if not isinstance(self.widths, Sequence) or not len(self.widths):
            raise BadInput(f"widths is {self.widths!r}: it must list the inner layers' widths.")
        object.__setattr__(self, "widths", tuple(whole("a width", w) for w in self.widths))

    @property
    def has_constant(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether there is a free output bias ξ."""
        return self.constant

    @property
    def depth(self) -> int:
        """Number of layers L, the output's included."""
        return len(self.widths) + 2

    @property
    def switches(self) -> int:
        """How often a unit may switch along a line."""
        return prod(self.widths) if self.tree else self.widths[0]

    @cached_property
    def _shapes(self) -> list[tuple[int, int]]:
        """Neurons and inputs of every layer of a unit above the first."""
        below = self.widths
        above = [*self.widths[1:], 1]
        counts = [prod(above[at:]) for at in range(len(above))] if self.tree else above
        return list(zip(counts, below, strict=True))

    @property
    def hidden_bias(self) -> str:
        """Every neuron has a free bias."""
        return "free"

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return units that switch near samples, s = ``scale``, a ~ N(0, scale²/m)."""
        X = torch.as_tensor(problem.X)
        d, first = X.shape[1], self.switches if self.tree else self.widths[0]
        draws = seeded_normal(seeds, width, first, 2 * d + 1)
        w, share = draws[..., :d] / d**0.5, torch.special.ndtr(draws[..., -1])
        at = X[(share * len(X)).long().clamp(max=len(X) - 1)]  # (S, m, first, d)
        at = at + 0.1 * X.std(0, correction=0) * draws[..., d:-1]
        parameters = {"hidden": torch.cat([w, -(w * at).sum(-1, keepdim=True)], -1)}
        for layer, (count, below) in enumerate(self._shapes):
            moved = [seed + 7919 * (layer + 1) for seed in seeds]
            inner = seeded_normal(moved, width, count, below + 1) / below**0.5
            parameters[f"inner_{layer}"] = inner
        moved = [seed + 104729 for seed in seeds]
        parameters["output"] = scale / width**0.5 * seeded_normal(moved, width)
        parameters["amplitude"] = torch.full_like(parameters["output"], scale)
        return parameters | ({"constant": constants(seeds)} if self.constant else {})

    def steps(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return the outputs of all units, shape (…, n, m)."""
        hidden = parameters["hidden"]  # (…, m, first, d + 1)
        rows = hidden.flatten(-3, -2)
        before = X @ rows[..., :-1].mT + rows[..., None, :, -1]
        out = self.step(before).unflatten(-1, hidden.shape[-3:-1])  # (…, n, m, first)
        for layer, (count, below) in enumerate(self._shapes):
            weights = parameters[f"inner_{layer}"][..., None, :, :, :]  # (…, 1, m, count, below+1)
            if self.tree:
                before = (out.unflatten(-1, (count, below)) * weights[..., :-1]).sum(-1)
            else:
                before = (weights[..., :-1] @ out[..., None])[..., 0]
            out = self.step(before + weights[..., -1])
        return out[..., 0]

    def oracle(self, problem: Problem, effort: int) -> Oracle:
        """Return what prices all units: exact with one input, or if all patterns are made."""
        lines = Lines(problem.X, self.switches)

        def price(nu: Floats, target: float = 0.0) -> Priced:
            merged = lines.merged(nu)
            high, heavy = lines.heaviest(merged)
            low, light = lines.heaviest(-merged)
            units = dictionary.join(*[self._units(*found) for found in (*heavy, *light)])
            bound, exact, best = self.priced(problem, units, nu, (high, low), target)
            return Priced(bound, exact, best, lines.count)

        return price

    def first(self, problem: Problem, seed: int) -> Units:
        """Return the constant and, where all patterns are made, the levels of the clipped fit."""
        lines = Lines(problem.X, self.switches)
        patterns = np.ones((1, len(lines.counts)), dtype=bool)
        if lines.complete and problem.loss.name == "squared" and not self.constant:
            mean = lines.merged(problem.y) / lines.counts
            fit = clipped(mean, lines.counts, problem.beta, self.activation)
            patterns = np.vstack([patterns, level_sets(fit, self.activation)])
        return self._units(lines.orders[0], patterns[:, lines.orders[0].order])

    def _units(self, ordered: Ordered, sequences: Bools) -> Units:
        """Return units that make sequences (k, N) along a direction."""
        every = [self._unit(ordered, sequence) for sequence in sequences]
        return {name: np.stack([one[name] for one in every]) for name in every[0]}

    def _unit(self, ordered: Ordered, sequence: Bools) -> dict[str, Floats]:
        """Return the weights of one unit."""
        cuts, start, h = ordered.cuts(sequence), int(sequence[0]), ordered.direction
        first = self._shapes[0][0] * self._shapes[0][1] if self.tree else self.widths[0]
        hidden = np.zeros((first, len(h) + 1))
        unit = {"hidden": hidden}
        for layer, (count, below) in enumerate(self._shapes):
            unit[f"inner_{layer}"] = np.zeros((count, below + 1))
        if self.tree:
            self._grow(unit, len(self._shapes), 0, start, np.stack(cuts, axis=1), h)
            return unit
        used = len(cuts[0])
        hidden[:, -1] = -1.0
        hidden[:used, :-1], hidden[:used, -1] = h, -cuts[0]
        unit["inner_0"][0, :used] = (1.0 - 2.0 * start) * (-1.0) ** np.arange(used)
        unit["inner_0"][0, -1] = start - 0.5
        for layer in range(1, len(self._shapes)):
            unit[f"inner_{layer}"][0, [0, -1]] = 1.0, -0.5
        for layer in range(len(self._shapes)):
            self._for_inputs(unit[f"inner_{layer}"])
        return unit

    def _grow(
        self, unit: dict[str, Floats], level: int, node: int, start: int, cuts: Floats, h: Floats
    ) -> None:
        """Write the subtree of a node that starts at a value and switches at some cuts (k, 2)."""
        if level == 0:
            row = np.append(0.0 * h, 2.0 * start - 1.0)
            if len(cuts):
                row = np.append(-h, cuts[0, 1]) if start else np.append(h, -cuts[0, 0])
            unit["hidden"][node] = row
            return
        below = self._shapes[level - 1][1]
        room = prod(self.widths[: level - 1])  # switches of one child
        values = [(start + min(child * room, len(cuts))) % 2 for child in range(below)]
        for child, value in enumerate(values):
            part = cuts[child * room : (child + 1) * room]
            self._grow(unit, level - 1, node * below + child, value, part, h)
        row = unit[f"inner_{level - 1}"][node]
        row[:-1], row[-1] = 1.0, -0.5 - sum(values[1:])
        self._for_inputs(row[None])

    def _for_inputs(self, rows: Floats) -> None:
        """Turn weights and biases for inputs 0, 1 into those for −1, 1 where these are the steps'.

        It happens in place.
        """
        if self.activation == "sign":
            rows[:, :-1] *= 0.5
            rows[:, -1] += rows[:, :-1].sum(axis=1)
