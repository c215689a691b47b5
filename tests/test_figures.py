"""Figures: style stays inside its block, bytes repeat, medians and floors are what they say."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import image

from landscape import figures


def draw():
    with figures.style():
        fig = figures.new(figures.ICML_SINGLE, 2.0)
        ax = fig.subplots()
        values = np.array([[1.0, 0.1], [2.0, 0.0], [4.0, 0.3]])
        figures.median_band(ax, [1, 2], values, "adam", floor=1e-9)
        figures.gap_axis(ax, 1e-9)
    return fig, ax


def test_same_figure_same_bytes(tmp_path):
    first = [p.read_bytes() for p in figures.save(draw()[0], tmp_path / "a")]
    second = [p.read_bytes() for p in figures.save(draw()[0], tmp_path / "b")]
    assert first == second
    assert b"CreationDate" not in first[0]


def coloured(layout: Any = "constrained"):
    """Draw two maps with a colour bar each, a legend below, a line above."""
    with figures.style():
        fig = figures.new(figures.ICML_SINGLE, 2.0)
        fig.set_layout_engine(layout)
        axes = fig.subplots(1, 2)
        for k, ax in enumerate(axes):
            fig.colorbar(ax.imshow(np.arange(12.0).reshape(3, 4) * 900**k), ax=ax, shrink=0.8)
            ax.plot([0, 1], [1, 2], **figures.method("adam"))
        figures.legend(fig, axes, 1)
        figures.note(fig, "1 of 2 cells failed")
    return fig


@pytest.mark.parametrize(
    "make", [lambda: draw()[0], coloured, lambda: coloured("tight"), lambda: coloured("none")]
)
def test_a_figure_saved_again_has_the_same_bytes_and_is_left_as_it_was(tmp_path, make):
    fig = make()
    before = (fig.dpi, fig.canvas, type(fig.get_layout_engine()))
    places = [ax.get_position(original=True).bounds for ax in fig.axes]
    once = [p.read_bytes() for p in figures.save(fig, tmp_path / "a")]
    assert (fig.dpi, fig.canvas, type(fig.get_layout_engine())) == before
    assert [ax.get_position(original=True).bounds for ax in fig.axes] == places
    assert [p.read_bytes() for p in figures.save(fig, tmp_path / "a")] == once
    assert [p.read_bytes() for p in figures.save(make(), tmp_path / "b")] == once


@pytest.mark.parametrize("broken", ["FigureCanvasAgg.print_png", "FigureCanvasPdf.print_pdf"])
def test_a_save_that_fails_leaves_both_old_files_and_the_figure(tmp_path, monkeypatch, broken):
    old = [p.read_bytes() for p in figures.save(draw()[0], tmp_path / "a")]
    fig = coloured()
    engine, dpi = fig.get_layout_engine(), fig.dpi

    def fails(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(f"landscape.figures.{broken}", fails)
        with pytest.raises(OSError, match="no space"):
            figures.save(fig, tmp_path / "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdf", "a.png"]
    assert [(tmp_path / f"a.{kind}").read_bytes() for kind in ("pdf", "png")] == old
    assert fig.get_layout_engine() is engine and fig.dpi == dpi
    again = [p.read_bytes() for p in figures.save(fig, tmp_path / "a")]
    assert again == [p.read_bytes() for p in figures.save(coloured(), tmp_path / "b")]


def test_a_png_has_three_hundred_dots_an_inch(tmp_path):
    _, png = figures.save(draw()[0], tmp_path / "a")
    assert image.imread(png).shape[:2] == (600, 975)


def test_style_does_not_leak():
    before = dict(mpl.rcParams)
    draw()
    assert dict(mpl.rcParams) == before


def test_medians_and_quartiles_are_drawn_and_zeros_sit_on_the_floor():
    _, ax = draw()
    assert ax.lines[0].get_ydata().tolist() == [2.0, 0.1]
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == 3.0 and band.min() == np.quantile([0.1, 1e-9, 0.3], 0.25)
    assert ax.get_yscale() == "log"
    assert ax.texts[0].get_text() == "below solver tolerance"


def test_size_is_final():
    fig, _ = draw()
    assert fig.get_size_inches().tolist() == [3.25, 2.0]


def test_one_colour_and_marker_a_method():
    for family in (figures.METHODS, figures.ACTIVATIONS):
        assert len({colour for colour, _ in family.values()}) == len(family)
    assert not set(figures.METHODS) & set(figures.ACTIVATIONS)


@pytest.mark.parametrize("name", ["panel", "beta_0.1", "panel.pdf", "panel.png"])
def test_only_the_ending_is_added_to_a_name(tmp_path, name):
    """What follows a dot is part of the name: figures of two β must not be one file."""
    paths = figures.save(figures.new(1.0, 1.0), tmp_path / name)
    written = [file.name for file in tmp_path.iterdir()]
    stem = name.removesuffix(".pdf").removesuffix(".png")
    assert [p.name for p in paths] == [f"{stem}.pdf", f"{stem}.png"]
    assert sorted(written) == [f"{stem}.pdf", f"{stem}.png"]


def test_a_method_that_is_not_listed_is_grey_under_its_own_name():
    line = figures.method("nobody")
    assert line == {"color": "#777777", "marker": "x", "label": "nobody"}
    assert figures.method("adam") == {"color": "#0072B2", "marker": "o", "label": "Adam"}
    assert figures.method("relu")["color"] == figures.ACTIVATIONS["relu"][0]


@pytest.mark.parametrize("highest", [1e-12, 1e-3])
def test_a_gap_axis_shows_the_floor_and_what_lies_above_it(highest):
    ax = figures.new(2.0, 2.0).subplots()
    ax.plot([1, 2], [highest, 1e-13])
    ax.set_yscale("log")
    top = ax.get_ylim()[1]
    figures.gap_axis(ax, 1e-9, "nothing is known here")
    assert ax.get_yscale() == "log" and ax.texts[0].get_text() == "nothing is known here"
    assert ax.get_ylim() == pytest.approx((2e-10, max(top, 1e-7)))
    band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((2e-10, 1e-9))
    assert ax.texts[0].xy[1] == 1e-9


def test_sizes_are_all_named_or_in_steps_of_one_two_five():
    for sizes, labels in (
        ([3, 7, 40], ["3", "7", "40"]),
        (range(1, 8), ["1", "2", "3", "4", "5", "6", "7"]),
        (range(2, 60), ["2", "5", "10", "20", "50"]),
        ([10, 20, 30, 40, 50, 60, 80, 100], ["10", "20", "50", "100"]),
    ):
        ax = figures.new(2.0, 2.0).subplots()
        ax.plot(list(sizes), list(sizes))
        figures.sizes_axis(ax, list(sizes))
        assert [t.get_text() for t in ax.get_xticklabels()] == labels
        assert ax.get_xticks().tolist() == [float(label) for label in labels]
        assert ax.get_xscale() == "log" and not len(ax.get_xticks(minor=True))


@pytest.mark.parametrize(
    ("x", "least", "limits"),
    [
        ((0.5, 3000.0), 0.0, (0.5, 3000.0)),
        ((2.0, 7.0), 0.0, (1.0, 10.0)),
        ((20.0, 150.0), 0.0, (10.0, 150.0)),
        ((1e-9, 5.0), 0.02, (0.02, 5.0)),
        ((1e-9, 50.0), 3.0, (1.0, 50.0)),
    ],
)
def test_two_powers_of_ten_are_in_sight(x, least, limits):
    ax = figures.new(2.0, 2.0).subplots()
    ax.set_xscale("log")
    ax.set_xlim(*x)
    figures.decades_axis(ax, least)
    assert ax.get_xlim() == pytest.approx(limits)
    low, high = ax.get_xlim()
    assert np.floor(np.log10(high)) - np.ceil(np.log10(low)) >= 1


def test_single_values_stand_at_one_height_with_median_and_quartiles():
    ax = figures.new(2.0, 2.0).subplots()
    values = [5.0, 1.0, 2.0, 10.0, 3.0]
    figures.spread(ax, 4.0, values, "sgd")
    bar, points, middle = ax.lines
    assert bar.get_xdata().tolist() == [2.0, 5.0]
    assert points.get_xdata().tolist() == values and middle.get_xdata().tolist() == [3.0]
    assert all(set(line.get_ydata()) == {4.0} for line in ax.lines)
    assert middle.get_marker() == "s" and {line.get_color() for line in ax.lines} == {"#D55E00"}


def test_one_repeat_has_a_median_and_no_band():
    ax = figures.new(2.0, 2.0).subplots()
    figures.median_band(ax, [1, 2, 3], [[3.0, 2.0, 0.0]], "adam", floor=0.5)
    assert ax.lines[0].get_ydata().tolist() == [3.0, 2.0, 0.5] and not ax.collections


@pytest.mark.parametrize("points", [2, 40])
def test_paths_on_a_grid_stand_at_their_last_step(points):
    """Each value is that of the last step at or before the grid point, ends included."""
    x = np.array([[1.0, 2.0], [4.0, 8.0], [64.0, np.nan]])
    values = np.array([[10.0, 20.0], [11.0, 21.0], [12.0, np.nan]])
    grid, found = figures.on_grid(x, values, points)
    assert grid[[0, -1]] == pytest.approx([2.0, 64.0]) and found.shape == (points, 2)
    for at, row in zip(grid, found, strict=True):
        for path in range(2):
            passed = [k for k in range(3) if x[k, path] <= at * (1 + 1e-12)]
            assert row[path] == values[passed[-1], path]


def test_a_legend_names_each_method_once():
    fig = figures.new(3.0, 2.0)
    axes = fig.subplots(1, 2)
    for ax, names in zip(axes, (("adam", "sgd"), ("sgd", "muon")), strict=True):
        for name in names:
            ax.plot([1, 2], [1, 2], **figures.method(name))
    figures.legend(fig, axes, 3)
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["Adam", "SGD", "Muon"]
    figures.note(fig, "2 of 3 cells failed")
    assert fig.get_suptitle() == "2 of 3 cells failed"
