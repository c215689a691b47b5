"""A plane of the regularised objective: ours beside loss-landscapes and Landscaper.

    python benchmarks/slices.py [--points 51] [--size 500 20 100] [--threads 1] [--rounds 7]

Every side draws one plane around the same network in one process a turn, full batch, the same
objective and dtype; rounds are interleaved and medians printed, with five properties of each
picture.  Peers come from benchmarks/peers/build.sh; a missing one is reported.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

from landscape import Problem, slices

PEERS = ("loss_landscapes", "landscaper")


def main() -> None:
    """Run and print one table for each dtype; write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=51)
    parser.add_argument("--size", type=int, nargs=3, default=[500, 20, 100])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    n, d, width = args.size
    problem = harness.scaled(n, d)
    start = problem.architecture.initial(problem, width, [0])
    network = {name: value[0] for name, value in start.items()}
    print(f"{args.points} x {args.points} points, n = {n}, d = {d}, {width} neurons")
    rows = []
    for dtype in ("float32", "float64"):
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(args.rounds):
            found.setdefault("landscape", []).append(ours(problem, network, args.points, dtype))
            for name in PEERS:
                if "missing" not in found.get(name, [{}])[-1]:
                    row = peer(name, problem, network, args.points, dtype, args.threads)
                    found.setdefault(name, []).append(row)
        fastest = statistics.median(row["cpu"] for row in found["landscape"])
        for name, runs in found.items():
            row = {"method": name, "dtype": dtype, **runs[-1]}
            if "missing" not in row:
                for key in ("seconds", "cpu"):
                    row[key] = statistics.median(run[key] for run in runs)
                row |= {"ratio": row["cpu"] / fastest, "rounds": len(runs)}
            rows.append(row)
            print(line(row))
    name = f"slices_{n}_{d}_{width}"
    print(harness.write(name, args.threads, {"points": args.points, "rows": rows}))


def line(row: dict[str, Any]) -> str:
    """Return one row of the table as text."""
    if "missing" in row:
        return f"{row['dtype']:8} {row['method']:16} {row['missing']}"
    kept = {True: "kept", False: "LOST"}
    return (
        f"{row['dtype']:8} {row['method']:16} {row['cpu']:6.3f} CPU s {row['seconds']:6.3f} s "
        f"x{row['ratio']:5.2f}  NaN {kept[row['nan_kept']]}, centre off by "
        f"{row['centre_error']:.0e}, |cos| {row['cosine']:.0e}, caller's network moved "
        f"{row['moved']:.0e}, axes {kept[row['axes_kept']]}"
    )


def ours(problem: Problem, network: dict, points: int, dtype: str) -> dict[str, Any]:
    """Draw our plane, and look at the same five properties."""
    before = {name: value.clone() for name, value in network.items()}
    slices.around(problem, network, points=5, dtype=dtype)  # first touches
    began, used = time.perf_counter(), time.process_time()
    found = slices.around(problem, network, points=points, dtype=dtype)
    row = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}
    wild = (np.array([0.0, 1e200]),) * 2  # beyond the range of floating point but at the centre
    spoilt = slices.evaluate(problem, found.origin, found.directions, wild)
    middle = [int(np.argmin(abs(axis))) for axis in found.axes]
    axes = (np.linspace(-1.0, 1.0, 5), np.linspace(-1.0, 1.0, 6))
    small = slices.evaluate(problem, found.origin, found.directions, axes)
    turned = slices.evaluate(problem, found.origin, found.directions[::-1], axes[::-1])
    return row | {
        "version": harness.version("landscape"),
        "nan_kept": np.isfinite(spoilt).tolist() == [[True, False], [False, False]],
        "centre_error": abs(found.objectives[*middle] / float(problem.objective(network)) - 1),
        "cosine": found.sanity["largest_cosine"],
        "moved": max(float((before[k] - network[k]).abs().max()) for k in before),
        "axes_kept": small.shape == (5, 6) and bool(np.allclose(small, turned.T, rtol=1e-12)),
    }


def peer(
    name: str, problem: Problem, network: dict, points: int, dtype: str, threads: int
) -> dict[str, Any]:
    """Run a peer in its own process and environment."""
    python = harness.PEERS / name / "bin" / "python"
    if not python.exists():
        return {"missing": f"{name} is not built: run benchmarks/peers/build.sh"}
    with tempfile.TemporaryDirectory() as folder:
        there, back = Path(folder, "task.npz"), Path(folder, "done.npz")
        np.savez(
            there, X=problem.X, y=problem.y, hidden=network["hidden"], output=network["output"],
            beta=problem.beta, points=points, dtype=dtype, threads=threads, rounds=1,
        )  # fmt: skip
        command = [str(python), str(harness.HERE / "peers" / f"run_{name}.py"), there, back]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
        if done.returncode or not back.exists():
            lines = done.stderr.strip().splitlines() or ["no output"]
            return {"missing": f"{name} failed: {lines[-1]}"}
        with np.load(back, allow_pickle=False) as found:
            return {key: found[key].item() for key in found.files}


if __name__ == "__main__":
    main()
