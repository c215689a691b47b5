"""Made data sets: teachers, noise, symmetric sets, spirals, points on a line.

Each function returns X, y and the β that goes with them; teachers also fresh test samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.errors import BadInput, DatasetUnavailable, unknown
from landscape.sentences import agreement

Floats = NDArray[np.float64]


def planted(
    n: int = 50, d: int = 3, k: int = 5, noise: float = 0.1, seed: int = 0, outputs: int = 1
) -> Any:
    """Return X, y of a random teacher with k neurons, β = 0.1 √n, and fresh test samples.

    With several outputs, fed by the same neurons, y is (n, outputs).
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    W = rng.standard_normal((k, d))
    a = rng.standard_normal(k if outputs == 1 else (k, outputs))
    y = np.maximum(X @ W.T, 0) @ a
    y = y + noise * rng.standard_normal(y.shape)
    return X, y, 0.1 * n**0.5, *_fresh(rng, W, a, noise)


def scaled(n: int = 200, d: int = 10, seed: int = 0) -> Any:
    """Return X, y of a unit-scale teacher with 10 neurons, β = 0.001 n, and fresh test samples."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    W = rng.standard_normal((d, 10)) / np.sqrt(d)
    a = rng.standard_normal(10) / np.sqrt(10)
    y = np.maximum(X @ W, 0) @ a + 0.1 * rng.standard_normal(n)
    return X, y, 0.001 * n, *_fresh(rng, W.T, a, 0.1)


def noise(n: int = 20, d: int = 4, seed: int = 0) -> Any:
    """Return X and y that have nothing to do with each other, β = 0.03 √n; no test samples."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n), 0.03 * n**0.5


def _fresh(rng: np.random.Generator, W: Floats, a: Floats, noise: float) -> tuple[Floats, Floats]:
    """Return 1000 new samples of a teacher with hidden weights W (k, d) and outputs a."""
    X = rng.standard_normal((1000, W.shape[1]))
    y = np.maximum(X @ W.T, 0) @ a
    return X, y + noise * rng.standard_normal(y.shape)


def toy_sqrt3() -> Any:
    """Return the two points (∓√3, 1) with y = 1, and β = 0.1."""
    return np.array([[-(3**0.5), 1.0], [3**0.5, 1.0]]), np.ones(2), 0.1


def kgon(k: int = 6) -> Any:
    """Return k points on the circle, turned by 0.1, with y = 1, and β = 0.1."""
    angle = 2 * np.pi * np.arange(k) / k + 0.1
    return np.column_stack([np.cos(angle), np.sin(angle)]), np.ones(k), 0.1


def octahedron() -> Any:
    """Return the six corners of an octahedron with y = 1, and β = 0.1."""
    return np.vstack([np.eye(3), -np.eye(3)]), np.ones(6), 0.1


def cube() -> Any:
    """Return the eight corners of a cube with y = 1, and β = 0.1."""
    return np.array(list(itertools.product([1.0, -1.0], repeat=3))), np.ones(8), 0.1


def two_rings() -> Any:
    """Return a hexagon with y = 1 and, at half its size and between, one with y = −1; β = 0.05."""
    angle = np.pi * np.arange(12) / 6 + 0.1
    order = np.r_[0:12:2, 1:12:2]
    X = np.column_stack([np.cos(angle), np.sin(angle)])[order]
    X[6:] /= 2
    return X, np.r_[np.ones(6), -np.ones(6)], 0.05


def suffixes(n: int = 5) -> Any:
    """Return n points on a line whose minimum-norm interpolators (penalised bias) are a family.

    Unit vectors s_1 … s_n at angles from 30° to 90° are the sums of the last k weighted samples
    ν_i (x_i, 1), so each suffix of the samples has price 1; so has what precedes
    the first, at 150°.
    Targets are the sum of these n + 1 features: any n of them fit (Kim, Mishkin & Pilanci 2025,
    Propositions 1 and 2).
    """
    if n < 2:
        raise BadInput(f"n is {n}: a family of interpolators takes two points at least.")
    angles = np.linspace(np.pi / 6, np.pi / 2, n)
    sums = np.column_stack([np.cos(angles), np.sin(angles)])
    weighted = np.diff(sums, axis=0, prepend=np.zeros((1, 2)))
    x = np.sort(weighted[:, 0] / weighted[:, 1])
    units = np.vstack([sums, [-np.cos(np.pi / 6), 0.5]])
    y = np.maximum(np.column_stack([x, np.ones(n)]) @ units.T, 0).sum(axis=1)
    return x[:, None], y, 0.1


def spirals(n: int = 160, turns: float = 1.5, noise: float = 0.0, seed: int = 0) -> Any:
    """Return two interleaved spirals in the plane with labels ±1, and β = 5e-4."""
    if n % 2:
        raise BadInput(f"n is {n}: two spirals of equal length need an even number of samples.")
    rng = np.random.default_rng(seed)
    t = np.sqrt(np.linspace(0.03, 1, n // 2)) * turns * 2 * np.pi
    arm = np.column_stack([t * np.cos(t), t * np.sin(t)]) / (turns * 2 * np.pi)
    X = np.vstack([arm, -arm]) + noise * rng.standard_normal((2 * len(arm), 2))
    return X, np.repeat([1.0, -1.0], len(arm)), 5e-4


MIRRORS = "Zeger et al., A Library of Mirrors (arXiv 2403.01046)"
LINES = {
    "opt": (
        [0, 4, 5, 7, 10, 11],
        [0, 0, 0, 2, 3, 3],
        f"a set with known minimum norms from {MIRRORS}; not checked against its figure 'opt'",
    ),
    "left": ([0, 2, 6, 7], [0, 0, 3, 3], f"{MIRRORS}, Figure 2 left"),
    "bounce": (
        [0, 2, 6, 7],
        [0, 0, 3, 7],
        f"targets from {MIRRORS}, Figure 18; inputs assumed to be those of Figure 2 left",
    ),
}


def line(points: str = "opt") -> Any:
    """Return one of the small one-dimensional sets of the 1-D Lasso papers, and β = 1e-7.

    The provenance of each says what is known of it and what is assumed.
    """
    if points == "zshape":
        raise DatasetUnavailable(
            f"points is 'zshape': its values ({MIRRORS}, Figure 19) are not known here; read them "
            "off the figure and pass them as X and y to Problem."
        )
    if points not in LINES:
        raise unknown("points", points, LINES)
    x, y, _ = LINES[points]
    return np.array(x, dtype=np.float64)[:, None], np.array(y, dtype=np.float64), 1e-7


_SYMMETRIC = (toy_sqrt3, kgon, octahedron, cube, two_rings)
MADE: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (planted, scaled, noise, *_SYMMETRIC, suffixes, spirals, line, agreement)
}
