"""The set of optima on one input with a free bias: a Lasso over ramps, whose kinks may slide."""

from __future__ import annotations

import itertools

import cvxpy
import numpy as np
import pytest
import torch
from optima import optima_of, supports, supports_by_linear_programs

from landscape import arrangements, solve
from landscape.architectures import TwoLayer
from landscape.errors import BadInput
from landscape.optimal_set import OptimalSet
from landscape.problem import Problem

RAMPS = {
    "published": ([0, 4, 5, 7, 10, 11], [0, 0, 0, 2, 3, 3]),
    "zigzag": (range(7), [0, 1, 0, 1, 0, 1, 0]),
    "bowl": (range(6), [9, 4, 1, 0, 1, 4]),
    "line": (range(5), [0, 2, 4, 6, 8]),
    "repeated": ([0, 1, 1, 2, 4], [0, 1, 2, 0, 1]),
    "random": (
        np.random.default_rng(0).uniform(-1, 1, 8), np.random.default_rng(1).standard_normal(8)
    ),
}  # fmt: skip


def ramps(name, beta=0.05, loss="squared"):
    x, y = (np.array(v, dtype=float) for v in RAMPS[name])
    return Problem(x[:, None], y, beta, architecture=TwoLayer("free"), loss=loss)


@pytest.mark.parametrize("name", RAMPS)
def test_one_input_and_a_free_bias_are_a_lasso_over_ramps(name):
    problem = ramps(name)
    optima = optima_of(problem)
    x = problem.X[:, 0]
    A = np.hstack([np.maximum(x[:, None] - x, 0), np.maximum(x - x[:, None], 0)])
    z, xi = cvxpy.Variable(A.shape[1]), cvxpy.Variable()
    lasso = cvxpy.sum_squares(A @ z + xi - problem.y) / 2 + problem.beta * cvxpy.norm1(z)
    optimum = cvxpy.Problem(cvxpy.Minimize(lasso)).solve(solver=cvxpy.CLARABEL)
    assert supports(optima) == supports_by_linear_programs(optima)
    for c in [*optima.vertices, optima.most(), optima.least(), optima.smallest()]:
        network = optima.network(c)
        assert float(problem.objective(network)) == pytest.approx(optimum, rel=1e-6)
        assert optima.coefficients(network) == pytest.approx(c, abs=1e-6)
        at = np.linspace(-3, 12, 31)[:, None]
        outputs = network(at).detach().numpy()
        assert outputs == pytest.approx(optima.outputs(at) @ c + optima.offset, abs=1e-8)
    spread = np.ptp(optima.outputs(at) @ optima.vertices.T, axis=1).max()
    assert optima.one_function == (spread < 1e-8)
    with pytest.raises(BadInput, match="kinks move between samples"):
        optima.components(3)


def test_neurons_between_samples_are_brought_to_samples():
    problem = ramps("bowl")
    optima = optima_of(problem)
    found = optima.coefficients(optima.solution.network())
    values = {k: v.detach() for k, v in optima.network(found).values.items()}
    hidden, output = values["hidden"], values["output"]
    # Neighbours of one sign and direction become one neuron, its kink between them.
    kinks = -hidden[:, 1] / hidden[:, 0]
    i, j = next(
        (i, j) for i, j in itertools.permutations(range(len(output)), 2)
        if hidden[i, 0] * hidden[j, 0] > 0 and output[i] * output[j] > 0
        and kinks[j] - kinks[i] == pytest.approx(1)
    )  # fmt: skip
    size = output[i].abs() ** 2 + output[j].abs() ** 2
    joined = (output[i].abs() * hidden[i] + output[j].abs() * hidden[j]) / size.sqrt()
    kept = [k for k in range(len(output)) if k not in (i, j)]
    merged = {
        "hidden": torch.vstack([hidden[kept], joined]),
        "output": torch.cat([output[kept], (size.sqrt() * output[i].sign())[None]]),
        "constant": values["constant"],
    }
    assert float(problem.objective(merged)) == pytest.approx(optima.solution.objective, rel=1e-9)
    assert optima.coefficients(merged) == pytest.approx(found, abs=1e-6)
    # One that is open on all samples slides, and the output bias takes that up.
    line = optima_of(ramps("line"))
    slid = {k: v.detach().clone() for k, v in line.network(line.least()).values.items()}
    slid["hidden"][0, 1] += 3 * slid["hidden"][0, 0].abs()
    slid["constant"] -= 3 * slid["hidden"][0, 0].abs() * slid["output"][0]
    assert line.coefficients(slid) == pytest.approx(line.least(), abs=1e-6)
    # A neuron that is open nowhere adds nothing; one in a wrong direction is named.
    dead = {**slid, "hidden": torch.vstack([slid["hidden"], torch.tensor([[1.0, -9.0]])])}
    dead["output"] = torch.cat([slid["output"], torch.ones(1)])
    assert line.coefficients(dead) == pytest.approx(line.least(), abs=1e-6)
    wrong = {**dead, "hidden": torch.vstack([slid["hidden"], torch.tensor([[1.0, -2.5]])])}
    with pytest.raises(BadInput, match="direction no optimal network has"):
        line.coefficients(wrong)
    # The members differ beyond the samples: the best there is found, the offset counted.
    at = np.array([[-3.0], [7.0]])
    wanted = line.network(line.most())(at).detach().numpy()
    assert line.outputs(at) @ line.best(at, wanted) + line.offset == pytest.approx(wanted, abs=1e-5)
    given = solve(problem, arrangements.enumerate(problem.design)[:2])
    with pytest.raises(BadInput, match="solve over all patterns"):
        OptimalSet(given)


def test_a_constant_is_optimal_from_beta_max_on():
    optima = optima_of(ramps("random", 50.0))
    assert optima.unique and optima.one_function and (optima.m_star, optima.M_star) == (0, 0)
    network = optima.network(optima.least())
    assert float(network.values["constant"].detach()) == pytest.approx(RAMPS["random"][1].mean())


def test_ramps_under_the_logistic_loss():
    x, y = np.arange(7.0)[:, None], np.array([1, -1, 1, 1, -1, 1, -1.0])
    problem = Problem(x, y, 0.05, architecture=TwoLayer("free"), loss="logistic")
    optima = optima_of(problem)
    for c in optima.vertices:
        value = float(problem.objective(optima.network(c)))
        assert value == pytest.approx(optima.solution.objective, rel=1e-7)
