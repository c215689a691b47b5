"""Records: whole or absent, keyed by what determines numbers, unable to execute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from landscape import store as stores
from landscape.errors import BadInput


@pytest.fixture
def store(tmp_path):
    return stores.Store(tmp_path / "analysis")


def write(store, name="abc", row=None, arrays=None):
    return store.write(name, {"beta": 0.1}, row or {"gap": 0.5}, arrays or {"x": np.arange(3)}, {})


def test_a_record_comes_back(store):
    write(store)
    assert store.row("abc") == {"key": "abc", "gap": 0.5}
    assert store.arrays("abc")["x"].tolist() == [0, 1, 2]
    assert store.table(["abc"])["gap"].tolist() == [0.5]


def test_key_depends_on_settings_and_versions_not_on_order():
    key = stores.key({"a": 1, "b": 2}, {"train": 1})
    assert key == stores.key({"b": 2, "a": 1}, {"train": 1})
    assert key != stores.key({"a": 1, "b": 3}, {"train": 1})
    assert key != stores.key({"a": 1, "b": 2}, {"train": 2})


@pytest.mark.parametrize("damage", ["gone", "empty", "schema"])
def test_without_a_sound_manifest_there_is_no_record(store, damage):
    manifest = write(store) / "manifest.json"
    if damage == "gone":
        manifest.unlink()
    else:
        manifest.write_text("" if damage == "empty" else json.dumps({"schema": 99}))
    assert not store.has("abc")
    with pytest.raises(stores.MissingRecord, match="record abc is missing"):
        store.table(["abc"])
    write(store)  # and it can be written again
    assert store.has("abc")


def test_a_failed_write_leaves_nothing(store):
    with pytest.raises(BadInput, match="objects"):
        write(store, arrays={"x": np.array([object()])})
    assert not store.has("abc")
    assert list(store.records.iterdir()) == []


def test_what_a_killed_process_left_is_swept_up(store):
    (store.records / ".abc.tmp123").mkdir()
    write(store)
    store.sweep_up()
    assert [p.name for p in store.records.iterdir()] == ["abc"]


def test_what_a_running_process_writes_is_left_alone(store):
    mine = store.records / f".abc.{stores._node()}-{os.getpid()}.x"
    mine.mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (store.records / f".abc.{stores._node()}-{gone.pid}.x").mkdir()
    store.sweep_up()
    assert list(store.records.iterdir()) == [mine]


def test_pickles_are_not_read(store):
    folder = write(store)
    np.savez(folder / "arrays.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        store.arrays("abc")


def test_an_unwritable_folder_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        stores.Store(tmp_path / "file" / "analysis")


def test_provenance_names_versions_and_threads():
    about = stores.provenance()
    assert about["versions"]["numpy"] == np.__version__
    assert about["threads"]["torch"] >= 1


def test_the_log_of_a_failure_is_kept_and_only_then(store):
    folder = store.write("bad", {}, {"gap": 1}, {}, {}, log="Traceback: no luck")
    assert (folder / "error.log").read_text() == "Traceback: no luck"
    assert not (write(store) / "error.log").exists()


def test_a_record_is_replaced_whole(store):
    first = store.write("abc", {"beta": 0.1}, {"gap": 0.5}, {"x": np.ones(2)}, {}, log="failed")
    write(store, row={"best": 2.0}, arrays={"y": np.zeros((0, 3))})
    assert store.row("abc") == {"key": "abc", "best": 2.0}
    assert set(store.arrays("abc")) == {"y"} and store.arrays("abc")["y"].shape == (0, 3)
    assert not (first / "error.log").exists()
    assert [p.name for p in store.records.iterdir()] == ["abc"]


def test_rows_and_manifests_hold_what_plain_files_can(store, tmp_path):
    row = {"gap": np.float32(0.5), "n": np.int64(3), "name": "ŷ", "none": None, "nan": float("nan")}
    manifest = {"seconds": 1.5, "where": tmp_path, "versions": {"a": 1}}
    folder = store.write("abc", {"b": [1, {"c": None}], "a": "β"}, row, {}, manifest)
    found = store.row("abc")
    assert found["gap"] == 0.5 and found["n"] == 3 and found["name"] == "ŷ"
    assert found["none"] is None and np.isnan(found["nan"])
    assert store.manifest("abc") == {
        "schema": stores.SCHEMA, "seconds": 1.5, "where": str(tmp_path), "versions": {"a": 1}
    }  # fmt: skip
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {"a": "β", "b": [1, {"c": None}]}


def test_tables_keep_the_order_asked_for_and_fill_what_is_missing(store):
    for name, row in (("b", {"gap": 1.0}), ("a", {"gap": 2.0, "more": 3.0})):
        write(store, name, row)
    table = store.table(["b", "a"])
    assert table["key"].tolist() == ["b", "a"] and table["gap"].tolist() == [1.0, 2.0]
    assert np.isnan(table["more"][0]) and table["more"][1] == 3.0
    assert len(store.table([])) == 0
    store.discard("a")
    store.discard("never there")
    assert store.has("b") and not store.has("a")
    with pytest.raises(stores.MissingRecord, match="record a is missing"):
        store.table(["b", "a"])


@pytest.mark.parametrize(("hours", "left"), [(1, True), (23, True), (25, False)])
def test_what_another_machine_writes_is_given_a_day(store, hours, left):
    folder = store.records / ".abc.elsewhere-1.x"
    folder.mkdir()
    then = time.time() - 3600 * hours
    os.utime(folder, (then, then))
    store.sweep_up()
    assert folder.exists() == left


def test_a_process_that_may_not_be_asked_is_alive(store, monkeypatch):
    def refused(pid, signal):
        assert (pid, signal) == (42, 0)
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    folder = store.records / f".abc.{stores._node()}-42.x"
    folder.mkdir()
    store.sweep_up()
    assert folder.exists()


def test_provenance_without_a_repository_says_so(monkeypatch):
    monkeypatch.setattr(stores, "_git", lambda *command: None)
    about = stores.provenance()
    assert about["commit"] is None and about["dirty"] is None
    for said, dirty in (("", False), (" M file", True)):
        monkeypatch.setattr(stores, "_git", lambda *command, said=said: said)
        assert stores.provenance()["dirty"] is dirty
    assert about["dtype"] == "float64" and stores._version("no such package") is None
