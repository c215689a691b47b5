r"""Exact pruning: fewer neurons, and an objective that is not higher.

A balanced network (:math:`\|w_j\| = |a_j|`) has, in the coordinates :math:`u_j = |a_j| w_j`, the
fit :math:`\sum_j s_j (X u_j)_+` and the penalty :math:`β\sum_j \|u_j\|`.  While its features are
linearly dependent there are κ ≠ 0 with :math:`\sum_j κ_j s_j (Xu_j)_+ = 0`; scaling :math:`u_j` by
:math:`1 − κ_j/κ_{max}` keeps the fit, changes the penalty by a multiple of
:math:`\sum_j κ_j \|u_j\|`, which is made non-positive by the sign of κ, and removes a neuron.  What
is left has independent features, so at most n neurons.

At an optimum :math:`β\|u_j\| = ν^⊤ s_j (Xu_j)_+`, so the penalty does not change either: the pruned
network is optimal, and minimal (Mishkin & Pilanci, ICML 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from landscape.architectures import TwoLayer
from landscape.errors import BadInput
from landscape.network import Network, read
from landscape.sparsity import blocks

if TYPE_CHECKING:
    from landscape.architectures.base import Parameters
    from landscape.problem import Problem

NULL = 1e-10
"""Singular values up to this, relative to the largest, make a null direction of the features."""
DUST = 1e-12
"""Shares of a neuron up to this are rounding."""
TOGETHER = 256
"""Neurons, the smallest first, among which a null direction is sought at once (n + 1 if more)."""


def prune(problem: Problem, network: torch.nn.Module | Parameters) -> Network:
    """Return a network with linearly independent neurons whose objective is not higher.

    It is balanced first, then moved along null directions of its features (see the module's
    text): on the optimal set the objective stays, elsewhere it never rises.

    Args:
        problem: the training problem; of architectures other than two-layer ReLU the blocks of the
            convex point are pruned (`landscape.sparsity.blocks`).
        network: any network.

    Raises:
        BadInput: for weights that are not finite, or blocks with several outputs.
    """
    if not problem.architecture.plain_neurons:
        return blocks.pruned(problem, network)
    start = check("prune", problem).balanced(problem, read(problem, network))[0]
    return in_use(problem, [start, *dependences(problem, start)][-1])


def check(name: str, problem: Problem) -> TwoLayer:
    """Return the architecture, or refuse others than two-layer ReLU in the name of a function."""
    architecture = problem.architecture
    if not isinstance(architecture, TwoLayer) or not architecture.plain_neurons:
        raise BadInput(
            f"{name} is built on two-layer ReLU networks without a skip connection: the problem "
            f"has {architecture.label}."
        )
    return architecture


def in_use(problem: Problem, parameters: Parameters) -> Network:
    """Return the network of the neurons that have an output."""
    used = parameters["output"] != 0
    return Network(
        problem.architecture, {k: v[used] if v.ndim else v for k, v in parameters.items()}
    )


def dependences(problem: Problem, parameters: Parameters) -> Iterator[Parameters]:
    """Yield networks with the same fit and a neuron fewer each, until features are independent.

    Args:
        problem: gives the design rows.
        parameters: a balanced network; neurons keep their places, those that vanish are zero.
    """
    design = torch.as_tensor(problem.design)
    free = "constant" in parameters
    while True:
        hidden, output = parameters["hidden"], parameters["output"]
        used = torch.nonzero(output)[:, 0]
        most = max(TOGETHER, len(design) + 1)
        if len(used) > most:
            used = used[output[used].abs().argsort(stable=True)[:most]]
        columns, lengths = directions(problem, hidden[used])
        if free:  # a free output bias takes part, at no cost
            ones = torch.ones(len(design), 1, dtype=columns.dtype) / len(design) ** 0.5
            columns = torch.cat([columns, ones], dim=1)
        kappa = _null_direction(columns)
        if kappa is None:
            return
        shift = torch.zeros((), dtype=columns.dtype)
        if free:
            kappa, shift = kappa[:-1], kappa[-1] / len(design) ** 0.5
        # Columns are normalised: κ_j of u_j = |a_j| w_j, fit s_j a_j² (X w_j/|a_j|)_+ .
        weight = output[used].abs() * torch.where(lengths == 0, 1.0, lengths) * output[used].sign()
        kappa = kappa / weight
        if float((kappa * output[used].square()).sum()) < 0:
            kappa, shift = -kappa, -shift
        top = kappa.max()
        left = (1.0 - kappa / top).clamp_min(0.0)
        left[left <= DUST] = 0.0  # where several vanish together, rounding leaves some
        end = {"hidden": hidden.clone(), "output": output.clone()}
        end["hidden"][used] *= left.sqrt()[:, None]
        end["output"][used] *= left.sqrt()
        if free:
            end["constant"] = parameters["constant"] - shift / top
        yield end
        parameters = end


def directions(problem: Problem, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features (Xw_j)_+ at unit norm, zero where dead, and their norms.

    Args:
        problem: gives the design rows.
        hidden: weights (m, p).

    Returns:
        Columns (n, m) and norms (m,).
    """
    features = torch.relu(torch.as_tensor(problem.design) @ hidden.T)
    lengths = features.norm(dim=0)
    return features / torch.where(lengths == 0, 1.0, lengths), lengths


def _null_direction(columns: torch.Tensor) -> torch.Tensor | None:
    """Return κ with columns κ = 0, or None if the columns are linearly independent."""
    n, m = columns.shape
    if m == 0:
        return None
    _, values, right = torch.linalg.svd(columns, full_matrices=m > n)
    if m > n:
        return right[-1]
    return right[-1] if float(values[-1]) <= NULL * float(values[0]) else None
