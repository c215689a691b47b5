"""Interpolation of least norm: closed forms, Clarabel with equality constraints, families."""

from __future__ import annotations

from fractions import Fraction

import cvxpy
import numpy as np
import pytest
from cases import kgon

from landscape import arrangements, data
from landscape.architectures import GatedReLU, TwoLayer
from landscape.errors import BadInput, NotConverged
from landscape.optimal_set import interpolate
from landscape.problem import Problem


def suffixes(n):
    sample = data.load("suffixes", n=n)
    return Problem(sample.X, sample.y, sample.beta, architecture=TwoLayer("penalised"))


def least_norm(problem):
    """The same program with the constraint f = y, over all patterns, by Clarabel."""
    program = problem.architecture.program(problem, arrangements.enumerate(problem.design))
    theta = cvxpy.Variable((program.atoms.dimension, program.atoms.size))
    constant = cvxpy.Variable(program.free.shape[1]) if program.free.size else np.zeros(0)
    fit = program.atoms.expression(theta) + program.free @ constant
    exact = [fit == problem.y, *program.cones.constraints(theta)]
    norm = cvxpy.Problem(cvxpy.Minimize(program.gauge.expression(theta)), exact)
    return float(norm.solve(solver=cvxpy.CLARABEL))


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_suffix_data_have_a_family_of_interpolators_of_norm_n_plus_1(n):
    """One more direction than targets; in the sum of all features every weight is 1."""
    found = interpolate(suffixes(n))
    assert found.norm == pytest.approx(n + 1, rel=1e-9)
    assert found.bound == pytest.approx(n + 1, rel=1e-9)
    optima = found.optima()
    assert len(optima.signs) == n + 1
    assert optima.polytope.rank == n
    assert len(optima.vertices) == 2
    norms = optima.vertices.sum(axis=1)
    assert np.abs(norms - norms[0]).max() <= 1e-8 * norms[0]


def test_two_points_have_interpolators_of_one_and_of_two_neurons_that_differ():
    optima = interpolate(suffixes(2)).optima()
    assert (optima.m_star, optima.M_star, optima.connected_width) == (1, 2, 3)
    x = np.linspace(-4, 4, 801)[:, None]
    outputs = optima.outputs(x) @ optima.vertices.T
    fits = optima.features @ optima.vertices.T
    assert np.abs(fits - fits[:, :1]).max() <= 1e-12
    assert np.abs(outputs[np.abs(x[:, 0]) <= 3**0.5, 0] - 3).max() <= 3


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_is_not_above_its_exact_value(seed):
    rng = np.random.default_rng(seed)
    problem = Problem(rng.standard_normal((9, 2)), rng.standard_normal(9), 1.0)
    found = interpolate(problem)
    pairs = zip(found.solution.certificate.nu, found.targets, strict=True)
    exact = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in pairs)
    assert Fraction(found.bound) <= exact / Fraction(found.solution.problem.beta)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_the_norm_is_that_of_the_constrained_program(bias, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((7, 2)), rng.standard_normal(7)
    problem = Problem(X, y, 1.0, architecture=TwoLayer(bias))
    found = interpolate(problem)
    assert found.norm == pytest.approx(least_norm(problem), rel=1e-6)
    assert abs(found.gap) <= 1e-8
    assert found.error <= 1e-9 * np.abs(y).max()


def test_targets_and_samples_in_any_units_change_nothing():
    problem = kgon(6)
    first = interpolate(problem)
    for size, unit in ((1e-4, 1.0), (1.0, 1e5)):
        moved = Problem(size * problem.X, unit * problem.y, problem.beta)
        assert interpolate(moved).norm == pytest.approx(first.norm * unit / size, rel=1e-8)


def test_small_beta_leads_to_the_interpolator():
    """The optimum of the penalised problem divided by β falls to the least norm from below."""
    from landscape import solve

    problem = kgon(5)
    least = interpolate(problem).norm
    ratios = [
        solve(problem.replace(beta=beta), tolerance=1e-9).objective / beta
        for beta in (1e-1, 1e-2, 1e-3)
    ]
    assert ratios[0] < ratios[1] < ratios[2] < least
    assert ratios[2] == pytest.approx(least, rel=1e-2)


def test_what_has_no_interpolator_is_said():
    X = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(NotConverged, match="equal samples have different targets"):
        interpolate(Problem(X, np.array([1.0, 2.0, 3.0]), 0.1), steps=8)
    with pytest.raises(BadInput, match="logistic"):
        interpolate(Problem(X, np.array([1.0, 1.0, -1.0]), 0.1, "logistic"))
    with pytest.raises(BadInput, match="zero network"):
        interpolate(Problem(X, np.zeros(3), 0.1))
    with pytest.raises(BadInput, match="tolerance"):
        interpolate(kgon(3), tolerance=0)


def test_gated_networks_interpolate_too():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((6, 2)), rng.standard_normal(6)
    problem = Problem(X, y, 1.0, architecture=GatedReLU())
    found = interpolate(problem)
    relu = interpolate(problem.replace(architecture="two_layer_relu"))
    assert found.norm <= relu.norm * (1 + 1e-8)
    assert found.bound == pytest.approx(found.norm, rel=1e-8)
