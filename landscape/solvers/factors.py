r"""Newton on low-rank factors: the nuclear-norm program where most blocks are zero or of low rank.

.. math:: \min_{W, A, t} \; ℓ\Big(\sum_j D_{g(j)} X w_j a_j^⊤ + Qt\Big)
    + \tfrac β2 \sum_j (\|w_j\|^2 + \|a_j\|^2)

has the optimum of :math:`\min ℓ(\sum_g D_g X V_g + Qt) + β \sum_g \|V_g\|_*` once its components j
span the optimal blocks :math:`V_g = \sum_{g(j)=g} w_j a_j^⊤`, and is smooth.  With
:math:`Ξ_g = X^⊤D_g N`, N = −∇ℓ, its Hessian is

.. math:: J^⊤ \mathrm{diag}(ℓ'')\, J + \begin{pmatrix} βI & −Ξ \\ −Ξ^⊤ & βI \end{pmatrix},

positive semidefinite where all :math:`σ_{\max}(Ξ_g) \le β`, which is dual feasibility; elsewhere
the σ are cut off at β.  Conjugate gradients apply it to all components at once: products with the
design and the masks of components only, no loop over blocks and no factorisation but p × p.

After every step blocks are decomposed anew; components enter where :math:`Ξ_g`, restricted to what
V_g does not span, has σ > β, and leave where the objective does not need them.  The certificate is
that of `landscape.solvers.proximal.Bound`: prices of all blocks left.

Where optimal blocks are not unique, or nearly so, valleys are flat: straight in V, bent in (W, A).
Where a step is short, or no faster than the last, another is tried along the tangent to V, of any
length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from landscape.errors import BadInput
from landscape.solvers.components import Components, Steps, assembled, decomposed, straightened
from landscape.solvers.proximal import NUCLEAR, Bound

if TYPE_CHECKING:
    from landscape.solvers.groups import Groups

ROUNDS = 100
CONJUGATE = 400
"""Most conjugate gradient steps in one Newton step."""
SMALL = 1e-3
"""Components below this size, relative, are left out if the objective is no higher without."""
UNDAMPED, DAMPED = 1e-9, 1e-3
"""What is added to the Hessian, over β: where steps are long, and at least where they are short."""
SHORT = 0.3
STALLED = 10
FELL = 1e-4
"""A value that falls by this share of the gap is progress, though the gap may not show it."""
CRAWL = 0.7
"""Steps crawl where each lowers the value by this share of what the last one did, or more."""
SEVERAL = 3
"""Components that enter a block at once, at most."""


class _System:
    """F around one point: value, gradient, Hessian products, preconditioner."""

    def __init__(self, b: Groups, parts: Components, t: Tensor) -> None:
        self.b, self.parts, self.t = b, parts, t
        self.masks = b.masks[parts.block].T.to(b.X.dtype)  # (n, R)
        self.hidden = self.masks * (b.X @ parts.W)
        self.fit = self.hidden @ parts.A.T + b.free @ t
        self.nu = -b.loss.gradient(self.fit, b.y)
        self.curvature = b.loss.curvature(self.fit, b.y)
        self.value = b.value(self.fit) + 0.5 * b.beta * float(
            parts.W.square().sum() + parts.A.square().sum()
        )

    def gradient(self) -> Steps:
        """Return the slopes in W, A and t."""
        W, A, beta = self.parts.W, self.parts.A, self.b.beta
        pulled = self.b.X.T @ (self.masks * (self.nu @ A))
        return beta * W - pulled, beta * A - self.nu.T @ self.hidden, -self.b.free.T @ self.nu

    def prepare(self, pull: Tensor) -> None:
        """Store what Hessian products need, Ξ of the distinct blocks in order given (k, p, c)."""
        b, A = self.b, self.parts.A
        distinct, self.of = torch.unique(self.parts.block, return_inverse=True)
        U, sizes, Vh = torch.linalg.svd(pull, full_matrices=False)
        self.cut = ((U * sizes.clamp_max(b.beta)[:, None]) @ Vh)[self.of]  # (R, p, c)
        masks = b.masks[distinct].to(b.X.dtype)
        typical = float(self.curvature.mean())
        grams = torch.einsum("kn,np,nq->kpq", masks, b.X, b.X)
        loads = typical * A.square().sum(0)
        own = loads[:, None, None] * grams[self.of]
        own.diagonal(dim1=1, dim2=2).add_(b.beta)
        self.inner = torch.linalg.inv(own)  # (R, p, p)
        self.outer = 1.0 / (b.beta + typical * self.hidden.square().sum(0))  # (R,)
        self.free = 1.0 / max(typical, 1e-300)

    def product(self, d: Steps, damping: float) -> Steps:
        """Return (H + damping) d."""
        b, A, beta = self.b, self.parts.A, self.b.beta + damping
        moved = self.masks * (b.X @ d[0])
        bent = torch.addmm(moved @ A.T, self.hidden, d[1].T)
        bent = self.curvature * (bent + b.free @ d[2] if len(d[2]) else bent)
        # Ξ a and Ξᵀw of every component, by its block.
        across = (self.cut @ d[1].T[:, :, None])[:, :, 0].T
        down = (d[0].T[:, None] @ self.cut)[:, 0].T
        first = b.X.T @ (self.masks * (bent @ A)) + beta * d[0] - across
        second = bent.T @ self.hidden + beta * d[1] - down
        return first, second, b.free.T @ bent + damping * d[2]

    def precondition(self, r: Steps) -> Steps:
        """Return the blocks' own inverse applied to r."""
        inner = (self.inner @ r[0].T[:, :, None])[:, :, 0].T
        return inner, self.outer * r[1], self.free * r[2]

    def direction(self, slope: Steps, accuracy: float, damping: float) -> tuple[Steps, int]:
        """Return the Newton direction by conjugate gradients, and how many steps they took."""
        sizes, shapes = [s.numel() for s in slope], [s.shape for s in slope]

        def split(flat: Tensor) -> Steps:
            W, A, t = (x.view(s) for x, s in zip(flat.split(sizes), shapes, strict=True))
            return W, A, t

        r = -_flat(slope)
        z = _flat(self.precondition(split(r)))
        d, q = torch.zeros_like(r), z
        rho = first = float(r @ z)
        for step in range(CONJUGATE):
            if not rho > accuracy**2 * first:
                return split(d), step
            along = _flat(self.product(split(q), damping))
            bend = float(q @ along)
            if not bend > 0:
                return split(d if step else z), step
            d = d + (rho / bend) * q
            r = r - (rho / bend) * along
            z = _flat(self.precondition(split(r)))
            following = float(r @ z)
            q = z + (following / rho) * q
            rho = following
        return split(d), CONJUGATE

    def along(self, d: Steps, slope: float) -> float:
        """Return how far to go along a direction of this slope; 0 if F does not fall."""
        b, (W, A, _) = self.b, self.parts
        moved = self.masks * (b.X @ d[0])
        first = moved @ A.T + self.hidden @ d[1].T + b.free @ d[2]
        second = moved @ d[1].T
        cross = float((W * d[0]).sum() + (A * d[1]).sum())
        square = float(d[0].square().sum() + d[1].square().sum())
        before, length = b.value(self.fit), 1.0
        while length > 1e-8:
            fit = self.fit + length * first + length**2 * second
            change = b.value(fit) - before
            change += 0.5 * b.beta * (2.0 * length * cross + length**2 * square)
            if change <= 1e-4 * length * slope + 1e-15 * abs(self.value):
                return length
            length /= 2
        return 0.0


def polish(
    groups: Groups, theta: Tensor, t: Tensor, tolerance: float, rounds: int = ROUNDS
) -> tuple[Tensor, Tensor, Bound, float, list[dict[str, float]]]:
    """Return what Newton on the factors of (θ, t) reaches, like `proximal.descend`.

    Args:
        groups: the program.
        theta: start, shape (G, p, c), its blocks best nearly those that carry the optimum.
        t: start of the free part, shape (r, c).
        tolerance: relative gap wanted.
        rounds: most Newton steps.
    """
    if rounds < 1:
        raise BadInput(f"rounds is {rounds}: Newton on factors needs one at least.")
    b, bound = groups, Bound(groups, NUCLEAR)
    history: list[dict[str, float]] = []
    parts, best, stalled, taken = decomposed(theta), None, 0, 0
    before, fall, damping = float("inf"), float("inf"), UNDAMPED
    for _ in range(rounds):
        system = _System(b, parts, t)
        system = _without_small(b, system)
        parts = system.parts
        nu, valid = bound.feasible(system.nu)
        pull = b.X.new_zeros(b.size, b.p, b.outputs)
        pull[bound.left] = b.adjoint(nu, bound.left)
        prices, gap = bound.offer(nu, valid, system.value, pull[bound.left])
        history.append(
            {
                "value": system.value * b.value_scale,
                "gap": gap,
                "conjugate": taken,
                "left": len(bound.left),
                "active": len(torch.unique(parts.block)),
                "rank": len(parts.block),
            }
        )
        fall, last = before - system.value, fall
        fell = fall > FELL * gap * abs(system.value)
        better = best is None or gap < best[0]
        stalled = 0 if best is None or fell or gap < 0.5 * best[0] else stalled + 1
        before = system.value
        if better:
            best = gap, assembled(b, parts), t
        if gap <= tolerance or stalled > STALLED:
            break
        kept = torch.zeros(b.size, dtype=torch.bool, device=theta.device)
        kept[bound.left] = True
        new = _entering(b, parts, pull, bound.left[prices > b.beta], system, gap)
        parts = Components(*(torch.cat(both, dim=-1) for both in zip(parts, new, strict=True)))
        inside = kept[parts.block]
        parts = Components(parts.W[:, inside], parts.A[:, inside], parts.block[inside])
        system = _System(b, parts, t)
        distinct = torch.unique(parts.block)
        system.prepare(b.adjoint(system.nu, distinct))
        slope = system.gradient()
        accuracy = max(1e-4, min(0.1, gap**0.5))
        excess = float(prices.max()) - b.beta if len(prices) else 0.0  # as negative as H is
        d, taken = system.direction(slope, accuracy, max(damping * b.beta, excess))
        length = system.along(d, float(_flat(slope) @ _flat(d)))
        # Where patterns nearly agree, valleys are flat and bent.
        damping = max(10 * damping, DAMPED) if length < SHORT else damping / 10
        damping = damping if damping >= DAMPED else UNDAMPED
        W, A = parts.W + length * d[0], parts.A + length * d[1]
        moved = assembled(b, Components(W, A, parts.block)), t + length * d[2]
        if length < SHORT or fall > CRAWL * last or stalled:
            moved = straightened(b, parts, system.fit, t, d, moved)
        parts, t = decomposed(moved[0]), moved[1]
    assert best is not None
    gap, theta, t = best
    return theta, t, bound, gap, history


def _without_small(b: Groups, system: _System) -> _System:
    """Return the point without its small components if its value is no higher so."""
    W, A, block = system.parts
    sizes = W.norm(dim=0) * A.norm(dim=0)
    for least in (SMALL, 1e-2 * SMALL):
        loud = sizes > least * sizes.max() if len(sizes) else sizes > 0
        if bool(loud.all()):
            return system
        trial = _System(b, Components(W[:, loud], A[:, loud], block[loud]), system.t)
        if trial.value <= system.value:
            return trial
    return system


def _entering(
    b: Groups, parts: Components, pull: Tensor, priced: Tensor, system: _System, gap: float
) -> Components:
    """Return components that lower the objective, from blocks ``priced`` above β.

    ``pull`` holds Ξ of all blocks, shape (G, p, c); by the gap barely priced ones wait.
    """
    rest = pull[priced]
    place = torch.full((b.size,), -1, device=rest.device)
    place[priced] = torch.arange(len(priced), device=rest.device)
    inside = place[parts.block] >= 0
    where = place[parts.block[inside]]
    for vectors, side in ((parts.W, 0), (parts.A, 1)):
        unit = (vectors / vectors.norm(dim=0).clamp_min(1e-300))[:, inside]
        spanned = rest.new_zeros(len(rest), len(unit), len(unit))
        spanned.index_add_(0, where, torch.einsum("pr,qr->rpq", unit, unit))
        rest = rest - (spanned @ rest if side == 0 else rest @ spanned)
    U, sizes, Vh = torch.linalg.svd(rest, full_matrices=False)
    worth = sizes > b.beta * (1.0 + 1e-2 * min(gap, 1.0))
    worth[:, SEVERAL:] = False
    found = torch.nonzero(worth)
    g, j = found[:, 0], found[:, 1]
    excess = sizes[g, j] - b.beta
    left, right, block = U[g, :, j].T, Vh[g, j].T, priced[g]
    masks = b.masks[block].T.to(b.X.dtype)
    fit = (masks * (b.X @ left)) @ (excess * right).T
    bend = float((system.curvature * fit.square()).sum())
    scale = float(excess.square().sum()) / bend if bend > 0 else 0.0
    root = (scale * excess).sqrt()
    return Components(root * left, root * right, block)


def _flat(steps: Steps) -> Tensor:
    return torch.cat([step.reshape(-1) for step in steps])
