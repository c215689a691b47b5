"""What depth adds: optima of 2, 3 and 4 layers on a line, decision boundaries in a plane.

On a line every network is a sum of parallel units with one neuron a layer. Beside the samples
stand the convex optimum, which is global where its scope says "exact", and the best trained
network; the number behind "trained" is the latter's relative gap to the certified bound; below,
the active units of the optimum, weighed, with their breakpoints: *samples*, *reflections* 2 x_j −
x_i of one sample at another, *midpoints* of two, or others (which absolute values of four layers
reach). With ReLUs depth 3 is the last one that gains anything: deeper units are the same clipped
ramps. Absolute values go on gaining.

In the plane (two spirals) the boundaries of optimal two-layer and parallel three-layer networks
stand beside each other, the latter under cubic weight decay and under the path norm.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from analyses import sweep
from landscape import figures, solve, train
from landscape.architectures import NAMES, DeepNarrow
from landscape.bounds import EXACT, SEARCH
from landscape.solvers import active_set, generation, units
from landscape.training import batched, polish, polishing

VERSIONS = {
    "depth": 1,
    "train": batched.VERSION,
    "polish": polishing.VERSION,
    "generation": generation.VERSION,
    "units": units.VERSION,
    "active_set": active_set.VERSION,
}
SUMMARY = (
    "data", "n", "d", "beta", "architecture", "objective", "bound", "scope", "gap", "active",
    "seconds", "best_trained", "trained_gap", "train_seconds", "samples", "reflections",
    "midpoints", "others",
)  # fmt: skip
KINDS = {
    "samples": ("#000000", "o", "breakpoint at a sample"),
    "reflections": ("#CC79A7", "D", "at a reflection"),
    "midpoints": ("#009E73", "^", "at a midpoint"),
    "others": ("#E69F00", "s", "elsewhere"),
}
"""Colour, marker and label of each kind of breakpoint."""
BLUE, RED = "#0072B2", "#D55E00"
SAME = 1e-7
"""Breakpoints this close, relative to the range of the inputs, are the same."""
MARGIN = 0.12
"""Of the range, that is drawn beyond the samples."""


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply: an architecture that is not there."""
    name = cfg.architecture.name
    return "" if name in NAMES else f"architecture {name!r} is not there yet."


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Solve and train one architecture on one data set."""
    sample, problem = sweep.problem(cfg)
    architecture = problem.architecture
    line = isinstance(architecture, DeepNarrow)
    began = time.perf_counter()
    runs = train(
        problem, cfg.width, range(cfg.seeds), "adam", cfg.steps, throw=False,
        learning_rate=0.05 if line else 0.02, scale=0.3 if line else 1.0,
    )  # fmt: skip
    if cfg.polish and line:
        runs = polish(problem, runs)
    between = time.perf_counter()
    solution = solve(
        problem, start=None if line else runs.best, tolerance=cfg.solver.tolerance,
        limit=cfg.solver.cones, rounds=200 if line else cfg.rounds, throw=False,
    )  # fmt: skip
    ended = time.perf_counter()
    certificate = solution.certificate
    bound = certificate.bound
    trained = float(np.nanmin(runs.objectives))
    points = _grid(problem.X)
    arrays = {
        "X": problem.X,
        "y": problem.y,
        "points": points,
        "optimum": _outputs(solution.network(), points),
        "trained": _outputs(runs.best, points),
    }
    counts = dict.fromkeys(KINDS, 0)
    if line:
        features, breaks = _features(solution, points)
        arrays |= {"features": features, "breaks": breaks}
        counts = {kind: int((breaks[:, 2] == k).sum()) for k, kind in enumerate(KINDS)}
    row = {
        **sweep.described(sample, problem),
        "data": cfg.data.options.get("points", sample.name),
        "architecture": cfg.architecture.get("title", architecture.label),
        "depth": architecture.depth if line else 0,
        "activation": architecture.activation if line else "",
        "objective": solution.objective,
        "bound": bound,
        "scope": certificate.scope,
        "gap": (solution.objective - bound) / abs(solution.objective),
        "active": solution.active,
        "seconds": ended - between,
        "best_trained": trained,
        "trained_gap": (trained - bound) / abs(trained),
        "train_seconds": between - began,
        **counts,
    }
    return row, arrays


def _grid(X: np.ndarray) -> np.ndarray:
    """Return the points at which functions are drawn: a line, or a square of them."""
    low, high = X.min(), X.max()
    pad = MARGIN * (high - low)
    if X.shape[1] == 1:
        even = np.linspace(low - pad, high + pad, 801)
        return np.sort(np.concatenate([even, X[:, 0]]))[:, None]
    side = np.linspace(low - pad, high + pad, 161)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def _outputs(network: torch.nn.Module, points: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(points).numpy()


def _features(solution: Any, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each active unit adds, less its mean, and its breakpoints (unit, t, kind)."""
    architecture, z = solution.problem.architecture, solution.point.theta[:, 0]
    x = np.unique(solution.problem.X)
    network = architecture.scaled(solution.patterns, z)
    with torch.no_grad():
        values = architecture.each(network, torch.as_tensor(points)).numpy().T
        own = architecture.each(network, torch.as_tensor(solution.problem.X)).numpy()
    found = []
    for k in range(len(z)):
        one = {name: value[k] for name, value in solution.patterns.items()}
        for t in breakpoints(one["signs"], one["biases"], architecture.activation, x[0], x[-1]):
            found.append((k, t, kind(t, x)))
    return values - own.mean(axis=0)[:, None], np.array(found).reshape(-1, 3)


def breakpoints(
    signs: np.ndarray, biases: np.ndarray, activation: str, low: float, high: float
) -> np.ndarray:
    """Return the inputs in [low, high] at which σ(s_l · + b_l) ∘ ⋯ bends."""
    margin = high - low
    t = np.array([low - margin, high + margin])
    values = t.copy()
    for sign, shift in zip(signs, biases, strict=True):
        values = sign * values + shift
        cross = np.flatnonzero(values[:-1] * values[1:] < 0)
        share = values[cross] / (values[cross] - values[cross + 1])
        roots = t[cross] + share * (t[cross + 1] - t[cross])
        t, values = np.insert(t, cross + 1, roots), np.insert(values, cross + 1, 0.0)
        values = np.maximum(values, 0.0) if activation == "relu" else np.abs(values)
    apart = np.append(True, np.diff(t) > SAME * margin)
    t, values = t[apart], values[apart]
    bends = np.abs(np.diff(np.diff(values) / np.diff(t))) > 1e-6
    inner = t[1:-1][bends]
    return inner[(inner >= low - SAME * margin) & (inner <= high + SAME * margin)]


def kind(t: float, x: np.ndarray) -> int:
    """Return the place in `KINDS` of a breakpoint, samples first."""
    near = SAME * np.ptp(x)
    mirrors, middles = 2 * x[:, None] - x, (x[:, None] + x) / 2
    places = (x, mirrors, middles)
    return next((k for k, at in enumerate(places) if (np.abs(at - t) <= near).any()), 3)


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw the functions on a line, one figure an activation, and the boundaries in the plane."""
    drawn = {}
    for name, activation in (("depth", "relu"), ("depth_abs", "abs")):
        part = table[table["activation"] == activation]
        if len(part):
            drawn[name] = _functions(part, store)
    plane = table[table["depth"] == 0]
    if len(plane):
        drawn["depth_boundaries" if drawn else "depth"] = _boundaries(plane, store)
    if "depth" not in drawn:  # absolute values alone
        drawn["depth"] = drawn.pop("depth_abs")
    return drawn


def _functions(part: Any, store: Any) -> Any:
    """Draw a row a data set and a column a depth: functions, and active units below."""
    names, depths = list(dict.fromkeys(part["data"])), sorted(set(part["depth"]))
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 2.05 * len(names) + 0.45)
        axes = fig.subplots(
            2 * len(names), len(depths), squeeze=False, sharex=False,
            gridspec_kw={"height_ratios": [3, 2] * len(names)},
        )  # fmt: skip
        for ax in axes.flat:
            ax.set_axis_off()
        for _, row in part.iterrows():
            r, c = names.index(row["data"]), depths.index(row["depth"])
            _function(axes[2 * r, c], axes[2 * r + 1, c], row, store.arrays(row["key"]))
        for r, name in enumerate(names):
            axes[2 * r, 0].set_ylabel(f"{name}\noutput")
            axes[2 * r + 1, 0].set_ylabel("units")
        for ax in axes[-1]:
            ax.set_xlabel("input x")
        figures.legend(fig, axes, ncols=4)
    return fig


def _function(top: Any, bottom: Any, row: Any, arrays: Any) -> None:
    """Draw one optimum with samples and trained network, and its active units with breakpoints."""
    t, few = arrays["points"][:, 0], row["n"] <= 20
    for ax in (top, bottom):
        ax.set_axis_on()
        ax.set_xlim(t[0], t[-1])
        ax.margins(y=0.12)
    top.plot(
        arrays["X"][:, 0], arrays["y"], "o", color="0.3" if few else "0.7", ms=3.5 if few else 1.5,
        label="samples", zorder=1,
    )  # fmt: skip
    top.plot(t, arrays["optimum"], color=BLUE, lw=1.4, label="convex optimum")
    top.plot(t, arrays["trained"], color=RED, lw=1.0, ls=(0, (3, 2)), label="best trained network")
    low = min(arrays["y"].min(), arrays["optimum"].min())
    high = max(arrays["y"].max(), arrays["optimum"].max())
    top.set_ylim(low - 0.12 * (high - low), high + 0.12 * (high - low))
    top.tick_params(labelbottom=False)
    relaxed = "" if row["scope"] == EXACT else ", relaxed"
    top.set_title(
        f"L = {row['depth']}: {row['objective']:.4g}{relaxed}, {row['active']} units; "
        f"trained +{max(row['trained_gap'], 0.0):.0e}",
        fontsize=6.3,
    )
    for k, feature in enumerate(arrays["features"]):
        share = 0.15 + 0.7 * k / max(1, len(arrays["features"]) - 1)
        bottom.plot(t, feature, color=figures.shade(share), lw=0.9)
    for place, (colour, marker, label) in enumerate(KINDS.values()):
        own = arrays["breaks"][arrays["breaks"][:, 2] == place]
        height = [np.interp(at, t, arrays["features"][int(k)]) for k, at, _ in own]
        bottom.plot(
            own[:, 1], height, marker, color=colour, ms=3.2, mfc="white", mew=0.8, ls="none",
            label=label,
        )  # fmt: skip


def _boundaries(plane: Any, store: Any) -> Any:
    """Draw the optimal outputs and where they change sign, a panel an architecture."""
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 3.0)
        axes = fig.subplots(1, max(3, len(plane)), squeeze=False, sharey=True)[0]
        for ax in axes[len(plane) :]:
            ax.remove()
        for ax, (_, row) in zip(axes, plane.iterrows(), strict=False):
            arrays = store.arrays(row["key"])
            side = round(len(arrays["points"]) ** 0.5)
            u, v, f, g = (
                values.reshape(side, side)
                for values in (*arrays["points"].T, arrays["optimum"], arrays["trained"])
            )
            ax.contourf(u, v, np.clip(f, -1.5, 1.5), levels=np.linspace(-1.5, 1.5, 13), cmap="RdBu")
            ax.contour(u, v, f, levels=[0.0], colors="black", linewidths=1.0)
            ax.contour(u, v, g, levels=[0.0], colors="0.35", linewidths=0.8, linestyles="--")
            for sign, colour in ((1, BLUE), (-1, RED)):
                own = arrays["X"][arrays["y"] == sign]
                ax.plot(
                    *own.T, "o", color=colour, mec="white", mew=0.4, ms=3.2, label=f"y = {sign:+d}"
                )
            ax.plot([], [], color="black", lw=1.0, label="boundary of the convex solution")
            ax.plot([], [], color="0.35", lw=0.8, ls="--", label="of the best trained network")
            ax.set_aspect("equal")
            ax.set_xlabel("$x_1$")
            words = row["architecture"].replace("(", "\n(", 1)
            found = "best found" if row["scope"] == SEARCH else f"gap {row['gap']:.0e}"
            ax.set_title(
                f"{words}\n{row['objective']:.4g} ({found}), {row['active']} units", fontsize=6.8
            )
        axes[0].set_ylabel("$x_2$")
        figures.legend(fig, axes[: len(plane)], ncols=4)
    return fig


if __name__ == "__main__":
    sweep.main(__file__)
