"""Enumeration of all patterns and proof without it, against the yardstick, in one run.

python benchmarks/enumeration.py [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time

import harness
import numpy as np
import torch

from landscape import Problem, arrangements, data, solve
from landscape.pricing import supremum


def main() -> None:
    """Print times of enumeration at n = 100, d = 4 and of proofs at d = 3, 4, 5."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--largest", type=int, default=5, help="largest d of the proofs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    sample = data.load("planted", n=100, d=4)
    problem = Problem(sample.X, sample.y, 1.0)
    seconds, ratios = [], []
    for _ in range(3):
        yard = harness.adam(problem)[1]
        began = time.perf_counter()
        every = arrangements.enumerate(problem.design)
        seconds.append(time.perf_counter() - began)
        ratios.append(seconds[-1] / yard)
    assert len(every) == 323_600
    row = {"what": "enumerate", "patterns": len(every), "seconds": statistics.median(seconds)}
    rows.append({**row, "per_yardstick": statistics.median(ratios)})
    print(
        f"enumerate n=100 d=4: {row['seconds']:.2f} s, {rows[-1]['per_yardstick']:.2f} yardsticks"
    )
    for d in range(3, args.largest + 1):
        sample = data.load("planted", n=100, d=d)
        problem = Problem(sample.X, sample.y, 1.0)
        solution = solve(problem, tolerance=1e-7, limit=2_000_000, throw=False)
        began = time.perf_counter()
        found = supremum(
            problem.design, solution.dual, target=problem.beta * (1 + 1e-8), nodes=2_000_000
        )
        rows.append(
            {
                "what": "prove",
                "d": d,
                "patterns": arrangements.count(100, d),
                "nodes": found.nodes,
                "exact": found.exact,
                "seconds": time.perf_counter() - began,
                "scope": solution.certificate.scope,
                "relative_gap": solution.certificate.relative_gap,
            }
        )
        print({k: v for k, v in rows[-1].items() if not isinstance(v, np.ndarray)})
    print(harness.write("enumeration", args.threads, {"rows": rows}))


if __name__ == "__main__":
    main()
