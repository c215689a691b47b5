"""What the benchmarks share: instances, the yardstick, peers in their own environments, records."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape import Problem, arrangements, data
from landscape.architectures import get
from landscape.programs import Program

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = ROOT / "build" / "peers"


def scaled(n: int, d: int, architecture: str = "two_layer_relu") -> Problem:
    """Return the instance `scaled` with β = 0.001 n."""
    sample = data.load("scaled", n=n, d=d)
    return Problem(sample.X, sample.y, 0.001 * n, architecture=get(architecture))


def random_patterns(problem: Problem, count: int, seed: int = 0) -> arrangements.Arrangements:
    """Return the patterns of Gaussian gates."""
    gates = np.random.default_rng(seed).standard_normal((count, problem.design.shape[1]))
    return arrangements.of(gates, problem.design)


def adam(
    problem: Problem, seed: int = 0, width: int = 100, steps: int = 8000
) -> tuple[float, float]:
    """Train one network plainly; width 100 is the yardstick.  One thread, eager, no tricks.

    Returns:
        The objective in the project's units, and seconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    X, y = torch.as_tensor(problem.X), torch.as_tensor(problem.y)
    n, d = X.shape
    draw = torch.Generator().manual_seed(seed)
    W = torch.randn(width, d, generator=draw, dtype=torch.float64) * 0.3 / d**0.5
    a = torch.randn(width, generator=draw, dtype=torch.float64) * 0.3 / width**0.5
    W.requires_grad_()
    a.requires_grad_()
    optimizer = torch.optim.Adam([W, a], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    began = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad()
        fit = torch.relu(X @ W.T) @ a
        loss = problem.loss.value(fit, y)
        loss = (loss + problem.beta / 2 * ((W**2).sum() + (a**2).sum())) / n
        loss.backward()
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - began
    torch.set_num_threads(threads)
    values = {"hidden": W.detach(), "output": a.detach()}
    return float(problem.objective(values)), seconds


def peer(
    name: str,
    problem: Problem,
    patterns: arrangements.Arrangements,
    threads: int,
    tolerance: float,
    limit: int = 1500,
) -> dict[str, Any]:
    """Run a peer in its own process; objective and violation are recomputed here in float64.

    Returns:
        A row with seconds, objective, violation, version, note; or with ``missing``, a sentence.
    """
    python = PEERS / name / "bin" / "python"
    if not python.exists():
        return {"method": name, "missing": f"{name} is not built: run benchmarks/peers/build.sh"}
    gated = problem.architecture.name == "gated_relu"
    with tempfile.TemporaryDirectory() as folder:
        there, back = Path(folder, "task.npz"), Path(folder, "done.npz")
        np.savez(
            there, X=problem.X, y=problem.y, masks=np.asarray(patterns), gates=patterns.gates,
            beta=problem.beta, gated=gated, tolerance=tolerance, threads=threads,
        )  # fmt: skip
        command = [str(python), str(HERE / "peers" / f"run_{name}.py"), str(there), str(back)]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return {"method": name, "missing": f"{name} did not end within {limit} s"}
        if done.returncode or not back.exists():
            lines = done.stderr.strip().splitlines() or ["no output"]
            return {"method": name, "missing": f"{name} failed: {lines[-1]}"}
        with np.load(back, allow_pickle=False) as found:
            out = {key: found[key] for key in found.files}
    if "masks" in out:
        gates = np.zeros((len(out["masks"]), problem.design.shape[1]))
        patterns = arrangements.Arrangements.from_bool(out["masks"], gates)
    program = problem.architecture.program(problem, patterns)
    nothing = np.zeros(program.free.shape[1])
    return {
        "method": name,
        "seconds": float(out["seconds"]),
        "setup": float(out["setup"]),
        "objective": program.value(out["theta"], nothing),
        "violation": violation(program, out["theta"]),
        "version": str(out["version"]),
        "note": str(out["note"]),
    }


def clarabel(problem: Problem, patterns: arrangements.Arrangements) -> dict[str, Any]:
    """Solve with cvxpy and Clarabel; compilation and Clarabel's own time apart."""
    import cvxpy

    program = problem.architecture.program(problem, patterns)
    theta = cvxpy.Variable((program.atoms.dimension, program.atoms.size))
    outputs = cvxpy.Variable(len(program.y))
    rows = [] if program.cones is None else program.cones.constraints(theta)
    goal = program.loss.expression(outputs, program.y)
    goal = goal + program.beta * program.gauge.expression(theta)
    task = cvxpy.Problem(cvxpy.Minimize(goal), [*rows, outputs == program.atoms.expression(theta)])
    began = time.perf_counter()
    task.get_problem_data(cvxpy.CLARABEL)
    compiled = time.perf_counter() - began
    task.solve(solver=cvxpy.CLARABEL)
    found = np.ascontiguousarray(theta.value.T)
    return {
        "method": "clarabel",
        "seconds": float(task.solver_stats.solve_time),
        "setup": compiled,
        "objective": program.value(found, np.zeros(0)),
        "violation": violation(program, found),
        "version": version("clarabel"),
        "note": f"cvxpy {version('cvxpy')}, default tolerances; {task.status}",
    }


def violation(program: Program, theta: np.ndarray) -> float:
    """Return the cone violation of the blocks that are more than a millionth of the largest."""
    sizes = program.gauge.value(theta)
    return program.violation(np.where(sizes[:, None] > 1e-6 * sizes.max(), theta, 0.0))


def median(rows: list[dict[str, Any]], key: str) -> float:
    """Return the median of a column."""
    return statistics.median(row[key] for row in rows)


def write(name: str, threads: int, content: dict[str, Any]) -> Path:
    """Write a stamped record, so that figures can be redrawn without the peers."""
    cpu = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as lines:
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    stamp = {
        "date": date.today().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {k: version(k) for k in ("landscape", "numpy", "scipy", "torch")},
    }
    path = HERE / "records" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"stamp": stamp, **content}, indent=1) + "\n")
    return path
