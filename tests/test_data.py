"""Data sets: exact instances, checksums, seeded splits without leaks, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from landscape import data
from landscape.errors import BadInput


@pytest.mark.parametrize("name", data.REAL)
def test_real_sets_are_what_they_claim(name):
    sample = data.load(name)
    assert sample.provenance and sample.licence and len(sample.sha256) == 64
    assert sample.X.dtype == sample.y.dtype == np.float64
    assert len(sample.X) == len(sample.y) and len(sample.X_test) == len(sample.y_test) > 0
    np.testing.assert_allclose(sample.X.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(sample.X.std(axis=0), 1, rtol=1e-9)
    assert data.checksum(*data.REAL[name].read()) == data.REAL[name].sha256 == sample.sha256


def test_digits_as_small_images_and_by_parity():
    small = data.load("digits", classes="parity", side=4, standardize=False)
    whole = data.load("digits", side=8, standardize=False)
    images = whole.X.reshape(-1, 8, 8)
    assert images.min() == 0.0 and images.max() == 1.0
    corner = images[:, 2:4, 4:6].mean(axis=(1, 2))
    np.testing.assert_allclose(small.X.reshape(-1, 4, 4)[:, 1, 2], corner, rtol=1e-14)
    np.testing.assert_array_equal(small.y, np.where(whole.y % 2 == 1, 1.0, -1.0))
    assert small.task == "binary" and small.name == "digits odd/even"
    with pytest.raises(BadInput, match="side is 3"):
        data.load("digits", side=3)
    with pytest.raises(BadInput, match="option of data set 'wine'"):
        data.load("wine", side=4)


def test_a_changed_file_is_refused(monkeypatch):
    X, y = data.REAL["wine"].read()
    other = data.Source(lambda: (X + 1e-9, y), "multiclass", "-", "-", data.REAL["wine"].sha256)
    monkeypatch.setitem(data.REAL, "wine", other)
    with pytest.raises(data.DatasetUnavailable, match="checksum"):
        data.load("wine")


@pytest.mark.parametrize(("n", "d"), [(50, 3), (100, 4)])
def test_planted_is_the_benchmark_instance(n, d):
    rng = np.random.default_rng(0)
    X, W, a = rng.standard_normal((n, d)), rng.standard_normal((5, d)), rng.standard_normal(5)
    y = np.maximum(X @ W.T, 0) @ a + 0.1 * rng.standard_normal(n)
    sample = data.load("planted", n=n, d=d)
    assert (sample.X == X).all() and (sample.y == y).all()
    assert sample.beta == 0.1 * np.sqrt(n)


def test_scaled_is_the_benchmark_instance():
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((200, 10)), rng.standard_normal((10, 10)) / np.sqrt(10)
    a = rng.standard_normal(10) / np.sqrt(10)
    y = np.maximum(X @ W, 0) @ a + 0.1 * rng.standard_normal(200)
    sample = data.load("scaled")
    assert (sample.X == X).all() and (sample.y == y).all() and sample.beta == 0.2


def test_small_sets():
    assert data.load("toy_sqrt3").X.tolist() == [[-(3**0.5), 1.0], [3**0.5, 1.0]]
    gon = data.load("kgon", k=7)
    np.testing.assert_allclose(np.linalg.norm(gon.X, axis=1), 1)
    np.testing.assert_allclose(gon.X.sum(axis=0), 0, atol=1e-12)
    spirals = data.load("spirals", n=40)
    assert sorted(set(spirals.y)) == [-1.0, 1.0] and len(spirals.X) == 40
    assert data.load("line", points="bounce").y.tolist() == [0, 0, 3, 7]


def test_same_seed_same_split_and_no_sample_on_both_sides():
    one, again = data.load("diabetes", seed=3), data.load("diabetes", seed=3)
    other = data.load("diabetes", seed=4)
    assert (one.X == again.X).all() and not np.array_equal(one.X, other.X)
    raw = data.load("diabetes", standardize=False, scale_y=False)
    train, test = ({tuple(row) for row in part} for part in (raw.X, raw.X_test))
    assert not train & test and len(train) + len(test) == 442


def test_what_is_fitted_is_fitted_on_the_training_part_only():
    raw = data.load("diabetes", standardize=False, scale_y=False)
    done = data.load("diabetes", rank=4)
    scaled = (raw.X_test - raw.X.mean(axis=0)) / raw.X.std(axis=0)
    train = (raw.X - raw.X.mean(axis=0)) / raw.X.std(axis=0)
    axes = np.linalg.svd(train, full_matrices=False)[2][:4]
    spread = (train @ axes.T).std(axis=0)
    np.testing.assert_allclose(np.abs(done.X_test), np.abs(scaled @ axes.T / spread), atol=1e-8)
    assert np.linalg.matrix_rank(done.X) == 4
    np.testing.assert_allclose(done.y_test, (raw.y_test - raw.y.mean()) / raw.y.std())


def test_series_are_split_in_time():
    raw = data.load("nino", lags=4, standardize=False, scale_y=False)
    values = data.REAL["nino"].read()[1]
    assert raw.X[0].tolist() == values[:4].tolist() and raw.y[0] == values[4]
    assert raw.y_test[-1] == values[-1]


def test_digit_pairs():
    pair = data.load("digits", classes=[3, 8])
    assert pair.task == "binary" and sorted(set(pair.y)) == [-1.0, 1.0]
    assert data.load("digits").task == "multiclass"


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("diabetis", {}, "Did you mean 'diabetes'"),
        ("diabetes", {"n": 10_000}, "n is 10000"),
        ("diabetes", {"rank": 11}, "rank is 11"),
        ("diabetes", {"test_fraction": 1.0}, "test_fraction"),
        ("diabetes", {"lags": 3}, "Unknown option of data set"),
        ("digits", {"classes": [3, 3]}, "classes"),
        ("digits", {"classes": "some"}, "classes is 'some'"),
        ("digits", {"classes": 3}, "classes is 3: it must be two of"),
        ("digits", {"classes": ["a", "b"]}, "classes"),
        ("nino", {"lags": 1000}, "lags is 1000"),
        ("nino", {"lags": 2.5}, "lags is 2.5"),
        ("diabetes", {"n": 2.5}, "n is 2.5"),
        ("diabetes", {"n": 0}, "n is 0"),
        ("diabetes", {"seed": -1}, "seed is -1"),
        ("diabetes", {"n": 1, "standardize": False}, "y of 'diabetes' is constant"),
        ("diabetes", {"n": 8, "rank": 8, "standardize": False}, "has 7 principal components"),
        ("planted", {"n": 0}, "n is 0"),
        ("planted", {"d": -1}, "d is -1"),
        ("planted", {"rank": 2}, "only real data have rank"),
        ("kgon", {"k": 0}, "k is 0"),
        ("spirals", {"n": 7}, "even number"),
        ("planted", {"nose": 1}, "Did you mean 'noise'"),
        ("line", {"points": "zig"}, "points"),
        ("line", {"points": "zshape"}, "not known here"),
    ],
)
def test_refusals(name, options, sentence):
    with pytest.raises(BadInput, match=sentence):
        data.load(name, **options)


def test_constant_columns_are_refused_by_name(monkeypatch):
    X, y = data.REAL["diabetes"].read()
    X = X.copy()
    X[:, 2] = 5.0
    monkeypatch.setitem(data.REAL, "diabetes", data.Source(lambda: (X, y), "regression", "-", "-"))
    with pytest.raises(BadInput, match=r"constant columns \[2\]"):
        data.load("diabetes")
    assert data.load("diabetes", drop_constant=True).X.shape[1] == 9


def test_digits_drop_blank_pixels_unless_told_not_to():
    assert data.load("digits").X.shape[1] < 64
    with pytest.raises(BadInput, match="constant columns"):
        data.load("digits", drop_constant=False)


@pytest.mark.parametrize("name", data.NAMES)
def test_every_name_has_a_line(name):
    line = data.describe(name)
    assert line.startswith(f"{name}: ") and len(line) > len(name) + 10 and "\n" not in line


def test_an_unknown_name_has_none():
    with pytest.raises(BadInput, match="Did you mean 'wine'"):
        data.describe("wein")


def test_provenance_says_what_is_known():
    import pywt.data

    years = pywt.data.nino()[0]
    assert f"{int(years[0])}–{int(years[-1])}" in data.load("nino").provenance
    assert "assumed" in data.load("line", points="bounce").provenance


def test_offline_a_remote_set_is_refused_and_never_replaced(monkeypatch):
    import sklearn.datasets

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
    with pytest.raises(data.DatasetUnavailable, match="connected machine"):
        data.load("mnist")


def test_online_a_remote_set_is_prepared_like_the_others(monkeypatch):
    import sklearn.datasets

    X, y = data.REAL["digits"].read()
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *_, **__: (X, y.astype(str)))
    assert data.load("mnist", classes=[1, 7], n=50).X.shape[0] == 50
