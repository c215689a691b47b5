r"""Stationarity of two-layer networks at their kinks.

Neuron j with weight w, output a is Clarke stationary if some :math:`\tilde D`, equal to the
pattern off the ties :math:`x_k^⊤w = 0` and in [0, 1] on them, gives

.. math:: \operatorname{sign}(a) X^⊤ \tilde D ν = β\, w/\|w\|.

That is not enough for a local minimum.  *Directional* stationarity also asks
:math:`\operatorname{sign}(a) ν_k ≤ 0` at every tie: otherwise one side of the kink descends
(Wang, Lacotte & Pilanci 2022; X = [(1,0),(0,1),(1,−1)], w = (1,0), ν = (.3,.4,.2), β = .5).

Samples on one line through the origin (duplicates, antipodes) share one kink: their shares of
:math:`\tilde D` are one number, or one minus it, and only :math:`\sum ν_k \|x_k\|` over the line
has a sign.  Where ties of different lines are linearly dependent the sign condition is sufficient,
not necessary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import lsq_linear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.programs import Floats

TIE = 1e-9
"""A sample is on a neuron's kink if |x·w| ≤ TIE ‖x‖‖w‖."""
NEWTON = 40
"""Steps after which a problem of `box_least_squares` is left to an active set method."""
HALVINGS = 20
"""Of one of its steps, before a gradient step is taken instead."""
SETTLED = 1e-14
"""Slopes this small, relative to their terms, are rounding."""
SPREAD = 1e3
"""Ratio of the largest to the smallest row above which that method is asked as well."""
SLAB = 2_000_000
"""Numbers in one slab of the neurons' matrices."""
LINE = 1e-12
"""Rows whose directions differ by less than this, up to sign, lie on one line."""


def ties(design: Floats, weights: Floats, tolerance: float = TIE) -> NDArray[np.bool_]:
    """Return which samples lie on which neurons' kinks, shape (m, n); zero rows never do."""
    lengths = np.linalg.norm(design, axis=1)
    scale = np.linalg.norm(weights, axis=1)[:, None] * lengths
    return (np.abs(weights @ design.T) <= tolerance * scale) & (lengths > 0)


def residuals(
    design: Floats,
    penalised: NDArray[np.bool_],
    weights: Floats,
    signs: Floats,
    nu: Floats,
    beta: float,
    tolerance: float = TIE,
) -> tuple[Floats, Floats]:
    """Return each neuron's Clarke residual and the worst wrong-signed tie.

    Args:
        design: rows that neurons see, shape (n, p).
        penalised: which coordinates of a weight the regulariser counts, shape (p,).
        weights: hidden weights, shape (m, p), none of them zero.
        signs: signs of the output weights, shape (m,).
        nu: residual −∇ℓ at the network, shape (n,).
        beta: regularisation weight.
        tolerance: what counts as a kink.

    Returns:
        ``(clarke, wrong)``, both (m,): the residual divided by β, so that a tiny neuron counts
        like a large one, and max(0, sign·ν_k) over its ties divided by max|ν|, where ties on one
        line add up, in units of its longest sample.
    """
    tied = ties(design, weights, tolerance)
    masks = settled_masks(design, penalised, weights, signs, nu, beta, tied)
    pull = signs[:, None] * ((masks * nu) @ design) - _target(penalised, weights, beta)
    wrong = bends(design, signs, nu, tied)[1].max(axis=1, initial=0.0)
    wrong /= max(float(np.abs(nu).max(initial=0.0)), 1e-300)
    return np.linalg.norm(pull, axis=1) / beta, wrong


def lines(design: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Return the lines through the origin on which rows lie.

    Returns:
        ``(head, ratio)``, both (n,): x_k = ratio_k x_head(k) with |ratio_k| ≤ 1, so that a line is
        named by its longest row; rows that are alone on theirs, and zero rows, are their own.
    """
    lengths = np.linalg.norm(design, axis=1)
    head, ratio = np.arange(len(design)), np.ones(len(design))
    unit = design / np.where(lengths > 0, lengths, 1.0)[:, None]
    # Rows of one line have the same |x·g|; a sort brings them together.
    shadow = np.abs(unit @ np.random.default_rng(0).standard_normal(design.shape[1]))
    order = np.argsort(shadow, kind="stable")
    close = np.diff(shadow[order]) <= 8 * LINE * design.shape[1] ** 0.5
    if not close.any():
        return head, ratio
    for group in np.split(order, np.flatnonzero(~close) + 1):
        left = group[lengths[group] > 0]
        while len(left):
            first = left[lengths[left].argmax()]
            side = np.where(unit[left] @ unit[first] < 0, -1.0, 1.0)
            same = np.linalg.norm(side[:, None] * unit[left] - unit[first], axis=1) <= LINE
            head[left[same]] = first
            ratio[left[same]] = (side * lengths[left] / lengths[first])[same]
            left = left[~same]
    return head, ratio


def bends(
    design: Floats, signs: Floats, nu: Floats, tied: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], Floats]:
    """Return which lines are on which neurons' kinks, and sign · Σ ν_k |ratio_k| over each.

    Both have shape (m, n) with entries at the heads of lines; the sum is how fast the slope of the
    objective falls across the kink, in units of the head, zero where there is none.
    """
    head, ratio = lines(design)
    kinks = _on_lines(tied, head)
    return kinks, np.where(kinks, signs[:, None] * _added(head, np.abs(ratio) * nu), 0.0)


def _added(head: NDArray[np.intp], values: Floats) -> Floats:
    """Return the sums of values (n,) over every line at its head, zero elsewhere."""
    return np.bincount(head, values, len(head)).astype(np.float64)


def _on_lines(tied: NDArray[np.bool_], head: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which lines have a tie, shape (m, n), at their heads."""
    found = np.zeros_like(tied)
    neuron, row = np.nonzero(tied)
    found[neuron, head[row]] = True
    return found


def settled_masks(
    design: Floats,
    penalised: NDArray[np.bool_],
    weights: Floats,
    signs: Floats,
    nu: Floats,
    beta: float,
    tied: NDArray[np.bool_],
) -> Floats:
    r"""Return the :math:`\tilde D` of every neuron that brings it closest to stationarity.

    Args:
        design: rows that neurons see, shape (n, p).
        penalised: which coordinates of a weight the regulariser counts, shape (p,).
        weights: hidden weights, shape (m, p), none of them zero.
        signs: signs of the output weights, shape (m,).
        nu: residual −∇ℓ at the network, shape (n,).
        beta: regularisation weight.
        tied: which samples are on which neurons' kinks, shape (m, n).

    Returns:
        Shape (m, n): 0 or 1 off the ties, in [0, 1] on them.
    """
    head, ratio = lines(design)
    # At share 0 of a line's kink its samples on the other side are on.
    on = tied & (ratio < 0)
    masks = (((weights @ design.T > 0) & ~tied) | on).astype(np.float64)
    missing = _target(penalised, weights, beta) - signs[:, None] * ((masks * nu) @ design)
    kinks, bend = _on_lines(tied, head), _added(head, np.abs(ratio) * nu)
    most = int(kinks.sum(axis=1).max(initial=0))
    if not most:
        return masks
    shares = np.zeros(masks.shape)
    width = max(1, SLAB // (most * (most + design.shape[1])))
    for begin in range(0, len(weights), width):
        part = slice(begin, begin + width)
        first = np.argsort(~kinks[part], axis=1, kind="stable")[:, :most]  # ties first
        there = np.take_along_axis(kinks[part], first, axis=1)
        factor = np.where(there, signs[part, None] * bend[first], 0.0)
        columns = (design[first] * factor[:, :, None]).transpose(0, 2, 1)
        share = box_least_squares(columns, missing[part])
        np.put_along_axis(shares[part], first, np.where(there, share, 0.0), axis=1)
    shares = shares[:, head]
    return np.where(tied, np.where(ratio < 0, 1.0 - shares, shares), masks)


def _target(penalised: NDArray[np.bool_], weights: Floats, beta: float) -> Floats:
    """Return β w/‖w‖ over the penalised coordinates, shape (m, p)."""
    target = np.where(penalised, weights, 0.0)
    length = np.linalg.norm(target, axis=1, keepdims=True)
    return beta * target / np.where(length > 0, length, 1.0)


def box_least_squares(columns: Floats, target: Floats) -> Floats:
    """Minimise ‖columns x − target‖ over 0 ≤ x ≤ 1, for many small problems at once.

    Projected Newton steps (Bertsekas 1982); a problem that they do not settle is left to an
    active set method.

    Args:
        columns: shape (m, p, k); a zero column leaves its x arbitrary.
        target: shape (m, p).

    Returns:
        Minimisers x, shape (m, k).
    """
    m, _, k = columns.shape
    unit = np.abs(columns).max(axis=(1, 2), initial=0.0)
    unit = np.where(unit > 0, unit, 1.0)
    columns, target = columns / unit[:, None, None], target / unit[:, None]
    sizes, reach = np.abs(columns), np.abs(target)
    gram, eye = columns.transpose(0, 2, 1) @ columns, np.eye(k)
    x, left = np.full((m, k), 0.5), np.arange(m)
    for _ in range(NEWTON):
        A, now = columns[left], x[left]
        rest = np.einsum("mpk,mk->mp", A, now) - target[left]
        slope = np.einsum("mpk,mp->mk", A, rest)
        held = ((now <= 0.0) & (slope >= 0.0)) | ((now >= 1.0) & (slope <= 0.0))
        # Row by row, so that coordinates in small units count as those in large ones do.
        terms = np.einsum("mpk,mk->mp", sizes[left], now) + reach[left]
        terms = np.einsum("mpk,mp->mk", sizes[left], terms)
        steep = ~held & (np.abs(slope) > SETTLED * terms)
        moving = steep.any(axis=1)
        left, now, rest, slope, held = (v[moving] for v in (left, now, rest, slope, held))
        if not len(left):
            break
        # Coordinates that a gradient step would take to their bound are held too.
        trace = np.trace(gram[left], axis1=1, axis2=2)[:, None]
        ahead = np.clip(now - slope / trace, 0.0, 1.0)
        near = held | (ahead <= 0.0) | (ahead >= 1.0)
        H = np.where(
            near[:, :, None] | near[:, None, :], eye, gram[left] + 1e-15 * trace[:, :, None] * eye
        )
        step = np.linalg.solve(H, np.where(near, 0.0, -slope)[:, :, None])[:, :, 0]
        step = np.where(near, ahead - now, step)
        value, length = (rest * rest).sum(axis=1), np.ones(len(left))
        for _ in range(HALVINGS):
            trial = np.clip(now + length[:, None] * step, 0.0, 1.0)
            after = np.einsum("mpk,mk->mp", columns[left], trial) - target[left]
            worse = (after * after).sum(axis=1) > value
            if not worse.any():
                break
            length[worse] *= 0.5
        x[left] = np.where(worse[:, None], ahead, trial)
    # Squares of coordinates in very different units are lost in those of the largest.
    rows = np.maximum(sizes.max(axis=2, initial=0.0), reach)
    least = np.where(rows > 0, rows, np.inf).min(axis=1)
    for j in np.union1d(left, np.flatnonzero(rows.max(axis=1) > SPREAD * least)):
        found = lsq_linear(columns[j], target[j], bounds=(0.0, 1.0), method="bvls", tol=1e-14)
        trials = np.stack([x[j], np.clip(found.x, 0.0, 1.0)])
        x[j] = trials[np.linalg.norm(trials @ columns[j].T - target[j], axis=1).argmin()]
    return x
