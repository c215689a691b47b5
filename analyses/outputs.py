r"""Three ways to regularise several outputs: objective, rank, neurons and test error against β.

On the same data and at the same β: gated networks whose neurons feed all outputs (nuclear norm of
every pattern's block), ReLU networks under weight decay (the gauge over the patterns' cones, of
conv{u vᵀ}), and gated networks with neurons of their own for every class (sum of column norms).
All patterns are taken, every optimum is certified.  By theorem the first is the lowest; between the
other two there is no order.  Neurons are those of the optimal network: of a gated one as many as
the ranks of its blocks add up to.  Ranks are those of blocks :math:`V_i = \sum_j u_j v_j^⊤` over
the neurons of one pattern, the samples on which they are positive: optimal ReLU neurons lie on
kinks as a rule, at the boundary of several cells.  Beside the optima stands the best of some
networks that Adam trains (gated ones with as many neurons on every pattern as the largest rank of a
block); labels of digits are one-hot, trained by squared loss, and a test sample counts as
misclassified if another class scores highest.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from analyses import sweep
from landscape import arrangements, clarke, data, figures, solve, train
from landscape.architectures import GatedReLU, VectorReLU
from landscape.bounds import EXACT, beta_max
from landscape.problem import Problem
from landscape.solvers import Solution, group_lasso, units
from landscape.training import batched

VERSIONS = {
    "outputs": 2,
    "group_lasso": group_lasso.VERSION,
    "units": units.VERSION,
    "train": batched.VERSION,
}
SUMMARY = (
    "data", "n", "d", "outputs", "share", "beta", "norm", "objective", "bound", "scope", "gap",
    "neurons", "blocks", "mean_rank", "largest_rank", "test_error", "trained", "trained_gap",
    "test_error_trained", "seconds",
)  # fmt: skip
NORMS = {
    "gated_nuclear": ("#0072B2", "o", "gated, nuclear norm"),
    "relu": ("#D55E00", "s", "ReLU, gauge over cones"),
    "gated_per_class": ("#009E73", "D", "gated, a class each"),
}
ARCHITECTURES = {
    "gated_nuclear": GatedReLU(outputs="nuclear"),
    "relu": VectorReLU(),
    "gated_per_class": GatedReLU(outputs="per_class"),
}


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Solve one data set at one β under one norm, and train networks beside."""
    sample = data.load(cfg.data.name, **{"seed": cfg.draw, **cfg.data.options})
    X, Y = sample.X, sweep.targets(sample)
    largest = Problem(X, Y, 1.0, architecture=ARCHITECTURES["gated_nuclear"])
    beta = cfg.share * beta_max(largest)  # the largest of the three norms'
    problem = Problem(X, Y, beta, architecture=ARCHITECTURES[cfg.norm])
    began = time.perf_counter()
    solution = solve(problem, tolerance=cfg.solver.tolerance, limit=cfg.solver.cones, throw=False)
    seconds = time.perf_counter() - began
    runs = _trained(problem, cfg)
    kept = np.isfinite(runs.objectives)
    errors = [sweep.held_out_error(sample, runs[int(i)]) for i in np.flatnonzero(kept)]
    best = int(runs.objectives[kept].argmin())
    certificate, ranks = solution.certificate, _ranks(solution)
    row = {
        **sweep.described(sample, problem),
        "outputs": problem.outputs,
        "task": sample.task,
        "share": cfg.share,
        "draw": cfg.draw,
        "norm": cfg.norm,
        "objective": solution.objective,
        "bound": certificate.bound,
        "scope": certificate.scope,
        "gap": certificate.relative_gap,
        "neurons": int(solution.network().values["output"].shape[0]),
        "blocks": len(ranks),
        "mean_rank": float(np.mean(ranks)) if len(ranks) else 0.0,
        "largest_rank": int(max(ranks, default=0)),
        "test_error": sweep.held_out_error(sample, solution.network()),
        "trained": float(runs.objectives[kept][best]),
        "trained_gap": 1.0 - certificate.dual / float(runs.objectives[kept][best]),
        "test_error_trained": errors[best],
        "seconds": seconds,
    }
    arrays = {"ranks": np.array(ranks), "objectives": runs.objectives[kept]}
    return row, {**arrays, "test_errors": np.array(errors)}


def _trained(problem: Problem, cfg: Any) -> Any:
    """Return the networks of the learning rate with the lowest end."""
    seeds, start = range(cfg.seeds), None
    own = problem.architecture
    if isinstance(own, GatedReLU):  # its gates are not trained: all patterns, blocks of any rank
        rank = min(problem.design.shape[1], problem.outputs)
        gates = arrangements.enumerate(problem.design).gates.repeat(rank, axis=0)
        start = own.initial(problem, len(gates), seeds)
        start["gate"] = torch.as_tensor(gates).expand(len(seeds), -1, -1).clone()
    found = []
    for rate in cfg.learning_rates:
        options = {"learning_rate": rate, "throw": False}
        if start is not None:
            runs = train(
                problem, start=start, seeds=seeds, optimizer="adam", steps=cfg.steps, **options
            )
        else:
            runs = train(problem, cfg.width, seeds, "adam", cfg.steps, **options)
        found.append(runs)
    return min(found, key=lambda runs: float(np.nanmin(runs.objectives)))


def _ranks(solution: Solution) -> list[int]:
    """Return the ranks of the blocks V_i of the patterns that carry something."""
    values = solution.network().values
    w, a = (values[k].detach().numpy() for k in ("hidden", "output"))
    gates = values["gate"].detach().numpy() if "gate" in values else w
    design = solution.problem.design
    masks = (gates @ design.T > 0) & ~clarke.ties(design, gates)
    if not len(masks):
        return []
    group = np.unique(masks, axis=0, return_inverse=True)[1].reshape(-1)
    return [
        int(np.linalg.matrix_rank(w[group == g].T @ a[group == g], tol=None))
        for g in range(group.max() + 1)
    ]


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a row a data set: objectives, neurons, ranks, test errors against β."""
    names = list(dict.fromkeys(table["data"]))
    with figures.style():
        fig = figures.new(figures.ICML_DOUBLE, 1.75 * len(names) + 0.5)
        axes = fig.subplots(len(names), 4, squeeze=False)
        for row, name in zip(axes, names, strict=True):
            part = table[table["data"] == name].sort_values("share")
            least = part[part["norm"] == "gated_nuclear"].groupby("share")["objective"].mean()
            for norm, (colour, marker, label) in NORMS.items():
                _draw(row, part[part["norm"] == norm], least, colour, marker, label)
            _dress(row, part, name)
        for ax in axes[-1]:
            ax.set_xlabel(r"β / β$_{\mathrm{max}}$")
        figures.legend(fig, axes, ncols=4)
    return {"outputs": fig}


def _draw(row: Any, part: Any, least: Any, colour: str, marker: str, label: str) -> None:
    """Draw one norm's mean over draws in all four panels."""
    if not len(part):
        return
    mean = part.groupby("share")[
        ["objective", "trained", "neurons", "mean_rank", "test_error", "test_error_trained"]
    ].mean()
    x, line = mean.index.to_numpy(), {"color": colour, "marker": marker}
    hollow = {"color": colour, "marker": "x", "ls": ":", "lw": 0.7, "ms": 4}
    base = least.reindex(mean.index)
    row[0].plot(x, mean["objective"] / base, **line, label=label)
    row[0].plot(x, mean["trained"] / base, **hollow)
    row[1].plot(x, mean["neurons"], **line)
    row[2].plot(x, mean["mean_rank"], **line)
    row[3].plot(x, mean["test_error"], **line)
    row[3].plot(x, mean["test_error_trained"], **hollow)


def _dress(row: Any, part: Any, name: str) -> None:
    """Label one row's axes; say where a bound is not exact."""
    first = part.iloc[0]
    row[0].set_title(
        "{}: n = {:.0f}, d = {:.0f}, {:.0f} outputs".format(
            name, *(first[k] for k in ("n", "d", "outputs"))
        ),
        loc="left",
    )
    loose = part[part["scope"] != EXACT]
    if len(loose):
        norms = ", ".join(NORMS[n][2] for n in dict.fromkeys(loose["norm"]))
        row[2].set_title(f"not exact: {norms}", loc="left", color="#B00000", fontsize=6)
    row[0].set_ylabel("objective / lowest")
    row[1].set_ylabel("neurons")
    row[2].set_ylabel("mean rank of blocks")
    error = "misclassified" if first["task"] == "multiclass" else "mean squared error"
    row[3].set_ylabel(f"test: {error}")
    for ax in row:
        figures.sizes_axis(ax, sorted(set(part["share"])))
    row[1].set_ylim(bottom=0)
    row[2].set_ylim(bottom=0.95)
    row[0].plot([], [], color="0.3", marker="x", ls=":", lw=0.7, ms=4, label="trained by Adam")


if __name__ == "__main__":
    sweep.main(__file__)
