"""Dual points of networks: slopes of smooth losses, subgradients chosen at kinks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from landscape import Problem, arrangements, bounds
from landscape.architectures import GatedReLU, TwoLayer
from landscape.architectures.base import ConvexPoint
from landscape.residuals import residual
from landscape.solvers import reference


def hinge(seed=0, n=8, d=2, beta=0.2, bias="none", architecture=TwoLayer):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), np.where(np.arange(n) % 2, 1.0, -1.0)
    return Problem(X, y, beta, loss="hinge", architecture=architecture(bias))


def point_of(problem, theta=None, count=6):
    patterns = arrangements.sample(problem.design, count, seed=0)
    program = problem.architecture.program(problem, patterns)
    zero, constant = program.zero()
    return ConvexPoint(program, zero if theta is None else theta(zero.shape), constant)


@pytest.mark.parametrize("loss", ["squared", "logistic", "huber"])
@pytest.mark.parametrize("bias", ["none", "free"])
def test_smooth_losses_give_minus_their_slope_at_the_best_constant(loss, bias):
    problem = hinge(bias=bias).replace(loss=loss)
    rng = np.random.default_rng(1)
    point = point_of(problem, rng.standard_normal)
    nu = residual(point)
    if bias == "none":
        fit = point.program.atoms.apply(point.theta)
        np.testing.assert_allclose(nu, -problem.loss.gradient(fit, problem.y), rtol=1e-14)
    else:
        assert abs(nu.sum()) <= 1e-6  # stationary in the constant, wherever the point had it
        moved = residual(replace(point, constant=point.constant + 3.0))
        np.testing.assert_allclose(moved, nu, atol=1e-6)


@pytest.mark.parametrize("architecture", [TwoLayer, GatedReLU])
@pytest.mark.parametrize("seed", range(4))
def test_subgradients_at_an_optimum_close_the_gap_that_plugged_in_ones_leave(seed, architecture):
    """Kinks are chosen so that active blocks are stationary, on their faces too."""
    problem = hinge(seed, architecture=architecture)
    point = point_of(problem, count=20)
    found = reference.solve_primal(point.program)
    point = replace(point, theta=found.theta, constant=found.constant)
    fit = point.program.fit(found.theta, found.constant)
    kinks = np.abs(problem.y * fit - 1) <= 1e-6
    assert kinks.any()
    snapped = np.where(kinks, problem.y, fit)
    nu = residual(point)
    for k in np.flatnonzero(~kinks):
        assert nu[k] == (problem.y[k] if problem.y[k] * fit[k] < 1 else 0.0)
    assert (problem.y * nu >= 0).all() and (problem.y * nu <= 1).all()
    best = bounds.lower_bound(point.program, nu)[0]
    plain = bounds.lower_bound(point.program, -problem.loss.gradient(snapped, problem.y))[0]
    assert plain < best <= found.value * (1 + 1e-7)
    assert best == pytest.approx(found.value, rel=1e-3)


@pytest.mark.parametrize("bias", ["none", "free"])
def test_without_neurons_kinks_are_settled_by_the_middle_of_their_intervals(bias):
    problem = hinge(bias=bias)
    point = point_of(problem)
    np.testing.assert_array_equal(residual(point), problem.y)  # all below their kinks
    if bias == "free":
        at = replace(point, constant=np.array([1.0]))  # half of them at the kink, half below
        middle = np.where(problem.y > 0, 0.5, -1.0)
        np.testing.assert_allclose(residual(at), middle, atol=1e-12)


def test_blocks_of_dust_do_not_take_part_in_the_choice():
    """What is 1e-9 of the largest has a direction that is rounding."""
    problem = hinge(2)
    point = point_of(problem, count=20)
    found = reference.solve_primal(point.program)
    theta = np.where(np.linalg.norm(found.theta, axis=1, keepdims=True) > 1e-4, found.theta, 0.0)
    clean = residual(replace(point, theta=theta))
    idle = int(np.flatnonzero(~theta.any(axis=1))[0])
    dusty = theta.copy()
    dusty[idle] = 1e-9 * np.linalg.norm(theta) * np.array([1.0, -1.0])
    np.testing.assert_allclose(residual(replace(point, theta=dusty)), clean, atol=1e-7)


@pytest.mark.parametrize("outputs", [1, 2])
def test_with_several_outputs_the_middle_is_taken(outputs):
    """A valid dual point, not a sharp one: whatever blocks there are."""
    problem = hinge(architecture=GatedReLU)
    point = point_of(problem, np.zeros)
    Y = np.stack([problem.y, -problem.y][:outputs], axis=1)
    program = replace(point.program, y=Y)
    rng = np.random.default_rng(0)
    theta = rng.standard_normal((*point.theta.shape, outputs))
    fit = program.fit(theta, np.zeros((0, outputs)))
    theta /= np.abs(fit).max()  # all within their kinks but for one entry, which is at one
    at = np.unravel_index(np.abs(fit).argmax(), fit.shape)
    theta *= np.sign(fit[at]) * Y[at]
    wanted = Y.copy()
    wanted[at] *= 0.5
    found = residual(ConvexPoint(program, theta, np.zeros((0, outputs))))
    np.testing.assert_allclose(found, wanted, atol=1e-12)
