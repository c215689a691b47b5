"""Generative models whose training problems are convex programs, with certificates."""

from landscape.generative.autoregressive import (
    Autoregressive,
    Density,
    above_left,
    bernoulli,
    everything,
    preceding,
)
from landscape.generative.sampling import Mixture, denoising, langevin
from landscape.generative.score_matching import ScoreMatching
from landscape.generative.scores import Ramps, Score

VERSION = 1
"""Of the numbers of these rooms."""

__all__ = [
    "VERSION",
    "Autoregressive",
    "Density",
    "Mixture",
    "Ramps",
    "Score",
    "ScoreMatching",
    "above_left",
    "bernoulli",
    "denoising",
    "everything",
    "langevin",
    "preceding",
]
