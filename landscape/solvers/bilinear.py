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

LARGEST = 1500
"""Unknowns up to which Hessians are formed."""
STEPS = 60
SETTLED = 1e-13
"""Slopes this small, relative to what their terms add up to, are rounding."""
TRIES = 25
"""Dampings at one point."""
QUASI, MEMORY = 300, 40
"""Steps of L-BFGS over ReLU heads, and how many it remembers."""


def settled(problem: Problem, start: Parameters) -> Parameters | None:
    """Return a network of heads near a stationary point below a start; None if they are too many.

    Args:
        problem: whose architecture is one of heads (`landscape.architectures.tokens`).
        start: one network.
    """
    own = cast("TokenHeads", problem.architecture)
    if not len(start["hidden"]):
        return start
    if own.bilinear:
        form = _Form(problem, own.features(problem), start)
        return form.network(_newton(form)) if form.size <= LARGEST else None
    form = _ReLUForm(problem, TokenHeads.rows(own, problem), start)
    options = {"maxiter": QUASI, "maxcor": MEMORY, "ftol": 1e-16, "gtol": 1e-13}
    found = minimize(form.slope, form.start, jac=True, method="L-BFGS-B", options=options)
    return form.network(found.x if np.isfinite(found.fun) else form.start)


def _newton(form: _Form) -> Floats:
    """Return where damped steps lead from the form's start."""
    x = form.start
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
            damping = max(4.0 * damping, 1e-12 * scale)
        else:
            break
        still = value - new <= 1e-16 * abs(value)
        x, value, damping = x + step, new, 0.1 * damping
        if still:
            break
    return x


class _Form:
    """The objective over w (m, p) and v (m, e, c), one after the other in a vector."""

    def __init__(self, problem: Problem, features: Floats, start: Parameters) -> None:
        hidden, output = (start[k].detach().double().numpy() for k in ("hidden", "output"))
        self.problem, self.features, self.parameters = problem, features, start
        self.m, self.p = len(hidden), features.shape[1]
        self.second = output.shape[1:]
        gate = start["gate"].numpy().astype(np.int64) if "gate" in start else [0] * self.m
        self.gate = np.asarray(gate, dtype=np.int64)
        self.start = np.concatenate([hidden.reshape(-1), output.reshape(-1)])
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
        scale = float(np.linalg.norm(J @ np.abs(pull))) + beta * float(np.linalg.norm(x))
        return slope, H, scale

    def network(self, x: Floats) -> Parameters:
        """Return the network of a point."""
        hidden, output = self.parameters["hidden"], self.parameters["output"]
        w, v = self.split(x)
        return {
            **self.parameters,
            "hidden": torch.as_tensor(w.reshape(hidden.shape)),
            "output": torch.as_tensor(v.reshape(output.shape)),
        }


class _ReLUForm(_Form):
    """The same with ReLUs, whose kinks quasi-Newton steps get over better than Newton's.

    Heads are few and slopes cheap: a_r (N, R, p) is what the ReLU sees, b_r (N, R, e) its spread.
    """

    def __init__(self, problem: Problem, rows: tuple[Floats, Floats], start: Parameters) -> None:
        self.A, self.B = rows
        super().__init__(problem, self.A.transpose(1, 2, 0), start)
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
