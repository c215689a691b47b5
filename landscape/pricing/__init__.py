from landscape.pricing.blocks import (
    EPSILON,
    coarse_prices,
    free_coordinate_radius,
    largest_price,
    prices,
)

__all__ = ["EPSILON", "coarse_prices", "free_coordinate_radius", "largest_price", "prices"]
