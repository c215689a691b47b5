"""Generative models whose training problems are convex programs, with certificates."""

from landscape.generative.alternating import Alternated, alternate
from landscape.generative.autoregressive import (
    Autoregressive,
    Density,
    above_left,
    bernoulli,
    everything,
    preceding,
)
from landscape.generative.pieces import Pieces, axes_bound, match_pieces
from landscape.generative.sampling import Mixture, denoising, langevin
from landscape.generative.score_matching import ScoreMatching
from landscape.generative.scores import Ramps, Score
from landscape.generative.wgan import Equilibrium, Game

VERSION = 3
"""Of the numbers of these rooms."""

__all__ = [
    "VERSION",
    "Alternated",
    "Autoregressive",
    "Density",
    "Equilibrium",
    "Game",
    "Mixture",
    "Pieces",
    "Ramps",
    "Score",
    "ScoreMatching",
    "above_left",
    "alternate",
    "axes_bound",
    "bernoulli",
    "denoising",
    "everything",
    "langevin",
    "match_pieces",
    "preceding",
]
