"""The analysis of convolutions at its smallest scale: what its rows say and its figures plot."""

from __future__ import annotations

import json

import numpy as np
import pytest

from analyses import convolutions, sweep
from landscape.bounds import EXACT
from landscape.store import Store


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convolutions")
    assert sweep.run("convolutions", ["scale=smoke", f"results={folder}"]) == 0
    store = Store(folder / "convolutions")
    return store.table(
        list(json.loads((store.folder / "manifest.json").read_text())["records"])
    ), store


def test_rows_hold_gaps_above_the_bound_and_layers_by_depth(smoke):
    table, store = smoke
    assert set(convolutions.SUMMARY) <= set(table.columns)
    gaps, layers = (table[table["study"] == study].iloc[0] for study in ("gaps", "layers"))
    assert gaps["scope"] == EXACT and -1e-9 <= gaps["gap"] <= 1e-6
    assert gaps["best_gap"] >= gaps["gap"] - 1e-9
    arrays = store.arrays(gaps["key"])
    assert len(arrays["optimal"]) == gaps["active"] and arrays["optimal"].shape[1] == 3
    arrays = store.arrays(layers["key"])
    assert layers["layers"] == 3 and arrays["errors"].shape == (2, 2)
    assert (arrays["gaps"] <= 1e-6).all() and arrays["filters"].shape[1] == 9
    assert layers["test_error_last"] == arrays["errors"][1, -1]


def test_figures_plot_the_records(smoke):
    table, store = smoke
    drawn = convolutions.render(table, store, None)
    assert set(drawn) == {"convolutions", "convolutions_layers"}
    top, below = drawn["convolutions"].axes
    arrays = store.arrays(table[table["study"] == "gaps"].iloc[0]["key"])
    middle = np.maximum(np.median(arrays["gaps"], axis=0), convolutions.FLOOR)
    np.testing.assert_allclose(top.lines[0].get_ydata(), middle)
    points = np.vstack([part.get_offsets() for part in below.collections])
    assert len(points) == len(arrays["optimal"]) + len(arrays["trained"])
    left, objective, gap, tiles = drawn["convolutions_layers"].axes
    arrays = store.arrays(table[table["study"] == "layers"].iloc[0]["key"])
    np.testing.assert_allclose(left.lines[-1].get_ydata(), arrays["errors"][1])
    np.testing.assert_allclose(objective.lines[0].get_ydata(), arrays["objectives"])
    np.testing.assert_allclose(gap.lines[0].get_ydata(), arrays["gaps"])
    one = np.asarray(tiles.images[0].get_array())[:3, :3]
    np.testing.assert_allclose(
        one * np.abs(arrays["filters"][0]).max(), arrays["filters"][0].reshape(3, 3)
    )
