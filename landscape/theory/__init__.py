"""The theorems as executable checks."""

from landscape.theory.exactness import (
    EFFORT,
    TOLERANCE,
    Exactness,
    adversary,
    exactness,
    instance,
)

VERSION = 1
"""Of the numbers of these checks."""

__all__ = [
    "EFFORT",
    "TOLERANCE",
    "VERSION",
    "Exactness",
    "adversary",
    "exactness",
    "instance",
]
