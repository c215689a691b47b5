r"""A program without cones as torch tensors: scaled, matrix-free in the patterns, on any device.

The n × Gp matrix of all blocks is never formed: products go through the design X (n, p) and the
masks (G, n), a chunk of patterns at a time, so memory beside those two stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from landscape.losses import rms

if TYPE_CHECKING:
    from landscape.programs import Floats, Program

CHUNK = 2**25
"""Most entries of a temporary array in one product."""
RANK = 1e-12
"""Free directions with singular values below this (relative) are dependent."""


class Groups:
    r"""The maps :math:`A_g = D_g X` of a program, one for every distinct pattern.

    Inside, X has unit root mean square, targets that are no classes too, and the free directions
    are orthonormal.  Blocks with equal masks are one block (their sum counts, and one carries it
    at no higher norm); signs are absorbed.  Outputs keep a last axis: c = 1 for targets (n,).

    Attributes:
        X: scaled design, shape (n, p).
        masks: diagonals of the D_g, shape (G, n): boolean, or 0/1 floats where memory allows.
        y: scaled targets, shape (n, c).
        free: orthonormal basis Q of the range of A_0, shape (n, r).
        beta: β in scaled units.
        norms: upper bounds of the spectral norms ‖A_g‖, shape (G,).
        smoothness: Lipschitz constant L of the loss's derivative, per sample.
        value_scale: original objective divided by the scaled one.
    """

    def __init__(self, program: Program, device: str = "cpu") -> None:
        atoms = program.atoms
        self.program, self.device = program, device
        self.x_scale = rms(atoms.design)
        self.y_scale = program.loss.unit(program.y)
        self.loss = program.loss.per_unit(self.y_scale)
        self.value_scale = self.y_scale**2
        self.beta = program.beta / (self.x_scale * self.y_scale)
        self.smoothness = 0.25 if program.loss.name == "logistic" else 1.0
        packed = np.packbits(atoms.masks[atoms.index], axis=1)
        _, first, same = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)  # the program's own order
        self.first = first[order]
        self.same = np.argsort(order)[same.reshape(-1)]
        self.X = torch.as_tensor(atoms.design / self.x_scale, device=device)
        self.n, self.p = self.X.shape
        targets = program.y.reshape(self.n, -1) / self.y_scale
        self.y = torch.as_tensor(targets, device=device)
        masks = torch.as_tensor(atoms.masks[atoms.index[self.first]], device=device)
        self.masks = masks.to(self.X.dtype) if masks.numel() <= CHUNK else masks
        self.size, self.outputs = len(self.first), self.y.shape[1]
        self.free = torch.as_tensor(_range(program.free), device=device)
        lengths = self.X.square().sum(1)
        own = (self.masks.to(self.X.dtype) @ lengths).sqrt()
        whole = float(torch.linalg.matrix_norm(self.X, 2)) * (1 + 1e-10)
        self.norms = own.clamp_max(whole)

    def chunks(self, blocks: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """Yield positions among ``blocks`` (all if None) and the masks that stand there."""
        count = self.size if blocks is None else len(blocks)
        width = max(1, CHUNK // (self.n * self.outputs))
        for begin in range(0, count, width):
            part = slice(begin, min(begin + width, count))
            yield part, self.masks[part if blocks is None else blocks[part]]

    def apply(self, theta: Tensor, blocks: Tensor | None = None) -> Tensor:
        """Return Σ_g A_g θ_g over ``blocks``, shape (n, c), of ``theta`` (k, p, c)."""
        out = torch.zeros_like(self.y)
        for part, masks in self.chunks(blocks):
            products = self.X @ theta[part].permute(1, 2, 0).reshape(self.p, -1)  # (n, c k)
            out += (masks.T[:, None, :] * products.reshape(*out.shape, -1)).sum(2)
        return out

    def adjoint(self, nu: Tensor, blocks: Tensor | None = None) -> Tensor:
        """Return A_gᵀν over ``blocks``, shape (k, p, c), of ``nu`` (n, c)."""
        count = self.size if blocks is None else len(blocks)
        out = self.X.new_empty(count, self.p, self.outputs)
        for part, masks in self.chunks(blocks):
            rows = (masks[:, None, :] * nu.T).reshape(-1, self.n)  # (k c, n)
            out[part] = (rows @ self.X).reshape(len(masks), self.outputs, self.p).mT
        return out

    def value(self, fit: Tensor) -> float:
        """Return the scaled loss at outputs (n, c)."""
        return float(self.loss.value(fit, self.y))

    def scaled(self, theta: Floats, constant: Floats) -> tuple[Tensor, Tensor]:
        """Return blocks (G, p[, c]) and free part in scaled units, for distinct patterns."""
        atoms = self.program.atoms
        signed = theta.reshape(len(theta), self.p, self.outputs) * atoms.signs[:, None, None]
        merged = np.zeros((self.size, self.p, self.outputs))
        np.add.at(merged, self.same, signed)
        outputs = self.program.free @ constant.reshape(self.program.free.shape[1], self.outputs)
        t = self.free.T @ torch.as_tensor(outputs.reshape(self.n, -1), device=self.device)
        scale = self.x_scale / self.y_scale
        return torch.as_tensor(merged * scale, device=self.device), t / self.y_scale

    def original(self, theta: Tensor, t: Tensor) -> tuple[Floats, Floats]:
        """Return blocks and free part in the program's units and shapes."""
        atoms, free = self.program.atoms, self.program.free
        out = np.zeros((atoms.size, self.p, self.outputs))
        scale = self.y_scale / self.x_scale
        out[self.first] = theta.cpu().numpy() * scale * atoms.signs[self.first, None, None]
        outputs = (self.free @ t).cpu().numpy() * self.y_scale
        constant = np.zeros((free.shape[1], self.outputs))
        if free.shape[1]:
            constant[:] = np.linalg.lstsq(free, outputs, RANK)[0]
        if self.program.y.ndim == 1:
            return out[:, :, 0], constant.reshape(free.shape[1])
        return out, constant.reshape(free.shape[1], self.outputs)


def _range(A: Floats) -> Floats:
    """Return an orthonormal basis of the range of A, shape (n, rank)."""
    if not A.shape[1]:
        return A
    U, sizes, _ = np.linalg.svd(A, full_matrices=False)
    return np.ascontiguousarray(U[:, sizes > RANK * sizes.max(initial=0.0)], dtype=np.float64)
