r"""Quadratic forms on spheres, and matrices that are mixtures of points on a cone.

A neuron :math:`α\,σ(x^⊤u)` of quadratic activation on the unit sphere is the matrix
:math:`pp^⊤`, :math:`p = \sqrt{α}\,(u, 1)`, on the cone :math:`p^⊤Jp = 0`,
:math:`J = \mathrm{diag}(1, …, 1, −1)`; a sum of neurons of one sign is a positive semidefinite Z
with :math:`⟨Z, J⟩ = 0`, and every such Z is one (`decomposed`).  Bartan & Pilanci, *Neural
spectrahedra and semidefinite lifts*, arXiv 2101.02429.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from landscape.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

EPSILON = float(np.finfo(np.float64).eps)
BISECTIONS = 200
"""Of the multiplier; floating point runs out of numbers before."""


class Peak(NamedTuple):
    """The largest value of a quadratic on the unit sphere.

    Attributes:
        bound: no point of the sphere has a larger value; rounding of this module is charged.
        attained: the value at ``where``.
        where: a unit vector, shape (d,).
    """

    bound: float
    attained: float
    where: Floats


def peak(A: Floats, h: Floats) -> Peak:
    r"""Return :math:`\max_{\|u\| = 1} u^⊤Au + h^⊤u`, a trust-region problem without convexity.

    For every multiplier :math:`λ > λ_{\max}(A)` weak duality gives

    .. math:: u^⊤Au + h^⊤u \le λ + \tfrac14 \sum_i \frac{(q_i^⊤h)^2}{λ − λ_i},

    convex in λ and tight at its minimum: where the derivative vanishes,
    :math:`u = \tfrac12(λ − A)^{-1}h`, or at :math:`λ_{\max}` (the hard case: h has no part along
    the top eigenvectors), where u is completed along them.

    Args:
        A: symmetric matrix, shape (d, d).
        h: linear part, shape (d,).

    Example:
        >>> found = peak(numpy.diag([2.0, 1.0]), numpy.array([0.0, 1.0]))  # the hard case
        >>> round(found.bound, 12), round(found.attained, 12)
        (2.25, 2.25)
    """
    values, Q = np.linalg.eigh(A)
    along = Q.T @ h
    below = values[-1] - values  # distances to the top, at least 0
    size = float(np.abs(values).max(initial=0.0) + np.linalg.norm(h))
    if size == 0.0:
        return Peak(0.0, 0.0, Q[:, -1])
    least = EPSILON * size  # multipliers closer to the top say no more than rounding

    def length(shift: float) -> float:
        return float(np.linalg.norm(along / (below + shift)) / 2.0)

    low, high = least, max(least, float(np.linalg.norm(along)) / 2.0)
    if length(low) > 1.0:
        for _ in range(BISECTIONS):
            middle = (low * high) ** 0.5
            if not low < middle < high:
                break
            low, high = (middle, high) if length(middle) > 1.0 else (low, middle)
        shift = high
    else:
        shift = low
    part = along / (below + shift) / 2.0
    rest = 1.0 - float(part @ part)
    if rest > 0.0:  # towards the top eigenvector, on the side of h
        top = part[-1] if part[-1] != 0.0 else 1.0
        others = float(part[:-1] @ part[:-1])
        part[-1] = np.copysign(max(0.0, 1.0 - others) ** 0.5, top)
    u = Q @ part
    u /= np.linalg.norm(u)
    bound = float(values[-1] + shift + (along**2 / (below + shift)).sum() / 4.0)
    charge = 16.0 * (len(h) + 4) ** 1.5 * EPSILON * size
    return Peak(bound + charge, float(u @ A @ u + h @ u), u)


def lifted(directions: Floats, sizes: Floats) -> Floats:
    """Return Σ_j α_j (u_j, 1)(u_j, 1)ᵀ, shape (d + 1, d + 1).

    Args:
        directions: unit vectors u_j, shape (m, d).
        sizes: α_j ≥ 0, shape (m,).
    """
    p = np.hstack([directions, np.ones((len(directions), 1))])
    return (p * sizes[:, None]).T @ p


def decomposed(
    Z: Floats, size: float | None = None, tolerance: float = 1e-12
) -> tuple[Floats, Floats]:
    r"""Return the neurons whose sum is Z: its *neural decomposition*.

    From :math:`Z = \sum_j q_jq_j^⊤` take two vectors on different sides of the cone,
    :math:`q_1^⊤Jq_1 > 0 > q_2^⊤Jq_2`, and turn them in their plane,

    .. math::

        p = \frac{q_1 + tq_2}{\sqrt{1 + t^2}}, \quad r = \frac{q_2 − tq_1}{\sqrt{1 + t^2}}, \qquad
        pp^⊤ + rr^⊤ = q_1q_1^⊤ + q_2q_2^⊤,

    until p is on the cone.  One neuron is done; after rank Z − 1 turns the last is on the cone too,
    since their sum is.

    Args:
        Z: positive semidefinite, shape (d + 1, d + 1), with tr Z_{1:d,1:d} = Z_{d+1,d+1}; both up
            to 1e-6 of ``size`` (what is missing to the trace condition goes to the last neuron).
        size: what is small is small beside this; the trace of Z by default.
        tolerance: eigenvalues up to this share of ``size`` are dropped.

    Returns:
        Directions u_j (m, d) of norm one and sizes α_j > 0 (m,), at most rank Z of them.

    Raises:
        BadInput: if Z is not symmetric, has a negative eigenvalue or violates the trace condition.
    """
    if Z.ndim != 2 or len(Z) != Z.shape[1] or not np.allclose(Z, Z.T):
        raise BadInput(f"Z has shape {Z.shape}: it must be a symmetric matrix.")
    size = float(np.trace(Z)) if size is None else size
    values, Q = np.linalg.eigh((Z + Z.T) / 2)
    missing = float(np.trace(Z[:-1, :-1]) - Z[-1, -1])
    if values[0] < -1e-6 * max(size, 0.0) or abs(missing) > 1e-6 * size:
        raise BadInput(
            f"Z has least eigenvalue {values[0]:.2g} and tr Z_1 − Z_4 = {missing:.2g} at trace "
            f"{size:.2g}: it must be positive semidefinite with tr Z_1 = Z_4."
        )
    kept = values > tolerance * size
    left = [*(Q[:, kept] * np.sqrt(values[kept])).T]
    done: list[Floats] = []
    while len(left) > 1:
        forms = np.array([_form(q, q) for q in left])
        first, second = int(forms.argmax()), int(forms.argmin())
        if not forms[first] > 0.0 > forms[second]:  # all on the cone, up to rounding
            break
        q, other = left[first], left[second]
        # f(t) = ⟨q + t·other⟩ changes its sign: f(0) > 0 and f(±∞) < 0.
        a, b, c = forms[second], _form(q, other), forms[first]
        root = -(b + np.copysign((b * b - a * c) ** 0.5, b))
        t = c / root if b >= 0 else root / a  # the numerically sound one of the two
        scale = (1.0 + t * t) ** 0.5
        done.append((q + t * other) / scale)
        left = [v for k, v in enumerate(left) if k not in (first, second)]
        left.append((other - t * q) / scale)
    p = np.array(done + left).reshape(-1, len(Z))
    lengths = np.linalg.norm(p[:, :-1], axis=1)
    kept = lengths > 1e-9 * size**0.5
    sides = np.where(p[kept, -1:] < 0, -1.0, 1.0)
    return sides * p[kept, :-1] / lengths[kept, None], (lengths[kept] ** 2 + p[kept, -1] ** 2) / 2


def _form(p: Floats, q: Floats) -> float:
    return float(p[:-1] @ q[:-1] - p[-1] * q[-1])
