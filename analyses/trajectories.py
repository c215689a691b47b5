"""The path of activation patterns during training, and the convex optimum on the current ones.

A cell is one data set, one optimiser and one scale of initialisation.  At snapshots along training,
evenly spaced in the logarithm of the step, every network is judged: its objective, the certified
lower bound of the convex program over its current *signed* patterns (what training could still
reach without changing a pattern), the certified floor over all patterns, and the largest price of a
neuron that it lacks.  Patterns are followed neuron by neuron: how many signs 1[x·w ≥ 0] change from
one snapshot to the next, and how many neurons already have their final pattern and output sign,
counted equally and by their size |a|‖w‖ at the end (where all have it, by definition).  The rate is
constant: one that falls to zero would freeze any pattern.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import NullLocator

from analyses import sweep
from landscape import figures, solve, train
from landscape.solvers import generation, restricted
from landscape.stationarity import Classifier, summarise
from landscape.training import batched

VERSIONS = {
    "trajectories": 1,
    "train": batched.VERSION,
    "generation": generation.VERSION,
    "restricted": restricted.VERSION,
}
SUMMARY = (
    "data", "n", "d", "beta", "optimizer", "initial", "width", "seeds", "steps", "floor", "scope",
    "objective", "own_excess_start", "own_excess_worst", "own_excess_end", "excess_end",
    "own_precision", "price_start", "price_end", "half_frozen_step",
    "changed_most", "changed_last",
)  # fmt: skip
FLOOR = 1e-6
"""Excesses over the certified floor below this are drawn at it: own programs are solved to it."""
START = 0.4
"""Where the start stands on the logarithmic axis of steps."""
HALF = 0.5
"""Share of the final network, by size, at whose final patterns a step is named."""


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply to its architecture, or nothing."""
    return sweep.plain_only(cfg, "patterns along training are followed for two-layer ReLU networks")


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train the networks of one cell, and judge them at every snapshot."""
    sample, problem = sweep.problem(cfg)
    steps = cfg.optimizer.steps
    runs = train(
        problem,
        width=cfg.width,
        seeds=range(cfg.seeds),
        optimizer=cfg.optimizer.name,
        steps=steps,
        scale=cfg.initial,
        snapshots=[0, *np.geomspace(1, steps, cfg.snapshots - 1).round().astype(int)],
        **cfg.optimizer.options,
    )
    solution = solve(problem, tolerance=1e-9)
    judge = Classifier(problem, solution.certificate)
    floor, taken, snapshots = judge.prices.floor, runs.snapshot_steps, runs.snapshots
    assert floor is not None and taken is not None and snapshots is not None
    shape = (len(taken), cfg.seeds)
    along = summarise([judge({k: v[at] for k, v in snapshots.items()}) for at in np.ndindex(shape)])
    objectives, own, bounds, prices = (
        values.reshape(shape)
        for values in (along.objectives, along.own, along.own_bounds, along.prices)
    )
    changed, same, weighted = follow(
        snapshots["hidden"].numpy(), snapshots["output"].numpy(), problem.design
    )
    own_excess, excess = bounds / floor.value - 1, objectives / floor.value - 1
    row = {
        **sweep.described(sample, problem),
        "loss": problem.loss.name,
        "architecture": problem.architecture.label,
        "optimizer": cfg.optimizer.get("label", cfg.optimizer.name),
        "schedule": cfg.optimizer.options.get("schedule", "none"),
        "initial": cfg.initial,
        "width": cfg.width,
        "seeds": cfg.seeds,
        "steps": steps,
        "optimum": solution.objective,
        "floor": floor.value,
        "scope": floor.scope,
        "objective": float(np.median(objectives[-1])),
        "own_excess_start": float(np.median(own_excess[0])),
        "own_excess_worst": float(np.median(own_excess, axis=1).max()),
        "own_excess_end": float(np.median(own_excess[-1])),
        "excess_end": float(np.median(excess[-1])),
        "own_precision": float((1 - bounds / own).max()),
        "price_start": float(np.median(prices[0])),
        "price_end": float(np.median(prices[-1])),
        "half_frozen_step": float(np.median(taken[settled(weighted, HALF)])),
        "changed_most": float(np.median(changed, axis=1).max()),
        "changed_last": float(np.median(changed[-1])),
    }
    arrays = {
        "steps": taken,  # (T,); below (T, seeds)
        "objectives": objectives,
        "own": own,
        "own_bounds": bounds,
        "prices": prices,
        "changed": changed,  # (T − 1, seeds)
        "same": same,
        "weighted": weighted,
    }
    return row, arrays


def follow(hidden: Any, output: Any, design: Any) -> tuple[Any, Any, Any]:
    """Follow the signed patterns of neurons along training.

    Args:
        hidden: weights at T snapshots of S networks, shape (T, S, m, p).
        output: shape (T, S, m).
        design: rows whose signs make the patterns, shape (n, p).

    Returns:
        ``(changed, same, weighted)``: the share of (neuron, sample) signs that differ from the
        snapshot before, shape (T − 1, S); the share of neurons with their final pattern and output
        sign, shape (T, S), counted equally, and by their final size |a|‖w‖.
    """
    patterns = hidden @ design.T >= 0
    changed = (patterns[1:] != patterns[:-1]).mean(axis=(2, 3))
    final = (patterns == patterns[-1]).all(axis=3) & ((output >= 0) == (output[-1] >= 0))
    sizes = np.abs(output[-1]) * np.linalg.norm(hidden[-1], axis=2)
    total = sizes.sum(axis=1)
    weighted = (final * sizes).sum(axis=2) / np.where(total > 0, total, 1.0)
    return changed, final.mean(axis=2), np.where(total > 0, weighted, 1.0)


def settled(shares: Any, level: float) -> Any:
    """Return the first snapshot from which on a share (T, S) stays at a level or above."""
    below = shares < level
    last = len(below) - 1 - np.argmax(below[::-1], axis=0)
    return np.where(below.any(axis=0), last + 1, 0)


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a row a data set and optimiser: excess over the floor, changes, patterns, prices."""
    rows = list(dict.fromkeys(zip(table["data"], table["optimizer"], strict=True)))
    scales = sorted(set(table["initial"]), reverse=True)
    looks = {
        scale: {"color": figures.shade(0.8 * place / max(1, len(scales) - 1)), "marker": marker}
        for place, (scale, marker) in enumerate(zip(scales, "osD^v<>" * len(scales), strict=False))
    }
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 1.45 * len(rows) + 0.75)
        axes = fig.subplots(len(rows), 4, squeeze=False, sharex=True, sharey="col")
        for row, (name, optimizer) in zip(axes, rows, strict=True):
            cells = table[(table["data"] == name) & (table["optimizer"] == optimizer)]
            for _, one in cells.iterrows():
                _draw(row, one, store.arrays(one["key"]), looks[one["initial"]])
            first, label = cells.iloc[0], figures.method(optimizer)["label"]
            shape = f"n = {first['n']}, d = {first['d']}"
            row[0].set_ylabel(f"{label}\n{name}, {shape}", fontsize=7)
        for row in axes:  # shared scales: after all is drawn
            _finish(row, int(table["steps"].max()))
        seeds = " or ".join(f"{n}" for n in sorted(set(table["seeds"])))
        titles = (
            f"excess over the certified\nfloor (median, IQR, {seeds} seeds)",
            "signs that changed\nsince the snapshot before",
            "neurons with their\nfinal signed pattern",
            "largest price over\nall patterns, / β",
        )
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, fontsize=7)
        for ax in axes[-1]:
            ax.set_xlabel("step")
        figures.legend(fig, axes, ncols=3)
    return {"trajectories": fig}


def _draw(row: Any, one: Any, arrays: Any, look: Any) -> None:
    """Add one scale of initialisation to the panels of one data set and optimiser."""
    steps = np.maximum(arrays["steps"], START)
    scale = f"initial scale {one['initial']:g}"
    ways = (
        (row[0], "objectives", lambda v: v / one["floor"] - 1, {"ls": ":", "marker": ""}, None),
        (row[0], "own_bounds", lambda v: v / one["floor"] - 1, {}, scale),
        (row[1], "changed", lambda v: v, {}, None),
        (row[2], "weighted", lambda v: v, {}, None),
        (row[2], "same", lambda v: v, {"ls": "--", "marker": ""}, None),
        (row[3], "prices", lambda v: v, {}, None),
    )
    for ax, name, of, style, label in ways:
        values = np.asarray(of(arrays[name]))
        if ax is row[0]:
            values = np.maximum(values, FLOOR)
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
        x = steps[-len(middle) :]
        ax.plot(x, middle, **{**look, "ms": 2.2, "lw": 0.9, **style}, label=label)
        ax.fill_between(x, low, high, color=look["color"], alpha=0.15, lw=0)


def _finish(row: Any, steps: int) -> None:
    """Set scales, marks and the names of line styles."""
    row[0].set_xscale("log")
    powers = [10**k for k in range(9) if 10**k <= steps]
    row[0].set_xticks([START, *powers], ["0", *(f"{step}" for step in powers)])
    row[0].xaxis.set_minor_locator(NullLocator())
    figures.gap_axis(row[0], FLOOR, "below tolerance")
    row[1].set_ylim(bottom=0)
    row[2].set_ylim(-0.03, 1.03)
    row[3].set_yscale("log")
    row[3].axhline(1.0, color="black", lw=0.7, ls="--")
    for label, style in (
        ("network's objective", ":"),
        ("bound on its current signed patterns", "-"),
        ("neurons counted equally (solid: by final size)", "--"),
    ):
        row[0].plot([], [], color="0.3", lw=0.9, ls=style, label=label)


if __name__ == "__main__":
    sweep.main(__file__)
