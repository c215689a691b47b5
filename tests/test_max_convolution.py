"""Convolutions with max pooling: selections of patches, their cones, exact and relaxed prices."""

from __future__ import annotations

from dataclasses import replace

import cvxpy
import numpy as np
import pytest
import torch

from landscape import Problem, solve, train
from landscape.architectures import Convolution, MaxConvolution, TwoLayer
from landscape.bounds import EXACT, RELAXED, SEARCH, AllPatterns, beta_max
from landscape.dense import DenseCones
from landscape.errors import BadInput
from landscape.pricing import prices
from landscape.pricing.largest import every_selection, selected
from landscape.solvers import Solution
from landscape.solvers.restricted import minimise
from landscape.theory import adversary


def instance(seed: int, architecture: MaxConvolution, n: int = 6, d: int = 4, share: float = 0.05):
    rng = np.random.default_rng(300 + seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    problem = Problem(X, y, 1.0, architecture=architecture)
    return problem.replace(beta=share * beta_max(problem))


@pytest.fixture(scope="module")
def solved():
    """One problem and its optimum."""
    problem = instance(1, MaxConvolution())
    return problem, solve(problem, tolerance=1e-8)


def by_hand(problem: Problem) -> float:
    """Every selection written out for cvxpy, found on a fine circle."""
    X, stride = problem.X, problem.architecture.stride
    parts = [X[:, k : k + 2] for k in range(0, X.shape[1] - 1, stride)]
    angles = np.linspace(0, 2 * np.pi, 40_001)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    values = np.stack([circle @ part.T for part in parts], axis=2)  # (grid, n, K)
    found = np.where(values.max(axis=2) > 0, values.argmax(axis=2), -1)
    fit, norms, inside = 0, 0, []
    for chosen in np.unique(found, axis=0):
        for sign in (1, -1):
            u = cvxpy.Variable(2)
            rows = np.zeros_like(parts[0])
            for i, k in enumerate(chosen):
                if k >= 0:
                    rows[i] = parts[k][i]
                    inside.append(rows[i] @ u >= 0)
                inside += [rows[i] @ u >= part[i] @ u for part in parts]
            fit = fit + sign * rows @ u
            norms = norms + cvxpy.norm(u)
    objective = cvxpy.Minimize(0.5 * cvxpy.sum_squares(fit - problem.y) + problem.beta * norms)
    return cvxpy.Problem(objective, inside).solve(solver="CLARABEL")


def test_the_optimum_is_that_of_all_selections_written_out(solved):
    problem, solution = solved
    assert solution.certificate.scope == EXACT
    assert solution.active >= 3
    assert solution.objective == pytest.approx(by_hand(problem), rel=1e-6)
    runs = train(problem, 8, range(3), "lbfgs", 100)
    assert runs.objectives.min() >= solution.certificate.dual * (1 - 1e-12)
    assert runs.objectives.min() <= solution.objective * 1.05


def test_outputs_are_those_of_torch():
    own = MaxConvolution(kernel=(2, 3), shape=(2, 4, 4), bias="penalised")
    X = np.random.default_rng(0).standard_normal((3, 32))
    problem = Problem(X, np.ones(3), 0.1, architecture=own)
    net = {k: v[0] for k, v in own.initial(problem, 4, [0]).items()}
    filters = net["hidden"][:, :-1].reshape(4, 2, 2, 3)
    images = torch.as_tensor(X).reshape(3, 2, 4, 4)
    maps = torch.relu(torch.nn.functional.conv2d(images, filters, net["hidden"][:, -1]))
    wanted = maps.amax((2, 3)) @ net["output"]
    torch.testing.assert_close(own.forward(net, torch.as_tensor(X)), wanted)
    point = own.lift(problem, net)
    np.testing.assert_allclose(point.program.fit(point.theta, point.constant), wanted, rtol=1e-10)
    assert point.program.violation(point.theta) <= 1e-12


def test_one_patch_is_sum_pooling():
    problem = instance(2, MaxConvolution(kernel=3), d=3)
    plain = problem.replace(architecture=Convolution(kernel=3))
    assert solve(problem).objective == pytest.approx(solve(plain).objective, rel=1e-6)


def test_no_filter_prices_above_the_list_and_the_list_is_attained():
    problem = instance(3, MaxConvolution())
    nu = np.random.default_rng(1).standard_normal(len(problem.y))
    bound = AllPatterns(problem, 100_000)(nu)
    assert bound.scope == EXACT
    angles = np.linspace(0, 2 * np.pi, 20_001)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    values = np.stack([circle @ problem.X[:, k : k + 2].T for k in range(3)], axis=2)
    best = np.abs(np.maximum(values.max(axis=2), 0) @ nu).max()
    assert best <= bound.ratio * problem.beta * (1 + 1e-12)
    assert best >= bound.ratio * problem.beta * (1 - 1e-6)
    assert adversary(problem, nu, 8) <= bound.ratio * problem.beta * (1 + 1e-12)


def test_larger_filters_are_searched_and_labelled_relaxed():
    problem = instance(4, MaxConvolution(kernel=4), n=8, d=6)
    found = solve(problem, tolerance=1e-5, throw=False)
    assert found.certificate.scope == SEARCH
    assert found.certificate.relaxed <= found.certificate.dual
    assert found.certificate.relative_gap <= 1e-5
    every = AllPatterns(problem, 1000)
    nu = np.random.default_rng(0).standard_normal(len(problem.y))
    bound = every(nu)
    assert bound.scope == RELAXED
    assert adversary(problem, nu, 8) <= bound.ratio * problem.beta
    runs = train(problem, 12, range(2), "adam", 100)
    assert runs.objectives.min() >= found.certificate.relaxed


def test_relaxed_bounds_hold_for_both_signs():
    rng = np.random.default_rng(8)
    problem = instance(0, MaxConvolution(kernel=5), n=12, d=9)
    oracle = problem.architecture.oracle(problem, 100)
    for nu in (np.abs(rng.standard_normal(12)), rng.standard_normal(12)):
        found, turned = oracle(nu), oracle(-nu)
        assert not found.exact
        assert found.bound == pytest.approx(turned.bound, rel=1e-12)
        u = rng.standard_normal((4000, 5))
        u /= np.linalg.norm(u, axis=1)[:, None]
        patches = np.stack([problem.X[:, k : k + 5] for k in range(5)], axis=1)
        outputs = np.maximum(np.einsum("nkp,mp->mnk", patches, u).max(axis=2), 0.0)
        assert np.abs(outputs @ nu).max() <= found.attained * (1 + 1e-6) <= found.bound * (1 + 1e-6)


@pytest.mark.parametrize("fault", ["cones", "missing"])
def test_planted_faults_show(fault, solved):
    """Without the cones of max pooling, or without a selection, another optimum comes out."""
    problem, solution = solved
    chosen = every_selection(problem.design.reshape(6, 3, 2), 10_000)
    both = {"selected": np.vstack([chosen] * 2), "signs": np.repeat([1.0, -1.0], len(chosen))}
    program = problem.architecture.program(problem, both)
    assert prices(program, solution.dual).max() == pytest.approx(problem.beta, rel=1e-6)
    if fault == "cones":
        wrong = replace(program, cones=DenseCones(0.0 * program.cones.matrices))
    else:
        kept = prices(program, solution.dual) < 0.999 * problem.beta
        wrong = program.take(np.flatnonzero(kept))
    assert minimise(wrong, 1e-8).value != pytest.approx(solution.objective, rel=1e-4)


def test_optimal_filters_are_stationary_and_turned_ones_of_the_same_price_are_not():
    for seed in range(3):
        problem = instance(seed, MaxConvolution())
        solution = solve(problem, tolerance=1e-10)
        assert solution.certificate.stationarity <= 1e-4
        assert solution.certificate.wrong_ties <= 1e-6
    rng = np.random.default_rng(0)
    problem = instance(0, MaxConvolution())
    for _ in range(20):
        u, nu = rng.standard_normal(2), rng.standard_normal(6)
        slope = slope_of(problem, u, nu)
        # ν is scaled until the filter has the price β: what it lacks is then all sideways.
        nu *= problem.beta * np.linalg.norm(u) / (slope @ u)
        network = {"hidden": torch.tensor(u)[None], "output": torch.tensor([1.0]).double()}
        network["output"] *= float(np.linalg.norm(u))
        clarke, _, _ = problem.architecture.stationarity(problem, network, nu)
        wanted = slope_of(problem, u, nu) / problem.beta - u / np.linalg.norm(u)
        assert clarke[0] == pytest.approx(np.linalg.norm(wanted), rel=1e-6)
        assert clarke[0] > 1e-3


def slope_of(problem: Problem, u: np.ndarray, nu: np.ndarray) -> np.ndarray:
    """The gradient of Σ ν_i max_k(x_kᵀu)_+ by torch."""
    hidden = torch.tensor(u)[None].requires_grad_(True)
    network = {"hidden": hidden, "output": torch.ones(1, dtype=torch.float64)}
    outputs = problem.architecture.forward(network, torch.as_tensor(problem.X))
    return torch.autograd.grad(outputs @ torch.as_tensor(nu), hidden)[0][0].numpy()


@pytest.mark.parametrize(
    ("nu", "lacking", "wrong"),
    [
        (
            1.0,
            1 - 0.5**0.5,
            1.0,
        ),  # (1, 0), (0, 1) tie at u ∝ (1, 1): their middle is that much short
        (2**0.5, 0.0, 1.0),  # stationary, and growing either entry alone descends
        (-(2**0.5), 2.0, 0.0),
    ],
)
def test_ties_take_the_best_share(nu, lacking, wrong):
    problem = Problem([[1.0, 0.0, 1.0]], [1.0], 1.0, architecture=MaxConvolution())
    u = torch.full((1, 2), 0.5, dtype=torch.float64)
    network = {"hidden": u, "output": u.norm()[None]}
    found = problem.architecture.stationarity(problem, network, np.array([nu]))
    np.testing.assert_allclose(
        [found[0][0], found[1][0], found[2][0]], [lacking, wrong, 0.0], atol=1e-7
    )


def test_solutions_are_stored_and_bad_choices_refused(tmp_path, solved):
    problem, solution = solved
    found = Solution.load(solution.save(tmp_path / "one"), problem)
    assert found.objective == pytest.approx(solution.objective, rel=1e-12)
    assert found.certificate.scope == EXACT
    rows = problem.design.reshape(6, 3, 2)
    assert selected(rows, np.zeros((1, 2))).max() == -1
    for options, words in (({"bias": "free"}, "bias"), ({"kernel": 0}, "kernel")):
        with pytest.raises(BadInput, match=words):
            MaxConvolution(**options)
    with pytest.raises(BadInput, match="one output"):
        problem.replace(y=np.ones((6, 2)))
    with pytest.raises(BadInput, match="select patches"):
        problem.architecture.gates({})


def judged(X, nu, u, beta=1.0, architecture=None):
    """Clarke residual and wrong tie of one filter with output weight one."""
    problem = Problem(X, np.ones(len(X)), beta, architecture=architecture or MaxConvolution())
    u = np.asarray(u, dtype=np.float64)
    network = {"hidden": torch.tensor(u)[None], "output": torch.ones(1, dtype=torch.float64)}
    clarke, wrong, _ = problem.architecture.stationarity(problem, network, np.asarray(nu))
    return clarke[0], wrong[0]


def gradient(X, nu, u, step=1e-6):
    """Central differences of Σ ν_i max_k (x_kᵀu)_+ − ‖u‖ at u of length one."""

    def gain(w):
        patches = np.lib.stride_tricks.sliding_window_view(np.asarray(X), len(w), axis=1)
        return np.asarray(nu) @ np.maximum((patches @ w).max(1), 0.0) - np.linalg.norm(w)

    return np.array(
        [(gain(u + step * e) - gain(u - step * e)) / (2 * step) for e in np.eye(len(u))]
    )


@pytest.mark.parametrize(
    ("second", "pull"),
    [
        ([0.0, 1.0, 0.0, 1.0], -1.0),  # the same patches in another order
        ([0.0, 3.0, 0.0, 3.0], -1.0 / 3.0),  # three times the patches
        ([2.0, 1.0, 2.0], -1.0),  # patches (2, 1), (1, 2): shifted by (1, 1)
    ],
)
def test_samples_that_bend_as_one_cancel_where_their_pulls_do(second, pull):
    """The sum is smooth there, whatever either sample does alone; its slope is the residual."""
    u, size = np.ones(2) / 2**0.5, max(4, len(second))
    X = np.zeros((3, size))
    X[0, :4], X[1, : len(second)] = [1.0, 0.0, 1.0, 0.0], second
    X[0, 4:], X[1, len(second) :], X[2, :2] = -1.0, -9.0, [2.0, 1.0]
    nu = np.array([1.0, pull, 2**0.5 / 3.0])
    lacking, wrong = judged(X, nu, u)
    assert lacking == pytest.approx(np.linalg.norm(gradient(X, nu, u)), abs=1e-7)
    assert lacking > 0.1 and wrong == 0.0
    nu[1] *= 0.5  # half of the bend is left
    lacking, wrong = judged(X, nu, u)
    assert wrong > 0.1


def test_one_place_is_a_neuron_whose_collinear_rows_are_one():
    X = np.array([[1.0, -1.0], [2.0, -2.0], [0.5, 0.3]])
    nu, u = np.array([2.0, -1.0, 1.0]), np.ones(2) / 2**0.5
    here = judged(X, nu, u)
    assert here == pytest.approx(judged(X, nu, u, architecture=TwoLayer()), abs=1e-9)
    assert here[1] == 0.0 and here[0] > 0.4


def test_opposite_patches_bend_apart():
    """max(s, 0) and max(−s, 0) differ by s: they bend as one, and their difference is linear."""
    X = np.array([[1.0, -1.0], [-1.0, 1.0], [0.5, 0.3]])
    u = np.ones(2) / 2**0.5
    smooth = judged(X, [1.0, -1.0, 1.0], u)
    assert smooth[0] == pytest.approx(np.linalg.norm(gradient(X, [1, -1, 1], u)), abs=1e-7)
    assert smooth[1] == 0.0 and judged(X, [1.0, 1.0, 1.0], u)[1] > 0.0


def test_patches_that_differ_by_rounding_are_one():
    """A tie between a patch and its repeat, one rounding apart, is no kink."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        X = rng.standard_normal((6, 2))
        noisy = np.c_[X, X * (1 + 2e-16 * rng.integers(-1, 2, X.shape))]
        u, nu = rng.standard_normal(2), rng.standard_normal(6)
        u /= np.linalg.norm(u)
        architecture = MaxConvolution(kernel=2, stride=2)
        found = judged(noisy, nu, u, architecture=architecture)
        assert found == pytest.approx(judged(np.c_[X, X], nu, u, architecture=architecture))
        assert found[1] == 0.0
    shifted = np.array([[0.3, 0.0, 0.3, 1.0], [0.1 + 0.2, 0.0, 0.3, 1.0]])
    architecture = MaxConvolution(kernel=2, stride=2)
    assert judged(shifted, [1.0, -1.0], [1.0, 0.0], architecture=architecture)[1] == 0.0


def test_a_patch_between_two_others_does_not_matter():
    """max(0, s, 2s) is max(0, 2s), which the pull of another sample cancels."""
    X = np.array([[1.0, -1.0, 2.0, -2.0], [2.0, -2.0, 2.0, -2.0], [0.5, 0.3, 0.0, 0.0]])
    architecture = MaxConvolution(kernel=2, stride=2)
    u, nu = np.ones(2) / 2**0.5, np.array([1.0, -1.0, 1.0])
    lacking, wrong = judged(X, nu, u, architecture=architecture)
    assert wrong == 0.0
    assert lacking == pytest.approx(np.linalg.norm(np.array([0.5, 0.3]) - u), abs=1e-9)
