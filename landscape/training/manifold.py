"""Newton steps, line searches and releases on the manifold of a network's ties: see `polishing`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, null_space

from landscape.clarke import lines, ties

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.problem import Problem

    Floats = NDArray[np.float64]

SAME = 1e-9
"""Neurons whose directions have a cosine above one less this are collinear."""
LOST = 1e-14
"""Decreases below this share of the objective are lost in its rounding."""
STRAIGHT = 1e-3
"""Of the majorant's curvature, in Newton steps where the loss has less of its own."""


@dataclass
class State:
    """Neurons u (m, p), signs (m,), constant ξ; ties and open sides (m, n)."""

    u: Floats
    signs: Floats
    constant: float
    ties: NDArray[np.bool_]
    open: NDArray[np.bool_]


class Descent:
    """Newton steps, line search and releases for one problem."""

    def __init__(self, problem: Problem, penalised: NDArray[np.bool_], free: bool) -> None:
        self.X, self.y, self.beta = problem.design, problem.y, problem.beta
        self.loss, self.penalised, self.free = problem.loss, penalised, free
        self.head, self.ratio = lines(self.X)
        self.steepest = np.inf  # the largest gradient of any neuron at the last Newton step
        self.damping = 0.0  # in units of β/‖u_j‖: the quadratic model holds for |step| ≲ ‖u_j‖

    def fit(self, state: State) -> Floats:
        return np.maximum(state.u @ self.X.T, 0).T @ state.signs + state.constant

    def value(self, state: State) -> float:
        sizes = np.linalg.norm(state.u[:, self.penalised], axis=1)
        return float(self.loss.value(self.fit(state), self.y)) + self.beta * float(sizes.sum())

    def newton(self, state: State) -> tuple[State, float]:
        """Return the Newton direction along the ties and its slope (≤ 0)."""
        fit = self.fit(state)
        gradient = self.loss.gradient(fit, self.y)
        curvature = np.maximum(self.loss.curvature(fit, self.y), 0)
        # Where a loss is a line its curvature sets no length: a little of a parabola's does.
        share = 1.0 if self.damping else STRAIGHT
        curvature = np.maximum(curvature, share * self.loss.majorant(fit, self.y))
        bases, columns, slopes, norms = [], [], [], []
        for u, sign, tied, opened in zip(state.u, state.signs, state.ties, state.open, strict=True):
            rows = self.X[tied]
            basis = null_space(rows) if len(rows) else np.eye(len(u))
            masked = sign * opened[:, None] * self.X
            unit = np.where(self.penalised, u, 0.0)
            size = np.linalg.norm(unit)
            unit = unit / size
            bend = self.beta * (np.diag(self.penalised * 1.0) - np.outer(unit, unit)) / size
            bases.append(basis)
            columns.append(masked @ basis)
            slopes.append(basis.T @ (masked.T @ gradient + self.beta * unit))
            damp = self.damping * self.beta / size * np.eye(len(u))
            norms.append(basis.T @ (bend + damp) @ basis)
        if self.free:
            columns.append(np.ones((len(self.y), 1)))
            slopes.append(np.array([gradient.sum()]))
            norms.append(np.zeros((1, 1)))
        self.steepest = max([0.0, *(float(np.linalg.norm(one)) for one in slopes)])
        if not sum(column.shape[1] for column in columns):  # nothing can move
            return replace(state, u=0.0 * state.u, constant=0.0), 0.0
        A, slope = np.hstack(columns), np.concatenate(slopes)
        H = A.T @ (curvature[:, None] * A)
        at = 0
        for block in norms:
            span = slice(at, at + len(block))
            H[span, span] += block
            at += len(block)
        step = -_solved(H, slope)
        if slope @ step >= 0:
            step = -slope
        parts = np.split(step, np.cumsum([c.shape[1] for c in columns])[:-1])
        u = np.array([b @ part for b, part in zip(bases, parts, strict=False)])
        constant = float(parts[-1][0]) if self.free else 0.0
        direction = replace(state, u=u.reshape(state.u.shape), constant=constant)
        return direction, float(slope @ step)

    def redamped(self, gain: float, slope: float, settled: bool, value: float) -> bool:
        """Adapt the damping to the last step; return whether another step is due at once."""
        before = self.damping
        if settled or (gain <= 0 and before >= 1e2):
            self.damping = 0.0
            return settled and before > 0
        if gain < -0.05 * slope and -slope > LOST * abs(value):
            self.damping = min(max(1e-2, 10 * before), 1e2)
            return gain <= 0
        if gain > -0.25 * slope:
            self.damping = before / 10 if before > 1e-4 else 0.0
        return False

    def sharpened(self, state: State, value: float, slope: float) -> tuple[State, float] | None:
        """Return a state of smaller gradient where gains drown in rounding; None if not found.

        There the objective cannot choose a length, but the Newton decrement can choose a damping.
        """
        noise = 4 * np.finfo(float).eps * abs(value)
        if -slope > 1e-8 * abs(value):
            return None
        found = None
        for damping in 10.0 ** np.arange(-3, 4):
            self.damping = damping
            trial = self._at(state, self.newton(state)[0], 1.0)
            crossed = (trial.u @ self.X.T > 0) != state.open
            self.damping = 0.0
            if (crossed & ~state.ties).any() or not self.value(trial) <= value + noise:
                continue
            after = self.newton(trial)[1]
            if after > 0.5 * slope:
                found, slope = trial, after
        return None if found is None else self.snapped(found, self.value(found))

    def search(
        self, state: State, value: float, step: State, slope: float
    ) -> tuple[State, float] | None:
        """Return the best of a full step, kinks on the way, and shorter steps; None if no gain."""
        here, speed = state.u @ self.X.T, step.u @ self.X.T
        here[ties(self.X, state.u, 1e-14)] = 0.0  # a tie just released is not a kink ahead
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = np.where((here * speed < 0) & ~state.ties, -here / speed, np.inf)
            # Where a neuron's penalised part is smallest: with one such coordinate, where it is 0.
            part = self.penalised * step.u
            vanishing = -(part * state.u).sum(1) / (part**2).sum(1)
        vanishing = vanishing[(vanishing > 0) & (vanishing <= 1.0)]
        kinks = np.unique(np.concatenate([crossing[crossing <= 1.0], vanishing]))
        full = self.value(self._at(state, step, 1.0))
        noise = 4 * np.finfo(float).eps * abs(value)
        moved: State | None = None
        best = value
        if full <= value + 1e-4 * slope:
            moved, best = self._at(state, step, 1.0), full
        elif not len(kinks) and -slope < 1e-8 * abs(value) and full <= value + noise:
            # Near the end the gain drowns in rounding, yet Newton still sharpens the gradient.
            moved, best = self._at(state, step, 1.0), full
        else:
            # Each neuron as far as its own first kink.
            first = np.minimum(crossing.min(axis=1, initial=np.inf), 1.0)
            tries: list[Floats | float] = [first, *kinks[:10], *0.5 ** np.arange(1, 30)]
            for number, length in enumerate(tries):
                trial = self._at(state, step, length)
                reached = self.value(trial)
                if reached < best:
                    hit = self.on_lines(crossing == np.reshape(length, (-1, 1)))
                    moved, best = replace(trial, ties=state.ties | hit), reached
                if number >= 10 + len(kinks) and best < value:
                    break
        if moved is None:
            return None
        return self.thinned(*self.snapped(moved, best))

    def on_lines(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return marks (m, n) of samples with all samples on their lines."""
        found = np.zeros_like(rows)
        neuron, row = np.nonzero(rows)
        found[neuron, self.head[row]] = True
        return found[:, self.head]

    def snapped(self, state: State, value: float) -> tuple[State, float]:
        """Put neurons back on ties that rounding moved them off (one that was tiny in between)."""
        off = state.ties & ~ties(self.X, state.u, 1e-12)
        if off.any():
            u = state.u.copy()
            for j in np.flatnonzero(off.any(axis=1)):
                rows = self.X[state.ties[j]]
                u[j] -= np.linalg.lstsq(rows, rows @ u[j], rcond=1e-12)[0]
            exact = replace(state, u=u)
            reached = self.value(exact)
            if reached <= value:
                state, value = exact, reached
            else:
                state = replace(state, ties=state.ties & ~off)
        return replace(state, open=np.where(state.ties, False, state.u @ self.X.T > 0)), value

    def _at(self, state: State, step: State, length: Floats | float) -> State:
        """Return the state after a step of that length, or of one length a neuron."""
        whole = 1.0 if isinstance(length, np.ndarray) else length
        return replace(
            state,
            u=state.u + np.reshape(length, (-1, 1)) * step.u,
            constant=state.constant + whole * step.constant,
        )

    def thinned(self, state: State, value: float) -> tuple[State, float]:
        """Drop neurons, one by one, while the objective is no higher without them.

        A free output bias takes over a dropped neuron's mean: all of it, if its w is 0.
        """
        state, value = self.merged(state, value)
        while len(state.u):
            sizes = np.linalg.norm(state.u[:, self.penalised], axis=1)
            outputs = state.signs[:, None] * np.maximum(state.u @ self.X.T, 0)
            lifted = outputs.mean(axis=1) if self.free else np.zeros(len(outputs))
            fits = outputs.sum(axis=0) + state.constant - outputs + lifted[:, None]
            trials = self.loss.value(fits, self.y) + self.beta * (sizes.sum() - sizes)
            trials[sizes == 0] = -np.inf  # nothing to differentiate there
            worst = int(np.argmin(trials))
            if trials[worst] > value + 2 * np.finfo(float).eps * abs(value):
                break
            kept = np.arange(len(sizes)) != worst
            state = State(
                state.u[kept],
                state.signs[kept],
                state.constant + float(lifted[worst]),
                state.ties[kept],
                state.open[kept],
            )
            value = self.value(state)
        return state, value

    def merged(self, state: State, value: float) -> tuple[State, float]:
        """Add up collinear neurons of one sign in one closed cone: fit and norms stay.

        Left apart, they could be traded for each other at no cost: no Newton step would be
        determined.
        """
        while True:
            unit = state.u / np.linalg.norm(state.u, axis=1, keepdims=True).clip(1e-300)
            side = np.where(state.ties, 0.0, np.where(state.open, 1.0, -1.0))
            above, below = np.maximum(side, 0.0), np.maximum(-side, 0.0)
            apart = above @ below.T + below @ above.T
            same = (apart == 0) & (state.signs[:, None] == state.signs) & (unit @ unit.T > 1 - SAME)
            pairs = np.argwhere(np.triu(same, 1))
            if not len(pairs):
                return state, value
            i, j = pairs[0]
            kept = np.arange(len(state.u)) != j
            u, tied = state.u.copy(), state.ties.copy()
            u[i] += u[j]
            tied[i] &= tied[j]
            state = replace(
                state,
                u=u[kept],
                signs=state.signs[kept],
                ties=tied[kept],
                open=np.where(tied, False, u @ self.X.T > 0)[kept],
            )
            value = self.value(state)

    def release(self, state: State, tolerance: float, one: bool = False) -> State | None:
        """Open or close the tie of each neuron whose multiplier is worst; None if all are right.

        With ``one``, only the worst of all neurons is released.

        With the pull g_j of the smooth part and c the multipliers, Σ c_k x_k = g_j, a tie is
        right if s_jν_k ≤ c_k ≤ 0; with other samples on its line, if s_jΣν_l ≤ c_k over those ahead
        and c_k ≤ −s_jΣν_l over those behind, in units of x_k.
        """
        nu = -self.loss.gradient(self.fit(state), self.y)
        longest = float(np.linalg.norm(self.X, axis=1).max())
        ahead, behind = (
            np.bincount(self.head, np.maximum(s * self.ratio, 0.0) * nu, len(nu)) for s in (1, -1)
        )
        found: list[tuple[float, int, int, bool]] = []
        for j in np.flatnonzero(state.ties.any(axis=1)):
            u, sign, rows = state.u[j], state.signs[j], np.flatnonzero(state.ties[j])
            rows = np.unique(self.head[rows])  # samples on one line have one kink
            unit = np.where(self.penalised, u, 0.0)
            unit = unit / np.linalg.norm(unit)
            pull = self.beta * unit - sign * (state.open[j] * nu) @ self.X
            multipliers = np.linalg.lstsq(self.X[rows].T, pull, rcond=1e-12)[0]
            above, below = behind[rows] * sign + multipliers, ahead[rows] * sign - multipliers
            worst = int(np.argmax(np.maximum(above, below)))
            wrong = float(max(above[worst], below[worst]))
            if wrong * longest > tolerance * self.beta:
                # Opening pays at rate below, closing at rate above; where both pay alike, rounding
                # must not choose.
                side = bool(below[worst] > above[worst] + 1e-9 * wrong)
                found.append((wrong, int(j), int(rows[worst]), side))
        if not found:
            return None
        held, opened = state.ties.copy(), state.open.copy()
        for _, j, row, side in [max(found)] if one else found:
            line = self.head == row
            held[j, line], opened[j, line] = False, (self.ratio[line] > 0) == side
        return replace(state, ties=held, open=opened)


def _solved(H: Floats, slope: Floats) -> Floats:
    """Return H⁻¹ slope for positive semidefinite H, damped as little as rounding allows."""
    # Small neurons bend sharply: without unit diagonals their blocks would drown the others'.
    size = np.sqrt(np.maximum(np.diag(H), 1e-300))
    scaled, right = H / np.outer(size, size), slope / size
    for damping in 10.0 ** np.arange(-14, 1, 2):
        try:
            factor = cho_factor(scaled + damping * np.eye(len(H)))
        except LinAlgError:
            continue
        step = cho_solve(factor, right)
        # One refinement undoes most of the damping.
        return (step + cho_solve(factor, right - scaled @ step)) / size
    return slope / size**2
