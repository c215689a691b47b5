"""Least squares with bounds on many cones at once: the inner step of `landscape.pricing.branch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.pricing.branch import Cones
    from landscape.programs import Floats


class Descent:
    """Coordinate descent for min ‖g‖ over tangents and multipliers, on many nodes at once.

    g = inverse·(P(r_i) + μ_i)_i − Σ_k t_k |ν_k| x_k over 0 ≤ t ≤ 1 and μ ≥ 0.  Arrays have their
    nodes last, and nodes with many cut samples come first, so that one step is one slice.
    """

    def __init__(self, cones: Cones, nodes: NDArray[np.intp]) -> None:
        count = cones.cut[nodes].sum(axis=1)
        node, row = np.nonzero(cones.cut[nodes])
        place = np.arange(len(node)) - (np.cumsum(count) - count)[node]
        listed = np.zeros((int(count.max(initial=0)), len(nodes)), dtype=np.intp)
        listed[place, node] = row
        rows, inverse = cones.form.rows, cones.nodes.inverse[nodes]
        start = np.einsum("nij,nj->ni", inverse, cones.top[nodes]) - cones.slopes[nodes] @ rows
        self.cones, self.nodes, self.count, self.listed = cones, nodes, count, listed
        self.g = np.ascontiguousarray(start.T)  # (r, N)
        self.rows = np.ascontiguousarray(rows[listed].transpose(0, 2, 1))  # (m, r, N)
        self.t = np.take_along_axis(cones.slopes[nodes].T, listed, axis=0)  # (m, N)
        self.duals = np.ascontiguousarray(inverse.transpose(2, 1, 0))  # (r, r, N)
        self.mu = np.zeros_like(self.g)
        self.row_size = np.maximum((self.rows**2).sum(axis=1), 1e-300)
        self.dual_size = (self.duals**2).sum(axis=1)

    def sweep(self) -> None:
        """Minimise ‖g‖ over every coordinate in turn."""
        g = self.g
        for dual, mu, size in zip(self.duals, self.mu, self.dual_size, strict=True):
            step = np.maximum(-(g * dual).sum(axis=0) / size, -mu)
            g += dual * step
            mu += step
        ends = len(self.count) - np.searchsorted(
            self.count[::-1], np.arange(1, len(self.t) + 1), side="left"
        )
        for k, end in enumerate(ends):
            row, t = self.rows[k, :, :end], self.t[k, :end]
            new = np.clip(t + (g[:, :end] * row).sum(axis=0) / self.row_size[k, :end], 0.0, 1.0)
            g[:, :end] -= row * (new - t)
            t[:] = new

    def slopes(self) -> Floats:
        """Return the tangents of all samples, shape (N, n)."""
        slopes = self.cones.slopes[self.nodes]
        place, node = np.nonzero(np.arange(len(self.t))[:, None] < self.count)
        slopes[node, self.listed[place, node]] = self.t[place, node]
        return slopes

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Go on with some of the nodes."""
        self.nodes, self.count = self.nodes[which], self.count[which]
        m = int(self.count.max(initial=0))
        for name in ("g", "mu", "duals", "dual_size"):
            setattr(self, name, np.ascontiguousarray(getattr(self, name)[..., which]))
        for name in ("rows", "t", "listed", "row_size"):
            setattr(self, name, np.ascontiguousarray(getattr(self, name)[:m, ..., which]))
