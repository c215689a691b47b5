r"""The set of all optimal networks: a polytope of mixtures of finitely many neurons.

With a strictly convex loss every optimal network has one and the same fit ŷ, and is

.. math:: \{ (c_k \bar u_k)_k : c \ge 0,\; A c = ŷ \}, \qquad A_k = s_k (X\bar u_k)_+,

up to permuting neurons and splitting a neuron into collinear copies, \bar u_k the directions of
price β (Kim, Mishkin & Pilanci, ICLR 2025, Theorem 1; Mishkin & Pilanci, ICML 2023).  Its vertices
are the optima whose features are linearly independent; m* and M* are the fewest and the most
neurons of such a one.
"""

from landscape.optimal_set.directions import Directions
from landscape.optimal_set.interpolation import Interpolation, interpolate
from landscape.optimal_set.polytope import Polytope
from landscape.optimal_set.set import OptimalSet

__all__ = ["Directions", "Interpolation", "OptimalSet", "Polytope", "interpolate"]
