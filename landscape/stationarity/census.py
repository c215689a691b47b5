"""Many networks, judged: which are stationary, which are global, which are the same point."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from landscape.errors import at_least_zero, unknown
from landscape.stationarity.points import used
from landscape.stationarity.verdicts import GLOBAL, SPURIOUS, UNDECIDED, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch
    from numpy.typing import NDArray

    from landscape.architectures.base import ConvexPoint
    from landscape.programs import Floats
    from landscape.stationarity.verdicts import Classifier, StationaryPoint


@dataclass(frozen=True)
class Census:
    """Many networks of one problem, judged, as arrays over networks.

    Attributes:
        verdicts: positions in `VERDICTS`, shape (N,).
        objectives, own, own_bounds, gaps, prices: of the networks (see `StationaryPoint`).
        clarke, wrong: residuals relative to β, and wrong-signed ties.
        neurons, kinks: blocks after merging, and how many of them lie on kinks.
        group: which distinct point each network is (see `distinct`), −1 where not stationary.
        scopes: of the lower bounds.
    """

    verdicts: NDArray[np.int64]
    objectives: Floats
    own: Floats
    own_bounds: Floats
    gaps: Floats
    prices: Floats
    clarke: Floats
    wrong: Floats
    neurons: NDArray[np.int64]
    kinks: NDArray[np.int64]
    group: NDArray[np.int64]
    scopes: tuple[str, ...]

    def share(self, verdict: str) -> float:
        """Return the share of networks with a verdict; NaN of none."""
        if verdict not in VERDICTS:
            raise unknown("verdict", verdict, VERDICTS)
        if not len(self.verdicts):
            return float("nan")
        return float(np.mean(self.verdicts == VERDICTS.index(verdict)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that is numbers, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "scopes"}
        return {name: np.asarray(values) for name, values in named.items()}


def census(
    judge: Classifier, networks: Iterable[torch.nn.Module], tolerance: float = 1e-6
) -> Census:
    """Judge many networks and tell which are the same point (see `distinct` for the tolerance)."""
    return summarise([judge(network) for network in networks], tolerance)


def summarise(points: Sequence[StationaryPoint], tolerance: float = 1e-6) -> Census:
    """Return the census of points that have been judged."""
    settled = [i for i, p in enumerate(points) if p.verdict in (GLOBAL, SPURIOUS, UNDECIDED)]
    group = np.full(len(points), -1)
    group[settled] = distinct([points[i] for i in settled], tolerance)[0]

    def every(name: str) -> np.ndarray:
        return np.array([getattr(point, name) for point in points])

    return Census(
        verdicts=np.array([VERDICTS.index(p.verdict) for p in points], dtype=np.int64),
        objectives=every("objective"),
        own=every("own"),
        own_bounds=every("own_bound"),
        gaps=every("gap"),
        prices=every("price"),
        clarke=every("clarke"),
        wrong=every("wrong"),
        neurons=every("neurons"),
        kinks=every("kinks"),
        group=group,
        scopes=tuple(dict.fromkeys(point.scope for point in points)),
    )


def distinct(
    points: Sequence[StationaryPoint], tolerance: float = 1e-6
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group points that are one up to permutation, positive rescaling and splitting of neurons.

    Two points are one if, after merging, they have the same number of blocks, and block for block
    the same sign (and gates) and the same u = |a| w within ``tolerance`` times the largest block.

    Returns:
        ``(group, first)``: the group of every point, shape (N,), and the position of each group's
        first point, groups in the order in which they appear.
    """
    tolerance = at_least_zero("tolerance", tolerance)
    group, first = np.full(len(points), -1), []
    for i, one in enumerate(points):
        for g, position in enumerate(first):
            if _same(one.point, points[position].point, tolerance):
                group[i] = g
                break
        else:
            group[i] = len(first)
            first.append(i)
    return group, np.array(first, dtype=np.int64)


def _same(a: ConvexPoint, b: ConvexPoint, tolerance: float) -> bool:
    """Whether two points have the same blocks, in any order."""
    (kinds, A), (others, B) = _blocks(a), _blocks(b)
    if A.shape != B.shape:
        return False
    p = A.shape[1] if a.program.units is not None else a.program.atoms.dimension
    targets = float(np.abs(a.program.y).max())
    scale = max(float(np.abs(M[:, :p]).max(initial=0.0)) for M in (A, B))
    near = np.full(A.shape[1:], tolerance * max(scale, 1e-300))
    near[p:] = tolerance * targets  # constants are outputs
    shared = a.program.units is not None or a.program.cones is not None
    if shared and not np.allclose(a.constant, b.constant, rtol=tolerance, atol=tolerance * targets):
        return False
    left = list(range(len(B)))
    for kind, row in zip(kinds, A, strict=True):
        found = [
            j for j in left
            if np.array_equal(others[j], kind) and (np.abs(B[j] - row) <= near).all()
        ]  # fmt: skip
        if not found:
            return False
        left.remove(found[0])
    return True


def _blocks(point: ConvexPoint) -> tuple[Floats, Floats]:
    """Return what the blocks that are not zero are.

    Returns:
        ``(kinds, values)``: what must agree exactly, the sign and, where a block does not tell its
        pattern (gates), the pattern, shape (m, ·); θ, with its free part if every block has one,
        shape (m, p, c) or (m, p), (m, p + 1).
    """
    program, values = point.program, point.theta
    if program.units is not None:  # they are the same where they add the same to the fit
        kept = used(values)
        return np.zeros((int(kept.sum()), 0)), point.features.T[kept]
    kept, kinds = used(values), program.atoms.signs[:, None]
    if program.cones is None:
        masks = program.atoms.masks[program.atoms.index]
        kinds = np.hstack([kinds, masks.astype(np.float64)])
        if len(point.constant) == len(values):
            values = np.concatenate([values, point.constant[:, None]], axis=1)
            kept = used(values)
    return kinds[kept], values[kept]
