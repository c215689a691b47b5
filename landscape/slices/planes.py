r"""Lines and planes through networks, with the regularised objective on a grid.

For two-layer ReLU networks pre-activations are linear along the plane,
:math:`Z(α, β) = Z_0 + αZ_1 + βZ_2`, so three products with the data serve every grid point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from landscape.architectures import TwoLayer
from landscape.bounds import EPSILON
from landscape.errors import BadInput, above_zero, at_least_zero, number, unknown, whole
from landscape.network import read, several
from landscape.slices.directions import aligned, balanced, directions, flat, trained, unflat

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.problem import Problem

CHUNK = 1 << 18
"""Numbers held at a time by the evaluation of a grid."""
SAME = 1e-9
"""Grid coordinates this near, relative to their range, are one: the inserted one is kept."""
WITHIN = 1e-6
"""Objectives may lie below a floor by this share of it: the rounding of single precision."""
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Slice:
    """The regularised objective on a line or a plane of networks.

    The network at (x, y) is ``origin + x·directions[0] + y·directions[1]``.

    Attributes:
        axes: coordinates, (g,) along each direction; those of the given networks are among them.
        objectives: at the grid points, shape (g_x,) or (g_x, g_y): ``objectives[i, j]`` is at
            ``x[i], y[j]``, so that matplotlib wants its transpose.  What is not finite stays so.
        origin: parameters at coordinate zero.
        directions: one parameter dictionary an axis, orthogonal to each other.
        marks: coordinates of the given networks, shape (k, axes).
        marked: their objectives, shape (k,), exactly ``problem.objective(network)``.
        kind: "plain", "filter", "balanced" (random directions) or "through".
        at_zero: objective of the zero network.
    """

    axes: tuple[Floats, ...]
    objectives: Floats
    origin: Parameters
    directions: tuple[Parameters, ...]
    marks: Floats
    marked: Floats
    kind: str
    at_zero: float

    def gaps(self, bound: float) -> Floats:
        """Return (objective − bound) / bound, the height above a certified floor, on the grid.

        Divided by the bound, not by the objective as in `Certificate.relative_gap`, which far up
        saturates at one.  Near a bound of zero the rounding of ``at_zero`` divides.

        Args:
            bound: a lower bound of the optimum, such as ``solution.certificate.dual``.

        Raises:
            BadInput: if the bound is not finite, or an objective lies below it.
        """
        bound = number("bound", bound)
        size = max(abs(bound), EPSILON * self.at_zero, float(np.finfo(np.float64).tiny))
        lowest = float(self.objectives[np.isfinite(self.objectives)].min(initial=np.inf))
        if not np.isfinite(bound) or lowest < bound - WITHIN * size:
            raise BadInput(
                f"bound is {bound:.8g} and the lowest objective of the slice {lowest:.8g}: that "
                "is no floor of it; pass the dual of a certificate over all patterns."
            )
        return (self.objectives - bound) / size

    @property
    def cosines(self) -> Floats:
        """Cosines between the directions, shape (axes, axes)."""
        rows = np.array([flat(one, list(one)) for one in self.directions])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows @ rows.T

    @property
    def sanity(self) -> dict[str, Any]:
        """What tells whether a picture can be right: centre, cosines, ranges, what is missing."""
        finite = self.objectives[np.isfinite(self.objectives)]
        centre = tuple(int(np.argmin(np.abs(axis))) for axis in self.axes)
        off = np.abs(self.cosines - np.eye(len(self.axes))).max()
        return {
            "centre": float(self.objectives[centre]),
            "largest_cosine": float(off) if len(self.axes) > 1 else 0.0,
            "lengths": [float(np.linalg.norm(flat(d, list(d)))) for d in self.directions],
            "ranges": [(float(axis[0]), float(axis[-1])) for axis in self.axes],
            "points": self.objectives.size,
            "not_finite": int(self.objectives.size - finite.size),
            "lowest": float(finite.min(initial=np.inf)),
            "highest": float(finite.max(initial=-np.inf)),
        }


def around(
    problem: Problem,
    network: torch.nn.Module | Parameters,
    kind: str = "filter",
    dimensions: int = 2,
    reach: float = 1.0,
    points: int = 51,
    seed: int = 0,
    dtype: str = "float64",
) -> Slice:
    """Return the objective around one network along random directions.

    Args:
        problem: data, loss and β.
        network: the centre, in the grid exactly.  With kind "balanced" the centre is the
            network's `balanced` representative, whose objective is at most the network's.
        kind: of the directions: "plain", "filter" or "balanced" (see `directions`).
        dimensions: 1 or 2.
        reach: the grid covers [−reach, reach]; at 1 a step is as large as the network (filter).
        points: along each axis, before the centre is inserted.
        seed: of the directions.
        dtype: in which the grid is computed, "float64" or "float32".

    Raises:
        BadInput: naming the argument that does not fit.
    """
    ways = directions(problem, network, kind, dimensions, seed)
    centre = balanced(problem, network) if kind == "balanced" else read(problem, network)
    reach = above_zero("reach", reach)
    axes = [np.linspace(-reach, reach, whole("points", points, 2))] * dimensions
    marks = np.zeros((1, dimensions))
    return sliced(problem, centre, ways, axes, marks, [centre], kind, dtype)


def through(
    problem: Problem,
    networks: Sequence[torch.nn.Module | Parameters],
    margin: float = 0.2,
    points: int = 51,
    dtype: str = "float64",
) -> Slice:
    """Return the objective on the line through two networks, or on the plane through three.

    The first is at zero, the second on the x axis at its distance; the third has its distance
    from that line as y.  Narrower networks are padded by zero neurons; neurons are compared in
    the order in which they stand.

    Args:
        problem: data, loss and β.
        networks: two or three, in the grid exactly.
        margin: how far the grid goes beyond them, in parts of their largest extent.
        points: along each axis, before the networks' coordinates are inserted.
        dtype: in which the grid is computed, "float64" or "float32".

    Raises:
        BadInput: for another number of networks, or networks on one point or one line.
    """
    networks = several(networks)[0]
    if len(networks) not in (2, 3):
        raise BadInput(f"networks are {len(networks)}: a line needs two and a plane three.")
    margin = at_least_zero("margin", margin)
    own = [read(problem, one) for one in networks]
    same = aligned(problem, own)
    names = trained(problem, same[0])
    steps = np.array([flat(one, names) - flat(same[0], names) for one in same[1:]])
    basis = orthonormal(steps)
    if len(basis) < len(steps):
        raise BadInput(
            "networks lie on one point or one line of parameters: choose others, or fewer."
        )
    marks = np.vstack([np.zeros(len(basis)), steps @ basis.T])
    marks[1, 1:] = 0.0  # the second network is on the first axis: what is left is rounding
    axes = spread(marks, margin, points)
    ways = [unflat(row, same[0], names) for row in basis]
    return sliced(problem, same[0], ways, axes, marks, own, "through", dtype)


def orthonormal(rows: Floats) -> Floats:
    """Return the Gram–Schmidt basis of rows, those that the earlier ones span left out."""
    basis: list[Floats] = []
    largest = float(np.linalg.norm(rows, axis=1).max(initial=0.0))
    for row in rows:
        rest = np.array(row)
        for _ in range(2):
            for one in basis:
                rest -= (rest @ one) * one
        if np.linalg.norm(rest) > SAME * largest:
            basis.append(rest / np.linalg.norm(rest))
    return np.array(basis)


def spread(marks: Floats, margin: float, points: int) -> list[Floats]:
    """Return axes that cover marked coordinates with a margin."""
    low, high = marks.min(axis=0), marks.max(axis=0)
    beyond = margin * float((high - low).max())
    return [
        np.linspace(a - beyond, b + beyond, whole("points", points, 2))
        for a, b in zip(low, high, strict=True)
    ]


def sliced(
    problem: Problem,
    origin: Parameters,
    ways: Sequence[Parameters],
    axes: Sequence[Floats],
    marks: Floats,
    networks: Sequence[Parameters],
    kind: str,
    dtype: str,
) -> Slice:
    """Evaluate a grid, then put the given networks' exact objectives where they are."""
    axes = [_inserted(axis, column) for axis, column in zip(axes, marks.T, strict=True)]
    objectives = evaluate(problem, origin, ways, axes, dtype)
    with torch.no_grad():
        marked = np.array([float(problem.objective(one)) for one in networks])
    for mark, value in zip(marks, marked, strict=True):
        where = tuple(int(np.argmin(np.abs(a - c))) for a, c in zip(axes, mark, strict=True))
        objectives[where] = value
    return Slice(
        tuple(axes), objectives, origin, tuple(ways), marks, marked, kind,
        problem.loss.at_zero(problem.y),
    )  # fmt: skip


def _inserted(axis: Floats, coordinates: Floats) -> Floats:
    """Return the axis with these coordinates in it, in place of any that are the same."""
    coordinates = np.unique(coordinates)
    near = np.abs(axis[:, None] - coordinates).min(axis=1) <= SAME * np.ptp(axis)
    return np.sort(np.concatenate([axis[~near], coordinates]))


def evaluate(
    problem: Problem,
    origin: Parameters,
    ways: Sequence[Parameters],
    axes: Sequence[Floats],
    dtype: str = "float64",
) -> Floats:
    """Return the objectives of the networks on a grid, shape of the grid, float64.

    Args:
        problem: data, loss and β.
        origin: the network at zero.
        ways: one direction an axis.
        axes: coordinates along each.
        dtype: in which to compute, "float64" or "float32".

    Raises:
        BadInput: for an unknown dtype.
    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if len(ways) != len(axes):
        raise BadInput(f"ways are {len(ways)} and axes {len(axes)}: each axis has one direction.")
    real = DTYPES[dtype]
    origin = {k: v.to(real) for k, v in origin.items()}
    ways = [{k: v.to(real) for k, v in way.items()} for way in ways]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    coordinates = torch.as_tensor(grid.reshape(-1, len(axes)), dtype=real)  # last axis fastest
    # A subclass may have another forward pass.
    exactly = type(problem.architecture) is TwoLayer and problem.architecture.plain_neurons
    with torch.no_grad():
        found = (_two_layer if exactly else _any)(problem, origin, ways, coordinates)
    return found.numpy().astype(np.float64).reshape(grid.shape[:-1])


def _along(
    origin: torch.Tensor, ways: Sequence[torch.Tensor], coordinates: torch.Tensor
) -> torch.Tensor:
    """Return origin + Σ c_i way_i for every row c of coordinates, shape (points, …)."""
    sides = torch.stack([way.reshape(-1) for way in ways])
    return (origin.reshape(-1) + coordinates @ sides).reshape(-1, *origin.shape)


def _any(
    problem: Problem, origin: Parameters, ways: Sequence[Parameters], coordinates: torch.Tensor
) -> torch.Tensor:
    """Evaluate networks of any architecture in batches."""
    activations = len(problem.y) * max(len(v) if v.ndim else 1 for v in origin.values())
    found = []
    for part in coordinates.split(max(1, CHUNK // activations)):
        networks = {k: _along(v, [way[k] for way in ways], part) for k, v in origin.items()}
        found.append(problem.objective(networks))
    return torch.cat(found)


def _two_layer(
    problem: Problem, origin: Parameters, ways: Sequence[Parameters], coordinates: torch.Tensor
) -> torch.Tensor:
    """Evaluate two-layer networks from pre-activations that are linear in the coordinates."""
    real = coordinates.dtype
    rows, y = (torch.as_tensor(v, dtype=real) for v in (problem.design, problem.y))
    before = [(one["hidden"] @ rows.T).contiguous() for one in (origin, *ways)]  # (m, n) each
    found = torch.empty(len(coordinates), dtype=real)
    size = max(1, CHUNK // max(1, origin["hidden"].numel()))
    base, last, active = before[0], None, torch.empty_like(before[0])
    for begin in range(0, len(coordinates), size):
        part = coordinates[begin : begin + size]
        networks = {k: _along(v, [way[k] for way in ways], part) for k, v in origin.items()}
        fits = []
        for point, output in zip(part.tolist(), networks["output"], strict=True):
            if point[:-1] != last:  # the last axis runs fastest: the rest is shared by its row
                base, last = before[0], point[:-1]
                for step, side in zip(last, before[1:-1], strict=True):
                    base = torch.add(base, side, alpha=step)
            fits.append(output @ torch.add(base, before[-1], alpha=point[-1], out=active).relu_())
        fit = torch.stack(fits)
        if "constant" in networks:
            fit = fit + networks["constant"][:, None]
        penalty = problem.architecture.penalty(networks)
        found[begin : begin + size] = problem.loss.value(fit, y) + problem.beta * penalty
    return found
