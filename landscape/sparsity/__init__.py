"""Fewer neurons: exact pruning, pruning beyond it, and counting neurons modulo symmetry."""

from landscape.sparsity.counting import TOLERANCES, active_neurons, merge
from landscape.sparsity.curves import METHODS, PruningCurve, error, pruning_curve
from landscape.sparsity.pruning import prune

VERSION = 2
"""Raised when numbers of pruning change; part of the key of what is stored."""

__all__ = [
    "METHODS",
    "TOLERANCES",
    "VERSION",
    "PruningCurve",
    "active_neurons",
    "error",
    "merge",
    "prune",
    "pruning_curve",
]
