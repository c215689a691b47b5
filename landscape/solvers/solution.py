"""What `solve` returns: a certified point of the convex program and its network."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape import archive
from landscape.architectures.base import ConvexPoint
from landscape.arrangements import Arrangements
from landscape.dictionary import Lasso
from landscape.errors import BadInput
from landscape.network import Network

if TYPE_CHECKING:
    from landscape.certificate import Certificate
    from landscape.dictionary import Units
    from landscape.problem import Problem
    from landscape.programs import Floats, Program
    from landscape.solvers.reference import Optimum

# Solvers leave noise in blocks that are zero at the optimum; candidates for what counts as noise,
# relative to the largest block.  The mapped network with the lowest objective decides.
NOISE = (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 2.0)  # 2: every block, the zero network


@dataclass(frozen=True)
class Solution:
    """A solved problem.

    Attributes:
        problem: what was solved.
        point: the optimum as a point of the convex program, noise removed.
        certificate: primal (of the mapped network), dual bound, gap, violation, scope.
        dual: feasible dual point ν, shape (n,).
        status: a sentence on how the solver ended.
        history: one dictionary a step: values, pattern counts, seconds.
    """

    problem: Problem = field(repr=False)
    point: ConvexPoint = field(repr=False)
    certificate: Certificate
    dual: Floats = field(repr=False)
    status: str
    history: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def objective(self) -> float:
        """Objective of the mapped network: an upper bound of the optimum in every scope."""
        return self.certificate.primal

    @property
    def patterns(self) -> Arrangements | Units:
        """The patterns that carry a non-zero block, or the units, where blocks are columns."""
        program = self.point.program
        if program.units is not None:
            return program.units
        return program.patterns[np.unique(program.atoms.index)]

    @property
    def active(self) -> int:
        """Number of neurons of the network; with one output, of non-zero blocks."""
        if self.point.theta.ndim == 3 or self.problem.architecture.flat_outputs:
            return len(self.problem.architecture.lower(self.point)["hidden"])
        return int((self.point.program.gauge.value(self.point.theta) > 0).sum())

    def on(self, program: Program) -> tuple[Floats, Floats] | None:
        """Return this point's blocks in the order of another program's, zero where it has none.

        None if a block that it uses is missing there.
        """
        own = self.point.program
        if own.units is not None:
            return None
        if self.point.theta.shape[1] != program.atoms.dimension:
            return None
        place = {key: g for g, key in enumerate(_keys(program))}
        theta = program.zero()[0]
        for key, block in zip(_keys(own), self.point.theta, strict=True):
            if key not in place:
                return None
            theta[place[key]] = block
        return theta, self.point.constant

    def network(self) -> Network:
        """Return a network with the same objective, usable on new points."""
        architecture = self.problem.architecture
        return Network(architecture, architecture.lower(self.point))

    def save(self, path: str | Path) -> Path:
        """Write blocks, dual and certificate to an ``.npz`` of numbers and JSON text.

        Raises:
            BadInput: where the blocks are those of one network's features, which are not kept.
        """
        if self.point.program.given:
            raise BadInput(
                f"solution is of the last layers on {self.point.program.given} of a network: save "
                "the network (solution.network().save) and certify it anew."
            )
        about = {
            "architecture": self.problem.architecture.config(),
            "loss": self.problem.loss.name,
            "beta": self.problem.beta,
            "status": self.status,
            "certificate": {
                k: getattr(self.certificate, k)
                for k in ("primal", "dual", "violation", "price_ratio", "scope", "patterns")
            },
        }
        arrays = {"theta": self.point.theta, "constant": self.point.constant, "dual": self.dual}
        program = self.point.program
        if program.units is not None:
            arrays |= {f"unit.{name}": value for name, value in program.units.items()}
        else:
            arrays |= {"index": program.atoms.index, "signs": program.atoms.signs}
            arrays |= {"packed": program.patterns.packed, "gates": program.patterns.gates}
        return archive.write(path, about, arrays)

    @staticmethod
    def load(path: str | Path, problem: Problem) -> Solution:
        """Read what `save` wrote and certify it anew on ``problem`` (stored claims are not used).

        Raises:
            BadInput: if the file is not a solution, or not of this problem's shapes.
        """
        from landscape.bounds import EXACT
        from landscape.certificate import certify

        about, stored = archive.read(path, "solution", ("theta", "constant", "dual"))
        own = problem.architecture.config()
        if about["architecture"] != own or len(stored["dual"]) != len(problem.y):
            raise BadInput(
                f"{path} was solved for {about['architecture']} on {len(stored['dual'])} samples; "
                f"problem has {own} on {len(problem.y)}."
            )
        program = _program(path, problem, stored)
        patterns = program.patterns if program.units is None else program.units
        point = ConvexPoint(program, stored["theta"], stored["constant"])
        network = Network(problem.architecture, problem.architecture.lower(point))
        whole = about["certificate"]["scope"] == EXACT
        certificate = certify(
            problem,
            network,
            patterns=None if whole else patterns,
            dual=[stored["dual"]],
            effort="high" if whole else "low",
        )
        certificate = replace(certificate, violation=program.violation(point.theta))
        status = f"Read from {Path(path).name} and certified anew on {problem}."
        return Solution(problem, point, certificate, certificate.nu, status)


def _program(path: str | Path, problem: Problem, stored: dict[str, Any]) -> Program:
    """Return the program over the blocks that a file holds."""
    units = {k.removeprefix("unit."): v for k, v in stored.items() if k.startswith("unit.")}
    if units:
        return problem.architecture.program(problem, units)
    missing = [name for name in ("index", "signs", "packed", "gates") if name not in stored]
    if missing:
        raise BadInput(f"{path} holds no saved solution (it has no {', '.join(missing)}).")
    width, p = stored["theta"].shape[1], problem.design.shape[1]
    if width != p:
        raise BadInput(
            f"{path} has blocks of {width} coordinates (bias included): the problem has {p}."
        )
    patterns = Arrangements(stored["packed"], len(problem.design), stored["gates"])
    program = problem.architecture.program(problem, patterns)
    return program.with_blocks(stored["index"], stored["signs"])


def _keys(program: Program) -> list[tuple[bytes, float]]:
    packed = program.patterns.packed
    return [
        (packed[i].tobytes(), float(sign))
        for i, sign in zip(program.atoms.index, program.atoms.signs, strict=True)
    ]


def without_noise(problem: Problem, program: Program, optimum: Optimum) -> ConvexPoint:
    """Return the optimum without the blocks that are only solver noise.

    Of the thresholds in `NOISE`, the one whose mapped network has the lowest objective is taken
    (ties go to fewer neurons); remaining blocks keep their values.
    """
    sizes = program.gauge.value(optimum.theta)
    largest = float(sizes.max(initial=0.0))
    stays = np.zeros(len(sizes), dtype=bool) if program.cones is None else program.cones.open
    scale = float(problem.loss.value(np.zeros(problem.y.shape), problem.y))
    # The active set of a Lasso leaves no noise: there only rounding counts as a tie.
    slack = 1e-13 * abs(optimum.value) if isinstance(program, Lasso) else 1e-11 * scale
    best: tuple[float, ConvexPoint] | None = None
    for noise in NOISE:
        loud = sizes > noise * largest
        kept = np.flatnonzero(loud | stays)
        theta = np.where(
            loud[kept].reshape(-1, *[1] * (optimum.theta.ndim - 1)), optimum.theta[kept], 0.0
        )
        point = ConvexPoint(program.take(kept), theta, optimum.constant)
        value = float(problem.objective(problem.architecture.lower(point)))
        if best is None or value <= best[0] + slack:
            best = (value if best is None else min(value, best[0]), point)
    assert best is not None
    return best[1]
