"""``python -m analyses`` lists the analyses; ``python -m analyses all scale=quick`` runs them.

``python -m analyses matrix`` writes which of them run on which architecture.
"""

from __future__ import annotations

import ast
import difflib
import sys
import time
import traceback
from pathlib import Path

from analyses import matrix, sweep


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
    worst = 0
    for one in known if name == "all" else [name]:
        began = time.perf_counter()
        try:
            spread = name == "all" and sweep.spreads(one, overrides)
            status = sweep.run(one, [*overrides, *(["launcher=joblib"] if spread else [])])
        except Exception:  # one that breaks must not keep the others from running
            traceback.print_exc()
            status = 1
        print(f"{one}: exit status {status} after {time.perf_counter() - began:.1f} s")
        worst = max(worst, status)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
