"""Tiny problems with optima known in closed form, over which every room's tests run."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import Literal

import numpy as np

from landscape.architectures import (
    Architecture,
    Attention,
    BatchNorm,
    Circular,
    Convolution,
    DeepNarrow,
    DeepThreshold,
    FourierMixing,
    GatedConvolution,
    GatedReLU,
    MaxConvolution,
    Mixer,
    NormalisedReLU,
    ParallelDeep,
    ParallelThreeLayer,
    Polynomial,
    StandardDeep,
    Threshold,
    TwoLayer,
    VectorReLU,
    Wedge,
)
from landscape.problem import Problem


@dataclass(frozen=True)
class Case:
    """A problem, its optimal value and why that is the value."""

    name: str
    problem: Problem
    optimum: float
    reason: str


def kgon(k: int, beta: float = 0.1, architecture: Architecture | None = None) -> Problem:
    """K points on the circle, y = 1."""
    angles = 2 * pi * np.arange(k) / k + 0.1
    X = np.column_stack([np.cos(angles), np.sin(angles)])
    return Problem(X, np.ones(k), beta, architecture=architecture or TwoLayer())


def _symmetric_value(n: int, largest: float, beta: float = 0.1) -> float:
    """The dual optimum is ν = t·1 with t = β/max_u Σ(x_kᵀu)_+."""
    t = beta / largest
    return 0.5 * n * (1 - (1 - t) ** 2)


def _toy(bias: str) -> Problem:
    x = np.array([[-sqrt(3)], [sqrt(3)]])
    if bias == "none":
        return Problem(np.hstack([x, np.ones((2, 1))]), np.ones(2), 0.1)
    return Problem(x, np.ones(2), 0.1, architecture=TwoLayer(bias="penalised"))


def _one_sample(x: float, y: float, beta: float, architecture: Architecture) -> Problem:
    return Problem(np.array([[x]]), np.array([y]), beta, architecture=architecture)


def _orthogonal(architecture: Architecture) -> Problem:
    return Problem(np.eye(3), np.array([1.0, -2.0, 0.05]), 0.1, architecture=architecture)


def _three_gon_gated() -> float:
    """By symmetry ν = t·1; the steepest of the six patterns sums two unit vectors at 120°, so 1."""
    return _symmetric_value(3, 1.0)


# On X = I the gated blocks D_i select coordinates, and both programs reduce to a group lasso with
# all 2³ subsets as groups per sign pattern; the dual ball is ‖ν_S‖ ≤ β over subsets S of one sign
# for ReLU (positive and negative parts apart) and over all S for gates.
def _relu_eye(y: np.ndarray, beta: float) -> float:
    total = 0.0
    for part in (np.maximum(y, 0), np.maximum(-y, 0)):
        size = np.linalg.norm(part)
        total += 0.5 * size**2 if size <= beta else beta * size - 0.5 * beta**2
    return float(total)


Y_EYE = np.array([1.0, -2.0, 0.05])
CASES = [
    Case("toy-none", _toy("none"), 0.0975, "ν = (.05, .05)"),
    Case("toy-bias", _toy("penalised"), 0.0975, "the same data, the ones column as bias"),
    Case("3-gon", kgon(3), _symmetric_value(3, 1.0), "max_u Σ(x·u)_+ = 1"),
    Case("4-gon", kgon(4), _symmetric_value(4, sqrt(2)), "max_u Σ(x·u)_+ = √2"),
    Case("6-gon", kgon(6), _symmetric_value(6, 2.0), "max_u Σ(x·u)_+ = 2"),
    Case("one-sample", _one_sample(1.0, 2.0, 0.5, TwoLayer()), 0.875, "soft threshold"),
    Case("one-negative", _one_sample(2.0, -2.0, 0.5, TwoLayer()), 0.46875, "soft threshold"),
    Case(
        "one-sample-abs",
        _one_sample(1.0, 2.0, 0.5, TwoLayer(activation="abs")),
        0.875,
        "soft threshold",
    ),
    Case(
        "one-sample-skip",
        _one_sample(1.0, 2.0, 0.5, TwoLayer(skip="penalised")),
        0.875,
        "soft threshold",
    ),
    Case("zero-network", kgon(4, beta=2.0), 2.0, "β ≥ β_max = √2"),
    Case("eye", _orthogonal(TwoLayer()), _relu_eye(Y_EYE, 0.1), "signs of y decouple"),
    Case("gated-3-gon", kgon(3, architecture=GatedReLU()), _three_gon_gated(), "steepest sum 1"),
    Case(
        "gated-eye",
        _orthogonal(GatedReLU()),
        float(0.1 * np.linalg.norm(Y_EYE) - 0.005),
        "all open: one group on y",
    ),
    # (u₁)_+ + (u₂)_+ is √2 at most: y is thresholded by β/√2.
    Case(
        "convolution-two-patches",
        Problem(
            np.array([[1.0, 0.0, 0.0, 1.0]]),
            np.array([2.0]),
            0.5,
            architecture=Convolution(stride=2),
        ),
        0.5 * 2.0 / sqrt(2) - 0.5 * 0.5**2 / 2,
        "soft threshold at β/√2",
    ),
    Case(
        "gated-convolution-two-patches",
        Problem(
            np.array([[1.0, 0.0, 0.0, 1.0]]),
            np.array([2.0]),
            0.5,
            architecture=GatedConvolution(stride=2),
        ),
        0.5 * 2.0 / sqrt(2) - 0.5 * 0.5**2 / 2,
        "both patches open: soft threshold at β/√2",
    ),
    Case(
        "batch-norm-eye",
        _orthogonal(BatchNorm()),
        _relu_eye(Y_EYE, 0.1),
        "n = rank + 1: [U, 1/√n] is orthogonal, signs of y decouple",
    ),
    Case(
        "free-bias-constant",
        Problem(
            np.array([[0.0], [1.0], [3.0]]), np.full(3, 4.0), 0.1, architecture=TwoLayer("free")
        ),
        0.0,
        "a constant costs nothing",
    ),
    Case(
        "free-bias-line",
        Problem(
            np.array([[-1.0], [1.0]]), np.array([0.0, 2.0]), 0.1, architecture=TwoLayer("free")
        ),
        # f = w x + ξ: residuals ∓r, min r² + β(2 − 2r)/2 over the slope: r = β/2.
        0.1 - 0.0025,
        "slope 1 shrunk by β/2",
    ),
    Case(
        "deep-of-two",
        kgon(3, architecture=StandardDeep(depth=2)),
        _symmetric_value(3, 1.0),
        "two layers, as the 3-gon",
    ),
]

IDS = [case.name for case in CASES]

# With several outputs on X = I the pattern that is on everywhere prices highest, and its norm of Y
# is thresholded: its singular values, or the lengths of its columns.
Y_OUTPUTS = np.array([[1.0, 0.5], [-2.0, 1.0], [0.05, 0.3]])


def _two_outputs(outputs: Literal["nuclear", "per_class"], sizes: np.ndarray) -> Case:
    problem = Problem(np.eye(3), Y_OUTPUTS, 0.1, architecture=GatedReLU(outputs=outputs))
    optimum = float((0.1 * sizes - 0.1**2 / 2).sum())
    return Case(f"gated-eye-{outputs}", problem, optimum, "all open: one norm of Y")


OUTPUT_CASES = [
    _two_outputs("nuclear", np.linalg.svd(Y_OUTPUTS, compute_uv=False)),
    _two_outputs("per_class", np.linalg.norm(Y_OUTPUTS, axis=0)),
]

# Architectures whose units are priced by an oracle; they have no patterns to enumerate.
UNIT_CASES = [
    # Of one token x = 1 every head is a number.
    Case("attention-one-token", _one_sample(1.0, 2.0, 0.5, Attention(1)), 0.875, "soft threshold"),
    # One token is mixed with none: a block puts out any matrix W_2 and is charged ‖W_2‖_F.
    Case(
        "mixer-eye",
        Problem(np.eye(3), Y_OUTPUTS, 0.1, architecture=Mixer(1)),
        float(0.1 * np.linalg.norm(Y_OUTPUTS) - 0.1**2 / 2),
        "the Frobenius norm of Y",
    ),
    # Convolutions over one token: Z is a matrix on the samples, its singular values thresholded.
    Case(
        "fourier-eye",
        Problem(np.eye(3), Y_OUTPUTS, 0.1, architecture=FourierMixing(1)),
        float((0.1 * np.linalg.svd(Y_OUTPUTS, compute_uv=False) - 0.1**2 / 2).sum()),
        "the nuclear norm of Y",
    ),
    # A line through both samples costs its slope (any deeper unit bends between them for nothing).
    *(
        Case(
            f"deep-narrow-{depth}-{activation}",
            Problem(
                np.array([[-1.0], [1.0]]),
                np.array([0.0, 2.0]),
                0.1,
                architecture=DeepNarrow(depth, activation),
            ),
            0.1 - 0.0025,
            "slope 1 shrunk by β/2",
        )
        for depth, activation in ((2, "relu"), (3, "relu"), (2, "abs"), (3, "abs"))
    ),
    # m equal neurons put out √m |x| at size one by paths (m of them at every layer), else |x|.
    Case(
        "three-layer-path",
        _one_sample(1.0, 2.0, 0.5, ParallelThreeLayer()),
        0.5 * 2.0 / sqrt(2) - 0.5 * (0.5 / sqrt(2)) ** 2,
        "soft threshold at β/√2",
    ),
    Case(
        "three-layer-cubic",
        _one_sample(1.0, 2.0, 0.5, ParallelThreeLayer(regulariser="cubic")),
        0.5 * 2.0 - 0.5 * 0.5**2,
        "soft threshold",
    ),
    Case(
        "four-layer-path",
        _one_sample(1.0, 2.0, 0.5, ParallelDeep(depth=4)),
        0.5 * 2.0 / 2 - 0.5 * (0.5 / 2) ** 2,
        "soft threshold at β/2",
    ),
    # Fits are Σ α_j u_j u_jᵀ on the diagonal, and the penalty is the trace norm: y is thresholded.
    Case(
        "polynomial-eye",
        Problem(np.eye(2), np.array([1.0, -2.0]), 0.1, architecture=Polynomial(1.0, 0.0, 0.0)),
        0.1 * 3.0 - 0.1**2,
        "the diagonal of a matrix under the trace norm",
    ),
    # σ(1) = 1.0625 = k prices highest: y is thresholded by β/k.
    Case(
        "polynomial-one-sample",
        _one_sample(1.0, 2.0, 0.5, Polynomial()),
        0.5 * 2.0 / 1.0625 - 0.5 * (0.5 / 1.0625) ** 2,
        "soft threshold",
    ),
    # The largest patch (4, 3) puts out 5 at most: y is thresholded by β/5.
    Case(
        "max-convolution-one-sample",
        Problem(
            np.array([[1.0, 0.0, 4.0, 3.0]]),
            np.array([2.0]),
            0.5,
            architecture=MaxConvolution(stride=2),
        ),
        0.5 * 2.0 / 5 - 0.5 * (0.5 / 5) ** 2,
        "soft threshold at β/5",
    ),
    # The unitary transform (−1, 3)/√2 of y is thresholded by β/√2.
    Case(
        "circular-eye",
        Problem(np.eye(2), np.array([1.0, -2.0]), 0.1, architecture=Circular()),
        0.1 * 2.0 - 0.1**2 / 2,
        "soft threshold of the spectrum",
    ),
    # The all-ones pattern carries everything: min over t of ½ 3 (1 − t)² + β t.
    Case(
        "threshold-3-gon", kgon(3, architecture=Threshold()), 0.1 - 0.01 / 6, "w = 0: a lower face"
    ),
    # Every pattern exists: y is clipped at .9 and −1.9, where what is cut off adds up to β.
    Case("threshold-eye", _orthogonal(Threshold()), 0.01 + 0.1 * (0.9 + 1.9), "clipping"),
    # Orthonormal samples, one-hot labels: singular values √3 and 1 of Y are shrunk by β.
    Case(
        "vector-relu-one-hot",
        Problem(
            np.linalg.qr(np.arange(16.0).reshape(4, 4) ** 2 + np.eye(4))[0],
            np.eye(2)[[0, 0, 1, 0]],
            0.1,
            architecture=VectorReLU(),
        ),
        0.1 * (sqrt(3) + 1) - 0.1**2,
        "soft thresholding",
    ),
    # Inputs are independent: both parts of y are outputs of a unit, and each is shrunk by β.
    Case(
        "normalised-eye",
        _orthogonal(NormalisedReLU()),
        _relu_eye(Y_EYE, 0.1),
        "signs of y decouple",
    ),
    # Kinks are free: a line through both samples costs its slope, shrunk by β/2 on each of them.
    Case(
        "wedge-line",
        Problem(
            np.array([[-1.0, -0.5], [1.0, 0.5]]), np.array([0.0, 2.0]), 0.1, architecture=Wedge(1)
        ),
        0.1 - 0.0025,
        "slope 1 shrunk by β/2",
    ),
    # One pattern with two switches, shrunk by β/2 on its two samples.
    Case(
        "threshold-deep-box",
        Problem(
            np.arange(4.0)[:, None],
            np.array([0.0, 2.0, 2.0, 0.0]),
            0.1,
            architecture=DeepThreshold(widths=(2,)),
        ),
        0.1 * 2.0 - 0.1**2 / 4,
        "soft threshold of one pattern",
    ),
]


def planted(n: int, d: int, k: int = 5, noise: float = 0.1, seed: int = 0) -> Problem:
    """The planted teacher, with β = 0.1 √n."""
    rng = np.random.default_rng(seed)
    X, W = rng.standard_normal((n, d)), rng.standard_normal((k, d))
    a = rng.standard_normal(k)
    y = np.maximum(X @ W.T, 0) @ a + noise * rng.standard_normal(n)
    return Problem(X, y, 0.1 * sqrt(n))
