"""Certificates: bounds that hold, faults that they catch, networks of the user's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import CASES, IDS, kgon, planted
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape import arrangements
from landscape.architectures import GatedReLU, TwoLayer
from landscape.bounds import (
    EXACT,
    FEATURES,
    GIVEN,
    RELAXED,
    SEARCH,
    beta_max,
    bound_over,
    lower_bound,
)
from landscape.certificate import Certificate, certify, judge
from landscape.errors import BadInput
from landscape.network import Network
from landscape.pricing import largest_price, prices
from landscape.problem import Problem
from landscape.solvers import reference, solve


def every_pattern(problem):
    return problem.architecture.program(problem, arrangements.enumerate(problem.design))


@pytest.mark.parametrize("case", CASES, ids=IDS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_dual_point_bounds_the_optimum_from_below(case, seed):
    nu = np.random.default_rng(seed).standard_normal(len(case.problem.y))
    bound, feasible, _ = lower_bound(every_pattern(case.problem), nu)
    assert bound <= case.optimum
    assert np.isfinite(feasible).all()


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_any_network_is_above_its_bound(case):
    parameters = case.problem.architecture.initial(case.problem, 4, [0, 1, 2])
    for seed in range(3):
        network = Network(case.problem.architecture, {k: v[seed] for k, v in parameters.items()})
        certificate = certify(case.problem, network)
        assert certificate.scope == EXACT
        assert certificate.dual <= case.optimum <= certificate.primal + 1e-12


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_prices_bound_a_dense_search_and_meet_it(bias):
    """The price over all cells is sup ν·(Xu)_+ over ‖w‖ ≤ 1, found here by brute force."""
    rng = np.random.default_rng(5)
    problem = Problem(
        rng.standard_normal((8, 1 if bias != "none" else 2)),
        rng.standard_normal(8),
        0.1,
        architecture=TwoLayer(bias=bias),
    )
    nu = rng.standard_normal(8)
    if bias == "free":
        nu -= nu.mean()
        u = np.array([[s, -s * x] for s in (-1.0, 1.0) for x in problem.X[:, 0]])  # kinks: exact
    else:
        angle = np.linspace(0, 2 * np.pi, 400_001)
        u = np.column_stack([np.cos(angle), np.sin(angle)])
    values = np.abs(np.maximum(u @ problem.design.T, 0) @ nu)
    price, _ = largest_price(every_pattern(problem), nu)
    assert values.max() <= price <= values.max() * (1 + 1e-6)
    assert prices(every_pattern(problem), nu).max() == pytest.approx(price, rel=1e-9)


def test_free_directions_are_projected_out_before_scaling():
    """Scaling alone gives a "bound" above the optimum when ν sees the output bias."""
    rng = np.random.default_rng(6)
    problem = Problem(
        rng.standard_normal((10, 1)),
        3 + rng.standard_normal(10),
        0.1,
        architecture=TwoLayer("free"),
    )
    optimum = solve(problem).objective
    bound, feasible, _ = lower_bound(every_pattern(problem), problem.y)
    assert bound <= optimum
    assert abs(feasible.sum()) <= 1e-10
    assert problem.loss.dual_value(problem.y * 0.1, problem.y) > optimum  # what is avoided


def test_planted_faults_open_the_gap():
    problem = planted(20, 3)
    solution = solve(problem)
    assert solution.certificate.relative_gap <= 1e-7
    network = solution.network()
    whole = every_pattern(problem)

    def gap(parameters, nu=None, program=whole):
        bounds = [] if nu is None else [bound_over(program, nu)]
        return judge(problem, parameters, bounds, lambda own: bound_over(program, own)).relative_gap

    values = {k: v.detach().clone() for k, v in network.values.items()}
    assert gap(values, solution.dual) <= 1e-7
    perturbed = {**values, "hidden": values["hidden"] * (1 + 1e-3)}
    assert gap(perturbed, solution.dual) > 1e-7
    flipped = {**values, "output": -values["output"]}
    assert gap(flipped, solution.dual) > 0.5
    dropped = {k: v[1:] for k, v in values.items()}
    assert gap(dropped, solution.dual) > 1e-4
    assert gap(values, -solution.dual) <= 1e-6  # a useless dual point: the own residual remains
    assert lower_bound(whole, -solution.dual)[0] <= 0
    assert lower_bound(whole, solution.dual * 1.01)[0] <= solution.objective
    assert lower_bound(whole, solution.dual + 0.01)[0] < solution.certificate.dual


def test_a_missing_pattern_raises_the_restricted_bound():
    """Pricing too few patterns is not a bound: the scope must say so."""
    problem = planted(20, 3)
    solution = solve(problem)
    few = solution.patterns[np.arange(1)]
    certificate = certify(problem, solution.network(), patterns=few)
    restricted = solve(problem, few)
    assert certificate.scope == GIVEN
    assert restricted.certificate.dual > solution.objective


def test_an_infeasible_point_shows_in_violation():
    problem = planted(20, 3)
    program = every_pattern(problem)
    optimum = reference.solve_primal(program)
    used = program.gauge.value(optimum.theta) > 1e-6  # Clarabel's dust has no direction
    assert program.violation(optimum.theta * used[:, None]) <= 1e-6
    assert program.violation(-optimum.theta) > 0.1


def test_scope_follows_effort():
    problem = planted(12, 3)
    network = solve(problem).network()
    assert certify(problem, network, effort="low").scope == GIVEN
    assert certify(problem, network).scope == EXACT
    with pytest.raises(BadInput, match="effort"):
        certify(problem, network, effort="huge")


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_a_users_own_module_is_judged(bias):
    problem = planted(12, 2).replace(architecture=TwoLayer(bias=bias))
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(2, 5, bias=bias != "none"),
        torch.nn.ReLU(),
        torch.nn.Linear(5, 1, bias=bias == "free"),
    ).double()
    X, y = torch.as_tensor(problem.X), torch.as_tensor(problem.y)
    loss = 0.5 * ((module(X)[:, 0] - y) ** 2).sum()
    counted = [module[0].weight, module[2].weight] + (
        [module[0].bias] if bias == "penalised" else []
    )
    mine = loss + problem.beta / 2 * sum((w**2).sum() for w in counted)
    certificate, again = certify(problem, [module, module])
    assert certificate.primal == pytest.approx(mine.item(), rel=1e-12)
    assert again.dual == certificate.dual <= certificate.primal


def test_what_no_certificate_can_be_made_of_is_refused():
    problem = planted(12, 2)
    solution = solve(problem)
    network = solution.network()
    for dual, words in (
        (np.full(12, np.nan), "NaN"),
        (np.zeros(3), "shape"),
        (3.0, "shape"),
        ("abc", "numbers"),
    ):
        with pytest.raises(BadInput, match=words):
            certify(problem, network, dual=dual)
    with pytest.raises(BadInput, match="of a solution"):
        certify(problem, solution)
    with pytest.raises(BadInput, match="samples"):
        certify(problem, network, patterns=arrangements.sample(problem.X[:5], 4))
    with torch.no_grad():
        next(iter(network.parameters()))[0] = float("nan")
    with pytest.raises(BadInput, match="weights"):
        certify(problem, network)


@pytest.mark.parametrize("changes", [{"X": 1e-60}, {"X": 1e60}, {"y": 1e60}, {"beta": 1e-60}])
def test_numbers_whose_squares_leave_floating_point_are_refused(changes):
    problem = planted(12, 2)
    ((name, factor),) = changes.items()
    with pytest.raises(BadInput, match=f"{name} is of size"):
        problem.replace(**{name: factor * getattr(problem, name)})


def test_modules_of_another_shape_are_refused():
    problem = planted(12, 2)
    with pytest.raises(BadInput, match="biases"):
        certify(
            problem,
            torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)),
        )
    with pytest.raises(BadInput, match="Linear → Tanh"):
        certify(problem, torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh()))
    with pytest.raises(BadInput, match="gated_relu"):
        certify(problem.replace(architecture=GatedReLU()), solve(problem).network())


def test_directional_stationarity_sees_what_the_clarke_residual_does_not():
    """The three-point counterexample: zero Clarke residual, yet one side of the kink descends."""
    X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    w, nu = np.array([1.0, 0.0]), np.array([0.3, 0.4, 0.2])
    problem = Problem(X, np.maximum(X @ w, 0) + nu, 0.5)
    parameters = {"hidden": torch.as_tensor(w[None]), "output": torch.ones(1).double()}
    certificate = certify(problem, Network(problem.architecture, parameters))
    assert certificate.primal == pytest.approx(0.645)
    assert certificate.stationarity <= 1e-10
    assert certificate.wrong_ties == pytest.approx(1.0)
    assert certify(problem, solve(problem).network()).wrong_ties <= 1e-6


def test_stationarity_is_relative_to_beta_so_tiny_neurons_count():
    problem = planted(20, 3)
    tiny = {"hidden": torch.full((1, 3), 1e-9).double(), "output": torch.ones(1).double() * 1e-9}
    assert certify(problem, Network(problem.architecture, tiny)).stationarity > 0.1
    unbalanced = {"hidden": torch.ones(1, 3).double(), "output": torch.ones(1).double() * 1e-3}
    assert certify(problem, Network(problem.architecture, unbalanced)).balance > 0.9


@pytest.mark.parametrize(("second", "value"), [(10.5, 0.5), (13.0, 2.0)])
def test_beta_max_of_huber_losses_far_from_zero(second, value):
    """At 0 the loss is a line in the free constant; at its best ν = ∓value/2 on x = ∓1."""
    X, y = np.array([[-1.0], [1.0]]), np.array([10.0, second])
    problem = Problem(X, y, 0.1, loss="huber", architecture=TwoLayer("free"))
    assert beta_max(problem) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(("k", "value"), [(3, 1.0), (4, np.sqrt(2)), (6, 2.0)])
def test_beta_max_is_where_the_zero_network_becomes_optimal(k, value):
    assert value <= beta_max(kgon(k)) <= value * (1 + 1e-9)
    assert solve(kgon(k, beta=value * 1.001)).active == 0
    assert solve(kgon(k, beta=value * 0.99)).active > 0


@pytest.mark.parametrize("bias", ["none", "penalised"])
def test_subgradients_at_kinks_are_optimised_so_a_hinge_network_certifies_itself(bias):
    """The network alone, without the solver's dual; a plug-in subgradient leaves most open."""
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((15, 2)), np.sign(rng.standard_normal(15))
    problem = Problem(X, y, 0.2, loss="hinge", architecture=TwoLayer(bias=bias))
    network = solve(problem, tolerance=1e-5).network()
    assert certify(problem, network).relative_gap <= 1e-4
    with torch.no_grad():
        plug_in = -problem.loss.gradient(network(X).numpy(), y)
    assert lower_bound(every_pattern(problem), plug_in)[0] < 0.9 * problem.objective(network)


@pytest.mark.parametrize("scope", [EXACT, RELAXED, GIVEN, SEARCH, f"{FEATURES}: {EXACT}"])
def test_a_certificate_says_what_its_numbers_are_worth(scope):
    """A search proves nothing: its lower bound is the relaxed one, whatever its dual says."""
    found = Certificate(
        primal=2.0, dual=1.5, stationarity=0.0, wrong_ties=0.0, balance=0.0, violation=0.0,
        price_ratio=1.0, scope=scope, patterns=12, nu=np.zeros(3), relaxed=0.75, climbs=77,
        at_zero=4.0,
    )  # fmt: skip
    assert (found.gap, found.relative_gap) == (0.5, 0.25)
    assert found.bound == (0.75 if scope == SEARCH else 1.5)
    said = str(found)
    assert scope in said
    assert "2.5e-01" in said
    assert ("≥ optimum ≥" in said) == (scope in (EXACT, RELAXED, GIVEN))
    assert ("12 patterns" in said) == (scope in (EXACT, RELAXED, GIVEN))
    assert ("77 climbs" in said) == (scope == SEARCH)
    assert ("0.75" in said) == (scope not in (EXACT, RELAXED, GIVEN))
    assert "lower bound of the whole" not in str(replace(found, relaxed=-np.inf))


@pytest.mark.parametrize("effort", ["low", "normal"])
def test_the_best_of_many_dual_points_is_kept_and_prices_stay_the_networks_own(effort):
    problem = planted(10, 2)
    solution = solve(problem)
    parameters = problem.architecture.initial(problem, 3, [0, 1])
    pair = [Network(problem.architecture, {k: v[s] for k, v in parameters.items()}) for s in (0, 1)]
    useless = -solution.dual
    alone = certify(problem, pair, effort=effort)
    assert len(alone) == 2
    for dual in ([useless, solution.dual], [solution.dual, useless], solution.dual):
        for own, found in zip(alone, certify(problem, pair, dual=dual, effort=effort), strict=True):
            assert found.dual >= max(own.dual, solution.certificate.dual * (1 - 1e-9))
            assert found.price_ratio == own.price_ratio
            assert found.primal == own.primal >= found.dual
            sizes = np.linalg.norm(found.nu) * np.linalg.norm(solution.dual)
            assert found.nu @ solution.dual == pytest.approx(sizes, rel=1e-9)  # a multiple of it
    for own, found in zip(alone, certify(problem, pair, dual=useless, effort=effort), strict=True):
        assert found.dual == own.dual
    assert alone[0].at_zero == pytest.approx(0.5 * problem.y @ problem.y)
