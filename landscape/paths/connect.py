"""One function for every path between two networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from landscape.errors import BadInput, at_least_zero, unknown, whole
from landscape.network import read
from landscape.paths import bends as trained
from landscape.paths import constructive, rays
from landscape.paths.alignment import align as aligned
from landscape.paths.alignment import padded
from landscape.paths.path import Path
from landscape.paths.pieces import Balance, Curve, Piece

if TYPE_CHECKING:
    import torch

    from landscape.architectures.base import Parameters
    from landscape.optimal_set import OptimalSet
    from landscape.problem import Problem

FREE = ("straight", "aligned", "bezier", "polygon")
"""Methods whose paths may be higher than their ends."""
RAYS = ("monotone", "valley", "level")
"""Methods for every architecture: lines between points of the convex program."""
METHODS = (*FREE, *RAYS, "optimal")
BALANCED = 1e-9
"""Logarithms of scales up to this need no piece of their own."""


def connect(
    problem: Problem,
    start: torch.nn.Module | Parameters,
    end: torch.nn.Module | Parameters,
    method: str = "monotone",
    *,
    width: int | None = None,
    optima: OptimalSet | None = None,
    optimum: torch.nn.Module | Parameters | None = None,
    align: bool = False,
    bends: int = 3,
    steps: int = 500,
    learning_rate: float = 0.03,
    seed: int = 0,
) -> Path:
    """Return a path from one network to another.

    Args:
        problem: the training problem.  Where it has no plain two-layer ReLU networks, the
            methods are "monotone", "valley" and "level", between balanced networks.
        start: any network.
        end: any network; for "monotone" a global optimum (``solve(problem).network()``).
        method: one of

            - "straight": the segment in the parameters, neurons as they are numbered;
            - "aligned": the segment after balancing and the nearest order of neurons (`align`);
              where an end is not balanced, the rescaling is a piece of its own;
            - "bezier", "polygon": a curve with trained control points (`landscape.paths.bends`);
            - "monotone": the constructive path of the theory, down to a global optimum;
            - "valley": down to an optimum and up to the end, the highest of it at its ends;
            - "level": both pruned and joined by a line, the highest of it at its ends;
            - "optimal": within the set of optimal networks, so that the objective is constant.
        width: the most neurons to use.  Straight, aligned and trained paths use so many (by
            default those of the wider network); the others are refused where they need more (by
            default as many as they need, "optimal" the width from which on the set is connected).
        optima: for "optimal": the set, ``OptimalSet(solution)``.
        optimum: for "valley": a global optimum; by default that of ``solve(problem)``.
        align: whether "bezier" and "polygon" begin from the aligned networks.
        bends: corners of "polygon".
        steps: of training the control points.
        learning_rate: of Adam, relative to the root mean square of the ends' weights.
        seed: of the points at which curves are trained.

    Raises:
        BadInput: for another architecture, an unknown method, a width below what the path needs;
            for "monotone" an end that is higher than the start; for "optimal" without ``optima``,
            or ends that are not optimal or lie in different components at that width.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    width = None if width is None else whole("width", width)
    bends, steps = whole("bends", bends), whole("steps", steps)
    if at_least_zero("learning_rate", learning_rate) == 0:
        raise BadInput("learning_rate is 0: control points would not move.")
    first, last = read(problem, start), read(problem, end)
    if not problem.architecture.plain_neurons:
        return _within_width(problem, _by_rays(problem, first, last, method, optimum), width)
    if method in FREE:
        before, after = [], []
        if method == "aligned" or (align and method != "straight"):
            before, first, last, after = _aligned(problem, first, last, width)
        else:
            first, last = padded(first, last, width)
        training = {"steps": steps, "learning_rate": learning_rate, "seed": seed}
        if method == "bezier":
            pieces = trained.bezier(problem, first, last, **training)
        elif method == "polygon":
            pieces = trained.polygon(problem, first, last, bends=bends, **training)
        else:
            pieces = [Curve((first, last))]
        return Path(problem, (*before, *pieces, *after), method)
    if method == "optimal":
        if optima is None or optima.problem is not problem:
            raise BadInput(
                "optima is missing, or of another problem: pass OptimalSet(solve(problem))."
            )
        pieces = constructive.within(optima, first, last, width)
        return Path(problem, tuple(pieces), method)
    if method == "valley":
        best = _optimum(problem) if optimum is None else read(problem, optimum)
        pieces = constructive.valley(problem, first, last, best)
    elif method == "level":
        pieces = constructive.level(problem, first, last)
    else:
        pieces = constructive.monotone(problem, first, last)
    return _within_width(problem, Path(problem, tuple(pieces), method), width)


def _by_rays(
    problem: Problem, first: Parameters, last: Parameters, method: str, optimum: Any
) -> Path:
    """Return a constructive path of networks that are no plain two-layer ReLU networks."""
    if method not in RAYS:
        raise BadInput(
            f"method is {method!r}: its certified maximum and its symmetries are those of plain "
            f"two-layer ReLU networks, and the problem has {problem.architecture.label}; methods "
            f"for every architecture are {', '.join(RAYS)}."
        )
    if method == "valley":
        best = _optimum(problem) if optimum is None else read(problem, optimum)
        pieces = rays.valley(problem, first, last, best)
    else:
        pieces = (rays.level if method == "level" else rays.monotone)(problem, first, last)
    return Path(problem, tuple(pieces), method)


def _optimum(problem: Problem) -> Parameters:
    """Return an optimal network."""
    from landscape.solvers import solve

    return read(problem, solve(problem).network())


def _within_width(problem: Problem, path: Path, width: int | None) -> Path:
    """Refuse a path that needs more neurons than asked for."""
    if width is not None and path.width > width:
        least = "2n" if path.method == "level" else "n + m*"
        raise BadInput(
            f"width is {width}: the path of Wang, Lacotte & Pilanci needs {least} neurons, here "
            f"{path.width} (n = {len(problem.y)})."
        )
    return path


def _aligned(
    problem: Problem, first: Parameters, last: Parameters, width: int | None
) -> tuple[list[Piece], Parameters, Parameters, list[Piece]]:
    """Return the aligned networks, and the rescalings before and after that are no identity."""
    a, b = aligned(problem, first, last, width)
    ways = [Balance.of(problem, one) for one in (first, last)]
    needed: list[list[Piece]] = [[w] if _moves(w) else [] for w in ways]
    return needed[0], a, b, [w.reversed() for w in needed[1]]


def _moves(piece: Balance) -> bool:
    """Return whether balancing changes a network by more than rounding."""
    vanished = (piece.end["output"] == 0) & (
        (piece.start["output"] != 0) | piece.start["hidden"].any(dim=1)
    )
    return bool(vanished.any()) or float(piece.rates.abs().max().nan_to_num()) > BALANCED
