"""Alternating gradients: how WGANs are trained, many seeds at once, beside the saddle points."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape.errors import NotConverged, above_zero, whole, wholes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Parameters
    from landscape.generative.wgan import Game

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Alternated:
    """Games played by gradients.

    Attributes:
        game: what was played.
        discriminators: at the end, with a leading axis over seeds.
        samples: generated along training, shape (T, S, m, d).
        steps: where the trace was taken, shape (T,).
    """

    game: Game
    discriminators: Parameters
    samples: Floats
    steps: NDArray[np.int64]

    @property
    def pooled(self) -> Floats:
        """The generators of the second half of the trace as one, its mixture, shape (S, k, d)."""
        half = self.samples[len(self.samples) // 2 :]
        return np.moveaxis(half, 1, 0).reshape(half.shape[1], -1, half.shape[-1])

    @property
    def energies(self) -> Floats:
        """½E‖g‖² along training, shape (T, S)."""
        return 0.5 * (self.samples**2).sum(-1).mean(-1)

    @property
    def mismatches(self) -> Floats:
        """What neurons price the samples at along training (`Game.mismatch`), shape (T, S)."""
        return np.array([[self.game.mismatch(G) for G in row] for row in self.samples])


def alternate(
    game: Game,
    seeds: Iterable[int],
    *,
    samples: int | None = None,
    width: int = 32,
    steps: int = 2000,
    rate: float = 0.02,
    lookahead: bool = True,
    record: int = 50,
) -> Alternated:
    r"""Play min_G max_D by gradients: an ascent of D, then a descent of G at the new D.

    The game is flat along quadratic discriminators at its saddle point, where plain steps circle
    outward; with ``lookahead`` each player's gradient is taken at a trial step (extragradient).
    With linear neurons that comes to the saddle point.  With quadratic and ReLU ones it stays near
    it and goes on circling: in the analysis `generative` energies end within 3 % of the value, but
    prices at 1.5 and 1.7 β (medians over seeds), so an energy below the value violates no bound.  A
    rate that falls as a cosine did not help.  The generators along the way, mixed (`pooled`), are
    closer, at 1.3 and 1.2 β: V is linear in the distribution that is generated.

    Args:
        game: what is played.
        seeds: one game a seed.
        samples: m, that start as standard normal noise; the number of data by default.
        width: neurons of the discriminator.
        steps: of both players.
        rate: learning rate of both, for gradients of a sample's own share of V.
        lookahead: extragradient.
        record: steps between entries of the trace, about.

    Raises:
        BadInput: naming the argument.
        NotConverged: if a game leaves the range of numbers.
    """
    seeds = wholes("seeds", seeds, least=0)
    m = len(game.X) if samples is None else whole("samples", samples)
    for name, count in (("steps", steps), ("record", record), ("width", width)):
        whole(name, count)
    above_zero("rate", rate)
    noise = [np.random.default_rng(seed).standard_normal((m, game.X.shape[1])) for seed in seeds]
    G, X = torch.tensor(np.array(noise)), torch.as_tensor(game.X)
    first = game.architecture.initial(game.beside(noise[0])[0], width, seeds)
    constant = {"constant": first.pop("constant")} if "constant" in first else {}
    names, D = list(first), list(first.values())  # the constant cancels in E_X D − E_G D

    def value(G: torch.Tensor, *D: torch.Tensor) -> torch.Tensor:
        own = {**dict(zip(names, D, strict=True)), **constant}
        forward, penalty = game.architecture.forward, game.architecture.penalty
        told = forward(own, X).mean(-1) - torch.vmap(forward)(own, G).mean(-1)
        return (0.5 * (G**2).sum(-1).mean(-1) + told - game.beta * penalty(own)).sum()

    def ascent(G: torch.Tensor, D: list[torch.Tensor]) -> list[torch.Tensor]:
        free = [v.detach().requires_grad_(True) for v in D]
        return list(torch.autograd.grad(value(G, *free), free))

    def descent(G: torch.Tensor, D: list[torch.Tensor]) -> torch.Tensor:
        free = G.detach().requires_grad_(True)
        return m * torch.autograd.grad(value(free, *D), free)[0]

    taken, kept = [], []
    for step in range(steps + 1):
        if step % record == 0 or step == steps:
            if not bool(torch.isfinite(G).all()):
                raise NotConverged(f"A game diverged before step {step}: lower rate ({rate:g}).")
            taken.append(step)
            kept.append(G.numpy().copy())
        if step < steps:
            trial_G, trial_D = G, D
            if lookahead:
                trial_D = [v + rate * g for v, g in zip(D, ascent(G, D), strict=True)]
                trial_G = G - rate * descent(G, D)
            D = [v + rate * g for v, g in zip(D, ascent(trial_G, trial_D), strict=True)]
            G = G - rate * descent(trial_G if lookahead else G, trial_D if lookahead else D)
    ended = {**dict(zip(names, D, strict=True)), **constant}
    return Alternated(game, ended, np.array(kept), np.array(taken))
