"""Convex training of layers: the last two on features, and one after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_standard_deep import DEEP, LABELS, one, random_problem

from landscape import certify, data, layerwise, refit, solve, train
from landscape.architectures import Convolution, GatedConvolution, StandardDeep, TwoLayer
from landscape.bounds import EXACT, FEATURES, GIVEN, of_a_part
from landscape.errors import BadInput
from landscape.network import Network
from landscape.problem import Problem


@pytest.mark.parametrize("architecture", DEEP, ids=LABELS)
def test_refit_never_raises_the_objective_and_changes_nothing_twice(architecture):
    for seed in range(1):
        problem = random_problem(architecture, seed, n=6)
        network = Network(architecture, one(problem, 3, seed))
        first = refit(problem, network, effort="low")
        before, after = first.objectives
        assert before == pytest.approx(problem.objective(network), rel=1e-14)
        assert after <= before
        assert problem.objective(first.network) == pytest.approx(after, rel=1e-14)
        second = refit(problem, first.network, effort="low")
        assert second.objective == pytest.approx(after, rel=1e-7)
        assert second.objective <= after


@pytest.mark.parametrize("architecture", DEEP[:2], ids=LABELS[:2])
def test_the_certificate_is_that_of_the_two_layer_problem_on_the_features(architecture):
    problem = random_problem(architecture, 3, n=7)
    found = refit(problem, Network(architecture, one(problem, 3)), effort="low")
    assert found.subproblem.architecture == TwoLayer()
    parameters = found.network.values
    layer = torch.relu(torch.as_tensor(problem.X) @ parameters["hidden"].detach().mT).numpy()
    if architecture.regulariser == "power":  # unit features
        layer /= float(parameters["hidden"].detach().norm())
    np.testing.assert_allclose(found.subproblem.X, layer, rtol=1e-12, atol=1e-15)
    offset = architecture.offset(problem, parameters)
    optimum = solve(found.subproblem)
    assert found.objective - offset == pytest.approx(optimum.objective, rel=1e-7)
    sub, last = architecture.last_two(problem, parameters)
    judged = certify(sub, last)
    assert found.certificate.dual - offset == pytest.approx(judged.dual, rel=1e-6)
    assert found.certificate.scope == f"{FEATURES}: {EXACT}" == f"{FEATURES}: {judged.scope}"
    assert of_a_part(found.certificate.scope)


def test_no_other_last_layers_do_better_on_the_features():
    """An adversary trains the last two layers alone, from many starts."""
    problem = random_problem(StandardDeep(3), 5, n=7)
    found = refit(problem, Network(problem.architecture, one(problem, 3)), effort="low")
    runs = train(found.subproblem, width=12, seeds=range(4), steps=400, learning_rate=0.03)
    offset = problem.architecture.offset(problem, found.network.values)
    assert runs.objectives.min() + offset >= found.objective * (1 - 1e-9)
    assert runs.objectives.min() + offset <= found.objective * 1.02


def test_the_bound_of_the_whole_stands_beside_and_rounds_only_help():
    problem = random_problem(StandardDeep(3), 1, n=7)
    network = Network(problem.architecture, one(problem, 3))
    found = refit(problem, network, rounds=2, steps=100, learning_rate=0.01, patterns=30)
    assert list(found.objectives) == sorted(found.objectives, reverse=True)
    assert len(found.objectives) > 2
    assert 0 < found.certificate.relaxed <= found.objective
    whole = certify(problem, found.network)
    assert whole.dual <= found.objective
    assert not of_a_part(whole.scope)
    assert "lower bound of the whole" in str(found.certificate)


def test_sampled_patterns_still_contain_the_networks_own():
    problem = random_problem(StandardDeep(3), 2, n=7)
    network = Network(problem.architecture, one(problem, 3))
    found = refit(problem, network, patterns=5, effort="low")
    assert found.certificate.scope == f"{FEATURES}: given patterns"
    assert found.objectives[1] <= found.objectives[0]
    assert refit(problem, network, effort="low").objective <= found.objective * (1 + 1e-7)


@pytest.mark.parametrize("loss", ["logistic", "huber"])
def test_other_losses(loss):
    squared = random_problem(StandardDeep(3), 4, n=7)
    y = np.sign(squared.y) if loss == "logistic" else squared.y
    problem = Problem(squared.X, y, squared.beta, loss=loss, architecture=squared.architecture)
    found = refit(problem, Network(problem.architecture, one(problem, 3)), patterns=20)
    assert found.certificate.relaxed <= found.objective <= found.objectives[0]
    assert found.certificate.relative_gap < 1e-6


@pytest.mark.parametrize("regulariser", ["decay", "power"])
def test_layers_are_trained_one_after_the_other(regulariser):
    problem = random_problem(StandardDeep(4, regulariser=regulariser), 0, n=6, share=0.1)
    found = layerwise(problem)
    assert [one.architecture.depth for one in found.networks] == [2, 3, 4]
    two = solve(problem.replace(architecture=TwoLayer()))
    assert found.objectives[0] == pytest.approx(two.objective, rel=1e-9)
    for network, certificate, width in zip(
        found.networks, found.certificates, found.widths, strict=True
    ):
        own = problem.replace(architecture=network.architecture)
        assert own.objective(network) == pytest.approx(certificate.primal, rel=1e-12)
        assert certificate.relative_gap < 1e-6
        assert of_a_part(certificate.scope) == (network.architecture.depth > 2)
        assert width >= 1
    hidden = [network.values["hidden"].detach() for network in found.networks]
    features = [torch.relu(torch.as_tensor(problem.X) @ h.mT) for h in hidden]
    for later in features[1:]:  # the first layer is kept, up to padding and its scale
        ours, theirs = features[0], later[:, : features[0].shape[1]]
        torch.testing.assert_close(theirs / theirs.norm(), ours / ours.norm())


@pytest.mark.parametrize("kind", [GatedConvolution, Convolution])
def test_convolutions_are_trained_one_after_the_other(kind):
    """Each layer alone: its program on the maps of those before, written out again."""
    sample = data.load("digits", n=40, side=8, classes=[3, 8], standardize=False)
    own = kind(kernel=(3, 2), shape=(8, 8), pooling="average")
    problem = Problem(sample.X, sample.y, 0.3, architecture=own)
    found = layerwise(problem, 3, patterns=8, tolerance=1e-6)
    assert len(found.networks) == 2
    first, second = found.networks
    assert [one.scope for one in found.certificates] == [GIVEN, f"{FEATURES}: {GIVEN}"]
    assert max(one.relative_gap for one in found.certificates) <= 1e-6
    grown = second.architecture
    assert grown.shape == (found.widths[0], 3, 3)
    assert grown.kernel == (3, 2)
    images = torch.as_tensor(problem.X).reshape(-1, 1, 8, 8)
    values = first.values
    filters = values["hidden"].detach() / values["hidden"].detach().norm(dim=1)[:, None]
    before = torch.nn.functional.conv2d(images, filters.reshape(-1, 1, 3, 2))
    if kind is Convolution:
        maps = torch.relu(before)
    else:
        gates = torch.nn.functional.conv2d(images, values["gate"].reshape(-1, 1, 3, 2))
        maps = (gates >= 0) * before
    features = torch.nn.functional.avg_pool2d(maps, 2).flatten(1)
    deeper = Problem(features, problem.y, 0.3, architecture=grown)
    assert deeper.objective(second) == pytest.approx(found.objectives[1], rel=1e-9)
    torch.testing.assert_close(found(problem.X), second(features))
    torch.testing.assert_close(found(problem.X, 0), first(problem.X))


def test_signals_get_channels_and_dead_layers_are_refused():
    rng = np.random.default_rng(0)
    problem = Problem(rng.standard_normal((12, 9)), rng.standard_normal(12), 0.3)
    problem = problem.replace(architecture=GatedConvolution(kernel=3))
    found = layerwise(problem, 3, patterns=6)
    assert found.networks[1].architecture.shape == (found.widths[0], 1, 3)
    assert found(problem.X).shape == (12,)
    with pytest.raises(BadInput, match="no filters"):
        layerwise(problem.replace(beta=1e3), 3, patterns=6)
    with pytest.raises(BadInput, match="window"):
        layerwise(problem, 3, patterns=6, window=0)


def test_solutions_on_features_are_saved_as_networks(tmp_path):
    problem = random_problem(StandardDeep(3), 1, n=6)
    solution = solve(problem, start=Network(problem.architecture, one(problem, 2)))
    with pytest.raises(BadInput, match="save the network"):
        solution.save(tmp_path / "solution")
    again = Network.load(solution.network().save(tmp_path / "network"))
    assert problem.objective(again) == solution.objective
    assert solution.certificate.dual <= solution.objective


def test_what_is_refused():
    problem = random_problem(StandardDeep(3))
    network = Network(problem.architecture, one(problem))
    with pytest.raises(BadInput, match="three layers or more"):
        refit(problem.replace(architecture=StandardDeep(2)), network)
    with pytest.raises(BadInput, match="effort"):
        refit(problem, network, effort="lots")
    with pytest.raises(BadInput, match="must be StandardDeep"):
        layerwise(problem.replace(architecture=TwoLayer()))
    with pytest.raises(BadInput, match="depth"):
        layerwise(problem, 1)
    with pytest.raises(BadInput, match="layer 1 has no neurons"):
        layerwise(problem.replace(beta=1e6), 3)
