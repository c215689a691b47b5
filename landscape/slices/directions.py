r"""Directions of slices: random ones at the scale of a network, and networks of one width.

A ReLU network is unchanged by :math:`(w_j, a_j) ↦ (s w_j, a_j/s)`, so a direction is measured
against the network that it leaves from.  "filter" gives each filter of the direction (the weights
into one neuron) the norm of the network's (Li et al., NeurIPS 2018); "balanced" does so about the
network rescaled to :math:`\|w_j\| = |a_j|`, so that no rescaling of the network changes the slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape.architectures import TwoLayer
from landscape.errors import BadInput, unknown, whole
from landscape.network import read, shapes
from landscape.training.runs import padded

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.problem import Problem

KINDS = ("plain", "filter", "balanced")


def directions(
    problem: Problem,
    network: torch.nn.Module | Parameters,
    kind: str = "filter",
    count: int = 2,
    seed: int = 0,
) -> list[Parameters]:
    r"""Return random directions at the scale of a network, orthogonal to each other.

    "plain" has one filter, the whole network; otherwise every row of a matrix is a filter, and so
    is every vector.  The second direction is made orthogonal to the first *within each filter* and
    scaled to its norm afterwards: orthogonality survives normalisation,
    :math:`|\cos| ≤ 10^{-12}`.  Matrices of one column are one filter; a filter of a single number
    has room for one direction, and the second is zero there.

    Args:
        problem: gives the architecture; fixed parameters (gates) have direction zero.
        network: to leave from.
        kind: "plain", "filter" or "balanced" (which measures the balanced network).
        count: 1 or 2.
        seed: of the Gaussian draws.

    Returns:
        ``count`` parameter dictionaries in float64.

    Raises:
        BadInput: for an unknown kind, another count, or a network without a trained weight that
            is not zero.
    """
    if kind not in KINDS:
        raise unknown("kind of direction", kind, KINDS)
    if count not in (1, 2):
        raise BadInput(f"count is {count!r}: a slice has one direction or two.")
    centre = balanced(problem, network) if kind == "balanced" else read(problem, network)
    names = trained(problem, centre)
    generator = torch.Generator().manual_seed(whole("seed", seed, 0))
    found: list[Parameters] = []
    for _ in range(count):
        draw = {
            k: torch.randn(v.shape, generator=generator, dtype=torch.float64)
            for k, v in centre.items()
        }
        if kind == "plain":
            joined = [flat(one, names)[None] for one in (draw, centre, *found)]
            rows = _scaled(joined[0], joined[1], joined[2:])[0]
            made = unflat(rows, centre, names)
        else:
            made = {k: torch.zeros_like(v) for k, v in centre.items()}
            for k in names:
                rows = _filters(centre[k])
                parts = [one[k].reshape(rows).numpy() for one in (draw, centre, *found)]
                made[k] = torch.as_tensor(_scaled(parts[0], parts[1], parts[2:]))
                made[k] = made[k].reshape(centre[k].shape)
        if not flat(made, names).any():
            raise BadInput("network is zero: nothing sets the scale of a random direction.")
        found.append(made)
    return found


def _filters(value: torch.Tensor) -> tuple[int, int]:
    """Return the shape (filters, numbers in each) of one parameter."""
    if value.ndim < 2 or value.shape[1:].numel() == 1:
        return 1, value.numel()
    return len(value), value.shape[1:].numel()


def _scaled(draw: Floats, like: Floats, others: Sequence[Floats]) -> Floats:
    """Return rows of ``draw`` orthogonal to those of ``others``, at the norms of ``like``."""
    rows = np.array(draw)
    for _ in range(2):  # once loses digits where the draw is nearly parallel; twice is enough
        for other in others:
            square = (other**2).sum(axis=1, keepdims=True)
            share = (rows * other).sum(axis=1, keepdims=True) / np.where(square > 0, square, 1.0)
            rows -= share * other
    drawn, norms = (np.linalg.norm(v, axis=1, keepdims=True) for v in (draw, rows))
    there = norms > 1e-10 * drawn  # what is left of a filter of one number is rounding
    wanted = np.linalg.norm(like, axis=1, keepdims=True)
    return np.where(there, rows / np.where(there, norms, 1.0) * wanted, 0.0)


def balanced(problem: Problem, network: torch.nn.Module | Parameters) -> Parameters:
    r"""Return the network rescaled, neuron by neuron, to :math:`\|w_j\| = |a_j|`.

    Its outputs are the same and its penalty is the least that any rescaling has (see
    `TwoLayer.balanced`).

    Raises:
        BadInput: if the architecture is not `TwoLayer`.
    """
    if not isinstance(problem.architecture, TwoLayer):
        raise BadInput(
            f"kind is 'balanced' and the architecture {problem.architecture.label}: balancing is "
            "defined for two-layer networks; use kind='filter'."
        )
    return problem.architecture.balanced(problem, read(problem, network))[0]


def aligned(problem: Problem, networks: Sequence[torch.nn.Module | Parameters]) -> list[Parameters]:
    """Return networks at one width, the narrower ones padded by zero neurons.

    Raises:
        BadInput: if fixed parameters (gates) differ: a line between gates is no network's.
    """
    own = [{k: v[None] for k, v in read(problem, one).items()} for one in networks]
    joined = padded(own)
    for name in [k for k in problem.architecture.fixed if k in joined]:  # not all have gates
        if not bool((joined[name] == joined[name][:1]).all()):
            raise BadInput(
                f"networks differ in {name}, which is not trained: slices need networks that "
                f"share their {name}s, in one order; `side_by_side` gives them all of them."
            )
    return [{k: v[i] for k, v in joined.items()} for i in range(len(own))]


def side_by_side(
    problem: Problem, networks: Sequence[torch.nn.Module | Parameters]
) -> list[Parameters]:
    """Return networks that share their fixed parameters: where these differ, each has them all.

    Neurons of the others (their gates, with weights of zero) stand beside a network's own, so
    outputs and penalty stay.  Networks that share their fixed parameters come back as they are.

    Args:
        problem: gives the architecture.
        networks: of any widths.
    """
    own = [read(problem, one) for one in networks]
    fixed = [name for name in problem.architecture.fixed if name in own[0]]
    if all(torch.equal(one[name], own[0][name]) for one in own for name in fixed):
        return own
    neurons = {k for k, shape in shapes(problem).items() if None in shape[:1]}
    found = []
    for place, one in enumerate(own):
        wide = dict(one)
        for name in neurons:
            parts = [other[name] for other in own]
            if name not in fixed:
                parts = [p if k == place else torch.zeros_like(p) for k, p in enumerate(parts)]
            wide[name] = torch.cat(parts)
        found.append(wide)
    return found


def trained(problem: Problem, parameters: Parameters) -> list[str]:
    """Return the names of the parameters that are trained."""
    return [name for name in parameters if name not in problem.architecture.fixed]


def flat(parameters: Parameters, names: Sequence[str]) -> Floats:
    """Return the named parameters as one vector."""
    return np.concatenate([parameters[k].numpy().reshape(-1) for k in names])


def unflat(vector: Floats, like: Parameters, names: Sequence[str]) -> Parameters:
    """Return a vector as parameters of the shapes of ``like``, zero where not named."""
    parts = np.split(vector, np.cumsum([like[k].numel() for k in names])[:-1])
    values = {
        k: torch.as_tensor(p).reshape(like[k].shape) for k, p in zip(names, parts, strict=True)
    }
    return {k: values.get(k, torch.zeros_like(v)) for k, v in like.items()}
