r"""Counting neurons modulo symmetry, and joining those of one signed pattern.

A network is the same function after permutation, after positive rescaling
:math:`(w, a) → (γw, a/γ)`, and after splitting a neuron into copies of one direction and output
sign.  So a neuron is a direction :math:`w/\|w\|`, a sign, and a size :math:`|a|\|w\|`, and sizes of
one direction and sign add up.  Trained networks have copies that almost agree and neurons that have
almost died; how many are left depends on a tolerance, which is part of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from landscape.errors import BadInput
from landscape.network import Network, read, several, shapes
from landscape.sparsity import blocks
from landscape.sparsity.pruning import check

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Parameters
    from landscape.problem import Problem
    from landscape.programs import Floats
    from landscape.training import Runs

TOLERANCES = (1e-3, 1e-2, 1e-1)
COPIES = 1e-9
"""Distance of unit directions up to which neurons are copies, whatever the tolerance."""


def merge(problem: Problem, network: torch.nn.Module | Parameters) -> Network:
    r"""Return the network whose neurons of one activation pattern and output sign are one.

    On a pattern the network is linear, so :math:`u = \sum_j |a_j| w_j` gives the same outputs on
    the data, and :math:`\|u\| ≤ \sum_j |a_j|\|w_j\| ≤ ½\sum_j (\|w_j\|^2 + a_j^2)`: the objective
    never rises.  Away from the data the function may change.  The network comes back balanced.

    Args:
        problem: the training problem, two-layer ReLU.
        network: any network.

    Raises:
        BadInput: for another architecture, or weights that are not finite.
    """
    check("merge", problem)
    architecture = problem.architecture
    point = architecture.lift(problem, read(problem, network))
    return Network(architecture, architecture.lower(point))


def active_neurons(
    problem: Problem,
    networks: Runs | torch.nn.Module | Parameters | Iterable[torch.nn.Module],
    tolerances: float | Sequence[float] = TOLERANCES,
) -> NDArray[np.int64]:
    r"""Count the neurons of networks up to permutation, rescaling and splitting.

    Neurons of one output sign whose directions :math:`w/\|w\|` are within ``tolerance`` of that of
    a larger one are counted with it (their sizes :math:`|a|\|w\|` add up); what is then smaller
    than ``tolerance`` times the largest is not counted.  With a free bias, the direction has the
    bias as a coordinate, and neurons with w = 0 are constants and do not count.  Of architectures
    other than plain two-layer ReLU the blocks of the convex point are counted, and their directions
    are those of what they add to the fit.

    Args:
        problem: the training problem.
        networks: runs; parameters with any leading axes; one network or several.
        tolerances: between 0 and 1, both of directions (distance) and of sizes (relative).

    Returns:
        Counts, shape (tolerances, …) over the leading axes of the networks; without the first axis
        for a single tolerance.

    Raises:
        BadInput: for weights that are not finite, or such tolerances.
    """
    levels = np.asarray(tolerances, dtype=np.float64)
    if levels.ndim > 1 or not levels.size or not ((levels >= 0) & (levels < 1)).all():
        raise BadInput(
            f"tolerances is {tolerances}: it must be a number from 0 to below 1, or several."
        )
    found, lead = _listed(problem, networks)
    if problem.architecture.plain_neurons:
        hidden, output = _gathered(problem, found)
        counts = _counts(problem, hidden, output, levels)
    else:
        counts = np.zeros((levels.size, len(found)), dtype=np.int64)
        for k, one in enumerate(found):
            counts[:, k] = _counts_of_features(problem, one, levels)
    return counts.reshape((*levels.shape, *lead))


def _counts_of_features(problem: Problem, network: Parameters, levels: Floats) -> NDArray[np.int64]:
    """Return counts (tolerances,) of the blocks of a network's convex point."""
    point = blocks.as_rays(problem.architecture.lift(problem, network))[0]
    F, sizes = blocks.features(point).T, point.program.gauge.value(point.theta)
    lengths = np.linalg.norm(F, axis=1, keepdims=True)
    units = F / np.where(lengths > 0, lengths, 1.0)
    return _distinct(units[None], np.ones((1, len(F))), sizes[None], levels)[:, 0]


def _listed(problem: Problem, networks: object) -> tuple[list[Parameters], tuple[int, ...]]:
    """Return networks one by one, and their leading axes."""
    values = getattr(networks, "parameters", None)  # of runs; a module's is a method
    if isinstance(networks, Mapping) or isinstance(values, Mapping):
        whole = cast("Parameters", networks if isinstance(networks, Mapping) else values)
        if "output" not in whole or not isinstance(whole["output"], torch.Tensor):
            raise BadInput(f"networks has the parameters {sorted(whole)}: 'output' is missing.")
        own = len(shapes(problem)["output"])  # axes of one network: units may have several outputs
        lead = tuple(whole["output"].shape[: max(whole["output"].ndim - own, 0)])
        each = [{k: v[at] for k, v in whole.items()} for at in np.ndindex(lead)]
    else:
        each, alone = several(cast("torch.nn.Module", networks))
        lead = () if alone else (len(each),)
    return [read(problem, one) for one in each], lead


def _gathered(problem: Problem, found: list[Parameters]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return hidden (S, m, p) and output (S, m), padded by zero neurons."""
    width = max([len(one["output"]) for one in found], default=0)
    hidden = torch.zeros(len(found), width, problem.design.shape[1], dtype=torch.float64)
    output = torch.zeros(len(found), width, dtype=torch.float64)
    for k, one in enumerate(found):
        hidden[k, : len(one["output"])] = one["hidden"]
        output[k, : len(one["output"])] = one["output"]
    return hidden, output


def _counts(
    problem: Problem, hidden: torch.Tensor, output: torch.Tensor, levels: Floats
) -> NDArray[np.int64]:
    """Return counts (tolerances, S) of networks (S, m, p) and (S, m)."""
    lengths = check("active_neurons", problem).sizes(problem, hidden)
    units = (hidden / torch.where(lengths == 0, 1.0, lengths)[..., None]).numpy()
    weights = (lengths * output.abs()).numpy()
    signs = np.sign(output.numpy())
    return _distinct(units, signs, weights, levels)


def _distinct(units: Floats, signs: Floats, weights: Floats, levels: Floats) -> NDArray[np.int64]:
    """Return counts (tolerances, S) of directions (S, m, q) with signs and sizes (S, m)."""
    weights = _joined(units, signs, weights, COPIES)  # so that splitting changes no order
    found = []
    for level in levels.reshape(-1):
        joined = _joined(units, signs, weights, float(level))
        top = joined.max(axis=1, initial=0.0)
        found.append(((joined > level * top[:, None]) & (joined > 0)).sum(axis=1))
    return np.array(found, dtype=np.int64)


def _joined(units: Floats, signs: Floats, weights: Floats, level: float) -> Floats:
    """Add up sizes (S, m) around the largest neuron, then the largest that is left, and so on."""
    left, joined, rows = weights > 0, np.zeros_like(weights), np.arange(len(weights))
    while left.any():
        first = np.where(left, weights, -1.0).argmax(axis=1)
        apart = np.linalg.norm(units - units[rows, first][:, None], axis=2)
        own = left & (signs == signs[rows, first][:, None]) & (apart <= level)
        joined[rows, first] += np.where(own, weights, 0.0).sum(axis=1)
        left &= ~own
    return joined
