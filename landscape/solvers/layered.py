r"""Dual points for the lower bound of deep networks: cutting planes, solved by a barrier.

With ν joined to rays (see `landscape.pricing.layered`) and all of a, b, p', q' ≥ 0 on them,

.. math::
    \max_ν \; −ℓ^*(−ν) \quad \text{subject to } ν = a + p' − b − q', \quad
    (Xu)_+^⊤ v \le s \;\text{ for } v ∈ \{a + p' − q',\; q',\; b + q' − p',\; p'\}

over the unit neurons u met so far; those that break a constraint are added.  A regulariser that is
a gauge asks for the level s = β.  Weight decay asks for the slope of its penalty at the t where the
envelope of lines is lowest, until the new line no longer lifts it.  What a point is worth is priced
apart, so that no accuracy is asked of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from landscape.bounds import relative_gap

if TYPE_CHECKING:
    from landscape.bounds import AllPatterns, Bound
    from landscape.losses import Loss
    from landscape.pricing.layered import LayeredOracle, Rays
    from landscape.problem import Problem
    from landscape.programs import Floats

VERSION = 1
CUTS = 15
"""Most rounds of cuts for one dual point."""
POINTS = 8
"""Most dual points of one envelope."""
OPEN = 5e-3
"""A constraint broken by less than this share is left to the price."""
NEWTON = 40
"""Most Newton steps at one strength of the barrier."""


def bound(problem: Problem, source: AllPatterns, near: Floats) -> Bound:
    """Return the best lower bound found for a deep network's problem.

    Args:
        problem: the training problem; its loss must be smooth for more than the point given.
        source: prices dual points.
        near: a dual point to begin with, such as the residual of a good network, shape (n,).
    """
    best = source(near)
    if not problem.loss.smooth or not problem.X.any():
        return best
    planes = _Planes(problem, source.oracle)  # pyright: ignore[reportArgumentType]
    level, nothing = problem.beta, problem.loss.at_zero(problem.y)
    for _ in range(POINTS):
        before = best.value
        if source.envelope is not None:
            before, t, _ = source.envelope.least()
            if t == 0.0:  # no network beats the zero network
                break
            level = problem.beta * t ** (source.envelope.degree - 1.0)
        new = source(planes.maximise(level))
        best = max(best, new, key=lambda one: one.value)
        if source.envelope is None or relative_gap(new.value, before, nothing) <= OPEN:
            break
    return best


class _Planes:
    """The program over the neurons that the pricing has met, in units of targets and samples."""

    def __init__(self, problem: Problem, oracle: LayeredOracle) -> None:
        self.oracle, self.rays = oracle, oracle.rays
        self.unit = max(problem.loss.unit(problem.y), 1e-300)
        self.size = max(float(self.rays.sizes.max(initial=0.0)), 1e-300)
        self.scale = self.unit * self.size
        self.loss, self.y = problem.loss.per_unit(self.unit), problem.y / self.unit
        self.point: _Point | None = None

    def maximise(self, level: float) -> Floats:
        """Return the best ν whose prices are at most ``level`` up to `OPEN`; keep its parts."""
        s = level / self.scale
        for _ in range(CUTS):
            program = _Barrier(self.loss, self.y, self.rays, self.size, s)
            self.point = program.solve(self.point)
            parts = [self.scale * part for part in program.parts(self.point)]
            if max(self.rays.climb(part) for part in parts) <= level * (1 + OPEN):
                break
        assert self.point is not None
        nu = self.loss.into_domain(self.point.nu, self.y) * self.unit
        self.oracle.suggest(nu, self.scale * self.point.p, self.scale * self.point.q)
        return nu


class _Point:
    """ν (n,) and b, p', q' on the rays, (g,) each, as one vector."""

    def __init__(self, vector: Floats, n: int) -> None:
        self.vector, self.n = vector, n
        self.nu = vector[:n]
        self.b, self.p, self.q = np.split(vector[n:], 3)


class _Barrier:
    """−ℓ*(−ν) and the logarithms of all slacks."""

    def __init__(self, loss: Loss, y: Floats, rays: Rays, size: float, level: float) -> None:
        self.loss, self.y, self.A, self.s = loss, y, rays.outputs, level
        self.n, self.g = len(y), len(rays.rows)
        self.ray, self.sizes = rays.ray, rays.sizes / size
        top = loss.reach(np.ones(1))
        self.radius = top if np.isfinite(top) else None

    def join(self, nu: Floats) -> Floats:
        return np.bincount(self.ray, self.sizes * nu, self.g).astype(np.float64)

    def parts(self, z: _Point) -> list[Floats]:
        """Return the four vectors v whose prices are bounded."""
        return [self.join(z.nu) + z.b, z.q, z.b + z.q - z.p, z.p]

    def slacks(self, z: _Point) -> list[Floats]:
        a = self.join(z.nu) + z.b + z.q - z.p
        room = [self.s - self.A @ part for part in self.parts(z)]
        box = [] if self.radius is None else [self.radius - z.nu, self.radius + z.nu]
        return [*room, a, z.b, z.p, z.q, *box]

    def value(self, z: _Point, strength: float) -> float:
        slacks = np.concatenate(self.slacks(z))
        if not (slacks > 0).all():
            return -np.inf
        found = float(self.loss.dual_value(z.nu, self.y))
        return found + strength * float(np.log(slacks).sum()) if np.isfinite(found) else -np.inf

    def solve(self, near: _Point | None) -> _Point:
        """Return a point whose value is best up to a small barrier."""
        z = self._inside(near)
        size = max(1e-3 * self.loss.at_zero(self.y), abs(float(self.loss.dual_value(z.nu, self.y))))
        count = 4 * (len(self.A) + self.g)
        for share in (1.0, 0.1, 1e-2, 1e-3):
            if near is not None and share > 0.01:
                continue
            z = self._centre(z, share * size / count)
        return z

    def _inside(self, near: _Point | None) -> _Point:
        """Return a feasible point: one nearby, shrunk, or a small one."""
        rest = np.full(self.g, 1.0)
        inner = self.loss.into_domain(1e-3 * self.y, self.y) if self.loss.classes else 0.0 * self.y
        largest = max(float((self.A @ rest).max(initial=0.0)), 1e-300)
        away = np.abs(self.join(inner))
        low = min(0.05 * self.s / largest, 0.05)
        inner = inner * min(1.0, 0.5 * low / max(float(away.max()), 1e-300))
        base = np.concatenate([inner, np.repeat([2.0 * low, low, low], self.g)])
        if near is None:
            return _Point(base, self.n)
        # A step of (1 − t) towards the small point frees whatever is tight; smaller t if needed.
        t = 0.95
        while t > 1e-3:
            z = _Point(t * near.vector + (1 - t) * base, self.n)
            if np.isfinite(self.value(z, 0.0)):
                return z
            t *= 0.8
        return _Point(base, self.n)

    def _centre(self, z: _Point, strength: float) -> _Point:
        """Return the maximiser at one strength of the barrier, by damped Newton steps."""
        value = self.value(z, strength)
        for _ in range(NEWTON):
            slope, bend = self._derivatives(z, strength)
            try:
                step = cho_solve(cho_factor(bend, lower=True), slope)
            except LinAlgError:
                return z
            gain, length = float(slope @ step), 1.0
            if gain <= 0.1 * strength * len(self.A):
                return z
            while length > 1e-8:
                trial = _Point(z.vector + length * step, self.n)
                new = self.value(trial, strength)
                if new >= value + 1e-4 * length * gain:
                    break
                length *= 0.5
            else:
                return z
            z, value = trial, new
        return z

    def _derivatives(self, z: _Point, strength: float) -> tuple[Floats, Floats]:
        """Return the gradient and minus the Hessian."""
        n, g, A = self.n, self.g, self.A
        slacks = self.slacks(z)
        fit = self._fit(z.nu)
        slope = np.concatenate([fit, np.zeros(3 * g)])
        bend = np.zeros((n + 3 * g, n + 3 * g))
        curvature = np.maximum(self.loss.curvature(fit, self.y), 1e-9)
        bend[np.arange(n), np.arange(n)] = 1.0 / curvature
        b, p, q = (slice(n + k * g, n + (k + 1) * g) for k in range(3))
        one = np.eye(g)
        # Each family of slacks is (constant − M·linear(z)): which blocks it sees, with which sign.
        pulls = [A.T @ (strength / slack) for slack in slacks[:4]]
        squares = [(A.T * (strength / slack**2)) @ A for slack in slacks[:4]]
        seen = [{"nu": 1, "b": 1}, {"q": 1}, {"b": 1, "q": 1, "p": -1}, {"p": 1}]
        for blocks, slack in zip(
            ({"nu": 1, "b": 1, "q": 1, "p": -1}, {"b": 1}, {"p": 1}, {"q": 1}),
            slacks[4:8], strict=True,
        ):  # fmt: skip
            seen.append(blocks)
            pulls.append(-strength / slack)
            squares.append(one * (strength / slack**2))
        places = {"b": b, "p": p, "q": q}
        for blocks, pull, square in zip(seen, pulls, squares, strict=True):
            for name, sign in blocks.items():
                if name == "nu":
                    slope[:n] -= sign * self.sizes * pull[self.ray]
                    wide = self.sizes[:, None] * square[self.ray]
                    bend[:n, :n] += self.sizes * wide[:, self.ray]
                else:
                    slope[places[name]] -= sign * pull
                for other, factor in blocks.items():
                    if "nu" not in (name, other):
                        bend[places[name], places[other]] += sign * factor * square
                    elif name == "nu" and other != "nu":
                        bend[:n, places[other]] += factor * wide
                        bend[places[other], :n] += factor * wide.T
        for slack, sign in zip(slacks[8:], (1.0, -1.0), strict=False):
            slope[:n] -= sign * strength / slack
            bend[np.arange(n), np.arange(n)] += strength / slack**2
        return slope, bend

    def _fit(self, nu: Floats) -> Floats:
        """Return f with −∇ℓ(f) = ν, the slope of −ℓ*(−ν): by a Newton step or bisection."""
        fit = np.zeros(self.n)
        bend = np.maximum(self.loss.curvature(fit, self.y), 1e-300)
        fit = -(nu + self.loss.gradient(fit, self.y)) / bend
        if np.allclose(-self.loss.gradient(fit, self.y), nu, rtol=1e-12, atol=1e-12):
            return fit
        low, high = np.full(self.n, -1.0), np.full(self.n, 1.0)
        for side, bracket in ((-1.0, low), (1.0, high)):
            for _ in range(60):
                short = side * (-self.loss.gradient(bracket, self.y) - nu) > 0
                if not short.any():
                    break
                bracket[short] *= 2.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            above = -self.loss.gradient(middle, self.y) > nu
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return 0.5 * (low + high)
