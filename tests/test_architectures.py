"""Bridges: network → convex point → network, with the objective never rising."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import CASES, IDS
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape import architectures
from landscape.architectures import GatedReLU, TwoLayer
from landscape.errors import BadInput
from landscape.network import Network
from landscape.problem import Problem

KINDS = [kind(bias=b) for kind in (TwoLayer, GatedReLU) for b in ("none", "penalised", "free")]
LABELS = [kind.label for kind in KINDS]


def random_problem(architecture, seed=0, n=9, d=2):
    rng = np.random.default_rng(seed)
    return Problem(
        rng.standard_normal((n, d)), rng.standard_normal(n), 0.3, architecture=architecture
    )


def one(problem, width=5, seed=0):
    batch = problem.architecture.initial(problem, width, [seed])
    return {k: v[0] for k, v in batch.items()}


@pytest.mark.parametrize("architecture", KINDS, ids=LABELS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), width=st.integers(1, 12))
def test_lift_then_lower_keeps_the_fit_and_never_raises_the_objective(architecture, seed, width):
    problem = random_problem(architecture, seed)
    parameters = one(problem, width, seed)
    if "constant" in parameters:
        parameters["constant"] = parameters["constant"] + 0.3
    point = architecture.lift(problem, parameters)
    X = torch.as_tensor(problem.X)
    fit = architecture.forward(parameters, X).numpy()
    np.testing.assert_allclose(point.program.fit(point.theta, point.constant), fit, atol=1e-10)
    assert point.program.violation(point.theta) <= 1e-12
    before, lifted = float(problem.objective(parameters)), point.value
    after = float(problem.objective(architecture.lower(point)))
    assert lifted <= before * (1 + 1e-12)
    assert after == pytest.approx(lifted, rel=1e-12)


@pytest.mark.parametrize("architecture", KINDS, ids=LABELS)
def test_batched_functions_are_the_loop_over_networks(architecture):
    problem = random_problem(architecture)
    batch = architecture.initial(problem, 4, [3, 1, 2])
    alone = architecture.initial(problem, 4, [1])
    for name in batch:
        torch.testing.assert_close(batch[name][1], alone[name][0], rtol=0, atol=0)
    objectives = problem.objective(batch)
    for s in range(3):
        network = Network(architecture, {k: v[s] for k, v in batch.items()})
        assert problem.objective(network) == pytest.approx(float(objectives[s]), rel=1e-12)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_networks_survive_saving(case, tmp_path):
    network = Network(case.problem.architecture, one(case.problem))
    again = Network.load(network.save(tmp_path / "network"))
    assert again.architecture == network.architecture
    torch.testing.assert_close(again(case.problem.X), network(case.problem.X), rtol=0, atol=0)


def test_broken_files_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="no saved network"):
        Network.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", hidden=np.ones(2))
    with pytest.raises(BadInput, match="no saved network"):
        Network.load(tmp_path / "b.npz")


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10.0))
def test_symmetries_leave_the_convex_point_alone(seed, scale):
    """Permuting neurons, rescaling (w, a) → (γw, a/γ) and splitting a neuron change nothing."""
    problem = random_problem(TwoLayer(), seed)
    parameters = one(problem, 4, seed)
    hidden, output = parameters["hidden"], parameters["output"]
    order = torch.tensor([2, 0, 3, 1])
    other = {
        "hidden": torch.vstack([hidden[order] * scale, hidden[:1]]),
        "output": torch.cat([output[order] / scale, output[:1]]),
    }
    other["output"][1] *= 0.25  # neuron 0, split into a quarter and three quarters
    other["output"][4] *= 0.75
    here, there = (problem.architecture.lift(problem, p) for p in (parameters, other))
    assert there.value == pytest.approx(here.value, rel=1e-10)
    np.testing.assert_allclose(
        here.program.gauge.value(here.theta), there.program.gauge.value(there.theta), rtol=1e-9
    )


def test_an_inactive_pure_bias_neuron_becomes_the_output_constant():
    problem = random_problem(TwoLayer(bias="free"))
    parameters = {
        "hidden": torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, -1.0]]).double(),
        "output": torch.tensor([1.5, 1.0]).double(),
        "constant": torch.tensor(0.5).double(),
    }
    point = problem.architecture.lift(problem, parameters)
    assert point.constant == pytest.approx([3.5])
    assert len(point.theta) == 0


def test_names_and_options_are_checked():
    assert architectures.get("two_layer_relu", bias="free") == TwoLayer(bias="free")
    with pytest.raises(BadInput, match="Did you mean 'two_layer_relu'"):
        architectures.get("two_layer_rellu")
    with pytest.raises(BadInput, match="Did you mean 'bias'"):
        architectures.get("two_layer_relu", bais="free")
    with pytest.raises(BadInput, match="Did you mean 'penalised'"):
        TwoLayer(bias="penalized")
