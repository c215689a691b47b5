"""The manifold of active blocks and binding rows, and Newton's matrix on it, factored."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from landscape.solvers.blocks import Blocks

RANK = 1e-9
"""Binding rows whose singular values fall below this (relative) are taken as dependent."""
CHUNK = 2_000_000


class Manifold:
    """The active blocks, the rows that bind them and bases of their faces."""

    def __init__(self, blocks: Blocks, active: Tensor, binding: Tensor) -> None:
        self.blocks = blocks
        self.active = active  # (Ga,) indices of blocks
        self.binding = binding  # (Ga, k), boolean
        self.masks = blocks.masks_t[:, blocks.index[active]] * blocks.signs[active]  # (n, Ga)
        self.sides = blocks.sides[active]
        self.bases = blocks.X.new_zeros(len(active), blocks.p, blocks.p)
        self.rebase(torch.ones_like(active, dtype=torch.bool))

    def rebase(self, changed: Tensor) -> None:
        """Compute bases N of the faces of some blocks: orthonormal columns, then zero ones."""
        b, binding = self.blocks, self.binding[changed]
        most = int(binding.sum(1).max()) if binding.numel() else 0
        order = torch.argsort(binding.to(torch.uint8), dim=1, descending=True, stable=True)
        picked = order[:, :most]
        rows = b.cone[picked] * torch.gather(binding, 1, picked)[:, :, None]
        if most < b.p:
            rows = torch.cat([rows, rows.new_zeros(len(rows), b.p - most, b.p)], dim=1)
        _, sizes, V = torch.linalg.svd(rows, full_matrices=False)
        null = sizes <= RANK * sizes[:, :1].clamp_min(1.0)
        self.bases[changed] = V.mT * null[:, None, :]

    def keep(self, kept: Tensor) -> None:
        """Drop the other blocks."""
        self.active, self.binding = self.active[kept], self.binding[kept]
        self.masks, self.sides = self.masks[:, kept], self.sides[kept]
        self.bases = self.bases[kept]

    def apply(self, z: Tensor) -> Tensor:
        """Return Σ A_g z_g over the active blocks, shape (n,)."""
        return (self.masks * (self.blocks.X @ z.T)).sum(1)

    def adjoint(self, nu: Tensor) -> Tensor:
        """Return A_gᵀν of the active blocks, shape (Ga, p)."""
        return (self.masks * nu[:, None]).T @ self.blocks.X

    def project(self, v: Tensor) -> Tensor:
        """Return the part of v (Ga, p) within the faces."""
        return (self.bases @ (self.bases.mT @ v[:, :, None]))[:, :, 0]

    def value(self, z: Tensor, c: Tensor) -> tuple[float, Tensor]:
        """Return objective and fit."""
        b = self.blocks
        fit = self.apply(z) + b.free @ c
        norms = z[:, : b.penalised].norm(dim=1).sum()
        return float(b.loss.value(fit, b.y) + b.beta * norms), fit

    def slopes(self, z: Tensor, fit: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient for every block (Ga, p), faces aside, and for the free part (q,)."""
        b, k = self.blocks, self.blocks.penalised
        gradient = b.loss.gradient(fit, b.y)
        slope = self.adjoint(gradient)
        slope[:, :k] += b.beta * z[:, :k] / z[:, :k].norm(dim=1, keepdim=True)
        return slope, b.free.T @ gradient


class Factor:
    """The Newton matrix at one point, factored; reused while it still makes progress."""

    def __init__(self, m: Manifold, z: Tensor, c: Tensor) -> None:
        b, k = m.blocks, m.blocks.penalised
        self.m = m
        fit = m.apply(z) + b.free @ c
        root = b.loss.curvature(fit, b.y).sqrt()
        self.root = root
        sizes = z[:, :k].norm(dim=1)
        # z is one basis vector; free coordinates and z itself have no curvature of their own.
        self.unit = z / sizes[:, None]
        along = self.unit if k == b.p else None
        tangents = m.bases
        if along is not None:
            tangents = tangents - along[:, :, None] * (along[:, None, :] @ tangents)
            flat = along[:, :, None]
        else:
            tangents, flat = _split(m.bases, self.unit, k)
        self.tangents = tangents * (sizes / b.beta).sqrt()[:, None, None]
        schur = torch.eye(b.n, dtype=z.dtype, device=z.device)
        rows = root[:, None] * m.masks
        width = max(1, CHUNK // (b.n * b.p))
        for begin in range(0, len(z), width):
            part = self.tangents[begin : begin + width]
            half = (b.X @ part.permute(1, 0, 2).reshape(b.p, -1)).reshape(b.n, len(part), -1)
            half = half.mul_(rows[:, begin : begin + width, None]).reshape(b.n, -1)
            for top, low in _halves(b.n):
                schur[top:low, :low].addmm_(half[top:low], half[:low].T)
        self.schur = torch.linalg.cholesky_ex(schur)[0]
        self.flat = flat  # (Ga, p, f): directions without curvature
        seen = rows[:, :, None] * torch.einsum("ni,gif->ngf", b.X, flat)
        self.seen = torch.cat([seen.reshape(b.n, -1), root[:, None] * b.free], dim=1)
        self.solved = torch.cholesky_solve(self.seen, self.schur)
        small = self.seen.T @ self.solved
        diagonal = small.diagonal()
        small = small + torch.diag((1e-14 * diagonal).clamp_min(1e-14 * float(diagonal.max())))
        self.small, failed = torch.linalg.cholesky_ex(small)
        if int(failed):  # dependent features: the optimum is not unique; any of it will do
            shift = 1e-10 * float(diagonal.max())
            eye = torch.eye(len(diagonal), dtype=z.dtype, device=z.device)
            self.small = torch.linalg.cholesky_ex(small + shift * eye)[0]

    def direction(self, slope: Tensor, free_slope: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Newton step for slopes (Ga, p) and (q,)."""
        b, m = self.m.blocks, self.m
        bent = (self.tangents @ (self.tangents.mT @ slope[:, :, None]))[:, :, 0]
        right = -self.root * m.apply(bent)
        # Flat directions: how much of each.
        wanted = torch.cat([-(self.flat.mT @ slope[:, :, None]).reshape(-1), -free_slope])
        base = torch.cholesky_solve(right[:, None], self.schur)[:, 0]
        amount = torch.cholesky_solve((wanted - self.seen.T @ base)[:, None], self.small)[:, 0]
        u = base + self.solved @ amount
        pulled = slope + m.adjoint(self.root * u)
        across = -(self.tangents @ (self.tangents.mT @ pulled[:, :, None]))[:, :, 0]
        count = amount.shape[0] - b.free.shape[1]
        along = (self.flat @ amount[:count].reshape(len(slope), self.flat.shape[2], 1))[:, :, 0]
        return across + along, amount[count:]


def _split(bases: Tensor, unit: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Split faces into curved and flat directions where some coordinates are not penalised.

    The curvature of the norm within a face is NᵀPN, P the projector across z on the penalised
    coordinates; its eigenvectors are scaled so that the curvature is β/‖z‖ on each.
    """
    across = -unit[:, :k, None] * unit[:, None, :k]
    across = across + torch.eye(k, dtype=unit.dtype, device=unit.device)
    inner = bases[:, :k].mT @ across @ bases[:, :k]
    values, vectors = torch.linalg.eigh(inner)
    directions = bases @ vectors
    curved = values > 1e-10
    lengths = directions.norm(dim=1)
    tangents = directions * (curved / values.clamp_min(1e-300).sqrt())[:, None, :]
    flat = directions * (~curved & (lengths > 0.5))[:, None, :]
    return tangents, flat


def _halves(n: int) -> list[tuple[int, int]]:
    cuts = [*range(0, n, max(64, -(-n // 4))), n]
    return list(itertools.pairwise(cuts))
