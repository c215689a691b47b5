r"""Interpolation of least norm, the limit β → 0, and all networks that attain it.

.. math:: \min \sum_j \|u_j\| \;\text{ s.t. }\; \sum_j s_j (X u_j)_+ = y
    \;=\; \max_ν ν^⊤y \;\text{ s.t. all prices of ν at most } 1 .

For any β the optimum with targets t, fit f and residual ν = t − f interpolates f at least norm,
because ν/β prices nothing above one.  So the targets are moved until the fit is y:
:math:`t ← t + (y − f)`, the method of multipliers for the constraint (Hestenes 1969; Powell 1969),
known for such norms as Bregman iteration (Osher, Burger, Goldfarb, Xu & Yin 2005).  What it ends
with is an ordinary certified solution, whose optimal set is that of the interpolators (Kim,
Mishkin & Pilanci, ICLR 2025, Propositions 1 and 2, on when it is more than a point).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.bounds import EPSILON, beta_max
from landscape.errors import BadInput, NotConverged, share, whole
from landscape.optimal_set.set import OptimalSet
from landscape.solvers import solve

if TYPE_CHECKING:
    from landscape.problem import Problem
    from landscape.programs import Floats
    from landscape.solvers.solution import Solution

VERSION = 1
STRENGTH = 0.1
"""Of the first β, in units of that at which nothing is fitted."""
SHARP = 1e-13
"""Relative gap asked of each step: as sharp as it goes, for residuals are small beside targets."""
SLOW, SMALLER = 0.3, 0.3
"""If an error is above this share of the one before, β becomes so much smaller."""


@dataclass(frozen=True)
class Interpolation:
    """A network of least norm through all targets.

    Attributes:
        targets: y, shape (n,).
        solution: of the problem with moved targets, whose fit is y; its network interpolates,
            and ``OptimalSet(interpolation.solution)`` is the set of all that do at this norm.
        error: the largest |f − y| that is left.
        steps: how often the targets were moved.
    """

    solution: Solution = field(repr=False)
    targets: Floats = field(repr=False)
    error: float
    steps: int

    @property
    def norm(self) -> float:
        """Σ‖u‖ of the network, which is ½ Σ(‖w‖² + a²) after balancing."""
        point = self.solution.point
        return float(point.program.gauge.value(point.theta).sum())

    @property
    def bound(self) -> float:
        """No network through y has a smaller norm, in the solution's scope: νᵀy/β, less rounding.

        In scope "all patterns, local search" that is what the search left open, not a bound.
        """
        nu = self.solution.certificate.nu
        lost = (len(nu) + 4) * EPSILON * float(np.abs(nu) @ np.abs(self.targets))
        return (float(nu @ self.targets) - lost) / self.solution.problem.beta

    @property
    def gap(self) -> float:
        """(norm − bound) / norm; what the error leaves open can make it negative."""
        return (self.norm - self.bound) / max(self.norm, float(np.finfo(float).tiny))

    def optima(self, **options: Any) -> OptimalSet:
        """Return all interpolators of this norm (options of `OptimalSet`)."""
        return OptimalSet(self.solution, **options)


def interpolate(
    problem: Problem, *, tolerance: float = 1e-9, steps: int = 60, **options: Any
) -> Interpolation:
    """Return a network of least norm that fits all targets.

    Args:
        problem: with the squared loss and one output; its β is not used.
        tolerance: largest |f − y| in units of the largest |y|.
        steps: most moves of the targets.
        **options: of `landscape.solve`.

    Raises:
        BadInput: for another loss or several outputs.
        NotConverged: if an error is left after the last step, as where equal samples have
            different targets and nothing interpolates.
    """
    if problem.loss.name != "squared" or problem.y.ndim != 1:
        raise BadInput(
            f"problem has the {problem.loss.name} loss and targets of shape {problem.y.shape}: "
            "interpolation is of real targets, one a sample, and is solved by squared losses."
        )
    tolerance, steps = share("tolerance", tolerance), whole("steps", steps)
    y, size = problem.y, float(np.abs(problem.y).max())
    if not size:
        raise BadInput("y is zero: the zero network interpolates it.")
    beta, multiplier = STRENGTH * beta_max(problem), np.zeros(y.shape)
    error, solution = np.inf, None
    for step in range(steps):
        moved = problem.replace(y=y + beta * multiplier, beta=beta)
        solution = solve(moved, start=solution, **{"tolerance": SHARP, "throw": False, **options})
        fit = solution.point.program.fit(solution.point.theta, solution.point.constant)
        before, error = error, float(np.abs(y - fit).max())
        if error <= tolerance * size:
            return Interpolation(solution, y, error, step)
        multiplier = (moved.y - fit) / beta
        if error > SLOW * before:
            beta *= SMALLER
    raise NotConverged(
        f"Interpolation left an error of {error:.1e} after {steps} steps: where equal samples have "
        "different targets, or a sample is zero and there is no bias, nothing interpolates; "
        "otherwise raise steps."
    )
