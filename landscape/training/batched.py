"""Many networks, seeds and widths, trained as one batch on the regularised objective."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from landscape.errors import BadInput, NotConverged, unknown, whole, wholes
from landscape.training.gradients import Flat, Gradients
from landscape.training.optimizers import OPTIONS, RULES, lbfgs
from landscape.training.polishing import polish as polish_runs
from landscape.training.runs import Runs, padded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Parameters
    from landscape.problem import Problem

VERSION = 2
SCHEDULES = ("cosine", "constant", "decay")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def train(
    problem: Problem,
    width: int | Sequence[int] = 64,
    seeds: int | Iterable[int] = range(20),
    optimizer: str = "adam",
    steps: int = 2000,
    *,
    learning_rate: float | None = None,
    schedule: str = "cosine",
    batch_size: int | None = None,
    scale: float = 1.0,
    start: Parameters | None = None,
    record_every: int | None = None,
    snapshots: Iterable[int] = (),
    polish: bool = False,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float64",
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
        seeds: one network a seed and width; a network depends on its own seed and width only,
            up to rounding (of padding, and of where a matrix lies in memory), which L-BFGS
            amplifies.
        optimizer: "sgd", "momentum", "adam", "adamw", "muon" or "lbfgs" (full batch only).
        steps: gradient steps.
        learning_rate: peak rate (L-BFGS searches for its own).  The default of sgd and momentum
            is divided by an estimate of the loss's curvature along the data and by the scale of
            the targets, since losses are sums.
        schedule: "cosine" to zero, "constant", or "decay" (1/(1 + 9 t/T)).
        batch_size: samples a step; None takes all.
        scale: factor on the architecture's initial weights.
        start: parameters to begin from (leading axis over runs) instead of random ones; widths
            are theirs, and seeds are kept if there is one a run, otherwise 0, 1, ….
        record_every: steps between entries of the trace (default: about 200 entries).
        snapshots: steps before which the parameters are kept, 0 the start and ``steps`` the end
            (see `Runs.snapshots`).
        polish: end with `landscape.training.polish`.
        device: where to compute.
        dtype: of parameters and data, "float64" or "float32".
        progress: show a bar.
        throw: raise if a run diverges; otherwise its objective is not finite and ``status``
            names it.
        **options: of the optimiser: momentum; beta1, beta2, epsilon; decoupled_decay; memory.

    Returns:
        The runs, width-major: ``runs.objectives.reshape(len(widths), len(seeds))``.

    Raises:
        BadInput: naming an argument that does not fit.
        NotConverged: if a run's objective is not finite at the end.
    """
    widths, seeds = _wholes("width", width), _wholes("seeds", seeds, least=0)
    _check(optimizer, schedule, batch_size, len(problem.X), options)
    if batch_size is not None and len(problem.y) > len(problem.X):
        raise BadInput(
            f"batch_size is {batch_size}: architecture {problem.architecture.label} has several "
            "outputs side by side and takes the full batch; leave batch_size out."
        )
    _check_numbers(optimizer, steps, learning_rate, scale, record_every)
    wanted = _moments(snapshots, steps)
    kind = DTYPES.get(str(dtype).removeprefix("torch."))
    if kind is None:
        raise unknown("dtype", dtype, DTYPES)
    if start is None:
        start = padded([problem.architecture.initial(problem, w, seeds, scale) for w in widths])
        of_width = np.repeat(widths, len(seeds))
        of_seed = np.tile(seeds, len(widths))
    else:
        of_width = _widths(problem, start)
        start = _attached(problem, start)
        of_seed = np.asarray(seeds if len(seeds) == len(of_width) else range(len(of_width)))
    parameters = {k: v.detach().clone().to(device=device, dtype=kind) for k, v in start.items()}
    every = record_every or max(1, steps // 200)
    recorder = _Recorder(problem, every, steps, progress, wanted)
    if optimizer == "lbfgs":
        parameters = _second_order(problem, parameters, steps, recorder, options)
        minimises = "the regularised objective"
    else:
        rule = RULES[optimizer]
        minimises = rule.minimises
        stiffness = None
        if learning_rate is None:
            learning_rate = rule.learning_rate
            stiffness = _lipschitz(problem, parameters) if rule.relative else None
        if optimizer == "adamw":
            options = {"decoupled_decay": 0.01, **options}
        rate = (learning_rate, stiffness)
        _first_order(
            problem, parameters, rule, rate, schedule, steps, batch_size, of_seed, recorder, options
        )
    with torch.no_grad():
        objectives = problem.objective(parameters).cpu().numpy().astype(np.float64)
    trace = recorder.finish(objectives, parameters)
    lost = np.flatnonzero(~np.isfinite(objectives))
    status = f"{optimizer} ran {steps} steps on {len(objectives)} networks."
    if len(lost):
        which = ", ".join(f"width {of_width[i]} seed {of_seed[i]}" for i in lost[:5])
        status = (
            f"{len(lost)} of {len(objectives)} runs of {optimizer} diverged "
            f"({which}{', …' if len(lost) > 5 else ''}); lower learning_rate or scale."
        )
        if throw:
            raise NotConverged(status)
    runs = Runs(
        architecture=problem.architecture,
        parameters=parameters,
        objectives=objectives,
        **trace,
        widths=of_width,
        seeds=of_seed,
        optimizer=optimizer,
        minimises=minimises,
        status=status,
    )
    return polish_runs(problem, runs) if polish else runs


class _Recorder:
    """Collects trace and snapshots; time spent on that is not counted as training."""

    def __init__(
        self, problem: Problem, every: int, steps: int, progress: bool, wanted: list[int]
    ) -> None:
        self.every, self.steps, self.wanted = every, steps, wanted
        self.kept: list[Parameters] = []
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

    def kept_at(self, step: int) -> bool:
        return len(self.kept) < len(self.wanted) and self.wanted[len(self.kept)] == step

    def keep(self, parameters: Parameters) -> None:
        self.pause()
        self.kept.append({k: v.detach().cpu().clone() for k, v in parameters.items()})
        self.resume()

    def finish(self, objectives: NDArray[np.float64], parameters: Parameters) -> dict[str, Any]:
        if not self.rows or self.rows[-1][0] != self.steps:
            self.note(self.steps, torch.as_tensor(objectives))
        while len(self.kept) < len(self.wanted):  # the end, or steps that L-BFGS did not need
            self.keep(parameters)
        self.bar.close()
        steps, seconds, values = zip(*self.rows, strict=True)
        found: dict[str, Any] = {
            "trace": torch.stack(list(values), dim=1).numpy().astype(np.float64),
            "trace_steps": np.asarray(steps),
            "trace_seconds": np.asarray(seconds),
        }
        if self.kept:
            found["snapshot_steps"] = np.asarray(self.wanted)
            found["snapshots"] = {k: torch.stack([one[k] for one in self.kept]) for k in parameters}
        return found


def _first_order(
    problem: Problem,
    parameters: Parameters,
    rule: Any,
    rate: tuple[float, torch.Tensor | None],
    schedule: str,
    steps: int,
    batch_size: int | None,
    seeds: NDArray[np.int64],
    recorder: _Recorder,
    options: Mapping[str, float],
) -> None:
    """Run a gradient rule; parameters change in place."""
    peak, stiffness = rate
    names = [k for k in parameters if k not in problem.architecture.fixed]
    values = [parameters[k] for k in names]
    update = rule.make(names, values, dict(options))
    decoupled = "decoupled_decay" in options
    gradients_of = Gradients(problem, values[0], penalised=not decoupled)
    batches = None if batch_size is None else _batches(seeds, len(problem.y), batch_size)
    for step in range(steps):
        if recorder.kept_at(step):
            recorder.keep(parameters)
        batch = None if batches is None else next(batches).to(values[0].device)
        # A full-batch gradient of the objective gives the trace on the way.
        shared = recorder.due(step) and batch is None and not decoupled
        if recorder.due(step) and not shared:
            recorder.pause()
            with torch.no_grad():
                value = problem.objective(parameters)
            recorder.resume()
            recorder.note(step, value)
        found, gradients = gradients_of(parameters, names, batch, wanted=shared)
        if found is not None:
            recorder.note(step, found)
        with torch.no_grad():
            if stiffness is not None:
                for gradient in gradients:
                    gradient.div_(stiffness.reshape(-1, *[1] * (gradient.ndim - 1)))
            update(gradients, peak * _factor(schedule, step, steps))


def _batches(seeds: NDArray[np.int64], n: int, size: int) -> Iterator[torch.Tensor]:
    """Yield index arrays (S, b): each run walks through its own shuffles of the samples.

    A shuffle's last n mod b samples are left out, other ones every time.
    """
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
    flat = Flat(problem, parameters)

    def record(iteration: int, points: torch.Tensor, values: torch.Tensor) -> None:
        if recorder.due(iteration):
            recorder.note(iteration, values)
        if recorder.kept_at(iteration):
            recorder.keep(flat.parameters(points))

    return flat.parameters(
        lbfgs(flat, flat.start, steps, record, memory=int(options.get("memory", 20)))
    )


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
        if v.ndim == 3
        else v.reshape(len(v), -1).norm(dim=1) ** 2
        for k, v in parameters.items()
        if k not in problem.architecture.fixed
    )
    return spectral**2 * torch.as_tensor(start).clamp(min=fitting)


def _widths(problem: Problem, start: Parameters) -> NDArray[np.int64]:
    """Check parameters to start from; return the number of neurons of each run."""
    expected = problem.architecture.initial(problem, 1, [0])
    if set(start) != set(expected):
        raise BadInput(f"start has {', '.join(start)}: it must have {', '.join(expected)}.")
    lengths = {v.shape[0] if v.ndim else 0 for v in start.values()}
    if "output" in start and start["output"].ndim > 1 and start["output"].shape[1]:
        expected = problem.architecture.initial(problem, start["output"].shape[1], [0])
    for name, value in start.items():
        like = expected[name]
        if value.ndim != like.ndim or len(lengths) != 1 or 0 in value.shape:
            raise BadInput(
                f"start[{name!r}] has shape {tuple(value.shape)}: every parameter needs the same "
                f"leading axis over runs, as in {tuple(like.shape)} for one run of width 1."
            )
        if not bool(torch.isfinite(value).all()):
            raise BadInput(f"start[{name!r}] has NaN or infinite entries.")
        if value.shape[2:] != like.shape[2:]:
            raise BadInput(
                f"start[{name!r}] has shape {tuple(value.shape)}, which does not fit the problem: "
                f"its axes after the first two must be {tuple(like.shape[2:])}."
            )
    if "output" not in start:
        return np.full(lengths.pop(), max(v.shape[1] for v in start.values() if v.ndim > 1))
    output = start["output"].reshape(*start["output"].shape[:2], -1)
    used = (start["hidden"] != 0).flatten(2).any(2) | (output != 0).any(2)
    return used.sum(1).cpu().numpy()


def _attached(problem: Problem, start: Parameters) -> Parameters:
    """Return runs that carry this problem's inputs where they carry any, refusing others."""
    runs = len(next(iter(start.values())))
    own = [
        problem.architecture.attached(problem, {k: v[i] for k, v in start.items()})
        for i in range(runs)
    ]
    return {k: torch.stack([one[k] for one in own]) for k in start}


def _moments(snapshots: Iterable[int], steps: int) -> list[int]:
    """Check the steps of snapshots; return them ascending."""
    listed = list(snapshots)
    if not listed:
        return []
    found = sorted(set(_wholes("snapshots", listed, least=0)))
    if found[-1] > steps:
        raise BadInput(f"snapshots holds {found[-1]}: training ends after {steps} steps.")
    return found


def _wholes(name: str, values: int | Iterable[int], least: int = 1) -> list[int]:
    return wholes(name, [values] if isinstance(values, (int, np.integer)) else values, least)


def _check(
    optimizer: str, schedule: str, batch_size: int | None, n: int, options: Mapping[str, float]
) -> None:
    """Refuse names that do not exist and mini-batches that cannot be."""
    if optimizer not in OPTIONS:
        raise unknown("optimizer", optimizer, OPTIONS)
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    if batch_size is not None and not 1 <= batch_size <= n:
        raise BadInput(f"batch_size is {batch_size}: it must lie between 1 and n = {n}.")
    if batch_size is not None and optimizer == "lbfgs":
        raise BadInput("batch_size: L-BFGS needs the full batch; leave batch_size out.")
    for option in options:
        if option not in OPTIONS[optimizer]:
            raise unknown(f"option of optimizer {optimizer!r}", option, OPTIONS[optimizer])


def _check_numbers(
    optimizer: str, steps: int, rate: float | None, scale: float, every: int | None
) -> None:
    """Refuse numbers out of range, and a rate that nothing would use."""
    for name, value in (("steps", steps), ("record_every", 1 if every is None else every)):
        whole(name, value)
    if rate is not None and optimizer == "lbfgs":
        raise BadInput("learning_rate: L-BFGS searches along lines; leave learning_rate out.")
    if rate is not None and not 0 <= rate < np.inf:
        raise BadInput(f"learning_rate is {rate!r}: it must be a finite number ≥ 0.")
    if not 0 < scale < np.inf:
        raise BadInput(f"scale is {scale!r}: it must be a positive finite number.")
