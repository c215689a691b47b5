"""Nuclear norms over given patterns: ours against cvxpy with Clarabel and with SCS, side by side.

    python benchmarks/nuclear.py [n d c P] [--share 0.1] [--threads 1] [--rounds 3] [--limit 600]
        [--device cpu]

β is a share of β_max.  Peers run once, in a process of their own that is stopped at the limit: a
ratio is then only bounded from below, and printed so.  Every objective is computed anew from the
returned blocks, and its gap is to our certified bound, so that accuracies can be compared.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from typing import Any

import harness
import numpy as np
import torch

from landscape import Problem, arrangements, solve
from landscape.architectures import GatedReLU
from landscape.bounds import beta_max, bound_over, relative_gap
from landscape.programs import Program
from landscape.solvers.restricted import minimise

PEERS = {
    "clarabel": {"tol_gap_rel": 1e-8, "tol_gap_abs": 1e-8, "tol_feas": 1e-8},
    "scs": {"eps_abs": 1e-7, "eps_rel": 1e-7, "max_iters": 1_000_000},
}


def instance(
    n: int, d: int, c: int, count: int, share: float
) -> tuple[Problem, arrangements.Arrangements]:
    """Return a teacher of 8 neurons with c outputs and noise, and the patterns of its gates."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    Y = np.maximum(X @ rng.standard_normal((d, 8)), 0) @ rng.standard_normal((8, c))
    Y += 0.5 * rng.standard_normal((n, c))
    problem = Problem(X, Y, 1.0, architecture=GatedReLU(outputs="nuclear"))
    patterns = harness.random_patterns(problem, count)
    return problem.replace(beta=share * beta_max(problem, patterns)), patterns


def peer(name: str, program: Program, back: Any) -> None:
    """Solve with cvxpy and send seconds (compilation apart), blocks and a note back."""
    import cvxpy

    theta = cvxpy.Variable((program.atoms.dimension, program.atoms.size * program.y.shape[1]))
    outputs = cvxpy.Variable(program.y.shape)
    goal = program.loss.expression(outputs, program.y)
    goal = goal + program.beta * program.gauge.expression(theta)
    task = cvxpy.Problem(cvxpy.Minimize(goal), [outputs == program.atoms.expression(theta)])
    began = time.perf_counter()
    task.get_problem_data(name.upper())
    setup = time.perf_counter() - began
    back.send(("setup", setup))
    began = time.perf_counter()
    task.solve(solver=name.upper(), **PEERS[name])
    seconds = task.solver_stats.solve_time or time.perf_counter() - began
    blocks = np.stack(np.split(np.asarray(theta.value), program.atoms.size, axis=1))
    back.send(("done", float(seconds), blocks, str(task.status)))


def timed_peer(name: str, program: Program, limit: float) -> dict[str, Any]:
    """Return a peer's row; ``ended`` says whether it did within the limit."""
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=peer, args=(name, program, there))
    began = time.perf_counter()
    worker.start()
    setup = float("nan")
    while here.poll(max(0.0, limit - (time.perf_counter() - began))):
        message = here.recv()
        if message[0] == "setup":
            setup = message[1]
            continue
        worker.join()
        _, seconds, blocks, status = message
        value = program.value(blocks, np.zeros((0, program.y.shape[1])))
        return {"method": name, "seconds": seconds, "setup": setup, "objective": value,
                "ended": True, "note": f"cvxpy, {PEERS[name]}; {status}"}  # fmt: skip
    worker.terminate()
    worker.join()
    spent = limit if np.isnan(setup) else limit - setup
    return {"method": name, "seconds": spent, "setup": setup, "ended": False,
            "note": f"stopped after {limit:.0f} s in all"}  # fmt: skip


def main() -> None:
    """Run and print one table; write its record."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("size", type=int, nargs="*", default=[500, 20, 10, 100])
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=600.0)
    parser.add_argument("--peers", default="clarabel,scs")
    parser.add_argument("--tolerance", type=float, default=1e-8)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    n, d, c, count = args.size
    torch.set_num_threads(args.threads)
    problem, patterns = instance(n, d, c, count, args.share)
    program = problem.architecture.program(problem, patterns)
    solve(problem, patterns[range(3)], tolerance=1e-2, device=args.device, throw=False)
    times = []
    for _ in range(args.rounds):
        began = time.perf_counter()
        found = minimise(program, args.tolerance, throw=False, device=args.device)
        times.append(time.perf_counter() - began)
    bound = bound_over(program, found.nu).value
    sizes = np.linalg.svd(found.theta, compute_uv=False)
    own = {"method": "landscape", "seconds": float(np.median(times)), "setup": 0.0, "ended": True,
           "objective": found.value, "note": found.status}  # fmt: skip
    rows = [own]
    print(f"n, d, c, P = {n}, {d}, {c}, {len(patterns)}; β = {args.share:g} β_max = "
          f"{problem.beta:.6g}; {args.threads} threads; {args.device}")  # fmt: skip
    print(f"certified bound {bound:.12g}; {int((sizes.max(axis=1) > 0).sum())} active blocks, "
          f"ranks add up to {int((sizes > 1e-9 * sizes.max()).sum())}")  # fmt: skip
    rows += [timed_peer(name, program, args.limit) for name in filter(None, args.peers.split(","))]
    for row in rows:
        row["ratio"] = row["seconds"] / own["seconds"]
        gap = "—"
        if row["ended"]:
            row["relative_gap"] = relative_gap(row["objective"], bound, 0.0)
            gap = f"{row['relative_gap']:.1e}"
        more = "=" if row["ended"] else ">"
        print(f"{row['method']:10s} {more} {row['seconds']:9.3f} s  ratio {more} "
              f"{row['ratio']:8.1f}  gap {gap:>8s}  {row['note'][:80]}", flush=True)  # fmt: skip
    content = {"n": n, "d": d, "c": c, "patterns": len(patterns), "share": args.share,
               "beta": problem.beta, "bound": bound, "device": args.device}  # fmt: skip
    name = f"nuclear_{n}_{d}_{c}_{count}_{args.share:g}"
    name += "" if args.device == "cpu" else f"_{args.device}"
    print(harness.write(name, args.threads, {**content, "rows": rows}))


if __name__ == "__main__":
    main()
