"""Where training ends: the objective of trained networks against their own convex optimum.

A cell is one data set and one optimiser.  Every trained network is judged as it is, then polished
to a directionally stationary point and judged again: the objective of such a point is the optimum
of the convex program over its own *signed* activation patterns, kinks resolved (Wang, Lacotte &
Pilanci 2022), so polished networks lie on the diagonal.  The unsigned program, with both output
signs of every pattern, is never higher.  On noise it is lower for most spurious points; where the
data have a signal it was the same for all that were tried (``unsigned_lower``), because a pattern
of the other output sign does not pay there.  The largest price over all patterns tells global from
spurious.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import NullFormatter

from analyses import sweep
from landscape import figures, polish, train
from landscape.solvers import generation, restricted
from landscape.stationarity import GLOBAL, SPURIOUS, VERDICTS, Classifier, both_signs, summarise
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
LEAST = 1e-8
"""Excesses over the optimum below this are drawn at it: global optima."""
NONE = 1e-8
"""Decreases below this are drawn at it: none."""
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
        snapshots=_moments(cfg.optimizer.steps),
        throw=False,  # a run that diverges is counted, and left out
        **cfg.optimizer.options,
    )
    solution = sweep.optimum(problem, runs, tolerance=1e-9)
    judge = Classifier(problem, solution.certificate, tolerance=STATIONARY)
    finite = np.flatnonzero(np.isfinite(runs.objectives))
    some = finite[:: cfg.every]
    raw = np.array([judge.own(runs[int(i)]) for i in some])
    polished = polish(problem, runs)
    points = [judge(polished[int(i)]) for i in finite]
    after = summarise(points)
    settled = (after.clarke <= STATIONARY) & (after.wrong <= STATIONARY)
    spurious = after.verdicts == VERDICTS.index(SPURIOUS)
    own_gaps = np.array([point.own_gap for point in points])
    signed = problem.architecture.plain_neurons  # other programs have no unsigned twin
    chosen = np.flatnonzero(spurious & signed)
    chosen = chosen[:: max(1, len(chosen) // cfg.unsigned)][: cfg.unsigned]
    unsigned = np.array([_unsigned(problem, points[i]) for i in chosen])
    # The other test of the same question: is the objective that of the certified optimum?
    excess = after.objectives / solution.certificate.dual - 1
    found_global = after.verdicts == VERDICTS.index(GLOBAL)
    row = {
        **sweep.described(sample, problem),
        "optimizer": cfg.optimizer.get("label", cfg.optimizer.name),
        "networks": len(points),
        "diverged": len(runs) - len(points),
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
        "raw_own_gap": float(np.median(1 - raw[:, 1] / runs.objectives[some])),
        "unsigned_lower": float(np.mean(unsigned > 1e-6)) if len(unsigned) else float("nan"),
        "unsigned_median": float(np.median(unsigned)) if len(unsigned) else float("nan"),
    }
    arrays = {
        "widths": np.asarray(runs.widths)[finite],
        "own_gaps": own_gaps,
        "settled": settled,
        "unsigned": unsigned,
        **_price_traces(judge, runs, cfg.traced),
        "raw_objectives": runs.objectives[some],
        "raw_own": raw[:, 0],
        "raw_own_bounds": raw[:, 1],
        **after.arrays(),
    }
    return row, arrays


def _moments(steps: int) -> list[int]:
    """Return the steps at which prices are taken: 0, and some up to the end."""
    return [0, *dict.fromkeys(int(step) for step in np.geomspace(1, steps, 10))]


def _price_traces(judge: Classifier, runs: Any, traced: int) -> dict[str, np.ndarray]:
    """Return the largest price over β along training, shape (T, traced), of the widest networks."""
    last = np.flatnonzero(np.isfinite(runs.objectives))[-traced:]
    moments = runs.snapshots["output"].shape[0]
    prices = [
        [judge.price({k: v[t, run] for k, v in runs.snapshots.items()}) for run in last]
        for t in range(moments)
    ]
    return {
        "moments": np.array(_moments(int(runs.trace_steps[-1]))),
        "price_trace": np.array(prices),
    }


def _unsigned(problem: Any, point: Any) -> float:
    """Return how much lower the program with both signs is, relative to the objective."""
    found = restricted.minimise(both_signs(problem, point.point), 1e-8, throw=False)
    return 1.0 - found.value / point.objective


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a row a data set: diagonal scatter, own gaps, signs, prices."""
    names = list(dict.fromkeys(table["data"]))  # one problem each
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 1.6 * len(names) + 0.5)
        axes = fig.subplots(len(names), 4, squeeze=False)
        for row, name in zip(axes, names, strict=True):
            cells = table[table["data"] == name]
            _diagonal(row[0], cells, store)
            _own_gaps(row[1], cells, store)
            _signs(row[2], cells, store)
            _prices(row[3], cells, store)
            first = cells.iloc[0]
            shape = f"n = {int(first['n'])}, d = {int(first['d'])}"
            row[0].set_ylabel(f"{name}\n{shape}\nexcess of objective")
        titles = (
            "excess over the\ncertified optimum",
            "gap to its own\nconvex optimum",
            "gain of the patterns'\nother signs",
            "largest price over\nall patterns",
        )
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title)
        labels = ("excess of own optimum", "relative gap", "relative decrease", "price / β")
        for ax, label in zip(axes[-1], labels, strict=True):
            ax.set_xlabel(label)
        figures.legend(fig, axes, ncols=6)
    return {"stationary_points": fig, "stationary_points_prices": _draw_prices(table, store, names)}


def _draw_prices(table: Any, store: Any, names: list[str]) -> Any:
    """Draw the largest price along training, a panel a data set, a line an optimiser."""
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 2.1)
        axes = fig.subplots(1, len(names), squeeze=False, sharey=True)
        for ax, name in zip(axes[0], names, strict=True):
            for _, row in table[table["data"] == name].iterrows():
                arrays = store.arrays(row["key"])
                share = arrays["moments"] / arrays["moments"][-1]
                figures.median_band(ax, share, arrays["price_trace"].T, row["optimizer"])
            width, traced = int(arrays["widths"].max()), arrays["price_trace"].shape[1]
            ax.axhline(1.0, color="black", lw=0.7, ls="--", label="1: global optimum")
            ax.set_title(f"{name}, width {width}")
            ax.set_yscale("log")
            ax.set_xscale("symlog", linthresh=1e-3)
            ax.set_xlim(-1e-4, 1.3)
            ax.set_xticks([0, 1e-2, 1], ["0", "1 %", "100 %"])
            ax.minorticks_off()
            ax.set_xlabel("share of training")
        axes[0][0].set_ylabel(f"largest price / β\n(median, IQR, {traced} seeds)")
        figures.legend(fig, axes, ncols=6)
    return fig


def _diagonal(ax: Any, cells: Any, store: Any) -> None:
    """Scatter objective against own optimum, as excess over the certified optimum."""
    low, high = 1.0, LEAST
    for _, row in cells.iterrows():
        arrays, look = store.arrays(row["key"]), figures.method(row["optimizer"])
        raw = [
            np.maximum(arrays[f"raw_{k}"] / row["dual"] - 1, LEAST) for k in ("own", "objectives")
        ]
        after = [
            np.maximum(arrays[k] / row["dual"] - 1, LEAST) for k in ("own_bounds", "objectives")
        ]
        style = {"ls": "none", "color": look["color"]}
        ax.plot(*raw, marker="o", ms=2.4, mfc="none", mew=0.5, **style)
        ax.plot(*after, marker=".", ms=3, label=look["label"], **style)
        low, high = min(low, after[0].min()), max(high, raw[1].max(), after[1].max())
    ax.plot([low, high], [low, high], color="0.6", lw=0.7, zorder=0)
    ax.plot([], [], "o", ms=2.5, mfc="none", mew=0.6, color="0.3", label="as trained")
    ax.plot([], [], ".", ms=4, color="0.3", label="polished")
    figures.decades_axis(ax)
    ax.set_yscale("log")


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
                np.maximum(values, NONE), share, where="post",
                color=figures.method(row["optimizer"])["color"],
            )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlim(NONE / 2, 1.5)
    ax.axvspan(NONE / 2, NONE, color="0.88", lw=0, zorder=0)
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
    ax.set_xlim(0.8, max(ax.get_xlim()[1], 12.0))  # 1 and 10 are in sight
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yscale("log")
    ax.set_ylabel("gap above the floor")


if __name__ == "__main__":
    sweep.main(__file__)
