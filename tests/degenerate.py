"""Degenerate problems: what solvers of convex programs usually break on."""

from __future__ import annotations

import numpy as np

from landscape.architectures import TwoLayer
from landscape.bounds import beta_max
from landscape.problem import Problem


def _data(n: int = 14, d: int = 3, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


def _problem(X, y, share=0.05, **options):
    problem = Problem(X, y, 1.0, **options)
    return problem.replace(beta=share * beta_max(problem))


def cases() -> dict[str, Problem]:
    """Return the problems by name."""
    X, y = _data()
    classes = np.where(y > 0, 1.0, -1.0)
    scaled = X * np.array([1e-6, 1.0, 1e6])
    wide, y_wide = _data(6, 12, seed=1)
    line = np.outer(np.arange(1.0, 9.0) - 4.2, [1.0, -2.0, 0.5])
    zero = X.copy()
    zero[3] = 0.0
    free = TwoLayer(bias="free")
    few, y_few = X[:12, :2], y[:12]
    spread = 10.0 ** np.arange(-6, 6)
    near = np.vstack([few, few[:4] * (1 + 1e-12)]), np.r_[y_few, -y_few[:4]]
    found = {
        "duplicate rows, same targets": _problem(np.vstack([X, X[:5]]), np.r_[y, y[:5]]),
        "duplicate rows, other targets": _problem(np.vstack([X, X[:5]]), np.r_[y, -y[:5]]),
        "antipodal rows": _problem(np.vstack([X, -X[:5]]), np.r_[y, y[:5]]),
        "collinear rows": _problem(np.vstack([X, 3 * X[:5]]), np.r_[y, y[:5]]),
        "antipodal and collinear rows, free bias": _problem(
            np.vstack([X[:7, :2], -X[:2, :2], 2 * X[:1, :2]]),
            1e3 * y[:10],
            0.5,
            architecture=TwoLayer(bias="free"),
        ),
        "nearly duplicate rows, beta 1e-8 beta_max": _problem(*near, 1e-8),
        "nearly duplicate rows, free bias, beta 1e-8 beta_max": _problem(
            *near, 1e-8, architecture=free
        ),
        "columns scaled by 1e±6, free bias": _problem(scaled, y, 1e-3, architecture=free),
        "columns scaled by 1e-2 to 1e5, free bias": _problem(
            X * np.array([1e-2, 1e5, 1e-3]), y, 1e-3, architecture=free
        ),
        "rows and targets scaled, free bias, beta 1e-8 beta_max": _problem(
            few * spread[:, None], y_few * spread, 1e-8, architecture=free
        ),
        "a zero row": _problem(zero, y),
        "more features than samples": _problem(wide, y_wide),
        "rank one": _problem(line, np.sin(np.arange(8.0))),
        "duplicate columns": _problem(X[:, [0, 1, 1]], y),
        "one sample": _problem(X[:1], y[:1]),
        "one feature": _problem(X[:, :1], y),
        "one sample, one feature": _problem(X[:1, :1], y[:1]),
        "columns scaled by 1e±6": _problem(scaled, y),
        "all of X scaled by 1e6": _problem(1e6 * X, y),
        "all of X scaled by 1e-6": _problem(1e-6 * X, y),
        "targets scaled by 1e6": _problem(X, 1e6 * y),
        "targets scaled by 1e-6": _problem(X, 1e-6 * y),
        "targets all zero": Problem(X, 0 * y, 0.1),
        "beta just below beta_max": _problem(X, y, 1 - 1e-6),
        "beta just above beta_max": _problem(X, y, 1 + 1e-6),
        "beta 1e-4 beta_max": _problem(X, y, 1e-4),
        "beta 1e-8 beta_max": _problem(X, y, 1e-8),
        "targets 1e20, beta 1e-8 beta_max": _problem(few, 1e20 * y_few, 1e-8),
        "targets 1e-17, free bias, beta 1e-8 beta_max": _problem(
            few, 1e-17 * y_few, 1e-8, architecture=free
        ),
        "lattice": _problem(np.array([[i, j] for i in (-1.0, 0, 1) for j in (-1.0, 0, 1)]), y[:9]),
        "logistic, separable": _problem(X, np.where(X[:, 0] > 0, 1.0, -1.0), loss="logistic"),
        "logistic, duplicates of both classes": _problem(
            np.vstack([X, X[:5]]), np.r_[classes, -classes[:5]], loss="logistic"
        ),
        "logistic, beta 1e-6 beta_max": _problem(X, classes, 1e-6, loss="logistic"),
        "logistic, free bias, beta 1e-8 beta_max": _problem(
            few, classes[:12], 1e-8, loss="logistic", architecture=free
        ),
        "huber, all residuals large": _problem(X, 1e3 * y, loss="huber"),
        "huber, targets 1e8, free bias": _problem(
            few, 1e8 * y_few, 1e-3, loss="huber", architecture=free
        ),
        "huber, targets 1e-17, free bias": _problem(
            few, 1e-17 * y_few, 1e-3, loss="huber", architecture=free
        ),
        "hinge, separable": _problem(X, np.where(X[:, 0] > 0, 1.0, -1.0), loss="hinge"),
        "hinge, duplicates of both classes": _problem(
            np.vstack([X, X[:5]]), np.r_[classes, -classes[:5]], loss="hinge"
        ),
    }
    return found
