"""Regularisation paths: the same data over many β, each solved from the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.bounds import beta_max
from landscape.errors import BadInput
from landscape.solvers.solve import as_arrangements, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.arrangements import Arrangements
    from landscape.problem import Problem
    from landscape.solvers.solution import Solution

DECADES = 3


def solve_path(
    problem: Problem,
    betas: int | Sequence[float] | NDArray[np.float64] = 20,
    patterns: str | Arrangements | NDArray[np.bool_] = "all",
    **options: Any,
) -> list[Solution]:
    """Solve a problem for a decreasing sequence of β, warm-started from the largest down.

    Args:
        problem: the training problem; its own β plays no role.
        betas: the values, in any order and without repetition; or how many, spaced evenly on a
            logarithmic scale from β_max down three decades.
        patterns: as in `solve`.
        **options: further arguments of `solve`, the same for every β; ``start`` is for the first.

    Returns:
        One certified solution for every β, from the largest β to the smallest; each has its β in
        ``solution.problem.beta``, its neurons counted in ``solution.active``.

    Raises:
        BadInput: for values that are not positive, finite and distinct, or no whole number.
        NotConverged: as `solve`, for the first β that fails.
    """
    if (np.ndim(betas) == 0 and not isinstance(betas, (int, np.integer))) or betas is True:
        raise BadInput(
            f"betas is {betas!r}: it must be how many values (a whole number), or a sequence of "
            "them (one value: [value])."
        )
    if isinstance(betas, (int, np.integer)):
        if betas < 1:
            raise BadInput(f"betas is {betas}: there must be at least one value.")
        top = beta_max(
            problem, None if isinstance(patterns, str) else as_arrangements(problem, patterns)
        )
        if top == 0:
            raise BadInput("betas: the zero network is optimal for every β; give values of β.")
        values = np.geomspace(top, top * 10.0**-DECADES, int(betas))
    else:
        try:
            values = np.sort(np.asarray(betas, dtype=np.float64).reshape(-1))[::-1]
        except (TypeError, ValueError):
            raise BadInput(f"betas is {betas!r}: it must be numbers, or how many.") from None
        if not len(values) or not (np.isfinite(values) & (values > 0)).all():
            raise BadInput(f"betas is {betas}: its values must be positive and finite.")
        if (np.diff(values) == 0).any():
            raise BadInput(f"betas is {betas}: its values must be distinct.")
    start, found = options.pop("start", None), []
    for beta in values:
        solution = solve(problem.replace(beta=float(beta)), patterns, start=start, **options)
        found.append(solution)
        start = solution
    return found
