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

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from landscape import arrangements
from landscape.architectures.patches import averaged
from landscape.bounds import FEATURES, AllPatterns, residual
from landscape.certificate import EFFORT
from landscape.errors import BadInput, unknown, whole
from landscape.network import Network, read
from landscape.solvers import layered, solve
from landscape.solvers.last_two import OnFeatures, on_features
from landscape.training import train

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from landscape.architectures import Convolution, GatedConvolution
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
        networks: of 2, 3, …, L layers, each with the hidden layers of the one before; of
            convolutions only the two layers that are new, on the maps of those before.
        certificates: one a network: of its last two layers; with three layers or more "given
            features", the objective being that of the deep problem (of convolutions, that of the
            two layers).
        widths: hidden neurons of the newest layer, as many as its program asks for.
        window: places that the maps of convolutions are averaged over before the next layer; 0
            where networks see the inputs themselves.
    """

    networks: tuple[Network, ...] = field(repr=False)
    certificates: tuple[Certificate, ...]
    widths: tuple[int, ...]
    window: int = 0

    def __call__(self, X: ArrayLike, network: int = -1) -> torch.Tensor:
        """Return the outputs (n,) of one of the networks, by default the deepest, at X (n, d)."""
        last = self.networks[network]
        features = torch.as_tensor(X, dtype=torch.float64)
        if self.window:
            for below in self.networks[: range(len(self.networks))[network]]:
                features = _maps(below, features, self.window)
        return last(features)

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
    window: int = 2,
    **options: Any,
) -> Layerwise:
    """Train a deep network layer by layer, each by its convex program.

    Convolutions: the layer's filters, at size one, stay as they are, and their maps, averaged over
    windows, are the image of the next layer, with the same kernel, stride, pooling and β.

    Args:
        problem: a problem of architecture `StandardDeep`, `Convolution` or `GatedConvolution`.
        depth: how many layers, the output's included; by default the architecture's.
        patterns: "all", or how many activation patterns of each layer's features to sample.
        tolerance: relative gap of every layer's program.
        window: of convolutions, see above; axes that are shorter are averaged whole.
        **options: of `solve` for every layer.

    Raises:
        BadInput: for another architecture or a depth below two.
        NotConverged: if a layer's gap stays above the tolerance.
    """
    architecture = problem.architecture
    if architecture.name in ("convolution", "gated_convolution"):
        count = whole("depth", 2 if depth is None else depth, 2) - 1
        layers = _stages(problem, patterns, whole("window", window), tolerance=tolerance, **options)
        stages = list(itertools.islice(layers, count))
        return Layerwise(
            networks=tuple(network for network, _, _ in stages),
            certificates=tuple(certificate for _, certificate, _ in stages),
            widths=tuple(width for _, _, width in stages),
            window=window,
        )
    if architecture.name != "standard_deep":
        raise BadInput(
            f"problem has architecture {architecture.label}: it must be StandardDeep, Convolution "
            "or GatedConvolution."
        )
    depth = whole("depth", cast("StandardDeep", architecture).depth if depth is None else depth, 2)
    options = {"tolerance": tolerance, **options}
    first = _of_depth(problem, 2)
    given = {} if patterns == "all" else {"patterns": _sampled(first, cast("int", patterns))}
    solution = solve(first, **given, **options)
    network = solution.network()
    networks, certificates, widths = [network], [solution.certificate], [solution.active]
    for layers in range(3, depth + 1):
        if not widths[-1]:
            raise BadInput(
                f"beta is {problem.beta:g}: layer {layers - 2} has no neurons, and there is none "
                "beyond it; lower beta or depth."
            )
        deeper = _of_depth(problem, layers)
        start = _grown(networks[-1].values)
        found: OnFeatures = on_features(deeper, start, solve, patterns, **options)
        networks.append(Network(deeper.architecture, found.parameters))
        certificates.append(found.certificate)
        widths.append(found.solution.active)
    return Layerwise(tuple(networks), tuple(certificates), tuple(widths))


def _stages(
    problem: Problem, patterns: str | int, window: int, **options: Any
) -> Iterator[tuple[Network, Certificate, int]]:
    """Yield two convolutional layers after the other, each on the averaged maps of those before."""
    scope = ""
    while True:
        given = {} if patterns == "all" else {"patterns": _sampled(problem, cast("int", patterns))}
        solution = solve(problem, **given, **options)
        certificate, network = solution.certificate, solution.network()
        yield network, replace(certificate, scope=scope + certificate.scope), solution.active
        if not solution.active:
            raise BadInput(
                f"beta is {problem.beta:g}: a layer has no filters, and there is none beyond it; "
                "lower beta or depth."
            )
        architecture = cast("Convolution | GatedConvolution", problem.architecture)
        places = architecture.patches(problem.X.shape[1])
        shape, kernel = places.deeper(solution.active, window)
        X = _maps(network, torch.as_tensor(problem.X), window)
        problem = problem.replace(
            X=X, architecture=replace(architecture, shape=shape, kernel=kernel)
        )
        scope = f"{FEATURES}: "


def _maps(network: Network, X: torch.Tensor, window: int) -> torch.Tensor:
    """Return the averaged maps of a convolution's filters as rows."""
    with torch.no_grad():
        own = cast("Convolution | GatedConvolution", network.architecture)
        return averaged(own.maps(network.values, X), window)


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
