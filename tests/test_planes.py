"""Planes: bases of directions, axes, heights above a floor and the sanity of a slice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.bounds import EPSILON
from landscape.errors import BadInput
from landscape.slices import planes


@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
def test_bases_leave_out_what_earlier_rows_span(size):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3, 5))
    rows = size * np.vstack([rows[0], 2.0 * rows[0], rows[1], rows[0] - 3 * rows[1], rows[2]])
    found = planes.orthonormal(rows)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-14)
    assert found[0] @ rows[0] == pytest.approx(np.linalg.norm(rows[0]), rel=1e-14)
    np.testing.assert_allclose(rows @ found.T @ found, rows, atol=1e-13 * size)
    assert len(planes.orthonormal(np.zeros((2, 5)))) == 0
    nearly = np.vstack([rows[0], rows[0] * (1 + 1e-12)])  # apart by rounding only
    assert len(planes.orthonormal(nearly)) == 1


def test_axes_cover_what_is_marked_by_parts_of_the_largest_extent():
    marks = np.array([[8.0, 0.0], [12.0, 0.0], [9.0, -1.0]])
    first, second = planes.spread(marks, 0.25, 5)
    assert first.tolist() == [7.0, 8.5, 10.0, 11.5, 13.0]
    assert second.tolist() == [-2.0, -1.25, -0.5, 0.25, 1.0]
    assert planes.spread(marks, 0.0, 2)[0].tolist() == [8.0, 12.0]


def test_given_coordinates_take_the_place_of_grid_points_that_are_the_same():
    axis = np.linspace(-1.0, 1.0, 5)
    for given, wanted in (
        ([0.3], [-1, -0.5, 0, 0.3, 0.5, 1]),
        ([0.5 + 1e-10], [-1, -0.5, 0, 0.5 + 1e-10, 1]),
        ([0.5 + 1e-8], [-1, -0.5, 0, 0.5, 0.5 + 1e-8, 1]),
        ([2.0, -1.0, 2.0], [-1, -0.5, 0, 0.5, 1, 2]),
    ):
        assert planes._inserted(axis, np.array(given)).tolist() == wanted


def plain_slice(objectives, at_zero=2.0):
    axis = np.arange(float(len(objectives)))
    way = {"hidden": torch.ones(1, 2).double(), "output": torch.zeros(1).double()}
    values = np.asarray(objectives, dtype=np.float64)
    return planes.Slice(
        (axis,), values, way, (way,), np.zeros((1, 1)), values[:1], "plain", at_zero
    )


def test_heights_above_a_floor_keep_what_is_not_finite():
    gaps = plain_slice([3.0, 2.0, np.inf, np.nan]).gaps(2.0)
    assert gaps[:3].tolist() == [0.5, 0.0, np.inf] and np.isnan(gaps[3])
    assert plain_slice([3.0, -1.0]).gaps(-2.0).tolist() == [2.5, 0.5]
    # Below the floor by rounding of single precision is on it; by more it is none.
    assert plain_slice([2.0 * (1 - 9e-7)]).gaps(2.0)[0] == pytest.approx(-9e-7, rel=1e-6)
    for low, bound in ((2.0 * (1 - 1.1e-6), 2.0), (1.0, np.inf), (1.0, np.nan)):
        with pytest.raises(BadInput, match="bound is"):
            plain_slice([low]).gaps(bound)
    # At a bound of zero what the zero network's objective rounds to divides.
    assert plain_slice([1e-3], at_zero=4.0).gaps(0.0)[0] == pytest.approx(1e-3 / (4 * EPSILON))
    assert np.isfinite(plain_slice([0.0], at_zero=0.0).gaps(0.0)[0])


def test_sanity_counts_what_is_missing_and_where_the_centre_is():
    found = plain_slice([3.0, np.nan, 1.0, np.inf]).sanity
    assert found["centre"] == 3.0 and found["largest_cosine"] == 0.0
    assert (found["points"], found["not_finite"]) == (4, 2)
    assert (found["lowest"], found["highest"]) == (1.0, 3.0)
    assert found["ranges"] == [(0.0, 3.0)] and found["lengths"] == [pytest.approx(2**0.5)]
    empty = plain_slice([np.nan]).sanity
    assert (empty["lowest"], empty["highest"]) == (np.inf, -np.inf)
