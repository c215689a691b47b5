"""Blocks as sums of components of rank one, and straight steps between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from landscape.solvers.groups import Groups

Steps = tuple[Tensor, Tensor, Tensor]
"""Steps or slopes in W, A and t."""
DUST = 1e-13
"""Singular values below this, relative to the largest of all, are rounding."""


class Components(NamedTuple):
    """Components w_j a_jᵀ of blocks.

    Attributes:
        W: shape (p, R).
        A: shape (c, R).
        block: to which block each belongs, shape (R,).
    """

    W: Tensor
    A: Tensor
    block: Tensor


def decomposed(theta: Tensor) -> Components:
    """Return balanced components of blocks (G, p, c): one for every singular value."""
    block = torch.nonzero(theta.flatten(1).any(1))[:, 0]
    U, sizes, Vh = torch.linalg.svd(theta[block], full_matrices=False)
    largest = float(sizes.max()) if len(block) else 0.0
    where = torch.nonzero(sizes > DUST * largest)
    g, j = where[:, 0], where[:, 1]
    root = sizes[g, j].sqrt()
    return Components(root * U[g, :, j].T, root * Vh[g, j].T, block[g])


def assembled(b: Groups, parts: Components) -> Tensor:
    """Return the blocks (G, p, c) of components."""
    theta = b.X.new_zeros(b.size, b.p, b.outputs)
    return theta.index_add_(0, parts.block, torch.einsum("pr,cr->rpc", parts.W, parts.A))


def straightened(
    b: Groups, parts: Components, fit: Tensor, t: Tensor, d: Steps, bent: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the lowest point on the line through the blocks along d, or one at hand if lower.

    The objective is convex on the line, and falls wherever that of the factors does.

    Args:
        b: the program.
        parts: components at the point.
        fit: its outputs, shape (n, c).
        t: its free part.
        d: step in W, A and t; the line is tangent to it.
        bent: blocks and free part that the step of the factors leads to.
    """
    (W, A, block), (d_W, d_A, d_t) = parts, d
    blocks = torch.unique(block)
    both = Components(torch.cat([d_W, W], 1), torch.cat([A, d_A], 1), block.repeat(2))
    here, move = assembled(b, parts)[blocks], assembled(b, both)[blocks]
    along = b.apply(move, blocks) + b.free @ d_t

    def value(length: float) -> float:
        sizes = torch.linalg.svdvals(here + length * move)
        return b.value(fit + length * along) + b.beta * float(sizes.sum())

    start, length, lowest = value(0.0), 1.0, value(1.0)
    factor = 2.0 if value(2.0) < lowest else 0.5
    while 1e-9 < length < 1e9:
        following = value(factor * length)
        if following >= lowest and lowest < start:
            break
        length, lowest = factor * length, following
    theta, free = bent
    other = b.value(b.apply(theta[blocks], blocks) + b.free @ free)
    if lowest >= other + b.beta * float(torch.linalg.svdvals(theta[blocks]).sum()):
        return bent
    moved = torch.zeros_like(theta).index_copy_(0, blocks, here + length * move)
    return moved, t + length * d_t
