"""Gated networks with several outputs: blocks (p, c) as neurons, and what neurons lack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from landscape.architectures.base import ConvexPoint, Floats, Parameters
    from landscape.architectures.gated import GatedReLU

NOISE = 16 * float(np.finfo(np.float64).eps)
"""Singular values up to this times max(p, c), relative to a block's largest, are rounding."""


def lower(architecture: GatedReLU, point: ConvexPoint) -> Parameters:
    """Return the balanced network of blocks (p, c), a pattern's constants on its first."""
    program = point.program
    theta = np.zeros((len(program.patterns), *point.theta.shape[1:]))
    np.add.at(theta, program.atoms.index, point.theta)
    p, c = program.atoms.dimension, point.theta.shape[-1]
    pattern, hidden = [], [np.zeros((0, p))]
    output, constant = [np.zeros((0, c))], [np.zeros((0, c))]
    for i in range(len(theta)):
        block: Floats = theta[i]
        left, right = _factors(block, architecture.outputs)
        if architecture.bias == "free" and not len(left) and point.constant[i].any():
            left, right = np.zeros((1, p)), np.zeros((1, c))
        pattern += [i] * len(left)
        hidden.append(left)
        output.append(right)
        if architecture.bias == "free":
            constants = np.zeros(right.shape)
            constants[:1] = point.constant[i]
            constant.append(constants)
    parameters = {
        "gate": torch.as_tensor(program.patterns.gates[np.array(pattern, dtype=np.intp)]),
        "hidden": torch.as_tensor(np.concatenate(hidden)),
        "output": torch.as_tensor(np.concatenate(output)),
    }
    if architecture.bias == "free":
        parameters["constant"] = torch.as_tensor(np.concatenate(constant))
    return parameters


def lacking(
    architecture: GatedReLU, design: Floats, masks: np.ndarray, w: Floats, a: Floats, nu: Floats
) -> Floats:
    """Return how far neurons of unit w (m, p), a (m, c) are from stationary, ν over β.

    XᵀDνa = w, and νᵀDXw is a subgradient of ‖·‖ at a.
    """
    inward = (masks * (a @ nu.T)) @ design
    outward = (masks * (w @ design.T)) @ nu  # (m, c)
    wanted = a
    if architecture.outputs == "per_class":
        wanted = np.where(a != 0, np.sign(a), outward.clip(-1.0, 1.0))
    parts = np.linalg.norm(inward - w, axis=1), np.linalg.norm(outward - wanted, axis=1)
    return np.maximum(*parts)


def _factors(block: Floats, outputs: str) -> tuple[Floats, Floats]:
    """Return balanced w (r, p) and a (r, c) with Σ w aᵀ = V (p, c) at the least penalty."""
    if outputs == "per_class":
        sizes = np.linalg.norm(block, axis=0)
        used = np.flatnonzero(sizes)
        left = block.T[used] / sizes[used, None]
        right = np.eye(block.shape[1])[used]
    else:
        U, sizes, right = np.linalg.svd(block, full_matrices=False)
        used = np.flatnonzero(sizes > NOISE * max(block.shape) * sizes.max(initial=0.0))
        left, right = U.T[used], right[used]
    scale = np.sqrt(sizes[used])[:, None]
    return scale * left, scale * right
