"""Sweeps: resume after a kill, compute nothing twice, say what is wrong in one sentence."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analyses import __main__ as listing
from analyses import sweep

ROOT = Path(__file__).resolve().parent.parent
TOY = '''"""A toy analysis for the tests."""
import os, time
import numpy as np
from landscape import figures
from landscape.errors import BadInput

VERSIONS = {"toy": int(os.environ.get("TOY_VERSION", "1"))}

def cell(cfg):
    with open(os.environ["TOY_LOG"], "a") as log:
        log.write(f"{cfg.index}\\n")
    time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    if cfg.index == cfg.broken:
        raise RuntimeError("this cell breaks")
    if cfg.index == cfg.dies:
        os._exit(3)
    if cfg.index == cfg.unstorable:
        return {"index": {1}}, {"x": np.array([object()])}
    if cfg.index == cfg.refused:
        raise BadInput("index is not to our liking.")
    return {"index": cfg.index, "square": cfg.index**2}, {"x": np.arange(cfg.index + 1.0)}

def render(table, store, cfg):
    with figures.style():
        fig = figures.new(3.25, 2)
        ax = fig.subplots()
        for key in table["key"]:
            ax.plot(store.arrays(key)["x"])
        ax.set_title(cfg.figure.title)
    return {"toy": fig}

if __name__ == "__main__":
    from pathlib import Path
    from analyses import sweep
    sweep.main(__file__, Path(__file__).parent / "conf")
'''
CONFIG = """
defaults: [base, {scale: smoke}, {launcher: local}, _self_]
analysis: toy
module: toy
index: 0
broken: -1
refused: -1
unstorable: -1
dies: -1
grid: {smoke: [{index: [0, 1, 2, 3, 4]}]}
figure: {title: one}
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder with an analysis of its own; returns (run, log lines)."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf" / "toy.yaml").write_text(CONFIG)
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    sys.modules.pop("toy", None)

    def run(*overrides):
        return sweep.run("toy", list(overrides), tmp_path / "conf")

    def log():
        return (tmp_path / "log").read_text().split() if (tmp_path / "log").exists() else []

    yield run, log, tmp_path
    sys.modules.pop("toy", None)


def outputs(folder):
    return {p.name: p.read_bytes() for p in (folder / "results" / "toy").glob("toy.*")}


def test_a_second_run_computes_nothing_and_draws_the_same_bytes(toy):
    run, log, folder = toy
    assert run() == 0
    assert log() == ["0", "1", "2", "3", "4"]
    first = outputs(folder)
    assert set(first) == {"toy.pdf", "toy.png"}
    assert run() == 0
    assert log() == ["0", "1", "2", "3", "4"]
    assert outputs(folder) == first
    table = (folder / "results" / "toy" / "table.csv").read_text().splitlines()
    assert len(table) == 6 and table[0].startswith("key,index,square")


def test_a_label_recomputes_nothing_and_a_version_everything(toy, monkeypatch):
    run, log, folder = toy
    run()
    before = outputs(folder)
    assert run("figure.title=two") == 0
    assert len(log()) == 5 and outputs(folder) != before
    monkeypatch.setenv("TOY_VERSION", "2")
    sys.modules.pop("toy")
    assert run() == 0
    assert len(log()) == 10


def test_overrides_replace_an_axis_and_only_new_cells_are_computed(toy):
    run, log, _ = toy
    run("index=1,2")
    assert log() == ["1", "2"]
    run("index=2,3")
    assert log() == ["1", "2", "3"]


def test_a_chosen_group_drops_the_options_of_the_grid_for_it():
    grid = {"data": ["kgon"], "data.options.k": [3, 4], "+data.options.noise": [0.1], "width": [8]}
    assert sweep._grid(grid, ["data=cube"]) == ["width=8"]
    assert sweep._grid(grid, ["data.options.k=5"]) == [
        "data=kgon", "+data.options.noise=0.1", "width=8"
    ]  # fmt: skip
    assert sweep._grid(grid, ["datas=1"])[:2] == ["data=kgon", "data.options.k=3,4"]


def test_a_killed_sweep_resumes_with_what_is_missing(toy):
    _, log, folder = toy
    environment = {**os.environ, "TOY_SLEEP": "0.5", "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    command = [sys.executable, str(folder / "toy.py")]
    process = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(log()) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    records = folder / "results" / "toy" / "records"
    finished = {p.name: p.stat().st_mtime_ns for p in records.glob("[!.]*")}
    assert 1 <= len(finished) < 5
    assert not (folder / "results" / "toy" / "toy.pdf").exists()
    environment["TOY_SLEEP"] = "0"
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
    assert len(list(records.glob("[!.]*"))) == 5
    assert list(records.glob(".*.*")) == []
    for name, written in finished.items():  # finished cells were left alone
        assert (records / name).stat().st_mtime_ns == written
    assert len(log()) == 3 + (5 - len(finished))


def test_workers_give_the_same_records(toy):
    run, log, folder = toy
    run("results=serial")
    assert run("launcher=joblib", "results=parallel", "hydra.launcher.n_jobs=2") == 0
    names = [sorted(p.name for p in (folder / r / "toy" / "records").glob("[!.]*"))
             for r in ("serial", "parallel")]  # fmt: skip
    assert names[0] == names[1] and len(names[0]) == 5
    assert len(log()) == 10


def test_a_failed_cell_is_a_record_and_is_counted(toy, capsys):
    run, log, folder = toy
    assert run("broken=2") == 1
    assert "cell" in (text := capsys.readouterr()).err and "this cell breaks" in text.err
    assert "1 failed" in text.out
    assert "1 cells failed" in (folder / "results" / "toy" / "summary.md").read_text()
    assert run("broken=2") == 1
    assert len(log()) == 5
    logs = list((folder / "results" / "toy" / "records").glob("*/error.log"))
    assert len(logs) == 1 and "RuntimeError: this cell breaks" in logs[0].read_text()


def test_what_cannot_be_stored_is_a_failed_cell_and_the_others_go_on(toy, capsys):
    run, log, _ = toy
    assert run("unstorable=1") == 1
    text = capsys.readouterr()
    assert "4 cells, 1 failed" in text.out and "Traceback" not in text.err
    assert len(log()) == 5


def test_force_computes_again_all_or_only_the_failed(toy, capsys):
    run, log, _ = toy
    run("broken=2")
    run("broken=2", "force=failed")
    assert log()[5:] == ["2"]
    run("broken=2", "force=true")
    assert log()[6:] == ["0", "1", "2", "3", "4"]
    assert run("force=yess") == 2 and "force is 'yess'" in capsys.readouterr().err


def test_a_dead_worker_ends_the_run_with_a_sentence_and_it_resumes(toy, capsys):
    run, _, _ = toy
    assert run("dies=3", "launcher=joblib", "hydra.launcher.n_jobs=2") == 1
    assert "run it again to resume" in capsys.readouterr().err


def test_figures_of_other_settings_do_not_stay_beside_a_new_table(toy):
    run, _, folder = toy
    run()
    stale = folder / "results" / "toy" / "toy_other.pdf"
    stale.write_bytes(b"")
    run("index=1")
    assert not stale.exists() and set(outputs(folder)) == {"toy.pdf", "toy.png"}


def test_nothing_is_written_outside_the_results_folder(toy):
    run, _, folder = toy
    before = {p.name for p in folder.iterdir()}
    run("results=elsewhere")
    new = {p.name for p in folder.iterdir()} - before - {"log", "__pycache__"}
    assert new == {"elsewhere"}


def test_hydra_answers_its_own_flags(toy, capsys):
    run, log, _ = toy
    assert run("--cfg", "job") == 0
    assert "analysis: toy" in capsys.readouterr().out and log() == []


def test_a_refusal_is_said_and_not_kept(toy, capsys):
    run, _, folder = toy
    assert run("refused=2") == 2
    text = capsys.readouterr().err
    assert "index is not to our liking." in text and "Traceback" not in text
    assert len(list((folder / "results" / "toy" / "records").glob("[!.]*"))) == 4


def test_a_missing_record_is_named(toy):
    from landscape.store import MissingRecord, Store

    run, _, folder = toy
    run()
    with pytest.raises(MissingRecord, match="record feed is missing"):
        Store(folder / "results" / "toy").table(["feed"])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("indx=1", "Unknown setting 'indx'. Did you mean 'index'"),
        ("scale=smok", "Unknown scale 'smok'. Did you mean 'smoke'"),
        ("launcher=jobli", "Unknown launcher 'jobli'. Did you mean 'joblib'"),
        ("results=file", "cannot be written"),
        ("index=[1", "'index=[1' is no setting"),
        ("index", "'index' is no setting"),
        ("scale=quick", "scale 'quick' has no grid"),
        ("scale=smoke,quick", "one scale a run"),
        ("hydra/launcher=nowhere", "launcher 'nowhere' needs a Hydra plugin"),
    ],
)
def test_bad_settings_end_in_a_sentence(toy, capsys, override, sentence):
    run, log, folder = toy
    (folder / "file").write_text("")
    assert run(override) == 2
    text = capsys.readouterr().err
    assert sentence in text and "Traceback" not in text
    assert log() == []


@pytest.mark.parametrize("launcher", ["launcher=joblib", "hydra/launcher=joblib"])
def test_timed_cells_are_never_run_beside_workers(toy, capsys, launcher):
    run, log, _ = toy
    assert run("timed=true", launcher) == 2
    assert "launcher=local" in capsys.readouterr().err and log() == []


def test_every_analysis_is_listed_with_a_line(capsys):
    assert listing.main([]) == 0
    assert "optimality_gap" in capsys.readouterr().out
    assert listing.main(["optimalty_gap"]) == 2
    assert "Did you mean 'optimality_gap'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data=diabetis"], "Did you mean 'diabetes'"),
        (["optimizer=addam"], "Did you mean 'adam'"),
        (["architecture=two_layer_rel"], "Did you mean 'two_layer_relu'"),
        (["beta=0"], "beta is 0"),
        (["beta=-1"], "beta is -1"),
        (["loss=logistic", "data=diabetes"], "logistic"),
        (["data.options.n=100000", "data=diabetes"], "n is 100000"),
    ],
)
def test_the_command_line_refuses_in_one_sentence(
    tmp_path, monkeypatch, capsys, overrides, sentence
):
    monkeypatch.chdir(tmp_path)
    arguments = ["optimality_gap", "scale=smoke", f"results={tmp_path}", *overrides]
    assert listing.main(arguments) == 2
    text = capsys.readouterr().err
    assert sentence in text and "Traceback" not in text


@pytest.mark.parametrize("group", ["data", "architecture", "optimizer", "solver", "scale"])
def test_every_configuration_composes(group):
    for file in (ROOT / "conf" / group).glob("*.yaml"):
        cfg = sweep._compose("optimality_gap", [f"{group}={file.stem}"], ROOT / "conf")
        assert cfg[group]["name"]


def test_all_analyses_share_the_cores_and_those_that_time_their_cells_run_alone(
    monkeypatch, capsys
):
    beside, alone = [], []

    def pool(names, overrides, workers):
        assert overrides == ["scale=quick"] and workers == 2
        beside.extend(names)
        return iter([0])

    monkeypatch.setattr(listing.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(listing.together, "beside", pool)
    monkeypatch.setattr(listing.sweep, "run", lambda name, overrides: alone.append(name) or 3)
    assert listing.main(["all", "scale=quick"]) == 3
    assert set(alone) == {"activations", "scaling", "solver_race"}
    assert set(beside) | set(alone) == set(listing.listed()) and not set(beside) & set(alone)
    alone.clear()
    assert listing.main(["all", "launcher=local"]) == 3  # a launcher was chosen: one by one
    assert set(alone) == set(listing.listed())
    monkeypatch.setattr(listing.os, "cpu_count", lambda: 1)
    alone.clear()
    assert listing.main(["all"]) == 3 and set(alone) == set(listing.listed())


def test_analyses_beside_one_another_are_heard_and_a_refusal_does_not_stop_the_others(capsys):
    names = ["interpolators", "optimality_gap"]
    assert list(listing.together.beside(names, ["beta=0", "scale=smoke"], 2)) == [2, 2]
    said = capsys.readouterr().err
    assert all(f"{name}: exit status 2" in said for name in names) and "beta is 0" in said
