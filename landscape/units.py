"""Conversions between this project's objective and those of other codes, in one place.

Ours is ½ Σ (f − y)² + β Σ‖·‖ on the convex side, β/2 Σ(‖w‖² + a²) on the network side: sums over
samples, one half in the loss.
"""

from __future__ import annotations

from typing import NamedTuple

from landscape.errors import unknown


class Units(NamedTuple):
    """Our β and objective in terms of another code's, on n samples.

    Attributes:
        beta: our β = ``beta`` × theirs.
        objective: our objective = ``objective`` × theirs.
    """

    beta: float
    objective: float


CONVENTIONS = {
    "landscape": lambda n: Units(1.0, 1.0),
    "scnn": lambda n: Units(n, n),  # 1/(2n) Σ(f−y)² + λ Σ‖·‖
    "no_half": lambda n: Units(0.5, 0.5),  # Σ(f−y)² + β' Σ‖·‖: the randomized-geometry code
    "mean": lambda n: Units(n / 2, n / 2),  # 1/n Σ(f−y)² + λ Σ‖·‖
}


def convention(name: str, n: int) -> Units:
    r"""Return the factors from the named convention to ours.

    ========== =========================================
    landscape  ½ Σ (f−y)² + β Σ‖·‖
    scnn       1/(2n) Σ (f−y)² + λ Σ‖·‖
    no_half    Σ (f−y)² + β' Σ‖·‖
    mean       1/n Σ (f−y)² + λ Σ‖·‖
    ========== =========================================

    Args:
        name: one of the names in the table.
        n: number of samples.

    Raises:
        BadInput: for an unknown convention.

    Example:
        >>> convention("scnn", 100).beta
        100.0
    """
    if name not in CONVENTIONS:
        raise unknown("convention", name, CONVENTIONS)
    return Units(*map(float, CONVENTIONS[name](n)))
