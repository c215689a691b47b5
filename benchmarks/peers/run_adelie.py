"""Solve one instance with adelie; reads and writes .npz (run in adelie's own environment)."""

import sys
import time

import adelie
import numpy as np

task = np.load(sys.argv[1], allow_pickle=False)
X, y, masks = np.asfortranarray(task["X"]), task["y"], task["masks"]
beta, gated, tolerance = float(task["beta"]), bool(task["gated"]), float(task["tolerance"])
threads = int(task["threads"])
n, d = X.shape
began = time.perf_counter()
blocks = len(masks) if gated else 2 * len(masks)
matrix = adelie.matrix.convex_relu(X, np.asfortranarray(masks.T), gated=gated, n_threads=threads)
constraints = None
if not gated:
    rows = [np.ascontiguousarray((2.0 * mask - 1)[:, None] * X) for mask in masks]
    zero, top = np.zeros(n), np.full(n, np.inf)
    constraints = [adelie.constraint.linear(rows[g % len(masks)], zero, top) for g in range(blocks)]
options = {
    "groups": np.arange(blocks) * d,
    "penalty": np.ones(blocks),
    "constraints": constraints,
    "intercept": False,
    "early_exit": False,
    "adev_tol": 1.0,
    "tol": tolerance,
    "n_threads": threads,
    "progress_bar": False,
}
gaussian = adelie.glm.gaussian(y)
pull = np.abs((masks * y) @ X).max() * np.sqrt(d) / n  # above the largest λ that matters
path = np.geomspace(max(pull, 1.01 * beta / n), beta / n, 20)
ready = time.perf_counter()
state = adelie.grpnet(matrix, gaussian, lmda_path=path, **options)
ended = time.perf_counter()
theta = np.asarray(state.betas[-1].todense()).reshape(blocks, d)
reached = float(state.lmdas[-1])
note = "" if abs(reached - path[-1]) < 1e-12 * path[-1] else f"stopped at lambda {reached:g}"
np.savez(
    sys.argv[2],
    theta=theta,
    seconds=ended - ready,
    setup=ready - began,
    version=adelie.__version__,
    note=note,
)
