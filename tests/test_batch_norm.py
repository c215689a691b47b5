"""Batch normalisation before ReLU: whitening, torch's layer, closed form, degenerate data."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
import torch

from landscape import Network, Problem, arrangements, certify, data, solve, train
from landscape.architectures import BatchNorm, TwoLayer, whitening
from landscape.bounds import EXACT, beta_max
from landscape.errors import BadInput

TINY = 1e-30
"""torch asks for a positive eps in training mode; nothing is left of this one."""
X_TALL = np.random.default_rng(0).standard_normal((9, 2)) * [1.0, 30.0] + [5.0, -100.0]


def targets(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


def problem_on(X: np.ndarray, share: float = 0.05, **options) -> Problem:
    problem = Problem(X, targets(len(X)), 1.0, architecture=BatchNorm(), **options)
    return problem.replace(beta=share * beta_max(problem))


def network_of(problem: Problem, seed: int = 0, width: int = 5) -> dict[str, torch.Tensor]:
    batch = problem.architecture.initial(problem, width, [seed])
    return {k: v[0] for k, v in batch.items()}


def enumerated(problem: Problem, U: np.ndarray) -> float:
    """The convex program over all patterns of some rows, written out in cvxpy."""
    masks = np.asarray(arrangements.enumerate(U)).astype(float)
    blocks = [cp.Variable(U.shape[1]) for _ in range(2 * len(masks))]
    sides = [(mask, sign) for mask in masks for sign in (1.0, -1.0)]
    fit = sum(s * (m[:, None] * U) @ u for (m, s), u in zip(sides, blocks, strict=True))
    cones = [((2 * m - 1)[:, None] * U) @ u >= 0 for (m, _), u in zip(sides, blocks, strict=True)]
    size = problem.beta * sum(cp.norm(u) for u in blocks)
    objective = cp.Minimize(0.5 * cp.sum_squares(fit - problem.y) + size)
    return float(cp.Problem(objective, cones).solve(solver=cp.CLARABEL))


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_that_of_the_written_out_program(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((7, 2)) + 3.0
    problem = problem_on(X)
    centred = X - X.mean(0)
    # The paper's own form: U of X_c by an SVD of its own.
    U = np.hstack([np.linalg.svd(centred, full_matrices=False)[0], np.full((7, 1), 7**-0.5)])
    solution = solve(problem)
    assert solution.certificate.scope == EXACT and solution.active >= 3
    assert enumerated(problem, U) == pytest.approx(solution.objective, rel=1e-6)
    # X_c without whitening, or without the constant column, is another problem.
    for wrong in (np.hstack([centred, U[:, -1:]]), U[:, :-1]):
        assert abs(enumerated(problem, wrong) / solution.objective - 1) > 1e-3


def test_trained_networks_reach_the_optimum_and_never_pass_it():
    problem = problem_on(X_TALL)
    solution = solve(problem)
    runs = train(problem, 10, range(2), "adam", 700, learning_rate=0.03)
    assert runs.objectives.min() >= solution.certificate.dual * (1 - 1e-12)
    assert runs.objectives.min() == pytest.approx(solution.objective, rel=1e-4)


@pytest.mark.parametrize("X", [X_TALL, X_TALL[:3], X_TALL[:2]], ids=["tall", "square", "wide"])
def test_torch_puts_out_the_same(X):
    """BatchNorm1d without eps, in training mode and, with its running statistics, in evaluation."""
    problem = problem_on(X)
    parameters = network_of(problem)
    inputs = torch.as_tensor(X)
    module = problem.architecture.as_torch(parameters)
    ours = problem.architecture.forward(parameters, inputs)
    torch.testing.assert_close(module(inputs)[:, 0], ours)
    new = torch.as_tensor(np.random.default_rng(5).standard_normal((4, 2)))
    torch.testing.assert_close(module(new)[:, 0], problem.architecture.forward(parameters, new))
    module.train()
    torch.testing.assert_close(module(inputs)[:, 0], ours)
    # √n between the two scales: torch's layer with our γ would not do.
    weight = module[1].weight * len(X) ** 0.5
    torch.testing.assert_close(weight.detach(), parameters["scale"])


def test_a_torch_network_is_judged():
    problem = problem_on(X_TALL)
    torch.manual_seed(0)
    layers = torch.nn.Linear(2, 6, bias=False), torch.nn.BatchNorm1d(6, eps=TINY)
    module = torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(6, 1, bias=False))
    module = module.double().train()
    torch.nn.init.normal_(module[1].bias)
    parameters = problem.architecture.from_torch(problem, module)
    fit = module(torch.as_tensor(problem.X))[:, 0]
    torch.testing.assert_close(
        problem.architecture.forward(parameters, torch.as_tensor(problem.X)), fit.detach()
    )
    judged = certify(problem, Network(problem.architecture, parameters))
    by_hand = 0.5 * float(((fit - torch.as_tensor(problem.y)) ** 2).sum().detach())
    squares = (
        9 * (module[1].weight ** 2 + module[1].bias ** 2).sum() + (module[3].weight ** 2).sum()
    )
    by_hand += 0.5 * problem.beta * float(squares.detach())
    assert judged.primal == pytest.approx(by_hand, rel=1e-12)
    assert judged.scope == EXACT and judged.dual < judged.primal
    with pytest.raises(BadInput, match="BatchNorm1d"):
        problem.architecture.from_torch(problem, torch.nn.Sequential(*layers))
    with pytest.raises(BadInput, match="output bias"):
        biased = torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(6, 1))
        problem.architecture.from_torch(problem, biased)
    wide = problem.replace(X=np.hstack([problem.X, problem.X[:, :1] ** 2]))
    with pytest.raises(BadInput, match=r"network takes \d inputs: X has \d columns"):
        problem.architecture.from_torch(wide, module)


@pytest.mark.parametrize("d", [5, 6, 12])
@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_the_closed_form_where_samples_are_few(d, loss):
    """With n ≤ d + 1 the parts of y of either sign are shrunk by β, with a neuron for each."""
    n = 6
    X = np.random.default_rng(d).standard_normal((n, d))
    problem = Problem(X, targets(n), 0.3, architecture=BatchNorm())
    assert problem.design.shape == (n, n)
    np.testing.assert_allclose(problem.design @ problem.design.T, np.eye(n), atol=1e-13)
    parts = [np.maximum(s * problem.y, 0.0) for s in (1.0, -1.0)]
    sizes = np.array([np.linalg.norm(part) for part in parts])
    assert beta_max(problem) == pytest.approx(sizes.max(), rel=1e-9)
    if loss == "huber":
        problem = problem.replace(loss="huber")
        assert solve(problem).certificate.relative_gap <= 1e-7
        return
    shrunk = [part * max(0.0, 1 - 0.3 / size) for part, size in zip(parts, sizes, strict=True)]
    optimum = 0.5 * sum(((a - b) ** 2).sum() for a, b in zip(parts, shrunk, strict=True))
    optimum += 0.3 * np.maximum(sizes - 0.3, 0.0).sum()
    solution = solve(problem)
    assert solution.objective == pytest.approx(optimum, rel=1e-8)
    fit = solution.network()(X).detach().numpy()
    np.testing.assert_allclose(fit, shrunk[0] - shrunk[1], atol=1e-6)
    # The same by hand: one neuron a sign, whose γq and α are the shrunk part seen through U'.
    u = problem.design.T @ np.stack([part / np.linalg.norm(part) for part in parts]).T
    z = np.maximum(sizes - 0.3, 0.0)
    T = torch.as_tensor(whitening.of(X).spread)
    hidden = torch.as_tensor((np.sqrt(z) * u)[:-1].T)
    own = {
        "hidden": torch.linalg.lstsq(T, hidden.T).solution.T,
        "scale": hidden.norm(dim=1),
        "shift": torch.as_tensor((np.sqrt(z) * u)[-1]),
        "output": torch.as_tensor(np.sqrt(z) * [1.0, -1.0]),
        **whitening.statistics(X),
    }
    assert float(problem.objective(own)) == pytest.approx(optimum, rel=1e-12)


def degenerate() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((8, 2))
    return {
        "constant column": np.hstack([X, np.full((8, 1), 0.1)]),
        "dependent column": np.hstack([X, X @ [[1.0], [-3.0]]]),
        "duplicate rows": np.vstack([X[:5], X[:3]]),
        "far away": X + 1e7,
        "one distinct row": np.tile(X[:1], (8, 1)),
    }


@pytest.mark.parametrize("name", degenerate())
def test_degenerate_inputs(name):
    X = degenerate()[name]
    problem = problem_on(X)
    rank = np.linalg.matrix_rank(X - X.mean(0), tol=1e-6)
    assert problem.design.shape[1] == rank + 1
    np.testing.assert_allclose(problem.design.T @ problem.design, np.eye(rank + 1), atol=1e-9)
    solution = solve(problem)
    assert solution.certificate.relative_gap <= 1e-7
    # Directions along which training inputs do not vary are not used.
    T = torch.as_tensor(whitening.of(X).spread)
    null = torch.eye(X.shape[1]).double() - torch.linalg.pinv(T) @ T
    hidden = solution.network().values["hidden"].detach()
    assert float((hidden @ null).norm()) <= 1e-7 * max(1.0, float(hidden.norm()))
    network = network_of(problem)
    point = problem.architecture.lift(problem, network)
    again = problem.architecture.lower(point)
    assert point.value <= float(problem.objective(network)) * (1 + 1e-9)
    assert float(problem.objective(again)) == pytest.approx(point.value, rel=1e-9)


def test_neither_shifts_nor_scales_nor_turns_of_the_inputs_matter():
    problem = problem_on(X_TALL)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    here = solve(problem).objective
    for X in (X_TALL * [1e-9, 1e6] + 7.0, X_TALL @ turn @ [[1.0, 2.0], [0.0, 1e3]]):
        assert solve(problem.replace(X=X)).objective == pytest.approx(here, rel=1e-6)
    plain = problem.replace(architecture=TwoLayer(bias="penalised"))
    assert abs(solve(plain).objective / solve(plain.replace(X=X_TALL + 7.0)).objective - 1) > 1e-3


def test_new_inputs_see_the_statistics_of_training(tmp_path):
    problem = problem_on(X_TALL)
    network = solve(problem).network()
    new = np.random.default_rng(8).standard_normal((5, 2)) * 10
    values = {k: v.detach().numpy() for k, v in network.values.items()}
    expected = np.zeros(5)
    for w, gamma, alpha, a in zip(
        values["hidden"], values["scale"], values["shift"], values["output"], strict=True
    ):
        size = np.linalg.norm((X_TALL - X_TALL.mean(0)) @ w)
        before = gamma * (new - X_TALL.mean(0)) @ w / size + alpha / 9**0.5
        expected += np.maximum(before, 0.0) * a
    np.testing.assert_allclose(network(new).detach().numpy(), expected, atol=1e-12)
    one_by_one = [float(network(row[None])[0].detach()) for row in new]
    np.testing.assert_allclose(one_by_one, expected, atol=1e-12)
    again = Network.load(network.save(tmp_path / "network.npz"))
    assert torch.equal(again(new), network(new))
    plain = Network(TwoLayer(bias="penalised"), problem.architecture.folded(network.values))
    np.testing.assert_allclose(plain(new).detach().numpy(), expected, atol=1e-9)


def test_a_neuron_that_sees_nothing_is_a_constant():
    problem = problem_on(np.hstack([X_TALL, np.ones((9, 1))]))
    network = network_of(problem)
    network["hidden"][:] = torch.tensor([0.0, 0.0, 2.0])
    fit = problem.architecture.forward(network, torch.as_tensor(problem.X))
    expected = (torch.relu(network["shift"] / 3.0) * network["output"]).sum()
    torch.testing.assert_close(fit, expected.expand(9))
    point = problem.architecture.lift(problem, network)
    assert point.value <= float(problem.objective(network))
    torch.testing.assert_close(torch.as_tensor(point.program.fit(point.theta, point.constant)), fit)


def test_padding_goes_and_statistics_stay():
    problem = problem_on(X_TALL)
    network = network_of(problem, width=2)  # as many neurons as inputs
    network["output"][0] = 0.0
    kept = problem.architecture.without_padding(network)
    assert kept["hidden"].shape == (1, 2) and kept["mean"].shape == (2,)
    assert kept["spread"].shape == (2, 2)
    for name in ("mean", "spread", "samples"):
        assert torch.equal(kept[name], network[name])


def test_planted_faults_are_seen():
    problem = problem_on(X_TALL)
    solution = solve(problem)
    values = {k: v.detach().clone() for k, v in solution.network().values.items()}
    for name, factor in (("scale", -1.0), ("shift", 1.1), ("output", -1.0)):
        wrong = {**values, name: factor * values[name]}
        assert certify(problem, Network(problem.architecture, wrong)).relative_gap > 1e-4
    fewer = {k: v[1:] if k not in problem.architecture.fixed else v for k, v in values.items()}
    assert certify(problem, Network(problem.architecture, fewer)).relative_gap > 1e-4


def test_real_data_are_solved_and_certified():
    sample = data.load("diabetes", n=100, rank=3)
    problem = Problem(sample.X, sample.y, 1.0, architecture=BatchNorm())
    solution = solve(problem)
    assert solution.certificate.scope == EXACT
    assert solution.certificate.relative_gap <= 1e-7


def test_labels_under_logistic_loss():
    problem = Problem(X_TALL, np.sign(targets(9)), 0.1, loss="logistic", architecture=BatchNorm())
    assert solve(problem).certificate.relative_gap <= 1e-7


def test_refusals():
    with pytest.raises(BadInput, match="one output"):
        Problem(X_TALL, np.ones((9, 2)), 0.1, architecture=BatchNorm())
    assert BatchNorm().label == "batch_norm"
    assert replace(BatchNorm()) == BatchNorm()


@pytest.mark.parametrize("changed", ["samples", "spread", "mean"])
def test_statistics_of_other_inputs_certify_nothing(changed):
    """With a spread fifty times smaller γ may be too, and the penalty would be a fraction."""
    problem = problem_on(X_TALL)
    network = network_of(problem)
    certify(problem, network)
    foreign = {"samples": X_TALL[:8], "spread": 0.02 * X_TALL, "mean": X_TALL + 0.01}[changed]
    network[changed] = whitening.statistics(foreign)[changed]
    with pytest.raises(BadInput, match="statistics of"):
        certify(problem, network)


def test_a_network_of_some_samples_is_not_judged_on_all_of_them():
    problem, some = problem_on(X_TALL), problem_on(X_TALL[:6])
    network = solve(some).network()
    with pytest.raises(BadInput, match="statistics of 6 inputs"):
        certify(problem, network)
    again = {**network.values, **whitening.statistics(problem.X)}
    assert certify(problem, again).relative_gap >= -1e-9


@pytest.mark.parametrize("X", [X_TALL[:, [0, 0]], np.c_[X_TALL, np.full(9, 7.0)], X_TALL + 1e6])
def test_own_statistics_are_known_again(X):
    problem = problem_on(X)
    assert certify(problem, network_of(problem)).relative_gap >= 0.0


@pytest.mark.parametrize("way", ["rows in another order", "turned", "single precision"])
@pytest.mark.parametrize(
    "X",
    [
        X_TALL,
        np.c_[X_TALL, np.full(9, 0.1)],  # 0.1 is rounded to single precision
        X_TALL + 1e3,
        np.c_[X_TALL, 2.0**-60 * X_TALL[::-1, :1]],
    ],
)
def test_the_same_network_by_other_statistics_of_the_same_inputs(X, way):
    """T is known up to a turn, which changes no function: the verdict is the optimum's own."""
    problem = problem_on(X)
    solution = solve(problem)
    values = {k: v.detach() for k, v in solution.network().values.items()}
    if way == "rows in another order":
        order = np.random.default_rng(2).permutation(len(X))
        problem = problem.replace(X=X[order], y=problem.y[order])
    elif way == "turned":
        turn = np.linalg.qr(np.random.default_rng(3).standard_normal((len(values["spread"]),) * 2))
        values["spread"] = torch.tensor(turn[0]) @ values["spread"]
    else:
        values = {k: v.float() for k, v in values.items()}
    judged = certify(problem, values, dual=solution.dual if way != "rows in another order" else ())
    near = 1e-4 if way == "single precision" else 1e-7
    assert -1e-12 <= judged.relative_gap <= near
    if way != "single precision":  # neurons leave their kinks there
        assert judged.stationarity <= 1e-6
    assert judged.primal == pytest.approx(solution.objective, rel=near)


def test_foreign_statistics_neither_start_training_nor_have_an_objective():
    """Shrunk statistics put out the same at a fiftieth of γ: cheaper than any real network."""
    problem = problem_on(X_TALL)
    values = {k: v.detach() for k, v in solve(problem).network().values.items()}
    cheap = {**values, "spread": 0.02 * values["spread"], "scale": 0.02 * values["scale"]}
    with pytest.raises(BadInput, match="statistics of 9 inputs that are not the problem's 9"):
        train(problem, start={k: v[None] for k, v in cheap.items()}, steps=1)
    with pytest.raises(BadInput, match="statistics of 9 inputs"):
        problem.objective(Network(problem.architecture, cheap))
    started = train(problem, start={k: v[None].float() for k, v in values.items()}, steps=1)
    assert started.trace[0, 0] == pytest.approx(solve(problem).objective, rel=1e-4)


def test_a_column_of_any_size_is_a_direction():
    """Normalisation does not see sizes: a bound without this column would be above the optimum."""
    small = problem_on(np.c_[X_TALL, 2.0**-560 * X_TALL[::-1, :1]])
    alike = small.replace(X=np.c_[X_TALL, X_TALL[::-1, :1]])
    best = solve(alike)
    found = solve(small)
    assert found.objective == pytest.approx(best.objective, rel=1e-9)
    assert found.certificate.dual <= best.objective * (1 + 1e-12)
    assert best.objective < 0.99 * solve(small.replace(X=X_TALL)).objective


@pytest.mark.parametrize("size", [1.0, 1e6, 1e13, 1e15])
def test_what_a_network_puts_out_is_what_its_point_over_the_design_does(size):
    """Along the null space of T weights grow at no cost, until Tw and X_c w are unlike rounding."""
    problem = problem_on(np.c_[X_TALL, X_TALL[:, 0]])
    values = network_of(problem, width=200)
    values["hidden"] = values["hidden"] + size * torch.tensor([1.0, 0.0, -1.0]).double()
    values["shift"] = torch.zeros(200, dtype=torch.float64)
    over = problem.architecture.over_design(values)["hidden"]
    wanted = torch.relu(torch.as_tensor(problem.design) @ over.T) @ values["output"]
    found = problem.architecture.forward(values, torch.as_tensor(problem.X))
    assert torch.allclose(found, wanted, atol=1e-5)
    if size <= 1e6:
        assert float(found.abs().max()) > 0.1  # harmless sizes are still directions


def test_statistics_start_training_in_their_own_precision():
    """Weights of another kind do not round them: integers would make means zero."""
    problem = problem_on(X_TALL)
    values = network_of(problem)
    start = {k: v[None] for k, v in {**values, "hidden": values["hidden"].round().long()}.items()}
    runs = train(problem, start=start, steps=1)
    mean = runs.networks[0].values["mean"].numpy()
    np.testing.assert_array_equal(mean, problem.X.mean(axis=0))
    with pytest.raises(BadInput, match="statistics of 9 inputs"):
        problem.objective(
            Network(problem.architecture, {**values, "mean": values["mean"] * torch.nan})
        )
