"""Bounds that hold in floating point: values in exact rational arithmetic are never below them.

Each test fails where the allowance that it is about is dropped.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from cases import planted

from landscape import arrangements, bounds
from landscape.architectures import TwoLayer
from landscape.pricing import branch, largest_price, prices, relaxed_supremum, supremum
from landscape.problem import Problem

RNG = np.random.default_rng


def exact(values):
    return [Fraction(float(value)) for value in values]


def price(X, nu, u):
    """Σ ν_k (x_kᵀu)_+ in rational arithmetic."""
    total = Fraction(0)
    for row, weight in zip(X, exact(nu), strict=True):
        total += weight * max(Fraction(0), sum(a * b for a, b in zip(exact(row), u, strict=True)))
    return total


def unit(slope):
    """A rational point of the circle: ((1 − t²)/(1 + t²), 2t/(1 + t²))."""
    t = Fraction(float(slope))
    return [(1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)]


def line(seed, n=40):
    """Samples on a line, whose prices are sums, with weights that nearly cancel."""
    rng = RNG(seed)
    x, nu = rng.standard_normal(n), rng.standard_normal(n)
    nu[0] -= float(np.maximum(x, 0) @ nu / x[0]) if x[0] > 0 else 0.0
    return x[:, None], nu


@pytest.mark.parametrize("seed", range(40))
def test_no_price_on_a_line_is_above_its_bound(seed):
    X, nu = line(seed)
    right, left = price(X, nu, [Fraction(1)]), price(X, nu, [Fraction(-1)])
    top = max(abs(right), abs(left))
    assert supremum(X, nu).bound >= top
    assert relaxed_supremum(X, nu) >= top
    program = Problem(X, np.ones(len(X)), 0.1)
    program = program.architecture.program(program, arrangements.enumerate(X))
    assert largest_price(program, nu)[0] >= top
    assert max(prices(program, nu)) >= top


@pytest.mark.parametrize("seed", range(40))
def test_no_price_in_the_plane_is_above_its_bound(seed):
    """The best direction is approached by rational ones, from within."""
    rng = RNG([1, seed])
    X, nu = rng.standard_normal((6, 2)), rng.standard_normal(6)
    found = supremum(X, nu)
    w = found.direction if found.direction[0] > -0.9 else -found.direction
    u = unit(w[1] / (1.0 + w[0]))
    u = u if w is found.direction else [-c for c in u]
    top = found.sign * price(X, nu, u)
    assert found.bound >= top
    assert found.bound <= float(top) * (1 + 1e-8)
    program = Problem(X, np.ones(6), 0.1)
    program = program.architecture.program(program, arrangements.enumerate(X))
    assert largest_price(program, nu)[0] >= top


def test_joined_samples_are_charged():
    """(δ u₁ + u₂)_+ − (u₂)_+ reaches δ; joined, the two samples would cancel."""
    delta = 1e-10
    X, nu = np.array([[0.0, 1.0], [delta, 1.0]]), np.array([-1.0, 1.0])
    top = price(X, nu, [Fraction(1), Fraction(0)])
    assert supremum(X, nu).bound >= top > 0


def test_directions_lost_to_the_rank_are_charged():
    """Heavy samples that cancel hide light ones, which no singular value above rounding shows."""
    n = 40_000
    height = 0.5 * n**0.5 * np.finfo(float).eps
    X = np.zeros((n + 2, 2))
    X[:2, 0], X[2:, 1] = 1.0, height
    nu = np.ones(n + 2)
    nu[1] = -1.0
    top = n * Fraction(height)
    assert supremum(X, nu).bound >= top


@pytest.mark.parametrize("bias", ["none", "free"])
def test_what_a_tangent_misses_is_charged(bias, monkeypatch):
    """Bounds hold whatever vector the descent comes up with."""
    rng = RNG(3)
    X, nu = rng.standard_normal((10, 3)), rng.standard_normal(10)
    free = bias == "free"
    if free:
        X[:, -1] = 1.0
        nu -= nu.mean()
    best = supremum(X, nu, free_bias=free).attained
    record = branch.Cones._record

    def shrunk(self, which, g, free_weight=1.0):
        self.slopes *= 0.999
        record(self, which, 0.999 * g, free_weight)

    monkeypatch.setattr(branch.Cones, "_record", shrunk)
    assert supremum(X, nu, free_bias=free, nodes=20_000).bound >= best * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_no_bound_is_above_the_dual_value_of_its_point(seed):
    problem = planted(30, 2, seed=seed)
    program = problem.architecture.program(problem, arrangements.sample(problem.X, 3, seed=0))
    nu = RNG(seed).standard_normal(30)
    bound, feasible, _ = bounds.lower_bound(program, nu)
    pairs = zip(exact(feasible), exact(problem.y), strict=True)
    assert bound <= sum(v * y - v * v / 2 for v, y in pairs)


def shifted(offset=1e6, seed=0):
    """A free bias and β so large that only the constant is used: the optimum is a variance."""
    rng = RNG(seed)
    X, y = rng.standard_normal((12, 2)), offset + rng.standard_normal(12)
    problem = Problem(X, y, 1e3, architecture=TwoLayer(bias="free"))
    values = exact(y)
    mean = sum(values) / len(values)
    return problem, sum((v - mean) ** 2 for v in values) / 2


@pytest.mark.parametrize("seed", range(20))
def test_a_free_bias_is_not_seen_by_a_bound(seed):
    problem, optimum = shifted(seed=seed)
    program = problem.architecture.program(problem, arrangements.sample(problem.design, 3, seed=0))
    nu = problem.y - problem.y.mean()
    bound, _, ratio = bounds.lower_bound(program, nu)
    assert ratio < 1  # so the dual value is not held down by the scaling
    assert bound <= optimum
    assert bound >= float(optimum) - 1e-2


def test_what_a_dual_point_still_sees_of_a_free_bias_is_charged(monkeypatch):
    problem, optimum = shifted()
    program = problem.architecture.program(problem, arrangements.sample(problem.design, 3, seed=0))
    nu = problem.y - problem.y.mean() + 1e-6
    gained = 1e-6 * problem.y.sum()
    pairs = zip(exact(nu), exact(problem.y), strict=True)
    assert sum(v * y - v * v / 2 for v, y in pairs) > optimum + Fraction(gained) / 2
    monkeypatch.setattr(bounds, "dual_point", lambda program, nu: nu)
    assert bounds.lower_bound_at(program, nu, 0.5)[0] <= optimum


@pytest.mark.parametrize("seed", range(20))
def test_a_dual_point_sums_to_zero_exactly(seed):
    """So that no charge grows with what an output can be, which is 1/β."""
    problem, _ = shifted(seed=seed)
    program = problem.architecture.program(problem, arrangements.sample(problem.design, 3, seed=0))
    nu = 10.0 ** RNG(seed).uniform(-9, 9) * RNG(seed).standard_normal(12)
    feasible = bounds.dual_point(program, nu)
    assert sum(exact(feasible)) == 0
    assert np.abs(feasible - (nu - nu.mean())).max() <= 1e-14 * np.abs(nu).max()
    assert np.array_equal(bounds.dual_point(program, feasible), feasible)


def test_what_a_projection_of_a_dual_point_does_to_its_prices_is_charged():
    """Moving ν off the constants by far more than rounding changes every price."""
    problem, _ = shifted(offset=0.0)
    program = problem.architecture.program(problem, arrangements.sample(problem.design, 3, seed=0))
    nu = problem.y - problem.y.mean()
    plain = bounds.lower_bound_at(program, nu, 1.0)
    moved = bounds.lower_bound_at(program, nu + 1.0, 1.0)
    sizes = float(np.linalg.norm(problem.X, axis=1).sum())
    scale = np.linalg.norm(moved[1]) / np.linalg.norm(plain[1])
    assert scale <= 1.0 / (1.0 + sizes / program.beta)


def test_a_projected_dual_point_is_brought_back_into_its_domain():
    """Centring moves a sample of weight zero out of the domain by a rounding error."""
    rng = RNG(0)
    y = np.tile([1.0, -1.0], 10)
    problem = Problem(
        rng.standard_normal((20, 2)), y, 0.1, loss="logistic", architecture=TwoLayer(bias="free")
    )
    program = problem.architecture.program(problem, arrangements.sample(problem.design, 3, seed=0))
    for seed in range(20):
        size = RNG(seed).uniform(0.1, 0.4, 10)
        nu = y * np.repeat(size, 2)
        nu[RNG(seed).integers(0, 20, 2)] = 0.0
        nu[y > 0] *= -nu[y < 0].sum() / nu[y > 0].sum()
        value = -float(program.loss.dual_value(nu, y))
        bound = bounds.lower_bound_at(program, nu, 0.5)[0]
        assert np.isfinite(value)
        assert bound > 0.1


@pytest.mark.parametrize("total", [0.0, 1e-9, 1e-3])
def test_a_free_bias_is_bounded_whatever_the_weights_sum_to(total):
    """On a line with a free bias the best neurons have their kink at a sample."""
    rng = RNG(2)
    x, nu = rng.standard_normal(9), rng.standard_normal(9)
    nu += (total - nu.sum()) / 9
    X = np.column_stack([x, np.ones(9)])
    found = supremum(X, nu, free_bias=True)
    for side in (1, -1):
        for kink in exact(x):
            top = abs(price(X, nu, [Fraction(side), -side * kink]))
            assert found.bound >= top


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_bounds_of_classes_hold_where_the_constants_of_gates_have_no_finite_optimum(loss):
    """Every pattern has a free constant: where they separate the classes the infimum is 0."""
    from landscape.architectures import GatedReLU
    from landscape.bounds import bound_over
    from landscape.solvers import reference

    sharp = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        n, d = int(rng.integers(3, 7)), int(rng.integers(1, 4))
        y = np.sign(rng.standard_normal(n))
        y[:2] = 1.0, -1.0
        problem = Problem(
            rng.standard_normal((n, d)), y, 0.01, loss=loss, architecture=GatedReLU("free")
        )
        start = {k: v[0] for k, v in problem.architecture.initial(problem, 3, [seed]).items()}
        program = problem.architecture.lift(problem, start).program
        found = reference.solve_primal(program, throw=False)
        for nu in (found.nu, 0.01 * found.nu, rng.uniform(size=n) * y):
            assert bound_over(program, nu).value <= found.value * (1 + 1e-6) + 1e-8
        sharp += bound_over(program, found.nu).value >= found.value * (1 - 1e-3) > 1e-3
    assert loss == "hinge" or sharp >= 5
