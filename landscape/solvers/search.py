r"""Local search for neurons that price above β: the generator of columns.

The price of a unit neuron u with output sign s is :math:`φ(u) = s\,ν^⊤(Xu)_+`, or with a slope α
(`leak`) below zero in the place of 0: piecewise linear on the sphere, with very many local maxima.
Many starts climb together by normalised gradient steps; those that matter are then polished
exactly: within a cell the maximum is one cone projection, and a row k that binds it with multiplier
λ_k is crossed as long as :math:`λ_k + (1 − α) sν_k > 0`, because φ then still rises beyond it.

What this finds is attained, so it makes columns; that nothing better exists is not its claim
(`landscape.pricing` bounds the supremum apart).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.nonnegative import least_squares
from landscape.pricing import projection_weights
from landscape.solvers.blocks import threads_for

HOPS = 60


class Neurons(NamedTuple):
    """Neurons found, best first.

    Attributes:
        directions: unit maximisers, often on the boundary of their cells, shape (m, p).
        masks: the cells, shape (m, n), boolean.
        gates: directions strictly inside the cells, shape (m, p).
        prices: φ at the directions, shape (m,).
    """

    directions: NDArray[np.float64]
    masks: NDArray[np.bool_]
    gates: NDArray[np.float64]
    prices: NDArray[np.float64]


def climb(
    X: Tensor, penalised: int, pull: Tensor, starts: Tensor, steps: int = 40, leak: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Climb φ from many starts at once.

    Args:
        X: rows, shape (n, p), penalised coordinates first.
        penalised: how many coordinates the unit norm counts.
        pull: s ν, shape (n,).
        starts: directions, shape (m, p).
        steps: gradient steps, their lengths falling from 1/2 to 1/50.
        leak: slope of the activation below zero.

    Returns:
        The best directions on each climb, of unit norm, and their prices.
    """
    u = starts / starts[:, :penalised].norm(dim=1, keepdim=True)
    best, price = u, None
    for step in range(steps + 1):
        before = u @ X.T
        open_ = (before > 0).to(X.dtype)
        if leak:
            open_.mul_(1.0 - leak).add_(leak)
        value = (before * open_) @ pull
        if price is None:
            price = value
        else:
            better = value > price
            price = torch.where(better, value, price)
            best = torch.where(better[:, None], u, best)
        if step == steps:
            break
        slope = (open_ * pull) @ X
        along = (slope[:, :penalised] * u[:, :penalised]).sum(1, keepdim=True)
        slope = slope - along * u
        length = 0.5 * 0.04 ** (step / steps)
        u = u + length * slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-300)
        u = u / u[:, :penalised].norm(dim=1, keepdim=True).clamp_min(1e-300)
    assert price is not None
    return best, price


def spread(directions: Tensor, prices: Tensor, most: int, cosine: float) -> Tensor:
    """Return indices of the best directions, skipping those within an angle of a better one."""
    order = torch.argsort(prices, descending=True, stable=True)
    unit = directions[order] / directions[order].norm(dim=1, keepdim=True)
    close = (unit @ unit.T > cosine).cpu().numpy()
    dead, taken = np.zeros(len(order), dtype=bool), []
    for i in range(len(order)):
        if not dead[i]:
            taken.append(i)
            if len(taken) == most:
                break
            dead |= close[i]
    return order[torch.as_tensor(taken, dtype=torch.long, device=order.device)]


def polish(
    X: NDArray[np.float64],
    penalised: NDArray[np.bool_],
    pull: NDArray[np.float64],
    direction: NDArray[np.float64],
    leak: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], float]:
    """Return the local maximum of φ reached from a direction by exact cell-to-cell ascent.

    Args:
        X: rows, shape (n, p).
        penalised: which coordinates the unit norm counts, shape (p,).
        pull: s ν, shape (n,).
        direction: where to begin, shape (p,).
        leak: slope of the activation below zero.

    Returns:
        The unit maximiser (p,), its cell's mask (n,), and its price.
    """
    weight, kink = projection_weights(X, penalised), (1.0 - leak) * pull
    mask = X @ direction > 0
    best = (direction, mask, -np.inf)
    for _ in range(HOPS):
        rows = np.where(mask, 1.0, -1.0)[:, None] * X
        xi = ((np.where(mask, 1.0, leak) if leak else mask) * pull) @ X
        multipliers, _ = least_squares((rows * weight).T, -xi * weight)
        top = xi + rows.T @ multipliers
        price = float(np.linalg.norm(top[penalised]))
        if not price > best[2] * (1 + 1e-12) or price <= 0:
            break
        unit = top * weight**2
        best = (unit / np.linalg.norm(unit[penalised]), mask, price)
        crossed = (multipliers > 0) & (multipliers + kink > 1e-12 * np.abs(kink))
        if not crossed.any():
            break
        mask = mask ^ crossed
    return best


def inner_gate(
    X: NDArray[np.float64], mask: NDArray[np.bool_], direction: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a direction strictly inside a cell from one on its boundary (or what comes close)."""
    lengths = np.linalg.norm(X, axis=1)
    side = np.where(mask, 1.0, -1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        slack = np.where(lengths > 0, side * (X @ direction) / lengths, np.inf)
    slack = slack / np.linalg.norm(direction)
    tight = slack <= 1e-7
    if not tight.any():
        return direction
    rows = (side / np.where(lengths > 0, lengths, 1.0))[:, None] * X
    inward = np.linalg.lstsq(rows[tight], np.ones(tight.sum()))[0]
    change = rows[~tight] @ inward
    falling = change < 0
    reach = (slack[~tight][falling] / -change[falling]).min(initial=1.0 / np.linalg.norm(inward))
    return direction / np.linalg.norm(direction) + 0.5 * reach * inward


def find(
    X: NDArray[np.float64],
    penalised: NDArray[np.bool_],
    pull: NDArray[np.float64],
    beta: float,
    starts: NDArray[np.float64],
    near: NDArray[np.float64],
    most: int,
    sharp: bool,
    tolerance: float,
    leak: float = 0.0,
) -> tuple[Neurons, float]:
    """Return distinct neurons that price above β (1 + tolerance), and the best price seen.

    Args:
        X: rows, shape (n, p).
        penalised: which coordinates the unit norm counts, shape (p,).
        pull: s ν, shape (n,).
        beta: the price to beat.
        starts: directions to climb from, shape (m, p).
        near: directions to polish without climbing (the active neurons), shape (k, p).
        most: how many neurons to return at most.
        sharp: polish every distinct climb that comes within 2 % of β; else only climb.
        tolerance: relative.
        leak: slope of the activation below zero.
    """
    order = np.argsort(~penalised, kind="stable")
    count = int(penalised.sum())
    tensor = torch.as_tensor(np.ascontiguousarray(X[:, order]))
    with threads_for(tensor.numel()):
        tops, prices = climb(
            tensor,
            count,
            torch.as_tensor(pull),
            torch.as_tensor(starts[:, order].copy()),
            leak=leak,
        )
    found = np.empty(tops.shape)
    found[:, order] = tops.numpy()
    largest = float(prices.max())
    bar = beta * (0.98 if sharp else 1 + tolerance)
    chosen = torch.nonzero(prices > bar)[:, 0]
    kept = chosen[spread(tops[chosen], prices[chosen], most, 0.9999 if sharp else 0.995)]
    candidates = found[kept.numpy()]
    if not sharp:
        masks = candidates @ X.T > 0
        values = prices[kept].numpy()
        return Neurons(candidates, masks, candidates, values), largest
    neurons: dict[bytes, tuple[NDArray[np.float64], NDArray[np.bool_], float]] = {}
    for direction in [*near, *candidates]:
        one = polish(X, penalised, pull, direction, leak)
        if one[2] > beta * (1 + tolerance):
            neurons.setdefault(np.packbits(one[1]).tobytes(), one)
        largest = max(largest, one[2])
    best = sorted(neurons.values(), key=lambda one: -one[2])[:most]
    p = X.shape[1]
    return (
        Neurons(
            np.array([one[0] for one in best]).reshape(-1, p),
            np.array([one[1] for one in best]).reshape(-1, len(X)),
            np.array([inner_gate(X, one[1], one[0]) for one in best]).reshape(-1, p),
            np.array([one[2] for one in best]),
        ),
        largest,
    )
