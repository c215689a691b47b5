"""Standard deep networks: two layers, the relaxed bound of more, the bridge on features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape import beta_max, certify, solve, train
from landscape.architectures import StandardDeep, TwoLayer
from landscape.bounds import EXACT, FEATURES, RELAXED, AllPatterns
from landscape.closed_forms import channels, optimum
from landscape.envelope import Envelope
from landscape.errors import BadInput
from landscape.network import Network
from landscape.pricing.layered import Rays, layered_supremum
from landscape.problem import Problem
from landscape.solvers import layered

DEEP = [StandardDeep(depth, regulariser=r) for depth in (3, 4) for r in ("decay", "power")]
LABELS = [one.label for one in DEEP]


def random_problem(architecture, seed=0, n=8, d=2, share=0.05):
    """A teacher of three layers and noise; β is a share of what Σ|y_k| ‖x_k‖ allows."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    hidden = np.maximum(
        np.maximum(X @ rng.standard_normal((d, 4)), 0) @ rng.standard_normal((4, 4)), 0
    )
    y = hidden @ rng.standard_normal(4) / 2 + 0.3 * rng.standard_normal(n)
    beta = share * float(np.abs(y) @ np.linalg.norm(X, axis=1)) / n**0.5
    return Problem(X, y, beta, architecture=architecture)


def one(problem, width=5, seed=0):
    batch = problem.architecture.initial(problem, width, [seed])
    return {k: v[0] for k, v in batch.items()}


def test_two_layers_are_the_two_layer_architecture():
    for bias in ("none", "penalised"):
        deep = random_problem(StandardDeep(2, bias=bias), n=5)
        plain = deep.replace(architecture=TwoLayer(bias=bias))
        a, b = solve(deep), solve(plain)
        assert a.objective == pytest.approx(b.objective, rel=1e-9)
        assert a.certificate.scope == EXACT
        assert beta_max(deep) == pytest.approx(beta_max(plain), rel=1e-9)
        own = one(deep)
        assert float(deep.objective(own)) == pytest.approx(float(plain.objective(own)), rel=1e-14)
        for name, value in one(plain).items():
            torch.testing.assert_close(own[name], value, rtol=0, atol=0)
        certificate = certify(deep, own)
        assert certificate.dual == pytest.approx(certify(plain, own).dual, rel=1e-12)


@pytest.mark.parametrize("architecture", DEEP, ids=LABELS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), width=st.integers(1, 7))
def test_lift_then_lower_keeps_the_fit_and_never_raises_the_objective(architecture, seed, width):
    problem = random_problem(architecture, seed)
    parameters = one(problem, width, seed)
    point = architecture.lift(problem, parameters)
    fit = architecture.forward(parameters, torch.as_tensor(problem.X)).numpy()
    np.testing.assert_allclose(point.program.fit(point.theta, point.constant), fit, atol=1e-10)
    before, after = float(problem.objective(parameters)), architecture.lower(point)
    assert point.value <= before * (1 + 1e-12)
    assert float(problem.objective(after)) == pytest.approx(point.value, rel=1e-10)


def test_trained_networks_never_go_below_the_bound():
    """Of two instances, solve sharpens the bound."""
    gaps = []
    for seed in range(8):
        problem = random_problem(DEEP[seed % 4], seed, n=7)
        runs = train(problem, width=6, seeds=range(4), steps=100, learning_rate=0.03)
        certificate = certify(problem, runs.best)
        assert certificate.scope == RELAXED
        assert 0 <= certificate.dual <= runs.objectives.min()
        if seed not in (3, 4):
            continue
        solution = solve(problem, start=runs)
        assert certificate.dual * (1 - 1e-9) <= solution.certificate.dual <= solution.objective
        assert solution.objective <= runs.objectives.min() * (1 + 1e-12)
        assert problem.objective(solution.network()) == pytest.approx(solution.objective, rel=1e-12)
        gaps.append(solution.certificate.relative_gap)
    assert np.median(gaps) < 0.5


def unit(problem, rng, width=3, count=100):
    """Random networks of unit layers."""
    batch = problem.architecture.initial(
        problem, width, [int(s) for s in rng.integers(0, 10**6, count)]
    )
    parts = {}
    for name, value in batch.items():
        axes = (-2, -1) if name != "output" else (-1,)
        parts[name] = value / value.square().sum(axes, keepdim=True).sqrt()
    return parts


def ascended(problem, nu, rng, steps=60):
    """Networks of unit layers that climb νᵀg, and the highest price seen."""
    parts = {k: v.requires_grad_(True) for k, v in unit(problem, rng).items()}
    X, pull, best = torch.as_tensor(problem.X), torch.as_tensor(nu), 0.0
    for _ in range(steps):
        values = (problem.architecture.forward(parts, X) * pull).sum(-1).abs()
        best = max(best, float(values.detach().max()))
        slopes = torch.autograd.grad(values.sum(), list(parts.values()))
        for name, slope in zip(list(parts), slopes, strict=True):
            axes = (-2, -1) if name != "output" else (-1,)
            step = slope / slope.square().sum(axes, keepdim=True).sqrt().clamp_min(1e-300)
            moved = parts[name].detach() + 0.3 * step
            moved = moved / moved.square().sum(axes, keepdim=True).sqrt()
            parts[name] = moved.requires_grad_(True)
    return best


def test_no_network_of_unit_layers_prices_above_the_bound():
    """At random dual points, and at the optima of two layers, where deeper networks price more."""
    rng, above_two = np.random.default_rng(0), 0
    for seed in range(8):
        problem = random_problem(StandardDeep(3 + seed // 2 % 3), seed, n=7)
        two = problem.replace(architecture=TwoLayer())
        nu = solve(two).dual if seed % 2 else rng.standard_normal(7)
        bound = layered_supremum(Rays(problem.X), nu, 20_000)
        found = ascended(problem, nu, rng)
        assert found <= bound.bound * (1 + 1e-12)
        price = AllPatterns(two, 20_000)(nu).ratio * problem.beta
        assert bound.bound >= price * (1 - 1e-9)
        above_two += found > price * 1.001
    assert above_two  # the price of two layers would be no bound


def test_the_bound_is_attained_where_the_text_says():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((9, 2))
    one_sign = layered_supremum(Rays(X), np.abs(rng.standard_normal(9)), 20_000)
    line = layered_supremum(
        Rays(rng.standard_normal((9, 1)) * [[3.0, 4.0]]), rng.standard_normal(9), 20_000
    )
    rotation, nu = np.linalg.qr(rng.standard_normal((5, 5)))[0], rng.standard_normal(5)
    white = layered_supremum(Rays(2.0 * rotation), nu, 20_000)
    for found in (one_sign, line, white):
        assert found.exact
        assert found.bound == pytest.approx(found.attained, rel=2e-4)
    sizes = [np.linalg.norm(np.maximum(side * nu, 0)) for side in (1, -1)]
    assert white.attained == pytest.approx(2 * max(sizes), rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), degree=st.sampled_from([0.5, 2 / 3, 0.4]))
def test_the_envelope_is_the_least_of_lines_and_penalty(seed, degree):
    rng = np.random.default_rng(seed)
    problem = random_problem(TwoLayer(), seed)
    y, beta = problem.y, 0.3
    envelope = Envelope(problem.loss, y, beta, degree)
    points = [(rng.uniform(0, 1) * y, rng.uniform(0.1, 2)) for _ in range(5)]
    for nu, price in points:
        envelope.add(nu, price)
    t = np.append(0.0, np.geomspace(1e-6, 1e4, 20_000))
    lines = np.zeros_like(t)
    for nu, price in points:
        for s in np.linspace(0, 2, 129):
            lines = np.maximum(lines, s * nu @ y - 0.5 * s**2 * nu @ nu - t * s * price)
    brute = float((lines + beta / degree * t**degree).min())
    value, at, _ = envelope.least()
    assert value <= brute + 1e-12
    assert value == pytest.approx(brute, rel=5e-3)
    assert at >= 0


def _line(seed):
    return np.random.default_rng(seed).standard_normal((6, 1)) * np.array([[0.6, 0.8]])


def _orthogonal(seed):
    return 1.5 * np.linalg.qr(np.random.default_rng(seed).standard_normal((5, 5)))[0][:4]


@pytest.mark.parametrize("regulariser", ["decay", "power"])
@pytest.mark.parametrize("data", [_line, _orthogonal])
def test_training_reaches_the_closed_forms_and_no_further(data, regulariser):
    X = data(3)
    y = np.random.default_rng(4).standard_normal(len(X))
    problem = Problem(X, y, 0.05, architecture=StandardDeep(3, regulariser=regulariser))
    least = optimum(problem)
    runs = train(problem, width=4, seeds=range(4), steps=200, learning_rate=0.03)
    runs = train(problem, start=runs.parameters, steps=60, optimizer="lbfgs")
    assert runs.objectives.min() >= least * (1 - 1e-9)
    assert runs.objectives.min() == pytest.approx(least, rel=1e-5)


def test_the_bound_is_sharp_for_outputs_of_one_sign_and_parallel_for_two():
    for data, depth in ((_line, 3), (_orthogonal, 4)):
        X = data(5)
        y = np.abs(np.random.default_rng(6).standard_normal(len(X)))
        for regulariser in ("decay", "power"):
            problem = Problem(X, y, 0.05, architecture=StandardDeep(depth, regulariser=regulariser))
            source = AllPatterns(problem, 20_000)
            bound = layered.bound(problem, source, 0.05 * y).value
            assert bound <= optimum(problem)
            assert bound == pytest.approx(optimum(problem), rel=5e-3)
    problem = Problem(
        [[1.0], [-1.0]], [1.0, -1.0], 1e-3, architecture=StandardDeep(3, regulariser="power")
    )
    assert list(channels(problem).signs * channels(problem).signs[0]) == [1, -1]
    assert optimum(problem) == pytest.approx(2**1.5 * 1e-3, rel=5e-3)
    bound = layered.bound(problem, AllPatterns(problem, 20_000), 1e-3 * problem.y).value
    assert bound == pytest.approx(2e-3, rel=1e-2)  # what two parallel chains pay


def test_closed_forms_refuse_other_problems():
    with pytest.raises(BadInput, match="one line"):
        optimum(random_problem(StandardDeep(3)))
    with pytest.raises(BadInput, match="at most three layers"):
        optimum(Problem([[1.0], [-1.0]], [1.0, -1.0], 0.1, architecture=StandardDeep(4)))
    with pytest.raises(BadInput, match="squared loss"):
        optimum(Problem(_line(0), _line(0)[:, 0], 0.1, "huber", StandardDeep(3)))


def test_two_layers_are_asked_for_units_and_deeper_ones_for_networks():
    problem = random_problem(StandardDeep(3))
    with pytest.raises(BadInput, match="start is missing"):
        solve(problem)
    with pytest.raises(BadInput, match="no convex program"):
        solve(problem, patterns=np.ones((1, 8), dtype=bool))
    with pytest.raises(BadInput, match="those of features"):
        problem.architecture.gates(one(problem))
    with pytest.raises(BadInput, match="depth"):
        StandardDeep(1)
    with pytest.raises(BadInput, match="Did you mean 'power'"):
        StandardDeep(3, regulariser="powr")


def test_a_certificate_of_a_part_says_so():
    problem = random_problem(StandardDeep(3))
    part = certify(problem, one(problem), effort="low")
    assert part.scope == f"{FEATURES}: given patterns"
    assert "on its features" in str(part)
    assert "optimum ≥" not in str(part)
    assert certify(problem, one(problem)).scope == RELAXED


def test_networks_are_read_padded_and_saved(tmp_path):
    problem = random_problem(StandardDeep(4, bias="penalised"))
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 5, bias=False), torch.nn.ReLU(),
        torch.nn.Linear(5, 4, bias=False), torch.nn.ReLU(), torch.nn.Linear(4, 1, bias=False),
    ).double()  # fmt: skip
    network = Network(problem.architecture, problem.architecture.read(module))
    X = torch.as_tensor(problem.X)
    torch.testing.assert_close(network(X), module(X)[:, 0])
    weights = [w.detach() for w in module.parameters()]
    decay = 0.5 * sum(float((w**2).sum()) for w in weights)
    assert problem.architecture.penalty(network.values).item() == pytest.approx(decay)
    again = Network.load(network.save(tmp_path / "network"))
    torch.testing.assert_close(again(X), network(X), rtol=0, atol=0)
    runs = train(problem, width=[2, 4], seeds=[0], steps=5)
    assert runs[0].values["inner"].shape == (2, 2, 2)
    assert problem.objective(runs[0]) == pytest.approx(runs.objectives[0])


@pytest.mark.parametrize("architecture", DEEP, ids=LABELS)
def test_permuting_neurons_and_rescaling_layers(architecture):
    """A permutation of hidden neurons changes nothing; rescaled layers keep f and change R."""
    problem = random_problem(architecture)
    parameters = one(problem)
    order = torch.tensor([3, 1, 4, 0, 2])
    inner = parameters["inner"].clone()
    inner[0] = inner[0][:, order]
    other = {**parameters, "hidden": parameters["hidden"][order], "inner": inner}
    assert float(problem.objective(other)) == pytest.approx(float(problem.objective(parameters)))
    scaled = {**parameters, "hidden": 2 * parameters["hidden"], "output": parameters["output"] / 2}
    X = torch.as_tensor(problem.X)
    torch.testing.assert_close(architecture.forward(scaled, X), architecture.forward(parameters, X))
    if (
        architecture.regulariser == "power"
    ):  # the sub-problem does not see the scale of its features
        a, b = (architecture.lift(problem, p).value for p in (parameters, scaled))
        assert a == pytest.approx(b, rel=1e-10)


def test_a_network_of_zeros_keeps_a_neuron_and_lifts():
    """Weight decay may kill every neuron: what is left is zero, and still a network."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((8, 2)), rng.standard_normal(8)
    problem = Problem(X, y, 0.1, architecture=StandardDeep(depth=3))
    start = problem.architecture.initial(problem, 4, [0])
    zero = problem.architecture.without_padding({k: 0.0 * v[0] for k, v in start.items()})
    point = problem.architecture.lift(problem, zero)
    assert point.value == pytest.approx(0.5 * float(problem.y @ problem.y))
