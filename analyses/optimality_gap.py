"""Loss of trained networks, against time and width, beside the certified convex optimum.

A cell is one data set and one optimiser: networks of every width and seed are trained in one batch,
the convex program is solved, and every network is judged against the dual bound.  Where all
patterns can be enumerated the bound is global; otherwise each width's best network is judged
against the program on its own patterns, and the figure says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from analyses import sweep
from landscape import arrangements, certify, data, figures, solve, train
from landscape.architectures import get
from landscape.certificate import EXACT
from landscape.network import Network
from landscape.problem import Problem
from landscape.solvers import generation, reference
from landscape.training import batched

VERSIONS = {
    "optimality_gap": 1,
    "train": batched.VERSION,
    "reference": reference.VERSION,
    "generation": generation.VERSION,
}


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train, solve, certify one data set with one optimiser."""
    sample = data.load(cfg.data.name, **cfg.data.options)
    architecture = get(cfg.architecture.name, **cfg.architecture.options)
    beta = cfg.beta if cfg.beta is not None else cfg.data.beta
    problem = Problem(sample.X, sample.y, beta, loss=cfg.loss, architecture=architecture)
    seeds, widths = list(range(cfg.seeds)), list(cfg.widths)
    runs = train(
        problem,
        width=widths,
        seeds=seeds,
        optimizer=cfg.optimizer.name,
        steps=cfg.optimizer.steps,
        **cfg.optimizer.options,
    )
    objectives = runs.objectives.reshape(len(widths), len(seeds))
    rank = int(np.linalg.matrix_rank(problem.design))
    exact = arrangements.count(len(problem.y), rank) <= cfg.solver.enumerate
    best = [runs[w * len(seeds) + int(np.argmin(objectives[w]))] for w in range(len(widths))]
    if exact:
        solution = solve(problem, start=best[-1], tolerance=cfg.solver.tolerance)
        bounds = np.full(len(widths), solution.certificate.dual)
        optima = np.full(len(widths), solution.objective)
    else:
        solutions = [_own_program(problem, network, cfg.solver.tolerance) for network in best]
        solution = min(solutions, key=lambda one: one.objective)
        bounds = np.array([one.certificate.dual for one in solutions])
        optima = np.array([one.objective for one in solutions])
        objectives = objectives.min(axis=1, keepdims=True)
    certificate = solution.certificate
    arrays = {
        "widths": np.asarray(widths),
        "objectives": objectives,  # (widths, seeds), or (widths, 1): the best seed
        "bounds": bounds,
        "optima": optima,
        "trace": runs.trace.reshape(len(widths), len(seeds), -1),
        "seconds": runs.trace_seconds,
        "test_error": np.array([_test_error(sample, network) for network in best]),
    }
    gaps = (objectives - bounds[:, None]) / objectives
    row = {
        "data": sample.name,
        "n": problem.X.shape[0],
        "d": problem.X.shape[1],
        "beta": problem.beta,
        "loss": problem.loss.name,
        "architecture": architecture.label,
        "optimizer": cfg.optimizer.name,
        "seeds": len(seeds),
        "optimum": solution.objective,
        "dual": certificate.dual,
        "optimum_gap": certificate.relative_gap,
        "violation": certificate.violation,
        "scope": certificate.scope,
        "patterns": certificate.patterns,
        "neurons": solution.active,
        "best_trained": float(objectives.min()),
        "smallest_gap": float(gaps.min()),
        "median_gap_widest": float(np.median(gaps[-1])),
        "median_gap_narrowest": float(np.median(gaps[0])),
        "test_error_trained": float(arrays["test_error"][-1]),
        "test_error_optimum": _test_error(sample, solution.network()),
    }
    return row, arrays


def _own_program(problem: Problem, network: Network, tolerance: float) -> Any:
    """Solve the program over the patterns of one network, kinks included."""
    own = arrangements.of(network, problem.design)
    return solve(problem, own, tolerance=tolerance)


def _test_error(sample: Any, network: torch.nn.Module) -> float:
    """Return test error: misclassified share for labels ±1, else mean squared error."""
    if sample.X_test is None or not len(sample.X_test):
        return float("nan")
    with torch.no_grad():
        outputs = network(sample.X_test).numpy()
    if sample.task == "binary":
        return float(np.mean(np.sign(outputs) != sample.y_test))
    return float(np.mean((outputs - sample.y_test) ** 2))
