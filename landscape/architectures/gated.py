r"""Gated ReLU networks: fixed gates, hence a group lasso without cones (Mishkin et al., ICML 2022).

.. math::

    f(x) = \sum_j 1[x^⊤g_j ≥ 0]\,(x^⊤w_j a_j + c_j), \qquad
    R = \tfrac12 \sum_j (\|w_j\|^2 + a_j^2)

    \min_{w_i} ℓ\Big(\sum_i D_i X w_i,\; y\Big) + β \sum_i \|w_i\|

Bias "none": gates and weights see x.  "penalised": both see (x, 1).  "free": gates see (x, 1) and
every neuron has an unpenalised constant c_j behind its output weight, so that the optimum of the
program is attained by a network (a constant before the output weight would have to diverge).

With targets (n, c), a_j and c_j are vectors of c outputs.  "nuclear": weight decay on all of them,

.. math::

    R = \tfrac12 \sum_j (\|w_j\|^2 + \|a_j\|_2^2), \qquad
    \min_{V_i} ℓ\Big(\sum_i D_i X V_i,\; Y\Big) + β \sum_i \|V_i\|_*

(Sahiner et al., ICLR 2021).  "per_class": R with ‖a_j‖₁ in the place of ‖a_j‖₂, so that a neuron
gains nothing by feeding two outputs: the penalty is β Σ_i Σ_k ‖V_i[:, k]‖₂ and the program
separates into one for each output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch

from landscape.architectures import gated_outputs
from landscape.architectures.base import Architecture, ConvexPoint
from landscape.architectures.modules import read_own
from landscape.architectures.rows import (
    BIASES,
    check_bias_column,
    check_scalar_output,
    seeded_normal,
)
from landscape.arrangements import Arrangements
from landscape.errors import BadInput, unknown
from landscape.programs import Euclidean, MaskedAtoms, Nuclear, PerClass, Program

if TYPE_CHECKING:
    from landscape.architectures.base import Floats, Parameters
    from landscape.problem import Problem


OUTPUTS = ("one", "nuclear", "per_class")


@dataclass(frozen=True)
class GatedReLU(Architecture):
    """A gated ReLU network; its gates are drawn, not trained.

    Attributes:
        bias: "none", "penalised" or "free" (see the module's text).
        outputs: "one" for targets (n,); "nuclear" or "per_class" for targets (n, c), after the
            norm that the regulariser is on the convex side (see the module's text).
    """

    bias: Literal["none", "penalised", "free"] = "none"
    outputs: Literal["one", "nuclear", "per_class"] = "one"
    name: ClassVar[str] = "gated_relu"
    fixed: ClassVar[tuple[str, ...]] = ("gate",)
    one_sign: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse an unknown kind of bias."""
        if self.bias not in BIASES:
            raise unknown("bias", self.bias, BIASES)
        if self.outputs not in OUTPUTS:
            raise unknown("outputs", self.outputs, OUTPUTS)

    @property
    def drawn_outputs(self) -> int:
        """Two where there may be several."""
        return 1 if self.outputs == "one" else 2

    def config(self) -> dict[str, Any]:
        """Return name and choices; one output goes without saying."""
        choices = super().config()
        if self.outputs == "one":
            del choices["outputs"]
        return choices

    def check(self, X: Floats, y: Floats) -> None:
        """Refuse targets of another shape than the outputs', a constant column beside a bias."""
        if self.outputs == "one" and y.ndim == 2:
            raise BadInput(
                f"y has shape {y.shape}: architecture {self.label} has one output; pass "
                "GatedReLU(outputs='nuclear') for weight decay on all outputs together, or "
                "'per_class'."
            )
        if self.outputs == "one":
            check_scalar_output(self.name, y)
        elif y.ndim != 2:
            raise BadInput(
                f"y has shape {y.shape}: architecture {self.label} wants samples × outputs "
                "(n, c); for targets (n,) leave outputs='one'."
            )
        check_bias_column(self.bias, X)

    def _linear_design(self, problem: Problem) -> Floats:
        """What the weights see: the constants of "free" stand in the free block instead."""
        return problem.X if self.bias == "free" else problem.design

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with Gaussian gates, w ~ N(0, scale²/p) and a ~ N(0, scale²/m)."""
        p, q = problem.design.shape[1], self._linear_design(problem).shape[1]
        outputs = problem.y.shape[1:]
        draws = seeded_normal(seeds, width, p + q + int(np.prod(outputs)))
        parameters = {
            "gate": draws[..., :p],
            "hidden": scale / q**0.5 * draws[..., p : p + q],
            "output": scale / width**0.5 * (draws[..., p + q :] if outputs else draws[..., -1]),
        }
        if self.bias == "free":
            parameters["constant"] = torch.zeros(len(seeds), width, *outputs, dtype=torch.float64)
        return parameters

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n), or (…, n, c)."""
        gates, hidden, d = parameters["gate"], parameters["hidden"], X.shape[1]
        opened, before = X @ gates[..., :d].mT, X @ hidden[..., :d].mT  # (…, n, m)
        if self.bias != "none":
            opened = opened + gates[..., None, :, -1]
        if self.bias == "penalised":
            before = before + hidden[..., None, :, -1]
        if self.outputs != "one":
            fit = ((opened >= 0) * before) @ parameters["output"]
            if self.bias == "free":
                fit = fit + (opened >= 0).to(fit.dtype) @ parameters["constant"]
            return fit
        neurons = before * parameters["output"][..., None, :]
        if self.bias == "free":
            neurons = neurons + parameters["constant"][..., None, :]
        return ((opened >= 0) * neurons).sum(-1)

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return ½ Σ(‖w‖² + ‖a‖²), shape (…,), ‖a‖₁ for "per_class"; constants do not count."""
        hidden, output = parameters["hidden"], parameters["output"]
        if self.outputs != "one":
            output = torch.linalg.vector_norm(output, ord=self._order, dim=-1)
        return 0.5 * ((hidden**2).sum((-1, -2)) + (output**2).sum(-1))

    @property
    def _order(self) -> int:
        """The p of the norm ‖a‖_p that weighs a neuron's outputs."""
        return 1 if self.outputs == "per_class" else 2

    def gates(self, parameters: Parameters) -> Floats:
        """Return the fixed gates, shape (m, p)."""
        return parameters["gate"].detach().cpu().numpy().astype(np.float64)

    def program(
        self, problem: Problem, patterns: Arrangements, signs: Floats | None = None
    ) -> Program:
        """Return the group lasso with one block a pattern.  Blocks have no sign."""
        if signs is not None and not np.all(np.asarray(signs) == 1):
            raise BadInput("signs: blocks of the gated program are unconstrained and have none.")
        masks, count = np.asarray(patterns), len(patterns)
        design = self._linear_design(problem)
        free = masks.T.astype(np.float64) if self.bias == "free" else np.ones((len(design), 0))
        gauge = Euclidean(np.ones(design.shape[1], dtype=bool))
        if self.outputs != "one":
            kind = Nuclear if self.outputs == "nuclear" else PerClass
            gauge = kind(design.shape[1], problem.outputs)
        return Program(
            loss=problem.loss,
            y=problem.y,
            beta=problem.beta,
            atoms=MaskedAtoms(design, masks, np.arange(count), np.ones(count)),
            gauge=gauge,
            cones=None,
            free=free,
            patterns=patterns,
        )

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the convex point: w_i = Σ w_j a_jᵀ over the neurons whose gates agree."""
        gates = self.gates(parameters)
        masks = gates @ problem.design.T >= 0
        _, first, group = np.unique(masks, axis=0, return_index=True, return_inverse=True)
        group = group.reshape(-1)
        output = parameters["output"][:, None]  # (m, 1), or (m, 1, c)
        hidden = parameters["hidden"]  # (m, p), or (m, p, 1); m may be zero
        hidden = hidden.reshape(*hidden.shape, *[1] * (output.ndim - 2))
        slopes = (output * hidden).detach().cpu().numpy()
        theta = np.zeros((len(first), *slopes.shape[1:]))
        np.add.at(theta, group, slopes)
        program = self.program(problem, Arrangements.from_bool(masks[first], gates[first]))
        constant = program.zero()[1]
        if self.bias == "free":
            np.add.at(constant, group, parameters["constant"].detach().cpu().numpy())
        return ConvexPoint(program, theta, constant)

    def lower(self, point: ConvexPoint) -> Parameters:
        """Return the balanced network w ↦ (w/√‖w‖, √‖w‖), one neuron a non-zero block.

        With several outputs a block V = Σ σ p qᵀ is one neuron (√σ p, √σ q) for each singular
        value, or for each column that is not zero.
        """
        if self.outputs != "one":
            return gated_outputs.lower(self, point)
        program = point.program
        theta = np.zeros((len(program.patterns), point.theta.shape[1]))
        theta[program.atoms.index] = point.theta
        norms = program.gauge.value(theta)
        used = norms > 0
        if self.bias == "free":
            used |= point.constant != 0
        scale = np.sqrt(norms[used])
        divisor = np.where(scale > 0, scale, 1.0)[:, None]
        parameters = {
            "gate": torch.as_tensor(program.patterns.gates[used]),
            "hidden": torch.as_tensor(theta[used] / divisor),
            "output": torch.as_tensor(scale),
        }
        if self.bias == "free":
            parameters["constant"] = torch.as_tensor(point.constant[used])
        return parameters

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return gradient residuals and imbalances; a gate has no kinks."""
        hidden, output = (parameters[k].detach().cpu().numpy() for k in ("hidden", "output"))
        lengths, sizes = np.linalg.norm(hidden, axis=1), np.abs(output)
        if self.outputs != "one":
            sizes = np.linalg.norm(output, ord=self._order, axis=1)
        there = np.maximum(lengths, sizes) > 0
        balance = np.abs(lengths - sizes)[there] / np.maximum(lengths, sizes)[there]
        both = (lengths > 0) & (sizes > 0)
        masks = self.gates(parameters)[both] @ problem.design.T >= 0
        if self.outputs != "one":
            w, a = hidden[both] / lengths[both, None], output[both] / sizes[both, None]
            lacking = gated_outputs.lacking(
                self, self._linear_design(problem), masks, w, a, nu / problem.beta
            )
            return lacking, np.zeros(both.sum()), balance
        pull = np.sign(output[both])[:, None] * ((masks * nu) @ self._linear_design(problem))
        pull -= problem.beta * hidden[both] / lengths[both, None]
        return np.linalg.norm(pull, axis=1) / problem.beta, np.zeros(both.sum()), balance

    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of our own `Network`."""
        return read_own(self, module)
