"""Convolutional networks beside their certified optima, and deep ones trained layer by layer.

*Gaps*: a cell is one data set and one architecture: sum, average or max pooling over patches, or a
linear circular convolution.  Networks are trained by Adam from several seeds, and the convex
program over all filters is solved with a certified lower bound; the gaps are to that bound, whose
scope is named.  Below them are the filters of the optimum and of the best trained network (a dot
a filter u at |a|u, for filters of two entries; a line for longer ones), or the amplitudes of their
sinusoids: the ℓ1 norm in the Fourier domain leaves few.  *Layers*: gated convolutions on digits,
one layer after the other, each a convex program on the maps of those before; error, objective and
certified gap of every layer by depth, over several splits, and the first layer's largest filters.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from analyses import sweep
from landscape import figures, layerwise, train
from landscape.bounds import EXACT
from landscape.network import Network
from landscape.problem import Problem
from landscape.solvers import dense, generation, restricted, units
from landscape.training import batched

VERSIONS = {
    "convolutions": 2,
    "train": batched.VERSION,
    "generation": generation.VERSION,
    "restricted": restricted.VERSION,
    "dense": dense.VERSION,
    "units": units.VERSION,
}
SUMMARY = (
    "study", "architecture", "data", "n", "d", "beta", "draw", "layers", "optimum", "bound",
    "scope", "gap", "active", "seconds", "best_trained", "best_gap", "median_gap", "largest_gap",
    "test_error_first", "test_error_last",
)  # fmt: skip
FLOOR = 1e-9
"""Relative gaps below this are drawn at it."""
SHOWN = 8
"""Filters of a layer that are drawn."""


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train and solve one architecture, or train one deep network layer by layer."""
    sample, problem = sweep.problem(cfg)
    about = {"study": cfg.study, "architecture": cfg.title, "draw": cfg.draw}
    found, arrays = (_layers if cfg.study == "layers" else _gaps)(sample, problem, cfg)
    return {**about, **sweep.described(sample, problem), "task": sample.task, **found}, arrays


def _gaps(sample: Any, problem: Problem, cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return gaps of trained networks to the bound, and what filters look like."""
    runs = train(
        problem, cfg.width, range(cfg.seeds), "adam", cfg.steps, learning_rate=cfg.learning_rate
    )
    began = time.perf_counter()
    solution = sweep.optimum(
        problem, runs, tolerance=cfg.solver.tolerance, limit=cfg.solver.cones, rounds=cfg.rounds
    )
    seconds, certificate = time.perf_counter() - began, solution.certificate
    bound = certificate.bound
    gaps = 1 - bound / runs.objectives
    best = runs[int(np.argmin(runs.objectives))]
    row = {
        **sweep.certified(solution),
        "seconds": seconds,
        "best_trained": float(runs.objectives.min()),
        "best_gap": float(gaps.min()),
        "median_gap": float(np.median(gaps)),
        "test_error_optimum": sweep.held_out_error(sample, solution.network()),
        "test_error_trained": sweep.held_out_error(sample, best),
    }
    arrays = {
        "steps": runs.trace_steps,
        "gaps": 1 - bound / runs.trace,  # (seeds, T)
        "optimal": _filters(problem, solution.network()),
        "trained": _filters(problem, best),
    }
    return row, arrays


def _filters(problem: Problem, network: Network) -> np.ndarray:
    """Return |a|u of every filter, a's sign last, (m, h + 1); or amplitudes by frequency."""
    values = {k: v.detach() for k, v in network.values.items()}
    if problem.architecture.name == "circular":
        point = problem.architecture.lift(problem, values)
        sizes = np.zeros((problem.X.shape[1] // 2 + 1, 1))
        sizes[point.program.units["frequency"], 0] = np.linalg.norm(point.theta, axis=1)
        return sizes
    own = problem.architecture
    values = own.lower(own.lift(problem, values))  # neurons of one pattern are one
    hidden, output = values["hidden"].numpy(), values["output"].numpy()
    return np.column_stack([np.abs(output)[:, None] * hidden, np.sign(output)])


def _layers(
    sample: Any, problem: Problem, cfg: Any
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return errors, objectives and gaps by depth, and the first layer's filters."""
    began = time.perf_counter()
    deep = layerwise(problem, cfg.depth, patterns=cfg.gates, tolerance=cfg.solver.tolerance)
    seconds, count = time.perf_counter() - began, len(deep.networks)
    errors = np.empty((2, count))
    for layer in range(count):
        for side, (X, y) in enumerate(((sample.X, sample.y), (sample.X_test, sample.y_test))):
            outputs = deep(X, layer).detach().numpy()
            errors[side, layer] = np.mean(np.sign(outputs) != y)
    gaps = np.array([max(one.relative_gap, 0.0) for one in deep.certificates])
    last = deep.certificates[-1]
    row = {
        "layers": count + 1,
        "optimum": last.primal,
        "bound": last.dual,
        "scope": last.scope,
        "gap": last.relative_gap,
        "largest_gap": float(gaps.max()),
        "active": deep.widths[-1],
        "seconds": seconds,
        "test_error_first": float(errors[1, 0]),
        "test_error_last": float(errors[1, -1]),
    }
    first = _filters(problem, deep.networks[0])[:, :-1]
    order = np.argsort(-np.linalg.norm(first, axis=1), kind="stable")
    arrays = {
        "errors": errors,  # (train, test) × depths
        "objectives": np.array(deep.objectives),
        "gaps": gaps,
        "widths": np.array(deep.widths),
        "filters": first[order[:SHOWN]],
    }
    return row, arrays


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw gaps and filters, and layers by depth."""
    drawn = {}
    for name, study, draw in (
        ("convolutions", "gaps", _draw_gaps),
        ("convolutions_layers", "layers", _draw_layers),
    ):
        part = table[table["study"] == study]
        if len(part):
            drawn[name] = draw(part, store)
    return drawn


def _draw_gaps(table: Any, store: Any) -> Any:
    """Draw a column an architecture: gaps along training, filters or spectra below."""
    cells = [one for _, one in table.iterrows()]
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 3.4)
        axes = fig.subplots(2, len(cells), squeeze=False)
        for column, one in enumerate(cells):
            top, below = axes[:, column]
            arrays = store.arrays(one["key"])
            figures.median_band(top, arrays["steps"], arrays["gaps"], "adam", FLOOR)
            top.axhline(
                max(one["gap"], FLOOR), color="black", lw=1, ls="--", label="convex optimum"
            )
            about = f"{one['data']}\nn = {one['n']}, β = {one['beta']:g}"
            top.set_title(f"{one['architecture']}\n{about}", fontsize=6)
            top.set_xlabel("steps of Adam")
            scope = "exact" if one["scope"] == EXACT else "relaxed"
            top.annotate(
                f"bound: {scope}", (0.97, 0.55), xycoords="axes fraction", fontsize=6, ha="right",
            )  # fmt: skip
            figures.gap_axis(top, FLOOR, "")
            _below(below, arrays)
        axes[0][0].set_ylabel("gap to the bound\n(median, IQR)")
        figures.legend(fig, axes, ncols=4)
    return fig


def _below(ax: Any, arrays: Any) -> None:
    """Draw filters of the optimum and of the best trained network, or their spectra."""
    kinds = (("trained", figures.method("adam")["color"]), ("optimal", "black"))
    labels = {"trained": "best of Adam", "optimal": "convex optimum: filters"}
    width = arrays["optimal"].shape[1]
    for kind, color in kinds:
        values = arrays[kind]
        if width == 1:  # amplitudes
            shift = 0.15 if kind == "optimal" else -0.15
            ax.bar(np.arange(len(values)) + shift, values[:, 0], 0.3, color=color)
        elif width == 3:
            sides = values[:, -1] > 0
            size = 26 if kind == "trained" else 12
            for side, marker in ((sides, "o"), (~sides, "^")):
                face = "none" if kind == "trained" else color
                label = labels[kind] if marker == "o" else None
                ax.scatter(
                    *values[side, :2].T, s=size, marker=marker, facecolors=face, edgecolors=color,
                    lw=0.8, label=label,
                )  # fmt: skip
        else:
            lw, alpha = (2.4, 0.45) if kind == "trained" else (1.0, 1.0)
            for row in values[np.linalg.norm(values[:, :-1], axis=1) > 1e-3]:
                style = "-" if row[-1] > 0 else ":"
                ax.plot(np.arange(width - 1), row[:-1], style, lw=lw, color=color, alpha=alpha)
    if width == 1:
        ax.set_xlabel("frequency")
        ax.set_ylabel("amplitude")
    elif width == 3:
        ax.axhline(0, color="0.85", lw=0.6, zorder=0)
        ax.axvline(0, color="0.85", lw=0.6, zorder=0)
        ax.set_xlabel(r"$|a|\,u_1$  (△: a < 0)")
        ax.set_ylabel(r"$|a|\,u_2$")
    else:
        ax.set_xticks(np.arange(width - 1))
        ax.set_xlabel("entry  (dotted: a < 0)")
        ax.set_ylabel(r"$|a|\,u$")


def _draw_layers(table: Any, store: Any) -> Any:
    """Draw error, objective and gap by depth, and filters of the first layer."""
    cells = [store.arrays(key) for key in table["key"]]
    first = table.iloc[0]
    depths = np.arange(2, 2 + cells[0]["errors"].shape[1])
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 1.9)
        left, middle, right, last = fig.subplots(1, 4, width_ratios=[1, 1, 1, 1.3])
        for side, (name, line) in enumerate((("train", "momentum"), ("test", "adam"))):
            errors = np.stack([one["errors"][side] for one in cells])
            color = figures.method(line)["color"]
            left.plot(depths, errors.T, ".-", color=color, lw=0.5, ms=3, alpha=0.6)
            left.plot(depths, np.median(errors, axis=0), "o-", color=color, label=name)
        left.set_ylabel("misclassified share")
        left.set_title(f"{first['data']}, n = {first['n']}", fontsize=7)
        line = {"color": figures.method("convex")["color"], "marker": "o", "ms": 3, "lw": 0.8}
        middle.plot(depths, np.stack([one["objectives"] for one in cells]).T, **line)
        middle.set_yscale("log")
        middle.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"], minor=False)
        middle.set_yticks([], minor=True)
        values = np.concatenate([one["objectives"] for one in cells])
        middle.set_ylim(0.7 * values.min(), 1.3 * values.max())
        middle.set_ylabel("objective of the layer")
        middle.set_title(f"β = {first['beta']:g}; a line a split", fontsize=7)
        gaps = np.maximum(np.stack([one["gaps"] for one in cells]), 1e-16)
        right.plot(depths, gaps.T, **line)
        right.set_yscale("log")
        right.set_ylim(1e-13, 1e-5)
        right.set_ylabel("certified relative gap")
        right.set_title("given the layers below", fontsize=7)
        for ax in (left, middle, right):
            ax.set_xticks(depths)
            ax.set_xlabel("layers")
        left.set_ylim(-0.004, 1.3 * left.get_ylim()[1])
        left.legend(fontsize=6, loc="upper right")
        _tiles(last, cells[0]["filters"])
    return fig


def _tiles(ax: Any, filters: Any) -> None:
    """Draw filters of a square kernel as tiles, four in a row."""
    side = round(filters.shape[1] ** 0.5)
    rows = -(-len(filters) // 4)
    picture = np.full((rows * (side + 1) - 1, 4 * (side + 1) - 1), np.nan)
    for place, one in enumerate(filters):
        i, j = (place // 4) * (side + 1), (place % 4) * (side + 1)
        picture[i : i + side, j : j + side] = one.reshape(side, side) / np.abs(one).max()
    ax.imshow(picture, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    ax.set_title("largest filters of the first layer", fontsize=7)


if __name__ == "__main__":
    sweep.main(__file__)
