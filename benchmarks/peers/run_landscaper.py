"""Draw one random plane with Landscaper; reads and writes .npz (its own environment)."""

import contextlib
import copy
import io
import sys
import time
from importlib.metadata import version

import numpy as np
import torch
from landscaper import LossLandscape
from landscaper.compute import normalize_direction

task = np.load(sys.argv[1], allow_pickle=False)
torch.set_num_threads(int(task["threads"]))
torch.set_default_dtype(getattr(torch, str(task["dtype"])))
torch.manual_seed(0)
X, y = (torch.as_tensor(task[k], dtype=torch.get_default_dtype()) for k in ("X", "y"))
beta, points = float(task["beta"]), int(task["points"])
hidden, output = (torch.as_tensor(task[k]) for k in ("hidden", "output"))
network = torch.nn.Sequential(
    torch.nn.Linear(hidden.shape[1], len(hidden), bias=False), torch.nn.ReLU(),
    torch.nn.Linear(len(hidden), 1, bias=False),
)  # fmt: skip
network[0].weight.data.copy_(hidden)
network[2].weight.data.copy_(output[None])


def objective(module, data):
    """Return the regularised objective, full batch."""
    loss = 0.5 * ((module(data)[:, 0] - y) ** 2).sum()
    return float(loss + beta / 2 * sum((p**2).sum() for p in module.parameters()))


def flat(direction):
    return np.concatenate([p.numpy().reshape(-1) for p in direction])


def orthogonal():
    """Return two random directions, orthogonal before the package normalises them."""
    like = [p.data for p in network.parameters()]
    rows = np.random.default_rng(0).standard_normal((2, sum(p.numel() for p in like)))
    rows[1] -= (rows[0] @ rows[1]) / (rows[0] @ rows[0]) * rows[0]
    parts = np.cumsum([p.numel() for p in like])[:-1]
    return [
        [torch.as_tensor(v, dtype=p.dtype).reshape(p.shape) for v, p in zip(s, like, strict=True)]
        for s in (np.split(row, parts) for row in rows)
    ]


def draw(function, steps, module=network):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return LossLandscape.compute(
            module, X, orthogonal(), function, steps=steps, distance=1.0, dim=2, device="cpu"
        )


draw(objective, 5)  # first touches
wall, cpu = [], []
for _ in range(int(task["rounds"])):
    began, used = time.perf_counter(), time.process_time()
    found = draw(objective, points)
    wall.append(time.perf_counter() - began)
    cpu.append(time.process_time() - used)

with torch.no_grad():
    centre = objective(network, X)
used = [normalize_direction(d, [p.data for p in network.parameters()]) for d in orthogonal()]
rows = [flat(d) for d in used]
touched = copy.deepcopy(network)
draw(objective, 5, touched)
moved = max(
    float((p - q).abs().max())
    for p, q in zip(touched.parameters(), network.parameters(), strict=True)
)
calls = []


def spoilt(module, data):
    calls.append(1)
    return float("nan") if len(calls) == 7 else objective(module, data)


def first(module, data):
    """Return the coordinate along the first direction, which is that of the outer loop."""
    change = flat([p.data for p in module.parameters()])
    change = change - flat([torch.as_tensor(hidden), torch.as_tensor(output[None])])
    return float(change @ rows[0] - change @ rows[1] * (rows[0] @ rows[1]) / (rows[1] @ rows[1]))


asked = draw(first, 7)
along = [np.corrcoef(asked.coords[:, i], asked.loss.reshape(-1))[0, 1] for i in (0, 1)]
np.savez(
    sys.argv[2],
    seconds=np.median(wall),
    cpu=np.median(cpu),
    version=version("landscaper"),
    nan_kept=bool(np.isnan(draw(spoilt, 5).loss).any()),
    centre_error=np.abs(found.loss - centre).min() / centre,
    cosine=abs(rows[0] @ rows[1]) / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1]),
    moved=moved,
    axes_kept=abs(along[0]) > abs(along[1]),
)
