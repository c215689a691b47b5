r"""Aligning two networks: the relabelling and rescaling of one that brings it nearest the other.

The function is the same for any order of the neurons and any positive rescaling.  Both networks
are balanced, which fixes the scales, and then the permutation π minimises

.. math:: \sum_j \|(w_j, a_j) − (w'_{π(j)}, a'_{π(j)})\|^2 ,

a sum over pairs, so that the linear assignment problem gives its minimum exactly (Ainsworth, Hayase
& Srinivasa, ICLR 2023, match weights of deeper networks layer by layer, where it is a heuristic).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment

from landscape.errors import BadInput
from landscape.network import read
from landscape.sparsity.pruning import check

if TYPE_CHECKING:
    from landscape.architectures.base import Parameters
    from landscape.problem import Problem


def align(
    problem: Problem,
    a: torch.nn.Module | Parameters,
    b: torch.nn.Module | Parameters,
    width: int | None = None,
) -> tuple[Parameters, Parameters]:
    """Return both networks balanced, at one width, b's neurons in the order nearest to a's.

    Args:
        problem: the training problem, two-layer ReLU.
        a: a network, whose neurons keep their order.
        b: a network.
        width: to which both are padded by zero neurons, by default the wider one's.  Beyond it
            a neuron may be matched with a zero neuron instead of one on its other side.

    Returns:
        Parameters of two networks with the functions of a and b.

    Raises:
        BadInput: for another architecture, weights that are not finite, or a width below the
            networks'.
    """
    architecture = check("align", problem)
    first, last = (architecture.balanced(problem, read(problem, one))[0] for one in (a, b))
    first, last = padded(first, last, width)
    rows = [torch.column_stack([one["hidden"], one["output"]]) for one in (first, last)]
    # ‖x − y‖² summed over pairs is a constant minus twice the sum of the inner products.
    order = torch.as_tensor(linear_sum_assignment((rows[0] @ rows[1].T).numpy(), maximize=True)[1])
    return first, {k: v[order] if v.ndim else v for k, v in last.items()}


def padded(a: Parameters, b: Parameters, width: int | None) -> tuple[Parameters, Parameters]:
    """Return networks at one width, zero neurons behind their own.

    Raises:
        BadInput: if the width is below one of the networks'.
    """
    widest = max(len(a["output"]), len(b["output"]))
    width = widest if width is None else width
    if width < widest:
        raise BadInput(
            f"width is {width}: the networks have {len(a['output'])} and {len(b['output'])} "
            "neurons; prune the wider one first, or leave width out."
        )
    first, last = (_grown(one, width) for one in (a, b))
    return first, last


def _grown(parameters: Parameters, width: int) -> Parameters:
    """Return a network with zero neurons behind its own."""
    return {
        k: torch.cat([v, v.new_zeros((width - len(v), *v.shape[1:]))]) if v.ndim else v
        for k, v in parameters.items()
    }
