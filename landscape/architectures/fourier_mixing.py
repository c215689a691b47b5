r"""Fourier mixing of tokens, linear, gated or ReLU (Sahiner et al., ICML 2022, arXiv 2205.08078).

A Fourier neural operator multiplies the discrete Fourier transform of the tokens, frequency by
frequency, by free weights; over tokens that is a circular convolution.  With circ(X_i) ∈ R^{s × sd}
whose row t holds the tokens shifted by t, :math:`x_t, x_{t+1}, …, x_{t−1}`,

.. math::

    f_i = \sum_j P\, σ\big(\mathrm{circ}(X_i)\, \mathrm{vec}(W_{1j})\big)\, w_{2j}^⊤, \qquad
    W_{1j} ∈ R^{s × d}, \; w_{2j} ∈ R^c .

The weights are those over tokens (norms of a unitary transform are the same).  Linear:
:math:`f_i = P\, \mathrm{circ}(X_i) Z`, β‖Z‖_* with :math:`Z ∈ R^{sd × c}`; with one output that is
a single head of norm ‖Z‖₂.  Under the mean over tokens linear heads see nothing but the mean token.
With one output ReLU heads price exactly where branch and bound ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from landscape.architectures.tokens import TokenHeads

if TYPE_CHECKING:
    from landscape.architectures.base import Floats


@dataclass(frozen=True)
class FourierMixing(TokenHeads):
    """Circular convolutions over tokens; parameters ``hidden`` (m, s, d), ``output`` (m, 1, c)."""

    name: ClassVar[str] = "fourier_mixing"

    def weights(self, d: int) -> tuple[tuple[int, int], int]:
        """Return (s, d) and 1."""
        return (self.tokens, d), 1

    def scores(self, hidden: torch.Tensor, tokens: torch.Tensor, pooled: bool) -> torch.Tensor:
        """Return circ(X) vec(W_1) as one column, averaged if pooled."""
        shifts = [tokens.roll(-t, dims=1) for t in range(tokens.shape[1])]
        rows = torch.stack(shifts, dim=1).flatten(2)  # (n, s, sd)
        rows = rows.mean(1, keepdim=True) if pooled else rows
        n, s, _ = rows.shape
        return (hidden.flatten(-2) @ rows.flatten(0, 1).mT).unflatten(-1, (n, s, 1))

    def mixed(self, activated: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return σ itself."""
        return activated

    def norms(self, tokens: Floats) -> Floats:
        """Return ‖X‖_F for every token."""
        n, s, _ = tokens.shape
        return np.broadcast_to(np.linalg.norm(tokens, axis=(1, 2))[:, None, None], (n, s, 1))
