"""How close training comes to the convex optimum, activation by activation.

A cell is one data set and one activation: networks of one width from several seeds are trained by
Adam at the best of several learning rates, and the convex program is solved with a certified lower
bound.  Activations without a slope (threshold, sign) are trained straight through, with the slope
of a surrogate; their objectives are those of the true steps.  The first figure compares activations
on the same data: gaps to the bound along training and at its end, test errors beside those of the
convex optima.  The second compares surrogates on planted data of several shapes (n, d), as the
paper on threshold networks does (Ergen et al., ICLR 2023): objectives against time, those of column
generation among them.  Where the bound is a relaxation (scope) the gap is to it, and may be the
bound's fault.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses import sweep
from landscape import figures
from landscape.architectures import Architecture
from landscape.bounds import EXACT
from landscape.solvers import generation, restricted, units
from landscape.training import batched

VERSIONS = {
    "activations": 2,
    "train": batched.VERSION,
    "generation": generation.VERSION,
    "restricted": restricted.VERSION,
    "units": units.VERSION,
}
SUMMARY = (
    "study", "data", "n", "d", "beta", "activation", "draw", "width", "seeds", "optimum", "bound",
    "scope", "gap", "active", "seconds", "best_trained", "best_gap", "median_gap", "learning_rate",
    "train_seconds",    "test_error_optimum", "test_error_trained",
)  # fmt: skip
FLOOR = 1e-6
"""Relative gaps below this are drawn at it."""


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train and solve one data set with one activation."""
    sample, problem = sweep.problem(cfg)
    rate, runs = sweep.tuned(problem, cfg)
    solution, seconds = sweep.solved(problem, cfg)
    certificate = solution.certificate
    bound = certificate.bound
    finite = np.flatnonzero(np.isfinite(runs.objectives))
    objectives = runs.objectives[finite]
    errors = np.array([sweep.held_out_error(sample, runs[int(i)]) for i in finite])
    gaps = 1 - bound / objectives
    history = [(h["seconds"], h["value"]) for h in solution.history if "value" in h]
    row = {
        "study": cfg.study,
        **sweep.described(sample, problem),
        "task": sample.task,
        "activation": activation(problem.architecture),
        "draw": cfg.draw,
        "width": cfg.width,
        "seeds": len(finite),
        "diverged": len(runs) - len(finite),
        **sweep.certified(solution),
        "seconds": seconds,
        "best_trained": float(objectives.min()),
        "best_gap": float(gaps.min()),
        "median_gap": float(np.median(gaps)),
        "learning_rate": rate,
        "train_seconds": float(runs.trace_seconds[-1]),
        "test_error_optimum": sweep.held_out_error(sample, solution.network()),
        "test_error_trained": float(np.median(errors)),
    }
    arrays = {
        "seconds": runs.trace_seconds,
        "trace": runs.trace[finite],
        "gaps": gaps,
        "test_errors": errors,
        "convex": np.array(history).reshape(-1, 2),  # seconds, objective of the best network yet
    }
    return row, arrays


def activation(architecture: Architecture) -> str:
    """Return the word for an architecture's activation, its surrogate included."""
    kind, surrogate = (getattr(architecture, k, None) for k in ("activation", "surrogate"))
    kind = kind if isinstance(kind, str) else architecture.name
    return kind if surrogate is None else f"{kind}_{surrogate}"


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw activations on the same data, and surrogates on data of several shapes."""
    drawn = {}
    for study, draw in (("activations", _activations), ("surrogates", _surrogates)):
        part = table[table["study"] == study]
        if len(part):
            drawn["activations" if study == "activations" else "activations_surrogates"] = draw(
                part, store
            )
    return drawn


def _activations(table: Any, store: Any) -> Any:
    """Draw a row a data set: gaps along training, gaps at its end, test errors."""
    names = list(dict.fromkeys(table["data"]))
    kinds = list(dict.fromkeys(table["activation"]))
    places = {kind: len(kinds) - 1 - k for k, kind in enumerate(kinds)}
    with figures.style():
        height = max(1.5, 0.17 * len(kinds) + 0.5) * len(names) + 0.6
        fig = figures.new(figures.ICML_DOUBLE, height)
        axes = fig.subplots(len(names), 3, squeeze=False, width_ratios=[1.35, 1, 1])
        for row, name in zip(axes, names, strict=True):
            cells = [one for _, one in table[table["data"] == name].iterrows()]
            for one in cells:
                arrays = store.arrays(one["key"])
                gaps = 1 - one["bound"] / arrays["trace"]
                figures.median_band(row[0], arrays["seconds"], gaps, one["activation"], FLOOR)
                place = places[one["activation"]]
                figures.spread(row[1], place, np.maximum(arrays["gaps"], FLOOR), one["activation"])
                figures.spread(row[2], place, arrays["test_errors"], one["activation"])
                row[2].plot(
                    one["test_error_optimum"], place, **{**OPTIMUM, "label": "convex optimum"}
                )
            first = cells[0]
            row[0].set_title(
                f"{name}: n = {first['n']}, d = {first['d']}, β = {first['beta']:.2g}", loc="left"
            )
            row[0].set_ylabel("gap to the bound")
            row[0].set_yscale("log")
            row[0].set_ylim(bottom=max(FLOOR, 0.5 * min(one["median_gap"] for one in cells)))
            row[0].set_xlim(left=0)
            row[1].set_xscale("log")
            for ax in row[1:]:
                labels = [figures.LABELS.get(str(kind), str(kind)) for kind in kinds]
                ax.set_yticks([places[kind] for kind in kinds], labels if ax is row[1] else [])
                ax.set_ylim(-0.6, len(kinds) - 0.4)
                ax.grid(axis="y", lw=0.3, color="0.9")
            error = "misclassified" if first["task"] == "binary" else "mean squared error"
            row[2].set_xlabel(f"test: {error}")
        axes[-1][0].set_xlabel("training time of the batch (s)")
        axes[-1][1].set_xlabel("gap at the end")
        seeds = " or ".join(map(str, sorted(set(table["seeds"]))))
        axes[0][1].set_title(f"{seeds} networks of width {table['width'].iloc[0]}")
        _mark_relaxed(axes, table, names)
        figures.legend(fig, axes, ncols=5)
    return fig


OPTIMUM = {"color": "black", "marker": "|", "ls": "none", "ms": 8, "mew": 1.2}


def _mark_relaxed(axes: Any, table: Any, names: list[str]) -> None:
    """Say where a bound is a relaxation."""
    for row, name in zip(axes, names, strict=True):
        part = table[(table["data"] == name) & (table["scope"] != EXACT)]
        if len(part):
            kinds = ", ".join(figures.LABELS.get(str(k), str(k)) for k in part["activation"])
            row[1].annotate(
                f"relaxed bound: {kinds}", (0.0, 1.02), xycoords="axes fraction", fontsize=6,
                color="#B00000",
            )  # fmt: skip


def _surrogates(table: Any, store: Any) -> Any:
    """Draw a panel a shape (n, d): objectives against time, the convex program's among them."""
    shapes = list(dict.fromkeys(zip(table["n"], table["d"], strict=True)))
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 2.35)
        axes = fig.subplots(1, len(shapes), squeeze=False)
        for ax, (n, d) in zip(axes[0], shapes, strict=True):
            part = table[(table["n"] == n) & (table["d"] == d)]
            for kind in dict.fromkeys(part["activation"]):
                cells = [store.arrays(key) for key in part[part["activation"] == kind]["key"]]
                times = np.concatenate(
                    [np.tile(one["seconds"], (len(one["trace"]), 1)) for one in cells]
                )
                traces = np.concatenate([one["trace"] for one in cells])  # (paths, steps)
                grid, values = figures.on_grid(np.maximum(times, 1e-3).T, traces.T, 24)
                figures.median_band(ax, grid, values.T, kind)
            _convex(ax, part, store)
            exact = (part["scope"] == EXACT).all()
            ax.set_title(f"n = {n}, d = {d}{'' if exact else '  (bound: relaxed)'}")
            ax.set_yscale("log")
            ax.set_xlabel("time (s)")
            figures.decades_axis(ax, 1e-3)
        first, draws = table.iloc[0], len(set(table["draw"]))
        repeats = f"{draws} × {first['seeds']} networks"
        axes[0][0].set_ylabel(f"objective, β = {first['beta']:g}\n(median, IQR; {repeats})")
        figures.legend(fig, axes, ncols=4)
    return fig


def _convex(ax: Any, part: Any, store: Any) -> None:
    """Draw the convex program: its objective against time, a draw a line, and the lower bounds."""
    line = figures.method("convex")
    for draw in sorted(set(part["draw"])):
        row = part[part["draw"] == draw].iloc[0]  # the same program whatever the surrogate
        history = store.arrays(row["key"])["convex"]
        seconds = np.append(history[:, 0], row["seconds"])
        best = np.append(np.minimum.accumulate(history[:, 1]), row["optimum"])
        ax.step(
            seconds, best, where="post", color="black", lw=1.2, marker="*", ms=4,
            markevery=[len(best) - 1], label="convex optimum",
        )  # fmt: skip
        ax.axhline(row["bound"], color=line["color"], lw=0.8, ls=":", label="certified lower bound")


if __name__ == "__main__":
    sweep.main(__file__)
