"""Optimisers side by side: how low they get, what stationary point they reach, how sparse it is.

A cell is one data set and one optimiser: networks of one width from the same seeds.  The gap of
every network to the certified optimum over all patterns is followed along training.  Where training
stops is judged twice: as it is, by the gap to the convex optimum on its own signed patterns (zero
only at directionally stationary points), and polished, where that gap is gone and what is left is
the price of the stationary point that this optimiser chose.  Points are counted as one up to
permutation, positive rescaling and splitting of neurons.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses import sweep
from landscape import figures, polish, prune, sparsity, train
from landscape.errors import unknown
from landscape.solvers import generation, restricted
from landscape.stationarity import GLOBAL, SPURIOUS, VERDICTS, Classifier, census
from landscape.training import batched, polishing

VERSIONS = {
    "optimizers": 1,
    "train": batched.VERSION,
    "polish": polishing.VERSION,
    "generation": generation.VERSION,
    "restricted": restricted.VERSION,
    "sparsity": sparsity.VERSION,
}
SUMMARY = (
    "data", "n", "d", "beta", "optimizer", "width", "seeds", "diverged", "steps", "seconds",
    "optimum", "floor", "scope", "median_gap", "best_gap", "median_own_gap", "polished_median_gap",
    "polished_best_gap", "global", "spurious", "distinct", "median_neurons_trained",
    "median_neurons", "optimal_neurons",
)  # fmt: skip
FLOOR = 1e-6
"""Relative gaps up to this count as none, and are drawn at it."""


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train, judge, polish and judge again the networks of one data set and one optimiser."""
    sample, problem = sweep.problem(cfg)
    runs = train(
        problem,
        width=cfg.width,
        seeds=range(cfg.seeds),
        optimizer=cfg.optimizer.name,
        steps=cfg.optimizer.steps,
        scale=cfg.initial,
        throw=False,  # a run that diverges is counted, and left out
        **cfg.optimizer.options,
    )
    solution = sweep.optimum(problem, runs, tolerance=1e-9)
    judge = Classifier(problem, solution.certificate, global_tolerance=FLOOR)
    floor = judge.prices.floor
    assert floor is not None
    polished = polish(problem, runs)
    finite = np.flatnonzero(np.isfinite(runs.objectives)).tolist()
    objectives = runs.objectives[finite]
    gaps = 1 - floor.value / objectives
    own_gaps = 1 - np.array([judge.own(runs[i])[1] for i in finite]) / objectives
    neurons = np.array([_merged(problem, runs[i]) for i in finite])
    after = census(judge, [polished[i] for i in finite])
    row = {
        **sweep.described(sample, problem),
        "loss": problem.loss.name,
        "architecture": problem.architecture.label,
        "optimizer": cfg.optimizer.get("label", cfg.optimizer.name),
        "initial": cfg.initial,
        "width": cfg.width,
        "seeds": cfg.seeds,
        "diverged": len(runs) - len(finite),
        "steps": cfg.optimizer.steps,
        "seconds": float(runs.trace_seconds[-1]),
        "optimum": solution.objective,
        "floor": floor.value,
        "scope": floor.scope,
        "objective": float(np.median(objectives)),
        "median_gap": float(np.median(gaps)),
        "best_gap": float(gaps.min()),
        "median_own_gap": float(np.median(own_gaps)),
        "polished_median_gap": float(np.median(after.gaps)),
        "polished_best_gap": float(after.gaps.min()),
        "global": int(np.sum(after.verdicts == VERDICTS.index(GLOBAL))),
        "spurious": int(np.sum(after.verdicts == VERDICTS.index(SPURIOUS))),
        "distinct": int(after.group.max(initial=-1) + 1),
        "median_neurons_trained": float(np.median(neurons)),
        "median_neurons": float(np.median(after.neurons)),
        "optimal_neurons": len(prune(problem, solution.network()).values["output"]),
    }
    arrays = {
        "steps": runs.trace_steps,
        "seconds": runs.trace_seconds,
        "trace": runs.trace[finite],
        "trained_gaps": gaps,
        "trained_own_gaps": own_gaps,
        "trained_neurons": neurons,
        **{f"polished_{name}": values for name, values in after.arrays().items()},
    }
    return row, arrays


def _merged(problem: Any, network: Any) -> int:
    """Return how many neurons are left when those of one signed pattern are one."""
    return int(problem.architecture.lift(problem, network.values).theta.any(axis=1).sum())


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a row a data set: gap along training, gap at its end, neurons, distinct points."""
    if cfg.figure.against not in ("steps", "seconds"):
        raise unknown("figure.against", cfg.figure.against, ("steps", "seconds"))
    names = list(dict.fromkeys(table["data"]))  # one problem each
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 1.6 * len(names) + 0.55)
        axes = fig.subplots(len(names), 3, squeeze=False, width_ratios=[1.25, 1, 1])
        for ax in axes[:, :2].flat[1:]:
            ax.sharey(axes[0][0])
        for row, name in zip(axes, names, strict=True):
            cells = [one for _, one in table[table["data"] == name].iterrows()]
            for place, one in enumerate(cells):
                arrays = store.arrays(one["key"])
                _along(row[0], one, arrays, cfg.figure.against)
                _ends(row[1], place, one, arrays)
                _neurons(row[2], place, one, arrays)
        for row, name in zip(axes, names, strict=True):  # shared scales: after all is drawn
            _finish(row, [one for _, one in table[table["data"] == name].iterrows()])
        seeds = " or ".join(f"{n}" for n in sorted(set(table["seeds"])))
        axes[0][0].set_title(f"gap above the certified floor\n(median, IQR, {seeds} seeds)")
        axes[0][1].set_title("gap where training ends\nand polished (bar: median)")
        axes[0][2].set_title("neurons after merging,\ntrained and polished")
        against = {"steps": "step (full batch)", "seconds": "training time of the batch (s)"}
        axes[-1][0].set_xlabel(against[cfg.figure.against])
        figures.legend(fig, axes, ncols=4)
    return {"optimizers": fig}


def _along(ax: Any, row: Any, arrays: Any, against: str) -> None:
    """Draw the gap along training at about 30 places, evenly spaced on a logarithmic axis."""
    x = arrays[against]
    first, last = x[1] if len(x) > 1 else x[0], x[-1]
    at = np.unique(np.searchsorted(x, np.geomspace(first, last, 30) * (1 - 1e-9)))
    gaps = 1 - row["floor"] / arrays["trace"][:, at]
    figures.median_band(ax, x[at], gaps, row["optimizer"], FLOOR)


def _ends(ax: Any, place: int, row: Any, arrays: Any) -> None:
    """Draw every seed's gap where training stopped and after polishing."""
    values = [np.maximum(arrays[f"{when}_gaps"], FLOOR) for when in ("trained", "polished")]
    _pair(ax, place, values, row["optimizer"])


def _neurons(ax: Any, place: int, row: Any, arrays: Any) -> None:
    """Draw every seed's neurons where training stopped and after polishing, merged."""
    values = [arrays[f"{when}_neurons"] for when in ("trained", "polished")]
    _pair(ax, place, values, row["optimizer"])


def _pair(ax: Any, place: int, values: Any, name: str) -> None:
    """Draw two columns of dots beside each other, hollow and filled, a bar at their medians."""
    look = figures.method(name)
    for side, (heights, face) in enumerate(zip(values, ("none", look["color"]), strict=True)):
        x = place + 0.44 * side - 0.22
        spread = np.linspace(-0.12, 0.12, len(heights))
        ax.plot(
            x + spread, heights, ls="none", marker=look["marker"], color=look["color"], mfc=face,
            ms=2.2, mew=0.5,
        )  # fmt: skip
        ax.plot([x - 0.19, x + 0.19], 2 * [np.median(heights)], color="black", lw=1.0)


def _finish(row: Any, cells: Any) -> None:
    """Set scales, floors and labels of one data set's panels."""
    first, places = cells[0], range(len(cells))
    row[0].set_xscale("log")
    figures.gap_axis(row[0], FLOOR, f"global: ≤ 1e-6; floor: {first['scope']}")
    figures.gap_axis(row[1], FLOOR, "")
    row[0].set_ylabel(f"{first['data']}\nn = {first['n']}, d = {first['d']}\nrelative gap")
    row[2].set_yscale("log", base=2)
    row[2].axhline(
        min(one["optimal_neurons"] for one in cells), color="black", lw=0.8, ls="--",
        label="convex optimum found",
    )  # fmt: skip
    ticks = [2**k for k in range(1, 9) if 2**k <= 1.05 * max(one["width"] for one in cells)]
    row[2].set_yticks(ticks, [f"{t}" for t in ticks])
    row[2].set_ylabel("neurons")
    for ax, column, label in (
        (row[1], "global", "global optima"), (row[2], "distinct", "distinct points"),
    ):  # fmt: skip
        ax.set_xlim(-0.6, len(cells) - 0.4)
        ax.set_xticks(places, [f"{one[column]}" for one in cells])
        ax.tick_params(axis="x", length=0)
        ax.set_xlabel(f"{label} of {first['seeds']} seeds")
    for face, label in (("none", "as trained"), ("0.3", "polished")):
        row[2].plot([], [], "o", ms=2.5, mfc=face, mew=0.5, color="0.3", ls="none", label=label)


if __name__ == "__main__":
    sweep.main(__file__)
