"""Loss of trained networks, against time and width, beside the certified convex optimum.

A cell is one data set and one optimiser: networks of every width and seed are trained in one batch,
the convex program is solved, and every network is judged against the dual bound.  Where all
patterns, or all units of the architecture's dictionary, can be priced the bound is global, and
where that is by a relaxation it may not be sharp; otherwise each width's best network is judged
against the program on its own patterns.  The figure says which.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses import sweep
from landscape import arrangements, figures, solve, train
from landscape.bounds import GIVEN
from landscape.network import Network
from landscape.problem import Problem
from landscape.solvers import generation, reference
from landscape.training import batched, polish, polishing

VERSIONS = {
    "optimality_gap": 1,
    "train": batched.VERSION,
    "polish": polishing.VERSION,
    "reference": reference.VERSION,
    "generation": generation.VERSION,
}


SUMMARY = (
    "data", "n", "d", "beta", "optimizer", "seeds", "optimum", "dual", "optimum_gap", "violation",
    "scope", "patterns", "neurons", "best_trained", "smallest_gap", "median_gap_widest",
    "test_error_trained", "test_error_optimum",
)  # fmt: skip
"""Columns of the summary; the table holds all."""


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train, solve, certify one data set with one optimiser."""
    sample, problem = sweep.problem(cfg)
    seeds, widths = list(range(cfg.seeds)), list(cfg.widths)
    runs = train(
        problem,
        width=widths,
        seeds=seeds,
        optimizer=cfg.optimizer.name,
        steps=cfg.optimizer.steps,
        **cfg.optimizer.options,
    )
    if cfg.optimizer.get("polish", False):
        runs = polish(problem, runs, iterations=cfg.polish_steps)
    objectives = runs.objectives.reshape(len(widths), len(seeds))
    best = [runs[w * len(seeds) + int(np.argmin(objectives[w]))] for w in range(len(widths))]
    if _all_priced(problem, cfg.solver.enumerate):
        solution = solve(
            problem, start=best[-1], tolerance=cfg.solver.tolerance, rounds=cfg.rounds, throw=False
        )
        bounds = np.full(len(widths), solution.certificate.dual)
        optima = np.full(len(widths), solution.objective)
    else:
        solutions = [_own_program(problem, network, cfg.solver.tolerance) for network in best]
        solution = min(solutions, key=lambda one: one.objective)
        bounds = np.array([one.certificate.dual for one in solutions])
        optima = np.array([one.objective for one in solutions])
        objectives = objectives.min(axis=1, keepdims=True)
    certificate = solution.certificate
    arrays = {
        "widths": np.asarray(widths),
        "objectives": objectives,  # (widths, seeds), or (widths, 1): the best seed
        "bounds": bounds,
        "optima": optima,
        "trace": runs.trace.reshape(len(widths), len(seeds), -1),
        "seconds": runs.trace_seconds,
        "test_error": np.array([sweep.held_out_error(sample, network) for network in best]),
    }
    gaps = (objectives - bounds[:, None]) / objectives
    row = {
        "data": sample.name,
        "task": sample.task,
        "n": problem.X.shape[0],
        "d": problem.X.shape[1],
        "beta": problem.beta,
        "loss": problem.loss.name,
        "architecture": problem.architecture.label,
        "optimizer": cfg.optimizer.get("label", cfg.optimizer.name),
        "seeds": len(seeds),
        "optimum": solution.objective,
        "dual": certificate.dual,
        "optimum_gap": certificate.relative_gap,
        "violation": certificate.violation,
        "scope": certificate.scope,
        "patterns": certificate.patterns,
        "neurons": solution.active,
        "best_trained": float(objectives.min()),
        "smallest_gap": float(gaps.min()),
        "median_gap_widest": float(np.median(gaps[-1])),
        "median_gap_narrowest": float(np.median(gaps[0])),
        "test_error_trained": float(arrays["test_error"][-1]),
        "test_error_optimum": sweep.held_out_error(sample, solution.network()),
    }
    return row, arrays


def _all_priced(problem: Problem, limit: int) -> bool:
    """Return whether all that networks can do is priced: by an oracle, or as few patterns."""
    if problem.architecture.oracle(problem, 0) is not None:
        return True
    rank = int(np.linalg.matrix_rank(problem.design))
    return arrangements.count(len(problem.y), rank) <= limit


def _own_program(problem: Problem, network: Network, tolerance: float) -> Any:
    """Solve the program over the patterns of one network, kinks included."""
    own = arrangements.of(network, problem.design)
    return solve(problem, own, tolerance=tolerance)


FLOOR = 1e-9
"""Relative gaps below this are drawn at the floor: solver tolerance, not a difference."""


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw one figure for the exact data sets and one for those beyond enumeration."""
    drawn = {}
    for name, exact in (("optimality_gap", True), ("optimality_gap_full", False)):
        part = table[(table["scope"] != GIVEN) == exact]
        if len(part):
            drawn[name] = _draw(part, store, exact)
    return drawn


def _draw(part: Any, store: Any, exact: bool) -> Any:
    """Draw a column a data set: gap against time, gap against width, test error against width."""
    columns = list(dict.fromkeys(part["data"]))
    rows = 3 if exact else 2
    optimum = "convex optimum" if exact else "convex optimum on patterns of Adam's networks"
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 1.55 * rows + 0.35)
        axes = fig.subplots(rows, len(columns), squeeze=False)
        for row in axes[:-1]:  # gaps share their range across data sets
            for ax in row[1:]:
                ax.sharey(row[0])
        for column, name in enumerate(columns):
            cells = part[part["data"] == name]
            for _, row in cells.iterrows():
                arrays = store.arrays(row["key"])
                if exact and row["optimizer"] == "adam":
                    _against_time(axes[0][column], arrays)
                _against_width(axes[-2][column], row, arrays)
                _test_errors(axes[-1][column], row, arrays)
            first = cells.iloc[0]
            axes[-1][column].axhline(
                first["test_error_optimum"], color="black", lw=0.8, ls="--", label=optimum
            )
            title = f"{name}  (n = {first['n']}, d = {first['d']})"
            axes[0][column].set_title(f"{title}\nβ = {first['beta']:.2g}; {first['scope']}")
            error = "misclassified" if first["task"] == "binary" else "mean squared"
            axes[-1][column].set_ylabel(f"test error\n({error})")
            axes[-2][column].set_xlabel("width")
            axes[-1][column].set_xlabel("width")
        for ax in axes[:-1].flat:
            figures.gap_axis(ax, FLOOR)
        _label(axes, exact, int(part["seeds"].iloc[0]))
        figures.legend(fig, axes, ncols=6)
    return fig


def _against_time(ax: Any, arrays: Any) -> None:
    """Median over seeds of the gap to the certified bound, one line a width."""
    for w, width in enumerate(arrays["widths"]):
        trace = arrays["trace"][w]  # (seeds, T)
        gap = np.maximum(np.median((trace - arrays["bounds"][w]) / trace, axis=0), FLOOR)
        shade = 0.15 + 0.75 * w / max(1, len(arrays["widths"]) - 1)
        ax.plot(arrays["seconds"], gap, color=figures.shade(shade), lw=1.0, label=f"m = {width}")
    ax.set_xlabel("training time of the batch (s)")


def _against_width(ax: Any, row: Any, arrays: Any) -> None:
    """Final relative gap against width: median and IQR over seeds."""
    gaps = (arrays["objectives"] - arrays["bounds"][:, None]) / arrays["objectives"]
    figures.median_band(ax, arrays["widths"], gaps.T, row["optimizer"], FLOOR)
    ax.set_xscale("log", base=2)


def _test_errors(ax: Any, row: Any, arrays: Any) -> None:
    """Test error of each width's best network."""
    ax.plot(arrays["widths"], arrays["test_error"], **figures.method(row["optimizer"]))
    ax.set_xscale("log", base=2)


def _label(axes: Any, exact: bool, seeds: int) -> None:
    """Name the gaps: to the global bound, or to the program on the network's own patterns."""
    if exact:
        axes[0][0].set_ylabel("relative gap\n(Adam, median)")
        axes[-2][0].set_ylabel(f"final relative gap\n(median, IQR, {seeds} seeds)")
    else:
        axes[-2][0].set_ylabel(f"gap to its own program\n(best of {seeds} seeds)")


if __name__ == "__main__":
    sweep.main(__file__)
