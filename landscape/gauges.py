r"""Gauges γ: what regularisers charge for a block, and their polars, which price it.

Methods named ``expression`` and ``polar_constraints`` write the same objects in cvxpy for the
reference solver and import it only there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Gauge(Protocol):
    """What the regulariser charges for a block, the same for all blocks."""

    @property
    def penalised(self) -> NDArray[np.bool_]:
        """Which coordinates of a block count, shape (p,)."""
        ...

    def value(self, theta: Floats) -> Floats:
        """Return γ of every block, shape (G,)."""
        ...

    def polar(self, xi: Floats) -> Floats:
        """Return sup ⟨ξ, θ⟩ over γ(θ) ≤ 1 for every block, shape (G,)."""
        ...

    def expression(self, theta: Any) -> Any:
        """Return Σ_g γ(θ_g) in cvxpy."""
        ...

    def polar_constraints(self, xi: Any, beta: float) -> list[Any]:
        """Return the cvxpy constraints "polar of every block of ξ ≤ β"."""
        ...


@dataclass(frozen=True)
class Euclidean:
    """The gauge γ(θ) = ‖θ restricted to the penalised coordinates‖₂.

    Attributes:
        penalised: which coordinates count, shape (p,), boolean.  A free bias does not.
    """

    penalised: NDArray[np.bool_]

    def value(self, theta: Floats) -> Floats:
        """Return γ of every block, shape (G,), of ``theta`` (G, p)."""
        return np.linalg.norm(theta[..., self.penalised], axis=-1)

    def polar(self, xi: Floats) -> Floats:
        """Return sup ⟨ξ, θ⟩ over γ(θ) ≤ 1: infinite where ξ sees an unpenalised coordinate."""
        bounded = np.linalg.norm(xi[..., self.penalised], axis=-1)
        unbounded = np.any(xi[..., ~self.penalised] != 0, axis=-1)
        return np.where(unbounded, np.inf, bounded)

    def expression(self, theta: Any) -> Any:
        """Return Σ_g γ(θ_g) in cvxpy, ``theta`` (p, G)."""
        import cvxpy

        return cvxpy.sum(cvxpy.norm(theta[np.flatnonzero(self.penalised), :], 2, axis=0))

    def polar_constraints(self, xi: Any, beta: float) -> list[Any]:
        """Return the cvxpy constraints "polar of every column of ξ ≤ β"."""
        import cvxpy

        rows, others = np.flatnonzero(self.penalised), np.flatnonzero(~self.penalised)
        bounded = [cvxpy.norm(xi[rows, :], 2, axis=0) <= beta]
        return bounded + ([xi[others, :] == 0] if len(others) else [])


@dataclass(frozen=True)
class _Matrices:
    """What gauges of blocks (p, c) have in common.

    Attributes:
        rows: p.
        outputs: c.
    """

    rows: int
    outputs: int

    @property
    def penalised(self) -> NDArray[np.bool_]:
        """All coordinates count."""
        return np.ones(self.rows, dtype=bool)


@dataclass(frozen=True)
class Nuclear(_Matrices):
    """The nuclear norm γ(V) = Σ σ(V) of blocks V (p, c); its polar is the largest σ.

    It is the least ½(‖W‖² + ‖A‖²) over WA = V: what weight decay charges for the neurons of one
    pattern when every neuron feeds all outputs (Sahiner et al., ICLR 2021).
    """

    def value(self, theta: Floats) -> Floats:
        """Return γ of every block, shape (G,), of ``theta`` (G, p, c)."""
        return np.linalg.svd(theta, compute_uv=False).sum(axis=-1)

    def polar(self, xi: Floats) -> Floats:
        """Return the spectral norm of every block, shape (G,), of ``xi`` (G, p, c)."""
        return np.linalg.svd(xi, compute_uv=False).max(axis=-1, initial=0.0)

    def expression(self, theta: Any) -> Any:
        """Return Σ_g γ(V_g) in cvxpy, ``theta`` (p, Gc)."""
        import cvxpy

        blocks = [cvxpy.normNuc(part) for part in _parts(theta, self.outputs)]
        return cvxpy.sum(cvxpy.hstack(blocks)) if blocks else 0.0

    def polar_constraints(self, xi: Any, beta: float) -> list[Any]:
        """Return the cvxpy constraints "largest singular value of every block ≤ β"."""
        import cvxpy

        return [cvxpy.sigma_max(part) <= beta for part in _parts(xi, self.outputs)]


@dataclass(frozen=True)
class PerClass(_Matrices):
    """The norm γ(V) = Σ_k ‖V_{·k}‖₂ of blocks V (p, c); its polar is the longest column.

    The program separates into one program for each output, without neurons in common.
    """

    def value(self, theta: Floats) -> Floats:
        """Return γ of every block, shape (G,), of ``theta`` (G, p, c)."""
        return np.linalg.norm(theta, axis=1).sum(axis=-1)

    def polar(self, xi: Floats) -> Floats:
        """Return the longest column of every block, shape (G,), of ``xi`` (G, p, c)."""
        return np.linalg.norm(xi, axis=1).max(axis=-1, initial=0.0)

    def expression(self, theta: Any) -> Any:
        """Return Σ_g γ(V_g) in cvxpy, ``theta`` (p, Gc)."""
        import cvxpy

        return cvxpy.sum(cvxpy.norm(theta, 2, axis=0))

    def polar_constraints(self, xi: Any, beta: float) -> list[Any]:
        """Return the cvxpy constraints "every column of ξ at most β long"."""
        import cvxpy

        return [cvxpy.norm(xi, 2, axis=0) <= beta]


def _parts(theta: Any, outputs: int) -> list[Any]:
    """Return the (p, c) blocks of a cvxpy expression (p, Gc)."""
    return [theta[:, k : k + outputs] for k in range(0, theta.shape[1], outputs)]
