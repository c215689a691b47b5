"""The Lasso over given columns: certified to 1e-10 on ramps, whatever β, loss and duplicates."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from landscape import losses
from landscape.dictionary import Columns, Lasso
from landscape.errors import BadInput, NotConverged
from landscape.pricing.blocks import size_of_product
from landscape.solvers import active_set, reference

ONES = np.ones((200, 1))


def lasso(A, y, beta, loss="squared", free=None):
    units = {"place": np.arange(A.shape[1])}
    columns = Columns(A, units, np.abs(A).max(axis=1, initial=0.0))
    return Lasso.of(losses.get(loss), y, beta, columns, free)


def ramps(N=200, share=1e-3, free=True, loss="squared", copies=False, seed=0):
    """All ramps (±(x − x_j))_+ of a noisy wave, β a share of the largest price at z = 0."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(-1, 1, N))
    y = np.sin(6 * x) + 0.3 * rng.standard_normal(N)
    if loss == "logistic":
        y = np.sign(y)
    apart = x[:, None] - x
    A = np.hstack([np.maximum(apart[:, :-1], 0), np.maximum(-apart[:, 1:], 0)])
    if copies:
        A = np.hstack([A, A[:, ::3], 2 * A[:, ::5], A[:, :9] - A[:, 9:18], np.zeros((N, 2))])
    program = lasso(A, y, 1.0, loss, np.ones((N, 1)) if free else None)
    slope = program.loss.gradient(np.zeros(N), y)
    slope = slope - slope.mean() if free else slope
    return replace(program, beta=share * float(np.abs(slope @ A).max()))


def exact_gap(program, optimum):
    """The relative gap of a squared loss in extended precision, without any code of ours."""
    A, y = program.atoms.values.astype(np.longdouble), program.y.astype(np.longdouble)
    z, nu = optimum.theta[:, 0].astype(np.longdouble), optimum.nu.astype(np.longdouble)
    if program.free.shape[1]:
        nu = nu - nu.mean()
    fit = A @ z + program.free.astype(np.longdouble) @ optimum.constant
    value = 0.5 * (fit - y) @ (fit - y) + program.beta * np.abs(z).sum()
    scale = min(1, program.beta / np.abs(nu @ A).max())
    return float((value - scale * (nu @ y) + 0.5 * scale**2 * (nu @ nu)) / value)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("share", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_ramps_are_certified_whatever_beta(share, free):
    program = ramps(share=share, free=free)
    optimum = active_set.minimise(program, 1e-10)
    assert optimum.gap <= 1e-10
    assert abs(exact_gap(program, optimum)) <= 1e-11
    # An optimum at a vertex: no more columns than equations.
    assert np.count_nonzero(optimum.theta) <= len(program.y)


@pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])
@pytest.mark.parametrize("copies", [False, True])
def test_other_losses_and_dependent_columns(loss, copies):
    for share in (0.1, 1e-3):
        program = ramps(80, share, loss=loss, copies=copies)
        optimum = active_set.minimise(program, 1e-10)
        slow = reference.solve_primal(program)
        assert optimum.gap <= 1e-10
        assert optimum.value == pytest.approx(slow.value, rel=1e-6)
        assert optimum.value <= slow.value * (1 + 1e-9)


@pytest.mark.parametrize("size", [3.0, 1e4])
@pytest.mark.parametrize("free", [True, False])
def test_huber_where_every_sample_lies_on_a_line_of_the_loss(size, free):
    """Newton's model has no curvature there, and its minimiser is far away."""
    rng = np.random.default_rng(7)
    A, y = rng.standard_normal((9, 20)), size * (1 + rng.random(9))
    program = lasso(A, y, 0.05, "huber", np.ones((9, 1)) if free else None)
    optimum = active_set.minimise(program, 1e-10)
    assert optimum.gap <= 1e-10
    assert optimum.value == pytest.approx(reference.solve_primal(program).value, rel=1e-6)


def test_copies_change_nothing():
    program = ramps(share=1e-3)
    A = program.atoms.values
    copies = lasso(np.hstack([A, -A[:, ::3], A[:, ::5]]), program.y, program.beta, "squared", ONES)
    found = active_set.minimise(copies).value
    assert found == pytest.approx(active_set.minimise(program).value, rel=1e-11)


@pytest.mark.parametrize("seed", range(20))
def test_small_dense_problems_equal_the_reference(seed):
    rng = np.random.default_rng(seed)
    n, G = int(rng.integers(2, 9)), int(rng.integers(1, 20))
    A = rng.integers(-2, 3, (n, G)).astype(float)  # many dependent columns, some zero
    y = rng.standard_normal(n)
    free = [None, np.ones((n, 1)), rng.standard_normal((n, 2))][seed % 3]
    program = lasso(A, y, 0.1 * float(rng.uniform(0.1, 2)), free=free)
    optimum = active_set.minimise(program)
    assert optimum.value == pytest.approx(reference.solve_primal(program).value, abs=1e-7)


def test_a_start_at_the_optimum_stays_there_and_a_bad_one_is_left():
    program = ramps(share=1e-3)
    first = active_set.minimise(program)
    again = active_set.minimise(program, start=(first.theta, first.constant))
    assert again.value == pytest.approx(first.value, rel=1e-13)
    assert steps(again) <= np.count_nonzero(first.theta) + 2 < steps(first)
    crowded = np.random.default_rng(0).standard_normal(first.theta.shape)  # all columns, dependent
    away = active_set.minimise(program, start=(crowded, np.array([9.0])))
    assert away.value == pytest.approx(first.value, rel=1e-11)


def steps(optimum):
    return int(optimum.status.split("(")[1].split(" ")[0])


def test_nothing_is_chosen_where_beta_is_large_or_there_is_no_column():
    program = ramps(50, share=1.0 + 1e-9)
    optimum = active_set.minimise(program)
    assert not optimum.theta.any()
    assert optimum.constant[0] == pytest.approx(program.y.mean())
    empty = active_set.minimise(program.take(np.zeros(0, dtype=np.int64)))
    assert empty.value == pytest.approx(optimum.value)


def test_what_cannot_be_reached_is_said():
    program = ramps(50)
    with pytest.raises(NotConverged, match="tolerance is 1e-17"):
        active_set.minimise(program, 1e-17)
    assert active_set.minimise(program, 1e-17, throw=False).gap > 1e-17
    twice = lasso(program.atoms.values, program.y, 1.0, free=np.ones((50, 2)))
    with pytest.raises(BadInput, match="depend on each other"):
        active_set.minimise(twice)


def test_sizes_of_products_hold_however_much_cancels():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.standard_normal((2, 40)) * 10.0 ** rng.integers(-8, 8, (2, 40))
        b[-1] = -float(sum(Fraction(p) * Fraction(q) for p, q in zip(a[:-1], b[:-1], strict=True)))
        b[-1] /= a[-1]
        exact = abs(sum(Fraction(p) * Fraction(q) for p, q in zip(a, b, strict=True)))
        bound = Fraction(size_of_product(a, b))
        assert exact <= bound <= exact * (1 + Fraction(1, 10**14)) + Fraction(1, 10**200)
    assert size_of_product(np.array([1e308]), np.array([1.0])) == np.inf
