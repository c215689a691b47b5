"""The fast solver of programs without cones: against others, closed forms, degenerate data."""

from __future__ import annotations

from dataclasses import replace

import celer
import numpy as np
import pytest
import torch
from cases import CASES

from landscape import arrangements
from landscape.architectures import GatedReLU, TwoLayer
from landscape.bounds import beta_max, lower_bound
from landscape.errors import BadInput, NotConverged
from landscape.losses import Huber
from landscape.problem import Problem
from landscape.programs import Program
from landscape.solvers import reference
from landscape.solvers.group_lasso import minimise
from landscape.solvers.groups import Groups
from landscape.solvers.kernels import Kernels, nonnegative_minimum
from landscape.solvers.proximal import Bound, descend

LOSSES = ["squared", "logistic", Huber(0.3)]
BIASES = ["none", "penalised", "free"]


def gated(n=30, d=3, P=25, share=0.05, loss="squared", bias="none", seed=0, X=None) -> Program:
    """Random data and gates; β is a share of the one from which all blocks are zero."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) if X is None else X
    y = rng.standard_normal(len(X))
    y = np.sign(y) if loss == "logistic" else y
    problem = Problem(X, y, 1.0, loss=loss, architecture=GatedReLU(bias=bias))
    patterns = arrangements.sample(problem.design, P, seed=seed)
    problem = problem.replace(beta=share * beta_max(problem, patterns))
    return problem.architecture.program(problem, patterns)


def relative_gap(program: Program, found) -> float:
    """The gap of a point to a bound from its own ν, nothing of the solver's word taken."""
    value = program.value(found.theta, found.constant)
    return (value - lower_bound(program, found.nu)[0]) / value


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("loss", LOSSES, ids=["squared", "logistic", "huber"])
def test_agrees_with_the_reference(loss, bias):
    program = gated(loss=loss, bias=bias, P=12)
    found, slow = minimise(program), reference.solve_primal(program)
    assert found.value == pytest.approx(slow.value, rel=1e-7)
    assert found.value == program.value(found.theta, found.constant)
    assert relative_gap(program, found) <= 1e-10
    np.testing.assert_allclose(found.nu, slow.nu, atol=1e-4)
    np.testing.assert_allclose(program.free.T @ found.nu, 0, atol=1e-9)


@pytest.mark.parametrize("share", [0.5, 0.05, 0.005])
def test_agrees_with_celer(share):
    program = gated(n=60, d=4, P=30, share=share)
    matrix = np.hstack([program.atoms.matrix(g) for g in range(program.atoms.size)])
    other = celer.GroupLasso(
        groups=program.atoms.dimension,
        alpha=program.beta / len(matrix),
        fit_intercept=False,
        tol=1e-12,
        max_iter=1000,
    ).fit(np.asfortranarray(matrix), program.y)
    theta = other.coef_.reshape(program.atoms.size, -1)
    value = program.value(theta, np.zeros(0))
    found = minimise(program)
    assert found.value == pytest.approx(value, rel=1e-7)
    assert found.value <= value * (1 + 1e-12)
    np.testing.assert_allclose(found.theta, theta, atol=1e-4 * np.abs(theta).max())


GATED = [case for case in CASES if case.problem.architecture.name == "gated_relu"]


@pytest.mark.parametrize("case", GATED, ids=[case.name for case in GATED])
def test_closed_forms(case):
    every = arrangements.enumerate(case.problem.design)
    program = case.problem.architecture.program(case.problem, every)
    found = minimise(program)
    assert found.value == pytest.approx(case.optimum, rel=1e-10)
    assert relative_gap(program, found) <= 1e-10


def _degenerate() -> dict[str, Program]:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((20, 3))
    twice = gated(n=20)
    index = np.r_[np.arange(twice.atoms.size), np.arange(twice.atoms.size)]
    columns = np.array([1e6, 1.0, 1e-6])
    one = np.array([[0.5, -2.0]])
    return {
        "duplicate patterns": twice.with_blocks(index, np.ones(len(index))),
        "both signs": twice.with_blocks(index, np.repeat([1.0, -1.0], len(index) // 2)),
        "rank 1": gated(X=np.outer(X[:, 0], [1.0, 2.0, -1.0])),
        "duplicate samples": gated(X=np.vstack([X, X])),
        "one sample": gated(X=one, P=5),
        "one sample, free": gated(X=one, P=5, bias="penalised"),
        "columns over twelve decades": gated(X=X * columns),
        "large inputs": gated(X=1e6 * X, bias="penalised"),
        "small inputs": gated(X=1e-6 * X, bias="free", P=6),
        "a zero column": gated(X=X * [1.0, 0.0, 1.0]),
        "more patterns than samples": gated(n=8, P=60),
        "more free directions than samples": replace(gated(n=8, P=60, bias="free"), beta=0.1),
        "almost zero": gated(share=1 - 1e-6),
        "just zero": gated(share=1 + 1e-12),
        "small beta": gated(share=1e-6),
        "small beta, logistic": gated(share=1e-6, loss="logistic"),
        "small beta, huber": gated(share=1e-6, loss=Huber(0.1)),
        "separable, free": gated(n=12, d=5, P=6, share=1e-3, loss="logistic", bias="free"),
    }


@pytest.mark.parametrize("name", _degenerate())
def test_degenerate_data(name):
    program = _degenerate()[name]
    found = minimise(program)
    zero = float(program.loss.value(np.zeros(len(program.y)), program.y))
    bound = lower_bound(program, found.nu)[0]
    # Where β is tiny the certificate's allowance for rounding outweighs the gap.
    room = 1e-6 if "small beta" in name else 1e-10
    assert found.value - bound <= room * max(
        found.value, 1e-3 * zero if "free dir" in name else 0.0
    )
    if name == "just zero":
        assert not found.theta.any()
    if name in {"almost zero", "rank 1", "columns over twelve decades"}:
        assert found.value <= reference.solve_primal(program, throw=False).value * (1 + 1e-8)


def test_signs_and_copies_do_not_matter():
    every, plain = _degenerate(), minimise(gated(n=20))
    for name in ("duplicate patterns", "both signs", "turned"):
        program = gated(n=20)
        if name == "turned":
            program = program.with_blocks(program.atoms.index, -program.atoms.signs)
        program = every.get(name, program)
        found = minimise(program)
        assert found.value == pytest.approx(plain.value, rel=1e-12)
        assert found.value == pytest.approx(program.value(found.theta, found.constant))
        again = minimise(program, start=(found.theta, found.constant))
        assert len(again.history) <= 2


@pytest.mark.parametrize("bias", BIASES)
def test_scaling_there_and_back(bias):
    program, rng = gated(n=20, P=8, bias=bias), np.random.default_rng(1)
    program = program.with_blocks(np.r_[program.atoms.index, 0], np.resize([-1.0, 1.0], 9))
    theta = rng.standard_normal((9, program.atoms.dimension))
    constant = rng.standard_normal(program.free.shape[1])
    groups, fit = Groups(program), program.fit(theta, constant)
    inside, t = groups.scaled(theta, constant)
    outputs = groups.apply(inside) + groups.free @ t
    np.testing.assert_allclose(outputs[:, 0] * groups.y_scale, fit, atol=1e-12)
    np.testing.assert_allclose(program.fit(*groups.original(inside, t)), fit, atol=1e-12)
    nu = rng.standard_normal(20)
    pulled = groups.adjoint(torch.as_tensor(nu)[:, None])[:, :, 0].numpy() * groups.x_scale
    expected = program.atoms.signs[:, None] * program.atoms.adjoint(nu)
    np.testing.assert_allclose(pulled[groups.same], expected, atol=1e-12)


def test_a_path_is_cheaper_warm_and_the_same():
    program = gated(n=80, d=5, P=80, share=0.1, bias="penalised")
    before, steps = minimise(program), [0, 0]
    for factor in (0.7, 0.5, 0.35):
        following = replace(program, beta=program.beta * factor)
        warm = minimise(following, start=(before.theta, before.constant))
        cold = minimise(following)
        assert warm.value == pytest.approx(cold.value, rel=1e-11)
        steps = [steps[0] + len(warm.history), steps[1] + len(cold.history)]
        before = warm
    assert steps[0] < steps[1]
    again = minimise(program)
    same = minimise(program, start=(again.theta, again.constant))
    assert len(same.history) <= 2


def test_bits_repeat():
    torch.set_num_threads(1)
    program = gated(n=50, P=50, loss="logistic", bias="penalised")
    first, second = minimise(program), minimise(program)
    assert np.array_equal(first.theta, second.theta)
    assert np.array_equal(first.nu, second.nu)
    assert first.history == second.history


@pytest.mark.parametrize("loss", LOSSES, ids=["squared", "logistic", "huber"])
@pytest.mark.parametrize("bias", BIASES)
def test_descent_alone_reaches_the_same_optimum(loss, bias, monkeypatch):
    monkeypatch.setattr("landscape.solvers.group_lasso.FACTORED", 0)
    monkeypatch.setattr("landscape.solvers.groups.CHUNK", 100)  # three patterns at a time
    program = gated(loss=loss, bias=bias, P=12, share=0.3)
    found = minimise(program, 1e-6)
    monkeypatch.undo()
    assert relative_gap(program, found) <= 1e-6
    assert found.value == pytest.approx(minimise(program).value, rel=1e-6)
    assert "steps" in found.history[-1]


def test_newton_takes_over_from_descent(monkeypatch):
    monkeypatch.setattr("landscape.solvers.group_lasso.FACTORED", 15)  # five blocks of three
    program = gated(n=200, share=0.4)
    found = minimise(program)
    assert "steps" in found.history[0]
    assert "steps" not in found.history[-1]
    assert relative_gap(program, found) <= 1e-10


def test_screened_blocks_are_zero():
    """The sphere test at coarse and at fine points, against the optimum."""
    program = gated(n=60, P=60, share=0.2)
    optimum = minimise(program)
    active = set(np.flatnonzero(program.gauge.value(optimum.theta)))
    groups = Groups(program)
    left = []
    for tolerance in (1e-1, 1e-3, 1e-6):
        zero = groups.X.new_zeros(groups.size, groups.p, 1)
        bound = descend(groups, zero, groups.X.new_zeros(0, 1), tolerance, 5000)[2]
        assert active <= set(bound.left.tolist())
        left.append(len(bound.left))
    assert left[0] >= left[1] > left[2]
    assert len(active) <= left[2] < groups.size


@pytest.mark.parametrize("bias", BIASES)
def test_a_bound_is_below_every_value(bias):
    program = gated(n=40, P=8, bias=bias)
    groups, optimum = Groups(program), minimise(program)
    rng = np.random.default_rng(0)
    for size in (0.1, 1.0, 10.0):
        bound = Bound(groups)
        nu = torch.as_tensor(size * rng.standard_normal((40, 1)))
        nu, valid = bound.feasible(nu + groups.y)
        assert float((groups.free.T @ nu).norm()) <= 1e-12 * float(nu.norm())
        bound.offer(nu, valid, np.inf, groups.adjoint(nu))
        assert bound.best * groups.value_scale <= optimum.value


@pytest.mark.parametrize("n", [8, 60])
@pytest.mark.parametrize("loss", LOSSES[:2])
def test_weights_have_the_derivatives_that_newton_uses(n, loss):
    """φ's gradient and Hessian against differences, in both forms of the inner matrix."""
    kernels = Kernels(Groups(gated(n=n, P=10, loss=loss, bias="penalised")))
    b = kernels.groups
    eta = torch.linspace(0.5, 1.5, b.size, dtype=torch.float64)

    def at(weights):
        return kernels.evaluate(weights, torch.zeros_like(b.y[:, 0]), b.X.new_zeros(0), 0.0)

    def slopes(point):
        sizes = b.adjoint(point.omega[:, None]).flatten(1).norm(dim=1)
        return 0.5 * b.beta * (1 - (sizes / b.beta) ** 2)

    point = at(eta)
    pull = b.adjoint(point.omega[:, None])[:, :, 0]
    v = (b.masks * (pull @ b.X.T)).T
    hessian = v.T @ point.factor.inverse(v) / b.beta**2
    assert point.factor.dense == (n == 8)
    for g in range(0, b.size, 3):
        move = torch.zeros_like(eta)
        move[g] = 1e-5
        up, down = at(eta + move), at(eta - move)
        slope, column = (up.value - down.value) / 2e-5, (slopes(up) - slopes(down)) / 2e-5
        assert slope == pytest.approx(float(slopes(point)[g]), rel=1e-5, abs=1e-7)
        torch.testing.assert_close(column, hessian[:, g], rtol=1e-4, atol=1e-6)


def test_nonnegative_minimum_satisfies_its_conditions():
    generator = torch.Generator().manual_seed(0)
    for size in (1, 5, 40):
        A = torch.randn(size + 2, size, generator=generator, dtype=torch.float64)
        H, q = A.T @ A, torch.randn(size, generator=generator, dtype=torch.float64)
        x = nonnegative_minimum(H, q, q < 0)
        slope = H @ x + q
        assert bool((x >= 0).all())
        assert float(slope.min()) >= -1e-9
        assert float((x * slope).abs().max()) <= 1e-9


def test_refusals():
    relu = Problem(np.eye(3), np.ones(3), 0.1, architecture=TwoLayer())
    with pytest.raises(BadInput, match="cones"):
        minimise(relu.architecture.program(relu, arrangements.sample(np.eye(3), 4)))
    with pytest.raises(BadInput, match="smooth"):
        minimise(replace(gated(loss="logistic"), loss=Problem(*_two(), 1, "hinge").loss))


def _two():
    return np.eye(2), np.array([1.0, -1.0])


def test_an_unreachable_tolerance_is_not_silent(monkeypatch):
    monkeypatch.setattr("landscape.solvers.group_lasso.STEPS", 2)
    monkeypatch.setattr("landscape.solvers.group_lasso.DESCENT", 20)
    program = gated(share=0.01)
    with pytest.raises(NotConverged, match="stopped at a gap"):
        minimise(program)
    found = minimise(program, throw=False)
    assert "stopped at a gap" in found.status
    assert found.gap > 1e-10
