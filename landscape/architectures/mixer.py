r"""MLP-mixer blocks, linear, gated or ReLU (Sahiner et al., ICML 2022, arXiv 2205.08078).

.. math::

    f_i = \sum_j P\, σ(W_{1j} X_i)\, W_{2j}, \qquad W_{1j} ∈ R^{s × s}, \; W_{2j} ∈ R^{d × c}

mixes tokens by W_1 and features by W_2.  Linear blocks: :math:`f_i = P \sum_{kl} (X_i)_{kl}
Z^{(k,l)}`, :math:`Z ∈ R^{s^2 × dc}` with blocks :math:`Z^{(k,l)} ∈ R^{s × c}`, and β‖Z‖_* is what R
charges.

Under the mean over tokens the rows of W_1 are interchangeable.  A ReLU block of norm one then does
best with equal rows: h(w), the price of one row, has degree one, so Σ_t h(w_t) ≤ max h · Σ‖w_t‖ ≤
√s max h.  Prices are suprema over R^s, not R^{s²}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from landscape.architectures.tokens import TokenHeads

if TYPE_CHECKING:
    import torch

    from landscape.architectures.base import Floats
    from landscape.problem import Problem


@dataclass(frozen=True)
class Mixer(TokenHeads):
    """Blocks of an MLP-mixer; parameters ``hidden`` (m, s, s) and ``output`` (m, d, c)."""

    name: ClassVar[str] = "mixer"

    def weights(self, d: int) -> tuple[tuple[int, int], int]:
        """Return (s, s) and d."""
        return (self.tokens, self.tokens), d

    def scores(self, hidden: torch.Tensor, tokens: torch.Tensor, pooled: bool) -> torch.Tensor:
        """Return W_1 X, its rows averaged if pooled."""
        rows = hidden.mean(-2, keepdim=True) if pooled else hidden
        n, _, d = tokens.shape
        product = rows @ tokens.movedim(1, 0).reshape(self.tokens, n * d)
        return product.unflatten(-1, (n, d)).movedim(-2, -3)

    def mixed(self, activated: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return σ itself."""
        return activated

    def norms(self, tokens: Floats) -> Floats:
        """Return the norms of the columns of X, for every token."""
        n, s, d = tokens.shape
        return np.broadcast_to(np.linalg.norm(tokens, axis=1)[:, None, :], (n, s, d))

    def rows(self, problem: Problem) -> tuple[Floats, Floats]:
        """Return what ReLUs see and are spread to; under the mean, of one row of W_1."""
        if self.pooling == "none":
            return super().rows(problem)
        n, s = len(problem.X), self.tokens
        A = problem.X.reshape(n, s, -1).transpose(0, 2, 1)  # (n, d, s)
        B = np.broadcast_to(np.eye(A.shape[1]) / s**0.5, (n, A.shape[1], A.shape[1]))
        return A, B

    def whole(self, directions: Floats, d: int) -> Floats:
        """Return W_1 with equal rows of norm 1/√s under the mean, else the direction's matrix."""
        if self.pooling == "none":
            return super().whole(directions, d)
        return np.repeat(directions[:, None, :], self.tokens, axis=1) / self.tokens**0.5

    def directions(self, hidden: Floats) -> Floats:
        """Return the mean row times √s under the mean; it is the direction of equal rows."""
        if self.pooling == "none":
            return super().directions(hidden)
        return hidden.mean(axis=1) * self.tokens**0.5
