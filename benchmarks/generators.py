"""Two other ways to generate neurons, as yardsticks for column generation.

Conic particle gradient descent (Chizat, 2022): many signed unit directions with positive masses;
masses move multiplicatively, directions along the sphere.  Sliding Frank–Wolfe (Denoyelle et al.,
2019): add the best neuron that a search finds, fit all masses by a non-negative Lasso, then let
masses and directions slide together by L-BFGS.  Both minimise ½‖f − y‖² + β Σ mass.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from landscape.problem import Problem
from landscape.solvers import search

Trace = list[tuple[float, float]]
"""(seconds, objective) pairs."""


def _objective(X, y, beta, units, signs, masses):
    fit = torch.relu(X @ units.T) @ (signs * masses)
    return 0.5 * ((fit - y) ** 2).sum() + beta * masses.sum(), fit - y


def conic_particles(
    problem: Problem, particles: int = 400, steps: int = 4000, seed: int = 0
) -> tuple[float, Trace]:
    """Return the objective after conic particle gradient descent, and its trace."""
    X, y, beta = torch.as_tensor(problem.X), torch.as_tensor(problem.y), problem.beta
    draw = torch.Generator().manual_seed(seed)
    units = torch.randn(particles, X.shape[1], generator=draw, dtype=torch.float64)
    units = units / units.norm(dim=1, keepdim=True)
    signs = torch.ones(particles, dtype=torch.float64)
    signs[particles // 2 :] = -1
    masses = torch.full((particles,), 1.0 / particles, dtype=torch.float64)
    began, trace, best = time.perf_counter(), [], np.inf
    rate = 1.0 / float(torch.linalg.matrix_norm(X, 2) ** 2)
    value, residual = _objective(X, y, beta, units, signs, masses)
    for step in range(steps):
        before = X @ units.T
        pull = signs * (torch.relu(before).T @ residual) + beta  # derivative in each mass
        slope = signs[:, None] * (((before > 0) * residual[:, None]).T @ X)
        slope = slope - (slope * units).sum(1, keepdim=True) * units
        while True:  # a step that does not rise
            grown = masses * torch.exp((-2 * rate * pull).clamp(-2, 2))
            moved = units - rate * slope
            moved = moved / moved.norm(dim=1, keepdim=True)
            trial, after = _objective(X, y, beta, moved, signs, grown)
            if float(trial) <= float(value) or rate < 1e-12:
                break
            rate /= 2
        units, masses, value, residual = moved, grown, trial, after
        rate *= 1.1
        best = min(best, float(value))
        if step % 50 == 0:
            trace.append((time.perf_counter() - began, best))
    return best, trace


def sliding_frank_wolfe(
    problem: Problem, rounds: int = 150, seed: int = 0, seconds: float = 60.0
) -> tuple[float, Trace]:
    """Return the objective after sliding Frank–Wolfe, and its trace."""
    X, y, beta = problem.X, problem.y, problem.beta
    rng = np.random.default_rng(seed)
    penalised = np.ones(X.shape[1], dtype=bool)
    W, a = np.zeros((0, X.shape[1])), np.zeros(0)  # balanced: |a| = ‖w‖, mass = a²
    began, trace, value = time.perf_counter(), [], float(0.5 * y @ y)
    for _ in range(rounds):
        residual = y - np.maximum(X @ W.T, 0) @ a
        found = []
        for sign in (1.0, -1.0):
            starts = rng.standard_normal((200, X.shape[1]))
            near = np.zeros((0, X.shape[1]))
            neurons, best = search.find(
                X, penalised, sign * residual, beta, starts, near, 1, False, 1e-9
            )
            found += [(best, sign, unit) for unit in neurons.directions]
        if not found:
            break
        _, sign, unit = max(found, key=lambda one: one[0])
        unit = unit / np.linalg.norm(unit)
        feature = np.maximum(X @ unit, 0)
        mass = max(0.0, (sign * feature @ residual - beta) / (feature @ feature))
        W = np.vstack([W, np.sqrt(mass) * unit])
        a = np.append(a, sign * np.sqrt(mass))
        W, a, value = _slide(X, y, beta, W, a)
        kept = np.abs(a) * np.linalg.norm(W, axis=1) > 1e-10
        W, a = W[kept], a[kept]
        trace.append((time.perf_counter() - began, value))
        if trace[-1][0] > seconds:
            break
    return value, trace


def _slide(X, y, beta, W, a, steps: int = 40):
    """Move all neurons together by L-BFGS on the objective with weight decay."""
    Xt, yt = torch.as_tensor(X), torch.as_tensor(y)
    parameters = [torch.tensor(W, requires_grad=True), torch.tensor(a, requires_grad=True)]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-10
    )

    def closure():
        optimizer.zero_grad()
        hidden, output = parameters
        fit = torch.relu(Xt @ hidden.T) @ output
        loss = 0.5 * ((fit - yt) ** 2).sum()
        loss = loss + beta / 2 * ((hidden**2).sum() + (output**2).sum())
        loss.backward()
        return loss

    optimizer.step(closure)
    value = float(closure().detach())
    return parameters[0].detach().numpy().copy(), parameters[1].detach().numpy().copy(), value
