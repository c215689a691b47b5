"""Where training ends: networks judged by the convex programs of their own patterns and of all."""

from landscape.stationarity.census import Census, census, distinct, summarise
from landscape.stationarity.escapes import Escape
from landscape.stationarity.points import both_signs, point_fit, resolved, with_block
from landscape.stationarity.verdicts import (
    CLARKE,
    GLOBAL,
    MOVING,
    SPURIOUS,
    UNDECIDED,
    VERDICTS,
    Classifier,
    StationaryPoint,
    classify,
)

__all__ = [
    "CLARKE",
    "GLOBAL",
    "MOVING",
    "SPURIOUS",
    "UNDECIDED",
    "VERDICTS",
    "Census",
    "Classifier",
    "Escape",
    "StationaryPoint",
    "both_signs",
    "census",
    "classify",
    "distinct",
    "point_fit",
    "resolved",
    "summarise",
    "with_block",
]
