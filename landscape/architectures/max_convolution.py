r"""Two-layer convolutional networks that pass on the largest patch (Ergen & Pilanci, 2021).

.. math::

    f(x) = \sum_j a_j \max_k (x_k^⊤u_j)_+, \qquad R = \tfrac12 \sum_j (\|u_j\|^2 + a_j^2)

with patches x_k as in `landscape.architectures.convolution`.  A filter's *selection* says for every
sample which patch is largest, or that none is positive.  It holds on the cone

.. math::

    x_{s_i}^⊤u ≥ 0, \quad (x_{s_i} − x_l)^⊤u ≥ 0 \quad (l ≠ s_i), \qquad
    \text{or} \quad x_l^⊤u ≤ 0 \text{ for all } l,

the linear constraints that max pooling adds to those of a ReLU, and there f is linear in u: the
program has a block ±[x_{i s_i}]_i (zero rows where none is positive) with this cone for each
selection.  Selections are the cells of all hyperplanes :math:`x_k^⊤u = 0` and
:math:`(x_k − x_l)^⊤u = 0` of samples, joined where the largest patch is the same: polynomially
many for filters of fixed size, and listed where they are few (filters of two or three entries).
Beyond that columns come from a search and the bound is a relaxation (`landscape.pricing.largest`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import torch

from landscape import dictionary
from landscape.architectures.base import ConvexPoint
from landscape.architectures.bridge import array
from landscape.architectures.on_patches import OnPatches
from landscape.architectures.rows import seeded_normal
from landscape.clarke import TIE
from landscape.dense import DenseAtoms, DenseCones, GroupProgram
from landscape.errors import BadInput, unknown
from landscape.gauges import Euclidean
from landscape.nonnegative import least_squares
from landscape.pricing.largest import LargestOracle, climbed, selected

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Oracle, Units
    from landscape.problem import Problem

BIASES = ("none", "penalised")
FIRST = 24
"""Climbs of each sign with whose ends column generation begins."""
DIGITS = 9
"""Steps between patches, relative to the largest, that agree in so many are the same."""
HEAVY = 1e4
"""Weight of constraints beside the slopes that they constrain."""


@dataclass(frozen=True)
class MaxConvolution(OnPatches):
    """A two-layer convolutional network with max pooling and one output.

    Attributes:
        bias: "none", or "penalised": a coordinate of the filter.
        kernel, stride, shape: as in `Convolution`.
    """

    bias: Literal["none", "penalised"] = "none"
    kernel: int | tuple[int, ...] = 2
    stride: int = 1
    shape: tuple[int, ...] | None = None
    name: ClassVar[str] = "convolution_max"

    def __post_init__(self) -> None:
        """Refuse unknown choices."""
        if self.bias not in BIASES:
            raise unknown("bias", self.bias, BIASES)
        self.settle()

    def _by_sample(self, problem: Problem) -> Floats:
        """Return the patches of every sample, shape (n, K, p)."""
        return problem.design.reshape(len(problem.X), -1, problem.design.shape[1])

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with u ~ N(0, scale²/p) and a ~ N(0, scale²/m)."""
        p = problem.design.shape[1]
        draws = seeded_normal(seeds, width, p + 1)
        return {
            "hidden": scale / p**0.5 * draws[..., :p],
            "output": scale / width**0.5 * draws[..., p],
        }

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n)."""
        places, hidden = self.patches(X.shape[1]), parameters["hidden"]
        before = places.rows(X) @ hidden[..., : places.size].mT  # (…, nK, m)
        if self.bias != "none":
            before = before + hidden[..., None, :, -1]
        largest = before.unflatten(-2, (-1, places.count)).amax(-2)
        return (torch.relu(largest) @ parameters["output"][..., None])[..., 0]

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return ½ Σ(‖u‖² + a²), shape (…,)."""
        hidden, output = parameters["hidden"], parameters["output"]
        return 0.5 * ((hidden**2).sum((-1, -2)) + (output**2).sum(-1))

    def gates(self, parameters: Parameters) -> Floats:
        """Refuse: filters select patches, which a half-space does not tell."""
        raise BadInput(
            f"architecture {self.label}: its filters select patches and have no activation "
            "patterns; use `own(problem, parameters).units` instead."
        )

    def program(self, problem: Problem, patterns: Any, signs: Floats | None = None) -> GroupProgram:
        """Return the program over selections (G, n) and output signs (G,)."""
        units = dictionary.by_name(self.label, patterns)
        rows, chosen = self._by_sample(problem), units["selected"]
        n, K, p = rows.shape
        none = (chosen < 0)[:, :, None]
        largest = np.where(none, 0.0, rows[np.arange(n), chosen])  # (G, n, p)
        # Row l of a sample says that patch l is no larger; that of the largest, that it is ≥ 0.
        own = (np.arange(K) == chosen[:, :, None])[..., None]
        cones = np.where(own, largest[:, :, None], largest[:, :, None] - rows)
        return GroupProgram.of(
            problem.loss,
            problem.y,
            problem.beta,
            DenseAtoms(
                units["signs"][:, None, None] * largest,
                units,
                np.linalg.norm(rows, axis=2).max(axis=1),
            ),
            Euclidean(np.ones(p, dtype=bool)),
            DenseCones(cones.reshape(len(chosen), n * K, p)),
        )

    def checked_units(self, problem: Problem, units: Any) -> Units:
        """Return patches of every sample (−1 for none) with a sign, refusing others."""
        units = super().checked_units(problem, units)
        chosen, places = units["selected"], self._by_sample(problem).shape[1]
        if not ((chosen >= -1) & (chosen < places)).all():
            raise BadInput(f"patterns: selected must hold patches from −1 (none) to {places - 1}.")
        dictionary.check_signs("signs", units["signs"])
        return units

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return u_s = Σ u_j|a_j| over the filters of one selection and sign."""
        hidden, output = array(parameters["hidden"]), array(parameters["output"])
        alive = (output != 0) & hidden.any(axis=1)
        hidden, output = hidden[alive], output[alive]
        chosen = selected(self._by_sample(problem), hidden)
        keys = np.hstack([chosen, (output > 0)[:, None]])
        _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        theta = np.zeros((len(first), hidden.shape[1]))
        np.add.at(theta, group.reshape(-1), np.abs(output)[:, None] * hidden)
        units = {"selected": chosen[first], "signs": np.sign(output[first])}
        return ConvexPoint(self.program(problem, units), theta, np.zeros(0))

    def lower(self, point: ConvexPoint) -> Parameters:
        """Return the balanced network: u ↦ (u/√‖u‖, ±√‖u‖), one filter a non-zero block."""
        program = cast("GroupProgram", point.program)
        sizes = program.gauge.value(point.theta)
        used = sizes > 0
        scale = np.sqrt(sizes[used])
        return {
            "hidden": torch.as_tensor(point.theta[used] / scale[:, None]),
            "output": torch.as_tensor(program.units["signs"][used] * scale),
        }

    def own(self, problem: Problem, parameters: Parameters) -> GroupProgram:
        """Return the program over the selections of one network."""
        return cast("GroupProgram", self.lift(problem, parameters).program)

    def first(self, problem: Problem, seed: int) -> Units:
        """Return the selections of filters that climb the price of the targets."""
        nu, rows = -problem.loss.gradient(np.zeros(problem.y.shape), problem.y), []
        for side in (1.0, -1.0):
            found = climbed(self._by_sample(problem), side * nu, seed, FIRST)[0]
            chosen = np.unique(selected(self._by_sample(problem), found), axis=0)
            rows.append({"selected": chosen, "signs": np.full(len(chosen), side)})
        return dictionary.join(*rows)

    def oracle(self, problem: Problem, effort: int) -> Oracle:
        """Return what prices all selections: a list where it is short, else climbs and a bound."""
        return LargestOracle(
            self._by_sample(problem), lambda units: self.program(problem, units), effort
        )

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return Clarke residuals over β, the worst wrong-signed ties, and imbalances.

        A filter is Clarke stationary where ±Σ_i ν_i x_i = β u/‖u‖ for some x_i among the convex
        combinations of the largest patches of sample i (and zero, if they put out zero).  A tie
        where ±ν_i > 0 has a side that descends.  Samples whose largest patches are the same up to
        a shift and a factor bend as one, and count as one: their pulls add up.  (Where samples with
        pulls of both signs bend together in another way, e.g. one as the sum of two, the residual
        is a lower bound of Clarke's.)
        """
        hidden, output = array(parameters["hidden"]), array(parameters["output"])
        lengths, sizes = np.linalg.norm(hidden, axis=1), np.abs(output)
        there, both = np.maximum(lengths, sizes) > 0, (lengths > 0) & (sizes > 0)
        balance = np.abs(lengths - sizes)[there] / np.maximum(lengths, sizes)[there]
        rows = self._by_sample(problem)
        found = [
            _lacking(rows, np.sign(a) * nu / problem.beta, u / length)
            for u, a, length in zip(hidden[both], output[both], lengths[both], strict=True)
        ]
        clarke, wrong = np.array(found).reshape(-1, 2).T
        most = max(float(np.abs(nu).max(initial=0.0)) / problem.beta, 1e-300)
        return clarke, wrong / most, balance


def _lacking(rows: Floats, pull: Floats, u: Floats) -> tuple[float, float]:
    """Return min ‖Σ_i pull_i x_i − u‖ over the convex combinations x_i, and the worst bend.

    Args:
        rows: patches of every sample, shape (n, K, p).
        pull: ±ν/β, shape (n,).
        u: the filter, of length one, shape (p,).
    """
    rows = np.concatenate([rows, np.zeros((len(rows), 1, len(u)))], axis=1)  # max(0, ·)
    before = rows @ u
    close = TIE * np.linalg.norm(rows, axis=2).max(axis=1, keepdims=True)
    largest = before >= before.max(axis=1, keepdims=True) - close
    one = rows[np.arange(len(rows)), before.argmax(axis=1)]
    tied = ((rows != one[:, None]).any(axis=2) & largest).any(axis=1)
    missing = u - pull[~tied] @ one[~tied]
    smooth, bends = _bends(rows, largest, np.flatnonzero(tied), pull)
    missing = missing - smooth
    if not bends:
        return float(np.linalg.norm(missing)), 0.0
    owner = np.repeat(np.arange(len(bends)), [len(steps) for steps, _ in bends])
    columns = np.concatenate([size * steps for steps, size in bends]).T
    # That shares of a bend add up to one is asked for by heavy rows, and then made so.
    heavy = HEAVY * max(float(np.abs(columns).max(initial=0.0)), 1.0)
    shares = np.arange(len(bends))[:, None] == owner
    stacked = np.vstack([columns, heavy * shares])
    weights, _ = least_squares(stacked, np.append(missing, np.full(len(bends), heavy)))
    weights = weights / (weights @ shares.T)[owner]
    lacking = float(np.linalg.norm(columns @ weights - missing))
    return lacking, max(0.0, *(size for _, size in bends))


def _bends(
    rows: Floats, largest: np.ndarray, tied: np.ndarray, pull: Floats
) -> tuple[Floats, list[tuple[Floats, float]]]:
    """Return the slope of tied samples' first patches, and how their sum bends beside it.

    Samples bend as one where their largest patches are the same up to a shift and a factor c > 0:
    max of c·x_k + t is c times max of x_k, and a slope t.

    Returns:
        The slope (p,), and one entry a bend whose pulls do not cancel: the patches of its largest
        sample less the first of them, shape (K', p), and what pulls at them.
    """
    slope = np.zeros(rows.shape[2])
    found: dict[bytes, list[tuple[Floats, float, float]]] = {}
    for i in tied:
        active = rows[i, largest[i]]
        size = float(np.ptp(active, axis=0).max())
        if size <= TIE * float(np.abs(active).max()):  # one patch, but for rounding
            slope += pull[i] * active[0]
            continue
        unit = np.round((active - active.min(axis=0)) / size, DIGITS) + 0.0  # no −0
        unit, first = np.unique(unit, axis=0, return_index=True)
        if np.linalg.matrix_rank(unit - unit[0], tol=TIE) == 1:  # on a line only its ends count
            unit, first = unit[[0, -1]], first[[0, -1]]
        slope += pull[i] * active[first[0]]
        steps = active[first] - active[first[0]]
        found.setdefault(unit.tobytes(), []).append((steps, size, float(pull[i])))
    bends = []
    for parts in found.values():
        steps, most, _ = max(parts, key=lambda part: part[1])
        pulls = [one * size / most for _, size, one in parts]
        if abs(sum(pulls)) > TIE * sum(map(abs, pulls)):
            bends.append((steps, sum(pulls)))
    return slope, bends
