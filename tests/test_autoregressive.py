"""Autoregressive densities: sums of certified programs, normalised, sampled, against training."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
import pytest

from landscape import arrangements
from landscape.architectures import TwoLayer
from landscape.bounds import SEARCH
from landscape.errors import BadInput
from landscape.generative import (
    Autoregressive,
    above_left,
    bernoulli,
    everything,
    preceding,
)

CUBE = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))


def _samples(seed, n=24, d=4):
    """Draw a Markov chain of signs, flipped with probability 0.3."""
    rng = np.random.default_rng(seed)
    X = np.cumprod(np.where(rng.random((n, d)) < 0.3, -1.0, 1.0), axis=1)
    X[0], X[1] = 1.0, -1.0  # no column is constant
    return X * np.where(rng.random(n) < 0.5, -1.0, 1.0)[:, None]


@pytest.fixture(scope="module")
def solved():
    return Autoregressive(_samples(0), 0.3).solve()


def _enumerated(problem):
    """Return the optimum by cvxpy over every pattern, cones written out: the independent check."""
    X, y = problem.X, problem.y
    masks = np.asarray(arrangements.enumerate(X), dtype=float)
    fit, price, constraints = 0, 0, []
    for mask in masks:
        for sign in (1.0, -1.0):
            u = cp.Variable(X.shape[1])
            fit = fit + sign * cp.multiply(mask, X @ u)
            price = price + cp.norm(u)
            constraints.append(cp.multiply(2 * mask - 1, X @ u) >= 0)
    loss = cp.sum(cp.logistic(cp.multiply(-y, fit)))
    program = cp.Problem(cp.Minimize(loss + problem.beta * price), constraints)
    program.solve(solver="CLARABEL")
    return program.value


def test_the_objective_is_the_sum_of_programs_enumerated_one_by_one(solved):
    found = [_enumerated(problem) for problem in solved.problem.problems[:3]]
    for value, solution in zip(found, solved.solutions, strict=False):
        assert solution.objective == pytest.approx(value, rel=1e-6)
    assert solved.objective == pytest.approx(sum(s.objective for s in solved.solutions), rel=1e-12)
    assert solved.exact and 0 <= solved.objective - solved.bound <= 1e-7 * solved.objective


@pytest.mark.parametrize("seed", [1, 2])
def test_training_stays_above_the_bound_and_comes_close(seed):
    problem = Autoregressive(_samples(seed), 0.5)
    solved = problem.solve()
    runs = problem.train(12, range(3), steps=600, learning_rate=0.03)
    trained = np.array([run.objective for run in runs])
    assert solved.exact and trained.min() >= solved.bound
    assert trained.min() <= 1.01 * solved.objective
    assert all(run.bound == -np.inf and not run.exact for run in runs)


def test_it_is_a_density(solved):
    """Probabilities of the whole cube sum to one, and samples have them."""
    chances = np.exp(solved.log_likelihood(CUBE))
    assert chances.sum() == pytest.approx(1.0, abs=1e-12)
    drawn = solved.sample(40_000, seed=3)
    codes = ((drawn > 0) @ (2 ** np.arange(4)[::-1])).astype(int)
    shares = np.bincount(codes, minlength=16) / len(drawn)
    assert np.abs(shares - chances).max() < 4 * np.sqrt(0.25 / len(drawn))
    np.testing.assert_array_equal(drawn, solved.sample(40_000, seed=3))


def test_it_sees_parents_only(solved):
    """An output does not move with coordinates after it, or outside its window."""
    later = CUBE.copy()
    later[:, 2:] *= -1
    np.testing.assert_array_equal(solved.logits(CUBE)[:, :3], solved.logits(later)[:, :3])
    assert np.abs(solved.logits(CUBE)[:, 3] - solved.logits(later)[:, 3]).max() > 1e-3


def test_training_samples_are_likelier_than_independent_ones(solved):
    X = solved.problem.X
    assert solved.log_likelihood(X).sum() > bernoulli(X)(X).sum() + 5


def test_large_beta_leaves_fair_coins():
    X = _samples(4)
    density = Autoregressive(X, 1e3).solve()
    assert density.active == 0
    assert density.objective == pytest.approx(X.size * np.log(2.0))


def test_windows():
    assert [list(p) for p in above_left(2, 2)] == [[], [0], [0, 1], [2, 0, 1]]
    assert [list(p) for p in preceding(3)] == [[], [0], [0, 1]]


def test_an_autoencoder_reconstructs_and_has_no_likelihood():
    X = _samples(5, d=3)
    coder = Autoregressive(X, 0.3, parents=everything(3)).solve()
    np.testing.assert_array_equal(np.sign(coder.logits(X)), X)
    for refused in (lambda: coder.log_likelihood(X), lambda: coder.sample(2)):
        with pytest.raises(BadInput, match="autoencoder"):
            refused()


def test_bounds_hold_for_all_patterns_whatever_was_solved():
    """Some patterns bound nothing; what a search ends with is no bound, its relaxed bound is."""
    X = np.where(np.random.default_rng(0).random((40, 8)) < 0.5, -1.0, 1.0)
    searched = Autoregressive(X, 1.0).solve(throw=False, limit=3, rounds=2)
    found = [one.certificate for one in searched.solutions]
    assert all(one.scope == SEARCH and one.relaxed < one.dual for one in found)
    assert searched.bound == pytest.approx(sum(one.relaxed for one in found), rel=1e-12)
    assert not searched.exact
    coder = Autoregressive(_samples(5, d=3), 0.3, parents=everything(3))
    few = arrangements.sample(coder.problems[0].design, 2, seed=0)
    part = coder.solve(patterns=few)
    assert part.objective > coder.solve().objective + 1e-3  # its duals are above the optimum
    assert part.bound == -np.inf and not part.exact


@pytest.mark.parametrize("parents", [3, [[True], [], [], []], [["a"], [], [], []], [[], [0]]])
def test_parents_are_refused_by_name(parents):
    with pytest.raises(BadInput, match="parents"):
        Autoregressive(_samples(6), 0.1, parents=parents)


def test_refusals():
    X = _samples(6)
    with pytest.raises(BadInput, match=r"architecture .* bias='none'"):
        Autoregressive(X, 0.1, architecture=TwoLayer(bias="free"))
    for wrong, said in ((X * 2, "binarise"), (X[0], "shape"), (np.ones((4, 2)), "column 0")):
        with pytest.raises(BadInput, match=said):
            Autoregressive(wrong, 0.1)
    with pytest.raises(BadInput, match="parents"):
        Autoregressive(X, 0.1, parents=[[7]] * 4)
    with pytest.raises(BadInput, match=r"\(n, 4\)"):
        Autoregressive(X, 1e3).solve().log_likelihood(X[:, :2])
