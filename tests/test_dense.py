"""Dense blocks, one by one: maps, cones and gauges against explicit sums and cvxpy."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest

from landscape import losses
from landscape.dense import DenseAtoms, DenseCones, GroupProgram, Parts

SHAPES = [(4, 5, 6, 3), (1, 5, 2, 1), (3, 1, 4, 2), (2, 3, 1, 4)]
"""Blocks G, samples n, length p of a block, rows q of its cone."""


def blocks(shape, seed=0):
    G, n, p, q = shape
    rng = np.random.default_rng(seed)
    matrices, rows = rng.standard_normal((G, n, p)), rng.standard_normal((G, q, p))
    rows[0, -1] = 0.0  # says nothing
    atoms = DenseAtoms(matrices, {"number": np.arange(G)}, np.full(n, 9.0))
    return atoms, DenseCones(rows), rng


@pytest.mark.parametrize("shape", SHAPES)
def test_maps_are_sums_over_blocks_and_adjoint_to_themselves(shape):
    atoms, _, rng = blocks(shape)
    G, n, p, _ = shape
    assert (atoms.size, atoms.dimension) == (G, p)
    theta, nu = rng.standard_normal((G, p)), rng.standard_normal(n)
    direct = sum(atoms.matrix(g) @ theta[g] for g in range(G))
    np.testing.assert_allclose(atoms.apply(theta), direct, atol=1e-13)
    pulled = np.array([atoms.matrix(g).T @ nu for g in range(G)])
    np.testing.assert_allclose(atoms.adjoint(nu), pulled, atol=1e-13)
    sizes = np.array([abs(atoms.matrix(g)).T @ abs(nu) for g in range(G)])
    np.testing.assert_allclose(atoms.terms(nu), sizes, atol=1e-13)
    variable, dual = cvxpy.Variable((p, G)), cvxpy.Variable(n)
    variable.value, dual.value = theta.T, nu
    np.testing.assert_allclose(atoms.expression(variable).value, direct, atol=1e-13)
    np.testing.assert_allclose(atoms.adjoint_expression(dual).value, pulled.T, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_some_blocks_keep_their_maps_cones_and_units(shape):
    atoms, cones, rng = blocks(shape)
    chosen = np.array([shape[0] - 1, 0])
    y = rng.standard_normal(shape[1])
    program = GroupProgram.of(
        losses.get("squared"), y, 0.3, atoms, Parts(1, shape[2]), cones, np.ones((shape[1], 1))
    )
    some = program.take(chosen)
    np.testing.assert_array_equal(some.units["number"], chosen)
    for place, g in enumerate(chosen):
        np.testing.assert_array_equal(some.atoms.matrix(place), atoms.matrix(int(g)))
        np.testing.assert_array_equal(some.cones.rows(place), cones.rows(int(g)))
    np.testing.assert_array_equal(some.atoms.reach, atoms.reach)
    theta = rng.standard_normal((2, shape[2]))
    whole = np.zeros((shape[0], shape[2]))
    np.add.at(whole, chosen, theta)
    assert some.fit(theta, np.array([0.7])) == pytest.approx(program.fit(whole, np.array([0.7])))
    bare = GroupProgram.of(losses.get("squared"), y, 0.3, atoms, Parts(1, shape[2]), None)
    assert bare.free.shape == (shape[1], 0) and bare.take(chosen).cones is None


@pytest.mark.parametrize("shape", SHAPES)
def test_violations_are_sines_and_constraints_the_same_rows(shape):
    _, cones, rng = blocks(shape)
    G, _, p, q = shape
    assert cones.open.tolist() == [False] * G
    theta = rng.standard_normal((G, p))
    theta[0] *= 1e-9  # a sine does not see size
    worst = 0.0
    for g in range(G):
        for row in cones.rows(g):
            if row.any():
                sine = -row @ theta[g] / (np.linalg.norm(row) * np.linalg.norm(theta[g]))
                worst = max(worst, sine)
    assert cones.violation(theta) == pytest.approx(worst, rel=1e-12)
    assert cones.violation(np.zeros((G, p))) == 0.0
    variable = cvxpy.Variable((p, G))
    variable.value = theta.T
    (constraint,) = cones.constraints(variable)
    slack = np.concatenate([cones.rows(g) @ theta[g] for g in range(G)])
    np.testing.assert_allclose(constraint.violation(), np.maximum(-slack, 0.0), atol=1e-15)
    pulled, more = cones.multiplier_expression()
    assert more == []
    (multipliers,) = pulled.variables()
    multipliers.value = rng.uniform(size=G * q)
    parts = multipliers.value.reshape(G, q)
    wanted = np.array([cones.rows(g).T @ parts[g] for g in range(G)]).T
    np.testing.assert_allclose(pulled.value, wanted, atol=1e-14)


@pytest.mark.parametrize(("count", "size"), [(1, 4), (2, 3), (4, 1), (1, 1)])
def test_gauges_and_polars_are_those_of_the_parts(count, size):
    rng = np.random.default_rng(1)
    gauge, theta = Parts(count, size), rng.standard_normal((5, count * size))
    parts = [
        [np.linalg.norm(row[j * size : (j + 1) * size]) for j in range(count)] for row in theta
    ]
    np.testing.assert_allclose(gauge.lengths(theta), parts)
    np.testing.assert_allclose(gauge.value(theta), np.sum(parts, axis=1))
    np.testing.assert_allclose(gauge.polar(theta), np.max(parts, axis=1))
    assert gauge.penalised.tolist() == [True] * (count * size)
    variable = cvxpy.Variable((count * size, 5))
    variable.value = theta.T
    assert gauge.expression(variable).value == pytest.approx(np.sum(parts))
    (constraint,) = gauge.polar_constraints(variable, 0.5)
    wanted = np.maximum(np.ravel(parts) - 0.5, 0.0)
    np.testing.assert_allclose(constraint.violation(), wanted, atol=1e-14)
    # The polar is the supremum over the gauge's ball, attained on the longest part.
    for xi, price in zip(theta, gauge.polar(theta), strict=True):
        ball = cvxpy.Variable((count * size, 1))
        best = cvxpy.Problem(cvxpy.Maximize(xi @ ball[:, 0]), [gauge.expression(ball) <= 1])
        assert best.solve(solver="CLARABEL") == pytest.approx(price, rel=1e-6)
