"""Training: many networks in one batched computation, and polishing at the end."""

from landscape.training.batched import train
from landscape.training.polishing import polish
from landscape.training.runs import Runs

__all__ = ["Runs", "polish", "train"]
