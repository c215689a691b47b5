"""What normalisation changes: optima, training, test errors, conditioning; kernels reweighted.

The first figure trains two-layer networks without normalisation, with batch normalisation before
their ReLUs and with normalisation after them, each beside its own certified optimum: relative gaps
to the certified bound along training and at its end, and test errors beside the optimum's.  (Their
regularisers count different weights, so their objectives are not compared.)

The second scales the columns of the inputs by factors from 1 down to 1/κ.  The program of
batch normalisation is that of a ReLU network on whitened rows, whatever κ: its optimum does not
move, and neither does training on rows whitened explicitly.  Training with batch normalisation
keeps its directions in the given coordinates, though; the figure shows what is left of κ.

The third is about kernels: ridge regression with the neural tangent kernel is iterate 0 of
reweighting, which falls to the optimum of the gated program (a group lasso); every iterate has a
certified gap.  Test errors of the iterates stand beside those of the NTK's own predictor.  (In the
table its median gap is that of iterate 0, its best gap and trained test error the last one's.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from analyses import sweep
from landscape import arrangements, figures, solve
from landscape.architectures import BatchNorm, TwoLayer
from landscape.bounds import EXACT
from landscape.solvers import generation, group_lasso, restricted, units
from landscape.theory import reweighting
from landscape.training import batched

VERSIONS = {
    "normalisation": 1,
    "train": batched.VERSION,
    "generation": generation.VERSION,
    "restricted": restricted.VERSION,
    "units": units.VERSION,
    "group_lasso": group_lasso.VERSION,
}
SUMMARY = (
    "study", "data", "n", "d", "beta", "network", "condition", "width", "seeds", "learning_rate",
    "optimum", "bound", "scope", "gap", "active", "best_gap", "median_gap", "steps_to_percent",
    "rounds", "test_error_optimum", "test_error_trained", "test_error_ntk",
)  # fmt: skip
NAMES = {"two_layer_relu": "relu", "batch_norm": "batch_norm", "normalised_relu": "normalised_relu"}
"""Networks of the first two studies, as figures call them."""
FLOOR = 1e-6
"""Relative gaps below this are drawn at it."""
PERCENT = 1e-2


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply: networks that the study is not about."""
    study, name = cfg.study, cfg.architecture.name
    known = ("gated_relu",) if study == "kernels" else tuple(NAMES)
    return "" if name in known else f"study {study} is about {', '.join(known)}; not {name}."


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train and solve one network, or reweight the kernels of one gated network."""
    return _reweighted(cfg) if cfg.study == "kernels" else _trained(cfg)


def _trained(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train and solve one data set with one kind of normalisation."""
    sample, problem = sweep.problem(cfg)
    kind = "whitened" if cfg.whiten else NAMES[problem.architecture.name]
    if cfg.condition != 1:
        d = problem.X.shape[1]
        problem = problem.replace(X=problem.X * np.geomspace(1.0, 1.0 / cfg.condition, d))
    if cfg.whiten:  # the rows that batch normalisation amounts to
        rows = BatchNorm().design(problem.X)
        problem = problem.replace(X=rows, architecture=TwoLayer())
    solution = solve(problem, tolerance=cfg.solver.tolerance, limit=cfg.solver.cones, throw=False)
    certificate = solution.certificate
    bound = certificate.bound
    rate, runs = sweep.tuned(problem, cfg)
    finite = np.flatnonzero(np.isfinite(runs.objectives))
    gaps = 1 - bound / runs.objectives[finite]
    trace = 1 - bound / runs.trace[finite]
    below = np.median(trace, axis=0) <= PERCENT
    errors, own = np.full(len(finite), np.nan), np.nan
    if cfg.study == "networks":
        errors = np.array([sweep.held_out_error(sample, runs[int(i)]) for i in finite])
        own = sweep.held_out_error(sample, solution.network())
    row = {
        "study": cfg.study,
        **sweep.described(sample, problem),
        "task": sample.task,
        "network": kind,
        "condition": float(cfg.condition),
        "width": cfg.width,
        "seeds": len(finite),
        "learning_rate": rate,
        **sweep.certified(solution),
        "best_gap": float(gaps.min()),
        "median_gap": float(np.median(gaps)),
        "steps_to_percent": float(runs.trace_steps[below.argmax()]) if below.any() else np.inf,
        "rounds": 0,
        "test_error_optimum": own,
        "test_error_trained": float(np.median(errors)),
        "test_error_ntk": np.nan,
    }
    return row, {"steps": runs.trace_steps, "trace": trace, "gaps": gaps, "test_errors": errors}


def _reweighted(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reweight the kernels of all patterns of one data set, from the NTK on."""
    sample, problem = sweep.problem(cfg)
    patterns = arrangements.enumerate(problem.design)
    run = reweighting.reweight(problem, patterns, iterations=cfg.rounds, tolerance=FLOOR)
    solution = solve(problem, patterns, tolerance=cfg.solver.tolerance, throw=False)
    bound = max(float(run.bounds.max()), solution.certificate.dual)
    last = len(run.objectives) - 1
    chosen = np.unique(np.append(0, np.geomspace(1, max(last, 1), 12).astype(int)))
    chosen = chosen[chosen <= last]
    errors = [sweep.held_out_error(sample, run.network(int(k))) for k in chosen]
    row = {
        "study": cfg.study,
        **sweep.described(sample, problem),
        "task": sample.task,
        "network": problem.architecture.name,
        "condition": 1.0,
        "width": len(patterns),
        "seeds": 1,
        "learning_rate": np.nan,
        "optimum": solution.objective,
        "bound": bound,
        "scope": EXACT if solution.certificate.relative_gap <= FLOOR else "",
        "gap": 1 - bound / solution.objective,
        "active": solution.active,
        "best_gap": 1 - bound / float(run.objectives[-1]),
        "median_gap": 1 - bound / float(run.objectives[0]),
        "steps_to_percent": np.nan,
        "rounds": last,
        "test_error_optimum": sweep.held_out_error(sample, solution.network()),
        "test_error_trained": errors[-1],
        "test_error_ntk": sweep.held_out_error(sample, lambda X: torch.as_tensor(run.tangent(X))),
    }
    certified = 1 - np.maximum.accumulate(run.bounds) / run.objectives
    own = 1 - bound / run.objectives
    arrays = {"certified": certified, "gaps": own, "chosen": chosen, "errors": np.array(errors)}
    return row, arrays


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw the studies that the table has, a figure each."""
    drawn = {}
    for study, name, draw in (
        ("networks", "normalisation", _networks),
        ("conditioning", "normalisation_conditioning", _conditioning),
        ("kernels", "normalisation_kernels", _kernels),
    ):
        part = table[table["study"] == study]
        if len(part):
            drawn[name] = draw(part, store)
    return drawn


def _networks(table: Any, store: Any) -> Any:
    """Draw a row a data set: gaps along training, gaps at its end, test errors."""
    names, kinds = list(dict.fromkeys(table["data"])), list(dict.fromkeys(table["network"]))
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 1.45 * len(names) + 0.6)
        axes = fig.subplots(len(names), 3, squeeze=False, width_ratios=[1.4, 1, 1])
        for row, name in zip(axes, names, strict=True):
            cells = [one for _, one in table[table["data"] == name].iterrows()]
            for one in cells:
                arrays, place = (
                    store.arrays(one["key"]),
                    len(kinds) - 1 - kinds.index(one["network"]),
                )
                figures.median_band(row[0], arrays["steps"], arrays["trace"], one["network"], FLOOR)
                figures.spread(row[1], place, np.maximum(arrays["gaps"], FLOOR), one["network"])
                figures.spread(row[2], place, arrays["test_errors"], one["network"])
                row[2].plot(
                    one["test_error_optimum"], place, color="black", marker="|", ls="none", ms=8,
                    mew=1.2, label="convex optimum",
                )  # fmt: skip
            first = cells[0]
            row[0].set_title(
                f"{name}: n = {first['n']}, d = {first['d']}, β = {first['beta']:.2g}", loc="left"
            )
            row[0].set_ylabel("gap to the bound")
            row[0].set_yscale("log")
            row[1].set_xscale("log")
            for ax in row[1:]:
                labels = [figures.LABELS.get(str(kind), str(kind)) for kind in reversed(kinds)]
                ax.set_yticks(range(len(kinds)), labels if ax is row[1] else [])
                ax.set_ylim(-0.6, len(kinds) - 0.4)
                ax.grid(axis="y", lw=0.3, color="0.9")
            error = "misclassified" if first["task"] == "binary" else "mean squared error"
            row[2].set_xlabel(f"test: {error}")
            relaxed = [one["network"] for one in cells if one["scope"] != EXACT]
            if relaxed:
                words = ", ".join(figures.LABELS.get(str(kind), str(kind)) for kind in relaxed)
                row[1].set_title(f"relaxed bound: {words}", fontsize=6, color="#B00000")
        axes[-1][0].set_xlabel("steps of Adam")
        axes[-1][1].set_xlabel("gap at the end")
        if not axes[0][1].get_title():
            axes[0][1].set_title(f"{first['seeds']} networks of width {first['width']}")
        figures.legend(fig, axes, ncols=4)
    return fig


def _conditioning(table: Any, store: Any) -> Any:
    """Draw gaps along training at the two ends of κ, and gaps and optima against κ."""
    ends = sorted(set(table["condition"]))
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 2.3)
        axes = fig.subplots(1, 4, squeeze=False)[0]
        for ax, condition in zip(axes[:2], (ends[0], ends[-1]), strict=True):
            for _, one in table[table["condition"] == condition].iterrows():
                arrays = store.arrays(one["key"])
                figures.median_band(ax, arrays["steps"], arrays["trace"], one["network"], FLOOR)
            ax.set_title(f"κ = {condition:g}")
            ax.set_xlabel("steps of Adam")
            ax.set_yscale("log")
        axes[0].set_ylabel("gap to the bound")
        low = min(ax.get_ylim()[0] for ax in axes[:2])
        high = max(ax.get_ylim()[1] for ax in axes[:2])
        for ax in axes[:2]:
            ax.set_ylim(low, high)
        for kind in dict.fromkeys(table["network"]):
            part = table[table["network"] == kind].sort_values("condition")
            arrays = [store.arrays(key)["gaps"] for key in part["key"]]
            gaps = np.maximum(np.array(arrays).T, FLOOR)
            figures.median_band(axes[2], part["condition"], gaps, kind)
            axes[3].plot(part["condition"], part["optimum"], **figures.method(kind))
        for ax, title in zip(axes[2:], ("gap at the end", "certified optimum"), strict=True):
            figures.sizes_axis(ax, ends)
            ax.set_xlabel("ratio κ of column scales")
            ax.set_title(title)
        axes[2].set_yscale("log")
        bottom, top = axes[2].get_ylim()
        axes[2].set_ylim(10 ** np.floor(np.log10(bottom)), 10 ** np.ceil(np.log10(top)))
        axes[3].set_ylim(bottom=0)
        first = table.iloc[0]
        fig.suptitle(
            f"{first['data']}: n = {first['n']}, {first['seeds']} networks of width "
            f"{first['width']}, β = {first['beta']:.2g}",
            fontsize=8,
        )
        figures.legend(fig, axes, ncols=3)
    return fig


def _kernels(table: Any, store: Any) -> Any:
    """Draw gaps of the iterates, certified by themselves and to the best bound; test errors."""
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 2.2)
        axes = fig.subplots(1, 1 + len(table), squeeze=False)[0]
        for k, (_, one) in enumerate(table.iterrows()):
            arrays, color = store.arrays(one["key"]), f"C{k}"
            rounds = np.arange(len(arrays["gaps"]))
            label = f"{one['data']}: n = {one['n']}, β = {one['beta']:.2g}, {one['width']} kernels"
            axes[0].plot(rounds, np.maximum(arrays["gaps"], FLOOR), color=color, label=label)
            axes[0].plot(
                rounds, np.maximum(arrays["certified"], FLOOR), color=color, ls=":", lw=0.8
            )
            axes[0].plot(0, arrays["gaps"][0], color=color, marker="o", ls="none")
            ax = axes[1 + k]
            ax.plot(arrays["chosen"], arrays["errors"], color=color, marker=".")
            ax.axhline(one["test_error_ntk"], color="0.5", ls="--", lw=0.9)
            ax.axhline(one["test_error_optimum"], color="black", ls=":", lw=0.9)
            ax.set_title(str(one["data"]))
            binary = one["task"] == "binary"
            ax.set_ylabel("test: misclassified" if binary else "test: squared error")
        for ax in axes:
            ax.set_xscale("symlog", linthresh=1)
            ax.set_xlim(left=-0.1)
            ax.set_xlabel("rounds of reweighting (0: NTK)")
        axes[0].set_yscale("log")
        axes[0].set_ylabel("relative gap")
        axes[0].plot(
            [], [], color="0.4", ls=":", lw=0.8, label="certified by the iterates themselves"
        )
        axes[0].plot([], [], color="0.5", ls="--", lw=0.9, label="NTK's own predictor")
        axes[1].plot([], [], color="black", ls=":", lw=0.9, label="optimum of the gated program")
        figures.legend(fig, axes, ncols=3)
    return fig


if __name__ == "__main__":
    sweep.main(__file__)
