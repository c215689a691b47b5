"""Degenerate data: each case is certified to 1e-6 over all patterns, or says what happened.

The table holds every case and its outcome; what the reference solver can solve must be certified.
"""

from __future__ import annotations

import numpy as np
import pytest
from cases import planted
from degenerate import cases

from landscape import arrangements, solve
from landscape.architectures import TwoLayer
from landscape.bounds import EXACT, SEARCH
from landscape.problem import Problem

CASES = cases()
CERTIFIED = "certified"
OUTCOMES = dict.fromkeys(CASES, CERTIFIED) | {
    # Optima near zero, with probabilities within 1e-28 of certain; the reference gets no further.
    "logistic, beta 1e-6 beta_max": "above the tolerance",
    "logistic, free bias, beta 1e-8 beta_max": "above the tolerance",
}
# β is below what joining the rows may cost a price: a search, with a relaxed bound beside it.
SCOPES = dict.fromkeys(CASES, EXACT) | {"nearly duplicate rows, beta 1e-8 beta_max": SEARCH}


@pytest.mark.parametrize("name", CASES)
def test_degenerate_problems_are_certified_or_say_why_not(name):
    solution = solve(CASES[name], tolerance=1e-6, throw=False)
    certificate = solution.certificate
    assert certificate.scope == SCOPES[name]
    assert certificate.dual <= certificate.primal
    assert certificate.violation <= 1e-12
    if OUTCOMES[name] == CERTIFIED:
        assert certificate.relative_gap <= 1e-6
    else:
        assert OUTCOMES[name] in solution.status


@pytest.mark.parametrize("name", [name for name in CASES if OUTCOMES[name] != CERTIFIED])
def test_what_is_not_certified_is_beyond_the_reference_too(name):
    problem = CASES[name]
    every = arrangements.enumerate(problem.design)
    slow = solve(problem, every, method="reference", throw=False)
    fast = solve(problem, tolerance=1e-6, throw=False)
    assert slow.certificate.relative_gap > 1e-6
    assert fast.objective <= slow.objective
    assert fast.certificate.dual >= slow.certificate.dual


@pytest.mark.parametrize(
    "name",
    ["duplicate rows, other targets", "antipodal rows", "lattice", "huber, all residuals large"],
)
def test_degenerate_optima_are_the_references(name):
    problem = CASES[name]
    slow = solve(problem, arrangements.enumerate(problem.design), method="reference")
    assert solve(problem).objective == pytest.approx(slow.objective, rel=1e-7)


@pytest.mark.parametrize(("of_data", "of_targets"), [(1e6, 1.0), (1.0, 1e6), (1e-6, 1e5)])
def test_scaling_data_and_targets_scales_the_optimum(of_data, of_targets):
    """(tX, sy, tsβ) has s² times the optimum of (X, y, β)."""
    plain = planted(20, 2)
    beta = of_data * of_targets * plain.beta
    again = solve(Problem(of_data * plain.X, of_targets * plain.y, beta))
    plain = solve(plain)
    assert again.objective / of_targets**2 == pytest.approx(plain.objective, rel=1e-8)
    assert again.certificate.dual / of_targets**2 == pytest.approx(plain.objective, rel=1e-8)


@pytest.mark.parametrize("options", [{"skip": "free"}, {"bias": "free"}, {"bias": "penalised"}])
def test_targets_of_zero_have_the_zero_network(options):
    X = np.random.default_rng(0).standard_normal((8, 2))
    solution = solve(Problem(X, np.zeros(8), 0.1, architecture=TwoLayer(**options)))
    assert solution.objective == solution.certificate.gap == 0.0 and solution.active == 0
