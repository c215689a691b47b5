"""Optimal sets of tests: how they are found, and their vertices by brute force over supports."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linprog

from landscape import solve
from landscape.optimal_set import OptimalSet


def optima_of(problem, **options):
    return OptimalSet(solve(problem, tolerance=1e-8), **options)


def supports_by_linear_programs(optima):
    """Supports of vertices: independent columns that carry the fit with positive coefficients."""
    A, b, found = optima.polytope.columns, optima.polytope.target, set()
    for size in range(np.linalg.matrix_rank(A, 1e-9) + 1):
        for chosen in itertools.combinations(range(A.shape[1]), size):
            part = A[:, list(chosen)]
            if size and np.linalg.matrix_rank(part, 1e-9) < size:
                continue
            solved = linprog(np.zeros(size), A_eq=part, b_eq=b) if size else None
            if size == 0 and not b.any():
                found.add(chosen)
            if solved is not None and solved.status == 0 and (solved.x > 1e-7).all():
                found.add(chosen)
    return found


def supports(optima):
    return {tuple(np.flatnonzero(c).tolist()) for c in optima.vertices}
