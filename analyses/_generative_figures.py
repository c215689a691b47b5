"""The drawing of the analysis `generative`."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import NullFormatter

from landscape import figures

DATA, OPTIMUM, TRAINED, TRUTH = "0.6", "#D55E00", "#0072B2", "black"
DISCRIMINATORS = {"linear": "#009E73", "quadratic": "#CC79A7", "relu": "#D55E00"}
FLOOR = 1e-16
"""Gaps are drawn at no less: they end in rounding, which has either sign."""
NAMES = {"linear": "linear", "quadratic": "quadratic", "relu": "ReLU, on a line"}


def _rows(table: Any, **wanted: str) -> list[Any]:
    """Return the rows of a study and kind, by β."""
    for column, value in wanted.items():
        table = table[table[column] == value]
    return [row for _, row in table.sort_values("beta").iterrows()]


def scores(table: Any, store: Any, truth: Any) -> Any:
    """Draw scores, errors, objectives, the string in its tube, samples, and next values."""
    rows = _rows(table, study="score", what="none") or _rows(table, study="score")
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 4.3)
        axes = fig.subplots(2, 3)
        if rows:
            best = min(rows, key=lambda row: row["error"])
            _learned(axes[0, 0], rows, store, truth)
            _errors(axes[0, 1], rows)
            _objectives(axes[0, 2], rows)
            _tube(axes[1, 0], best, store, truth)
            _langevin(axes[1, 1], best, store, truth)
        _next(axes[1, 2], _rows(table, study="lags"), store)
    return fig


def _learned(ax: Any, rows: list[Any], store: Any, truth: Any) -> None:
    """Draw learned scores over the true one, for the smallest, the best and the largest β."""
    grid = np.linspace(-4, 4, 401)
    ax.plot(grid, truth.score(grid), color=TRUTH, lw=1.6, label="truth")
    best = min(range(len(rows)), key=lambda k: rows[k]["error"])
    for k in sorted({0, best, len(rows) - 1}):
        shade = figures.shade(0.15 + 0.7 * k / max(1, len(rows) - 1))
        score = store.arrays(rows[k]["key"])["score"]
        ax.plot(grid, score, color=shade, lw=1, label=f"β = {rows[k]['beta']:g}")
    ax.set_xlabel("x")
    ax.set_ylabel("score")
    ax.set_title(f"learned scores, n = {rows[0]['n']}", loc="left")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.5 * (high - low))
    ax.legend(loc="upper left", ncols=2, columnspacing=1)


def _errors(ax: Any, rows: list[Any]) -> None:
    """Draw errors against β, and where the band of the distribution holds the truth."""
    beta = [row["beta"] for row in rows]
    ax.plot(beta, [row["error"] for row in rows], color=OPTIMUM, marker="o", label="optimum")
    ax.plot(
        beta, [row["error_trained"] for row in rows], color=TRAINED, marker="s", ls="--",
        label="trained (median)",
    )  # fmt: skip
    band = (0.5 * rows[0]["n"] * np.log(2 / 0.05)) ** 0.5
    if beta[0] <= band <= beta[-1]:
        ax.axvline(band, color="0.5", ls=":", lw=0.8, label="95 % band")
    ax.set_yscale("log")
    figures.sizes_axis(ax, beta)
    ax.set_xlabel("β")
    ax.set_ylabel("E (s − truth)²")
    ax.set_title("error of the score", loc="left")
    ax.legend()


def _objectives(ax: Any, rows: list[Any]) -> None:
    """Draw objectives a sample against β: optimum, training, kinks of one convention."""
    beta, n = [row["beta"] for row in rows], rows[0]["n"]
    lines = {
        "optimum = bound": ("objective", OPTIMUM, "o", "-"),
        "best trained": ("trained", TRAINED, "s", "--"),
        "φ'(0) = 0 alone": ("only_zero", "#009E73", "^", ":"),
        "φ'(0) = 1 alone": ("only_one", "#CC79A7", "v", ":"),
    }
    for label, (column, colour, marker, style) in lines.items():
        values = [-row[column] / n for row in rows]
        ax.plot(beta, values, color=colour, marker=marker, ls=style, label=label)
    ax.set_yscale("log")
    figures.sizes_axis(ax, beta)
    ax.set_xlabel("β")
    ax.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel("−objective / n")
    ax.set_title("objective", loc="left")
    ax.legend()


def _tube(ax: Any, row: Any, store: Any, truth: Any) -> None:
    """Draw the dual string less the true counting function, and the tube around it."""
    arrays = store.arrays(row["key"])
    x, nu = arrays["x"], arrays["nu"]
    n, above = len(x), len(x) - 1 - np.arange(len(x))
    grid = np.linspace(-5, 5, 2001)
    steps = np.append(0.0, np.cumsum((truth.density(grid)[1:] + truth.density(grid)[:-1]) / 2))
    true = n * (1 - np.interp(x, grid, steps / steps[-1]))
    string = np.maximum(x[:, None] - x, 0.0).T @ nu
    low, high = above + 1 - row["beta"], above + row["beta"]
    ax.fill_between(x, low - true, high - true, color="0.88", lw=0, label="tube")
    ax.plot(x, above + 0.5 - true, color=DATA, lw=0.8, label="samples")
    ax.plot(x, string - true, color=OPTIMUM, label="dual optimum")
    ax.axhline(0, color=TRUTH, lw=0.8)
    ax.set_xlabel("x")
    ax.set_ylabel("count above x − expected")
    ax.set_title(f"the dual string, β = {row['beta']:g}", loc="left")
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.4 * (high - low), high)
    ax.legend(loc="lower left")


def _langevin(ax: Any, row: Any, store: Any, truth: Any) -> None:
    """Draw Langevin samples of the learned score beside the density."""
    grid = np.linspace(-4, 4, 401)
    samples = store.arrays(row["key"])["samples"]
    learned = _integrated(grid, store.arrays(row["key"])["score"])
    ax.hist(samples, bins=48, density=True, color=OPTIMUM, alpha=0.45, label="chains")
    ax.plot(grid, learned, color=OPTIMUM, label="learned score's")
    ax.plot(grid, truth.density(grid), color=TRUTH, label="truth")
    ax.set_xlabel("x")
    ax.set_ylabel("density")
    ax.set_ylim(0, 1.6 * ax.get_ylim()[1])
    ax.set_title(f"{len(samples)} Langevin chains, β = {row['beta']:g}", loc="left")
    ax.legend(loc="upper left")


def _integrated(grid: Any, score: Any) -> Any:
    """Return the density on a grid whose score is given."""
    steps = np.diff(grid) * (score[1:] + score[:-1]) / 2
    density = np.exp(np.append(0.0, np.cumsum(steps)) - np.cumsum(steps).max())
    return density / np.trapezoid(density, grid)


def _next(ax: Any, rows: list[Any], store: Any) -> None:
    """Draw a real series, each value against the one before, and values drawn by the score."""
    if not rows:
        ax.set_axis_off()
        return
    row = rows[0]
    arrays = store.arrays(row["key"])
    past, drawn = arrays["from"], arrays["drawn"]
    ax.plot(arrays["past"], arrays["value"], ".", ms=3, color=DATA, label="series")
    places = np.unique(past)
    low, middle, high = np.array(
        [np.quantile(drawn[past == place], [0.1, 0.5, 0.9]) for place in places]
    ).T
    ax.fill_between(places, low, high, color=OPTIMUM, alpha=0.25, lw=0, label="drawn, 10–90 %")
    ax.plot(places, middle, color=OPTIMUM, label="drawn, median")
    ax.set_xlabel("value before")
    ax.set_ylabel(f"value (drawn: noisy, σ = {row['sigma']:g})")
    ax.set_ylim(None, ax.get_ylim()[1] + 2.5)
    ax.set_title(f"El Niño, lag 1: gap {max(row['gap'], 0):.0e}", loc="left")
    ax.legend(loc="upper left")


def games(table: Any, store: Any, truth: Any) -> Any:
    """Draw data and generated samples of each discriminator, and how gradients near them."""
    played = {row["what"]: row for row in _rows(table, study="game")}
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 4.3)
        axes = fig.subplots(2, 3)
        for ax, kind, what in zip(
            axes[0, :2], ("linear", "quadratic"), ("mean", "moments"), strict=True
        ):
            if kind in played:
                _scatter(ax, played[kind], store, f"{kind}: {what}")
        for row in _rows(table, study="pieces")[:1]:
            _scatter(axes[0, 2], row, store, "ReLU: pieces")
        if "relu" in played:
            _clipped(axes[1, 0], played["relu"], store)
        for kind, row in played.items():
            arrays = store.arrays(row["key"])
            share = arrays["steps"] / arrays["steps"][-1]
            mixed = row["price_pooled"], row["pooled"] / row["objective"]
            for ax, name, end in zip(axes[1, 1:], ("prices", "energies"), mixed, strict=True):
                _band(ax, share, arrays[name], kind)
                ax.plot(1.06, end, "D", ms=4, color=DISCRIMINATORS[kind])
        for ax, what in zip(axes[1, 1:], ("largest price / β", "energy / value"), strict=True):
            ax.axhline(1, color=TRUTH, lw=0.8, ls=":")
            ax.set_yscale("log")
            ax.set_xlabel("share of training")
            ax.set_yticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.set_ylabel(what)
            ax.set_title("gradients with lookahead", loc="left")
        axes[1, 1].legend()
        axes[1, 2].plot([], [], "D", ms=4, color="0.4", label="second half, mixed")
        axes[1, 2].legend()
        for ax in axes.flat:
            if not ax.has_data():
                ax.set_axis_off()
    return fig


def _scatter(ax: Any, row: Any, store: Any, what: str) -> None:
    """Draw data, generated samples and trained ones in the plane."""
    arrays = store.arrays(row["key"])
    ax.plot(*arrays["X"].T, ".", ms=4, color=DATA, label="data")
    if "trained" in arrays:
        ax.plot(*arrays["trained"].T, "x", ms=3.5, color=TRAINED, label="trained")
    found = "best found" if "relaxed" in row["scope"] else "optimum"
    ax.plot(*arrays["generated"].T, "o", ms=3, mfc="none", color=OPTIMUM, label=found)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_title(f"{what}, β = {row['beta']:g}", loc="left")
    gap = f"relaxed gap {row['gap']:.1%}" if "relaxed" in row["scope"] else "exact"
    ax.set_xlabel(f"value {row['objective']:.3g}, {gap}")
    ax.legend(loc="best", handletextpad=0.1)


def _clipped(ax: Any, row: Any, store: Any) -> None:
    """Draw quantiles of data, of the closed form and of trained samples on a line."""
    arrays = store.arrays(row["key"])
    share = (np.arange(row["n"]) + 0.5) / row["n"]
    x = np.sort(arrays["X"][:, 0])
    ax.plot(share, x, color=DATA, label="data")
    ax.plot(share, np.clip(x, *_ends(arrays)), color=OPTIMUM, label="optimum: clipped")
    ax.plot(share, np.sort(arrays["trained"][:, 0]), "--", color=TRAINED, label="trained")
    ax.set_xlabel("quantile")
    ax.set_ylabel("x")
    ax.set_title(f"ReLU on a line, β = {row['beta']:g}", loc="left")
    ax.legend()


def _ends(arrays: Any) -> tuple[float, float]:
    """Return the ends of the clip."""
    return float(arrays["clip"][0]), float(arrays["clip"][1])


def _band(ax: Any, share: Any, values: Any, kind: str) -> None:
    """Draw median and range over seeds of a game's trace."""
    low, middle, high = values.min(1), np.median(values, 1), values.max(1)
    ax.plot(share, middle, color=DISCRIMINATORS[kind], label=NAMES[kind])
    ax.fill_between(share, low, high, color=DISCRIMINATORS[kind], alpha=0.2, lw=0)


def densities(table: Any, store: Any, truth: Any) -> Any:
    """Draw held-out likelihoods, gaps of trained networks, real and drawn digits."""
    rows = _rows(table, study="density")
    best = max(rows, key=lambda row: row["validated"])
    beta = [row["beta"] for row in rows]
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 2.2)
        axes = fig.subplots(1, 3, width_ratios=[1, 1, 1.3])
        ax = axes[0]
        ax.plot(beta, [r["likelihood"] for r in rows], color=OPTIMUM, marker="o", label="optimum")
        trained = [r["likelihood_trained"] for r in rows]
        ax.plot(beta, trained, "--", color=TRAINED, marker="s", label="trained (mean)")
        ax.plot(
            best["beta"], best["likelihood"], "o", ms=9, mfc="none", color=OPTIMUM, label="chosen β"
        )
        ax.axhline(best["logistic"], color="#009E73", ls="-.", label="logistic regressions")
        ax.axhline(best["bernoulli"], color=TRUTH, ls=":", label="independent pixels")
        ax.set_ylabel("held-out log-likelihood (nats)")
        ax.set_title(f"digits of {best['d']} bits, n = {best['n']}", loc="left")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 0.06))
        ax = axes[1]
        for row in rows:
            gaps = np.maximum(store.arrays(row["key"])["trained_gaps"], FLOOR)
            ax.plot([row["beta"]] * len(gaps), gaps, ".", color=TRAINED)
        ax.plot(beta, np.maximum([r["gap"] for r in rows], FLOOR), "o", color=OPTIMUM, mfc="none")
        ax.set_yscale("log")
        ax.set_ylabel(f"gap to bounds (≥ {FLOOR:g})")
        exact = all("exact" in row["scope"] for row in rows)
        ax.set_title("gap: trained (dots), optimum" + ("" if exact else ", relaxed"), loc="left")
        for ax in axes[:2]:
            figures.sizes_axis(ax, beta)
            ax.set_xlabel("β")
        _digits(axes[2], store.arrays(best["key"]), best["beta"])
    return fig


def _digits(ax: Any, arrays: Any, beta: float) -> None:
    """Draw held-out digits above digits drawn from the density, on grey."""
    side = int(arrays["real"].shape[1] ** 0.5)
    apart, half = side + 1, 4 * (side + 1) + 2
    picture = np.zeros((2 * half, 12 * apart + 1))
    for block, name in enumerate(("real", "drawn")):
        for k, image in enumerate(arrays[name][:48]):
            r, c = half * block + 1 + apart * (k // 12), 1 + apart * (k % 12)
            picture[r : r + side, c : c + side] = image.reshape(side, side)
    ax.imshow(picture, cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    ax.axhline(half - 0.5, color="white", lw=1)
    ax.set_xticks([])
    ax.set_yticks(
        [half / 2 - 1, 1.5 * half - 1],
        ["held out", f"drawn, β = {beta:g}"],
        rotation=90,
        va="center",
    )
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


DRAWN = {
    "generative": scores,
    "generative_wgan": games,
    "generative_autoregressive": densities,
}
