"""Two-layer networks as points of their convex program, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape.architectures.activations import activated, activated_array
from landscape.architectures.base import ConvexPoint
from landscape.arrangements import Arrangements
from landscape.clarke import residuals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Floats, Parameters
    from landscape.architectures.two_layer import TwoLayer
    from landscape.problem import Problem

EPSILON = float(np.finfo(np.float64).eps)


def lift(architecture: TwoLayer, problem: Problem, parameters: Parameters) -> ConvexPoint:
    """Return the convex point: u_i = Σ w_j|a_j| over the neurons of one signed pattern.

    Merging neurons keeps the fit and cannot raise the penalty.  A neuron on kinks, up to the
    rounding of Xw, is put into one full-dimensional cell whose closed cone contains it.  Neurons
    that are on everywhere join the skip connection, where there is one.
    """
    hidden, output = array(parameters["hidden"]), array(parameters["output"])
    straight = np.zeros(problem.design.shape[1])  # the linear part that is no neuron
    if architecture.skip != "none":
        skip = array(parameters["skip"])
        through = float(array(parameters.get("skip_output", torch.ones(()))))
        straight[: len(skip)] += through * skip
    if architecture.bias == "free":
        flat = ~hidden[:, :-1].any(axis=1)  # w = 0: the neuron is a constant
        lifted = activated_array(hidden[flat, -1], architecture.leak) @ output[flat]
        straight[-1] += float(parameters["constant"].detach()) + lifted
        hidden, output = hidden[~flat], output[~flat]
    taking_part = (output != 0) & hidden.any(axis=1)
    hidden, output = hidden[taking_part], output[taking_part]
    if architecture.leak == -1.0:  # |t| = |−t|: one of each pair of mirrored patterns is enough
        hidden = turned(problem.design, hidden)
    masks = _masks(problem.design, hidden)
    if architecture.skip != "none":
        whole = masks.all(axis=1)
        straight += output[whole] @ hidden[whole]
        masks, hidden, output = masks[~whole], hidden[~whole], output[~whole]
    keys = np.hstack([masks, output[:, None] > 0])
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    theta = np.zeros((len(first), hidden.shape[1]))
    np.add.at(theta, group.reshape(-1), np.abs(output)[:, None] * hidden)
    patterns = Arrangements.from_bool(masks[first], hidden[first])
    program = architecture.program(problem, patterns, np.sign(output[first]))
    constant = straight if architecture.skip == "free" else straight[straight.size - 1 :]
    if architecture.skip == "penalised":  # the program's last block is the linear one
        linear = np.where(architecture.penalised(problem), straight, 0.0)
        theta = np.vstack([theta, linear])
    return ConvexPoint(program, theta, constant[: program.free.shape[1]].copy())


def lower(architecture: TwoLayer, point: ConvexPoint) -> Parameters:
    """Return the balanced network: u ↦ (u/√‖u‖, ±√‖u‖), one neuron a non-zero block."""
    program, theta, atoms = point.program, point.theta, point.program.atoms
    norms = program.gauge.value(theta)
    open_ = program.cones.open if program.cones is not None else np.zeros(len(theta), dtype=bool)
    active = (norms > 0) & ~open_
    scale = np.sqrt(norms[active])
    parameters = {
        "hidden": torch.as_tensor(theta[active] / scale[:, None]),
        "output": torch.as_tensor(atoms.signs[active] * scale),
    }
    free, added = architecture.bias == "free", 0.0
    width = theta.shape[1] - free
    if free:  # blocks of w = 0 are constants where their pattern is on, or off, everywhere
        weights = atoms.weights[atoms.index].astype(np.float64)
        flat = (~active | open_) & np.all(weights == weights[:, :1], axis=1)
        added = (atoms.signs[flat] * weights[flat, 0]) @ theta[flat, -1]
        parameters["constant"] = torch.tensor(point.constant[-1] + added)
    if architecture.skip == "free":
        parameters["skip"] = torch.as_tensor(point.constant[:width].copy())
    elif architecture.skip == "penalised":
        linear = atoms.signs[open_] @ theta[open_, :width]
        root = float(np.linalg.norm(linear)) ** 0.5
        parameters["skip"] = torch.as_tensor(linear / (root or 1.0))
        parameters["skip_output"] = torch.tensor(root, dtype=torch.float64)
    return parameters


def balanced(
    architecture: TwoLayer, problem: Problem, parameters: Parameters
) -> tuple[Parameters, torch.Tensor]:
    """Rescale every neuron of one network until ‖w‖ = |a|: outputs stay, the penalty is least.

    Neurons that do nothing vanish; behind a free bias those of w = 0 are constants, which the
    output bias takes over.

    Returns:
        The parameters, neurons in their places, and log(|a_j|/‖w_j‖)/2 of every neuron (m,).
    """
    hidden, output = parameters["hidden"], parameters["output"]
    lengths = architecture.sizes(problem, hidden)
    alive = (lengths > 0) & (output != 0)
    rates = torch.zeros_like(output)
    rates[alive] = 0.5 * (output[alive].abs() / lengths[alive]).log()
    factor = rates.exp()
    end = {"hidden": hidden * factor[:, None], "output": output / factor}
    end["hidden"][output == 0], end["output"][~alive] = 0.0, 0.0
    if "constant" in parameters:
        flat = (lengths == 0) & (output != 0)
        constants = (activated(hidden[flat, -1], architecture.leak) * output[flat]).sum()
        end["constant"] = parameters["constant"] + constants
    if architecture.skip == "free":
        end["skip"] = parameters["skip"]
    elif architecture.skip == "penalised":
        product = parameters["skip"] * parameters["skip_output"]
        root = product.norm().sqrt()
        end["skip"] = product / root if root > 0 else product
        end["skip_output"] = root
    return end, rates


def stationarity(
    architecture: TwoLayer, problem: Problem, parameters: Parameters, nu: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return Clarke residuals (of ξ too), wrong-signed ties and imbalances of the neurons."""
    hidden, output = array(parameters["hidden"]), array(parameters["output"])
    penalised, beta = architecture.penalised(problem), problem.beta
    lengths, sizes = np.linalg.norm(hidden[:, penalised], axis=1), np.abs(output)
    both = (lengths > 0) & (sizes > 0)
    rows, weights = architecture.ramps(problem, nu)
    clarke, wrong = residuals(rows, penalised, hidden[both], np.sign(output[both]), weights, beta)
    if architecture.bias == "free":
        clarke = np.append(clarke, abs(float(nu.sum())) / beta)
    if architecture.skip != "none":
        skip = array(parameters["skip"])
        pull = problem.design[:, : len(skip)].T @ nu
        length = float(np.linalg.norm(skip))
        if architecture.skip == "penalised":
            through = float(parameters["skip_output"])
            lengths, sizes = np.append(lengths, length), np.append(sizes, abs(through))
            # Like a neuron, the linear one says nothing where it is zero.
            pull = np.sign(through) * pull - beta * skip / length if length * through else 0.0
        clarke = np.append(clarke, np.linalg.norm(pull) / beta)
    there = np.maximum(lengths, sizes) > 0
    balance = np.abs(lengths - sizes)[there] / np.maximum(lengths, sizes)[there]
    return clarke, wrong, balance


def turned(design: Floats, directions: Floats) -> Floats:
    """Return ±u of every direction u (m, p), on the positive side of the first non-zero sample."""
    rows = design[design.any(axis=1)][:1]
    behind = (directions @ rows.T).min(axis=1, initial=0.0) < 0
    return np.where(behind[:, None], -directions, directions)


def array(tensor: torch.Tensor) -> Floats:
    """Return a tensor's numbers in double precision."""
    return tensor.detach().cpu().numpy().astype(np.float64)


def _masks(design: Floats, hidden: Floats) -> NDArray[np.bool_]:
    """Return the pattern of every neuron (m, n); kinks are resolved alike for all of them."""
    # One direction decides: copies of a neuron are not told apart by the rounding of their
    # products, and antipodal samples not put on one side together.
    before = hidden @ design.T
    terms = np.abs(hidden) @ np.abs(design).T
    near = np.abs(before) <= 4 * (hidden.shape[1] + 2) * EPSILON * terms
    tilt = np.random.default_rng(0).standard_normal(hidden.shape[1])
    return np.where(near, design @ tilt >= 0, before > 0)
