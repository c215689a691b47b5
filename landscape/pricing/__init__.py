"""Prices from above: of given patterns, and of all patterns by branch and bound or relaxed."""

from landscape.pricing.balance import EPSILON
from landscape.pricing.blocks import (
    coarse_prices,
    free_coordinate_radius,
    largest_price,
    prices,
    projection_weights,
    resolved_prices,
    sample_sizes,
)
from landscape.pricing.branch import Supremum, supremum
from landscape.pricing.relaxed import relaxed_supremum

__all__ = [
    "EPSILON",
    "Supremum",
    "coarse_prices",
    "free_coordinate_radius",
    "largest_price",
    "prices",
    "projection_weights",
    "relaxed_supremum",
    "resolved_prices",
    "sample_sizes",
    "supremum",
]
