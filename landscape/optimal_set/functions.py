"""When mixtures of neurons are zero as functions, at every input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from landscape.optimal_set.directions import SAME

if TYPE_CHECKING:
    from landscape.programs import Floats


def vanish(
    null: Floats, blocks: Floats, gates: Floats, shifts: Floats, inputs: int, tolerance: float
) -> bool:
    r"""Decide whether :math:`\sum_k t_k (1[z^⊤g_k ≥ 0]\, z^⊤u_k + σ_k) = 0` at every input x.

    Here z is x, or (x, 1) where gates have a coordinate more.  The function is zero iff what it
    jumps by across every hyperplane is, :math:`\sum ± t_k u_k` over the gates of one, and the mean
    of its two sides, :math:`\sum_k t_k (½ z^⊤u_k + σ_k)`, in which gates that no input switches
    count whole or not at all.

    Args:
        null: mixtures t, one a column, shape (K, r), orthonormal.
        blocks: u, shape (K, p).
        gates: shape (K, p).
        shifts: constants σ, shape (K,); not zero only where z ends with 1.
        inputs: the number of inputs x.
        tolerance: relative to the largest entry of the blocks.
    """
    gates = gates / np.linalg.norm(gates, axis=1)[:, None]
    switching = np.linalg.norm(gates[:, :inputs], axis=1) > SAME
    share = np.where(switching, 0.5, gates[:, -1] >= 0)
    mean = share[:, None] * blocks
    mean[:, -1] += shifts
    changes, left = [mean], np.flatnonzero(switching)
    while len(left):
        along, against = (np.linalg.norm(gates[left] - s * gates[left[0]], axis=1) for s in (1, -1))
        side = (along <= SAME).astype(float) - (against <= SAME)
        jump = np.zeros_like(blocks)
        jump[left] = side[:, None] * blocks[left]
        changes.append(jump)
        left = left[side == 0]
    worst = max(float(np.abs(null.T @ one).max(initial=0.0)) for one in changes)
    return worst <= tolerance * float(np.abs(blocks).max(initial=1.0))
