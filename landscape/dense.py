r"""Programs of dense group blocks with cones: every block has a matrix and cone rows of its own.

.. math::

    \min_{θ, θ_0} \; ℓ\Big(\sum_g A_g θ_g + A_0 θ_0,\; y\Big) + β \sum_g γ(θ_g)
    \quad \text{subject to } G_g θ_g ≥ 0

with dense :math:`A_g` (n × p) and :math:`G_g` (q × p), and γ the Euclidean norm of the block or
the sum of the norms of its parts (`Parts`).  Masked copies of one design (`landscape.programs`)
need less memory; units with several layers, pooled convolutions and the like need this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.dictionary import take
from landscape.programs import Program

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.dictionary import Units
    from landscape.losses import Loss
    from landscape.programs import Floats, Gauge


@dataclass(frozen=True)
class DenseAtoms:
    """Blocks whose maps A_g are stored one by one.

    Attributes:
        matrices: the A_g, shape (G, n, p).
        units: what makes the blocks, arrays with a leading axis over them.
        reach: bounds of |A_g θ| on every sample over γ(θ) ≤ 1, shape (n,), over all blocks of the
            dictionary, these or not.
    """

    matrices: Floats
    units: Units
    reach: Floats

    @property
    def size(self) -> int:
        """Number of blocks G."""
        return len(self.matrices)

    @property
    def dimension(self) -> int:
        """Length p of one block's variable."""
        return self.matrices.shape[2]

    def take(self, blocks: NDArray[np.int64]) -> DenseAtoms:
        """Return some of the blocks."""
        return replace(self, matrices=self.matrices[blocks], units=take(self.units, blocks))

    def apply(self, theta: Floats) -> Floats:
        """Return Σ_g A_g θ_g, shape (n,), of ``theta`` (G, p)."""
        return (self.matrices @ theta[:, :, None])[:, :, 0].sum(axis=0)

    def adjoint(self, nu: Floats) -> Floats:
        """Return A_gᵀν of every block, shape (G, p)."""
        return nu @ self.matrices

    def terms(self, nu: Floats) -> Floats:
        """Return |A_g|ᵀ|ν|, shape (G, p): how large the terms of `adjoint` are."""
        return np.abs(nu) @ np.abs(self.matrices)

    def matrix(self, block: int) -> Floats:
        """Return A_g, shape (n, p)."""
        return self.matrices[block]

    @property
    def _wide(self) -> Floats:
        """All blocks side by side, shape (n, Gp)."""
        G, n, p = self.matrices.shape
        return self.matrices.transpose(1, 0, 2).reshape(n, G * p)

    def expression(self, theta: Any) -> Any:
        """Return Σ_g A_g θ_g in cvxpy, ``theta`` a (p, G) variable."""
        import cvxpy

        return self._wide @ cvxpy.vec(theta, order="F")

    def adjoint_expression(self, nu: Any) -> Any:
        """Return the (p, G) cvxpy expression whose columns are A_gᵀν."""
        import cvxpy

        return cvxpy.reshape(self._wide.T @ nu, (self.dimension, self.size), order="F")


@dataclass(frozen=True)
class DenseCones:
    r"""The cones :math:`\{θ : G_g θ ≥ 0\}`, one for every block.

    Attributes:
        matrices: the G_g, shape (G, q, p); rows of zeros say nothing and fill up.
    """

    matrices: Floats

    @property
    def open(self) -> NDArray[np.bool_]:
        """Which blocks stay whatever they hold, shape (G,): none."""
        return np.zeros(len(self.matrices), dtype=bool)

    def take(self, blocks: NDArray[np.int64]) -> DenseCones:
        """Return the cones of some blocks."""
        return DenseCones(self.matrices[blocks])

    def rows(self, block: int) -> Floats:
        """Return G_g, shape (q, p)."""
        return self.matrices[block]

    def violation(self, theta: Floats) -> float:
        """Return the largest −(row·θ)/(‖row‖‖θ‖) over all blocks and rows, at least 0."""
        norms = np.linalg.norm(theta, axis=1)
        used = np.flatnonzero(norms > 0)
        if not len(used):
            return 0.0
        rows = self.matrices[used]
        lengths = np.linalg.norm(rows, axis=2)
        slack = (rows @ (theta[used] / norms[used, None])[:, :, None])[:, :, 0]
        return float(max(0.0, (-slack / np.where(lengths > 0, lengths, 1.0)).max(initial=0.0)))

    @property
    def _diagonal(self) -> Any:
        """All rows as one sparse block-diagonal matrix, shape (Gq, Gp)."""
        from scipy.sparse import bsr_array

        G, q, p = self.matrices.shape
        return bsr_array((self.matrices, np.arange(G), np.arange(G + 1)), shape=(G * q, G * p))

    def constraints(self, theta: Any) -> list[Any]:
        """Return the cvxpy constraints G_g θ_g ≥ 0, ``theta`` (p, G)."""
        import cvxpy

        return [self._diagonal.tocsr() @ cvxpy.vec(theta, order="F") >= 0]

    def multiplier_expression(self) -> tuple[Any, list[Any]]:
        """Return the (p, G) cvxpy expression of G_gᵀλ_g and the constraints λ ≥ 0."""
        import cvxpy

        G, q, p = self.matrices.shape
        multipliers = cvxpy.Variable(G * q, nonneg=True)
        pulled = self._diagonal.T.tocsr() @ multipliers
        return cvxpy.reshape(pulled, (p, G), order="F"), []


@dataclass(frozen=True)
class Parts:
    """The gauge γ(θ) = Σ_j ‖θ_j‖ over equal parts of a block; its polar is the longest part.

    Attributes:
        count: number of parts.
        size: coordinates of one part.
    """

    count: int
    size: int

    @property
    def penalised(self) -> NDArray[np.bool_]:
        """All coordinates count."""
        return np.ones(self.count * self.size, dtype=bool)

    def lengths(self, theta: Floats) -> Floats:
        """Return the norms of the parts, shape (…, count), of ``theta`` (…, p)."""
        return np.linalg.norm(theta.reshape(*theta.shape[:-1], self.count, self.size), axis=-1)

    def value(self, theta: Floats) -> Floats:
        """Return γ of every block, shape (G,), of ``theta`` (G, p)."""
        return self.lengths(theta).sum(axis=-1)

    def polar(self, xi: Floats) -> Floats:
        """Return sup ⟨ξ, θ⟩ over γ(θ) ≤ 1, shape (G,): the longest part."""
        return self.lengths(xi).max(axis=-1)

    def expression(self, theta: Any) -> Any:
        """Return Σ_g γ(θ_g) in cvxpy, ``theta`` (p, G)."""
        import cvxpy

        return cvxpy.sum(cvxpy.norm(self._columns(theta), 2, axis=0))

    def polar_constraints(self, xi: Any, beta: float) -> list[Any]:
        """Return the cvxpy constraints "every part of ξ at most β long"."""
        import cvxpy

        return [cvxpy.norm(self._columns(xi), 2, axis=0) <= beta]

    def _columns(self, theta: Any) -> Any:
        import cvxpy

        return cvxpy.reshape(theta, (self.size, self.count * theta.shape[1]), order="F")


@dataclass(frozen=True)
class GroupProgram(Program):
    """A program over dense blocks; what makes them are units, not patterns."""

    atoms: DenseAtoms  # pyright: ignore[reportIncompatibleVariableOverride]
    cones: DenseCones | None  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def units(self) -> Units:
        """The units that the blocks belong to."""
        return self.atoms.units

    @staticmethod
    def of(
        loss: Loss,
        y: Floats,
        beta: float,
        atoms: DenseAtoms,
        gauge: Gauge,
        cones: DenseCones | None,
        free: Floats | None = None,
    ) -> GroupProgram:
        """Return the program over some blocks; ``free`` is A_0 (n, q), None if there is none."""
        nothing = np.zeros((len(y), 0)) if free is None else free
        return GroupProgram(loss, y, beta, atoms, gauge, cones, nothing, None)  # pyright: ignore[reportArgumentType]

    def take(self, blocks: NDArray[np.int64]) -> GroupProgram:
        """Return the program over some of its blocks."""
        cones = None if self.cones is None else self.cones.take(blocks)
        return replace(self, atoms=self.atoms.take(blocks), cones=cones)
