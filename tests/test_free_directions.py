"""Free directions: projections by pseudoinverses, refits by other solvers, charges that suffice."""

from __future__ import annotations

from dataclasses import replace

import cvxpy
import numpy as np
import pytest

from landscape import Problem, arrangements, bounds, losses
from landscape.architectures import TwoLayer
from landscape.free_directions import (
    charge_inside,
    charge_moved,
    dual_point,
    largest_move,
    only_constant,
    onto_free,
    refit_free,
    unseen,
)
from landscape.solvers import reference


def program_of(free, loss="squared", beta=0.2, seed=0, outputs=0):
    """Return a program on three inputs with any free directions A_0 (n, q)."""
    rng, n = np.random.default_rng(seed), len(free)
    X, y = rng.standard_normal((n, 3)), rng.standard_normal((n, outputs) if outputs else n)
    loss = losses.get(loss)
    if loss.classes:
        y = np.where(np.arange(n) % 2, 1.0, -1.0)
    problem = Problem(X, y if not outputs else y[:, 0], beta, loss=loss, architecture=TwoLayer())
    program = problem.architecture.program(problem, arrangements.sample(X, 5, seed=0))
    return replace(program, free=np.asarray(free, dtype=np.float64), y=y)


def matrix(kind, n=9, seed=1):
    """Return free directions (n, q)."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, 3))
    if kind == "none":
        return A[:, :0]
    if kind == "constant":
        return np.ones((n, 1))
    if kind == "classes":  # zeros and ones: what is seen of them is counted exactly
        return np.eye(3)[np.arange(n) % 3]
    if kind == "dependent":
        return np.column_stack([A[:, 0], 2.0 * A[:, 0], A[:, 1]])
    if kind == "zero":
        return np.zeros((n, 2))
    return A


KINDS = ("none", "constant", "classes", "dependent", "zero", "general")


@pytest.mark.parametrize("kind", KINDS)
def test_the_projection_is_that_of_the_pseudoinverse(kind):
    program = program_of(matrix(kind))
    nu = np.random.default_rng(2).standard_normal(9)
    theirs = program.free @ np.linalg.pinv(program.free) @ nu
    np.testing.assert_allclose(onto_free(program, nu), theirs, atol=1e-13)


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "hinge"])
@pytest.mark.parametrize("kind", KINDS)
def test_dual_points_lie_in_the_domain_and_see_no_free_direction(kind, loss):
    program = program_of(matrix(kind), loss)
    for size in (0.1, 1.0, 30.0):
        nu = size * np.random.default_rng(3).standard_normal(9)
        found = dual_point(program, nu)
        assert np.isfinite(program.loss.dual_value(found, program.y))
        if kind == "none":  # then it is the nearest point of the domain
            np.testing.assert_array_equal(found, program.loss.into_domain(nu, program.y))
        if loss == "squared":
            assert np.linalg.norm(program.free.T @ found) <= 1e-12 * (1 + np.linalg.norm(nu))
            np.testing.assert_allclose(found, nu - onto_free(program, nu), atol=1e-13 * size)
    if kind == "constant":  # from inside the domain a sum of zero is reached exactly
        inside = dual_point(program, 0.4 * program.y if program.loss.classes else 0.1 * nu)
        assert unseen(program, inside)
    for broken in (np.nan, np.inf):  # proves nothing, and zero is always feasible
        assert not dual_point(program, np.where(np.arange(9) == 4, broken, 0.1)).any()


def test_entries_of_a_hinge_near_an_end_are_put_there_and_the_others_make_up():
    """A projection leaves them beside their end, where they can neither stay nor be moved."""
    free = matrix("general")[:, :2]
    program = program_of(free, "hinge")
    rng = np.random.default_rng(0)
    inside = np.where(np.arange(9) < 5, rng.uniform(0.3, 0.7, 9), np.arange(9) % 2)
    exact = inside.copy()  # five of them inside, the others at an end, and A_0ᵀν = 0
    free = free - np.outer(exact * program.y, (exact * program.y) @ free) / (exact @ exact)
    program = replace(program, free=free)
    found = dual_point(program, program.y * exact + 1e-10 * rng.standard_normal(9))
    assert np.linalg.norm(free.T @ found) <= 1e-14
    at_ends = np.isin(np.abs(found), (0.0, 1.0))
    assert at_ends.tolist() == [False] * 5 + [True] * 4


@pytest.mark.parametrize("n", [1, 2, 9])
def test_what_counts_as_a_constant_alone(n):
    assert only_constant(program_of(np.ones((n, 1))))
    assert not only_constant(program_of(2.0 * np.ones((n, 1))))
    assert not only_constant(program_of(np.ones((n, 2))))
    assert not only_constant(program_of(np.zeros((n, 0))))
    assert not only_constant(program_of(np.ones((n, 1)), outputs=2))
    assert unseen(program_of(np.zeros((n, 0))), np.ones(n))
    assert not unseen(program_of(np.ones((n, 1))), np.ones(n))


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_refit_is_the_minimiser(kind, loss):
    program = program_of(matrix(kind), loss)
    # Far off, every Huber loss is a line: no curvature to step by.
    for shift, start in ((0.0, 0.0), (15.0, 0.0), (0.0, 2.0)):
        fit = shift + np.random.default_rng(4).standard_normal(9)
        constant = refit_free(program, fit, np.full(program.free.shape[1], start))
        mine = float(program.loss.value(fit + program.free @ constant, program.y))
        if kind in ("none", "zero"):
            assert mine == float(program.loss.value(fit, program.y))
            continue
        variable = cvxpy.Variable(program.free.shape[1])
        expression = program.loss.expression(fit + program.free @ variable, program.y)
        theirs = cvxpy.Problem(cvxpy.Minimize(expression)).solve(solver="CLARABEL")
        assert mine <= theirs * (1 + 1e-6) + 1e-7


def test_a_refit_of_several_outputs_is_one_of_each():
    program = program_of(matrix("general"), outputs=2)
    fit = np.random.default_rng(5).standard_normal((9, 2))
    found = refit_free(program, fit, np.zeros((3, 2)))
    theirs = np.linalg.lstsq(program.free, program.y - fit, rcond=None)[0]
    np.testing.assert_allclose(found, theirs, atol=1e-9)


def test_losses_with_kinks_keep_the_constant_they_have():
    program, given = program_of(matrix("constant"), "hinge"), np.array([0.3])
    assert refit_free(program, np.zeros(9), given) is given


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "hinge"])
@pytest.mark.parametrize("bias", ["free", "skip"])
def test_the_free_part_of_an_optimum_is_no_larger_than_its_bound(bias, loss):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((8, 2)), rng.standard_normal(8) + 3.0
    y = np.where(np.arange(8) % 2, 1.0, -1.0) if loss in ("logistic", "hinge") else y
    own = TwoLayer("free") if bias == "free" else TwoLayer("free", skip="penalised")
    for beta in (0.05, 5.0):
        problem = Problem(X, y, beta, loss=loss, architecture=own)
        patterns = arrangements.sample(problem.design, 4, seed=0)
        program = problem.architecture.program(problem, patterns)
        found = reference.solve_primal(program)
        assert np.linalg.norm(program.free @ found.constant) <= largest_move(program) * (1 + 1e-6)


@pytest.mark.parametrize("rest", [1e-9, 1e-3, 0.3])
@pytest.mark.parametrize("loss", ["squared", losses.Huber(0.25), losses.Huber(3.0)], ids=str)
def test_what_a_move_costs_a_dual_value_is_at_most_its_charge(loss, rest):
    """Moved by δ, ν prices up to ‖δ‖·sizes more and may leave the domain: it is scaled back."""
    program = program_of(matrix("general"), loss, beta=0.7)
    rng, sizes = np.random.default_rng(6), np.linalg.norm(program.atoms.design, axis=1)
    for trial in range(40):
        nu = rng.standard_normal(9)
        nu *= rng.uniform(0.2, 1.0) * min(1.0, program.loss.reach(np.ones(1))) / np.abs(nu).max()
        value = float(program.loss.dual_value(nu, program.y))
        if value <= 0:  # never asked for: zero is better
            nu = 0.2 * program.y / np.abs(program.y).max()
            value = float(program.loss.dual_value(nu, program.y))
        charge = charge_moved(program, nu, value, rest)
        delta = rng.standard_normal(9)
        delta *= rest / np.linalg.norm(delta)
        delta = -rest * (program.y - nu) / np.linalg.norm(program.y - nu) if trial % 2 else delta
        moved = nu + delta
        scale = 1.0 / (1.0 + np.abs(delta) @ sizes / program.beta)
        scale = min(scale, program.loss.reach(moved))
        assert program.loss.dual_value(scale * moved, program.y) >= value - charge
    assert charge_moved(program, nu, value, 2 * rest) > 1.5 * charge_moved(program, nu, value, rest)


@pytest.mark.parametrize("delta", [0.05, 0.25])
def test_an_entry_moved_over_the_end_of_the_domain_scales_the_whole_point_back(delta):
    """All entries but one are at the end, and β is too large for prices to matter."""
    program = program_of(matrix("general"), losses.Huber(delta), beta=1e3)
    y = program.y
    nu = delta * np.sign(y)
    nu[np.abs(y).argmax()] *= 0.5
    value, rest = float(program.loss.dual_value(nu, y)), 1e-4
    moved = nu.copy()
    least = int(np.abs(y).argmin())
    moved[least] += rest * np.sign(y[least])
    moved *= program.loss.reach(moved)
    lost = value - float(program.loss.dual_value(moved, y))
    charge = charge_moved(program, nu, value, rest)
    assert 0 < lost <= charge
    slopes = np.linalg.norm(y) + np.linalg.norm(nu)
    assert charge == pytest.approx(rest * (slopes + rest + value / delta), rel=1e-8)


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize("kind", ["classes", "general", "dependent"])
def test_a_charge_inside_the_domain_covers_the_nearest_feasible_point(kind, loss):
    """There is a ν + δ that sees nothing; scaled until its prices fit again, it is no worse."""
    program = program_of(matrix(kind), loss)
    y, A, rng = program.y, program.free, np.random.default_rng(7)
    sizes = np.linalg.norm(program.atoms.design, axis=1)
    inside = y * rng.uniform(0.35, 0.65, 9)
    if kind == "classes":
        inside -= onto_free(program, inside)
    else:
        A = A - np.outer(inside, inside @ A) / (inside @ inside)
        program = replace(program, free=A)
    assert (y * inside > 0.0).all() and (y * inside < 1.0).all()
    for seen in (1e-15, 1e-14):
        nu = inside + seen * A @ rng.standard_normal(3)
        value = float(program.loss.dual_value(nu, y))
        charge = charge_inside(program, nu, value)
        assert 0 < charge < 1e-6
        nearest = nu - onto_free(program, nu)
        scale = 1.0 / (1.0 + np.abs(nu - nearest) @ sizes / program.beta)
        assert program.loss.dual_value(scale * nearest, y) >= value - charge - 4e-16 * abs(value)
        # What sees nothing is at a distance of ‖A_0ᵀν‖/σ at most, ‖A_0ᵀν‖/‖A_0‖ at least.
        least = np.linalg.norm(A.T @ nu) / np.linalg.norm(A, 2)
        assert charge >= 0.5 * least * np.linalg.norm(sizes) / program.beta * abs(value)
    assert charge_inside(program, y * 0.5 + 0.1 * A[:, 0], 1.0) == np.inf  # too much is seen


def test_entries_beside_an_end_are_put_there_at_the_price_of_their_entropy():
    """Too near to be moved by what is seen, and at a slope of the dual of log 10¹³."""
    free = np.column_stack([np.ones(8), np.arange(8) < 4])
    program = program_of(free, "logistic", beta=1e4)
    y = program.y
    exact = y * np.array([1.0, 1.0, 0.5, 0.5, 0.0, 0.0, 0.4, 0.4])
    assert not (free.T @ exact).any()
    beside = exact + 1e-13 * y * [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    lost = float(program.loss.dual_value(beside, y) - program.loss.dual_value(exact, y))
    charge = charge_inside(program, beside, 1.0)
    assert lost > 5e-12
    assert lost - 1e-14 <= charge <= 1.1 * lost


def test_where_only_ends_are_left_whole_numbers_decide():
    """All entries at ends cannot be moved: sums of zeros and ones are zero exactly, or not."""
    program = program_of(np.column_stack([np.ones(4), [1.0, 1.0, 0.0, 0.0]]), "hinge")
    y = program.y
    assert y.tolist() == [-1.0, 1.0, -1.0, 1.0]
    assert charge_inside(program, y, 1.0) == 0.0
    assert charge_inside(program, y * [1.0, 0.0, 1.0, 1.0], 1.0) == np.inf
    assert charge_inside(program, y * [1.0, 1.0, 1.0, 0.0], 1.0) == np.inf  # one sum is zero
    other = replace(program, free=0.5 * program.free)  # no zeros and ones: rounding may hide it
    assert charge_inside(other, y, 1.0) == np.inf


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "hinge"])
@pytest.mark.parametrize("kind", ["constant", "classes", "dependent", "general"])
def test_bounds_at_any_dual_point_are_below_the_optimum(kind, loss):
    program = program_of(matrix(kind), loss, beta=0.3)
    best, (_, nu) = reference.solve_primal(program).value, reference.solve_dual(program)[:2]
    rng = np.random.default_rng(8)
    found = [bounds.lower_bound(program, nu + size * rng.standard_normal(9))[0]
             for size in (0.0, 1e-9, 1e-4, 1e-1)]  # fmt: skip
    assert max(found) <= best * (1 + 1e-7) + 1e-9
    assert found[0] == pytest.approx(best, rel=1e-4, abs=1e-5)
