r"""Linear networks of circular convolutions: ℓ1 in the Fourier domain (Ergen & Pilanci, 2021).

.. math::

    f(x) = x^⊤ z, \quad z = \sum_j u_{j1} ⊛ ⋯ ⊛ u_{jL}, \qquad
    R = \tfrac1L \sum_j \sum_l \|u_{jl}\|^L

a sum of units of L filters, each as long as the signal or image (N entries); the last filter of a
unit is its output layer, and L = 2 is weight decay on one convolution and a linear layer.  With
the unitary transform F, :math:`F(u ⊛ w) = \sqrt N\, Fu ∘ Fw`.  For L = 2,

.. math::

    \min_z \; ℓ(Xz, y) + \tfrac{β}{\sqrt N} \|Fz\|_1

since :math:`\tfrac12 (\|u\|^2 + \|w\|^2) ≥ \sum_k |(Fu)_k (Fw)_k|`, with equality at filters of
equal spectra: one unit can be all of z.  *Filters are real*: frequencies k and −k belong together
as a sinusoid of amplitude A, of which :math:`\|Fz\|_1/\sqrt N` holds exactly A.  So a block is a
frequency, θ its cosine and sine, γ = ‖θ‖.

For L > 2 the papers' "ℓ1 in the Fourier domain" is that of complex filters.  A real filter of
norm one has :math:`|Fu|_k ≤ 1/\sqrt2` at a pair ±k, but 1 at a frequency that is its own mirror
(0, and N/2).  By Hölder's inequality over frequencies (each is a coordinate of a diagonal tensor)

.. math::

    R ≥ \sum_{k = −k} \frac{A_k}{N^{L/2−1}} + \sum_{±k,\, k ≠ −k} \frac{A_k}{(N/2)^{L/2−1}} ,

attained by a unit for each frequency: pairs cost 2^{L/2−1} times what the complex count says
(1 for L = 2).  Images: the same with frequencies along both axes and N pixels.

With a single ReLU behind the filters, :math:`f(x) = \sum_j a_j (x^⊤z_j)_+`, each z_j a unit of L
filters and :math:`R = \tfrac{1}{L+1} \sum_j (\sum_l \|u_{jl}\|^{L+1} + |a_j|^{L+1})`, the program
is that of a ReLU layer with the least norm of a *single* unit that puts out z in the place of ‖u‖.
That is the quasi-norm ℓ_{2/L} of the spectrum (Hölder): for L = 2 the sum of amplitudes above, and
training confirms the program (in the tests); for L > 2 not convex, and no program is offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np
import torch

from landscape import dictionary
from landscape.architectures.base import Architecture, ConvexPoint
from landscape.architectures.modules import read_own
from landscape.architectures.patches import whole_numbers
from landscape.architectures.rows import check_scalar_output, seeded_normal
from landscape.dense import DenseAtoms, GroupProgram
from landscape.dictionary import Priced, take
from landscape.errors import BadInput, whole
from landscape.gauges import Euclidean
from landscape.pricing.blocks import prices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Floats, Parameters
    from landscape.dictionary import Oracle, Units
    from landscape.problem import Problem

EPSILON = float(np.finfo(np.float64).eps)


class Spectrum(NamedTuple):
    """The sinusoids of a grid.

    Attributes:
        waves: cosines and sines of all frequencies, one of every pair ±k, shape (K, 2, N).
        single: frequencies that are their own mirror, whose sine is zero, shape (K,).
        index: the frequencies, cycles along every axis, shape (K, axes).
    """

    waves: Floats
    single: NDArray[np.bool_]
    index: NDArray[np.int64]


def spectrum(extent: tuple[int, ...]) -> Spectrum:
    """Return the sinusoids of signals (d,) or images (h, w)."""
    every = np.stack(np.unravel_index(np.arange(int(np.prod(extent))), extent), axis=1)
    mirror = -every % np.array(extent)
    flat = [np.ravel_multi_index(tuple(one.T), extent) for one in (every, mirror)]
    kept = flat[0] <= flat[1]
    index, single = every[kept], (flat[0] == flat[1])[kept]
    phase = 2 * np.pi * (index[:, None] * every % np.array(extent) / np.array(extent)).sum(axis=2)
    waves = np.stack([np.cos(phase), np.sin(phase)], axis=1)
    waves[single, 0] = np.sign(waves[single, 0])  # ±1 without rounding
    waves[single, 1] = 0.0
    return Spectrum(waves, single, index)


@dataclass(frozen=True)
class Circular(Architecture):
    """A sum of units of circular convolutions, linear in the inputs.

    Attributes:
        layers: filters of a unit L, the output layer included; at least 2.
        shape: what a row of X is, (d,) or (h, w); None for a signal that fills the row.
    """

    layers: int = 2
    shape: tuple[int, ...] | None = None
    name: ClassVar[str] = "circular"

    def __post_init__(self) -> None:
        """Refuse fewer layers than two, and shapes that are none."""
        whole("layers", self.layers, 2)
        object.__setattr__(self, "shape", whole_numbers("shape", self.shape))
        if self.shape is not None and len(self.shape) > 2:
            raise BadInput(f"shape is {self.shape}: it must be (d,) or (h, w), without channels.")

    @property
    def inputs(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many inputs it takes, where a shape is given."""
        return None if self.shape is None else int(np.prod(self.shape))

    def config(self) -> dict[str, Any]:
        """Return name and choices."""
        return {**super().config(), "shape": None if self.shape is None else list(self.shape)}

    def check(self, X: Floats, y: Floats) -> None:
        """Refuse several outputs, and rows that the shape does not fill."""
        check_scalar_output(self.label, y)
        if self.inputs not in (None, X.shape[1]):
            raise BadInput(
                f"shape is {self.shape}, {self.inputs} entries, and X has {X.shape[1]} columns: "
                "every row of X must be one flattened signal or image."
            )

    def _extent(self, inputs: int) -> tuple[int, ...]:
        return (inputs,) if self.shape is None else self.shape

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return units of normal filters, of variance scale²/N and scale²/(mN) in the last."""
        N = problem.X.shape[1]
        draws = scale / N**0.5 * seeded_normal(seeds, width, self.layers, N)
        return {"hidden": draws[:, :, :-1], "output": draws[:, :, -1] / width**0.5}

    def filters(self, parameters: Parameters) -> torch.Tensor:
        """Return z of every unit, the convolution of its filters, shape (…, m, N)."""
        hidden, output = parameters["hidden"], parameters["output"]
        if not output.numel():  # the transform refuses to transform nothing
            return output
        extent = self._extent(output.shape[-1])
        axes = tuple(range(-len(extent), 0))
        spectra = torch.fft.rfftn(hidden.unflatten(-1, extent), dim=axes)
        last = torch.fft.rfftn(output.unflatten(-1, extent), dim=axes)
        product = spectra.prod(-1 - len(extent)) * last
        return torch.fft.irfftn(product, s=extent, dim=axes).flatten(-len(extent))

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n)."""
        return self.filters(parameters).sum(-2) @ X.T

    def _norms(self, parameters: Parameters) -> torch.Tensor:
        """Return the norms of all filters, shape (…, m, L)."""
        hidden = torch.linalg.vector_norm(parameters["hidden"], dim=-1)
        output = torch.linalg.vector_norm(parameters["output"], dim=-1)
        return torch.cat([hidden, output[..., None]], dim=-1)

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return 1/L Σ ‖u‖^L, shape (…,)."""
        return (self._norms(parameters) ** self.layers).sum((-1, -2)) / self.layers

    def gates(self, parameters: Parameters) -> Floats:
        """Refuse: the network is linear."""
        raise BadInput(f"architecture {self.label} is linear: it has no activation patterns.")

    def _reaches(self, waves: Spectrum) -> Floats:
        """Return the amplitude of a sinusoid of size one, shape (K,)."""
        N = waves.waves.shape[2]
        return np.where(waves.single, N, N / 2) ** (self.layers / 2 - 1)

    def program(self, problem: Problem, patterns: Any, signs: Floats | None = None) -> GroupProgram:
        """Return the group lasso over some frequencies, by their places in `spectrum`.

        Units of the program have their sinusoids beside them, for `lower`.
        """
        units = dictionary.by_name(self.label, patterns)
        waves = spectrum(self._extent(problem.X.shape[1]))
        chosen = units["frequency"]
        tall = self._reaches(waves)[chosen, None, None] * (waves.waves @ problem.X.T)[chosen]
        reach = float(self._reaches(waves).max()) * np.abs(problem.X).sum(axis=1)
        units = {"frequency": chosen, "waves": waves.waves[chosen]}
        return GroupProgram.of(
            problem.loss,
            problem.y,
            problem.beta,
            DenseAtoms(tall.transpose(0, 2, 1), units, reach),
            Euclidean(np.ones(2, dtype=bool)),
            None,
        )

    def checked_units(self, problem: Problem, units: Any) -> Units:
        """Return places of `spectrum`, refusing others; sinusoids may stand beside them or not."""
        places = {"frequency": self.first(problem, 0)["frequency"]}
        given = dictionary.by_name(self.label, units)
        given = {name: value for name, value in given.items() if name != "waves"}
        given, count = dictionary.checked(self.label, given, places), len(places["frequency"])
        if not ((given["frequency"] >= 0) & (given["frequency"] < count)).all():
            raise BadInput(f"patterns: frequency must hold places from 0 to {count - 1}.")
        return given

    def first(self, problem: Problem, seed: int) -> Units:
        """Return all frequencies."""
        waves = spectrum(self._extent(problem.X.shape[1])).waves
        return {"frequency": np.arange(len(waves)), "waves": waves}

    def oracle(self, problem: Problem, effort: int) -> Oracle:
        """Return what prices all frequencies, which are listed."""
        every = self.program(problem, self.first(problem, 0))

        def priced(nu: Floats, target: float = 0.0) -> Priced:
            each = prices(every, nu)
            order = np.argsort(-each, kind="stable")
            units = take(every.units, order[each[order] > target])
            return Priced(float(each.max()), True, units, every.atoms.size)

        return priced

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return cosines and sines of z, whose amplitudes are at most the penalty."""
        with torch.no_grad():
            z = self.filters(parameters).sum(-2).cpu().numpy().astype(np.float64)
        waves = spectrum(self._extent(len(z)))
        share = np.where(waves.single, 1.0, 2.0) / (len(z) * self._reaches(waves))
        theta = share[:, None] * (waves.waves @ z)
        sizes = np.linalg.norm(theta, axis=1)
        kept = np.flatnonzero(sizes > 8 * len(z) * EPSILON * sizes.max(initial=0.0))
        return ConvexPoint(self.program(problem, {"frequency": kept}), theta[kept], np.zeros(0))

    def lower(self, point: ConvexPoint) -> Parameters:
        """Return the balanced network, a unit for each frequency that is not zero."""
        program = cast("GroupProgram", point.program)
        sizes = program.gauge.value(point.theta)
        used = sizes > 0
        waves = program.units["waves"][used]
        unit = waves / np.linalg.norm(waves[:, :1], axis=2, keepdims=True)
        root = sizes[used, None] ** (1.0 / self.layers)
        turned = ((point.theta[used] / sizes[used, None])[:, None] @ unit)[:, 0]
        hidden = np.repeat((root * unit[:, 0])[:, None], self.layers - 1, axis=1)
        return {"hidden": torch.as_tensor(hidden), "output": torch.as_tensor(root * turned)}

    def units(self, parameters: Parameters) -> Units:
        """Refuse: a unit of a network may hold all frequencies; `lift` says how much of each."""
        raise BadInput(f"architecture {self.label}: use `own(problem, parameters).units` instead.")

    def own(self, problem: Problem, parameters: Parameters) -> GroupProgram:
        """Return the program over the frequencies of one network."""
        return cast("GroupProgram", self.lift(problem, parameters).program)

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return what frequencies lack, ‖A_gᵀν − βθ_g/‖θ_g‖‖/β, and imbalances of units."""
        point = self.lift(problem, parameters)
        lengths = np.linalg.norm(point.theta, axis=1, keepdims=True)
        pull = cast("GroupProgram", point.program).atoms.adjoint(nu) / problem.beta
        clarke = np.linalg.norm(pull - point.theta / lengths, axis=1)
        norms = self._norms(parameters).detach().cpu().numpy().astype(np.float64)
        alive = norms.all(axis=1)
        each = (norms**self.layers).sum(axis=1) / self.layers
        balance = 1.0 - norms.prod(axis=1)[alive] / each[alive]
        return clarke, np.zeros(len(clarke)), np.maximum(balance, 0.0)

    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of our own `Network`."""
        return read_own(self, module)
