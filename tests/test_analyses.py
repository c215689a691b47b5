"""Analyses at their smallest scale: what their rows say and what their figures plot."""

from __future__ import annotations

import fcntl
import importlib
import json
import os

import numpy as np
import pytest

from analyses import landscape_slices, pattern_sampling, scaling, solver_race, sweep, trajectories
from landscape import figures
from landscape.store import Store

NAMES = (
    "attention", "depth", "generative", "interpolators", "landscape_slices", "neuron_sparsity",
    "normalisation", "optimal_set", "optimizers", "outputs", "path_connectivity",
    "pattern_sampling", "regularisation_path", "scaling", "solver_race", "spurious_minima",
    "stationary_points", "trajectories",
)  # fmt: skip


class Smoke(dict):
    """Analyses run once at their smallest scale: table, store and figures by name.

    Test processes share the folder: what one has computed is a record for the other.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __missing__(self, name):
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self[name] = run(name, self.folder)
        return self[name]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()  # one a test process, in the folder of the run
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "smoke"
    folder.mkdir(exist_ok=True)
    return Smoke(folder)


def run(name, folder, *overrides):
    with pytest.MonkeyPatch.context() as patch:  # drawn below; files take half of the time
        patch.setattr(sweep.figures, "save", lambda figure, path: [])
        assert sweep.run(name, ["scale=smoke", f"results={folder}", *overrides]) == 0
    store = Store(folder / name)
    table = store.table(list(json.loads((store.folder / "manifest.json").read_text())["records"]))
    return table, store, draw(name, table, store)


def draw(name, table, store, *overrides):
    cfg = sweep._compose(name, ["scale=smoke", *overrides], sweep.CONF)
    return importlib.import_module(f"analyses.{name}").render(table, store, cfg)


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize("name", NAMES)
def test_a_smoke_run_draws_full_panels_and_a_summary(smoke, name):
    table, store, drawn = smoke[name]
    module = importlib.import_module(f"analyses.{name}")
    assert name in drawn and set(module.SUMMARY) <= set(table.columns)
    assert (store.folder / "summary.md").read_text().startswith(f"# {name}")
    for figure in drawn.values():
        panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
        assert panels and all(ax.lines for ax in panels)
        assert figure.get_size_inches()[0] in (
            figures.ICML_SINGLE, figures.NEURIPS, figures.ICML_DOUBLE
        )  # fmt: skip


def test_heights_stand_on_the_floor_and_pictures_are_not_turned(smoke):
    table, store, drawn = smoke["landscape_slices"]
    row = table.iloc[0]
    arrays = store.arrays(row["key"])
    assert row["scope"] == "all patterns, exact" and row["largest_cosine"] <= 1e-12
    trained = [row["trained"], row["other"], row["optimum"]]
    for (x, y), value in zip(arrays["marks"], trained, strict=True):
        at = int(np.argmin(abs(arrays["plane_x"] - x))), int(np.argmin(abs(arrays["plane_y"] - y)))
        height = (value - row["floor"]) / row["floor"]
        assert arrays["plane"][at] == pytest.approx(height, abs=1e-9)
    on_line = arrays["plane"][:, np.flatnonzero(arrays["plane_y"] == 0.0)[0]]
    between = (arrays["plane_x"] >= 0) & (arrays["plane_x"] <= arrays["marks"][1, 0])
    highest = (row["highest_on_segment"] - row["floor"]) / row["floor"]
    assert on_line[between].max() <= highest * (1 + 1e-9)  # no sample exceeds the certified top
    assert row["barrier"] >= 0 and all((arrays[k] > -1e-9).all() for k in ("plane", "path"))
    panel = drawn["landscape_slices"].axes[0]
    optimum = next(one for one in panel.lines if "optimum" in one.get_label())
    assert [*optimum.get_xdata(), *optimum.get_ydata()] == arrays["marks"][2].tolist()
    assert panel.get_xlim() == (arrays["plane_x"][0], arrays["plane_x"][-1])


def test_slices_at_the_optimum_reach_the_floor_and_those_at_trained_networks_stop_above(smoke):
    table, store, _ = smoke["landscape_slices"]
    arrays = store.arrays(table.iloc[0]["key"])
    assert arrays["line_optimum"].min() < landscape_slices.LEAST < arrays["line_filter"].min()


def test_restricted_optima_lie_above_the_bound_and_fall_with_patterns(smoke):
    table, store, drawn = smoke["pattern_sampling"]
    table = table[table["source"] != "growth"]
    optimum, exact = pattern_sampling.reference(table)
    assert exact
    rows = {row["source"]: store.arrays(row["key"])["objectives"] for _, row in table.iterrows()}
    assert all(np.nanmin(values) >= optimum for values in rows.values())
    assert (np.diff(rows["gaussian"], axis=0) <= 0).all()  # a seed's patterns are nested
    assert rows["every"].item() == pytest.approx(optimum, rel=1e-9)
    ax = drawn["pattern_sampling"].axes[0]
    every = [one for one in ax.lines if one.get_label() == "all patterns"]
    assert every[0].get_ydata().tolist() == [pattern_sampling.FLOOR]
    assert every[0].get_xdata().tolist() == [134.0]


def test_the_best_objective_stands_in_for_a_bound_only_by_name(smoke):
    table, store, _ = smoke["pattern_sampling"]
    table = table[table["source"] != "growth"].assign(scope="all patterns, local search", dual=9.0)
    optimum, exact = pattern_sampling.reference(table)
    assert not exact and optimum == table["objective"].min()
    drawn = draw("pattern_sampling", table, store)
    assert "best found, no bound" in drawn["pattern_sampling"].axes[0].get_title()


def test_the_ratio_curve_is_fitted_by_least_squares():
    sizes = np.array([10, 100, 1000])
    assert pattern_sampling.constant(sizes, 1 + 0.3 * np.sqrt(np.log(sizes))) == pytest.approx(0.3)


def test_exponents_come_from_the_largest_sizes_with_their_error():
    sizes = np.array([1.0, 2, 4, 8, 16, 32])
    times = 3 * sizes**1.5
    times[:2] = 50  # overhead, outside the fit
    power, error, _ = scaling.exponent(sizes, times)
    assert power == pytest.approx(1.5) and error == pytest.approx(0, abs=1e-12)
    times[-1] *= 2
    assert scaling.exponent(sizes, times)[1] > 0.1
    assert np.isnan(scaling.exponent(sizes[:2], times[:2])[0])


def test_memory_below_the_floor_stands_on_it(smoke):
    table, store, _ = smoke["scaling"]
    drawn = draw("scaling", table.assign(megabytes=-0.1), store)["scaling"]
    assert drawn.axes[-1].lines[0].get_ydata().tolist() == [scaling.LEAST] * 3


def test_peak_memory_counts_what_a_call_held_and_gave_back():
    if np.isnan(scaling._memory("VmHWM")):
        pytest.skip("this system does not tell")  # only Linux has /proc/self/status
    before = scaling._reset_peak()
    np.ones(40_000_000 // 8).sum()
    assert 35 < scaling._memory("VmHWM") - before < 60


def test_paths_meet_on_one_grid_at_their_last_values():
    x = np.array([[1.0, 2.0], [4.0, 8.0], [np.nan, 16.0]])
    grid, values = figures.on_grid(x, np.array([[9.0, 7.0], [5.0, 3.0], [np.nan, 1.0]]), 4)
    assert grid.tolist() == pytest.approx([2, 4, 8, 16])
    assert values.T.tolist() == [[9, 5, 5, 5], [7, 7, 3, 1]]


def test_records_of_other_projects_stand_at_their_ratio_to_our_time(smoke, tmp_path):
    row = {"method": "scnn", "seconds": 14, "relative_gap": 1e-2, "violation": 2e-4, "ratio": 40}
    whole = {"data": "planted", "n": 12, "d": 3, "patterns": 4}
    rows = [row, {**row, "method": "landscape"}, {"method": "celer", "missing": "not built"}]
    (tmp_path / "given_a.json").write_text(json.dumps({**whole, "rows": rows}))
    (tmp_path / "given_b.json").write_text(json.dumps({**whole, "n": 13, "rows": rows}))
    (tmp_path / "all.json").write_text(json.dumps({"n": 12, "d": 3, "rows": [{"method": "x"}]}))
    assert solver_race.recorded(tmp_path, "planted", 12, 3, 4) == [row]
    table, store, _ = smoke["solver_race"]
    drawn = draw("solver_race", table, store, f"figure.benchmarks={tmp_path}")["solver_race"]
    ours = table[table["method"] == "fast"]["seconds"].item()
    points = {one.get_label(): one for one in drawn.axes[0].lines}
    assert points["scnn"].get_xdata()[0] == pytest.approx(40 * ours)
    assert points["scnn"].get_ydata()[0] == 1e-2
    assert "scnn" in labels(drawn) and "landscape" not in labels(drawn)


def test_polished_networks_are_their_own_convex_optima(smoke):
    table, store, drawn = smoke["stationary_points"]
    row = table.iloc[0]
    assert row["stationary"] == row["networks"] == 6
    assert row["largest_residual"] <= 1e-7 and 0 <= row["largest_own_gap"] <= 1e-6
    assert row["raw_own_gap"] > row["largest_own_gap"]
    assert row["false_global"] == row["false_spurious"] == 0
    arrays = store.arrays(row["key"])
    assert (arrays["objectives"] >= row["dual"]).all()
    assert (arrays["unsigned"] >= -1e-8).all() and len(arrays["unsigned"]) == 2
    x, y = drawn["stationary_points"].axes[0].lines[1].get_data()
    np.testing.assert_allclose(x, y, rtol=1e-6)  # on the diagonal


def test_the_census_counts_points_and_its_paths_do_not_rise(smoke):
    table, store, drawn = smoke["spurious_minima"]
    row = table.iloc[0]
    arrays = store.arrays(row["key"])
    assert row["global"] + row["spurious"] + row["not_stationary"] <= 1
    assert row["global"] == np.mean(arrays["gaps"] <= 1e-6)
    assert 0 < row["distinct"] <= row["networks"] == 6
    assert 0 <= row["largest_rise"] <= 1e-10 and 0 <= row["rise_bound"] <= 1e-8
    assert arrays["path_gaps"].shape == (3, 91)
    assert (np.diff(arrays["path_gaps"]) <= 1e-9).all()
    assert drawn["spurious_minima"].axes[-1].get_xticklabels()[0].get_text() == "balance"


def test_optimisers_end_above_the_floor_and_polishing_lowers_them(smoke):
    table, store, _ = smoke["optimizers"]
    for _, row in table.iterrows():
        arrays = store.arrays(row["key"])
        assert (arrays["polished_objectives"] >= row["floor"]).all()
        assert (arrays["polished_gaps"] <= arrays["trained_gaps"] + 1e-12).all()
        assert (arrays["trained_own_gaps"] >= 0).all()
        assert (arrays["polished_neurons"] <= row["width"]).all()
        assert row["global"] + row["spurious"] <= row["seeds"] == 3


def test_bounds_along_training_lie_between_the_floor_and_the_network(smoke):
    table, store, _ = smoke["trajectories"]
    for _, row in table.iterrows():
        arrays = store.arrays(row["key"])
        assert arrays["steps"][0] == 0 and arrays["steps"][-1] == row["steps"]
        assert (arrays["own_bounds"] >= row["floor"] * (1 - 1e-9)).all()
        assert (arrays["own_bounds"] <= arrays["own"]).all()
        assert (arrays["own"] <= arrays["objectives"] * (1 + 1e-9)).all()
        assert (arrays["prices"] > 1).all()
        assert (arrays["same"][-1] == 1).all() and (arrays["weighted"][-1] == 1).all()


def test_patterns_are_followed_neuron_by_neuron():
    design = np.eye(2)
    hidden = np.array([[[[1.0, 1.0], [1, 1]]], [[[-1, 1], [1, 1]]], [[[-1, 1], [3, 1]]]])
    output = np.array([[[1.0, 1.0]], [[1, 1]], [[1, -1]]])
    changed, same, weighted = trajectories.follow(hidden, output, design)
    assert changed.ravel().tolist() == [0.25, 0]
    assert same.ravel().tolist() == [0, 0.5, 1]  # the second neuron's sign comes last
    assert weighted.ravel()[1] == pytest.approx(2**0.5 / (2**0.5 + 10**0.5))
    shares = np.array([[0.2], [0.9], [0.4], [0.8]])
    assert trajectories.settled(shares, 0.5).tolist() == [3]
    assert trajectories.settled(shares, 0.1).tolist() == [0]


@pytest.mark.parametrize(
    ("name", "override", "sentence"),
    [
        ("pattern_sampling", "source=gausian", "gaussian"),
        ("scaling", "task=enumerat", "enumerate"),
        ("solver_race", "method=fats", "fast"),
        ("solver_race", "launcher=joblib", "launcher=local"),
        ("scaling", "launcher=joblib", "launcher=local"),
    ],
)
def test_unknown_axes_end_in_a_sentence(tmp_path, capsys, name, override, sentence):
    assert sweep.run(name, ["scale=smoke", f"results={tmp_path}", override]) == 2
    assert sentence in capsys.readouterr().err


def test_the_staircase_is_drawn_as_counted(smoke):
    table, store, drawn = smoke["optimal_set"]
    rows = table.set_index("data")
    assert rows.loc["3-gon", ["m_star", "M_star", "theorem_width"]].tolist() == [2, 3, 4]
    assert rows.loc["toy_sqrt3", ["m_star", "M_star", "connected_width"]].tolist() == [1, 2, 3]
    assert rows.loc["planted", "unique"]
    stairs = {line.get_label(): line for line in drawn["optimal_set"].axes[0].lines}
    assert stairs["3-gon"].get_xydata().tolist() == [[2, 6], [3, 15], [4, 1], [5, 1]]
    arrays = store.arrays(rows.loc["3-gon", "key"])
    assert arrays["range"].max() == pytest.approx(rows.loc["3-gon", "largest_range"])
    assert arrays["range"].max() > 0.1


def test_interpolators_of_one_norm_are_drawn_with_their_differences(smoke):
    table, store, drawn = smoke["interpolators"]
    assert (table["norm"] - table["n"] - 1).abs().max() <= 1e-9
    assert (table["bound"] - table["n"] - 1).abs().max() <= 1e-9
    assert (table["largest_range"] > 0.5).all() and (table["norm_spread"] <= 1e-8).all()
    top, below = (drawn["interpolators"].axes[i] for i in (0, len(table)))
    arrays = store.arrays(table["key"].iloc[0])
    at_samples = [np.interp(arrays["x"], *line.get_data()) for line in below.lines[:-1]]
    assert np.abs(at_samples).max() <= 0.05  # members meet at the samples, up to the grid
    assert len(top.lines) == len(below.lines) == len(arrays["outputs"]) + 1


def test_barriers_are_zero_within_components_and_by_the_theory(smoke):
    table, store, drawn = smoke["path_connectivity"]
    rows = table.set_index("ends")
    toy = store.arrays(rows.loc["optima", "key"])
    assert toy["components"].tolist() == [1, 3, 1]
    assert rows.loc["optima", "largest_within"] <= 1e-9
    assert rows.loc["optima", "least_between"] > 1e-3
    trained = store.arrays(rows.loc["trained", "key"])
    assert trained["barriers"].shape == (6, 1, 1)
    assert trained["barriers"][4:].max() <= 1e-9 < trained["barriers"][0].min()
    optima = table[table["ends"] == "optima"].iloc[0]
    assert optima["walked"] == 2 and optima["largest_walk"] <= 1e-10  # one at width 2, one at 3
    shown = drawn["path_connectivity_optima"].axes[0].lines[0]
    assert shown.get_xydata().tolist() == [[1, 1], [2, 3], [3, 1]]


def test_the_derivative_of_the_path_is_the_penalty(smoke):
    table, store, drawn = smoke["regularisation_path"]
    row, arrays = table.iloc[0], store.arrays(table["key"].iloc[0])
    assert row["derivative_outside"] == 0 and row["concavity"] == 0
    assert (arrays["low"] <= arrays["slope"] * (1 + 1e-12)).all()
    assert (arrays["high"] >= arrays["slope_near"] * (1 - 1e-12)).all()
    # The intervals are sharp enough to tell: a penalty off by one per cent falls outside.
    inside = slice(1, None)
    assert (arrays["low"][inside] > 0.99 * arrays["slope_near"][inside]).all()
    assert (arrays["high"][inside] < 1.01 * arrays["slope"][inside]).all()
    assert (np.diff(arrays["betas"]) < 0).all() and arrays["neurons"][0] == 0
    assert (arrays["neurons"] <= row["n"]).all()
    assert drawn["regularisation_path"].axes[0].get_xlim()[0] > arrays["betas"][0]


def test_counts_of_neurons_and_what_pruning_costs(smoke):
    table, store, drawn = smoke["neuron_sparsity"]
    rows = table.set_index("against")
    assert (rows["minimal"] == rows["rank"]).all() and (rows["minimal"] <= rows["n"]).all()
    known = rows["m_star"].notna()
    assert known.any()
    minimal, least, most = (rows[known][k] for k in ("minimal", "m_star", "M_star"))
    assert ((least <= minimal) & (minimal <= most)).all()
    arrays = store.arrays(rows.loc["beta", "key"])
    counts = arrays["counts_adam"]  # (tolerances, betas, seeds)
    assert (np.diff(counts, axis=0) <= 0).all() and counts.max() <= 8  # the width of training
    assert (arrays["excess_adam"] >= -1e-12).all()
    assert counts.shape[1] == len(arrays["at"]) == len(arrays["minimal"])
    training = store.arrays(rows.loc["training", "key"])
    assert (training["counts_adam"][0, 0] == 8).all()  # before the first step all are in use
    pruned = store.arrays(rows.loc["pruning", "key"])
    left, excess = pruned["optimal_corrected_neurons"], pruned["optimal_corrected_excess"]
    assert excess[left >= rows.loc["pruning", "minimal"]].max() <= 1e-8
    assert (excess[left < rows.loc["pruning", "minimal"]] > 1e-6).all()
    for baseline in ("magnitude", "gradient", "activation", "random"):
        corrected, plain = (pruned[f"{baseline}{k}_excess"] for k in ("_corrected", ""))
        assert (corrected <= plain + 1e-9).all() and plain.max() > 1e-3
    # The last panels: pruning, each curve down to no neurons.
    line = drawn["neuron_sparsity_pruning"].axes[0].lines[0]
    assert line.get_xdata()[-1] == 0


def test_counts_along_training_are_those_of_the_last_snapshot():
    from analyses.neuron_sparsity import _on

    counts = np.array([[5, 4, 2]])
    found = _on(np.array([0.0, 0.4, 3.0, 9.9, 10.0]), np.array([0, 3, 10]), counts)
    assert found.tolist() == [[5, 5, 4, 2, 2]]
