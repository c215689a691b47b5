"""The set of all optimal networks: its staircase of components, and how much its members differ.

A cell is one data set, solved over all patterns.  All optimal networks are mixtures c ≥ 0 of
finitely many neurons with one fit (Kim, Mishkin & Pilanci 2025, Theorem 1); the vertices of that
polytope are enumerated.  For every width the components of the set of optimal networks are counted:
those of more than one point, and isolated points (networks with labelled neurons, so a vertex of m
neurons gives m! of them at width m).  The theorem's width, min(m* + M*, n + 1), stands beside the
width from which on counting finds the set connected.  The fits agree on the data; elsewhere optimal
networks differ, by at most the range drawn: a linear function's range over a polytope is attained
at vertices, so it is exact.  Real data are solved at two β: at the smaller one the optimal networks
are many, and one function at every input (``one_function`` decides it, from the bends of all
neurons), so that their held-out errors (``test_least``, ``test_most``) agree.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses import sweep
from landscape import figures, solve
from landscape.optimal_set import OptimalSet
from landscape.solvers import generation
from landscape.sparsity import error

VERSIONS = {"optimal_set": 2, "generation": generation.VERSION}
SUMMARY = (
    "data", "n", "d", "beta", "optimum", "relative_gap", "scope", "directions", "rank", "vertices",
    "edges", "m_star", "M_star", "theorem_width", "connected_width", "unique", "dimension",
    "one_function", "test_least", "test_most", "spread", "separation", "largest_range",
)  # fmt: skip
SHOWN, MOST = 4, 30
"""How many sets are drawn in a plane, of how many vertices at most."""
RED, BLUE, GREY = "#D55E00", "#0072B2", "0.8"


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply to its architecture, or nothing."""
    return sweep.plain_only(
        cfg, "the set of optimal networks is enumerated for two-layer ReLU networks"
    )


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Solve one problem and describe all its optima."""
    sample, problem = sweep.problem(cfg)
    problem = problem.replace(beta=problem.beta * cfg.factor)
    solution = solve(problem, tolerance=1e-9)
    optima = OptimalSet(solution)
    whole = optima.polytope.complete
    widths = np.arange(optima.m_star_bounds[0], len(problem.y) + 3) if whole else np.zeros(0, int)
    counts = [optima.components(int(width)) for width in widths]
    ranges = _ranges(problem, optima, cfg) if problem.X.shape[1] == 2 else {}
    errors = _errors(sample, problem, optima)
    row = {
        **sweep.described(sample, problem),
        "optimum": solution.objective,
        "dual": solution.certificate.dual,
        "relative_gap": solution.certificate.relative_gap,
        "scope": solution.certificate.scope,
        "directions": len(optima.signs),
        "rank": optima.polytope.rank,
        "vertices": len(optima.vertices),
        "edges": len(optima.edges) if whole else None,
        "m_star": optima.m_star if whole else None,
        "M_star": optima.M_star if whole else None,
        "theorem_width": optima.theorem_width if whole else None,
        "connected_width": optima.connected_width if whole else None,
        "unique": optima.unique,
        "dimension": optima.polytope.dimension,
        "one_function": optima.one_function,
        "test_least": float(errors.min()) if len(errors) else None,
        "test_most": float(errors.max()) if len(errors) else None,
        "spread": optima.spread,
        "separation": optima.separation,
        "largest_range": float(ranges["range"].max()) if ranges else None,
    }
    arrays = {
        "widths": widths,
        "segments": np.array([count.segments for count in counts]),
        "isolated": np.array([float(count.isolated) for count in counts]),
        "vertex_sizes": optima.polytope.supports.sum(axis=1),
        **_projected(optima),
        **ranges,
    }
    return row, arrays


def _errors(sample: Any, problem: Any, optima: OptimalSet) -> np.ndarray:
    """Return held-out errors of the known vertices, the mean of them, and the best member."""
    if not len(sample.X_test):
        return np.zeros(0)
    members = [*optima.vertices, optima.most(), optima.best(sample.X_test, sample.y_test)]
    chosen = members[:: max(1, len(members) // 50)] + members[-2:]
    return np.array(
        [error(problem, optima.network(c), sample.X_test, sample.y_test) for c in chosen]
    )


def _ranges(problem: Any, optima: OptimalSet, cfg: Any) -> dict[str, np.ndarray]:
    """Return how far optimal networks differ at the points of a plane."""
    reach = cfg.reach * float(np.abs(problem.X).max())
    axis = np.linspace(-reach, reach, cfg.points)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    outputs = optima.outputs(grid) @ optima.vertices.T
    spread = (outputs.max(axis=1) - outputs.min(axis=1)).reshape(len(axis), len(axis))
    return {"axis": axis, "range": spread, "samples": problem.X}


def _projected(optima: OptimalSet) -> dict[str, np.ndarray]:
    """Return vertices in the plane of the set's two widest directions, and edges with sizes."""
    if not optima.polytope.complete or len(optima.vertices) < 2:
        return {}
    centred = optima.vertices - optima.vertices.mean(axis=0)
    plane = np.linalg.svd(centred, full_matrices=False)[2][:2]
    places = centred @ plane.T
    if places.shape[1] < 2:
        places = np.column_stack([places, np.zeros(len(places))])
    supports, edges = optima.polytope.supports, optima.edges
    joint = (supports[edges[:, 0]] | supports[edges[:, 1]]).sum(axis=1)
    return {"places": places, "edges": edges, "edge_sizes": joint}


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw the staircases and thresholds, the set at growing width, and ranges of outputs."""
    many = table[(~table["unique"].astype(bool)) & table["m_star"].notna()]
    many = many.sort_values(["n", "vertices"])
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 7.0)
        stairs, planes, ranges = np.asarray(
            fig.subfigures(3, 1, height_ratios=[1.3, 1.0, 0.9])
        ).tolist()
        axes = stairs.subplots(1, 2)
        _staircases(axes[0], many, store)
        _thresholds(axes[1], table[table["m_star"].notna()])
        shown = _pick(many)
        _sets(planes, shown, store)
        _heat(ranges, shown, store)
    return {"optimal_set": fig}


def _pick(many: Any) -> Any:
    """Choose small sets whose networks differ as functions, one for each number of vertices."""
    fit = many[(many["vertices"] <= MOST) & (many["largest_range"] > 1e-6)]
    return fit.sort_values("vertices").drop_duplicates("vertices").head(SHOWN)


def _staircases(ax: Any, many: Any, store: Any) -> None:
    """Draw the number of components against width, isolated points hollow."""
    for place, (_, row) in enumerate(many.iterrows()):
        arrays = store.arrays(row["key"])
        colour = figures.shade(0.9 * place / max(1, len(many) - 1))
        kept = arrays["widths"] <= row["theorem_width"] + 1
        widths, segments = arrays["widths"][kept], arrays["segments"][kept]
        total = segments + arrays["isolated"][kept]
        ax.plot(widths, total, drawstyle="steps-mid", color=colour, lw=1.0, label=row["data"])
        alone = arrays["isolated"][kept] > 0
        ax.plot(widths[alone], total[alone], "o", color=colour, mfc="white", ms=3.5)
        ax.plot(widths[~alone], total[~alone], "o", color=colour, ms=3.5)
    ax.set_yscale("log")
    ax.set_ylim(0.6, 1e4 * ax.get_ylim()[1])  # room for the legend
    ax.set_xlabel("width")
    ax.set_ylabel("components of the set\n(hollow: with isolated points)")
    ax.set_title("staircase of the optimal set, labelled neurons")
    ax.legend(ncols=3, loc="upper left", fontsize=6, handlelength=1.2, columnspacing=0.8)


def _thresholds(ax: Any, table: Any) -> None:
    """Draw m*, M*, the theorem's width and the counted one, a column a data set."""
    at = np.arange(len(table))
    looks = {
        "m_star": ("m*", "v", BLUE),
        "M_star": ("M*", "^", "#009E73"),
        "theorem_width": ("connected by the theorem from", "_", "black"),
        "connected_width": ("connected by counting from", "o", RED),
    }
    for name, (label, marker, colour) in looks.items():
        style = {"ms": 9, "mew": 1.2} if marker == "_" else {"ms": 4}
        hollow = {"mfc": "none"} if name == "connected_width" else {}
        ax.plot(at, table[name].astype(float), marker, color=colour, label=label, **style, **hollow)
    repeated = table["data"].duplicated(keep=False)
    names = np.where(
        repeated, table["data"] + " (n = " + table["n"].astype(str) + ")", table["data"]
    )
    ax.set_xticks(at, list(names), rotation=60, ha="right", rotation_mode="anchor")
    ax.set_ylabel("neurons")
    ax.set_ylim(0, None)
    ax.set_title("widths of the theorem and of the set")
    ax.legend(loc="upper left", fontsize=6)


def _sets(part: Any, shown: Any, store: Any) -> None:
    """Draw each set in a plane: what is connected at each width, and what is isolated."""
    axes = np.atleast_1d(part.subplots(1, max(1, len(shown))))
    for ax, (_, row) in zip(axes, shown.iterrows(), strict=False):
        arrays = store.arrays(row["key"])
        places, sizes = arrays["places"], arrays["vertex_sizes"]
        most = int(row["connected_width"])
        for (i, j), size in zip(arrays["edges"], arrays["edge_sizes"], strict=True):
            ax.plot(
                *places[[i, j]].T, color=figures.shade(_share(size, row)), lw=0.9,
                zorder=2 - 0.01 * size,
            )  # fmt: skip
        for size in np.unique(sizes):
            here = sizes == size
            ax.plot(
                *places[here].T, "o", color=figures.shade(_share(size + 1, row)), mec=RED, mew=0.9,
                ms=4.5, zorder=3,
            )  # fmt: skip
            for x, y in places[here][:12]:
                ax.annotate(
                    f"{size}", (x, y), fontsize=5.5, xytext=(3, 3), textcoords="offset points"
                )
        ax.set_xticks([])
        ax.set_yticks([])
        ax.margins(0.12)
        ax.set_aspect("equal", adjustable="datalim")
        ax.set_title(f"{row['data']}: widths {int(row['m_star'])} to {most}", fontsize=7.5)
    axes[0].set_ylabel(
        "set of optima, widest plane\n(number: neurons of a vertex,\ndark to light: width)"
    )


def _share(size: int, row: Any) -> float:
    """Return the place of a width between the fewest neurons and the connected width."""
    low, high = row["m_star"], max(row["connected_width"], row["m_star"] + 1)
    return 0.9 * float(np.clip((size - low) / (high - low), 0, 1))


def _heat(part: Any, shown: Any, store: Any) -> None:
    """Draw how far optimal networks differ between and beyond the samples."""
    axes = np.atleast_1d(part.subplots(1, max(1, len(shown))))
    found = [store.arrays(row["key"]) for _, row in shown.iterrows()]
    top = max([0.0, *(float(arrays["range"].max()) for arrays in found if "range" in arrays)])
    drawn = None
    for ax, arrays in zip(axes, found, strict=False):
        if "range" not in arrays:
            continue
        axis = arrays["axis"]
        drawn = ax.pcolormesh(
            axis, axis, arrays["range"].T, cmap="magma_r", vmin=0, vmax=top or 1, rasterized=True
        )
        ax.plot(*arrays["samples"].T, "o", color=BLUE, mec="white", ms=4)
        ax.set_aspect("equal")
        ax.set_xlabel("$x_1$")
    axes[0].set_ylabel("$x_2$")
    if drawn is not None:
        bar = part.colorbar(drawn, ax=list(axes), shrink=0.9, pad=0.01)
        bar.set_label("range of outputs over\nall optimal networks")


if __name__ == "__main__":
    sweep.main(__file__)
