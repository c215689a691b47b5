"""Which analysis runs on which architecture (``python -m analyses matrix``)."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from analyses import sweep

AXES = ("kind", "source")
"""Settings on which it may depend whether a cell applies to an architecture."""

INTRODUCTION = """# Architectures and analyses

`python -m analyses.<analysis> architecture=<architecture>` runs every cell below; a dot is a full
row, a number names what is left out, or why nothing is left. Data that fit the architecture are
chosen where none are given.
"""


def page(analyses: list[str], conf: Path = sweep.CONF) -> str:
    """Return the matrix as a page of Markdown."""
    architectures = {
        file.stem: OmegaConf.load(file) for file in sorted((conf / "architecture").glob("*.yaml"))
    }
    columns = [name for name in analyses if "architecture:" in (conf / f"{name}.yaml").read_text()]
    kinds = {name: _kinds(name, conf) for name in columns}
    notes: dict[str, int] = {}
    lines = [INTRODUCTION]
    lines += ["| architecture | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for label, architecture in architectures.items():
        entries = [_entry(kinds[analysis], architecture, notes) for analysis in columns]
        lines.append(f"| {label} | " + " | ".join(entries) + " |")
    lines += ["", *(f"{number}. {note}" for note, number in notes.items()), ""]
    others = [name for name in analyses if name not in columns]
    if others:
        lines.append(f"Without an architecture to choose: {', '.join(others)}.")
    return "\n".join(lines) + "\n"


def _kinds(analysis: str, conf: Path) -> list[Any]:
    """Return one cell of each kind of an analysis; the smallest scale has all of them."""
    base, _ = sweep.composed(analysis, ["scale=smoke"], conf)
    found = []
    for grid in base.grid.smoke:
        axes = {axis: values for axis, values in grid.items() if axis in AXES}
        for values in itertools.product(*axes.values()):
            cell = base.copy()
            for axis, value in zip(axes, values, strict=True):
                OmegaConf.update(cell, str(axis), value)
            found.append(cell)
    return found


def _entry(kinds: list[Any], architecture: Any, notes: dict[str, int]) -> str:
    """Return a dot, or the numbers of what an analysis leaves out."""
    reasons = []
    for cell in kinds:
        cell.architecture = architecture
        reasons.append(_reason(cell))
    found = dict.fromkeys(reason for reason in reasons if reason)
    numbers = ", ".join(str(notes.setdefault(reason, len(notes) + 1)) for reason in found)
    if all(reasons):
        return f"– {numbers}"
    return f"• without {numbers}" if numbers else "•"


def _reason(cfg: Any) -> str:
    """Return why a cell does not apply, the architecture's name left out."""
    module = importlib.import_module(cfg.module)
    reason = module.lacking(cfg) if hasattr(module, "lacking") else ""
    return reason.split(";")[0].strip(". ")
