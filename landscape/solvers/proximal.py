r"""Accelerated proximal descent on a working set, for programs too large to factor.

.. math:: \min_{θ, t} \; ℓ\Big(\sum_g A_g θ_g + Qt\Big) + β \sum_g γ(θ_g)

Products with the design only.  Blocks are proved zero by the gap-safe sphere test (Fercoq,
Gramfort & Salmon 2015): the dual objective is 1/L-strongly concave, L the smoothness of the loss,
so the optimal ν lies within :math:`ρ = \sqrt{2L · \mathrm{gap}}` of any feasible one and

.. math:: γ^∘(A_g^⊤ν) + ρ \|A_g\| < β \;⟹\; θ_g = 0 \text{ at every optimum.}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from landscape.solvers.groups import Groups

OUTER = 200
LONG = 1000
"""Most steps on one working set."""
REFITS = 30
EVERY = 10
"""Steps between two looks at the gap of the working set."""
ZERO = 1e-12
"""An objective this small beside the loss of the zero network counts as this large in gaps."""

SQUARED = 1e-5
"""Singular values this small beside the largest are lost to a percent when squared."""

EPSILON = float(np.finfo(np.float64).eps)


class Norm(NamedTuple):
    """The gauge γ as solvers need it, on blocks (G, p, c).

    Attributes:
        shrink: argmin_u ½‖u − θ_g‖² + by_g γ(u), of θ and ``by`` (G,).
        value: γ of every block, shape (G,).
        polar: its polar of every block, shape (G,); at most the Frobenius norm.
    """

    shrink: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    polar: Callable[[Tensor], Tensor]


def shrink_norms(theta: Tensor, by: Tensor) -> Tensor:
    """Return argmin_u ½‖u − θ_g‖² + by_g ‖u‖₂ for every block, θ (G, p, c), by (G,)."""
    sizes = theta.flatten(1).norm(dim=1)
    return theta * (1 - by / sizes.clamp_min(1e-300)).clamp_min(0.0)[:, None, None]


def shrink_singular_values(theta: Tensor, by: Tensor) -> Tensor:
    """Return argmin_V ½‖V − θ_g‖² + by_g ‖V‖_* for every block: σ ↦ (σ − by)_+.

    By eigenvectors Q of the smaller Gram matrix, V = θQ diag((1 − by/σ)_+)Qᵀ, three times as fast
    as singular vectors; by these where squaring would lose ``by`` beside σ (`SQUARED`).
    """
    turned = theta.mT if theta.shape[1] < theta.shape[2] else theta
    squares, Q = torch.linalg.eigh(turned.mT @ turned)
    sizes = squares.clamp_min(0.0).sqrt()
    if bool((by < SQUARED * sizes.amax(1)).any()):
        U, sizes, Vh = torch.linalg.svd(theta, full_matrices=False)
        return (U * (sizes - by[:, None]).clamp_min(0.0)[:, None, :]) @ Vh
    share = (1.0 - by[:, None] / sizes.clamp_min(1e-300)).clamp_min(0.0)
    shrunk = turned @ ((Q * share[:, None, :]) @ Q.mT)
    return shrunk.mT if theta.shape[1] < theta.shape[2] else shrunk


def nuclear(theta: Tensor) -> Tensor:
    """Return the nuclear norm of every block, shape (G,)."""
    return torch.linalg.svdvals(theta).sum(1)


def spectral(theta: Tensor) -> Tensor:
    """Return the largest singular value of every block, shape (G,): the nuclear norm's polar."""
    turned = theta.mT if theta.shape[1] < theta.shape[2] else theta
    return torch.linalg.eigvalsh(turned.mT @ turned)[:, -1].clamp_min(0.0).sqrt()


def frobenius(theta: Tensor) -> Tensor:
    """Return ‖θ_g‖₂ of every block, shape (G,): a norm and its own polar."""
    return theta.flatten(1).norm(dim=1)


EUCLIDEAN = Norm(shrink_norms, frobenius, frobenius)
NUCLEAR = Norm(shrink_singular_values, nuclear, spectral)


class Bound:
    """The best dual point so far and the blocks that it leaves.

    Attributes:
        best: largest dual value.
        nu: feasible dual point that gives it, shape (n, c).
        left: blocks not proved zero, shape (k,).
    """

    def __init__(self, groups: Groups, norm: Norm = EUCLIDEAN) -> None:
        self.groups, self.norm = groups, norm
        self.best, self.nu = -np.inf, torch.zeros_like(groups.y)
        self.left = torch.arange(groups.size, device=groups.X.device)
        self.zero = groups.value(torch.zeros_like(groups.y))

    def feasible(self, nu: Tensor) -> tuple[Tensor, bool]:
        """Return ν in the domain, orthogonal to the free directions, and whether it is both."""
        Q, loss, y = self.groups.free, self.groups.loss, self.groups.y
        nu = loss.into_domain(nu, y)
        if not Q.shape[1]:
            return nu, True
        turned = nu - Q @ (Q.T @ nu)
        inside = loss.into_domain(turned, y)
        return inside, float((inside - turned).norm()) <= 1e-10 * float(nu.norm())

    def offer(self, nu: Tensor, valid: bool, primal: float, pull: Tensor) -> tuple[Tensor, float]:
        """Scale ν to a feasible point, screen; return prices of the blocks left, relative gap.

        Args:
            nu: near −∇ℓ, as `feasible` returns it.
            valid: whether it is feasible but for its length; if not, it bounds nothing.
            primal: objective of a point, in scaled units.
            pull: A_gᵀν of the blocks left.
        """
        b, prices = self.groups, self.norm.polar(pull)
        ratio = float(prices.max()) / b.beta if len(prices) else 0.0
        scale = min(1.0, 1.0 / ratio) if ratio > 0 else 1.0
        dual = float(b.loss.dual_value(scale * nu, b.y)) if valid else -np.inf
        if dual > self.best:
            self.best, self.nu = dual, scale * nu
        if np.isfinite(dual):
            # The rounding of the two values is charged to the radius.
            rounding = 4 * b.n * EPSILON * (abs(primal) + self.zero)
            slack = max(primal - dual, 0.0) + rounding
            reach = (2 * b.smoothness * slack) ** 0.5
            kept = scale * prices + reach * b.norms[self.left] >= b.beta
            self.left, prices = self.left[kept], prices[kept]
        return prices, (primal - self.best) / max(abs(primal), ZERO * self.zero, 1e-300)


def descend(
    groups: Groups,
    theta: Tensor,
    t: Tensor,
    tolerance: float,
    steps: int,
    norm: Norm = EUCLIDEAN,
) -> tuple[Tensor, Tensor, Bound, float, list[dict[str, float]]]:
    """Descend from (θ, t) until the relative gap is at most ``tolerance`` or steps run out.

    Args:
        groups: the program.
        theta: start, shape (G, p, c).
        t: start of the free part, shape (r, c).
        tolerance: relative gap wanted.
        steps: most gradient steps, all working sets together.
        norm: the gauge.

    Returns:
        ``(θ, t, bound, gap, history)``.
    """
    b, bound = groups, Bound(groups, norm)
    history, used, gap = [], 0, np.inf
    # With many blocks at work the first working set must not crawl; it doubles from here.
    width = max(32, b.size // 16)
    for _ in range(OUTER):
        without = b.apply(theta)
        t = refit(b, without, t)
        fit = without + b.free @ t
        primal = b.value(fit) + b.beta * float(norm.value(theta).sum())
        nu, valid = bound.feasible(-b.loss.gradient(fit, b.y))
        prices, gap = bound.offer(nu, valid, primal, b.adjoint(nu, bound.left))
        kept = torch.zeros(b.size, dtype=torch.bool, device=theta.device)
        kept[bound.left] = True
        theta = theta * kept[:, None, None]
        history.append(
            {
                "value": primal * b.value_scale,
                "gap": gap,
                "steps": used,
                "left": len(bound.left),
                "active": int(theta.flatten(1).any(1).sum()),
            }
        )
        if gap <= tolerance or used >= steps:
            break
        carrying = theta.flatten(1).any(1)
        priced = torch.zeros(b.size, dtype=theta.dtype, device=theta.device)
        priced[bound.left] = prices
        new = torch.nonzero((priced > b.beta) & ~carrying)[:, 0]
        width = max(width, int(carrying.sum()))
        new = new[torch.argsort(-priced[new], stable=True)[:width]]
        carrying[new] = True
        chosen = torch.nonzero(carrying)[:, 0]
        wanted = max(tolerance / 2, 0.2 * gap) if np.isfinite(gap) else 0.1
        moved, t, count = _accelerate(
            b, theta[chosen], t, chosen, wanted, min(LONG, steps - used), bound
        )
        theta[chosen] = moved
        used += count
    return theta, t, bound, gap, history


def refit(b: Groups, fit: Tensor, t: Tensor) -> Tensor:
    """Return the free part that minimises ℓ(fit + Qt), by damped Newton steps from t."""
    Q = b.free
    if not Q.shape[1]:
        return t
    value = b.value(fit + Q @ t)
    for _ in range(REFITS):
        now = fit + Q @ t
        slope = Q.T @ b.loss.gradient(now, b.y)
        curvature = b.loss.curvature(now, b.y).T  # (c, n)
        hessian = Q.T @ (curvature[:, :, None] * Q)  # (c, r, r)
        hessian.diagonal(dim1=1, dim2=2).add_(1e-12 * float(curvature.max()) + 1e-300)
        step = -torch.linalg.solve_ex(hessian, slope.T[:, :, None])[0][:, :, 0].T
        length, descent = 1.0, -float((slope * step).sum())
        if not descent > 1e-16 * abs(value):
            break
        while length > 1e-12:
            trial = b.value(now + length * (Q @ step))
            if trial < value:
                break
            length /= 2
        else:
            break
        t, value = t + length * step, trial
    return t


def _accelerate(
    b: Groups,
    theta: Tensor,
    t: Tensor,
    chosen: Tensor,
    wanted: float,
    steps: int,
    bound: Bound,
) -> tuple[Tensor, Tensor, int]:
    """FISTA with gradient restarts over some blocks, each with its own step size.

    Steps are 1/(L c ‖A_g‖) with c = λ_max(Σ A_g A_gᵀ/‖A_g‖), so that the metric majorises the
    loss's Hessian; c comes from power iteration and is raised where a step shows it too small.
    """
    sizes = b.norms[chosen].clamp_min(1e-12 * float(b.norms.max()))
    share = 2.0 if b.free.shape[1] else 1.0  # the free part has norm 1 and half of the metric
    factor = 1.02 * _largest(b, chosen, sizes)
    x, x_t = theta, t
    f = b.apply(x, chosen) + b.free @ x_t
    y, y_t, g, momentum = x, x_t, f, 1.0
    count = 0
    while count < steps:
        count += 1
        metric = share * b.smoothness * factor * sizes
        slope = b.loss.gradient(g, b.y)
        moved = y - b.adjoint(slope, chosen) / metric[:, None, None]
        new = bound.norm.shrink(moved, b.beta / metric)
        new_t = y_t - (b.free.T @ slope) / (share * b.smoothness)
        new_f = b.apply(new, chosen) + b.free @ new_t
        step, step_t = new - y, new_t - y_t
        length = float(metric @ step.flatten(1).square().sum(1))
        length += share * b.smoothness * float(step_t.square().sum())
        if b.smoothness * float((new_f - g).square().sum()) > length * (1 + 1e-9):
            factor *= 1.3
            continue
        turning = -float((metric[:, None, None] * step * (new - x)).sum())
        turning -= share * b.smoothness * float((step_t * (new_t - x_t)).sum())
        if turning > 0:
            momentum = 1.0
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        push = (momentum - 1) / following
        y, y_t, g = new + push * (new - x), new_t + push * (new_t - x_t), new_f + push * (new_f - f)
        x, x_t, f, momentum = new, new_t, new_f, following
        if count % EVERY == 0:
            nu, valid = bound.feasible(-b.loss.gradient(f, b.y))
            if not valid:
                continue
            prices = bound.norm.polar(b.adjoint(nu, chosen))
            scale = min(1.0, b.beta / max(float(prices.max()), 1e-300))
            primal = b.value(f) + b.beta * float(bound.norm.value(x).sum())
            dual = float(b.loss.dual_value(scale * nu, b.y))
            if primal - dual <= wanted * abs(primal):
                break
    return x, x_t, count


def _largest(b: Groups, chosen: Tensor, sizes: Tensor) -> float:
    """Return λ_max(Σ A_g A_gᵀ/‖A_g‖) by power iteration, almost from below."""
    v = torch.ones_like(b.y) + torch.linspace(0, 1, b.n).to(b.y)[:, None]
    size = 1.0
    for _ in range(12):
        v = v / v.norm()
        v = b.apply(b.adjoint(v, chosen) / sizes[:, None, None], chosen)
        size = float(v.norm())
    return max(size, 1e-300)
