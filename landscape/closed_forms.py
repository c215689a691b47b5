r"""Optima of ReLU networks known in closed form: data on one line, orthogonal data.

First of standard deep networks; of two layers with several outputs see `whitened_outputs`.

There all that a unit network can put out are two *channels*.  On samples :math:`x_k = s_k v` of
one line, ‖v‖ = 1, these are :math:`(s)_+` and :math:`(−s)_+`; with :math:`XX^⊤ = c I` the samples
where the output is positive, and those where it is negative.  Squared loss and no bias leave

.. math:: \min_{a \ge 0} \; \sum_i \tfrac12 (g_i a_i − r_i)^2 + β C(a_1, a_2) + \text{constant}

with gains g (‖s_±‖ or √c) and targets r ≥ 0 (y along the channel's output, up to its sign), and

* *one sign*, all outputs ≥ 0 or all ≤ 0: both channels meet in one neuron of the second layer, and
  the least size of a network is t = a_1 + a_2, for every L ≥ 2: :math:`C = \tfrac L2 t^{2/L}`
  ("decay") or t ("power").  It is the gauge of parallel networks, so nothing is smaller.
* *two signs*, L = 3: the least size is :math:`t = (a_1^{2/3} + a_2^{2/3})^{3/2}`.  *Proof.*  Let H
  be the first layer's output, S and N the samples of positive and of negative output.  Neurons of
  the last hidden layer with positive (negative) output weight w make the first (second) channel,
  so a_1 is at most :math:`\|w_+\| \|W_2^+\|_F \|H_S\|_F` over the unit of the features, a_2 at most
  the same with −.  Squares of the three factors add up over the channels to at most
  :math:`\|w\|^2, \|W_2\|_F^2, \|W_1\|_F^2`, so by Hölder's inequality
  :math:`\prod_l \|W_l\|_F^{2/3} \ge a_1^{2/3} + a_2^{2/3}`.  Two chains of neurons side by side
  attain it.  ∎

Parallel networks pay a_1 + a_2 also for two signs: there the bound of `landscape.solve` is below
every standard network.  With L ≥ 4 layers two signs are not settled here.  Rank one and whitened
data are those of Ergen and Pilanci ("Revealing the structure of deep neural networks via convex
duality", ICML 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from scipy.optimize import brentq

from landscape.errors import BadInput

if TYPE_CHECKING:
    from landscape.architectures.standard_deep import StandardDeep
    from landscape.problem import Problem
    from landscape.programs import Floats

FLAT = 1e-10
"""Singular values below this share of the largest are zero."""


class Channels(NamedTuple):
    """The scalar problem that is left.

    Attributes:
        gains: g, shape (2,).
        targets: r ≥ 0, shape (2,).
        signs: of the channels' outputs, shape (2,).
        constant: loss that no network changes.
    """

    gains: Floats
    targets: Floats
    signs: Floats
    constant: float


def channels(problem: Problem) -> Channels:
    """Return the two channels of a problem.

    Raises:
        BadInput: unless the data lie on one line through the origin or X Xᵀ is a multiple of I,
            the loss is squared, and there is no bias.
    """
    X, y = problem.X, problem.y
    if problem.loss.name != "squared" or problem.design.shape != X.shape:
        raise BadInput("problem: closed forms are of the squared loss, without bias.")
    U, sizes, _ = np.linalg.svd(X, full_matrices=False)
    if sizes[1:].max(initial=0.0) <= FLAT * sizes[0]:
        s = U[:, 0] * sizes[0]
        outputs = [np.maximum(s, 0.0), np.maximum(-s, 0.0)]
        gains = np.array([np.linalg.norm(one) for one in outputs])
        along = np.array([one @ y for one in outputs]) / np.where(gains > 0, gains, 1.0)
    elif len(sizes) == len(y) and np.ptp(sizes) <= FLAT * sizes[0]:
        gains = np.full(2, sizes[0])
        along = np.array([np.linalg.norm(np.maximum(y, 0)), -np.linalg.norm(np.maximum(-y, 0))])
    else:
        raise BadInput(
            f"X has singular values from {sizes[0]:.3g} to {sizes[-1]:.3g}: closed forms are of "
            "data on one line through the origin, or with X Xᵀ a multiple of the identity."
        )
    constant = 0.5 * float(y @ y - along @ along)
    gains, along = (np.asarray(v, dtype=np.float64) for v in (gains, along))
    return Channels(gains, np.abs(along), np.sign(along), max(constant, 0.0))


def optimum(problem: Problem) -> float:
    """Return the least objective of standard deep networks wide enough (two neurons a layer).

    Args:
        problem: of `StandardDeep`, on data that `channels` takes.

    Raises:
        BadInput: for other data, and for outputs of two signs with four layers or more.
    """
    architecture = cast("StandardDeep", problem.architecture)
    if architecture.name != "standard_deep":
        raise BadInput(f"problem has architecture {architecture.label}: it must be StandardDeep.")
    g, r, signs, constant = channels(problem)
    used = (g > 0) & (r > 0)
    g, r, signs = g[used], r[used], signs[used]
    depth = architecture.depth
    gauge = architecture.regulariser == "power" or depth == 2
    if len(g) < 2 or signs[0] == signs[1] or depth == 2:
        found = _one_sign(g, r, problem.beta) if gauge else _concave(g, r, problem.beta, depth)
    elif depth > 3:
        raise BadInput(
            f"depth is {depth}: with outputs of two signs the closed form is of at most three "
            "layers."
        )
    elif gauge:
        found = _two_signs(g, r, problem.beta)
    else:  # the channels are apart
        found = sum(_concave(g[[i]], r[[i]], problem.beta, 3) for i in range(2))
    return constant + float(found)


def _one_sign(g: Floats, r: Floats, beta: float) -> float:
    """Return min Σ ½(g a − r)² + β Σ a over a ≥ 0: soft thresholds."""
    a = np.maximum(r * g - beta, 0.0) / g**2
    return float((0.5 * (g * a - r) ** 2 + beta * a).sum())


def _concave(g: Floats, r: Floats, beta: float, depth: int) -> float:
    """Return min Σ ½(g a − r)² + β (L/2) (Σ a)^{2/L} over a ≥ 0, by the roots of polynomials.

    With active channels S the slope λ = β t^{2/L − 1} gives a = (r g − λ)/g² and, for t = z^L,
    z^{2L−2} − A z^{L−2} + β B = 0 with A = Σ_S r/g and B = Σ_S 1/g².
    """
    best = 0.5 * float(r @ r)
    for active in ([i for i in range(len(g)) if mask >> i & 1] for mask in range(1, 2 ** len(g))):
        G, R = g[active], r[active]
        powers = np.zeros(2 * depth - 1)
        powers[0], powers[depth], powers[-1] = 1.0, -(R / G).sum(), beta * (1.0 / G**2).sum()
        for z in np.roots(powers):
            if abs(z.imag) > 1e-9 * abs(z) or z.real <= 0:
                continue
            slope = beta * z.real ** (2 - depth)
            a = np.maximum(R * G - slope, 0.0) / G**2
            paid = beta * depth / 2 * a.sum() ** (2 / depth)
            rest = r @ r - R @ R + ((G * a - R) ** 2).sum()
            best = min(best, float(0.5 * rest + paid))
    return best


def _two_signs(g: Floats, r: Floats, beta: float) -> float:
    """Return min Σ ½(g a − r)² + β (a_1^{2/3} + a_2^{2/3})^{3/2} over a ≥ 0.

    With a = z³ and w = (z_1² + z_2²)^{1/2}: g² z⁴ − g r z + β w = 0, the largest root, for both.
    """

    def value(z: Floats) -> float:
        loss = 0.5 * ((g * z**3 - r) ** 2).sum()
        return float(loss + beta * (z @ z) ** 1.5)

    def roots(w: float) -> Floats:
        found = []
        for gain, target in zip(g, r, strict=True):
            every = np.roots([gain**2, 0.0, 0.0, -gain * target, beta * w])
            real = every.real[(abs(every.imag) <= 1e-7 * abs(every).max()) & (every.real > 0)]
            found.append(real.max(initial=0.0))
        return np.array(found)

    alone = [0.5 * float(r @ r)]
    for i in range(2):
        alone.append(0.5 * float(r[1 - i] ** 2) + _one_sign(g[[i]], r[[i]], beta))
    grid = np.linspace(0.0, float(((r / g) ** (2 / 3)).sum() ** 0.5), 2001)[1:]
    miss = np.array([float(roots(w) @ roots(w)) - w**2 for w in grid])
    for k in np.flatnonzero(np.sign(miss[1:]) != np.sign(miss[:-1])):
        w = brentq(lambda w: float(roots(w) @ roots(w)) - w**2, grid[k], grid[k + 1], xtol=1e-15)
        alone.append(value(roots(float(cast("float", w)))))
    return min(alone)


def whitened_outputs(Y: Floats, beta: float) -> tuple[float, Floats]:
    r"""Return optimum and fit of `VectorReLU` on X with :math:`XX^⊤ = I` where the SVD tells.

    With Y = Σ σ p qᵀ the fit is Σ (σ − β)_+ p qᵀ if all p with σ > β are ≥ 0 (up to the signs of p
    and q together): :math:`p = (X X^⊤p)_+` is then a neuron of norm one.  No network is below this
    value whatever the p (any :math:`\|N\|_2 \le β` is feasible in the dual), and the value alone
    is then only a lower bound, which this function refuses to call an optimum.  One-hot labels
    are such a case: p is a class (Sahiner et al., ICLR 2021).

    Args:
        Y: targets, shape (n, c).
        beta: weight of the regulariser.

    Raises:
        BadInput: if a singular vector that takes part has entries of both signs.
    """
    left, sizes, right = np.linalg.svd(Y, full_matrices=False)
    kept = sizes > beta
    shrunk = np.maximum(sizes - beta, 0.0)
    fit = (left * shrunk) @ right
    # Equal singular values leave a choice of vectors: columns of the fit that share no sample
    # are the best choice where there is one.
    own = [column for column in fit.T if column.any()]
    gram = fit.T @ fit
    apart = np.abs(gram - np.diag(np.diag(gram))).max(initial=0.0) <= FLAT * np.abs(gram).max()
    vectors = np.array(own).T if apart and own else left[:, kept]
    lowest, highest = vectors.min(axis=0, initial=0.0), vectors.max(axis=0, initial=0.0)
    if (np.minimum(-lowest, highest) > FLAT * np.maximum(-lowest, highest)).any():
        raise BadInput(
            "Y has a left singular vector of two signs above beta: soft thresholding of singular "
            "values is then only a lower bound of the optimum."
        )
    return float(0.5 * ((Y - fit) ** 2).sum() + beta * shrunk.sum()), fit
