"""Refusals: one clear sentence that names the argument, what was found and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """Input that is refused at the door; its text is a sentence for the user."""


class NotConverged(RuntimeError):
    """A method stopped before its tolerance; its text says what happened and what to try."""


def unknown(kind: str, name: object, options: Iterable[str]) -> BadInput:
    """Return the refusal of an unknown name, with the nearest known one.

    Args:
        kind: what is named, e.g. ``"loss"``.
        name: what was found.
        options: the names that exist.

    Returns:
        The exception, to be raised by the caller.
    """
    names = sorted(options)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return BadInput(f"Unknown {kind} {name!r}. {hint}Known: {', '.join(names)}.")
