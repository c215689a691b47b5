"""The nuclear-norm program: Newton on factors, against Clarabel and its own optimality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from landscape import arrangements
from landscape.architectures import GatedReLU
from landscape.bounds import beta_max, lower_bound
from landscape.errors import BadInput
from landscape.problem import Problem
from landscape.programs import PerClass, Program
from landscape.solvers import reference
from landscape.solvers.components import straightened
from landscape.solvers.factors import Components, _System, assembled, decomposed, polish
from landscape.solvers.group_lasso import minimise
from landscape.solvers.groups import Groups
from landscape.solvers.proximal import NUCLEAR, descend, shrink_singular_values

BIASES = ["none", "penalised", "free"]
LOSSES = ["squared", "logistic", "huber"]


def gated(n=30, d=4, c=3, P=12, share=0.1, loss="squared", bias="none", seed=0, X=None) -> Program:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) if X is None else X
    Y = np.maximum(X @ rng.standard_normal((X.shape[1], 4)), 0) @ rng.standard_normal((4, c))
    Y = Y + 0.3 * rng.standard_normal(Y.shape)
    Y = np.sign(Y) if loss == "logistic" else Y
    architecture = GatedReLU(bias=bias, outputs="nuclear")
    problem = Problem(X, Y, 1.0, loss=loss, architecture=architecture)
    patterns = arrangements.sample(problem.design, P, seed=seed)
    problem = problem.replace(beta=share * beta_max(problem, patterns))
    return problem.architecture.program(problem, patterns)


def gap(program: Program, found) -> float:
    """By the certificate's own bound from the returned ν: nothing of the solver's word is taken."""
    value = program.value(found.theta, found.constant)
    return (value - lower_bound(program, found.nu)[0]) / value


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("loss", LOSSES)
def test_agrees_with_the_reference_and_proves_itself(loss, bias):
    program = gated(n=20, P=8, loss=loss, bias=bias)
    found, slow = minimise(program, 1e-9), reference.solve_primal(program)
    assert found.value == pytest.approx(slow.value, rel=1e-7)
    assert gap(program, found) <= 1e-8
    # (With free constants the labels are separated: the descent is at the optimum at once.)
    assert (loss, bias) == ("logistic", "free") or "conjugate" in found.history[-1]


@pytest.mark.parametrize("share", [0.5, 0.05, 5e-3])
def test_small_and_large_beta(share):
    program = gated(n=40, d=5, c=4, P=20, share=share)
    found = minimise(program, 1e-9)
    assert gap(program, found) <= 2e-9
    sizes = np.linalg.svd(found.theta, compute_uv=False)
    rank = (sizes > 1e-9 * sizes.max()).sum()
    assert rank < sizes.size / 2 and found.history[-1]["rank"] == rank


def test_a_bad_start_ends_at_the_same_optimum():
    """Components enter that are missing and leave that are too many."""
    program = gated(n=40, d=5, P=20, share=0.05)
    optimum, b = minimise(program, 1e-10), Groups(program)
    zero, none = b.X.new_zeros(b.size, b.p, b.outputs), b.X.new_zeros(0, b.outputs)
    noise = torch.randn(zero.shape, generator=torch.Generator().manual_seed(0), dtype=zero.dtype)
    for start in (zero, 0.1 * noise):
        theta, t, _, reached, history = polish(b, start, none, 1e-9)
        assert reached <= 1e-9
        value = program.value(*b.original(theta, t))
        assert value == pytest.approx(optimum.value, rel=1e-9)
    assert history[0]["rank"] == b.size * min(b.p, b.outputs) > history[-1]["rank"]


def repeated(seed: int) -> Program:
    """Rows of which half are one row, in few patterns: optimal blocks are hardly unique."""
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((8, 2)), rng.standard_normal((8, 2))
    X[4:] = X[0]
    gates = rng.standard_normal((5, 2))
    problem = Problem(X, Y, 1.0, architecture=GatedReLU(outputs="nuclear"))
    patterns = arrangements.Arrangements.from_bool((X @ gates.T >= 0).T, gates)
    problem = problem.replace(beta=0.03 * beta_max(problem, patterns))
    return problem.architecture.program(problem, patterns)


@pytest.mark.parametrize("seed", [27, 55])
def test_newton_follows_flat_valleys_to_their_ends(seed):
    """They are straight in the blocks and bent in their factors."""
    program = repeated(seed)
    b = Groups(program)
    zero, none = b.X.new_zeros(b.size, b.p, b.outputs), b.X.new_zeros(0, b.outputs)
    rough = descend(b, zero, none, 5e-2, 5000, NUCLEAR)
    theta, t, _, reached, history = polish(b, rough[0], rough[1], 1e-9)
    assert reached <= 1e-9
    assert len(history) < 101
    value = program.value(*b.original(theta, t))
    assert value == pytest.approx(reference.solve_primal(program).value, rel=1e-7)


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_a_huge_start_with_little_penalty_comes_down(size):
    program = replace(repeated(1), beta=1e-3 * repeated(1).beta)
    b = Groups(program)
    start = size * torch.randn(
        b.size, b.p, b.outputs, generator=torch.Generator().manual_seed(0), dtype=b.X.dtype
    )
    assert polish(b, start, b.X.new_zeros(0, b.outputs), 1e-9)[3] <= 1e-9


def test_straight_steps_are_the_lowest_points_of_their_lines():
    b = Groups(gated(n=15, d=3, c=2, P=5, bias="free"))
    draw = torch.Generator().manual_seed(3)
    W, A, t = (
        torch.randn(*shape, generator=draw, dtype=b.X.dtype)
        for shape in ((b.p, 4), (2, 4), (b.free.shape[1], 2))
    )
    parts = decomposed(assembled(b, Components(W, A, torch.tensor([0, 0, 2, 4]))))
    system = _System(b, parts, t)
    down = tuple(-0.01 * slope for slope in system.gradient())

    def value(theta, t):
        return b.value(b.apply(theta) + b.free @ t) + b.beta * float(NUCLEAR.value(theta).sum())

    far = assembled(b, parts) + 100.0, t
    theta, free = straightened(b, parts, system.fit, t, down, far)
    here = assembled(b, parts)
    lowest = value(theta, free)
    assert lowest < value(here, t)
    for share in (0.5, 2.0):
        assert lowest <= value(here + share * (theta - here), t + share * (free - t))
    best = theta, free
    assert straightened(b, parts, system.fit, t, down, best)[0] is theta


def test_no_rounds_are_refused():
    b = Groups(gated())
    zero, none = b.X.new_zeros(b.size, b.p, b.outputs), b.X.new_zeros(0, b.outputs)
    with pytest.raises(BadInput, match="rounds is 0"):
        polish(b, zero, none, 1e-9, 0)


def test_a_missing_block_is_noticed():
    program = gated(share=0.05)
    sizes = program.gauge.value(minimise(program, 1e-9).theta)
    part = program.take(np.flatnonzero(np.arange(len(sizes)) != sizes.argmax()))
    found = minimise(part, 1e-9)
    value = part.value(found.theta, found.constant)
    assert gap(part, found) <= 1e-8
    assert (value - lower_bound(program, found.nu)[0]) / value > 1e-3


def test_screened_blocks_are_zero_at_the_optimum():
    program = gated(n=60, d=5, P=60, share=0.2)
    optimum, b = minimise(program, 1e-10), Groups(program)
    zero, none = b.X.new_zeros(b.size, b.p, b.outputs), b.X.new_zeros(0, b.outputs)
    rough = descend(b, zero, none, 1e-2, 5000, NUCLEAR)
    bound = polish(b, rough[0], rough[1], 1e-8)[2]
    active = set(np.flatnonzero(program.gauge.value(optimum.theta) > 1e-9))
    assert active <= set(bound.left.tolist())
    assert len(bound.left) < b.size


@pytest.mark.parametrize("loss", LOSSES)
def test_products_are_those_of_the_hessian(loss):
    """Gradient and Hessian against differentiation, where no singular value is cut off."""
    b = Groups(gated(n=15, d=3, c=2, P=5, loss=loss, bias="free"))
    draw = torch.Generator().manual_seed(1)
    block = torch.tensor([0, 0, 2, 4])
    W, A, t = (
        0.3 * torch.randn(*shape, generator=draw, dtype=b.X.dtype)
        for shape in ((b.p, 4), (2, 4), (b.free.shape[1], 2))
    )
    system = _System(b, Components(W, A, block), t)
    b.beta = 2.0 * float(NUCLEAR.polar(b.adjoint(system.nu)).max())  # feasible: nothing is cut
    system = _System(b, Components(W, A, block), t)
    system.prepare(b.adjoint(system.nu, torch.unique(block)))
    d = tuple(torch.randn(x.shape, generator=draw, dtype=x.dtype) for x in (W, A, t))

    def slope(step):
        moved = [x + step * y for x, y in zip((W, A, t), d, strict=True)]
        return _System(b, Components(moved[0], moved[1], block), moved[2])

    up, down = slope(1e-5), slope(-1e-5)
    along = sum((x * y).sum() for x, y in zip(system.gradient(), d, strict=True))
    assert (up.value - down.value) / 2e-5 == pytest.approx(float(along), rel=1e-6)
    for got, plus, minus in zip(
        system.product(d, 0.0), up.gradient(), down.gradient(), strict=True
    ):
        torch.testing.assert_close(got, (plus - minus) / 2e-5, rtol=1e-4, atol=1e-5)


def test_blocks_are_put_together_as_they_were_taken_apart():
    b = Groups(gated())
    theta = torch.randn(b.size, b.p, b.outputs, generator=torch.Generator().manual_seed(0)).double()
    theta[3:] = 0.0
    theta[1] = theta[1][:, :1] * theta[1][:1]  # rank one
    parts = decomposed(theta)
    assert len(parts.block) == 2 * b.outputs + 1
    torch.testing.assert_close(assembled(b, parts), theta)
    torch.testing.assert_close(parts.W.norm(dim=0), parts.A.norm(dim=0))


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 3, 5), (4, 1, 3)])
def test_shrinking_by_gram_matrices_is_shrinking_by_singular_values(shape):
    theta = torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    U, sizes, Vh = torch.linalg.svd(theta, full_matrices=False)
    for size in (1e-9, 1e-3, 0.7, 10.0):  # the first goes by singular vectors
        by = size * torch.linspace(0.5, 1.5, len(theta), dtype=torch.float64)
        slow = (U * (sizes - by[:, None]).clamp_min(0.0)[:, None]) @ Vh
        torch.testing.assert_close(shrink_singular_values(theta, by), slow, rtol=1e-9, atol=1e-10)


def _degenerate() -> dict[str, Program]:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((20, 3))
    twice = gated(n=20)
    index = np.r_[np.arange(twice.atoms.size), np.arange(twice.atoms.size)]
    return {
        "duplicate patterns": twice.with_blocks(index, np.ones(len(index))),
        "both signs": twice.with_blocks(index, np.repeat([1.0, -1.0], len(index) // 2)),
        "rank 1": gated(X=np.outer(X[:, 0], [1.0, 2.0, -1.0])),
        "one sample": gated(X=np.array([[0.5, -2.0]]), P=5),
        "more outputs than samples": gated(n=6, c=9),
        "one output": gated(c=1),
        "columns over six decades": gated(X=X * [1e3, 1.0, 1e-3], bias="penalised"),
        "almost zero": gated(share=1 - 1e-6),
        "more free directions than samples": replace(gated(n=8, P=30, bias="free"), beta=0.1),
    }


@pytest.mark.parametrize("name", _degenerate())
def test_degenerate_data(name):
    program = _degenerate()[name]
    found = minimise(program, 1e-8)
    zero = float(program.loss.value(np.zeros(program.y.shape), program.y))
    value = program.value(found.theta, found.constant)
    free = 1e-3 * zero if "free directions" in name else 0.0
    assert value - lower_bound(program, found.nu)[0] <= 2e-8 * max(value, free)


def test_a_class_without_samples_costs_nothing():
    program = gated(n=20, P=8)
    empty = replace(program, y=program.y * [1.0, 0.0, 1.0])
    for gauge in (empty.gauge, PerClass(empty.gauge.rows, empty.gauge.outputs)):
        found = minimise(replace(empty, gauge=gauge), 1e-8)
        assert not found.theta[:, :, 1].any() or gauge is empty.gauge
        assert np.abs(found.theta[:, :, 1]).max() <= 1e-8 * np.abs(found.theta).max()


def test_above_beta_max_nothing_is_left():
    found = minimise(gated(share=1 + 1e-9), 1e-9)
    assert not found.theta.any()


def test_bits_repeat():
    torch.set_num_threads(1)
    first, second = (minimise(gated(share=0.05), 1e-9) for _ in range(2))
    assert np.array_equal(first.theta, second.theta) and first.history == second.history
