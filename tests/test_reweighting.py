"""Gated networks as kernel machines: cell probabilities, the NTK, reweighting to the optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape import Problem, arrangements, data, solve
from landscape.architectures import GatedReLU, TwoLayer
from landscape.bounds import beta_max
from landscape.errors import BadInput
from landscape.solvers import reference, restricted
from landscape.theory import reweighting


def gated(n: int = 12, d: int = 2, seed: int = 0, share: float = 0.05, bias: str = "none"):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.sin(2 * X[:, 0]) + X[:, 1] + 0.1 * rng.standard_normal(n)
    problem = Problem(X, y, 1.0, architecture=GatedReLU(bias=bias))
    patterns = arrangements.enumerate(problem.design)
    return problem.replace(beta=share * beta_max(problem, patterns)), patterns


def designs() -> dict[str, np.ndarray]:
    X = np.random.default_rng(1).standard_normal((9, 2))
    return {
        "plane": X,
        "plane in space": X @ [[1.0, 2.0, 0.0], [0.5, 0.0, -3.0]],
        "antipodal": np.vstack([X[:4], -3.0 * X[:2]]),
        "duplicates and zero": np.vstack([X[:4], X[:2], np.zeros((1, 2))]),
        "line": X[:, :1],
        "one": X[:1],
    }


@pytest.mark.parametrize("name", designs())
def test_probabilities_are_angles_in_the_plane(name):
    design = designs()[name]
    patterns = arrangements.enumerate(design)
    exact = reweighting.gate_probabilities(design, patterns)
    assert exact.exact and not exact.errors.any()
    assert exact.values.sum() == pytest.approx(1.0, abs=1e-14)
    rng = np.random.default_rng(2)
    masks = rng.standard_normal((40_000, design.shape[1])) @ design.T >= 0
    drawn = (masks[:, None] == np.asarray(patterns)).all(axis=2).mean(axis=0)
    assert np.abs(drawn - exact.values).max() <= 5 * 0.5 / 200
    # The closed form of the kernel is an independent check of all of them together.
    by_patterns = reweighting.kernel(design, patterns, exact.values)
    np.testing.assert_allclose(by_patterns, reweighting.tangent_kernel(design), atol=1e-13)


def test_beyond_the_plane_probabilities_come_with_their_errors():
    design = np.random.default_rng(3).standard_normal((7, 3))
    patterns = arrangements.enumerate(design)
    found = reweighting.gate_probabilities(design, patterns, draws=50_000)
    assert not found.exact and found.values.sum() == pytest.approx(1.0)
    K = reweighting.kernel(design, patterns, found.values)
    exact = reweighting.tangent_kernel(design)
    # An entry is x·x' times the share of draws that have both samples on.
    spread = np.abs(design @ design.T) * 0.5 / 50_000**0.5
    assert (np.abs(K - exact) <= 5 * spread).all()
    other = reweighting.gate_probabilities(design, patterns, draws=50_000, seed=1)
    error = np.hypot(found.errors, other.errors)
    assert (np.abs(found.values - other.values) <= 5 * error + 1e-4).all()
    assert np.abs(found.values - other.values).max() > 0.1 * error.max()


@pytest.mark.parametrize("columns", [2, 3])
def test_what_patterns_say_of_rows_of_zeros_does_not_matter(columns):
    design = np.random.default_rng(4).standard_normal((6, columns))
    design[2] = 0.0
    patterns = arrangements.enumerate(design)
    masks = np.array(patterns)
    masks[:, 2] ^= True
    other = arrangements.Arrangements.from_bool(masks, patterns.gates)
    found = [reweighting.gate_probabilities(design, one, draws=2000) for one in (patterns, other)]
    assert found[0].values.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(found[0].values, found[1].values)


def test_wrong_weights_are_not_the_ntk():
    design = designs()["plane"]
    patterns = arrangements.enumerate(design)
    uniform = np.full(len(patterns), 1.0 / len(patterns))
    K = reweighting.kernel(design, patterns, uniform)
    assert np.abs(K - reweighting.tangent_kernel(design)).max() > 1e-2


def test_the_kernel_is_that_of_the_gradients_of_a_network():
    """Of the first layer of GatedReLU, its output weights ±1/√m, whatever they multiply."""
    problem, _ = gated()
    m = 40
    network = {k: v[0] for k, v in problem.architecture.initial(problem, m, [0]).items()}
    network["output"] = network["output"].sign() / m**0.5
    hidden = network["hidden"].clone().requires_grad_(True)
    rows = torch.stack(
        [
            torch.autograd.grad(one, hidden, retain_graph=True)[0].reshape(-1)
            for one in problem.architecture.forward(
                {**network, "hidden": hidden}, torch.as_tensor(problem.X)
            )
        ]
    )
    masks = problem.X @ network["gate"].numpy().T >= 0  # (n, m)
    patterns = arrangements.Arrangements.from_bool(masks.T, network["gate"].numpy())
    K = reweighting.kernel(problem.X, patterns, np.full(m, 1.0 / m))
    np.testing.assert_allclose((rows @ rows.T).numpy(), K, atol=1e-12)
    # Many gates come to the closed form.
    gates = np.random.default_rng(4).standard_normal((20_000, 2))
    many = arrangements.Arrangements.from_bool(gates @ problem.X.T >= 0, gates)
    K = reweighting.kernel(problem.X, many, np.full(20_000, 1 / 20_000))
    exact = reweighting.tangent_kernel(problem.X)
    assert (np.abs(K - exact) <= 5 * 0.5 / 20_000**0.5 * np.abs(problem.X @ problem.X.T)).all()


def test_the_kernel_between_two_sets():
    X, other = designs()["plane"], designs()["antipodal"]
    both = reweighting.tangent_kernel(np.vstack([X, other]))
    np.testing.assert_allclose(reweighting.tangent_kernel(X, other), both[:9, 9:], atol=1e-14)
    one = reweighting.tangent_kernel(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [-1.0, 0.0]]))
    np.testing.assert_allclose(one, [[0.5, 0.0]], atol=1e-16)


@pytest.mark.parametrize("bias", ["none", "penalised"])
def test_reweighting_falls_to_the_optimum_of_the_group_lasso(bias):
    problem, patterns = gated(n=8, bias=bias)
    run = reweighting.reweight(problem, patterns, iterations=4000, tolerance=1e-5)
    assert run.gaps[-1] <= 1e-5 and "solved" in run.status
    assert (np.diff(run.objectives) <= 1e-12 * run.objectives[0]).all()
    program = problem.architecture.program(problem, patterns)
    optimum = reference.solve_primal(program).value
    assert solve(problem, patterns).objective == pytest.approx(optimum, rel=1e-7)
    assert run.objectives[-1] == pytest.approx(optimum, rel=1e-5)
    assert run.objectives.min() >= optimum * (1 - 1e-8)
    assert run.bounds.max() <= optimum * (1 + 1e-8)
    network = run.network()
    assert problem.objective(network) == pytest.approx(run.objectives[-1], rel=1e-9)
    # The start is far from it.
    assert run.gaps[0] > 0.01


def test_the_first_iterate_is_kernel_ridge_regression_with_the_ntk():
    problem, patterns = gated()
    run = reweighting.reweight(problem, patterns, iterations=0)
    scale = float(run.weights[0].sum())  # probabilities sum to one
    K = scale * reweighting.tangent_kernel(problem.X)
    fit = K @ np.linalg.solve(K + problem.beta * np.eye(len(K)), problem.y)
    ours = run.network(0)(problem.X).detach().numpy()
    np.testing.assert_allclose(ours, fit, atol=1e-9)
    np.testing.assert_allclose(run.tangent(problem.X), fit, atol=1e-9)
    # and its scale is the best one
    probable = run.weights[0] / scale
    values = [
        reweighting.kernel_value(problem, patterns, c * probable)
        for c in scale * np.array([1.0, 0.9, 1.1, 0.999, 1.001])
    ]
    assert min(values) == values[0]
    assert run.objectives[0] <= values[0]


def test_other_starts_end_at_the_same_value():
    problem, patterns = gated(n=8)
    ends = []
    for seed in range(3):
        start = np.random.default_rng(seed).exponential(size=len(patterns))
        run = reweighting.reweight(problem, patterns, start, 4000, 1e-5)
        ends.append(run.objectives[-1])
    np.testing.assert_allclose(ends, ends[0], rtol=2e-5)
    # A kernel without weight stays without: the least weight is what lets it come back.
    one = np.eye(len(patterns))[0]
    assert reweighting.reweight(problem, patterns, one, 4000, 1e-3).gaps[-1] <= 1e-3


def test_the_kernel_form_has_the_same_optimum():
    problem, patterns = gated(n=8)
    program = problem.architecture.program(problem, patterns)
    found = restricted.minimise(program)
    sizes = program.gauge.value(found.theta)
    best = reweighting.kernel_value(problem, patterns, sizes)
    assert best == pytest.approx(found.value, rel=1e-7)
    rng = np.random.default_rng(5)
    for _ in range(20):
        other = sizes * rng.lognormal(size=len(sizes)) + 0.01 * rng.exponential(size=len(sizes))
        assert reweighting.kernel_value(problem, patterns, other) >= best * (1 - 1e-12)


def test_real_data():
    sample = data.load("diabetes", n=60, rank=2)
    problem = Problem(sample.X, sample.y, 0.5, architecture=GatedReLU())
    patterns = arrangements.enumerate(problem.design)
    run = reweighting.reweight(problem, patterns, iterations=300, tolerance=1e-3)
    assert run.gaps[-1] <= 1e-3 < run.gaps[0]


def test_refusals():
    problem, patterns = gated()
    for other in (
        problem.replace(architecture=TwoLayer()),
        problem.replace(architecture=GatedReLU(bias="free")),
        problem.replace(loss="huber"),
    ):
        with pytest.raises(BadInput, match="reweighting solves"):
            reweighting.reweight(other, patterns)
    for start in (np.ones(3), -np.ones(len(patterns)), np.zeros(len(patterns))):
        with pytest.raises(BadInput, match="start"):
            reweighting.reweight(problem, patterns, start)


@pytest.mark.parametrize("size", [1e-13, 1e13, 1e-40])
def test_lengths_of_rows_do_not_change_probabilities(size):
    """Patterns see directions of rows alone, so angles are those of the rows at length one."""
    rows = np.array([[1.0, 2.0], [1.0, -1.0], [2.0, 1.0]])
    patterns = arrangements.enumerate(rows)
    wanted = reweighting.gate_probabilities(rows, patterns)
    scaled = rows * np.array([[size], [1.0], [1.0]])
    found = reweighting.gate_probabilities(scaled, patterns)
    assert found.exact and wanted.exact
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-12)
    assert found.values.sum() == pytest.approx(1.0, abs=1e-12)


def test_a_short_row_counts_for_the_rank():
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1e-13, 1e-13]])
    patterns = arrangements.enumerate(rows * [[1.0], [1.0], [1e13]])
    assert not reweighting.gate_probabilities(rows, patterns, draws=1000).exact


def test_patterns_of_other_rows_and_no_draws_are_refused():
    rows = np.eye(3)
    with pytest.raises(BadInput, match="patterns are over 3 samples, design has 2 rows"):
        reweighting.gate_probabilities(rows[:2], arrangements.enumerate(rows))
    with pytest.raises(BadInput, match="draws is 0"):
        reweighting.gate_probabilities(rows, arrangements.enumerate(rows), draws=0)
