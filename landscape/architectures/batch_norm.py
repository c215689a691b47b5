r"""Batch normalisation before ReLU: a two-layer program on whitened data (2103.01499).

.. math::

    f(x) = \sum_j \Big(γ_j \frac{(x − μ)^⊤ w_j}{\|X_c w_j\|} + \frac{α_j}{\sqrt n}\Big)_+ a_j,
    \qquad R = \tfrac12 \sum_j (γ_j^2 + α_j^2 + a_j^2), \qquad X_c = X − 1μ^⊤

with μ the mean of the training inputs; the directions w_j are not penalised (Ergen, Sahiner,
Ozturkler, Pauly, Mardani & Pilanci, ICLR 2022).  With :math:`X_c = UT`, U (n × r) orthonormal and T
(r × d) of full row rank, :math:`q = Tw/\|Tw\|` runs over the unit sphere of R^r and

.. math::

    γ \frac{X_c w}{\|X_c w\|} + \frac{α}{\sqrt n} 1 = U' \binom{γq}{α}, \qquad
    U' = [U,\; 1/\sqrt n]

so this is the two-layer ReLU network on the rows of U', whose columns are orthonormal: *implicit
whitening*.  Its program is

.. math:: \min_{u_i, v_i ∈ K_i} ℓ\Big(\sum_i D_i U'(u_i − v_i), y\Big) + β\sum_i(\|u_i\| + \|v_i\|)

and every neuron over U' is priced as a ReLU neuron is.  Where X_c has rank n − 1 (n ≤ d + 1 in
general position) U' is orthogonal and the optimum is known: the positive and the negative part of
the targets, each shrunk by β (`tests/test_batch_norm.py`).

*Rank.*  Directions that X_c has only by rounding are dropped: columns are scaled to one size first,
because the network does not see their scale.  *New inputs* are normalised with the statistics of
the training inputs, which a network carries as fixed parameters: ``mean`` μ and ``spread`` T, whose
:math:`T^⊤T` is :math:`X_c^⊤X_c`.  A neuron with Tw = 0 normalises to zero and puts out (α/√n)_+ a.

*In torch's words* (`as_torch`, `from_torch`) a ``BatchNorm1d`` without eps has weight γ/√n and bias
α/√n.  (It asks for eps > 0 in training mode; 1e-30 changes nothing.)  The running variance that it
collects is that with n − 1 below the sum, not the one with n that it trained with, and ours.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
import torch

from landscape.architectures import bridge, whitening
from landscape.architectures.base import Architecture, ConvexPoint
from landscape.architectures.modules import read_own
from landscape.architectures.rows import seeded_normal
from landscape.architectures.two_layer import TwoLayer
from landscape.arrangements.rows import column_scales
from landscape.errors import BadInput
from landscape.programs import Program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscape.architectures.base import Floats, Parameters
    from landscape.arrangements import Arrangements
    from landscape.problem import Problem

OVER = TwoLayer()
"""The two-layer network on the rows of U'."""
TINY = 1e-30


@dataclass(frozen=True)
class OnWhitened(Program):
    """The program over U', which knows the inputs that U' comes from.

    Attributes:
        inputs: X, shape (n, d).
    """

    inputs: Floats


@dataclass(frozen=True)
class BatchNorm(Architecture):
    """A two-layer network with batch normalisation before its ReLUs, and one output."""

    name: ClassVar[str] = "batch_norm"
    fixed: ClassVar[tuple[str, ...]] = ("mean", "spread", "samples")
    searched: ClassVar[bool] = True

    def design(self, X: Floats) -> Floats:
        """Return U' = [U, 1/√n], shape (n, r + 1), whose columns are orthonormal."""
        return np.hstack([whitening.of(X).U, np.full((len(X), 1), len(X) ** -0.5)])

    def initial(
        self, problem: Problem, width: int, seeds: Sequence[int], scale: float = 1.0
    ) -> Parameters:
        """Return networks with w ~ N(0, I/d), (γ, α) ~ N(0, scale²) and a ~ N(0, scale²/m)."""
        d, count = problem.X.shape[1], len(seeds)
        draws = seeded_normal(seeds, width, d + 3)
        shared = whitening.statistics(problem.X)
        return {
            "hidden": draws[..., :d] / d**0.5,
            "scale": scale * draws[..., d],
            "shift": scale * draws[..., d + 1],
            "output": scale / width**0.5 * draws[..., d + 2],
            **{k: v.expand(count, *v.shape).clone() for k, v in shared.items()},
        }

    def forward(self, parameters: Parameters, X: torch.Tensor) -> torch.Tensor:
        """Return outputs (…, n), normalised with the statistics of the training inputs."""
        hidden = parameters["hidden"]
        _, sizes = whitening.seen(hidden, parameters["spread"])  # (…, m)
        gain = parameters["scale"] / torch.where(sizes > 0, sizes, torch.ones_like(sizes))
        gain = torch.where(sizes > 0, gain, torch.zeros_like(gain))
        root = parameters["samples"][..., None].sqrt()
        before = (X - parameters["mean"][..., None, :]) @ hidden.mT  # (…, n, m)
        before = before * gain[..., None, :] + (parameters["shift"] / root)[..., None, :]
        return (torch.relu(before) @ parameters["output"][..., None])[..., 0]

    def penalty(self, parameters: Parameters) -> torch.Tensor:
        """Return ½ Σ(γ² + α² + a²), shape (…,); directions do not count."""
        return 0.5 * sum(
            ((parameters[k] ** 2).sum(-1) for k in ("scale", "shift", "output")),
            start=torch.zeros(()),
        )

    def over_design(self, parameters: Parameters) -> Parameters:
        """Return one network as a two-layer network on the rows of U': hidden (γq, α)."""
        seen, sizes = whitening.seen(parameters["hidden"], parameters["spread"])
        sizes = sizes[..., None]
        q = torch.where(sizes > 0, seen / torch.where(sizes > 0, sizes, 1.0), 0.0)
        hidden = torch.cat([parameters["scale"][:, None] * q, parameters["shift"][:, None]], -1)
        return {"hidden": hidden.detach(), "output": parameters["output"].detach()}

    def gates(self, parameters: Parameters) -> Floats:
        """Return the neurons that take part as directions over U', shape (m', r + 1)."""
        return OVER.gates(self.over_design(parameters))

    def program(
        self, problem: Problem, patterns: Arrangements, signs: Floats | None = None
    ) -> OnWhitened:
        """Return the two-layer program over U'."""
        return self._known(problem, OVER.program(problem, patterns, signs))

    def _known(self, problem: Problem, program: Program) -> OnWhitened:
        """Return a program over U' together with the inputs."""
        parts = {f.name: getattr(program, f.name) for f in fields(Program)}
        return OnWhitened(**parts, inputs=problem.X)

    def ramps(self, problem: Problem, nu: Floats) -> tuple[Floats, Floats]:
        """Return U' and ν: neurons price as ReLU neurons over U' do."""
        return problem.design, nu

    def lift(self, problem: Problem, parameters: Parameters) -> ConvexPoint:
        """Return the convex point: u_i = Σ (γ_j q_j, α_j)|a_j| over a signed pattern's neurons.

        Raises:
            BadInput: if the network's statistics are those of other inputs than the problem's: its
                objective would be no training objective.
        """
        parameters = self.attached(problem, parameters)
        point = bridge.lift(OVER, problem, self.over_design(parameters))
        return replace(point, program=self._known(problem, point.program))

    def lower(self, point: ConvexPoint) -> Parameters:
        r"""Return the balanced network: (γq, α) = u/√‖u‖, w with Tw = q and :math:`w ⟂ \ker T`."""
        two = bridge.lower(OVER, point)
        inputs = cast("OnWhitened", point.program).inputs
        shared = whitening.statistics(inputs)
        pulled, shift = two["hidden"][:, :-1], two["hidden"][:, -1]
        scale = torch.linalg.vector_norm(pulled, dim=-1)
        q = pulled / torch.where(scale > 0, scale, 1.0)[:, None]
        size = torch.as_tensor(column_scales(inputs))
        if len(shared["spread"]) < len(size):  # more than one w: of the inputs as they are
            size = torch.ones_like(size)
        hidden = q @ torch.linalg.pinv(shared["spread"] * size, rtol=0.0).mT * size
        return {
            "hidden": hidden,
            "scale": scale,
            "shift": shift.clone(),
            "output": two["output"],
            **shared,
        }

    def attached(self, problem: Problem, parameters: Parameters) -> Parameters:
        """Return a network of the same inputs with this problem's statistics, refusing others.

        Its T is turned to that of the design, so that directions over U' are those of its U.
        """
        return whitening.attached(problem.X, parameters)

    def stationarity(
        self, problem: Problem, parameters: Parameters, nu: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return Clarke residuals, wrong-signed ties and imbalances of the neurons over U'.

        The same as those in (w, γ, α, a) while γ ≠ 0; where γ = 0 a direction w has no slope, and
        what turning it could gain once γ grows is counted here.
        """
        return bridge.stationarity(OVER, problem, self.over_design(parameters), nu)

    def without_padding(self, parameters: Parameters) -> Parameters:
        """Return one network without neurons that put out nothing."""
        names = ("hidden", "scale", "shift", "output")
        used = parameters["output"] != 0
        used &= (parameters["scale"] != 0) | (parameters["shift"] != 0)
        return {k: v[used] if k in names else v for k, v in parameters.items()}

    def folded(self, parameters: Parameters) -> Parameters:
        """Return the same function without normalisation, as a network of TwoLayer("penalised").

        Its weights are (γw/‖X_c w‖, α/√n − γμᵀw/‖X_c w‖): what one would deploy.
        """
        hidden = parameters["hidden"].detach()
        _, sizes = whitening.seen(hidden, parameters["spread"])
        gain = torch.where(sizes > 0, parameters["scale"].detach() / sizes, 0.0)
        weights = gain[:, None] * hidden
        bias = parameters["shift"].detach() / parameters["samples"].sqrt()
        bias = bias - weights @ parameters["mean"]
        return {
            "hidden": torch.cat([weights, bias[:, None]], -1),
            "output": parameters["output"].detach(),
        }

    def as_torch(self, parameters: Parameters) -> torch.nn.Sequential:
        """Return Sequential(Linear, BatchNorm1d, ReLU, Linear), in evaluation mode.

        In training mode, on the training inputs, it puts out the same.
        """
        hidden, n = parameters["hidden"].detach(), float(parameters["samples"])
        m, d = hidden.shape
        first, norm = torch.nn.Linear(d, m, bias=False), torch.nn.BatchNorm1d(m, eps=TINY)
        last = torch.nn.Linear(m, 1, bias=False)
        network = torch.nn.Sequential(first, norm, torch.nn.ReLU(), last).double()
        _, sizes = whitening.seen(hidden, parameters["spread"])
        values = {
            "0.weight": hidden,
            "1.weight": parameters["scale"] / n**0.5,
            "1.bias": parameters["shift"] / n**0.5,
            "1.running_mean": hidden @ parameters["mean"],
            "1.running_var": sizes**2 / n,
            "1.num_batches_tracked": torch.tensor(1),
            "3.weight": parameters["output"][None],
        }
        network.load_state_dict({k: v.detach() for k, v in values.items()})
        return network.eval()

    def from_torch(self, problem: Problem, network: torch.nn.Module) -> Parameters:
        """Return a user's Sequential(Linear, BatchNorm1d, ReLU, Linear) in our parameters.

        Its running statistics are not used: those of all training inputs are.

        Raises:
            BadInput: for another module, another number of inputs, several outputs or an output
                bias.
        """
        parts = list(network.children())
        kinds = [torch.nn.Linear, torch.nn.BatchNorm1d, torch.nn.ReLU, torch.nn.Linear]
        if [type(part) for part in parts] != kinds:
            found = " → ".join(type(part).__name__ for part in parts) or type(network).__name__
            raise BadInput(
                f"network is {found}: architecture {self.label} converts "
                "Sequential(Linear(d, m), BatchNorm1d(m), ReLU(), Linear(m, 1))."
            )
        state = {k: v.detach().cpu().double() for k, v in network.state_dict().items()}
        if len(state["3.weight"]) != 1 or bool(state.get("3.bias", torch.zeros(1)).any()):
            raise BadInput(
                f"network has {len(state['3.weight'])} outputs or an output bias: architecture "
                f"{self.label} has one output and no output bias."
            )
        m, inputs = state["0.weight"].shape
        if inputs != problem.X.shape[1]:
            raise BadInput(
                f"network takes {inputs} inputs: X has {problem.X.shape[1]} columns; pass one for "
                "these data."
            )
        root = len(problem.X) ** 0.5
        return {
            "hidden": state["0.weight"],
            "scale": root * state.get("1.weight", torch.ones(m).double()),
            "shift": root * state.get("1.bias", torch.zeros(m).double()),
            "output": state["3.weight"][0],
            **whitening.statistics(problem.X),
        }

    def read(self, module: torch.nn.Module) -> Parameters:
        """Return the parameters of our own `Network`."""
        return read_own(self, module)
