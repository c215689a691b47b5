"""Refusals: one clear sentence that names the argument, what was found and what to do."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


def known(kind: str, name: Any, options: Iterable[str]) -> str:
    """Return a name that exists, or refuse it (see `unknown`)."""
    names = list(options)
    if not isinstance(name, str) or name not in names:
        raise unknown(kind, name, names)
    return name


def whole(argument: str, value: Any, least: int = 1) -> int:
    """Return a whole number that is at least so large, or refuse it by name."""
    fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not fits or value < least:
        raise BadInput(f"{argument} is {value!r}: it must be a whole number, at least {least}.")
    return int(value)


def wholes(argument: str, values: Any, least: int = 1) -> list[int]:
    """Return whole numbers, one at least, that are at least so large, or refuse them by name."""
    try:
        listed = list(values)
    except TypeError:
        raise BadInput(
            f"{argument} is {values!r}: it must be a list of whole numbers, at least {least}."
        ) from None
    if not listed:
        raise BadInput(f"{argument} is empty: there must be at least one.")
    return [whole(f"an entry of {argument}", value, least) for value in listed]


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


def reals(
    argument: str,
    values: Any,
    shape: tuple[int | str, ...] | None = None,
    *,
    empty: bool = False,
) -> NDArray[np.float64]:
    """Return an array of finite real numbers as a new float64 array, or refuse it by name.

    Text, complex numbers, lists of different lengths, NaN and infinity are refused.

    Args:
        argument: what it is called.
        values: anything that numpy or torch take for an array.
        shape: asked for; names stand for any length, as in ``("n", 2)``.  Any shape by default.
        empty: whether there may be no numbers at all.
    """
    try:
        if hasattr(values, "detach"):  # a tensor
            values = values.detach().cpu().numpy()
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        raise BadInput(
            f"{argument} is no array: its lists have different lengths, or hold what is no number; "
            "it must hold real numbers, in rows of one length."
        ) from None
    if array.dtype.kind not in "bfiu":
        try:
            if array.dtype.kind != "O":
                raise ValueError
            array = array.astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            raise BadInput(
                f"{argument} holds {array.dtype} entries such as "
                f"{array.flat[0] if array.size else ''!s:.40}"
                ": it must hold real numbers (encode text labels as numbers, for example ±1)."
            ) from None
    if shape is not None and not _fits(array.shape, shape):
        wanted = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise BadInput(f"{argument} has shape {array.shape}: it must be ({wanted}).")
    if array.size == 0 and not empty:
        raise BadInput(f"{argument} is empty (shape {array.shape}): there must be samples.")
    with np.errstate(over="ignore"):  # longer floats become infinite, and are refused
        array = np.array(array, dtype=np.float64)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise BadInput(
            f"{argument} has {len(bad)} entries that are NaN or infinite, the first at {where}: "
            "remove or impute them."
        )
    return array


def _fits(found: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    pairs = zip(found, wanted, strict=False)
    return len(found) == len(wanted) and all(isinstance(b, str) or a == b for a, b in pairs)


def _number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
