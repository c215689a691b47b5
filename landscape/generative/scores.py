"""Solved scores: the program over ramps, and its network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import solve_triangular

from landscape.bounds import relative_gap
from landscape.network import Network
from landscape.nonnegative import least_squares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.generative.score_matching import ScoreMatching

    Floats = NDArray[np.float64]

BESIDE = 1e-9
"""How far from its sample a network's kink is put, as a share of the gap to the next one."""


@dataclass(frozen=True)
class Ramps:
    """Ramps :math:`(±(x − t))_+` at samples.

    Attributes:
        kinks: t, shape (G,).
        sides: 1 to the right, −1 to the left, shape (G,).
        slopes: φ'(0), 0 or 1, shape (G,).
        columns: a, values at the samples, shape (n, G).
        sums: b, sums of the derivative over the samples, shape (G,).
    """

    kinks: Floats
    sides: Floats
    slopes: NDArray[np.int64]
    columns: Floats
    sums: Floats


@dataclass(frozen=True)
class Score:
    """A solved score.

    Attributes:
        problem: what was solved.
        z: sizes of the ramps, shape (G,).
        free: ξ, and v with a skip connection, whose linear part is zero at the problem's `centre`.
        ramps: of the program.
    """

    problem: ScoreMatching
    z: Floats
    free: Floats
    ramps: Ramps

    @property
    def value(self) -> float:
        """The program's optimum: the infimum over networks, where ramps have both slopes."""
        return self.problem.value(self.z, self.free, self.ramps)

    @property
    def nu(self) -> Floats:
        """The dual point ν = −s(x)."""
        return -(self.ramps.columns @ self.z + self.problem.free[0] @ self.free)

    @cached_property
    def bound(self) -> float:
        """A rigorous lower bound of the program: with both slopes, of every network's objective."""
        slopes = np.unique(self.ramps.slopes).tolist()
        return self.problem.tube.lower_bound(self.nu, self.problem.beta, slopes)

    @cached_property
    def objective(self) -> float:
        """The objective of `network`."""
        with torch.no_grad():
            return float(self.problem.objective(self.network().values))

    @property
    def gap(self) -> float:
        """(objective − bound) / |objective|; at least the rounding of `scale` counts as that."""
        return relative_gap(self.objective, self.bound, self.problem.scale)

    @property
    def active(self) -> int:
        """Number of neurons."""
        return int(np.count_nonzero(self.z))

    def network(self) -> Network:
        """Return the network, balanced, every kink beside its sample on the side of its slope."""
        used = np.flatnonzero(self.z)
        side, at = self.ramps.sides[used], self.ramps.slopes[used]
        points, size = self.problem.points, np.sqrt(np.abs(self.z[used]))
        reach = float(np.ptp(points))
        padded = np.concatenate([[points[0] - reach], points, [points[-1] + reach]])
        k = np.searchsorted(points, self.ramps.kinks[used]) + 1
        way = np.where(at == 1, -side, side).astype(int)  # a slope of one: the sample is inside
        gaps = np.abs(padded[k + way] - padded[k])
        least = 64 * np.finfo(np.float64).eps * float(np.abs(points).max())
        kinks = padded[k] + way * np.clip(BESIDE * gaps, np.minimum(least, gaps / 2), None)
        hidden = np.stack([side * size, -side * size * kinks], axis=1)
        parameters = {"hidden": hidden, "output": np.sign(self.z[used]) * size}
        if self.problem.skip == "free":
            parameters["skip"] = self.free[1:]
            parameters["constant"] = np.array(self.free[0] - self.free[1] * self.problem.centre)
        else:
            parameters["constant"] = np.array(self.free[0])
        tensors = {name: torch.as_tensor(value) for name, value in parameters.items()}
        return Network(self.problem.architecture, tensors)


def minimise(problem: ScoreMatching, ramps: Ramps) -> tuple[Floats, Floats]:
    """Return (z, ξ) of the optimum over some ramps.

    The dual is a least distance problem, which nonnegative least squares solves in finitely many
    steps (Lawson & Hanson, *Solving Least Squares Problems*, ch. 23); the ramps that it uses are
    then solved for once more, by a factorisation of their own.
    """
    A, sums = problem.free
    kept = np.flatnonzero(ramps.columns.any(axis=0))
    Q, T = np.linalg.qr(A, mode="complete")
    q = A.shape[1]
    start = Q[:, :q] @ np.linalg.solve(T[:q].T, sums)
    signs = np.repeat([1.0, -1.0], len(kept))
    columns = np.hstack([ramps.columns[:, kept]] * 2) * signs
    limits = problem.beta + np.tile(ramps.sums[kept], 2) * signs
    G, h = -columns.T @ Q[:, q:], columns.T @ start - limits
    scale = float(np.linalg.norm([float(v) for v in problem.tube.middle()]))
    u, miss = least_squares(np.vstack([G.T, h / scale]), np.append(np.zeros(G.shape[1]), 1.0))
    z = np.zeros(len(ramps.kinks))
    z[kept] = (signs * u * scale / miss**2).reshape(2, -1).sum(0)
    return _sharpened(problem, ramps, z)


def _sharpened(problem: ScoreMatching, ramps: Ramps, z: Floats) -> tuple[Floats, Floats]:
    """Return the minimum over the ramps in use, dropping those that change their sign."""
    A, sums = problem.free
    while True:
        used = np.flatnonzero(z)
        slope = np.concatenate([ramps.sums[used] + problem.beta * np.sign(z[used]), sums])
        T = np.linalg.qr(np.hstack([ramps.columns[:, used], A]), mode="r")
        best = -solve_triangular(T, np.linalg.solve(T.T, slope))
        kept = best[: len(used)] * z[used] > 0
        z = np.zeros(len(z))
        z[used[kept]] = best[: len(used)][kept]
        if kept.all():
            return z, best[len(used) :]
