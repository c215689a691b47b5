"""Made data sets by what defines them: teachers, solids, spirals, families of interpolators."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest

from landscape import arrangements, data, synthetic
from landscape.errors import BadInput, DatasetUnavailable


@pytest.mark.parametrize(("n", "d", "k", "outputs"), [(7, 3, 5, 1), (1, 1, 1, 1), (6, 2, 4, 3)])
def test_test_samples_are_of_the_same_teacher(n, d, k, outputs):
    """Without noise both parts are the teacher's own outputs, drawn before anything else is."""
    X, y, beta, X_test, y_test = synthetic.planted(n, d, k, noise=0.0, seed=3, outputs=outputs)
    rng = np.random.default_rng(3)
    rng.standard_normal((n, d))
    W, a = rng.standard_normal((k, d)), rng.standard_normal(k if outputs == 1 else (k, outputs))
    assert X.shape == (n, d) and X_test.shape == (1000, d) and beta == 0.1 * n**0.5
    for inputs, targets in ((X, y), (X_test, y_test)):
        theirs = [sum(a[j] * max(0.0, W[j] @ x) for j in range(k)) for x in inputs]
        np.testing.assert_allclose(targets, theirs, atol=1e-12)


@pytest.mark.parametrize("noise", [0.1, 0.7])
def test_noise_has_its_size_on_both_parts_and_is_drawn_anew(noise):
    clean = synthetic.planted(800, 3, noise=0.0, seed=1)
    noisy = synthetic.planted(800, 3, noise=noise, seed=1)
    for part in (1, 4):
        difference = noisy[part] - clean[part]
        assert difference.std() == pytest.approx(noise, rel=0.1)
        assert abs(difference.mean()) <= 5 * noise / len(difference) ** 0.5
    first, second = (noisy[part][:800] - clean[part][:800] for part in (1, 4))
    assert abs(np.corrcoef(first, second)[0, 1]) <= 0.2


def test_scaled_teachers_have_outputs_of_size_one_and_their_own_test_samples():
    X, y, beta, X_test, y_test = synthetic.scaled(n=300, d=40, seed=2)
    assert beta == 0.3 and X.shape == (300, 40) and X_test.shape == (1000, 40)
    rng = np.random.default_rng(2)
    rng.standard_normal((300, 40))
    W = rng.standard_normal((40, 10)) / 40**0.5
    a = rng.standard_normal(10) / 10**0.5
    for inputs, targets in ((X, y), (X_test, y_test)):
        rest = targets - np.maximum(inputs @ W, 0) @ a
        assert rest.std() == pytest.approx(0.1, rel=0.2)
        assert 0.2 < targets.std() < 2.0


def test_noise_has_nothing_to_learn_and_no_test_samples():
    X, y, beta = synthetic.noise(n=5000, d=2, seed=4)
    assert beta == 0.03 * 5000**0.5
    features = np.maximum(np.column_stack([X, -X]), 0)
    left = np.linalg.lstsq(features, y, rcond=None)[1]
    assert float(left[0]) / float(y @ y) >= 0.99
    for name, d in (("noise", 4), ("cube", 3), ("spirals", 2)):  # arrays all the same
        sample = data.load(name)
        assert sample.X_test.shape == (0, d) and sample.y_test.shape == (0,)


def test_solids_are_as_symmetric_as_they_say():
    """All corners at one distance, and each with the same distances to the others."""
    sets = {
        "octahedron": (6, 3, [0, 2, 2, 2, 2, 4]),
        "cube": (8, 3, [0, 4, 4, 4, 8, 8, 8, 12]),
        "kgon": (6, 2, [0, 1, 1, 3, 3, 4]),
    }
    for name, (n, d, squares) in sets.items():
        X, y, beta = synthetic.MADE[name]()
        assert X.shape == (n, d) and beta == 0.1 and y.tolist() == [1.0] * n
        apart = ((X[:, None] - X[None]) ** 2).sum(axis=2)
        for row in apart:
            np.testing.assert_allclose(np.sort(row), squares, atol=1e-12)


def test_two_rings_are_hexagons_one_between_the_other_at_half_its_size():
    X, y, beta = synthetic.two_rings()
    assert beta == 0.05 and y.tolist() == [1.0] * 6 + [-1.0] * 6
    for ring, radius in ((X[:6], 1.0), (X[6:], 0.5)):
        for row in ((ring[:, None] - ring[None]) ** 2).sum(axis=2):
            wanted = radius**2 * np.array([0, 1, 1, 3, 3, 4])
            np.testing.assert_allclose(np.sort(row), wanted, atol=1e-12)
    cosines = 2 * X[:6] @ X[6:].T
    np.testing.assert_allclose(np.sort(cosines, axis=1)[:, -2:], np.cos(np.pi / 6), atol=1e-12)


@pytest.mark.parametrize(("n", "turns"), [(2, 1.0), (40, 1.5), (160, 2.0)])
def test_spirals_wind_as_often_as_they_say_and_mirror_each_other(n, turns):
    X, y, beta = synthetic.spirals(n, turns)
    assert beta == 5e-4 and y.tolist() == [1.0] * (n // 2) + [-1.0] * (n // 2)
    np.testing.assert_array_equal(X[n // 2 :], -X[: n // 2])
    radius = np.linalg.norm(X[: n // 2], axis=1)
    assert (np.diff(radius) > 0).all() and radius[-1] <= 1 + 1e-12
    angle = np.unwrap(np.arctan2(X[: n // 2, 1], X[: n // 2, 0]))
    grown = np.diff(angle) / np.diff(radius)
    np.testing.assert_allclose(grown, turns * 2 * np.pi, rtol=1e-9)  # an Archimedean spiral
    if n > 2:
        assert radius[-1] == pytest.approx(1.0)
    blurred = synthetic.spirals(n, turns, noise=0.1, seed=5)[0] - X
    assert 0 < np.abs(blurred).max() < 0.6
    assert n < 100 or blurred.std() == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_suffix_data_have_a_dual_point_that_prices_n_plus_1_neurons_at_one(n):
    """The dual of least-norm interpolation, solved over all patterns by Clarabel.

    Its value is the sum of the units' sizes, n + 1, which any n of them can share as well.
    """
    X, y, beta = synthetic.suffixes(n)
    assert X.shape == (n, 1) and beta == 0.1 and (np.diff(X[:, 0]) > 0).all()
    design, nu = np.column_stack([X, np.ones(n)]), cvxpy.Variable(n)
    rows = []
    for pattern in np.asarray(arrangements.enumerate(design), dtype=float):
        side = 2 * pattern - 1
        for sign in (1.0, -1.0):
            multipliers = cvxpy.Variable(n, nonneg=True)
            pull = design.T @ cvxpy.multiply(sign * pattern, nu)
            rows.append(cvxpy.norm(pull + design.T @ cvxpy.multiply(side, multipliers)) <= 1)
    problem = cvxpy.Problem(cvxpy.Maximize(y @ nu), rows)
    assert problem.solve(solver="CLARABEL") == pytest.approx(n + 1, rel=1e-6)


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: synthetic.suffixes(1), "n is 1: a family of interpolators takes two points"),
    (lambda: synthetic.spirals(3), "n is 3: two spirals of equal length"),
    (lambda: synthetic.line("lft"), "Did you mean 'left'"),
])  # fmt: skip
def test_sizes_that_make_no_such_set_are_refused(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()
    with pytest.raises(DatasetUnavailable, match="not known here"):
        synthetic.line("zshape")


@pytest.mark.parametrize("name", synthetic.LINES)
def test_lines_are_columns_with_one_target_each(name):
    X, y, beta = synthetic.line(name)
    assert X.dtype == y.dtype == np.float64 and X.shape == (len(y), 1) and beta == 1e-7
    assert (np.diff(X[:, 0]) > 0).all()
    assert data.load("line", points=name).provenance == synthetic.LINES[name][2]
