r"""The last two layers of a standard deep network as a two-layer problem on its features.

"decay": the features are what they are and their layers' penalty is a constant (`offset`).
"power": they are divided by :math:`\prod_{l<L−1} \|W_l\|_F`, and there is no constant (see
`landscape.architectures.standard_deep`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from landscape.architectures.two_layer import TwoLayer
from landscape.programs import Program

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.architectures.standard_deep import StandardDeep
    from landscape.problem import Problem

LAST = TwoLayer()
"""The last two layers on the features of the others."""


@dataclass(frozen=True)
class OnFeatures(Program):
    """The program of the last two layers on the features of one network.

    Attributes:
        inner: the layers below, W_1 (m, p) and W_2 … W_{L−2} (L − 3, m, m).
        offset: what the objective pays for them.
    """

    inner: tuple[torch.Tensor, torch.Tensor] = (torch.zeros(0), torch.zeros(0))
    offset: float = 0.0

    given: ClassVar[str] = "features"

    def value(self, theta: Floats, constant: Floats) -> float:
        """Return the objective of the network: loss, gauges, and the layers below."""
        return super().value(theta, constant) + self.offset


def last_two(
    architecture: StandardDeep, problem: Problem, parameters: Parameters
) -> tuple[Problem, Parameters]:
    """Return the two-layer problem on the features of one network, and its last two layers.

    Its optimum plus `offset` is the least objective of networks with these features.
    """
    with torch.no_grad():
        after = architecture.after(parameters, torch.as_tensor(problem.X), architecture.depth - 2)
        hidden, output = parameters["inner"][-1].detach(), parameters["output"].detach()
        if architecture.regulariser == "power":  # unit features; equal norms cost least
            scale = architecture.squares(parameters)[:-2].sqrt().prod()
            after = after / torch.where(scale > 0, scale, 1.0)
            share = (output.norm() / hidden.norm()).sqrt()
            alive = bool(scale > 0) and bool(share > 0) and bool(torch.isfinite(share))
            factor = scale.sqrt() if alive else 0.0 * scale
            share = share if alive else torch.ones_like(scale)
            hidden, output = factor * share * hidden, factor / share * output
    features = after.numpy().copy()
    features[np.abs(features).max(axis=1) < 1e-40] = 0.0  # squares would underflow
    return problem.replace(X=features, architecture=LAST), {"hidden": hidden, "output": output}


def offset(architecture: StandardDeep, problem: Problem, parameters: Parameters) -> float:
    """Return what the layers below the last two pay whatever these are."""
    if architecture.regulariser == "power":
        return 0.0
    return 0.5 * problem.beta * float(architecture.squares(parameters)[:-2].sum().detach())


def on_features(
    architecture: StandardDeep, problem: Problem, parameters: Parameters, program: Program
) -> OnFeatures:
    """Return a program of the last two layers as that of the network with its features."""
    parts = {f.name: getattr(program, f.name) for f in fields(Program)}
    inner = parameters["hidden"].detach(), parameters["inner"][:-1].detach()
    return OnFeatures(**parts, inner=inner, offset=offset(architecture, problem, parameters))


def assembled(
    architecture: StandardDeep, inner: tuple[torch.Tensor, torch.Tensor], last: Parameters
) -> Parameters:
    """Return the network of layers below and two last ones on their features.

    "power": all layers get one norm, t^{1/L} for last layers of size t on unit features.
    """
    first, middle = inner
    hidden, output = last["hidden"], last["output"]
    if architecture.regulariser == "power":
        t = (hidden.norm() * output.norm()) ** (1.0 / architecture.depth)
        first, hidden, output = (
            t * v / v.norm().clamp_min(1e-300) for v in (first, hidden, output)
        )
        sizes = middle.flatten(1).norm(dim=1).clamp_min(1e-300)
        middle = t * middle / sizes[:, None, None]
    k, m = hidden.shape
    width = max(k, m, 1)
    wide = torch.zeros(architecture.depth - 2, width, width, dtype=torch.float64)
    wide[:-1, :m, :m], wide[-1, :k, :m] = middle, hidden
    grown = torch.zeros(width, first.shape[1], dtype=torch.float64)
    grown[:m] = first
    out = torch.zeros(width, dtype=torch.float64)
    out[:k] = output
    return {"hidden": grown, "inner": wide, "output": out}
