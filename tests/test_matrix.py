"""The matrix of architectures and analyses, and analyses that run beside one another."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from analyses import __main__ as listing
from analyses import _together as together
from analyses import matrix, sweep


@pytest.fixture
def study(monkeypatch):
    """A module whose cells lack what their settings name."""
    module = SimpleNamespace(lacking=lambda cfg: cfg.reason)
    monkeypatch.setitem(sys.modules, "a_study", module)
    monkeypatch.setitem(sys.modules, "another_study", SimpleNamespace())
    return lambda *reasons: [
        SimpleNamespace(module="a_study", reason=reason, architecture=None) for reason in reasons
    ]


def test_a_full_row_is_a_dot_and_what_is_left_out_has_a_number(study):
    notes = {}
    assert matrix._entry(study("", ""), "x", notes) == "•"
    assert notes == {}
    assert matrix._entry(study("no gates; the architecture is A.", ""), "x", notes) == "• without 1"
    assert matrix._entry(study("no kinks.", "no gates; the architecture is B."), "x", notes) == (
        "– 2, 1"
    )
    assert matrix._entry(study("no kinks", "no kinks", ""), "x", notes) == "• without 2"
    assert notes == {"no gates": 1, "no kinks": 2}


def test_cells_are_asked_about_their_own_architecture_and_modules_without_limits_take_all(study):
    kinds = study("", "")
    matrix._entry(kinds, "this one", {})
    assert [cell.architecture for cell in kinds] == ["this one"] * 2
    other = SimpleNamespace(module="another_study", reason="no gates", architecture=None)
    assert matrix._entry([other], "x", {}) == "•"


def test_the_page_agrees_with_what_each_cell_says_of_itself():
    """Row by row: a dash where sweeping that architecture would be refused, a dot where not."""
    names = ["path_connectivity", "scaling"]
    page = matrix.page(names)
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {len(rows[0]) + 1}
    assert set(table[1]) == {"|", "-"}
    assert rows[0] == ["architecture", *(name for name in names if name in rows[0])]
    assert [name for name in names if name not in rows[0]]
    for name in names:
        has = "architecture:" in (sweep.CONF / f"{name}.yaml").read_text()
        assert (name in rows[0]) == has
        assert (name in page.splitlines()[-1]) == (not has)
    files = sorted(file.stem for file in (sweep.CONF / "architecture").glob("*.yaml"))
    assert [row[0] for row in rows[1:]] == files
    for row in rows[3::20]:
        for name, entry in zip(rows[0][1:], row[1:], strict=True):
            cells = sweep.cells(name, ["scale=smoke", f"architecture={row[0]}"])
            lacking = [bool(sweep._lacking(cell)) for cell in cells]
            assert entry[0] == ("–" if all(lacking) else "•")
            assert ("without" in entry) == (any(lacking) and not all(lacking))


def test_a_grid_of_kinds_is_one_cell_of_each(monkeypatch):
    from omegaconf import OmegaConf

    grid = [{"kind": ["a", "b"], "source": ["x", "y"], "width": [1, 2, 3]}, {"kind": ["c"]}, {}]
    base = OmegaConf.create({"grid": {"smoke": grid}, "kind": "own", "source": "own", "width": 0})
    monkeypatch.setattr(sweep, "composed", lambda name, overrides, conf: (base, overrides))
    found = [(cell.kind, cell.source) for cell in matrix._kinds("study", sweep.CONF)]
    assert found == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("c", "own"), ("own", "own")]
    assert base.kind == "own"


def test_the_matrix_is_written_beside_the_results(monkeypatch, tmp_path, capsys):
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(sweep, "CONF", tmp_path / "conf")
    monkeypatch.setattr(matrix, "page", lambda names: "• " + ", ".join(names))
    assert listing.main(["matrix"]) == 0
    file = tmp_path / "results" / "matrix.md"
    assert file.read_text(encoding="utf-8") == "• " + ", ".join(listing.listed())
    assert str(file) in capsys.readouterr().out


def test_what_an_analysis_took_is_read_from_its_results(monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "CONF", tmp_path / "conf")
    (tmp_path / "results" / "study").mkdir(parents=True)
    file = tmp_path / "results" / "study" / "manifest.json"
    assert together.seconds("study") == float("inf")  # not known: it goes first
    for text, seconds in (
        (json.dumps({"seconds": 12.5}), 12.5),
        (json.dumps({"failed": 0}), float("inf")),
        ("{", float("inf")),
    ):
        file.write_text(text, encoding="utf-8")
        assert together.seconds("study") == seconds


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_status_of_an_analysis_is_passed_on_and_said(monkeypatch, capsys, status):
    given = []
    monkeypatch.setattr(
        sweep, "run", lambda name, overrides: given.append((name, overrides)) or status
    )
    assert together.run("study", ("beta=1",)) == status
    assert given == [("study", ["beta=1"])]
    assert capsys.readouterr().out.startswith(f"study: exit status {status} after ")


def test_an_analysis_that_breaks_is_printed_and_counts_as_failed(monkeypatch):
    def broken(name, overrides):
        print("began")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(sweep, "run", broken)
    status, said = together._heard("study", [])
    assert status == 1
    assert said.startswith("began") and "RuntimeError: out of memory" in said
    assert "study: exit status 1" in said


def test_the_longest_go_first_and_the_worst_status_is_returned(monkeypatch):
    order = []
    monkeypatch.setattr(listing.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(listing, "listed", lambda: dict.fromkeys("abcd", ""))
    monkeypatch.setattr(sweep, "timed", lambda name, overrides: name == "b")
    monkeypatch.setattr(together, "seconds", {"a": 1.0, "c": float("inf"), "d": 5.0}.__getitem__)
    monkeypatch.setattr(
        together, "beside", lambda names, overrides, workers: order.extend(names) or iter([0, 2, 0])
    )
    monkeypatch.setattr(together, "run", lambda name, overrides: order.append(name) or 1)
    assert listing.main(["all"]) == 2
    assert order == ["c", "d", "a", "b"]
