"""Convolutions with pooling: patches, programs over patterns of all patches, prices, maps."""

from __future__ import annotations

from dataclasses import replace

import cvxpy
import numpy as np
import pytest
import torch

from landscape import Problem, arrangements, certify, solve, train
from landscape.architectures import Convolution, GatedConvolution, TwoLayer
from landscape.bounds import EXACT, GIVEN, beta_max
from landscape.errors import BadInput
from landscape.pricing import prices
from landscape.solvers import Solution
from landscape.solvers.restricted import minimise
from landscape.theory import adversary


def instance(seed: int, architecture: Convolution, n: int = 6, d: int = 4, share: float = 0.05):
    rng = np.random.default_rng(100 + seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    problem = Problem(X, y, 1.0, architecture=architecture)
    return problem.replace(beta=share * beta_max(problem))


@pytest.fixture(scope="module")
def solved():
    """One problem with sum pooling and its optimum."""
    problem = instance(1, Convolution())
    return problem, solve(problem, tolerance=1e-8)


def patches_by_hand(X: np.ndarray, kernel: int, stride: int) -> list[np.ndarray]:
    return [X[:, k : k + kernel] for k in range(0, X.shape[1] - kernel + 1, stride)]


def by_hand(problem: Problem) -> float:
    """Write every pattern of all patches out for cvxpy, apart from everything in the package."""
    own = problem.architecture
    parts = patches_by_hand(problem.X, own.kernel, own.stride)
    scale = 1 / len(parts) if own.pooling == "average" else 1.0
    angles = np.linspace(0, 2 * np.pi, 40_001)  # so fine that no cell of the plane is missed
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    on = np.stack([circle @ part.T > 0 for part in parts], axis=2)  # (grid, n, K)
    patterns = np.unique(on.reshape(len(on), -1), axis=0).reshape(-1, *on.shape[1:])
    fit, norms, constraints = 0, 0, []
    for pattern in patterns:
        for sign in (1, -1):
            u = cvxpy.Variable(own.kernel)
            for k, part in enumerate(parts):
                open_ = pattern[:, k].astype(float)
                fit = fit + sign * scale * (open_[:, None] * part) @ u
                constraints.append(((2 * open_ - 1)[:, None] * part) @ u >= 0)
            norms = norms + cvxpy.norm(u)
    objective = 0.5 * cvxpy.sum_squares(fit - problem.y) + problem.beta * norms
    cvxpy_problem = cvxpy.Problem(cvxpy.Minimize(objective), constraints)
    return cvxpy_problem.solve(solver="CLARABEL")


def test_the_optimum_is_that_of_all_patterns_written_out(solved):
    problem, solution = solved
    assert solution.certificate.scope == EXACT
    assert solution.active >= 3
    assert solution.objective == pytest.approx(by_hand(problem), rel=1e-6)
    every = arrangements.enumerate(problem.design)
    listed = solve(problem, every, tolerance=1e-7)
    assert listed.objective == pytest.approx(solution.objective, rel=1e-6)
    assert listed.certificate.scope == GIVEN
    assert solution.network()(problem.X).shape == problem.y.shape


def test_averages_over_patches_apart_from_each_other():
    problem = instance(1, Convolution(stride=2, pooling="average"))
    assert solve(problem).objective == pytest.approx(by_hand(problem), rel=1e-6)


def test_outputs_are_those_of_torch():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((3, 2 * 5 * 4)), np.ones(3)
    own = Convolution(kernel=(3, 2), stride=2, shape=(2, 5, 4), bias="penalised")
    problem = Problem(X, y, 0.1, architecture=own)
    net = {k: v[0] for k, v in own.initial(problem, 4, [0]).items()}
    filters = net["hidden"][:, :-1].reshape(4, 2, 3, 2)
    images = torch.as_tensor(X).reshape(3, 2, 5, 4)
    maps = torch.relu(torch.nn.functional.conv2d(images, filters, net["hidden"][:, -1], stride=2))
    wanted = maps.sum((2, 3)) @ net["output"]
    torch.testing.assert_close(own.forward(net, torch.as_tensor(X)), wanted)
    mean = replace(own, pooling="average").forward(net, torch.as_tensor(X))
    torch.testing.assert_close(mean * maps[0, 0].numel(), wanted)
    sizes = net["hidden"].norm(dim=1)[:, None, None]
    torch.testing.assert_close(own.maps(net, torch.as_tensor(X)) * sizes, maps)
    assert own.patches(40).count == maps[0, 0].numel()


def test_an_average_is_a_sum_at_another_weight(solved):
    """Three patches: f/3 with β/3 is the same problem as f with β."""
    whole, solution = solved
    mean = whole.replace(architecture=Convolution(pooling="average"), beta=whole.beta / 3)
    assert solve(mean).objective == pytest.approx(solution.objective, rel=1e-6)
    assert beta_max(mean) == pytest.approx(beta_max(whole) / 3, rel=1e-9)


def test_one_patch_is_a_two_layer_network():
    problem = instance(3, Convolution(kernel=3), d=3, n=7)
    plain = problem.replace(architecture=TwoLayer())
    assert solve(problem).objective == pytest.approx(solve(plain).objective, rel=1e-6)


@pytest.mark.parametrize(
    "architecture",
    [
        Convolution(bias="penalised", kernel=1, stride=2),
        Convolution(activation="abs"),
        Convolution(activation="leaky_relu", slope=0.2),
    ],
    ids=["bias", "abs", "leaky"],
)
def test_biases_and_other_activations(architecture):
    problem = instance(4, architecture, n=5)
    solution = solve(problem)
    assert solution.certificate.scope == EXACT
    assert solution.certificate.relative_gap <= 1e-7
    nu = np.random.default_rng(1).standard_normal(len(problem.y))
    at = problem.replace(y=nu)
    found, bound = adversary(problem, nu, 24), beta_max(at)
    assert 0.999 * bound <= found <= bound * (1 + 1e-9)


def test_trained_networks_stay_above_and_come_close(solved):
    problem, solution = solved
    runs = train(problem, 10, range(4), "lbfgs", 100)
    assert runs.objectives.min() >= solution.certificate.dual * (1 - 1e-12)
    assert runs.objectives.min() <= solution.objective * 1.05
    judged = certify(problem, runs.networks[0])
    assert judged.dual <= solution.objective * (1 + 1e-9)


@pytest.mark.parametrize("fault", ["scale", "sign", "missing"])
def test_planted_faults_show(fault, solved):
    """A wrong factor of the pooling, a wrong sign, a missing pattern: each changes the optimum."""
    problem, solution = solved
    program = problem.architecture.program(problem, arrangements.enumerate(problem.design))
    atoms = program.atoms
    if fault == "scale":
        wrong = replace(program, atoms=replace(atoms, scale=0.9))
    elif fault == "sign":
        wrong = replace(program, atoms=replace(atoms, signs=np.abs(atoms.signs)))
    else:  # the patterns that the optimum could use
        wrong = program.take(np.flatnonzero(prices(program, solution.dual) < 0.999 * problem.beta))
    assert prices(program, solution.dual).max() == pytest.approx(problem.beta, rel=1e-6)
    assert minimise(wrong, 1e-8).value != pytest.approx(solution.objective, rel=1e-4)


def test_solutions_are_stored(tmp_path):
    problem = instance(7, Convolution(shape=(2, 2), kernel=(2, 1)), d=4)
    solution = solve(problem)
    found = Solution.load(solution.save(tmp_path / "one"), problem)
    assert found.objective == pytest.approx(solution.objective, rel=1e-12)
    assert found.certificate.scope == EXACT


def test_gates_on_patches_are_a_group_lasso():
    """All patterns of all patches, written out for cvxpy; no cones, no signs."""
    problem = instance(8, GatedConvolution(pooling="average"), n=5, d=3, share=0.1)
    masks = np.asarray(arrangements.enumerate(problem.design)).reshape(-1, 5, 2)
    parts = np.stack(patches_by_hand(problem.X, 2, 1), axis=1)  # (n, K, h)
    maps = np.einsum("pnk,nkh->pnh", masks.astype(float), parts) / 2
    blocks = [cvxpy.Variable(2) for _ in maps]
    fit = sum(A @ w for A, w in zip(maps, blocks, strict=True))
    norms = sum(cvxpy.norm(w) for w in blocks)
    objective = cvxpy.Minimize(0.5 * cvxpy.sum_squares(fit - problem.y) + problem.beta * norms)
    value = cvxpy.Problem(objective).solve(solver="CLARABEL")
    solution = solve(problem)
    assert solution.certificate.scope == EXACT
    assert solution.objective == pytest.approx(value, rel=1e-6)
    relu = solve(problem.replace(architecture=Convolution(pooling="average")))
    assert solution.objective <= relu.objective * (1 + 1e-9)
    runs = train(problem, 16, range(2), "lbfgs", 50)
    assert runs.objectives.min() >= solution.certificate.dual * (1 - 1e-12)


def test_bad_choices_are_refused():
    X, y = np.ones((3, 6)), np.ones(3)
    for options, words in (
        ({"pooling": "max"}, "convolution_max"),
        ({"pooling": "median"}, "pooling"),
        ({"bias": "free"}, "bias"),
        ({"skip": "free"}, "skip"),
        ({"kernel": 0}, "kernel"),
        ({"shape": (1, 2, 3, 4)}, "shape"),
    ):
        with pytest.raises(BadInput, match=words):
            Convolution(**options)
    for options, words in (
        ({"shape": (5,)}, "6 columns"),
        ({"kernel": 7}, "none larger"),
        ({"shape": (2, 3), "kernel": (2, 2, 2)}, "width for each axis"),
    ):
        with pytest.raises(BadInput, match=words):
            Problem(X, y, 0.1, architecture=Convolution(**options))
    with pytest.raises(BadInput, match="one output"):
        Problem(X, np.ones((3, 2)), 0.1, architecture=Convolution())
    dense = torch.nn.Sequential(
        torch.nn.Linear(2, 3, bias=False), torch.nn.ReLU(), torch.nn.Linear(3, 1, bias=False)
    )
    with pytest.raises(BadInput, match="its own"):  # neurons on whole rows are no filters
        certify(Problem(X, y, 0.1, architecture=Convolution()), dense.double())
    problem = Problem(X, y, 0.1, architecture=Convolution())
    with pytest.raises(BadInput, match="over 3 samples, the problem has 15"):
        solve(problem, np.ones((1, 3), dtype=bool))
