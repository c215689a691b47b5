"""Many networks, seeds and widths, trained as one batch on the regularised objective."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from landscape import archive
from landscape.errors import BadInput, NotConverged, unknown
from landscape.network import Network
from landscape.training.optimizers import OPTIONS, RULES, lbfgs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Architecture, Parameters
    from landscape.problem import Problem

VERSION = 1
SCHEDULES = ("cosine", "constant", "decay")


@dataclass(frozen=True)
class Runs:
    """Trained networks, one a (width, seed) pair, width-major.

    Attributes:
        architecture: of all networks.
        parameters: tensors with a leading axis over runs; narrower networks are padded by zeros.
        objectives: regularised objective at the end, shape (S,).
        trace: regularised objective along training, shape (S, T).
        trace_steps: steps at which the trace was taken, shape (T,).
        trace_seconds: seconds of training until then, for the whole batch, shape (T,).
        widths: width of each run, shape (S,).
        seeds: seed of each run, shape (S,).
        optimizer: its name.
        minimises: what the optimiser minimises (AdamW: not the regularised objective).
        status: a sentence.
    """

    architecture: Architecture
    parameters: Parameters
    objectives: NDArray[np.float64]
    trace: NDArray[np.float64]
    trace_steps: NDArray[np.int64]
    trace_seconds: NDArray[np.float64]
    widths: NDArray[np.int64]
    seeds: NDArray[np.int64]
    optimizer: str
    minimises: str
    status: str

    def __len__(self) -> int:
        return len(self.objectives)

    def __getitem__(self, run: int) -> Network:
        """Return one run's network, zero padding removed."""
        return Network(
            self.architecture,
            self.architecture.without_padding({k: v[run] for k, v in self.parameters.items()}),
        )

    @property
    def networks(self) -> list[Network]:
        """All networks, in the order of `objectives`."""
        return [self[run] for run in range(len(self))]

    @property
    def best(self) -> Network:
        """The network of lowest objective."""
        return self[int(np.nanargmin(self.objectives))]

    def save(self, path: str | Path) -> Path:
        """Write everything to an ``.npz`` of numbers and JSON text."""
        about = {
            "architecture": self.architecture.config(),
            **{k: getattr(self, k) for k in ("optimizer", "minimises", "status")},
        }
        arrays = {f"parameter_{k}": v.detach().cpu().numpy() for k, v in self.parameters.items()}
        return archive.write(path, about, {**arrays, **{k: getattr(self, k) for k in _ARRAYS}})

    @staticmethod
    def load(path: str | Path) -> Runs:
        """Read what `save` wrote.

        Raises:
            BadInput: if the file holds no runs.
        """
        from landscape import architectures

        about, arrays = archive.read(path, "runs", _ARRAYS)
        kept = {name: arrays.pop(name) for name in _ARRAYS}
        config = about.pop("architecture")
        parameters = {k.removeprefix("parameter_"): torch.as_tensor(v) for k, v in arrays.items()}
        architecture = architectures.get(config.pop("name"), **config)
        return Runs(architecture=architecture, parameters=parameters, **kept, **about)


_ARRAYS = ("objectives", "trace", "trace_steps", "trace_seconds", "widths", "seeds")


def train(
    problem: Problem,
    width: int | Sequence[int] = 64,
    seeds: Iterable[int] = range(20),
    optimizer: str = "adam",
    steps: int = 2000,
    *,
    learning_rate: float | None = None,
    schedule: str = "cosine",
    batch_size: int | None = None,
    scale: float = 1.0,
    start: Parameters | None = None,
    record_every: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    progress: bool = False,
    throw: bool = True,
    **options: float,
) -> Runs:
    """Train networks of every width from every seed in one batched computation.

    The objective is the problem's, a sum over samples; mini-batches estimate it without bias.
    Widths are padded with zero neurons, which no gradient rule moves.

    Args:
        problem: what is trained.
        width: neurons, or several widths.
        seeds: one network a seed and width; a network depends on its own seed and width only.
        optimizer: "sgd", "momentum", "adam", "adamw", "muon" or "lbfgs" (full batch only).
        steps: gradient steps.
        learning_rate: peak rate.  The default of sgd and momentum is divided by an estimate of
            the loss's curvature along the data and by the scale of the targets, since losses
            are sums.
        schedule: "cosine" to zero, "constant", or "decay" (1/(1 + 9 t/T)).
        batch_size: samples a step; None takes all.
        scale: factor on the architecture's initial weights.
        start: parameters to begin from (leading axis over runs) instead of random ones.
        record_every: steps between entries of the trace (default: about 200 entries).
        device: where to compute.
        dtype: of parameters and data.
        progress: show a bar.
        throw: raise if a run diverges; otherwise ``status`` says which did.
        **options: of the optimiser: momentum; beta1, beta2, epsilon; decoupled_decay; memory.

    Returns:
        The runs, width-major: ``runs.objectives.reshape(len(widths), len(seeds))``.

    Raises:
        BadInput: naming an argument that does not fit.
        NotConverged: if a run's objective is not finite at the end.
    """
    widths, seeds = _whole("width", width), _whole("seeds", list(seeds), least=0)
    _check(optimizer, schedule, batch_size, steps, len(problem.y), options)
    if start is None:
        start = padded([problem.architecture.initial(problem, w, seeds, scale) for w in widths])
    else:
        count = len(next(iter(start.values())))
        widths, seeds = [_width(start)], list(range(count))
    parameters = {k: v.detach().clone().to(device=device, dtype=dtype) for k, v in start.items()}
    every = record_every or max(1, steps // 200)
    recorder = _Recorder(problem, every, steps, progress)
    if optimizer == "lbfgs":
        parameters = _second_order(problem, parameters, steps, recorder, options)
        minimises = "the regularised objective"
    else:
        rule = RULES[optimizer]
        minimises = rule.minimises
        peak = learning_rate
        stiffness = None
        if peak is None:
            peak = rule.learning_rate
            stiffness = _lipschitz(problem, parameters) if rule.relative else None
        decay = float(options.get("decoupled_decay", 0.01)) if optimizer == "adamw" else None
        if decay is not None:
            options = {**options, "decoupled_decay": decay}
        _first_order(
            problem,
            parameters,
            rule,
            (peak, stiffness),
            schedule,
            steps,
            batch_size,
            seeds,
            recorder,
            options,
        )
    with torch.no_grad():
        objectives = problem.objective(parameters).cpu().numpy().astype(np.float64)
    lost = np.flatnonzero(~np.isfinite(objectives))
    status = f"{optimizer} ran {steps} steps on {len(objectives)} networks."
    if len(lost):
        status = (
            f"{len(lost)} of {len(objectives)} runs of {optimizer} diverged (first: {lost[0]}); "
            "lower learning_rate or scale."
        )
        if throw:
            raise NotConverged(status)
    trace = recorder.finish(objectives)
    runs = len(objectives) // len(seeds)
    return Runs(
        architecture=problem.architecture,
        parameters=parameters,
        objectives=objectives,
        **trace,
        widths=np.repeat(np.asarray(widths)[:runs], len(seeds)),
        seeds=np.tile(np.asarray(seeds), runs),
        optimizer=optimizer,
        minimises=minimises,
        status=status,
    )


class _Recorder:
    """Collects the trace; time spent on evaluating it is not counted as training."""

    def __init__(self, problem: Problem, every: int, steps: int, progress: bool) -> None:
        self.every, self.steps = every, steps
        self.rows: list[tuple[int, float, torch.Tensor]] = []
        self.spent, self.resumed = 0.0, time.perf_counter()
        self.bar = tqdm(total=steps, disable=not progress, desc="training", leave=False)

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def note(self, step: int, values: torch.Tensor) -> None:
        now = time.perf_counter()
        self.rows.append((step, self.spent + now - self.resumed, values.detach().cpu()))
        self.bar.update(step - self.bar.n)

    def pause(self) -> None:
        self.spent += time.perf_counter() - self.resumed

    def resume(self) -> None:
        self.resumed = time.perf_counter()

    def finish(self, objectives: NDArray[np.float64]) -> dict[str, Any]:
        if not self.rows or self.rows[-1][0] != self.steps:
            self.note(self.steps, torch.as_tensor(objectives))
        self.bar.close()
        steps, seconds, values = zip(*self.rows, strict=True)
        return {
            "trace": torch.stack(list(values), dim=1).numpy().astype(np.float64),
            "trace_steps": np.asarray(steps),
            "trace_seconds": np.asarray(seconds),
        }


def _first_order(
    problem: Problem,
    parameters: Parameters,
    rule: Any,
    rate: tuple[float, torch.Tensor | None],
    schedule: str,
    steps: int,
    batch_size: int | None,
    seeds: list[int],
    recorder: _Recorder,
    options: Mapping[str, float],
) -> None:
    """Run a gradient rule; parameters change in place."""
    peak, stiffness = rate
    names = [k for k in parameters if k not in problem.architecture.fixed]
    values = [parameters[k] for k in names]
    for value in values:
        value.requires_grad_(True)
    update = rule.make(names, values, dict(options))
    penalised = "decoupled_decay" not in options
    X, y = (
        torch.as_tensor(v, dtype=values[0].dtype, device=values[0].device)
        for v in (problem.X, problem.y)
    )
    batches = None if batch_size is None else _batches(seeds, len(values[0]), len(y), batch_size)
    for step in range(steps):
        if batches is None and penalised:
            losses = problem.loss.value(problem.architecture.forward(parameters, X), y)
            losses = losses + problem.beta * problem.architecture.penalty(parameters)
            if recorder.due(step):
                recorder.note(step, losses)
        else:
            if recorder.due(step):
                recorder.pause()
                with torch.no_grad():
                    value = problem.objective(parameters)
                recorder.resume()
                recorder.note(step, value)
            losses = _estimate(problem, parameters, X, y, batches, penalised)
        gradients = list(torch.autograd.grad(losses.sum(), values))
        with torch.no_grad():
            if stiffness is not None:
                for gradient in gradients:
                    gradient.div_(stiffness.reshape(-1, *[1] * (gradient.ndim - 1)))
            update(gradients, peak * _factor(schedule, step, steps))
    for value in values:
        value.requires_grad_(False)


def _estimate(
    problem: Problem, parameters: Parameters, X: Any, y: Any, batches: Any, penalised: bool
) -> torch.Tensor:
    """Return an unbiased estimate of each run's objective on its own mini-batch."""
    if batches is None:
        losses = problem.loss.value(problem.architecture.forward(parameters, X), y)
    else:
        rows = next(batches).to(X.device)  # (S, b)
        fits = torch.func.vmap(problem.architecture.forward)(parameters, X[rows])
        losses = _rowwise(problem, fits, y[rows]) * (len(y) / rows.shape[1])
    return losses + problem.beta * problem.architecture.penalty(parameters) * float(penalised)


def _rowwise(problem: Problem, fits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of each run on its own targets, shape (S,)."""
    return torch.stack(
        [problem.loss.value(fit, target) for fit, target in zip(fits, targets, strict=True)]
    )


def _batches(seeds: list[int], runs: int, n: int, size: int) -> Any:
    """Yield index arrays (S, b): each run walks through its own shuffles of the samples."""
    seeds = list(np.tile(seeds, runs // len(seeds)))
    generators = [torch.Generator().manual_seed(int(seed) + 1) for seed in seeds]
    while True:
        orders = torch.stack([torch.randperm(n, generator=g) for g in generators])
        for begin in range(0, n - size + 1, size):
            yield orders[:, begin : begin + size]


def _second_order(
    problem: Problem,
    parameters: Parameters,
    steps: int,
    recorder: _Recorder,
    options: Mapping[str, float],
) -> Parameters:
    """Run L-BFGS on flattened parameters; gates and other fixed tensors stay as they are."""
    names = [k for k in parameters if k not in problem.architecture.fixed]
    shapes = [parameters[k].shape[1:] for k in names]
    sizes = [int(np.prod(shape)) for shape in shapes]

    def unflatten(flat: torch.Tensor, rows: torch.Tensor) -> Parameters:
        parts = torch.split(flat, sizes, dim=1)
        some = {k: p.reshape(-1, *s) for k, p, s in zip(names, parts, shapes, strict=True)}
        return {k: some[k] if k in some else parameters[k][rows] for k in parameters}

    def objective(flat: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        flat = flat.detach().requires_grad_(True)
        values = problem.objective(unflatten(flat, rows))
        return values.detach(), torch.autograd.grad(values.sum(), flat)[0]

    def record(iteration: int, flat: torch.Tensor, values: torch.Tensor) -> None:
        if recorder.due(iteration):
            recorder.note(iteration, values)

    start = torch.cat([parameters[k].reshape(len(parameters[k]), -1) for k in names], dim=1)
    flat = lbfgs(objective, start, steps, record, memory=int(options.get("memory", 20)))
    return unflatten(flat, torch.arange(len(flat)))


def _factor(schedule: str, step: int, steps: int) -> float:
    if schedule == "cosine":
        return 0.5 * (1 + float(np.cos(np.pi * step / steps)))
    return 1.0 if schedule == "constant" else 1.0 / (1.0 + 9.0 * step / steps)


def _lipschitz(problem: Problem, parameters: Parameters) -> torch.Tensor:
    """Bound the curvature of the loss for each run, shape (S,): the scale of a stable step.

    The Gauss–Newton matrix of a two-layer network is at most ‖X‖₂²(‖W‖₂² + ‖a‖²).  It is taken
    at the start and at the size of a balanced network that fits, ‖W‖² + ‖a‖² ≈ 2‖y‖/‖X‖₂ + 1,
    whichever is larger.
    """
    spectral = float(np.linalg.norm(problem.design, 2))
    fitting = 1.0 + 2.0 * float(np.linalg.norm(problem.y)) / spectral
    start = sum(
        torch.linalg.matrix_norm(v, 2) ** 2
        if v.ndim > 2
        else v.reshape(len(v), -1).norm(dim=1) ** 2
        for k, v in parameters.items()
        if k not in problem.architecture.fixed
    )
    return spectral**2 * torch.as_tensor(start).clamp(min=fitting)


def padded(groups: list[Parameters]) -> Parameters:
    """Stack networks of several widths, the narrower ones padded by zero neurons."""
    names, joined = list(groups[0]), {}
    for name in names:
        values = [group[name] for group in groups]
        shape = [max(v.shape[i] for v in values) for i in range(1, values[0].ndim)]
        rows = []
        for value in values:
            grown = value.new_zeros((len(value), *shape))
            grown[tuple(slice(0, s) for s in value.shape)] = value
            rows.append(grown)
        joined[name] = torch.cat(rows)
    return joined


def _width(parameters: Parameters) -> int:
    return int(parameters["hidden"].shape[1]) if "hidden" in parameters else 0


def _whole(name: str, values: int | Sequence[int], least: int = 1) -> list[int]:
    listed = [values] if isinstance(values, (int, np.integer)) else list(values)
    if not listed:
        raise BadInput(f"{name} is empty: there must be at least one.")
    for value in listed:
        if not isinstance(value, (int, np.integer)) or value < least:
            raise BadInput(f"{name} holds {value!r}: it must hold whole numbers ≥ {least}.")
    return [int(value) for value in listed]


def _check(
    optimizer: str,
    schedule: str,
    batch_size: int | None,
    steps: int,
    n: int,
    options: Mapping[str, float],
) -> None:
    """Refuse what `train` cannot take."""
    if optimizer not in OPTIONS:
        raise unknown("optimizer", optimizer, OPTIONS)
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    if steps < 1:
        raise BadInput(f"steps is {steps}: it must be at least 1.")
    if batch_size is not None and not 1 <= batch_size <= n:
        raise BadInput(f"batch_size is {batch_size}: it must lie between 1 and n = {n}.")
    if batch_size is not None and optimizer == "lbfgs":
        raise BadInput("batch_size: L-BFGS needs the full batch; leave batch_size out.")
    for option in options:
        if option not in OPTIONS[optimizer]:
            raise unknown(f"option of optimizer {optimizer!r}", option, OPTIONS[optimizer])
