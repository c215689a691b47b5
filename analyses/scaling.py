"""Time and peak memory of solving and enumerating against n, d and the number of patterns.

`given` solves the program over Gaussian gates (interior point and Newton), `reference` the same by
cvxpy and Clarabel (primal and dual), `all` over all patterns by column generation, with a proof
where the rank is low, `enumerate` lists all patterns.  Every cell runs alone after a warm-up.
Time is the median of the repeats.  Memory is the peak of resident memory over what the process
held before the call (Linux only).  Exponents are fitted by least squares on logarithms to the
largest sizes, with their standard error.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from analyses import sweep
from landscape import Problem, arrangements, data, figures, solve
from landscape.errors import unknown
from landscape.solvers import generation, reference, restricted

VERSIONS = {
    "scaling": 1,
    "restricted": restricted.VERSION,
    "reference": reference.VERSION,
    "generation": generation.VERSION,
}
SUMMARY = (
    "task", "along", "n", "d", "patterns", "repeats", "seconds", "slowest", "megabytes", "gap",
    "scope",
)  # fmt: skip
STYLES = {"given": "fast", "all": "generation"}
TASKS = ("given", "reference", "all", "enumerate")
LEAST = 0.5
"""Megabytes below which memory is drawn at this floor: pages and pools, not a difference."""
FITTED = 4
"""How many of the largest sizes an exponent is fitted to."""


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Time one task at one size, after a warm-up on a tiny one."""
    if cfg.task not in TASKS:
        raise unknown("task", cfg.task, TASKS)
    task(cfg, 12, 2, 4)()
    run = task(cfg, cfg.n, cfg.d, cfg.patterns)
    seconds, peaks, found = [], [], None
    for _ in range(cfg.repeats):
        found = None
        before = _reset_peak()
        began = time.perf_counter()
        found: Any = run()
        seconds.append(time.perf_counter() - began)
        peaks.append(_memory("VmHWM") - before)
    certificate = getattr(found, "certificate", None)
    row = {
        "task": cfg.task,
        "along": cfg.along,
        "n": cfg.n,
        "d": cfg.d,
        "patterns": len(found) if certificate is None else certificate.patterns,
        "repeats": cfg.repeats,
        "seconds": float(np.median(seconds)),
        "slowest": max(seconds),
        "megabytes": max(peaks),
        "gap": None if certificate is None else certificate.relative_gap,
        "scope": None if certificate is None else certificate.scope,
    }
    return row, {"seconds": np.array(seconds), "megabytes": np.array(peaks)}


def task(cfg: Any, n: int, d: int, patterns: int) -> Callable[[], Any]:
    """Return what is timed, its input ready."""
    sample = data.load("scaled", n=n, d=d)
    problem = Problem(sample.X, sample.y, 0.001 * n)
    if cfg.task == "enumerate":
        return lambda: arrangements.enumerate(sample.X, limit=10**8)
    if cfg.task == "all":
        proof = cfg.solver.cones if d <= cfg.solver.rank else 0
        return lambda: solve(problem, tolerance=cfg.solver.tolerance, limit=proof)
    given = arrangements.sample(sample.X, 2 * patterns)[:patterns]
    method = "fast" if cfg.task == "given" else "reference"
    return lambda: solve(problem, given, method=method, tolerance=cfg.solver.tolerance)


def _memory(field: str) -> float:
    """Return a figure of this process's memory in MB, NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[field].split()[0]) / 1e3


def _reset_peak() -> float:
    """Give free memory back, start the peak anew, and return what is held now, in MB."""
    gc.collect()
    if Path("/proc/self/clear_refs").exists():
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc: freed blocks would hide use
        if trim:
            trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def exponent(sizes: Any, values: Any) -> tuple[float, float, np.ndarray]:
    """Return the power of the largest sizes, its standard error, and (slope, intercept)."""
    x, y = np.log(np.asarray(sizes, float)[-FITTED:]), np.log(np.asarray(values, float)[-FITTED:])
    if len(x) < 3:
        return float("nan"), float("nan"), np.full(2, np.nan)
    line = np.polyfit(x, y, 1)
    rest = y - np.polyval(line, x)
    error = np.sqrt(rest @ rest / (len(x) - 2) / ((x - x.mean()) @ (x - x.mean())))
    return float(line[0]), float(error), line


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw given patterns against n, d, P; and what takes all patterns, against n."""
    drawn = {}
    for name, tasks in (("scaling", ("given", "reference")), ("scaling_all", ("enumerate", "all"))):
        part = table[table["task"].isin(tasks)]
        if len(part):
            drawn[name] = _draw(part, name == "scaling")
    return drawn


def _draw(part: Any, given: bool) -> Any:
    """A column a sweep, a line a task (and dimension): seconds above, megabytes below."""
    panels = list(part.groupby("along" if given else "task", sort=False))
    measures = [m for m in ("seconds", "megabytes") if part[m].notna().any()]
    with figures.style():
        width = figures.ICML_DOUBLE if len(panels) > 2 else figures.NEURIPS
        fig = figures.new(width, 2.1 * len(measures))
        axes = fig.subplots(len(measures), len(panels), sharey="row", sharex="col", squeeze=False)
        for column, (_, cells) in enumerate(panels):
            along = cells["along"].iloc[0]
            for measure, ax in zip(measures, axes[:, column], strict=True):
                lines = list(cells.groupby("task" if given else "d", sort=False))
                for position, (key, line) in enumerate(lines):
                    look = _look(key, given, cells["task"].iloc[0], position, len(lines))
                    _line(ax, line.sort_values(along), along, measure, look)
                figures.sizes_axis(ax, sorted(cells[along].unique()))
                ax.set_yscale("log")
                ax.legend(loc="upper left", fontsize=6, handlelength=1.2, borderaxespad=0.1)
            axes[0][column].set_title(_title(cells, along, given))
            symbol = {"n": "samples n", "d": "dimension d", "patterns": "patterns P"}[along]
            axes[-1][column].set_xlabel(symbol)
        names = {"seconds": "time (s)", "megabytes": "peak memory (MB)"}
        for measure, ax in zip(measures, axes[:, 0], strict=True):
            ax.set_ylabel(names[measure])
            low, high = ax.get_ylim()
            ax.set_ylim(low, high * (high / low) ** 0.45)  # room for the legends
    return fig


def _look(key: Any, given: bool, task: str, position: int, count: int) -> dict[str, Any]:
    """Return a line's style: one colour a method, or shades for dimensions."""
    if given:
        return figures.method(STYLES.get(str(key), str(key)))
    line = figures.method(STYLES.get(task, task))
    shade = figures.shade(0.15 + 0.7 * position / max(1, count - 1))
    return {**line, "color": shade, "label": f"d = {key}"}


def _line(ax: Any, line: Any, along: str, measure: str, look: dict[str, Any]) -> None:
    """Draw measurements and, over the sizes fitted, the power law."""
    sizes, values = line[along].to_numpy(float), line[measure].to_numpy(float)
    least = LEAST if measure == "megabytes" else 0.0
    counted, values = values > least, np.maximum(values, least)
    power, error, fit = exponent(sizes[counted], values[counted])
    symbol = "P" if along == "patterns" else along
    label = look["label"]
    if np.isfinite(power):
        label += f": {symbol}$^{{{power:.2f} \\pm {error:.2f}}}$"
        fitted = sizes[counted][-FITTED:]
        law = np.exp(np.polyval(fit, np.log(fitted)))
        ax.plot(fitted, law, color=look["color"], lw=0.8, ls="--")
    ax.plot(sizes, values, **{**look, "label": label, "ls": "none"})


def _title(cells: Any, along: str, given: bool) -> str:
    """Say what is held fixed."""
    if not given:
        return {"enumerate": "enumerating all patterns", "all": "solving over all patterns"}[
            cells["task"].iloc[0]
        ]
    first = cells.iloc[0]
    held = [
        f"{s} = {first[k]}" for k, s in (("n", "n"), ("d", "d"), ("patterns", "P")) if k != along
    ]
    return ", ".join(held)


if __name__ == "__main__":
    sweep.main(__file__)
