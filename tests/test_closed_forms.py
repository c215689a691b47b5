"""Closed forms against explicit networks and semidefinite programs, degenerate data included."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
import torch

from landscape import Problem
from landscape.architectures import StandardDeep, TwoLayer
from landscape.closed_forms import channels, optimum, whitened_outputs
from landscape.errors import BadInput

RNG = np.random.default_rng(0)
LINE = RNG.standard_normal((6, 1)) * np.array([[0.6, 0.8]])
DATA = {
    "line": LINE,
    "one sample": np.array([[0.5, -1.2]]),
    "one side": np.abs(LINE),
    "duplicates and zeros": np.vstack([LINE[:3], LINE[:2], np.zeros((2, 2))]),
    "orthogonal": 1.5 * np.linalg.qr(RNG.standard_normal((5, 5)))[0][:4],
    "one by one": np.array([[-0.7]]),
}


def chains(problem: Problem, sizes: np.ndarray, first: np.ndarray, signs: np.ndarray):
    """Return networks that put out sizes (S, 2) in the two channels: one neuron or two chains.

    Channels of one sign meet in one neuron of the second layer, others stay apart; all layers
    have one norm.
    """
    depth = problem.architecture.depth
    together = signs[0] == signs[1]
    if depth == 2:
        root = torch.as_tensor(np.sqrt(sizes))
        return {
            "hidden": root[..., None] * torch.as_tensor(first),
            "output": root * torch.as_tensor(signs),
        }
    inner = torch.zeros(len(sizes), depth - 2, 2, 2, dtype=torch.float64)
    if together:
        total = sizes.sum(axis=1)
        unit = np.sqrt(sizes / np.where(total > 0, total, 1.0)[:, None])
        inner[:, 0, 0, :] = torch.as_tensor(unit)
        inner[:, 1:, 0, 0] = 1.0
        output = torch.as_tensor(np.array([signs[0], 0.0])).expand(len(sizes), 2)
        scale = torch.as_tensor(total ** (1 / depth))
        hidden = torch.as_tensor(unit)[..., None] * torch.as_tensor(first)
        return {
            "hidden": scale[:, None, None] * hidden,
            "inner": scale[:, None, None, None] * inner,
            "output": scale[:, None] * output,
        }
    each = torch.as_tensor(sizes ** (1 / depth))
    for i in range(2):
        inner[:, :, i, i] = each[:, None, i]
    return {
        "hidden": each[..., None] * torch.as_tensor(first),
        "inner": inner,
        "output": each * torch.as_tensor(signs),
    }


def least(problem: Problem) -> float:
    """Return the least objective of such networks, by grids that close in on the best point."""
    X, y = problem.X, problem.y
    _, s, Vt = np.linalg.svd(X, full_matrices=False)
    if s[1:].max(initial=0.0) < 1e-9 * s[0]:
        first = np.stack([Vt[0], -Vt[0]])
    else:
        parts = [np.maximum(y, 0), np.maximum(-y, 0)]
        first = np.stack([X.T @ part / max(np.linalg.norm(X.T @ part), 1e-300) for part in parts])
    outputs = np.maximum(X @ first.T, 0)
    signs = np.sign(outputs.T @ y)
    signs = np.where(signs == 0, signs[::-1], signs)  # a channel of no use goes with the other
    signs = np.where(signs == 0, 1.0, signs)
    high = 1.05 * np.abs(outputs.T @ y) / np.maximum((outputs**2).sum(axis=0), 1e-300) + 1e-6
    low, best = np.zeros(2), np.inf
    for _ in range(16):
        axes = [np.linspace(a, b, 21) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        values = problem.objective(chains(problem, grid, first, signs)).numpy()
        at = int(values.argmin())
        best = min(best, float(values[at]))
        step = (high - low) / 20
        low, high = np.maximum(grid[at] - 2 * step, 0.0), grid[at] + 2 * step
    return best


@pytest.mark.parametrize("sign", ["one", "both"])
@pytest.mark.parametrize("regulariser", ["decay", "power"])
@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("data", DATA)
def test_the_optimum_is_that_of_explicit_networks(data, depth, regulariser, sign):
    """The formulas are about gauges; the networks are in the parameters and pay weight decay."""
    X = DATA[data]
    y = 0.2 + np.abs(np.random.default_rng(len(X)).standard_normal(len(X)))
    y = y if sign == "one" else np.where(np.arange(len(y)) % 3, y, -y)
    for beta, side in ((0.02, 1.0), (0.4, -1.0)):
        architecture = StandardDeep(depth, regulariser=regulariser)
        problem = Problem(X, side * y, beta, architecture=architecture)
        shape = channels(problem)
        used = (shape.gains > 0) & (shape.targets > 0)
        if depth > 3 and used.all() and shape.signs[0] != shape.signs[1]:
            with pytest.raises(BadInput, match=f"depth is {depth}"):
                optimum(problem)
            continue
        assert least(problem) == pytest.approx(optimum(problem), rel=1e-6)


@pytest.mark.parametrize("data", DATA)
def test_where_beta_is_large_the_zero_network_is_all_there_is(data):
    X = DATA[data]
    y = np.where(np.arange(len(X)) % 2, 1.0, -2.0)
    for regulariser in ("decay", "power"):
        problem = Problem(X, y, 1e3, architecture=StandardDeep(3, regulariser=regulariser))
        assert optimum(problem) == pytest.approx(0.5 * y @ y, rel=1e-14)


@pytest.mark.parametrize("data", DATA)
def test_channels_carry_the_whole_loss(data):
    """½‖f − y‖² of the two channels' output is ½ Σ (g a − r)² plus a constant, for any a."""
    X, rng = DATA[data], np.random.default_rng(1)
    y = rng.standard_normal(len(X))
    g, r, signs, constant = channels(Problem(X, y, 0.1, architecture=StandardDeep(3)))
    assert (r >= 0).all() and constant >= 0
    if data == "orthogonal":
        parts = np.maximum(y, 0), np.maximum(-y, 0)
        units = [gain * part / np.linalg.norm(part) for gain, part in zip(g, parts, strict=True)]
    else:
        direction = np.linalg.svd(X)[2][0]
        units = [np.maximum(side * X @ direction, 0) for side in (1.0, -1.0)]
        units = units if g[0] == pytest.approx(np.linalg.norm(units[0])) else units[::-1]
    for a in rng.uniform(0, 2, (5, 2)):
        fit = sum(s * size * unit for s, size, unit in zip(signs, a, units, strict=True))
        a = np.where(signs == 0, 0.0, a)
        direct = 0.5 * ((fit - y) ** 2).sum()
        assert 0.5 * ((g * a - r) ** 2).sum() + constant == pytest.approx(direct, rel=1e-12)


def test_other_architectures_biases_and_shapes_are_refused():
    X, y = DATA["line"], np.ones(6)
    with pytest.raises(BadInput, match="it must be StandardDeep"):
        optimum(Problem(X, y, 0.1, architecture=TwoLayer()))
    with pytest.raises(BadInput, match="without bias"):
        optimum(Problem(X, y, 0.1, architecture=StandardDeep(3, bias="penalised")))
    tall = np.linalg.qr(RNG.standard_normal((5, 3)))[0]  # XᵀX = I is not X Xᵀ = I
    with pytest.raises(BadInput, match="multiple of the identity"):
        optimum(Problem(tall, np.ones(5), 0.1, architecture=StandardDeep(3)))
    nearly = np.eye(3) * np.array([1.0, 1.0, 1.0 + 1e-6])
    with pytest.raises(BadInput, match="multiple of the identity"):
        optimum(Problem(nearly, np.ones(3), 0.1, architecture=StandardDeep(3)))


OUTPUTS = {
    "balanced classes": np.eye(3)[[0, 1, 2, 0, 1, 2]],
    "unbalanced classes": np.eye(2)[[0, 0, 0, 1]],
    "one class is missing": np.eye(3)[[0, 0, 1, 1]],
    "one output": np.abs(RNG.standard_normal((4, 1))),
    "one sample": RNG.standard_normal((1, 3)),
    "rank one": np.outer([1.0, 2.0, 0.0, 0.5], [1.0, -1.0]),
    "zero": np.zeros((3, 2)),
}


@pytest.mark.parametrize("beta", [0.1, 0.8, 1.9])
@pytest.mark.parametrize("name", OUTPUTS)
def test_whitened_outputs_are_the_least_of_loss_and_nuclear_norm(name, beta):
    Y = OUTPUTS[name]
    value, fit = whitened_outputs(Y, beta)
    F = cvxpy.Variable(Y.shape)
    objective = 0.5 * cvxpy.sum_squares(F - Y) + beta * cvxpy.normNuc(F)
    theirs = cvxpy.Problem(cvxpy.Minimize(objective)).solve(solver="CLARABEL")
    assert value == pytest.approx(theirs, rel=1e-6, abs=1e-8)
    np.testing.assert_allclose(fit, F.value, atol=1e-4)


def test_vectors_of_two_signs_are_refused_only_where_they_take_part():
    """Above beta they are no neuron's outputs; below it they are thresholded away."""
    Y = 3.0 * np.outer(np.ones(4), [1.0, 0.0]) + 0.2 * np.outer([1.0, -1.0, 1.0, -1.0], [0.0, 1.0])
    value, fit = whitened_outputs(Y, 0.5)
    np.testing.assert_allclose(fit, (6.0 - 0.5) * np.outer(np.full(4, 0.5), [1.0, 0.0]), atol=1e-12)
    assert value == pytest.approx(0.5 * (0.25 + 0.16) + 0.5 * 5.5, rel=1e-12)
    with pytest.raises(BadInput, match="two signs"):
        whitened_outputs(Y, 0.3)
