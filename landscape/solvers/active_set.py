r"""The Lasso over given columns by an active set, to the accuracy of its linear algebra.

Ramps and their kin are so nearly dependent that coordinate descent creeps.  Here columns enter at
the largest correlation, the equations of the active columns are solved by QR, and a column whose
coefficient would change its sign leaves where it crosses zero; every step lowers the objective, so
no active set returns.  Other smooth losses are met by Newton steps on their quadratic model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

from landscape.bounds import lower_bound, relative_gap
from landscape.errors import BadInput, NotConverged
from landscape.solvers.reference import Optimum

if TYPE_CHECKING:
    from landscape.dictionary import Lasso
    from landscape.programs import Floats

VERSION = 1
ENTERING = 8
"""Most columns that enter at a time."""
STEPS = 20_000
NEWTON = 60
"""Most quadratic models."""
DEPENDENT = 1e-11
"""A column this close (sine) to the span of the active ones depends on them."""


def minimise(
    program: Lasso,
    tolerance: float = 1e-10,
    start: tuple[Floats, Floats] | None = None,
    throw: bool = True,
) -> Optimum:
    """Return the optimum of a Lasso over given columns.

    Args:
        program: columns, loss (with a second derivative), β, free directions.
        tolerance: relative gap wanted.
        start: coefficients (G, 1) and free part (q,) from which to begin.
        throw: raise if the gap stays above the tolerance.

    Raises:
        NotConverged: if the gap stays above ``tolerance`` and ``throw``.
    """
    loss, y, A = program.loss, program.y, program.atoms.values
    theta, constant = program.zero() if start is None else start
    z, c = theta[:, 0].copy(), np.array(constant, dtype=np.float64)
    best = None
    for _ in range(NEWTON):
        fit = A @ z + program.free @ c
        slope, weights = loss.gradient(fit, y), loss.curvature(fit, y)
        # A curvature of zero (Huber's ends) leaves the model flat: a little keeps it solvable.
        root = np.sqrt(np.maximum(weights, 1e-9 * max(1e-12, float(weights.max(initial=0.0)))))
        target = root * fit - slope / root
        model = _Quadratic(root[:, None] * A, root[:, None] * program.free, target, program.beta)
        new, free = model.minimise(z, c)
        length, value = 1.0, program.value(z[:, None], c)
        while length > 1e-10:
            trial = z + length * (new - z), c + length * (free - c)
            if program.value(trial[0][:, None], trial[1]) <= value:
                break
            length /= 2
        else:
            trial = z, c
        moved = value - program.value(trial[0][:, None], trial[1])
        z, c = trial
        best = _optimum(program, z, c)
        if best.gap <= tolerance or moved <= 1e-15 * abs(value):
            break
    assert best is not None
    status = f"Active set to {best.gap:.1e}."
    if best.gap > tolerance and throw:
        raise NotConverged(f"{status} The tolerance is {tolerance:g}: scale the data, or raise it.")
    return replace(best, status=status)


def _optimum(program: Lasso, z: Floats, c: Floats) -> Optimum:
    theta = z[:, None]
    nu = -program.loss.gradient(program.fit(theta, c), program.y)
    value = program.value(theta, c)
    bound = lower_bound(program, nu)[0]
    gap = relative_gap(value, bound, program.loss.at_zero(program.y))
    return Optimum(theta, c, nu, value, "", gap=gap)


class _Quadratic:
    """½‖Az + Fc − t‖² + β‖z‖₁ for one matrix of columns."""

    def __init__(self, A: Floats, F: Floats, t: Floats, beta: float) -> None:
        self.A, self.F, self.t, self.beta = A, F, t, beta
        if F.shape[1] > 1 and np.linalg.matrix_rank(F) < F.shape[1]:
            raise BadInput("free directions depend on each other: one of them has to go.")
        self.norms = np.linalg.norm(A, axis=0)

    def minimise(self, z: Floats, c: Floats) -> tuple[Floats, Floats]:
        """Return the minimiser, from a point to begin at."""
        z, beta = z.copy(), self.beta
        active = np.flatnonzero(z).tolist()
        signs = np.sign(z)
        c = self._descend(z, c, active, signs)
        entering, tried, lowest = ENTERING, set(), self.value(z, c)
        for _ in range(STEPS):
            rest = self.t - self.A @ z - self.F @ c
            pull = rest @ self.A
            slack = 4e-15 * self.norms * (np.linalg.norm(self.t) + np.linalg.norm(rest))
            above = np.abs(pull) - beta - slack - 1e-13 * beta
            above[active] = -np.inf
            above[list(tried)] = -np.inf  # until something else gains
            new = np.flatnonzero(above > 0)
            if not len(new):
                return z, c
            new = new[np.argsort(-above[new])][:entering]
            signs[new] = np.sign(pull[new])
            active += new.tolist()
            c = self._descend(z, c, active, signs)
            value = self.value(z, c)
            if value < lowest * (1 - 4e-16):
                entering, tried, lowest = ENTERING, set(), value
            elif entering > 1:  # all were turned away: alone, the first has the right sign
                entering = 1
            else:  # what it gains is rounding
                tried.add(int(new[0]))
        return z, c

    def value(self, z: Floats, c: Floats) -> float:
        """Return the objective."""
        rest = self.A @ z + self.F @ c - self.t
        return 0.5 * float(rest @ rest) + self.beta * float(np.abs(z).sum())

    def _descend(self, z: Floats, c: Floats, active: list[int], signs: Floats) -> Floats:
        """Move to the minimiser over the active columns, dropping those that reach zero."""
        while True:
            M = np.hstack([self.F, self.A[:, active]])
            q = self.F.shape[1]
            if not M.shape[1]:
                return c
            scale = np.linalg.norm(M, axis=0)
            scale[scale == 0] = 1.0
            Q, R = np.linalg.qr(M / scale)
            size = np.zeros(R.shape[1])
            size[: len(R)] = np.abs(np.diag(R))
            charge = self.beta * np.concatenate([np.zeros(q), signs[active]])
            here = np.concatenate([c, z[active]])
            short = np.flatnonzero(size <= DEPENDENT)
            if len(short):
                at, free = int(short[0]), False  # a null direction: fit stays, penalty is linear
                move = np.zeros(M.shape[1])
                solved = np.linalg.lstsq(M[:, :at] / scale[:at], M[:, at])[0] / scale[:at]
                move[:at], move[at] = -solved, 1.0
                if charge @ move > 0:
                    move = -move
            else:
                free = True
                want = Q.T @ self.t - solve_triangular(R.T, charge / scale, lower=True)
                x = solve_triangular(R, want)
                gap = self.t - (M / scale) @ x  # one step of refinement
                push = (M / scale).T @ gap - charge / scale
                x += solve_triangular(R, solve_triangular(R.T, push, lower=True))
                move = x / scale - here
            values, change = here[q:], move[q:]
            # A coefficient falls to zero where it moves against its sign.
            falling = change * signs[active] < 0
            with np.errstate(divide="ignore", invalid="ignore"):
                reach = np.where(falling, np.abs(values) / np.abs(change), np.inf)
            first = int(np.argmin(reach)) if len(reach) else -1
            if free and (first < 0 or reach[first] >= 1.0):
                c = here[:q] + move[:q]
                z[active] = values + change
                return c
            if first < 0 or not np.isfinite(reach[first]):  # dependent, and nothing to be gained
                active.pop(at - q)
                continue
            c = here[:q] + reach[first] * move[:q]
            z[active] = values + reach[first] * change
            z[active[first]] = 0.0
            active.pop(first)
