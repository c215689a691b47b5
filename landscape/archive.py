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
    path = Path(path).with_suffix(".npz")
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
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays.pop("about").tobytes().decode())
        for name in names:
            arrays[name]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise BadInput(
            f"{path} holds no saved {what} ({type(error).__name__}: {error})."
        ) from error
    return about, arrays
