"""How many neurons optimal and trained networks have, and what is lost when neurons are removed.

*Counts.*  A convex optimum over all patterns has minimal networks, whose features are linearly
independent: at most rank ≤ n neurons (Mishkin & Pilanci 2023).  Beside them stand networks trained
by gradients, counted modulo permutation, rescaling and splitting; how many neurons are in use
depends on a tolerance, so the range from 0.1 to 0.001 is drawn.  Counts are followed against β, the
width, the number of samples and the noise, and during training.  At small β the optimal networks of
real data are many (the dimension of their polytope is in the table), yet one function: `OptimalSet`
decides both.

*Pruning.*  From an optimal network that uses every optimal direction, neurons are removed one after
another.  The exact phase keeps the objective down to a minimal network, then the cheapest neuron
after correction of the others goes; the baselines remove by size, gradient, activation or at
random, without correction and with the same correction.  The objective stands above the certified
floor, the errors are of training and of held-out samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import NullLocator

from analyses import sweep
from landscape import beta_max, figures, prune, solve, solve_path, sparsity, train
from landscape.errors import unknown
from landscape.optimal_set import OptimalSet
from landscape.solvers import generation, restricted
from landscape.sparsity import TOLERANCES, active_neurons, blocks, pruning_curve
from landscape.training import batched

VERSIONS = {
    "neuron_sparsity": 1,
    "train": batched.VERSION,
    "generation": generation.VERSION,
    "restricted": restricted.VERSION,
    "sparsity": sparsity.VERSION,
}
SUMMARY = (
    "against", "data", "n", "d", "scope", "beta_low", "beta_high", "minimal", "rank", "m_star",
    "M_star", "directions", "dimension", "one_function", "adam", "lbfgs", "adam_strict",
    "adam_loose", "start_neurons", "exact_rise", "test_minimal", "test_least", "at_half",
)  # fmt: skip
KINDS = ("beta", "width", "samples", "training", "pruning")
BASELINES = ("magnitude", "gradient", "activation", "random")
MIDDLE = 1
"""Which of `TOLERANCES` is drawn as a line; the others bound its range."""
UNKNOWN = ("m_star", "M_star", "directions", "dimension", "one_function")
"""What is not known where the set of optimal networks is not enumerated."""
TOLERANCE = 1e-9
"""Certified relative gap of every optimum; excesses up to it count as none."""
BLACK, LIGHT = "black", "0.5"
REMOVAL = {
    "optimal": ("exact, then cheapest after correction", "#009E73", "o"),
    "magnitude": ("magnitude", "#0072B2", "s"),
    "gradient": ("gradient", "#56B4E9", "^"),
    "activation": ("activation", "#E69F00", "v"),
    "random": ("random (median of orders)", "#D55E00", "D"),
}


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply to its architecture, or nothing."""
    if lacking := sweep.featured(cfg, "paths of solutions need a program before training"):
        return lacking
    if cfg.kind != "pruning":
        return ""
    return sweep.plain_only(
        cfg, "pruning beyond the minimal network refits neurons of two-layer ReLU networks"
    )


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Count neurons against one quantity on one data set, or prune there."""
    if cfg.kind not in KINDS:
        raise unknown("kind", cfg.kind, KINDS)
    sample, problem = sweep.problem(cfg)
    if cfg.kind != "samples":
        problem = problem.replace(beta=cfg.share * beta_max(problem))
    row = {"against": cfg.kind, **sweep.described(sample, problem)}
    if cfg.kind == "beta":
        found, arrays = _beta(problem, cfg)
    elif cfg.kind == "pruning":
        found, arrays = _pruning(sample, problem, cfg)
    else:
        solution = sweep.optimum(problem, None, tolerance=TOLERANCE)
        found, arrays = _optimal([solution])
        counts, at = {"width": _width, "samples": _samples, "training": _training}[cfg.kind](
            problem, cfg
        )
        found["beta_low"] = found["beta_high"] = problem.beta
        found |= _medians({name: values[:, -1] for name, values in counts.items()})
        arrays |= {**_named(counts), "at": at}
    return {**row, **found}, arrays


def _optimal(solutions: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Describe the optimal sets of solutions; the row is that of the last one."""
    described = [_set(one) for one in solutions]
    row = {**described[-1], "scope": "; ".join(dict.fromkeys(d["scope"] for d in described))}
    names = ("minimal", "rank", "m_star", "M_star", "directions", "dimension", "one_function")
    return row, {name: np.array([float(d[name]) for d in described]) for name in names}


def _set(solution: Any) -> dict[str, Any]:
    """Return the sizes of a minimal network and of the optimal set, NaN for what is not known."""
    problem = solution.problem
    minimal = prune(problem, solution.network())
    point = blocks.as_rays(problem.architecture.lift(problem, minimal.values))[0]
    features = blocks.features(point)
    known = {
        "scope": solution.certificate.scope,
        "solved": solution.active,
        "minimal": features.shape[1],
        "rank": int(np.linalg.matrix_rank(features)) if features.size else 0,
    }
    if not problem.architecture.plain_neurons:  # the set is not enumerated
        return {**known, **dict.fromkeys(UNKNOWN, np.nan)}
    optima = OptimalSet(solution, rays=2000, seconds=5.0)
    sizes, whole = optima.polytope.supports.sum(axis=1), optima.polytope.complete
    most = optima.M_star_bounds
    return {
        **known,
        "m_star": int(sizes.min()) if whole else np.nan,
        "M_star": most[0] if most[0] == most[1] else np.nan,
        "directions": int(optima.polytope.used.sum()),
        "dimension": optima.polytope.dimension,
        "one_function": bool(optima.one_function),
    }


def _beta(problem: Any, cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Count against β, from near β_max down."""
    top = beta_max(problem)
    betas = top * np.geomspace(0.5, cfg.least, cfg.points)
    closed = problem.architecture.plain_neurons  # else bounds may be relaxed (`sweep.optimum`)
    path = solve_path(problem, betas, tolerance=TOLERANCE, throw=closed)
    row, arrays = _optimal(path)
    counts, excess = {}, {}
    for name in cfg.optimizers:
        runs = [_train(one.problem, [cfg.width], cfg, name) for one in path]
        counts[name] = np.stack(
            [active_neurons(one.problem, r) for one, r in zip(path, runs, strict=True)], axis=1
        )  # (tolerances, betas, seeds)
        excess[f"excess_{name}"] = np.array(
            [r.objectives / one.certificate.dual - 1 for one, r in zip(path, runs, strict=True)]
        )
    row |= {"beta_low": betas[-1], "beta_high": betas[0], **_medians(_last(counts))}
    return row, {**arrays, **_named(counts), **excess, "at": betas / top}


def _train(problem: Any, widths: Any, cfg: Any, name: str, **options: Any) -> Any:
    """Train from the cell's seeds; L-BFGS takes a tenth of the steps."""
    steps = cfg.steps // 10 if name == "lbfgs" else cfg.steps
    return train(problem, list(widths), range(cfg.seeds), name, steps=steps, **options)


def _width(problem: Any, cfg: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Count against the width of training: (tolerances, widths, seeds)."""
    counts = {}
    for name in cfg.optimizers:
        runs = _train(problem, cfg.widths, cfg, name)
        found = active_neurons(problem, runs)
        counts[name] = found.reshape(len(TOLERANCES), len(cfg.widths), cfg.seeds)
    return counts, np.array(cfg.widths)


def _samples(problem: Any, cfg: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Count at one number of samples and one noise: (tolerances, 1, seeds)."""
    runs = {name: _train(problem, [cfg.width], cfg, name) for name in cfg.optimizers[:1]}
    counts = {name: active_neurons(problem, one)[:, None] for name, one in runs.items()}
    return counts, np.array([len(problem.y), cfg.data.options.get("noise", 0.1)])


def _training(problem: Any, cfg: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Count along training: (tolerances, snapshots, seeds)."""
    counts, shares = {}, np.r_[0.0, np.geomspace(10 / cfg.steps, 1.0, cfg.snapshots - 1)]
    for name in cfg.optimizers:
        steps = cfg.steps // 10 if name == "lbfgs" else cfg.steps
        moments = np.unique(np.round(shares * steps).astype(int))
        runs = _train(problem, [cfg.width], cfg, name, snapshots=moments)
        counts[name] = _on(shares * steps, moments, active_neurons(problem, runs.snapshots))
    return counts, shares


def _on(wanted: np.ndarray, moments: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return counts at the last moment before each wanted one."""
    return counts[:, np.searchsorted(moments, wanted + 0.5, side="right") - 1]


def _last(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values[:, -1] for name, values in counts.items()}


def _medians(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """Return medians over seeds (tolerances, seeds) at the middle tolerance, and Adam's others."""
    found = {name: float(np.median(values[MIDDLE])) for name, values in counts.items()}
    if "adam" in counts:
        found["adam_strict"], _, found["adam_loose"] = (float(np.median(v)) for v in counts["adam"])
    return found


def _named(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"counts_{name}": values for name, values in counts.items()}


def _pruning(sample: Any, problem: Any, cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Prune an optimal network that uses every optimal direction, and a trained one."""
    solution = solve(problem, tolerance=TOLERANCE)
    row, _ = _optimal([solution])
    optima = OptimalSet(solution, rays=2000, seconds=5.0)
    wide = optima.network(optima.most())
    test = {"X_test": sample.X_test, "y_test": sample.y_test}
    floor, arrays = solution.certificate.dual, {}
    for method in ("optimal", *BASELINES):
        orders = range(cfg.orders if method == "random" else 1)
        for corrected in (False, True) if method != "optimal" else (True,):
            curves = [
                pruning_curve(problem, wide, method, corrected=corrected, seed=k, **test)
                for k in orders
            ]
            arrays |= _curve(f"{method}{'_corrected' * corrected}", curves, floor)
    best = _train(problem, [cfg.width], cfg, "adam").best
    trained = pruning_curve(problem, best, "optimal", **test)
    arrays |= _curve("trained", [trained], floor)
    exact = pruning_curve(problem, wide, "optimal", **test)
    assert exact.minimal is not None
    phase = exact.neurons >= exact.minimal
    half = exact.minimal // 2
    row |= {
        "beta_low": problem.beta,
        "beta_high": problem.beta,
        "minimal": exact.minimal,
        "start_neurons": int(exact.neurons[0]),
        "exact_rise": float(exact.objectives[phase].max() / exact.objectives[0] - 1),
        "test_minimal": float(exact.test_errors[phase][-1]),
        "test_least": float(exact.test_errors.min()),
        "at_half": float(exact.objective(half) / floor - 1),
        "at_half_magnitude": float(
            pruning_curve(problem, wide, "magnitude").objective(half) / floor - 1
        ),
    }
    arrays["trained_minimal"] = np.array([trained.minimal])
    return row, arrays


def _curve(name: str, curves: Any, floor: float) -> dict[str, np.ndarray]:
    """Return the median over curves at every number of neurons, and its excess over the floor."""
    most = int(curves[0].neurons[0])
    neurons = np.arange(most, -1, -1)
    place = [[int(np.argmax(one.neurons <= k)) for k in neurons] for one in curves]
    found = {}
    for label, of in (
        ("excess", lambda one: one.objectives / floor - 1),
        ("train", lambda one: one.train_errors),
        ("test", lambda one: one.test_errors),
    ):
        values = np.array([of(one)[at] for one, at in zip(curves, place, strict=True)])
        found[f"{name}_{label}"] = np.median(values, axis=0)
    return {**found, f"{name}_neurons": neurons}


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw counts (a row a quantity, a column a data set), and pruning curves."""
    drawn = {}
    counts = table[table["against"].isin(["beta", "width", "training"])]
    pruned = table[table["against"] == "pruning"]
    samples = table[table["against"] == "samples"]
    with figures.style():
        if len(counts) or len(samples):
            drawn["neuron_sparsity"] = _counts_figure(counts, samples, store, cfg)
        if len(pruned):
            drawn["neuron_sparsity_pruning"] = _pruning_figure(pruned, store)
    return drawn


ROWS = (
    ("beta", r"$\beta\,/\,\beta_{\max}$"),
    ("width", "width of training"),
    ("training", "share of training"),
)


def _counts_figure(counts: Any, samples: Any, store: Any, cfg: Any) -> Any:
    """Draw neurons against β, width and training a column a data set, and against n and noise."""
    names = list(dict.fromkeys(counts["data"]))
    rows = [(kind, label) for kind, label in ROWS if (counts["against"] == kind).any()]
    height = 1.55 * (len(rows) + bool(len(samples))) + 0.7
    fig = figures.new(figures.ICML_DOUBLE, height)
    parts = [1.55] * len(rows) + ([1.75] if len(samples) else [])
    sections = np.atleast_1d(np.asarray(fig.subfigures(len(parts), 1, height_ratios=parts)))
    shown = []
    for (kind, label), part in zip(rows, sections, strict=False):
        axes = part.subplots(1, len(names), squeeze=False)[0]
        for ax, name in zip(axes, names, strict=True):
            cells = counts[(counts["against"] == kind) & (counts["data"] == name)]
            for _, row in cells.iterrows():
                _count(ax, row, store.arrays(row["key"]), cfg)
            ax.set_xlabel(label)
            ax.set_ylim(0, None)
            if kind == rows[0][0] and len(cells):
                ax.set_title(f"{name}\n$n$ = {cells.iloc[0]['n']}, $d$ = {cells.iloc[0]['d']}")
        axes[0].set_ylabel("neurons in use\n(band: tolerance)")
        shown += list(axes)
    if len(samples):
        shown += list(_samples_row(sections[-1], samples, store))
    figures.legend(fig, shown, 4)
    return fig


def _count(ax: Any, row: Any, arrays: Any, cfg: Any) -> None:
    """Draw one panel: counts of trained networks, of optimal ones, and the bounds."""
    at, kind = arrays["at"], row["against"]
    x = np.where(at > 0, at, at[at > 0].min() / 3) if kind == "training" else at
    for name in cfg.optimizers:
        if (counts := arrays.get(f"counts_{name}")) is None:
            continue
        middle = np.median(counts, axis=2)
        look = figures.method(name)
        ax.plot(x, middle[MIDDLE], **look, ms=3, lw=0.9)
        ax.fill_between(x, middle[-1], middle[0], color=look["color"], alpha=0.13, lw=0)
    if kind == "beta":
        ax.plot(at, arrays["minimal"], "-", color=BLACK, lw=1.4, label="minimal optimal network")
        many = arrays["dimension"] > 0
        ax.plot(
            at[many], arrays["minimal"][many], "o", color=BLACK, mfc="white", ms=4,
            label="there: many optimal networks, one function",
        )  # fmt: skip
        ax.set_xlim(at[0] * 1.4, at[-1] / 1.4)  # from sparse to dense, as a path is followed
    else:
        ax.axhline(row["minimal"], color=BLACK, lw=1.4, label="minimal optimal network")
    if kind == "width":
        ax.plot(at, at, color="0.75", lw=0.8, ls="--", label="all neurons of the network")
        figures.sizes_axis(ax, at[::2])
        ax.set_ylim(0, 1.6 * row["n"])
    else:
        ax.set_xscale("log")
    if kind == "training":
        ax.set_xticks([x[0], 0.01, 0.1, 1.0], ["0", "0.01", "0.1", "1"])
    ax.axhline(row["n"], color=LIGHT, lw=0.8, ls=":", label="bound n")


def _samples_row(part: Any, samples: Any, store: Any) -> Any:
    """Draw neurons against n, a panel a noise: each draw's minimal network and trained ones."""
    noises = sorted({float(store.arrays(key)["at"][1]) for key in samples["key"]})
    axes = part.subplots(1, len(noises), squeeze=False, sharey=True)[0]
    found = [(store.arrays(row["key"]), row) for _, row in samples.iterrows()]
    for ax, noise in zip(axes, noises, strict=True):
        here = [(arrays, row) for arrays, row in found if arrays["at"][1] == noise]
        sizes = np.array(sorted({int(arrays["at"][0]) for arrays, _ in here}))
        of = [[(a, r) for a, r in here if a["at"][0] == n] for n in sizes]
        minimal = [np.median([r["minimal"] for _, r in ones]) for ones in of]
        for n, ones in zip(sizes, of, strict=True):
            ax.plot([n] * len(ones), [r["minimal"] for _, r in ones], ".", color=BLACK, ms=3)
        ax.plot(sizes, minimal, color=BLACK, lw=1.4, label="minimal optimal network")
        middle = np.array(
            [[np.median([a["counts_adam"][t] for a, _ in ones]) for ones in of]
             for t in range(len(TOLERANCES))]
        )  # fmt: skip
        look = figures.method("adam")
        ax.plot(sizes, middle[MIDDLE], **look, ms=3, lw=0.9)
        ax.fill_between(sizes, middle[-1], middle[0], color=look["color"], alpha=0.13, lw=0)
        ax.plot(sizes, sizes, color=LIGHT, lw=0.8, ls=":", label="bound n")
        figures.sizes_axis(ax, sizes)
        ax.set_yscale("log")
        ax.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("n")
        ax.set_title(f"planted, noise {noise:g}")
    axes[0].set_ylabel("neurons in use\n(dots: draws)")
    return axes


def _pruning_figure(table: Any, store: Any) -> Any:
    """Draw excess over the floor, training and held-out error against the neurons that are left."""
    fig = figures.new(figures.ICML_DOUBLE, 1.55 * 3 + 1.0)
    axes = fig.subplots(3, len(table), squeeze=False, sharex="col")
    for column, (_, row) in zip(axes.T, table.iterrows(), strict=True):
        arrays = store.arrays(row["key"])
        for method, (label, colour, marker) in REMOVAL.items():
            style = {"color": colour, "marker": marker, "ms": 2.5, "lw": 1.0}
            if method == "optimal":
                _draw(column, arrays, "optimal_corrected", {**style, "label": label, "zorder": 5})
            else:
                _draw(column, arrays, method, {**style, "label": label})
                dashed = {"color": colour, "ls": "--", "lw": 0.8}
                _draw(column, arrays, f"{method}_corrected", dashed)
        column[0].plot([], [], "--", color="0.4", lw=0.8, label="the same, others corrected")
        trained = {"color": BLACK, "ls": "-.", "lw": 1.0}
        _draw(column, arrays, "trained", {**trained, "label": "trained by Adam, then as the first"})
        for ax in column:
            ax.axvline(row["minimal"], color=LIGHT, lw=0.8, ls=":")
            ax.set_xlim(-0.5, 1.03 * float(row["start_neurons"]))
        column[0].text(
            row["minimal"], 0.02, "minimal ", transform=column[0].get_xaxis_transform(),
            fontsize=6.5, color="0.35", va="bottom", ha="right",
        )  # fmt: skip
        figures.gap_axis(column[0], TOLERANCE, "optimal")
        for ax in column[1:]:
            ax.set_ylim(0, 1.25)
        column[0].set_title(
            f"{row['data']}\n$n$ = {row['n']}, $d$ = {row['d']}, $\\beta$ = {row['beta']:.2g}"
        )
        column[-1].set_xlabel("neurons left")
    for ax, label in zip(
        axes[:, 0],
        ("objective above\nthe certified floor", "training error", "held-out error"),
        strict=True,
    ):
        ax.set_ylabel(label)
    figures.legend(fig, axes[0], 3)
    return fig


def _draw(column: Any, arrays: Any, name: str, style: Any) -> None:
    """Add one curve to the three panels of a data set."""
    neurons = arrays[f"{name}_neurons"]
    every = max(1, len(neurons) // 12)
    excess = np.maximum(arrays[f"{name}_excess"], TOLERANCE)
    for ax, values in zip(
        column, (excess, arrays[f"{name}_train"], arrays[f"{name}_test"]), strict=True
    ):
        ax.plot(neurons, values, markevery=every, **style)


if __name__ == "__main__":
    sweep.main(__file__)
