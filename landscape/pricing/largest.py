r"""Prices of neurons that pass on the largest patch: a list, climbs, and a bound from above.

.. math:: \sup_{\|u\| ≤ 1} ± \sum_i ν_i \max_k (x_{ik}^⊤u)_+

is linear in u where the signs of all :math:`x_{ik}^⊤u` and :math:`(x_{ik} − x_{il})^⊤u` are fixed:
which patch is largest, or that none is positive (`selected`).  Where these hyperplanes have few
cells every selection is priced by cone duality (`landscape.pricing.groups`).  Beyond that neurons
climb from many starts, and the bound drops what lowers the price and uses
:math:`\max_k (z_k)_+^2 ≤ \sum_k z_k^2`:

.. math::

    \sum_{i ∈ I} |ν_i| \max_k (x_{ik}^⊤u)_+ ≤ \min\Big( \sum_{i ∈ I} |ν_i| \max_k \|x_{ik}\|,\;
    \big(\textstyle\sum_{i ∈ I} |ν_i|\; λ_{\max}(\sum_{i ∈ I} |ν_i| \sum_k x_{ik} x_{ik}^⊤)
    \big)^{1/2} \Big), \quad I = \{±ν_i > 0\} .
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from landscape import arrangements, dictionary
from landscape.dictionary import Priced
from landscape.pricing.balance import EPSILON
from landscape.pricing.blocks import prices
from landscape.pricing.groups import projection

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from landscape.dense import GroupProgram
    from landscape.dictionary import Units
    from landscape.programs import Floats

SHARE = 20
"""Cells are listed up to effort / SHARE."""
MOST = 60
"""Units of each sign that one pricing returns at most."""
STARTS = 300
STEPS = 60
POLISHED = 40
HOPS = 30
STEP = 1e-6
"""Relative length of the step that leads out of a cell."""


def selected(patches: Floats, u: Floats) -> NDArray[np.int64]:
    """Return the largest patch of every sample, −1 where none is positive.

    Args:
        patches: shape (n, K, p).
        u: neurons, shape (m, p).

    Returns:
        Places of patches, shape (m, n).
    """
    before = np.einsum("nkp,mp->mnk", patches, u)
    return np.where(before.max(axis=2) > 0, before.argmax(axis=2), -1)


def every_selection(patches: Floats, limit: int) -> NDArray[np.int64]:
    """Return all selections of neurons in general position, shape (G, n).

    Raises:
        TooManyPatterns: if the hyperplanes between them have more than ``limit`` cells.
    """
    pairs = list(itertools.combinations(range(patches.shape[1]), 2))
    rows = [patches[:, k] for k in range(patches.shape[1])]
    rows += [patches[:, k] - patches[:, j] for k, j in pairs]
    cells = arrangements.enumerate(np.vstack(rows), limit=limit)
    return np.unique(selected(patches, cells.gates), axis=0)


class LargestOracle:
    """Prices neurons that pass on the largest patch.

    Args:
        patches: shape (n, K, p).
        program: makes the program over some selections and output signs.
        effort: up to effort / 20 cells are listed.
    """

    def __init__(
        self, patches: Floats, program: Callable[[Units], GroupProgram], effort: int
    ) -> None:
        self.patches, self.program, self.rounds = patches, program, 0
        self.every: GroupProgram | None = None
        try:
            found = every_selection(patches, effort // SHARE)
        except (arrangements.TooManyPatterns, arrangements.Undecided):
            return
        self.every = program({"selected": found, "signs": np.ones(len(found))})

    def __call__(self, nu: Floats, target: float = 0.0) -> Priced:
        """Return the largest |νᵀg|, or a bound of it, and neurons that price above the target."""
        if self.every is not None:
            return self._listed(self.every, nu, target)
        self.rounds += 1
        found = [self._searched(side, nu, target) for side in (1.0, -1.0)]
        units = dictionary.join(*(one for one, _ in found))
        attained = max(price for _, price in found)
        bound = np.inf
        if target <= 0.0 or not dictionary.count(units):
            bound = max(self._bound(side * nu) for side in (1.0, -1.0))
        return Priced(bound, False, units, 0, attained, 2 * STARTS)

    def _listed(self, every: GroupProgram, nu: Floats, target: float) -> Priced:
        """Price every selection at both signs."""
        both = np.stack([prices(every, side * nu, settled=target) for side in (1.0, -1.0)])
        sign, where = np.unravel_index(np.argsort(-both, axis=None, kind="stable"), both.shape)
        kept = np.flatnonzero(both[sign, where] > target)[: 2 * MOST]
        chosen = dictionary.take(every.units, where[kept])
        chosen["signs"] = 1.0 - 2.0 * sign[kept]
        return Priced(float(both.max()), True, chosen, 2 * every.atoms.size)

    def _bound(self, pull: Floats) -> float:
        """Return an upper bound of the prices at one sign."""
        weights = np.maximum(pull, 0.0)
        lengths = np.linalg.norm(self.patches, axis=2)
        rows = (np.sqrt(weights)[:, None, None] * self.patches).reshape(-1, self.patches.shape[2])
        gram = rows.T @ rows
        slack = (len(rows) + 16) * EPSILON * float(np.trace(gram))
        steep = float(np.linalg.eigvalsh(gram)[-1]) + slack
        bound = min(float(weights @ lengths.max(axis=1)), (float(weights.sum()) * steep) ** 0.5)
        return bound * (1.0 + (len(pull) + 16) * EPSILON)

    def _searched(self, side: float, nu: Floats, target: float) -> tuple[Units, float]:
        """Return selections that price above the target at one output sign, and the best price."""
        u, price = climbed(self.patches, side * nu, self.rounds, STARTS)
        order = np.argsort(-price, kind="stable")
        chosen, price = selected(self.patches, u[order]), price[order]
        first = np.sort(np.unique(chosen, axis=0, return_index=True)[1])
        chosen, price = chosen[first], price[first]
        if not (price > target).any():
            chosen, price = self._polished(side, nu, chosen, price)
        best = np.flatnonzero(price > target)[:MOST]
        units = {"selected": chosen[best], "signs": np.full(len(best), side)}
        return units, float(price.max(initial=0.0))

    def _polished(self, side: float, nu: Floats, chosen: Any, price: Floats) -> tuple[Any, Floats]:
        """Move the best neurons from cell to cell while their prices rise."""
        chosen, price = chosen.copy(), price.copy()
        for unit in range(min(POLISHED, len(chosen))):
            now = chosen[unit : unit + 1]
            for _ in range(HOPS):
                one = self.program({"selected": now, "signs": np.array([side])})
                assert one.cones is not None
                xi, rows = one.atoms.adjoint(nu)[0], one.cones.rows(0)
                top = xi + rows.T @ projection(one.gauge, rows, xi)
                found = float(np.linalg.norm(top))
                if not found > price[unit] * (1 + 1e-12):
                    break
                chosen[unit], price[unit] = now[0], found
                ahead = top / found + STEP * xi / max(float(np.linalg.norm(xi)), 1e-300)
                now = selected(self.patches, ahead[None])
        order = np.argsort(-price, kind="stable")
        return chosen[order], price[order]


def climbed(patches: Floats, pull: Floats, seed: int, starts: int) -> tuple[Floats, Floats]:
    """Climb Σ pull_i max_k (x_ikᵀu)_+ on the sphere from random starts.

    Returns:
        The best neurons on every climb (m, p) and their prices (m,), where these are positive.
    """
    rng = np.random.default_rng(seed)
    u = torch.as_tensor(rng.standard_normal((starts, patches.shape[2])))
    rows, weights = torch.as_tensor(patches), torch.as_tensor(pull)
    u = u / u.norm(dim=1, keepdim=True)
    best, top = torch.full((starts,), -np.inf, dtype=u.dtype), u
    for step in range(STEPS + 1):
        before, place = torch.einsum("nkp,mp->mnk", rows, u).max(dim=2)
        open_ = weights * (before > 0)
        price = (before * open_).sum(1)
        better = price > best
        best, top = torch.where(better, price, best), torch.where(better[:, None], u, top)
        seen = rows[torch.arange(len(rows)), place]  # (m, n, p)
        slope = (open_[:, :, None] * seen).sum(1)
        slope = slope - (slope * u).sum(1, keepdim=True) * u
        size = slope.norm(dim=1, keepdim=True).clamp_min(1e-300)
        u = u + 0.5 * 0.04 ** (step / STEPS) * slope / size
        u = u / u.norm(dim=1, keepdim=True)
    alive = (best > 0).numpy()
    return top.numpy()[alive], best.numpy()[alive]
