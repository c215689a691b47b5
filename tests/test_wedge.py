"""Wedge products: exact for ℓ1 with axes, an upper bound for ℓ2, swept, sampled and sketched."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from landscape import Problem, arrangements, certify, data, solve, train
from landscape.architectures import TwoLayer, Wedge
from landscape.arrangements import wedges
from landscape.bounds import EXACT, RELAXED, AllPatterns, beta_max
from landscape.errors import BadInput, NotConverged
from landscape.solvers import reference

INSTANCES = range(8)
RNG = np.random.default_rng


def instance(seed: int, norm: int = 1) -> Problem:
    """Gaussian data at β ≤ 0.05 β_max, with a free bias and without."""
    rng = np.random.default_rng(2000 + seed)
    n, d = [(8, 2), (10, 2), (8, 3), (9, 2)][seed % 4]
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    problem = Problem(X, y, 1.0, architecture=Wedge(norm, ("free", "none")[seed // 4 % 2]))
    return problem.replace(beta=(0.02, 0.05)[seed % 2] * beta_max(problem))


def weights(rng: np.random.Generator, problem: Problem) -> np.ndarray:
    """Return a random dual point that sees no constant, exactly."""
    nu = np.round(rng.standard_normal(len(problem.y)) * 2.0**30) / 2.0**30
    if problem.architecture.has_constant:
        nu[0] -= math.fsum(nu)
    return nu


@pytest.fixture(scope="module")
def solutions():
    problems = [instance(seed) for seed in INSTANCES]
    return [(problem, solve(problem, tolerance=1e-8)) for problem in problems]


def test_the_instances_say_something(solutions):
    one_sign = 0
    for _, solution in solutions:
        z = solution.point.theta[:, 0]
        assert (z != 0).sum() >= 3
        assert solution.certificate.scope == EXACT
        one_sign += len(np.unique(np.sign(z[z != 0]))) == 1
    assert one_sign <= 1  # a concave function


def test_l1_is_the_program_over_the_listed_dictionary(solutions):
    for problem, solution in solutions:
        every = problem.architecture.program(problem, problem.architecture.features(problem))
        for value in (reference.solve_primal(every).value, reference.solve_dual(every)[0]):
            assert value == pytest.approx(solution.objective, rel=1e-8)
        assert float(problem.objective(solution.network())) == solution.objective


def test_without_axes_l1_is_an_upper_bound_only(solutions):
    """C20: the bound stays that of the continuous problem, and nothing is called optimal."""
    excess = []
    for problem, solution in solutions:
        samples = problem.replace(architecture=Wedge(1, problem.architecture.bias, axes=False))
        found = solve(samples, tolerance=1e-8, throw=False)
        assert found.certificate.dual <= solution.objective
        excess.append(found.objective / solution.objective - 1)
        if excess[-1] > 1e-6:
            assert found.certificate.relative_gap >= excess[-1] / 2
            with pytest.raises(NotConverged):
                solve(samples, tolerance=1e-8)
    assert min(excess) >= -1e-8
    assert max(excess) >= 0.05
    assert sum(e > 1e-4 for e in excess) >= 4


def test_l2_stands_above_two_layer_networks_and_its_bound_below(solutions):
    gaps = []
    for problem, _ in solutions[::4]:
        bias = problem.architecture.bias
        wedge = problem.replace(architecture=Wedge(2, bias))
        found = solve(wedge, throw=False)
        exact = solve(problem.replace(architecture=TwoLayer(bias=bias)), tolerance=1e-6)
        assert found.certificate.dual <= exact.objective
        gaps.append(found.objective / exact.objective - 1)
    assert min(gaps) >= -1e-6
    assert max(gaps) >= 0.002


def test_trained_networks_come_near_and_never_pass(solutions):
    for problem, solution in solutions[:8:4]:
        runs = train(problem, 16, range(3), "adam", 1500, learning_rate=0.02)
        assert runs.objectives.min() >= solution.certificate.dual * (1 - 1e-12)
        assert runs.objectives.min() <= solution.objective * 1.05


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("bias", ["free", "none"])
def test_sweeps_are_the_prices_of_the_list(norm, bias):
    """Degenerate data too: grids, near copies, columns of other scales, few samples."""
    rng = np.random.default_rng(norm)
    for trial in range(60):
        n, d = rng.integers(2, 9), rng.integers(1, 5)
        X = rng.standard_normal((n, d))
        if trial % 5 == 0:
            X = np.round(2 * X)
        if trial % 7 == 0:
            X[1] = X[0] + 1e-9 * rng.standard_normal(d)
        if trial % 11 == 0:
            X = X * 10.0 ** rng.integers(-3, 4, d)
        if (np.ptp(X, axis=0) == 0).any():
            continue
        problem = Problem(X, np.ones(n), 1.0, architecture=Wedge(norm, bias))
        architecture = problem.architecture
        listed = architecture.program(problem, architecture.features(problem)).atoms.values
        oracle = architecture.oracle(problem, 0)
        assert oracle is not None
        for _ in range(3):
            nu = weights(rng, problem)
            found, best = oracle(nu), float(np.abs(nu @ listed).max(initial=0.0))
            units = architecture.program(problem, found.units).atoms.values
            slack = (1e-7 if trial % 7 == 0 else 3e-9) * float(
                np.abs(nu) @ architecture.reach(problem)
            )
            assert float(np.abs(nu @ units).max(initial=0.0)) == pytest.approx(best, abs=slack)
            assert best <= found.bound
            assert norm == 2 or found.bound <= best + slack


@pytest.mark.parametrize("bias", ["free", "none"])
def test_no_neuron_prices_above_the_bound_but_some_above_samples_alone(bias):
    """Thousands of dual points: axes are needed, and complete the dictionary."""
    rng = np.random.default_rng(4)
    missed = 0
    for d in (2, 3):
        problem = Problem(rng.standard_normal((7, d)), np.ones(7), 1.0, architecture=Wedge(1, bias))
        architecture = problem.architecture
        w = rng.standard_normal((3000, d)) * (rng.random((3000, d)) < 0.7)
        w[~w.any(axis=1), 0] = 1.0
        shift = -np.einsum("ij,ij->i", w, problem.X[rng.integers(0, 7, 3000)])
        hidden = np.column_stack([w, shift]) if bias == "free" else w
        size = np.abs(w).sum(axis=1)
        random = architecture.program(problem, {"hidden": hidden / size[:, None]}).atoms.values
        samples = Wedge(1, bias, axes=False)
        partial = samples.program(problem, samples.features(problem)).atoms.values
        oracle = architecture.oracle(problem, 0)
        assert oracle is not None
        for _ in range(400):
            nu = weights(rng, problem)
            top = np.abs(nu @ random).max()
            assert top <= oracle(nu).bound
            missed += top > np.abs(nu @ partial).max() * (1 + 1e-9)
    assert missed >= 20


def test_bounds_of_l2_hold_over_all_neurons():
    rng = np.random.default_rng(5)
    for bias in ("free", "none"):
        problem = Problem(rng.standard_normal((7, 2)), np.ones(7), 1.0, architecture=Wedge(2, bias))
        every, rough = AllPatterns(problem, 20_000), problem.architecture.oracle(problem, 0)
        assert rough is not None
        w = rng.standard_normal((4000, 2))
        shift = -np.einsum("ij,ij->i", w, problem.X[rng.integers(0, 7, 4000)])
        hidden = np.column_stack([w, shift]) if bias == "free" else w
        hidden /= np.linalg.norm(w, axis=1)[:, None]
        random = problem.architecture.program(problem, {"hidden": hidden}).atoms.values
        for _ in range(10):
            nu = weights(rng, problem)
            bound, top = every(nu), np.abs(nu @ random).max()
            assert top <= bound.ratio <= rough(nu).bound * (1 + 1e-12)
            assert bound.scope == RELAXED  # of all neurons; the dictionary lacks some
            assert bound.ratio <= top * 1.02


def test_one_input_is_exact_in_both_norms():
    rng = np.random.default_rng(6)
    for bias in ("free", "none"):
        X, y = rng.standard_normal((9, 1)), rng.standard_normal(9)
        for norm in (1, 2):
            problem = Problem(X, y, 0.05, architecture=Wedge(norm, bias))
            other = problem.replace(architecture=TwoLayer(bias=bias))
            assert solve(problem).objective == pytest.approx(solve(other).objective, rel=1e-6)


def test_features_are_volumes_over_bases():
    rng = np.random.default_rng(7)
    X = rng.standard_normal((6, 3))
    problem = Problem(X, np.ones(6), 1.0, architecture=Wedge(2, axes=False))
    turned = problem.architecture.features(problem)["hidden"]
    for hidden in turned[:10]:
        heights = X @ hidden[:3] + hidden[3]
        on = np.abs(heights) < 1e-9
        assert on.sum() == 3
        base = np.linalg.norm(np.cross(X[on][1] - X[on][0], X[on][2] - X[on][0]))
        for k in np.flatnonzero(~on):
            volume = np.linalg.det(np.vstack([X[on] - X[k]]))
            assert abs(heights[k]) == pytest.approx(abs(volume) / base)


def test_lifting_never_raises_the_objective_and_turning_l2_changes_nothing():
    for seed in range(4):
        for norm in (1, 2):
            problem = instance(seed, norm)
            architecture = problem.architecture
            one = {k: v[0] for k, v in architecture.initial(problem, 5, [seed]).items()}
            if norm == 1:
                one["hidden"][0, :-1] = 0.0  # a constant behind a bias, or nearly nothing
            before, point = float(problem.objective(one)), architecture.lift(problem, one)
            lowered = architecture.lower(point)
            X = torch.as_tensor(problem.X)
            fit = architecture.forward(one, X)
            torch.testing.assert_close(architecture.forward(lowered, X), fit)
            assert float(problem.objective(lowered)) == pytest.approx(point.value, rel=1e-12)
            assert point.value <= before * (1 + 1e-12)
    problem = instance(1, 2)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((2, 2)))[0]
    there = solve(problem.replace(X=problem.X @ turn), throw=False)
    assert there.objective == pytest.approx(solve(problem, throw=False).objective, rel=1e-7)


def test_random_dual_points_bound_the_optimum_from_below(solutions):
    rng = np.random.default_rng(9)
    for problem, solution in solutions[:6]:
        for spread in (0.0, 0.1, 3.0):
            nu = solution.dual + spread * rng.standard_normal(len(problem.y))
            assert certify(problem, solution.network(), dual=nu).dual <= solution.objective


def test_spirals_are_separated_and_certified():
    sample = data.load("spirals", n=60)
    problem = Problem(sample.X, sample.y, 1e-3, architecture=Wedge(1))
    solution = solve(problem)
    assert (np.sign(solution.network()(sample.X).detach().numpy()) == sample.y).all()
    assert solution.certificate.scope == EXACT


def test_sampled_and_sketched_features():
    rng = np.random.default_rng(10)
    X, y = rng.standard_normal((30, 8)), rng.standard_normal(30)
    problem = Problem(X, y, 0.5, architecture=Wedge(2))
    for sketch, samples in ((None, 8), (3, 3)):
        units = problem.architecture.features(problem, count=50, seed=1, sketch=sketch)
        again = problem.architecture.features(problem, count=50, seed=1, sketch=sketch)
        np.testing.assert_array_equal(units["hidden"], again["hidden"])
        w, b = units["hidden"][:, :-1], units["hidden"][:, -1]
        assert len(w) == 100
        assert ((np.abs(w @ X.T + b[:, None]) < 1e-9).sum(axis=1) == samples).all()
        assert np.linalg.matrix_rank(w) == (sketch or 8)
        solution = solve(problem, patterns=units)
        assert solution.certificate.scope == "given patterns"
    with pytest.raises(arrangements.TooManyPatterns, match="count="):
        problem.architecture.features(problem)
    with pytest.raises(arrangements.TooManyPatterns, match="hyperplanes through its samples"):
        solve(problem)


def test_sketched_gates_are_patterns_of_two_layer_networks():
    rng = np.random.default_rng(11)
    X = rng.standard_normal((25, 6))
    for sketch in (None, 3):
        found = wedges.sample(X, 80, seed=2, sketch=sketch)
        np.testing.assert_array_equal(found.gates @ X.T >= 0, found.patterns)
        assert np.linalg.matrix_rank(found.gates) == (sketch or 6)
        keys = {row.tobytes() for row in np.asarray(found)}
        assert all((~row).tobytes() in keys for row in np.asarray(found))
    problem = Problem(X, rng.standard_normal(25), 0.5)
    wider = found.union(wedges.sample(X, 80, seed=3))
    assert solve(problem, wider).objective <= solve(problem, found).objective * (1 + 1e-7)
    S = wedges.sketching(200, 50, 0)
    assert ((S != 0).sum(axis=1) == 4).all()
    x = rng.standard_normal((200, 200))
    ratios = np.linalg.norm(x @ S, axis=1) / np.linalg.norm(x, axis=1)
    assert abs(ratios.mean() - 1) < 0.05
    assert ((wedges.sketching(20, 5, 0, sparsity=1) != 0).sum(axis=1) == 1).all()


def test_refusals():
    with pytest.raises(BadInput, match="norm is 3"):
        Wedge(3)
    with pytest.raises(BadInput, match="bias"):
        Wedge(1, "penalised")
    with pytest.raises(BadInput, match="axes=True"):
        Problem(RNG(0).standard_normal((2, 3)), np.ones(2), 1.0, architecture=Wedge(axes=False))
    with pytest.raises(BadInput, match="constant column"):
        Problem(np.ones((3, 1)), np.ones(3), 1.0, architecture=Wedge())
