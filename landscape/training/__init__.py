"""Training: many networks in one batched computation, and polishing at the end."""

from landscape.training.batched import Runs, train
from landscape.training.polishing import polish

__all__ = ["Runs", "polish", "train"]
