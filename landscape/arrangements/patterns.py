"""A set of activation patterns, eight rows to a byte, with a gate vector for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landscape.arrangements.cells import distinct
from landscape.errors import BadInput


@dataclass(frozen=True, eq=False)
class Arrangements:
    r"""Activation patterns :math:`1[Xh\ge0]` and a direction h strictly inside each cell.

    Attributes:
        packed: patterns, bits in `numpy.packbits` order, uint8, shape (P, ceil(n/8)).
        n: rows of the design matrix.
        gates: a direction that realises each pattern, shape (P, d).

    Example:
        >>> import numpy
        >>> numpy.asarray(Arrangements.from_bool([[True, False]], [[1.0, -1.0]]))
        array([[ True, False]])
    """

    packed: NDArray[np.uint8]
    n: int
    gates: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse arrays whose shapes don't fit each other."""
        packed = np.asarray(self.packed, dtype=np.uint8)
        gates = np.asarray(self.gates, dtype=np.float64)
        n = int(self.n)
        if packed.ndim != 2 or packed.shape[1] != -(-n // 8):
            raise BadInput(
                f"packed has shape {packed.shape}: for n={n} it must be (P, {-(-n // 8)}). "
                "Use Arrangements.from_bool for unpacked patterns."
            )
        if gates.ndim != 2 or len(gates) != len(packed):
            raise BadInput(
                f"gates has shape {gates.shape}: it must be (P, d) with P = {len(packed)} patterns."
            )
        for name, array in (("packed", packed), ("n", n), ("gates", gates)):
            object.__setattr__(self, name, array)

    @classmethod
    def from_bool(cls, patterns: ArrayLike, gates: ArrayLike) -> Arrangements:
        """Pack patterns (P, n) of booleans with their gates (P, d); order and repeats are kept.

        Raises:
            BadInput: if patterns is not a matrix of 0 and 1, or the gates don't fit it.
        """
        return cls(_pack(patterns), np.asarray(patterns).shape[1], np.asarray(gates, np.float64))

    @property
    def patterns(self) -> NDArray[np.bool_]:
        """The patterns unpacked, bool, shape (P, n)."""
        return np.unpackbits(self.packed, axis=1, count=self.n).astype(bool)

    def __len__(self) -> int:
        """Return the number of patterns."""
        return len(self.packed)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the patterns unpacked, bool (P, n) unless another dtype is asked for."""
        return self.patterns if dtype is None else self.patterns.astype(dtype)

    def __getitem__(self, index: Any) -> Arrangements:
        """Return the patterns at an integer, a slice, an index array or a mask."""
        if isinstance(index, (int, np.integer)):
            index = [range(len(self))[index]]
        elif not isinstance(index, slice):
            index = np.asarray(index)
            index = index.astype(np.intp) if index.size == 0 else index
        return Arrangements(self.packed[index], self.n, self.gates[index])

    def __iter__(self) -> Iterator[Arrangements]:
        """Iterate over the patterns, each a set of one."""
        return (self[i] for i in range(len(self)))

    def __contains__(self, pattern: ArrayLike) -> bool:
        """Say whether a pattern (n,) of booleans is in the set."""
        pattern = np.asarray(pattern)
        if pattern.shape != (self.n,):
            raise BadInput(f"the pattern has shape {pattern.shape}: it must be ({self.n},).")
        return bool((self.packed == _pack(pattern[None])).all(axis=1).any())

    def __repr__(self) -> str:
        """Say how many patterns there are, of how many rows."""
        return f"Arrangements({len(self)} patterns of {self.n} rows, gates in R^{self.dimension})"

    @property
    def dimension(self) -> int:
        """Columns of the design matrix, the length of a gate."""
        return self.gates.shape[1]

    def distinct(self) -> Arrangements:
        """Return the set without repeats; first occurrences and their order are kept."""
        return self[distinct(self.packed)]

    def union(self, *others: Arrangements) -> Arrangements:
        """Return the distinct patterns of all the sets, first occurrences first.

        Raises:
            BadInput: if the sets belong to design matrices of different shapes.
        """
        for other in others:
            if (other.n, other.dimension) != (self.n, self.dimension):
                raise BadInput(
                    f"other is {other!r} and this is {self!r}: both must come from one "
                    "design matrix."
                )
        sets = (self, *others)
        return Arrangements(
            np.concatenate([s.packed for s in sets]),
            self.n,
            np.concatenate([s.gates for s in sets]),
        ).distinct()


def _pack(patterns: ArrayLike) -> NDArray[np.uint8]:
    array = np.asarray(patterns)
    if array.ndim != 2 or (array.dtype != bool and not np.isin(array, (0, 1)).all()):
        raise BadInput(
            f"patterns has shape {array.shape} and dtype {array.dtype}: it must be a (P, n) "
            "matrix of booleans, such as X @ gates.T >= 0, transposed."
        )
    return np.packbits(array.astype(bool), axis=1)
