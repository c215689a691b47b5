"""What cells of analyses are made of: problems, targets, errors, rates, columns, settings."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from analyses import sweep
from landscape import data, solve
from landscape.architectures import GatedReLU, StandardDeep, TwoLayer
from landscape.data import Dataset
from landscape.errors import BadInput
from landscape.problem import Problem
from landscape.store import Store


def sample(y, y_test=(), X_test=None, task="regression", name="made"):
    y, y_test = (np.asarray(v, dtype=np.float64) for v in (y, y_test))
    X_test = np.zeros((len(y_test), 2)) if X_test is None else np.asarray(X_test)
    return Dataset(np.zeros((len(y), 2)), y, X_test, y_test, name, task, "-", "-", "-")


def settings(name="noise", beta=None, own=None, loss="squared", architecture="two_layer", **more):
    options = more.pop("options", {"n": 6, "d": 2})
    return OmegaConf.create(
        {
            "data": {"name": name, "options": options, "beta": own},
            "beta": beta,
            "loss": loss,
            "architecture": {"name": architecture, "options": {}},
            **more,
        }
    )


@pytest.mark.parametrize(
    ("beta", "own", "wanted"),
    [(0.7, 0.2, 0.7), (None, 0.2, 0.2), (None, None, 0.03 * 6**0.5)],
)
def test_the_beta_of_a_cell_comes_before_that_of_its_data(beta, own, wanted):
    assert sweep.problem(settings(beta=beta, own=own))[1].beta == wanted


def test_data_without_a_beta_need_one():
    cfg = settings("wine", options={"n": 20})
    with pytest.raises(BadInput, match="beta is not set: the data 'wine' have none"):
        sweep.problem(cfg)
    cfg.beta = 0.0  # a number all the same: the problem itself refuses it
    with pytest.raises(BadInput, match="beta is 0"):
        sweep.problem(cfg)


def test_a_cell_names_data_draw_loss_and_architecture():
    found, problem = sweep.problem(settings(draw=3, loss="huber", architecture="gated_relu"))
    theirs = data.load("noise", n=6, d=2, seed=3)
    np.testing.assert_array_equal(found.X, theirs.X)
    assert problem.loss.name == "huber" and isinstance(problem.architecture, GatedReLU)
    assert (problem.X == theirs.X).all() and (problem.y == theirs.y).all()
    first, given = (sweep.problem(settings(options={"n": 6, "d": 2, **extra}))[0]
                    for extra in ({}, {"seed": 3}))  # fmt: skip
    assert (first.X == data.load("noise", n=6, d=2, seed=0).X).all()
    assert (given.X == theirs.X).all()  # the data's own option comes first


def test_classes_become_columns_of_zeros_and_ones():
    found = sweep.targets(sample([2.0, 0.0, 1.0, 2.0], task="multiclass"))
    assert found.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert sweep.targets(sample([0.0, 2.0], task="multiclass")).shape == (2, 3)  # one is missing
    for task in ("regression", "binary"):
        one = sample([1.0, -1.0], task=task)
        assert sweep.targets(one) is one.y


def test_errors_on_held_out_samples_are_counted_by_hand():
    X = [[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0], [0.0, 0.0]]

    def first(rows):
        return torch.as_tensor(rows)[:, 0].requires_grad_()

    def both(rows):
        return torch.as_tensor(rows)

    y = [1.0, -1.0, -1.0, 1.0]
    binary = sample([1.0], y, X, task="binary")
    assert sweep.held_out_error(binary, first) == 0.5  # the second, and an output of zero
    squares = sample([1.0], [1.0, 4.0, -3.0, 2.0], X)
    assert sweep.held_out_error(squares, first) == pytest.approx((0 + 4 + 0 + 4) / 4)
    several = sample([1.0], [0.0, 1.0, 1.0, 1.0], X, task="multiclass")
    assert sweep.held_out_error(several, both) == 0.5
    assert np.isnan(sweep.held_out_error(sample([1.0]), first))


def test_the_rate_of_the_least_median_wins_and_what_diverged_never_does(monkeypatch):
    ends = {
        0.1: [1.0, 1.0, 9.0],
        0.3: [0.0, 2.0, 2.0],  # the least of all, and of the means, but not in the median
        1.0: [0.0, np.nan, np.nan],
        3.0: [1.0, 1.0, 1.0],  # as good as the first, which comes first
    }
    calls = []

    def train(problem, width, seeds, optimizer, steps, *, learning_rate, throw):
        calls.append((width, list(seeds), optimizer, steps, throw))
        return SimpleNamespace(objectives=np.array(ends[learning_rate]), rate=learning_rate)

    monkeypatch.setattr(sweep, "train", train)
    cfg = SimpleNamespace(width=4, seeds=3, steps=7, learning_rates=list(ends))
    best, runs = sweep.tuned(None, cfg)
    assert best == 0.1 and runs.rate == 0.1
    assert calls == [(4, [0, 1, 2], "adam", 7, False)] * 4


def test_columns_say_what_a_cell_is_about_and_what_its_optimum_is_worth():
    found, problem = sweep.problem(settings("kgon", options={"k": 5}))
    assert sweep.described(found, problem) == {"data": "5-gon", "n": 5, "d": 2, "beta": 0.1}
    found, problem = sweep.problem(settings(beta=0.3))
    assert sweep.described(found, problem)["data"] == "noise"
    solution = solve(problem)
    row = sweep.certified(solution, "neurons")
    assert row["neurons"] == solution.active > 0 and row["scope"] == solution.certificate.scope
    assert row["optimum"] * (1 - row["gap"]) == pytest.approx(row["bound"], rel=1e-12)
    assert 0 <= row["gap"] <= 1e-7 and row["bound"] <= row["optimum"]


def test_solutions_are_those_that_settings_ask_for():
    _, problem = sweep.problem(settings(beta=0.3))
    solver = SimpleNamespace(tolerance=1e-4, cones=1000)
    solution, seconds = sweep.solved(problem, SimpleNamespace(solver=solver, rounds=50))
    assert solution.certificate.relative_gap <= 1e-4 and seconds > 0
    assert sweep.optimum(problem, None).objective == pytest.approx(solution.objective, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "layered", "plain"),
    [("two_layer_relu", False, True), ("gated_relu", False, False), ("standard_deep", True, False)],
)
def test_what_an_architecture_lacks_is_said_with_its_name(name, layered, plain):
    cfg = settings(architecture=name)
    own = sweep.architecture(cfg)
    assert own.name == name
    for reason, there in (
        (sweep.featured(cfg, "nothing is known"), layered),
        (sweep.plain_only(cfg, "nothing is known"), not plain),
    ):
        assert reason == (f"nothing is known; the architecture is {own.label}." if there else "")


@pytest.mark.parametrize(
    ("scale", "own", "given", "added"),
    [
        ("quick", {"data": "digits", "small": "cube"}, [], ["data=digits"]),
        ("smoke", {"data": "digits", "small": "cube"}, [], ["data=cube"]),
        ("smoke", {"data": "digits"}, [], ["data=digits"]),
        ("quick", {"small": "cube"}, [], []),
        ("quick", {}, ["beta=1"], []),
        ("quick", {"data": "digits"}, ["data=wine"], []),
        ("quick", {"data": "digits"}, ["+data=wine"], []),
        ("quick", {"data": "digits"}, ["data.options.n=3"], ["data=digits"]),
    ],
)
def test_an_architecture_brings_data_that_suit_it(scale, own, given, added):
    base = OmegaConf.create({"scale": {"name": scale}, "architecture": own})
    assert sweep._with_own_data(base, given) == given + added


def test_only_what_determines_numbers_is_in_a_key():
    others = {name: "any" for name in sweep.NOT_NUMBERS if name != "module"}
    cfg = settings(beta=0.1, module="analyses.depth", **others)
    kept = sweep._settings(cfg)
    assert set(kept) == {"data", "beta", "loss", "architecture"}
    assert isinstance(kept["data"], dict)
    key = sweep._key(cfg)
    for name in others:
        cfg[name] = "other"
        assert sweep._key(cfg) == key
    for name in ("beta", "loss"):
        cfg[name] = "0.2"
        assert sweep._key(cfg) != key
        key = sweep._key(cfg)


def test_what_is_computed_again(tmp_path):
    store = Store(tmp_path)
    for name, kind in (("good", "done"), ("bad", "failed")):
        store.write(name, {}, {}, {}, {"kind": kind})
    for force, wanted in ((False, []), (True, ["good", "bad", "new"]), ("failed", ["bad"])):
        names = ("good", "bad", "new")
        assert [n for n in names if sweep._forced(force, store, n)] == wanted
    with pytest.raises(BadInput, match="force is None: choose true, false or failed"):
        sweep._forced(None, store, "good")


def test_a_summary_has_a_row_a_cell_and_says_what_failed():
    import pandas as pd

    module = SimpleNamespace(__doc__="What it is about.\n", SUMMARY=("n", "gap", "not there"))
    done = pd.DataFrame({"key": ["a", "b"], "gap": [1.23456789e-7, 0.5], "n": [3, 4]})
    failed = pd.DataFrame({"status": ["ValueError: too large"]})
    page = sweep._summary("study", module, done, failed, {"study": None, "study_b": None})
    lines = page.splitlines()
    assert lines[0] == "# study" and "What it is about." in lines and sweep.OBJECTIVE in lines
    assert [line for line in lines if line.startswith("|")] == [
        "| n | gap |", "|---|---|", "| 3 | 1.23457e-07 |", "| 4 | 0.5 |"
    ]  # fmt: skip
    assert "![study](study.png)" in lines and "![study_b](study_b.png)" in lines
    assert lines[-2:] == ["1 cells failed:", "- ValueError: too large"]
    module = SimpleNamespace(__doc__=None)
    page = sweep._summary("study", module, done, failed[:0], {})
    assert "| key | gap | n |" in page and "failed" not in page


def test_cells_of_other_architectures_are_left_out_by_name(monkeypatch, capsys):
    reasons = {"a": "", "b": "no patterns", "c": "no patterns", "d": "no kinks"}
    monkeypatch.setattr(sweep, "_lacking", reasons.__getitem__)
    assert sweep._applying("study", ["b", "a", "c", "d"]) == ["a"]
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "study: 2 cells left out: no patterns", "study: 1 cells left out: no kinks"
    ]  # fmt: skip
    with pytest.raises(BadInput, match="no kinks"):
        sweep._applying("study", ["d", "b"])


def test_layered_architectures_start_from_runs_and_only_plain_ones_must_close_their_gap(
    monkeypatch,
):
    calls = []
    monkeypatch.setattr(sweep, "solve", lambda problem, **options: calls.append(options))
    for own in (TwoLayer(), GatedReLU(), StandardDeep(3)):
        sweep.optimum(Problem(np.eye(2), np.ones(2), 0.1, architecture=own), "runs", rounds=3)
    assert calls == [
        {"start": None, "throw": True, "rounds": 3},
        {"start": None, "throw": False, "rounds": 3},
        {"start": "runs", "throw": False, "rounds": 3},
    ]
