"""Networks as modules: what is trained, what shapes say, files and copies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import CASES, OUTPUT_CASES, UNIT_CASES

from landscape import Problem
from landscape.architectures import GatedReLU, TwoLayer
from landscape.errors import BadInput
from landscape.network import Network, read, several, shapes

EVERY = [*CASES, *OUTPUT_CASES, *UNIT_CASES]


def made(architecture, width=3, outputs=0, n=6, d=2):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((n, outputs) if outputs else n)
    problem = Problem(rng.standard_normal((n, d)), y, 0.1, architecture=architecture)
    batch = architecture.initial(problem, width, [5])
    return problem, {k: v[0] for k, v in batch.items()}


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_the_width_is_the_only_number_that_shapes_leave_open(case):
    """Whatever the width, also one that equals another size, shapes are those of initial ones."""
    architecture = case.problem.architecture
    wanted = shapes(case.problem)
    for width in (1, 2, 3, 7):
        found = {k: v[0] for k, v in architecture.initial(case.problem, width, [0]).items()}
        assert set(found) == set(wanted)
        sizes = [
            (s, w)
            for k, shape in wanted.items()
            for s, w in zip(found[k].shape, shape, strict=True)
        ]
        assert all(s == w for s, w in sizes if w is not None)
        assert len({s for s, w in sizes if w is None}) == 1
        parameters = read(case.problem, found)
        assert all(torch.equal(parameters[k], found[k].double()) for k in found)


def test_gates_are_kept_as_they_are_and_weights_are_trained():
    problem, values = made(GatedReLU())
    network = Network(problem.architecture, values)
    assert set(dict(network.named_parameters())) == {"hidden", "output"}
    assert set(dict(network.named_buffers())) == {"gate"}
    assert set(network.values) == set(values)
    network(problem.X).square().sum().backward()
    assert network.hidden.grad is not None and network.gate.grad is None
    np.testing.assert_array_equal(network.gates(), values["gate"].numpy())


def test_a_network_owns_its_numbers_and_what_is_read_is_a_copy():
    problem, values = made(TwoLayer("free"))
    network = Network(problem.architecture, values)
    before = {k: v.clone() for k, v in values.items()}
    values["hidden"].zero_()
    copy = read(problem, network)
    copy["output"].zero_()
    assert all(torch.equal(network.values[k].detach(), before[k]) for k in before)
    assert not any(v.requires_grad for v in copy.values())


@pytest.mark.parametrize("real", [torch.float32, torch.float64])
def test_inputs_take_the_precision_of_the_weights(real):
    problem, values = made(TwoLayer("penalised"))
    network = Network(problem.architecture, {k: v.to(real) for k, v in values.items()})
    W, a = (values[k].numpy() for k in ("hidden", "output"))
    X = np.random.default_rng(1).standard_normal((4, 2))
    theirs = np.maximum(X @ W[:, :2].T + W[:, 2], 0) @ a
    for inputs in (X, torch.as_tensor(X), X.astype(np.float32)):
        found = network(inputs)
        assert found.dtype == real and found.shape == (4,)
        np.testing.assert_allclose(found.detach(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", OUTPUT_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_several_outputs_are_rows_of_the_samples(case, n):
    """Also where there are as many samples as outputs, or one: a row is f of its own sample."""
    architecture = case.problem.architecture
    values = {k: v[0] for k, v in architecture.initial(case.problem, 4, [0]).items()}
    network = Network(architecture, values)
    X = np.random.default_rng(2).standard_normal((n, 3))
    found = network(X)
    assert found.shape == (n, 2)
    for row, x in zip(found, X, strict=True):
        torch.testing.assert_close(network(x[None])[0], row, rtol=1e-12, atol=1e-14)


def test_one_network_and_many_are_told_apart():
    problem, values = made(TwoLayer())
    network = Network(problem.architecture, values)
    for one in (network, values):
        assert several(one)[1] is True and several(one)[0][0] is one and len(several(one)[0]) == 1
        for many in ([one], (one,), iter([one])):
            found, alone = several(many)
            assert found == [one] and alone is False
    assert several([]) == ([], False)
    for wrong in ("network", 3, None):
        with pytest.raises(BadInput, match=f"network is a {type(wrong).__name__}"):
            several(wrong)


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_a_saved_network_says_what_it_is_and_trains_the_same(tmp_path, bias):
    problem, values = made(TwoLayer(bias, "leaky_relu"))
    values = {k: v[:0] if v.ndim else v for k, v in values.items()}
    again = Network.load(Network(problem.architecture, values).save(tmp_path / "width_0.5"))
    assert again.architecture == problem.architecture
    assert {k: tuple(v.shape) for k, v in again.values.items()} == {
        k: tuple(v.shape) for k, v in values.items()
    }
    assert all(p.requires_grad for p in again.parameters())
    assert float(problem.objective(again)) == pytest.approx(problem.loss.at_zero(problem.y))
