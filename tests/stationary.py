"""Small problems, their stationary networks, and a network of one neuron."""

from __future__ import annotations

import numpy as np
import torch

from landscape import polish, train
from landscape.architectures import TwoLayer
from landscape.problem import Problem


def small(seed, n=12, d=2, bias="none", loss="squared", beta=0.2):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    if loss != "squared":
        y = np.where(y > 0, 1.0, -1.0)
    return Problem(X, y, beta, loss=loss, architecture=TwoLayer(bias=bias))


def stationary(problem, widths=(2, 3, 5), seeds=range(3), scale=1.0):
    runs = train(problem, list(widths), seeds, "lbfgs", steps=60, scale=scale)
    return polish(problem, runs).networks


def one_neuron(u):
    """The balanced network of one block u = |a| w, a > 0."""
    size = np.linalg.norm(u) ** 0.5
    return {"hidden": torch.tensor(u / size)[None], "output": torch.tensor([size])}
