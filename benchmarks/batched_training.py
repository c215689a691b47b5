"""Batched training against a sequential loop: the same networks, the same steps, one run.

    python benchmarks/batched_training.py [threads]

The loop is what a script would do: one network at a time, eager, ``torch.optim.Adam``.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from landscape import Problem, data, train

SEEDS, WIDTH, STEPS, ROUNDS = 50, 64, 300, 3


def sequential(problem: Problem) -> list[float]:
    """Train one network after the other."""
    X, y = torch.as_tensor(problem.X), torch.as_tensor(problem.y)
    final = []
    for seed in range(SEEDS):
        start = problem.architecture.initial(problem, WIDTH, [seed])
        W, a = (start[k][0].requires_grad_(True) for k in ("hidden", "output"))
        optimizer = torch.optim.Adam([W, a], lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            optimizer.zero_grad()
            fit = torch.relu(X @ W.T) @ a
            loss = 0.5 * ((fit - y) ** 2).sum()
            loss = loss + problem.beta / 2 * ((W**2).sum() + (a**2).sum())
            loss.backward()
            optimizer.step()
            schedule.step()
        final.append(float(problem.objective({"hidden": W.detach(), "output": a.detach()})))
    return final


def main() -> None:
    """Print medians of both and their ratio, and how far the results differ."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    print(f"{SEEDS} seeds, width {WIDTH}, {STEPS} Adam steps, float64, {threads} thread(s)")
    for n, d in ((50, 3), (200, 10)):
        sample = data.load("planted" if d == 3 else "scaled", n=n, d=d)
        problem = Problem(sample.X, sample.y, sample.beta)
        loop, batch = [], []
        for _ in range(ROUNDS):  # interleaved, so that both see the same machine
            began = time.perf_counter()
            runs = train(problem, WIDTH, range(SEEDS), "adam", STEPS, learning_rate=1e-2)
            batch.append(time.perf_counter() - began)
            began = time.perf_counter()
            final = sequential(problem)
            loop.append(time.perf_counter() - began)
        ratio = statistics.median([a / b for a, b in zip(loop, batch, strict=True)])
        worst = max(abs(runs.objectives - final) / final)
        print(
            f"n={n:4} d={d:3}: loop {statistics.median(loop):.2f} s, batch "
            f"{statistics.median(batch):.2f} s, ratio {ratio:.1f}, results differ by {worst:.1e}"
        )


if __name__ == "__main__":
    main()
