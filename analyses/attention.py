"""Attention, mixers and Fourier mixing beside their convex programs (Sahiner et al., ICML 2022).

A cell is one data set of token sequences and one architecture: networks from several seeds are
trained (by some steps of L-BFGS: Adam is slow on products of three), and the convex program is
solved with a certified lower bound.  The first figure compares architectures: gaps of trained
networks to the bound, how many heads they have and how many the optimum has (the rank of its
matrices), test errors of both; a two-layer ReLU network and a linear map, which see the same
numbers as one row, stand beside them.  Heads of ReLUs, and ReLU networks of many inputs, have no
exact price: their convex points come from a search of a few rounds, and their bounds are
relaxations, which say little on data of this size.  The second figure follows rank, test error and
the share of the objective that is penalty from β_max down.  (Heads of a trained network: its
singular values above 1e-3 of the largest.)
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from analyses import sweep
from landscape import figures, train
from landscape.architectures.heads import Heads
from landscape.bounds import EXACT, beta_max
from landscape.problem import Problem
from landscape.solvers import bilinear, generation, restricted, units
from landscape.training import batched

VERSIONS = {
    "attention": 2,
    "train": batched.VERSION,
    "bilinear": bilinear.VERSION,
    "generation": generation.VERSION,
    "restricted": restricted.VERSION,
    "units": units.VERSION,
}
SUMMARY = (
    "study", "data", "n", "d", "beta", "architecture", "optimum", "bound", "scope", "gap", "heads",
    "seconds", "steps", "best_trained", "best_gap", "trained_heads", "train_seconds",
    "test_error_optimum", "test_error_trained",
)  # fmt: skip
FLOOR = 1e-8
"""Relative gaps below this are drawn at it."""
VISIBLE = 1e-3
"""Singular values of trained heads below this share of the largest do not count."""


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply: data that the architecture reads as no sequences."""
    return sweep.featured(cfg, "attention compares programs of whole networks")


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train and solve one data set with one architecture."""
    sample, problem = sweep.problem(cfg)
    if cfg.share is not None:
        problem = problem.replace(beta=cfg.share * beta_max(problem))
    solution, seconds = sweep.solved(problem, cfg)
    certificate, network = solution.certificate, solution.network()
    bound = certificate.bound
    arrays, trained = {}, {}
    if cfg.seeds:
        arrays, trained = _trained(problem, sample, bound, cfg)
    penalty = problem.beta * float(problem.architecture.penalty(network.values).detach())
    row = {
        "study": cfg.study,
        **sweep.described(sample, problem),
        "task": sample.task,
        "architecture": cfg.architecture.title,
        "share": float("nan") if cfg.share is None else cfg.share,
        **sweep.certified(solution, "heads"),
        "penalty_share": penalty / solution.objective,
        "rounds": len(solution.history),
        "seconds": seconds,
        "test_error_optimum": sweep.held_out_error(sample, network),
        **trained,
    }
    return row, arrays


def _trained(
    problem: Problem, sample: Any, bound: float, cfg: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train networks; return what each of them came to, and the best of them."""
    options = {"steps": cfg.steps, "learning_rate": cfg.learning_rate, "throw": False}
    runs = train(problem, cfg.width, range(cfg.seeds), cfg.trained_by, **options)
    finite = np.flatnonzero(np.isfinite(runs.objectives))
    objectives = runs.objectives[finite]
    heads = np.array([_heads(problem, runs[int(i)].values) for i in finite])
    errors = np.array([sweep.held_out_error(sample, runs[int(i)]) for i in finite])
    gaps, best = 1 - bound / objectives, int(objectives.argmin())
    row = {
        "width": cfg.width,
        "seeds": len(finite),
        "trained_by": cfg.trained_by,
        "steps": cfg.steps,
        "best_trained": float(objectives.min()),
        "best_gap": float(gaps.min()),
        "trained_heads": int(heads[best]),
        "train_seconds": float(runs.trace_seconds[-1]),
        "test_error_trained": float(np.median(errors)),
    }
    return {"gaps": gaps, "heads": heads, "errors": errors}, row


def _heads(problem: Problem, parameters: dict[str, torch.Tensor]) -> int:
    """Return how many units of a network count, heads of one gate merged."""
    own = problem.architecture
    if isinstance(own, Heads):
        sizes = own.sizes(own.fewest(parameters))
    else:
        sizes = parameters["hidden"].flatten(1).norm(dim=1) * parameters["output"].abs()
    return int((sizes > VISIBLE * sizes.max()).sum())


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw architectures beside each other, and ranks along β."""
    drawn = {}
    for study, label, draw in (
        ("architectures", "attention", _architectures),
        ("rank", "attention_rank", _ranks),
    ):
        part = table[table["study"] == study]
        if len(part):
            drawn[label] = draw(part, store)
    return drawn


def _architectures(table: Any, store: Any) -> Any:
    """Draw a row a data set: gaps, heads, test errors."""
    parts = [part for _, part in table.groupby("data", sort=False)]
    heights = [0.17 * part["architecture"].nunique() + 0.6 for part in parts]
    ratios = {"width_ratios": [1.2, 1, 1], "height_ratios": heights}
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, sum(heights) + 0.5)
        axes = fig.subplots(len(parts), 3, squeeze=False, **ratios)
        for row, part in zip(axes, parts, strict=True):
            kinds = list(dict.fromkeys(part["architecture"]))
            places = {kind: len(kinds) - 1 - k for k, kind in enumerate(kinds)}
            for _, one in part.iterrows():
                place = places[one["architecture"]]
                arrays = store.arrays(one["key"])
                exact = one["scope"] == EXACT
                draw = partial(_spread, kind=one["trained_by"], exact=exact)
                draw(row[0], place, np.maximum(arrays["gaps"], FLOOR))
                own = {"label": "convex optimum"} if exact else {"label": "best convex point found"}
                mark = {**POINT, **own, "mfc": "black" if exact else "white"}
                row[0].plot(max(one["gap"], FLOOR), place, **mark)
                draw(row[1], place, arrays["heads"])
                row[1].plot(one["heads"], place, **mark)
                draw(row[2], place, arrays["errors"])
                row[2].plot(one["test_error_optimum"], place, **mark)
            first = part.iloc[0]
            title = f"{first['data']}: n = {first['n']}, β = {first['beta']:.2g}"
            row[0].set_title(title, loc="left")
            row[0].set_xscale("log")
            row[0].set_xlim(FLOOR / 2, 2)
            row[1].set_xscale("log")
            row[1].set_xlim(left=0.8)
            figures.sizes_axis(row[1], [1, 2, 5, 10, 20, 50])
            row[2].set_xlim(left=-0.02)
            for ax in row:
                labels = ["two-layer ReLU" if kind == "ReLU" else kind for kind in kinds]
                ax.set_yticks([places[kind] for kind in kinds], labels if ax is row[0] else [])
                ax.set_ylim(-0.6, len(kinds) - 0.4)
                ax.grid(axis="y", lw=0.3, color="0.9")
        axes[-1][0].set_xlabel("gap to the certified lower bound")
        axes[-1][1].set_xlabel("heads or neurons")
        axes[-1][2].set_xlabel("test: misclassified")
        figures.legend(fig, axes, ncols=4)
    return fig


POINT = {"color": "black", "marker": "D", "ls": "none", "ms": 4, "mew": 0.9, "zorder": 3}


def _spread(ax: Any, place: int, values: Any, kind: str, exact: bool) -> None:
    """Draw the trained networks, filled where the bound is exact."""
    line = figures.method(kind)
    label = f"trained ({line['label']}{'' if exact else '; bound relaxed'})"
    ax.plot(
        values, np.full(len(values), place), ls="none", marker="o", ms=3.5, color=line["color"],
        mfc=line["color"] if exact else "white", alpha=0.8, label=label, zorder=4,
    )  # fmt: skip


def _ranks(table: Any, store: Any) -> Any:
    """Draw rank, test error and share of the penalty against β/β_max, a line an architecture."""
    quantities = (
        ("heads", "heads (rank)"),
        ("test_error_optimum", "test: misclassified"),
        ("penalty_share", "penalty / objective"),
    )
    kinds = list(dict.fromkeys(table["architecture"]))
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 2.2)
        axes = fig.subplots(1, len(quantities), squeeze=False)
        for ax, (column, label) in zip(axes[0], quantities, strict=True):
            for k, kind in enumerate(kinds):
                part = table[table["architecture"] == kind].sort_values("share")
                colour = figures.shade(0.1 + 0.75 * k / max(1, len(kinds) - 1))
                ax.plot(
                    part["share"], part[column], color=colour, marker="osD^v<>"[k % 7], label=kind
                )
            ax.set_xscale("log")
            ax.set_xlabel(r"β / β$_{\mathrm{max}}$")
            ax.set_ylabel(label)
            ax.set_ylim(bottom=0)
        first = table.iloc[0]
        worst = float(table["gap"].max())
        axes[0][0].set_title(f"{first['data']}: n = {first['n']}", loc="left")
        axes[0][1].set_title(f"all certified to {worst:.0e}" if worst < 1e-5 else "", loc="left")
        figures.legend(fig, axes, ncols=4)
    return fig


if __name__ == "__main__":
    sweep.main(__file__)
