r"""Convex training of the layers of standard deep networks, where no program of the whole is known.

`refit` solves the last two layers of a trained network on its features, and can alternate with
gradient training of all layers (Feng, Frangella and Pilanci, CRONOS, arXiv 2411.01088, alternate
with Adam on the layers below).  `layerwise` trains one layer after the other: every two-layer
program on the features of the layers before is solved globally, and its hidden layer, kept, makes
the features of the next (greedy layer-wise training: Belilovsky, Eickenberg and Oyallon, ICML 2019;
convex programs: Ergen and Pilanci, ICML 2021).

Both certify sub-problems: "given features" says that no other last two layers do better *on these
features*, which is no bound of the deep problem; that one stands beside it as ``relaxed``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from landscape.bounds import AllPatterns, residual
from landscape.certificate import EFFORT
from landscape.errors import BadInput, unknown, whole
from landscape.network import Network, read
from landscape.solvers import layered, solve
from landscape.solvers.last_two import OnFeatures, on_features
from landscape.training import train

if TYPE_CHECKING:
    from landscape.architectures.base import Parameters
    from landscape.architectures.standard_deep import StandardDeep
    from landscape.certificate import Certificate
    from landscape.problem import Problem


@dataclass(frozen=True)
class Refit:
    """A network whose last two layers are the best on its features.

    Attributes:
        network: the network.
        certificate: its objective beside the sub-problem's lower bound, in the units of the deep
            objective; scope "given features: …".  ``relaxed`` is a lower bound of the whole deep
            problem.
        subproblem: the two-layer problem on the features.
        objectives: of the network that came in, and after every refit.
    """

    network: Network = field(repr=False)
    certificate: Certificate
    subproblem: Problem
    objectives: tuple[float, ...]

    @property
    def objective(self) -> float:
        """Objective of the network, in the deep problem."""
        return self.certificate.primal


def refit(
    problem: Problem,
    network: torch.nn.Module | Parameters,
    *,
    patterns: str | int = "all",
    rounds: int = 0,
    steps: int = 500,
    learning_rate: float = 1e-3,
    effort: str = "normal",
    tolerance: float = 1e-7,
    **options: Any,
) -> Refit:
    """Solve the last two layers of a network on the features of the layers below.

    The objective never rises; over all patterns a second refit changes nothing.

    Args:
        problem: a problem of architecture `StandardDeep` with at least three layers.
        network: one network, or a module that the architecture reads.
        patterns: of the features: "all", or how many to sample beside the network's own.
        rounds: how often to train all layers by Adam from there, and refit, while that helps.
        steps: of Adam in a round.
        learning_rate: of Adam.
        effort: of the bound of the whole, as in `certify`; "low" leaves it out.
        tolerance: relative gap of the sub-problem.
        **options: of `solve` for the sub-problem.

    Raises:
        BadInput: for another architecture or a network that does not fit.
        NotConverged: if the sub-problem's gap stays above the tolerance.
    """
    _check(problem, effort)
    whole("rounds", rounds, 0)
    parameters = read(problem, network)
    within = partial(
        on_features, problem, solve=solve, patterns=patterns, tolerance=tolerance, **options
    )
    objectives = [float(problem.objective(parameters))]
    best = within(parameters)
    objectives.append(best.certificate.primal)
    for _ in range(rounds):
        start = {k: v[None] for k, v in best.parameters.items()}
        runs = train(
            problem, seeds=[0], start=start, steps=steps, learning_rate=learning_rate, throw=False
        )
        trained = {k: v[0] for k, v in runs.parameters.items()}
        if not runs.objectives[0] < objectives[-1]:
            break
        best = within(trained)
        objectives.append(best.certificate.primal)
    sub = cast("StandardDeep", problem.architecture).last_two(problem, best.parameters)[0]
    certificate = best.certificate
    if EFFORT[effort]:
        source = AllPatterns(problem, EFFORT[effort])
        bound = layered.bound(problem, source, residual(best.point))
        certificate = replace(certificate, relaxed=bound.value)
    network = Network(problem.architecture, best.parameters)
    return Refit(network, certificate, sub, tuple(objectives))


@dataclass(frozen=True)
class Layerwise:
    """Networks of growing depth, trained layer by layer.

    Attributes:
        networks: of 2, 3, …, L layers, each with the hidden layers of the one before.
        certificates: one a network: of its last two layers; with three layers or more "given
            features", the objective being that of the deep problem.
        widths: hidden neurons of the newest layer, as many as its program asks for.
    """

    networks: tuple[Network, ...] = field(repr=False)
    certificates: tuple[Certificate, ...]
    widths: tuple[int, ...]

    @property
    def objectives(self) -> tuple[float, ...]:
        """Objective of every network in the problem of its own depth."""
        return tuple(one.primal for one in self.certificates)


def layerwise(
    problem: Problem,
    depth: int | None = None,
    *,
    patterns: str | int = "all",
    tolerance: float = 1e-7,
    **options: Any,
) -> Layerwise:
    """Train a deep network layer by layer, each by its convex program.

    Args:
        problem: a problem of architecture `StandardDeep`.
        depth: how many layers, the output's included; by default the architecture's.
        patterns: "all", or how many activation patterns of each layer's features to sample.
        tolerance: relative gap of every layer's program.
        **options: of `solve` for every layer.

    Raises:
        BadInput: for another architecture or a depth below two.
        NotConverged: if a layer's gap stays above the tolerance.
    """
    architecture = problem.architecture
    if architecture.name != "standard_deep":
        raise BadInput(f"problem has architecture {architecture.label}: it must be StandardDeep.")
    depth = whole("depth", cast("StandardDeep", architecture).depth if depth is None else depth, 2)
    options = {"tolerance": tolerance, **options}
    first = _of_depth(problem, 2)
    given = {} if patterns == "all" else {"patterns": _sampled(first, cast("int", patterns))}
    solution = solve(first, **given, **options)
    network = solution.network()
    networks, certificates, widths = [network], [solution.certificate], [solution.active]
    for layers in range(3, depth + 1):
        deeper = _of_depth(problem, layers)
        start = _grown(networks[-1].values)
        found: OnFeatures = on_features(deeper, start, solve, patterns, **options)
        networks.append(Network(deeper.architecture, found.parameters))
        certificates.append(found.certificate)
        widths.append(found.solution.active)
    return Layerwise(tuple(networks), tuple(certificates), tuple(widths))


def _grown(parameters: Parameters) -> Parameters:
    """Return a network of one more layer whose last two layers are zero."""
    output = parameters["output"].detach()
    m = len(output)
    inner = parameters["inner"].detach() if "inner" in parameters else torch.zeros(0, m, m)
    wider = torch.zeros(1, m, m, dtype=torch.float64)
    return {
        "hidden": parameters["hidden"].detach(),
        "inner": torch.cat([inner.double(), wider]),
        "output": torch.zeros_like(output),
    }


def _of_depth(problem: Problem, depth: int) -> Problem:
    architecture = replace(cast("StandardDeep", problem.architecture), depth=depth)
    return problem.replace(architecture=architecture)


def _sampled(problem: Problem, count: int) -> Any:
    from landscape import arrangements

    return arrangements.sample(problem.design, whole("patterns", count), seed=0)


def _check(problem: Problem, effort: str) -> None:
    """Refuse problems without features, and an unknown effort."""
    if not problem.architecture.layered:
        raise BadInput(
            f"problem has architecture {problem.architecture.label}: refit takes StandardDeep of "
            "three layers or more; two layers have a program of their own (landscape.solve)."
        )
    if effort not in EFFORT:
        raise unknown("effort", effort, EFFORT)
