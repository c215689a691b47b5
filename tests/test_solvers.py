"""Solving: closed forms, strong duality, all patterns against brute force, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from cases import CASES, IDS, OUTPUT_CASES, UNIT_CASES, planted

from landscape import architectures, arrangements
from landscape.architectures import GatedReLU, TwoLayer
from landscape.bounds import EXACT, GIVEN
from landscape.errors import BadInput, NotConverged
from landscape.problem import Problem
from landscape.solvers import Solution, reference, solve

EVERY = [*CASES, *OUTPUT_CASES, *UNIT_CASES]


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_optimum_of_all_patterns_is_the_closed_form(case):
    solution = solve(case.problem, tolerance=1e-6)
    scale = max(case.optimum, 0.1)
    assert solution.certificate.scope == EXACT
    assert abs(solution.objective - case.optimum) <= 1e-7 * scale
    assert solution.certificate.dual <= case.optimum + 1e-12
    assert case.optimum - solution.certificate.dual <= 1e-6 * scale
    assert solution.certificate.violation <= 1e-6


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_primal_dual_and_network_agree_on_every_pattern(case):
    """Strong duality, with primal and dual solved apart from their own formulations."""
    every = arrangements.enumerate(case.problem.design)
    program = case.problem.architecture.program(case.problem, every)
    primal, (dual, nu) = reference.solve_primal(program), reference.solve_dual(program)
    scale = max(case.optimum, 0.1)
    assert abs(primal.value - dual) <= 1e-6 * scale
    assert abs(primal.value - case.optimum) <= 1e-6 * scale
    np.testing.assert_allclose(primal.nu, nu, atol=1e-4)
    solution = solve(case.problem, every, tolerance=1e-6)
    assert abs(float(case.problem.objective(solution.network())) - case.optimum) <= 1e-6 * scale


def test_every_architecture_has_a_case():
    kinds = {type(case.problem.architecture) for case in EVERY}
    assert kinds == set(architectures.NAMES.values())


@pytest.mark.parametrize(("n", "optimum"), [(50, 5.5696587), (100, 5.5043265)])
def test_planted_optima_over_all_patterns(n, optimum):
    solution = solve(planted(n, 3))
    assert abs(solution.objective - optimum) <= 1e-6 * optimum
    assert solution.certificate.relative_gap <= 1e-6
    assert solution.certificate.patterns == arrangements.count(n, 3)


@pytest.mark.parametrize("loss", ["logistic", "huber", "hinge"])
@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_every_loss_and_bias_closes_its_gap(loss, bias):
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((12, 2)), np.sign(rng.standard_normal(12))
    problem = Problem(X, y, 0.2, loss=loss, architecture=TwoLayer(bias=bias))
    solution = solve(problem, tolerance=1e-5)
    assert solution.certificate.scope == EXACT
    every = arrangements.enumerate(problem.design)
    dual, _ = reference.solve_dual(problem.architecture.program(problem, every))
    assert abs(solution.objective - dual) <= 1e-5 * dual


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_gated_program_is_below_the_relu_program(bias):
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((10, 2)), rng.standard_normal(10)
    relu = solve(Problem(X, y, 0.1, architecture=TwoLayer(bias=bias)))
    gated = solve(Problem(X, y, 0.1, architecture=GatedReLU(bias=bias)), tolerance=np.inf)
    assert gated.certificate.primal <= relu.objective + 1e-7


def test_given_patterns_have_the_scope_given_and_lose_to_all():
    problem = planted(30, 3)
    few = arrangements.sample(problem.design, 20, seed=1)
    restricted, whole = solve(problem, few), solve(problem)
    assert restricted.certificate.scope == GIVEN
    assert restricted.objective > whole.objective
    assert restricted.certificate.dual > whole.objective  # so no bound for the whole problem
    slow = solve(problem, few, method="reference")
    assert restricted.objective == pytest.approx(slow.history[0]["dual"], rel=1e-8)


def test_a_boolean_array_is_a_set_of_patterns():
    problem = planted(20, 2)
    every = arrangements.enumerate(problem.design)
    assert solve(problem, np.asarray(every)).objective == pytest.approx(
        solve(problem).objective, rel=1e-7
    )


def test_solution_survives_saving(tmp_path):
    problem = planted(20, 2)
    solution = solve(problem)
    again = Solution.load(solution.save(tmp_path / "solution"), problem)
    assert again.objective == pytest.approx(solution.objective, rel=1e-12)
    assert again.certificate.scope == EXACT
    assert again.certificate.dual == pytest.approx(solution.certificate.dual, rel=1e-9)
    with pytest.raises(BadInput, match="solved for"):
        Solution.load(tmp_path / "solution.npz", planted(21, 2))
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    with pytest.raises(BadInput, match="no saved solution"):
        Solution.load(tmp_path / "broken.npz", problem)


def test_an_unreachable_tolerance_is_not_silent():
    problem = planted(20, 2)
    with pytest.raises(NotConverged, match="gap"):
        solve(problem, tolerance=1e-15)
    assert "gap" in solve(problem, tolerance=1e-15, throw=False).status


def test_refusals_name_the_argument():
    problem = planted(10, 2)
    with pytest.raises(BadInput, match="patterns is 'some'"):
        solve(problem, "some")
    with pytest.raises(BadInput, match="over 7 samples"):
        solve(problem, np.ones((3, 7), dtype=bool))
    with pytest.raises(BadInput, match="boolean"):
        solve(problem, np.ones((3, 10)))
    with pytest.raises(BadInput, match="at least one"):
        solve(problem, np.ones((0, 10), dtype=bool))
    with pytest.raises(BadInput, match="patterns"):
        solve(planted(200, 6).replace(architecture=GatedReLU()))
    with pytest.raises(BadInput, match="method"):
        solve(problem, method="fastest")


def test_degenerate_duals_do_not_make_column_generation_cycle():
    """A hinge problem whose restricted dual is not unique: dropping at equal values cycled."""
    rng = np.random.default_rng(454)
    n, d = int(rng.integers(3, 9)), int(rng.integers(1, 3))
    X = rng.standard_normal((n, d)) * 10 ** rng.uniform(-1, 1) + rng.standard_normal(d) * 5
    y = np.sign(rng.standard_normal(n) * 10 ** rng.uniform(-1, 1))
    y[0], y[1] = 1, -1
    beta = 10 ** rng.uniform(-2, 0)
    problem = Problem(X, y, beta, loss="hinge", architecture=TwoLayer(bias="free"))
    solution = solve(problem, tolerance=1e-6)
    assert solution.objective == pytest.approx(3.94173348, rel=1e-8)
