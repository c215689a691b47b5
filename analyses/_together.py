"""Several analyses at once, each in a process of its own."""

from __future__ import annotations

import io
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout

from analyses import sweep


def run(name: str, overrides: list[str]) -> int:
    """Run one analysis; return its exit status, 1 if it breaks."""
    began = time.perf_counter()
    try:
        status = sweep.run(name, list(overrides))
    except Exception:  # whatever breaks: it is printed with its trace, status 1, the others run on
        traceback.print_exc()
        status = 1
    print(f"{name}: exit status {status} after {time.perf_counter() - began:.1f} s", flush=True)
    return status


def beside(names: list[str], overrides: list[str], workers: int) -> Iterator[int]:
    """Run analyses in processes of their own, and print what each says once it has ended."""
    context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = {pool.submit(_heard, name, overrides): name for name in names}
        for future in as_completed(running):
            try:
                status, said = future.result()
            except BrokenProcessPool:
                status, said = 1, f"{running[future]}: a worker was killed; run it again to resume."
            print(said.rstrip(), file=sys.stderr if status else sys.stdout, flush=True)
            yield status


def _heard(name: str, overrides: list[str]) -> tuple[int, str]:
    """Run one analysis; return its exit status and all that it has said."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        return run(name, overrides), said.getvalue()


def seconds(name: str) -> float:
    """Return what an analysis took when its committed results were computed: longest go first."""
    try:
        file = sweep.CONF.parent / "results" / name / "manifest.json"
        return float(json.loads(file.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError):
        return float("inf")
