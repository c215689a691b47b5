"""Bounds over all patterns against enumeration, closed forms and adversarial search."""

from __future__ import annotations

import functools
from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from cases import CASES, kgon, planted
from scipy.optimize import nnls

from landscape import arrangements, solve
from landscape.architectures import TwoLayer
from landscape.errors import BadInput
from landscape.pricing import branch, largest_price, prices, relaxed_supremum, supremum
from landscape.problem import Problem

RNG = np.random.default_rng


def enumerated(X, nu):
    """The largest price over the enumerated patterns, each by non-negative least squares."""
    best = 0.0
    for mask in np.asarray(arrangements.enumerate(X)):
        rows = np.where(mask, 1.0, -1.0)[:, None] * X
        for sign in (1.0, -1.0):
            xi = sign * (mask * nu) @ X
            if np.linalg.norm(xi) > best:
                # columns of one size: the cone does not change, nnls copes with any scaling
                size = np.linalg.norm(rows, axis=1, keepdims=True)
                best = max(best, nnls((rows / np.where(size > 0, size, 1.0)).T, -xi)[1])
    return best


def price(X, nu, u, sign=1.0):
    return sign * np.maximum(X @ (u / np.linalg.norm(u)), 0.0) @ nu


def searched(X, nu, seed=0, starts=500, steps=60):
    """The largest price that ascent on the sphere finds."""
    u, best = RNG(seed).standard_normal((starts, X.shape[1])), 0.0
    for step in range(steps):
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        values = np.maximum(u @ X.T, 0.0) @ nu
        best = max(best, values.max(), -values.min())
        slope = ((u @ X.T > 0) * nu) @ X * np.sign(values)[:, None]
        size = np.linalg.norm(slope, axis=1, keepdims=True)
        u = u + 0.9**step * slope / np.where(size > 0, size, 1.0)
    return float(best)


def random_design(kind, seed):
    rng = RNG([seed, len(kind)])
    p = seed % 5 + 1
    n = [8, 12, 10, 9, 7][p - 1]
    X = rng.standard_normal((n, p))
    if kind == "duplicates":
        X[n // 2 :] = X[: n - n // 2] * rng.uniform(0.5, 2.0, (n - n // 2, 1))
    elif kind == "antipodal":
        X[n // 2 :] = -X[: n - n // 2]
    elif kind == "rank-deficient":
        X = X @ rng.standard_normal((p, p + 1))
    elif kind == "zero rows":
        X[::3] = 0.0
    elif kind == "bias":
        X[:, -1] = 1.0
    elif kind == "lattice":
        X = np.round(X)
    elif kind == "scaled":
        X = X * 10.0 ** rng.integers(-6, 7, p)
    nu = rng.standard_normal(n)
    if seed % 3 == 0:
        nu[rng.integers(n)] = 0.0
    return X, nu


KINDS = (
    "generic", "duplicates", "antipodal", "rank-deficient", "zero rows", "bias", "lattice",
    "scaled",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_supremum_equals_enumeration(kind):
    for seed in range(10):
        X, nu = random_design(kind, seed)
        found, expected = supremum(X, nu), enumerated(X, nu)
        scale = np.abs(nu) @ np.linalg.norm(X, axis=1)
        assert found.exact
        assert found.attained == pytest.approx(expected, rel=2e-9, abs=1e-11 * scale)
        assert expected - 1e-13 * scale <= found.bound
        assert found.bound <= expected * (1 + 2e-9) + 1e-11 * scale
        assert np.linalg.norm(found.direction) <= 1 + 1e-12
        assert price(X, nu, found.direction, found.sign) == pytest.approx(
            found.attained, rel=1e-12, abs=1e-13 * scale
        )


@pytest.mark.parametrize("k", range(3, 13))
def test_supremum_of_a_polygon(k):
    """ν = 1: the largest length of a sum of consecutive corners."""
    X = kgon(k).design
    expected = 0.5 / np.sin(np.pi / (2 * k)) if k % 2 else 1 / np.sin(np.pi / k)
    found = supremum(X, np.ones(k))
    assert found.exact
    assert found.bound == pytest.approx(expected, rel=2e-9)
    assert found.attained == pytest.approx(expected, rel=2e-9)


def test_all_of_one_sign_needs_one_direction():
    X = RNG(0).standard_normal((6, 3))
    assert supremum(np.eye(3), -np.ones(3)).attained == pytest.approx(sqrt(3))
    found = supremum(X[:1], np.array([-2.0]))
    assert (found.sign, found.exact) == (-1, True)
    assert found.attained == pytest.approx(2 * np.linalg.norm(X[0]))


@pytest.mark.parametrize(
    "X, nu, expected, exact",
    [
        (np.zeros((2, 2)), np.ones(2), 0.0, True),
        (np.ones((2, 2)), np.zeros(2), 0.0, True),
        (np.array([[1.0], [-1.0]]), np.array([1.0, -1.0]), 1.0, True),
        # What cancels is known up to rounding only: a target above that settles it.
        (np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([2.0, -1.0]), 0.0, False),
    ],
)
def test_supremum_where_hardly_anything_is_left(X, nu, expected, exact):
    found = supremum(X, nu)
    assert found.exact == exact
    assert supremum(X, nu, target=1e-9).exact
    assert found.attained == pytest.approx(expected)
    assert expected <= found.bound <= expected + 1e-11


def test_the_wrong_input_is_refused():
    with pytest.raises(BadInput, match="shape"):
        supremum(np.eye(3), np.ones(2))
    with pytest.raises(BadInput, match="NaN"):
        supremum(np.eye(2), np.array([1.0, np.nan]))
    for name in ("target", "tolerance"):
        for value in (-1.0, np.nan, True, "small"):
            with pytest.raises(BadInput, match=f"^{name} is {value!r}"):
                supremum(np.eye(2), np.ones(2), **{name: value})
    for value in (0, -1, 1.5, True):
        with pytest.raises(BadInput, match=f"^nodes is {value!r}"):
            supremum(np.eye(2), np.ones(2), nodes=value)
    program = planted(6, 2).architecture.program(
        planted(6, 2), arrangements.enumerate(planted(6, 2).design)
    )
    for price_of in (prices, largest_price):
        with pytest.raises(BadInput, match="nu has NaN"):
            price_of(program, np.full(6, np.nan))


def test_what_is_attained_is_a_price_of_the_samples_themselves():
    """Joined samples move by up to 1e-9 of their size, and ν may cancel all else."""
    for seed in range(20):
        rng = RNG([13, seed])
        x, y = rng.standard_normal((4, 2)), rng.standard_normal(4)
        X = np.vstack([x, x + 1e-10 * rng.standard_normal(x.shape), np.eye(2)])
        nu = np.r_[y, -y, 1e-2 * rng.standard_normal(2)]
        found = supremum(X, nu)
        u = [Fraction(v) for v in found.direction.tolist()]
        exact = Fraction(0)
        for row, weight in zip(X.tolist(), nu.tolist(), strict=True):
            along = sum((Fraction(a) * b for a, b in zip(row, u, strict=True)), Fraction(0))
            exact += Fraction(weight) * max(along, Fraction(0)) * found.sign
        assert found.attained == pytest.approx(float(exact), rel=1e-13)


def test_a_supremum_lost_in_rounding_is_not_called_exact():
    """Six points that agree to 1e-11: the price is what ν leaves of their differences."""
    x = 0.68542270233 + 1e-12 * np.arange(6.0)
    nu = np.array([1.0, -2.0, 1.0, 1.0, -2.0, 1.0])
    found = supremum(x[:, None], nu)
    assert not found.exact
    assert found.bound > 100 * found.attained


def test_bounds_hold_whenever_the_search_stops():
    for seed in range(6):
        rng = RNG(seed)
        X, nu = rng.standard_normal((25, 4)), rng.standard_normal(25)
        exact = supremum(X, nu)
        before = np.inf
        for nodes in (1, 10, 100, 1000):
            found = supremum(X, nu, nodes=nodes)
            assert found.nodes <= nodes
            assert exact.attained <= found.bound <= before
            assert found.attained <= exact.bound
            before = found.bound
        assert not supremum(X, nu, nodes=1).exact


def test_a_target_is_decided_on_both_sides():
    rng = RNG(1)
    X, nu = rng.standard_normal((30, 3)), rng.standard_normal(30)
    exact = supremum(X, nu)
    above = supremum(X, nu, target=1.01 * exact.attained)
    assert above.exact and above.bound <= 1.01 * exact.attained
    assert above.nodes <= exact.nodes
    below = supremum(X, nu, target=0.99 * exact.attained)
    assert below.exact and below.bound == pytest.approx(exact.attained, rel=2e-9)


def test_no_search_finds_more():
    for seed in range(50):
        rng = RNG([7, seed])
        n, p = int(rng.integers(2, 30)), int(rng.integers(1, 5))
        X, nu = rng.standard_normal((n, p)), rng.standard_t(2, n)
        found = supremum(X, nu)
        assert found.exact
        assert searched(X, nu, seed, starts=200, steps=40) <= found.bound
    for seed in range(1000):
        rng = RNG([8, seed])
        X, nu, u = rng.integers(-2, 3, (6, 2)), rng.integers(-2, 3, 6), rng.standard_normal((64, 2))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        values = np.maximum(u @ X.T, 0.0) @ nu
        assert np.abs(values).max() <= supremum(X, nu).bound


def test_a_free_bias_is_priced_as_its_patterns_are():
    for seed, (n, d) in enumerate([(8, 1), (8, 1), (10, 2), (10, 2), (9, 3), (30, 2)]):
        rng = RNG([9, seed])
        X, nu = rng.standard_normal((n, d)), rng.standard_normal(n)
        if seed % 2:
            X = np.round(2 * X)
        nu -= nu.mean()
        problem = Problem(X, nu, 0.1, architecture=TwoLayer(bias="free"))
        program = problem.architecture.program(problem, arrangements.enumerate(problem.design))
        found = supremum(problem.design, nu, free_bias=True)
        assert found.exact
        assert found.bound == pytest.approx(largest_price(program, nu)[0], rel=3e-9)
        w, b = found.direction[:-1], found.direction[-1]
        assert np.linalg.norm(w) <= 1 + 1e-12
        assert abs(b) <= np.linalg.norm(X, axis=1).max() * (1 + 1e-12)
        value = found.sign * np.maximum(X @ w + b, 0.0) @ nu
        assert value == pytest.approx(found.attained, rel=1e-10)


def test_an_optimal_dual_point_is_settled_without_clustering():
    """At β many neurons price the same, on kinks; see the nodes stay few."""
    problem = planted(20, 3)
    nu, beta = solve(problem).dual, problem.beta
    found = supremum(problem.design, nu, target=beta * (1 + 1e-8))
    assert found.exact and found.nodes < 2000
    assert found.bound <= beta * (1 + 1e-8)
    program = problem.architecture.program(problem, arrangements.enumerate(problem.design))
    assert found.attained == pytest.approx(largest_price(program, nu)[0], rel=1e-8)
    # what is infeasible by little is seen
    over = supremum(problem.design, nu * (1 + 1e-7), target=beta * (1 + 1e-8))
    assert over.attained > beta * (1 + 1e-8)


ONE_ROW_A_SAMPLE = [
    c for c in CASES if "gated" not in c.name and len(c.problem.design) == len(c.problem.y)
]


@pytest.mark.parametrize("case", ONE_ROW_A_SAMPLE, ids=lambda c: c.name)
def test_scaling_and_turning_change_nothing(case):
    X, nu = case.problem.design, case.problem.y + 0.1
    turn = np.linalg.qr(RNG(0).standard_normal((X.shape[1], X.shape[1])))[0]
    plain = supremum(X, nu)
    for other in (supremum(X @ turn, nu), supremum(-X @ turn, nu), supremum(1e6 * X, -1e-6 * nu)):
        assert other.attained == pytest.approx(plain.attained, rel=2e-9)


SCALES = [(-165, 0), (160, 0), (0, -200), (0, 160), (-155, -155), (150, 150)]


@functools.cache
def at_scale_one(free_bias):
    rng = RNG(0)
    X, nu = rng.standard_normal((9, 3)), rng.standard_normal(9)
    columns = np.ones((9, int(free_bias)))
    nu -= free_bias * nu.mean()
    return X, columns, nu, supremum(np.hstack([X, columns]), nu, free_bias=free_bias)


@pytest.mark.parametrize("free_bias", [False, True])
@pytest.mark.parametrize(("of_X", "of_nu"), SCALES)
def test_no_scale_takes_a_bound_below_what_is_attained(of_X, of_nu, free_bias):
    """Squares of such numbers leave floating point; the price scales with its arguments."""
    X, columns, nu, plain = at_scale_one(free_bias)
    a, c = 10.0**of_X, 10.0**of_nu
    assert plain.exact
    expected = plain.attained * 10.0 ** (of_X + of_nu)
    found = supremum(np.hstack([a * X, columns]), c * nu, free_bias=free_bias)
    assert found.exact
    assert found.attained == pytest.approx(expected, rel=1e-8)
    assert expected * (1 - 1e-8) <= found.bound
    assert found.bound == pytest.approx(plain.bound * 10.0 ** (of_X + of_nu), rel=1e-8)
    if not free_bias:
        assert relaxed_supremum(a * X, c * nu) >= expected * (1 - 1e-12)


@pytest.mark.parametrize("apart", [0.0, 1e-14, 1e-12, 1e-10])
def test_samples_that_nearly_coincide_are_joined_and_charged(apart):
    """Told apart by cones as narrow as they are close, they would never be settled."""
    rng = RNG(3)
    X, y = rng.standard_normal((8, 3)), rng.standard_normal(8)
    Z, nu = np.vstack([X, X + apart * rng.standard_normal(X.shape)]), np.r_[y, -y]
    found = supremum(Z, nu, nodes=20_000)
    assert not found.exact  # its price is all rounding
    assert found.nodes < 100
    assert searched(Z, nu) <= found.bound <= 1e-8
    above = supremum(Z, nu, target=1e-8)
    assert above.exact
    # Beside other samples what was charged is little.
    beside = supremum(np.vstack([Z, np.eye(3)]), np.r_[nu, np.ones(3)])
    assert beside.exact
    assert beside.attained == pytest.approx(sqrt(3), rel=1e-8)


def _short_bound(monkeypatch):
    record = branch.Cones._record

    def fault(self, which, g, *rest):
        record(self, which, g, *rest)
        self.bound[which] *= 1 - 1e-6

    monkeypatch.setattr(branch.Cones, "_record", fault)


def _low_envelope(monkeypatch):
    begin = branch.Cones.__init__

    def fault(self, form, nodes):
        begin(self, form, nodes)
        self.top = self.top * 0.999

    monkeypatch.setattr(branch.Cones, "__init__", fault)


def _one_sign(monkeypatch):
    roots = branch._roots

    def fault(form):
        every = roots(form)
        return every.take(every.sign > 0)

    monkeypatch.setattr(branch, "_roots", fault)


def _lost_child(monkeypatch):
    split = branch.Cones.split

    def fault(self, limit):
        children = split(self, limit)
        return children.take(slice(len(children.sign) // 2))

    monkeypatch.setattr(branch.Cones, "split", fault)


@pytest.mark.parametrize("fault", [_short_bound, _low_envelope, _one_sign, _lost_child])
def test_planted_faults_are_caught(monkeypatch, fault):
    """The comparison with enumeration must notice each of them."""
    fault(monkeypatch)
    caught = 0
    for seed in range(8):
        X, nu = RNG(seed).standard_normal((20, 3)), RNG(50 + seed).standard_normal(20)
        caught += supremum(X, nu).bound < enumerated(X, nu) * (1 - 1e-8)
    assert caught


def shor(X, nu):
    """Shor's relaxation of the supremum in u and z = (Xu)_+, by Clarabel."""
    import cvxpy

    (n, p), best = X.shape, 0.0
    for sign in (1.0, -1.0):
        S = cvxpy.Variable((1 + p + n, 1 + p + n), PSD=True)
        u, z, U = S[0, 1 : 1 + p], S[0, 1 + p :], S[1 : 1 + p, 1 : 1 + p]
        mixed, Z = S[1 : 1 + p, 1 + p :], S[1 + p :, 1 + p :]
        kinks = [z >= 0, z >= X @ u, cvxpy.diag(Z) == cvxpy.diag(X @ mixed)]
        problem = cvxpy.Problem(
            cvxpy.Maximize(sign * nu @ z), [S[0, 0] == 1, cvxpy.trace(U) <= 1, *kinks]
        )
        problem.solve(solver=cvxpy.CLARABEL)
        best = max(best, float(problem.value))
    return best


def test_relaxed_bound_is_at_least_as_sharp_as_shor():
    for n, p, seed in [(20, 3, 0), (20, 3, 2), (20, 5, 0)]:
        rng = RNG(seed)
        X, nu = rng.standard_normal((n, p)), rng.standard_normal(n)
        relaxed = relaxed_supremum(X, nu)
        assert supremum(X, nu).attained <= relaxed <= shor(X, nu) * (1 + 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_relaxed_bound_is_never_below(kind):
    for seed in range(5):
        X, nu = random_design(kind, seed)
        relaxed = relaxed_supremum(X, nu, steps=20)
        assert supremum(X, nu).attained <= relaxed * (1 + 1e-15)
