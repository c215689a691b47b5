"""Verdicts on networks against enumeration, Clarabel and points constructed to mislead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import planted
from stationary import one_neuron, small, stationary

from landscape import arrangements, classify, polish, solve, train
from landscape.architectures import GatedReLU
from landscape.clarke import settled_masks, ties
from landscape.errors import BadInput
from landscape.network import Network
from landscape.pricing import prices, resolved_prices
from landscape.problem import Problem
from landscape.solvers import reference
from landscape.stationarity import (
    CLARKE,
    GLOBAL,
    MOVING,
    SPURIOUS,
    UNDECIDED,
    Classifier,
    both_signs,
    resolved,
)
from landscape.stationarity.escapes import off_a_kink


def only_clarke():
    """Zero Clarke residual, yet one side of the kink descends."""
    X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    w, nu = np.array([1.0, 0.0]), np.array([0.3, 0.4, 0.2])
    problem = Problem(X, np.maximum(X @ w, 0) + nu, 0.5)
    values = {"hidden": torch.tensor([[1.0, 0.0]]).double(), "output": torch.ones(1).double()}
    return problem, Network(problem.architecture, values)


def test_a_point_that_is_only_clarke_stationary_is_caught_with_a_way_down():
    problem, network = only_clarke()
    found = classify(problem, network)
    assert found.verdict == CLARKE
    assert found.objective == pytest.approx(0.645)
    assert found.clarke <= 1e-15
    assert found.own == pytest.approx(0.6154, abs=5e-5)
    judge = Classifier(problem)
    escape = judge.escape(network)
    assert escape is not None and escape.objective < found.objective
    kink = off_a_kink(problem, found.point, found.nu, 1e-7)
    assert kink is not None and kink.kind == "kink"
    assert problem.objective(kink.network) == pytest.approx(kink.objective, rel=1e-14)


def many_only_clarke(seed, share):
    """Construct a network of one neuron on a kink: choose ν, then the targets that give it."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((12, 3))
    w = rng.standard_normal(3)
    X[0] -= (X[0] @ w) / (w @ w) * w
    on = X @ w > 1e-9
    nu = rng.standard_normal(12)
    nu[0] = abs(nu[0])
    beta = 0.5
    # Solve sum over on of ν_k x_k + share ν_0 x_0 = β w/‖w‖ for ν on the open samples.
    open_ = np.flatnonzero(on)
    target = beta * w / np.linalg.norm(w) - share * nu[0] * X[0]
    nu[open_] = np.linalg.lstsq(X[open_].T, target)[0]
    problem = Problem(X, np.maximum(X @ w, 0) + nu, beta)
    return problem, Network(problem.architecture, one_neuron(w))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_constructed_clarke_points_are_caught_and_left(seed, share):
    problem, network = many_only_clarke(seed, share)
    found = classify(problem, network)
    assert found.verdict == CLARKE
    assert found.own < found.objective * (1 - 1e-6)
    kink = off_a_kink(problem, found.point, found.nu, 1e-7)
    assert kink is not None and kink.objective < found.objective
    u = found.point.theta[0]
    step = problem.architecture.lift(problem, kink.network.values).theta[0] - u
    near = u + 1e-6 * step / np.linalg.norm(step)
    slope = (float(problem.objective(one_neuron(near))) - found.objective) / 1e-6
    assert slope == pytest.approx(kink.rate, rel=1e-3)
    # To the other side it would be slower.
    wrong = found.nu[0] * min(share, 1 - share) / np.linalg.norm(np.linalg.pinv(problem.X[:1]))
    assert kink.rate <= -wrong * (1 - 1e-9)


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_directionally_stationary_point_is_the_optimum_of_its_own_signed_program(bias, loss):
    problem = small(3, bias=bias, loss=loss)
    lower = 0
    for network in stationary(problem):
        found = classify(problem, network)
        assert found.clarke <= 1e-7 and found.wrong <= 1e-7
        assert 0 <= found.own_gap <= 1e-7
        own, every = resolved(problem, found.point)
        assert every
        theirs = reference.solve_primal(own.program).value  # cvxpy and Clarabel
        assert found.objective == pytest.approx(theirs, rel=1e-6)
        assert own.program.value(own.theta, own.constant) == pytest.approx(
            found.objective, rel=1e-12
        )
        unsigned = reference.solve_primal(both_signs(problem, found.point)).value
        assert unsigned <= found.objective * (1 + 1e-7)
        lower += unsigned < found.objective * (1 - 1e-4)
    if loss == "squared" and bias == "none":
        assert lower > 0  # the signs matter


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_the_global_test_agrees_with_enumeration_both_ways(seed, bias):
    problem = small(seed, n=9, bias=bias, beta=0.5)
    every = arrangements.enumerate(problem.design)
    optimum = solve(problem, every, tolerance=1e-10).objective
    program = problem.architecture.program(problem, every)
    assert optimum == pytest.approx(reference.solve_primal(program).value, rel=1e-7)  # Clarabel
    judge = Classifier(problem)
    for network in stationary(problem, widths=(1, 3, 12), seeds=range(2)):
        found = judge(network)
        assert found.verdict in (GLOBAL, SPURIOUS)
        assert (found.verdict == GLOBAL) == (found.objective <= optimum * (1 + 1e-8))
        assert found.bound <= optimum * (1 + 1e-9)


def degenerate(kind):
    """Samples on one line, or ties of which many are linearly dependent."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((18, 3)), rng.standard_normal(26)
    if kind == "lattice":
        grid = np.array([-1.0, 0.0, 1.0])
        half = np.stack(np.meshgrid(grid, grid, grid), -1).reshape(27, 3)[14:]
        return Problem(half, y[:13], 0.05)
    factor = {"duplicate": 1.0, "antipodal": -1.0, "collinear": 3.0}[kind]
    return Problem(np.vstack([X, factor * X[:8]]), y, 0.3)


@pytest.mark.parametrize("kind", ["duplicate", "antipodal", "collinear", "lattice"])
def test_verdicts_on_degenerate_samples_are_those_of_enumerated_resolutions(kind):
    problem = degenerate(kind)
    solution = solve(problem, tolerance=1e-10)
    judge = Classifier(problem, solution.certificate)
    assert judge(solution.network()).verdict == GLOBAL
    assert judge.escape(solution.network()) is None
    kinks = 0
    for network in stationary(problem, widths=(2, 6, 12)):
        found = judge(network)
        own, every = resolved(problem, found.point)
        assert every
        directional = prices(own.program, found.nu).max() <= problem.beta * (1 + 1e-7)
        assert directional == (found.verdict in (GLOBAL, SPURIOUS))
        kinks += directional and found.kinks > 0
        if directional:
            theirs = reference.solve_primal(own.program).value  # cvxpy and Clarabel
            assert found.objective == pytest.approx(theirs, rel=1e-6)
    assert kinks >= 3


def test_the_optimum_itself_is_global_and_nothing_leads_down_from_it():
    problem = planted(30, 3)
    solution = solve(problem, tolerance=1e-9)
    judge = Classifier(problem, solution.certificate)
    found = judge(solution.network())
    assert found.verdict == GLOBAL
    assert found.gap <= 1e-8
    assert judge.escape(solution.network()) is None


def test_escapes_lead_from_a_spurious_point_to_the_global_optimum():
    problem = planted(25, 2)
    optimum = solve(problem, tolerance=1e-9).objective
    judge = Classifier(problem)
    network = stationary(problem, widths=(1,), seeds=[0])[0]
    assert judge(network).verdict == SPURIOUS
    values = [problem.objective(network)]
    for _ in range(40):
        escape = judge.escape(network)
        if escape is None:
            break
        assert escape.rate < 0
        assert escape.objective < values[-1]
        assert problem.objective(escape.network) == pytest.approx(escape.objective, rel=1e-13)
        batch = {k: v.detach()[None] for k, v in escape.network.values.items()}
        network = polish(problem, batch)[0]
        values.append(problem.objective(network))
    assert values[-1] == pytest.approx(optimum, rel=1e-6)
    assert np.all(np.diff(values) < 0)


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e14])
@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_escapes_are_the_same_in_any_units(size, unit):
    base = small(0, beta=0.05)
    problem = Problem(unit * base.X, size * base.y, size * unit * base.beta)
    nothing = {"hidden": torch.zeros(1, 2).double(), "output": torch.zeros(1).double()}
    found = [Classifier(one).escape(nothing) for one in (base, problem)]
    assert found[0] is not None and found[1] is not None
    assert found[1].objective == pytest.approx(size**2 * found[0].objective, rel=1e-9)
    assert found[1].rate == pytest.approx(size * unit * found[0].rate, rel=1e-9)
    network, size = only_clarke()[1].values, size * unit
    problem = only_clarke()[0]
    values = {k: size**0.5 * v.detach() for k, v in network.items()}
    problem = problem.replace(y=size * problem.y, beta=size * problem.beta)
    judge = Classifier(problem)
    point = judge(values)
    kink = off_a_kink(problem, point.point, point.nu, 1e-7)
    assert kink is not None and kink.objective < 0.992 * point.objective
    assert kink.rate == pytest.approx(-0.2 * size, rel=1e-9)


def test_a_moved_network_is_not_stationary():
    problem = small(1)
    network = stationary(problem)[4]
    values = {k: v.detach().clone() for k, v in network.values.items()}
    values["hidden"] += 1e-4
    found = classify(problem, Network(problem.architecture, values))
    assert found.verdict == MOVING
    assert found.own < found.objective
    assert found.own * (1 - 1e-5) <= found.own_bound <= found.own
    unbalanced = {"hidden": network.values["hidden"] * 2, "output": network.values["output"] / 2}
    assert classify(problem, Network(problem.architecture, unbalanced)).verdict == MOVING


def test_a_free_output_bias_has_a_condition_of_its_own():
    problem = small(1, bias="free", beta=50.0)
    for shift, verdict in ((0.0, GLOBAL), (1e-2, MOVING)):
        values = {
            "hidden": torch.zeros(1, 3).double(),
            "output": torch.zeros(1).double(),
            "constant": torch.tensor(problem.y.mean() + shift),
        }
        assert classify(problem, Network(problem.architecture, values)).verdict == verdict


def test_networks_without_neurons_are_points_too():
    problem = small(65, n=4, bias="free", loss="logistic", beta=20.0)
    runs = polish(problem, train(problem, [1, 3], [0], "lbfgs", steps=60))
    for network in runs.networks:
        found = classify(problem, network)
        assert found.neurons == 0 and found.verdict == GLOBAL


def test_where_no_proof_ends_a_stationary_point_is_never_called_global():
    problem = planted(40, 8)
    for network in stationary(problem, widths=(3, 60), seeds=[0]):
        found = classify(problem, network, effort=200)
        assert found.verdict in (SPURIOUS, UNDECIDED)
        assert found.own_gap <= 1e-7
        assert found.bound <= found.objective


def test_own_patterns_alone_prove_nothing_global():
    base = small(4, n=30, d=4)
    problem = Problem(base.X, base.y, 0.2, architecture=GatedReLU())
    own = arrangements.sample(base.X, 5, seed=0)
    network = solve(problem, own, tolerance=1e-10).network()
    found = classify(problem, network, effort=10)
    assert found.verdict == UNDECIDED
    assert found.bound == -np.inf
    assert found.own_gap <= 1e-9


@pytest.mark.parametrize("bias", ["none", "free"])
def test_prices_of_all_resolutions_are_bounded_without_a_list(bias):
    """Neuron by neuron, also where ties have the wrong sign, and for any shares."""
    problem = small(5, n=14, d=3, bias=bias)
    network = max(stationary(problem, widths=(6,)), key=lambda one: len(one.values["output"]))
    rng = np.random.default_rng(0)
    values, checked = network.values, 0
    for j in range(len(values["output"])):
        one = {k: v[j : j + 1] if v.ndim else v for k, v in values.items()}
        point = problem.architecture.lift(problem, one)
        tied = ties(problem.design, point.theta)
        own, _ = resolved(problem, point)
        checked += tied.any()
        for trial in range(20):
            nu = rng.standard_normal(14)
            nu -= nu.mean()
            masks = np.where(tied, rng.uniform(size=tied.shape), point.program.atoms.masks)
            if trial % 2:
                masks = settled_masks(
                    problem.design, point.program.gauge.penalised, point.theta,
                    point.program.atoms.signs, nu, problem.beta, tied,
                )  # fmt: skip
            bound = resolved_prices(point.program, nu, masks, tied)[0]
            assert prices(own.program, nu).max() <= bound * (1 + 1e-9)
    assert checked > 1


def test_neurons_on_kinks_of_antipodal_samples_lie_in_full_cells():
    """Put on one side together, antipodes would leave no cell: the own optimum was 1 % too low."""
    X = np.array([[1.0, 0], [0, 0], [-1, 0], [-1, -1], [0, -1], [1, 1], [1, 0]])
    y = np.array([-1.037959, -1.734128, 2.141287, -1.917799, -2.182101, 3.131922, 1.09655])
    problem = Problem(X, y, 2.9257182733132345)
    every = arrangements.enumerate(X)
    network = solve(problem, every, tolerance=1e-10).network()
    found = classify(problem, network)
    assert found.verdict == GLOBAL and found.kinks == 1
    assert found.own == pytest.approx(found.objective, rel=1e-9) and found.own_gap <= 1e-9
    cells = {row.tobytes() for row in np.asarray(every)[:, [0, 2, 3, 4, 5, 6]]}
    own = np.asarray(found.point.program.patterns)[:, [0, 2, 3, 4, 5, 6]]
    assert all(row.tobytes() in cells for row in own)


def test_gated_networks_have_the_same_verdicts():
    base = small(4)
    problem = Problem(base.X, base.y, 0.2, architecture=GatedReLU())
    every = arrangements.enumerate(base.X)
    best = classify(problem, solve(problem, every, tolerance=1e-10).network())
    assert best.verdict == GLOBAL
    some = solve(problem, every[:5], tolerance=1e-10).network()
    found = classify(problem, some)
    assert found.verdict == SPURIOUS
    assert found.own_gap <= 1e-9
    assert found.objective > best.objective
    assert found.bound == pytest.approx(best.objective, rel=0.9)


def test_what_is_no_point_is_refused():
    problem, network = only_clarke()
    with pytest.raises(BadInput, match="tolerance"):
        classify(problem, network, tolerance=2.0)
    broken = {k: v.detach() * float("nan") for k, v in network.values.items()}
    with pytest.raises(BadInput, match="NaN"):
        classify(problem, Network(problem.architecture, broken))
    few = solve(problem, arrangements.sample(problem.X, 2, seed=0))
    with pytest.raises(BadInput, match="floor"):
        classify(problem, network, floor=few.certificate)
