"""Solve one gated instance with celer on the explicit matrix; reads and writes .npz."""

import sys
import time
import warnings
from importlib.metadata import version

import numpy as np
from celer import GroupLasso

warnings.filterwarnings("ignore")
task = np.load(sys.argv[1], allow_pickle=False)
X, y, masks = task["X"], task["y"], task["masks"]
n, d = X.shape
began = time.perf_counter()
matrix = np.asfortranarray((masks.T[:, :, None] * X[:, None, :]).reshape(n, -1))
model = GroupLasso(
    groups=d, alpha=float(task["beta"]) / n, tol=float(task["tolerance"]), fit_intercept=False,
    max_iter=1000, max_epochs=1_000_000,
)  # fmt: skip
ready = time.perf_counter()
model.fit(matrix, y)
ended = time.perf_counter()
np.savez(
    sys.argv[2],
    theta=model.coef_.reshape(-1, d),
    seconds=ended - ready,
    setup=ready - began,
    version=version("celer"),
    note="explicit matrix",
)
