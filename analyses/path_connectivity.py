"""Paths between networks, each with a certified maximum: optima, trained networks, optimisers.

Every barrier is the largest objective anywhere on a path above its higher end: a bound that covers
each network of the path, rounding included, divided by the certified floor of the objective.

*Optima* (symmetric data): at every width the components of the set of optimal networks are counted.
Each is walked through from vertex to vertex (``walked`` of them, rising by ``largest_walk``); pairs
of vertices in one component are joined within the set, where the barrier is zero, and others by the
best path found: an upper bound of a barrier that is positive, because the count puts them into
different components.  *Trained* networks of one width are joined in pairs: straight, aligned
(balanced, best permutation), along trained curves, and by the constructive paths of the theory,
which have no barrier and say how many neurons that takes (at most 2n, or n + m*: Wang, Lacotte &
Pilanci 2022).  Between optimisers a barrier of zero may only say that one end, where slow training
stopped, is higher than all of the path.

Of architectures that are no plain two-layer ReLU networks the constructive paths alone have
certified maxima: there networks are balanced first, and the other curves are left out.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from analyses import sweep
from landscape import connect, figures, paths, train
from landscape.errors import BadInput, unknown
from landscape.network import Network
from landscape.optimal_set import OptimalSet
from landscape.solvers import generation
from landscape.training import batched

VERSIONS = {
    "path_connectivity": 2,
    "paths": paths.VERSION,
    "train": batched.VERSION,
    "generation": generation.VERSION,
}
SUMMARY = (
    "ends", "data", "n", "d", "beta", "optimum", "scope", "m_star", "connected_width",
    "theorem_width", "widest_straight", "widest_aligned", "widest_bezier", "widest_polygon",
    "largest_constructive", "most_neurons", "walked", "largest_walk", "largest_within",
    "least_between",
)  # fmt: skip
CURVES = ("straight", "aligned", "bezier", "polygon")
PROVED = ("level", "valley")
LOOKS = {
    "straight": ("straight", "#D55E00", "o"),
    "aligned": ("aligned", "#E69F00", "s"),
    "bezier": ("Bézier, aligned", "#56B4E9", "^"),
    "polygon": ("polygon, aligned", "#0072B2", "v"),
    "level": ("prune both, line (≤ 2n neurons)", "#009E73", "D"),
    "valley": ("through the optimum (≤ n + m*)", "0.3", "x"),
}
FLOOR = 1e-10
"""Barriers up to this share of the floor count as none, and are drawn at it."""


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply to its architecture, or nothing."""
    if lacking := sweep.featured(cfg, "a program over one network's features joins no two"):
        return lacking
    own = sweep.architecture(cfg)
    if own.drawn_outputs > 1 and not own.flat_outputs:
        return (
            "heights along paths are bounded for outputs in one row; "
            f"{own.label} keeps a matrix of them."
        )
    if cfg.kind != "optima":
        return ""
    return sweep.plain_only(
        cfg, "the set of optimal networks is enumerated for two-layer ReLU networks"
    )


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Connect the optima of one data set, or networks trained on it."""
    sample, problem = sweep.problem(cfg)
    solution = sweep.optimum(problem, None, tolerance=1e-9)
    row = {
        "ends": cfg.kind,
        **sweep.described(sample, problem),
        "optimum": solution.objective,
        "dual": solution.certificate.dual,
        "scope": solution.certificate.scope,
        "m_star": solution.active,
    }
    if cfg.kind == "optima":
        found, arrays = _optima(solution, cfg)
    elif cfg.kind == "trained":
        found, arrays = _trained(problem, solution, cfg)
    else:
        raise unknown("kind", cfg.kind, ("optima", "trained"))
    return {**row, **found}, arrays


def _optima(solution: Any, cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Connect vertices of the optimal set at every width up to where it is connected."""
    optima, problem = OptimalSet(solution), solution.problem
    widths = np.arange(optima.m_star, optima.connected_width + 1)
    counts = [sum(optima.components(int(width))) for width in widths]
    chosen = _apart(optima.vertices, cfg.ends)
    networks = [optima.network(optima.vertices[i]) for i in chosen]
    shape = (len(widths), len(chosen), len(chosen))
    barriers, same = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    for w, width in enumerate(widths.tolist()):
        fits = [len(network.values["output"]) <= width for network in networks]
        for i, j in itertools.combinations(range(len(chosen)), 2):
            if not (fits[i] and fits[j]):
                continue
            try:
                path = connect(
                    problem, networks[i], networks[j], "optimal", optima=optima, width=width
                )
                best, same[w, i, j] = path.barrier, True
            except BadInput:  # different components: any path leaves the set
                best = min(_curve(problem, networks[i], networks[j], m, cfg, width).barrier
                           for m in CURVES)  # fmt: skip
            barriers[w, i, j] = barriers[w, j, i] = best / solution.certificate.dual
            same[w, j, i] = same[w, i, j]
    walks = [_walk(problem, optima, width, cfg.ends) for width in widths.tolist()]
    between = barriers[~same & np.isfinite(barriers)]
    found = {
        "m_star": optima.m_star,
        "connected_width": optima.connected_width,
        "theorem_width": optima.theorem_width,
        "walked": sum(len(found) for found in walks),
        "largest_walk": max([0.0, *itertools.chain(*walks)]) / solution.certificate.dual,
        "largest_within": float(np.max(barriers[same], initial=0.0)),
        "least_between": float(between.min()) if len(between) else None,
    }
    arrays = {
        "widths": widths,
        "components": np.array(counts, dtype=np.float64),
        "barriers": barriers,
        "same": same,
        "sizes": (optima.vertices[chosen] > 0).sum(axis=1),
    }
    return found, arrays


def _walk(problem: Any, optima: OptimalSet, width: int, most: int) -> list[float]:
    """Walk through each component of more than one point at a width: its largest barrier.

    Through its vertices one after another, at most so many; that the objective nowhere rises is
    certified path by path.
    """
    found = []
    for members in optima.members(width):
        stops = [optima.network(optima.vertices[i]) for i in members[:most]]
        paths_ = [
            connect(problem, a, b, "optimal", optima=optima, width=width)
            for a, b in itertools.pairwise(stops)
        ]
        found.append(max([path.barrier for path in paths_], default=0.0))
    return found


def _apart(vertices: np.ndarray, count: int) -> list[int]:
    """Choose vertices far from each other, the one with fewest neurons first."""
    chosen = [0]
    far = np.linalg.norm(vertices - vertices[0], axis=1)
    while len(chosen) < min(count, len(vertices)):
        chosen.append(int(far.argmax()))
        far = np.minimum(far, np.linalg.norm(vertices - vertices[chosen[-1]], axis=1))
    return chosen


def _curve(problem: Any, a: Any, b: Any, method: str, cfg: Any, width: int | None = None) -> Any:
    """Return a path that may rise; curves begin from the aligned networks."""
    return connect(problem, a, b, method, width=width, align=True, steps=cfg.curve_steps)


def _trained(problem: Any, solution: Any, cfg: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Connect trained networks of every width, and networks of different optimisers."""
    widths, methods = np.array(cfg.widths), (*CURVES, *PROVED)
    plain = problem.architecture.plain_neurons
    pairs = list(itertools.combinations(range(cfg.seeds), 2))
    barriers = np.full((len(methods), len(widths), len(pairs)), np.nan)
    neurons = np.zeros(barriers.shape, dtype=np.int64)
    floor, optimum = solution.certificate.dual, solution.network()
    runs = train(problem, list(cfg.widths), range(cfg.seeds), "adam", steps=cfg.steps)
    for w in range(len(widths)):
        networks = [runs[w * cfg.seeds + seed] for seed in range(cfg.seeds)]
        networks = networks if plain else [_balanced(problem, one) for one in networks]
        for number, (i, j) in enumerate(pairs):
            for m, method in enumerate(methods):
                if method in CURVES and not plain:
                    continue
                if method in CURVES:
                    path = _curve(problem, networks[i], networks[j], method, cfg)
                else:
                    path = connect(problem, networks[i], networks[j], method, optimum=optimum)
                barriers[m, w, number] = max(path.barrier, 0.0) / floor
                neurons[m, w, number] = path.width
    count = len(cfg.optimizers)
    between = _between(problem, cfg) / floor if plain else np.full((count, count), np.nan)
    proved = slice(len(CURVES), None)
    found = {f"widest_{k}": float(np.median(barriers[i, -1])) for i, k in enumerate(CURVES)}
    found["largest_constructive"] = float(barriers[proved].max())
    found["most_neurons"] = int(neurons[proved].max())
    arrays = {"widths": widths, "barriers": barriers, "neurons": neurons, "between": between}
    return found, arrays


def _balanced(problem: Any, network: Any) -> Network:
    """Return the network of the convex point of a network, never higher."""
    architecture = problem.architecture
    return Network(architecture, architecture.lower(architecture.lift(problem, network.values)))


def _between(problem: Any, cfg: Any) -> np.ndarray:
    """Return barriers of aligned paths between end points of optimisers (two seeds of each)."""
    ends = []
    for name in cfg.optimizers:
        steps = cfg.steps // 10 if name == "lbfgs" else cfg.steps
        ends.append(train(problem, cfg.optimizer_width, range(2), name, steps=steps).networks)
    count = len(ends)
    found = np.zeros((count, count))
    for i, j in itertools.combinations_with_replacement(range(count), 2):
        path = connect(problem, ends[i][0], ends[j][1], "aligned")
        found[i, j] = found[j, i] = max(path.barrier, 0.0)
    return found


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw barriers by width, staircases with barriers, and matrices of barriers."""
    drawn = {}
    trained, optima = (table[table["ends"] == kind] for kind in ("trained", "optima"))
    with figures.style():
        if len(trained):
            drawn["path_connectivity"] = _trained_figure(trained, store, cfg)
        if len(optima):
            drawn["path_connectivity_optima"] = _optima_figure(optima, store)
    return drawn


def _trained_figure(table: Any, store: Any, cfg: Any) -> Any:
    """Draw barriers and neurons against width, and barriers between optimisers."""
    fig = figures.new(figures.ICML_DOUBLE, 5.6)
    axes = fig.subplots(3, len(table), squeeze=False, height_ratios=[1.2, 1.0, 1.1])
    found = [store.arrays(row["key"]) for _, row in table.iterrows()]
    top = max([1e-4, *(float(arrays["between"].max()) for arrays in found if _known(arrays))])
    image: Any = None
    for column, (_, row), arrays in zip(axes.T, table.iterrows(), found, strict=True):
        widths = arrays["widths"]
        for m, method in enumerate((*CURVES, *PROVED)):
            label, colour, marker = LOOKS[method]
            if not np.isfinite(arrays["barriers"][m]).any():
                continue
            heights = np.maximum(arrays["barriers"][m], FLOOR)
            style = {"color": colour, "marker": marker, "ms": 3.5, "lw": 1.0}
            column[0].plot(widths, np.median(heights, axis=1), label=label, **style)
            column[0].fill_between(
                widths, heights.min(axis=1), heights.max(axis=1), color=colour, alpha=0.12, lw=0
            )
            if method in PROVED:
                column[1].plot(widths, arrays["neurons"][m].max(axis=1), **style)
        column[1].plot(widths, widths, color="0.7", lw=0.8, label="width")
        for height, label in ((2 * row["n"], "2n"), (row["n"] + row["m_star"], "n + m*")):
            column[1].axhline(height, color="0.5", lw=0.8, ls=":")
            column[1].text(widths[0], height * 1.03, label, fontsize=6.5, color="0.35", va="bottom")
        column[0].set_title(f"{row['data']}\n$n$ = {row['n']}, $d$ = {row['d']}")
        figures.gap_axis(column[0], FLOOR, "no barrier")
        for ax in column[:2]:
            figures.sizes_axis(ax, widths)
        column[1].set_ylim(0, 2.3 * row["n"])
        column[1].set_xlabel("width of the networks")
        if not _known(arrays):
            column[2].set_axis_off()
            continue
        image = column[2].imshow(
            np.maximum(arrays["between"], FLOOR), cmap="viridis_r", norm="log",
            vmin=1e-5, vmax=top,
        )  # fmt: skip
        names = [{"lbfgs": "L-BFGS", "sgd": "SGD"}.get(k, k.title()) for k in cfg.optimizers]
        column[2].set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=6.5)
        column[2].set_yticks(range(len(names)), names, fontsize=6.5)
        column[2].plot([], [])
    axes[0, 0].set_ylabel("barrier / floor\n(median, range of pairs)")
    axes[1, 0].set_ylabel("neurons that the\nproved paths use")
    axes[2, 0].set_ylabel(f"aligned paths,\nwidth {cfg.optimizer_width}")
    if image is not None:
        fig.colorbar(image, ax=list(axes[2]), label="barrier / floor\n(yellow: ≤ 1e-5)", shrink=0.9)
    figures.legend(fig, axes[0], 3)
    return fig


def _known(arrays: Any) -> bool:
    """Return whether barriers between optimisers are known."""
    return bool(np.isfinite(arrays["between"]).all())


def _optima_figure(table: Any, store: Any) -> Any:
    """Draw the staircase with barriers within and between components, and two matrices."""
    fig = figures.new(figures.ICML_DOUBLE, 4.4)
    axes = fig.subplots(2, len(table), squeeze=False)
    for column, (_, row) in zip(axes.T, table.iterrows(), strict=True):
        arrays = store.arrays(row["key"])
        widths, barriers, same = (arrays[k] for k in ("widths", "barriers", "same"))
        column[0].plot(widths, arrays["components"], "o-", color="black", ms=3.5, lw=1.0)
        column[0].set_yscale("log")
        column[0].set_ylim(0.6, 2 * float(arrays["components"].max()))
        for width, count in zip(widths, arrays["components"], strict=True):
            column[0].annotate(
                f"{count:.0f}", (width, count), fontsize=6.5, ha="center", va="bottom",
                xytext=(0, 4), textcoords="offset points",
            )  # fmt: skip
        column[0].yaxis.set_major_locator(LogLocator(numticks=6))
        column[0].yaxis.set_minor_formatter(NullFormatter())
        column[0].set_title(f"{row['data']}\nm* = {row['m_star']}")
        for mask, colour, label, shift in (
            (same, "#009E73", "one component: within the set", 0.12),
            (~same, "#D55E00", "different components: best found", -0.12),
        ):
            w, i, j = np.nonzero(mask & np.isfinite(barriers))
            once = i < j
            heights = np.maximum(barriers[w, i, j][once], FLOOR)
            column[1].plot(
                widths[w[once]] + shift, heights, "o", color=colour, ms=3, alpha=0.6, mew=0,
                label=label,
            )  # fmt: skip
        figures.gap_axis(column[1], FLOOR, "no barrier")
        column[1].set_ylim(FLOOR / 10, 3)
        for ax in column:
            ax.set_xticks(widths)
            ax.set_xlim(widths[0] - 0.45, widths[-1] + 0.45)
        column[1].set_xlabel("width")
    axes[0, 0].set_ylabel("components of the set")
    axes[1, 0].set_ylabel("barrier / floor")
    figures.legend(fig, axes[1], 2)
    return fig


if __name__ == "__main__":
    sweep.main(__file__)
