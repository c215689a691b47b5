"""Files of numbers: ``.npz`` archives with one JSON text, written and read without pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landscape.errors import BadInput


def write(path: str | Path, about: Mapping[str, Any], arrays: Mapping[str, Any]) -> Path:
    """Write arrays and a JSON-ready description; return the path, which ends in ``.npz``."""
    path = Path(path)
    if path.suffix != ".npz":  # added, not put in place of what follows a dot: beta_0.1
        path = path.with_name(f"{path.name}.npz")
    text = np.frombuffer(json.dumps(dict(about)).encode(), dtype=np.uint8)
    np.savez(path, allow_pickle=False, about=text, **arrays)
    return path


def read(path: str | Path, what: str, names: tuple[str, ...] = ()) -> tuple[Any, dict[str, Any]]:
    """Return the description and the arrays of a file that `write` made.

    Args:
        path: the file.
        what: what it should hold, for the refusal.
        names: arrays that must be there.

    Raises:
        BadInput: if the file is not there, not whole, or something else.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = dict(json.loads(arrays.pop("about").tobytes().decode()))
        for name in names:
            arrays[name]
    except (
        OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile
    ) as error:  # fmt: skip
        raise BadInput(
            f"{path} holds no saved {what} ({type(error).__name__}: {error})."
        ) from error
    return about, arrays
