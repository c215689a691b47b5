"""The cones ‖z‖ ≤ t of interior points, all blocks at once: scaling, correctors, longest steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SHIFT = 1e-14  # of a block's trace, where rounding has taken its definiteness
START_SIZE = 0.03  # of the first blocks, in units of the targets
START_CENTRE = 0.1  # of the first complementarity products, relative to β t


class Step(NamedTuple):
    """A direction for every variable, and how much of it the cones allow (at most 1)."""

    dz: Tensor
    dc: Tensor
    dt: Tensor
    ds: Tensor
    dmu: Tensor
    dw: Tensor
    reach: float


class ScaledNorm:
    """Nesterov–Todd scaling of the cones ‖z‖ ≤ t with their duals (β, w), all blocks at once."""

    def __init__(self, z: Tensor, t: Tensor, w: Tensor, beta: float) -> None:
        sizes, duals = z.norm(dim=1), w.norm(dim=1)
        root = ((t - sizes) * (t + sizes)).sqrt()
        dual_root = ((beta - duals) * (beta + duals)).sqrt()
        x0, x1 = t / root, z / root[:, None]
        y0, y1 = beta / dual_root, w / dual_root[:, None]
        twice = (2 + 2 * (x0 * y0 + (x1 * y1).sum(1))).sqrt()
        self.w0, self.w1 = (x0 + y0) / twice, (x1 - y1) / twice[:, None]
        self.eta = (root / dual_root).sqrt()
        self.inverse = dual_root / root  # 1/η²
        self.kappa = 2 / (1 + 2 * (self.w1 * self.w1).sum(1))
        self.l0, self.l1 = self.scale(torch.full_like(t, beta), w)

    def scale(self, v0: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scaling of points (t, z) of all blocks."""
        along = (self.w1 * v).sum(1)
        turned = v + self.w1 * (v0 + along / (1 + self.w0))[:, None]
        return self.eta * (self.w0 * v0 + along), self.eta[:, None] * turned

    def unscale(self, v0: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return its inverse of points (t, z) of all blocks."""
        along = (self.w1 * v).sum(1)
        turned = v + self.w1 * (along / (1 + self.w0) - v0)[:, None]
        return (self.w0 * v0 - along) / self.eta, turned / self.eta[:, None]

    def divide(self, d0: Tensor, d1: Tensor) -> tuple[Tensor, Tensor]:
        """Return λ∖d in the Jordan algebra of the cone."""
        size = self.l1.norm(dim=1)
        u0 = (self.l0 * d0 - (self.l1 * d1).sum(1)) / ((self.l0 - size) * (self.l0 + size))
        return u0, (d1 - u0[:, None] * self.l1) / self.l0[:, None]

    def reduced(self, v: Tensor) -> Tensor:
        """Return C v: the inverse squared scaling with t eliminated."""
        along = self.kappa * (self.w1 * v).sum(1)
        return self.inverse[:, None] * (v - along[:, None] * self.w1)

    def corrected(self, target: float, dt: Tensor, dz: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        """Return λ∖d for Mehrotra's corrector, after a predicted step (Δt, Δz) and (0, Δw)."""
        l0, l1 = self.l0, self.l1
        x0, x1 = self.unscale(dt, dz)
        y0, y1 = self.scale(torch.zeros_like(dt), dw)
        d0 = target - l0 * l0 - (l1 * l1).sum(1) - x0 * y0 - (x1 * y1).sum(1)
        d1 = -2 * l0[:, None] * l1 - x0[:, None] * y1 - y0[:, None] * x1
        return self.divide(d0, d1)


def factored(H: Tensor) -> tuple[Tensor, bool]:
    """Return the Cholesky factors of every block's matrix (G, p, p), and whether all have one.

    Their diagonals are raised in place where rounding has taken their definiteness.
    """
    diagonal = H.diagonal(dim1=1, dim2=2)
    diagonal += SHIFT * diagonal.sum(1, keepdim=True)
    factor, failed = torch.linalg.cholesky_ex(H)
    if not bool(failed.any()):
        return factor, True
    diagonal += 1e4 * SHIFT * diagonal.sum(1, keepdim=True)
    factor, failed = torch.linalg.cholesky_ex(H)
    return factor, not bool(failed.any())


def longest_step(t: Tensor, z: Tensor, dt: Tensor, dz: Tensor) -> float:
    """Return the largest α with ‖z + α dz‖ ≤ t + α dt for all blocks."""
    sizes = z.norm(dim=1)
    c = ((t - sizes) * (t + sizes)).clamp_min(0)
    half = t * dt - (z * dz).sum(1)
    square = dt * dt - (dz * dz).sum(1)
    inside = half * half - square * c
    root = inside.clamp_min(0).sqrt()
    q = -(half + torch.where(half >= 0, root, -root))
    roots = torch.stack([q / square, c / q])
    roots = torch.where((roots > 0) & torch.isfinite(roots) & (inside >= 0), roots, np.inf)
    return float(roots.min())
