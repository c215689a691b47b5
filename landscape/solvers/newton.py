"""The Newton system of an interior point: a factorisation, and conjugate gradients on top of it.

Blocks have one matrix each, and what joins them is the fit: a Schur complement of one row a sample.
Late in the iteration blocks are hopelessly ill-conditioned, so that the factorisation only
preconditions conjugate gradients on the true operator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

CONJUGATE = 20
"""Most steps of conjugate gradients in one solve."""


class NewtonSystem(ABC):
    """The Newton system of one iteration, factored.

    Args:
        blocks: with ``apply``, ``adjoint`` and the free part's map ``free`` (n, q).
        L: curvature of the loss, shape (n,).
        accuracy: relative residual to which systems are solved.
    """

    schur: Tensor
    """Cholesky factor of I + L^½ (Σ_g A_g H_g⁻¹ A_gᵀ) L^½, set by subclasses."""
    sound: bool
    """Whether all factorisations exist."""

    def __init__(self, blocks: Any, L: Tensor, accuracy: float) -> None:
        self.blocks, self.L, self.root, self.accuracy = blocks, L, L.sqrt(), accuracy

    @abstractmethod
    def inverse(self, r: Tensor) -> Tensor:
        """Return H_g⁻¹ r_g for every block, shape (G, p)."""

    @abstractmethod
    def curved(self, x: Tensor) -> Tensor:
        """Return H_g x_g for every block, as accurately as can be, shape (G, p)."""

    def eliminate(self) -> None:
        """Factor what the free part adds, once the Schur complement is."""
        free = self.blocks.free
        if free.shape[1]:
            seen = self.root[:, None] * free
            self.seen = torch.cholesky_solve(seen, self.schur)
            self.small = torch.linalg.cholesky_ex(seen.T @ self.seen)[0]

    def precondition(self, r: Tensor, r0: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the inverse of the factored system."""
        b = self.blocks
        u = self.root * b.apply(self.inverse(r))
        u = torch.cholesky_solve(u[:, None], self.schur)[:, 0]
        c = r0
        if len(r0):
            c = torch.cholesky_solve((r0 - b.free.T @ (self.root * u))[:, None], self.small)[:, 0]
            u = u + self.seen @ c
        return self.inverse(r - b.adjoint(self.root * u)), c

    def operate(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the true system, matrix-free."""
        b = self.blocks
        bent = self.L * (b.apply(x) + b.free @ c)
        return b.adjoint(bent) + self.curved(x), b.free.T @ bent

    def solve(self, r: Tensor, r0: Tensor) -> tuple[Tensor, Tensor]:
        """Return the solution by preconditioned conjugate gradients; far from the end, roughly."""
        x, c = self.precondition(r, r0)
        moved, free_moved = self.operate(x, c)
        rest, rest0 = r - moved, r0 - free_moved
        size = self.accuracy * float(_dot(r, r0, r, r0)) ** 0.5
        if not float(_dot(rest, rest0, rest, rest0)) ** 0.5 > size:
            return x, c
        d, d0 = e, e0 = self.precondition(rest, rest0)
        product = _dot(rest, rest0, e, e0)
        for _ in range(CONJUGATE):
            moved, free_moved = self.operate(d, d0)
            length = product / _dot(d, d0, moved, free_moved)
            x, c = x + length * d, c + length * d0
            rest, rest0 = rest - length * moved, rest0 - length * free_moved
            if not float(_dot(rest, rest0, rest, rest0)) ** 0.5 > size:
                break
            e, e0 = self.precondition(rest, rest0)
            product, before = _dot(rest, rest0, e, e0), product
            d, d0 = e + product / before * d, e0 + product / before * d0
        return x, c


def _dot(a: Tensor, a0: Tensor, b: Tensor, b0: Tensor) -> Tensor:
    return (a * b).sum() + (a0 * b0).sum()
