"""Every architecture beside its convex program: exactness on tiny instances, and one real data set.

A cell is one architecture.  *Instances* are drawn beforehand (standard normal data, β = 0.05 β_max,
seeds from 0 up; those whose optimum has fewer than three units, or outputs of one sign where both
can occur, are passed over and counted).  On each, Clarabel's primal and dual, the mapped network,
lift and lower, weak duality, and adversarial pricing (gradients look for a unit that prices above
the bound of the oracle) are compared as relative differences; on some, networks are trained.  On
*real data* the convex optimum with its certified bound stands beside trained networks: a row of the
table and a panel each.  What a bound holds for is its scope; a relaxed one is no optimum.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from analyses import sweep
from landscape import figures, solve, train
from landscape.bounds import EXACT
from landscape.problem import Problem
from landscape.solvers import Solution, generation, restricted, units
from landscape.theory import EFFORT, TOLERANCE, VERSION, Exactness, exactness, instance
from landscape.training import batched

VERSIONS = {
    "architectures": 1,
    "theory": VERSION,
    "train": batched.VERSION,
    "generation": generation.VERSION,
    "restricted": restricted.VERSION,
    "units": units.VERSION,
}
SUMMARY = (
    "architecture", "data", "n", "d", "beta", "optimum", "bound", "scope", "gap", "active",
    "seconds", "best_trained", "trained_gap", "train_seconds", "instances", "passed_over",
    "instance_scope", "exact", "largest_gap", "largest_difference", "largest_price", "below",
    "reached", "median_trained",
)  # fmt: skip
CHECKS = {
    "primal": "Clarabel's primal",
    "dual": "Clarabel's dual",
    "mapped": "mapped network",
    "adversary": "adversary's price above the bound",
    "attained": "bound above what is attained",
    "duality": "weak duality",
    "raised": "lift and lower",
}
"""What is compared on instances, and how figures call it."""
FEWEST = 3
"""Active units that an instance must have."""
REACHED = 1e-4
"""Relative excess over the optimum up to which training counts as having reached it."""
SAME = 1e-6
"""Relative difference up to which two numbers count as equal."""
LEAST = 1e-16
"""Differences below this are drawn at it."""


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Judge one architecture on instances and on its data."""
    sample, problem = sweep.problem(cfg)
    checked, passed = _instances(problem, cfg)
    found = {name: np.array([getattr(one, name) for one in checked]) for name in _NUMBERS}
    claimed = np.array([one.scope == EXACT for one in checked], dtype=bool)
    exact = claimed & np.array([one.gap <= SAME for one in checked], dtype=bool)
    worst = {name: _worst(name, found, claimed) for name in CHECKS}
    began = time.perf_counter()
    runs = train(
        problem, cfg.width, range(cfg.seeds), "adam", cfg.steps, learning_rate=0.01, throw=False
    )
    between = time.perf_counter()
    solution = sweep.optimum(
        problem, runs, tolerance=cfg.solver.tolerance, limit=cfg.solver.cones, rounds=cfg.rounds
    )
    ended = time.perf_counter()
    certificate = solution.certificate
    bound = certificate.bound
    trained = float(np.nanmin(runs.objectives))
    excess = found["trained"][np.isfinite(found["trained"])]
    row = {
        "architecture": cfg.architecture.get("title") or problem.architecture.label,
        **sweep.described(sample, problem),
        "optimum": solution.objective,
        "bound": bound,
        "scope": certificate.scope,
        "gap": certificate.relative_gap,
        "active": solution.active,
        "seconds": ended - between,
        "best_trained": trained,
        "trained_gap": (trained - bound) / abs(trained),
        "train_seconds": between - began,
        "instances": len(checked),
        "passed_over": passed,
        "instance_scope": "; ".join(dict.fromkeys(one.scope for one in checked)),
        "exact": int(exact.sum()),
        "largest_gap": float(max((one.gap for one in checked), default=np.nan)),
        "largest_difference": max(worst.values()),
        "largest_price": float(found["adversary"].max(initial=0.0)),
        "below": float(found["below"].max(initial=0.0)),
        "reached": f"{int((excess <= REACHED).sum())} of {len(excess)}",
        "median_trained": float(np.median(excess)) if len(excess) else float("nan"),
        **{f"worst_{name}": value for name, value in worst.items()},
    }
    arrays = {
        "steps": runs.trace_steps,
        "gaps": (runs.trace - bound) / np.abs(runs.trace),  # (seeds, T)
        "optimum_gap": np.array((solution.objective - bound) / abs(solution.objective)),
        "trained_excess": excess,
    }
    return row, arrays


_NUMBERS = (*CHECKS, "trained", "below")


def _instances(problem: Problem, cfg: Any) -> tuple[list[Exactness], int]:
    """Return the checks of the first instances that are interesting, and how many were not."""
    architecture, checked, passed = problem.architecture, [], 0
    for seed in range(6 * cfg.instances):
        if len(checked) == cfg.instances:
            break
        one = instance(architecture, seed, n=cfg.n, d=cfg.d)
        solution = None  # of layers there is no program before networks are trained
        if not architecture.layered:
            solution = solve(one, tolerance=TOLERANCE, limit=EFFORT, throw=False)
        if solution is not None and not _interesting(solution):
            passed += 1
            continue
        trained = len(checked) < cfg.trained or architecture.layered
        seeds = range(cfg.trained_seeds if trained else 0)
        checked.append(
            exactness(
                one, solution, width=cfg.instance_width, seeds=seeds, steps=cfg.instance_steps,
                starts=cfg.starts, draws=cfg.draws, seed=seed,
            )
        )  # fmt: skip
    return checked, passed


def _interesting(solution: Solution) -> bool:
    """Return whether an optimum has enough units, and both signs where they can occur."""
    architecture = solution.problem.architecture
    weights = architecture.lower(solution.point)["output"].detach().numpy()
    both = architecture.one_sign or ((weights > 0).any() and (weights < 0).any())
    return solution.active >= FEWEST and bool(both)


def _worst(name: str, found: dict[str, np.ndarray], claimed: np.ndarray) -> float:
    """Return the largest relative difference of one check over the instances."""
    values = found[name]
    if name == "attained":  # says something of exact prices only, and nothing of listed ones
        values = np.where(claimed & (values > 0), values - 1, 0.0)
    if name == "adversary":
        values = values - 1
    return float(max(0.0, values.max(initial=0.0)))


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a panel an architecture, over as many pages as needed, and the differences."""
    pages = -(-len(table) // PANELS)
    each = COLUMNS * -(-len(table) // (pages * COLUMNS))
    drawn = {
        f"architectures_{page + 1}" if page else "architectures": _panels(
            table.iloc[page * each : (page + 1) * each], store
        )
        for page in range(pages)
    }
    return {**drawn, "architectures_exactness": _differences(table, store)}


COLUMNS, PANELS = 4, 28
"""Panels in a row, and on a page at most."""


def _panels(table: Any, store: Any) -> Any:
    """Draw gaps of trained networks to the bound along training, the convex optimum beside them."""
    rows = -(-len(table) // COLUMNS)
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 1.45 * rows + 0.5)
        axes = fig.subplots(rows, COLUMNS, squeeze=False)
        for ax, (_, row) in zip(axes.flat, table.iterrows(), strict=False):
            arrays = store.arrays(row["key"])
            steps = np.maximum(arrays["steps"], 1)
            figures.median_band(ax, steps, arrays["gaps"], "adam", FLOOR)
            convex = figures.method("convex")["color"]
            ax.axhline(
                max(float(arrays["optimum_gap"]), FLOOR), color=convex, lw=1.0, ls="--",
                label="convex optimum",
            )  # fmt: skip
            ax.set_xscale("log")
            figures.gap_axis(ax, FLOOR)
            relaxed = row["scope"] != EXACT
            ax.set_title(
                f"{row['architecture']}\n{row['data']}, n = {row['n']}, d = {row['d']}",
                fontsize=6,
                color="#B00000" if relaxed else "black",
            )
            if relaxed:
                ax.text(
                    0.5, 0.5, "relaxed bound", transform=ax.transAxes, ha="center", fontsize=6.5,
                    color="#B00000",
                )  # fmt: skip
        for ax in axes.flat[len(table) :]:
            ax.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel("gap to the bound")
        for column in range(COLUMNS):
            shown = [k for k in range(rows) if k * COLUMNS + column < len(table)]
            if shown:
                axes[shown[-1], column].set_xlabel("step of Adam")
        figures.legend(fig, axes, ncols=3)
    return fig


FLOOR = 1e-9
"""Gaps below this are drawn at it: solver tolerance."""
MARKS = ("o", "s", "D", "^", "v", "P", "X")


def _differences(table: Any, store: Any) -> Any:
    """Draw every check's largest relative difference, a line an architecture; training beside."""
    places = np.arange(len(table))[::-1]
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 0.19 * len(table) + 1.2)
        left, right = fig.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for k, (name, label) in enumerate(CHECKS.items()):
            values = np.maximum(table[f"worst_{name}"].to_numpy(dtype=float), LEAST)
            left.plot(
                values, places, ls="none", marker=MARKS[k], ms=3.2, mfc="none", mew=0.8,
                color=f"C{k}", label=label,
            )  # fmt: skip
        left.axvline(SAME, color="#B00000", lw=0.8, ls=":", label=f"{SAME:g}")
        left.set_xscale("log")
        left.set_xlim(LEAST / 3, 1.0)
        left.set_yticks(places, list(table["architecture"]), fontsize=6.5)
        left.set_ylim(-0.7, len(table) - 0.3)
        left.set_xlabel("largest relative difference")
        left.set_title("instances: what must agree")
        for place, (_, row) in zip(places, table.iterrows(), strict=True):
            left.annotate(
                f"{row['exact']}/{row['instances']} exact", (1.0, place), xytext=(2, 0),
                xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=5.5,
                va="center", color="0.35", annotation_clip=False,
            )  # fmt: skip
            values = np.maximum(store.arrays(row["key"])["trained_excess"], EXCESS)
            right.plot(
                values, np.full(len(values), place), ls="none", marker="|", ms=6,
                color=figures.method("adam")["color"],
            )  # fmt: skip
        right.axvline(REACHED, color="#B00000", lw=0.8, ls=":")
        right.set_xscale("log")
        right.set_xlim(EXCESS / 3, 20.0)
        right.set_xlabel("excess over the optimum")
        right.set_title("best trained network")
        figures.legend(fig, [left], ncols=4)
    return fig


EXCESS = 1e-10
"""Excesses below this are drawn at it."""


if __name__ == "__main__":
    sweep.main(__file__)
