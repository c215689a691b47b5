"""The reference solver: primal and dual written in cvxpy and solved, separately, by Clarabel.

Slow and trusted.  It shares no numerical code with the faster solvers, which are tested against
it, and the dual is written from its own constraints, so that agreement of the two values is
evidence and not an echo.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import NotConverged

if TYPE_CHECKING:
    from landscape.programs import Floats, Program

VERSION = 3
TOLERANCE = 1e-11
"""Asked of Clarabel (gap and feasibility); what it reaches is reported, and certified elsewhere."""


@dataclass(frozen=True)
class Optimum:
    """What a solver found for one program.

    Attributes:
        theta: blocks, shape (G, p).
        constant: free part, shape (q,).
        nu: dual point, shape (n,).
        value: the solver's own objective value.
        status: a sentence.
        history: one dictionary a step that says what was reached.
        multipliers: λ ≥ 0 of the cones' rows, shape (G, n), that prove the prices at ν, if known.
        gap: relative gap that the solver itself can prove; infinite if it proves none.
    """

    theta: Floats
    constant: Floats
    nu: Floats
    value: float
    status: str
    history: tuple[dict[str, float], ...] = ()
    multipliers: Floats | None = None
    gap: float = np.inf


def solve_primal(program: Program, throw: bool = True) -> Optimum:
    """Return the optimum of the primal program by cvxpy and Clarabel.

    Raises:
        NotConverged: with Clarabel's status, if it found no optimum and ``throw``.
    """
    import cvxpy

    program, unit, share = scaled(program)
    size, dimension, shape = program.atoms.size, program.atoms.dimension, program.y.shape
    theta = cvxpy.Variable((dimension, size * int(np.prod(shape[1:]))))
    outputs = cvxpy.Variable(shape)
    fit = program.atoms.expression(theta)
    if fit.shape != shape:  # targets (n, 1)
        fit = cvxpy.reshape(fit, shape, order="F")
    zero, none = program.zero()
    constant = cvxpy.Variable(none.shape) if none.size else None
    if constant is not None:
        fit = fit + program.free @ constant
    matched = outputs == fit
    constraints: list[Any] = [matched]
    if program.cones is not None:
        constraints += program.cones.constraints(theta)
    penalty = program.beta * program.gauge.expression(theta)
    objective = program.loss.expression(outputs, program.y) + penalty
    problem = cvxpy.Problem(cvxpy.Minimize(objective / share), constraints)
    status = run(problem, "primal", throw)
    if theta.value is None:
        return Optimum(zero, none, np.zeros(shape), np.inf, status)
    found = theta.value.reshape(dimension, size, *shape[1:])
    return Optimum(
        theta=unit * np.ascontiguousarray(found.swapaxes(0, 1)),
        constant=none if constant is None else unit * np.asarray(constant.value),
        # Of f − Σ A θ = 0: exactly −∇ℓ, or the right subgradient.
        nu=unit * share * np.asarray(matched.dual_value),
        value=unit**2 * share * _number(problem.value),
        status=status,
    )


def solve_dual(program: Program, throw: bool = True) -> tuple[float, Floats]:
    """Return value and point of the dual program, solved from its own formulation.

    Raises:
        NotConverged: with Clarabel's status, if it found no optimum and ``throw``.
    """
    import cvxpy

    program, unit, share = scaled(program)
    nu = cvxpy.Variable(program.y.shape)
    value, constraints = program.loss.dual_expression(nu, program.y)
    prices = program.atoms.adjoint_expression(nu)
    if program.cones is not None:
        multipliers, more = program.cones.multiplier_expression()
        prices, constraints = prices + multipliers, constraints + more
    constraints = constraints + program.gauge.polar_constraints(prices, program.beta)
    if program.free.shape[1]:
        constraints.append(program.free.T @ nu == 0)
    problem = cvxpy.Problem(cvxpy.Maximize(value / share), constraints)
    run(problem, "dual", throw)
    if nu.value is None:
        return -np.inf, np.zeros(program.y.shape)
    return unit**2 * share * _number(problem.value), unit * np.asarray(nu.value)


def scaled(program: Program) -> tuple[Program, float, float]:
    """Return the program in the units of its targets, that unit, and its size there.

    Clarabel's tolerances are absolute below one.  Powers of two change no digit.
    """
    unit = _power_of_two(program.loss.unit(program.y))
    y = program.y / unit
    loss = program.loss.per_unit(unit).simplest(y)
    share = _power_of_two(min(1.0, loss.at_zero(y) or 1.0))
    return replace(program, loss=loss, y=y, beta=program.beta / unit), unit, share


def _power_of_two(size: float) -> float:
    return float(np.exp2(np.round(np.log2(size))))


def _number(value: Any) -> float:
    return float(value)


def run(problem: Any, name: str, throw: bool) -> str:
    """Solve with Clarabel and return a sentence; an optimum it calls inaccurate is named so."""
    import warnings

    import cvxpy

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")  # said in status
        try:
            problem.solve(
                solver=cvxpy.CLARABEL,
                tol_gap_abs=TOLERANCE,
                tol_gap_rel=TOLERANCE,
                tol_feas=TOLERANCE,
            )
            found = str(problem.status)
        except cvxpy.SolverError as error:
            found = f"failed: {error}"
    sentences = {
        "optimal": f"Clarabel solved the {name} to {TOLERANCE:g}.",
        "optimal_inaccurate": f"Clarabel stopped above {TOLERANCE:g} on the {name}; "
        "the certificate says how far.",
    }
    if found in sentences:
        return sentences[found]
    sentence = (
        f"Clarabel found no optimum of the {name} program (status {found}); scale X and y to unit "
        "size or raise beta."
    )
    if throw:
        raise NotConverged(sentence)
    return sentence
