r"""Convex programs as sums of atoms: the frame into which every architecture writes itself.

.. math::

    \min_{θ, θ_0} \; ℓ\Big(\sum_g A_g θ_g + A_0 θ_0,\; y\Big) + β \sum_g γ(θ_g)
    \quad \text{subject to } θ_g ∈ C_g

and its dual :math:`\max_ν −ℓ^*(−ν)` subject to :math:`A_0^⊤ν = 0` and, for every block g,
:math:`\sup_{γ(θ) ≤ 1,\, θ ∈ C_g} ⟨A_g^⊤ν, θ⟩ ≤ β`.  An architecture chooses the linear maps
:math:`A_g` (`atoms`), the gauge γ and the cones :math:`C_g`; solvers, prices and certificates are
written once against these three faces.  Methods named ``expression`` write the same objects in
cvxpy for the reference solver and import it only there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from landscape.arrangements import Arrangements
from landscape.gauges import Euclidean, Gauge, Nuclear, PerClass
from landscape.losses import Loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Atoms(Protocol):
    """The linear maps :math:`A_g`, g = 1 … size, each from R^dimension to R^n."""

    @property
    def size(self) -> int:
        """Number of blocks G."""
        ...

    @property
    def dimension(self) -> int:
        """Length p of one block's variable."""
        ...

    def apply(self, theta: Floats) -> Floats:
        """Return Σ_g A_g θ_g, shape (n[, c]), of blocks ``theta`` (G, p[, c])."""
        ...

    def adjoint(self, nu: Floats) -> Floats:
        """Return A_gᵀν for every block, shape (G, p[, c]), of ``nu`` (n[, c])."""
        ...

    def matrix(self, block: int) -> Floats:
        """Return A_g as a dense (n, p) array."""
        ...

    def expression(self, theta: Any) -> Any:
        """Return Σ_g A_g θ_g in cvxpy, ``theta`` a (p, G) or (p, Gc) variable."""
        ...

    def adjoint_expression(self, nu: Any) -> Any:
        """Return the (p, G) or (p, Gc) cvxpy expression whose columns are A_gᵀν."""
        ...


@dataclass(frozen=True)
class MaskedAtoms:
    """Blocks :math:`A_g = s_g D_{i(g)} X`: signed, weighted copies of one design matrix.

    The diagonal of D_i is 1 where the mask is and ``leak`` where it is not.  The design is stored
    once and the masks once per pattern; the n × Gp matrix is never formed outside the reference
    solver.  With c outputs the same maps act on each column: θ is
    (G, p, c), fits and ν are (n, c), and in cvxpy θ is (p, Gc), a block's columns side by side.

    Attributes:
        design: X, shape (n, p).
        masks: the patterns, shape (P, n), boolean.
        index: i(g), shape (G,).
        signs: s_g = ±1, shape (G,).
        leak: slope of the activation where a pattern is off; 0 for ReLU.
    """

    design: Floats
    masks: NDArray[np.bool_]
    index: NDArray[np.int64]
    signs: Floats
    leak: float = 0.0

    @cached_property
    def weights(self) -> NDArray[Any]:
        """Diagonals of the D_i, shape (P, n)."""
        return np.where(self.masks, 1.0, self.leak) if self.leak else self.masks

    @property
    def size(self) -> int:
        """Number of blocks G."""
        return len(self.index)

    @property
    def dimension(self) -> int:
        """Length p of one block's variable."""
        return self.design.shape[1]

    def apply(self, theta: Floats) -> Floats:
        """Return Σ_g s_g D_i(g) X θ_g, shape (n,), or (n, c) of ``theta`` (G, p, c)."""
        per_pattern = np.zeros((len(self.masks), *theta.shape[1:]))
        np.add.at(per_pattern, self.index, self.signs.reshape(-1, *[1] * (theta.ndim - 1)) * theta)
        if theta.ndim == 3:
            return np.einsum("pn,pnc->nc", self.weights, self.design @ per_pattern)
        return np.einsum("pn,pn->n", self.weights, per_pattern @ self.design.T)

    def adjoint(self, nu: Floats) -> Floats:
        """Return s_g XᵀD_i(g)ν for every block, shape (G, p), or (G, p, c) of ``nu`` (n, c)."""
        if nu.ndim == 2:
            pulled = self.design.T @ (self.weights[:, :, None] * nu)  # (P, p, c)
            return self.signs[:, None, None] * pulled[self.index]
        return self.signs[:, None] * ((self.weights * nu) @ self.design)[self.index]

    def on_rows(self, nu: Floats) -> Floats:
        """Return what every row of the design sees of ν (n[, c]): here ν itself."""
        return nu

    def pooled(self, values: Floats) -> Floats:
        """Return values (rows, …) of the design's rows summed over each sample: here themselves."""
        return values

    def matrix(self, block: int) -> Floats:
        """Return s_g D_i(g) X, shape (n, p)."""
        return self.signs[block] * self.weights[self.index[block]][:, None] * self.design

    def expression(self, theta: Any) -> Any:
        """Return Σ_g A_g θ_g in cvxpy, ``theta`` a (p, G) or (p, Gc) variable."""
        import cvxpy

        weights = self.weights[self.index].T * self.signs  # (n, G)
        outputs = theta.shape[1] // self.size
        if outputs > 1:
            summed = np.tile(np.eye(outputs), (self.size, 1))  # (Gc, c)
            spread = np.repeat(weights, outputs, axis=1)
            return cvxpy.multiply(spread, self.design @ theta) @ summed
        return cvxpy.sum(cvxpy.multiply(weights, self.design @ theta), axis=1)

    def adjoint_expression(self, nu: Any) -> Any:
        """Return the (p, G) or (p, Gc) cvxpy expression whose columns are A_gᵀν."""
        import cvxpy

        weights = self.weights[self.index].T * self.signs  # (n, G)
        if nu.ndim == 2 and nu.shape[1] > 1:
            copies = np.tile(np.eye(nu.shape[1]), (1, self.size))  # (c, Gc)
            spread = np.repeat(weights, nu.shape[1], axis=1)
            return self.design.T @ cvxpy.multiply(spread, nu @ copies)
        return self.design.T @ cvxpy.multiply(
            weights, cvxpy.reshape(nu, (len(self.design), 1), order="F") @ np.ones((1, self.size))
        )


@dataclass(frozen=True)
class PatternCones:
    r"""The cones :math:`K_i = \{u : (2D_i − I) X u ≥ 0\}`, one for every block.

    Attributes:
        design: X, shape (n, p).
        masks: the patterns, shape (P, n), boolean.
        index: i(g), shape (G,).
        linear: whether the pattern that is on everywhere has no cone (a linear block).
    """

    design: Floats
    masks: NDArray[np.bool_]
    index: NDArray[np.int64]
    linear: bool = False

    @cached_property
    def sides(self) -> NDArray[np.int8]:
        """Diagonals of the 2D_i − I, shape (P, n): ±1, and 0 where there is no cone."""
        sides = 2 * self.masks.astype(np.int8) - 1
        if self.linear:
            sides[self.masks.all(axis=1)] = 0
        return sides

    @property
    def open(self) -> NDArray[np.bool_]:
        """Which blocks have no cone, shape (G,)."""
        if not self.linear:
            return np.zeros(len(self.index), dtype=bool)
        return (self.sides == 0).all(axis=1)[self.index]

    def rows(self, block: int) -> Floats:
        """Return (2D_i − I) X, shape (n, p): the cone is where all its products are ≥ 0."""
        return self.sides[self.index[block]][:, None] * self.design

    def violation(self, theta: Floats) -> float:
        """Return the largest −(±x_kᵀu)/(‖x_k‖‖u‖) over all blocks and rows, at least 0."""
        norms = np.linalg.norm(theta, axis=1)
        used = np.flatnonzero(norms > 0)
        lengths = np.linalg.norm(self.design, axis=1)
        kept = lengths > 0
        if not len(used) or not kept.any():
            return 0.0
        cosines = (theta[used] / norms[used, None]) @ (self.design[kept] / lengths[kept, None]).T
        slack = self.sides[self.index[used]][:, kept] * cosines
        return float(max(0.0, -slack.min()))

    def constraints(self, theta: Any) -> list[Any]:
        """Return the cvxpy constraints θ_g ∈ K_i(g), ``theta`` (p, G)."""
        import cvxpy

        signs = self.sides[self.index].T  # (n, G)
        return [cvxpy.multiply(signs, self.design @ theta) >= 0]

    def multiplier_expression(self) -> tuple[Any, list[Any]]:
        """Return the (p, G) cvxpy expression of Σ_k λ_k·row_k and the constraints λ ≥ 0."""
        import cvxpy

        signs = self.sides[self.index].T  # (n, G)
        multipliers = cvxpy.Variable(signs.shape, nonneg=True)
        return self.design.T @ cvxpy.multiply(signs, multipliers), []


@dataclass(frozen=True)
class Program:
    """A convex program over finitely many blocks.

    Attributes:
        loss: the loss ℓ, a sum over samples.
        y: targets, shape (n,), or (n, c) with c outputs.
        beta: weight β of the gauges.
        atoms: the maps A_g.
        gauge: the gauge γ, the same for all blocks.
        cones: the cones C_g, or None where every block is unconstrained.
        free: A_0, shape (n, q), the unpenalised directions (q = 0 if there are none).
        patterns: the arrangement patterns from which the blocks were made.
    """

    loss: Loss
    y: Floats
    beta: float
    atoms: MaskedAtoms
    gauge: Gauge
    cones: PatternCones | None
    free: Floats
    patterns: Arrangements

    given: ClassVar[str] = ""
    """What of the network the program holds fixed besides its patterns ("features")."""

    @property
    def offset(self) -> float:
        """What the objective pays for that."""
        return 0.0

    @cached_property
    def directions(self) -> tuple[Floats, Floats]:
        """Independent free directions Q (n, r), and the T (q, r) with A_0 T = Q.

        Independent columns of 0 and 1 are their own.  Others become orthogonal columns of unit root
        mean square; what they span but for rounding (singular values below
        max(n, q) ε of the largest) does not count: weights along it would be without bound.
        """
        A = self.free
        U, sizes, V = np.linalg.svd(A, full_matrices=False)
        kept = sizes > max(A.shape) * np.finfo(np.float64).eps * sizes.max(initial=0.0)
        if kept.sum() == A.shape[1] and np.isin(A, (0.0, 1.0)).all():
            return A, np.eye(A.shape[1])
        length = len(A) ** 0.5
        return length * U[:, kept], length * V[kept].T / sizes[kept]

    @property
    def units(self) -> Any:
        """What makes the blocks where they are no patterns (`landscape.dictionary`), or None."""
        return None

    def zero(self) -> tuple[Floats, Floats]:
        """Return blocks (G, p[, c]) and free part (q[, c]) that are zero."""
        outputs = self.y.shape[1:]
        theta = np.zeros((self.atoms.size, self.atoms.dimension, *outputs))
        return theta, np.zeros((self.free.shape[1], *outputs))

    def with_blocks(self, index: NDArray[np.int64], signs: Floats) -> Program:
        """Return the program over the blocks (pattern ``index[g]``, sign ``signs[g]``)."""
        cones = None if self.cones is None else replace(self.cones, index=index)
        return replace(self, atoms=replace(self.atoms, index=index, signs=signs), cones=cones)

    def take(self, blocks: NDArray[np.int64]) -> Program:
        """Return the program over some of its blocks."""
        return self.with_blocks(self.atoms.index[blocks], self.atoms.signs[blocks])

    def fit(self, theta: Floats, constant: Floats) -> Floats:
        """Return Σ_g A_g θ_g + A_0 θ_0, shape (n[, c])."""
        return self.atoms.apply(theta) + self.free @ constant

    def value(self, theta: Floats, constant: Floats) -> float:
        """Return the objective at blocks (G, p[, c]) and free part (q[, c])."""
        loss = self.loss.value(self.fit(theta, constant), self.y)
        return float(loss) + self.beta * float(self.gauge.value(theta).sum())

    def violation(self, theta: Floats) -> float:
        """Return how far the blocks leave their cones, as a sine (see `PatternCones`)."""
        return 0.0 if self.cones is None else self.cones.violation(theta)


__all__ = [
    "Atoms",
    "Euclidean",
    "Gauge",
    "MaskedAtoms",
    "Nuclear",
    "PatternCones",
    "PerClass",
    "Program",
]
