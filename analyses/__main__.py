"""``python -m analyses`` lists the analyses; ``python -m analyses all scale=quick`` runs them.

As many run at once as there are cores; those that time their cells run alone, after the others.
``python -m analyses matrix`` writes which of them run on which architecture.
"""

from __future__ import annotations

import ast
import difflib
import os
import sys
from pathlib import Path

from analyses import _together as together
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
        return together.run(name, overrides)
    names, workers = list(known), os.cpu_count() or 1
    if workers == 1 or any(o.startswith(("launcher=", "hydra/launcher=", "-")) for o in overrides):
        return max(together.run(one, overrides) for one in names)
    alone = [one for one in names if _timed(one, overrides)]
    beside = sorted(set(names) - set(alone), key=together.seconds, reverse=True)
    worst = max(together.beside(beside, overrides, workers), default=0)
    return max([worst, *(together.run(one, overrides) for one in alone)])


def _timed(name: str, overrides: list[str]) -> bool:
    try:
        return sweep.timed(name, overrides)
    except BadInput:  # running it will say what is wrong
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
