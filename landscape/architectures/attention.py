r"""Self-attention heads, linear, gated or ReLU (Sahiner et al., ICML 2022, arXiv 2205.08078).

.. math::

    f_i = \sum_j P\, σ(X_i W_{1j} X_i^⊤)\, X_i W_{2j}, \qquad
    W_{1j} ∈ R^{d × d}, \; W_{2j} ∈ R^{d × c}

with query and key weights in one matrix and value and output weights in another, P the mean over
tokens or nothing, and :math:`R = \tfrac12 \sum_j (\|W_{1j}\|_F^2 + \|W_{2j}\|_F^2)`.  Linear heads:

.. math::

    f_i = P \sum_{kl} (X_i^⊤X_i)_{kl}\, X_i Z^{(k,l)}, \qquad
    \min_Z ℓ(f, y) + β \|Z\|_*, \quad Z ∈ R^{d^2 × dc} \text{ with blocks } Z^{(k,l)} ∈ R^{d × c};

the number of heads of an optimal network is the rank of Z.  See `landscape.architectures.tokens`
for gated and ReLU heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from landscape.architectures.tokens import TokenHeads, by_sample

if TYPE_CHECKING:
    import torch

    from landscape.architectures.base import Floats


@dataclass(frozen=True)
class Attention(TokenHeads):
    """Self-attention without softmax; parameters ``hidden`` (m, d, d) and ``output`` (m, d, c)."""

    name: ClassVar[str] = "attention"

    def weights(self, d: int) -> tuple[tuple[int, int], int]:
        """Return (d, d) and d."""
        return (d, d), d

    def scores(self, hidden: torch.Tensor, tokens: torch.Tensor, pooled: bool) -> torch.Tensor:
        """Return X W_1 Xᵀ, its rows averaged if pooled."""
        queries = tokens.mean(1, keepdim=True) if pooled else tokens
        n, s, d = queries.shape
        asked = (queries.reshape(n * s, d) @ hidden).unflatten(-2, (n, s))
        return by_sample(asked, tokens.mT)

    def mixed(self, activated: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return σ X."""
        return by_sample(activated, tokens)

    def norms(self, tokens: Floats) -> Floats:
        """Return ‖x_t‖‖x_u‖²."""
        lengths = np.linalg.norm(tokens, axis=2)
        return lengths[:, :, None] * lengths[:, None, :] ** 2
