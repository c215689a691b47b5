"""Where training ends: the objective of trained networks against their own convex optimum.

A cell is one data set and one optimiser.  Every trained network is judged as it is, then polished
to a directionally stationary point and judged again: the objective of such a point is the optimum
of the convex program over its own *signed* activation patterns, kinks resolved (Wang, Lacotte &
Pilanci 2022), so polished networks lie on the diagonal.  The unsigned program, with both output
signs of every pattern, is lower; the largest price over all patterns tells global from spurious.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses import sweep
from landscape import figures, polish, solve, train
from landscape.solvers import generation, restricted
from landscape.stationarity import GLOBAL, SPURIOUS, VERDICTS, Classifier, both_signs, census
from landscape.training import batched, polishing

VERSIONS = {
    "stationary_points": 1,
    "train": batched.VERSION,
    "polish": polishing.VERSION,
    "generation": generation.VERSION,
    "restricted": restricted.VERSION,
}
SUMMARY = (
    "data", "optimizer", "networks", "optimum", "scope", "stationary", "on_kinks", "global",
    "spurious", "false_global", "false_spurious", "distinct", "largest_residual",
    "largest_own_gap", "raw_own_gap", "unsigned_lower", "unsigned_median",
)  # fmt: skip
STATIONARY = 1e-7
"""Residual relative to β, and wrong-signed ties, up to which a point counts as stationary."""
SAME = 1e-6
"""Relative excess over the certified optimum up to which an objective may count as global."""
FLOOR = 1e-14
"""Gaps below this are drawn at it: rounding."""


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train, polish and judge the networks of one data set and one optimiser."""
    sample, problem = sweep.problem(cfg)
    runs = train(
        problem,
        width=list(cfg.widths),
        seeds=range(cfg.seeds),
        optimizer=cfg.optimizer.name,
        steps=cfg.optimizer.steps,
        **cfg.optimizer.options,
    )
    solution = solve(problem, tolerance=1e-9)
    judge = Classifier(problem, solution.certificate, tolerance=STATIONARY)
    raw = census(judge, runs.networks)
    polished = polish(problem, runs)
    points = [judge(network) for network in polished.networks]
    after = census(judge, polished.networks)
    settled = (after.clarke <= STATIONARY) & (after.wrong <= STATIONARY)
    spurious = after.verdicts == VERDICTS.index(SPURIOUS)
    own_gaps = np.array([point.own_gap for point in points])
    chosen = np.flatnonzero(spurious)[:: max(1, spurious.sum() // cfg.unsigned)][: cfg.unsigned]
    unsigned = np.array([_unsigned(problem, points[i]) for i in chosen])
    # The other test of the same question: is the objective that of the certified optimum?
    excess = after.objectives / solution.certificate.dual - 1
    found_global = after.verdicts == VERDICTS.index(GLOBAL)
    row = {
        "data": sample.name,
        "n": problem.X.shape[0],
        "d": problem.X.shape[1],
        "beta": problem.beta,
        "optimizer": cfg.optimizer.get("label", cfg.optimizer.name),
        "networks": len(points),
        "optimum": solution.objective,
        "dual": solution.certificate.dual,
        "scope": solution.certificate.scope,
        "stationary": int(settled.sum()),
        "on_kinks": int((settled & (after.kinks > 0)).sum()),
        "global": int(found_global.sum()),
        "false_global": int((found_global & (excess > SAME)).sum()),
        "false_spurious": int((spurious & (excess <= 1e-8)).sum()),
        "spurious": int(spurious.sum()),
        "distinct": int(after.group.max(initial=-1) + 1),
        "largest_residual": float(after.clarke[settled].max(initial=0.0)),
        "largest_own_gap": float(own_gaps[settled].max(initial=0.0)),
        "raw_own_gap": float(np.median(1 - raw.own_bounds / raw.objectives)),
        "unsigned_lower": float(np.mean(unsigned > 1e-6)) if len(unsigned) else float("nan"),
        "unsigned_median": float(np.median(unsigned)) if len(unsigned) else float("nan"),
    }
    arrays = {
        "widths": np.repeat(np.asarray(cfg.widths), cfg.seeds),
        "own_gaps": own_gaps,
        "settled": settled,
        "unsigned": unsigned,
        **{f"raw_{name}": values for name, values in raw.arrays().items()},
        **after.arrays(),
    }
    return row, arrays


def _unsigned(problem: Any, point: Any) -> float:
    """Return how much lower the program with both signs is, relative to the objective."""
    found = restricted.minimise(both_signs(problem, point.point), 1e-8, throw=False)
    return 1.0 - found.value / point.objective


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a row a data set: diagonal scatter, own gaps, signs, prices."""
    names = list(dict.fromkeys(table["data"]))
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 1.75 * len(names) + 0.4)
        axes = fig.subplots(len(names), 4, squeeze=False)
        for row, name in zip(axes, names, strict=True):
            cells = table[table["data"] == name]
            _diagonal(row[0], cells, store)
            _own_gaps(row[1], cells, store)
            _signs(row[2], cells, store)
            _prices(row[3], cells, store)
            first = cells.iloc[0]
            row[0].set_ylabel(f"{name} (n = {first['n']}, d = {first['d']})\nobjective / optimum")
        titles = (
            "objective against the optimum\non its own signed patterns",
            "gap to its own optimum",
            "what the other sign\nof each pattern would gain",
            "largest price over all patterns",
        )
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title)
        labels = ("own optimum / optimum", "relative gap", "relative decrease", "price / β")
        for ax, label in zip(axes[-1], labels, strict=True):
            ax.set_xlabel(label)
        figures.legend(fig, axes, ncols=6)
    return {"stationary_points": fig}


def _diagonal(ax: Any, cells: Any, store: Any) -> None:
    """Scatter objective against own optimum, both over the certified optimum: raw and polished."""
    top = 1.0
    for _, row in cells.iterrows():
        arrays, look = store.arrays(row["key"]), figures.method(row["optimizer"])
        floor = row["dual"]
        ax.plot(
            arrays["raw_own"] / floor, arrays["raw_objectives"] / floor, ls="none", marker="o",
            ms=2.2, mfc="none", mew=0.5, color=look["color"], alpha=0.7,
        )  # fmt: skip
        ax.plot(
            arrays["own_bounds"] / floor, arrays["objectives"] / floor, ls="none", marker=".",
            ms=2.5, color=look["color"], label=look["label"],
        )  # fmt: skip
        top = max(top, float(arrays["raw_objectives"].max() / floor))
    ax.plot([1.0, top], [1.0, top], color="0.6", lw=0.7, zorder=0)
    ax.axhline(1.0, color="black", lw=0.7, ls="--", label="certified optimum")
    ax.plot([], [], "o", ms=2.5, mfc="none", mew=0.6, color="0.3", label="as trained")
    ax.plot([], [], ".", ms=4, color="0.3", label="polished")
    for scale in (ax.set_xscale, ax.set_yscale):
        scale("log")
    plain = [1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500]
    inside = [v for v in plain if v <= 1.1 * top]
    kept = inside if len(inside) <= 6 else [v for v in (1, 2, 5, 20, 100, 500) if v <= 1.1 * top]
    for axis in (ax.set_xticks, ax.set_yticks):
        axis(kept, [f"{v:g}" for v in kept])
        axis([], minor=True)


def _own_gaps(ax: Any, cells: Any, store: Any) -> None:
    """Histogram of (objective − own lower bound) / objective, as trained and polished."""
    raw, after = [], []
    for _, row in cells.iterrows():
        arrays = store.arrays(row["key"])
        raw.append(1 - arrays["raw_own_bounds"] / arrays["raw_objectives"])
        after.append(arrays["own_gaps"])
    bins = np.logspace(np.log10(FLOOR), 0, 29)
    for values, look, label in (
        (raw, {"histtype": "step", "color": "0.3"}, None),
        (after, {"histtype": "stepfilled", "color": "0.75"}, None),
    ):
        ax.hist(np.clip(np.concatenate(values), FLOOR, 1), bins=bins, label=label, **look)
    ax.set_xscale("log")
    ax.axvline(1e-6, color="#B00000", lw=0.8, ls=":", label="1e-6")
    ax.set_ylabel("networks")


def _signs(ax: Any, cells: Any, store: Any) -> None:
    """How much lower the program with both signs is at spurious points: cumulative share."""
    for _, row in cells.iterrows():
        values = np.sort(store.arrays(row["key"])["unsigned"])
        if len(values):
            share = np.arange(1, len(values) + 1) / len(values)
            ax.step(
                np.maximum(values, 1e-9), share, where="post",
                color=figures.method(row["optimizer"])["color"],
            )  # fmt: skip
    ax.set_xscale("log")
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("share of\nspurious points")


def _prices(ax: Any, cells: Any, store: Any) -> None:
    """Gap above the certified floor against the largest price: 1 exactly at global optima."""
    for _, row in cells.iterrows():
        arrays = store.arrays(row["key"])
        ax.plot(
            np.maximum(arrays["prices"], 1.0), np.maximum(arrays["gaps"], 1e-10), ls="none",
            marker=".", ms=2.5, color=figures.method(row["optimizer"])["color"],
        )  # fmt: skip
    ax.axvline(1.0, color="black", lw=0.7, ls="--")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylabel("gap above the floor")


if __name__ == "__main__":
    sweep.main(__file__)
