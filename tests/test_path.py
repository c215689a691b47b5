"""Regularisation paths: every β as if solved alone, and what theory says of the path."""

from __future__ import annotations

import numpy as np
import pytest
from cases import planted

from landscape import arrangements, solve, solve_path
from landscape.bounds import EXACT, beta_max
from landscape.errors import BadInput


def test_path_over_all_patterns_is_solved_at_every_beta():
    problem = planted(30, 3)
    path = solve_path(problem, 8, tolerance=1e-8)
    betas = np.array([s.problem.beta for s in path])
    assert betas[0] == pytest.approx(beta_max(problem))
    assert betas[-1] == pytest.approx(1e-3 * beta_max(problem))
    assert path[0].active == 0
    for solution in path:
        assert solution.certificate.scope == EXACT
        assert solution.certificate.relative_gap <= 1e-8
        cold = solve(solution.problem, tolerance=1e-8)
        assert solution.objective == pytest.approx(cold.objective, rel=1e-7)


def test_derivative_of_the_value_is_the_penalty():
    """dp*/dβ = Σ‖·‖, and p* is concave (mathematics of the path)."""
    problem = planted(30, 3)
    beta = 0.3
    below, here, above = reversed(solve_path(problem, [beta * (1 - 1e-4), beta, beta * (1 + 1e-4)]))
    slope = (above.objective - below.objective) / (2e-4 * beta)
    norms = here.point.program.gauge.value(here.point.theta).sum()
    assert slope == pytest.approx(norms, rel=1e-5)
    values = [s.objective for s in solve_path(problem, np.linspace(0.2, 1.0, 9))][::-1]
    assert (np.diff(values, 2) <= 1e-8).all()


def test_path_over_given_patterns_is_warm_started():
    problem = planted(40, 4)
    patterns = arrangements.sample(problem.design, 40, seed=0)
    path = solve_path(problem, np.geomspace(0.5, 0.4, 5), patterns, tolerance=1e-9)
    assert sum("warm start" in s.status for s in path[1:]) >= 3
    for solution in path:
        cold = solve(solution.problem, patterns, tolerance=1e-9)
        assert solution.objective == pytest.approx(cold.objective, rel=1e-9)


def test_bad_betas_are_refused():
    problem = planted(10, 2)
    for betas, words in (
        ([], "positive"),
        ([0.1, -1.0], "positive"),
        ([0.1, 0.1], "distinct"),
        ("abc", "how many"),
        (None, "how many"),
    ):
        with pytest.raises(BadInput, match=words):
            solve_path(problem, betas)
    with pytest.raises(BadInput, match="at least one"):
        solve_path(problem, 0)
