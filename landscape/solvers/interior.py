r"""A primal–dual interior point that uses the structure of pattern blocks.

.. math:: \min \; ℓ(f) + β \sum_g t_g, \quad f = \sum_g A_g z_g + A_0 c, \quad
    s_g = G_g z_g ≥ 0, \quad \|z_g\| ≤ t_g

Nesterov–Todd scaling, Mehrotra's predictor with Gondzio's correctors.  Eliminating t, s and the
multipliers leaves one p × p matrix a block, :math:`H_g = X^⊤W_gX + C_g` (one matrix product for
all), and one n × n Schur complement :math:`I + L^{½}(\sum_g A_g H_g^{-1} A_g^⊤)L^{½}`, L the
curvature of the loss.  Late H_g are hopelessly ill-conditioned, so this factorisation only
preconditions conjugate gradients on the true operator.  Slacks are recomputed from the blocks, so
an iterate that starts strictly feasible stays so.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
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
    from landscape.solvers.blocks import Blocks

ITERATIONS = 120
SHIFTING = 1.0  # proximal weight that keeps free coordinates which repeat the free part in place
CHUNK = 1_000_000  # numbers in one slab of the factor of the Schur complement
KINDS = (torch.float32, torch.float64)
COARSE = 1e-2  # gaps above which a preconditioner in single precision will do


@dataclass
class Point:
    """An iterate: blocks, bounds of their norms, slacks and multipliers, in scaled units.

    Attributes:
        z: blocks, shape (G, p).
        c: free part, shape (q,).
        t: bounds of the norms, shape (G,).
        w: dual of the norm's cone, shape (G, penalised); ‖w‖ < β.
        s: slacks of the cones, shape (G, k).
        mu: their multipliers, shape (G, k).
        gap: relative gap to the bound that the multipliers themselves give.
    """

    z: Tensor
    c: Tensor
    t: Tensor
    w: Tensor
    s: Tensor
    mu: Tensor
    gap: float = np.inf
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def start(blocks: Blocks, inside: Tensor) -> Point:
    """Return a strictly feasible iterate from directions inside the cones, shape (G, p)."""
    k = blocks.penalised
    z = START_SIZE * inside / inside[:, :k].norm(dim=1, keepdim=True)
    t = 2.0 * z[:, :k].norm(dim=1)
    s = blocks.slack(z)
    level = START_CENTRE * blocks.beta * t.mean()
    return Point(z, z.new_zeros(blocks.free.shape[1]), t, torch.zeros_like(z[:, :k]), s, level / s)


class Interior:
    """Iterations on one program; `run` may be called again with a smaller tolerance."""

    def __init__(self, blocks: Blocks, inside: Tensor) -> None:
        self.blocks = blocks
        self.now = start(blocks, inside)
        self.at_zero = float(blocks.loss.value(torch.zeros_like(blocks.y), blocks.y))
        p = blocks.p
        upper = torch.triu_indices(p, p, device=blocks.X.device)
        self.products = (blocks.cone[:, upper[0]] * blocks.cone[:, upper[1]]).contiguous()
        place = torch.zeros(p, p, dtype=torch.long, device=blocks.X.device)
        place[upper[0], upper[1]] = torch.arange(upper.shape[1], device=place.device)
        place[upper[1], upper[0]] = place[upper[0], upper[1]]
        self.place = place.reshape(-1)
        k = blocks.penalised
        self.reach = float(blocks.X[:, :k].norm(dim=1).max())
        self.onto_free = torch.linalg.qr(blocks.free)[0]
        # Work space: arrays over blocks and cone rows are written in place, again and again.
        patterns = max(1, min(blocks.patterns, CHUNK // (blocks.n * p)))
        self.slab = (blocks.n, patterns, p)
        self.work: dict[torch.dtype, tuple[Tensor, Tensor, Tensor]] = {}
        self.cuts = [*range(0, blocks.n, max(64, -(-blocks.n // 4))), blocks.n]
        self.spare = [torch.empty_like(self.now.s) for _ in range(7)]

    def workspace(self, kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return X, a slab of the Schur complement's factor and its square, in one precision."""
        if kind not in self.work:
            X, n = self.blocks.X, self.blocks.n
            slab, square = (X.new_empty(*shape, dtype=kind) for shape in (self.slab, (n, n)))
            self.work[kind] = X.to(kind), slab, square
        return self.work[kind]

    def run(self, tolerance: float) -> Point:
        """Iterate until the relative gap is at most ``tolerance`` or progress ends."""
        best, least, idle = np.inf, np.inf, 0
        while self.now.steps < ITERATIONS:
            residual = self._judge()
            if self.now.gap <= tolerance:
                break
            lack = float(residual[0].abs().max())
            idle = 0 if self.now.gap < 0.9 * best or lack < 0.9 * least else idle + 1
            best, least = min(best, self.now.gap), min(least, lack)
            # An infinite gap is that of a dual point out of its domain, NaN a breakdown.
            if idle > 12 or np.isnan(self.now.gap) or not self._advance(*residual):
                break
        return self.now

    def _judge(self) -> tuple[Tensor, Tensor, Tensor, float]:
        """Set the gap of the current point; return its residuals and mean complementarity."""
        b, now, k = self.blocks, self.now, self.blocks.penalised
        fit = b.apply(now.z) + b.free @ now.c
        slope = b.loss.gradient(fit, b.y)
        lacking = b.slack_adjoint(now.mu) - b.adjoint(slope)
        lacking[:, :k] += now.w
        primal = b.loss.value(fit, b.y) + b.beta * now.z[:, :k].norm(dim=1).sum()
        reached = (lacking[:, :k] - now.w).norm(dim=1)
        nu = -slope
        if k < b.p:
            # What is left along free coordinates counts as far as a neuron reaches along them.
            reached = reached + self.reach * lacking[:, k:].abs().sum(1)
            nu = nu - self.onto_free @ (self.onto_free.T @ nu)
            nu = nu * min(1.0, b.loss.reach(nu.cpu().numpy()))
        nu = nu * min(1.0, b.beta / float(reached.max()))
        bound = b.loss.dual_value(nu, b.y)
        complement = (now.s * now.mu).sum() + b.beta * now.t.sum() + (now.z[:, :k] * now.w).sum()
        total = float(complement)
        self.now.gap = relative_gap(float(primal), float(bound), self.at_zero)
        mean = total / (now.s.numel() + len(now.t))
        return lacking, -(b.free.T @ slope), b.loss.curvature(fit, b.y), mean

    def _advance(self, lacking: Tensor, free_lacking: Tensor, L: Tensor, mean: float) -> bool:
        """Take one predictor–corrector step; False if no step is left."""
        b, now, k = self.blocks, self.now, self.blocks.penalised
        z, t, w, s, mu = now.z[:, :k], now.t, now.w, now.s, now.mu
        norm = ScaledNorm(z, t, w, b.beta)
        buffer, weights, ratio, ds, dmu, other_ds, other_dmu = self.spare
        torch.div(mu, s, out=weights)
        if len(b.open):  # their slacks do not move
            weights[b.open] = 0.0
        system = _System(self, norm, weights, L)
        if not system.sound:
            return False

        def direction(ratio: Tensor, q: tuple[Tensor, Tensor], out: tuple[Tensor, Tensor]) -> Step:
            """Solve for s∘Δμ + μ∘Δs = s∘ratio and for the scaled cone's λ∖d = q."""
            r0, r1 = norm.scale(*q)
            ds, dmu = out
            right = torch.addmm(lacking, torch.mul(ratio, b.sides, out=buffer), b.cone)
            right[:, :k] += norm.reduced(r1)
            dz, dc = system.solve(right, free_lacking)
            torch.mm(dz, b.cone_t, out=ds).mul_(b.sides)
            torch.addcmul(ratio, weights, ds, value=-1, out=dmu)
            rest = r1 - dz[:, :k]
            dt = r0 - norm.w0 * norm.kappa * (norm.w1 * rest).sum(1)
            # Reductions together: one transfer from a device.
            least = torch.stack(
                [torch.div(ds, s, out=buffer).min(), torch.div(dmu, mu, out=buffer).min()]
            )
            dw = norm.reduced(rest)
            reach = [1.0, *(-1.0 / r for r in least.tolist() if r < 0)]
            reach.append(longest_step(t, z, dt, dz[:, :k]))
            reach.append(longest_step(torch.full_like(t, b.beta), w, torch.zeros_like(t), dw))
            return Step(dz, dc, dt, ds, dmu, dw, min(reach))

        l0, l1 = norm.l0, norm.l1
        found = direction(torch.neg(mu, out=ratio), (-l0, -l1), (ds, dmu))
        a, dt, dw = found.reach, found.dt, found.dw
        torch.addcmul(s * mu, s, dmu, value=a, out=buffer).addcmul_(mu, ds, value=a)
        predicted = buffer.addcmul_(ds, dmu, value=a * a).sum() + b.beta * (t + a * dt).sum()
        predicted = float(predicted + ((z + a * found.dz[:, :k]) * (w + a * dw)).sum())
        share = predicted / (s.numel() + len(t)) / mean
        target = mean * min(1.0, max(share, 1e-3)) ** 3
        quotient = norm.corrected(target, dt, found.dz[:, :k], dw)
        torch.addcmul(buffer.fill_(target), ds, dmu, value=-1, out=ratio).div_(s).sub_(mu)
        found = direction(ratio, quotient, (ds, dmu))
        for _ in range(2):  # Gondzio: pull products that a longer step would spoil
            if found.reach > 0.95:
                break
            trial = min(1.0, 1.5 * found.reach + 0.1)
            ds, dmu = found.ds, found.dmu
            free = (other_ds, other_dmu) if ds is self.spare[3] else self.spare[3:5]
            after = torch.add(s, ds, alpha=trial, out=free[0])
            after.mul_(torch.add(mu, dmu, alpha=trial, out=free[1]))
            torch.clamp(after, 0.1 * target, 10 * target, out=free[1]).sub_(after)
            ratio.add_(free[1].clamp_min_(-10 * target).div_(s))
            again = direction(ratio, quotient, (free[0], free[1]))
            if again.reach < 1.01 * found.reach:
                break
            found = again
        length = 0.99 * found.reach
        slack = b.slack(now.z + length * found.dz)
        while length > 1e-12 and float(slack.min()) <= 0:  # rounding: keep strictly inside
            length *= 0.9
            slack = b.slack(now.z + length * found.dz)
        if not length > 1e-10:
            return False
        self.now = Point(
            z=now.z + length * found.dz,
            c=now.c + length * found.dc,
            t=t + length * found.dt,
            w=w + length * found.dw,
            s=slack,
            mu=mu.add_(found.dmu, alpha=length),
            gap=now.gap,
            steps=now.steps + 1,
            history=now.history,
        )
        return True


class _System(NewtonSystem):
    """The Newton system of one iteration, factored."""

    def __init__(self, interior: Interior, norm: ScaledNorm, weights: Tensor, L: Tensor) -> None:
        super().__init__(interior.blocks, L, min(max(1e-3 * interior.now.gap, 1e-9), 1e-4))
        b = self.blocks
        self.buffer, self.norm, self.weights = interior.spare[0], norm, weights
        k = b.penalised
        H = (weights @ interior.products)[:, interior.place].reshape(b.size, b.p, b.p)
        H[b.shifting, k:, k:] += SHIFTING
        inner = H[:, :k, :k]
        inner.baddbmm_(
            (-norm.inverse * norm.kappa)[:, None, None] * norm.w1[:, :, None], norm.w1[:, None, :]
        )
        diagonal = H.diagonal(dim1=1, dim2=2)
        diagonal[:, :k] += norm.inverse[:, None]
        factor, sound = factored(H)
        self.inverses = torch.cholesky_inverse(factor)
        joined, bad = torch.linalg.cholesky_ex(b.sum_per_pattern(self.inverses))
        for kind in KINDS if interior.now.gap > COARSE else KINDS[1:]:
            self.schur, worse = torch.linalg.cholesky_ex(self._complement(interior, joined, kind))
            if not bool(worse):
                break
        self.sound = sound and not bool(bad.any() | worse)
        self.eliminate()

    def _complement(self, interior: Interior, joined: Tensor, kind: torch.dtype) -> Tensor:
        """Return the lower triangle of the Schur complement, computed in one precision."""
        b, cuts = self.blocks, interior.cuts
        X, slab, schur = interior.workspace(kind)
        schur.zero_().diagonal().fill_(1.0)
        rows, joined = (self.root[:, None] * b.masks_t).to(kind), joined.to(kind)
        width = slab.shape[1]
        for begin in range(0, b.patterns, width):
            end = min(begin + width, b.patterns)
            half = slab[:, : end - begin]
            flat = half.reshape(b.n, -1) if end - begin < width else half.view(b.n, -1)
            torch.mm(X, joined[begin:end].permute(1, 0, 2).reshape(b.p, -1), out=flat)
            half = flat.view(b.n, end - begin, b.p).mul_(rows[:, begin:end, None])
            flat = half.view(b.n, -1)
            for top, low in itertools.pairwise(cuts):  # the lower triangle is enough
                schur[top:low, :low].addmm_(flat[top:low], flat[:low].T)
        return schur.double()

    def inverse(self, r: Tensor) -> Tensor:
        """Return H_g⁻¹ r_g for every block."""
        return (self.inverses @ r[:, :, None])[:, :, 0]

    def curved(self, x: Tensor) -> Tensor:
        """Return H_g x_g for every block, matrix-free."""
        b, k = self.blocks, self.blocks.penalised
        # The sides of the cone's rows cancel in GᵀDG.
        seen = torch.mm(x, b.cone_t, out=self.buffer).mul_(self.weights)
        out = seen @ b.cone
        out[:, :k] += self.norm.reduced(x[:, :k])
        out[b.shifting, k:] += SHIFTING * x[b.shifting, k:]
        return out


def centre(blocks: Blocks, directions: Tensor, steps: int = 40) -> tuple[Tensor, Tensor]:
    """Move one direction a pattern to the analytic centre of its cone.

    The centre minimises −Σ log(row·u)/k + ½‖u‖², by damped Newton steps; centred starts take a
    third fewer interior-point steps than random gates.

    Returns:
        Centred directions (P, p), and whether each was strictly inside to begin with (P,); those
        that were not are returned as they came.
    """
    u = directions / directions.norm(dim=1, keepdim=True).clamp_min(1e-300)
    k = blocks.cone.shape[0]
    sides, rows = blocks.pattern_sides, (blocks.cone[:, :, None] * blocks.cone[:, None, :])
    rows = rows.flatten(1)
    inside = (sides * (u @ blocks.cone_t)).amin(1) > 0
    eye = torch.eye(blocks.p, dtype=u.dtype, device=u.device)
    left = torch.nonzero(inside)[:, 0]
    for _ in range(steps):
        if not len(left):
            break
        v, side = u[left], sides[left]
        s = side * (v @ blocks.cone_t)
        slope = v - (side / s) @ blocks.cone / k
        H = (s.square().reciprocal_() @ rows).reshape(-1, blocks.p, blocks.p) / k + eye
        dv = -torch.cholesky_solve(slope[:, :, None], torch.linalg.cholesky_ex(H)[0])[:, :, 0]
        decrement = (-k * (dv * slope).sum(1)).clamp_min(0).sqrt()
        reach = (side * (dv @ blocks.cone_t) / s).amin(1)
        longest = torch.where(reach < 0, -0.9 / reach, 1.0).clamp_max(1.0)
        length = torch.where(decrement < 0.25, 1.0, torch.maximum(longest, 1 / (1 + decrement)))
        u[left] = v + torch.minimum(length, longest * (0.95 / 0.9))[:, None].clamp_max(1.0) * dv
        left = left[decrement > 0.3]
    return u, inside


__all__: list[str] = ["Interior", "Point", "centre"]
