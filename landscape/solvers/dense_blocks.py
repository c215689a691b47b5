"""A program's dense group blocks as torch tensors, scaled, and directions inside their cones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from landscape.dense import Parts
from landscape.losses import rms
from landscape.nonnegative import least_squares

if TYPE_CHECKING:
    from landscape.dense import GroupProgram
    from landscape.programs import Floats

MARGIN = 1e-9
"""A cone without a direction this far (sine) from all its rows counts as one without interior."""


class DenseBlocks:
    """A program's dense blocks as torch tensors, scaled to unit size.

    Attributes:
        A: maps, shape (G, n, p).
        rows: unit rows of the cones, shape (G, q, p); zero where there is none.
        there: 1 where there is a row and 0 elsewhere, shape (G, q).
        parts: number of parts of a block, each with a norm of its own.
        y, beta, loss, free: of the program, in scaled units.
        scale: original blocks are scaled ones times this.
    """

    def __init__(self, program: GroupProgram, device: str = "cpu") -> None:
        self.program = program
        gauge = program.gauge
        self.parts = gauge.count if isinstance(gauge, Parts) else 1
        maps = program.atoms.matrices
        self.y_scale = program.loss.unit(program.y)
        self.loss = program.loss.per_unit(self.y_scale)
        size = rms(maps[maps != 0.0]) if maps.any() else 1.0
        self.scale = self.y_scale / size
        self.beta = program.beta / (self.y_scale * size)
        self.value_scale = self.y_scale**2
        G, self.n, self.p = maps.shape
        self.size = G
        rows = np.zeros((G, 0, self.p)) if program.cones is None else program.cones.matrices
        lengths = np.linalg.norm(rows, axis=2)
        self.lengths = np.where(lengths > 0, lengths, 1.0)

        def tensor(values: Floats) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(values), device=device)

        self.A, self.y = tensor(maps / size), tensor(program.y / self.y_scale)
        self.rows = tensor(rows / self.lengths[:, :, None])
        self.there = tensor((lengths > 0).astype(np.float64))
        self.free = tensor(program.free)

    def apply(self, z: Tensor) -> Tensor:
        """Return Σ A_g z_g, shape (n,)."""
        return torch.bmm(self.A, z[:, :, None])[:, :, 0].sum(0)

    def adjoint(self, nu: Tensor) -> Tensor:
        """Return A_gᵀν, shape (G, p)."""
        return torch.matmul(nu, self.A)

    def slack(self, z: Tensor) -> Tensor:
        """Return G_g z_g, shape (G, q); 1 where there is no row."""
        return torch.bmm(self.rows, z[:, :, None])[:, :, 0] + (1.0 - self.there)

    def pull(self, mu: Tensor) -> Tensor:
        """Return G_gᵀμ_g, shape (G, p)."""
        return torch.bmm(mu[:, None], self.rows)[:, 0]

    def split(self, z: Tensor) -> Tensor:
        """Return the parts of all blocks, shape (G·parts, p/parts)."""
        return z.reshape(self.size * self.parts, self.p // self.parts)

    def joined(self, parts: Tensor) -> Tensor:
        """Return blocks (G, p) of their parts."""
        return parts.reshape(self.size, self.p)

    def multipliers(self, mu: Tensor) -> Floats:
        """Return multipliers for the program's own rows, shape (G, q)."""
        scaled = (mu * self.there).cpu().numpy()
        return scaled / self.lengths * (self.program.beta / self.beta)

    def inside(self) -> Tensor | None:
        """Return a direction with a margin to all rows of every block, (G, p), or None.

        Of the convex combinations of unit rows (with 1 appended) the least squares closest to
        (0, 1) leaves a residual whose direction has the largest margin (Gordan).
        """
        found = torch.ones(self.size, self.p, dtype=self.A.dtype, device=self.A.device)
        goal = np.zeros(self.p + 1)
        goal[-1] = 1.0
        rows, there = self.rows.cpu().numpy(), self.there.cpu().numpy() > 0
        for g in range(self.size):
            own = rows[g, there[g]]
            if not len(own):
                continue
            lifted = np.hstack([own, np.ones((len(own), 1))])
            weights, _ = least_squares(lifted.T, goal)
            direction = own.T @ weights
            margin = float((own @ direction).min()) if direction.any() else 0.0
            if margin <= MARGIN * float(np.linalg.norm(direction)):
                return None
            found[g] = torch.as_tensor(direction, device=found.device)
        return found
