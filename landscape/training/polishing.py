r"""Polishing: from where training stopped to a directionally stationary point.

Gradient methods end near kinks, never on them, and L-BFGS stalls at kinks that are not
stationary.  In the coordinates :math:`u_j = |a_j| w_j` of a balanced network the objective

.. math:: ℓ\Big(\sum_j s_j (X u_j)_+ + ξ\Big) + β \sum_j \|u_j\|

is smooth as long as no :math:`x_k^⊤u_j` changes its sign.  So: Newton steps on the manifold of the
current ties, a line search on the true objective that may stop on a kink (a new tie), and, once the
manifold's minimum is reached, the release of a tie whose multiplier has the wrong sign.  The
objective never rises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve, null_space

from landscape.architectures import TwoLayer
from landscape.errors import BadInput
from landscape.training.batched import Runs, padded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Parameters
    from landscape.problem import Problem

    Floats = NDArray[np.float64]

VERSION = 1


def polish(problem: Problem, runs: Runs, tolerance: float = 1e-9, iterations: int = 300) -> Runs:
    """Move every run to a directionally stationary point, its objective never rising.

    Neurons of one signed pattern are merged first, which cannot raise the objective.  How close a
    run came is what `landscape.certify` reports (``stationarity`` and ``wrong_ties``).

    Args:
        problem: the training problem, with a smooth loss.
        runs: trained two-layer ReLU networks.
        tolerance: stop when the reduced gradient is below tolerance × β.
        iterations: most Newton steps a run.

    Returns:
        Runs with the same seeds and widths; ``objectives`` and the end of ``trace`` are new.

    Raises:
        BadInput: for another architecture or a loss that has no second derivative.
    """
    if not isinstance(problem.architecture, TwoLayer) or not problem.loss.smooth:
        raise BadInput(
            "polish takes two-layer ReLU networks under a smooth loss; the problem has "
            f"{problem.architecture.label} and the {problem.loss.name} loss."
        )
    polished = []
    for run in range(len(runs)):
        values = {k: v[run].detach().cpu().double() for k, v in runs.parameters.items()}
        polished.append(_polished(problem, values, tolerance, iterations))
    parameters = padded([{k: v[None] for k, v in one.items()} for one in polished])
    with torch.no_grad():
        objectives = problem.objective(parameters).numpy()
    trace = np.hstack([runs.trace[:, :-1], objectives[:, None]])
    status = f"{runs.status} Polished."
    return replace(runs, parameters=parameters, objectives=objectives, trace=trace, status=status)


@dataclass
class _State:
    """Neurons u (m, p), signs (m,), constant ξ; ties and open sides (m, n)."""

    u: Floats
    signs: Floats
    constant: float
    ties: NDArray[np.bool_]
    open: NDArray[np.bool_]


def _polished(
    problem: Problem, parameters: Parameters, tolerance: float, iterations: int
) -> Parameters:
    """Return one network, polished; the better of it and what came in."""
    before = float(problem.objective(parameters))
    point = problem.architecture.lift(problem, parameters)
    free = isinstance(problem.architecture, TwoLayer) and problem.architecture.bias == "free"
    outputs = point.theta @ problem.design.T
    state = _State(
        point.theta,
        point.program.atoms.signs,
        float(point.constant[0]) if free else 0.0,
        np.zeros(outputs.shape, dtype=bool),
        outputs > 0,
    )
    work = _Descent(problem, point.program.gauge.penalised, free)
    state, value = work.without_dust(state, work.value(state))
    for _ in range(iterations):
        step, slope = work.newton(state)
        moved = work.search(state, value, step, slope)
        if moved is not None:
            state, value = moved
        if moved is None or slope > -((tolerance * problem.beta) ** 2):
            released = work.release(state, 1e3 * tolerance)
            if released is None:
                break
            state = released
    constant = np.array([state.constant]) if free else np.zeros(0)
    # Blocks change their patterns on the way, so the way back starts from neurons, not blocks.
    sizes = np.linalg.norm(state.u[:, work.penalised], axis=1)
    alive = sizes > 0
    scale = np.sqrt(sizes[alive])
    after: Parameters = {
        "hidden": torch.as_tensor(state.u[alive] / scale[:, None]),
        "output": torch.as_tensor(state.signs[alive] * scale),
    }
    if free:
        after["constant"] = torch.as_tensor(constant[0])
    return after if float(problem.objective(after)) <= before else parameters


class _Descent:
    """Newton steps, line search and releases for one problem."""

    def __init__(self, problem: Problem, penalised: NDArray[np.bool_], free: bool) -> None:
        self.X, self.y, self.beta = problem.design, problem.y, problem.beta
        self.loss, self.penalised, self.free = problem.loss, penalised, free

    def fit(self, state: _State) -> Floats:
        return np.maximum(state.u @ self.X.T, 0).T @ state.signs + state.constant

    def value(self, state: _State) -> float:
        sizes = np.linalg.norm(state.u[:, self.penalised], axis=1)
        return float(self.loss.value(self.fit(state), self.y)) + self.beta * float(sizes.sum())

    def newton(self, state: _State) -> tuple[_State, float]:
        """Return the Newton direction along the ties and its slope (≤ 0)."""
        fit = self.fit(state)
        gradient = self.loss.gradient(fit, self.y)
        curvature = np.maximum(self.loss.curvature(fit, self.y), 0)
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
            norms.append(basis.T @ bend @ basis)
        if self.free:
            columns.append(np.ones((len(self.y), 1)))
            slopes.append(np.array([gradient.sum()]))
            norms.append(np.zeros((1, 1)))
        if not sum(column.shape[1] for column in columns):  # nothing can move
            return replace(state, u=0.0 * state.u, constant=0.0), 0.0
        A, slope = np.hstack(columns), np.concatenate(slopes)
        H = A.T @ (curvature[:, None] * A)
        at = 0
        for block in norms:
            span = slice(at, at + len(block))
            H[span, span] += block
            at += len(block)
        H[np.diag_indices_from(H)] += 1e-13 * max(np.trace(H) / len(H), 1e-300)
        try:
            step = -cho_solve(cho_factor(H, check_finite=False), slope, check_finite=False)
        except np.linalg.LinAlgError:  # directions without any curvature
            step = -np.linalg.lstsq(H, slope, rcond=1e-15)[0]
        if slope @ step >= 0:
            step = -slope
        parts = np.split(step, np.cumsum([c.shape[1] for c in columns])[:-1])
        u = np.array([b @ part for b, part in zip(bases, parts, strict=False)])
        constant = float(parts[-1][0]) if self.free else 0.0
        direction = replace(state, u=u.reshape(state.u.shape), constant=constant)
        return direction, float(slope @ step)

    def search(
        self, state: _State, value: float, step: _State, slope: float
    ) -> tuple[_State, float] | None:
        """Return the best of a full step, kinks on the way, and shorter steps; None if no gain."""
        if not len(state.u):
            return None
        here, speed = state.u @ self.X.T, step.u @ self.X.T
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = np.where((here * speed < 0) & ~state.ties, -here / speed, np.inf)
            # Where a neuron's penalised part is smallest: with one such coordinate, where it is 0.
            part = self.penalised * step.u
            vanishing = -(part * state.u).sum(1) / (part**2).sum(1)
        vanishing = vanishing[(vanishing > 0) & (vanishing <= 1.0)]
        kinks = np.unique(np.concatenate([crossing[crossing <= 1.0], vanishing]))
        best: tuple[float, float] = (value, 0.0)
        full = self.value(self._at(state, step, 1.0))
        if full <= value + 1e-4 * slope:
            best = (full, 1.0)
        else:
            for length in (*kinks[:40], *0.5 ** np.arange(1, 30)):
                trial = self.value(self._at(state, step, float(length)))
                if trial < best[0]:
                    best = (trial, float(length))
        if best[1] == 0.0:
            return None
        moved = self._at(state, step, best[1])
        hit = crossing == best[1]
        outputs = moved.u @ self.X.T
        ties = state.ties | hit
        opened = np.where(ties, False, outputs > 0)
        # A neuron that shrank to nothing is dropped if that does not raise the objective.
        moved = replace(moved, ties=ties, open=opened)
        return self.without_dust(moved, best[0])

    def _at(self, state: _State, step: _State, length: float) -> _State:
        return replace(
            state,
            u=state.u + length * step.u,
            constant=state.constant + length * step.constant,
        )

    def without_dust(self, state: _State, value: float) -> tuple[_State, float]:
        """Drop neurons with w = 0, whose output is constant, and tiny ones if that is no loss."""
        sizes = np.linalg.norm(state.u[:, self.penalised], axis=1)
        for least in (0.0, 1e-6 * sizes.max(initial=0.0)):
            kept = sizes > least
            if kept.all():
                continue
            gone = (~kept) & (sizes == 0)
            lifted = state.signs[gone] @ np.maximum(state.u[gone][:, ~self.penalised], 0).sum(1)
            smaller = _State(
                state.u[kept],
                state.signs[kept],
                state.constant + float(lifted),
                state.ties[kept],
                state.open[kept],
            )
            trial = self.value(smaller)
            if trial <= value + 1e-13 * abs(value) or least == 0.0:
                state, value, sizes = smaller, trial, sizes[kept]
        return state, value

    def release(self, state: _State, tolerance: float) -> _State | None:
        """Open or close the tie of each neuron whose multiplier is worst; None if all are right.

        With the pull g_j of the smooth part and c the multipliers, Σ c_k x_k = g_j, a tie is
        right if s_jν_k ≤ c_k ≤ 0.
        """
        nu = -self.loss.gradient(self.fit(state), self.y)
        ties, opened, changed = state.ties.copy(), state.open.copy(), False
        for j in np.flatnonzero(state.ties.any(axis=1)):
            u, sign, rows = state.u[j], state.signs[j], np.flatnonzero(state.ties[j])
            unit = np.where(self.penalised, u, 0.0)
            unit = unit / np.linalg.norm(unit)
            pull = self.beta * unit - sign * (opened[j] * nu) @ self.X
            multipliers = np.linalg.lstsq(self.X[rows].T, pull, rcond=1e-12)[0]
            scale = tolerance * (self.beta + np.abs(nu).max())
            above, below = multipliers, sign * nu[rows] - multipliers
            worst = int(np.argmax(np.maximum(above, below)))
            if max(above[worst], below[worst]) > scale:
                # Opening pays at rate below, closing at rate above.
                ties[j, rows[worst]], changed = False, True
                opened[j, rows[worst]] = below[worst] >= above[worst]
        return replace(state, ties=ties, open=opened) if changed else None
