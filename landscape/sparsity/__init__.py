"""Fewer neurons: exact pruning, pruning beyond it, and counting neurons modulo symmetry."""

from landscape.sparsity.pruning import prune

VERSION = 1
"""Raised when numbers of pruning change; part of the key of what is stored."""

__all__ = ["VERSION", "prune"]
