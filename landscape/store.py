"""Records: what a sweep computed, kept so that nothing finished is lost and nothing can execute.

A record is a folder ``records/<key>/`` with ``config.yaml``, ``row.json``, ``arrays.npz`` and
``manifest.json``.  The key is a hash of everything that determines the numbers.  A record is
written to a temporary folder, its manifest last, and renamed: a kill leaves no half record.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from landscape.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
PACKAGES = ("landscape", "numpy", "scipy", "torch", "cvxpy", "clarabel", "hydra-core", "matplotlib")


class MissingRecord(BadInput):
    """A figure asks for a record that the store does not hold."""


def key(config: Mapping[str, Any], versions: Mapping[str, int]) -> str:
    """Return the name of the record of a cell: a hash of its settings and method versions."""
    canonical = json.dumps({"config": config, "versions": dict(versions)}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Store:
    """The records of one analysis.

    Args:
        folder: where they live, ``results/<analysis>``.

    Raises:
        BadInput: if the folder cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.records = self.folder / "records"
        try:
            self.records.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.records):
                pass
        except OSError as error:
            raise BadInput(
                f"results folder {self.folder} cannot be written ({error.strerror}): choose "
                "another with results=<folder>."
            ) from error

    def has(self, name: str) -> bool:
        """Return whether a whole record of this key exists."""
        try:
            return bool(self.manifest(name)["schema"] == SCHEMA)
        except (OSError, ValueError, KeyError):
            return False

    def write(
        self,
        name: str,
        config: Mapping[str, Any],
        row: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        manifest: Mapping[str, Any],
        log: str = "",
    ) -> Path:
        """Write one record whole or not at all; ``log`` is the traceback of a failed cell."""
        prefix = f".{name}.{_node()}-{os.getpid()}."  # says who writes, so that sweep_up can ask
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=self.records))
        try:
            (temporary / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=True))
            (temporary / "row.json").write_text(json.dumps(dict(row), indent=1, default=float))
            plain = {k: np.asarray(v) for k, v in arrays.items()}
            for label, value in plain.items():
                if value.dtype.hasobject:
                    raise BadInput(f"array {label!r} holds objects; a record holds numbers only.")
            if log:
                (temporary / "error.log").write_text(log)
            np.savez_compressed(temporary / "arrays.npz", allow_pickle=False, **plain)
            whole = {"schema": SCHEMA, **manifest}
            (temporary / "manifest.json").write_text(json.dumps(whole, indent=1, default=str))
            target = self.records / name
            self.discard(name)  # an older record of the same key, or a broken one
            os.replace(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return target

    def row(self, name: str) -> dict[str, Any]:
        """Return one record's row, with its key."""
        return {"key": name, **json.loads((self._record(name) / "row.json").read_text())}

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return one record's arrays."""
        with np.load(self._record(name) / "arrays.npz", allow_pickle=False) as archive:
            return {k: archive[k] for k in archive.files}

    def manifest(self, name: str) -> dict[str, Any]:
        """Return one record's manifest."""
        return json.loads((self.records / name / "manifest.json").read_text())

    def table(self, names: Sequence[str]) -> pd.DataFrame:
        """Return the rows of exactly these records, in this order, as one tidy table.

        Raises:
            MissingRecord: naming the first one that is not there.
        """
        import pandas as pd

        return pd.DataFrame([self.row(name) for name in names])

    def discard(self, name: str) -> None:
        """Remove a record, its manifest first: what a kill leaves of it is no record."""
        (self.records / name / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(self.records / name, ignore_errors=True)

    def sweep_up(self) -> None:
        """Remove what killed processes left behind, not what a running one is writing."""
        for left in self.records.glob(".*.*"):
            if not _being_written(left):
                shutil.rmtree(left, ignore_errors=True)

    def _record(self, name: str) -> Path:
        if not self.has(name):
            raise MissingRecord(
                f"record {name} is missing from {self.records}: run the analysis again; finished "
                "cells are not recomputed."
            )
        return self.records / name


def provenance() -> dict[str, Any]:
    """Return commit, versions, threads and platform, for a manifest."""
    import torch
    from threadpoolctl import threadpool_info

    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),  # None: no repository to ask
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: _version(name) for name in PACKAGES},
        "threads": {
            "torch": torch.get_num_threads(),
            **{pool["internal_api"]: pool["num_threads"] for pool in threadpool_info()},
        },
        "dtype": "float64",
    }


def _node() -> str:
    """Return this machine's short name."""
    return platform.node().split(".")[0] or "here"


def _being_written(temporary: Path) -> bool:
    """Return whether the writer of a temporary folder may still be alive."""
    writer = re.fullmatch(r"\.[^.]+\.(.+)-(\d+)\.[^.]+", temporary.name)
    if writer is None:
        return False
    try:
        if writer[1] != _node():  # another machine's process cannot be asked: give it a day
            return time.time() - temporary.stat().st_mtime < 86400
        os.kill(int(writer[2]), 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _git(*command: str) -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *command], cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
