"""Every configured architecture against its convex program, on instances drawn beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from example_architecture import SquaredReLU

from landscape import architectures, train
from landscape.architectures import BatchNorm, NormalisedReLU
from landscape.bounds import EXACT, AllPatterns
from landscape.problem import Problem
from landscape.solvers import solve
from landscape.theory import adversary, exactness, instance

FOLDER = Path(__file__).resolve().parent.parent / "conf" / "architecture"
CONFIGS = {file.stem: yaml.safe_load(file.read_text()) for file in sorted(FOLDER.glob("*.yaml"))}
RELAXED = ("fourier_relu", "mixer_relu", "parallel_deep_4", "relu_attention", "wedge_l2")
"""Whose bounds may not be sharp on this instance; all others must be exact there."""
EXACT_ONES = [name for name in CONFIGS if not name.startswith("standard_deep")]


def configured(name):
    return architectures.get(CONFIGS[name]["name"], **CONFIGS[name]["options"])


@pytest.mark.parametrize("name", EXACT_ONES)
def test_the_program_is_the_training_problem(name):
    problem = instance(configured(name), seed=1, n=7)
    found = exactness(problem, seeds=(), starts=24, draws=2)
    assert max(found.primal, found.dual, found.mapped) <= 1e-6
    assert found.adversary <= 1 + 1e-9
    assert found.duality == 0.0 and found.raised <= 1e-9
    assert (found.scope == EXACT) == (name not in RELAXED)
    if found.scope == EXACT:
        assert found.gap <= 1e-6
        assert found.attained == 0.0 or found.attained == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", ["two_layer_relu", "deep_narrow_abs_3", "polynomial"])
def test_a_bound_that_is_too_high_is_found(name, monkeypatch):
    """One per cent above the truth at the optimal dual point; weak duality is what it breaks."""
    true = AllPatterns.__call__
    problem = instance(configured(name), seed=1, n=7)
    solution = solve(problem, tolerance=1e-8)

    def raised(self, nu):
        found = true(self, nu)
        return found._replace(value=1.01 * found.value)

    assert exactness(problem, solution, seeds=(), starts=2, draws=1).duality == 0.0
    monkeypatch.setattr(AllPatterns, "__call__", raised)
    assert exactness(problem, solution, seeds=(), starts=2, draws=1).duality > 0.005


@pytest.mark.parametrize("name", EXACT_ONES)
def test_one_sample_is_solved(name):
    """Where constants are free it costs nothing; a dictionary of kinks is all but empty then."""
    architecture = configured(name)
    X, c = np.full((1, architecture.inputs or 2), 1.3), architecture.drawn_outputs
    y = np.full(1 if c == 1 else (1, c), 0.7)
    problem = Problem(X, y, 0.1, architecture=architecture)
    solution = solve(problem)
    fit = solution.network()(X)[0].detach().numpy()
    assert solution.certificate.gap <= 1e-9
    assert solution.objective <= 0.5 * 0.7**2 * c
    if solution.point.program.free.shape[1]:
        assert fit == pytest.approx(0.7) and solution.objective <= 1e-20


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in EXACT_ONES])
def test_networks_without_a_program_stay_above_their_relaxed_bound(name):
    found = exactness(instance(configured(name), seed=1, n=7), width=6, seeds=[0, 1], steps=200)
    assert found.scope != EXACT
    assert found.below == 0.0 and found.duality == 0.0


def test_every_configuration_names_its_title_and_an_architecture():
    assert len({config["title"] for config in CONFIGS.values()}) == len(CONFIGS)
    for name in CONFIGS:
        assert configured(name).name in architectures.NAMES


def test_the_adversary_climbs_to_the_supremum():
    """Against a fine grid over the circle of units."""
    problem = instance(SquaredReLU(), 2)
    nu = np.random.default_rng(5).standard_normal(len(problem.y))
    angles = np.linspace(0.0, 2 * np.pi, 200_001)
    columns = problem.architecture.program(problem, {"angles": angles}).atoms.values
    assert adversary(problem, nu) == pytest.approx(np.abs(nu @ columns).max(), rel=1e-6)


@pytest.mark.parametrize("architecture", [BatchNorm(), NormalisedReLU()])
def test_normalised_networks_train_in_single_precision(architecture):
    """Rounding is far larger there, and so are the outputs that still count."""
    problem = instance(architecture, 0)
    single, double = (
        train(problem, width=8, seeds=range(2), steps=200, dtype=dtype).objectives
        for dtype in ("float32", "float64")
    )
    np.testing.assert_allclose(single, double, rtol=1e-3)
