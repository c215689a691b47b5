r"""Heads over sequences of tokens: what attention, mixers and Fourier mixing have in common.

A sample is a sequence :math:`X_i ∈ R^{s × d}`, a row of X with its tokens one after the other.
Head j sees :math:`S = S(W_{1j}; X_i) ∈ R^{s × r}`, linear in its weights, and puts out

.. math::

    f_i = \sum_j P\, σ\big(S(W_{1j}; X_i)\big)\, B_i\, W_{2j}, \qquad
    R = \tfrac12 \sum_j \big(\|W_{1j}\|_F^2 + \|W_{2j}\|_F^2\big),

:math:`B_i ∈ R^{r × e}` given by the data and P the mean over tokens, or the identity: c numbers for
every sample, or for every token.  σ is the identity ("linear"), a multiplication by fixed gates
:math:`1[S(H; X_i) ≥ 0]` with one H of a drawn set for every head ("gated"), or the ReLU.

*Linear and gated heads are exact in polynomial time.*  Their outputs are linear in
:math:`Z = \mathrm{vec}(W_1)\,\mathrm{vec}(W_2)^⊤` and R charges at least the nuclear norm, so that

.. math:: \min_{Z_1, …, Z_P} ℓ\Big(\sum_g ⟨Φ_g, Z_g⟩, y\Big) + β \sum_g \|Z_g\|_*

(one block Z for linear heads).  At a dual point a block prices at the spectral norm of
:math:`Φ_g^*ν`; an optimal network has as many heads as the blocks have rank (Sahiner et al.,
*Unraveling attention via convex duality*, ICML 2022, arXiv 2205.08078).  *ReLU heads* have the same
program over cones of pattern; their prices are bounded (`landscape.pricing.heads`), not computed.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from landscape.architectures.heads import Heads
from landscape.architectures.rows import seeded_normal
from landscape.errors import BadInput, unknown, whole
from landscape.pricing.heads import ReLUHeads, SpectralHeads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Oracle, Units
    from landscape.problem import Problem

ACTIVATIONS = ("linear", "gated", "relu")
POOLING = ("mean", "none")
STRIDE = 10_000
"""Between the seeds of two sets of gates."""


@dataclass(frozen=True)
class TokenHeads(Heads):
    """A sum of heads over sequences of tokens; subclasses say what a head sees and mixes.

    Attributes:
        tokens: s, how many tokens a row of X holds, one after the other.
        size: d, entries of a token; None takes what the data have.
        activation: "linear", "gated" or "relu".
        pooling: "mean" for the mean over tokens, targets (n,) or (n, c); "none" for c outputs of
            every token, targets (n, s·c), a token's side by side.
        gate_count: how many gates H are drawn (gated heads).
        gate_seed: of the gates.
    """

    tokens: int = 2
    size: int | None = None
    activation: Literal["linear", "gated", "relu"] = "linear"
    pooling: Literal["mean", "none"] = "mean"
    gate_count: int = 4
    gate_seed: int = 0

    def __post_init__(self) -> None:
        """Refuse unknown choices and numbers that are no counts."""
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.pooling not in POOLING:
            raise unknown("pooling", self.pooling, POOLING)
        whole("tokens", self.tokens)
        if self.size is not None:
            whole("size", self.size)
        whole("gate_count", self.gate_count)
        whole("gate_seed", self.gate_seed, 0)

    @property
    def inputs(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many inputs it takes, where the size of tokens is given."""
        return None if self.size is None else self.tokens * self.size

    @property
    def one_sign(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Heads that are linear in W_1 take their sign from it."""
        return self.bilinear

    @property
    def bilinear(self) -> bool:
        """Whether heads of one gate are linear in both matrices: all but ReLU heads."""
        return self.activation != "relu"

    @abstractmethod
    def weights(self, d: int) -> tuple[tuple[int, int], int]:
        """Return the shape of W_1 and the rows e of W_2, where tokens have d entries."""

    @abstractmethod
    def scores(self, hidden: torch.Tensor, tokens: torch.Tensor, pooled: bool) -> torch.Tensor:
        """Return S (…, n, s, r) of weights (…, a, b) at tokens (n, s, d), linear in the weights.

        With ``pooled`` the mean over the s rows, (…, n, 1, r).
        """

    @abstractmethod
    def mixed(self, activated: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return σ(S) B, shape (…, n, s', e), of σ(S) (…, n, s', r)."""

    @abstractmethod
    def norms(self, tokens: Floats) -> Floats:
        """Return bounds of |S_tr| over ‖W_1‖ ≤ 1 times the norm of B's row r, shape (n, s, r)."""

    def config(self) -> dict[str, Any]:
        """Return name and choices; gates only where there are some."""
        choices = super().config()
        if self.activation != "gated":
            del choices["gate_count"], choices["gate_seed"]
        if self.size is None:
            del choices["size"]
        return choices

    def check(self, X: Floats, y: Floats) -> None:
        """Refuse rows that are no sequences, and targets that do not fit the pooling."""
        n, columns = X.shape
        if self.inputs not in (None, columns):
            raise BadInput(
                f"X has {columns} columns: architecture {self.label} takes {self.tokens} tokens of "
                f"{self.size} entries, {self.inputs} columns."
            )
        if columns % self.tokens:
            raise BadInput(
                f"X has {columns} columns: architecture {self.label} reads rows as {self.tokens} "
                f"tokens, so it must have a multiple of {self.tokens} columns."
            )
        if self.pooling == "none" and (len(y) // n) % self.tokens:
            raise BadInput(
                f"y has {len(y) // n} numbers a sample: with pooling='none' architecture "
                f"{self.label} wants some for each of {self.tokens} tokens."
            )

    def sequences(self, X: torch.Tensor) -> torch.Tensor:
        """Return the tokens, shape (n, s, d)."""
        return X.reshape(len(X), self.tokens, -1)

    def _rows(self) -> int:
        """Return how many rows of outputs a sample has."""
        return 1 if self.pooling == "mean" else self.tokens

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with W_1 ~ N(0, scale²/ab), W_2 ~ N(0, scale²/em), gates by turns."""
        shape, e = self.weights(problem.X.shape[1] // self.tokens)
        c, p = problem.outputs // self._rows(), shape[0] * shape[1]
        draws = seeded_normal(seeds, width, p + e * c)
        first, second = draws[..., :p], draws[..., p:]
        parameters = {
            "hidden": (scale / p**0.5 * first).unflatten(-1, shape),
            "output": (scale / (e * width) ** 0.5 * second).unflatten(-1, (e, c)),
        }
        if self.activation == "gated":
            turns = torch.arange(width) + torch.as_tensor([int(s) for s in seeds])[:, None]
            parameters["gate"] = (turns % self.gate_count).double()
        return parameters

    def drawn(self, d: int) -> torch.Tensor:
        """Return the gates H, shape (P, a, b), where tokens have d entries; fewer are the first."""
        shape, _ = self.weights(d)
        begin = STRIDE * self.gate_seed
        return seeded_normal(range(begin, begin + self.gate_count), *shape)

    def each(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return the outputs of every head, shape (…, n s' c, m): samples, tokens, outputs."""
        tokens, gate = self.sequences(X), parameters.get("gate")
        pooled = self._mixed(parameters["hidden"], gate, tokens)  # (…, m, n, s', e)
        return (pooled.flatten(-3, -2) @ parameters["output"]).flatten(-2).mT

    def _mixed(
        self, hidden: torch.Tensor, gate: torch.Tensor | None, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Return P σ(S) B of every head, shape (…, m, n, s', e)."""
        mean = self.pooling == "mean"
        if self.activation == "linear":
            return self.mixed(self.scores(hidden, tokens, mean), tokens)
        S = self.scores(hidden, tokens, False)
        S = torch.relu(S) if gate is None else S * self._masks(tokens)[self._numbers(gate)]
        return self.mixed(S.mean(-2, keepdim=True) if mean else S, tokens)

    def _numbers(self, gate: torch.Tensor) -> torch.Tensor:
        """Return the numbers of gates, refusing those that no gate has."""
        numbers = gate.long()
        if bool(((numbers != gate) | (numbers < 0) | (numbers >= self.gate_count)).any()):
            raise BadInput(
                f"network's gate must hold whole numbers from 0 to {self.gate_count - 1}: "
                f"architecture {self.label} has {self.gate_count} gates."
            )
        return numbers

    def _masks(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return 1[S(H) ≥ 0] of every gate, shape (P, n, s, r)."""
        H = self.drawn(tokens.shape[-1]).to(tokens)
        return (self.scores(H, tokens, False) >= 0).to(tokens.dtype)

    def reach(self, problem: Problem) -> Floats:
        """Return Σ_r max|S_tr|‖B_r‖ for every output, averaged over tokens where these are."""
        tokens = problem.X.reshape(len(problem.X), self.tokens, -1)
        sums = self.norms(tokens).sum(-1)
        sums = sums.mean(1, keepdims=True) if self.pooling == "mean" else sums
        return np.repeat(sums.reshape(-1), len(problem.y) // sums.size)

    def first(self, problem: Problem, seed: int) -> Units:
        """Return random heads, one for every gate."""
        count = self.gate_count if self.activation == "gated" else 1
        return self.units({k: v[0] for k, v in self.initial(problem, count, [seed]).items()})

    def features(self, problem: Problem) -> Floats:
        """Return Φ: what unit weights W_1 put before W_2, shape (P, ab, e, n s')."""
        tokens = self.sequences(torch.as_tensor(problem.X))
        shape, _ = self.weights(tokens.shape[-1])
        basis = torch.eye(shape[0] * shape[1], dtype=torch.float64).unflatten(-1, shape)
        if self.activation == "linear":
            blocks = [self._mixed(basis, None, tokens)]
        else:
            every = torch.zeros(len(basis), dtype=torch.float64)
            blocks = [self._mixed(basis, every + g, tokens) for g in range(self.gate_count)]
        return torch.stack([one.flatten(1, 2).mT for one in blocks]).contiguous().numpy()

    def rows(self, problem: Problem) -> tuple[Floats, Floats]:
        """Return what ReLUs see, A (n s', R, p), and what they are spread to, B (n s', R, e)."""
        tokens = self.sequences(torch.as_tensor(problem.X))
        shape, _ = self.weights(tokens.shape[-1])
        basis = torch.eye(shape[0] * shape[1], dtype=torch.float64).unflatten(-1, shape)
        A = self.scores(basis, tokens, False).movedim(0, -1)  # (n, s, r, p)
        n, s, r, p = A.shape
        B = self.mixed(torch.eye(r, dtype=torch.float64).expand(n, r, r), tokens)  # (n, r, e)
        if self.pooling == "none":
            return A.reshape(n * s, r, p).numpy(), B.repeat_interleave(s, 0).numpy()
        return A.reshape(n, s * r, p).numpy(), (B / s).repeat(1, s, 1).numpy()

    def whole(self, directions: Floats, d: int) -> Floats:
        """Return the first matrices (m, a, b) of directions over what ReLUs see."""
        return directions.reshape(-1, *self.weights(d)[0])

    def directions(self, hidden: Floats) -> Floats:
        """Return the directions (m, p) of first matrices, the inverse of `whole`."""
        return hidden.reshape(len(hidden), -1)

    def oracle(self, problem: Problem, effort: int) -> Oracle:
        """Return what prices every head: spectral norms of the blocks, or bounds for ReLU."""
        d, reach = problem.X.shape[1] // self.tokens, self.reach(problem)
        shape, e = self.weights(d)
        second = e, problem.outputs // self._rows()
        if self.activation == "relu":
            whole = partial(self.whole, d=d)
            return ReLUHeads(partial(self.rows, problem), whole, reach, second, effort)
        terms, gated = problem.X.shape[1] * self.tokens, self.activation == "gated"
        return SpectralHeads(partial(self.features, problem), reach, (shape, second), terms, gated)


def by_sample(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return left (…, n, a, b) times right (n, b, c) as one large product a sample."""
    front = left.movedim(-3, 0)
    product = front.reshape(len(right), -1, right.shape[1]) @ right
    return product.reshape(*front.shape[:-1], right.shape[2]).movedim(0, -3)
