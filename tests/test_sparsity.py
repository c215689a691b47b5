"""Pruning curves, merging and counting: real data, brute force over subsets, symmetry."""

from __future__ import annotations

import itertools

import cvxpy
import numpy as np
import pytest
import torch
from cases import kgon, planted

from landscape import connect, data, prune, solve, train
from landscape.architectures import Attention, Circular, GatedReLU, TwoLayer, VectorReLU
from landscape.errors import BadInput
from landscape.network import Network
from landscape.optimal_set import OptimalSet
from landscape.problem import Problem
from landscape.sparsity import active_neurons, blocks, curves, error, merge, pruning_curve
from landscape.sparsity.curves import METHODS


def problem_of(loss="squared", bias="none", n=15, d=2):
    base = planted(n, d)
    y = base.y if loss == "squared" else np.where(base.y > np.median(base.y), 1.0, -1.0)
    return Problem(base.X, y, 0.3, loss=loss, architecture=TwoLayer(bias))


def real(name):
    """Every network here has three inputs, so that the optimum is certified over all patterns."""
    sample = data.load(name, n=100, rank=3, **({"classes": [3, 8]} if name == "digits" else {}))
    return Problem(sample.X, sample.y, 1.0), sample


def split(values, seed=0, copies=3):
    """Split every neuron into copies of one direction, in another order and at other scales."""
    rng = np.random.default_rng(seed)
    m = len(values["output"])
    share = torch.as_tensor(rng.dirichlet(np.ones(copies), m))
    scale = torch.as_tensor(np.exp(rng.standard_normal((m, copies))))
    order = torch.as_tensor(rng.permutation(m * copies))
    hidden = values["hidden"][:, None] * (share.sqrt() * scale)[..., None]
    output = values["output"][:, None] * (share.sqrt() / scale)
    parts = {"hidden": hidden.flatten(0, 1)[order], "output": output.flatten()[order]}
    return {**values, **parts}


def values_of(network):
    return {k: v.detach().double() for k, v in network.values.items()}


def random_network(problem, width, seed=0):
    draw = problem.architecture.initial(problem, width, [seed], 2.0)
    return {k: v[0] for k, v in draw.items()}


@pytest.mark.parametrize("name", ["diabetes", "digits", "breast_cancer"])
def test_pruning_keeps_the_objective_on_real_data_down_to_the_minimal_network(name):
    """The optima there are unique, so the minimal network has m* = M* neurons: the rank."""
    problem, sample = real(name)
    solution = solve(problem, tolerance=1e-9)
    optima = OptimalSet(solution)
    curve = pruning_curve(
        problem, split(values_of(solution.network())), X_test=sample.X_test, y_test=sample.y_test
    )
    assert curve.minimal == optima.m_star == optima.M_star <= len(problem.y)
    exact = curve.neurons >= curve.minimal
    # The splitting was not balanced: balancing it lowers the objective to the optimum at once.
    kept = curve.objectives[exact]
    assert np.abs(kept - solution.objective).max() <= 1e-10 * solution.objective
    last = values_of(curve.network(curve.minimal))
    features = torch.relu(torch.as_tensor(problem.design) @ last["hidden"].T)
    assert int(torch.linalg.matrix_rank(features)) == curve.minimal
    assert (np.diff(curve.objectives) >= -1e-9 * solution.objective).all()
    assert curve.neurons[-1] == 0 and curve.objectives[-1] == pytest.approx(
        problem.loss.at_zero(problem.y)
    )
    assert np.isfinite(curve.test_errors).all()


@pytest.mark.parametrize("k", [3, 5, 6])
def test_the_minimal_network_lies_between_the_bounds_of_the_optimal_set(k):
    problem = kgon(k)
    optima = OptimalSet(solve(problem, tolerance=1e-10))
    mixed = optima.network(optima.most())
    small = prune(problem, mixed)
    assert optima.m_star <= len(small.values["output"]) <= optima.M_star <= k
    low = optima.solution.objective
    assert float(problem.objective(small)) == pytest.approx(low, rel=1e-10)
    with pytest.raises(BadInput, match="no optimal network has"):
        optima.coefficients({**values_of(small), "hidden": values_of(small)["hidden"].flip(1)})


def best_sizes(problem, values, subset):
    """The same correction by cvxpy and Clarabel."""
    hidden, output = values["hidden"].numpy()[subset], values["output"].numpy()[subset]
    columns = np.maximum(problem.design @ hidden.T, 0) * output
    penalised = problem.architecture.penalised(problem)
    costs = np.linalg.norm(hidden[:, penalised], axis=1) * np.abs(output)
    c = cvxpy.Variable(len(subset))
    shift = cvxpy.Variable() if problem.architecture.bias == "free" else 0.0
    loss = problem.loss.expression(columns @ c + shift, problem.y)
    least = cvxpy.Problem(cvxpy.Minimize(loss + problem.beta * costs @ c), [c >= 0])
    return float(least.solve(solver=cvxpy.CLARABEL))


@pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])
@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_corrections_are_the_best_sizes_of_what_is_left(bias, loss):
    problem = problem_of(loss, bias)
    start = problem.architecture.balanced(problem, random_network(problem, 6))[0]
    corrections = curves.Corrections(problem, start)
    for subset in ([0, 1, 2, 3, 4, 5], [1, 4], [2, 3, 5]):
        value, c, constant = corrections.solve(np.array(subset))
        assert value == pytest.approx(best_sizes(problem, start, subset), rel=1e-7)
        assert not np.delete(c, subset).any() and (c >= 0).all()
        after = corrections.apply(c, constant)
        assert float(problem.objective(after)) == pytest.approx(value, rel=1e-12)


def test_the_first_corrected_removal_is_the_best_of_all():
    problem = problem_of()
    curve = pruning_curve(problem, random_network(problem, 30))
    minimal = values_of(curve.network(curve.minimal))
    m = curve.minimal
    every = [
        best_sizes(problem, minimal, list(kept)) for kept in itertools.combinations(range(m), m - 1)
    ]
    after = curve.objectives[np.flatnonzero(curve.neurons == m)[0] + 1]
    assert after == pytest.approx(min(every), rel=1e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("corrected", [True, False])
def test_curves_end_at_nothing_and_count_down(method, corrected):
    problem = problem_of()
    network = train(problem, 12, [0], "adam", steps=300).best
    if method == "optimal" and not corrected:
        with pytest.raises(BadInput, match="corrected is False"):
            pruning_curve(problem, network, method, corrected=False)
        return
    curve = pruning_curve(problem, network, method, corrected=corrected)
    assert (np.diff(curve.neurons) < 0).all() and curve.neurons[-1] == 0
    for count, objective, one in zip(curve.neurons, curve.objectives, curve.networks, strict=True):
        assert len(one.values["output"]) == count
        assert float(problem.objective(one)) == pytest.approx(objective, rel=1e-12)
    assert curve.objective(int(curve.neurons[0]) + 5) == curve.objectives[0]


def test_the_baselines_remove_what_their_scores_say():
    problem = problem_of()
    values = problem.architecture.balanced(problem, random_network(problem, 8))[0]
    hidden, output = values["hidden"], values["output"]
    features = torch.relu(torch.as_tensor(problem.design) @ hidden.T) * output
    fit = features.sum(dim=1)
    slope = torch.as_tensor(problem.loss.gradient(fit.numpy(), problem.y))
    scores = {
        "magnitude": hidden.norm(dim=1) * output.abs(),
        "activation": features.norm(dim=0),
        "gradient": (features.T @ slope).abs(),
    }
    assert len({int(score.argmin()) for score in scores.values()}) > 1
    for method, score in scores.items():
        curve = pruning_curve(problem, values, method)
        kept = torch.arange(8) != int(score.argmin())
        assert torch.allclose(values_of(curve.networks[1])["hidden"], hidden[kept], atol=1e-12)


def test_merging_keeps_the_fit_and_never_raises_the_penalty():
    problem = problem_of()
    for seed in range(5):
        values = random_network(problem, 60, seed)
        merged = merge(problem, values)
        assert len(merged.values["output"]) < 60
        fits = [problem.architecture.forward(v, torch.as_tensor(problem.X)) for v in (values, values_of(merged))]  # fmt: skip # noqa: E501
        assert torch.allclose(*fits, atol=1e-12)
        assert float(problem.objective(merged)) <= float(problem.objective(values)) + 1e-12


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_counts_do_not_depend_on_order_scale_or_copies(bias):
    problem = problem_of(bias=bias)
    runs = train(problem, 16, range(3), "adam", steps=800)
    levels = (0.0, 1e-3, 1e-2, 1e-1)
    counts = active_neurons(problem, runs, levels)
    assert counts.shape == (4, 3)
    assert (np.diff(counts, axis=0) <= 0).all()  # coarser never counts more, here
    for seed, network in enumerate(runs.networks):
        again = active_neurons(problem, split(values_of(network), seed), levels[1:])
        assert again.tolist() == counts[1:, seed].tolist()
    assert active_neurons(problem, runs[0], 1e-2) == counts[2, 0]


def test_a_small_and_a_turned_neuron_count_by_tolerance():
    problem = problem_of()
    turned = torch.tensor([[1.0, 0.0], [1.0, 0.05], [0.0, 1.0], [0.0, -1.0]]).double()
    values = {"hidden": turned, "output": torch.tensor([1.0, 1.0, 0.02, -1.0]).double()}
    assert active_neurons(problem, values, (1e-3, 0.03, 0.1)).tolist() == [4, 3, 2]


def test_arguments_are_refused_by_name():
    problem = problem_of()
    network = random_network(problem, 4)
    for call, message in (
        (lambda: pruning_curve(problem, network, "magnitud"), "magnitude"),
        (lambda: pruning_curve(problem, network, X_test=problem.X), "pass both"),
        (lambda: pruning_curve(problem, network, X_test=[[1.0]], y_test=[1.0]), r"\(N, 2\)"),
        (lambda: pruning_curve(problem, network).network(-1), "neurons is -1"),
        (lambda: active_neurons(problem, network, 1.0), "tolerances is 1.0"),
        (lambda: active_neurons(problem, network, [0.1, 1.0]), r"tolerances is \[0.1, 1.0\]"),
        (lambda: active_neurons(problem, network, [-0.1, 0.1]), "tolerances is"),
        (lambda: active_neurons(problem, network, [[0.1]]), "tolerances is"),
        (lambda: active_neurons(problem, network, []), "tolerances is"),
        (lambda: active_neurons(problem, {"hidden": network["hidden"]}), "'output' is missing"),
        (lambda: merge(problem.replace(architecture=GatedReLU()), network), "merge is built"),
    ):
        with pytest.raises(BadInput, match=message):
            call()
    hinge = Problem(problem.X, np.sign(problem.y), 0.3, "hinge")
    with pytest.raises(BadInput, match="smooth"):
        pruning_curve(hinge, network)


def of_outputs(architecture, outputs=2, n=12, d=4):
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((n, d)), rng.standard_normal((n, outputs))
    return Problem(X, y if outputs > 1 else y[:, 0], 0.4, architecture=architecture)


@pytest.mark.parametrize(
    ("architecture", "outputs"),
    [
        (VectorReLU(), 2),
        (Attention(2), 1),
        (Circular(), 1),
        (GatedReLU(outputs="nuclear"), 2),
        (GatedReLU(outputs="per_class", bias="free"), 2),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_networks_of_many_numbers_a_unit_are_counted_one_by_one(architecture, outputs):
    """Leading axes are what one network does not have, whatever its units hold."""
    problem = of_outputs(architecture, outputs)
    runs = train(problem, [3, 2], range(2), "adam", steps=5)
    found = active_neurons(problem, runs)
    assert found.shape == (3, 4)
    assert (found == active_neurons(problem, runs.networks)).all()
    assert (found[:, 0] == active_neurons(problem, runs[0].values)).all()
    moments = train(problem, [3], range(2), "adam", steps=5, snapshots=[0, 2, 5]).snapshots
    assert active_neurons(problem, moments).shape == (3, 3, 2)


def test_errors_are_those_of_each_output():
    """Where targets are kept side by side and where they are a matrix, for training and others."""
    rng = np.random.default_rng(5)
    for architecture in (VectorReLU(), GatedReLU(outputs="nuclear")):
        problem = of_outputs(architecture)
        network = Network(architecture, random_network(problem, 3))
        X, y = rng.standard_normal((7, 4)), rng.standard_normal((7, 2))
        own = np.reshape(problem.y, (-1, 2))
        for rows, targets, given in ((problem.X, own, problem.y), (X, y, y)):
            fit = network(rows).detach().numpy()
            wanted = ((fit - targets) ** 2).sum() / ((targets - own.mean(axis=0)) ** 2).sum()
            assert error(problem, network, rows, given) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("outputs", ["nuclear", "per_class"])
@pytest.mark.parametrize("bias", ["none", "free"])
def test_matrix_blocks_are_pruned_as_rays(outputs, bias):
    """Nine samples of two outputs carry at most 18 independent parts (none beside free gates)."""
    problem = of_outputs(GatedReLU(bias, outputs), n=9)
    start = random_network(problem, 25)
    minimal = prune(problem, start)
    point = problem.architecture.lift(problem, minimal.values)
    rays, owner = blocks.as_rays(point)
    assert rays.value == pytest.approx(point.value, rel=1e-12)
    assert 0 < len(owner) == len(minimal.values["output"]) or bias == "free"
    features = blocks.features(rays)
    assert features.shape[1] == np.linalg.matrix_rank(features) <= 18
    before = problem.architecture.lift(problem, start)
    assert float(problem.objective(minimal)) <= before.value * (1 + 1e-10)
    fits = [one.program.fit(one.theta, one.constant) for one in (before, point)]
    np.testing.assert_allclose(fits[0], fits[1], atol=1e-9)


def test_pruning_an_optimum_of_several_outputs_keeps_it():
    problem = of_outputs(GatedReLU(outputs="nuclear"), n=6, d=2)
    solution = solve(problem, tolerance=1e-9)
    minimal = prune(problem, solution.network())
    assert float(problem.objective(minimal)) == pytest.approx(solution.objective, rel=1e-8)
    assert len(minimal.values["output"]) <= len(solution.network().values["output"])
    with pytest.raises(BadInput, match="outputs in one row"):
        connect(problem, minimal, solution.network())
    nothing = {k: v[:0] for k, v in random_network(problem, 1).items()}
    assert len(prune(problem, nothing).values["output"]) == 0
