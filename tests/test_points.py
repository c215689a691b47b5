"""Points of the landscape: when two networks are one point, and points with one block more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stationary import one_neuron, small, stationary

from landscape.architectures import GatedReLU
from landscape.problem import Problem
from landscape.stationarity import Classifier, distinct
from landscape.stationarity.points import point_fit, with_block


def test_points_are_one_up_to_permutation_rescaling_and_splitting():
    problem = small(2)
    network = stationary(problem, widths=(5,), seeds=[1])[0]
    hidden, output = network.values["hidden"], network.values["output"]
    same = [
        {"hidden": hidden.flip(0), "output": output.flip(0)},
        {"hidden": 2.0 * hidden, "output": 0.5 * output},
        {
            "hidden": torch.cat([hidden, hidden[:1]]) * 0.5**0.5,
            "output": torch.cat([output, output[:1]]) * 2**0.5,
        },
    ]
    same[2]["hidden"][1:-1] *= 2**0.5
    same[2]["output"][1:-1] /= 2**0.5
    same[2]["output"][[0, -1]] *= 0.5
    other = {"hidden": hidden * 1.001, "output": output}
    judge = Classifier(problem)
    points = [judge(one) for one in (network, *same, other)]
    group, first = distinct(points)
    assert group.tolist() == [0, 0, 0, 0, 1]
    assert first.tolist() == [0, 4]


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_splitting_a_neuron_on_a_kink_makes_no_other_point(bias):
    """The products of its copies are rounding, of either sign."""
    problem, rng, kinks = small(2, n=20, d=3, bias=bias), np.random.default_rng(0), 0
    judge = Classifier(problem)
    for network in stationary(problem, widths=(4, 10)):
        values = {k: v.detach() for k, v in network.values.items()}
        share = torch.tensor(rng.dirichlet(np.ones(3), len(values["output"]))).sqrt()
        size = torch.tensor(np.exp(rng.standard_normal(share.shape)))
        split = {
            **values,
            "hidden": (values["hidden"][:, None] * (share * size)[:, :, None]).flatten(0, 1),
            "output": (values["output"][:, None] * share / size).flatten(),
        }
        one, other = judge(network), judge(split)
        assert distinct([one, other])[0].tolist() == [0, 0]
        assert (one.neurons, one.kinks) == (other.neurons, other.kinks)
        kinks += one.kinks
    assert kinks >= 10


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_signs_and_constants_tell_points_apart_in_any_units(size):
    base = small(2, bias="free")
    problem = base.replace(y=size * base.y, beta=size * base.beta)
    judge = Classifier(problem)
    u = np.array([1.0, 0.5, 0.2]) * size
    values = {**one_neuron(u), "constant": torch.tensor(0.3 * size)}
    turned = {**values, "output": -values["output"]}
    shifted = {**values, "constant": torch.tensor(0.4 * size)}
    points = [judge(one) for one in (values, turned, shifted, values)]
    assert distinct(points)[0].tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("bias", ["none", "free"])
def test_gates_tell_points_apart(bias):
    base = small(4)
    problem = Problem(base.X, base.y, 0.2, architecture=GatedReLU(bias))
    start = {k: v[0] for k, v in problem.architecture.initial(problem, 3, [0]).items()}
    if bias == "free":
        start["constant"] = torch.tensor([0.1, 0.2, 0.3]).double()
    other = {**start, "gate": -start["gate"]}
    order = {k: v.flip(0) for k, v in start.items()}
    some = {k: v.clone() for k, v in start.items()}
    some["hidden"][0] = 0.0
    judge = Classifier(problem)
    points = [judge(one) for one in (start, other, order, some)]
    assert distinct(points)[0].tolist() == [0, 1, 0, 2]
    if bias == "free":
        start["constant"][0] += 1e-3
        assert distinct([points[0], judge(start)])[0].tolist() == [0, 1]


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_point_with_one_more_block_puts_out_one_more_neuron(bias, sign):
    """Also from a point of no neurons, and where the new one shares a pattern with another."""
    problem, rng = small(6, bias=bias), np.random.default_rng(0)
    for width in (0, 3):
        values = {k: v[0] for k, v in problem.architecture.initial(problem, 3, [0]).items()}
        values = {k: v[:width] if v.ndim else v + 0.3 for k, v in values.items()}
        point = problem.architecture.lift(problem, values)
        units = [rng.standard_normal(problem.design.shape[1]), *point.theta[:1]]
        for u in units:
            more = with_block(point, u, sign)
            assert len(more.theta) == len(point.theta) + 1 and more.program.atoms.signs[-1] == sign
            added = sign * np.maximum(problem.design @ u, 0.0)
            np.testing.assert_allclose(point_fit(more) - point_fit(point), added, atol=1e-12)
            kept = np.where(point.program.gauge.penalised, u, 0.0)
            paid = float(problem.loss.value(point_fit(more), problem.y)) - float(
                problem.loss.value(point_fit(point), problem.y)
            )
            paid += problem.beta * np.linalg.norm(kept)
            assert more.value - point.value == pytest.approx(paid, rel=1e-9, abs=1e-12)
            assert more.program.violation(more.theta) <= 1e-12
            network = problem.architecture.lower(more)
            assert float(problem.objective(network)) == pytest.approx(more.value, rel=1e-12)
