"""The program over given patterns: ours against Clarabel, adelie and pyscnn, side by side.

    python benchmarks/given_patterns.py [n d P] [--threads 2] [--rounds 3] [--peers adelie,scnn]
        [--architecture gated_relu]

Peers come from benchmarks/peers/build.sh.  Rounds are interleaved; medians are printed.
"""

from __future__ import annotations

import argparse
import resource
import time

import harness
import torch

from landscape import solve
from landscape.bounds import lower_bound


def main() -> None:
    """Run and print one table; write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", type=int, nargs="*", default=[200, 10, 200])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="clarabel,adelie,scnn")
    parser.add_argument("--architecture", default="two_layer_relu")
    parser.add_argument("--tolerance", type=float, default=1e-8)
    args = parser.parse_args()
    n, d, count = args.size
    torch.set_num_threads(args.threads)
    problem = harness.scaled(n, d, args.architecture)
    patterns = harness.random_patterns(problem, count)
    gated = args.architecture == "gated_relu"
    solve(problem, patterns[range(5)], tolerance=1e-3, throw=False)  # imports and first touches
    rows: dict[str, list] = {}
    for turn in range(args.rounds):
        began = time.perf_counter()
        solution = solve(problem, patterns, tolerance=args.tolerance, throw=False)
        own = {
            "method": "landscape",
            "seconds": time.perf_counter() - began,  # with certificate and network
            "setup": 0.0,
            "objective": solution.objective,
            "violation": solution.certificate.violation,
            "note": solution.status,
        }
        rows.setdefault("landscape", []).append(own)
        objective, seconds = harness.adam(harness.scaled(n, d))
        rows.setdefault("adam", []).append(
            {"method": "adam (yardstick)", "seconds": seconds, "objective": objective,
             "setup": 0.0, "violation": 0.0, "note": "free patterns; one thread"}
        )  # fmt: skip
        for name in filter(None, args.peers.split(",")):
            slow = rows.get(name, [{}])[-1]
            if turn and (slow.get("missing") or slow.get("seconds", 0) > 60):
                continue  # once is enough
            if name == "clarabel":
                row = harness.clarabel(problem, patterns)
            else:
                tolerance = 1e-11 if gated else 1e-9
                row = harness.peer(name, problem, patterns, args.threads, tolerance)
            rows.setdefault(name, []).append(row)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    program = problem.architecture.program(problem, patterns)
    bound = lower_bound(program, solution.dual)[0]
    print(f"{args.architecture}, scaled({n}, {d}), P = {len(patterns)}, {args.threads} threads")
    print(f"certified optimum / n: {bound / n:.12g}; peak memory of this process {memory:.0f} MB")
    table = []
    base = harness.median(rows["landscape"], "seconds")
    for name, found in rows.items():
        if "missing" in found[0]:
            print(f"{name:10s} {found[0]['missing']}")
            table.append(found[0])
            continue
        last = found[-1]
        row = {
            "method": name,
            "seconds": harness.median(found, "seconds"),
            "setup": harness.median(found, "setup"),
            "ratio": harness.median(found, "seconds") / base,
            "relative_gap": (last["objective"] - bound) / abs(last["objective"]),
            "violation": last["violation"],
            "rounds": len(found),
            "version": last.get("version", ""),
            "note": last["note"],
        }
        table.append(row)
        print(
            f"{name:10s} {row['seconds']:9.3f} s  ×{row['ratio']:8.2f}  gap "
            f"{row['relative_gap']:9.1e}  violation {row['violation']:8.1e}  {row['note'][:60]}"
        )
    content = {"n": n, "d": d, "patterns": len(patterns), "optimum": bound, "memory_mb": memory}
    kind = "gated" if gated else "given"
    print(harness.write(f"{kind}_{n}_{d}_{count}", args.threads, {**content, "rows": table}))


if __name__ == "__main__":
    main()
