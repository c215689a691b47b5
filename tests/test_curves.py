"""Extrema along quadratic curves: dense grids, segments in disguise, touching kinks, faults."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from cases import planted

from landscape.architectures import TwoLayer
from landscape.errors import BadInput
from landscape.problem import Problem
from landscape.slices import segments
from landscape.slices.segments import along, curve_extrema, segment_extrema


def problem_of(loss="squared", bias="none"):
    base = planted(20, 3)
    classes = loss in ("logistic", "hinge")
    y = np.where(base.y > np.median(base.y), 1.0, -1.0) if classes else base.y
    return Problem(base.X, y, 0.3, loss=loss, architecture=TwoLayer(bias=bias))


def controls_of(problem, width=8, seed=0):
    """Small ends and a large middle, so that the highest point lies inside."""
    found = []
    for number, scale in enumerate((0.5, 15.0, 0.5)):
        draw = problem.architecture.initial(problem, width, [10 * seed + number], scale)
        found.append({k: v[0] for k, v in draw.items()})
        if "constant" in draw:
            found[-1]["constant"] = torch.tensor(1.0 - number).double()
    return found


def dense(problem, controls, points=100_001):
    t = np.linspace(0, 1, points)
    return t, problem.objective(along(controls, t)).numpy()


@pytest.mark.parametrize("loss", ["squared", "logistic", "huber", "hinge"])
@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_a_fine_grid_never_exceeds_the_bound_and_reaches_it(loss, bias):
    problem = problem_of(loss, bias)
    controls = controls_of(problem)
    t, values = dense(problem, controls, 50_001)
    found = curve_extrema(problem, controls)
    assert 0 < found.at_maximum < 1  # else the ends would be all there is to find
    assert found.lower <= values.min() and values.max() <= found.upper
    assert found.maximum == pytest.approx(values.max(), rel=1e-8)
    assert found.minimum == pytest.approx(values.min(), rel=1e-5)
    assert found.upper - found.maximum <= 1e-8 * found.maximum
    assert found.minimum - found.lower <= 1e-8 * found.maximum
    # Above a line, too.
    tilted = curve_extrema(problem, controls, minus=(values[0], values[-1]))
    heights = values - ((1 - t) * values[0] + t * values[-1])
    assert heights.max() <= tilted.upper
    assert tilted.maximum == pytest.approx(heights.max(), rel=1e-8)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_segment_is_a_curve_with_its_middle_in_the_middle(loss):
    problem = problem_of(loss, "free")
    a, _, b = controls_of(problem)
    middle = {k: (a[k] + b[k]) / 2 for k in a}
    straight, curve = segment_extrema(problem, a, b), curve_extrema(problem, [a, middle, b])
    assert curve.maximum == pytest.approx(straight.maximum, rel=1e-11)
    assert curve.minimum == pytest.approx(straight.minimum, rel=1e-11)
    assert curve.upper >= straight.maximum and curve.lower <= straight.minimum
    np.testing.assert_allclose(curve.breakpoints, straight.breakpoints, atol=1e-12)


@pytest.mark.parametrize("gap", [0.0, 1e-17, -1e-17, 1e-9, -1e-9, 1e-3, -1e-3])
def test_an_activation_that_only_touches_its_kink(gap):
    """The pre-activation (2t − 1)² + gap has a double root at ½, or two, or none, nearly."""
    problem = Problem(np.array([[1.0]]), np.array([0.0]), 1e-9)
    forms = torch.tensor([1.0 + gap, -1.0 + gap, 1.0 + gap]).double()
    for sign in (1.0, -1.0):
        controls = [
            {"hidden": sign * f.reshape(1, 1), "output": torch.ones(1).double()} for f in forms
        ]
        t, values = dense(problem, controls)
        found = curve_extrema(problem, controls)
        z = sign * ((2 * t - 1) ** 2 + gap)
        np.testing.assert_allclose(values, 0.5 * np.maximum(z, 0) ** 2, atol=1e-8)
        assert found.lower <= values.min() and values.max() <= found.upper
        assert found.upper - values.max() <= 1e-11
        if sign < 0:
            assert found.upper <= 0.5 * max(-gap, 0) ** 2 + 2e-9


def test_the_bound_holds_in_exact_arithmetic():
    problem = problem_of()
    controls = controls_of(problem, width=4)
    found = curve_extrema(problem, controls)
    X, y = ([Fraction(float(v)) for v in row] for row in (problem.X.ravel(), problem.y))
    n, d = problem.X.shape
    exact = [{k: [Fraction(float(v)) for v in one[k].ravel()] for k in one} for one in controls]
    near = Fraction(found.at_maximum)
    for t in (near, near + Fraction(1, 10**9), near - Fraction(1, 10**9)):
        weights = ((1 - t) ** 2, 2 * t * (1 - t), t * t)
        hidden, output = (
            [
                sum(w * v for w, v in zip(weights, values, strict=True))
                for values in zip(*(one[k] for one in exact), strict=True)
            ]
            for k in ("hidden", "output")
        )
        value = Fraction(problem.beta) / 2 * sum(v * v for v in hidden + output)
        for k in range(n):
            fit = Fraction(0)
            for j, a in enumerate(output):
                z = sum(X[k * d + i] * hidden[j * d + i] for i in range(d))
                fit += max(z, Fraction(0)) * a
            value += (fit - y[k]) ** 2 / 2
        assert value <= Fraction(found.upper)
        assert abs(float(value) - found.maximum) <= 1e-9 * found.maximum


def test_a_crossing_left_out_is_seen(monkeypatch):
    problem = problem_of()
    controls = controls_of(problem)
    _, values = dense(problem, controls)
    roots = segments._roots
    monkeypatch.setattr(
        segments, "_roots", lambda forms: np.where(roots(forms) < 0.2, roots(forms), np.inf)
    )
    wrong = curve_extrema(problem, controls)
    assert abs(wrong.upper - values.max()) > 1e-5 * values.max()


def test_pieces_in_batches_are_the_same_pieces(monkeypatch):
    problem = problem_of("logistic", "free")
    controls = controls_of(problem)
    whole = curve_extrema(problem, controls)
    monkeypatch.setattr(segments, "HELD", 1)
    parts = curve_extrema(problem, controls)
    assert (parts.maximum, parts.upper) == pytest.approx((whole.maximum, whole.upper), rel=1e-12)


def test_only_segments_and_quadratic_curves_are_known():
    problem = problem_of()
    with pytest.raises(BadInput, match="controls are 1 networks"):
        curve_extrema(problem, controls_of(problem)[:1])
