"""The fast solver for given patterns, against Clarabel and against its own faults."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import planted

from landscape import arrangements, data
from landscape.architectures import GatedReLU, TwoLayer
from landscape.bounds import lower_bound
from landscape.errors import NotConverged
from landscape.problem import Problem
from landscape.solvers import reference, restricted
from landscape.solvers.solve import as_arrangements


def random_problem(n=30, d=4, loss="squared", bias="none", seed=0):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    if loss in ("logistic", "hinge"):
        y = np.where(y > 0, 1.0, -1.0)
    return Problem(X, y, 0.3, loss=loss, architecture=TwoLayer(bias=bias))


def random_program(problem, count=25, seed=0):
    patterns = arrangements.sample(problem.design, count, seed=seed)
    return problem.architecture.program(problem, patterns)


@pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])
@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_optimum_is_clarabels(loss, bias):
    program = random_program(random_problem(loss=loss, bias=bias))
    fast, slow = restricted.minimise(program), reference.solve_primal(program)
    assert "Newton finish" in fast.status
    assert fast.value == pytest.approx(slow.value, rel=1e-8)
    bound = lower_bound(program, fast.nu, fast.multipliers)[0]
    assert (fast.value - bound) / fast.value <= 1e-10
    assert program.violation(fast.theta) <= 1e-12


@pytest.mark.parametrize(("n", "d", "P"), [(200, 10, 60), (60, 12, 80)])
def test_gap_and_violation_reach_rounding(n, d, P):
    sample = data.load("scaled", n=n, d=d)
    problem = Problem(sample.X, sample.y, sample.beta)
    optimum = restricted.minimise(random_program(problem, P), 1e-10)
    assert optimum.gap <= 1e-10
    assert random_program(problem, P).violation(optimum.theta) <= 1e-12


def test_multipliers_are_checked_and_not_trusted():
    """Wrong multipliers may cost time, never a wrong bound."""
    program = random_program(random_problem())
    optimum = restricted.minimise(program)
    rng = np.random.default_rng(0)
    honest = lower_bound(program, optimum.nu)[0]
    for wrong in (
        0 * optimum.multipliers,
        -optimum.multipliers,
        rng.random(optimum.multipliers.shape),
    ):
        assert lower_bound(program, optimum.nu, wrong)[0] == pytest.approx(honest, rel=1e-11)


def test_a_warm_start_ends_at_the_same_optimum():
    problem = random_problem(n=60, d=5)
    program = random_program(problem, 40)
    cold = restricted.minimise(program)
    changed = problem.replace(beta=0.28)
    program = random_program(changed, 40)
    warm = restricted.resume(program, cold.theta, cold.constant)
    assert warm is not None and "warm start" in warm.status
    assert warm.value == pytest.approx(restricted.minimise(program).value, rel=1e-11)
    assert abs(warm.value - cold.value) > 1e-3 * cold.value  # it had somewhere to go


def test_blocks_enter_and_leave_from_a_poor_start():
    program = random_program(random_problem(n=40, d=4), 30)
    exact = restricted.minimise(program)
    few = np.zeros_like(exact.theta)
    largest = np.argmax(np.linalg.norm(exact.theta, axis=1))
    few[largest] = 3 * exact.theta[largest]
    warm = restricted.resume(program, few, exact.constant, budget=400)
    assert warm is not None
    assert warm.value == pytest.approx(exact.value, rel=1e-10)


def test_same_bits_on_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        program = random_program(planted(60, 4), 50)
        first, second = (restricted.minimise(program) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    assert first.theta.tobytes() == second.theta.tobytes()
    assert first.nu.tobytes() == second.nu.tobytes()


def test_what_the_fast_solver_cannot_do_goes_to_the_reference_and_says_so():
    hinge = restricted.minimise(random_program(random_problem(loss="hinge")), 1e-6)
    assert "no curvature" in hinge.status
    gated = random_problem().replace(architecture=GatedReLU())
    assert restricted.minimise(random_program(gated), 1e-6).gap <= 1e-6


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])
def test_a_free_bias_on_all_samples_does_not_run_away(loss, scale):
    """It only repeats the output bias, so no price holds it; Clarabel lets it grow."""
    free = random_problem(bias="free", loss=loss)
    free = Problem(scale * free.X, free.y, scale * free.beta, loss, free.architecture)
    patterns = np.asarray(arrangements.sample(free.design, 30, seed=0))
    opened = np.unique(np.vstack([patterns, np.ones((1, 30), dtype=bool)]), axis=0)
    program = free.architecture.program(free, as_arrangements(free, opened))
    optimum = restricted.minimise(program, 1e-8)
    assert "Newton finish" in optimum.status
    assert program.violation(optimum.theta) <= 1e-12
    shifted = optimum.theta[opened[program.atoms.index].all(axis=1)]
    assert np.abs(shifted[:, -1]).max() <= 1e3 * (1 + np.abs(free.y).max())
    slow = reference.solve_primal(program, throw=False)
    assert optimum.value == pytest.approx(slow.value, rel=1e-6)


def test_patterns_without_gates_or_interior_are_solved_too():
    """A boolean array has no gates; a pattern of no cell has a cone without interior."""
    problem = planted(20, 3)
    gates = arrangements.sample(problem.design, 15, seed=2)
    masks = np.asarray(gates)
    nameless = arrangements.Arrangements.from_bool(masks, np.zeros((len(masks), 3)))
    program = problem.architecture.program(problem, nameless)
    known = problem.architecture.program(problem, gates)
    assert restricted.minimise(program).value == pytest.approx(
        restricted.minimise(known).value, rel=1e-10
    )
    nowhere = np.vstack([masks, np.random.default_rng(0).random((1, 20)) > 0.5])
    impossible = arrangements.Arrangements.from_bool(nowhere, np.zeros((len(nowhere), 3)))
    optimum = restricted.minimise(problem.architecture.program(problem, impossible), 1e-6)
    assert "no interior" in optimum.status
    assert optimum.value == pytest.approx(restricted.minimise(known).value, rel=1e-5)


def test_missing_the_tolerance_is_an_error():
    with pytest.raises(NotConverged, match="restricted program"):
        restricted.minimise(random_program(random_problem()), 1e-17)
    assert restricted.minimise(random_program(random_problem()), 1e-17, throw=False).gap > 1e-17


def test_antipodal_samples_on_one_side_confine_a_block_to_their_kink():
    """Such a cone is a lower face; a list of hyperplanes alone does not show it."""
    X = np.array([[1.0, 0.0], [-1.0, 0.0], [-1.0, -1.0], [0.0, -1.0], [1.0, 1.0]])
    problem = Problem(X, np.array([1.0, 2.0, -2.0, -2.2, 3.1]), 0.5)
    masks = np.array([[1, 0, 0, 0, 1], [1, 1, 1, 1, 0]], dtype=bool)
    gates = np.array([[0.5, 0.1], [0.0, -1.0]])
    patterns = arrangements.Arrangements.from_bool(masks, gates)
    program = problem.architecture.program(problem, patterns, np.array([1.0, -1.0]))
    for tolerance in (1e-3, 1e-6, 1e-10):
        found = restricted.minimise(program, tolerance)
        assert program.violation(found.theta) <= 1e-9
        assert found.value == pytest.approx(reference.solve_primal(program).value, rel=1e-8)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-8])
def test_a_gap_below_zero_is_no_gap(tolerance):
    """The interior point once took its own estimate, −5e-3, for an optimum half a percent off."""
    X = np.array([[1.81164079, 1.5162432], [1.5498879, 0.26796587], [-0.71805346, -0.58803556]])
    beta, free = 0.029067520028953707, TwoLayer(bias="free")
    problem = Problem(X, np.array([1.0, -1.0, -1.0]), beta, loss="logistic", architecture=free)
    gates = np.array([[-0.62614927, -0.80747943, 0.23287241], [0.88969452, -0.16941126, -1.2579]])
    patterns = arrangements.Arrangements.from_bool(gates @ problem.design.T >= 0, gates)
    program = problem.architecture.program(problem, patterns, np.ones(2))
    found = restricted.minimise(program, tolerance)
    assert 0 <= found.gap <= tolerance
    assert found.value <= reference.solve_primal(program).value * (1 + tolerance)
