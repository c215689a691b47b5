"""Heads over tokens: attention against its nuclear-norm program, by other roads and by training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape import Problem, certify, data, solve, train
from landscape.architectures import Attention, FourierMixing, Mixer
from landscape.architectures.tokens import TokenHeads
from landscape.bounds import EXACT, SEARCH, beta_max
from landscape.errors import BadInput
from landscape.pricing import heads
from landscape.solvers import bilinear
from landscape.theory import exactness

KINDS = [
    (Attention, 2, "mean", 3),
    (Attention, 2, "none", 4),
    (Mixer, 3, "mean", 3),
    (Mixer, 3, "none", 6),
    (FourierMixing, 3, "none", 9),
    (FourierMixing, 2, "mean", 3),
]
"""Architecture, tokens, pooling, numbers that a sample puts out."""


def instance(seed: int, activation: str = "linear", n: int = 8, d: int = 6) -> Problem:
    """Gaussian sequences at β ≤ 0.03 β_max."""
    kind, tokens, pooling, outputs = KINDS[seed % 6]
    rng = np.random.default_rng(100 + seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal((n, outputs))
    architecture = kind(tokens, None, activation, pooling, 2 + seed % 2)
    problem = Problem(X, y, 1.0, architecture=architecture)
    return problem.replace(beta=[0.01, 0.02, 0.03][seed % 3] * beta_max(problem))


def written_out(problem: Problem) -> list[list[np.ndarray]]:
    """Φ from the definitions, by loops: one list a gate, a matrix (ab, ec) a number put out."""
    own = problem.architecture
    s, mean = own.tokens, own.pooling == "mean"
    d, c = problem.X.shape[1] // s, problem.outputs // (1 if mean else s)
    H = own.drawn(d).numpy() if own.activation == "gated" else [None]
    found: list[list[np.ndarray]] = [[] for _ in H]
    for x in problem.X.reshape(-1, s, d):
        seen = _seen(own, x)  # [t][r]: score as a matrix on W_1, and what it is spread to
        for g, gate in enumerate(H):
            rows = []
            for t in range(s):
                total = 0.0
                for score, spread in seen[t]:
                    on = 1.0 if gate is None else float((score * gate).sum() >= 0)
                    total = total + on * np.outer(score.reshape(-1), spread)
                rows.append(total)
            rows = [sum(rows) / s] if mean else rows
            for row in rows:
                for k in range(c):
                    found[g].append(np.kron(row, np.eye(c)[k]))
    return found


def _seen(own, x):
    s, d = x.shape
    if isinstance(own, Attention):
        return [[(np.outer(x[t], x[u]), x[u]) for u in range(s)] for t in range(s)]
    if isinstance(own, Mixer):
        columns = [np.eye(s)[:, [t]] * x[:, a] for t in range(s) for a in range(d)]
        return [[(columns[t * d + a], np.eye(d)[a]) for a in range(d)] for t in range(s)]
    return [[(np.roll(x, -t, axis=0), np.ones(1))] for t in range(s)]


def by_cvxpy(problem: Problem) -> float:
    """The nuclear-norm program as it is written in the paper."""
    import cvxpy

    blocks = written_out(problem)
    Z = [cvxpy.Variable(found[0].shape) for found in blocks]
    fit = sum(
        np.stack([phi.reshape(-1) for phi in found]) @ cvxpy.vec(z, order="C")
        for found, z in zip(blocks, Z, strict=True)
    )
    penalty = problem.beta * sum(cvxpy.normNuc(z) for z in Z)
    one = cvxpy.Problem(cvxpy.Minimize(0.5 * cvxpy.sum_squares(fit - problem.y) + penalty))
    one.solve(solver=cvxpy.CLARABEL)
    return float(one.value)


@pytest.mark.parametrize("activation", ["linear", "gated"])
@pytest.mark.parametrize("seed", range(6))
def test_the_nuclear_norm_program_agrees(seed, activation):
    problem = instance(seed, activation, n=6)
    solution = solve(problem, tolerance=1e-8)
    assert solution.certificate.scope == EXACT
    assert by_cvxpy(problem) == pytest.approx(solution.objective, rel=1e-6)
    for g, found in enumerate(written_out(problem)):
        features = problem.architecture.features(problem)[g]  # (p, e, N)
        c = found[0].shape[1] // features.shape[1]
        own = [
            np.kron(features[:, :, N], np.eye(c)[k])
            for N in range(len(found) // c)
            for k in range(c)
        ]
        np.testing.assert_allclose(own, found, atol=1e-12)


@pytest.mark.parametrize(("seed", "activation"), [(7, "linear"), (10, "gated")])
def test_the_program_is_the_training_problem(seed, activation):
    problem = instance(seed, activation)
    found = exactness(problem, seeds=[0], steps=150, starts=12, draws=1)
    assert max(found.primal, found.dual, found.mapped, found.gap) <= 1e-6
    assert found.active >= 3
    assert found.below == found.duality == 0.0 and found.raised <= 1e-12
    assert found.trained <= 1e-6
    assert 0.99 <= found.adversary <= 1 + 1e-9
    assert found.attained == pytest.approx(1.0, abs=1e-9)


def test_heads_are_the_rank_of_what_they_add_up_to():
    problem = instance(0)
    architecture = problem.architecture
    batch = architecture.initial(problem, 30, [0])
    many = {k: v[0] for k, v in batch.items()}
    few = architecture.fewest(many)
    X = torch.as_tensor(problem.X)
    torch.testing.assert_close(architecture.forward(few, X), architecture.forward(many, X))
    Z = torch.einsum("mab,mec->abec", many["hidden"], many["output"]).reshape(9, 9)
    assert len(few["hidden"]) == 9
    assert float(architecture.penalty(few)) == pytest.approx(float(torch.linalg.svdvals(Z).sum()))
    assert architecture.penalty(few) < architecture.penalty(many)
    solution = solve(problem, tolerance=1e-9)
    network = solution.network().values
    Z = torch.einsum("mab,mec->abec", network["hidden"], network["output"]).reshape(9, 9)
    rank = int((torch.linalg.svdvals(Z) > 1e-9).sum())
    assert rank == solution.active == len(network["hidden"])


def test_one_token_at_a_time_and_one_output_for_each():
    """Without pooling a network's outputs lie as the targets do: by token, then by output."""
    problem = instance(1)
    network = solve(problem).network()
    tokens = problem.X.reshape(-1, 2, 3)
    W1, W2 = (network.values[k].detach().numpy() for k in ("hidden", "output"))
    wanted = [sum(x @ a @ x.T @ x @ b for a, b in zip(W1, W2, strict=True)) for x in tokens]
    found = network(problem.X).detach().numpy()
    np.testing.assert_allclose(found, np.reshape(wanted, (8, 4)), atol=1e-12)


@pytest.mark.parametrize("activation", ["linear", "gated", "relu"])
def test_no_head_prices_above_the_bound(activation):
    rng = np.random.default_rng(3)
    for seed in range(6):
        problem = instance(seed, activation, n=5)
        architecture = problem.architecture
        oracle = architecture.oracle(problem, 2000)
        heads = architecture.initial(problem, 300, [seed])
        columns = architecture.program(
            problem, architecture.units({k: v[0] for k, v in heads.items()})
        ).atoms
        assert (np.abs(columns.values) <= problem.architecture.reach(problem)[:, None]).all()
        for _ in range(3):
            nu = rng.standard_normal(len(problem.y))
            priced = oracle(nu)
            best = architecture.program(problem, priced.units).atoms.values[:, 0]
            assert np.abs(nu @ columns.values).max() <= abs(nu @ best) * (1 + 1e-12)
            assert abs(nu @ best) <= priced.bound
            if activation != "relu":
                assert priced.bound <= abs(nu @ best) * (1 + 1e-10)
            else:
                assert abs(nu @ best) == pytest.approx(priced.attained)


def test_planted_faults_are_seen():
    """A missing gate, linear heads for gated ones, other data: prices or optima are wrong."""
    problem = instance(0, "gated")
    nu = np.random.default_rng(0).standard_normal(len(problem.y))
    right = problem.architecture.oracle(problem, 0)(nu).bound
    blocks = problem.architecture.features(problem) @ nu.reshape(-1, 3)
    sizes = np.linalg.svd(blocks.reshape(*blocks.shape[:2], -1), compute_uv=False)[:, 0]
    assert sizes.max() == pytest.approx(right)
    assert sizes.min() < 0.95 * right
    linear = problem.replace(architecture=Attention(2))
    assert linear.architecture.oracle(linear, 0)(nu).bound != pytest.approx(right, rel=1e-3)
    tampered = problem.replace(X=1.001 * problem.X)
    assert by_cvxpy(tampered) != pytest.approx(solve(problem).objective, rel=1e-5)


@pytest.mark.parametrize("loss", ["logistic", "huber"])
def test_other_losses(loss):
    problem = instance(0)
    y = np.sign(problem.y.reshape(8, 3)) if loss == "logistic" else problem.y.reshape(8, 3)
    problem = problem.replace(y=y, loss=loss)
    problem = problem.replace(beta=0.05 * beta_max(problem))
    solution = solve(problem)
    assert solution.certificate.relative_gap <= 1e-7
    runs = train(problem, 8, [0], "lbfgs", 150)
    assert runs.objectives.min() >= solution.certificate.dual
    assert runs.objectives.min() == pytest.approx(solution.objective, rel=1e-2)


def test_newton_settles_heads_where_training_would_go():
    problem = instance(6, "gated")
    architecture = problem.architecture
    start = {k: v[0] for k, v in architecture.initial(problem, 8, [0]).items()}
    found = bilinear.settled(problem, start)
    assert problem.objective(found) < problem.objective(start)
    assert np.abs(slopes(problem, found)).max() <= 1e-8
    assert certify(problem, found).stationarity <= 1e-6


def test_the_slope_of_relu_heads_is_that_of_their_objective():
    for seed in range(6):
        problem = instance(seed, "relu")
        start = {k: v[0] for k, v in problem.architecture.initial(problem, 4, [0]).items()}
        own, w = problem.architecture, start["hidden"].numpy().reshape(4, -1)
        form = bilinear._ReLUForm(problem, TokenHeads.rows(own, problem), w, start)
        value, slope = form.slope(form.start)
        assert value == pytest.approx(float(problem.objective(start)), rel=1e-12)
        np.testing.assert_allclose(slope, slopes(problem, start), atol=1e-10)


def slopes(problem, network):
    point = {k: v.clone().requires_grad_(k != "gate") for k, v in network.items()}
    found = torch.autograd.grad(problem.objective(point), [point["hidden"], point["output"]])
    return np.concatenate([one.numpy().reshape(-1) for one in found])


def test_relu_heads_stand_between_their_bound_and_what_is_found():
    problem = instance(2, "relu", n=6)
    solution = solve(problem, throw=False, rounds=15)
    certificate = solution.certificate
    assert certificate.scope == SEARCH
    assert 0 < certificate.relaxed <= solution.objective * (1 + 1e-9)
    runs = train(problem, 12, range(2), "adam", 200, learning_rate=0.02)
    assert runs.objectives.min() >= solution.objective * (1 - 1e-6)


def test_relu_heads_of_one_output_are_exact():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((5, 4)), rng.standard_normal(5)
    problem = Problem(X, y, 1.0, architecture=FourierMixing(2, activation="relu"))
    problem = problem.replace(beta=0.05 * beta_max(problem))
    solution = solve(problem)
    assert solution.certificate.scope == EXACT
    assert solution.certificate.relative_gap <= 1e-7


def test_bounds_output_by_output_hold_for_all_outputs_together():
    """Of few inputs and several outputs: the largest of any orthonormal outputs is not enough."""
    rng = np.random.default_rng(9)
    binding = 0
    for _ in range(6):
        A, C = rng.standard_normal((30, 2)), np.abs(rng.standard_normal((30, 3)))
        C[:15] *= [1.0, 0.0, 0.0]
        C[15:] *= [0.0, 1.0, 1.0]
        angles = np.linspace(0, 2 * np.pi, 20_001)
        w = np.column_stack([np.cos(angles), np.sin(angles)])
        g = np.maximum(w @ A.T, 0.0) @ C
        reached = np.linalg.norm(g, axis=1)
        oracle = object.__new__(heads.ReLUHeads)
        oracle.effort = 10_000
        bound, _ = oracle._bound(A, C, np.array([1.0, 0.0, 0.0]))
        apart = [np.abs(np.maximum(w @ A.T, 0.0) @ C[:, k]).max() for k in range(3)]
        binding += max(apart) < reached.max() * (1 - 1e-3)
        assert reached.max() <= bound <= np.linalg.norm(apart) * 2
    assert binding


def test_sentences_are_solved_and_certified():
    sample = data.load("agreement", n=60)
    problem = Problem(sample.X, sample.y, 1.0, architecture=Attention(8))
    solution = solve(problem.replace(beta=0.05 * beta_max(problem)))
    assert solution.certificate.scope == EXACT
    assert solution.certificate.relative_gap <= 1e-7


def test_refusals():
    X = np.ones((4, 6))
    with pytest.raises(BadInput, match="multiple of 4"):
        Problem(X, np.ones(4), 1.0, architecture=Attention(4))
    with pytest.raises(BadInput, match="2 tokens of 2 entries"):
        Problem(X, np.ones(4), 1.0, architecture=Attention(2, 2))
    with pytest.raises(BadInput, match="each of 3 tokens"):
        Problem(X, np.ones((4, 2)), 1.0, architecture=Mixer(3, pooling="none"))
    with pytest.raises(BadInput, match="softmax"):
        Attention(2, activation="softmax")
    with pytest.raises(BadInput, match="pooling"):
        Attention(2, pooling="max")
    with pytest.raises(BadInput, match="tokens"):
        Attention(0)
    problem = Problem(X, np.ones(4), 1.0, architecture=Attention(2, activation="gated"))
    network = {k: v[0] for k, v in problem.architecture.initial(problem, 2, [0]).items()}
    for wrong in (4.0, -1.0, 0.5):
        with pytest.raises(BadInput, match="from 0 to 3"):
            certify(problem, {**network, "gate": torch.tensor([0.0, wrong]).double()})
    with pytest.raises(BadInput, match="no half-spaces"):
        Attention(2).gates({})
