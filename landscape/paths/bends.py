r"""Curves with trained control points: quadratic Bézier curves and polygonal chains.

Garipov, Izmailov, Podoprikhin, Vetrov & Wilson (NeurIPS 2018) minimise the mean of the objective
over the curve.  A barrier is about its maximum, so here the mean gives way to it:

.. math:: τ \log \frac 1T \sum_i e^{L(θ(t_i))/τ},

with one :math:`t_i` drawn from each of T equal parts of [0, 1] and the temperature τ falling from
(nearly) the mean to (nearly) the maximum.  The ends stay as they are.
"""

from __future__ import annotations

from itertools import pairwise
from math import comb, cos, pi
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape.paths.pieces import Curve, Piece

if TYPE_CHECKING:
    from collections.abc import Callable

    from landscape.architectures.base import Parameters
    from landscape.problem import Problem

    Weights = Callable[[torch.Tensor, int], torch.Tensor]

STRATA = 32
"""Networks of the curve that a step takes."""
CHECKS = 129
"""Networks of the curve by which its controls are compared with those of other steps."""
TEMPERATURES = (1.0, 0.02)
"""First and last, in parts of the objective's spread along the curve."""
NOISE = 1e-2
"""Of the first controls, relative to the weights: neurons that are zero have no gradient."""


def bezier(
    problem: Problem, a: Parameters, b: Parameters, *, steps: int, learning_rate: float, seed: int
) -> list[Piece]:
    """Return a quadratic Bézier curve with a trained control point."""
    middle = _trained(problem, (a, b), 1, _bernstein, steps, learning_rate, seed)
    return [Curve((a, *middle, b))]


def polygon(
    problem: Problem,
    a: Parameters,
    b: Parameters,
    *,
    bends: int,
    steps: int,
    learning_rate: float,
    seed: int,
) -> list[Piece]:
    """Return a chain of segments through trained corners."""
    corners = [a, *_trained(problem, (a, b), bends, _hats, steps, learning_rate, seed), b]
    return [Curve((one, two)) for one, two in pairwise(corners)]


def _bernstein(t: torch.Tensor, controls: int) -> torch.Tensor:
    """Return the weights of the controls of a Bézier curve at t (T,), shape (controls, T)."""
    q = controls - 1
    return torch.stack([comb(q, i) * t**i * (1 - t) ** (q - i) for i in range(controls)])


def _hats(t: torch.Tensor, controls: int) -> torch.Tensor:
    """Return the weights of the corners of a chain at t (T,), shape (controls, T)."""
    corners = torch.arange(controls, dtype=t.dtype)[:, None]
    return (1 - (t * (controls - 1) - corners).abs()).clamp_min(0)


def _trained(
    problem: Problem,
    ends: tuple[Parameters, Parameters],
    count: int,
    weights: Weights,
    steps: int,
    learning_rate: float,
    seed: int,
) -> list[Parameters]:
    """Return control networks by Adam, the best of its course or the straight line's."""
    a, b = ends
    share = torch.arange(1, count + 1, dtype=torch.float64) / (count + 1)
    straight = {k: torch.stack([torch.lerp(a[k], b[k], s) for s in share]) for k in a}
    rng = np.random.default_rng(seed)
    scale = float(torch.cat([v.reshape(-1) for one in ends for v in one.values()]).square().mean())
    scale = scale**0.5 or 1.0
    now = {}
    for k, v in straight.items():
        noise = torch.as_tensor(rng.standard_normal(v.shape))
        now[k] = (v + NOISE * scale * noise).requires_grad_()
    checks = torch.linspace(0.0, 1.0, CHECKS, dtype=torch.float64)
    best = (float(_objectives(problem, ends, straight, weights, checks).max()), straight)
    optimizer = torch.optim.Adam(list(now.values()), lr=learning_rate * scale)
    for step in range(steps):
        done = step / steps
        optimizer.param_groups[0]["lr"] = learning_rate * scale * 0.5 * (1 + cos(pi * done))
        t = torch.as_tensor((np.arange(STRATA) + rng.random(STRATA)) / STRATA)
        values = _objectives(problem, ends, now, weights, t)
        spread = float((values.max() - values.min()).detach())
        fall = TEMPERATURES[0] * (TEMPERATURES[1] / TEMPERATURES[0]) ** done
        temperature = max(fall * spread, 1e-300)
        optimizer.zero_grad()
        (temperature * torch.logsumexp(values / temperature, 0)).backward()
        optimizer.step()
        if step % 10 == 9 or step == steps - 1:
            with torch.no_grad():
                top = float(_objectives(problem, ends, now, weights, checks).max())
            if top < best[0]:
                best = (top, {k: v.detach().clone() for k, v in now.items()})
    return [{k: v[i] for k, v in best[1].items()} for i in range(count)]


def _objectives(
    problem: Problem,
    ends: tuple[Parameters, Parameters],
    inner: Parameters,
    weights: Weights,
    t: torch.Tensor,
) -> torch.Tensor:
    """Return the objectives of the curve's networks at t (T,)."""
    shares = weights(t, len(next(iter(inner.values()))) + 2)
    networks = {
        k: torch.einsum("it,i...->t...", shares, torch.cat([ends[0][k][None], v, ends[1][k][None]]))
        for k, v in inner.items()
    }
    return problem.objective(networks)
