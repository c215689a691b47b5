"""Lasso over all ramps of samples on a line: time to a certified gap, ours against others.

    python benchmarks/lasso_ramps.py [--sizes 200 500] [--shares 1e-1 1e-2 1e-3 1e-4] [--threads 1]

Columns (±(x − x_j))_+ of a noisy wave, no free constant (which not all solvers leave unpenalised);
β is a share of β_max.  Every solver's coefficients are judged alike: the dual point is its residual
scaled until it is feasible, in extended precision, and the gap is relative to the objective.
Solvers with a tolerance are run with ever smaller ones until the gap is reached or time is up; the
time is that of the last run alone.  The last line of a block is column generation, which never
lists the columns.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator

import cvxpy
import numpy as np
from celer import Lasso as Celer
from sklearn.linear_model import Lasso as Descent
from threadpoolctl import threadpool_limits

from landscape import Problem, losses, solve
from landscape.architectures import DeepNarrow
from landscape.dictionary import Columns, Lasso
from landscape.solvers import active_set

GAPS = (1e-4, 1e-8)
BUDGET = 10.0
"""Seconds that one run may take; none longer is begun."""
SWEEPS = 50_000
"""Most sweeps of coordinate descent."""


def ramps(N: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return inputs, targets and the columns of all ramps."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(-1, 1, N))
    y = np.sin(6 * x) + 0.3 * rng.standard_normal(N)
    apart = x[:, None] - x
    return x, y, np.hstack([np.maximum(apart[:, :-1], 0), np.maximum(-apart[:, 1:], 0)])


def gap(A: np.ndarray, y: np.ndarray, beta: float, z: np.ndarray) -> float:
    """Return the relative duality gap of coefficients, in extended precision."""
    used = np.flatnonzero(z)
    rest = y.astype(np.longdouble) - A[:, used].astype(np.longdouble) @ z[used]
    value = 0.5 * rest @ rest + beta * np.abs(z).sum()
    nu = rest * min(1.0, beta / np.abs(rest @ A.astype(np.longdouble)).max())
    return float((value - nu @ y + 0.5 * nu @ nu) / value)


def ours(A: np.ndarray, y: np.ndarray, beta: float) -> Iterator[np.ndarray]:
    """Active set with updated factors."""
    columns = Columns(A, {"place": np.arange(A.shape[1])}, np.abs(A).max(axis=1))
    program = Lasso.of(losses.get("squared"), y, beta, columns)
    yield active_set.minimise(program, 1e-10, throw=False).theta[:, 0]


def sklearn(A: np.ndarray, y: np.ndarray, beta: float) -> Iterator[np.ndarray]:
    """Coordinate descent."""
    for tolerance in (1e-4, 1e-6, 1e-8, 1e-10):
        fitted = Descent(
            alpha=beta / len(y), fit_intercept=False, tol=tolerance, max_iter=SWEEPS
        ).fit(A, y)
        yield fitted.coef_


def celer(A: np.ndarray, y: np.ndarray, beta: float) -> Iterator[np.ndarray]:
    """Working sets with dual extrapolation."""
    for tolerance in (1e-4, 1e-6, 1e-8, 1e-10, 1e-12):
        fitted = Celer(
            alpha=beta / len(y), fit_intercept=False, tol=tolerance, max_iter=200, max_epochs=50_000
        ).fit(A, y)
        yield fitted.coef_


def clarabel(A: np.ndarray, y: np.ndarray, beta: float) -> Iterator[np.ndarray]:
    """Interior point."""
    z = cvxpy.Variable(A.shape[1])
    objective = 0.5 * cvxpy.sum_squares(A @ z - y) + beta * cvxpy.norm1(z)
    program = cvxpy.Problem(cvxpy.Minimize(objective))
    for tolerance in (1e-8, 1e-12):
        options = {f"tol_{kind}": tolerance for kind in ("gap_abs", "gap_rel", "feas")}
        program.solve(solver="CLARABEL", **options)
        yield np.zeros(A.shape[1]) if z.value is None else np.asarray(z.value)


SOLVERS = {"active set": ours, "sklearn": sklearn, "celer": celer, "clarabel": clarabel}


def race(
    solver: Callable[..., Iterator[np.ndarray]], A: np.ndarray, y: np.ndarray, beta: float
) -> tuple[dict[float, float], float]:
    """Return seconds to each gap (infinite if not reached) and the smallest gap."""
    reached, smallest = dict.fromkeys(GAPS, np.inf), np.inf
    runs = solver(A, y, beta)
    while True:
        began = time.perf_counter()
        z = next(runs, None)
        seconds = time.perf_counter() - began
        if z is None:
            break
        found = gap(A, y, beta, z)
        smallest = min(smallest, found)
        for wanted in GAPS:
            if found <= wanted:
                reached[wanted] = min(reached[wanted], seconds)
        if found <= min(GAPS) or seconds > BUDGET:
            break
    return reached, smallest


def main() -> None:
    """Run the sizes, print a table and ratios to ours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 500])
    parser.add_argument("--shares", type=float, nargs="+", default=[1e-1, 1e-2, 1e-3, 1e-4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=list(SOLVERS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of solvers that stop short: their gap says it
    print(f"{args.threads} threads; seconds to a relative gap, ratio to the active set")
    with threadpool_limits(args.threads):
        for N in args.sizes:
            x, y, A = ramps(N)
            for share in args.shares:
                beta = share * float(np.abs(y @ A).max())
                print(f"N = {N}, {A.shape[1]} columns, β = {share:g} β_max")
                own: dict[float, float] = {}
                for name in args.solvers:
                    reached, smallest = race(SOLVERS[name], A, y, beta)
                    own = own or reached
                    cells = [
                        f"{wanted:g}: {seconds:.3f} s (×{seconds / own[wanted]:.1f})"
                        for wanted, seconds in reached.items()
                    ]
                    print(
                        f"  {name:<12}{'  '.join(cells)}  smallest gap {smallest:.0e}", flush=True
                    )
                began = time.perf_counter()
                problem = Problem(x[:, None], y, beta, architecture=DeepNarrow(2))
                solution = solve(problem, tolerance=1e-8, throw=False)
                seconds = time.perf_counter() - began
                print(
                    f"  generation  {seconds:.3f} s with a free constant, certified gap "
                    f"{solution.certificate.relative_gap:.0e} ({solution.certificate.scope})"
                )


if __name__ == "__main__":
    main()
