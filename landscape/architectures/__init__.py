"""Architectures by name: one file each, all behind the face of `base.Architecture`."""

from __future__ import annotations

from typing import Any

from landscape.architectures.attention import Attention
from landscape.architectures.base import Architecture, ConvexPoint
from landscape.architectures.batch_norm import BatchNorm
from landscape.architectures.circular import Circular
from landscape.architectures.convolution import Convolution
from landscape.architectures.deep_narrow import DeepNarrow
from landscape.architectures.fourier_mixing import FourierMixing
from landscape.architectures.gated import GatedReLU
from landscape.architectures.gated_convolution import GatedConvolution
from landscape.architectures.max_convolution import MaxConvolution
from landscape.architectures.mixer import Mixer
from landscape.architectures.normalised_relu import NormalisedReLU
from landscape.architectures.parallel_deep import ParallelDeep
from landscape.architectures.parallel_three_layer import ParallelThreeLayer
from landscape.architectures.polynomial import Polynomial
from landscape.architectures.standard_deep import StandardDeep
from landscape.architectures.threshold import Threshold
from landscape.architectures.threshold_deep import DeepThreshold
from landscape.architectures.two_layer import TwoLayer
from landscape.architectures.vector_relu import VectorReLU
from landscape.architectures.wedge import Wedge
from landscape.errors import BadInput, known

NAMES: dict[str, type[Architecture]] = {
    kind.name: kind
    for kind in (
        StandardDeep,
        TwoLayer,
        GatedReLU,
        BatchNorm,
        NormalisedReLU,
        Convolution,
        GatedConvolution,
        MaxConvolution,
        Circular,
        DeepNarrow,
        Polynomial,
        Threshold,
        DeepThreshold,
        ParallelThreeLayer,
        ParallelDeep,
        VectorReLU,
        Wedge,
        Attention,
        Mixer,
        FourierMixing,
    )
}
NAMES["two_layer"] = TwoLayer  # with another activation than ReLU


def get(architecture: str | Architecture, **options: Any) -> Architecture:
    """Return the architecture of this name, or the one that was passed.

    Raises:
        BadInput: for an unknown name or option, with the nearest known one.
    """
    if isinstance(architecture, Architecture):
        return architecture
    kind = NAMES[known("architecture", architecture, NAMES)]
    for option in options:
        known(f"option of architecture {architecture!r}", option, kind.__dataclass_fields__)
    return kind(**options)


__all__ = [
    "NAMES",
    "Architecture",
    "Attention",
    "BadInput",
    "BatchNorm",
    "Circular",
    "ConvexPoint",
    "Convolution",
    "DeepNarrow",
    "DeepThreshold",
    "FourierMixing",
    "GatedConvolution",
    "GatedReLU",
    "MaxConvolution",
    "Mixer",
    "NormalisedReLU",
    "ParallelDeep",
    "ParallelThreeLayer",
    "Polynomial",
    "StandardDeep",
    "Threshold",
    "TwoLayer",
    "VectorReLU",
    "Wedge",
    "get",
]
