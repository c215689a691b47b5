r"""Programs whose blocks are single columns: a Lasso over the outputs of units.

.. math:: \min_{z, ξ} \; ℓ\Big(\sum_g z_g a_g + A_0 ξ,\; y\Big) + β \|z\|_1

A unit is a network that stands beside others of its kind and is scaled by one number: a deep
network with one neuron a layer, a threshold neuron, a neuron on a hyperplane through samples.
The column a_g holds what the unit of size one puts out on the samples; the dictionary of all of
them may be too large to list, and is then priced without a list (`Oracle`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from landscape.errors import BadInput
from landscape.programs import Euclidean, Program

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.losses import Loss
    from landscape.programs import Floats

    Units = Mapping[str, NDArray[Any]]

KINDS = {"b": "b", "i": "iu", "f": "fiu"}
"""Kinds of numbers (numpy's letters) that may stand for truth values, whole and real numbers."""

UNIT = 1e-6
"""Units that a user gives are of size one up to this, and then made so."""

ONE = Euclidean(np.ones(1, dtype=bool))
"""The gauge |z|."""


@dataclass(frozen=True)
class Columns:
    """Blocks of one coordinate: A_g is a column, what a unit of size one puts out on the samples.

    Attributes:
        values: the columns, shape (n, G).
        units: what makes the columns, arrays with a leading axis over the blocks.
        reach: bounds of |entries| on every sample, shape (n,), over all columns of the dictionary,
            these or not.
    """

    values: Floats
    units: Units
    reach: Floats

    @property
    def size(self) -> int:
        """Number of blocks G."""
        return self.values.shape[1]

    @property
    def dimension(self) -> int:
        """One."""
        return 1

    def take(self, blocks: NDArray[np.int64]) -> Columns:
        """Return some of the columns."""
        return replace(self, values=self.values[:, blocks], units=take(self.units, blocks))

    def apply(self, theta: Floats) -> Floats:
        """Return Σ_g θ_g A_g, shape (n,), of ``theta`` (G, 1)."""
        return self.values @ theta[:, 0]

    def adjoint(self, nu: Floats) -> Floats:
        """Return A_gᵀν, shape (G, 1)."""
        return (nu @ self.values)[:, None]

    def terms(self, nu: Floats) -> Floats:
        """Return |A_g|ᵀ|ν|, shape (G, 1): how large the terms of `adjoint` are."""
        return (np.abs(nu) @ np.abs(self.values))[:, None]

    def matrix(self, block: int) -> Floats:
        """Return A_g, shape (n, 1)."""
        return self.values[:, [block]]

    def expression(self, theta: Any) -> Any:
        """Return Σ_g θ_g A_g in cvxpy, ``theta`` a (1, G) variable."""
        return self.values @ theta[0]

    def adjoint_expression(self, nu: Any) -> Any:
        """Return the (1, G) cvxpy expression of A_gᵀν."""
        import cvxpy

        return cvxpy.reshape(nu @ self.values, (1, self.size), order="F")


@dataclass(frozen=True)
class Lasso(Program):
    """A program over columns; it has no cones, and its blocks no patterns."""

    atoms: Columns  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def units(self) -> Units:
        """The units whose outputs are the columns."""
        return self.atoms.units

    @staticmethod
    def of(
        loss: Loss, y: Floats, beta: float, columns: Columns, free: Floats | None = None
    ) -> Lasso:
        """Return the program over some columns; ``free`` is A_0 (n, q), None if there is none."""
        nothing = np.zeros((len(y), 0)) if free is None else free
        return Lasso(loss, y, beta, columns, ONE, None, nothing, None)  # pyright: ignore[reportArgumentType]

    def take(self, blocks: NDArray[np.int64]) -> Lasso:
        """Return the program over some of its columns."""
        return replace(self, atoms=self.atoms.take(blocks))


@dataclass(frozen=True)
class Priced:
    """What a search of a whole dictionary says at one dual point.

    Attributes:
        bound: no unit of size one has |νᵀa| above this, rounding included.
        exact: whether the bound is attained up to rounding (else it is a relaxation).
        units: the best units found, best first; their columns make a program better.
        count: how many units the dictionary holds (an upper bound; 0 for a continuum).
        attained: the largest price that a search found, where there was one.
        climbs: how many climbs that search made.
    """

    bound: float
    exact: bool
    units: Units
    count: int
    attained: float = np.inf
    climbs: int = 0


class Oracle(Protocol):
    """Prices a whole dictionary, listed or not."""

    def __call__(self, nu: Floats, target: float = 0.0) -> Priced:
        """Return the largest |νᵀa| over all units; those up to ``target`` need not be found."""
        ...


def by_name(label: str, units: Any) -> Units:
    """Return what is given to architecture ``label`` as units, refusing patterns and the like."""
    if not isinstance(units, Mapping):
        raise BadInput(
            f"patterns is a {type(units).__name__}: architecture {label} takes units "
            "by name, such as `own(problem, parameters).units`."
        )
    return units


def checked(label: str, units: Any, like: Units) -> Units:
    """Return units that a user gives as arrays, refusing what is not made like some others.

    Args:
        label: of the architecture, for the sentence.
        units: what a user gives.
        like: some units of the architecture, of any number.

    Raises:
        BadInput: for other names, shapes or kinds of numbers, and numbers that are not finite.
    """
    shapes = {k: "(m" + "".join(f", {n}" for n in v.shape[1:]) + ")" for k, v in like.items()}
    wanted = ", ".join(f"{k} {shape}" for k, shape in shapes.items())
    units = by_name(label, units)
    if set(units) != set(like):
        names = ", ".join(map(str, units)) or "(none)"
        raise BadInput(f"patterns has the names {names}: {label} takes {wanted}.")
    arrays = {}
    for name, value in units.items():
        kind = like[name].dtype.kind
        try:
            array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
        except (TypeError, ValueError):  # lists of several lengths, types that numpy lacks
            raise BadInput(f"patterns: {name} is no array; {label} takes {wanted}.") from None
        if array.dtype.kind not in KINDS[kind] or not np.isfinite(array).all():
            numbers = {"b": "truth values", "i": "whole numbers"}.get(kind, "finite numbers")
            raise BadInput(f"patterns: {name} must hold {numbers}; {label} takes {wanted}.")
        arrays[name] = array.astype(like[name].dtype)
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) > 1 or counts == {0}:
        raise BadInput(f"patterns must hold one number m ≥ 1 of units; {label} takes {wanted}.")
    for name, array in arrays.items():
        if array.shape[1:] != like[name].shape[1:]:
            raise BadInput(f"patterns: {name} has shape {array.shape}; {label} takes {wanted}.")
    return arrays


def same(one: Any, other: Any) -> bool:
    """Return whether numbers of units are the same, up to `UNIT`."""
    return np.allclose(one, other, rtol=UNIT, atol=UNIT)


def check_signs(name: str, values: Floats) -> None:
    """Refuse numbers of units that are neither 1 nor −1."""
    if (np.abs(values) != 1).any():
        raise BadInput(f"patterns: {name} must hold 1 and −1.")


def take(units: Units, chosen: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return some of the units."""
    return {name: value[chosen] for name, value in units.items()}


def join(*parts: Units) -> dict[str, NDArray[Any]]:
    """Return the units of several collections, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def count(units: Units) -> int:
    """Return how many units there are."""
    return len(next(iter(units.values())))
