r"""The semidefinite program of a quadratic activation, by cvxpy and Clarabel.

.. math::

    \min_{Z, Z' ⪰ 0} ℓ(ŷ, y) + β(Z_4 + Z_4'), \qquad
    \mathrm{tr}\,Z_1 = Z_4, \; \mathrm{tr}\,Z_1' = Z_4', \quad Z = \begin{pmatrix} Z_1 & Z_2 \\
    Z_2^⊤ & Z_4 \end{pmatrix}

and its dual, which says by the S-lemma that no neuron of norm one prices above β:

.. math::

    \max_{ν, ρ, ρ'} −ℓ^*(−ν), \qquad
    \begin{pmatrix} ρI − aM & −\tfrac b2 g \\ · & β − c\,1^⊤ν − ρ \end{pmatrix} ⪰ 0, \quad
    \begin{pmatrix} ρ'I + aM & \tfrac b2 g \\ · & β + c\,1^⊤ν − ρ' \end{pmatrix} ⪰ 0,

with :math:`M = X^⊤\mathrm{diag}(ν)X` and :math:`g = X^⊤ν` (Bartan & Pilanci, arXiv 2101.02429).
The trusted second road: `landscape.solve` reaches the same optimum by column generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from landscape.architectures import Polynomial
from landscape.errors import BadInput, NotConverged
from landscape.solvers import reference

if TYPE_CHECKING:
    from landscape.dictionary import Lasso
    from landscape.problem import Problem
    from landscape.programs import Floats

VERSION = 1


@dataclass(frozen=True)
class Matrices:
    """The optimum as a pair of matrices of order d + 1.

    Attributes:
        positive: Z, of the neurons with positive output weight.
        negative: Z'.
        value: Clarabel's objective value.
        nu: dual point, shape (n,).
        status: a sentence.
    """

    positive: Floats
    negative: Floats
    value: float
    nu: Floats
    status: str


def solve_primal(problem: Problem) -> Matrices:
    """Return the optimum of the semidefinite program.

    Raises:
        BadInput: if the problem's architecture is not `Polynomial`.
        NotConverged: with Clarabel's status, if it found no optimum.
    """
    import cvxpy

    architecture, program, unit, share = _program(problem)
    X, order = problem.X, problem.X.shape[1] + 1
    pair = [cvxpy.Variable((order, order), PSD=True) for _ in range(2)]
    difference = pair[0] - pair[1]
    outputs = cvxpy.Variable(program.y.shape)
    quadratic = cvxpy.sum(cvxpy.multiply(X @ difference[:-1, :-1], X), axis=1)
    fit = architecture.quadratic * quadratic + architecture.linear * (X @ difference[:-1, -1])
    fit = fit + architecture.constant * difference[-1, -1]
    matched = outputs == fit
    constraints: list[Any] = [matched]
    constraints += [cvxpy.trace(Z[:-1, :-1]) == Z[-1, -1] for Z in pair]
    penalty = program.beta * (pair[0][-1, -1] + pair[1][-1, -1])
    objective = program.loss.expression(outputs, program.y) + penalty
    one = cvxpy.Problem(cvxpy.Minimize(objective / share), constraints)
    status = reference.run(one, "primal", throw=True)
    found = [unit * np.asarray(Z.value) for Z in pair]
    if matched.dual_value is None:
        raise NotConverged(status)
    nu = unit * share * np.asarray(matched.dual_value)
    value = unit**2 * share * float(cast("Any", one.value))
    return Matrices(found[0], found[1], value, nu, status)


def solve_dual(problem: Problem) -> tuple[float, Floats]:
    """Return value and point of the dual, solved from its own formulation.

    Raises:
        BadInput: if the problem's architecture is not `Polynomial`.
        NotConverged: with Clarabel's status, if it found no optimum.
    """
    import cvxpy

    architecture, program, unit, share = _program(problem)
    X, order = problem.X, problem.X.shape[1] + 1
    nu = cvxpy.Variable(program.y.shape)
    value, constraints = program.loss.dual_expression(nu, program.y)
    spread = cvxpy.multiply(cvxpy.reshape(nu, (len(X), 1), order="F") @ np.ones((1, order - 1)), X)
    moment = architecture.quadratic * (X.T @ spread)
    mean = 0.5 * architecture.linear * (X.T @ nu)
    level = architecture.constant * cvxpy.sum(nu)
    for sign in (1.0, -1.0):
        slack, rho = cvxpy.Variable((order, order), PSD=True), cvxpy.Variable()
        constraints += [
            slack[:-1, :-1] == rho * np.eye(order - 1) - sign * moment,
            slack[:-1, -1] == -sign * mean,
            slack[-1, -1] == program.beta - sign * level - rho,
        ]
    one = cvxpy.Problem(cvxpy.Maximize(value / share), constraints)
    reference.run(one, "dual", throw=True)
    return unit**2 * share * float(cast("Any", one.value)), unit * np.asarray(nu.value)


def _program(problem: Problem) -> tuple[Polynomial, Lasso, float, float]:
    """Return the architecture and what a program of the problem is in the units of its targets."""
    architecture = problem.architecture
    if not isinstance(architecture, Polynomial):
        raise BadInput(
            f"architecture is {architecture.label}: the semidefinite program is that of "
            "'polynomial'."
        )
    some = architecture.program(problem, architecture.first(problem, 0))
    program, unit, share = reference.scaled(some)
    return architecture, cast("Lasso", program), unit, share
