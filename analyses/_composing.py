"""Composing cells with Hydra: overrides as it reads them, and its errors in one sentence."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from landscape.errors import BadInput


def _is_sweep(override: str) -> bool:
    return bool(_parsed([override])[0].is_sweep_override())


def _parsed(overrides: list[str]) -> list[Any]:
    """Return overrides as Hydra reads them, refusing what it cannot read."""
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        raise BadInput(
            f"{error.override!r} is no setting that Hydra can read: write key=value, "
            "or key=value,value to sweep."
        ) from error


def _expand(overrides: list[str]) -> list[list[str]]:
    """Return the override lists of all cells, expanded by Hydra's own sweeper."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    batches = BasicSweeper.split_arguments(_parsed(overrides), max_batch_size=None)
    return [list(cell) for batch in batches for cell in batch]


def _compose(name: str, overrides: list[str], conf: Path, **options: Any) -> DictConfig:
    """Compose one configuration; an error becomes a sentence with the nearest known name."""
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf), version_base="1.3"):
            return hydra.compose(config_name=name, overrides=overrides, **options)
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(_sentence(error, name, conf)) from error


def _compose_all(name: str, cells: Iterable[Sequence[str]], conf: Path) -> list[DictConfig]:
    """Compose many configurations; those of the same groups share one reading of the files."""
    shared: dict[tuple[str, ...], DictConfig] = {}
    composed = []
    for overrides in map(list, cells):
        parsed = _parsed(overrides)
        groups = tuple(
            o.input_line
            for o in parsed
            if (conf / o.key_or_group).is_dir() and isinstance(o.value(), str)
        )
        if groups not in shared:
            shared[groups] = _compose(name, list(groups), conf)
        cfg = copy.deepcopy(shared[groups])
        simple = all(_set(cfg, o) for o in parsed if o.input_line not in groups)
        composed.append(cfg if simple else _compose(name, overrides, conf))
    return composed


def _set(cfg: DictConfig, override: Any) -> bool:
    """Set the value of a key that is there, or of a new one; return whether that is all it asks."""
    key = override.key_or_group
    adds = override.type is OverrideType.ADD
    try:
        if override.package or override.is_sweep_override() or key.startswith("hydra"):
            return False
        if adds and OmegaConf.select(cfg, key) is not None:
            return False
        if adds or override.type is OverrideType.CHANGE:
            OmegaConf.update(cfg, key, override.value(), merge=True, force_add=adds)
            return True
    except OmegaConfBaseException:  # Hydra will say why
        pass
    return False


def _sentence(error: Exception, name: str, conf: Path) -> str:
    """Return Hydra's message in one sentence, with the nearest key or option."""
    text = " ".join(str(error).split())
    if option := re.search(r"[Cc]ould not find '([\w/]+)/([\w.]+)'", text):
        if option[1] == "hydra/launcher":
            return (
                f"launcher {option[2]!r} needs a Hydra plugin that is not installed: "
                f"pip install hydra-{option[2].split('_')[0]}-launcher."
            )
        known = sorted(p.stem for p in (conf / option[1]).glob("*.yaml"))
        return f"Unknown {option[1]} {option[2]!r}.{_near(option[2], known)} Known: {known}."
    found = re.search(r"(?:Key|override) '([\w.@/]+)'", text)
    if found and any(part in text for part in ("struct", "No match", "Could not override")):
        with hydra.initialize_config_dir(str(conf), version_base="1.3"):
            known = _flat(hydra.compose(config_name=name))
        return f"Unknown setting {found[1]!r}.{_near(found[1], known)} See conf/{name}.yaml."
    return text


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f" Did you mean {close[0]!r}?" if close else ""


def _flat(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Return the dotted names of all settings."""
    names = []
    for label in cfg:
        names.append(f"{prefix}{label}")
        node = cfg._get_node(str(label))
        if isinstance(node, DictConfig):
            names += _flat(node, f"{prefix}{label}.")
    return names
