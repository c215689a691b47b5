"""Draw one random plane with loss-landscapes; reads and writes .npz (its own environment)."""

import copy
import sys
import time
from importlib.metadata import version

import loss_landscapes
import numpy as np
import torch
from loss_landscapes.metrics import Metric
from loss_landscapes.model_interface.model_parameters import orthogonal_to, rand_u_like
from loss_landscapes.model_interface.model_wrapper import wrap_model

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


class Objective(Metric):
    """The regularised objective, full batch; ``spoil`` makes its values NaN from some call on."""

    def __init__(self, spoil=np.inf):
        super().__init__()
        self.left = spoil

    def __call__(self, wrapped):
        self.left -= 1
        if self.left < 0:
            return float("nan")
        with torch.no_grad():
            loss = 0.5 * ((wrapped.forward(X)[:, 0] - y) ** 2).sum()
            weights = wrapped.modules[0].parameters()  # the wrapper's own are lists of iterators
            return float(loss + beta / 2 * sum((p**2).sum() for p in weights))


class Along(Metric):
    """The coordinate along the second direction, read off one parameter."""

    def __call__(self, wrapped):
        return float(next(wrapped.modules[0].parameters()).reshape(-1)[0])


loss_landscapes.random_plane(copy.deepcopy(network), Objective(), 1, 5)  # first touches
wall, cpu = [], []
for _ in range(int(task["rounds"])):
    began, used = time.perf_counter(), time.process_time()
    grid = loss_landscapes.random_plane(network, Objective(), 1, points, deepcopy_model=True)
    wall.append(time.perf_counter() - began)
    cpu.append(time.process_time() - used)

centre = Objective()(wrap_model(network))
start = wrap_model(copy.deepcopy(network)).get_module_parameters()
one = rand_u_like(start)
two = orthogonal_to(one)
one.filter_normalize_(start)
two.filter_normalize_(start)
rows = [np.concatenate([p.numpy().reshape(-1) for p in d.parameters]) for d in (one, two)]
touched = copy.deepcopy(network)
loss_landscapes.random_plane(touched, Objective(), 1, 5)
moved = max(
    float((p - q).abs().max())
    for p, q in zip(touched.parameters(), network.parameters(), strict=True)
)
spoilt = loss_landscapes.random_plane(copy.deepcopy(network), Objective(spoil=10), 1, 5)
ends = [copy.deepcopy(network) for _ in range(3)]  # the first parameter moves to the third only
with torch.no_grad():
    ends[2][0].weight[0, 0] += 1.0
steps = loss_landscapes.planar_interpolation(*ends, Along(), 6, deepcopy_model=True)
np.savez(
    sys.argv[2],
    seconds=np.median(wall),
    cpu=np.median(cpu),
    version=version("loss-landscapes"),
    nan_kept=np.isnan(spoilt).sum() == 15,
    centre_error=np.abs(grid - centre).min() / centre,
    cosine=abs(rows[0] @ rows[1]) / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1]),
    moved=moved,
    axes_kept=np.ptp(steps, axis=0).max() < 1e-3,  # every row has the same coordinates
)
