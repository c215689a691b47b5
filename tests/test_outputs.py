"""Gated networks with several outputs: two regularisers, their programs and bridges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import CASES

from landscape import arrangements, train
from landscape.architectures import GatedReLU, TwoLayer
from landscape.architectures.base import ConvexPoint
from landscape.bounds import beta_max, lower_bound
from landscape.certificate import certify, judge
from landscape.errors import BadInput
from landscape.network import Network
from landscape.problem import Problem
from landscape.programs import Euclidean
from landscape.solvers import Solution, reference, solve
from landscape.solvers.group_lasso import minimise
from landscape.solvers.proximal import NUCLEAR

BIASES = ["none", "penalised", "free"]
LOSSES = ["squared", "logistic", "huber"]
OUTPUTS = ["nuclear", "per_class"]


def several(outputs, n=16, d=2, c=3, P=6, loss="squared", bias="none", share=0.1):
    """A problem with c outputs made by shared neurons, and some patterns."""
    rng = np.random.default_rng(2)
    X = rng.standard_normal((n, d))
    Y = np.maximum(X @ rng.standard_normal((d, 4)), 0) @ rng.standard_normal((4, c))
    Y += 0.1 * rng.standard_normal((n, c))
    Y = np.sign(Y) if loss == "logistic" else Y
    architecture = GatedReLU(bias=bias, outputs=outputs)
    problem = Problem(X, Y, 1.0, loss=loss, architecture=architecture)
    patterns = arrangements.sample(problem.design, P, seed=0)
    return problem.replace(beta=share * beta_max(problem, patterns)), patterns


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_fast_solver_reference_dual_and_network_agree(outputs, loss, bias):
    problem, patterns = several(outputs, loss=loss, bias=bias)
    program = problem.architecture.program(problem, patterns)
    found, slow = minimise(program, 1e-8), reference.solve_primal(program)
    assert found.value == pytest.approx(slow.value, rel=1e-7)
    assert found.gap <= 2e-8
    assert found.theta.shape == slow.theta.shape == (len(patterns), program.atoms.dimension, 3)
    assert found.nu.shape == slow.nu.shape == (16, 3)
    network = problem.architecture.lower(ConvexPoint(program, found.theta, found.constant))
    assert float(problem.objective(network)) == pytest.approx(found.value, rel=1e-12)
    assert problem.architecture.lift(problem, network).value == pytest.approx(found.value)
    bound = lower_bound(program, found.nu)[0]
    assert bound <= slow.value * (1 + 1e-9)
    if loss != "logistic":  # the reference's dual values of entropies can leave their domain
        dual, nu = reference.solve_dual(program)
        assert dual == pytest.approx(slow.value, rel=1e-6)
        assert lower_bound(program, nu)[0] == pytest.approx(slow.value, rel=1e-5)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("count", [0, 2])
def test_zero_blocks_are_no_neurons(outputs, bias, count):
    problem, patterns = several(outputs, bias=bias)
    program = problem.architecture.program(problem, patterns[:count])
    nothing = problem.architecture.lower(ConvexPoint(program, *program.zero()))
    assert len(nothing["hidden"]) == 0
    zero = problem.loss.at_zero(problem.y)
    assert float(problem.objective(nothing)) == pytest.approx(zero, rel=1e-12)


def test_per_class_is_one_program_for_each_class():
    problem, patterns = several("per_class")
    program = problem.architecture.program(problem, patterns)
    apart = 0.0
    for column in problem.y.T:
        one = Problem(problem.X, column, problem.beta, architecture=GatedReLU())
        apart += minimise(one.architecture.program(one, patterns)).value
    assert minimise(program).value == pytest.approx(apart, rel=1e-9)
    assert reference.solve_primal(program).value == pytest.approx(apart, rel=1e-7)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_one_column_is_the_scalar_program(outputs):
    problem, patterns = several(outputs, c=1)
    program = problem.architecture.program(problem, patterns)
    scalar = problem.replace(y=problem.y[:, 0], architecture=GatedReLU())
    expected = minimise(scalar.architecture.program(scalar, patterns)).value
    assert minimise(program, 1e-9).value == pytest.approx(expected, rel=1e-8)
    assert reference.solve_primal(program).value == pytest.approx(expected, rel=1e-7)


def test_shared_neurons_are_cheaper():
    """‖V‖_* ≤ Σ ‖columns‖, with equality only for orthogonal columns."""
    values = {}
    for outputs in OUTPUTS:
        problem, patterns = several(outputs)
        problem = problem.replace(beta=0.5)
        values[outputs] = minimise(problem.architecture.program(problem, patterns), 1e-8).value
    assert values["nuclear"] < 0.99 * values["per_class"]


def test_identity_data_in_closed_form():
    """On X = I, n = c, with the open pattern: soft thresholding of the singular values of Y."""
    Y = np.diag([3.0, 2.0, 0.5]) @ np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2 + 1)[0]
    architecture = GatedReLU(outputs="nuclear")
    problem = Problem(np.eye(3), Y, 1.0, architecture=architecture)
    program = architecture.program(problem, arrangements.of(np.ones((1, 3)), np.eye(3)))
    optimum = (2.0 + 0.5) + (1.0 + 0.5) + 0.125
    assert minimise(program, 1e-10).value == pytest.approx(optimum, rel=1e-10)
    solution = solve(problem, arrangements.of(np.ones((1, 3)), np.eye(3)))
    assert solution.objective == pytest.approx(optimum, rel=1e-8)
    assert solution.active == 2


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_trained_networks_stay_above_and_reach_the_optimum(outputs):
    problem, patterns = several(outputs, share=0.3)
    solution = solve(problem, patterns, tolerance=1e-6)
    gates = torch.as_tensor(np.repeat(patterns.gates, 3, axis=0))  # three neurons a pattern
    start = problem.architecture.initial(problem, len(gates), [0, 1])
    start["gate"] = gates.expand(2, -1, -1).clone()
    runs = train(problem, start=start, seeds=[0, 1], optimizer="adam", steps=3000)
    best = float(np.min(runs.objectives))
    assert best >= solution.certificate.dual
    assert best == pytest.approx(solution.objective, rel=2e-2 if outputs == "per_class" else 1e-4)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_networks_lift_to_points_that_cost_no_more(outputs, bias):
    problem, _ = several(outputs, bias=bias)
    for seed in range(3):
        batch = problem.architecture.initial(problem, 7, [seed])
        network = {k: v[0] for k, v in batch.items()}
        if bias == "free":
            network["constant"] = torch.randn(7, 3, dtype=torch.float64)
        network["gate"][1] = network["gate"][0]  # two neurons of one pattern
        point = problem.architecture.lift(problem, network)
        fit = problem.architecture.forward(network, torch.as_tensor(problem.X))
        np.testing.assert_allclose(point.program.fit(point.theta, point.constant), fit, atol=1e-12)
        assert point.value <= float(problem.objective(network)) * (1 + 1e-12)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_stationarity_is_zero_at_the_optimum_only(outputs):
    problem, patterns = several(outputs)
    program = problem.architecture.program(problem, patterns)
    found = minimise(program, 1e-10)
    network = problem.architecture.lower(ConvexPoint(program, found.theta, found.constant))
    good = judge(problem, network, [], lambda nu: _bound(program, nu))
    assert good.stationarity <= 1e-3
    assert good.balance <= 1e-12
    network["output"] = network["output"] * 1.1
    bad = judge(problem, network, [], lambda nu: _bound(program, nu))
    assert bad.stationarity >= 1e-2
    assert bad.balance == pytest.approx(1 - 1 / 1.1)
    assert bad.relative_gap > 1e-3


def _bound(program, nu):
    from landscape.bounds import bound_over

    return bound_over(program, nu)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_a_wrong_norm_is_noticed(outputs):
    """The other norm's bound and optimum do not fit the network."""
    problem, patterns = several(outputs)
    other = problem.replace(architecture=GatedReLU(outputs=OUTPUTS[outputs == "nuclear"]))
    own = solve(problem, patterns, tolerance=1e-6)
    wrong = solve(other, patterns, tolerance=1e-6)
    assert abs(own.objective - wrong.objective) > 1e-2 * own.objective


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_solution_network_certificate_and_files(outputs, tmp_path):
    problem, patterns = several(outputs)
    solution = solve(problem, patterns, tolerance=1e-6)
    network = solution.network()
    assert network(problem.X).shape == (16, 3)
    again = certify(problem, network, patterns=patterns, dual=solution.dual)
    assert again.relative_gap <= 1e-6
    assert certify(problem, network, patterns=patterns, dual=[solution.dual]).dual == again.dual
    loaded = Solution.load(solution.save(tmp_path / "solution"), problem)
    assert loaded.objective == pytest.approx(solution.objective, rel=1e-9)
    copy = Network.load(network.save(tmp_path / "network"))
    assert copy.architecture == problem.architecture
    assert torch.equal(copy(problem.X), network(problem.X))
    warm = minimise(
        solution.point.program, 1e-6, start=(solution.point.theta, solution.point.constant)
    )
    assert warm.value == pytest.approx(solution.objective, rel=1e-6)


def test_singular_values_are_shrunk_exactly():
    """The proximal map against its optimality condition: (θ − V)/by is a subgradient at V."""
    theta = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by = torch.linspace(0.1, 3.0, 5, dtype=torch.float64)
    V = NUCLEAR.shrink(theta, by)
    slope = (theta - V) / by[:, None, None]
    assert bool((NUCLEAR.polar(slope) <= 1 + 1e-12).all())
    torch.testing.assert_close((slope * V).sum((1, 2)), NUCLEAR.value(V))


def test_one_output_is_named_as_before():
    architecture = GatedReLU(bias="free")
    assert architecture.config() == {"name": "gated_relu", "bias": "free"}
    assert architecture.label == "gated_relu(bias=free)"
    assert GatedReLU(outputs="nuclear").config()["outputs"] == "nuclear"
    assert TwoLayer().label == "two_layer_relu(bias=none)"
    gated = next(case for case in CASES if case.name == "gated-eye").problem
    program = gated.architecture.program(gated, arrangements.enumerate(gated.design))
    assert isinstance(program.gauge, Euclidean)


def test_shapes_are_refused_with_advice():
    X, Y = np.eye(3), np.eye(3)
    with pytest.raises(BadInput, match="GatedReLU\\(outputs='nuclear'\\)"):
        Problem(X, Y, 0.1, architecture=GatedReLU())
    with pytest.raises(BadInput, match="samples × outputs"):
        Problem(X, Y[0], 0.1, architecture=GatedReLU(outputs="nuclear"))
    with pytest.raises(BadInput, match="per_class"):
        GatedReLU(outputs="per_clas")  # the misspelling is the test
    with pytest.raises(BadInput, match="one output"):
        Problem(X, Y, 0.1)
    assert replace(GatedReLU(), outputs="nuclear").outputs == "nuclear"
