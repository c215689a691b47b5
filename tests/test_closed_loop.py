"""The loop of the whole project: best trained = convex optimum = dual = mapped network."""

from __future__ import annotations

import numpy as np
import pytest
from cases import kgon, planted

from landscape import arrangements
from landscape.architectures import GatedReLU, TwoLayer
from landscape.bounds import EXACT
from landscape.certificate import certify
from landscape.problem import Problem
from landscape.solvers import reference, solve
from landscape.training import polish, train


def random_problem(seed, n, d, bias="none", loss="squared", beta=0.05):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    y = np.sign(y) if loss == "logistic" else y
    return Problem(X, y, beta, loss=loss, architecture=TwoLayer(bias=bias))


LOOPS = {
    "3-gon": kgon(3),
    "4-gon": kgon(4),
    "planted 12x2": planted(12, 2, k=2),
    "random 8x2": random_problem(0, 8, 2),
    "random 6x3": random_problem(1, 6, 3),
    "penalised bias": random_problem(2, 8, 1, "penalised"),
    "free bias": random_problem(3, 8, 1, "free"),
    "logistic": random_problem(4, 10, 2, loss="logistic", beta=0.2),
}


@pytest.mark.parametrize("name", LOOPS)
def test_best_of_many_trained_is_the_convex_optimum_is_the_dual(name):
    problem = LOOPS[name]
    every = arrangements.enumerate(problem.design)
    program = problem.architecture.program(problem, every)
    dual, _ = reference.solve_dual(program)
    solution = solve(problem)
    assert solution.certificate.scope == EXACT
    mapped = problem.objective(solution.network())
    assert mapped == pytest.approx(dual, rel=1e-6)
    runs = train(problem, width=3 * len(problem.y), seeds=range(40), optimizer="adam", steps=2000)
    runs = polish(problem, runs)
    assert runs.objectives.min() == pytest.approx(mapped, rel=1e-6)
    # Never below the bound by more than rounding, whichever run.
    assert (runs.objectives >= solution.certificate.dual * (1 - 1e-9)).all()
    certificate = certify(problem, runs.best, dual=[solution.dual])
    assert certificate.relative_gap <= 1e-6


def test_gated_networks_reach_the_optimum_over_their_own_gates():
    rng = np.random.default_rng(7)
    problem = Problem(
        rng.standard_normal((10, 2)), rng.standard_normal(10), 0.1, architecture=GatedReLU()
    )
    runs = train(problem, width=12, seeds=range(4), optimizer="lbfgs", steps=600)
    for network, objective in zip(runs.networks, runs.objectives, strict=True):
        own = problem.architecture.lift(problem, network.values).program.patterns
        best = solve(problem, own)
        assert objective >= best.certificate.dual * (1 - 1e-9)
        assert objective == pytest.approx(best.objective, rel=1e-5)
