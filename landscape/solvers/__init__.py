"""Solving the convex program: one face, `solve`, over several methods."""

from landscape.solvers.path import solve_path
from landscape.solvers.solution import Solution
from landscape.solvers.solve import solve

__all__ = ["Solution", "solve", "solve_path"]
