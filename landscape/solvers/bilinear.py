r"""Newton's method on heads: the program over few heads, settled to the accuracy of arithmetic.

.. math::

    \min_{w, v} \; ℓ\Big(\sum_j w_j^⊤ Φ_{g(j)} v_j,\; y\Big)
        + \tfrac β2 \sum_j (\|w_j\|^2 + \|v_j\|^2)

(Burer & Monteiro's form of a nuclear norm).  Its Hessian

.. math:: J^⊤ \mathrm{diag}(ℓ'') J + β I + \begin{pmatrix} 0 & Φ^*ℓ' \\ (Φ^*ℓ')^⊤ & 0 \end{pmatrix}

is dense and small, and singular along rotations of heads among each other; a damping that is raised
until the step descends takes care of both.  What comes out is a proposal for column generation,
which decides what it is worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize

from landscape.architectures.tokens import TokenHeads

if TYPE_CHECKING:
    from landscape.architectures.base import Parameters
    from landscape.problem import Problem
    from landscape.programs import Floats

VERSION = 1
LARGEST = 1500
"""Unknowns up to which Hessians are formed."""
STEPS = 12
SETTLED = 1e-13
"""Slopes this small, relative to what their terms add up to, are rounding."""
TRIES = 25
"""Dampings at one point."""
GROWTH = 4.0
"""Of the damping where a step fails."""
QUASI, MEMORY = 300, 40
"""Steps of L-BFGS before Newton's, and how many it remembers."""


def settled(problem: Problem, start: Parameters) -> Parameters:
    """Return a network of heads near a stationary point, no worse than a start.

    Args:
        problem: whose architecture is one of heads (`landscape.architectures.tokens`).
        start: one network.
    """
    own = cast("TokenHeads", problem.architecture)
    if not len(start["hidden"]):
        return start
    hidden = start["hidden"].detach().double().numpy()
    if own.bilinear:
        form = _Form(problem, own.features(problem), hidden.reshape(len(hidden), -1), start)
        x = _near(form, form.start)
        w, v = form.split(_newton(form, x) if form.size <= LARGEST else x)
        first = w.reshape(hidden.shape)
    else:
        form = _ReLUForm(problem, own.rows(problem), own.directions(hidden), start)
        w, v = form.split(_near(form, form.start))
        first = own.whole(w, problem.X.shape[1] // own.tokens)
    return {**start, "hidden": torch.as_tensor(first), "output": torch.as_tensor(v)}


def _near(form: _Form, start: Floats) -> Floats:
    """Return where quasi-Newton steps lead."""
    options = {"maxiter": QUASI, "maxcor": MEMORY, "ftol": 1e-16, "gtol": 1e-13}
    found = minimize(form.slope, start, jac=True, method="L-BFGS-B", options=options)
    return found.x if np.isfinite(found.fun) else start


def _newton(form: _Form, x: Floats) -> Floats:
    """Return where damped steps lead."""
    value, damping = form.value(x), 1e-6 * form.problem.beta
    for _ in range(STEPS):
        slope, H, scale = form.derivatives(x)
        if np.linalg.norm(slope) <= SETTLED * scale:
            break
        for _ in range(TRIES):
            step = _step(H, slope, damping)
            new = np.inf if step is None else form.value(x + step)
            if step is not None and new <= value:
                break
            damping = max(GROWTH * damping, 1e-12 * scale)
        else:
            break
        hoped = -float(slope @ step) - 0.5 * float(step @ (H @ step))
        fell = value - new
        if fell > 0.75 * hoped:  # a damping that does well falls, one that does badly rises
            damping /= GROWTH
        elif fell < 0.25 * hoped:
            damping *= GROWTH
        x, value = x + step, new
        if fell <= 1e-16 * abs(value):
            break
    return x


class _Form:
    """The objective over w (m, p) and v (m, e, c), one after the other in a vector."""

    def __init__(self, problem: Problem, features: Floats, w: Floats, start: Parameters) -> None:
        output = start["output"].detach().double().numpy()
        self.problem, self.features = problem, features
        self.m, self.p = w.shape
        self.second = output.shape[1:]
        gate = start["gate"].numpy().astype(np.int64) if "gate" in start else [0] * self.m
        self.gate = np.asarray(gate, dtype=np.int64)
        self.start = np.concatenate([w.reshape(-1), output.reshape(-1)])
        self.size = len(self.start)

    def split(self, x: Floats) -> tuple[Floats, Floats]:
        """Return w and v."""
        cut = self.m * self.p
        return x[:cut].reshape(self.m, self.p), x[cut:].reshape(self.m, *self.second)

    def spread(self, w: Floats) -> Floats:
        """Return w_jᵀΦ of every head, shape (m, e, N)."""
        out = np.empty((self.m, *self.features.shape[2:]))
        for g in np.unique(self.gate):
            some = self.gate == g
            out[some] = np.tensordot(w[some], self.features[g], 1)
        return out

    def back(self, w: Floats, v: Floats) -> Floats:
        """Return what unit weights w_j put out before v_j of every head, shape (m, p, N, c)."""
        return np.stack(
            [self.features[g].transpose(0, 2, 1) @ v[j] for j, g in enumerate(self.gate)]
        )

    def value(self, x: Floats) -> float:
        """Return the objective."""
        w, v = self.split(x)
        fit = np.tensordot(self.spread(w), v, ((0, 1), (0, 1))).reshape(-1)
        loss = float(self.problem.loss.value(fit, self.problem.y))
        return loss + 0.5 * self.problem.beta * float(x @ x)

    def slope(self, x: Floats) -> tuple[float, Floats]:
        """Return the objective and its slope."""
        w, v = self.split(x)
        loss, y, beta = self.problem.loss, self.problem.y, self.problem.beta
        spread = self.spread(w)
        fit = np.tensordot(spread, v, ((0, 1), (0, 1))).reshape(-1)
        pull = loss.gradient(fit, y).reshape(spread.shape[2], -1)
        cross = (self.features @ pull)[self.gate]  # (m, p, e, c)
        first = np.einsum("mpec,mec->mp", cross, v)
        slope = np.concatenate([first.reshape(-1), (spread @ pull).reshape(-1)]) + beta * x
        return float(loss.value(fit, y)) + 0.5 * beta * float(x @ x), slope

    def derivatives(self, x: Floats) -> tuple[Floats, Floats, float]:
        """Return slope and Hessian, and what the terms of the slope add up to."""
        w, v = self.split(x)
        loss, y, beta, m = self.problem.loss, self.problem.y, self.problem.beta, self.m
        e, c = self.second
        spread = self.spread(w)
        fit = np.tensordot(spread, v, ((0, 1), (0, 1))).reshape(-1)
        pull, bend = loss.gradient(fit, y), loss.curvature(fit, y)
        N = spread.shape[2]
        left = self.back(w, v).reshape(m * self.p, N * c)
        right = np.einsum("jeN,ck->jecNk", spread, np.eye(c)).reshape(m * e * c, N * c)
        J = np.vstack([left, right])  # (size, Nc)
        slope = J @ pull + beta * x
        H = (J * bend) @ J.T
        H[np.diag_indices(self.size)] += beta
        cross = self.features @ pull.reshape(N, c)  # (P, p, e, c)
        for j, g in enumerate(self.gate):
            rows = slice(j * self.p, (j + 1) * self.p)
            columns = slice(m * self.p + j * e * c, m * self.p + (j + 1) * e * c)
            block = cross[g].reshape(self.p, e * c)
            H[rows, columns] += block
            H[columns, rows] += block.T
        scale = float(np.linalg.norm(np.abs(J) @ np.abs(pull))) + beta * float(np.linalg.norm(x))
        return slope, H, scale


class _ReLUForm(_Form):
    """The same with ReLUs, whose kinks quasi-Newton steps get over better than Newton's.

    Heads are few and slopes cheap: a_r (N, R, p) is what the ReLU sees, b_r (N, R, e) its spread.
    """

    def __init__(
        self, problem: Problem, rows: tuple[Floats, Floats], w: Floats, start: Parameters
    ) -> None:
        self.A, self.B = rows
        super().__init__(problem, self.A, w, start)
        N, R, p = self.A.shape
        self.flat = np.ascontiguousarray(self.A.reshape(N * R, p))

    def slope(self, x: Floats) -> tuple[float, Floats]:
        """Return the objective and its slope."""
        w, v = self.split(x)
        loss, y, beta = self.problem.loss, self.problem.y, self.problem.beta
        N, R, _ = self.A.shape
        seen = (w @ self.flat.T).reshape(self.m, N, R)
        spread = (np.maximum(seen, 0.0)[:, :, None, :] @ self.B)[:, :, 0]  # (m, N, e)
        fit = np.tensordot(spread, v, ((0, 2), (0, 1))).reshape(-1)  # (Nc,)
        pull = loss.gradient(fit, y).reshape(N, -1)
        back = pull @ v.transpose(0, 2, 1)  # (m, N, e)
        weights = (self.B @ back[..., None])[..., 0] * (seen > 0)
        first = weights.reshape(self.m, -1) @ self.flat
        second = spread.transpose(0, 2, 1) @ pull
        slope = np.concatenate([first.reshape(-1), second.reshape(-1)]) + beta * x
        return float(loss.value(fit, y)) + 0.5 * beta * float(x @ x), slope


def _step(H: Floats, slope: Floats, damping: float) -> Floats | None:
    """Return −(H + damping I)^{-1} slope, or None where that is no positive definite matrix."""
    damped = H.copy()
    damped[np.diag_indices(len(H))] += damping
    try:
        return -cho_solve(cho_factor(damped, overwrite_a=True, check_finite=False), slope)
    except LinAlgError:
        return None
