"""Optimum of the convex program over P patterns, by where the patterns come from.

Patterns are those of Gaussian gates, of gates beside the meeting points of d−1 samples (data), of
trained networks, or those that column generation asks for.  The relative excess is that of the
restricted optimum over the optimum of all patterns: its certified dual bound where every pattern
is accounted for, otherwise the best objective that anything found, which is no bound, and the
figure says so.  `growth` follows the ratio of the two with n, at P proportional to n, beside the
C√log n of Kim & Pilanci (ICML 2024).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses import sweep
from landscape import arrangements, dictionary, figures, solve, train
from landscape.bounds import EXACT
from landscape.errors import BadInput, unknown
from landscape.problem import Problem
from landscape.solvers import generation, restricted
from landscape.training import batched

VERSIONS = {
    "pattern_sampling": 1,
    "train": batched.VERSION,
    "restricted": restricted.VERSION,
    "generation": generation.VERSION,
}
SUMMARY = (
    "data", "n", "d", "beta", "source", "draw", "seeds", "objective", "dual", "scope",
    "most_patterns", "median_fewest", "median_most", "neurons",
    "used",
)  # fmt: skip
DRAWN = {"gaussian": "gaussian_gates", "data": "data_gates", "generated": "generation"}
"""Sources of patterns whose style in figures has another name."""


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply to its architecture, or nothing."""
    own = sweep.architecture(cfg)
    if own.layered:
        return f"a program over given features has no dictionary; {own.label} is one."
    if cfg.source in ("data", "every") and own.of_units:
        return f"units that are priced are neither data-driven nor listed; {own.label} has them."
    return ""


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Solve one data set over patterns of one source, at every count and seed."""
    sample, problem = sweep.problem(cfg)
    sources = {
        "gaussian": _sampled, "data": _sampled, "adam": _trained, "lbfgs": _trained,
        "generated": _generated, "every": _every, "growth": _growth,
    }  # fmt: skip
    if cfg.source not in sources:
        raise unknown("source", cfg.source, sources)
    patterns, objectives, optimum = sources[cfg.source](problem, cfg)
    certificate = None if optimum is None else optimum.certificate
    row = {
        **sweep.described(sample, problem),
        "source": cfg.source,
        "draw": cfg.draw,
        "seeds": objectives.shape[1],
        "objective": float(np.nanmin(objectives)),
        "dual": None if certificate is None else certificate.dual,
        "scope": None if certificate is None else certificate.scope,
        "most_patterns": float(np.nanmax(patterns)),
        "median_fewest": float(np.nanmedian(objectives[0])),
        "median_most": float(np.nanmedian(objectives[-1])),
        "neurons": None if optimum is None else optimum.active,
        "used": None if optimum is None else len(optimum.patterns),
    }
    if optimum is not None:
        row["objective"] = min(row["objective"], optimum.objective)
    return row, {"patterns": patterns, "objectives": objectives}


def _restricted(problem: Problem, patterns: Any) -> float:
    return solve(problem, patterns, tolerance=1e-6).objective


def _optimum(problem: Problem, cfg: Any, seed: int = 0) -> Any:
    """Solve over all patterns, with a proof where the rank is low enough for one."""
    provable = np.linalg.matrix_rank(problem.design) <= cfg.solver.rank
    limit = cfg.solver.cones if provable else 0
    return sweep.optimum(problem, None, tolerance=cfg.solver.tolerance, limit=limit, seed=seed)


def _first(problem: Problem, count: int, seed: int, method: str) -> Any:
    """Return this many distinct random patterns, or fewer if it takes 32 draws each.

    Where programs are over units, those of a random network.
    """
    if problem.architecture.of_units:
        network = problem.architecture.initial(problem, count, [seed])
        return _units(problem, {k: v[0] for k, v in network.items()}, seed)
    for effort in (1, 2, 4, 8, 16, 32):
        found = arrangements.sample(problem.design, effort * count, seed, method)
        if len(found) >= count:
            break
    return found[:count]


def _sampled(problem: Problem, cfg: Any) -> Any:
    """Each seed is one sequence of random patterns: a count takes its beginning."""
    counts = list(cfg.counts)
    if not problem.architecture.of_units:
        every = arrangements.count(len(problem.y), int(np.linalg.matrix_rank(problem.design)))
        counts = [count for count in counts if count < every]
    patterns, objectives = np.full((2, len(counts), cfg.seeds), np.nan)
    for seed in range(cfg.seeds):
        drawn = _first(problem, counts[-1], seed, cfg.source)
        for i, count in enumerate(counts):
            if count <= _size(drawn):
                patterns[i, seed] = count
                objectives[i, seed] = _restricted(problem, _part(drawn, count))
    return patterns, objectives, None


def _trained(problem: Problem, cfg: Any) -> Any:
    """Patterns of trained networks, kinks included: one restricted program a network."""
    second_order = cfg.source == "lbfgs"
    runs = train(
        problem,
        list(cfg.widths),
        range(cfg.seeds),
        cfg.source,
        cfg.lbfgs_steps if second_order else cfg.steps,
        learning_rate=None if second_order else 0.01,
    )
    own = [_own(problem, network) for network in runs.networks]
    objectives = np.array([_restricted(problem, one) for one in own])
    shape = (len(cfg.widths), cfg.seeds)
    return (
        np.array([_size(one) for one in own], float).reshape(shape),
        objectives.reshape(shape),
        None,
    )


def _own(problem: Problem, network: Any) -> Any:
    """Return the patterns of a network, kinks included, or its units."""
    if problem.architecture.of_units:
        return _units(problem, network.values)
    return arrangements.of(network, problem.design)


def _units(problem: Problem, parameters: Any, seed: int = 0) -> Any:
    """Return the units of a network; where each mixes units of the program, those, in any order."""
    try:
        return problem.architecture.units(parameters)
    except (BadInput, NotImplementedError):
        units = problem.architecture.lift(problem, parameters).program.units
        order = np.random.default_rng(seed).permutation(dictionary.count(units))
        return dictionary.take(units, order)


def _size(drawn: Any) -> int:
    """Return how many patterns or units there are."""
    return dictionary.count(drawn) if isinstance(drawn, dict) else len(drawn)


def _part(drawn: Any, count: int) -> Any:
    """Return the first patterns or units."""
    if isinstance(drawn, dict):
        return dictionary.take(drawn, np.arange(count))
    return drawn[:count]


def _generated(problem: Problem, cfg: Any) -> Any:
    """Best value so far against the patterns generated so far, one path a seed.

    A round's program holds what the round before kept, at least its active blocks, and what is
    new: the count is from above.  Where all patterns are listed, rounds count patterns and do not
    say what they keep; then their sum, at most all patterns, is the count.
    """
    every = arrangements.count(len(problem.design), int(np.linalg.matrix_rank(problem.design)))
    paths = []
    solutions = [_optimum(problem, cfg, seed) for seed in range(cfg.seeds)]
    for one in solutions:
        if "blocks" in one.history[0]:
            blocks = np.array([entry["blocks"] for entry in one.history])
            kept = np.array([0, *(entry["active"] for entry in one.history)])[:-1]
            total = np.cumsum(np.maximum(blocks - kept, 0))
        else:
            total = np.cumsum([entry["patterns"] for entry in one.history]).clip(max=every)
        values = np.minimum.accumulate([entry["value"] for entry in one.history])
        values[-1] = min(values[-1], one.objective)
        paths.append((total, values))
    patterns, objectives = np.full((2, max(len(t) for t, _ in paths), cfg.seeds), np.nan)
    for seed, (total, values) in enumerate(paths):
        patterns[: len(total), seed], objectives[: len(total), seed] = total, values
    return patterns, objectives, min(solutions, key=lambda one: one.objective)


def _every(problem: Problem, cfg: Any) -> Any:
    """All patterns at once: the excess must vanish, and is computed by another route."""
    every = arrangements.enumerate(problem.design)
    return np.array([[len(every)]], float), np.array([[_restricted(problem, every)]]), None


def _growth(problem: Problem, cfg: Any) -> Any:
    """Gaussian gates in proportion to the samples, beside the optimum of this data."""
    count = max(1, round(cfg.per_sample * len(problem.y)))
    drawn = [_first(problem, count, seed, "gaussian") for seed in range(cfg.seeds)]
    objectives = np.array([[_restricted(problem, one) for one in drawn]])
    return np.full(objectives.shape, float(count)), objectives, _optimum(problem, cfg)


def reference(cells: Any) -> tuple[float, bool]:
    """Return the optimum of one instance to compare with, and whether it is a proven bound."""
    exact = cells[cells["scope"] == EXACT]
    return (float(exact["dual"].max()), True) if len(exact) else (cells["objective"].min(), False)


FLOOR = 1e-9
"""Relative excesses below this are drawn at the floor: solver tolerance, not a difference."""


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a column a data set: excess against patterns; below, ratio against samples."""
    parts, growths = (
        list(rows.groupby("data", sort=False))
        for rows in (table[table["source"] != "growth"], table[table["source"] == "growth"])
    )
    drawn = {}
    if parts:
        drawn["pattern_sampling"] = _excesses(parts, store)
    if growths:
        drawn["pattern_sampling_growth"] = _ratios(growths, store)
    return drawn


def _excesses(parts: Any, store: Any) -> Any:
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 2.75)
        axes = fig.subplots(1, len(parts), sharey=True, squeeze=False)
        for ax, (name, cells) in zip(axes[0], parts, strict=True):
            optimum, exact = reference(cells)
            for _, row in cells.iterrows():
                _excess(ax, row, store.arrays(row["key"]), optimum)
            row = cells.iloc[0]
            if cells["used"].notna().any():
                used, label = cells["used"].max(), "patterns in use at the optimum"
                ax.axvline(used, color="0.5", lw=0.8, ls=":", label=label)
            bound = "excess over exact optimum" if exact else "over best found, no bound"
            about = f"n = {row['n']}, d = {row['d']}, β = {row['beta']:.2g}"
            ax.set_title(f"{name}\n{about}\n{bound}", fontsize=7)
            ax.set_xscale("log")
            ax.set_xlabel("patterns P")
        for ax in axes[0]:
            figures.gap_axis(ax, FLOOR)
        seeds = int(max(cells["seeds"].max() for _, cells in parts))
        axes[0][0].set_ylabel(f"relative excess\n(median, IQR, {seeds} seeds)")
        figures.legend(fig, axes, ncols=4)
    return fig


def _excess(ax: Any, row: Any, arrays: Any, optimum: float) -> None:
    """Draw the patterns of one source."""
    excess = (arrays["objectives"] - optimum) / optimum  # (points, seeds)
    if row["source"] == "every":
        ax.plot(arrays["patterns"][0], np.maximum(excess[0], FLOOR), **figures.method("every"))
        return
    patterns = np.nanmedian(arrays["patterns"], axis=1)
    if row["source"] == "generated":  # paths of several lengths: on one grid, as steps
        patterns, excess = figures.on_grid(arrays["patterns"], excess)
    figures.median_band(
        ax, patterns, excess.T, DRAWN.get(str(row["source"]), str(row["source"])), FLOOR
    )


def _ratios(growths: Any, store: Any) -> Any:
    width = figures.ICML_SINGLE if len(growths) < 3 else figures.ICML_DOUBLE
    with figures.style():
        fig = figures.new(width, 2.1)
        axes = fig.subplots(1, len(growths), sharey=True, squeeze=False)
        for ax, (name, cells) in zip(axes[0], growths, strict=True):
            exact = _ratio(ax, cells, store)
            per_sample = cells["most_patterns"].iloc[0] / cells["n"].iloc[0]
            each = "n" if per_sample == 1 else f"{per_sample:g} n"
            d = f"d = {cells['d'].iloc[0]}" if cells["d"].nunique() == 1 else "d = n/10"
            optimum = "ratio to exact optimum" if exact else "ratio to best found, no bound"
            ax.set_title(f"{name}: {d}, P = {each}\n{optimum}", fontsize=7)
            figures.sizes_axis(ax, sorted(cells["n"].unique()))
            ax.set_xlabel("samples n")
        axes[0][0].set_ylabel("restricted / full optimum")
        figures.legend(fig, axes, ncols=2)
    return fig


def _ratio(ax: Any, cells: Any, store: Any) -> bool:
    """Draw ratios against n, pooled over data and gates, and 1 + C√log n fitted to the medians."""
    sizes = sorted(cells["n"].unique())
    pooled, proven = [], []
    for n in sizes:
        rows = [row for _, row in cells[cells["n"] == n].iterrows()]
        found = [reference(cells[cells["key"] == row["key"]]) for row in rows]
        values = [store.arrays(row["key"])["objectives"][0] for row in rows]
        pooled.append(np.concatenate([v / o for v, (o, _) in zip(values, found, strict=True)]))
        proven += [exact for _, exact in found]
    middle = np.array([np.median(one) for one in pooled])
    low, high = np.array([np.quantile(one, [0.25, 0.75]) for one in pooled]).T
    line = figures.method("gaussian_gates")
    ax.plot(sizes, middle, **{**line, "label": "Gaussian gates (median, IQR)"})
    ax.fill_between(sizes, low, high, color=line["color"], alpha=0.2, lw=0)
    C = constant(sizes, middle)
    grid = np.geomspace(sizes[0], sizes[-1], 50)
    label = "1 + C √log n, fitted"
    ax.plot(grid, 1 + C * np.sqrt(np.log(grid)), color="black", lw=0.8, ls="--", label=label)
    ax.annotate(f"C = {C:.2g}", (0.04, 0.94), xycoords="axes fraction", va="top", fontsize=7)
    return all(proven)


def constant(sizes: Any, ratios: Any) -> float:
    """Return the C of least squares in ratio = 1 + C√log n."""
    growth = np.sqrt(np.log(sizes))
    return float(growth @ (np.asarray(ratios) - 1) / (growth @ growth))


if __name__ == "__main__":
    sweep.main(__file__)
