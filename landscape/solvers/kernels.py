r"""Newton on the weights of kernels: the group lasso as a smooth problem over η ≥ 0.

With :math:`β\|w\| = \min_{η ≥ 0} \tfrac β2 (\|w\|^2/η + η)` the group lasso is the learning of
one kernel a pattern,

.. math::

    \min_{η ≥ 0} φ(η), \qquad
    φ(η) = \tfrac β2 \sum_g η_g
        + \min_{w, t}\; ℓ\Big(\sum_g A_g w_g + Qt\Big) + \tfrac β2 \sum_g \|w_g\|^2/η_g ,

convex and, where ℓ is, smooth up to η = 0, so that blocks leave and enter without the kink of the
norm.  The inner minimum has :math:`w_g = η_g A_g^⊤ω/β` with ω = −∇ℓ at the fit, and with
W = ∇²ℓ there

.. math::

    \frac{∂φ}{∂η_g} = \tfrac β2 \big(1 − \|A_g^⊤ω\|^2/β^2\big), \quad
    \frac{∂^2φ}{∂η_g ∂η_h} = v_g^⊤ W^{1/2} S^{-1} W^{1/2} v_h / β^2, \quad v_g = A_g A_g^⊤ ω,

    S = I + W^{1/2} K_η W^{1/2}/β, \qquad K_η = \sum_g η_g A_g A_g^⊤ = XX^⊤ ∘ \sum_g η_g m_g m_g^⊤ .

The Hadamard product makes S cost one product of masks, whatever the dimension p.  It is the same
elimination as Newton on the blocks with the norm's Hessian β(I/‖w‖ − wwᵀ/‖w‖³), which it equals
at a solution, without that one's pole at w = 0.  A step solves the quadratic model over η ≥ 0
exactly.  Where all active blocks have fewer coordinates than there are samples, S⁻¹ goes through
the smaller matrix (Woodbury).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from landscape.nonnegative import least_squares

if TYPE_CHECKING:
    from landscape.solvers.groups import Groups

INNER = 60
PIVOTS = 40
FLOOR = 1e-12
"""Smallest curvature used, relative to the largest: the Huber loss has none on its lines."""


@dataclass
class Point:
    """Weights and the inner minimum there.

    Attributes:
        eta: weights, shape (G,).
        omega: −∇ℓ at the fit, shape (n,), up to the inner tolerance.
        t: coordinates along the free directions, shape (r,).
        bend: fit without the free part, shape (n,).
        value: φ(η).
        factor: the inner Newton matrix, factored.
    """

    eta: Tensor
    omega: Tensor
    t: Tensor
    bend: Tensor
    value: float
    factor: Factor


class Kernels:
    """The function φ of one group lasso with scalar outputs."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self._gram: Tensor | None = None

    @property
    def gram(self) -> Tensor:
        """XXᵀ, shape (n, n), made when first asked for."""
        if self._gram is None:
            self._gram = self.groups.X @ self.groups.X.T
        return self._gram

    def kernel(self, eta: Tensor, active: Tensor, v: Tensor) -> Tensor:
        """Return K_η v / β without forming K_η, shape (n,)."""
        b = self.groups
        pulled = b.adjoint(v[:, None], active)
        return b.apply((eta[active] / b.beta)[:, None, None] * pulled, active)[:, 0]

    def evaluate(self, eta: Tensor, omega: Tensor, t: Tensor, tolerance: float) -> Point:
        """Solve the inner problem by damped Newton steps from (ω, t).

        Args:
            eta: weights, shape (G,).
            omega: start, shape (n,).
            t: start, shape (r,).
            tolerance: largest decrease that may be left, in units of the objective.
        """
        b, Q, y = self.groups, self.groups.free, self.groups.y[:, 0]
        active = torch.nonzero(eta)[:, 0]
        bend = self.kernel(eta, active, omega)
        factor, before, linear = None, np.inf, b.loss.name == "squared"
        # A start from other weights can be far off: shrink it until it beats ω = 0.
        zero, shrink, curved = float(b.loss.value(Q @ t, y)), 1.0, 0.5 * float(omega @ bend)
        while True:
            fit = shrink * bend + Q @ t
            value = float(b.loss.value(fit, y)) + shrink**2 * curved
            if value <= zero or shrink == 0.0:
                break
            shrink = shrink / 4 if shrink > 1e-12 else 0.0
        omega, bend = shrink * omega, shrink * bend
        for _ in range(INNER):
            rho, tau = omega + b.loss.gradient(fit, y), Q.T @ omega
            if factor is None:
                factor = Factor(self, eta, active, b.loss.curvature(fit, y))
            domega, dt = factor.step(rho, tau)
            dbend = self.kernel(eta, active, domega)
            dfit = dbend + Q @ dt
            descent = float(tau @ dt - rho @ dfit)
            if not descent > -1e-13 * abs(value):
                break
            straight, curved = float(omega @ dbend), float(domega @ dbend)
            quadratic = 0.5 * float(omega @ bend)

            def slope(s: float, at=fit, along=dfit, a=straight, c=curved) -> float:
                return float(b.loss.gradient(at + s * along, y) @ along) + a + s * c

            flat = descent <= 1e-13 * abs(value)  # rounding: no search, but ω settles
            length = 1.0 if linear or flat else _root(slope, descent)
            bent = quadratic + length * straight + 0.5 * length**2 * curved
            trial = float(b.loss.value(fit + length * dfit, y)) + bent
            if trial > value and not flat:
                break
            omega, t, value = omega + length * domega, t + length * dt, trial
            bend = bend + length * dbend
            fit = bend + Q @ t
            if descent <= max(tolerance, 1e-15 * abs(value)):
                break
            if not linear and (length != 1.0 or descent > 1e-3 * before):
                factor = None
            before = descent
        if not linear or factor is None:
            factor = Factor(self, eta, active, b.loss.curvature(fit, y))
        return Point(eta, omega, t, bend, value + 0.5 * b.beta * float(eta.sum()), factor)

    def direction(
        self, point: Point, pull: Tensor, sizes: Tensor, damping: float, bold: bool
    ) -> Tensor:
        """Return the minimiser η of φ's quadratic model over η ≥ 0, less the present η.

        Along a ray 1/‖A_gᵀω‖ is nearly linear in η, while φ falls like a pole: a bold step aims
        the slopes at 1/‖A_gᵀω‖ = 1/β, as the secular equation of trust regions is solved, and
        is many times longer where prices are far above β; at the optimum the two agree.

        Args:
            point: where to expand.
            pull: A_gᵀω of all blocks, shape (G, p).
            sizes: their norms, shape (G,).
            damping: added to the Hessian's diagonal, relative.
            bold: whether to aim at the secular equation.
        """
        b, eta = self.groups, point.eta
        entering = torch.nonzero((eta == 0) & (sizes > b.beta))[:, 0]
        most = max(64, b.n)
        if len(entering) > most:
            entering = entering[torch.argsort(-sizes[entering], stable=True)[:most]]
        chosen = torch.cat([torch.nonzero(eta)[:, 0], entering])
        step = torch.zeros_like(eta)
        if not len(chosen):
            return step
        slope = 0.5 * b.beta * (1 - (sizes[chosen] / b.beta).square())
        if bold:
            ratio = (sizes[chosen] / b.beta).clamp_min(1.0)
            slope = slope * 2 * ratio.square() / (1 + ratio)
        v = (b.masks[chosen] * (pull[chosen] @ b.X.T)).T  # (n, k)
        hessian = v.T @ point.factor.inverse(v) / b.beta**2
        hessian = 0.5 * (hessian + hessian.T)
        if not float(hessian.diagonal().min()) > 0 or not bool(hessian.isfinite().all()):
            return step  # the inner problem was lost to rounding: no step
        diagonal = hessian.diagonal()
        diagonal += damping * diagonal + 1e-16 * diagonal.amax()
        now = eta[chosen]
        found = nonnegative_minimum(hessian, slope - hessian @ now, (now > 0) | (slope < 0))
        step[chosen] = found - now
        return step


class Factor:
    """S = I + W½ K_η W½ / β, factored in the smaller of its two forms, with the free part."""

    def __init__(self, kernels: Kernels, eta: Tensor, active: Tensor, curvature: Tensor) -> None:
        b = kernels.groups
        self.groups, self.active = b, active
        self.beta = b.beta
        curvature = curvature.clamp_min(FLOOR * (float(curvature.max()) or 1.0))
        self.root = curvature.sqrt()
        self.weights = (eta[active] / b.beta).sqrt()
        self.dense = b.n <= len(active) * b.p
        if self.dense:
            masks = b.masks[active].to(b.X.dtype) * self.weights[:, None]
            S = kernels.gram * (masks.T @ masks)
            S *= self.root
            S *= self.root[:, None]
        else:
            S = b.X.new_zeros(len(active) * b.p, len(active) * b.p)
            for _, rows in self._rows():
                S.addmm_(rows.T, rows)
        S.diagonal().add_(1.0)
        self.chol = torch.linalg.cholesky_ex(S)[0]
        self.E = self.root[:, None] * b.free
        self.Y = self.solve(self.E)
        small = self.E.T @ self.Y
        if len(small):
            small.diagonal().add_(1e-14 * float(small.diagonal().max()))
        self.small = torch.linalg.cholesky_ex(small)[0]

    def _rows(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield row slices of W½ [A_g √(η_g/β)] over the active blocks, (k, Ga p) each."""
        b = self.groups
        width = max(1, 2**24 // max(1, len(self.active) * b.p))
        for begin in range(0, b.n, width):
            part = slice(begin, begin + width)
            left = self.root[part, None] * b.masks[self.active, part].T * self.weights
            rows = left[:, :, None] * b.X[part, None, :]
            yield part, rows.reshape(len(rows), -1)

    def solve(self, R: Tensor) -> Tensor:
        """Return S⁻¹R, shape (n, k)."""
        if self.dense:
            return torch.cholesky_solve(R, self.chol)
        if not len(self.active) or not R.shape[1]:
            return R.clone()
        inner = R.new_zeros(len(self.chol), R.shape[1])
        for part, rows in self._rows():
            inner.addmm_(rows.T, R[part])
        inner = torch.cholesky_solve(inner, self.chol)
        out = R.clone()
        for part, rows in self._rows():
            out[part] -= rows @ inner
        return out

    def inverse(self, R: Tensor) -> Tensor:
        """Return W½ S̃⁻¹ W½ R with S̃⁻¹ the inverse on the orthogonal of the free part."""
        found = self.solve(self.root[:, None] * R)
        if self.E.shape[1]:
            found = found - self.Y @ torch.cholesky_solve(self.E.T @ found, self.small)
        return self.root[:, None] * found

    def step(self, rho: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Newton step (dω, dt) for the residuals ρ = ω + ∇ℓ (n,) and τ = Qᵀω (r,)."""
        right = (rho / self.root)[:, None]
        dt = tau - (self.Y.T @ right)[:, 0]
        if len(dt):
            dt = torch.cholesky_solve(dt[:, None], self.small)[:, 0]
        return -self.root * (self.solve(right)[:, 0] + self.Y @ dt), dt


def _root(slope: Callable[[float], float], descent: float) -> float:
    """Return where a rising slope, −``descent`` at 0, crosses zero; 1 if nearly flat there."""
    low, high, below, above = 0.0, 1.0, -descent, slope(1.0)
    if above <= 0.1 * descent:
        return 1.0
    for k in range(60):
        # Regula falsi and bisection in turn: the slope may bend sharply.
        middle = 0.5 * (low + high)
        if k % 2 and above > below:
            middle = high - above * (high - low) / (above - below)
        now = slope(middle)
        if abs(now) <= 0.1 * descent:
            return middle
        low, below = (middle, now) if now < 0 else (low, below)
        high, above = (middle, now) if now > 0 else (high, above)
    return low


def nonnegative_minimum(H: Tensor, q: Tensor, guess: Tensor) -> Tensor:
    """Return the minimiser of ½xᵀHx + qᵀx over x ≥ 0, H positive definite.

    Block principal pivoting (Portugal, Júdice & Vicente 1994) from the guess of the support; if
    it does not settle, non-negative least squares on the Cholesky factor.
    """
    on, fewest, tries = guess, len(q) + 1, 3
    floor = 1e-12 * float(q.abs().max()) if len(q) else 0.0
    for _ in range(PIVOTS):
        where = torch.nonzero(on)[:, 0]
        chol, failed = torch.linalg.cholesky_ex(H[where][:, where])
        if int(failed):
            break
        x = torch.zeros_like(q)
        x[where] = torch.cholesky_solve(-q[where, None], chol)[:, 0]
        wrong = (on & (x < 0)) | (~on & (H @ x + q < -floor))
        count = int(wrong.sum())
        if not count:
            return x
        tries = 3 if count < fewest else tries - 1
        fewest = min(count, fewest)
        if tries < 0:
            break
        on = on ^ wrong
    chol, failed = torch.linalg.cholesky_ex(H)
    if int(failed):
        shifted = H + 1e-10 * float(H.diagonal().max()) * torch.eye(len(H)).to(H)
        chol = torch.linalg.cholesky_ex(shifted)[0]
    target = -torch.linalg.solve_triangular(chol, q[:, None], upper=False)[:, 0]
    found, _ = least_squares(chol.T.cpu().numpy(), target.cpu().numpy())
    return torch.as_tensor(found, device=q.device)
