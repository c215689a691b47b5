r"""The README's example of a new architecture: squared ReLU on one input, in one short file.

.. math::

    f(x) = \sum_j (w_j x + b_j)_+^2\, a_j, \qquad
    R = \tfrac13 \sum_j (2\|(w_j, b_j)\|^3 + |a_j|^3) \ge \sum_j \|(w_j, b_j)\|^2 |a_j|

so that a unit of size one has (w, b) = (cos φ, sin φ), and training is a Lasso over φ.  Between two
kinks :math:`ν^⊤(X u_φ)_+^2` is a constant plus a wave in 2φ, whose extremes are known: the price of
the whole circle costs n arcs.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from landscape.architectures.parallel import Parallel
from landscape.architectures.rows import seeded_normal, with_ones
from landscape.dictionary import Priced


@dataclass(frozen=True)
class SquaredReLU(Parallel):
    """Two-layer networks of squared ReLUs on one input, the bias penalised."""

    name: ClassVar[str] = "squared_relu"
    inputs: ClassVar[int | None] = 1

    def initial(self, problem, width, seeds, scale=1.0):
        draws = seeded_normal(seeds, width, 3)
        return {"hidden": scale * draws[..., :2], "output": scale / width**0.5 * draws[..., 2]}

    def each(self, parameters, X):
        rows = torch.cat([X, torch.ones_like(X)], dim=-1)
        return torch.relu(rows @ parameters["hidden"].mT) ** 2 * parameters["output"][..., None, :]

    def penalty(self, parameters):
        inner = parameters["hidden"].norm(dim=-1) ** 3
        return ((2 * inner + parameters["output"].abs() ** 3) / 3).sum(-1)

    def sizes(self, parameters):
        return parameters["hidden"].norm(dim=-1) ** 2 * parameters["output"].abs()

    def units(self, parameters):
        hidden = parameters["hidden"].detach().numpy()
        return {"angles": np.arctan2(hidden[:, 1], hidden[:, 0])}

    def scaled(self, units, z):
        share, angles = np.abs(z) ** (1 / 3), units["angles"]
        hidden = share[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
        return {"hidden": torch.as_tensor(hidden), "output": torch.as_tensor(np.sign(z) * share)}

    def reach(self, problem):
        return (with_ones(problem.X) ** 2).sum(axis=1)

    def first(self, problem, seed):
        return {"angles": np.array([0.0])}

    def oracle(self, problem, effort):
        rows = with_ones(problem.X)
        kinks = np.arctan2(-rows[:, 0], rows[:, 1])  # where x cos φ + sin φ = 0
        ends = np.sort(np.concatenate([kinks, kinks + np.pi]) % (2 * np.pi))
        begin, length = ends, np.diff(ends, append=ends[0] + 2 * np.pi)
        middle = begin + length / 2
        on = rows @ np.stack([np.cos(middle), np.sin(middle)]) > 0  # (n, arcs)
        squares = np.column_stack([rows[:, 0] ** 2, rows[:, 0] * rows[:, 1], rows[:, 1] ** 2])

        def price(nu, target=0.0):
            p, q, r = (squares * nu[:, None]).T @ on  # of every arc
            crest = np.arctan2(q, (p - r) / 2) / 2
            tries = np.stack([crest, crest + np.pi / 2, crest + np.pi, crest + 1.5 * np.pi, begin])
            tries = begin + (tries - begin) % (2 * np.pi)
            values = np.abs((p + r) / 2 + (p - r) / 2 * np.cos(2 * tries) + q * np.sin(2 * tries))
            values[tries - begin > length] = 0.0  # outside its arc
            best = np.argsort(-values, axis=None)[:24]
            charge = 1e-14 * float(np.abs(nu) @ self.reach(problem)) * len(nu)
            units = {"angles": tries.reshape(-1)[best]}
            return Priced(float(values.max()) + charge, True, units, 0)

        return price
