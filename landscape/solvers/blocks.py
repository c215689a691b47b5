"""A program's blocks as torch tensors: scaled, matrix-free in the patterns, on any device.

The n × Gp matrix of all blocks is never formed: products go through the design X (n, p) and the
masks (P, n), so memory is O(Gn + np) and the work is dense matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from landscape.losses import rms

if TYPE_CHECKING:
    from landscape.programs import Floats, Program


SMALL = 4_000_000
"""Numbers in all blocks' matrices up to which one thread is as fast as several."""


@contextmanager
def threads_for(work: int) -> Iterator[None]:
    """Keep small work on one thread.

    Small operations gain nothing from a second thread, and where another process holds its core
    they wait for it at every step: a hundredfold on a busy machine.
    """
    before = torch.get_num_threads()
    if work <= SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Blocks:
    r"""The maps :math:`A_g = s_g D_{i(g)} X` and cones of a program, in scaled units.

    Inside, the penalised and the free coordinates of X each have unit root mean square, targets
    that are no classes too, and every cone row has unit length and stands once (collinear rows
    cut the same half-space).  The scaled program has the objective of the original one divided by
    ``value_scale``.

    Attributes:
        X: scaled design, shape (n, p), penalised coordinates first.
        used: which of the program's patterns have blocks; the others stay away.
        masks: slopes of the activation, 0/1 for ReLU, shape (P, n).
        index, signs: pattern and sign of every block, shape (G,).
        cone: unit rows of the cones, shape (k, p).
        sides: ±1, on which side of each cone row a block must lie, shape (G, k).
        open: blocks without a cone; their sides are 0.
        free: independent free directions, shape (n, r) (see `Program.directions`).
        shifting: blocks whose free coordinates only repeat A_0: any shift of one into the other
            keeps the objective.
        penalised: how many of the p coordinates count in the norm.
        y, beta: targets and weight in scaled units.
        theta_scale: original blocks are scaled ones times this, shape (p,), in original order.
        value_scale: original objective divided by the scaled one.
    """

    def __init__(self, program: Program, device: str = "cpu") -> None:
        self.program = program
        atoms = program.atoms
        counted = program.gauge.penalised
        self.order = np.argsort(~counted, kind="stable")
        self.penalised = int(counted.sum())
        self.y_scale = program.loss.unit(program.y)
        self.loss = program.loss.per_unit(self.y_scale)
        columns = np.ones(len(counted))
        columns[counted] = rms(atoms.design[:, counted])
        if not counted.all():
            columns[~counted] = rms(atoms.design[:, ~counted])
        self.theta_scale = self.y_scale / columns
        self.value_scale = self.y_scale**2
        self.beta = program.beta / (self.y_scale * float(columns[counted].max(initial=0.0) or 1.0))
        X = (atoms.design / columns)[:, self.order]

        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(values), device=device)

        self.device = device
        self.X, self.y = tensor(X), tensor(program.y / self.y_scale)
        self.used, index = np.unique(atoms.index, return_inverse=True)
        slopes = atoms.weights[self.used]
        self.masks = tensor(slopes.astype(np.float64))
        self.masks_t = self.masks.T.contiguous()
        self.index, self.signs = tensor(index), tensor(atoms.signs)
        self.free = tensor(program.directions[0])
        self.n, self.p = X.shape
        self.size, self.patterns = len(index), len(slopes)
        half = np.arange(self.patterns)
        self.paired = np.array_equal(index, np.r_[half, half]) and np.array_equal(
            atoms.signs, np.repeat([1.0, -1.0], self.patterns)
        )
        rows, first = rays(X)
        self.rows = first  # the sample that stands for each cone row
        self.cone = tensor(rows)
        self.cone_t = self.cone.T.contiguous()
        if program.cones is not None:
            sides = program.cones.sides[self.used[:, None], first].astype(np.float64)
            self.pattern_sides = tensor(sides)  # (P, k)
            self.sides = self.pattern_sides[self.index].contiguous()
            self.open = tensor(np.flatnonzero(program.cones.open))
        # A free bias of a block with one slope on all samples does what the output bias does.
        every = tensor((slopes == slopes[:, :1]).all(axis=1) & (slopes[:, 0] != 0))[self.index]
        self.shifting = torch.nonzero(every & (self.penalised < self.p))[:, 0]

    def per_pattern(self, theta: Tensor) -> Tensor:
        """Return Σ s_g θ_g over the blocks of each pattern, shape (P, …)."""
        if self.paired:
            return theta[: self.patterns] - theta[self.patterns :]
        weights = self.signs.reshape(-1, *[1] * (theta.ndim - 1))
        out = theta.new_zeros((self.patterns, *theta.shape[1:]))
        return out.index_add_(0, self.index, weights * theta)

    def sum_per_pattern(self, values: Tensor) -> Tensor:
        """Return Σ values_g over the blocks of each pattern, signs aside, shape (P, …)."""
        if self.paired:
            return values[: self.patterns] + values[self.patterns :]
        out = values.new_zeros((self.patterns, *values.shape[1:]))
        return out.index_add_(0, self.index, values)

    def apply(self, theta: Tensor) -> Tensor:
        """Return Σ_g A_g θ_g, shape (n,)."""
        return (self.masks_t * (self.X @ self.per_pattern(theta).T)).sum(1)

    def adjoint(self, nu: Tensor) -> Tensor:
        """Return A_gᵀν of every block, shape (G, p)."""
        each = (self.masks * nu) @ self.X
        if self.paired:
            return torch.cat([each, -each])
        return each[self.index] * self.signs[:, None]

    def slack(self, theta: Tensor) -> Tensor:
        """Return the products of every block with its cone's rows, shape (G, k); 1 without one."""
        slack = self.sides * (theta @ self.cone_t)
        if len(self.open):
            slack[self.open] = 1.0
        return slack

    def slack_adjoint(self, multipliers: Tensor) -> Tensor:
        """Return Σ_k λ_k·row_k of every block, shape (G, p)."""
        return (self.sides * multipliers) @ self.cone

    def scaled_free(self, constant: Floats) -> Tensor:
        """Return a free part given in the program's units in scaled ones, shape (r,)."""
        _, back = self.program.directions
        inside = np.linalg.lstsq(back, constant)[0] if back.size else constant[:0]
        return torch.as_tensor(inside / self.y_scale, device=self.device)

    def original_free(self, c: Tensor) -> Floats:
        """Return a scaled free part in the program's units, shape (q,)."""
        return self.program.directions[1] @ (c.cpu().numpy() * self.y_scale)

    def scaled(self, theta: Floats) -> Tensor:
        """Return blocks given in the program's units in scaled ones."""
        scaled = (theta / self.theta_scale)[:, self.order]
        return torch.as_tensor(np.ascontiguousarray(scaled), device=self.device)

    def multipliers(self, mu: Tensor) -> Floats:
        """Return multipliers of the cone rows (G, k) for the program's own rows, shape (G, n)."""
        lengths = self.X[self.rows].norm(dim=1)
        out = np.zeros((self.size, self.n))
        out[:, self.rows] = (mu / lengths).cpu().numpy() * self.y_scale
        return out

    def original(self, theta: Tensor) -> Floats:
        """Return scaled blocks in the program's units."""
        out = np.empty(theta.shape)
        out[:, self.order] = theta.cpu().numpy()
        return out * self.theta_scale


def rays(X: Floats) -> tuple[Floats, np.ndarray]:
    """Return unit rows, one of every set of collinear ones, and the samples they come from."""
    lengths = np.linalg.norm(X, axis=1)
    used = np.flatnonzero(lengths > 0)
    rows = X[used] / lengths[used, None]
    # Collinear rows agree up to sign and rounding: compare them turned to one side and rounded.
    leading = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)] if len(rows) else rows[:, :0]
    turned = np.round(rows * np.sign(leading).reshape(-1, 1), 12) + 0.0
    _, first = np.unique(turned, axis=0, return_index=True)
    first.sort()
    return rows[first], used[first]
