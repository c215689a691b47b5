r"""Programs without cones: a group lasso over masked copies of one design.

.. math:: \min_{θ, θ_0} \; ℓ\Big(\sum_g D_g X θ_g + A_0 θ_0\Big) + β \sum_g \|θ_g\|_2

Where n × n or the active blocks' coordinates can be factored, Newton on the kernel weights
(`landscape.solvers.kernels`) finds the optimum in some ten steps, from anywhere; where neither
can, accelerated proximal descent (`landscape.solvers.proximal`) does, to a coarser gap.  With
several outputs the norm of each class separates into programs with one; for the nuclear norm some
descent finds the ranks of blocks, and Newton on their factors (`landscape.solvers.factors`) ends
it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from landscape.bounds import lower_bound, relative_gap
from landscape.errors import BadInput, NotConverged
from landscape.programs import Euclidean, Nuclear, PerClass
from landscape.solvers.factors import polish
from landscape.solvers.groups import Groups
from landscape.solvers.kernels import Kernels, Point
from landscape.solvers.proximal import EUCLIDEAN, NUCLEAR, Bound, descend
from landscape.solvers.reference import Optimum

if TYPE_CHECKING:
    from landscape.programs import Floats, Program

VERSION = 3
STEPS = 200
DESCENT = 20_000
"""Most proximal steps."""
FACTORED = 6_000
"""Largest matrix that Newton factors."""
ROUGH = 1e-3
"""Gap from which Newton takes over where the whole program is too large to factor."""
RANKS = 5e-2
"""Gap from which Newton on factors takes over: ranks are nearly right by then."""
BOLD = 0.2
"""A bold step that does not lower φ at this length gives way to the plain one."""
STALLED = 6
DUST = 1e-9
"""Blocks of a start below this, relative to the largest, are taken as zero."""

History = list[dict[str, float]]


class Found(NamedTuple):
    """A point in scaled units: blocks (G, p, c), free part, dual point, gap, what was done."""

    theta: Tensor
    t: Tensor
    nu: Tensor
    gap: float
    history: History


def minimise(
    program: Program,
    tolerance: float = 1e-10,
    start: tuple[Floats, Floats] | None = None,
    throw: bool = True,
    device: str = "cpu",
) -> Optimum:
    """Return the optimum of a program without cones.

    Args:
        program: the blocks, all of their coordinates penalised; a smooth loss.
        tolerance: relative gap wanted, by the solver's own primal and dual values.  The returned
            ``gap`` is the certificate's, which allows for rounding besides.
        start: blocks (G, p[, c]) and free part (q[, c]), such as the optimum at another β.
        throw: raise if the gap stays above the tolerance; otherwise ``status`` says so.
        device: where the arithmetic runs: "cpu", "cuda".

    Returns:
        The optimum; ``history`` has one entry a step (Newton) or a working set (descent).

    Raises:
        BadInput: for a program with cones or free coordinates, or a loss that is not smooth.
        NotConverged: if the gap stays above the tolerance and ``throw``.
    """
    _check(program)
    if isinstance(program.gauge, PerClass):
        return _each_class(program, tolerance, start, throw, device)
    with torch.inference_mode():
        groups = Groups(program, device)
        found = _solve(groups, tolerance, start)
        theta, constant = groups.original(found.theta, found.t)
        solved = (found.nu * groups.y_scale).cpu().numpy().reshape(program.y.shape)
    value = program.value(theta, constant)
    # At the fit ν has lost its digits where β is tiny; the solver's own point has not.
    fitted = -program.loss.gradient(program.fit(theta, constant), program.y)
    bounds = [(lower_bound(program, nu)[0], nu) for nu in (fitted, solved)]
    bound, nu = max(bounds, key=lambda pair: pair[0])
    steps = len(found.history)
    status = f"The group lasso was solved to a gap of {found.gap:.1e} in {steps} rounds."
    if found.gap > tolerance:
        status = (
            f"The group lasso stopped at a gap of {found.gap:.1e} after {steps} rounds, above "
            f"{tolerance:g}: raise the tolerance or beta."
        )
        if throw:
            raise NotConverged(status)
    gap = relative_gap(value, bound, program.loss.at_zero(program.y))
    return Optimum(theta, constant, nu, value, status, tuple(found.history), gap=gap)


def _each_class(
    program: Program,
    tolerance: float,
    start: tuple[Floats, Floats] | None,
    throw: bool,
    device: str,
) -> Optimum:
    """Solve the program of every output apart and put them together."""
    gauge, found = Euclidean(program.gauge.penalised), []
    for k, column in enumerate(program.y.T):
        one = replace(program, y=column, gauge=gauge)
        own = None if start is None else (start[0][:, :, k], start[1][:, k])
        optimum = minimise(one, tolerance, own, throw, device)
        # Scaled to be feasible here: the bound over all outputs has one scale for all.
        ratio = lower_bound(one, optimum.nu)[2]
        found.append(replace(optimum, nu=optimum.nu / max(1.0, ratio)))
    theta, constant, nu = (
        np.stack([getattr(one, name) for one in found], axis=-1)
        for name in ("theta", "constant", "nu")
    )
    value = program.value(theta, constant)
    bound = lower_bound(program, nu)[0]
    gap = relative_gap(value, bound, program.loss.at_zero(program.y))
    history = tuple({**entry, "output": k} for k, one in enumerate(found) for entry in one.history)
    worst = max(found, key=lambda one: one.gap).status
    return Optimum(theta, constant, nu, value, f"{len(found)} outputs; {worst}", history, gap=gap)


def _check(program: Program) -> None:
    if program.cones is not None:
        raise BadInput("program has cones: it is for landscape.solvers.restricted.")
    if not program.loss.smooth:
        raise BadInput(
            f"loss is {program.loss.name!r}: the fast solver needs a smooth one; the reference "
            "solver takes any."
        )
    if not program.gauge.penalised.all():
        raise BadInput("program has unpenalised coordinates in its blocks: put them into free.")


def _solve(b: Groups, tolerance: float, start: tuple[Floats, Floats] | None) -> Found:
    """Newton where something small enough can be factored, else descent; the better in the end."""
    if start is None:
        theta = b.X.new_zeros(b.size, b.p, b.outputs)
        t = b.X.new_zeros(b.free.shape[1], b.outputs)
    else:
        theta, t = b.scaled(*start)
    kernels, nuclear = Kernels(b), isinstance(b.program.gauge, Nuclear)
    best: Found | None = None
    if not nuclear and min(b.n, b.size * b.p) <= FACTORED:
        best = _newton(
            kernels, _cold(kernels) if start is None else _at(kernels, theta, t), tolerance
        )
    norm = NUCLEAR if nuclear else EUCLIDEAN
    for wanted in (*([RANKS] if nuclear else []), ROUGH, 0.0):
        wanted = max(tolerance, wanted)
        if best is None or best.gap > wanted:
            begin = (theta, t) if best is None else (best.theta, best.t)
            theta, t, bound, gap, more = descend(b, *begin, wanted, DESCENT, norm)
            best = _better(best, Found(theta, t, bound.nu, gap, more))
        if nuclear and best.gap > tolerance:
            theta, t, bound, gap, more = polish(b, best.theta, best.t, 0.5 * tolerance)
            best = _better(best, Found(theta, t, bound.nu, gap, more))
        elif tolerance < best.gap <= ROUGH and _coordinates(best.theta) <= FACTORED:
            best = _better(best, _newton(kernels, _at(kernels, best.theta, best.t), tolerance))
        if best.gap <= tolerance:
            break
    assert best is not None
    return best


def _better(old: Found | None, new: Found) -> Found:
    """Return the point with the smaller gap, with the history of both."""
    if old is None:
        return new
    return min(new, old, key=lambda one: one.gap)._replace(history=old.history + new.history)


def _coordinates(theta: Tensor) -> int:
    return int(theta.flatten(1).any(1).sum()) * theta.shape[1]


def _newton(kernels: Kernels, point: Point, tolerance: float) -> Found:
    """Newton steps on φ from a point, to a gap within a tenth of the tolerance or to rounding."""
    b = kernels.groups
    bound, history, stalled = Bound(b), [], 0
    best: Found | None = None
    for _ in range(STEPS):
        nu, valid = bound.feasible(point.omega[:, None])
        pull = b.X.new_zeros(b.size, b.p, 1)
        pull[bound.left] = b.adjoint(nu, bound.left)
        carrying = torch.nonzero(point.eta)[:, 0]
        theta = b.X.new_zeros(pull.shape)
        theta[carrying] = (point.eta[carrying] / b.beta)[:, None, None] * pull[carrying]
        fit = b.apply(theta[carrying], carrying) + b.free @ point.t[:, None]
        primal = b.value(fit) + b.beta * float(theta.flatten(1).norm(dim=1).sum())
        _, gap = bound.offer(nu, valid, primal, pull[bound.left])
        history.append(
            {
                "value": primal * b.value_scale,
                "gap": gap,
                "active": len(carrying),
                "left": len(bound.left),
            }
        )
        if best is None or gap < best.gap:
            stalled = 0 if best is None or gap < 0.5 * best.gap else stalled + 1
            best = Found(theta, point.t[:, None], bound.nu, gap, history)
        else:
            stalled += 1
        if gap <= 0.1 * tolerance or stalled > STALLED:
            break
        moved = _step(kernels, point, pull[:, :, 0], primal, gap)
        if moved is None:
            break
        if moved.value < point.value - 1e-6 * abs(point.value):
            stalled = 0
        kept = torch.zeros_like(point.eta, dtype=torch.bool)
        kept[bound.left] = True
        if bool((moved.eta[~kept] > 0).any()):
            moved = kernels.evaluate(moved.eta * kept, moved.omega, moved.t, 1e-3 * gap * primal)
        point = moved
    assert best is not None
    return best


def _step(kernels: Kernels, point: Point, pull: Tensor, primal: float, gap: float) -> Point | None:
    """Return the point after one step that lowers φ, or None if no step does."""
    b = kernels.groups
    sizes = pull.norm(dim=1)
    slopes = 0.5 * b.beta * (1 - (sizes / b.beta).square())
    damping = min(1e-4, 1e-2 * max(gap, 0.0)) + 1e-14
    inner = 1e-6 * min(max(gap, 0.0), 1.0) ** 2 * abs(primal)
    for bold, shortest in ((True, BOLD), (False, 1e-10)):
        direction = kernels.direction(point, pull, sizes, damping, bold)
        slope, length = float(slopes @ direction), 1.0
        while slope <= 0 and length > shortest:
            eta = (point.eta + length * direction).clamp_min(0.0)
            trial = kernels.evaluate(eta, point.omega, point.t, inner)
            if trial.value <= point.value + 1e-4 * length * slope + 1e-13 * abs(point.value):
                return trial
            length /= 2
    return None


def _at(kernels: Kernels, theta: Tensor, t: Tensor) -> Point:
    """Return the point whose weights are the norms of given blocks."""
    b = kernels.groups
    eta = theta.flatten(1).norm(dim=1)
    eta = torch.where(eta > DUST * eta.max(), eta, 0.0)
    fit = b.apply(theta) + b.free @ t
    value = b.value(fit) + b.beta * float(eta.sum())
    return kernels.evaluate(eta, -b.loss.gradient(fit, b.y)[:, 0], t[:, 0], 1e-6 * value)


def _cold(kernels: Kernels) -> Point:
    """Return a point to begin from: the highest-priced patterns, their common scale searched."""
    b, y = kernels.groups, kernels.groups.y[:, 0]
    zero = b.X.new_zeros(b.size)
    omega = -b.loss.gradient(torch.zeros_like(y), y)
    point = kernels.evaluate(zero, omega, b.X.new_zeros(b.free.shape[1]), 0.0)
    sizes = b.adjoint(point.omega[:, None]).flatten(1).norm(dim=1)
    if not len(sizes) or float(sizes.max()) <= b.beta:
        return point
    top = torch.argsort(-sizes, stable=True)[: max(64, b.n // 2)]
    top = top[sizes[top] > 0.1 * sizes[top[0]]]
    base = zero.clone()
    base[top] = sizes[top] / sizes[top].sum()
    # 1/price is nearly linear along the ray: a secant on it finds the scale in a few steps.
    mean = float(base @ sizes)
    scale, last = 0.5 * point.value / b.beta, (0.0, mean)
    for _ in range(10):
        point = kernels.evaluate(scale * base, point.omega, point.t, 1e-3 * point.value)
        mean = float(base @ b.adjoint(point.omega[:, None]).flatten(1).norm(dim=1))
        if 0.7 < mean / b.beta < 1.5:
            break
        if not mean > 0 or scale == last[0]:
            break
        slope = (1 / mean - 1 / last[1]) / (scale - last[0])
        last = (scale, mean)
        new = scale + (1 / b.beta - 1 / mean) / slope if slope > 0 else 4 * scale
        scale = min(max(new, 0.05 * scale), 100 * scale)
    return point
