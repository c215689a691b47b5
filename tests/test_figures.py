"""Figures: style stays inside its block, bytes repeat, medians and floors are what they say."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np

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
