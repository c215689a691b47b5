"""Solve one instance with pyscnn at its defaults; reads and writes .npz (its own environment)."""

import sys
import time
from importlib.metadata import version

import numpy as np
import torch
from scnn.metrics import Metrics
from scnn.models import ConvexGatedReLU, ConvexReLU
from scnn.optimize import optimize_model
from scnn.regularizers import NeuronGL1
from scnn.solvers import AL, RFISTA

task = np.load(sys.argv[1], allow_pickle=False)
torch.set_num_threads(int(task["threads"]))
X, y, gates = task["X"], task["y"], task["gates"]
began = time.perf_counter()
model = (ConvexGatedReLU if task["gated"] else ConvexReLU)(gates.T.copy())
solver = RFISTA(model) if task["gated"] else AL(model)
ready = time.perf_counter()
model, _ = optimize_model(
    model,
    solver,
    Metrics(),
    X,
    y.reshape(-1, 1),
    regularizer=NeuronGL1(float(task["beta"]) / len(y)),
    return_convex=True,
    unitize_data=False,
)
ended = time.perf_counter()
theta = np.concatenate([np.asarray(part, dtype=np.float64)[0] for part in model.parameters])
np.savez(
    sys.argv[2],
    theta=theta,
    masks=(X @ np.asarray(model.G, dtype=np.float64) >= 0).T,  # it reorders its gates
    seconds=ended - ready,
    setup=ready - began,
    version=version("pyscnn"),
    note="float32",
)
