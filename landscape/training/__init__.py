"""Training: many networks in one batched computation."""

from landscape.training.batched import Runs, train

__all__ = ["Runs", "train"]
