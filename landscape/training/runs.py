"""What training returns: a batch of networks with their objectives and traces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape import archive
from landscape.errors import NotConverged
from landscape.network import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from landscape.architectures.base import Architecture, Parameters


@dataclass(frozen=True)
class Runs:
    """Trained networks, one a (width, seed) pair, width-major.

    Attributes:
        architecture: of all networks.
        parameters: tensors with a leading axis over runs; narrower networks are padded by zeros.
        objectives: regularised objective at the end, shape (S,); NaN or infinite if diverged.
        trace: regularised objective along training, shape (S, T).
        trace_steps: steps at which the trace was taken, shape (T,).
        trace_seconds: seconds of training until then, for the whole batch, shape (T,).
        widths: width of each run, shape (S,).
        seeds: seed of each run, shape (S,).
        optimizer: its name.
        minimises: what the optimiser minimises (AdamW: not the regularised objective).
        status: a sentence.
        residuals: after polishing, the largest Clarke residual of a run's neurons divided by β,
            shape (S,); NaN where a run diverged.
        directional: after polishing, whether sign(a)·ν ≤ 0 at every tie of a run, shape (S,);
            where ties are linearly dependent that is more than directional stationarity asks
            (`landscape.classify` decides).
        snapshots: parameters along training with leading axes (T, S), where they were asked for;
            neurons keep their places, and narrower networks their padding.
        snapshot_steps: steps before which they were taken, ascending, shape (T,).
    """

    architecture: Architecture
    parameters: Parameters
    objectives: NDArray[np.float64]
    trace: NDArray[np.float64]
    trace_steps: NDArray[np.int64]
    trace_seconds: NDArray[np.float64]
    widths: NDArray[np.int64]
    seeds: NDArray[np.int64]
    optimizer: str
    minimises: str
    status: str
    residuals: NDArray[np.float64] | None = None
    directional: NDArray[np.bool_] | None = None
    snapshots: Parameters | None = None
    snapshot_steps: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.objectives)

    def __getitem__(self, run: int) -> Network:
        """Return one run's network, zero padding removed."""
        return Network(
            self.architecture,
            self.architecture.without_padding({k: v[run] for k, v in self.parameters.items()}),
        )

    @property
    def networks(self) -> list[Network]:
        """All networks, in the order of `objectives`."""
        return [self[run] for run in range(len(self))]

    @property
    def best(self) -> Network:
        """The network of lowest objective.

        Raises:
            NotConverged: if every run diverged.
        """
        finite = np.where(np.isfinite(self.objectives), self.objectives, np.inf)
        if not (finite < np.inf).any():
            raise NotConverged(f"no run has a finite objective: {self.status}")
        return self[int(np.argmin(finite))]

    def save(self, path: str | Path) -> Path:
        """Write everything to an ``.npz`` of numbers and JSON text."""
        about = {
            "architecture": self.architecture.config(),
            **{k: getattr(self, k) for k in ("optimizer", "minimises", "status")},
        }
        arrays = {f"parameter_{k}": v.detach().cpu().numpy() for k, v in self.parameters.items()}
        arrays |= {f"snapshots_{k}": v.numpy() for k, v in (self.snapshots or {}).items()}
        names = [k for k in _ARRAYS + _OPTIONAL if getattr(self, k) is not None]
        return archive.write(path, about, {**arrays, **{k: getattr(self, k) for k in names}})

    @staticmethod
    def load(path: str | Path) -> Runs:
        """Read what `save` wrote.

        Raises:
            BadInput: if the file holds no runs.
        """
        from landscape import architectures

        about, arrays = archive.read(path, "runs", _ARRAYS)
        kept = {name: arrays.pop(name) for name in _ARRAYS + _OPTIONAL if name in arrays}
        config = about.pop("architecture")
        parameters, snapshots = (
            {k.removeprefix(p): torch.as_tensor(v) for k, v in arrays.items() if k.startswith(p)}
            for p in ("parameter_", "snapshots_")
        )
        kept["snapshots"] = snapshots or None
        architecture = architectures.get(config.pop("name"), **config)
        return Runs(architecture=architecture, parameters=parameters, **kept, **about)


_ARRAYS = ("objectives", "trace", "trace_steps", "trace_seconds", "widths", "seeds")
_OPTIONAL = ("residuals", "directional", "snapshot_steps")


def padded(groups: list[Parameters]) -> Parameters:
    """Stack networks of several widths, the narrower ones padded by zero neurons."""
    names, joined = list(groups[0]), {}
    for name in names:
        values = [group[name] for group in groups]
        shape = [max(v.shape[i] for v in values) for i in range(1, values[0].ndim)]
        rows = []
        for value in values:
            grown = value.new_zeros((len(value), *shape))
            grown[tuple(slice(0, s) for s in value.shape)] = value
            rows.append(grown)
        joined[name] = torch.cat(rows)
    return joined
