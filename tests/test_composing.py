"""Cells composed together are what Hydra composes one by one, and every scale of the project is."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from analyses import _composing, sweep
from landscape.errors import BadInput

ANALYSES = sorted(file.stem for file in sweep.CONF.glob("*.yaml") if "module:" in file.read_text())


def grids(name, scale):
    base, overrides = sweep.composed(name, [f"scale={scale}"], sweep.CONF)
    found = [sweep._grid(grid, overrides) for grid in base.grid[scale]]
    return [_composing._expand(overrides + grid) for grid in found]


@pytest.mark.parametrize("name", ANALYSES)
def test_the_paper_scale_of_every_analysis_composes(name):
    """No test runs these grids: a setting that they misspell would stop a user's first try."""
    ends = [cells[end] for cells in grids(name, "paper") for end in (0, -1)]
    for cfg in _composing._compose_all(name, ends, sweep.CONF):
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize(
    "cells",
    [
        [["beta=1"], ["beta=2.5"], ["beta=null"]],
        [["data=planted", "data.options.n=7", "beta=3"], ["data.options.n=7", "data=planted"]],
        [["data=planted", "+data.options.noise=0.1"], ["data=planted", "data.options.n=9"]],
        [["+data.options={n: 5}", "scale=smoke"]],
        [["data.options.n=9", "data={options: {n: 7}}"]],
        [["loss='squared'", "results='a, b'"]],
        [["~threads"], ["beta=1"]],
        [["++new=[1,2]", "++beta=1"]],
        [["architecture=gated_relu", "data.options.n=9"], ["scale=paper"]],
    ],
)
def test_cells_that_share_a_reading_are_those_that_hydra_composes_alone(cells):
    together = _composing._compose_all("optimality_gap", cells, sweep.CONF)
    for overrides, cfg in zip(cells, together, strict=True):
        alone = _composing._compose("optimality_gap", overrides, sweep.CONF)
        assert OmegaConf.to_yaml(cfg) == OmegaConf.to_yaml(alone)
        assert OmegaConf.to_yaml(cfg, resolve=True) == OmegaConf.to_yaml(alone, resolve=True)


def test_what_is_set_in_one_cell_does_not_reach_the_next():
    """Cells that share a reading are copies of it, down to its lists and groups of settings."""
    first, second = _composing._compose_all(
        "optimality_gap", [["data=planted", "data.options.n=7"], ["data=planted"]], sweep.CONF
    )
    assert first.data.options.n == 7
    alone = _composing._compose("optimality_gap", ["data=planted"], sweep.CONF)
    assert second.data.options.n == alone.data.options.n


@pytest.mark.parametrize(
    "override",
    [
        "betta=1",
        "+scale.name=a",
        "+hydra/launcher=nobody",
        "data.options.m=3",
        "data@here=planted",
        "data=plantet",
    ],
)
def test_what_hydra_refuses_is_refused_among_others(override):
    with pytest.raises(BadInput):
        _composing._compose_all("optimality_gap", [["beta=1"], [override]], sweep.CONF)
