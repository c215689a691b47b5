"""Census of stationary points: how many, which are global, and how width removes the rest.

A cell is one data set, one optimiser and one scale of initialisation: networks of every width and
seed are trained in one batch, polished to directionally stationary points, and judged against the
certified optimum over all patterns.  Points are counted as one up to permutation, positive
rescaling and splitting of neurons.  The theory's widths are marked: m*, the neurons of the optimum
found, pruned (from there on a global optimum fits), and n + m* (from there on a path that never
rises leads from anywhere to it; Wang, Lacotte & Pilanci 2022).  Polishing merges neurons of one
pattern, so a stationary point of a wide network has spare neurons, and an escape through a new one.
From random networks of the largest width that path is built and measured: balance, prune, line.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses import sweep
from landscape import connect, figures, paths, polish, prune, solve, sparsity, train
from landscape.solvers import generation
from landscape.stationarity import GLOBAL, MOVING, SPURIOUS, VERDICTS, Classifier, census
from landscape.training import batched, polishing

VERSIONS = {
    "spurious_minima": 1,
    "train": batched.VERSION,
    "polish": polishing.VERSION,
    "generation": generation.VERSION,
    "paths": paths.VERSION,
    "sparsity": sparsity.VERSION,
}
SUMMARY = (
    "data", "n", "d", "beta", "optimizer", "scale", "networks", "optimum", "scope",
    "optimal_neurons", "global", "spurious", "not_stationary", "distinct", "on_kinks",
    "widest_spurious", "widest_median_gap", "paths", "largest_rise", "rise_bound",
)  # fmt: skip
FLOOR = 1e-9
"""Gaps below this are drawn at it."""


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply to its architecture, or nothing."""
    return sweep.plain_only(
        cfg, "escapes and paths from every start are those of two-layer ReLU networks"
    )


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train, polish and judge the networks of one data set, optimiser and scale."""
    sample, problem = sweep.problem(cfg)
    problem = problem.replace(beta=problem.beta * cfg.factor)
    widths = list(cfg.widths)
    runs = train(
        problem,
        width=widths,
        seeds=range(cfg.seeds),
        optimizer=cfg.optimizer.name,
        steps=cfg.optimizer.steps,
        scale=cfg.initial,
        throw=False,  # a run that diverges is counted, and left out
        **cfg.optimizer.options,
    )
    solution = solve(problem, tolerance=1e-9)
    judge = Classifier(problem, solution.certificate, tolerance=1e-7)
    polished = polish(problem, runs)
    finite = np.flatnonzero(np.isfinite(runs.objectives))
    found = census(judge, [polished[int(i)] for i in finite])
    walked = _paths(problem, solution, widths[-1], cfg)
    width = np.asarray(runs.widths)[finite]
    at = [np.flatnonzero(width == one) for one in widths]
    row = {
        **sweep.described(sample, problem),
        "optimizer": cfg.optimizer.get("label", cfg.optimizer.name),
        "scale": cfg.initial,
        "networks": len(found.verdicts),
        "seeds": cfg.seeds,
        "optimum": solution.objective,
        "dual": solution.certificate.dual,
        "scope": solution.certificate.scope,
        "optimal_neurons": len(prune(problem, solution.network()).values["output"]),
        "global": found.share(GLOBAL),
        "spurious": found.share(SPURIOUS),
        "not_stationary": found.share(MOVING),
        "distinct": int(found.group.max(initial=-1) + 1),
        "on_kinks": int((found.kinks > 0).sum()),
        "widest_spurious": float(np.mean(found.verdicts[at[-1]] == VERDICTS.index(SPURIOUS))),
        "widest_median_gap": float(np.median(found.gaps[at[-1]])),
        "paths": cfg.paths,
        "largest_rise": float(walked["rises"].max()),
        "rise_bound": float(walked["rise_bounds"].max()),
    }
    arrays = {
        "widths": np.asarray(widths),
        "width": width,
        "distinct": np.array([len({*found.group[one].tolist()} - {-1}) for one in at]),
        **found.arrays(),
        **walked,
    }
    return row, arrays


def _paths(problem: Any, solution: Any, width: int, cfg: Any) -> dict[str, np.ndarray]:
    """Measure the constructive path from random networks to the optimum.

    Rises are relative to the objective at the start: the largest on the way, on 41 points a
    piece, and its bound.  For the drawing every path runs from 0 to 3: balance, all prunings, line.
    """
    draws = problem.architecture.initial(problem, width, range(cfg.paths), cfg.initial)
    grid = np.linspace(0.0, 3.0, 91)
    gaps, rises, bounds = [], [], []
    for start in range(cfg.paths):
        path = connect(problem, {k: v[start] for k, v in draws.items()}, solution.network())
        where, values = path.objectives(41)
        pieces = len(path.pieces)
        stretched = np.where(where <= 1, where, 1 + (where - 1) / max(1, pieces - 2))
        stretched = np.where(where <= pieces - 1, stretched, where - pieces + 3)
        gaps.append(np.interp(grid, stretched, values / solution.certificate.dual - 1))
        rises.append(np.max(values - np.minimum.accumulate(values)) / values[0])
        bounds.append(path.rise / values[0])
    return {
        "path": grid,
        "path_gaps": np.array(gaps),
        "rises": np.array(rises),
        "rise_bounds": np.array(bounds),
    }


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a column a problem: share of global points, gaps, distinct points, neurons."""
    problems = list(dict.fromkeys(zip(table["data"], table["n"], table["d"], strict=True)))
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 7.8)
        above, below = np.asarray(fig.subfigures(2, 1, height_ratios=[4, 1.35])).tolist()
        axes = above.subplots(4, len(problems), squeeze=False, sharex="col")
        ways = below.subplots(1, len(problems), squeeze=False, sharey=True)[0]
        for column, way, (name, n, d) in zip(axes.T, ways, problems, strict=True):
            cells = table[(table["data"] == name) & (table["n"] == n) & (table["d"] == d)]
            for _, row in cells.iterrows():
                _lines(column, row, store.arrays(row["key"]))
            _along(way, cells, store)
            first = cells.iloc[0]
            m_star = int(cells["optimal_neurons"].min())
            for ax in column:
                ax.axvline(m_star, color="0.5", lw=0.7, ls=":")
                ax.axvline(n + m_star, color="0.5", lw=0.7, ls="-.")
            column[0].set_title(
                f"{name} (n = {n}, d = {d})\nβ = {first['beta']:.2g}; {first['scope']}"
            )
            top = column[0]
            top.set_ylim(-0.03, 1.18)
            for x, text in ((m_star, f"m* = {m_star}"), (n + m_star, f"n + m* = {n + m_star}")):
                top.annotate(
                    text, (x, 1.17), fontsize=6, color="0.35", ha="right", va="top", rotation=90,
                    xytext=(-1, 0), textcoords="offset points",
                )  # fmt: skip
            column[2].set_yscale("log", base=2)
            column[-1].set_yscale("log", base=2)
            widths = store.arrays(first["key"])["widths"]
            column[-1].set_xscale("log", base=2)
            column[-1].set_xticks(list(widths), [f"{w}" for w in widths])
            column[-1].set_xlabel("width")
            for ax in (column[2], column[3]):
                ticks = [t for t in (1, 2, 4, 8, 16, 32, 64) if t <= ax.get_ylim()[1]]
                ax.set_yticks(ticks, [f"{t}" for t in ticks])
            figures.gap_axis(column[1], FLOOR)
        seeds = int(table["seeds"].iloc[0])
        labels = (
            "share of global\noptima",
            "gap above the floor\n(median, IQR)",
            f"distinct points\n(of {seeds} seeds)",
            "neurons after\nmerging (median)",
        )
        for ax, label in zip(axes[:, 0], labels, strict=True):
            ax.set_ylabel(label)
        ways[0].set_ylabel("objective / floor − 1\nalong the path")
        figures.legend(fig, axes, ncols=4)
    return {"spurious_minima": fig}


def _lines(column: Any, row: Any, arrays: Any) -> None:
    """Add one optimiser at one scale of initialisation to a column."""
    widths = arrays["widths"]
    at = [arrays["width"] == one for one in widths]
    look = {**figures.method(row["optimizer"])}
    look["label"] = f"{look['label']}, initial scale {row['scale']:g}"
    look["ls"] = "-" if row["scale"] >= 1 else "--"
    column[0].plot(widths, [np.mean(arrays["verdicts"][one] == 0) for one in at], **look)
    gaps = [np.quantile(np.maximum(arrays["gaps"][one], FLOOR), [0.25, 0.5, 0.75]) for one in at]
    low, middle, high = np.array(gaps).T
    column[1].plot(widths, middle, **look)
    column[1].fill_between(widths, low, high, color=look["color"], alpha=0.12, lw=0)
    column[2].plot(widths, np.maximum(arrays["distinct"], 1), **look)
    column[3].plot(widths, [np.median(arrays["neurons"][one]) for one in at], **look)


def _along(ax: Any, cells: Any, store: Any) -> None:
    """Draw the objective along the constructive paths, a line a start."""
    rise = cells["largest_rise"].max()
    for _, row in cells.iterrows():
        arrays = store.arrays(row["key"])
        ax.plot(
            arrays["path"], np.maximum(arrays["path_gaps"].T, FLOOR), lw=0.5, alpha=0.5,
            color=figures.method(row["optimizer"])["color"] if row["scale"] >= 1 else "0.6",
        )  # fmt: skip
    for place in (1, 2):
        ax.axvline(place, color="0.8", lw=0.6, zorder=0)
    ax.set_xticks([0.5, 1.5, 2.5], ["balance", "prune", "line"])
    ax.tick_params(axis="x", length=0)
    ax.set_yscale("log")
    ax.set_title(
        f"{cells['paths'].sum()} random starts\nlargest rise {max(rise, 0):.0e} of the start"
    )


if __name__ == "__main__":
    sweep.main(__file__)
