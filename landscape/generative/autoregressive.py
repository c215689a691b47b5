r"""Binary densities as products of conditionals, one two-layer program for each coordinate.

.. math::

    p(x) = \prod_k \operatorname{sigmoid}\big(x_k f_k(1, x_{P_k})\big), \quad x ∈ \{−1, 1\}^d,
    \qquad \min_{θ_1 … θ_d} \sum_k \Big( \sum_i \log(1 + e^{−x_{ik} f_k}) + β R(θ_k) \Big)

f_k has hidden neurons of its own and sees a constant and the *parents* :math:`P_k` only: all
coordinates before k, or those of a window.  The objective is a sum over k, and so are its convex
program and its certificate: the bound of the whole is the sum of the bounds.

With all coordinates as parents of each (`everything`) the same programs are an *autoencoder* with
unshared hidden neurons: there are no conditionals of a joint density then, and no likelihood.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from landscape.architectures import TwoLayer
from landscape.bounds import EXACT, SEARCH, of_a_part
from landscape.errors import BadInput, reals, whole, wholes
from landscape.problem import Problem
from landscape.solvers import solve
from landscape.training import train

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from landscape.architectures.base import Architecture
    from landscape.certificate import Certificate
    from landscape.network import Network
    from landscape.solvers import Solution

    Floats = NDArray[np.float64]

Parents = Sequence[Sequence[int]]


def preceding(d: int) -> Parents:
    """Return all coordinates before each."""
    return [list(range(k)) for k in range(d)]


def everything(d: int) -> Parents:
    """Return all coordinates for each: the autoencoder."""
    return [list(range(d)) for _ in range(d)]


def above_left(rows: int, columns: int) -> Parents:
    """Return the four neighbours of a pixel that come before it, in the order of rows."""
    found = []
    for r in range(rows):
        for c in range(columns):
            near = [(r, c - 1), (r - 1, c - 1), (r - 1, c), (r - 1, c + 1)]
            found.append([i * columns + j for i, j in near if i >= 0 and 0 <= j < columns])
    return found


class Autoregressive:
    """The training problem: d logistic problems.

    Args:
        X: samples of ±1, shape (n, d); no column constant.
        beta: β.
        parents: coordinates that each output sees, `preceding` by default.
        architecture: of every output; it takes the constant as its first input.

    Raises:
        BadInput: naming the argument.
    """

    def __init__(
        self,
        X: ArrayLike,
        beta: float,
        parents: Parents | None = None,
        architecture: str | Architecture | None = None,
    ) -> None:
        self.X = _signs("X", X)
        d = self.X.shape[1]
        self.parents = _parents(preceding(d) if parents is None else parents, d)
        constant = np.flatnonzero(np.ptp(self.X, axis=0) == 0)
        if len(constant):
            raise BadInput(
                f"X is {self.X[0, constant[0]]:g} throughout column {constant[0]}: there is "
                "nothing to learn in it; leave it out."
            )
        if getattr(architecture, "hidden_bias", "none") != "none":
            raise BadInput(
                f"architecture is {architecture}: outputs take the constant as their first input, "
                "which is a penalised bias already; take bias='none'."
            )
        chosen = architecture or TwoLayer()
        self.problems = tuple(
            Problem(self.inputs(self.X, k), self.X[:, k], beta, "logistic", chosen)
            for k in range(d)
        )

    @property
    def ordered(self) -> bool:
        """Whether parents come before their children, so that there is a joint density."""
        return all(j < k for k, one in enumerate(self.parents) for j in one)

    def inputs(self, X: Floats, k: int) -> Floats:
        """Return what output k sees of samples (N, d): a constant and the parents."""
        return np.hstack([np.ones((len(X), 1)), X[:, list(self.parents[k])]])

    def solve(self, **options: Any) -> Density:
        """Solve every output by `landscape.solve`, whose options these are."""
        solutions = tuple(solve(problem, **options) for problem in self.problems)
        return Density(self, tuple(one.network() for one in solutions), solutions)

    def train(self, width: int, seeds: Iterable[int], **options: Any) -> list[Density]:
        """Train every output by `landscape.train`; return a density for each seed."""
        seeds = wholes("seeds", seeds, least=0)
        runs = [train(problem, width, seeds, **options) for problem in self.problems]
        return [
            Density(self, tuple(one.networks[s] for one in runs), ()) for s in range(len(seeds))
        ]


@dataclass(frozen=True)
class Density:
    """Networks for all coordinates.

    Attributes:
        problem: what they were fitted to.
        networks: one for each coordinate.
        solutions: with their certificates, where the programs were solved.
    """

    problem: Autoregressive
    networks: tuple[Network, ...]
    solutions: tuple[Solution, ...] = ()

    @property
    def objective(self) -> float:
        """Negative log-likelihood of the training samples + βR, summed over outputs."""
        pairs = zip(self.problem.problems, self.networks, strict=True)
        return float(sum(problem.objective(network) for problem, network in pairs))

    @property
    def bound(self) -> float:
        """Lower bound of the objective over all networks: the sum over outputs; −∞ if unsolved.

        Where the dual of an output is that of a search or of some patterns only, what is known of
        all patterns counts: its relaxed bound, −∞ if there is none.
        """
        if not self.solutions:
            return -np.inf
        return float(np.sum([_over_all(one.certificate) for one in self.solutions]))

    @property
    def exact(self) -> bool:
        """Whether every output has an exact bound over all patterns."""
        return bool(self.solutions) and all(
            one.certificate.scope == EXACT for one in self.solutions
        )

    @property
    def active(self) -> int:
        """Number of neurons of all networks."""
        return sum(len(network.values["output"]) for network in self.networks)

    def logits(self, X: ArrayLike) -> Floats:
        """Return f_k at samples (N, d), shape (N, d)."""
        X = _signs("X", X, self.problem.X.shape[1])
        columns = [
            network(self.problem.inputs(X, k)).detach().numpy()
            for k, network in enumerate(self.networks)
        ]
        return np.stack(columns, axis=1)

    def log_likelihood(self, X: ArrayLike) -> Floats:
        """Return log p of samples (N, d) in nats, shape (N,).

        Raises:
            BadInput: if parents do not come before their children.
        """
        self._check_order("log_likelihood")
        X = _signs("X", X, self.problem.X.shape[1])
        return -np.logaddexp(0.0, -X * self.logits(X)).sum(1)

    def sample(self, n: int, seed: int = 0) -> Floats:
        """Draw n samples, coordinate by coordinate, shape (n, d).

        Raises:
            BadInput: if parents do not come before their children.
        """
        self._check_order("sample")
        rng = np.random.default_rng(whole("seed", seed, 0))
        X = np.ones((whole("n", n), len(self.networks)))
        for k, network in enumerate(self.networks):
            chance = expit(network(self.problem.inputs(X, k)).detach().numpy())
            X[:, k] = np.where(rng.random(n) < chance, 1.0, -1.0)
        return X

    def _check_order(self, what: str) -> None:
        if not self.problem.ordered:
            raise BadInput(
                f"parents: {what} needs parents that come before their children; these programs "
                "are an autoencoder (logits reconstructs)."
            )


def _parents(parents: Any, d: int) -> tuple[tuple[int, ...], ...]:
    """Return parents as tuples of coordinates, one for each of d outputs, or refuse them."""
    try:
        listed = tuple(tuple(one) for one in parents)
    except TypeError:
        listed = ()
    wrong = [j for one in listed for j in one if not _coordinate(j, d)]
    if len(listed) != d or wrong:
        found = f"names {wrong[0]!r}" if wrong else f"is {parents!r}"
        raise BadInput(
            f"parents {found}: one list of coordinates 0 … {d - 1} is needed for each of the {d} "
            "columns of X."
        )
    return listed


def _coordinate(j: Any, d: int) -> bool:
    return isinstance(j, numbers.Integral) and not isinstance(j, bool) and 0 <= int(j) < d


def _over_all(certificate: Certificate) -> float:
    """Return the lower bound over all patterns."""
    narrower = certificate.scope == SEARCH or of_a_part(certificate.scope)
    return certificate.relaxed if narrower else certificate.dual


def _signs(name: str, X: ArrayLike, columns: int | None = None) -> Floats:
    """Return samples as float64, refusing anything but ±1 in two axes."""
    X = reals(name, X, ("n", "d" if columns is None else columns))
    if not (np.abs(X) == 1.0).all():
        raise BadInput(f"{name} has entries other than −1 and 1: binarise it.")
    return X


def bernoulli(X: ArrayLike) -> Callable[[ArrayLike], Floats]:
    """Return log p of independent coordinates with Laplace's estimate, the simplest baseline."""
    X = _signs("X", X)
    on = ((X > 0).sum(0) + 1.0) / (len(X) + 2.0)

    def log_p(Z: ArrayLike) -> Floats:
        return np.where(_signs("Z", Z, len(on)) > 0, np.log(on), np.log1p(-on)).sum(1)

    return log_p
