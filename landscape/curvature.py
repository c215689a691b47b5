r"""Curvature: the Hessian's spectrum of the regularised objective, where there is one.

The objective of a ReLU network is smooth off the kinks :math:`x_k^⊤w_j = 0`; at a kink what is
computed is the Hessian of one side (derivative 0 there, as in PyTorch), so the number of
activations near their kinks stands beside every spectrum.

A fact to check one by: at a stationary network every neuron that is not zero has the direction
:math:`(w_j, −a_j)` of its positive rescaling as an eigenvector, with eigenvalue exactly 2β.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from landscape.architectures import TwoLayer
from landscape.clarke import TIE, ties
from landscape.errors import BadInput, NotConverged, above_zero, at_least_zero, whole
from landscape.network import read
from landscape.slices.directions import trained, unflat

if TYPE_CHECKING:
    from collections.abc import Callable

    from landscape.architectures.base import Floats, Parameters
    from landscape.problem import Problem

VERSION = 1
DENSE = 5000
"""Up to this many parameters the Hessian is written out."""
TOGETHER = 1 << 20
"""Activations of one batch of Hessian-vector products."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the Hessian of the regularised objective at one network.

    Attributes:
        eigenvalues: all of them, or those that were asked for, ascending.
        residuals: ‖Hv − λv‖ of each with its unit eigenvector v.
        vectors: unit eigenvectors, one a column, shape (parameters, eigenvalues).
        parameters: how many numbers are trained.
        dense: whether the whole spectrum was computed.
        near_kinks: pairs of sample and neuron with |x·w| ≤ tolerance ‖x‖‖w‖; None where
            activations have no kinks that are known.
        activations: how many such pairs there are in all.
        converged: whether every residual is small enough.
        status: a sentence.
    """

    eigenvalues: Floats
    residuals: Floats
    vectors: Floats
    parameters: int
    dense: bool
    near_kinks: int | None
    activations: int
    converged: bool
    status: str


def spectrum(
    problem: Problem,
    network: torch.nn.Module | Parameters,
    count: int = 20,
    *,
    tolerance: float = 1e-8,
    kink: float = TIE,
    iterations: int = 1000,
    dense: int = DENSE,
    seed: int = 0,
    throw: bool = True,
) -> Spectrum:
    """Return the Hessian's spectrum at a network: all of it, or its two ends by Lanczos.

    Args:
        problem: data, loss (smooth) and β.
        network: where; not changed.
        count: eigenvalues that Lanczos computes, half from each end; a dense Hessian gives all.
        tolerance: largest residual ‖Hv − λv‖ that counts as converged, relative to the largest
            eigenvalue's size.
        kink: activations count as near their kink up to |x·w| = kink ‖x‖‖w‖.
        iterations: restarts of Lanczos at most.
        dense: up to this many parameters the Hessian is written out.
        seed: of Lanczos's first vector.
        throw: raise where a residual is above the tolerance; otherwise ``status`` says so.

    Raises:
        BadInput: for a loss without second derivative, a network that is not finite, or a count
            that does not fit.
        NotConverged: if Lanczos did not converge and ``throw``.
    """
    tolerance, kink = above_zero("tolerance", tolerance), at_least_zero("kink", kink)
    iterations, dense, seed = (
        whole("iterations", iterations),
        whole("dense", dense, 0),
        whole("seed", seed, 0),
    )
    where = _checked(problem, network)
    product, size = _products(problem, where)
    near, activations = _near_kinks(problem, where, kink)
    if size <= dense:
        hessian = product(np.eye(size))
        hessian = (hessian + hessian.T) / 2
        values, vectors = np.linalg.eigh(hessian)
        image = hessian @ vectors
        status = f"All {size} eigenvalues of the dense Hessian."
    else:
        if not whole("count", count) < size:
            raise BadInput(f"count is {count!r}: it must be between 1 and {size - 1} parameters.")
        values, vectors, status = _lanczos(product, size, count, tolerance, iterations, seed)
        image = product(vectors.T).T
    residuals = np.linalg.norm(image - vectors * values, axis=0)
    wanted = size if size <= dense else count
    top = float(np.abs(values).max(initial=0.0))
    converged = len(values) == wanted and bool((residuals <= tolerance * top).all())
    if not converged:
        status = (
            f"{status} Not converged: {len(values)} of {wanted} eigenvalues, largest residual "
            f"{residuals.max(initial=0.0):.1e}; raise iterations or tolerance, or ask for fewer."
        )
        if throw:
            raise NotConverged(status)
    return Spectrum(
        values, residuals, vectors, size, size <= dense, near, activations, converged, status
    )


def neuron_blocks(problem: Problem, network: torch.nn.Module | Parameters) -> Floats:
    """Return the Hessian's diagonal block of every neuron's own parameters.

    Args:
        problem: data, loss (smooth) and β.
        network: where; parameters whose first axis is not over neurons are left out.

    Returns:
        Blocks, shape (m, q, q), the coordinates of a neuron in the order of its parameters: for
        two-layer networks w_j and then a_j.

    Raises:
        BadInput: for a loss without second derivative or a network that is not finite.
    """
    where = _checked(problem, network)
    names = trained(problem, where)
    product, size = _products(problem, where)
    neurons = len(where["hidden"])
    if not neurons:
        raise BadInput("network has no neurons: there are no blocks.")
    ends = np.cumsum([where[k].numel() for k in names])
    own = [
        np.arange(end - where[k].numel(), end).reshape(neurons, -1)
        for k, end in zip(names, ends, strict=True)
        if where[k].ndim and len(where[k]) == neurons
    ]
    index = np.concatenate(own, axis=1)  # (m, q)
    blocks = []
    for mine in index:
        rows = np.zeros((len(mine), size))
        rows[np.arange(len(mine)), mine] = 1.0
        blocks.append(product(rows)[:, mine])
    return np.array(blocks)


def _checked(problem: Problem, network: torch.nn.Module | Parameters) -> Parameters:
    """Return a network's parameters, or refuse what has no Hessian."""
    if not problem.loss.smooth:
        raise BadInput(
            f"loss is {problem.loss.name}, which has kinks: a Hessian needs a smooth loss such as "
            "squared or logistic."
        )
    where = read(problem, network)
    if not sum(where[k].numel() for k in trained(problem, where)):
        raise BadInput("network has no parameters: there is no Hessian.")
    return where


def _products(problem: Problem, where: Parameters) -> tuple[Callable[[Any], Any], int]:
    """Return the map of rows v (s, parameters) to Hv, and the number of parameters."""
    names = trained(problem, where)
    fixed = {k: v for k, v in where.items() if k not in names}
    size = sum(where[k].numel() for k in names)
    point = {k: where[k] for k in names}
    gradient = torch.func.grad(lambda free: problem.objective({**free, **fixed}))
    # The Hessian is symmetric: its product is the gradient's vector-Jacobian product.
    pull = torch.func.vjp(gradient, point)[1]
    together = max(1, TOGETHER // (len(problem.y) * max(1, len(where["hidden"]))))
    batched = torch.func.vmap(lambda way: pull(way)[0], chunk_size=together)

    def product(rows: Floats) -> Floats:
        split = [unflat(row, where, names) for row in rows]
        out = batched({k: torch.stack([one[k] for one in split]) for k in names})
        return np.concatenate([out[k].detach().numpy().reshape(len(rows), -1) for k in names], 1)

    return product, size


def _lanczos(
    product: Any, size: int, count: int, tolerance: float, iterations: int, seed: int
) -> tuple[Floats, Floats, str]:
    """Return eigenvalues from both ends, ascending, as many as converge."""
    lanczos: Any = eigsh  # its stubs and LinearOperator's lag behind what they take
    operator: Any = LinearOperator
    hessian = operator((size, size), matvec=lambda v: product(v.reshape(1, -1))[0], dtype=float)
    first = np.random.default_rng(seed).standard_normal(size)
    status = f"Lanczos: {count} of {size} eigenvalues, half from each end."
    try:
        which = "BE" if count > 1 else "LA"
        options = {"v0": first, "maxiter": iterations, "tol": tolerance / 10}
        values, vectors = lanczos(hessian, count, which=which, **options)
    except ArpackNoConvergence as stopped:
        values, vectors = stopped.eigenvalues, stopped.eigenvectors.reshape(size, -1)
        status = f"{status} It stopped after {iterations} restarts."
    order = np.argsort(values)
    return values[order], vectors[:, order], status


def _near_kinks(problem: Problem, where: Parameters, kink: float) -> tuple[int | None, int]:
    """Return how many activations are near their kinks, and how many there are."""
    hidden = where["hidden"].numpy()
    activations = len(problem.y) * len(hidden)
    if not isinstance(problem.architecture, TwoLayer):
        return None, activations
    near = ties(problem.design, hidden[hidden.any(axis=1)], kink)
    return int(near.sum()), activations
