"""Training trajectories in the plane of their two principal components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from landscape.errors import BadInput
from landscape.network import read, several
from landscape.slices.directions import aligned, flat, trained, unflat
from landscape.slices.planes import Slice, sliced, spread

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.problem import Problem


@dataclass(frozen=True)
class Trajectory:
    """A trajectory and the plane through its last network that shows most of it.

    Attributes:
        plane: the objective on the plane; its mark is the last network, at (0, 0).
        coordinates: of the snapshots projected on the plane, shape (s, 2).
        objectives: of the snapshots themselves, which lie off the plane, shape (s,).
        explained: shares of the snapshots' variance along the two directions, shape (2,).
        distances: of every snapshot from the plane, in parameters, shape (s,).
    """

    plane: Slice
    coordinates: Floats
    objectives: Floats
    explained: Floats
    distances: Floats

    @property
    def sanity(self) -> dict[str, Any]:
        """Return the plane's sanity with what the plane does not show of the trajectory."""
        return {
            **self.plane.sanity,
            "explained": [float(share) for share in self.explained],
            "farthest": float(self.distances.max()),
        }


def trajectory(
    problem: Problem,
    networks: Sequence[torch.nn.Module | Parameters],
    margin: float = 0.2,
    points: int = 51,
    dtype: str = "float64",
) -> Trajectory:
    r"""Return the principal plane of a training trajectory (Li et al., NeurIPS 2018).

    The directions are the two leading right singular vectors of the snapshots about their mean;
    explained variance is :math:`σ_i^2/\sum_j σ_j^2`.  The plane is moved through the last
    snapshot, which is then in the grid exactly; how far the others are from it is reported.

    Args:
        problem: data, loss and β.
        networks: snapshots in order, at least three (see ``snapshots`` of `landscape.train`).
        margin: how far the grid goes beyond the projected snapshots, in parts of their largest
            extent.
        points: along each axis, before the last network's coordinates are inserted.
        dtype: in which the grid is computed.

    Raises:
        BadInput: for fewer than three snapshots, or a trajectory on one point or one line.
    """
    networks = several(networks)[0]
    if len(networks) < 3:
        raise BadInput(f"networks are {len(networks)}: a plane needs three snapshots at least.")
    own = [read(problem, one) for one in networks]
    same = aligned(problem, own)
    last, names = same[-1], trained(problem, same[-1])
    steps = np.array([flat(one, names) for one in same]) - flat(last, names)
    sizes, rows = np.linalg.svd(steps - steps.mean(axis=0), full_matrices=False)[1:]
    if not sizes[1] > 1e-12 * sizes[0]:
        raise BadInput("networks lie on one point or one line: nothing spans a plane.")
    basis = rows[:2]
    coordinates = steps @ basis.T
    axes = spread(coordinates, margin, points)
    ways = [unflat(row, last, names) for row in basis]
    plane = sliced(problem, last, ways, axes, np.zeros((1, 2)), own[-1:], "through", dtype)
    with torch.no_grad():
        objectives = np.array([float(problem.objective(one)) for one in own])
    distances = np.linalg.norm(steps - coordinates @ basis, axis=1)
    explained = sizes[:2] ** 2 / (sizes**2).sum()
    return Trajectory(plane, coordinates, objectives, explained, distances)
