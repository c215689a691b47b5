"""ReLU networks with several outputs: prices, an independent program, three norms in order."""

from __future__ import annotations

from dataclasses import replace

import cvxpy
import numpy as np
import pytest
import torch
from cases import UNIT_CASES

from landscape import Problem, arrangements, certify, closed_forms, data, solve, train
from landscape.architectures import GatedReLU, TwoLayer, VectorReLU
from landscape.bounds import EXACT, SEARCH, beta_max
from landscape.errors import BadInput
from landscape.pricing import vector_cones, vectors
from landscape.solvers.group_lasso import minimise
from landscape.theory import exactness, instance

INSTANCES = range(2)


@pytest.fixture(scope="module")
def solutions():
    problems = [instance(VectorReLU(), seed) for seed in INSTANCES]
    return [(problem, solve(problem, tolerance=1e-8)) for problem in problems]


def targets(problem: Problem) -> np.ndarray:
    return problem.y.reshape(len(problem.X), -1)


def semidefinite_dual(problem: Problem) -> float:
    """The dual at d = 2 without units: on each cell's cone the S-lemma for quadratic forms.

    A cone of the plane is where Q(u) = (a·u)(b·u) ≥ 0 (and −u likewise), so ‖NᵀDXu‖ ≤ β‖u‖ there
    if and only if β²I − XᵀDNNᵀDX − λQ is positive semidefinite for some λ ≥ 0.
    """
    X, Y = problem.X, targets(problem)
    c = Y.shape[1]
    N, conditions = cvxpy.Variable(Y.shape), []
    for mask in np.asarray(arrangements.enumerate(X)):
        rows = np.where(mask[:, None], X, -X)
        rays = np.vstack([rows, -rows])[:, ::-1] * [1.0, -1.0]
        rays = rays[(rays @ rows.T >= -1e-12).all(axis=1)]
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        first, second = rays[0], rays[(rays @ rays[0]).argmin()]
        a, b = (np.array([-r[1], r[0]]) for r in (first, second))
        a, b = a * np.sign(a @ second), b * np.sign(b @ first)
        Q = (np.outer(a, b) + np.outer(b, a)) / 2
        G = N.T @ (mask[:, None] * X)
        weight = cvxpy.Variable(nonneg=True)
        corner = problem.beta**2 * np.eye(2) - weight * Q
        conditions.append(cvxpy.bmat([[corner, G.T], [G, np.eye(c)]]) >> 0)
    goal = 0.5 * np.sum(Y**2) - 0.5 * cvxpy.sum_squares(N - Y)
    return float(cvxpy.Problem(cvxpy.Maximize(goal), conditions).solve(solver=cvxpy.CLARABEL))


def test_optima_agree_with_the_semidefinite_dual(solutions):
    for problem, solution in solutions:
        assert solution.certificate.scope == EXACT and solution.active >= 3
        assert solution.certificate.relative_gap <= 1e-8
        assert semidefinite_dual(problem) == pytest.approx(solution.objective, rel=1e-6)
        assert solution.network()(problem.X).shape == (8, 2)


def test_exactness_at_rank_three_by_branch_and_bound():
    found = exactness(instance(VectorReLU(), 10, n=5, d=3), seeds=(), starts=8, draws=1)
    assert found.scope == EXACT and found.active >= 3
    assert max(found.primal, found.dual, found.mapped, found.gap) <= 1e-6
    assert found.adversary <= 1 + 1e-9
    assert found.attained == pytest.approx(1.0, abs=1e-6)
    assert found.duality == 0.0 and found.raised <= 1e-9


def test_trained_networks_reach_the_optimum_and_never_pass_it(solutions):
    problem, solution = solutions[1]
    runs = train(problem, 12, range(4), "adam", 800, learning_rate=0.03)
    assert runs.objectives.min() >= solution.certificate.dual
    assert runs.objectives.min() == pytest.approx(solution.objective, rel=1e-2)


def random_instance(rng, n, r, c):
    return rng.standard_normal((n, r)), rng.standard_normal((n, c))


def test_circle_and_cones_agree_and_are_attained():
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 4001)
    grid = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for n, c in ((1, 1), (3, 2), (8, 3), (60, 5)):
        X, N = random_instance(rng, n, 2, c)
        X[0] = X[-1]  # two samples on one line
        found, slow = vectors.circle(X, N), vector_cones.searched(X, N, 20_000)
        on_grid = vector_cones.values(X, N, grid).max()
        assert on_grid <= found.bound <= on_grid * (1 + 1e-2)
        assert found.values[0] == pytest.approx(found.bound, rel=1e-9)
        assert slow.exact and slow.bound == pytest.approx(found.bound, rel=1e-8)
        assert slow.bound >= found.values[0] and vector_cones.relaxed(X, N) >= found.values[0]


@pytest.mark.parametrize(("n", "r", "c"), [(8, 3, 2), (20, 3, 4), (7, 4, 2)])
def test_cones_bound_what_climbs_find(n, r, c):
    rng = np.random.default_rng(n)
    for _ in range(3):
        X, N = random_instance(rng, n, r, c)
        X[1] = -2.0 * X[0]
        starts = rng.standard_normal((200, r))
        starts /= np.linalg.norm(starts, axis=1, keepdims=True)
        reached = vectors.climbed(X, N, starts)[1].max()
        found = vector_cones.searched(X, N, 50_000)
        assert found.exact
        assert reached <= found.bound and found.values[0] == pytest.approx(found.bound, rel=1e-6)
        assert found.bound <= vector_cones.relaxed(X, N)
        early = vector_cones.searched(X, N, 2**r)  # stopped at once, and still a bound
        assert early.bound >= found.values[0]


def test_one_output_prices_as_two_layers_do():
    rng = np.random.default_rng(3)
    X, nu = rng.standard_normal((9, 3)), rng.standard_normal(9)
    from landscape.pricing import supremum

    both = [vector_cones.searched(X, s * nu[:, None], 20_000).bound for s in (1, -1)]
    assert both[0] == pytest.approx(both[1])  # a norm has no sign
    assert both[0] == pytest.approx(supremum(X, nu).bound, rel=1e-8)


def test_wrong_prices_would_be_seen(monkeypatch):
    """Cones without the bent part, and arcs without eigen-directions, bound too low."""
    rng = np.random.default_rng(4)
    wrong = {"cones": False, "circle": False}
    true_circle = [vectors.circle(*random_instance(rng, 6, 2, 2)) for _ in range(5)]
    rng = np.random.default_rng(4)
    monkeypatch.setattr(vectors, "SLACK", -10.0)  # no direction is inside its arc
    for found in true_circle:
        short = vectors.circle(*random_instance(rng, 6, 2, 2))
        wrong["circle"] |= short.bound < found.values[0] * (1 - 1e-9)
    whole = vector_cones._Cones.__init__

    def straight(self, rows, weights, rays, charge):
        whole(self, rows, weights, rays, charge)
        peaks = vector_cones.values(rows, weights, rays.reshape(-1, rays.shape[2]))
        self.bounds, self.dual = vector_cones._least(rays, peaks.reshape(rays.shape[:2]))

    monkeypatch.setattr(vector_cones._Cones, "__init__", straight)
    X, N = random_instance(np.random.default_rng(2), 8, 3, 2)
    found = vector_cones.searched(X, N, 20_000)
    wrong["cones"] = found.bound < found.values[0] * (1 - 1e-3)
    assert all(wrong.values())


def test_a_search_that_ran_out_is_not_exact():
    rng = np.random.default_rng(6)
    X, N = random_instance(rng, 14, 5, 3)
    found = vectors.VectorOracle(X, 3, 40)(N.reshape(-1))
    assert not found.exact and found.bound > found.attained
    assert vectors.VectorOracle(X[:6, :3], 3, 20_000)(N[:6].reshape(-1)).exact


def test_directions_lost_to_rounding_are_charged():
    """A column of 1e-16 of the others is not in the row space; what it adds is in the bound."""
    rng = np.random.default_rng(7)
    X, N = random_instance(rng, 8, 3, 2)
    oracle, whole = vectors.VectorOracle(X, 2, 20_000), vectors.VectorOracle(X, 2, 20_000)
    oracle.lost = oracle.lost + 1e-3
    nu = N.reshape(-1)
    extra = 1e-3 * np.linalg.norm(N, axis=1).sum()
    assert oracle(nu).bound == pytest.approx(whole(nu).bound + extra, rel=1e-12)


OWN_CASES = [case for case in UNIT_CASES if case.problem.architecture.name == "vector_relu"]


@pytest.mark.parametrize("case", OWN_CASES, ids=lambda case: case.name)
def test_closed_forms(case):
    value, fit = closed_forms.whitened_outputs(targets(case.problem), case.problem.beta)
    assert value == pytest.approx(case.optimum, rel=1e-12)
    solution = solve(case.problem)
    assert solution.objective == pytest.approx(value, rel=1e-7)
    assert solution.certificate.scope == EXACT
    got = solution.network()(case.problem.X).detach().numpy()
    np.testing.assert_allclose(got, fit, atol=1e-4)


def test_soft_thresholding_bounds_whitened_data_from_below():
    rng = np.random.default_rng(1)
    X, Y = np.linalg.qr(rng.standard_normal((3, 3)))[0], rng.standard_normal((3, 2))
    with pytest.raises(BadInput, match="two signs"):
        closed_forms.whitened_outputs(Y, 0.1)
    sizes = np.linalg.svd(Y, compute_uv=False)
    below = np.where(sizes > 0.1, 0.1 * sizes - 0.005, 0.5 * sizes**2).sum()
    solution = solve(Problem(X, Y, 0.1, architecture=VectorReLU()))
    assert solution.certificate.dual > below * (1 + 1e-3)
    Y = np.outer([1.0, 2.0, 0.5], [1.0, -1.0])  # rank one and non-negative: it is the optimum
    value = closed_forms.whitened_outputs(Y, 0.1)[0]
    solution = solve(Problem(X, Y, 0.1, architecture=VectorReLU()))
    assert solution.objective == pytest.approx(value, rel=1e-7)


def three_norms(problem: Problem) -> dict[str, float]:
    """Optima over all patterns: gated (no cones) and ReLU, shared neurons and one class each."""
    X, Y, beta = problem.X, targets(problem), problem.beta
    patterns, found = arrangements.enumerate(X), {}
    for outputs in ("nuclear", "per_class"):
        gated = Problem(X, Y, beta, architecture=GatedReLU(outputs=outputs))
        program = gated.architecture.program(gated, patterns)
        found[f"gated_{outputs}"] = minimise(program, 1e-8).value
    found["relu"] = solve(problem, tolerance=1e-8).objective
    ones = [solve(Problem(X, y, beta, architecture=TwoLayer())) for y in Y.T]
    found["relu_per_class"] = sum(one.objective for one in ones)
    return found


def test_norms_stand_in_their_order(solutions):
    """Gated nuclear ≤ ReLU ≤ ReLU per class ≤ ReLU at √c β; gated per class in between or not."""
    for problem, solution in solutions[1:]:
        found, room = three_norms(problem), 1 + 1e-7
        assert found["gated_nuclear"] <= found["relu"] * room
        assert found["gated_nuclear"] <= found["gated_per_class"] * room
        assert found["gated_per_class"] <= found["relu_per_class"] * room
        assert found["relu"] == pytest.approx(solution.objective, rel=1e-7)
        assert found["relu"] <= found["relu_per_class"] * room
        dearer = solve(problem.replace(beta=2**0.5 * problem.beta), tolerance=1e-8)
        assert found["relu_per_class"] <= dearer.objective * room
        assert found["gated_nuclear"] < 0.999 * found["relu"] < found["relu_per_class"]


def test_relu_and_gated_per_class_stand_in_neither_order(solutions):
    """Equal targets favour neurons that feed both; free gates favour the program without cones."""
    first = three_norms(solutions[0][0])
    assert first["gated_per_class"] < first["relu"] * (1 - 1e-3)
    X = np.eye(2)
    twin = Problem(X, np.ones((2, 2)), 0.1, architecture=VectorReLU())
    second = three_norms(twin)
    assert second["relu"] < second["gated_per_class"] * (1 - 1e-3)
    # Whitened and non-negative: σ(Y) = 2, so 2β − β²/2, against 2 (√2 β − β²/2) per class.
    assert second["relu"] == pytest.approx(0.2 - 0.005, rel=1e-7)
    assert second["gated_per_class"] == pytest.approx(2 * (2**0.5 * 0.1 - 0.005), rel=1e-7)


def test_one_output_is_the_two_layer_network():
    problem = instance(TwoLayer(), 4)
    assert solve(problem.replace(architecture=VectorReLU())).objective == pytest.approx(
        solve(problem).objective, rel=1e-6
    )


def test_lifting_merges_and_never_raises(solutions):
    problem = solutions[0][0]
    batch = problem.architecture.initial(problem, 6, [3])
    network = {k: v[0].clone() for k, v in batch.items()}
    network["hidden"][1] = 3.0 * network["hidden"][0]  # two neurons of one direction
    network["output"][2] = 0.0
    point = problem.architecture.lift(problem, network)
    assert point.value <= float(problem.objective(network))
    fit = problem.architecture.forward(network, torch.as_tensor(problem.X))
    np.testing.assert_allclose(point.program.fit(point.theta, point.constant), fit, atol=1e-12)
    lowered = problem.architecture.lower(point)
    assert float(problem.objective(lowered)) == pytest.approx(point.value, rel=1e-12)


def test_stationarity_is_zero_at_the_optimum_only(solutions):
    problem, solution = solutions[1]
    network = {k: v.detach().clone() for k, v in solution.network().values.items()}
    good = certify(problem, network)
    assert good.stationarity <= 1e-3 and good.balance <= 1e-12
    network["output"][:, 0] *= 1.1
    bad = certify(problem, network)
    assert bad.stationarity >= 1e-2 and bad.balance > 1e-4


@pytest.mark.parametrize("loss", ["logistic", "huber"])
def test_other_losses_and_a_bias(loss):
    rng = np.random.default_rng(7)
    X, Y = rng.standard_normal((7, 1)), rng.standard_normal((7, 2))
    Y = np.sign(Y) if loss == "logistic" else Y
    problem = Problem(X, Y, 1.0, loss=loss, architecture=VectorReLU(bias="penalised"))
    problem = problem.replace(beta=0.1 * beta_max(problem))
    solution = solve(problem, tolerance=1e-7)
    assert solution.certificate.scope == EXACT
    assert solve(problem.replace(beta=1.001 * beta_max(problem))).active == 0
    again = certify(problem, solution.network(), dual=solution.dual)
    assert again.relative_gap <= 2e-7


def test_digits_of_all_classes_are_solved_and_certified():
    sample = data.load("digits", n=16, rank=2, classes="all")
    labels = np.eye(3)[sample.y.astype(int) % 3]
    problem = Problem(sample.X, labels, 0.5, architecture=VectorReLU())
    solution = solve(problem, tolerance=1e-6)
    assert solution.certificate.scope == EXACT
    assert solution.network()(sample.X).shape == (16, 3)


def test_beyond_exact_prices_the_bound_is_called_relaxed():
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((10, 7)), rng.standard_normal((10, 2))
    problem = Problem(X, Y, 1.0, architecture=VectorReLU())
    solution = solve(problem, tolerance=1e-4, rounds=3, throw=False)
    assert solution.certificate.scope == SEARCH
    assert solution.certificate.relaxed <= solution.objective


def test_refusals(solutions):
    with pytest.raises(BadInput, match="bias"):
        VectorReLU(bias="free")  # what is refused is the test
    problem = solutions[0][0]
    with pytest.raises(BadInput, match="takes units by name"):
        problem.architecture.program(problem, arrangements.enumerate(problem.X))
    assert replace(VectorReLU(), bias="penalised").label == "vector_relu(bias=penalised)"
