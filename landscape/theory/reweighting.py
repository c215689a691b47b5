r"""Gated networks as kernel machines: the NTK is one weighting of kernels, training another.

The program of a gated ReLU network (`landscape.architectures.gated`) is multiple kernel learning
(Dwaraknath, Ergen & Pilanci, 2023, arXiv 2309.15096): with :math:`K_i = D_iXX^⊤D_i`

.. math::

    \min_w \tfrac12 \Big\|\sum_i D_iXw_i − y\Big\|^2 + β \sum_i \|w_i\|
    = \min_{η ≥ 0} \; \tfrac β2\, y^⊤ (K_η + βI)^{-1} y + \tfrac β2 \sum_i η_i, \qquad
    K_η = \sum_i η_i K_i

since :math:`\|w\| = \min_η \tfrac12 (\|w\|^2/η + η)`.  For given η it is a ridge regression, solved
by :math:`w_i = η_i X^⊤D_iα`, :math:`(K_η + βI)α = y`; for given w the best weights are
:math:`η_i = \|w_i\|`.  Alternating the two never raises the objective and, from weights that are
all positive, tends to the optimum of the group lasso.

*The neural tangent kernel* of a gated network with Gaussian gates is :math:`\sum_i p_i K_i`, p_i
the probability of pattern i: a start of the same iteration, at one scale.  In closed form (Cho &
Saul, 2009) its entries are :math:`x^⊤x'\,(π − ∠(x, x'))/2π`.  That is the kernel of the first
layer; where output weights are trained too, theirs is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.optimize import minimize_scalar

from landscape.architectures import GatedReLU
from landscape.architectures.base import ConvexPoint
from landscape.bounds import lower_bound, relative_gap
from landscape.errors import BadInput, at_least_zero, whole
from landscape.network import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.arrangements import Arrangements
    from landscape.problem import Problem
    from landscape.programs import Program

    Floats = NDArray[np.float64]

DRAWS = 200_000
"""Gaussian gates of a Monte Carlo estimate."""
CHUNK = 20_000_000
"""Numbers in memory at a time while gates are drawn."""
LEAST = 1e-12
"""Starting weights are at least this share of the largest: a weight of zero stays zero."""
FLAT = 1e-12
"""Singular values of a design below this (relative) are rounding."""


class Probabilities(NamedTuple):
    """How probable patterns are for a Gaussian gate.

    Attributes:
        values: shape (P,).
        errors: standard errors, shape (P,); zero where values are exact.
        exact: whether they are (rank one and two).
    """

    values: Floats
    errors: Floats
    exact: bool


def gate_probabilities(
    design: Floats, patterns: Arrangements, draws: int = DRAWS, seed: int = 0
) -> Probabilities:
    """Return the probability that a standard normal gate has each pattern.

    Args:
        design: rows, shape (n, p).
        patterns: distinct patterns of these rows; gates with others count for none.  What they
            say of rows of zeros does not matter.
        draws: gates of the Monte Carlo estimate, where the rank is above two.
        seed: of these gates.
    """
    draws = whole("draws", draws)
    if patterns.n != len(design):
        raise BadInput(f"patterns are over {patterns.n} samples, design has {len(design)} rows.")
    seen = design.any(axis=1)
    masks, design = np.asarray(patterns)[:, seen], design[seen]
    design = design / np.abs(design).max(axis=1, keepdims=True)  # patterns do not see lengths
    design = design / np.linalg.norm(design, axis=1, keepdims=True)
    values, V = np.linalg.svd(design, full_matrices=False)[1:]
    rows = design @ V[values > FLAT * values.max(initial=0.0)].T  # in their own span
    if rows.shape[1] > 2:
        counts = np.zeros(len(patterns), dtype=np.int64)
        rng, step = np.random.default_rng(seed), max(1, CHUNK // len(rows))
        for start in range(0, draws, step):
            gates = rng.standard_normal((min(step, draws - start), rows.shape[1]))
            _count(counts, masks, gates @ rows.T >= 0)
        found = counts / draws
        return Probabilities(found, np.sqrt(found * (1 - found) / draws), False)
    share = np.zeros(len(patterns))
    if rows.shape[1] < 2:
        middles = np.array([[1.0], [-1.0]])[:, : rows.shape[1]]
        lengths = np.array([0.5, 0.5])
    else:
        kinks = np.arctan2(rows[:, 0], -rows[:, 1])  # ± these are orthogonal to the rows
        ends = np.sort(np.concatenate([kinks, kinks + np.pi]) % (2 * np.pi))
        lengths = np.diff(ends, append=ends[0] + 2 * np.pi)
        angles = ends + 0.5 * lengths
        middles = np.column_stack([np.cos(angles), np.sin(angles)])
        lengths = lengths / (2 * np.pi)
    _count(share, masks, middles @ rows.T >= 0, lengths)
    return Probabilities(share, np.zeros(len(patterns)), True)


def _count(
    into: NDArray,
    known: NDArray[np.bool_],
    masks: NDArray[np.bool_],
    weights: Floats | None = None,
) -> None:
    """Add the weights (one by default) of masks (m, n) to those of the known that they are."""
    place = {row.tobytes(): i for i, row in enumerate(np.packbits(known, axis=1))}
    packed = np.packbits(masks, axis=1)
    at = np.array([place.get(row.tobytes(), -1) for row in packed], dtype=np.int64)
    ones = np.ones(len(masks), dtype=into.dtype) if weights is None else weights
    np.add.at(into, at[at >= 0], ones[at >= 0])


def tangent_kernel(design: Floats, other: Floats | None = None) -> Floats:
    """Return x·x' (π − ∠(x, x')) / 2π of all pairs of rows, shape (n, n').

    Args:
        design: rows, shape (n, p).
        other: rows, shape (n', p); the same by default.
    """
    other = design if other is None else other
    sizes = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (design, other)]
    a, b = (rows / np.where(s > 0, s, 1.0) for rows, s in zip((design, other), sizes, strict=True))
    # Half the angle by its tangent: sharp for parallel rows and for antipodal ones.
    apart = np.linalg.norm(a[:, None] - b, axis=2)
    along = np.linalg.norm(a[:, None] + b, axis=2)
    return design @ other.T * (np.pi - 2.0 * np.arctan2(apart, along)) / (2.0 * np.pi)


def kernel(design: Floats, patterns: Arrangements, weights: Floats) -> Floats:
    """Return Σ_i η_i D_iXXᵀD_i, shape (n, n), of weights η (P,)."""
    masks = np.asarray(patterns).astype(np.float64)
    return design @ design.T * ((weights[:, None] * masks).T @ masks)


@dataclass(frozen=True)
class Reweighting:
    """The iterates of one run.

    Attributes:
        problem: the training problem of a gated network.
        program: its group lasso over the patterns.
        weights: η at every iterate, shape (T, P); the first is the start.
        objectives: of the group lasso at the iterates' w, shape (T,); they never rise.
        bounds: lower bounds of its optimum from the iterates' residuals, shape (T,).
        status: a sentence.
    """

    problem: Problem
    program: Program
    weights: Floats
    objectives: Floats
    bounds: Floats
    status: str

    @property
    def gaps(self) -> Floats:
        """Relative gaps of the iterates to the best bound, shape (T,)."""
        zero = self.problem.loss.at_zero(self.problem.y)
        best = float(self.bounds.max())
        return np.array([relative_gap(value, best, zero) for value in self.objectives])

    def network(self, iterate: int = -1) -> Network:
        """Return the gated network of one iterate; 0 is the kernel machine of the start.

        On new inputs a network has one gate a pattern, where the NTK averages over all gates that
        make it: they are the same on the training inputs only.
        """
        theta, _ = ridge(self.problem, self.program, self.weights[iterate])
        point = ConvexPoint(self.program, theta, np.zeros(0))
        return Network(self.problem.architecture, self.problem.architecture.lower(point))

    def tangent(self, X: Floats) -> Floats:
        """Return what ridge regression with the NTK puts out at inputs X (n', d), shape (n',).

        Its scale is the sum of the first weights, as where these are the NTK's (by default).
        """
        rows, scale = self.problem.design, float(self.weights[0].sum())
        K = scale * tangent_kernel(rows)
        alpha = np.linalg.solve(K + self.problem.beta * np.eye(len(K)), self.problem.y)
        return scale * tangent_kernel(self.problem.architecture.design(X), rows) @ alpha


def ridge(problem: Problem, program: Program, weights: Floats) -> tuple[Floats, Floats]:
    """Return the blocks (P, p) of the ridge regression with weights η (P,), and its residual.

    Args:
        problem: the training problem of a gated network.
        program: its group lasso.
        weights: η, shape (P,).
    """
    design, masks = problem.design, np.asarray(program.patterns)
    K = kernel(design, program.patterns, weights)
    factor = cho_factor(K + problem.beta * np.eye(len(K)))
    alpha = cho_solve(factor, problem.y)
    theta = weights[:, None] * ((masks * alpha) @ design)
    return theta, problem.y - program.fit(theta, np.zeros(0))


def kernel_value(problem: Problem, patterns: Arrangements, weights: Floats) -> float:
    """Return ½β(yᵀ(K_η + βI)⁻¹y + Σ η): at least the group lasso's optimum, which is its least."""
    K = kernel(problem.design, patterns, weights) + problem.beta * np.eye(len(problem.y))
    fitted = float(problem.y @ cho_solve(cho_factor(K), problem.y))
    return 0.5 * problem.beta * (fitted + float(weights.sum()))


def best_scale(problem: Problem, patterns: Arrangements, weights: Floats) -> float:
    """Return the c ≥ 0 that makes `kernel_value` least along weights c η."""
    values, Q = eigh(kernel(problem.design, patterns, weights))
    seen, values = (Q.T @ problem.y) ** 2, np.maximum(values, 0.0)
    total, beta = float(weights.sum()), problem.beta

    def along(c: float) -> float:
        return float((seen / (c * values + beta)).sum()) + c * total

    top = float(problem.y @ problem.y) / (beta * total)  # beyond, its second term alone is worse
    found = minimize_scalar(along, bounds=(0.0, top), method="bounded", options={"xatol": 0.0})
    return float(found.x)


def reweight(
    problem: Problem,
    patterns: Arrangements,
    start: Floats | None = None,
    iterations: int = 1000,
    tolerance: float = 1e-6,
) -> Reweighting:
    """Alternate ridge regressions and η_i = ‖w_i‖ until the group lasso is solved.

    Args:
        problem: of `GatedReLU` with one output and the squared loss, its bias not free.
        patterns: of the gates.
        start: weights η, shape (P,), scaled by `best_scale`; by default the probabilities of
            Gaussian gates, so that the first iterate is the machine of the NTK.
        iterations: most reweightings.
        tolerance: certified relative gap at which to stop.

    Raises:
        BadInput: for another architecture or loss, or weights that are not positive.
    """
    architecture = problem.architecture
    plain = isinstance(architecture, GatedReLU) and architecture.outputs == "one"
    if not plain or architecture.hidden_bias == "free" or problem.loss.name != "squared":
        raise BadInput(
            f"problem is {problem}: reweighting solves that of GatedReLU with one output, a bias "
            "that is not free, and loss='squared'."
        )
    whole("iterations", iterations, 0)
    at_least_zero("tolerance", tolerance)
    program = architecture.program(problem, patterns)
    if start is None:
        start = gate_probabilities(problem.design, patterns).values
    start = np.asarray(start, dtype=np.float64)
    if start.shape != (len(patterns),) or not (start >= 0).all() or not start.any():
        raise BadInput(
            f"start has shape {start.shape}: it must hold one weight for each of the "
            f"{len(patterns)} patterns, none negative and not all zero."
        )
    eta = np.maximum(start, LEAST * start.max())
    eta = eta * max(best_scale(problem, patterns, eta), LEAST)
    weights, objectives, bounds = [], [], []
    zero = problem.loss.at_zero(problem.y)
    for _ in range(iterations + 1):
        theta, nu = ridge(problem, program, eta)
        weights.append(eta)
        objectives.append(program.value(theta, np.zeros(0)))
        bounds.append(lower_bound(program, nu)[0])
        gap = relative_gap(objectives[-1], max(bounds), zero)
        if gap <= tolerance:
            break
        eta = np.linalg.norm(theta, axis=1)
    reached = "solved to" if gap <= tolerance else "stopped at"
    status = f"Reweighting {reached} a relative gap of {gap:.1e} after {len(weights) - 1} rounds."
    return Reweighting(
        problem, program, np.array(weights), np.array(objectives), np.array(bounds), status
    )
