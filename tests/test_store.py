"""Records: whole or absent, keyed by what determines numbers, unable to execute."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

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
