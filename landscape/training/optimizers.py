"""Optimisers over a batch of networks: every rule acts on tensors with a leading batch axis.

``make(names, parameters, options)`` gives a step, which updates the parameters in place from
their gradients.  All rules are elementwise or act within one network, so a network's
course does not depend on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Tensors = list[torch.Tensor]
Step = Callable[[Tensors, float], None]


@dataclass(frozen=True)
class Rule:
    """An optimiser by name.

    Attributes:
        make: builds the step function for parameters.
        learning_rate: default peak rate; relative rates are divided by a Lipschitz constant of
            the loss's gradient in the network's output (see `landscape.training.batched`).
        relative: whether the rate is relative in that sense.
        minimises: what it minimises, for labels.
    """

    make: Callable[[list[str], Tensors, dict[str, float]], Step]
    learning_rate: float
    relative: bool
    minimises: str = "the regularised objective"


def _momentum(names: list[str], values: Tensors, options: dict[str, float]) -> Step:
    keep = options.get("momentum", 0.0)
    velocity = [torch.zeros_like(v) for v in values]

    def step(gradients: Tensors, rate: float) -> None:
        for value, speed, gradient in zip(values, velocity, gradients, strict=True):
            speed.mul_(keep).add_(gradient)
            value.sub_(speed, alpha=rate)

    return step


def _adam(names: list[str], values: Tensors, options: dict[str, float]) -> Step:
    first, second = options.get("beta1", 0.9), options.get("beta2", 0.999)
    epsilon, decay = options.get("epsilon", 1e-8), options.get("decoupled_decay", 0.0)
    means = [torch.zeros_like(v) for v in values]
    squares = [torch.zeros_like(v) for v in values]
    time = 0

    def step(gradients: Tensors, rate: float) -> None:
        nonlocal time
        time += 1
        for value, mean, square, gradient in zip(values, means, squares, gradients, strict=True):
            if decay:
                value.mul_(1 - rate * decay)
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            root = square.sqrt().div_((1 - second**time) ** 0.5).add_(epsilon)
            value.addcdiv_(mean, root, value=-rate / (1 - first**time))

    return step


def orthogonalised(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return an approximation of UVᵀ of each matrix (…, a, b) by Newton–Schulz iterations.

    The quintic iteration of the Muon optimiser: singular values go near 1, zero rows stay zero.
    """
    wide = matrix.shape[-2] <= matrix.shape[-1]
    X = matrix if wide else matrix.mT
    X = X / (X.flatten(-2).norm(dim=-1)[..., None, None] + 1e-30)
    for _ in range(steps):
        A = X @ X.mT
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X if wide else X.mT


def _muon(names: list[str], values: Tensors, options: dict[str, float]) -> Step:
    """Orthogonalised momentum on hidden matrices, Adam on everything else."""
    matrices = [i for i, name in enumerate(names) if name == "hidden"]
    others = [i for i in range(len(names)) if i not in matrices]
    keep = options.get("momentum", 0.95)
    # Muon's factor for tall matrices counts real neurons: padding must not change the rate.
    shapes = {}
    for i in matrices:
        rows = (values[i] != 0).any(-1).sum(-1).to(values[i].dtype)
        shapes[i] = (rows / values[i].shape[-1]).clamp(min=1.0).sqrt()[..., None, None]
    velocity = {i: torch.zeros_like(values[i]) for i in matrices}
    rest = _adam([names[i] for i in others], [values[i] for i in others], options)

    def step(gradients: Tensors, rate: float) -> None:
        for i in matrices:
            velocity[i].mul_(keep).add_(gradients[i])
            direction = orthogonalised(gradients[i] + keep * velocity[i])
            values[i].sub_(shapes[i] * direction, alpha=rate)
        rest([gradients[i] for i in others], rate)

    return step


def _adamw(names: list[str], values: Tensors, options: dict[str, float]) -> Step:
    return _adam(names, values, {"decoupled_decay": 0.01, **options})


def _sgd_with_momentum(names: list[str], values: Tensors, options: dict[str, float]) -> Step:
    return _momentum(names, values, {"momentum": 0.9, **options})


RULES: dict[str, Rule] = {
    "sgd": Rule(_momentum, 1.0, relative=True),
    "momentum": Rule(_sgd_with_momentum, 1.0, relative=True),
    "adam": Rule(_adam, 1e-2, relative=False),
    "adamw": Rule(
        _adamw,
        1e-2,
        relative=False,
        minimises="the loss, with decoupled decay: not the regularised objective",
    ),
    "muon": Rule(_muon, 1e-2, relative=False),
}
OPTIONS = {
    "sgd": (),
    "momentum": ("momentum",),
    "adam": ("beta1", "beta2", "epsilon"),
    "adamw": ("beta1", "beta2", "epsilon", "decoupled_decay"),
    "muon": ("momentum", "beta1", "beta2", "epsilon"),
    "lbfgs": ("memory",),
}


def lbfgs(
    objective: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    flat: torch.Tensor,
    steps: int,
    record: Callable[[int, torch.Tensor, torch.Tensor], Any],
    memory: int = 20,
) -> torch.Tensor:
    """Minimise every row of a batch by L-BFGS with its own Armijo line search.

    Args:
        objective: flat parameters (R, q) of some rows, and their numbers (R,) → values (R,) and
            gradients (R, q).
        flat: start, shape (S, q).
        steps: iterations.
        record: called with the iteration, the parameters and their values.
        memory: pairs of differences kept.

    Returns:
        The final parameters (S, q); a row whose line search fails stays where it is, as L-BFGS
        does at a kink.
    """
    value, gradient = objective(flat, torch.arange(len(flat)))
    pairs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    failed = torch.zeros_like(value)  # line searches lost in a row; after two a row is done
    for iteration in range(steps):
        record(iteration, flat, value)
        if bool((failed >= 2).all()):
            break
        direction = -_two_loop(gradient, pairs)
        slope = (direction * gradient).sum(1)
        uphill = (slope >= 0) | (failed > 0)
        direction[uphill], slope[uphill] = -gradient[uphill], -(gradient[uphill] ** 2).sum(1)
        fresh = uphill | (iteration == 0)
        length = torch.where(fresh, 1.0 / gradient.norm(dim=1).clamp(min=1.0), 1.0)
        moved, reached, slopes = flat.clone(), value.clone(), gradient.clone()
        pending = failed < 2
        for _ in range(25):
            rows = torch.nonzero(pending)[:, 0]  # only what still searches is evaluated
            if not len(rows):
                break
            trial = flat[rows] + length[rows, None] * direction[rows]
            trial_value, trial_gradient = objective(trial, rows)
            fine = trial_value <= value[rows] + 1e-4 * length[rows] * slope[rows]
            accepted = rows[fine]
            moved[accepted], reached[accepted] = trial[fine], trial_value[fine]
            slopes[accepted] = trial_gradient[fine]
            pending[accepted] = False
            length = torch.where(pending, length * 0.5, length)
        failed = torch.where(pending, failed + 1, torch.where(failed < 2, 0.0, failed))
        difference, change = moved - flat, slopes - gradient
        curvature = (difference * change).sum(1)
        good = curvature > 1e-10 * difference.norm(dim=1) * change.norm(dim=1)
        inverse = torch.where(good, 1.0 / torch.where(good, curvature, 1.0), 0.0)
        # A row that lost its line search forgets its curvature.
        pairs = [(d, c, torch.where(pending, 0.0, i)) for d, c, i in pairs]
        pairs = [*pairs, (difference, change, inverse)][-memory:]
        flat, value, gradient = moved, reached, slopes
    record(steps, flat, value)
    return flat


def _two_loop(
    gradient: torch.Tensor, pairs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """Return the inverse-Hessian approximation times the gradient, row by row."""
    q, weights = gradient.clone(), []
    for difference, change, inverse in reversed(pairs):
        weight = inverse * (difference * q).sum(1)
        q -= weight[:, None] * change
        weights.append(weight)
    scale = torch.ones(len(gradient), dtype=gradient.dtype, device=gradient.device)
    for _, change, inverse in pairs:  # the newest pair that a row accepted gives its scale
        size = (change**2).sum(1)
        scale = torch.where(inverse > 0, 1.0 / (inverse * size).clamp(min=1e-300), scale)
    q *= scale[:, None]
    for (difference, change, inverse), weight in zip(pairs, reversed(weights), strict=True):
        q += (weight - inverse * (change * q).sum(1))[:, None] * difference
    return q
