"""Gauges against convex programs: values, polars and the two ways of writing either in cvxpy."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest

from landscape.gauges import Euclidean, Nuclear, PerClass

RNG = np.random.default_rng

GAUGES = {
    "euclidean": (Euclidean(np.ones(4, dtype=bool)), (4,)),
    "one coordinate": (Euclidean(np.ones(1, dtype=bool)), (1,)),
    "nuclear": (Nuclear(3, 2), (3, 2)),
    "nuclear, wide": (Nuclear(2, 3), (2, 3)),
    "nuclear, one output": (Nuclear(3, 1), (3, 1)),
    "per class": (PerClass(3, 2), (3, 2)),
    "per class, one row": (PerClass(1, 3), (1, 3)),
}


def flat(blocks):
    """Blocks (G, p[, c]) as the columns that cvxpy sees, (p, G) or (p, Gc)."""
    if blocks.ndim == 2:
        return blocks.T
    return blocks.transpose(1, 0, 2).reshape(blocks.shape[1], -1)


def blocks(shape, G, seed):
    """Random blocks, one of them zero and one of rank one."""
    theta = RNG(seed).standard_normal((G, *shape))
    if G > 2:
        theta[1] = 0.0
        theta[2] = theta[2, :1]
    return theta


@pytest.mark.parametrize("name", GAUGES)
def test_a_polar_is_the_largest_product_over_the_unit_ball(name):
    """Solved as a convex program of its own, from the gauge's expression."""
    gauge, shape = GAUGES[name]
    for xi in blocks(shape, 4, 0):
        theta = cvxpy.Variable((shape[0], shape[1] if len(shape) > 1 else 1))
        pull = cvxpy.sum(cvxpy.multiply(flat(xi[None]), theta))
        problem = cvxpy.Problem(cvxpy.Maximize(pull), [gauge.expression(theta) <= 1])
        problem.solve(solver=cvxpy.CLARABEL)
        assert gauge.polar(xi[None])[0] == pytest.approx(problem.value, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", GAUGES)
@pytest.mark.parametrize("G", [1, 4])
def test_expressions_are_the_sums_of_the_values(name, G):
    gauge, shape = GAUGES[name]
    theta = blocks(shape, G, 1)
    written = gauge.expression(cvxpy.Constant(flat(theta)))
    assert gauge.value(theta).shape == gauge.polar(theta).shape == (G,)
    assert float(written.value) == pytest.approx(gauge.value(theta).sum(), rel=1e-12)


@pytest.mark.parametrize("name", GAUGES)
@pytest.mark.parametrize("at", range(3))
def test_polar_constraints_refuse_one_block_that_is_too_large(name, at):
    """β is met exactly by the largest block, wherever it stands; below that it is not met."""
    gauge, shape = GAUGES[name]
    xi = RNG(2).standard_normal((3, *shape))
    xi /= gauge.polar(xi).reshape(-1, *[1] * len(shape))
    xi[at] *= 2.0
    for beta, met in ((2.0 * (1 + 1e-6), True), (2.0 * (1 - 1e-3), False), (1.5, False)):
        held = gauge.polar_constraints(cvxpy.Constant(flat(xi)), beta)
        assert all(np.all(one.value(1e-9)) for one in held) == met


@pytest.mark.parametrize("name", ["nuclear", "nuclear, wide", "per class"])
def test_no_blocks_have_no_norms(name):
    gauge, shape = GAUGES[name]
    nothing = np.zeros((0, *shape))
    assert gauge.value(nothing).shape == gauge.polar(nothing).shape == (0,)
    assert gauge.penalised.tolist() == [True] * shape[0]


def test_the_nuclear_norm_is_what_weight_decay_pays_for_neurons_of_one_pattern():
    """½(‖W‖² + ‖A‖²) over WA = V: balanced singular vectors attain it, nothing is below."""
    rng, gauge = RNG(3), Nuclear(4, 3)
    V = rng.standard_normal((4, 3))
    U, sizes, T = np.linalg.svd(V, full_matrices=False)
    W, A = U * np.sqrt(sizes), np.sqrt(sizes)[:, None] * T
    assert 0.5 * (W**2).sum() + 0.5 * (A**2).sum() == pytest.approx(gauge.value(V[None])[0])
    for seed in range(50):
        turn = RNG([4, seed]).standard_normal((3, 3))
        other, back = W @ turn, np.linalg.solve(turn, A)
        np.testing.assert_allclose(other @ back, V, atol=1e-9)
        paid = 0.5 * (other**2).sum() + 0.5 * (back**2).sum()
        assert paid >= gauge.value(V[None])[0] * (1 - 1e-12)


def test_gauges_of_several_outputs_stand_in_their_order():
    """‖V‖_F ≤ ‖V‖_* ≤ Σ ‖columns‖, equal for one column; the polars in the other order."""
    V = RNG(5).standard_normal((40, 3, 2))
    nuclear, columns = Nuclear(3, 2), PerClass(3, 2)
    frobenius = np.linalg.norm(V, axis=(1, 2))
    assert (frobenius < nuclear.value(V)).all()
    assert (nuclear.value(V) < columns.value(V)).all()
    assert (frobenius > nuclear.polar(V)).all()
    assert (nuclear.polar(V) > columns.polar(V)).all()
    one = V[:, :, :1]
    for gauge in (Nuclear(3, 1), PerClass(3, 1)):
        np.testing.assert_allclose(gauge.value(one), np.linalg.norm(one, axis=(1, 2)))
        np.testing.assert_allclose(gauge.polar(one), np.linalg.norm(one, axis=(1, 2)))


def test_what_no_norm_counts_makes_the_polar_infinite_unless_it_is_not_pulled():
    gauge = Euclidean(np.array([True, False, True]))
    xi = np.array([[3.0, 0.0, 4.0], [3.0, 1e-300, 4.0], [0.0, -1.0, 0.0]])
    assert gauge.polar(xi).tolist() == [5.0, np.inf, np.inf]
    assert gauge.value(np.array([[3.0, 7.0, 4.0], [0.0, 1.0, 0.0]])).tolist() == [5.0, 0.0]
    held = gauge.polar_constraints(cvxpy.Constant(xi[:1].T), 5.0 + 1e-9)
    assert all(np.all(one.value(1e-12)) for one in held)
    pulled = gauge.polar_constraints(cvxpy.Constant(xi[2:].T), 5.0)
    assert not all(np.all(one.value(1e-12)) for one in pulled)
