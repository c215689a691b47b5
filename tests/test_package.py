"""The package as a user meets it: fast import, public names, the README's example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import landscape

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import landscape", ("torch", "cvxpy", "matplotlib", "sklearn")),
        ("from landscape import Problem, certify, train", ("cvxpy", "matplotlib")),
    ],
)
def test_heavy_libraries_load_where_they_are_used(statement, absent):
    code = f"import sys; {statement}; print(*[m for m in {absent} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_public_names_resolve_and_are_documented():
    for name in landscape.__all__:
        assert getattr(landscape, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        _ = landscape.nothing


def test_the_readme_examples_run_as_written():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code) == 5
    rng = np.random.default_rng(0)
    names = {"X": rng.standard_normal((20, 2)), "y": rng.standard_normal(20)}
    names["X_new"], names["y_new"] = names["X"][:3], names["y"][:3]
    for part in code:  # each goes on where the one before ends
        exec(part.replace("steps=4000", "steps=100"), names)
    assert names["solution"].certificate.relative_gap <= 1e-7
    assert names["path"].rise <= 1e-6 and names["point"].own_gap <= 1e-7
    assert names["optima"].m_star >= 1 and names["flat"].rise <= 1e-9
    assert names["plane"].marked[2] == pytest.approx(names["solution"].objective)


def test_no_file_depends_on_anything_outside():
    for folder in ("landscape", "analyses", "conf", "tests", "benchmarks"):
        for file in (ROOT / folder).rglob("*.[py]*"):
            if file.suffix in (".py", ".yaml"):
                assert "torch." + "load(" not in file.read_text(encoding="utf-8")
                assert "allow_pickle=" + "True" not in file.read_text(encoding="utf-8")


def test_random_units_are_those_of_the_program_where_networks_mix_them():
    """A circular unit holds all frequencies: they are drawn without those of a network."""
    from analyses.pattern_sampling import _first, _part, _size
    from landscape import Problem, solve
    from landscape.architectures import Circular

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((6, 8)), rng.standard_normal(6)
    problem = Problem(X, y, 0.3, architecture=Circular())
    drawn = [_first(problem, 20, seed, "gaussian") for seed in range(2)]
    assert all(sorted(one["frequency"]) == list(range(5)) for one in drawn)
    assert list(drawn[0]["frequency"]) != list(drawn[1]["frequency"])
    found = [solve(problem, _part(drawn[0], count)).objective for count in (1, 3, 5)]
    assert _size(_part(drawn[0], 3)) == 3 and found[0] >= found[1] >= found[2]
    assert found[2] == pytest.approx(solve(problem).objective, rel=1e-6)


def test_generated_patterns_are_counted_where_all_are_listed():
    """The rounds of that search count patterns, of which there are no more than all."""
    from types import SimpleNamespace

    from analyses.pattern_sampling import _generated
    from landscape import Problem, arrangements
    from landscape.architectures import GatedReLU

    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 2)), rng.standard_normal((6, 2))
    problem = Problem(X, Y, 0.3, architecture=GatedReLU(outputs="per_class"))
    solver = SimpleNamespace(rank=2, cones=10**6, tolerance=1e-6)
    counts, values, _ = _generated(problem, SimpleNamespace(seeds=1, solver=solver))
    assert counts.shape == values.shape
    assert 0 < counts.max() <= arrangements.count(6, 2) and (np.diff(counts[:, 0]) >= 0).all()


def test_analyses_go_on_where_bounds_are_relaxed(tmp_path):
    """The gap of wedge networks in the Euclidean norm stays open; the scope says so."""
    from analyses import sweep

    cell = ["architecture=wedge_l2", "scale=smoke", f"results={tmp_path}"]
    assert sweep.run("path_connectivity", cell) == 0
