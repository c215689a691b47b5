r"""Blocks whose rows are pooled: several rows of the design belong to one sample.

.. math:: A_g = s_g\, P D_{i(g)} M, \qquad (Pz)_i = c \sum_{k=1}^{K} z_{iK+k}

with M (nK × p) the rows of all samples one after the other, P their sum (c = 1) or average
(c = 1/K).  Convolutions have such blocks, a row for every patch; their cones are those of M.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.programs import MaskedAtoms

if TYPE_CHECKING:
    from landscape.programs import Floats


@dataclass(frozen=True)
class PooledAtoms(MaskedAtoms):
    """Masked copies of a design, whose rows are summed over the rows of a sample.

    Attributes:
        copies: K, rows of one sample.
        scale: c, 1 for a sum and 1/K for an average.
    """

    copies: int = 1
    scale: float = 1.0

    @staticmethod
    def of(atoms: MaskedAtoms, copies: int, scale: float) -> PooledAtoms:
        """Return masked blocks over all rows as blocks whose rows are pooled."""
        return PooledAtoms(
            atoms.design, atoms.masks, atoms.index, atoms.signs, atoms.leak, copies, scale
        )

    def on_rows(self, nu: Floats) -> Floats:
        """Return Pᵀν, shape (nK[, c])."""
        return self.scale * np.repeat(nu, self.copies, axis=0)

    def pooled(self, values: Floats) -> Floats:
        """Return P values, shape (n[, …]), of values for every row, shape (nK[, …])."""
        return self.scale * values.reshape(-1, self.copies, *values.shape[1:]).sum(axis=1)

    def apply(self, theta: Floats) -> Floats:
        """Return Σ_g s_g P D_i(g) M θ_g, shape (n[, c])."""
        return self.pooled(super().apply(theta))

    def adjoint(self, nu: Floats) -> Floats:
        """Return s_g MᵀD_i(g)Pᵀν for every block, shape (G, p[, c])."""
        return super().adjoint(self.on_rows(nu))

    def matrix(self, block: int) -> Floats:
        """Return s_g P D_i(g) M, shape (n, p)."""
        return self.pooled(super().matrix(block))

    @property
    def _pool(self) -> Any:
        """P as a sparse matrix, shape (n, nK)."""
        from scipy.sparse import csr_array

        rows = len(self.design)
        values = np.full(rows, self.scale)
        return csr_array((values, np.arange(rows), np.arange(0, rows + 1, self.copies)))

    def expression(self, theta: Any) -> Any:
        """Return Σ_g A_g θ_g in cvxpy, ``theta`` a (p, G) or (p, Gc) variable."""
        return self._pool @ super().expression(theta)

    def adjoint_expression(self, nu: Any) -> Any:
        """Return the (p, G) or (p, Gc) cvxpy expression whose columns are A_gᵀν."""
        return super().adjoint_expression(self._pool.T @ nu)
