"""Normalisation after ReLU: the paper's program, null spaces, limits of ratios, degenerate data."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from landscape import Network, Problem, arrangements, certify, data, solve, train
from landscape.architectures import NormalisedReLU, TwoLayer, normalised_relu
from landscape.arrangements import rays
from landscape.bounds import EXACT, RELAXED, beta_max
from landscape.errors import BadInput
from landscape.pricing.normalised import Climbs, ListedCells


def problem_on(X: np.ndarray, share: float = 0.05, seed: int = 1) -> Problem:
    y = np.random.default_rng(seed).standard_normal(len(X))
    problem = Problem(X, y, 1.0, architecture=NormalisedReLU())
    return problem.replace(beta=share * beta_max(problem))


def gaussian(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def network_of(problem: Problem, seed: int = 0, width: int = 5) -> dict[str, torch.Tensor]:
    batch = problem.architecture.initial(problem, width, [seed])
    return {k: v[0] for k, v in batch.items()}


def written_out(
    problem: Problem, null_space: bool = True, masks: np.ndarray | None = None
) -> float:
    """The paper's program in cvxpy, with the null-space components or without them."""
    X, fit, size, cones = problem.X, 0.0, 0.0, []
    masks = np.asarray(arrangements.enumerate(X)) if masks is None else masks
    for mask in masks.astype(float):
        U, S, V = np.linalg.svd(mask[:, None] * X)
        r = int((S > 1e-9).sum())
        if not r:
            continue
        for sign in (1.0, -1.0):
            w = cp.Variable(r)
            inner = (V[:r].T / S[:r]) @ w
            if null_space and r < X.shape[1]:
                inner = inner + V[r:].T @ cp.Variable(X.shape[1] - r)
            cones.append(((2 * mask - 1)[:, None] * X) @ inner >= 0)
            fit, size = fit + sign * U[:, :r] @ w, size + cp.norm(w)
    objective = 0.5 * cp.sum_squares(fit - problem.y) + problem.beta * size
    return float(cp.Problem(cp.Minimize(objective), cones).solve(solver=cp.CLARABEL))


def by_grid(X: np.ndarray, nu: np.ndarray, count: int = 100_000) -> float:
    """The largest |price| over directions of the plane."""
    angles = np.linspace(0.0, 2 * np.pi, count, endpoint=False)
    x = np.maximum(np.column_stack([np.cos(angles), np.sin(angles)]) @ X.T, 0.0)
    sizes = np.linalg.norm(x, axis=1)
    return float(np.abs(x[sizes > 0] @ nu / sizes[sizes > 0]).max())


@pytest.mark.parametrize(("n", "d"), [(7, 2), (6, 3)])
def test_the_optimum_is_that_of_the_papers_program(n, d):
    for seed in range(2):
        problem = problem_on(gaussian(n, d, seed))
        solution = solve(problem, tolerance=1e-8)
        assert solution.certificate.scope == EXACT and solution.active >= 3
        assert written_out(problem) == pytest.approx(solution.objective, rel=1e-6)


def test_null_space_components_matter_to_given_patterns_and_not_to_all_of_them():
    """Patterns of one or two samples on have null spaces where X has rank three."""
    X = np.abs(gaussian(6, 3, 0)) + 0.5
    problem = Problem(
        X, gaussian(6, 1, 3)[:, 0] + np.eye(6)[0], 0.05, architecture=NormalisedReLU()
    )
    optimum = solve(problem, tolerance=1e-8).objective
    masks = np.asarray(arrangements.enumerate(X))
    ranks = np.array([np.linalg.matrix_rank(mask[:, None] * X) for mask in masks])
    assert set(ranks) == {0, 1, 2, 3}
    for null_space, some in ((True, masks), (False, masks), (False, masks[ranks == 3])):
        found = written_out(problem, null_space, some)
        assert found == pytest.approx(optimum, rel=1e-6)
    # Over the deficient patterns alone the program without them is another one.
    deficient = masks[(ranks == 1) | (ranks == 2)]
    with_them, without = (written_out(problem, k, deficient) for k in (True, False))
    assert without > with_them * (1 + 1e-2)
    # x_1 on, x_2 off: (x_1ᵀw)_+ alone is an output, of w = (1, −1) say, but the least w with
    # x_1ᵀw = 1 is x_1 itself, which turns x_2 on.
    X = np.array([[1.0, 0.0], [1.0, 1.0]])
    alone = Problem(X, np.array([2.0, 0.0]), 0.5, architecture=NormalisedReLU())
    one = np.array([[True, False]])
    assert written_out(alone, masks=one) == pytest.approx(0.5 * 2.0 - 0.5**2 / 2, rel=1e-6)
    assert written_out(alone, False, one) == pytest.approx(0.5 * 2.0**2, rel=1e-6)
    assert solve(alone).objective == pytest.approx(0.5 * 2.0 - 0.5**2 / 2)


def test_trained_networks_reach_the_optimum_and_never_pass_it():
    problem = problem_on(gaussian(7, 2, 0))
    solution = solve(problem)
    runs = train(problem, 16, range(3), "adam", 500, learning_rate=0.03)
    assert runs.objectives.min() >= solution.certificate.dual * (1 - 1e-12)
    assert runs.objectives.min() == pytest.approx(solution.objective, rel=1e-3)


def planes() -> dict[str, np.ndarray]:
    X = gaussian(9, 2, 4)
    half = np.abs(X) @ [[1.0, 0.2], [0.0, 1.0]]
    return {
        "general": X,
        "half plane": half,  # some w turn all samples off: outputs tend to zero on the way
        "nearly collinear": half * [1.0, 1e-6],
        "antipodal": np.vstack([X[:4], -X[:4], 2.0 * X[:1]]),
        "duplicates and zero": np.vstack([X[:5], X[:2], np.zeros((2, 2))]),
        "one": X[:1],
    }


@pytest.mark.parametrize("name", planes())
def test_prices_in_the_plane_against_a_fine_grid(name):
    X, rng = planes()[name], np.random.default_rng(6)
    listed = ListedCells(X, 1000)
    for _ in range(10):
        nu = rng.standard_normal(len(X))
        both = [listed(side * nu) for side in (1.0, -1.0)]
        bound = max(one.bound for one in both)
        reached = by_grid(X, nu)
        assert reached <= bound
        if name != "nearly collinear":  # there a grid sees little of what happens
            assert reached >= bound * (1 - 1e-4)
        columns = normalised_relu.columns(X, {"directions": both[0].directions})
        np.testing.assert_allclose(nu @ columns, both[0].prices, rtol=1e-7, atol=1e-9)
        assert both[0].prices.max(initial=0.0) == pytest.approx(both[0].bound, rel=1e-9)


@pytest.mark.parametrize("name", planes())
def test_degenerate_planes_are_solved(name):
    problem = problem_on(planes()[name])
    solution = solve(problem)
    assert solution.certificate.scope == EXACT
    assert solution.certificate.relative_gap <= 1e-7
    if name not in ("nearly collinear",):  # Clarabel loses digits there
        assert written_out(problem) == pytest.approx(solution.objective, rel=1e-6)


def test_a_limit_of_ratios_is_attained_elsewhere():
    """Towards w = (0, −1) all outputs of a cell tend to zero, and their ratio to one."""
    X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    listed = ListedCells(X, 100)
    nu = np.array([1.0, -1.0, -0.2])
    # From the right x = (t, 0, 0): the ratio is 1 on the way and 0/0 there.
    for t in (1e-2, 1e-5, 1e-8):
        x = np.maximum(X @ [t, -1.0], 0.0)
        assert nu @ x / np.linalg.norm(x) == 1.0
    found = listed(nu)
    assert found.bound == pytest.approx(1.0, rel=1e-12)
    best = found.directions[found.prices.argmax()]
    outputs = np.maximum(X @ best, 0.0)
    assert nu @ outputs / np.linalg.norm(outputs) == pytest.approx(1.0, rel=1e-12)


def test_prices_of_all_cells_bound_those_of_random_units_and_climbs_attain_them():
    rng = np.random.default_rng(7)
    for seed in range(6):
        n, d = [(8, 3), (7, 4), (10, 3)][seed % 3]
        X = gaussian(n, d, seed)
        if seed % 2:
            X[-1] = -2.0 * X[0]
        listed, climbs = ListedCells(X, 10_000), Climbs(X)
        w = rng.standard_normal((5000, d))
        outputs = np.maximum(w @ X.T, 0.0)
        outputs /= np.maximum(np.linalg.norm(outputs, axis=1, keepdims=True), 1e-300)
        for _ in range(5):
            nu = rng.standard_normal(n)
            found, climbed = listed(nu), climbs(nu)
            assert (outputs @ nu).max() <= found.bound <= climbed.bound * (1 + 1e-12)
            assert found.prices.max() == pytest.approx(found.bound, rel=1e-9)
            assert climbed.prices.max() <= found.bound
            assert climbed.prices.max() >= 0.9 * found.bound


@pytest.mark.parametrize("size", [2.0**-27, 2.0**-50, 2.0**-660, 2.0**40])
@pytest.mark.parametrize("seed", range(4))
def test_columns_of_any_size_price_as_if_they_were_alike(seed, size):
    """Outputs depend on X through its range and rows, not through its columns' sizes."""
    X, rng = gaussian(6, 2, seed), np.random.default_rng(20 + seed)
    scaled = X * [1.0, size]
    for _ in range(5):
        nu = rng.standard_normal(6)
        for prices in (ListedCells, lambda rows, _: Climbs(rows)):
            plain, other = prices(X, 100)(nu), prices(scaled, 100)(nu)
            assert other.bound == pytest.approx(plain.bound, rel=1e-10)
            best = normalised_relu.columns(scaled, {"directions": other.directions})
            np.testing.assert_allclose(nu @ best, other.prices, rtol=1e-7, atol=1e-9)
            assert other.prices.max(initial=0.0) == pytest.approx(
                plain.prices.max(initial=0.0), rel=1e-6
            )


def test_rays_of_cells_are_those_that_touch_them():
    X = gaussian(7, 3, 2)
    found = rays.cell_rays(X, 1000)
    assert len(found.directions) == 2 * 21 and len(found.cells) == arrangements.count(7, 3)
    patterns = np.asarray(arrangements.enumerate(X))
    for cell, mask in zip(found.cells, patterns, strict=True):
        values = found.directions @ X.T
        tied = np.abs(values) < 1e-9
        touching = (tied | ((values > 0) == mask)).all(axis=1)
        assert set(cell) == set(np.flatnonzero(touching))
        inside = found.directions[cell].sum(axis=0)
        np.testing.assert_array_equal(X @ inside > 0, mask)


@pytest.mark.parametrize("d", [6, 9])
def test_the_closed_form_where_inputs_are_independent(d):
    """X of rank n: every x ≥ 0 is an output, and the parts of y of either sign are shrunk by β."""
    X, n = gaussian(6, d, d), 6
    y = np.random.default_rng(1).standard_normal(n)
    problem = Problem(X, y, 0.3, architecture=NormalisedReLU())
    sizes = np.array([np.linalg.norm(np.maximum(s * y, 0.0)) for s in (1.0, -1.0)])
    assert beta_max(problem) == pytest.approx(sizes.max(), rel=1e-9)
    optimum = float((0.3 * sizes - 0.3**2 / 2).sum())
    solution = solve(problem)
    assert solution.objective == pytest.approx(optimum, rel=1e-8)
    assert solution.certificate.scope == EXACT and solution.active == 2


def test_beyond_lists_the_bound_is_labelled_relaxed():
    problem = problem_on(gaussian(40, 6, 0))
    solution = solve(problem, throw=False, rounds=3)
    assert solution.certificate.scope == RELAXED
    assert solution.certificate.dual < solution.objective
    runs = train(problem, 10, [0], "adam", 100, learning_rate=0.05)
    assert runs.objectives.min() > solution.certificate.dual


def test_neither_scales_nor_turns_nor_maps_of_the_inputs_matter():
    problem = problem_on(gaussian(8, 2, 3))
    here = solve(problem).objective
    for A in (1e-8 * np.eye(2), np.array([[0.6, 0.8], [-80.0, 60.0]])):
        assert solve(problem.replace(X=problem.X @ A)).objective == pytest.approx(here, rel=1e-6)
    doubled = solve(problem.replace(X=problem.X * [[2.0], *[[1.0]] * 7])).objective
    assert abs(doubled / here - 1) > 1e-4  # a sample's own scale does matter


def test_new_inputs_are_divided_by_the_norms_of_training(tmp_path):
    problem = problem_on(gaussian(8, 2, 3))
    network = solve(problem).network()
    new = 10.0 * gaussian(5, 2, 9)
    values = {k: v.detach().numpy() for k, v in network.values.items()}
    expected = np.zeros(5)
    for w, s, a in zip(values["hidden"], values["amplitude"], values["output"], strict=True):
        expected += s * a * np.maximum(new @ w, 0.0) / np.linalg.norm(np.maximum(problem.X @ w, 0))
    np.testing.assert_allclose(network(new).detach().numpy(), expected, atol=1e-12)
    one_by_one = [float(network(row[None])[0].detach()) for row in new]
    np.testing.assert_allclose(one_by_one, expected, atol=1e-12)
    again = Network.load(network.save(tmp_path / "network.npz"))
    assert torch.equal(again(new), network(new))
    plain = Network(TwoLayer(), problem.architecture.folded(network.values))
    np.testing.assert_allclose(plain(new).detach().numpy(), expected, atol=1e-12)


def test_lifting_and_padding():
    problem = problem_on(gaussian(5, 5, 3))  # as many units as samples and inputs
    architecture = problem.architecture
    network = network_of(problem)
    network["output"][1] = 0.0
    before = float(problem.objective(network))
    point = architecture.lift(problem, network)
    assert point.value <= before
    assert float(problem.objective(architecture.lower(point))) == pytest.approx(point.value)
    kept = architecture.without_padding(network)
    assert kept["hidden"].shape == (4, 5) and kept["inputs"].shape == (5, 5)
    torch.testing.assert_close(
        architecture.forward(kept, torch.as_tensor(problem.X)),
        architecture.forward(network, torch.as_tensor(problem.X)),
    )
    clarke, _, balance = architecture.stationarity(problem, network, problem.y)
    assert clarke.shape == balance.shape == (4,)


def test_a_unit_that_is_off_on_all_samples_puts_out_nothing_there():
    X = np.abs(gaussian(6, 2, 1))
    problem = problem_on(X)
    network = network_of(problem, width=2)
    network["hidden"][0] = torch.tensor([-1.0, -1.0])
    outputs = problem.architecture.each(network, torch.as_tensor(X))
    assert not bool(outputs[:, 0].any()) and bool(torch.isfinite(outputs).all())
    leaves = {k: v.clone().requires_grad_(k != "inputs") for k, v in network.items()}
    problem.objective(leaves).backward()
    assert all(bool(torch.isfinite(v.grad).all()) for k, v in leaves.items() if k != "inputs")
    nothing = Problem(np.zeros((3, 2)), np.ones(3), 0.1, architecture=NormalisedReLU())
    assert solve(nothing).objective == pytest.approx(1.5)


def test_planted_faults_are_seen():
    problem = problem_on(gaussian(8, 2, 3))
    values = {k: v.detach().clone() for k, v in solve(problem).network().values.items()}
    network = NormalisedReLU()
    for wrong in (
        {**values, "output": -values["output"]},
        {**values, "amplitude": 1.05 * values["amplitude"]},
        {**values, "hidden": values["hidden"].flip(0)},
        {k: v[1:] if k != "inputs" else v for k, v in values.items()},
    ):
        assert certify(problem, Network(network, wrong)).relative_gap > 1e-5


def test_real_data_are_solved_and_certified():
    sample = data.load("diabetes", rank=2)
    problem = Problem(sample.X, sample.y, 0.5, architecture=NormalisedReLU())
    solution = solve(problem)
    assert len(sample.y) > 300 and solution.certificate.scope == EXACT
    assert solution.certificate.relative_gap <= 1e-7


@pytest.mark.parametrize("loss", ["logistic", "huber"])
def test_other_losses(loss):
    problem = problem_on(gaussian(8, 2, 3))
    y = np.sign(problem.y) if loss == "logistic" else problem.y
    problem = problem.replace(y=y, loss=loss)
    assert solve(problem).certificate.relative_gap <= 1e-7


def test_refusals():
    problem = problem_on(gaussian(5, 2, 0))
    with pytest.raises(BadInput, match="units"):
        problem.architecture.program(problem, arrangements.enumerate(problem.X))
    with pytest.raises(BadInput, match="one output"):
        problem.replace(y=np.ones((5, 2)))


def test_norms_on_other_inputs_certify_nothing():
    problem = problem_on(gaussian(6, 2, 0))
    network = dict(solve(problem).network().values)
    for inputs in (network["inputs"] / 50, network["inputs"][:5]):
        with pytest.raises(BadInput, match="inputs"):
            certify(problem, {**network, "inputs": inputs})


@pytest.mark.parametrize("way", ["rows in another order", "nearly", "single precision"])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_networks_on_the_same_inputs_take_the_problems_own(offset, way):
    """Norms are those of the problem's X, so that a bound holds also where inputs were rounded."""
    X = gaussian(8, 2, 0) + offset
    problem = problem_on(X)
    solution = solve(problem)
    values = {k: v.detach() for k, v in solution.network().values.items()}
    if way == "rows in another order":
        values["inputs"] = values["inputs"][torch.randperm(8, generator=torch.manual_seed(0))]
    elif way == "nearly":
        values["inputs"] = values["inputs"] * (1 - 0.9e-6)
    else:
        values = {k: v.float() for k, v in values.items()}
    judged = certify(problem, values, dual=solution.dual)
    assert judged.relative_gap >= -1e-12
    if way != "single precision":  # weights are rounded there, and kinks with them
        assert judged.primal == pytest.approx(solution.objective, rel=1e-12)
    with pytest.raises(BadInput, match="inputs that are not the problem's 8"):
        train(problem, start={k: (v * 2)[None] for k, v in values.items()}, steps=1)


@pytest.mark.parametrize("nearness", [1e-12, 1e-13])
def test_directions_that_hyperplanes_leave_out_are_not_priced_as_none(nearness):
    """A column that nearly repeats another is a direction of its own: norms do not see its size."""
    G, rest = gaussian(9, 3, 0), np.random.default_rng(5).standard_normal(9)
    y = np.random.default_rng(1).standard_normal(9)
    problem = Problem(np.c_[G, G[:, 0] + nearness * rest], y, 0.05, architecture=NormalisedReLU())
    apart = problem.replace(X=np.c_[G, (problem.X[:, 3] - G[:, 0]) / nearness])
    solution = solve(problem, throw=False)
    # The same outputs in exact arithmetic: every unit there is a unit here.
    assert solution.certificate.dual <= solve(apart).objective * (1 + 1e-9)
    assert solution.certificate.scope != EXACT
    exact = solve(problem.replace(X=np.c_[G, G[:, 0]]))
    assert exact.certificate.scope == EXACT


@pytest.mark.parametrize("last", ["repeats the first", "sum of the others"])
@pytest.mark.parametrize("size", [3.0, 1e8, 10**12.5, 1e13, 1e14, 1e15])
def test_outputs_of_rounding_are_no_outputs(last, size):
    """Along directions that put out nothing, weights grow at no cost until products are rounding.

    Such a unit would have any rows on, and lie in no cell: networks of them passed the optimum.
    """
    a = np.random.default_rng(1).standard_normal((12, 2))
    repeats = last.startswith("repeats")
    X = np.c_[a, a[:, 0] if repeats else a.sum(axis=1)]
    null = np.array([1.0, 0.0, -1.0] if repeats else [1.0, 1.0, -1.0])
    problem = Problem(X, gaussian(12, 1, 3)[:, 0], 0.1, architecture=NormalisedReLU())
    solution = solve(problem)
    assert solution.certificate.scope == EXACT
    rng = np.random.default_rng(0)
    w = rng.standard_normal((4000, 3)) + size * null
    D = normalised_relu.columns(X, {"directions": w})
    prices = np.abs(solution.dual @ D)
    assert prices.max() <= problem.beta * (1 + 1e-5)
    if size == 3.0:
        assert prices.max() > 0.3 * problem.beta  # harmless sizes are still units
