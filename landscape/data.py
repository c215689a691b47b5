"""Data sets by name: real ones that work offline, planted ones, and larger ones to be fetched.

Every real set states provenance and licence and is checked against a checksum of its raw values.
Subsampling, train/test split, standardisation and projection are explicit and seeded; whatever is
fitted (means, scales, principal axes) is fitted on the training part only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.errors import BadInput, DatasetUnavailable, unknown, whole
from landscape.synthetic import LINES, MADE

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Dataset:
    """A data set, ready for `Problem`.

    Attributes:
        X: training inputs (n, d).
        y: training targets (n,).
        X_test: held-out inputs (n', d); n' = 0 if nothing is held out.
        y_test: held-out targets (n',).
        name: its name.
        task: "regression", "binary" (labels ±1) or "multiclass".
        provenance: where the values come from.
        licence: under which terms.
        sha256: checksum of the raw values before any processing.
        beta: the β that goes with a benchmark instance, or None.
    """

    X: Floats
    y: Floats
    X_test: Floats
    y_test: Floats
    name: str
    task: str
    provenance: str
    licence: str
    sha256: str
    beta: float | None = None


@dataclass(frozen=True)
class Source:
    """How a real data set is had and what it is."""

    read: Callable[..., tuple[Floats, Floats]]
    task: str
    provenance: str
    licence: str
    sha256: str | None = None


def checksum(*arrays: Floats) -> str:
    """Return the SHA-256 of arrays as little-endian float64 in row order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()


def _bundled(name: str) -> Callable[[], tuple[Floats, Floats]]:
    def read() -> tuple[Floats, Floats]:
        from sklearn import datasets

        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)

    return read


def _series(name: str) -> Callable[[], tuple[Floats, Floats]]:
    def read() -> tuple[Floats, Floats]:
        import pywt.data

        values = getattr(pywt.data, name)()
        values = np.asarray(values[1] if name == "nino" else values, dtype=np.float64)
        return values[:, None], values

    return read


UCI = "UCI machine learning repository, as bundled with scikit-learn"
REAL: dict[str, Source] = {
    "diabetes": Source(
        _bundled("diabetes"),
        "regression",
        "Efron, Hastie, Johnstone & Tibshirani, Least Angle Regression (2004), "
        "as bundled with scikit-learn",
        "not stated by the source; distributed with scikit-learn (BSD-3-Clause)",
        "84ec38030d0ff6dfdc32f475c5633e39e7ada9dbc328d3deb29bb757eec6a331",
    ),
    "breast_cancer": Source(
        _bundled("breast_cancer"),
        "binary",
        f"Wisconsin diagnostic; {UCI}",
        "CC BY 4.0",
        "cdd5f37c36cbdfc2e5ee074cec7540fac54340874afb25917a673e446270d0d0",
    ),
    "wine": Source(
        _bundled("wine"),
        "multiclass",
        f"Wine recognition; {UCI}",
        "CC BY 4.0",
        "c7e84e8e03b2b5a354287416d84d08945318450658a22a63c39973d8306c2ca4",
    ),
    "digits": Source(
        _bundled("digits"),
        "multiclass",
        f"Optical digits, 8×8; {UCI}",
        "CC BY 4.0",
        "f19a7d92591ca0a1ffc65ec172e8149afdff995e0d2c4cb0afd151f38471ff90",
    ),
    "ecg": Source(
        _series("ecg"),
        "series",
        "electrocardiogram, 1024 points, as bundled with PyWavelets, which names no recording",
        "not stated by the source; distributed with PyWavelets (MIT)",
        "0edef6180dea6b9fba653456d049c407d5ae7b162edea5c7066f74848bc3747c",
    ),
    "nino": Source(
        _series("nino"),
        "series",
        "El Niño 3 sea-surface temperature, four values a year, 1950–2015 (NOAA ERSSTv4), "
        "as bundled with PyWavelets",
        "public domain (NOAA) / PyWavelets (MIT)",
        "a72ab1dc36fef0217efcc960252d585492fe85136222e8b0efc55995a9f9cb50",
    ),
}
REMOTE = {
    "mnist": "mnist_784",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR_10",
    "fertility": "fertility",
    "hill_valley": "hill-valley",
    "monks_1": "monks-problems-1",
    "spectf": "SPECTF",
}
NAMES = (*REAL, *MADE, *REMOTE)


def describe(name: str) -> str:
    """Return one line that says what a data set is."""
    if name in REAL:
        return f"{name}: {REAL[name].task}; {REAL[name].provenance}"
    if name in MADE:
        return f"{name}: {(MADE[name].__doc__ or '').splitlines()[0]}"
    if name in REMOTE:
        return f"{name}: OpenML {REMOTE[name]}; fetched on a connected machine"
    raise unknown("data set", name, NAMES)


def load(
    name: str,
    *,
    n: int | None = None,
    rank: int | None = None,
    standardize: bool = True,
    drop_constant: bool | None = None,
    scale_y: bool = True,
    test_fraction: float = 0.25,
    seed: int = 0,
    **options: Any,
) -> Dataset:
    """Return a data set by name.

    Args:
        name: one of `NAMES`.
        n: take this many training samples at random (real data) instead of all.
        rank: project on this many principal components of the training part, each scaled to
            unit variance (real data).
        standardize: zero mean and unit variance of every feature (real data).
        drop_constant: when standardising, drop features that are constant in the training part
            (True) or refuse them (False); None drops them in digits and fetched sets, whose
            blank pixels are constant, and refuses them elsewhere.
        scale_y: zero mean and unit variance of real-valued targets (real data).
        test_fraction: share that is held out (real data).
        seed: of the split and subsample.
        **options: digits: ``classes`` (a pair, labels ±1, "parity", odd digits +1, or "all") and
            ``side`` (8, 4, 2: images of so many pixels a side, means of blocks, grey levels from 0
            to 1; take standardize=False); series: ``lags``; made sets: their own arguments, which
            include ``n``; they are never processed.

    Raises:
        BadInput: for unknown names and options and impossible sizes.
        DatasetUnavailable: if the set must be fetched and cannot be.
    """
    seed = whole("seed", seed, 0)
    if name in MADE:
        if rank is not None:
            raise BadInput(f"rank is {rank}: {name!r} is made as it is; only real data have rank=.")
        return _made(name, {**options, **({} if n is None else {"n": n})}, seed)
    if name in REAL:
        source = REAL[name]
        X, y = source.read()
    elif name in REMOTE:
        X, y = _fetch(name)
        source = Source(lambda: (X, y), "multiclass", f"OpenML {REMOTE[name]}", "see OpenML")
    else:
        raise unknown("data set", name, NAMES)
    found = checksum(X, y)
    if source.sha256 is not None and found != source.sha256:
        raise DatasetUnavailable(
            f"data set {name!r} has checksum {found[:12]}…, not {source.sha256[:12]}…: "
            "the installed package carries other values; install the pinned versions."
        )
    X, y, task, label = _prepare(name, source.task, X, y, options)
    train, test = _split(name, len(y), n, test_fraction, seed, ordered=source.task == "series")
    parts = X[train], X[test]
    if standardize:
        drop = name == "digits" or name in REMOTE if drop_constant is None else drop_constant
        parts = _standardised(name, *parts, drop)
    if rank is not None:
        parts = _projected(parts, rank)
    y_train, y_test = y[train], y[test]
    if scale_y and task == "regression":
        mean, spread = y_train.mean(), y_train.std()
        if spread == 0:
            raise BadInput(
                f"y of {name!r} is constant in the training part: take more samples, or "
                "scale_y=False."
            )
        y_train, y_test = (y_train - mean) / spread, (y_test - mean) / spread
    about = source.provenance, source.licence, found
    return Dataset(parts[0], y_train, parts[1], y_test, label, task, *about)


def _made(name: str, options: dict[str, Any], seed: int) -> Dataset:
    """Make a synthetic set; planted teachers also give fresh test samples of the same teacher."""
    import inspect

    known = inspect.signature(MADE[name]).parameters
    if "seed" in known:
        options = {"seed": seed, **options}
    for option in options:
        if option not in known:
            raise unknown(f"option of data set {name!r}", option, known)
        if option in ("n", "d", "k", "outputs"):
            whole(option, options[option])
    X, y, beta, *fresh = MADE[name](**options)
    task = "binary" if name in ("spirals", "agreement") else "regression"
    X_test, y_test = fresh or (np.empty((0, X.shape[1])), np.empty(0))
    lines = name == "line"
    made = LINES[options.get("points", "opt")][2] if lines else "made by landscape.data"
    return Dataset(X, y, X_test, y_test, name, task, made, "MIT", checksum(X, y), beta)


def _prepare(
    name: str, task: str, X: Floats, y: Floats, options: dict[str, Any]
) -> tuple[Floats, Floats, str, str]:
    """Choose classes or lags; return inputs, targets, the task and a label."""
    allowed = {"series": ("lags",), "binary": (), "regression": ()}.get(task, ("classes",))
    allowed = (*allowed, "side") if name == "digits" else allowed
    for option in options:
        if option not in allowed:
            raise unknown(f"option of data set {name!r}", option, allowed)
    if task == "series":
        lags = whole("lags", options.get("lags", 5))
        if lags >= len(y) // 2:
            raise BadInput(f"lags is {lags}: it must lie between 1 and {len(y) // 2 - 1}.")
        windows = np.lib.stride_tricks.sliding_window_view(y, lags + 1)
        return windows[:, :-1].copy(), windows[:, -1].copy(), "regression", name
    if task == "regression":
        return X, y, task, name
    if task == "binary":
        return X, np.where(y > 0, 1.0, -1.0), task, name
    X = _shrunk(X, options["side"]) if "side" in options else X
    classes = options.get("classes", "all")
    if name == "digits" and classes == "parity":
        return X, np.where(y % 2 == 1, 1.0, -1.0), "binary", f"{name} odd/even"
    if isinstance(classes, str):
        if classes != "all":
            raise BadInput(f"classes is {classes!r}: it must be 'all' or a pair such as [3, 8].")
        return X, y, "multiclass", name
    try:
        pair = [float(c) for c in classes]
    except (TypeError, ValueError):
        pair = []
    if len(pair) != 2 or not np.isin(pair, y).all() or pair[0] == pair[1]:
        raise BadInput(f"classes is {classes}: it must be two of {np.unique(y).tolist()}.")
    kept = np.isin(y, pair)
    label = f"{name} {int(pair[0])}/{int(pair[1])}"
    return X[kept], np.where(y[kept] == pair[1], 1.0, -1.0), "binary", label


def _shrunk(X: Floats, side: Any) -> Floats:
    """Return digits as images of so many pixels a side, means of blocks, grey levels in [0, 1]."""
    if side not in (8, 4, 2):
        raise BadInput(f"side is {side!r}: digits can be 8, 4 or 2 pixels a side.")
    block = 8 // side
    return X.reshape(-1, side, block, side, block).mean(axis=(2, 4)).reshape(-1, side**2) / 16


def _split(
    name: str, count: int, n: int | None, fraction: float, seed: int, ordered: bool
) -> tuple[Any, Any]:
    """Return training and test rows; a series is split in time, everything else at random."""
    if not 0 <= fraction < 1:
        raise BadInput(f"test_fraction is {fraction}: it must lie in [0, 1).")
    held = round(fraction * count)
    order = np.arange(count) if ordered else np.random.default_rng(seed).permutation(count)
    train, test = order[: count - held], order[count - held :]
    if n is not None:
        if whole("n", n) > len(train):
            raise BadInput(
                f"n is {n}: data set {name!r} has {len(train)} training samples at "
                f"test_fraction={fraction}."
            )
        train = train[-n:] if ordered else train[:n]
    return train, test


def _standardised(name: str, X: Floats, X_test: Floats, drop: bool) -> tuple[Floats, Floats]:
    spread = X.std(axis=0)
    constant = np.flatnonzero(spread <= 1e-12 * (1 + np.abs(X).max(axis=0)))
    if len(constant) and drop:
        kept = np.setdiff1d(np.arange(X.shape[1]), constant)
        X, X_test, spread = X[:, kept], X_test[:, kept], spread[kept]
    elif len(constant):
        raise BadInput(
            f"X of {name!r} has constant columns {constant.tolist()} in the training part: take "
            "more samples, or drop_constant=True, or standardize=False."
        )
    mean = X.mean(axis=0)
    return (X - mean) / spread, (X_test - mean) / spread


def _projected(parts: tuple[Floats, Floats], rank: int) -> tuple[Floats, Floats]:
    """Project on principal components of the training part, scaled to unit variance."""
    X, X_test = parts
    mean = X.mean(axis=0)
    _, values, axes = np.linalg.svd(X - mean, full_matrices=False)
    # Directions without variance would be scaled up from rounding errors: they are no components.
    most = int((values > 1e-10 * values[0]).sum())
    if whole("rank", rank) > most:
        raise BadInput(
            f"rank is {rank}: the training part has {most} principal components; take at most that."
        )
    axes = axes[:rank] * np.sign(axes[:rank].sum(axis=1, keepdims=True) + 1e-300)
    scores, others = (X - mean) @ axes.T, (X_test - mean) @ axes.T
    spread = scores.std(axis=0)
    return scores / spread, others / spread


def _fetch(name: str) -> tuple[Floats, Floats]:
    from http.client import HTTPException

    from sklearn.datasets import fetch_openml
    from sklearn.preprocessing import LabelEncoder

    try:
        fetched: Any = fetch_openml(REMOTE[name], version=1, return_X_y=True, as_frame=False)
    except (OSError, ValueError, EOFError, HTTPException) as error:  # no network, no such set, torn
        raise DatasetUnavailable(
            f"data set {name!r} is fetched from OpenML ({REMOTE[name]}) and could not be had: "
            f"{type(error).__name__}. Run once on a connected machine; scikit-learn keeps a copy."
        ) from error
    labels = np.asarray(LabelEncoder().fit_transform(fetched[1]), dtype=np.float64)
    return np.asarray(fetched[0], dtype=np.float64), labels
