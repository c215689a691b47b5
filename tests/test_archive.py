"""Files of numbers: what was written comes back, names keep their dots, the rest is refused."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from landscape import archive
from landscape.errors import BadInput
from landscape.network import Network

ARRAYS = {
    "x": np.arange(6.0).reshape(2, 3),
    "mask": np.array([True, False]),
    "count": np.array(3),
    "none": np.zeros((0, 2), dtype=np.float32),
}


def text(value):
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def test_arrays_and_description_come_back_as_they_were(tmp_path):
    about = {"name": "β = 0.1", "depth": 3, "nested": {"list": [1, 2.5, None]}}
    path = archive.write(tmp_path / "file", about, ARRAYS)
    found, arrays = archive.read(path, "runs", tuple(ARRAYS))
    assert found == about and set(arrays) == set(ARRAYS)
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[name].dtype == value.dtype and arrays[name].shape == value.shape


@pytest.mark.parametrize("name", ["file", "file.npz", "beta_0.1", "beta_0.05", "a.b.npz"])
def test_only_the_ending_is_added_to_a_name(tmp_path, name):
    """What follows a dot is part of the name: files of two β must not be one."""
    path = archive.write(tmp_path / name, {}, {})
    assert path.name == (name if name.endswith(".npz") else f"{name}.npz")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


BROKEN = {
    "nothing": None,
    "a folder": "folder",
    "text": b"hello",
    "empty": b"",
    "one array": np.ones(3),
    "no description": {"x": np.ones(2)},
    "numbers for a description": {"about": np.array([1.5])},
    "a number described": {"about": text(3)},
    "a list described": {"about": text([1, 2])},
    "half a description": {"about": text({"name": "two_layer"})[:-3]},
    "an array is missing": {"about": text({}), "x": np.ones(2)},
    "another zip": "zip",
    "half a file": "half",
    "a changed byte": "changed",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_archive_is_refused_in_a_sentence(tmp_path, kind):
    path, content = tmp_path / "file.npz", BROKEN[kind]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    elif isinstance(content, np.ndarray):
        with path.open("wb") as file:
            np.save(file, content)
    elif content == "folder":
        path.mkdir()
    elif content == "zip":
        with zipfile.ZipFile(path, "w") as other:
            other.writestr("readme.txt", "hello")
    elif content is not None:
        archive.write(path, {"name": "two_layer"}, {"y": np.ones(2)})
        whole = bytearray(path.read_bytes())
        whole[whole.index(b"two_layer")] ^= 1
        path.write_bytes(whole if content == "changed" else whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"file\.npz holds no saved runs \("):
        archive.read(path, "runs", ("y",))
    with pytest.raises(BadInput):
        Network.load(path)


def test_objects_are_never_written(tmp_path):
    with pytest.raises(ValueError, match="pickle"):
        archive.write(tmp_path / "file", {}, {"x": np.array([object()])})
