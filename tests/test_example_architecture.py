"""The README's example of a new architecture: short, exact, and served by every room."""

from __future__ import annotations

from pathlib import Path

import example_architecture
import numpy as np
import pytest
from example_architecture import SquaredReLU

from landscape import certify, connect, polish, prune, solve, train
from landscape.bounds import EXACT
from landscape.theory import exactness, instance


def test_it_is_short():
    lines = Path(example_architecture.__file__).read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) < 80


@pytest.mark.parametrize("seed", range(4))
def test_its_program_is_exact(seed):
    found = exactness(
        instance(SquaredReLU(), seed), width=12, seeds=range(4), steps=600, starts=32, draws=3
    )
    assert found.scope == EXACT
    assert max(found.gap, found.primal, found.dual, found.mapped) <= 1e-6
    assert 1 - 1e-4 <= found.adversary <= 1 + 1e-9
    assert found.attained == pytest.approx(1.0, abs=1e-9)
    assert found.below == found.duality == 0.0 and found.raised <= 1e-9
    assert found.trained <= 1e-2


def test_a_missing_unit_is_caught():
    """Without the units that begin at kinks, and half of the circle, the adversary finds more."""

    class Half(SquaredReLU):
        def oracle(self, problem, effort):
            whole = super().oracle(problem, effort)

            def price(nu, target=0.0):
                found = whole(nu, target)
                kept = np.cos(found.units["angles"]) > 0
                units = {"angles": np.append(found.units["angles"][kept], 0.0)}
                columns = self.program(problem, units).atoms.values
                return found.__class__(float(np.abs(nu @ columns).max()), True, units, 0)

            return price

    prices = [exactness(instance(Half(), s), seeds=(), starts=32).adversary for s in range(3)]
    assert max(prices) > 1 + 1e-3


def test_every_room_takes_it():
    problem = instance(SquaredReLU(), 0, n=20)
    runs = polish(problem, train(problem, 16, range(3), steps=300))
    solution = solve(problem, start=runs)
    assert certify(problem, runs.best).dual <= solution.objective <= runs.objectives.min() + 1e-9
    minimal = prune(problem, runs.best)
    path = connect(problem, minimal, solution.network(), "monotone")
    assert path.rise <= 1e-9
