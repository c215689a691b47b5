"""Functions on a line, heads, largest patches and deep units against brute force."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest

from landscape.arrangements import mirrors
from landscape.arrangements.lines import Line, peaks, steepest
from landscape.pricing import heads
from landscape.pricing.largest import LargestOracle, selected
from landscape.pricing.layered import Rays, layered_supremum

RNG = np.random.default_rng


def line(n, seed, repeats=False):
    """Points and weights that sum to zero exactly, in sixteenths."""
    rng = RNG([n, seed])
    x = rng.integers(-20, 21, n) / 8 if repeats else rng.standard_normal(n)
    nu = rng.integers(-32, 33, n) / 16.0
    nu[0] -= nu.sum()
    return x, nu


SIZES = [(1, False), (2, False), (5, False), (9, True)]


@pytest.mark.parametrize(("n", "repeats"), SIZES)
@pytest.mark.parametrize("seed", range(4))
def test_ramps_and_distances_at_the_points_have_one_rounding(n, repeats, seed):
    x, nu = line(n, seed, repeats)
    found = Line(x, nu)
    np.testing.assert_array_equal(found.x, np.unique(x))
    assert sum(map(Fraction, found.nu.tolist())) == 0
    for t, F, H in zip(found.x, found.F, found.H, strict=True):
        pairs = [(Fraction(float(v)), Fraction(float(w))) for v, w in zip(x, nu, strict=True)]
        at = Fraction(float(t))
        assert float(sum(w * max(v - at, Fraction(0)) for v, w in pairs)) == F
        assert float(sum(w * abs(v - at) for v, w in pairs)) == H
    t = np.linspace(-5, 5, 41)
    expected = np.abs(x[:, None] - t).T @ nu
    np.testing.assert_allclose(found.apart(t), expected, atol=1e-12)


@pytest.mark.parametrize("way", [1, -1])
@pytest.mark.parametrize("sign", [1, -1])
def test_mirrored_lines_are_those_of_the_mirrored_data(way, sign):
    x, nu = line(7, 3)
    seen, expected = Line(x, nu).mirrored(way, sign), Line(way * x, sign * nu)
    for name in ("x", "nu", "F", "H"):
        np.testing.assert_allclose(getattr(seen, name), getattr(expected, name), atol=1e-13)


@pytest.mark.parametrize(("n", "repeats"), SIZES)
@pytest.mark.parametrize("kinks", [0, 1, 3])
def test_few_changes_of_slope_are_priced_by_the_best_signs_of_the_gaps(n, repeats, kinks):
    for seed in range(4):
        x, nu = line(n, seed, repeats)
        found = Line(x, nu)
        gaps = np.diff(found.x)
        to_the_right = np.array([found.nu[k + 1 :].sum() for k in range(len(gaps))])
        best = 0.0 if not len(gaps) else -np.inf
        for signs in product((1.0, -1.0), repeat=len(gaps)):
            if sum(a != b for a, b in zip(signs[1:], signs[:-1], strict=True)) <= kinks:
                best = max(best, float(np.array(signs) @ (gaps * to_the_right)))
        bound = found.wiggle(kinks)
        assert best <= bound + 1e-15
        assert bound == pytest.approx(best, abs=1e-10)


@pytest.mark.parametrize(("n", "repeats"), SIZES)
@pytest.mark.parametrize("clipped", [False, True])
def test_the_steepest_ramp_is_the_best_of_all_pairs_of_points(n, repeats, clipped):
    """And the ends that are returned attain it, where ±∞ stand for lines."""
    for seed in range(6):
        x, nu = line(n, seed, repeats)
        found = Line(x, nu)
        if len(found.x) < 2:
            assert steepest(found, 3, clipped)[0] == 0.0
            continue

        def ramp(s, t, x=x):
            low = s if np.isfinite(s) else x.min()
            high = t if np.isfinite(t) else x.max()
            return np.clip(x, low, high)

        every = [(s, t) for s in found.x for t in found.x if s < t]
        if not clipped:
            every = [(s, t) for s, t in every if s == found.x[0] or t == found.x[-1]]
        best = max(abs(ramp(s, t) @ nu) for s, t in every)
        price, low, high = steepest(found, 4, clipped)
        assert price == pytest.approx(best, abs=1e-12)
        assert abs(ramp(low[0], high[0]) @ nu) == pytest.approx(best, abs=1e-12)
        prices = [abs(ramp(s, t) @ nu) for s, t in zip(low, high, strict=True)]
        assert (np.diff(prices) <= 1e-12).all()
        if not clipped:
            assert all(not np.isfinite(s) or t == np.inf for s, t in zip(low, high, strict=True))


def test_peaks_are_local_maxima_largest_first_ends_included():
    values = np.array([3.0, 1.0, 4.0, 4.0, 0.0, 2.0])
    assert peaks(values, 10).tolist() == [2, 3, 0, 5]
    assert peaks(values, 2).tolist() == [2, 3]


@pytest.mark.parametrize(("n", "repeats"), [(2, False), (4, False), (6, True)])
def test_no_pair_of_mirrors_prices_above_the_listed_vertices(n, repeats):
    """||x − a| − c| on a fine grid; the best vertex attains its own price."""
    for seed in range(3):
        x, nu = line(n, seed, repeats)
        found = mirrors.two(Line(x, nu), 5)
        a, c = np.meshgrid(np.linspace(-4, 4, 161), np.linspace(0, 5, 101))
        members = np.column_stack([a.ravel(), c.ravel()])
        assert np.abs(nu @ mirrors.nested(x, members)).max() <= found.largest + 1e-12
        own = np.abs(nu @ mirrors.nested(x, found.parameters))
        np.testing.assert_allclose(own, found.prices, atol=1e-12)
        assert found.prices[0] == found.largest


def test_nested_absolute_values_are_folded_from_the_inside():
    x = np.array([-2.0, 0.0, 1.0, 5.0])
    found = mirrors.nested(x, np.array([[1.0, 2.0, 0.5]]))[:, 0]
    np.testing.assert_allclose(found, np.abs(np.abs(np.abs(x - 1.0) - 2.0) - 0.5))
    start = np.array([[0.3, 0.7, 0.2]])
    nu = np.array([1.0, -2.0, 0.5, 0.5])
    raised = mirrors.climb(Line(x, nu), start)
    assert raised.largest >= abs(nu @ mirrors.nested(x, start)[:, 0])
    assert abs(nu @ mirrors.nested(x, raised.parameters)[:, 0]) == pytest.approx(raised.largest)


@pytest.mark.parametrize(("R", "p", "q"), [(1, 1, 1), (6, 1, 1), (5, 2, 3), (7, 3, 1)])
def test_no_mask_is_above_the_bound_over_all_masks(R, p, q):
    """‖AᵀDC‖ is convex in D: its largest value over |D| ≤ I is at signs, all of which are tried."""
    for seed in range(4):
        rng = RNG([seed, R])
        A, C = rng.standard_normal((R, p)), rng.standard_normal((R, q))
        best = max(
            np.linalg.norm((A.T * np.array(signs)) @ C, 2)
            for signs in product((1.0, -1.0), repeat=R)
        )
        bound = heads._masked(A, C)
        assert best <= bound * (1 + 1e-12)
        assert bound <= np.linalg.norm(A, 2) * np.linalg.norm(C, 2) * (1 + 1e-9)  # κ = 1
        if p == q == 1:  # then the best κ_r = |c_r / a_r| makes it Σ |a_r c_r|
            assert bound == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("outputs", [1, 2])
def test_linear_heads_price_at_the_largest_singular_value_of_any_block(outputs):
    rng = RNG(0)
    features = rng.standard_normal((3, 4, 2, 5))  # blocks, p, e, samples
    nu = rng.standard_normal(5 * outputs)
    shapes = ((2, 2), (2, outputs))
    oracle = heads.SpectralHeads(lambda: features, np.ones(5 * outputs), shapes, 4, True)
    blocks = [
        np.einsum("pen,nc->pec", block, nu.reshape(5, outputs)).reshape(4, -1) for block in features
    ]
    sizes = np.sort(np.concatenate([np.linalg.svd(b, compute_uv=False) for b in blocks]))[::-1]
    found = oracle(nu, target=float(sizes[2] + sizes[3]) / 2)
    assert found.exact
    assert sizes[0] <= found.bound <= sizes[0] * (1 + 1e-10)
    assert len(found.units["gate"]) == 3
    for k, gate in enumerate(found.units["gate"].astype(int)):
        w, v = found.units["first"][k].reshape(-1), found.units["second"][k].reshape(-1)
        assert np.linalg.norm(w) == pytest.approx(1.0)
        assert np.linalg.norm(v) == pytest.approx(1.0)
        assert abs(w @ blocks[gate] @ v) == pytest.approx(sizes[k])
    assert len(oracle(nu, target=1e9).units["gate"]) == 0


def test_the_largest_patch_is_the_first_that_is_positive_and_largest():
    patches = np.array([[[1.0], [3.0]], [[-1.0], [-2.0]], [[0.0], [0.0]]])
    assert selected(patches, np.array([[1.0], [-1.0]])).tolist() == [[1, -1, -1], [-1, 1, -1]]


@pytest.mark.parametrize(("n", "K", "p"), [(1, 1, 1), (4, 2, 2), (5, 3, 1)])
def test_no_filter_prices_above_the_relaxed_bound_of_largest_patches(n, K, p):
    for seed in range(5):
        rng = RNG([seed, n])
        patches, nu = rng.standard_normal((n, K, p)), rng.standard_normal(n)
        oracle = object.__new__(LargestOracle)
        oracle.patches = patches
        u = rng.standard_normal((4000, p))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        out = np.maximum((u @ patches.reshape(-1, p).T).reshape(-1, n, K).max(axis=2), 0.0)
        for side in (1.0, -1.0):
            bound = oracle._bound(side * nu)
            assert (side * out @ nu).max() <= bound
            pull = np.maximum(side * nu, 0.0)
            assert bound <= pull @ np.linalg.norm(patches, axis=2).max(axis=1) * (1 + 1e-12)
    # One sample, one patch: both bounds are ν ‖x‖.
    oracle.patches = np.array([[[3.0, 4.0]]])
    assert oracle._bound(np.array([2.0])) == pytest.approx(10.0, rel=1e-12)


def deep(X, weights):
    """Outputs of a deep network whose layers have norm one."""
    out = X
    for W in weights[:-1]:
        out = np.maximum(out @ (W / np.linalg.norm(W)).T, 0.0)
    return out @ (weights[-1] / np.linalg.norm(weights[-1]))


LAYERED = {
    "one number": np.array([[2.0]]),
    "on rays": np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
    "generic": RNG(5).standard_normal((6, 2)),
    "with zeros": np.vstack([np.zeros((2, 3)), RNG(6).standard_normal((3, 3))]),
    "nearly on one ray": np.array([[1.0, 0.0], [1.0, 1e-13], [0.3, -1.0]]),
}


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("depth", [3, 4])
def test_no_deep_network_prices_above_the_bound_of_any_split(name, depth):
    """Whatever p' and q' are given, four prices bound networks of every width."""
    X = LAYERED[name]
    n, p = X.shape
    rng = RNG(7)
    nu = rng.standard_normal(n)
    rays = Rays(X)
    g = len(rays.rows)
    best = layered_supremum(rays, nu, 20_000)
    assert best.attained <= best.bound
    own = np.maximum(X @ best.direction, 0.0) @ nu
    assert abs(own) <= best.bound * (1 + 1e-12)
    splits = [best] + [
        layered_supremum(rays, nu, 20_000, (rng.random(g) * s, rng.random(g) * s))
        for s in (0.0, 0.5, 3.0)
    ]
    for _ in range(150):
        widths = [p, *rng.integers(1, 4, depth - 1)]
        layers = [rng.standard_normal((b, a)) for a, b in pairwise(widths)]
        price = abs(nu @ deep(X, [*layers, rng.standard_normal(widths[-1])]))
        for split in splits:
            assert price <= split.bound * (1 + 1e-12)


def test_samples_on_one_ray_are_one_sample_and_what_joining_moves_is_charged():
    X = np.array([[1.0, 0.0], [3.0, 0.0], [1.0, 1e-13], [0.0, 2.0], [0.0, 0.0]])
    rays, nu = Rays(X), np.array([1.0, -1.0, 0.5, 2.0, 7.0])
    assert len(rays.rows) == 2
    weights, cost = rays.joined(nu)
    np.testing.assert_allclose(weights, [1.0 - 3.0 + 0.5, 4.0])
    assert 0.5e-13 <= cost <= 1e-11
    np.testing.assert_allclose(rays.spread(0.25 * weights, weights, nu)[:4], 0.25 * nu[:4])
    plain = Rays(np.array([[1.0, 0.0], [0.0, 2.0]])).joined(np.array([1.0, 1.0]))[1]
    assert plain < 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_splits_stay_between_zero_and_what_they_split(seed):
    rays, rng = Rays(RNG(8).standard_normal((5, 2))), RNG(seed)
    weights = rng.standard_normal(5)
    plus, minus = np.maximum(weights, 0.0), np.maximum(-weights, 0.0)
    part = rays.split(plus, minus)
    assert (part >= 0).all() and (part <= minus).all()

    def worst(part):
        return max(rays.price(plus - part, 20_000), rays.price(part, 20_000))

    assert worst(part) <= min(worst(0.0 * minus), worst(minus), worst(0.5 * minus)) * (1 + 6e-3)
    assert rays.price(np.zeros(5), 20_000) == 0.0
