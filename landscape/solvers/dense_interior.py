r"""A primal–dual interior point for programs of dense group blocks.

.. math:: \min \; ℓ\Big(\sum_g A_g z_g + A_0 c\Big) + β \sum_g \sum_j t_{gj}, \qquad
    s_g = G_g z_g ≥ 0, \quad \|z_{gj}\| ≤ t_{gj}

The iteration is that of `landscape.solvers.interior` (Nesterov–Todd scaling, Mehrotra's predictor
and corrector, a Schur complement as preconditioner of conjugate gradients on the true operator),
with matrices of their own for every block and a norm for each of its parts.  The start is strictly
feasible, and so are all iterates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from landscape.bounds import relative_gap
from landscape.solvers.newton import NewtonSystem
from landscape.solvers.norm_cones import (
    START_CENTRE,
    START_SIZE,
    ScaledNorm,
    Step,
    factored,
    longest_step,
)

if TYPE_CHECKING:
    from landscape.solvers.dense_blocks import DenseBlocks

ITERATIONS = 150
FAR = 0.5


@dataclass
class Iterate:
    """Blocks z (G, p), free part c, norms' bounds t and duals w (by parts), slacks, multipliers."""

    z: Tensor
    c: Tensor
    t: Tensor
    w: Tensor
    s: Tensor
    mu: Tensor
    gap: float = np.inf
    steps: int = 0


class DenseInterior:
    """Iterations on one program; `run` may be called again with a smaller tolerance."""

    def __init__(self, blocks: DenseBlocks, inside: Tensor) -> None:
        b = self.blocks = blocks
        z = START_SIZE * inside / inside.norm(dim=1, keepdim=True)
        t = 2.0 * b.split(z).norm(dim=1) + 0.1 * START_SIZE
        s = b.slack(z)
        level = START_CENTRE * b.beta * t.mean()
        mu = torch.where(b.there > 0, level / s, 1.0)
        c = z.new_zeros(b.free.shape[1])
        self.now = Iterate(z, c, t, torch.zeros_like(b.split(z)), s, mu)
        self.at_zero = float(b.loss.value(torch.zeros_like(b.y), b.y))
        self.onto_free = torch.linalg.qr(b.free)[0]
        self.count = int(b.there.sum()) + len(t)

    def run(self, tolerance: float) -> Iterate:
        """Iterate until the relative gap is at most ``tolerance`` or progress ends."""
        best, idle, kept = np.inf, 0, self.now
        while self.now.steps < ITERATIONS:
            residual = self._judge()
            if self.now.gap < kept.gap or kept is self.now:
                kept = self.now
            if self.now.gap <= tolerance:
                break
            # Far from the end the bound may stay at that of ν = 0 for a while.
            idle = 0 if self.now.gap < 0.9 * best or self.now.gap > FAR else idle + 1
            best = min(best, self.now.gap)
            if idle > 12 or np.isnan(self.now.gap) or not self._advance(*residual):
                break
        self.now = kept
        return kept

    def _judge(self) -> tuple[Tensor, Tensor, Tensor, float]:
        """Set the gap of the current point; return residuals, curvature, mean complementarity."""
        b, now = self.blocks, self.now
        fit = b.apply(now.z) + b.free @ now.c
        slope = b.loss.gradient(fit, b.y)
        priced = b.pull(now.mu) - b.adjoint(slope)
        nu = -slope
        if len(now.c):
            nu = nu - self.onto_free @ (self.onto_free.T @ nu)
            nu = nu * min(1.0, b.loss.reach(nu.cpu().numpy()))
        reached = float(b.split(priced).norm(dim=1).max())
        nu = nu * min(1.0, b.beta / max(reached, 1e-300))
        primal = b.loss.value(fit, b.y) + b.beta * b.split(now.z).norm(dim=1).sum()
        now.gap = relative_gap(float(primal), float(b.loss.dual_value(nu, b.y)), self.at_zero)
        total = (now.s * now.mu * b.there).sum() + b.beta * now.t.sum()
        total = total + (b.split(now.z) * now.w).sum()
        return (
            priced + b.joined(now.w),
            -(b.free.T @ slope),
            b.loss.curvature(fit, b.y),
            float(total) / self.count,
        )

    def _advance(self, lacking: Tensor, free_lacking: Tensor, L: Tensor, mean: float) -> bool:
        """Take one predictor–corrector step; False if no step is left."""
        b, now = self.blocks, self.now
        z, t, w, s, mu = b.split(now.z), now.t, now.w, now.s, now.mu
        norm = ScaledNorm(z, t, w, b.beta)
        weights = b.there * mu / s
        system = _System(b, norm, weights, L, now.gap)
        if not system.sound:
            return False

        def direction(ratio: Tensor, q: tuple[Tensor, Tensor]) -> Step:
            """Solve for s∘Δμ + μ∘Δs = s∘ratio and for the scaled cones' λ∖d = q."""
            r0, r1 = norm.scale(*q)
            right = lacking + b.pull(ratio) + b.joined(norm.reduced(r1))
            dz, dc = system.solve(right, free_lacking)
            ds = torch.bmm(b.rows, dz[:, :, None])[:, :, 0]
            dmu = b.there * (ratio - weights * ds)
            rest = r1 - b.split(dz)
            dt = r0 - norm.w0 * norm.kappa * (norm.w1 * rest).sum(1)
            dw = norm.reduced(rest)
            least = (float((ds / s).min()), float((dmu / mu).min())) if s.numel() else ()
            reach = [1.0, *(-1.0 / r for r in least if r < 0)]
            reach.append(longest_step(t, z, dt, b.split(dz)))
            reach.append(longest_step(torch.full_like(t, b.beta), w, torch.zeros_like(t), dw))
            return Step(dz, dc, dt, ds, dmu, dw, min(reach))

        l0, l1 = norm.l0, norm.l1
        found = direction(-mu, (-l0, -l1))
        a = found.reach
        after = b.there * (s + a * found.ds) * (mu + a * found.dmu)
        left = after.sum() + b.beta * (t + a * found.dt).sum()
        left = left + ((z + a * b.split(found.dz)) * (w + a * found.dw)).sum()
        share = float(left) / self.count / mean
        target = mean * min(1.0, max(share, 1e-3)) ** 3
        quotient = norm.corrected(target, found.dt, b.split(found.dz), found.dw)
        ratio = (target - found.ds * found.dmu) / s - mu
        found = direction(ratio, quotient)
        for _ in range(2):  # Gondzio: pull products that a longer step would spoil
            if found.reach > 0.95:
                break
            trial = min(1.0, 1.5 * found.reach + 0.1)
            product = (s + trial * found.ds) * (mu + trial * found.dmu)
            moved = (product.clamp(0.1 * target, 10 * target) - product).clamp_min(-10 * target)
            again = direction(ratio + moved / s, quotient)
            if again.reach < 1.01 * found.reach:
                break
            found, ratio = again, ratio + moved / s
        length = 0.99 * found.reach
        slack = b.slack(now.z + length * found.dz)
        while length > 1e-12 and slack.numel() and float(slack.min()) <= 0:
            length *= 0.9
            slack = b.slack(now.z + length * found.dz)
        if not length > 1e-10:
            return False
        self.now = Iterate(
            z=now.z + length * found.dz,
            c=now.c + length * found.dc,
            t=t + length * found.dt,
            w=w + length * found.dw,
            s=slack,
            mu=mu + length * found.dmu,
            gap=now.gap,
            steps=now.steps + 1,
        )
        return True


class _System(NewtonSystem):
    """The Newton system of one iteration, factored."""

    def __init__(
        self, b: DenseBlocks, norm: ScaledNorm, weights: Tensor, L: Tensor, gap: float
    ) -> None:
        super().__init__(b, L, min(max(1e-3 * gap, 1e-10), 1e-4))
        self.norm, self.weights = norm, weights
        H = torch.bmm((weights[:, :, None] * b.rows).mT, b.rows)
        size = b.p // b.parts
        eye = torch.eye(size, dtype=H.dtype, device=H.device)
        outer = norm.w1[:, :, None] * norm.w1[:, None, :]
        scaled = norm.inverse[:, None, None] * (eye - norm.kappa[:, None, None] * outer)
        scaled = scaled.reshape(b.size, b.parts, size, size)
        for j in range(b.parts):
            part = slice(j * size, (j + 1) * size)
            H[:, part, part] += scaled[:, j]
        factor, sound = factored(H)
        self.factor = factor
        half = torch.linalg.solve_triangular(factor, b.A.mT, upper=False).reshape(-1, b.n)
        half = half * self.root
        schur = half.T @ half
        schur.diagonal().add_(1.0)
        self.schur, worse = torch.linalg.cholesky_ex(schur)
        self.sound = sound and not bool(worse)
        self.eliminate()

    def inverse(self, r: Tensor) -> Tensor:
        """Return H_g⁻¹ r_g for every block."""
        return torch.cholesky_solve(r[:, :, None], self.factor)[:, :, 0]

    def curved(self, x: Tensor) -> Tensor:
        """Return H_g x_g for every block."""
        b = self.blocks
        seen = self.weights * torch.bmm(b.rows, x[:, :, None])[:, :, 0]
        return b.pull(seen) + b.joined(self.norm.reduced(b.split(x)))
