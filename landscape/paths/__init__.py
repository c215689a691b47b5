"""Paths between networks along which the objective is bounded everywhere, not only on a grid.

Straight, aligned and trained paths as they are used in practice, and the constructive paths of the
theory.  Every path is a list of pieces whose largest objective is certified: convex ones have it at
an end, segments and quadratic curves are piecewise polynomials with computable breakpoints.
"""

from landscape.paths.alignment import align
from landscape.paths.connect import METHODS, connect
from landscape.paths.path import Barriers, Path
from landscape.paths.pieces import Balance, Curve, Line, Piece

VERSION = 2
"""Raised when numbers of paths change; part of the key of what is stored."""

__all__ = [
    "METHODS",
    "VERSION",
    "Balance",
    "Barriers",
    "Curve",
    "Line",
    "Path",
    "Piece",
    "align",
    "connect",
]
