r"""The constructive paths of the theory: no height above their ends, by proof.

*Monotone* (Wang, Lacotte & Pilanci, ICLR 2022; §2.4 of the survey's sources) leads from any
two-layer network to a global optimum and never rises:

1. *balance*: :math:`(w_j r^t, a_j r^{-t})` until ‖w_j‖ = |a_j|; the fit stays, the penalty falls;
2. *prune*: while neurons are linearly dependent on the data, move along a null direction of
   :math:`\sum_j κ_j s_j (Xu_j)_+ = 0` (see `landscape.sparsity`); at most n are left;
3. *line*: :math:`(1 - t) u_j` beside :math:`t u^*_j` in the coordinates u = |a| w, in which the
   objective is convex along the line; its end is a minimum, so it does not rise.

So a width of n + m* (m* neurons of the optimum) is enough.  *Valley* goes down to an optimum so
and up again to the other network.  *Level* leaves the optimum out: both networks are pruned and
the line leads from one to the other; being convex it nowhere exceeds the higher end, so any
sublevel set is connected at width 2n.  Between optimal networks it is constant.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from landscape.errors import BadInput
from landscape.paths.pieces import Balance, Line, Piece, rounding
from landscape.sparsity.pruning import dependences

if TYPE_CHECKING:
    from landscape.architectures.base import Parameters
    from landscape.optimal_set import OptimalSet
    from landscape.problem import Problem


def pruned(problem: Problem, parameters: Parameters) -> list[Piece]:
    """Return the pieces that balance a network and prune it to independent neurons."""
    pieces: list[Piece] = [Balance.of(problem, parameters)]
    for end in dependences(problem, pieces[0].end):
        pieces.append(Line("prune", pieces[-1].end, end))
    return pieces


def monotone(problem: Problem, first: Parameters, last: Parameters) -> list[Piece]:
    """Return the pieces that lead down to a global optimum.

    Raises:
        BadInput: if the end is higher than the start by more than rounding.
    """
    low, high = (float(problem.objective(one)) for one in (last, first))
    if low - high > rounding(problem, first) + rounding(problem, last):
        raise BadInput(
            f"end has objective {low:.8g}, by {low - high:.1e} above the start's: a path that "
            "never rises leads to an optimum (method='level' joins networks of equal height)."
        )
    pieces = pruned(problem, first)
    return [*pieces, Line.beside(pieces[-1].end, Balance.of(problem, last).end)]


def level(problem: Problem, first: Parameters, last: Parameters) -> list[Piece]:
    """Return the pieces that prune both networks and join them by a line."""
    down, up = pruned(problem, first), pruned(problem, last)
    return [*down, Line.beside(down[-1].end, up[-1].end), *backwards(up)]


def valley(
    problem: Problem, first: Parameters, last: Parameters, optimum: Parameters
) -> list[Piece]:
    """Return the pieces that lead down to an optimum and up to the other network.

    An end that is an optimum itself, up to rounding perhaps the lower one, needs no third network.
    """
    heights = [float(problem.objective(one)) for one in (first, last, optimum)]
    if min(heights[:2]) <= heights[2]:
        return level(problem, first, last)
    return [
        *monotone(problem, first, optimum),
        *backwards(monotone(problem, last, optimum)),
    ]


def backwards(pieces: list[Piece]) -> list[Piece]:
    """Return pieces in the other direction."""
    return [piece.reversed() for piece in pieces[::-1]]


def within(
    optima: OptimalSet, first: Parameters, last: Parameters, width: int | None
) -> list[Piece]:
    """Return straight lines within the optimal set, in the coordinates |a| w.

    Args:
        optima: the set.
        first: an optimal network.
        last: an optimal network.
        width: neurons that may be used; by default the width from which on the set is connected,
            or that of the ends.

    Raises:
        BadInput: if an end is not optimal, or they lie in different components at that width.
    """
    ends = [optima.coefficients(one) for one in (first, last)]
    if width is None:  # ends inside the set may have more neurons than connecting them takes
        width = max(optima.connected_width, *(int((c > 0).sum()) for c in ends))
    route, pieces = optima.route(ends[0], ends[1], width), []
    for pair in itertools.pairwise(route):
        used = (pair[0] > 0) | (pair[1] > 0)
        scales = [torch.as_tensor(c[used]).sqrt() for c in pair]
        units, signs = (torch.as_tensor(v[used]) for v in (optima.directions, optima.signs))
        start, end = ({"hidden": units * s[:, None], "output": signs * s} for s in scales)
        pieces.append(Line("line", start, end))
    return pieces
