r"""Prices of trees of ReLUs (`landscape.arrangements.trees`): exact, by search, and from above.

The price of a dual point ν is :math:`\sup ± ν^⊤g(X; V)` over units with γ(V) ≤ 1.  Where the list
of groups is short, every group is priced (`landscape.pricing.groups`).  Beyond that units climb
from many starts at once, and the best are polished: within its group the best V is a cone
projection, and a small step along the gradient leads into the next group.  What climbs find is
attained, so it makes columns; the bound is that of all deep networks whose layers have norm one
(`landscape.pricing.layered`), times :math:`\sqrt{\text{leaves}}` for γ = ‖·‖_F, because there
:math:`\sum_j \|v_j\| \le \sqrt{\text{leaves}}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from landscape import arrangements, dictionary
from landscape.dictionary import Priced
from landscape.pricing.balance import EPSILON
from landscape.pricing.blocks import prices
from landscape.pricing.groups import maximiser
from landscape.pricing.layered import Rays, layered_supremum

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from landscape.arrangements.trees import Bools, Tree
    from landscape.dense import GroupProgram, Parts
    from landscape.dictionary import Units
    from landscape.programs import Floats

SHARE = 20
"""Combinations of patterns are listed up to effort / SHARE."""
MOST = 60
"""Units of each sign that one pricing returns at most."""
STARTS = 160
EFFORTS = (1, 4)
"""A search that finds nothing is repeated from this many times as many starts."""
KNOWN = 48
"""Units that one pricing hands to the next to begin from."""
STEPS = 80
POLISHED = 24
HOPS = 30
STEP = 1e-6
"""Relative length of the step that leads out of a group."""
EXACT = 1e-9
"""A bound counts as attained up to this, relatively."""
SHARPENED = 200
"""Groups of which one pricing asks what their best units attain at most."""


class TreeOracle:
    """Prices all units of a tree.

    Args:
        tree: the shape of a unit.
        design: rows that leaves see, shape (n, p).
        program: makes the program over some groups.
        effort: up to effort / 20 combinations of patterns are listed; and cones that branch and
            bound may visit for a bound.
    """

    def __init__(
        self, tree: Tree, design: Floats, program: Callable[[Units], GroupProgram], effort: int
    ) -> None:
        self.tree, self.design, self.program, self.effort = tree, design, program, effort
        self.rays: Rays | None = None
        self.rounds = 0
        self.known = {side: np.zeros((0, tree.leaves, design.shape[1])) for side in (1.0, -1.0)}
        self.signs = {side: np.zeros((0, tree.edges)) for side in (1.0, -1.0)}
        try:
            masks, signs = tree.every(design, effort // SHARE)
        except arrangements.TooManyPatterns:
            self.every = None
        else:
            units = {"masks": masks, "signs": signs, "outputs": np.ones(len(masks))}
            self.every = program(units)

    def __call__(self, nu: Floats, target: float = 0.0) -> Priced:
        """Return the largest |νᵀg|, or a bound of it, and the groups that price above the target.

        Where climbs find some, no bound is sought beside a positive target.
        """
        if self.every is not None:
            return self._listed(self.every, nu, target)
        climbs, attained, units = 0, 0.0, self._nothing
        for effort in EFFORTS:  # the more the less there is to be found
            found = [self._searched(side, nu, target, effort) for side in (1.0, -1.0)]
            units = dictionary.join(*(one for one, _ in found))
            attained = max(attained, *(price for _, price in found))
            climbs += 2 * effort * STARTS
            if dictionary.count(units):
                break
        bound = np.inf
        if target <= 0.0 or not dictionary.count(units):
            bound = self._bound(nu)
        return Priced(bound, False, units, 0, attained, climbs)

    def _listed(self, every: GroupProgram, nu: Floats, target: float) -> Priced:
        """Price every group at both signs."""
        if not every.atoms.size:  # no sample but zeros: units put out nothing
            return Priced(0.0, True, self._nothing, 0)
        both = np.stack([prices(every, side * nu, settled=target) for side in (1.0, -1.0)])
        attained = self._settled(every, nu, both)
        best = [np.argsort(-side, kind="stable")[:MOST] for side in both]
        best = [b[side[b] > target] for b, side in zip(best, both, strict=True)]
        chosen = dictionary.take(every.units, np.concatenate(best))
        chosen["outputs"] = np.repeat([1.0, -1.0], [len(b) for b in best])
        sharp = bool(both.max() <= attained * (1.0 + EXACT))
        return Priced(float(both.max()), sharp, chosen, 2 * every.atoms.size)

    def _settled(self, every: GroupProgram, nu: Floats, both: Floats) -> float:
        """Return the largest price that a unit at hand attains, and sharpen what is above it.

        Args:
            every: all groups.
            nu: dual point, shape (n,).
            both: bounds of their prices at both signs, shape (2, G); the highest become sharp,
                until one is attained or `SHARPENED` were looked at.
        """
        attained = 0.0
        for at in np.argsort(-both, axis=None, kind="stable")[:SHARPENED]:
            side, g = np.unravel_index(at, both.shape)
            if both[side, g] <= attained * (1.0 + EXACT):
                break
            pull = nu if side == 0 else -nu
            own = prices(every.take(np.array([g])), pull)[0]
            both[side, g] = min(both[side, g], own)
            attained = max(attained, self._attained(every, int(g), pull))
        return attained

    def _attained(self, every: GroupProgram, g: int, pull: Floats) -> float:
        """Return what the best unit of a group really prices, its γ being one."""
        assert every.cones is not None
        xi = every.atoms.matrix(g).T @ pull
        theta, _ = maximiser(self._gauge, every.cones.rows(g), xi)
        signs = np.asarray(every.units["signs"])[[g]]
        masks = self.tree.masks(self.design, theta.reshape(1, self.tree.leaves, -1), signs)
        return float(pull @ self.tree.maps(self.design, masks, signs)[0][0] @ theta)

    def _bound(self, nu: Floats) -> float:
        """Return an upper bound of all prices."""
        self.rays = self.rays or Rays(self.design)
        bound = layered_supremum(self.rays, nu, self.effort).bound
        return bound * (1.0 if self.summed else self.tree.leaves**0.5 * (1.0 + 4.0 * EPSILON))

    @property
    def summed(self) -> bool:
        """Whether γ is a sum of norms of leaves."""
        return self._gauge.count > 1

    @property
    def _nothing(self) -> Units:
        nodes, n = sum(self.tree.widths), len(self.design)
        return {
            "masks": np.zeros((0, nodes, n), dtype=bool),
            "signs": np.zeros((0, self.tree.edges)),
            "outputs": np.zeros(0),
        }

    @property
    def _gauge(self) -> Parts:
        return cast("Parts", self.program(self._nothing).gauge)

    def _searched(self, side: float, nu: Floats, target: float, effort: int) -> tuple[Units, float]:
        """Return groups that price above the target at one output sign, and the best price."""
        self.rounds += 1
        V, signs, price = climbed(
            self.tree, self.design, side * nu, self.summed, self.rounds, effort * STARTS, STEPS,
            (self.known[side], self.signs[side]),
        )  # fmt: skip
        order = np.argsort(-price, kind="stable")[: 4 * MOST]
        V, signs, price = V[order], signs[order], price[order]
        masks = self.tree.masks(self.design, V, signs)
        first = _distinct(masks, signs)
        masks, signs, V, price = masks[first], signs[first], V[first], price[first]
        self.known[side], self.signs[side] = V[:KNOWN], signs[:KNOWN]
        if not (price > target).any():
            masks, signs, price = self._polished(side * nu, masks, signs, V, price)
        best = np.flatnonzero(price > target)[:MOST]
        units = {"masks": masks[best], "signs": signs[best], "outputs": np.full(len(best), side)}
        return units, float(price.max(initial=0.0))

    def _polished(
        self, pull: Floats, masks: Bools, signs: Floats, V: Floats, price: Floats
    ) -> tuple[Bools, Floats, Floats]:
        """Move the best units from group to group while their prices rise."""
        masks, price = masks.copy(), price.copy()
        gauge = self._gauge
        for unit in range(min(POLISHED, len(V))):
            now, own = masks[unit : unit + 1], signs[unit : unit + 1]
            for _ in range(HOPS):
                maps, rows = self.tree.maps(self.design, now, own)
                xi = pull @ maps[0]
                theta, _ = maximiser(gauge, rows[0], xi)
                found = float(xi @ theta)  # the bound beside it may be higher
                if not found > price[unit] * (1 + 1e-12):
                    break
                masks[unit], price[unit] = now[0], found
                ahead = theta + STEP * xi / np.linalg.norm(xi)
                now = self.tree.masks(self.design, ahead.reshape(1, self.tree.leaves, -1), own)
        order = np.argsort(-price, kind="stable")
        return masks[order], signs[order], price[order]


def climbed(
    tree: Tree,
    X: Floats,
    pull: Floats,
    summed: bool,
    seed: int,
    starts: int,
    steps: int,
    known: tuple[Floats, Floats] | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Climb pullᵀg(X; V) on γ(V) = 1 from random units, and from known ones moved a little.

    Args:
        tree: the shape of a unit.
        X: rows, shape (n, p).
        pull: ±ν, shape (n,).
        summed: whether γ is the sum of the leaves' norms, else their joint norm.
        seed: of the starts.
        starts: how many.
        steps: gradient steps, their lengths falling from 1/2 to 1/50.
        known: leaf vectors (k, leaves, p) and signs (k, edges) to begin from, too.

    Returns:
        Leaf vectors (k, leaves, p), signs (k, edges) and prices (k,).
    """
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (starts, tree.edges))
    signs[:, :: tree.branching] = 1.0
    V = rng.standard_normal((starts, tree.leaves, X.shape[1]))
    near = V[:, :1] + rng.choice([0.1, 0.3, 1.0], (starts, 1, 1)) * V
    V = np.where(rng.random((starts, 1, 1)) < 0.5, near, V)
    if known is not None and len(known[0]):
        moved = known[0] * (1 + 0.05 * rng.standard_normal(known[0].shape))
        V, signs = np.concatenate([V, known[0], moved]), np.vstack([signs, known[1], known[1]])
    rows, weights = torch.as_tensor(X), torch.as_tensor(pull)
    edges = [torch.as_tensor(level) for level in reversed(tree.signs(signs))]
    lengths = np.linalg.norm(V, axis=2, keepdims=True)
    # With v = ‖q‖ q the sum of norms is the squared norm of all q.
    q = torch.as_tensor(V / np.sqrt(lengths) if summed else V)
    q = q / q.flatten(1).norm(dim=1)[:, None, None]
    best, top = torch.full((len(q),), -np.inf, dtype=q.dtype), q
    for step in range(steps + 1):
        with torch.enable_grad():
            q = q.detach().requires_grad_(True)
            v = q * q.norm(dim=2, keepdim=True) if summed else q
            out = torch.relu(v @ rows.T)
            for level in edges:
                weighted = out * level[:, :, None]
                out = torch.relu(weighted.unflatten(1, (-1, tree.branching)).sum(2))
            price = out[:, 0] @ weights
            slope = torch.autograd.grad(price.sum(), q)[0]
        price, q = price.detach(), q.detach()
        better = price > best
        best, top = torch.where(better, price, best), torch.where(better[:, None, None], q, top)
        slope = slope - (slope * q).flatten(1).sum(1)[:, None, None] * q
        size = slope.flatten(1).norm(dim=1)[:, None, None].clamp_min(1e-300)
        q = q + 0.5 * 0.04 ** (step / max(steps, 1)) * slope / size
        q = q / q.flatten(1).norm(dim=1)[:, None, None]
    found = top * top.norm(dim=2, keepdim=True) if summed else top
    alive = (best > 0).numpy()
    return found.numpy()[alive], signs[alive], best.numpy()[alive]


def _distinct(masks: Bools, signs: Floats) -> NDArray[np.intp]:
    """Return indices of the first units of every group, in their order."""
    flat = masks.reshape(len(masks), masks.shape[1] * masks.shape[2])
    keys = np.hstack([flat, np.asarray(signs > 0)])
    return np.sort(np.unique(np.packbits(keys, axis=1), axis=0, return_index=True)[1])
