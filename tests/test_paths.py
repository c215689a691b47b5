"""Paths that never rise, and pruning, on random starts; planted faults make them rise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import kgon, planted

from landscape import connect, prune, solve
from landscape.architectures import GatedReLU, TwoLayer
from landscape.errors import BadInput
from landscape.optimal_set import OptimalSet
from landscape.problem import Problem
from landscape.sparsity import pruning


def problem_of(bias="none", loss="squared", n=20, d=2):
    base = planted(n, d)
    y = base.y if loss == "squared" else np.where(base.y > np.median(base.y), 1.0, -1.0)
    return Problem(base.X, y, 0.3, loss=loss, architecture=TwoLayer(bias=bias))


def random_network(problem, width, seed=0):
    """A random network with a dead neuron, a neuron without output, and biases that are alone."""
    start = problem.architecture.initial(problem, width, [seed], scale=2.0)
    values = {k: v[0] for k, v in start.items()}
    values["output"][0] = 0.0
    values["hidden"][1] = 0.0
    values["hidden"][2, :-1] = 0.0
    values["hidden"][3] *= 100.0
    return values


def risen(values):
    """How far the values rise above their running minimum."""
    return float(np.max(values - np.minimum.accumulate(values)))


@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
@pytest.mark.parametrize("width", [4, 50])
def test_the_path_to_the_optimum_never_rises(bias, loss, width):
    problem = problem_of(bias, loss)
    solution = solve(problem, tolerance=1e-7 if loss == "hinge" else 1e-9)
    start = random_network(problem, width)
    path = connect(problem, start, solution.network())
    position, values = path.objectives(60)
    first = float(problem.objective(start))
    assert values[0] == pytest.approx(first, rel=1e-14)
    assert values[-1] == pytest.approx(solution.objective, rel=1e-12)
    assert risen(values) <= 1e-12 * first
    assert risen(values) <= path.rise + 1e-13 * first
    assert path.rise <= (1e-4 if loss == "hinge" else 1e-6) * solution.objective
    n = len(problem.y)
    assert path.width <= max(width, n + solution.active)
    assert position[-1] == len(path.pieces)
    for t in (0.0, 0.3, len(path.pieces) - 0.5, len(path.pieces)):
        near = np.abs(position - t).argmin()
        there = problem.objective(path.network(t))
        assert there == pytest.approx(values[near], rel=0.2)
    # Pieces fit together: the same function where one ends and the next begins.
    with torch.no_grad():
        X = torch.as_tensor(problem.X)
        for before, after in zip(path.pieces, path.pieces[1:], strict=False):
            one, two = (
                problem.architecture.forward(v, X) for v in (before.at([1.0]), after.at([0.0]))
            )
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-9)


def test_the_wrong_null_direction_makes_it_rise(monkeypatch):
    problem = problem_of()
    solution = solve(problem)
    start = random_network(problem, 50)
    good = pruning._null_direction
    noisy = lambda columns: (  # noqa: E731
        None if good(columns) is None else good(columns) + 1e-3 * torch.ones(columns.shape[1])
    )
    monkeypatch.setattr(pruning, "_null_direction", noisy)
    path = connect(problem, start, solution.network())
    assert risen(path.objectives()[1]) > 1e-6


def test_a_path_to_something_that_is_no_minimum_admits_that_it_rises():
    problem = problem_of()
    end = random_network(problem, 30, seed=1)
    end["output"] *= 0.1
    start = random_network(problem, 30, seed=2)
    start["output"] *= 3.0
    path = connect(problem, start, end)
    assert path.rise > 1e-3
    assert risen(path.objectives(200)[1]) <= path.rise


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_pruning_leaves_independent_neurons_and_the_same_function(bias):
    problem = problem_of(bias)
    start = random_network(problem, 40)
    network = prune(problem, start)
    hidden, output = (network.values[k].detach() for k in ("hidden", "output"))
    features = torch.relu(torch.as_tensor(problem.design) @ hidden.T)
    if bias == "free":
        features = torch.cat([features, torch.ones(len(features), 1)], dim=1)
    columns = features / features.norm(dim=0)
    assert torch.linalg.matrix_rank(columns, rtol=1e-12) == columns.shape[1]
    assert len(output) <= len(problem.y)
    assert problem.objective(network) < float(problem.objective(start))
    with torch.no_grad():
        before = problem.architecture.forward(start, torch.as_tensor(problem.X))
    np.testing.assert_allclose(network(problem.X).detach(), before, atol=1e-9)


def test_pruning_an_optimum_keeps_its_objective():
    problem = problem_of()
    solution = solve(problem, tolerance=1e-10)
    values = solution.network().values
    twice = {
        "hidden": torch.cat([values["hidden"], values["hidden"]]) * 0.5**0.5,
        "output": torch.cat([values["output"], values["output"]]) * 0.5**0.5,
    }
    pruned = prune(problem, twice)
    assert len(pruned.values["output"]) <= solution.active
    assert problem.objective(pruned) == pytest.approx(solution.objective, rel=1e-12)


def test_what_the_path_needs_is_asked_for():
    problem = problem_of()
    solution = solve(problem)
    start = random_network(problem, 6)
    with pytest.raises(BadInput, match=r"n \+ m\*"):
        connect(problem, start, solution.network(), width=5)
    with pytest.raises(BadInput, match="above the start"):
        connect(problem, solution.network(), start)
    with pytest.raises(BadInput, match="method"):
        connect(problem, start, solution.network(), method="straigt")
    gated = Problem(problem.X, problem.y, 0.3, architecture=GatedReLU())
    ends = [gated.architecture.initial(gated, 3, [0]) for _ in range(2)]
    with pytest.raises(BadInput, match="plain two-layer"):
        connect(gated, *({k: v[0] for k, v in end.items()} for end in ends), method="straight")
    with pytest.raises(BadInput, match="position"):
        connect(problem, start, solution.network()).network(99.0)


def test_paths_within_the_optimal_set_are_constant():
    problem = kgon(6)
    optima = OptimalSet(solve(problem, tolerance=1e-9))
    first, last = (optima.network(c) for c in optima.vertices)
    best = optima.solution.objective
    path = connect(problem, first, last, "optimal", optima=optima)
    _, values = path.objectives(200)
    assert values == pytest.approx(np.full_like(values, best), rel=1e-12)
    assert path.rise <= 1e-10 * best
    assert path.width == 6
    naive = [problem.objective(_between(first, last, t)) for t in np.linspace(0, 1, 21)]
    assert max(float(v) for v in naive) > 1.2 * best
    with pytest.raises(BadInput, match="different components of the set at width 5"):
        connect(problem, first, last, "optimal", optima=optima, width=5)
    with pytest.raises(BadInput, match="optima is missing"):
        connect(problem, first, last, "optimal")
    with pytest.raises(BadInput, match="no optimal network has"):
        connect(problem, random_network(problem, 4), last, "optimal", optima=optima)


def _between(a, b, t):
    """The straight line in the parameters."""
    return {k: ((1 - t) * a.values[k] + t * b.values[k]).detach() for k in a.values}
