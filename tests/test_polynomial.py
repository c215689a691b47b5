"""Polynomial activation: semidefinite program, neural decomposition, generation and training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import UNIT_CASES

from landscape import Problem, certify, data, semidefinite, solve, train
from landscape.architectures import Polynomial, TwoLayer
from landscape.bounds import EXACT, beta_max
from landscape.errors import BadInput
from landscape.solvers import spectrahedra

INSTANCES = range(8)


def instance(seed: int) -> Problem:
    """Gaussian data at β ≤ 0.02 β_max; every second one has a constant input."""
    rng = np.random.default_rng(1000 + seed)
    n, d = [(8, 2), (10, 3), (12, 3), (9, 3)][seed % 4]
    X, y = rng.standard_normal((n, d)), 4 * rng.standard_normal(n)
    if seed % 2:
        X = np.hstack([X[:, :-1], np.ones((n, 1))])
    problem = Problem(X, y, 1.0, architecture=Polynomial())
    return problem.replace(beta=[0.01, 0.02, 0.005][seed % 3] * beta_max(problem))


def spheres(rng: np.random.Generator, count: int, d: int) -> np.ndarray:
    draws = rng.standard_normal((count, d))
    return draws / np.linalg.norm(draws, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def solutions():
    problems = [instance(seed) for seed in INSTANCES]
    return [(problem, solve(problem, tolerance=1e-9)) for problem in problems]


def test_the_instances_say_something(solutions):
    for _, solution in solutions:
        z = solution.point.theta[:, 0]
        assert (z != 0).sum() >= 3
        assert (z > 0).any()
        assert (z < 0).any()
        assert solution.certificate.scope == EXACT


OWN_CASES = [case for case in UNIT_CASES if case.problem.architecture.name == "polynomial"]


@pytest.mark.parametrize("case", OWN_CASES, ids=lambda case: case.name)
def test_closed_forms(case):
    assert spectrahedra.solve_dual(case.problem)[0] == pytest.approx(case.optimum, rel=1e-7)


def test_generation_semidefinite_program_dual_and_decomposition_agree(solutions):
    for problem, solution in solutions:
        found = spectrahedra.solve_primal(problem)
        value, nu = spectrahedra.solve_dual(problem)
        network = problem.architecture.network_of(found.positive, found.negative)
        for other in (found.value, value, float(problem.objective(network))):
            assert other == pytest.approx(solution.objective, rel=1e-8)
        np.testing.assert_allclose(nu, found.nu, atol=1e-4 * np.abs(nu).max())
        rank = np.linalg.matrix_rank(found.positive, tol=1e-6 * np.trace(found.positive))
        assert len(semidefinite.decomposed(found.positive, tolerance=1e-6)[1]) <= rank


def test_trained_networks_reach_the_optimum_and_never_pass_it(solutions):
    for problem, solution in solutions[:8:5]:
        runs = train(problem, 12, range(5), "lbfgs", 300)
        assert runs.objectives.min() >= solution.certificate.dual * (1 - 1e-12)
        assert runs.objectives.min() == pytest.approx(solution.objective, rel=2e-6)


def test_no_neuron_prices_above_the_bound_and_the_bound_is_attained():
    rng = np.random.default_rng(5)
    for trial in range(20):
        d = 1 + trial % 5
        X = rng.standard_normal((7, d)) * 10.0 ** rng.integers(-2, 3)
        a, b, c = rng.standard_normal(3) * rng.integers(0, 2, 3) + [0.1, 0.0, 0.0]
        problem = Problem(X, np.ones(7), 1.0, architecture=Polynomial(a, b, c))
        oracle = problem.architecture.oracle(problem, 0)
        U = spheres(rng, 200, d)
        columns = problem.architecture.program(problem, {"directions": U}).atoms.values
        for _ in range(30):
            nu = rng.standard_normal(7)
            priced = oracle(nu)
            assert np.abs(nu @ columns).max() <= priced.bound
            best = problem.architecture.program(problem, priced.units).atoms.values[:, 0]
            size = float(np.abs(nu) @ problem.architecture.reach(problem))
            assert priced.bound - abs(nu @ best) <= 1e-12 * size


def test_wrong_prices_would_be_seen():
    """Without its linear part, or with the wrong sign of it, the bound fails at once."""
    rng = np.random.default_rng(6)
    X = rng.standard_normal((7, 3))
    right = Problem(X, np.ones(7), 1.0, architecture=Polynomial())
    U = spheres(rng, 2000, 3)
    columns = right.architecture.program(right, {"directions": U}).atoms.values
    for wrong in (Polynomial(linear=0.0), Polynomial(constant=0.0), Polynomial(quadratic=0.0)):
        problem = right.replace(architecture=wrong)
        oracle = wrong.oracle(problem, 0)
        draws = rng.standard_normal((50, 7))
        assert any(np.abs(nu @ columns).max() > oracle(nu).bound for nu in draws)


def test_peaks_of_hard_and_easy_cases():
    rng = np.random.default_rng(7)
    for trial in range(600):
        d = 1 + trial % 7
        A = rng.standard_normal((d, d))
        A, h = A + A.T, rng.standard_normal(d) * 10.0 ** rng.integers(-12, 3)
        if trial % 3 == 0:  # nothing along the top, which may be double
            values, Q = np.linalg.eigh(A)
            along = Q.T @ h
            along[-1] = 0.0
            if trial % 2 and d > 1:
                values[-2], along[-2] = values[-1], 0.0
            A, h = (Q * values) @ Q.T, 0.1 * Q @ along
            A = (A + A.T) / 2
        found = semidefinite.peak(A, h)
        size = np.abs(A).sum() + np.linalg.norm(h)
        assert 0.0 <= found.bound - found.attained <= 1e-12 * size
        assert np.linalg.norm(found.where) == pytest.approx(1.0)


def test_decomposition_gives_back_the_matrix_with_few_neurons():
    rng = np.random.default_rng(8)
    for trial in range(200):
        d, m = 1 + trial % 8, 1 + trial % 13
        Z = semidefinite.lifted(spheres(rng, m, d), rng.exponential(size=m))
        directions, sizes = semidefinite.decomposed(Z)
        np.testing.assert_allclose(semidefinite.lifted(directions, sizes), Z, atol=1e-13 * 50)
        np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
        assert len(sizes) <= np.linalg.matrix_rank(Z)
        assert sizes.sum() == pytest.approx(Z[-1, -1])
    with pytest.raises(BadInput, match="tr Z_1"):
        semidefinite.decomposed(np.diag([2.0, 1.0]))
    with pytest.raises(BadInput, match="semidefinite"):
        semidefinite.decomposed(np.diag([2.0, -1.0, 1.0]))
    with pytest.raises(BadInput, match="symmetric"):
        semidefinite.decomposed(np.ones((2, 3)))


def test_lifting_keeps_fit_and_trace_and_never_raises_the_objective():
    problem = instance(2)
    architecture = problem.architecture
    for seed in range(20):
        batch = architecture.initial(problem, 6, [seed])
        parameters = {k: v[0] for k, v in batch.items()}
        before = float(problem.objective(parameters))
        point = architecture.lift(problem, parameters)
        assert point.value <= before * (1 + 1e-12)
        after = architecture.lower(point)
        assert float(problem.objective(after)) == pytest.approx(point.value, rel=1e-12)
        pair = architecture.matrices(parameters)
        for Z in pair:
            assert np.trace(Z[:-1, :-1]) == pytest.approx(Z[-1, -1])
            assert np.linalg.eigvalsh(Z)[0] >= -1e-12
        assert sum(Z[-1, -1] for Z in pair) == pytest.approx(np.abs(point.theta).sum())
        again = architecture.network_of(*pair)
        X = torch.as_tensor(problem.X)
        fit = architecture.forward(parameters, X)
        torch.testing.assert_close(architecture.forward(again, X), fit)
        assert float(problem.objective(again)) == pytest.approx(point.value, rel=1e-10)


def test_rescaled_and_rotated_networks_are_the_same():
    problem = instance(1)
    architecture = problem.architecture
    one = {k: v[0] for k, v in architecture.initial(problem, 4, [0]).items()}
    scaled = {"hidden": 2.0 * one["hidden"], "output": one["output"] / 4.0}
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[
        0
    ]
    turned = {**one, "hidden": one["hidden"] @ turn}
    X = torch.as_tensor(problem.X)
    fit = architecture.forward(one, X)
    torch.testing.assert_close(architecture.forward(scaled, X), fit)
    torch.testing.assert_close(architecture.forward(turned, X @ turn), fit)
    here = solve(problem)
    there = solve(problem.replace(X=problem.X @ turn.numpy()))
    assert there.objective == pytest.approx(here.objective, rel=1e-6)


def test_random_dual_points_bound_the_optimum_from_below(solutions):
    rng = np.random.default_rng(9)
    for problem, solution in solutions[:5]:
        points = [solution.dual + s * rng.standard_normal(len(problem.y)) for s in (0, 0.1, 3.0)]
        for nu in points:
            judged = certify(problem, solution.network(), dual=nu)
            assert judged.dual <= solution.objective


@pytest.mark.parametrize("loss", ["logistic", "huber"])
def test_other_losses(loss):
    problem = instance(3)
    y = np.sign(problem.y) if loss == "logistic" else problem.y
    problem = problem.replace(y=y, loss=loss)
    problem = problem.replace(beta=0.05 * beta_max(problem))
    solution = solve(problem)
    assert spectrahedra.solve_primal(problem).value == pytest.approx(solution.objective, rel=1e-6)
    assert spectrahedra.solve_dual(problem)[0] == pytest.approx(solution.objective, rel=1e-6)


def test_above_beta_max_the_network_is_zero():
    problem = instance(0)
    problem = problem.replace(beta=1.001 * beta_max(problem))
    assert solve(problem).active == 0


def test_real_data_are_solved_and_certified():
    sample = data.load("diabetes")
    problem = Problem(sample.X, sample.y, 5.0, architecture=Polynomial())
    solution = solve(problem)
    assert solution.certificate.scope == EXACT
    assert solution.certificate.relative_gap <= 1e-7


def test_refusals():
    with pytest.raises(BadInput, match="NP-hard"):
        Polynomial(decay="squared")
    with pytest.raises(BadInput, match="not all zero"):
        Polynomial(0.0, 0.0, 0.0)
    problem = instance(0)
    with pytest.raises(BadInput, match="polynomial"):
        spectrahedra.solve_primal(problem.replace(architecture=TwoLayer()))
    with pytest.raises(BadInput, match="one output"):
        problem.replace(y=np.ones((len(problem.y), 2)))
    assert replace(Polynomial(), linear=0.0).label.startswith("polynomial(")


def test_random_units_of_the_best_sizes_are_not_stationary():
    """Their sizes are right, which is not enough: the gradient of their directions is not zero."""
    problem = instance(0)
    network = {k: v[0] for k, v in problem.architecture.initial(problem, 4, [0]).items()}
    own = problem.architecture.own(problem, network)
    sized = solve(problem, own.units, throw=False)
    assert certify(problem, sized.network()).stationarity > 0.1
    assert certify(problem, solve(problem).network()).stationarity < 1e-6
