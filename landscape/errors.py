"""Refusals: one clear sentence that names the argument, what was found and what to do."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable
from typing import Any


class BadInput(ValueError):
    """Input that is refused at the door; its text is a sentence for the user."""


class DatasetUnavailable(BadInput):
    """A data set that cannot be had here; the sentence says how to get it."""


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


def whole(argument: str, value: Any, least: int = 1) -> int:
    """Return a whole number that is at least so large, or refuse it by name."""
    fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not fits or value < least:
        raise BadInput(f"{argument} is {value!r}: it must be a whole number, at least {least}.")
    return int(value)


def number(argument: str, value: Any) -> float:
    """Return a number (NaN and infinities are numbers), or refuse it by name."""
    if not _number(value):
        raise BadInput(f"{argument} is {value!r}: it must be a number.")
    return float(value)


def above_zero(argument: str, value: Any) -> float:
    """Return a finite number that is positive, or refuse it by name."""
    if not (_number(value) and 0 < float(value) < float("inf")):
        raise BadInput(f"{argument} is {value!r}: it must be a positive number.")
    return float(value)


def share(argument: str, value: Any) -> float:
    """Return a number strictly between 0 and 1, or refuse it by name."""
    if not (_number(value) and 0 < float(value) < 1):
        raise BadInput(f"{argument} is {value!r}: it must lie between 0 and 1.")
    return float(value)


def at_least_zero(argument: str, value: Any) -> float:
    """Return a number that is not negative, or refuse it by name."""
    if not (_number(value) and float(value) >= 0):
        raise BadInput(f"{argument} is {value!r}: it must be a number, at least 0.")
    return float(value)


def _number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
