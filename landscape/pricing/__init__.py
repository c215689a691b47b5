"""Prices from above: of given patterns one by one, and of all patterns by branch and bound."""

from landscape.pricing.blocks import (
    EPSILON,
    coarse_prices,
    free_coordinate_radius,
    largest_price,
    prices,
)
from landscape.pricing.branch import Supremum, supremum

__all__ = [
    "EPSILON",
    "Supremum",
    "coarse_prices",
    "free_coordinate_radius",
    "largest_price",
    "prices",
    "supremum",
]
