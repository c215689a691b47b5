"""Slices of the regularised objective: lines, planes, trajectories, exact extrema of segments.

What is plotted is what was trained, weight decay included; what was given is evaluated exactly.
"""

from landscape.slices.directions import KINDS, balanced, directions, side_by_side
from landscape.slices.planes import Slice, around, evaluate, through
from landscape.slices.segments import Extrema, curve_extrema, segment_extrema
from landscape.slices.trajectories import Trajectory, trajectory

VERSION = 1
"""Raised when numbers of slices change; part of the key of what is stored."""

__all__ = [
    "KINDS",
    "VERSION",
    "Extrema",
    "Slice",
    "Trajectory",
    "around",
    "balanced",
    "curve_extrema",
    "directions",
    "evaluate",
    "segment_extrema",
    "side_by_side",
    "through",
    "trajectory",
]
