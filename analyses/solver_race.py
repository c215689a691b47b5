"""Gap and cone violation against time: every method on the same data and the same patterns.

On given patterns: this project's solver at tolerances 1e-2 to 1e-10, and Clarabel.  Over all
patterns: column generation, cold and from L-BFGS networks (their training counted), beside Adam,
L-BFGS and Muon on networks of width 100.  A gap is that of the mapped network's objective to one
dual bound for all methods, certified where every pattern is accounted for; otherwise it is the
excess over the best objective found, which is no bound, and the figure says so.  Points of other
projects come from benchmark records; they stand at the recorded ratio of their time to this
project's, so that the machine cancels.  Without records for an instance there are none.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from analyses import sweep
from landscape import arrangements, figures, solve, train
from landscape.bounds import EXACT, bound_over
from landscape.errors import unknown
from landscape.problem import Problem
from landscape.solvers import generation, reference, restricted
from landscape.solvers.solution import without_noise
from landscape.training import batched

VERSIONS = {
    "solver_race": 1,
    "train": batched.VERSION,
    "restricted": restricted.VERSION,
    "reference": reference.VERSION,
    "generation": generation.VERSION,
}
SUMMARY = (
    "data", "n", "d", "beta", "race", "method", "patterns", "seeds", "objective", "dual", "scope",
    "violation", "seconds",
)  # fmt: skip
RACES = {
    "given": ("fast", "reference"),
    "all": ("generation", "generation_started", "adam", "lbfgs", "muon"),
}


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply to its architecture, or nothing."""
    return sweep.plain_only(cfg, "the solvers that race are those of two-layer ReLU programs")


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Run one method on one data set, timed."""
    if cfg.method not in RACES["given"] + RACES["all"]:
        raise unknown("method", cfg.method, RACES["given"] + RACES["all"])
    sample, problem = sweep.problem(cfg)
    race = "given" if cfg.method in RACES["given"] else "all"
    found, arrays = (_given if race == "given" else _all)(problem, cfg)
    row = {
        **sweep.described(sample, problem),
        "race": race,
        "method": cfg.method,
        "patterns": cfg.patterns if race == "given" else None,
        "seeds": arrays["seconds"].shape[1],
        "objective": float(np.nanmin(arrays["objectives"])),
        **found,
        "seconds": float(np.median(np.nanmax(arrays["seconds"], axis=0))),
    }
    return row, arrays


def _given(problem: Problem, cfg: Any) -> Any:
    """Solve the program over Gaussian gates; mapping and judging are not timed."""
    patterns = arrangements.sample(problem.design, 2 * cfg.patterns)[: cfg.patterns]
    program = problem.architecture.program(problem, patterns)
    fast = cfg.method == "fast"
    aims = list(cfg.tolerances) if fast else [reference.TOLERANCE]
    warm = problem.architecture.program(problem, patterns[:2])
    shape = (len(aims), cfg.repeats)
    seconds, objectives, violations = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    bounds = []
    (restricted.minimise if fast else reference.solve_primal)(warm)  # a warm-up
    for i, aim in enumerate(aims):
        for repeat in range(cfg.repeats):
            began = time.perf_counter()
            if fast:
                optimum = restricted.minimise(program, aim, throw=False)
            else:
                optimum = reference.solve_primal(program)
            seconds[i, repeat] = time.perf_counter() - began
            point = without_noise(problem, program, optimum)
            network = problem.architecture.lower(point)
            objectives[i, repeat] = float(problem.objective(network))
            violations[i, repeat] = point.program.violation(point.theta)
        bounds.append(bound_over(program, optimum.nu, optimum.multipliers))
    best = max(bounds, key=lambda bound: bound.value)
    found = {"dual": best.value, "scope": best.scope, "violation": float(violations[-1].max())}
    return found, {"seconds": seconds, "objectives": objectives, "violations": violations}


def _all(problem: Problem, cfg: Any) -> Any:
    """Solve over all patterns, or train; one seed after the other."""
    train(problem, 4, [0], "adam", 5)  # a warm-up
    paths, found = [], {"dual": None, "scope": None, "violation": 0.0}
    for seed in range(cfg.seeds):
        if cfg.method.startswith("generation"):
            path, solution = _search(problem, cfg, seed)
            certificate = solution.certificate
            if found["dual"] is None or certificate.dual > found["dual"]:
                found["dual"], found["scope"] = certificate.dual, certificate.scope
            found["violation"] = max(found["violation"], certificate.violation)
        else:
            path = _training(problem, cfg, cfg.method, seed)
        paths.append(path)
    seconds, objectives = np.full((2, max(len(t) for t, _ in paths), cfg.seeds), np.nan)
    for seed, (times, values) in enumerate(paths):
        seconds[: len(times), seed], objectives[: len(times), seed] = times, values
    return found, {"seconds": seconds, "objectives": objectives}


def _search(problem: Problem, cfg: Any, seed: int) -> Any:
    """Generate columns; the training of networks to begin with counts."""
    start, spent = None, 0.0
    if cfg.method == "generation_started":
        began = time.perf_counter()
        start = train(problem, cfg.width, [seed], "lbfgs", cfg.start_steps)
        spent = time.perf_counter() - began
    provable = np.linalg.matrix_rank(problem.design) <= cfg.solver.rank
    limit = cfg.solver.cones if provable else 0
    solution = solve(problem, start=start, tolerance=cfg.solver.tolerance, limit=limit, seed=seed)
    times = np.array([entry["seconds"] for entry in solution.history]) + spent
    values = np.minimum.accumulate([entry["value"] for entry in solution.history])
    values[-1] = min(values[-1], solution.objective)
    return (times, values), solution


def _training(problem: Problem, cfg: Any, optimizer: str, seed: int) -> Any:
    """Train one network; return its path of times and objectives."""
    second_order = optimizer == "lbfgs"
    steps = cfg.lbfgs_steps if second_order else cfg.steps
    rate = None if second_order else 0.01
    runs = train(problem, cfg.width, [seed], optimizer, steps, learning_rate=rate)
    return runs.trace_seconds, np.minimum.accumulate(runs.trace[0])


def recorded(folder: Path, data: str, n: int, d: int, patterns: int) -> list[dict[str, Any]]:
    """Return other projects' rows on an instance, from the benchmarks' records.

    A record given_*.json is an object with n, d, patterns, the data (scaled if it does not say)
    and rows of method, seconds, relative_gap, violation and ratio, which is seconds over ours in
    the same run.
    """
    found = []
    for file in sorted(folder.glob("given_*.json")):
        held = json.loads(file.read_text(encoding="utf-8"))
        instance = tuple(held.get(k) for k in ("n", "d", "patterns"))
        if held.get("data", "scaled") == data and instance == (n, d, patterns):
            others = [row for row in held["rows"] if row["method"] not in ("landscape", "adam")]
            found += [row for row in others if row.get("ratio") is not None]
    return found


FLOOR = 1e-11
"""Gaps below this are drawn at the floor: rounding of the certificate, not a difference."""
EARLY = 1e-2
"""Seconds before which nothing is drawn."""
LEVEL = 1e-13
"""Violations below this are drawn at the floor."""


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a row a data set: gap and violation on given patterns, gap over all patterns."""
    sets = list(table.groupby("data", sort=False))
    folder = Path(cfg.figure.benchmarks)
    races = [race for race in RACES if (table["race"] == race).any()]
    columns = [c for race in races for c in (["gap", "violation"] if race == "given" else ["all"])]
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 1.75 * len(sets) + 0.5)
        axes = fig.subplots(len(sets), len(columns), squeeze=False, sharex="col", sharey="col")
        for line, (name, cells) in zip(axes, sets, strict=True):
            for ax, column in zip(line, columns, strict=True):
                race = cells[cells["race"] == ("all" if column == "all" else "given")]
                if len(race):
                    _panel(ax, race, store, column, folder)
                first = cells.iloc[0]
            line[0].set_ylabel(f"{name} (n = {first['n']}, d = {first['d']})\nrelative gap")
        for ax, column in zip(axes.T, columns, strict=True):
            for one in ax:
                if column == "violation":
                    figures.gap_axis(one, LEVEL, below="rounding")
                else:
                    figures.gap_axis(one, FLOOR)
            figures.decades_axis(ax[0], EARLY)
            ax[-1].set_xlabel("time (s)")
        figures.legend(fig, axes, ncols=4)
    return {"solver_race": fig}


def _panel(ax: Any, race: Any, store: Any, column: str, folder: Path) -> None:
    """Draw every method of one race on one data set."""
    first = race.iloc[0]
    exact = race[race["scope"] == (EXACT if column == "all" else "given patterns")]
    optimum = float(exact["dual"].max()) if len(exact) else float(race["objective"].min())
    for _, row in race.iterrows():
        arrays = store.arrays(row["key"])
        values = arrays["violations" if column == "violation" else "objectives"]
        if column != "violation":
            values = (values - optimum) / values
        floor = LEVEL if column == "violation" else FLOOR
        seconds = arrays["seconds"]
        if row["method"].startswith("generation"):
            seconds, values = figures.on_grid(seconds, values)
        else:
            seconds = np.median(seconds, axis=1)
        _method(ax, seconds, values, row["method"], floor)
    if column == "all":
        bound = "gap to exact bound" if len(exact) else "over best found"
        ax.set_title(f"all patterns: {bound}", fontsize=7)
        return
    patterns = int(first["patterns"])
    instance = str(first["data"]), int(first["n"]), int(first["d"]), patterns
    ours = race[race["method"] == "fast"]
    for row in recorded(folder, *instance) if len(ours) else []:
        _point(ax, row, column, float(ours["seconds"].iloc[0]))
    what = "relative gap" if column == "gap" else "cone violation"
    ax.set_title(f"{patterns} Gaussian gates: {what}", fontsize=7)


def _method(ax: Any, seconds: Any, values: Any, name: str, floor: float) -> None:
    """Draw a path in time: median and IQR over seeds or repeats, few markers."""
    values = np.maximum(values, floor)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
    line = figures.method(name)
    ax.plot(seconds, middle, **line, markevery=max(1, len(seconds) // 8))
    ax.fill_between(seconds, low, high, color=line["color"], alpha=0.2, lw=0)


def _point(ax: Any, row: Any, column: str, ours: float) -> None:
    """Draw another project's end point at its recorded ratio to this project's time."""
    value, floor = (
        (row["violation"], LEVEL) if column == "violation" else (row["relative_gap"], FLOOR)
    )
    if value is None:
        return
    at = (row["ratio"] * ours, max(value, floor))
    ax.plot(*at, **{**figures.method(row["method"]), "ls": "none", "markersize": 6})
    label = f"{row['ratio']:.2g}×"
    ax.annotate(label, at, (3, 2), textcoords="offset points", fontsize=6, color="0.3")


if __name__ == "__main__":
    sweep.main(__file__)
