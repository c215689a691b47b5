"""Networks of least norm through all targets: the limit β → 0, and how many there are.

A cell is one data set on a line, with a penalised bias.  The least norm ½ Σ(‖w‖² + a²) of a network
through all targets stands beside its certified lower bound νᵀy over all patterns.  All networks
that attain it are a polytope.  On the data `suffixes`, the construction of Kim, Mishkin & Pilanci
(2025, Propositions 1 and 2), its members are different functions of one norm; on noise they are
many networks, but one function.  A straight path between two such networks in the convex
coordinates keeps norm and targets.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses import sweep
from landscape import connect, figures
from landscape.optimal_set import interpolate, interpolation
from landscape.solvers import generation

VERSIONS = {"interpolation": interpolation.VERSION, "generation": generation.VERSION}
SUMMARY = (
    "data", "n", "norm", "bound", "gap", "error", "scope", "steps", "directions", "rank",
    "vertices", "m_star", "M_star", "connected_width", "unique", "norm_spread", "rise",
    "largest_range",
)  # fmt: skip
RED = "#D55E00"
ACROSS = 4
"""Sets whose functions are drawn."""
SAME = 1e-6
"""Functions that differ by less everywhere count as one."""


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply to its architecture, or nothing."""
    return sweep.plain_only(
        cfg, "interpolation of least norm is solved for two-layer ReLU networks"
    )


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Find one least norm and describe all networks that attain it."""
    sample, problem = sweep.problem(cfg)
    found = interpolate(problem)
    optima = found.optima()
    vertices = optima.vertices
    x = problem.X[:, 0]
    beyond = cfg.reach * np.ptp(x)
    grid = np.linspace(x.min() - beyond, x.max() + beyond, cfg.points)
    share = np.linspace(0.0, 1.0, cfg.members)[:, None]
    members = (1 - share) * vertices[0] + share * vertices[-1]
    networks = [optima.network(c) for c in members]
    problem = found.solution.problem
    norms = [float(problem.architecture.penalty(network.values).detach()) for network in networks]
    path = connect(
        problem, networks[0], networks[-1], "optimal", optima=optima, width=problem.y.size + 1
    )
    at_vertices = optima.outputs(grid[:, None]) @ vertices.T
    widest = float(np.ptp(at_vertices, axis=1).max())
    row = {
        "data": _name(sample),
        "n": len(x),
        "norm": found.norm,
        "bound": found.bound,
        "gap": found.gap,
        "error": found.error,
        "scope": found.solution.certificate.scope,
        "steps": found.steps,
        "directions": len(optima.signs),
        "rank": optima.polytope.rank,
        "vertices": len(vertices),
        "m_star": optima.m_star,
        "M_star": optima.M_star,
        "connected_width": optima.connected_width,
        "unique": optima.unique,
        "norm_spread": float(np.ptp(norms)) / found.norm,
        "rise": path.rise / found.solution.objective,
        "largest_range": widest,
    }
    arrays = {
        "x": x,
        "y": found.targets,
        "grid": grid,
        "outputs": np.array([network(grid[:, None]).detach().numpy() for network in networks]),
        "norms": np.array(norms),
    }
    return row, arrays


def _name(sample: Any) -> str:
    """Return the data set with what tells it from its siblings."""
    if sample.name == "suffixes":
        return f"family, n = {len(sample.y)}"
    return f"{sample.name}, n = {len(sample.y)}"


def render(table: Any, store: Any, _cfg: Any) -> dict[str, Any]:
    """Draw the functions of every set, and how equal their norms are."""
    table = table.sort_values(["data", "n"])
    wide = table["largest_range"].astype(float) > SAME
    shown = table.loc[[*table.index[wide][: ACROSS - 1], *table.index[~wide][:1]]]
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 5.6)
        families, sizes = np.asarray(fig.subfigures(2, 1, height_ratios=[3.6, 2.0])).tolist()
        axes = families.subplots(2, len(shown), squeeze=False)
        for column, (_, row) in zip(axes.T, shown.iterrows(), strict=True):
            _functions(column, row, store.arrays(row["key"]))
        axes[0, 0].set_ylabel("output")
        axes[1, 0].set_ylabel("output − their mean")
        left, right = sizes.subplots(1, 2)
        _norms(left, table, store)
        _ranges(right, table)
    return {"interpolators": fig}


def _functions(axes: Any, row: Any, arrays: Any) -> None:
    """Draw members of a family from one vertex to another, and how they differ."""
    outputs, grid = arrays["outputs"], arrays["grid"]
    for place, values in enumerate(outputs):
        ends = place in (0, len(outputs) - 1)
        style = {
            "color": figures.shade(0.85 * place / max(1, len(outputs) - 1)),
            "lw": 1.3 if ends else 0.6,
        }
        axes[0].plot(grid, values, **style)
        axes[1].plot(grid, values - outputs.mean(axis=0), **style)
    axes[0].plot(arrays["x"], arrays["y"], "o", color="black", ms=3.5, zorder=5)
    axes[1].plot(arrays["x"], 0 * arrays["x"], "o", color="black", ms=3.5, zorder=5)
    axes[0].tick_params(labelbottom=False)
    axes[1].set_xlabel("$x$")
    few, most = int(row["m_star"]), int(row["M_star"])
    neurons = f"{few}" if few == most else f"{few} to {most}"
    axes[0].set_title(
        f"{row['data']}\n{int(row['vertices'])} vertices, {neurons} neurons\n"
        f"norm {row['norm']:.6g}",
        fontsize=7,
    )
    if row["largest_range"] <= SAME:
        axes[1].set_ylim(-1, 1)
        axes[1].set_title("one function", fontsize=7.5)


def _norms(ax: Any, table: Any, store: Any) -> None:
    """Draw how far the norms of members lie from the certified least one."""
    for place, (_, row) in enumerate(table.iterrows()):
        norms = store.arrays(row["key"])["norms"]
        off = np.maximum(np.abs(norms / row["bound"] - 1), 1e-16)
        ax.plot(np.full(len(off), place), off, "o", color=RED, ms=3)
    ax.axhline(1e-8, color="black", lw=0.8, ls=":")
    ax.set_yscale("log")
    ax.set_ylim(1e-17, 1e-6)
    ax.set_xticks(range(len(table)), list(table["data"]), rotation=35, ha="right", fontsize=6.5)
    ax.set_ylabel("|norm / bound − 1|")
    ax.set_title("norms of members and the bound (dotted: 1e-8)")


def _ranges(ax: Any, table: Any) -> None:
    """Draw how far members differ between and beyond the samples."""
    at = np.arange(len(table))
    heights = table["largest_range"].astype(float)
    ax.vlines(at, 0, heights, color=RED, lw=1.5)
    ax.plot(at, heights, "o", color=RED, ms=4)
    ax.set_ylim(0, None)
    ax.set_xticks(at, list(table["data"]), rotation=35, ha="right", fontsize=6.5)
    ax.set_ylabel("largest difference")
    ax.set_title("between members, where there are no samples")


if __name__ == "__main__":
    sweep.main(__file__)
