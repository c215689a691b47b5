"""Slices of the regularised objective above its certified floor, and curvature at trained networks.

A cell is one data set.  Two networks are trained, the convex program is solved, and the plane
through the three is drawn as height above the certified bound; beside it one-dimensional slices
along random directions, plain, filter-normalised and balanced, the plane of a training
trajectory's two principal components, and the spectrum of the Hessian where training ends.

Balanced directions, rescaled neurons and the certified highest point of the segment are those of
plain two-layer ReLU networks; of other architectures they are left out.  Where networks have gates
of their own, the plane is one of networks that have the gates of all three.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogFormatterSciNotation, LogLocator

from analyses import sweep
from landscape import curvature, figures, slices, train
from landscape.solvers import generation
from landscape.training import batched

VERSIONS = {
    "landscape_slices": 2,
    "slices": slices.VERSION,
    "curvature": curvature.VERSION,
    "train": batched.VERSION,
    "generation": generation.VERSION,
}
SUMMARY = (
    "data", "n", "d", "beta", "width", "floor", "scope", "optimum", "trained", "other", "barrier",
    "highest_on_segment", "explained", "farthest", "negative", "lowest_eigenvalue",
    "largest_eigenvalue", "near_kinks", "largest_cosine",
)  # fmt: skip
LINES = {
    "filter": ("filter-normalised", "#0072B2", "-", 2.2),
    "balanced": ("balanced", "#56B4E9", "--", 1.1),
    "rescaled": ("filter-normalised, neurons rescaled", "#CC79A7", ":", 1.4),
    "plain": ("plain", "#E69F00", "-.", 1.1),
    "optimum": ("balanced, about the optimum", "#666666", "-", 0.9),
}
"""Name, colour, dashes and width of each slice along a random direction."""
LEAST = 1e-5
"""Heights below this are drawn at the floor."""
LINEAR = 0.1
"""Eigenvalues up to this size are on the linear part of their axis."""


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train two networks on one data set, solve, and slice."""
    sample, problem = sweep.problem(cfg)
    rate = cfg.learning_rate
    moments = [0, *np.unique(np.geomspace(1, cfg.steps, cfg.snapshots).astype(int)).tolist()]
    runs = train(
        problem, cfg.width, list(cfg.seeds), "adam", cfg.steps, learning_rate=rate,
        snapshots=moments,
    )  # fmt: skip
    first, second = runs[0], runs[1]
    provable = np.linalg.matrix_rank(problem.design) <= cfg.solver.rank
    limit = cfg.solver.cones if provable else 0
    solution = sweep.optimum(problem, runs, tolerance=cfg.solver.tolerance, limit=limit)
    certificate, optimum = solution.certificate, solution.network()
    floor = certificate.bound
    three = slices.side_by_side(problem, [first, second, optimum])
    plane = slices.through(problem, three, 0.25, cfg.points)
    ends, plain = runs.objectives[:2], problem.architecture.plain_neurons
    segment = slices.segment_extrema(problem, first, second) if plain else None
    around = {kind: (first, kind) for kind in slices.KINDS if plain or kind != "balanced"}
    around["optimum"] = (optimum, "balanced" if plain else "filter")
    if plain:
        around["rescaled"] = (_rescaled(first, cfg.rescale), "filter")
    lines = {
        name: slices.around(problem, centre, kind, 1, cfg.reach, 2 * cfg.points + 1)
        for name, (centre, kind) in around.items()
    }
    assert runs.snapshots is not None
    kept = [{k: v[t, 0] for k, v in runs.snapshots.items()} for t in range(len(moments))]
    path = slices.trajectory(problem, kept, 0.15, cfg.points)
    spectrum = curvature.spectrum(problem, first, kink=cfg.kink)
    arrays = {
        "plane_x": plane.axes[0], "plane_y": plane.axes[1], "plane": plane.gaps(floor),
        "marks": plane.marks,
        **{f"line_{name}": one.gaps(floor) for name, one in lines.items()},
        **{f"line_{name}_x": one.axes[0] for name, one in lines.items()},
        "path_x": path.plane.axes[0], "path_y": path.plane.axes[1],
        "path": path.plane.gaps(floor), "snapshots": path.coordinates,
        "path_objectives": path.objectives, "distances": path.distances,
        "explained": path.explained, "eigenvalues": spectrum.eigenvalues,
    }  # fmt: skip
    row = {
        **sweep.described(sample, problem),
        "loss": problem.loss.name,
        "width": cfg.width,
        "floor": floor,
        "scope": certificate.scope,
        "optimum": solution.objective,
        "trained": float(ends[0]),
        "other": float(ends[1]),
        "barrier": None if segment is None else segment.upper - float(ends.max()),
        "highest_on_segment": None if segment is None else segment.maximum,
        "breakpoints": None if segment is None else len(segment.breakpoints),
        "explained": float(path.explained.sum()),
        "farthest": float(path.distances.max()),
        "negative": int((spectrum.eigenvalues < -1e-8 * spectrum.eigenvalues[-1]).sum()),
        "lowest_eigenvalue": float(spectrum.eigenvalues[0]),
        "largest_eigenvalue": float(spectrum.eigenvalues[-1]),
        "parameters": spectrum.parameters,
        "near_kinks": spectrum.near_kinks,
        "activations": spectrum.activations,
        "largest_cosine": max(plane.sanity["largest_cosine"], path.plane.sanity["largest_cosine"]),
    }
    return row, arrays


def _rescaled(network: Any, spread: float) -> Any:
    """Return the same function with other weights: neurons rescaled at random."""
    values = network.values
    draws = np.random.default_rng(0).standard_normal(len(values["output"]))
    scale = torch.as_tensor(np.exp(spread * draws))
    hidden, output = values["hidden"] * scale[:, None], values["output"] / scale
    return {**values, "hidden": hidden, "output": output}


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a column a data set and width; colours mean the same height in every panel."""
    columns = [(row, store.arrays(row["key"])) for _, row in table.iterrows()]
    per = 3
    drawn = {}
    for begin in range(0, len(columns), per):
        name = "landscape_slices" + (f"_{begin // per + 1}" if begin else "")
        drawn[name] = _draw(columns[begin : begin + per])
    return drawn


def _draw(columns: Any) -> Any:
    heights = np.concatenate(
        [arrays[k].ravel() for _, arrays in columns for k in ("plane", "path")]
    )
    heights = heights[np.isfinite(heights) & (heights > 0)]
    low, high = np.floor(np.log10(np.quantile(heights, [0.002, 0.99])))
    norm = LogNorm(10.0**low, 10.0 ** (high + 1))
    width = figures.ICML_DOUBLE if len(columns) > 1 else figures.ICML_SINGLE
    with figures.style():
        fig = figures.new(width, 7.4)
        axes = fig.subplots(4, len(columns), squeeze=False)
        for ax, (row, arrays) in zip(axes.T, columns, strict=True):
            filled = _plane(ax[0], arrays, norm)
            _path_plane(ax[1], arrays, norm)
            _lines(ax[2], arrays)
            _spectrum(ax[3], row, arrays)
            about = f"n = {row['n']}, d = {row['d']}, m = {row['width']}, β = {row['beta']:.2g}"
            ax[0].set_title(f"{row['data']}\n{about}\nfloor: {row['scope']}", fontsize=7)
        for row in axes[2:]:
            for ax in row[1:]:
                ax.sharey(row[0])
        for ax in axes[2]:
            figures.gap_axis(ax, LEAST, "certified floor")
        values = np.concatenate([arrays["eigenvalues"] for _, arrays in columns])
        axes[3][0].set_ylim(3 * min(values.min(), -LINEAR), 3 * values.max())
        bar = fig.colorbar(filled, ax=axes[:2], shrink=0.8, aspect=40, pad=0.01)
        bar.set_label("height above the floor: (objective − floor) / floor")
        bar.ax.yaxis.set_major_locator(LogLocator())
        bar.ax.yaxis.set_major_formatter(LogFormatterSciNotation())
        axes[0][0].set_ylabel("distance off that line")
        axes[1][0].set_ylabel("second component")
        axes[2][0].set_ylabel("height above the floor")
        axes[3][0].set_ylabel("eigenvalue of the Hessian")
        figures.legend(fig, axes, ncols=3)
    return fig


def _levels(norm: Any) -> np.ndarray:
    """Return three levels a decade."""
    low, high = np.log10(norm.vmin), np.log10(norm.vmax)
    return np.logspace(low, high, round(3 * (high - low)) + 1)


def _height(ax: Any, x: Any, y: Any, gaps: Any, norm: Any) -> Any:
    """Fill contours of the height above the floor and draw the decades as lines."""
    heights = np.clip(np.where(np.isfinite(gaps), gaps, np.nan), norm.vmin, norm.vmax).T
    filled = ax.contourf(x, y, heights, levels=_levels(norm), norm=norm, cmap="viridis_r")
    filled.set_rasterized(True)
    decades = _levels(norm)[::3]
    ax.contour(x, y, heights, levels=decades, colors="white", linewidths=0.4)
    ax.set_aspect("equal")
    return filled


def _plane(ax: Any, arrays: Any, norm: Any) -> Any:
    """Draw the plane through two trained networks and the optimum."""
    filled = _height(ax, arrays["plane_x"], arrays["plane_y"], arrays["plane"], norm)
    marks = arrays["marks"]
    ax.plot(*marks[[0, 1]].T, "o", color="white", mec="black", ms=5, label="trained networks")
    ax.plot(*marks[[2]].T, "X", color="#D55E00", mec="white", ms=7, label="convex optimum (floor)")
    ax.set_xlabel("along the trained pair")
    return filled


def _path_plane(ax: Any, arrays: Any, norm: Any) -> None:
    """Draw the plane of a trajectory's principal components, through its end."""
    _height(ax, arrays["path_x"], arrays["path_y"], arrays["path"], norm)
    x, y = arrays["snapshots"].T
    ax.plot(x, y, "-", color="white", lw=1.6)
    ax.plot(x, y, ".-", color="black", lw=0.7, ms=3, label="trajectory (Adam)")
    ax.plot(x[:1], y[:1], "s", color="black", mec="white", ms=4.5, label="its start")
    one, two = 100 * arrays["explained"]
    about = f"variance {one:.0f} % + {two:.0f} %, off plane ≤ {arrays['distances'].max():.2g}"
    ax.set_xlabel(f"first component\n{about}", fontsize=7)


def _lines(ax: Any, arrays: Any) -> None:
    """Draw slices along random directions around the first trained network."""
    for name, (label, colour, dashes, width) in LINES.items():
        if f"line_{name}" not in arrays:
            continue
        heights = np.maximum(arrays[f"line_{name}"], LEAST)
        ax.plot(
            arrays[f"line_{name}_x"], heights, dashes, color=colour, lw=width, label=label
        )  # fmt: skip
    ax.set_xlabel("step, in parts of the network")


def _spectrum(ax: Any, row: Any, arrays: Any) -> None:
    """Draw the eigenvalues in order, and 2β of the rescalings of neurons."""
    values = arrays["eigenvalues"]
    ax.plot(np.arange(1, len(values) + 1), values, ".", color="black", ms=2.5, label="eigenvalues")
    ax.axhline(2 * row["beta"], color="#CC79A7", lw=0.8, ls="--", label="2β (rescalings)")
    ax.set_yscale("symlog", linthresh=LINEAR)
    about = f"{row['near_kinks']} of {row['activations']} activations near kinks"
    if not np.isfinite(float(row["near_kinks"] if row["near_kinks"] is not None else np.nan)):
        about = f"{row['activations']} activations"
    ax.set_xlabel(f"index\n{about}", fontsize=7)


if __name__ == "__main__":
    sweep.main(__file__)
