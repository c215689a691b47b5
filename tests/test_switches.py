"""Sequences that switch a few times, against all of them: bounds, levels, ties, more inputs."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from landscape.arrangements import switches
from landscape.arrangements.switches import Lines, Ordered

RNG = np.random.default_rng


def every(n, budget):
    """All sequences of zeros and ones with at most so many switches, shape (k, n)."""
    rows = np.array(list(product([False, True], repeat=n))).reshape(-1, n)
    return rows[(rows[:, 1:] != rows[:, :-1]).sum(axis=1) <= budget]


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("budget", [0, 1, 2, 9])
def test_heavy_sequences_are_the_best_of_their_kind(n, budget):
    """Of every entry and value the best sequence is asked for: ties and zeros included."""
    for seed in range(6):
        nu = RNG([seed, n]).standard_normal(n)
        nu = np.round(nu) if seed % 2 else nu
        listed = every(n, budget)
        weigh = listed @ nu
        bound, found = switches.heaviest(nu, budget, 100)
        assert weigh.max() <= bound <= weigh.max() + 1e-12
        assert len(found) == len(np.unique(found, axis=0))
        assert {row.tobytes() for row in found} <= {row.tobytes() for row in listed}
        own = found @ nu
        assert (np.diff(own) <= 1e-12).all()
        if seed % 2 == 0:  # no ties: the best with either value of an entry is one, all are found
            for k in range(n):
                for value in (False, True):
                    best = weigh[listed[:, k] == value].max()
                    assert np.abs(own - best).min() <= 1e-12


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_lines_of_one_input_count_their_patterns(budget):
    """Equal inputs switch together; the bound is that of the listed patterns, and attained."""
    x = np.array([2.0, -1.0, 0.5, 2.0, 0.5, 3.0])[:, None]
    lines = Lines(x, budget)
    listed = every(4, budget)
    assert lines.count == len(listed)
    assert lines.exact and lines.complete == (budget >= 3)
    assert lines.counts.tolist() == [1, 2, 2, 1]
    for seed in range(8):
        nu = RNG(seed).standard_normal(6)
        merged = lines.merged(nu)
        expected = [nu[1], nu[2] + nu[4], nu[0] + nu[3], nu[5]]
        np.testing.assert_allclose(merged, expected)
        bound, [(ordered, sequences)] = lines.heaviest(merged)
        best = (listed @ merged).max()
        assert best <= bound <= best + 1e-12
        np.testing.assert_array_equal(ordered.points, [-1.0, 0.5, 2.0, 3.0])
        assert (sequences @ merged[ordered.order]).max() == pytest.approx(best, abs=1e-12)
        assert ((sequences[:, 1:] != sequences[:, :-1]).sum(axis=1) <= budget).all()


def test_with_several_inputs_the_bound_is_that_of_all_patterns():
    """Along one direction few switches reach fewer patterns; the bound keeps to what holds."""
    rng = RNG(0)
    X = np.unique(rng.standard_normal((7, 2)), axis=0)
    few = Lines(X, 2)
    assert not few.exact and not few.complete
    assert few.count == 2**7
    assert len(few.orders) == switches.DIRECTIONS
    nu = rng.standard_normal(7)
    bound, found = few.heaviest(nu)
    assert bound == pytest.approx(np.maximum(nu, 0.0).sum(), rel=1e-12)
    assert bound >= np.maximum(nu, 0.0).sum()
    for ordered, sequences in found:
        np.testing.assert_allclose(ordered.points, X[ordered.order] @ ordered.direction)
        assert (np.diff(ordered.points) > 0).all()
        listed = every(7, 2)
        best = (listed @ nu[ordered.order]).max()
        assert (sequences @ nu[ordered.order]).max() == pytest.approx(best, abs=1e-12)
    assert len({tuple(ordered.order) for ordered, _ in found}) > 1
    whole = Lines(X, 6)
    assert whole.complete and whole.exact
    assert whole.count == 2**7


def test_complete_lines_return_the_heaviest_set_and_its_levels():
    nu = np.array([0.5, -1.0, 2.0, 0.0, -0.25])
    lines = Lines(np.arange(5.0)[:, None], 4)
    bound, [(ordered, sequences)] = lines.heaviest(nu)
    assert bound == pytest.approx(2.5, rel=1e-12)
    assert bound >= 2.5
    assert (sequences[0] == (nu > 0)).all()
    for size in range(1, 6):
        top = np.zeros(5, dtype=bool)
        top[np.argsort(-nu)[:size]] = True
        assert any((row == top).all() for row in sequences[:, np.argsort(ordered.order)])


def test_rounding_is_charged_to_the_heaviest_sequence():
    """What cancels in the sums must not lower a bound: 2^53 and small change, in any order."""
    for seed in range(10):
        rng = RNG(seed)
        nu = np.concatenate([rng.standard_normal(6), [2.0**53, -(2.0**53)], rng.random(4)])
        nu = nu[rng.permutation(12)]
        listed = every(12, 3)
        exact = [Fraction(float(v)) for v in nu]
        best = max(sum(v for v, on in zip(exact, row, strict=True) if on) for row in listed)
        assert switches.heaviest(nu, 3, 4)[0] >= best
        assert Lines(np.arange(12.0)[:, None], 3).heaviest(nu)[0] >= best


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, np.nextafter(1.0, 2.0)), (-3.0, -1.0)])
def test_cuts_separate_neighbours_for_either_test(low, high):
    """X ≥ t holds of the upper point only, x ≤ t of the lower one only."""
    ordered = Ordered(np.arange(3), np.ones(1), np.array([low, high, high + 1.0]))
    above, below = ordered.cuts(np.array([False, True, True]))
    assert len(above) == len(below) == 1
    assert low < above[0] <= high
    assert low <= below[0] < high
    assert ordered.cuts(np.array([True, True, True]))[0].size == 0
    two, _ = ordered.cuts(np.array([True, False, True]))
    assert len(two) == 2 and high < two[1] <= high + 1.0
