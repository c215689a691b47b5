"""`landscape`: loss landscapes of ReLU networks beside their certified convex optima."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscape.bounds import beta_max
    from landscape.certificate import Certificate, certify
    from landscape.layers import Layerwise, Refit, layerwise, refit
    from landscape.network import Network
    from landscape.optimal_set import OptimalSet
    from landscape.paths import Path, connect
    from landscape.problem import Problem
    from landscape.solvers import Solution, solve, solve_path
    from landscape.sparsity import prune
    from landscape.stationarity import StationaryPoint, classify
    from landscape.training import Runs, polish, train

__version__ = "0.1.0"

# Loaded on first use: importing the package must not wait for torch, cvxpy or matplotlib.
_HOMES = {
    "Problem": "landscape.problem",
    "Network": "landscape.network",
    "solve": "landscape.solvers",
    "solve_path": "landscape.solvers",
    "Solution": "landscape.solvers",
    "train": "landscape.training",
    "polish": "landscape.training",
    "Runs": "landscape.training",
    "certify": "landscape.certificate",
    "Certificate": "landscape.certificate",
    "beta_max": "landscape.bounds",
    "classify": "landscape.stationarity",
    "StationaryPoint": "landscape.stationarity",
    "OptimalSet": "landscape.optimal_set",
    "connect": "landscape.paths",
    "prune": "landscape.sparsity",
    "refit": "landscape.layers",
    "Refit": "landscape.layers",
    "layerwise": "landscape.layers",
    "Layerwise": "landscape.layers",
    "Path": "landscape.paths",
}

_ROOMS = {
    "arrangements", "architectures", "curvature", "data", "generative", "losses", "paths", "slices",
    "sparsity", "units",
}  # fmt: skip

__all__ = [
    "Certificate",
    "Layerwise",
    "Network",
    "OptimalSet",
    "Path",
    "Problem",
    "Refit",
    "Runs",
    "Solution",
    "StationaryPoint",
    "beta_max",
    "certify",
    "classify",
    "connect",
    "layerwise",
    "polish",
    "prune",
    "refit",
    "solve",
    "solve_path",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"landscape.{name}")
    raise AttributeError(f"module 'landscape' has no attribute {name!r}")
