r"""Paths between networks along which the objective is known exactly, not only on a grid.

The constructive path of the theory (Wang, Lacotte & Pilanci, ICLR 2022; §2.4 of the survey's
sources) leads from any two-layer network to a global optimum and never rises:

1. *balance*: :math:`(w_j r^t, a_j r^{-t})` until ‖w_j‖ = |a_j|; the fit stays, the penalty falls;
2. *prune*: while neurons are linearly dependent on the data, move along a null direction of
   :math:`\sum_j κ_j s_j (Xu_j)_+ = 0` with the sign for which :math:`\sum_j κ_j\|u_j\| \ge 0`; the
   fit stays, the penalty is linear, and a neuron vanishes.  At most n are left;
3. *line*: :math:`(1 - t) u_j` beside :math:`t u^*_j` in the coordinates u = |a| w, in which the
   objective is convex along the line; its end is a minimum, so it does not rise.

So a width of n + m* (m* neurons of the optimum) is enough.  Each piece is convex in its own
parameter: its maximum is at an end, and values and slopes at the ends bound the largest rise.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape.architectures import TwoLayer
from landscape.errors import BadInput, unknown
from landscape.network import Network
from landscape.stationarity import read

if TYPE_CHECKING:
    from landscape.architectures.base import Parameters
    from landscape.optimal_set import OptimalSet
    from landscape.problem import Problem
    from landscape.programs import Floats

METHODS = ("monotone", "optimal")
NULL = 1e-10
"""Singular values up to this, relative to the largest, make a null direction of the features."""


@dataclass(frozen=True)
class Piece:
    """One piece of a path, t from 0 to 1, along which the objective is a convex function of t.

    Attributes:
        kind: "balance", "prune" or "line".
        start, end: parameters of one network each; neuron j of both is the same neuron.
        rates: of a "balance", log(|a_j|/‖w_j‖)/2 of every neuron.
    """

    kind: str
    start: Parameters
    end: Parameters
    rates: Floats | None = None

    def at(self, t: Floats) -> Parameters:
        """Return the networks at parameters t (T,), a leading axis over t."""
        t_ = torch.as_tensor(np.atleast_1d(t), dtype=torch.float64)[:, None]
        hidden, output = self.start["hidden"], self.start["output"]
        if self.rates is not None:
            power = torch.exp(torch.as_tensor(self.rates) * t_)
            gone = (self.end["output"] == 0)[:, None]  # these fade out, and constants take over
            fading = torch.lerp(hidden, self.end["hidden"], t_[..., None])
            found = {
                "hidden": torch.where(gone, fading, hidden * power[..., None]),
                "output": torch.where(gone[:, 0], (1 - t_) * output, output / power),
            }
        else:  # linear in |a| w, neurons balanced on the way
            last, last_output = self.end["hidden"], self.end["output"]
            # A neuron's weights at both ends are multiples of one direction.
            share = (1 - t_) * output.abs() ** 2 + t_ * last_output.abs() ** 2
            larger = output.abs() >= last_output.abs()
            base = torch.where(larger[:, None], hidden, last)
            size = torch.where(larger, output, last_output)
            factor = torch.where(size != 0, (share / size.square()).sqrt(), 0.0)
            found = {"hidden": base * factor[..., None], "output": size * factor}
        if "constant" in self.start:
            first, then = self.start["constant"], self.end["constant"]
            found["constant"] = (1 - t_[:, 0]) * first + t_[:, 0] * then
        return found


@dataclass(frozen=True)
class Path:
    """A path through networks, made of pieces.

    Attributes:
        problem: whose objective it is about.
        pieces: one after the other.
        method: how it was made.
        rise: a bound on how far the objective rises above its lowest value before, along the
            whole path: from values and slopes at the pieces' ends, and convexity.
        widths: neurons in use on each piece.
    """

    problem: Problem = field(repr=False)
    pieces: tuple[Piece, ...] = field(repr=False)
    method: str
    rise: float
    widths: tuple[int, ...]

    @property
    def width(self) -> int:
        """The most neurons in use anywhere."""
        return max(self.widths, default=0)

    def objectives(self, points: int = 51) -> tuple[Floats, Floats]:
        """Return positions in [0, number of pieces] and the objective there, ends included."""
        where, values = [], []
        for number, piece in enumerate(self.pieces):
            t = np.linspace(0.0, 1.0, points)
            with torch.no_grad():
                values.append(self.problem.objective(piece.at(t)).numpy())
            where.append(number + t)
        return np.concatenate(where), np.concatenate(values)

    def network(self, position: float) -> Network:
        """Return the network at a position in [0, number of pieces]."""
        if not 0 <= position <= len(self.pieces):
            raise BadInput(f"position is {position}: it must lie in [0, {len(self.pieces)}].")
        number = min(int(position), len(self.pieces) - 1)
        found = self.pieces[number].at(np.array([position - number]))
        return _network(self.problem, {k: v[0] for k, v in found.items()})


def connect(
    problem: Problem,
    start: torch.nn.Module | Parameters,
    end: torch.nn.Module | Parameters,
    method: str = "monotone",
    *,
    width: int | None = None,
    optima: OptimalSet | None = None,
) -> Path:
    """Return a path from one network to another.

    Args:
        problem: the training problem, two-layer ReLU.
        start: any network.
        end: for "monotone" a global optimum (``solve(problem).network()``).
        method: "monotone": the constructive path of the theory.  "optimal": within the set of
            optimal networks, so that the objective is constant; start and end are optimal.
        width: refuse a path that uses more neurons; by default as many as the path needs, for
            "optimal" the width from which on the set is connected, or that of the ends.
        optima: for "optimal": the set, ``OptimalSet(solution)``.

    Raises:
        BadInput: for another architecture, an unknown method, a width below what the path needs,
            an end that is higher than the start; for "optimal" without ``optima``, or ends that
            are not optimal or lie in different components at that width.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if not isinstance(problem.architecture, TwoLayer):
        raise BadInput(
            f"connect is built on two-layer ReLU networks: the problem has "
            f"{problem.architecture.label}."
        )
    first, last = read(problem, start), read(problem, end)
    if method == "optimal":
        return _within(problem, optima, first, last, width)
    with torch.no_grad():
        low, high = float(problem.objective(last)), float(problem.objective(first))
    if low > high:
        raise BadInput(
            f"end has objective {low:.8g}, above the start's {high:.8g}: a path that never rises "
            "leads to an optimum."
        )
    pieces = [_balance(problem, first)]
    pieces += prunings(problem, pieces[-1].end)
    pieces.append(_line(pieces[-1].end, _balance(problem, last).end))
    widths = tuple(_used(piece) for piece in pieces)
    if width is not None and max(widths) > width:
        raise BadInput(
            f"width is {width}: the path of Wang, Lacotte & Pilanci needs n + m* neurons, here "
            f"{max(widths)} (n = {len(problem.y)})."
        )
    return Path(problem, tuple(pieces), method, _rise(problem, pieces), widths)


def _within(
    problem: Problem,
    optima: OptimalSet | None,
    first: Parameters,
    last: Parameters,
    width: int | None,
) -> Path:
    """Return a path of straight lines within the optimal set, in the coordinates |a| w."""
    if optima is None or optima.problem is not problem:
        raise BadInput("optima is missing, or of another problem: pass OptimalSet(solve(problem)).")
    ends = [optima.coefficients(one) for one in (first, last)]
    if width is None:  # ends inside the set may have more neurons than connecting them takes
        width = max(optima.connected_width, *(int((c > 0).sum()) for c in ends))
    route, pieces = optima.route(ends[0], ends[1], width), []
    for pair in itertools.pairwise(route):
        used = (pair[0] > 0) | (pair[1] > 0)
        scales = [torch.as_tensor(c[used]).sqrt() for c in pair]
        units, signs = (torch.as_tensor(v[used]) for v in (optima.directions, optima.signs))
        start, end = ({"hidden": units * s[:, None], "output": signs * s} for s in scales)
        pieces.append(Piece("line", start, end))
    widths = tuple(_used(piece) for piece in pieces)
    return Path(problem, tuple(pieces), "optimal", _rise(problem, pieces), widths)


def prune(problem: Problem, network: torch.nn.Module | Parameters) -> Network:
    """Return a network with linearly independent neurons whose objective is not higher.

    It is balanced first, then moved along null directions of its features (see the module's
    text): on the optimal set the objective stays, elsewhere it never rises.
    """
    if not isinstance(problem.architecture, TwoLayer):
        raise BadInput(
            f"prune is built on two-layer ReLU networks: the problem has "
            f"{problem.architecture.label}."
        )
    balanced = _balance(problem, read(problem, network)).end
    pieces = prunings(problem, balanced)
    return _network(problem, pieces[-1].end if pieces else balanced)


def _network(problem: Problem, parameters: Parameters) -> Network:
    """Return the network of the neurons that have an output."""
    used = parameters["output"] != 0
    return Network(
        problem.architecture, {k: v[used] if v.ndim else v for k, v in parameters.items()}
    )


def _rise(problem: Problem, pieces: list[Piece]) -> float:
    """Bound the rise of the objective above its lowest value before (see `Path`)."""
    rise, lowest = 0.0, np.inf
    for piece in pieces:
        with torch.no_grad():
            first, last = problem.objective(piece.at(np.array([0.0, 1.0]))).tolist()
        lowest = min(lowest, first)
        # A convex function is at least last + slope (t − 1), so it dipped at most that far.
        dip = max(0.0, _slope(problem, piece)) if piece.kind == "line" else 0.0
        rise = max(rise, first - lowest, last - min(lowest, last - dip))
        lowest = min(lowest, last - dip)
    return rise


def _slope(problem: Problem, piece: Piece) -> float:
    """Return a slope of the objective at the end of a line, from inside."""
    with torch.no_grad():
        X = torch.as_tensor(problem.X)
        first, last = (
            problem.architecture.forward(one, X).numpy() for one in (piece.start, piece.end)
        )
        sizes = [float(problem.architecture.penalty(one)) for one in (piece.start, piece.end)]
    gradient = problem.loss.gradient(last, problem.y)
    return float(gradient @ (last - first)) + problem.beta * (sizes[1] - sizes[0])


def _used(piece: Piece) -> int:
    """Return how many neurons a piece has in use."""
    used = [(one["output"] != 0) & one["hidden"].any(dim=1) for one in (piece.start, piece.end)]
    return int((used[0] | used[1]).sum())


def _norms(problem: Problem, hidden: torch.Tensor) -> torch.Tensor:
    """Return the norms of the penalised parts of hidden weights, shape (m,)."""
    kept = torch.as_tensor(problem.architecture.penalised(problem))
    return (hidden * kept).norm(dim=1)


def _balance(problem: Problem, parameters: Parameters) -> Piece:
    """Rescale every neuron until ‖w‖ = |a|; neurons that do nothing vanish, constants move."""
    hidden, output = parameters["hidden"], parameters["output"]
    sizes = _norms(problem, hidden)
    alive = (sizes > 0) & (output != 0)
    start = dict(parameters)
    rates = torch.zeros_like(output)
    rates[alive] = 0.5 * (output[alive].abs() / sizes[alive]).log()
    factor = rates.exp()
    end = {"hidden": hidden * factor[:, None], "output": output / factor}
    end["hidden"][output == 0], end["output"][~alive] = 0.0, 0.0
    if "constant" in start:
        flat = (sizes == 0) & (output != 0)
        constants = (hidden[flat, -1].clamp_min(0) * output[flat]).sum()
        end["constant"] = start["constant"] + constants
    return Piece("balance", start, end, rates.numpy())


def prunings(problem: Problem, parameters: Parameters) -> list[Piece]:
    """Return the pieces that make the neurons of a balanced network linearly independent."""
    pieces = []
    design = torch.as_tensor(problem.design)
    while True:
        hidden, output = parameters["hidden"], parameters["output"]
        used = torch.nonzero(output)[:, 0]
        features = torch.relu(design @ hidden[used].T)  # (n, m): columns (X u_j)_+ / |a_j|
        sizes = features.norm(dim=0)
        dead = sizes == 0
        columns = features / torch.where(dead, 1.0, sizes)
        if "constant" in parameters:  # a free output bias takes part, at no cost
            ones = torch.ones(len(design), 1, dtype=columns.dtype) / len(design) ** 0.5
            columns = torch.cat([columns, ones], dim=1)
        kappa = _null_direction(columns)
        if kappa is None:
            return pieces
        shift = torch.zeros((), dtype=columns.dtype)
        if "constant" in parameters:
            kappa, shift = kappa[:-1], kappa[-1] / len(design) ** 0.5
        # Columns are normalised: κ_j of u_j = |a_j| w_j, fit s_j a_j² (X w_j/|a_j|)_+ .
        weight = output[used].abs() * torch.where(dead, 1.0, sizes) * output[used].sign()
        kappa = kappa / weight
        if float((kappa * output[used].square()).sum()) < 0:
            kappa, shift = -kappa, -shift
        top = kappa.max()
        left = (1.0 - kappa / top).clamp_min(0.0)
        left[int(kappa.argmax())] = 0.0
        end = {"hidden": hidden.clone(), "output": output.clone()}
        end["hidden"][used] *= left.sqrt()[:, None]
        end["output"][used] *= left.sqrt()
        if "constant" in parameters:
            end["constant"] = parameters["constant"] - shift / top
        pieces.append(Piece("prune", parameters, end))
        parameters = end


def _null_direction(columns: torch.Tensor) -> torch.Tensor | None:
    """Return κ with columns κ = 0, or None if the columns are linearly independent."""
    n, m = columns.shape
    if m == 0:
        return None
    _, values, right = torch.linalg.svd(columns, full_matrices=m > n)
    if m > n:
        return right[-1]
    return right[-1] if float(values[-1]) <= NULL * float(values[0]) else None


def _line(start: Parameters, end: Parameters) -> Piece:
    """Put two balanced networks beside each other: one shrinks to nothing while the other grows."""
    nothing = {
        "start": {k: torch.zeros_like(v) for k, v in end.items() if k != "constant"},
        "end": {k: torch.zeros_like(v) for k, v in start.items() if k != "constant"},
    }
    first = {k: torch.cat([start[k], nothing["start"][k]]) for k in ("hidden", "output")}
    last = {k: torch.cat([nothing["end"][k], end[k]]) for k in ("hidden", "output")}
    if "constant" in start:
        first["constant"], last["constant"] = start["constant"], end["constant"]
    return Piece("line", first, last)
