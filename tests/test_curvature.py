"""Curvature: known spectra, both routes, and a word where Lanczos has not converged."""

import numpy as np
import pytest
import torch
from cases import planted

from landscape import curvature, polish, train
from landscape.architectures import GatedReLU, TwoLayer
from landscape.clarke import ties
from landscape.errors import BadInput, NotConverged
from landscape.problem import Problem
from landscape.slices.directions import flat, unflat


def one(problem, width=4, seed=0):
    values = {k: v[0] for k, v in problem.architecture.initial(problem, width, [seed]).items()}
    return {k: v + 0.2 if k == "constant" else v for k, v in values.items()}


def problems():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((10, 2)), rng.standard_normal(10)
    for bias in ("none", "penalised", "free"):
        yield bias, Problem(X, y, 0.3, architecture=TwoLayer(bias))
    yield "logistic", Problem(X, np.sign(y), 0.3, loss="logistic")
    yield "gated", Problem(X, y, 0.3, architecture=GatedReLU())


PROBLEMS = dict(problems())


def hessian(problem, network, step=1e-5):
    """Return the Hessian by central differences of the gradient, (parameters, parameters)."""
    names = [k for k in network if k not in problem.architecture.fixed]
    point = flat(network, names)

    def gradient(vector):
        values = unflat(vector, network, names)
        values = {k: (v if k in names else network[k]).requires_grad_() for k, v in values.items()}
        found = torch.autograd.grad(problem.objective(values), [values[k] for k in names])
        return np.concatenate([g.numpy().reshape(-1) for g in found])

    moves = step * np.eye(len(point))
    return np.array([(gradient(point + m) - gradient(point - m)) / (2 * step) for m in moves])


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_dense_spectrum_is_that_of_differences_of_gradients(name):
    problem = PROBLEMS[name]
    network = one(problem)
    expected = hessian(problem, network)
    found = curvature.spectrum(problem, network)
    whole = found.vectors @ np.diag(found.eigenvalues) @ found.vectors.T
    assert found.dense and found.converged and found.parameters == len(expected)
    assert whole == pytest.approx(expected, abs=1e-7)
    assert found.near_kinks == (None if name == "gated" else 0)


def test_one_neuron_on_one_sample_has_the_spectrum_of_the_books():
    problem = Problem(np.array([[1.0]]), np.array([2.0]), 0.5)  # w a = 1.5 at w = a: residual −β
    size = torch.tensor([1.5**0.5], dtype=torch.float64)
    found = curvature.spectrum(problem, {"hidden": size[:, None], "output": size})
    assert found.eigenvalues.tolist() == pytest.approx([1.0, 3.0])  # [[2, 1], [1, 2]]


def test_rescalings_are_eigenvectors_of_two_beta_where_training_ends():
    problem = planted(30, 3)
    runs = polish(problem, train(problem, 8, range(6), steps=1500, learning_rate=0.02))
    counted = 0
    for network in runs.networks:
        found = curvature.spectrum(problem, network)
        values = {k: v.detach() for k, v in network.values.items()}
        tied = ties(problem.design, values["hidden"].numpy()).any(axis=1)
        matrix = found.vectors @ np.diag(found.eigenvalues) @ found.vectors.T
        for j in np.flatnonzero(~tied):  # on a kink the Hessian is that of one side only
            way = {k: torch.zeros_like(v) for k, v in values.items()}
            way["hidden"][j], way["output"][j] = values["hidden"][j], -values["output"][j]
            vector = flat(way, list(way))
            assert matrix @ vector == pytest.approx(2 * problem.beta * vector, abs=1e-6)
            counted += 1
    assert counted >= 10


def test_lanczos_finds_both_ends_with_small_residuals():
    problem = PROBLEMS["penalised"]
    network = one(problem)
    whole = curvature.spectrum(problem, network)
    ends = curvature.spectrum(problem, network, 6, dense=0)
    assert not ends.dense and ends.converged and ends.residuals.max() <= 1e-7
    expected = np.concatenate([whole.eigenvalues[:3], whole.eigenvalues[-3:]])
    assert ends.eigenvalues == pytest.approx(expected, abs=1e-7)


def test_what_has_not_converged_raises_and_says_so():
    problem = planted(40, 3)
    network = one(problem, 30)
    options = {"dense": 0, "iterations": 1, "tolerance": 1e-14}
    with pytest.raises(NotConverged, match="raise iterations"):
        curvature.spectrum(problem, network, 8, **options)
    found = curvature.spectrum(problem, network, 8, **options, throw=False)
    assert not found.converged and "Not converged" in found.status


@pytest.mark.parametrize("name", PROBLEMS)
def test_blocks_are_those_of_the_whole_hessian(name):
    problem = PROBLEMS[name]
    network = one(problem)
    blocks, whole = curvature.neuron_blocks(problem, network), hessian(problem, network)
    p = network["hidden"].shape[1]
    for j, block in enumerate(blocks):
        mine = [*range(j * p, (j + 1) * p), 4 * p + j]
        assert block == pytest.approx(whole[np.ix_(mine, mine)], abs=1e-7)


def test_activations_near_kinks_are_counted():
    problem = Problem(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.ones(3), 0.1)
    hidden = torch.tensor([[1.0, 0.0], [1.0, 1e-4], [0.0, 0.0]], dtype=torch.float64)
    network = {"hidden": hidden, "output": torch.ones(3, dtype=torch.float64)}
    counts = [curvature.spectrum(problem, network, kink=k).near_kinks for k in (1e-9, 1e-3)]
    assert counts == [1, 2]
    assert curvature.spectrum(problem, network).activations == 9


def test_what_has_no_hessian_is_refused():
    smooth = PROBLEMS["none"]
    network = one(smooth)
    with pytest.raises(BadInput, match="smooth loss"):
        curvature.spectrum(PROBLEMS["logistic"].replace(loss="hinge"), network)
    with pytest.raises(BadInput, match="NaN"):
        curvature.spectrum(smooth, {**network, "output": network["output"] * torch.nan})
    with pytest.raises(BadInput, match="count"):
        curvature.spectrum(smooth, network, 12, dense=0)
