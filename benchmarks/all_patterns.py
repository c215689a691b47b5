"""The optimum over all patterns: ours against Adam and other generators of neurons, in one run.

    python benchmarks/all_patterns.py [instance ...] [--threads 2] [--seeds 5] [--adam 10]

Instances: planted_100_4, scaled_200_10, scaled_500_20, scaled_1000_50, diabetes, digits,
breast_cancer.  Our time counts the training that column generation starts from.
"""

from __future__ import annotations

import argparse
import statistics
import time

import generators
import harness
import numpy as np
import torch

from landscape import Problem, Solution, beta_max, data, solve, train

TOLERANCE = {
    "planted_100_4": 1e-8,
    "scaled_200_10": 1e-5,
    "scaled_500_20": 3e-2,
    "scaled_1000_50": 3e-2,
}
LIMIT = 3000
"""Cones that branch and bound may visit where it cannot end."""


def instance(name: str) -> Problem:
    """Return a benchmark problem by name."""
    kind, *numbers = name.split("_")
    if name == "breast_cancer":
        kind = name
    if kind == "scaled":
        return harness.scaled(int(numbers[0]), int(numbers[1]))
    if kind == "planted":
        sample = data.load("planted", n=int(numbers[0]), d=int(numbers[1]))
        return Problem(sample.X, sample.y, 0.1 * int(numbers[0]) ** 0.5)
    sample = data.load(kind, **({"classes": [3, 8]} if kind == "digits" else {}))
    loss = "logistic" if kind == "breast_cancer" else "squared"
    problem = Problem(sample.X, sample.y, 1.0, loss=loss)
    return problem.replace(beta=0.01 * beta_max(problem, limit=20_000))


def ours(problem: Problem, name: str, seed: int) -> tuple[float, float, Solution]:
    """Return seconds in all, those of the training it starts from, and the solution."""
    began = time.perf_counter()
    start = None
    rounds = 200
    if name == "scaled_1000_50":  # a round costs as much as ten batched networks
        options = {"learning_rate": 1e-2, "scale": 0.3, "steps": 8000}
        start = train(problem, 200, range(10 * seed, 10 * seed + 10), "adam", **options).best
        rounds = 2
    elif len(problem.y) * problem.X.shape[1] > 1000:
        start = train(problem, 300, [seed], optimizer="lbfgs", steps=300)
    trained = time.perf_counter() - began
    limit = 100_000 if name.startswith("planted") else LIMIT
    solution = solve(
        problem, start=start, seed=seed, limit=limit, tolerance=TOLERANCE.get(name, 1e-4),
        rounds=rounds, throw=False,
    )  # fmt: skip
    return time.perf_counter() - began, trained, solution


def main() -> None:
    """Run the instances, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("instances", nargs="*", default=["planted_100_4", "scaled_200_10"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--adam", type=int, default=10, help="seeds of Adam at width 200")
    parser.add_argument("--others", action="store_true", help="the other generators too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.instances:
        problem = instance(name)
        n = len(problem.y)
        print(f"{name}: {problem}, {args.threads} threads")
        record: dict = {"n": n, "d": problem.X.shape[1], "beta": problem.beta, "rows": []}
        yardstick, found, times, reach = [], [], [], []
        for seed in range(args.seeds):
            yardstick.append(harness.adam(problem, 0))
            seconds, trained, solution = ours(problem, name, seed)
            ratio = seconds / yardstick[-1][1]
            times.append(ratio)
            found.append(solution)
            # The value after every round, with the seconds since the training began.
            reach.append([(trained + h["seconds"], h["value"] / n) for h in solution.history])
            row = {
                "method": "landscape",
                "seed": seed,
                "seconds": seconds,
                "per_yardstick": ratio,
                "objective": solution.objective,
                "relative_gap": solution.certificate.relative_gap,
                "scope": solution.certificate.scope,
                "relaxed": solution.certificate.relaxed,
                "neurons": solution.active,
                "trace": reach[-1],
                "yardstick": yardstick[-1][1],
            }
            record["rows"].append(row)
            print(
                f"  seed {seed}: {seconds:.2f} s = {ratio:.2f} yardsticks, objective / n "
                f"{solution.objective / n:.10g}, {solution.certificate}"
            )
        if name == "scaled_200_10":
            for level, bar in ((0.0036553, 1.0), (0.0036533, 3.0)):
                first = [
                    next((t for t, v in trace if v <= level), np.inf) / y[1]
                    for trace, y in zip(reach, yardstick, strict=True)
                ]
                print(f"  objective/n ≤ {level}: {np.round(first, 2)} yardsticks (wanted {bar})")
        middle = statistics.median(y[1] for y in yardstick)
        print(f"  yardstick: {middle:.2f} s, objective / n {yardstick[0][0] / n:.8g}")
        print(f"  median of ratios {statistics.median(times):.2f}")
        if args.adam:
            wide = [harness.adam(problem, seed, width=200) for seed in range(args.adam)]
            best, one = min(w[0] for w in wide), statistics.median(w[1] for w in wide)
            worst = max(s.objective for s in found)
            print(
                f"  best of {args.adam} Adam, width 200: {best / n:.10g}, one run {one:.2f} s; "
                f"our worst is {'below' if worst < best else 'NOT below'}; "
                f"ours takes {statistics.median(times) * middle / one:.2f} such runs"
            )
            record["adam_200"] = {"objectives": [w[0] for w in wide], "seconds": one}
        if args.others:
            for method in (generators.conic_particles, generators.sliding_frank_wolfe):
                value, trace = method(problem)
                print(f"  {method.__name__}: {value / n:.8g} in {trace[-1][0]:.2f} s")
                record["rows"].append(
                    {"method": method.__name__, "objective": value, "seconds": trace[-1][0],
                     "trace": [(t, v / n) for t, v in trace]}
                )  # fmt: skip
        record["yardstick"] = {"seconds": middle, "objective": yardstick[0][0]}
        print(" ", harness.write(f"all_{name}", args.threads, record))


if __name__ == "__main__":
    main()
