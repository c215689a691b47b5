"""What an architecture is: a network, its exact regulariser, its atoms and the bridge both ways.

To add one is to add one file with a subclass of `Architecture`, one line in
`landscape.architectures`, one configuration and one row of ``tests/cases.py``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from landscape import arrangements, dictionary
from landscape.architectures.rows import check_bias_column, check_scalar_output, with_bias
from landscape.arrangements import Arrangements

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.dictionary import Oracle, Units
    from landscape.losses import Loss
    from landscape.problem import Problem
    from landscape.programs import Program

    Floats = NDArray[np.float64]
    Parameters = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class ConvexPoint:
    """A point of a program: what a network is on the convex side.

    Attributes:
        program: the program that it belongs to.
        theta: blocks, shape (G, p), or (G, p, c) with c outputs.
        constant: the free part θ_0, shape (q,) or (q, c).
    """

    program: Program
    theta: Floats
    constant: Floats

    @property
    def value(self) -> float:
        """The program's objective here."""
        return self.program.value(self.theta, self.constant)

    @property
    def features(self) -> Floats:
        """What every block adds to the fit, A_g θ_g, shape (n, G) (one output)."""
        atoms = self.program.atoms
        columns = [atoms.matrix(g) @ self.theta[g] for g in range(len(self.theta))]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.program.y), 0))


@dataclasses.dataclass(frozen=True)
class Architecture(ABC):
    """The face that training, solving, certifying and drawing are written against.

    Public dataclass fields are the configuration; ``name`` is the word that selects the class.
    Parameter dictionaries may carry leading batch axes everywhere but in `lift` and `lower`.
    """

    name: ClassVar[str]
    fixed: ClassVar[tuple[str, ...]] = ()
    """Names of parameters that are part of the network but not trained (gates)."""
    shared: ClassVar[tuple[str, ...]] = ()
    """Names of arrays that all units share: their first axis is not that of the units."""
    one_sign: ClassVar[bool] = False
    """Whether signs of output weights say nothing: there is but one, or hidden weights take it."""
    inputs: ClassVar[int | None] = None
    """How many inputs it takes, where that is fixed."""
    searched: ClassVar[bool] = False
    """Whether blocks price as ReLU neurons over some rows (`ramps`): branch and bound searches."""
    within_neurons: ClassVar[bool] = False
    """Whether units of an oracle are ReLU neurons ‖u‖₂ ≤ 1 over the design, but not all of them."""
    flat_outputs: ClassVar[bool] = False
    """Whether outputs of a sample lie side by side: targets (n, c) become (nc,), like fits."""
    smooth_units: ClassVar[bool] = False
    """Whether units priced by an oracle depend smoothly on their parameters (and may slide)."""

    @property
    def plain_neurons(self) -> bool:
        """Whether all units are ReLU neurons over the design: no other activation, no skip.

        Their prices are ±νᵀ(Xu)_+, and rooms that know ReLU alone take just these networks.
        """
        return False

    @property
    def leak(self) -> float:
        """The slope of the activation below zero, where neurons are searched."""
        return 0.0

    @property
    def drawn_outputs(self) -> int:
        """How many outputs random problems have (`landscape.theory.instance`)."""
        return 1

    @property
    def of_units(self) -> bool:
        """Whether programs are over units that an oracle prices, and not over patterns.

        That is: whether the architecture has an `oracle` of its own.
        """
        return type(self).oracle is not Architecture.oracle

    def config(self) -> dict[str, Any]:
        """Return what `landscape.architectures.get` needs to make this architecture again."""
        return {"name": self.name, **dataclasses.asdict(self)}

    @property
    def degree(self) -> float:
        """κ of R ≥ t^κ/κ for networks of gauge t: 1 where the program is that of the gauge."""
        return 1.0

    @property
    def layered(self) -> bool:
        """Whether only the last two layers have a program, on the features of a network."""
        return False

    @property
    def label(self) -> str:
        """One word for tables: the name and its choices."""
        config = self.config()
        choices = ", ".join(f"{k}={v}" for k, v in config.items() if k != "name")
        return f"{config['name']}({choices})" if choices else str(config["name"])

    @property
    def hidden_bias(self) -> str:
        """Bias of the neurons that see the inputs: "none", "penalised" or "free"."""
        return getattr(self, "bias", "none")

    def check(self, X: Floats, y: Floats) -> None:
        """Refuse data whose shapes the architecture cannot take, with a sentence.

        Here: targets with several columns, and a constant column beside a bias.
        """
        check_scalar_output(self.label, y)
        check_bias_column(self.hidden_bias, X)

    def check_loss(self, X: Floats, y: Floats, loss: Loss) -> None:  # noqa: B027
        """Refuse a loss with which no network attains the infimum on these data."""

    def design(self, X: Floats) -> Floats:
        """Return the rows that neurons see, shape (n, p): X, or [X, 1] with a bias."""
        return with_bias(self.hidden_bias, X)

    @abstractmethod
    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return random networks with a leading axis over seeds, each seed independent."""

    @abstractmethod
    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n) at inputs X (n, d)."""

    @abstractmethod
    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return the regulariser R, which β multiplies, shape (…,)."""

    def penalised(self, problem: Problem) -> NDArray[np.bool_]:
        """Return which coordinates of a block the regulariser counts, shape (p,)."""
        return np.ones(problem.design.shape[1], dtype=bool)

    @abstractmethod
    def gates(self, parameters: Parameters) -> Floats:
        """Return the directions (m, p) whose signs on the design rows are the patterns."""

    @abstractmethod
    def program(self, problem: Problem, patterns: Any, signs: Floats | None = None) -> Program:
        """Return the convex program over these patterns (`Arrangements`), or units by name.

        Args:
            problem: the data.
            patterns: the activation patterns, P of them.
            signs: the output sign ±1 of each pattern's block; None makes both blocks of every
                pattern (where the architecture has signs at all).
        """

    @abstractmethod
    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the convex point of one network; its value never exceeds the objective."""

    @abstractmethod
    def lower(self, point: ConvexPoint) -> Parameters:
        """Return a network with the objective of a (feasible) convex point."""

    @abstractmethod
    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return what each neuron of one network lacks to be stationary at residual ν (n,).

        Returns:
            ``(clarke, wrong, balance)``, one entry a neuron that is not zero: the Clarke residual
            divided by β (and one more for a free output bias), the largest wrong-signed tie divided
            by max|ν| (see `landscape.clarke`), and |‖w‖ − |a|| / max(‖w‖, |a|).
        """

    @abstractmethod
    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of a network of ours or of a user's own module.

        Raises:
            BadInput: if the module is not this architecture.
        """

    def attached(self, problem: Problem, parameters: Parameters) -> Parameters:
        """Return one network whose fixed parameters that stand for training inputs are this X.

        Here: the network itself.  Normalised networks carry what they need of their inputs; those
        of the same inputs are this problem's networks, and take its own numbers, so that rounding
        on the way, in single precision or another order, does not count.

        Raises:
            BadInput: if they are of other inputs: the objective would be no training objective.
        """
        return parameters

    def without_padding(self, parameters: Parameters) -> Parameters:
        """Return one network without the zero neurons that pad it to a batch's width."""
        output = parameters["output"]
        outputs = int(np.prod(output.shape[1:]))  # a network may have no neurons at all
        used = parameters["hidden"].flatten(1).any(1) | output.reshape(-1, outputs).any(1)
        count = len(used)
        return {k: v[used] if v.ndim and len(v) == count else v for k, v in parameters.items()}

    def ramps(self, problem: Problem, nu: Floats) -> tuple[Floats, Floats]:
        """Return rows (N, p) and weights (N,): neurons u price as ± weightsᵀ(rows u)_+ at ν."""
        raise NotImplementedError

    def on_rows(self, problem: Problem, nu: Floats) -> Floats:
        """Return what every row of the design sees of a dual point: ν, unless rows are pooled."""
        return nu

    def representatives(
        self, problem: Problem, gates: Floats, signs: Floats
    ) -> tuple[Floats, Floats]:
        """Return one of those neurons (gates (m, p), signs (m,)) that are the same atom."""
        return gates, signs

    def oracle(self, problem: Problem, effort: int) -> Oracle | None:
        """Return what prices every unit at once; None where patterns are priced instead.

        Args:
            problem: the data.
            effort: how many units, cones or nodes it may visit.
        """
        return None

    def first(self, problem: Problem, seed: int) -> Units:
        """Return some units with which column generation begins, where there is an oracle."""
        raise NotImplementedError

    def units(self, parameters: Parameters) -> Units:
        """Return the units of one network at size one, where there is an oracle."""
        raise NotImplementedError

    def checked_units(self, problem: Problem, units: Any) -> Units:
        """Return units that a user gives, refusing those that are not of this architecture.

        Here: other names, shapes or kinds of numbers.  Subclasses look at the numbers as well.

        Raises:
            BadInput: with what was found and what there should be.
        """
        some = {k: v[0] for k, v in self.initial(problem, 1, [0]).items()}
        return dictionary.checked(self.label, units, self.own(problem, some).units)

    def own(self, problem: Problem, parameters: Parameters) -> Program:
        """Return the program over the patterns of one network, kinks included."""
        patterns = arrangements.of(self.gates(parameters), problem.design)
        return self.program(problem, patterns)

    def all_patterns(self, problem: Problem, limit: int) -> Arrangements:
        """Return every pattern that the design rows admit (exact enumeration)."""
        return arrangements.enumerate(problem.design, limit=limit)
