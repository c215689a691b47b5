"""The theorems as executable checks."""

from landscape.theory.exactness import Exactness, adversary, exactness, instance

VERSION = 1
"""Of the numbers of these checks."""

__all__ = ["VERSION", "Exactness", "adversary", "exactness", "instance"]
