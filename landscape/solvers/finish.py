r"""Newton on the active manifold: from a rough optimum to one accurate to rounding.

Near an optimum it is known which blocks are non-zero and which rows of their cones bind.  On that
manifold the objective is smooth,

.. math:: ℓ\Big(\sum_g A_g N_g q_g + A_0 c\Big) + β \sum_g \|N_g q_g\|,

N_g a basis of the null space of the binding rows, so that these hold to the last bit.  The norm's
Hessian is β/‖z‖ across z and zero along it: the tangents are eliminated by an n × n Schur
complement, what is left is one unknown a block.  Rows that begin to bind join, rows with negative
multipliers are released, blocks that shrink to zero leave, blocks that price above β enter.  The
objective never rises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from landscape.nonnegative import least_squares
from landscape.pricing import projection_weights
from landscape.solvers.manifold import Factor, Manifold

if TYPE_CHECKING:
    from landscape.solvers.blocks import Blocks
    from landscape.solvers.interior import Point

BUDGET = 100
SAME = 1e-6
"""Blocks whose directions have a cosine above one less this are taken to share a neuron."""


class Finished(NamedTuple):
    """A point of the active manifold, in scaled units.

    Attributes:
        z: blocks, shape (G, p); exactly zero where not active.
        c: free part, shape (q,).
        multipliers: of the cones' rows, non-negative, shape (G, k); they prove the prices.
        settled: whether Newton converged with every sign right.
        steps: Newton steps taken.
    """

    z: Tensor
    c: Tensor
    multipliers: Tensor
    settled: bool
    steps: int


def finish(
    blocks: Blocks,
    z: Tensor,
    c: Tensor,
    active: Tensor,
    binding: Tensor,
    multipliers: Tensor,
    budget: int = BUDGET,
) -> Finished:
    """Return the optimum near a point whose active set is (almost) right.

    Args:
        blocks: the program, with cones.
        z: blocks, shape (G, p).
        c: free part, shape (q,).
        active: which blocks are non-zero, shape (G,), boolean.
        binding: which rows of their cones bind, shape (G, k), boolean; other rows must not be
            violated by more than rounding.
        multipliers: of all rows, non-negative, shape (G, k): where they already prove that a
            block prices at most β, its projection is spared.
        budget: Newton steps after which to give up.
    """
    z, active, binding = _merge(blocks, z, active, binding)
    where = torch.nonzero(active)[:, 0]
    m = Manifold(blocks, where, binding[where])
    x = _onto(m, z[where])
    multipliers = multipliers.clone()
    steps, settled = 0, False
    while steps < budget:
        x, c, used, flat = _newton(m, x, c, budget - steps)
        steps += max(1, used)
        value, fit = m.value(x, c)
        if not np.isfinite(value):
            break
        released = _release(m, x, fit, multipliers)
        if released is None:  # faces are right: do zero blocks price above β?
            entering = _entering(m, fit, multipliers)
            if not entering:
                settled = flat
                break
            grown = _enter(m, x, c, value, fit, entering)
            if grown is None:
                break
            m, x = grown
        else:
            m.binding &= ~released
            m.rebase(released.any(1))
    out = torch.zeros_like(z)
    out[m.active] = x
    return Finished(out, c, multipliers, settled, steps)


def identify(blocks: Blocks, point: Point) -> tuple[Tensor, Tensor]:
    """Guess from an interior point which blocks are non-zero and which rows bind them.

    By strict complementarity one of each pair goes to zero: the block against what its dual lacks
    of β, the slack against its multiplier.  Where the rows so found would leave no face to lie
    on, only those by far on the binding side count.
    """
    k, z = blocks.penalised, point.z
    norms = z[:, :k].norm(dim=1)
    active = norms / norms.max() > 1 - point.w.norm(dim=1) / blocks.beta
    ratio = (point.s / norms[:, None]) / (point.mu / blocks.beta)
    binding = (ratio < 1) & active[:, None] & (blocks.sides != 0)
    for bar in (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 0.0):
        m = Manifold(blocks, torch.nonzero(active)[:, 0], binding[active])
        lost = m.project(z[active])[:, :k].norm(dim=1) < 0.9 * norms[active]
        if not bool(lost.any()):
            break
        binding[torch.nonzero(active)[lost, 0]] &= ratio[active][lost] < bar
    return active, binding


def _merge(
    blocks: Blocks, z: Tensor, active: Tensor, binding: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Give to one block what neighbouring blocks of one sign hold along a face that they share.

    Cells that meet in a face share its neurons; which of them holds one is arbitrary, and Newton
    would find a singular system.
    """
    where = torch.nonzero(active)[:, 0]
    norms = z[where].norm(dim=1)
    unit = z[where] / norms[:, None]
    signs = blocks.signs[where]
    same = (unit @ unit.T > 1 - SAME) & (signs[:, None] == signs)
    closed = (blocks.sides[where] != 0).any(1)  # what has no cone shares no face
    same &= closed & closed[:, None]
    order = torch.argsort(norms, descending=True, stable=True)
    same, gone = same.cpu().numpy(), np.zeros(len(where), dtype=bool)
    z, active, binding = z.clone(), active.clone(), binding.clone()
    for i in order.tolist():
        if gone[i]:
            continue
        others = np.flatnonzero(same[i] & ~gone)
        if len(others) == 1:
            continue
        to, those = where[i], where[torch.as_tensor(others, device=where.device)]
        differ = (blocks.sides[those] != blocks.sides[to]).any(0)
        z[to] = z[those].sum(0)
        active[those], active[to] = False, True
        binding[to] |= differ
        gone[others] = True
    return z, active, binding


def _newton(m: Manifold, x: Tensor, c: Tensor, budget: int) -> tuple[Tensor, Tensor, int, bool]:
    """Minimise on the manifold; rows that block join it, blocks that vanish leave it."""
    b, k = m.blocks, m.blocks.penalised
    value, fit = m.value(x, c)
    factor, before = None, np.inf
    floor = 1e-14 * (b.beta + _largest(m.adjoint(b.loss.gradient(fit, b.y))))
    stalled = 0
    for step in range(budget):
        slope, free_slope = m.slopes(x, fit)
        slope = m.project(slope)
        size = _largest(slope, free_slope)
        if size <= floor or stalled > 1:
            return x, c, step, size <= 1e-7 * b.beta
        if factor is None or size > 0.05 * before:
            factor = Factor(m, x, c)
        before = size
        dx, dc = factor.direction(slope, free_slope)
        descent = -float((slope * dx).sum() + (free_slope * dc).sum())
        if not descent > 0:
            if stalled or np.isnan(descent):
                return x, c, step, size <= 1e-7 * b.beta
            factor, stalled = None, stalled + 1
            continue
        slack, change = m.sides * (x @ b.cone_t), m.sides * (dx @ b.cone_t)
        shrinking = (change < 0) & ~m.binding
        reach = torch.where(shrinking, slack.clamp_min(0) / -change, np.inf)
        turning = (x[:, :k] * dx[:, :k]).sum(1)
        vanish = torch.where(turning < 0, -x[:, :k].square().sum(1) / turning, np.inf)
        longest = min([np.inf, *(float(r.min()) for r in (reach, vanish) if r.numel())])
        length = min(1.0, longest)
        trial, trial_fit = m.value(x + length * dx, c + length * dc)
        while trial > value - 1e-4 * length * descent + 1e-15 * abs(value) and length > 1e-10:
            length /= 2
            trial, trial_fit = m.value(x + length * dx, c + length * dc)
        if length <= 1e-10 < longest:
            stalled, factor = stalled + 1, None
            continue
        stalled = stalled + 1 if trial >= value and length == 1.0 and size < 1e-9 * b.beta else 0
        x, c, value, fit = x + length * dx, c + length * dc, trial, trial_fit
        if length < longest:
            continue
        factor, before = None, np.inf
        gone = vanish <= length
        if bool(gone.any()):
            m.keep(~gone)
            x = x[~gone]
        else:
            hit = reach <= length * (1 + 1e-9)
            m.binding |= hit
            m.rebase(hit.any(1))
            x = _onto(m, x)
        value, fit = m.value(x, c)
    return x, c, budget, False


def _onto(m: Manifold, x: Tensor) -> Tensor:
    """Project blocks on their faces; one of which little is left goes, prices may bring it back."""
    k = m.blocks.penalised
    onto = m.project(x)
    left = onto[:, :k].norm(dim=1) > 0.5 * x[:, :k].norm(dim=1)
    m.keep(left)
    return onto[left]


def _largest(*arrays: Tensor) -> float:
    """Return the largest magnitude among all entries, 0 if there are none."""
    return max([0.0, *(float(a.abs().max()) for a in arrays if a.numel())])


def _release(m: Manifold, x: Tensor, fit: Tensor, multipliers: Tensor) -> Tensor | None:
    """Return the binding rows that should not bind, or None; store the multipliers found.

    On a block's face the gradient is a combination of binding rows; what a non-negative one
    cannot reach is a direction of descent into the cone, and the rows that it leaves go.
    """
    b = m.blocks
    slope, _ = m.slopes(x, fit)
    slope, binding = slope.cpu().numpy(), m.binding.cpu().numpy()
    sides, cone = m.sides.cpu().numpy(), b.cone.cpu().numpy()
    found, released = np.zeros(binding.shape), np.zeros(binding.shape, dtype=bool)
    for g in range(len(x)):
        rows = np.flatnonzero(binding[g])
        if not len(rows):
            continue
        A = cone[rows] * sides[g, rows, None]
        if not np.isfinite(slope[g]).all():
            break
        weights, rest = least_squares(A.T, slope[g])
        found[g, rows] = weights
        if rest > 1e-9 * b.beta:
            inward = A @ (A.T @ weights - slope[g])
            released[g, rows] = inward > 1e-3 * rest
    multipliers[m.active] = torch.as_tensor(found, device=x.device)
    return torch.as_tensor(released, device=x.device) if released.any() else None


def _entering(m: Manifold, fit: Tensor, multipliers: Tensor) -> list[tuple[int, float, Tensor]]:
    """Return zero blocks that price above β: index, price and the unit direction that does.

    Projections are computed only where the multipliers at hand prove nothing; what they find is
    stored there.
    """
    b, k = m.blocks, m.blocks.penalised
    nu = -b.loss.gradient(fit, b.y)
    pull = b.adjoint(nu)
    proved = (pull + b.slack_adjoint(multipliers))[:, :k].norm(dim=1) <= b.beta
    proved |= pull[:, :k].norm(dim=1) <= b.beta
    proved[m.active] = True
    if k < b.p:
        proved &= (pull + b.slack_adjoint(multipliers))[:, k:].abs().amax(1) <= 1e-12 * b.beta
    entering = []
    cone = b.cone.cpu().numpy()
    weight = projection_weights(b.X.cpu().numpy(), np.arange(b.p) < k)
    for g in torch.nonzero(~proved)[:, 0].tolist():
        A = cone * b.sides[g].cpu().numpy()[:, None]
        xi = pull[g].cpu().numpy()
        weights, _ = least_squares((A * weight).T, -xi * weight)
        multipliers[g] = torch.as_tensor(weights, device=fit.device)
        best = xi + A.T @ weights
        price = float(np.linalg.norm(best[:k]))
        if price > b.beta * (1 + 1e-11):
            # Along a free coordinate the maximiser is read off the least squares' own residual.
            direction = best * weight**2
            size = float(np.linalg.norm(direction[:k]))
            entering.append((g, price, torch.as_tensor(direction / size, device=fit.device)))
    return entering


def _enter(
    m: Manifold,
    x: Tensor,
    c: Tensor,
    value: float,
    fit: Tensor,
    entering: list[tuple[int, float, Tensor]],
) -> tuple[Manifold, Tensor] | None:
    """Return manifold and blocks with the entering ones a first step along their directions.

    A direction that rounding has put off its own face cannot enter; None if none can.
    """
    b = m.blocks
    entering = sorted(entering, key=lambda one: -one[1])[: max(8, b.n // 4)]
    index = torch.as_tensor([one[0] for one in entering], device=x.device)
    unit = torch.stack([one[2] for one in entering])
    gains = torch.tensor([one[1] for one in entering], dtype=x.dtype, device=x.device) - b.beta
    slack = b.sides[index] * (unit @ b.cone_t)
    binding = (slack <= 1e-9) & (b.sides[index] != 0)
    onto = Manifold(b, index, binding).project(unit)
    able = onto[:, : b.penalised].norm(dim=1) > 0.5
    if not bool(able.any()):
        return None
    index, unit, binding, gains = index[able], onto[able], binding[able], gains[able]
    grown = Manifold(b, torch.cat([m.active, index]), torch.cat([m.binding, binding]))
    features = b.signs[index] * b.masks_t[:, b.index[index]] * (b.X @ unit.T)
    bent = b.loss.curvature(fit, b.y)[:, None] * features
    first = gains / ((features * bent).sum(0) + 1e-12) / len(index)
    for _ in range(40):
        start = torch.cat([x, first[:, None] * unit])
        if grown.value(start, c)[0] < value:
            break
        first = first / 2
    return grown, start
