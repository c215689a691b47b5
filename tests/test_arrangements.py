"""Enumeration against linear programs over every sign vector, known counts, and planted faults."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from landscape import arrangements
from landscape.arrangements import Arrangements, TooManyPatterns, cells
from landscape.errors import BadInput

RNG = np.random.default_rng(7)


def by_linear_programs(X: np.ndarray) -> set[bytes]:
    """Patterns of the full-dimensional cells: one linear program for each sign vector."""
    n, d = X.shape
    live = np.flatnonzero((X != 0).any(axis=1))
    rows = X[live] / np.linalg.norm(X[live], axis=1, keepdims=True)
    found = set()
    for signs in itertools.product((1.0, -1.0), repeat=max(len(live) - 1, 0)):
        signs = np.array((1.0, *signs))[: len(live)]
        if len(live):  # the widest margin t of s_k x_k·h ≥ t in the box
            upper = np.c_[-signs[:, None] * rows, np.ones(len(live))]
            bounds = [(-1, 1)] * d + [(None, 1)]
            best = linprog(np.r_[np.zeros(d), -1.0], upper, np.zeros(len(live)), bounds=bounds)
            if -best.fun < 1e-7:
                continue
        for side in (1.0, -1.0):
            pattern = np.ones(n, dtype=bool)
            pattern[live] = side * signs > 0
            found.add(pattern.tobytes())
    return found


def as_set(patterns: Arrangements) -> set[bytes]:
    return {row.tobytes() for row in patterns.patterns}


def assert_gates_inside(patterns: Arrangements, X: np.ndarray) -> None:
    values = patterns.gates @ X.T
    live = (X != 0).any(axis=1)
    assert np.array_equal(values >= 0, patterns.patterns)
    assert (values[:, live] != 0).all()


GRID = np.array([[i, j, 1.0] for i in range(3) for j in range(3)])
BASE = RNG.standard_normal((4, 3))
DEGENERATE = {
    "one row": np.array([[2.0, -1.0]]),
    "one row, one column": np.array([[-3.0]]),
    "one column": np.array([[1.0], [-2.0], [0.0], [3.0]]),
    "only zeros": np.zeros((3, 2)),
    "zero rows": np.r_[BASE, np.zeros((2, 3))],
    "duplicates": np.r_[BASE, BASE[:2]],
    "antipodal": np.r_[BASE, -BASE[:2]],
    "multiples": np.r_[BASE, -3e5 * BASE[:1], 1e-7 * BASE[1:2]],
    "rank deficient": RNG.standard_normal((6, 2)) @ RNG.standard_normal((2, 4)),
    "collinear": np.outer([1.0, 2.0, -1.0, 0.5], [1.0, 2.0, 3.0]),
    "more columns than rows": RNG.standard_normal((4, 9)),
    "concurrent": [*np.c_[RNG.standard_normal((5, 2)), np.zeros(5)].tolist(), [0.3, 0.2, 1.0]],
    "concurrent, turned": np.r_[
        RNG.standard_normal((4, 2)) @ BASE[:2], RNG.standard_normal((3, 2)) @ BASE[2:]
    ],
    "prism": np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, -1]]
    ),
    "concurrent planes in R4": [
        *np.c_[RNG.standard_normal((5, 3)), np.zeros(5)].tolist(),
        [0.1, 0.5, -0.4, 1.0],
        [1.0, 0.2, 0.0, -1.0],
    ],
    "grid with bias": GRID[[0, 1, 2, 3, 4, 6, 8]],
    "one feature with bias": np.array([[t, 1.0] for t in (0, 1, 1, 2, 3.5, -2)]),
    "rows of all sizes": np.array(
        [[1, 0, -1, 1, 0], [2, 1, 0, -1, 2], [0, 1, 0, 1, -1], [0, 1, 1, 0, 0], [1, 2, 0, 0, 2]]
    )
    * 10.0 ** np.array([[3], [-4], [0], [-2], [2]]),
    "badly scaled": np.array([[t * 1e6, s * 1e-5, 1.0] for t in (0, 1, 2) for s in (0, 1)]),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_patterns_are_those_of_linear_programs(name):
    X = np.asarray(DEGENERATE[name], dtype=float)
    found = arrangements.enumerate(X)
    # columns of one size make the margins of the linear programs comparable
    size = np.abs(X).max(axis=0)
    assert as_set(found) == by_linear_programs(X / np.where(size == 0, 1.0, size))
    assert len(as_set(found)) == len(found)
    assert_gates_inside(found, X)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda d: st.lists(
            st.lists(st.integers(-2, 2), min_size=d, max_size=d), min_size=1, max_size=6
        )
    )
)
def test_small_integer_matrices(rows):
    X = np.array(rows, dtype=float)
    found = arrangements.enumerate(X)
    assert as_set(found) == by_linear_programs(X)
    assert_gates_inside(found, X)


@pytest.mark.parametrize(
    ("n", "d"),
    [(1, 1), (1, 3), (2, 2), (9, 1), (12, 2), (25, 3), (15, 4), (12, 6), (8, 8), (6, 11)],
)
def test_general_position_counts(n, d):
    X = np.random.default_rng(n * 100 + d).standard_normal((n, d))
    found = arrangements.enumerate(X)
    assert len(found) == arrangements.count(n, min(n, d)) == len(as_set(found))
    assert_gates_inside(found, X)


def test_a_hundred_points_in_four_dimensions():
    X = np.random.default_rng(0).standard_normal((100, 4))
    found = arrangements.enumerate(X)
    assert len(found) == 323_600
    assert len(np.unique(found.packed, axis=0)) == 323_600


@pytest.mark.parametrize(("inputs", "functions"), [(1, 4), (2, 14), (3, 104), (4, 1882)])
def test_threshold_functions_of_boolean_inputs(inputs, functions):
    # OEIS A000609: all points of the cube with a bias column, as degenerate as can be
    X = np.array([[*bits, 1.0] for bits in itertools.product((0, 1), repeat=inputs)])
    assert len(arrangements.enumerate(X)) == functions


def test_braid_arrangement_has_a_cell_for_each_order():
    X = np.array([np.eye(5)[i] - np.eye(5)[j] for i in range(5) for j in range(i)])
    assert len(arrangements.enumerate(X)) == 120


def test_cells_do_not_depend_on_the_rotation_nor_on_factors():
    X = np.asarray(DEGENERATE["concurrent, turned"])
    turn = np.linalg.qr(RNG.standard_normal((3, 3)))[0]
    other = arrangements.enumerate((X @ turn) * RNG.uniform(0.1, 10, (len(X), 1)))
    assert as_set(arrangements.enumerate(X)) == as_set(other)


def test_complement_closed_but_for_zero_rows():
    X = np.r_[BASE, np.zeros((1, 3))]
    patterns = arrangements.enumerate(X).patterns
    flipped = ~patterns
    flipped[:, -1] = True
    assert {p.tobytes() for p in patterns} == {p.tobytes() for p in flipped}


def test_wrong_gates_are_noticed(monkeypatch):
    monkeypatch.setattr(cells, "_gates", lambda v, values, inward, Y, r: np.eye(r)[[0] * len(v)])
    with pytest.raises(ArithmeticError, match="not inside its cell"):
        arrangements.enumerate(RNG.standard_normal((6, 3)))


def test_a_lost_vertex_is_noticed(monkeypatch):
    whole = cells._subsets
    monkeypatch.setattr(cells, "_subsets", lambda *a: (rows[1:] for rows in whole(*a)))
    with pytest.raises(ArithmeticError, match="add up"):
        arrangements.enumerate(RNG.standard_normal((6, 3)))


def test_a_lost_crowded_flat_is_noticed(monkeypatch):
    whole = cells._flats
    monkeypatch.setattr(cells, "_flats", lambda *a: list(whole(*a))[1:])
    with pytest.raises(ArithmeticError, match="add up"):
        arrangements.enumerate(GRID)


def test_cells_that_only_rounding_made_are_noticed(monkeypatch):
    # concurrent rows taken apart by 1e-9: the slivers between them have no gate on the true rows
    half = cells.half
    monkeypatch.setattr(cells, "half", lambda Z, tol: half(Z + 1e-9 * np.sin(1e9 * Z), 1e-13))
    with pytest.raises(ArithmeticError, match="not inside its cell"):
        arrangements.enumerate(GRID)


def test_count():
    assert arrangements.count(100, 4) == 323_600
    assert arrangements.count(4, 2) == 8
    assert arrangements.count(5, 9) == 32
    assert arrangements.count(0, 3) == arrangements.count(3, 0) == 1
    assert arrangements.count(1000, 500) > 10**299
    with pytest.raises(BadInput):
        arrangements.count(-1, 2)


def test_too_many_patterns_says_how_many():
    X = RNG.standard_normal((40, 5))
    with pytest.raises(TooManyPatterns, match=r"sample.*raise the limit"):
        arrangements.enumerate(X, limit=1000)
    with pytest.raises(TooManyPatterns, match=f"{arrangements.count(40, 5):,}"):
        arrangements.enumerate(X, limit=1000)
    assert len(arrangements.enumerate(np.repeat(BASE, 100, axis=0), limit=20)) == 14


@pytest.mark.parametrize(
    "X",
    [[1.0, 2.0], [[np.nan, 1.0]], [["a"]], np.zeros((2, 2, 2))],
    ids=("1-D", "nan", "text", "3-D"),
)
def test_bad_design_matrices_are_refused(X):
    for refuse in (arrangements.enumerate, lambda X: arrangements.sample(X, 3)):
        with pytest.raises(BadInput, match="X"):
            refuse(X)


@pytest.mark.parametrize("method", ["gaussian", "data"])
@pytest.mark.parametrize(
    "name", ["concurrent", "grid with bias", "zero rows", "antipodal", "one row"]
)
def test_sample_is_a_subset(method, name):
    X = np.asarray(DEGENERATE[name], dtype=float)
    every = as_set(arrangements.enumerate(X))
    drawn = arrangements.sample(X, 400, seed=3, method=method)
    assert as_set(drawn) <= every
    assert len(drawn) == len(as_set(drawn)) > len(every) / 2
    assert_gates_inside(drawn, X)
    again = arrangements.sample(X, 400, seed=3, method=method)
    assert np.array_equal(drawn.packed, again.packed)


def test_sample_sizes_and_methods():
    X = RNG.standard_normal((8, 3))
    assert len(arrangements.sample(X, 0)) == len(arrangements.sample(X, 0, method="data")) == 0
    assert len(arrangements.sample(X, 5, method="data")) <= 5
    with pytest.raises(BadInput, match="gaussian"):
        arrangements.sample(X, 5, method="gausian")


def test_of_plain_neurons_and_networks():
    X = RNG.standard_normal((9, 3))
    weights = RNG.standard_normal((6, 3))
    weights = np.r_[weights, 2 * weights[:2], np.zeros((1, 3))]
    found = arrangements.of(weights, X)
    assert len(found) == len(as_set(found))
    assert_gates_inside(found, X)
    assert as_set(found) == {(X @ w >= 0).tobytes() for w in weights[:6]}

    class Network:
        def gates(self):
            return weights

    assert np.array_equal(arrangements.of(Network(), X).packed, found.packed)
    assert len(arrangements.of(np.zeros((2, 3)), X)) == 0
    for bad in (np.ones((2, 4)), np.full((1, 3), np.nan)):
        with pytest.raises(BadInput, match="weights"):
            arrangements.of(bad, X)


@pytest.mark.parametrize(
    "name", ["grid with bias", "prism", "duplicates", "antipodal", "zero rows"]
)
def test_of_enumerates_ties(name):
    X = np.asarray(DEGENERATE[name], dtype=float)
    every = arrangements.enumerate(X).patterns
    for rows in itertools.combinations(range(len(X)), 2):
        null = np.linalg.svd(X[list(rows)])[2][-1]
        values = X @ null
        off = np.abs(values) > 1e-9
        # the cells that touch a direction agree with it wherever it is off the hyperplanes
        touching = {p.tobytes() for p in every if np.array_equal(p[off], values[off] > 0)}
        for noise in (0.0, 1e-11):
            found = arrangements.of(null[None] + noise, X)
            assert as_set(found) == touching
            assert_gates_inside(found, X)


def test_the_set_behaves_as_an_array_of_patterns():
    X = RNG.standard_normal((11, 3))
    found = arrangements.enumerate(X)
    assert np.array_equal(np.asarray(found), found.patterns)
    assert np.asarray(found, dtype=float).dtype == float
    assert found.packed.shape == (len(found), 2)
    picked = found[np.array([4, 1])]
    assert np.array_equal(picked.patterns, found.patterns[[4, 1]])
    assert len(found[0]) == len(found[-1]) == 1
    assert len(found[:5]) == len(list(found[:5])) == 5
    assert len(found[np.arange(len(found)) < 3]) == 3
    both = found[:6].union(found[3:9])
    assert np.array_equal(both.packed, found[:9].packed)
    assert found.patterns[2] in found
    assert found.patterns[2] not in found[3:]
    rebuilt = Arrangements.from_bool(found.patterns, found.gates)
    assert np.array_equal(rebuilt.packed, found.packed)
    with pytest.raises(BadInput, match="one design"):
        found.union(arrangements.enumerate(X[:5]))
    with pytest.raises(BadInput, match="packed"):
        Arrangements(found.packed, 30, found.gates)
    with pytest.raises(BadInput, match="gates"):
        Arrangements(found.packed, 11, found.gates[1:])
    with pytest.raises(BadInput, match="booleans"):
        Arrangements.from_bool([[0.5]], [[1.0]])
