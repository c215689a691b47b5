"""``python -m analyses`` lists the analyses; ``python -m analyses all scale=quick`` runs them.

As many run at once as there are cores; those that time their cells run alone, after the others.
``python -m analyses matrix`` writes which of them run on which architecture.
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from analyses import matrix, sweep
from landscape.errors import BadInput


def listed() -> dict[str, str]:
    """Return every analysis with the first line of its text."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        if file.stem not in ("sweep", "matrix"):
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            found[file.stem] = text.splitlines()[0]
    return found


def main(arguments: list[str]) -> int:
    """List, or run one or all."""
    known = listed()
    if not arguments:
        print("\n".join(f"{name:20} {text}" for name, text in known.items()))
        return 0
    name, *overrides = arguments
    if name == "matrix":
        file = sweep.CONF.parent / "results" / "matrix.md"
        file.write_text(matrix.page(list(known)), encoding="utf-8")
        print(f"written to {file}")
        return 0
    if name != "all" and name not in known:
        near = difflib.get_close_matches(name, [*known, "all"], n=1, cutoff=0.3)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        print(f"Unknown analysis {name!r}.{hint} Known: all, {', '.join(known)}.", file=sys.stderr)
        return 2
    if name != "all":
        return _run(name, overrides)
    names, workers = list(known), os.cpu_count() or 1
    if workers == 1 or any(o.startswith(("launcher=", "hydra/launcher=", "-")) for o in overrides):
        return max(_run(one, overrides) for one in names)
    alone = [one for one in names if _timed(one, overrides)]
    beside = sorted(set(names) - set(alone), key=_seconds, reverse=True)
    return max([*_beside(beside, overrides, workers), *(_run(one, overrides) for one in alone)])


def _timed(name: str, overrides: list[str]) -> bool:
    try:
        return sweep.timed(name, overrides)
    except BadInput:  # running it will say what is wrong
        return False


def _run(name: str, overrides: list[str]) -> int:
    """Run one analysis; return its exit status, 1 if it breaks."""
    began = time.perf_counter()
    try:
        status = sweep.run(name, list(overrides))
    except Exception:  # one that breaks must not keep the others from running
        traceback.print_exc()
        status = 1
    print(f"{name}: exit status {status} after {time.perf_counter() - began:.1f} s", flush=True)
    return status


def _beside(names: list[str], overrides: list[str], workers: int) -> Iterator[int]:
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
        return _run(name, overrides), said.getvalue()


def _seconds(name: str) -> float:
    """Return what an analysis took when its committed results were computed: longest go first."""
    try:
        file = sweep.CONF.parent / "results" / name / "manifest.json"
        return float(json.loads(file.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError):
        return float("inf")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
