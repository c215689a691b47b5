"""Column generation over all patterns: known optima, scopes, and that searches are not bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import planted

from landscape import arrangements, data, solve, train
from landscape.architectures import TwoLayer
from landscape.bounds import EXACT, RELAXED, SEARCH
from landscape.certificate import certify
from landscape.errors import BadInput
from landscape.problem import Problem
from landscape.solvers import reference, search


@pytest.mark.parametrize(("n", "d", "optimum"), [(50, 4, 4.8271864), (100, 4, 9.6465043)])
def test_planted_optima_without_a_list_of_patterns(n, d, optimum):
    solution = solve(planted(n, d), tolerance=1e-8)
    assert solution.objective == pytest.approx(optimum, abs=5.1e-8)  # as many digits as are known
    assert solution.certificate.scope == EXACT
    assert solution.certificate.relative_gap <= 1e-8
    assert solution.certificate.violation <= 1e-12
    assert solution.certificate.patterns == arrangements.count(n, d)


def test_every_seed_and_start_ends_at_the_same_optimum():
    problem = planted(60, 3)
    runs = train(problem, 20, [0], optimizer="lbfgs", steps=50)
    found = [solve(problem, seed=s).objective for s in range(3)]
    found.append(solve(problem, start=runs).objective)
    np.testing.assert_allclose(found, found[0], rtol=1e-7)


@pytest.mark.parametrize("loss", ["squared", "logistic", "huber", "hinge"])
@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_optimum_over_all_patterns_is_the_enumerated_dual(loss, bias):
    rng = np.random.default_rng(8)
    X, y = rng.standard_normal((11, 2)), rng.standard_normal(11)
    y = np.where(y > 0, 1.0, -1.0) if loss in ("logistic", "hinge") else y
    problem = Problem(X, y, 0.15, loss=loss, architecture=TwoLayer(bias=bias))
    solution = solve(problem, tolerance=1e-6)
    program = problem.architecture.program(problem, arrangements.enumerate(problem.design))
    dual, _ = reference.solve_dual(program)
    assert solution.objective == pytest.approx(dual, rel=2e-6)
    assert solution.certificate.scope == EXACT


def test_where_the_proof_is_out_of_reach_the_scope_says_search_and_the_bound_is_apart():
    sample = data.load("scaled", n=60, d=8)
    problem = Problem(sample.X, sample.y, sample.beta)
    solution = solve(problem, tolerance=1e-4, limit=1000)
    certificate = solution.certificate
    assert certificate.scope == SEARCH
    assert certificate.climbs > 1000
    assert str(certificate.climbs) in str(certificate)
    assert 0 <= certificate.relaxed < certificate.dual <= certificate.primal
    judged = certify(problem, solution.network(), effort="low")
    assert judged.scope != EXACT
    relaxed = certify(problem, solution.network(), effort="normal")
    assert relaxed.scope in (EXACT, RELAXED)
    assert relaxed.dual <= solution.objective


def test_a_missing_column_is_found_again():
    """Start without the neuron that matters most: prices must bring it back."""
    problem = planted(40, 3)
    whole = solve(problem)
    network = whole.network()
    values = {k: v.detach().clone() for k, v in network.values.items()}
    worst = int(torch.argmax(values["output"].abs()))
    kept = [j for j in range(len(values["output"])) if j != worst]
    network = type(network)(problem.architecture, {k: v[kept] for k, v in values.items()})
    again = solve(problem, start=network)
    assert again.objective == pytest.approx(whole.objective, rel=1e-7)


def test_polishing_ends_at_a_local_maximum_and_beats_the_climb():
    rng = np.random.default_rng(2)
    X, pull = rng.standard_normal((40, 5)), rng.standard_normal(40)
    penalised = np.ones(5, dtype=bool)

    def price(u):
        return np.maximum(u @ X.T, 0) @ pull / np.linalg.norm(u, axis=-1)

    starts = torch.as_tensor(rng.standard_normal((20, 5)))
    tops, values = search.climb(torch.as_tensor(X), 5, torch.as_tensor(pull), starts)
    np.testing.assert_allclose(price(tops.numpy()), values.numpy(), rtol=1e-12)
    for top, value in zip(tops.numpy(), values.numpy(), strict=True):
        direction, mask, best = search.polish(X, penalised, pull, top)
        assert best >= value * (1 - 1e-12)
        assert price(direction) == pytest.approx(best, rel=1e-9)
        around = direction + 1e-5 * rng.standard_normal((2000, 5))
        assert price(around).max() <= best * (1 + 1e-12)
        gate = search.inner_gate(X, mask, direction)
        assert np.array_equal(X @ gate > 0, mask)


def test_same_bits_for_the_same_seed():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second = (solve(planted(40, 3), seed=4) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    assert first.objective == second.objective
    assert first.point.theta.tobytes() == second.point.theta.tobytes()


def test_starts_that_do_not_fit_are_refused():
    problem = planted(12, 2)
    other = solve(planted(12, 3))
    biased = problem.replace(architecture=TwoLayer(bias="penalised"))
    for start, words in (
        (5, "start is 5"),
        ("x", "start is 'x'"),
        (other, "solution of"),
        (other.network(), "3 inputs"),
        (solve(biased), "solution of"),
    ):
        with pytest.raises(BadInput, match=words):
            solve(problem, start=start)
    wrong = {
        "tolerance": (float("nan"), True, "a", -1e-9),
        "limit": ("a", 1.5, -1, True),
        "rounds": (0, 2.5, None),
        "seed": (-1, 0.5, True),
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(BadInput, match=f"^{name} is {value!r}: it must be a "):
                solve(problem, **{name: value})


@pytest.mark.parametrize("bias", ["none", "free"])
def test_data_without_any_direction(bias):
    y = np.array([1.0, -2.0, 4.0])
    problem = (
        Problem(np.zeros((3, 2)), y, 0.1, architecture=TwoLayer())
        if bias == "none"
        else (Problem(np.array([[0.0], [1e-9], [0.0]]), y, 0.1, architecture=TwoLayer(bias="free")))
    )
    solution = solve(problem, tolerance=1e-6)
    expected = 0.5 * ((y - (y.mean() if bias == "free" else 0.0)) ** 2).sum()
    assert solution.objective == pytest.approx(expected, rel=1e-6)


def test_where_rounds_run_out_there_is_a_bound_all_the_same():
    sample = data.load("scaled", n=60, d=8)
    problem = Problem(sample.X, sample.y, sample.beta)
    solution = solve(problem, tolerance=1e-6, limit=1000, rounds=1, throw=False)
    assert "above the tolerance" in solution.status
    assert solution.certificate.scope == SEARCH
    assert 0 < solution.certificate.relaxed <= solution.objective
