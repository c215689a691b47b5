r"""Pruning points of any convex program: every block is a ray, and rays that depend on others go.

With features :math:`F_g = A_g θ_g` of the blocks in use, a null direction :math:`\sum_g κ_g F_g =
0` (free directions take part at no cost) leaves the fit alone while block g becomes
:math:`(1 − tκ_g) θ_g`, which stays in its cone; the penalty is linear in t.  Along the sign of κ
that does not raise it one block after another vanishes, until features are independent: at most as
many blocks as samples are left (Wang, Lacotte & Pilanci, ICLR 2022; Mishkin & Pilanci, ICML 2023).

With c outputs a block is a matrix, a sum of parts of rank one whose gauges add up: its singular
parts under the nuclear norm, its columns where outputs are apart.  Each part is a ray (`as_rays`),
and at most nc of them are left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from landscape.architectures.base import ConvexPoint
from landscape.errors import BadInput
from landscape.gauges import Nuclear, PerClass
from landscape.network import Network, read

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from landscape.architectures.base import Floats, Parameters
    from landscape.problem import Problem

NULL = 1e-10
"""Singular values up to this, relative to the largest, make a null direction of the features."""
NOISE = 16 * float(np.finfo(np.float64).eps)
"""Singular values up to this times max(p, c), relative to a block's largest, are rounding."""
DUST = 1e-12
"""Shares of a block up to this are rounding."""
BALANCED = 1e-9
"""Relative excess of a network's objective over its convex point's up to which it is balanced."""


def balanced_point(problem: Problem, network: torch.nn.Module | Parameters) -> ConvexPoint:
    """Return the convex point of a network that is the network of its point.

    Raises:
        BadInput: for blocks that are matrices (their outputs are no vector, which paths need), and
            if lifting and lowering lowers the objective: such a network is no point of the convex
            program until it is balanced.
    """
    parameters = read(problem, network)
    point = problem.architecture.lift(problem, parameters)
    if point.theta.ndim > 2:
        raise BadInput(
            "connect: heights of a path are bounded for outputs in one row; architecture "
            f"{problem.architecture.label} keeps a matrix of them (n, c)."
        )
    before = float(problem.objective(parameters))
    if before - point.value > BALANCED * abs(before):
        raise BadInput(
            f"network has objective {before:.8g} and its convex point {point.value:.8g}: balance "
            "it first, landscape.prune(problem, network) does, or take "
            "architecture.lower(architecture.lift(problem, parameters))."
        )
    return point


def scaled(point: ConvexPoint, shares: Floats, constant: Floats) -> ConvexPoint:
    """Return a point whose blocks are multiplied by shares (G,); the zero ones are left out."""
    used = np.flatnonzero(shares)
    theta = point.theta[used] * shares[used].reshape(-1, *[1] * (point.theta.ndim - 1))
    return replace(point, program=point.program.take(used), theta=theta, constant=constant)


def as_rays(point: ConvexPoint) -> tuple[ConvexPoint, NDArray[np.int64]]:
    """Return the point with matrix blocks (p, c) split into parts of rank one, each a block.

    Fit and objective stay; blocks (p,) are rays already.

    Returns:
        The point of the rays, and the block that each is a part of.

    Raises:
        BadInput: for a gauge of matrices whose parts are not known.
    """
    if point.theta.ndim == 2:
        return point, np.arange(len(point.theta))
    if isinstance(point.program.gauge, Nuclear):
        left, sizes, right = np.linalg.svd(point.theta, full_matrices=False)
        noise = NOISE * max(point.theta.shape[1:]) * sizes.max(axis=1, initial=0.0)
        block, part = np.nonzero(sizes > noise[:, None])
        columns = left[block, :, part] * sizes[block, part, None]
        theta = columns[:, :, None] * right[block, part][:, None, :]
    elif isinstance(point.program.gauge, PerClass):
        block, part = np.nonzero(np.linalg.norm(point.theta, axis=1))
        unit = np.eye(point.theta.shape[2])[part]
        theta = point.theta[block, :, part][:, :, None] * unit[:, None, :]
    else:
        raise BadInput("prune: the program has several outputs, whose blocks are no rays.")
    return replace(point, program=point.program.take(block), theta=theta), block


def features(point: ConvexPoint) -> Floats:
    """Return what every block adds to the fit, shape (n, G), or (nc, G) with c outputs."""
    F = point.features
    if point.theta.ndim == 2:
        return F
    G, c = len(point.theta), point.theta.shape[2]
    return np.moveaxis(F.reshape(len(F), G, c), 1, 2).reshape(point.program.y.size, G)


def reductions(point: ConvexPoint) -> Iterator[tuple[Floats, Floats]]:
    """Yield shares (G,) of the blocks and the free part (q,), a block fewer in use each time.

    The fit stays and the penalty never rises; the last ones have independent features.  A matrix
    block goes or stays as a whole (of `as_rays` its parts do).
    """
    F, free = features(point), point.program.free
    if point.theta.ndim > 2:  # a free direction serves every output
        free = np.asarray(np.kron(free, np.eye(point.theta.shape[2])), dtype=np.float64)
    sizes = point.program.gauge.value(point.theta)
    shares, constant = np.ones(len(sizes)), np.array(point.constant, dtype=np.float64)
    lengths = np.linalg.norm(F, axis=0)
    shares[(lengths == 0) & (sizes > 0)] = 0.0  # dead on all samples
    if (shares == 0).any():
        yield shares.copy(), constant
    while True:
        used = np.flatnonzero((shares > 0) & (sizes > 0))
        columns = np.hstack([F[:, used] / lengths[used], free])
        kappa = _null_direction(columns, len(used))
        if kappa is None:
            return
        kappa, shift = kappa[: len(used)] / lengths[used] / shares[used], kappa[len(used) :]
        if kappa @ (sizes[used] * shares[used]) < 0 or not (kappa > 0).any():
            kappa, shift = -kappa, -shift
        top = float(kappa.max())
        left = np.maximum(1.0 - kappa / top, 0.0)
        left[left <= DUST] = 0.0
        shares[used] *= left
        constant = constant - shift.reshape(constant.shape) / top
        yield shares.copy(), constant


def _null_direction(columns: Floats, counted: int) -> Floats | None:
    """Return κ with columns κ = 0 that moves one of the first ``counted``, or None."""
    if not counted:
        return None
    _, values, right = np.linalg.svd(columns, full_matrices=True)
    rank = int((values > NULL * values.max(initial=0.0)).sum())
    moving = np.abs(right[rank:, :counted]).max(axis=1, initial=0.0)
    if not len(moving) or moving.max() <= NULL:
        return None
    return right[rank + int(moving.argmax())]


def pruned(problem: Problem, network: torch.nn.Module | Parameters) -> Network:
    """Return the network of a point with independent features, its objective not higher."""
    architecture = problem.architecture
    point = architecture.lift(problem, read(problem, network))
    if not len(point.theta) and point.theta.ndim > 2:  # no neuron is there to go
        return Network(architecture, read(problem, network))
    rays, block = as_rays(point)
    shares, constant = [(np.ones(len(rays.theta)), point.constant), *reductions(rays)][-1]
    if point.theta.ndim == 2:
        return Network(architecture, architecture.lower(scaled(point, shares, constant)))
    theta = np.zeros_like(point.theta)  # parts of one block are one again
    np.add.at(theta, block, shares[:, None, None] * rays.theta)
    less = replace(point, theta=theta, constant=constant)
    return Network(architecture, architecture.lower(less))
