r"""Pruning curves: the objective, and errors, at every number of neurons down to none.

The optimal method is exact first: null directions of the features take neurons away and the fit
stays (`landscape.sparsity.pruning`).  From linearly independent features on it removes the neuron
whose removal costs least *after* the others are corrected: their sizes :math:`c ≥ 0` solve

.. math:: \min_{c ≥ 0}\; ℓ\Big(\sum_j c_j s_j (Xu_j)_+ + ξ,\; y\Big) + β\sum_j c_j \|u_j\|,

which keeps directions and signs, so activation patterns stay.  The correction of Mishkin & Pilanci
(ICML 2023) is least squares of the fit; here the penalty takes part, so that the objective of the
corrected network is the least that those directions allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import solve_triangular

from landscape.errors import BadInput, unknown, whole
from landscape.network import Network, read
from landscape.nonnegative import least_squares
from landscape.sparsity.pruning import check, dependences, in_use

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from landscape.architectures.base import Parameters
    from landscape.problem import Problem
    from landscape.programs import Floats

METHODS = ("optimal", "magnitude", "gradient", "activation", "random")
ROUNDS, SETTLED = 50, 1e-13
"""Newton steps of a correction, and the relative decrease at which they end."""


@dataclass(frozen=True)
class PruningCurve:
    """Networks from the full one to none.

    Attributes:
        method: of removal.
        corrected: whether what is left is corrected after each removal.
        neurons: counts, strictly decreasing, shape (K,); a correction may free several at once.
        objectives: regularised objective of each network, shape (K,).
        train_errors, test_errors: error rate for labels ±1, otherwise the squared error divided by
            that of the training mean (1 − R²), shape (K,); without test data NaN.
        minimal: neurons at which features are linearly independent for the first time; None for
            the other methods.
        networks: one for each count, balanced.
    """

    method: str
    corrected: bool
    neurons: NDArray[np.int64]
    objectives: Floats
    train_errors: Floats
    test_errors: Floats
    minimal: int | None
    networks: tuple[Network, ...]

    def network(self, neurons: int) -> Network:
        """Return the largest network of at most so many neurons.

        Raises:
            BadInput: for a negative number.
        """
        return self.networks[self._place(neurons)]

    def objective(self, neurons: int) -> float:
        """Return the objective of the largest network of at most so many neurons."""
        return float(self.objectives[self._place(neurons)])

    def _place(self, neurons: int) -> int:
        return int(np.argmax(self.neurons <= whole("neurons", neurons, 0)))


def pruning_curve(
    problem: Problem,
    network: torch.nn.Module | Parameters,
    method: str = "optimal",
    *,
    X_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    corrected: bool | None = None,
    seed: int = 0,
) -> PruningCurve:
    r"""Remove neurons one after another until none is left.

    Each time the neuron goes that has the least

    - "optimal": cost after correction of the others, once an exact phase has made features
      linearly independent; that phase never raises the objective, and keeps an optimal one;
    - "magnitude": :math:`|a_j|\|w_j\|`;
    - "gradient": :math:`|∂ℓ/∂γ_j|`, with γ_j = 1 a factor on the neuron's output (at a stationary
      point this is :math:`β|a_j|\|w_j\|`, so it ranks as magnitude does until the first removal);
    - "activation": size of its outputs, :math:`|a_j|\|(Xw_j)_+\|`;
    - "random": place in a random order.

    Args:
        problem: the training problem, two-layer ReLU.
        network: any network; it is balanced first.
        method: one of the above.
        X_test: held-out inputs, shape (N, d), or None.
        y_test: their targets, shape (N,), or None.
        corrected: whether to correct what is left after each removal; by default "optimal" does
            and the others do not, as they are usually run.
        seed: of the random order.

    Raises:
        BadInput: for another architecture, an unknown method, half of a test set, a loss with
            kinks (its correction is no Newton step), or an optimal method without correction.
    """
    architecture = check("pruning_curve", problem)
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    corrected = method == "optimal" if corrected is None else corrected
    if method == "optimal" and not corrected:
        raise BadInput("corrected is False: method 'optimal' is removal with correction.")
    if corrected and not problem.loss.smooth:
        raise BadInput(
            f"problem has the {problem.loss.name} loss, which has kinks: corrected pruning needs a "
            "smooth loss; use another loss, or corrected=False."
        )
    test = _test(problem, X_test, y_test)
    order = np.random.default_rng(whole("seed", seed, 0))
    start = architecture.balanced(problem, read(problem, network))[0]
    found, minimal = [in_use(problem, start)], None
    if method == "optimal":
        for parameters in dependences(problem, start):
            found.append(in_use(problem, parameters))
        minimal = len(found[-1].values["output"])
        left = _best_removals(problem, found[-1])
    else:
        left = _removals(problem, found[-1], method, corrected, order)
    found += list(left)
    fewer = [0, *(k for k in range(1, len(found)) if _count(found[k]) < _count(found[k - 1]))]
    kept = [found[k] for k in fewer]
    return PruningCurve(
        method=method,
        corrected=corrected,
        neurons=np.array([_count(one) for one in kept]),
        objectives=np.array([problem.objective(one) for one in kept]),
        train_errors=np.array([error(problem, one, problem.X, problem.y) for one in kept]),
        test_errors=np.array([np.nan if test is None else error(problem, k, *test) for k in kept]),
        minimal=minimal,
        networks=tuple(kept),
    )


def error(problem: Problem, network: Network, X: Floats, y: Floats) -> float:
    """Return the error rate for training labels ±1, else the squared error over that of the mean.

    Args:
        problem: its targets say which of the two, and give the mean of every output.
        network: what is judged.
        X: inputs, shape (N, d).
        y: targets, shape (N,), or with c outputs (N, c) or a sample's side by side (Nc,).
    """
    with torch.no_grad():
        outputs = network(X).numpy()
    if not len(outputs):
        return float("nan")
    own, outputs, y = (v.reshape(-1, problem.outputs) for v in (problem.y, outputs, np.asarray(y)))
    if np.isin(own, (-1.0, 1.0)).all():
        return float((outputs * y <= 0).mean())
    return float(((outputs - y) ** 2).sum() / ((y - own.mean(axis=0)) ** 2).sum())


def _count(network: Network) -> int:
    return len(network.values["output"])


def _test(problem: Problem, X: ArrayLike | None, y: ArrayLike | None) -> tuple | None:
    """Return the test set, or None, refusing half of one and other shapes."""
    if X is None and y is None:
        return None
    if X is None or y is None:
        raise BadInput("X_test and y_test: pass both, or neither.")
    inputs, targets = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    d = problem.X.shape[1]
    if inputs.ndim != 2 or inputs.shape[1] != d or targets.shape != inputs.shape[:1]:
        raise BadInput(
            f"X_test has shape {inputs.shape} and y_test {targets.shape}: they must be (N, {d}) "
            "and (N,)."
        )
    return inputs, targets


def _removals(
    problem: Problem, network: Network, method: str, corrected: bool, rng: np.random.Generator
) -> Iterator[Network]:
    """Yield networks with a neuron fewer each, the one of least score removed."""
    parameters = {k: v.detach() for k, v in network.values.items()}
    design = torch.as_tensor(problem.design)
    order = torch.as_tensor(rng.permutation(_count(network)).astype(np.float64))
    while len(parameters["output"]):
        hidden, output = parameters["hidden"], parameters["output"]
        features = torch.relu(design @ hidden.T) * output
        if method == "magnitude":
            scores = check("pruning_curve", problem).sizes(problem, hidden) * output.abs()
        elif method == "activation":
            scores = features.norm(dim=0)
        elif method == "gradient":
            fit = problem.architecture.forward(parameters, torch.as_tensor(problem.X))
            slope = problem.loss.gradient(fit.numpy(), problem.y)
            scores = (features.T @ torch.as_tensor(slope)).abs()
        else:
            scores = order
        kept = torch.arange(len(output)) != int(scores.argmin())
        order = order[kept]
        parameters = {k: v[kept] if v.ndim else v for k, v in parameters.items()}
        if corrected:
            after = Corrections(problem, parameters)
            parameters = after.apply(*after.solve(np.arange(len(parameters["output"])))[1:])
            order = order[parameters["output"] != 0]
            parameters = {k: v.detach() for k, v in in_use(problem, parameters).values.items()}
        yield Network(problem.architecture, parameters)


def _best_removals(problem: Problem, network: Network) -> Iterator[Network]:
    """Yield networks with a neuron fewer each, or more, at the least objective after correction."""
    parameters = {k: v.detach() for k, v in network.values.items()}
    while count := len(parameters["output"]):
        left = Corrections(problem, parameters)
        every = np.arange(count)
        found = [left.solve(np.delete(every, j)) for j in range(count)]
        _, sizes_, constant = min(found, key=lambda one: one[0])
        used = in_use(problem, left.apply(sizes_, constant))
        yield used
        parameters = {k: v.detach() for k, v in used.values.items()}


class Corrections:
    """The best sizes of subsets of a network's neurons, directions and signs kept.

    Args:
        problem: loss, targets and β.
        parameters: a balanced network of m neurons.
    """

    def __init__(self, problem: Problem, parameters: Parameters) -> None:
        self.problem, self.parameters = problem, parameters
        hidden, output = parameters["hidden"], parameters["output"]
        features = torch.relu(torch.as_tensor(problem.design) @ hidden.T) * output
        self.columns = features.numpy()  # (n, m): at c = 1, what each adds to the fit
        lengths = check("Corrections", problem).sizes(problem, hidden)
        self.costs = (problem.beta * lengths * output.abs()).numpy()
        self.free = "constant" in parameters
        self.constant = float(parameters["constant"]) if self.free else 0.0
        self._plain = None
        if problem.loss.name == "squared":  # the factor of all columns serves every subset
            self._plain = self._factor(np.ones(len(problem.y)), problem.y)

    def solve(self, subset: NDArray[np.int64]) -> tuple[float, Floats, float]:
        """Return the least objective, the factors c (m,) (zero outside a subset), and ξ.

        Newton steps, each a non-negative least-squares problem, with halving; from c = 1.
        """
        problem, loss = self.problem, self.problem.loss
        c, constant = np.zeros(len(self.costs)), self.constant
        c[subset] = 1.0
        value = self._value(c, constant)
        for _ in range(ROUNDS):
            fit = self.columns @ c + constant
            curves = np.asarray(loss.curvature(fit, problem.y), dtype=np.float64)
            curves = np.maximum(curves, 1e-9 * curves.max(initial=0.0) + 1e-300)
            target = fit - np.asarray(loss.gradient(fit, problem.y)) / curves
            model = self._plain or self._factor(curves, target)
            aim = np.zeros_like(c)
            aim[subset] = self._nonnegative(model, subset)
            goal = self._constant(curves, target, aim)
            before, step = value, 1.0
            while step > 1e-6:
                tried = (1 - step) * c + step * aim, (1 - step) * constant + step * goal
                if (now := self._value(*tried)) <= value:
                    (c, constant), value = tried, now
                    break
                step /= 2
            if self._plain or before - value <= SETTLED * abs(before):
                break
        return value, c, constant

    def apply(self, c: Floats, constant: float) -> Parameters:
        """Return the balanced network of factors c and ξ."""
        root = torch.as_tensor(np.sqrt(c))
        end = {k: v.clone() for k, v in self.parameters.items()}
        end["hidden"], end["output"] = end["hidden"] * root[:, None], end["output"] * root
        if self.free:
            end["constant"] = torch.tensor(constant, dtype=torch.float64)
        return end

    def _value(self, c: Floats, constant: float) -> float:
        loss = self.problem.loss.value(self.columns @ c + constant, self.problem.y)
        return float(loss) + float(self.costs @ c)

    def _constant(self, curves: Floats, target: Floats, c: Floats) -> float:
        if not self.free:
            return 0.0
        return float(curves @ (target - self.columns @ c) / curves.sum())

    def _factor(self, curves: Floats, target: Floats) -> tuple[Floats, Floats]:
        """Return the triangle R of the weighted columns, ξ eliminated, and their gradient at 0."""
        roots = np.sqrt(curves)
        columns, wanted = roots[:, None] * self.columns, roots * target
        if self.free:
            unit = roots / np.linalg.norm(roots)
            columns = columns - np.outer(unit, unit @ columns)
            wanted = wanted - unit * (unit @ wanted)
        triangle: Floats = np.asarray(np.linalg.qr(columns, mode="r"))
        return triangle, columns.T @ wanted - self.costs

    def _nonnegative(self, model: tuple[Floats, Floats], subset: NDArray[np.int64]) -> Floats:
        """Minimise ½‖Rc‖² − tᵀc over c ≥ 0 on a subset of the columns."""
        triangle, slope = model
        part = triangle[:, subset]
        if not part.size:
            return np.zeros(len(subset))
        scale = np.linalg.norm(part, axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        part = part / scale
        square = np.linalg.qr(part, mode="r") if len(part) >= len(subset) else None
        if square is None or np.abs(np.diag(square)).min() <= 1e-9:  # dependent: a little ridge
            ridge = 1e-7 * np.eye(len(subset))
            square = np.linalg.qr(np.vstack([part, ridge]), mode="r")
        right = solve_triangular(square, slope[subset] / scale, trans=1)
        return least_squares(np.asarray(square), right)[0] / scale
