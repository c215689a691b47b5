"""The regularisation path: optimum, neurons and held-out error from β_max down, certified.

The optimum p*(β) is a minimum of functions ℓ + βR that are linear in β, so it is concave and its
derivative is R = Σ‖u‖ of an optimum (Mishkin & Pilanci 2023).  That is checked with certificates
alone: between β and β' = (1 + step) β the difference quotient lies between
(dual' − primal)/(β' − β) and (primal' − dual)/(β' − β), and by concavity it must lie between R'
and R.  Every point is the optimum over all patterns, of the scope that is stated.  Neurons are
those of a minimal network, pruned from the solution: at most the rank of the features, so n.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses import sweep
from landscape import figures, prune, solve, solve_path, sparsity
from landscape.solvers import generation, restricted
from landscape.sparsity.curves import error

VERSIONS = {
    "regularisation_path": 1,
    "generation": generation.VERSION,
    "restricted": restricted.VERSION,
    "sparsity": sparsity.VERSION,
}
SUMMARY = (
    "data", "n", "d", "points", "beta_max", "scope", "largest_gap", "derivative_outside",
    "derivative_error", "concavity", "most_neurons", "best_beta", "best_test_error",
    "worst_test_error",
)  # fmt: skip
BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"
TOLERANCE = 1e-8
"""Certified relative gap of every point."""


def lacking(cfg: Any) -> str:
    """Return why a cell does not apply to its architecture, or nothing."""
    return sweep.featured(cfg, "paths of solutions need a program before training")


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Solve one path and check its derivative."""
    sample, problem = sweep.problem(cfg)
    closed = problem.architecture.plain_neurons  # else bounds may be relaxed (`sweep.optimum`)
    path = solve_path(problem, int(cfg.points), tolerance=TOLERANCE, throw=closed)
    betas = np.array([one.problem.beta for one in path])
    near = [
        solve(one.problem.replace(beta=(1 + cfg.step) * one.problem.beta), start=one,
              tolerance=TOLERANCE, throw=closed)
        for one in path
    ]  # fmt: skip
    slope, slope_near = (np.array([_penalty(one) for one in ones]) for ones in (path, near))
    primal, dual = _values(path)
    primal_near, dual_near = _values(near)
    low, high = (dual_near - primal) / (cfg.step * betas), (primal_near - dual) / (cfg.step * betas)
    # The quotient is within [low, high] by certificates, and within [R', R] by concavity.
    outside = np.maximum(np.maximum(slope_near - high, low - slope), 0.0)
    quotient = (primal_near - primal) / (cfg.step * betas)
    networks = [prune(one.problem, one.network()) for one in path]  # minimal ones
    neurons = np.array([len(one.values["output"]) for one in networks])
    test = [error(problem, one, sample.X_test, sample.y_test) for one in networks]
    train = [error(problem, one, problem.X, problem.y) for one in networks]
    bends = np.diff(primal[::-1]) / np.diff(betas[::-1])  # slopes of chords, β growing
    best = int(np.argmin(test))
    row = {
        "data": sample.name,
        "n": problem.X.shape[0],
        "d": problem.X.shape[1],
        "points": len(path),
        "beta_max": betas[0],
        "scope": "; ".join(dict.fromkeys(one.certificate.scope for one in path)),
        "largest_gap": float(max(one.certificate.relative_gap for one in path)),
        "derivative_outside": float((outside / np.maximum(slope, 1e-12)).max()),
        "derivative_error": float((np.abs(quotient - slope) / np.maximum(slope, 1e-12))[1:].max()),
        "concavity": float(np.maximum(np.diff(bends), 0.0).max(initial=0.0)),
        "most_neurons": int(neurons.max()),
        "best_beta": betas[best],
        "best_test_error": test[best],
        "worst_test_error": max(test),
    }
    arrays = {
        "betas": betas,
        "primal": primal,
        "dual": dual,
        "low": low,
        "high": high,
        "slope": slope,
        "slope_near": slope_near,
        "gaps": np.array([one.certificate.relative_gap for one in path]),
        "neurons": neurons,
        "test": np.array(test),
        "train": np.array(train),
    }
    return row, arrays


def _penalty(solution: Any) -> float:
    """Return R = Σ‖u‖ of an optimum."""
    point = solution.point
    return float(point.program.gauge.value(point.theta).sum())


def _values(solutions: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return primal and dual values."""
    found = [(one.certificate.primal, one.certificate.dual) for one in solutions]
    return np.array(found).T[0], np.array(found).T[1]


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a column a data set: optimum, derivative, neurons, errors, certificates."""
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 6.6)
        axes = fig.subplots(5, len(table), squeeze=False, sharex="col")
        for column, (_, row) in zip(axes.T, table.iterrows(), strict=True):
            arrays = store.arrays(row["key"])
            _column(column, row, arrays)
        for ax, label in zip(
            axes[:, 0],
            ("optimum p*(β)", "Σ‖u‖ and dp*/dβ", "neurons, minimal", "error", "relative gap"),
            strict=True,
        ):
            ax.set_ylabel(label)
        figures.legend(fig, [axes[1, 0], axes[3, 0]], 4)
    return {"regularisation_path": fig}


def _column(column: Any, row: Any, arrays: Any) -> None:
    """Draw one data set from the largest β to the smallest."""
    betas = arrays["betas"]
    column[0].plot(betas, arrays["primal"], "o-", color=BLUE, ms=2.5, lw=1.0)
    column[0].set_ylim(0, None)
    column[1].plot(betas, arrays["slope"], "o", color=BLUE, ms=3.5, mfc="none", label="Σ‖u‖")
    middle, half = (arrays["low"] + arrays["high"]) / 2, (arrays["high"] - arrays["low"]) / 2
    column[1].errorbar(
        betas, middle, half, fmt="x", color=RED, ms=3.5, lw=1.0,
        label="difference quotient (certified interval)",
    )  # fmt: skip
    column[1].set_ylim(0, 1.15 * float(arrays["slope"].max()))
    column[2].plot(betas, arrays["neurons"], "o-", color=GREEN, ms=2.5, lw=1.0)
    column[2].axhline(row["n"], color="0.5", lw=0.8, ls=":")
    column[2].text(betas[0], row["n"], " n", fontsize=6.5, color="0.35", va="top")
    column[2].set_ylim(0, 1.05 * row["n"])
    for name, colour in (("train", BLUE), ("test", RED)):
        column[3].plot(
            betas, arrays[name], "o-", color=colour, ms=2.5, lw=1.0,
            label={"train": "training error", "test": "held-out error"}[name],
        )  # fmt: skip
    column[3].set_ylim(0, 1.05 * float(np.nanmax([arrays["test"], arrays["train"]])))
    column[4].plot(betas, np.maximum(arrays["gaps"], 1e-16), "o", color="black", ms=2.5)
    column[4].set_yscale("log")
    column[4].set_ylim(1e-14, 1e-6)
    column[4].axhline(TOLERANCE, color="0.5", lw=0.8, ls=":")
    column[4].set_xscale("log")
    column[4].set_xlim(2 * betas[0], betas[-1] / 2)  # from sparse to dense
    column[4].set_xlabel("β")
    column[0].set_title(f"{row['data']}\n$n$ = {row['n']}, $d$ = {row['d']}")


if __name__ == "__main__":
    sweep.main(__file__)
