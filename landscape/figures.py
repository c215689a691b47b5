"""Paper figures: final width, 7–9 pt text, one colour a method, the same bytes every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

ICML_SINGLE, ICML_DOUBLE = 3.25, 6.75
NEURIPS = 5.5
IEEE_SINGLE, IEEE_DOUBLE = 3.5, 7.16

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "landscape",
    "figure.constrained_layout.use": True,
}

# Okabe & Ito's colours, safe for colour-blind readers; one colour and marker a method, everywhere.
METHODS: dict[str, tuple[str, str]] = {
    "adam": ("#0072B2", "o"),
    "sgd": ("#D55E00", "s"),
    "momentum": ("#E69F00", "D"),
    "muon": ("#CC79A7", "^"),
    "lbfgs": ("#009E73", "v"),
    "adamw": ("#56B4E9", "P"),
    "adam_polished": ("#000000", "*"),
    "convex": ("#666666", "X"),
    # solvers
    "fast": ("#882255", "p"),
    "generation": ("#332288", "h"),
    "generation_started": ("#88AAEE", "h"),
    "reference": ("#44AA99", "H"),
    "enumerate": ("#DDCC77", "8"),
    # where patterns come from
    "gaussian_gates": ("#A65628", "<"),
    "data_gates": ("#999933", ">"),
    "every": ("#111111", "X"),
    # other projects
    "adelie": ("#AA4499", "1"),
    "scnn": ("#EE3377", "2"),
    "clarabel": ("#22DDBB", "+"),
    "celer": ("#88CCEE", "4"),
}
# A family of its own: activations never stand beside methods.  Steps by their training's surrogate.
ACTIVATIONS: dict[str, tuple[str, str]] = {
    "relu": ("#0072B2", "o"),
    "leaky_relu": ("#56B4E9", "s"),
    "abs": ("#009E73", "D"),
    "polynomial": ("#CC79A7", "^"),
    "threshold_identity": ("#E69F00", "v"),
    "threshold_relu": ("#117733", "<"),
    "threshold_leaky_relu": ("#44AA99", ">"),
    "threshold_clipped_relu": ("#D55E00", "P"),
    "sign_identity": ("#AA4499", "v"),
    "sign_relu": ("#332288", "<"),
    "sign_leaky_relu": ("#88AAEE", ">"),
    "sign_clipped_relu": ("#882255", "P"),
    # where networks normalise
    "batch_norm": ("#EE7733", "s"),
    "normalised_relu": ("#228833", "^"),
    "whitened": ("#BBAA00", "*"),
}
LABELS = {
    "adam": "Adam",
    "sgd": "SGD",
    "lbfgs": "L-BFGS",
    "muon": "Muon",
    "adamw": "AdamW",
    "momentum": "SGD with momentum",
    "adam_polished": "Adam, polished",
    "fast": "interior point + Newton (ours)",
    "generation": "column generation (ours)",
    "generation_started": "column generation from L-BFGS",
    "reference": "cvxpy + Clarabel",
    "clarabel": "Clarabel, default tolerances",
    "enumerate": "enumeration",
    "gaussian_gates": "Gaussian gates",
    "data_gates": "data-driven gates",
    "every": "all patterns",
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "abs": "absolute value",
    "polynomial": "polynomial",
    "threshold_identity": "threshold, identity",
    "threshold_relu": "threshold, ReLU",
    "threshold_leaky_relu": "threshold, leaky ReLU",
    "threshold_clipped_relu": "threshold, clipped ReLU",
    "sign_identity": "sign, identity",
    "sign_relu": "sign, ReLU",
    "sign_leaky_relu": "sign, leaky ReLU",
    "sign_clipped_relu": "sign, clipped ReLU",
    "batch_norm": "batch norm, then ReLU",
    "normalised_relu": "ReLU, then normalised",
    "whitened": "ReLU on whitened rows",
}

UNSAID = ("CreationDate", "ModDate", "Producer")
"""What a PDF would say of its making, and what would make the same figure other bytes."""


@contextmanager
def style() -> Iterator[None]:
    """Apply the paper style within a block; the caller's settings come back after it."""
    with mpl.rc_context(STYLE):
        yield


def new(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, without touching any global backend."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def method(name: str) -> dict[str, Any]:
    """Return the line style of a method, by which it is known in every figure."""
    colour, marker = {**METHODS, **ACTIVATIONS}.get(name, ("#777777", "x"))
    return {"color": colour, "marker": marker, "label": LABELS.get(name, name)}


def shade(position: float) -> Any:
    """Return a colour of the perceptual map for an ordered quantity, position in [0, 1]."""
    return mpl.colormaps["viridis"](position)


def gap_axis(ax: Axes, floor: float, below: str = "below solver tolerance") -> None:
    """Make the y axis logarithmic for gaps, with the region below the floor marked and named.

    Call it once, after everything is drawn: it fixes the limits.
    """
    ax.set_yscale("log")
    ax.set_ylim(floor / 5, max(ax.get_ylim()[1], floor * 100))
    ax.axhspan(ax.get_ylim()[0], floor, color="0.88", lw=0, zorder=0)
    ax.annotate(
        below,
        (0.02, floor),
        xycoords=("axes fraction", "data"),
        xytext=(0, 1),
        textcoords="offset points",
        ha="left",
        va="bottom",
        fontsize=6,
        color="0.45",
    )


def sizes_axis(ax: Axes, sizes: Any) -> None:
    """Make the x axis logarithmic with sizes as plain numbers: all, or 1-2-5 steps if many."""
    ax.set_xscale("log")
    if len(sizes) > 7:
        series = [m * 10.0**k for k in range(9) for m in (1, 2, 5)]
        sizes = [size for size in series if min(sizes) <= size <= max(sizes)]
    ax.set_xticks(list(sizes), [f"{size:g}" for size in sizes])
    ax.xaxis.set_minor_locator(NullLocator())


def decades_axis(ax: Axes, least: float = 0.0) -> None:
    """Make the x axis logarithmic from ``least`` on, labelled at powers of ten only.

    Two of them at least are in sight.  Call it once, after everything is drawn.
    """
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    low = max(low, least)
    inside = np.floor(np.log10(high)) - np.ceil(np.log10(low))
    if inside < 1:  # fewer than two powers of ten are in sight
        low = 10.0 ** np.floor(np.log10(low))
        high = max(high, 10 * low)
    ax.set_xlim(low, high)
    ax.xaxis.set_minor_formatter(NullFormatter())


def median_band(ax: Axes, x: ArrayLike, values: ArrayLike, name: str, floor: float = 0.0) -> None:
    """Draw median and interquartile range over the first axis of ``values`` (repeats, x).

    Values below the floor are drawn at it, so that no logarithm of zero is taken.
    """
    values = np.maximum(np.asarray(values, dtype=np.float64), floor)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    line = method(name)
    ax.plot(x, middle, **line, markevery=max(1, len(middle) // 10))
    if len(values) > 1:
        ax.fill_between(np.asarray(x), low, high, color=line["color"], alpha=0.2, lw=0)


def spread(ax: Axes, place: float, values: ArrayLike, name: str) -> None:
    """Draw single values, and their median and quartiles over them, at one height."""
    line, values = method(name), np.asarray(values, dtype=np.float64)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    ax.plot([low, high], [place, place], color=line["color"], lw=2.5, alpha=0.35)
    ax.plot(values, np.full(len(values), place), ls="none", marker=".", ms=2, color=line["color"])
    ax.plot(middle, place, ls="none", marker=line["marker"], color=line["color"])


def on_grid(x: Any, values: Any, points: int = 40) -> tuple[Any, Any]:
    """Bring paths with different steps on one logarithmic grid, each at its last value so far.

    Args:
        x: positions, ascending along each path, shape (steps, paths); NaN after a path's end.
        values: at these positions, same shape.
        points: of the grid, which begins where every path has begun.

    Returns:
        ``(grid, values)``: shapes (points,) and (points, paths).
    """
    grid = np.geomspace(np.nanmax(x[0]), np.nanmax(x), points)
    reach = grid * (1 + 1e-9)  # a step at a grid point is taken there, whatever rounding says
    last = [np.searchsorted(path[np.isfinite(path)], reach, side="right") - 1 for path in x.T]
    reached = [path[at] for path, at in zip(values.T, last, strict=True)]
    return grid, np.array(reached).T


def legend(figure: Figure, axes: Any, ncols: int) -> None:
    """Put one legend below the whole figure, each label of its axes once."""
    found: dict[str, Any] = {}
    for ax in np.asarray(axes).flat:
        found.update(dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True)))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=ncols)


def note(figure: Figure, text: str) -> None:
    """Write a line above the whole figure, e.g. how many cells it lacks."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=7, color="#B00000")


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Write ``path`` as PDF and 300-dpi PNG; the same figure gives the same bytes, saved again too.

    Both files are replaced once both are written; the figure is left as it was found, but for
    limits that an aspect with ``adjustable="datalim"`` has moved.
    """
    path = Path(path)
    name = path.stem if path.suffix in (".pdf", ".png") else path.name
    pdf, png = targets = [path.with_name(f"{name}{suffix}") for suffix in (".pdf", ".png")]
    new_pdf, new_png = drafts = [one.with_name(f".{one.name}.{os.getpid()}") for one in targets]
    try:
        with style(), _as_found(figure):
            figure.set_dpi(300)
            figure.draw_without_rendering()  # one layout for both: `savefig` would find it twice
            figure.set_layout_engine("none")
            FigureCanvasAgg(figure).print_png(new_png, metadata={"Software": None})
            FigureCanvasPdf(figure).print_pdf(new_pdf, metadata=dict.fromkeys(UNSAID))
        for draft, target in zip(drafts, targets, strict=True):
            os.replace(draft, target)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)
    return [pdf, png]


@contextmanager
def _as_found(figure: Figure) -> Iterator[None]:
    """Give a figure its engine, canvas, resolution and places of axes back after a block.

    A layout starts from where axes are: from where the last one left them it finds another.
    """
    engine, canvas, dpi = figure.get_layout_engine(), figure.canvas, figure.dpi
    margins = dict(vars(figure.subplotpars))
    axes = list(figure.axes)
    places = [(ax._originalPosition.frozen(), ax._position.frozen()) for ax in axes]
    try:
        yield
    finally:
        figure.set_layout_engine("none" if engine is None else engine)  # none at all is a default
        vars(figure.subplotpars).update(margins)
        # the public setter and getter would take axes out of the layout and change their limits
        for ax, (original, active) in zip(axes, places, strict=True):
            ax._set_position(original, which="original")
            ax._set_position(active, which="active")
        figure.set_dpi(dpi)
        figure.set_canvas(canvas)
