"""Atoms and cones of programs against matrices written out; pooled rows; free directions."""

from __future__ import annotations

from dataclasses import replace

import cvxpy
import numpy as np
import pytest
from cases import planted

from landscape import arrangements, losses
from landscape.architectures import TwoLayer
from landscape.pooled import PooledAtoms
from landscape.problem import Problem
from landscape.programs import MaskedAtoms, PatternCones, Program

RNG = np.random.default_rng

SHAPES = [(1, 1, 1, 1), (5, 3, 4, 6), (4, 1, 2, 3), (2, 3, 1, 2)]
"""Samples, coordinates, patterns, blocks."""


def masked(n, p, P, G, leak=0.0, seed=0):
    """Random masked atoms, patterns used several times or never, signs of both kinds."""
    rng = RNG([n, p, P, seed])
    return MaskedAtoms(
        rng.standard_normal((n, p)),
        rng.random((P, n)) < 0.5,
        rng.integers(0, P, G),
        rng.choice([-1.0, 1.0], G),
        leak,
    )


def written(atoms, block):
    """Return s D X of one block, row by row, pooled where rows belong together."""
    rows = []
    for row, on in zip(atoms.design, atoms.masks[atoms.index[block]], strict=True):
        rows.append(atoms.signs[block] * (1.0 if on else atoms.leak) * row)
    rows = np.array(rows)
    if isinstance(atoms, PooledAtoms):
        K = atoms.copies
        rows = np.array([atoms.scale * rows[i : i + K].sum(axis=0) for i in range(0, len(rows), K)])
    return rows


def columns(theta):
    """Blocks (G, p[, c]) as cvxpy sees them, (p, G) or (p, Gc)."""
    return theta.T if theta.ndim == 2 else np.hstack(list(theta))


KINDS = ["plain", "leaky", "sums", "averages"]


def atoms_of(kind, n, p, P, G):
    if kind in ("plain", "leaky"):
        return masked(n, p, P, G, 0.25 if kind == "leaky" else 0.0)
    K = 3
    every = masked(n * K, p, P, G, 0.0 if kind == "sums" else 0.25)
    return PooledAtoms.of(every, K, 1.0 if kind == "sums" else 1.0 / K)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("outputs", [0, 1, 3])
def test_atoms_are_their_matrices(kind, shape, outputs):
    """Maps, adjoints and both cvxpy expressions, for scalar targets and for several outputs."""
    n, p, _, G = shape
    atoms, rng = atoms_of(kind, *shape), RNG(1)
    tail = (outputs,) if outputs else ()
    theta, nu = rng.standard_normal((G, p, *tail)), rng.standard_normal((n, *tail))
    matrices = [written(atoms, g) for g in range(G)]
    assert (atoms.size, atoms.dimension) == (G, p)
    for g, matrix in enumerate(matrices):
        np.testing.assert_allclose(atoms.matrix(g), matrix, atol=1e-14)
    fit = sum(A @ t for A, t in zip(matrices, theta, strict=True))
    pulled = np.array([A.T @ nu for A in matrices])
    np.testing.assert_allclose(atoms.apply(theta), fit, atol=1e-13)
    np.testing.assert_allclose(atoms.adjoint(nu), pulled, atol=1e-13)
    said = atoms.expression(cvxpy.Constant(columns(theta))).value
    np.testing.assert_allclose(np.reshape(said, fit.shape), fit, atol=1e-13)
    said = atoms.adjoint_expression(cvxpy.Constant(nu)).value
    np.testing.assert_allclose(said, columns(pulled), atol=1e-13)


@pytest.mark.parametrize("kind", ["sums", "averages"])
def test_pooling_and_spreading_are_adjoint(kind):
    atoms, rng = atoms_of(kind, 4, 2, 3, 2), RNG(2)
    z, nu = rng.standard_normal(12), rng.standard_normal(4)
    assert atoms.pooled(z) @ nu == pytest.approx(z @ atoms.on_rows(nu))
    one = replace(atoms, copies=1, scale=1.0)
    np.testing.assert_array_equal(one.pooled(z), z)
    np.testing.assert_array_equal(one.on_rows(z), z)


def cones(linear=False):
    """Five patterns of four rows, one of them zero; the first is on everywhere."""
    rng = RNG(3)
    X = rng.standard_normal((4, 2))
    X[2] = 0.0
    masks = rng.random((5, 4)) < 0.5
    masks[0], masks[1] = True, [True, False, True, True]
    return PatternCones(X, masks, np.array([1, 0, 3, 0, 4]), linear)


@pytest.mark.parametrize("linear", [False, True])
def test_cones_are_where_all_rows_are_on_their_side(linear):
    """And violations are the worst sine by which a block is on the wrong one."""
    held, rng = cones(linear), RNG(4)
    for _ in range(30):
        theta = rng.standard_normal((5, 2)) * 10.0 ** rng.integers(-6, 7, (5, 1))
        theta[rng.integers(5)] = 0.0
        worst = 0.0
        for g, u in enumerate(theta):
            mask = held.masks[held.index[g]]
            np.testing.assert_array_equal(
                held.rows(g),
                0 * held.design
                if linear and mask.all()
                else (2.0 * mask - 1)[:, None] * held.design,
            )
            for row, on in zip(held.design, mask, strict=True):
                size = np.linalg.norm(row) * np.linalg.norm(u)
                if size > 0 and not (linear and mask.all()):
                    worst = max(worst, -(1.0 if on else -1.0) * float(row @ u) / size)
        assert held.violation(theta) == pytest.approx(worst, rel=1e-12)
        said = held.constraints(cvxpy.Constant(theta.T))
        slack = min(float(np.min(held.rows(g) @ u)) for g, u in enumerate(theta))
        assert all(np.all(one.value(1e-12)) for one in said) == (slack >= -1e-12)
    assert held.violation(np.zeros((5, 2))) == 0.0
    assert replace(held, design=0 * held.design).violation(np.ones((5, 2))) == 0.0
    assert held.open.tolist() == [False, linear, False, linear, False]


@pytest.mark.parametrize("linear", [False, True])
def test_multipliers_pull_by_the_rows_of_their_own_cone(linear):
    held = cones(linear)
    pulled, constraints = held.multiplier_expression()
    (variable,) = pulled.variables()
    assert variable.attributes["nonneg"] and not constraints
    variable.value = RNG(5).random(variable.shape)
    for g in range(5):
        np.testing.assert_allclose(pulled.value[:, g], held.rows(g).T @ variable.value[:, g])


FREE = {
    "none": (np.zeros((5, 0)), 0, True),
    "ones": (np.ones((5, 1)), 1, True),
    "two classes of samples": (np.eye(2)[[0, 1, 1, 0, 1]], 2, True),
    "all samples twice": (np.ones((5, 2)), 1, False),
    "numbers": (RNG(6).standard_normal((5, 2)), 2, False),
    "of all sizes": (RNG(6).standard_normal((5, 2)) * [1e-6, 1e6], 2, False),
    "dependent but for rounding": (np.outer(np.arange(5.0), [1.0, 0.3, -2.0]), 1, False),
    "nothing": (np.zeros((5, 2)), 0, False),
    "more than samples": (RNG(7).standard_normal((2, 4)), 2, False),
}


@pytest.mark.parametrize("name", FREE)
def test_free_directions_are_independent_and_span_the_same(name):
    """A_0 T = Q; independent columns of 0 and 1 stay, others have unit root mean square."""
    A, rank, own = FREE[name]
    problem = planted(len(A), 2)
    program = problem.architecture.program(problem, arrangements.sample(problem.design, 2, seed=0))
    Q, T = replace(program, free=A).directions
    assert Q.shape == (len(A), rank)
    assert T.shape == (A.shape[1], rank)
    np.testing.assert_allclose(A @ T, Q, atol=1e-6)
    if own:
        np.testing.assert_array_equal(Q, A)
    else:
        np.testing.assert_allclose(Q.T @ Q, len(A) * np.eye(rank), atol=1e-6)
        if rank:
            scaled = A / np.maximum(np.abs(A).max(axis=0), 1e-300)
            rest = scaled - Q @ np.linalg.lstsq(Q, scaled, rcond=None)[0]
            assert np.abs(rest).max() <= 1e-6


def test_a_program_of_some_blocks_is_that_of_the_others_being_zero():
    problem = Problem(
        RNG(8).standard_normal((7, 2)),
        RNG(9).standard_normal(7),
        0.3,
        architecture=TwoLayer("free"),
    )
    program = problem.architecture.program(problem, arrangements.enumerate(problem.design))
    chosen = np.array([3, 0, 5])
    part, rng = program.take(chosen), RNG(10)
    assert isinstance(part, Program)
    assert part.cones is not None
    theta, constant = program.zero()
    assert program.value(theta, constant) == pytest.approx(0.5 * problem.y @ problem.y)
    theta[chosen], constant[:] = rng.standard_normal(theta[chosen].shape), 0.7
    np.testing.assert_allclose(part.fit(theta[chosen], constant), program.fit(theta, constant))
    assert part.value(theta[chosen], constant) == pytest.approx(program.value(theta, constant))
    assert part.violation(theta[chosen]) == pytest.approx(program.violation(theta))
    expected = losses.get("squared").value(program.fit(theta, constant), problem.y)
    sizes = np.linalg.norm(theta[:, :-1], axis=1).sum()  # the bias counts in no norm
    assert program.value(theta, constant) == pytest.approx(expected + 0.3 * sizes)
    for g, block in enumerate(chosen):
        np.testing.assert_array_equal(part.atoms.matrix(g), program.atoms.matrix(block))
        np.testing.assert_array_equal(part.cones.rows(g), program.cones.rows(block))
    assert replace(program, cones=None).violation(theta) == 0.0
