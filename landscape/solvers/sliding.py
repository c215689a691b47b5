"""Units that move: between two rounds of generation those in use slide to where they do best.

Where units depend smoothly on their parameters, generation alone surrounds an optimal unit by ever
closer copies.  A network of the units in use knows the way: its training objective is smooth, and
a few quasi-Newton steps put every unit in its place (the sliding Frank-Wolfe method, Denoyelle et
al., 2019).  Heads that are linear in either of their matrices have Newton's method
(`landscape.solvers.bilinear`).  What is found is only a proposal; the Lasso and the prices that
follow decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize

from landscape.architectures.base import ConvexPoint
from landscape.architectures.tokens import TokenHeads
from landscape.solvers import bilinear

if TYPE_CHECKING:
    from landscape.dictionary import Units
    from landscape.problem import Problem
    from landscape.programs import Floats, Program
    from landscape.solvers.reference import Optimum

STEPS = 300
"""Of L-BFGS in one slide."""
MEMORY = 40


def slide(problem: Problem, program: Program, optimum: Optimum) -> Units:
    """Return the units of an optimum's network after some descent on its training objective."""
    architecture = problem.architecture
    start = architecture.lower(ConvexPoint(program, optimum.theta, optimum.constant))
    if isinstance(architecture, TokenHeads):
        return architecture.units(architecture.fewest(bilinear.settled(problem, start)))
    shapes = {name: value.shape for name, value in start.items()}
    sizes = [value.numel() for value in start.values()]

    def parameters(flat: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = torch.split(flat, sizes)
        return {k: part.reshape(shapes[k]) for k, part in zip(shapes, parts, strict=True)}

    def objective(flat: Floats) -> tuple[float, Floats]:
        point = torch.tensor(flat, requires_grad=True)
        value = problem.objective(parameters(point))
        (slope,) = torch.autograd.grad(value, point)
        return float(value.detach()), slope.numpy()

    begin = torch.cat([value.reshape(-1) for value in start.values()]).numpy()
    found = minimize(
        objective,
        begin,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": STEPS, "maxcor": MEMORY, "ftol": 1e-16, "gtol": 1e-12},
    )
    better = found.x if np.isfinite(found.fun) else begin
    return architecture.units(parameters(torch.as_tensor(better)))
