r"""The Lasso over given columns by an active set, to the accuracy of its linear algebra.

Ramps and their kin are so nearly dependent that coordinate descent creeps.  Here columns enter at
the largest correlation, a column whose coefficient would change its sign leaves where it crosses
zero, and the orthogonal factors of the active columns are updated, never formed anew; every step
lowers the objective, so no active set returns.  A column in the span of the active ones trades
places with one of them.  The dual point is not y less the fit, whose rounding is that of y, but

.. math:: ν = (I − QQ^⊤) t + β Q R^{−⊤} s, \qquad [A_0, A_\text{active}] = QR,

which has the prices of the active columns right to the last digits however small β is.  Other
smooth losses are met by Newton steps on their quadratic model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import qr_delete, solve_triangular

from landscape.bounds import lower_bound, relative_gap
from landscape.errors import BadInput, NotConverged
from landscape.solvers.reference import Optimum

if TYPE_CHECKING:
    from landscape.dictionary import Lasso
    from landscape.programs import Floats

VERSION = 3
ENTERING = 8
"""Most columns that enter at a time."""
ALIKE = 0.999
"""Of columns with a cosine above this only one enters at a time."""
STEPS = 100_000
NEWTON = 100
"""Most quadratic models."""
DEPENDENT = 1e-11
"""A column this close (sine) to the span of the active ones depends on them."""
EPSILON = float(np.finfo(np.float64).eps)


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
        BadInput: if the free directions depend on each other.
        NotConverged: if the gap stays above ``tolerance`` and ``throw``.
    """
    loss, y, A = program.loss, program.y, program.atoms.values
    theta, constant = program.zero() if start is None else start
    z, c = theta[:, 0].copy(), np.array(constant, dtype=np.float64)
    best, steps, above = None, 0, False
    for _ in range(NEWTON):
        fit = A @ z + program.free @ c
        slope = loss.gradient(fit, y)
        # Where Newton's model leads too far (every loss a line) parabolas from above do not.
        weights = (loss.majorant if above else loss.curvature)(fit, y)
        # A curvature of zero (Huber's ends) leaves the model flat: a little keeps it solvable.
        root = np.sqrt(np.maximum(weights, 1e-9 * max(1e-12, float(weights.max(initial=0.0)))))
        # Of a quadratic loss the model is the loss itself, whatever the point.
        exact = bool((weights == 1.0).all()) and np.array_equal(slope, fit - y)
        target = y if exact else root * fit - slope / root
        model = _Quadratic(root[:, None] * A, root[:, None] * program.free, target, program.beta)
        new, free = model.minimise(z, c)
        steps += model.steps
        before = program.value(z[:, None], c)
        z, c, value = _along(program, (z, c), (new, free), before)
        found = _optimum(program, z, c, root * model.nu)
        best = found if best is None or found.gap < best.gap else best
        still = before - value <= 1e-15 * abs(value)
        if best.gap <= tolerance or (still and above):
            break
        if still and np.array_equal(weights, loss.majorant(fit, y)):
            break
        above = not above and (still or z is not new)
    assert best is not None
    status = f"Active set ({steps} steps) to {best.gap:.1e}."
    if best.gap > tolerance and throw:
        raise NotConverged(f"{status} The tolerance is {tolerance:g}: scale the data, or raise it.")
    return replace(best, status=status)


def _along(
    program: Lasso, here: tuple[Floats, Floats], there: tuple[Floats, Floats], value: float
) -> tuple[Floats, Floats, float]:
    """Return a point on the way to the model's minimiser that is no worse, and its value."""
    (z, c), (new, free), length = here, there, 1.0
    while length > 1e-10:
        trial = (new, free) if length == 1.0 else (z + length * (new - z), c + length * (free - c))
        found = program.value(trial[0][:, None], trial[1])
        if found <= value:
            return *trial, found
        length /= 2
    return z, c, value


def _optimum(program: Lasso, z: Floats, c: Floats, nu: Floats) -> Optimum:
    """Return the point with the better of two dual points: its residual and the model's."""
    theta = z[:, None]
    value = program.value(theta, c)
    residual = -program.loss.gradient(program.fit(theta, c), program.y)
    bound, nu = max(
        ((lower_bound(program, one)[0], one) for one in (nu, residual)), key=lambda pair: pair[0]
    )
    gap = relative_gap(value, bound, program.loss.at_zero(program.y))
    return Optimum(theta, c, nu, value, "", gap=gap)


class _Quadratic:
    """½‖Az + Fc − t‖² + β‖z‖₁ for one matrix of columns.

    Attributes:
        nu: the dual point at the minimiser, once there is one.
        steps: columns that entered or left.
    """

    def __init__(self, A: Floats, F: Floats, t: Floats, beta: float) -> None:
        if F.shape[1] > 1 and np.linalg.matrix_rank(F) < F.shape[1]:
            raise BadInput("free directions depend on each other: one of them has to go.")
        self.t, self.beta, self.q, self.steps = t, beta, F.shape[1], 0
        self.norms = np.linalg.norm(A, axis=0)
        self.norms[self.norms == 0] = 1.0
        self.unit, self.prices = A / self.norms, beta / self.norms  # one scale for all columns
        self.sizes = np.linalg.norm(F, axis=0)
        Q, R = np.linalg.qr(F / self.sizes)
        self.Q, self.R = np.asfortranarray(Q), np.asfortranarray(R)
        self.active: list[int] = []
        self.nu = t

    def minimise(self, z: Floats, c: Floats) -> tuple[Floats, Floats]:
        """Return the minimiser, from a point to begin at."""
        self.z, self.c = z * self.norms, c * self.sizes
        self.signs = np.sign(self.z)
        for g in np.flatnonzero(self.z):
            self._enter(int(g), float(self.signs[g]))
        self._descend()
        entering, lowest = ENTERING, self._value()
        tried = np.zeros(len(z), dtype=bool)  # they gained nothing: until something else does
        while self.steps < STEPS:
            pull = self.nu @ self.unit
            above = np.abs(pull) - self.prices * (1 + 1e-13)
            above -= 8 * EPSILON * np.linalg.norm(self.nu)
            above[self.active] = -np.inf
            above[tried] = -np.inf
            if not (above > 0).any():
                break
            new = self._distinct(above, entering)
            for g in new:
                self._enter(g, float(np.sign(pull[g])))
            self._descend()
            value = self._value()
            if value < lowest * (1 - 4 * EPSILON):
                entering, lowest = min(ENTERING, 2 * entering), value
                tried[:] = False
            elif entering > 1:  # all were turned away: alone, the first has the right sign
                entering = 1
            else:  # what it gains is rounding
                tried[new] = True
        return self.z / self.norms, self.c / self.sizes

    def _distinct(self, above: Floats, most: int) -> list[int]:
        """Return the columns of largest gain of which no two are nearly parallel."""
        order = np.argsort(-above, kind="stable")[: 8 * most]
        order = order[above[order] > 0]
        cosines = np.abs(self.unit[:, order].T @ self.unit[:, order]) if most > 1 else None
        taken: list[int] = []
        for k in range(len(order)):
            if cosines is None or (cosines[k, taken] < ALIKE).all():
                taken.append(k)
                if len(taken) == most:
                    break
        return order[taken].tolist()

    def _value(self) -> float:
        rest = self.t - self.unit[:, self.active] @ self.z[self.active]
        rest = rest - self.Q[:, : self.q] @ (self.R[: self.q, : self.q] @ self.c)
        return 0.5 * float(rest @ rest) + float(self.prices @ np.abs(self.z))

    def _enter(self, g: int, sign: float) -> None:
        """Make a column active; where it depends on the others, trade it for one of them."""
        self.signs[g] = sign
        while True:
            self.steps += 1
            column = self.unit[:, g]
            seen = self.Q.T @ column
            rest = column - self.Q @ seen
            again = self.Q.T @ rest
            rest -= self.Q @ again
            size = float(np.linalg.norm(rest))
            if size > DEPENDENT and len(self.R) < len(column):
                k = len(self.R)
                R = np.zeros((k + 1, k + 1), order="F")
                R[:k, :k], R[:k, k], R[k, k] = self.R, seen + again, size
                self.R = R
                self.Q = np.asfortranarray(np.column_stack([self.Q, rest / size]))
                self.active.append(g)
                return
            if not self._trade(g, seen + again):
                return

    def _trade(self, g: int, seen: Floats) -> bool:
        """Move along the null direction of a dependent column; return whether it is to enter yet.

        The fit stays, the penalty falls; some coefficient reaches zero first, and leaves.
        """
        others = solve_triangular(self.R, seen)
        active = np.array(self.active, dtype=np.int64)
        rates = self.prices[active] * self.signs[active]
        rise = float(self.prices[g] * self.signs[g] - rates @ others[self.q :])
        sense = self.signs[g]  # what is zero yet can only grow
        if rise * sense >= 0:
            if self.z[g] == 0.0:
                return False
            sense = -sense
        move = -sense * others
        reach = _until_zero(self.z[active], move[self.q :], self.signs[active])
        own = abs(self.z[g]) if sense != self.signs[g] else np.inf
        first = int(np.argmin(reach)) if len(reach) else -1
        length = min(float(reach[first]) if len(reach) else np.inf, own)
        if not np.isfinite(length):  # rounding hides what it could gain
            return False
        self.z[active] += length * move[self.q :]
        self.c = self.c + length * move[: self.q]
        if own <= length:
            self.z[g] = 0.0
            return False
        self.z[g] += sense * length
        self._leave(first)
        return True

    def _leave(self, place: int) -> None:
        """Take a column, zero by now, out of the active ones."""
        self.steps += 1
        self.z[self.active.pop(place)] = 0.0
        left = len(self.R) - 1
        Q, R = qr_delete(
            self.Q, self.R, self.q + place, which="col", overwrite_qr=True, check_finite=False
        )
        self.Q, self.R = Q[:, :left], R[:left]  # where Q is square it stays so

    def _descend(self) -> None:
        """Move to the minimiser over the active columns, dropping those that reach zero."""
        while True:
            Q, R, active = self.Q, self.R, np.array(self.active, dtype=np.int64)
            charge = np.concatenate([np.zeros(self.q), self.prices[active] * self.signs[active]])
            seen = Q.T @ self.t
            if not len(charge):
                self.nu = self.t
                return
            dual = solve_triangular(R, charge, trans=1)
            x = solve_triangular(R, seen - dual)
            values = self.z[active]
            move = x[self.q :] - values
            reach = _until_zero(values, move, self.signs[active])
            first = int(np.argmin(reach)) if len(reach) else -1
            if first < 0 or reach[first] >= 1.0:
                self.c, self.z[active] = x[: self.q], x[self.q :]
                rest = self.t - Q @ seen
                self.nu = rest - Q @ (Q.T @ rest) + Q @ dual
                return
            self.c = self.c + reach[first] * (x[: self.q] - self.c)
            self.z[active] = values + reach[first] * move
            self._leave(first)


def _until_zero(values: Floats, move: Floats, signs: Floats) -> Floats:
    """Return how far coefficients go until they are zero: infinite where they grow."""
    falling = move * signs < 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(falling, np.abs(values) / np.abs(move), np.inf)
