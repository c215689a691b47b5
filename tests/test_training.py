"""Training: each rule against torch.optim, independence within the batch, padding, polishing."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from cases import kgon, planted
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape.architectures import GatedReLU, TwoLayer
from landscape.certificate import certify
from landscape.errors import BadInput, NotConverged
from landscape.problem import Problem
from landscape.training import Runs, batched, gradients, polish, polishing, train
from landscape.training.optimizers import OPTIONS, orthogonalised

PROBLEM = planted(20, 3)


def torch_course(optimizer, steps=60, decoupled=False):
    """The same training with torch's own optimiser on one network."""
    start = PROBLEM.architecture.initial(PROBLEM, 6, [3])
    values = {k: v[0].clone().requires_grad_(True) for k, v in start.items()}
    step = optimizer(list(values.values()))
    for _ in range(steps):
        step.zero_grad()
        if decoupled:
            fit = PROBLEM.architecture.forward(values, torch.as_tensor(PROBLEM.X))
            PROBLEM.loss.value(fit, PROBLEM.y).backward()
        else:
            PROBLEM.objective(values).backward()
        step.step()
    return {k: v.detach() for k, v in values.items()}


REFERENCES = {
    "sgd": (lambda v: torch.optim.SGD(v, lr=1e-3), {}),
    "momentum": (lambda v: torch.optim.SGD(v, lr=1e-3, momentum=0.8), {"momentum": 0.8}),
    "adam": (lambda v: torch.optim.Adam(v, lr=1e-3), {}),
    "adamw": (
        lambda v: torch.optim.AdamW(v, lr=1e-3, weight_decay=0.1),
        {"decoupled_decay": 0.1},
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_rules_follow_torch(name):
    make, options = REFERENCES[name]
    expected = torch_course(make, decoupled=name == "adamw")
    runs = train(PROBLEM, 6, [3], name, 60, learning_rate=1e-3, schedule="constant", **options)
    for key, value in expected.items():
        torch.testing.assert_close(runs.parameters[key][0], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("width", [1, 5, 64])
def test_a_network_does_not_depend_on_other_seeds(name, width):
    """Up to rounding: products of a batch may be rounded by where a matrix lies in memory."""
    problem = planted(50, 3)
    alone = train(problem, width, [7], name, 30)
    together = train(problem, width, [*range(3, 7), 7, *range(8, 33)], name, 30)
    for key, value in alone.parameters.items():
        torch.testing.assert_close(together.parameters[key][4], value[0], rtol=1e-10, atol=1e-12)
    assert together.objectives[4] == pytest.approx(alone.objectives[0], rel=1e-12)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_network_does_not_depend_on_other_widths(name):
    """Padding changes rounding only; L-BFGS amplifies that."""
    near = dict(rtol=1e-8, atol=1e-8) if name == "lbfgs" else dict(rtol=1e-12, atol=1e-12)
    together = train(PROBLEM, [2, 5, 8], [4, 7], name, 80)
    for row, width in ((1, 2), (3, 5), (5, 8)):
        alone = train(PROBLEM, width, [7], name, 80)
        for key, value in alone.parameters.items():
            torch.testing.assert_close(together.parameters[key][row, :width], value[0], **near)


GRADIENTS = {
    "none": PROBLEM,
    "penalised": PROBLEM.replace(architecture=TwoLayer("penalised")),
    "free": PROBLEM.replace(architecture=TwoLayer("free")),
    "logistic": PROBLEM.replace(y=np.sign(PROBLEM.y), loss="logistic"),
    "huber": PROBLEM.replace(loss="huber"),
    "hinge": PROBLEM.replace(y=np.sign(PROBLEM.y), loss="hinge"),
}


@pytest.mark.parametrize("chunk", [1, 1 << 17])
@pytest.mark.parametrize("batch", [None, 6])
@pytest.mark.parametrize("penalised", [True, False])
@pytest.mark.parametrize("problem", GRADIENTS.values(), ids=GRADIENTS)
def test_closed_form_gradients_are_automatic_ones(monkeypatch, problem, penalised, batch, chunk):
    monkeypatch.setattr(gradients, "CHUNK", chunk)
    start = problem.architecture.initial(problem, 7, range(5))
    if "constant" in start:
        start["constant"] += 0.3
    rows = None if batch is None else torch.arange(5 * batch).reshape(5, batch) % 20
    found = [
        gradients.Gradients(problem, start["hidden"], penalised, explicit)(start, list(start), rows)
        for explicit in (True, False)
    ]
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", OPTIONS)
def test_padding_stays_zero_and_is_removed(name):
    runs = train(PROBLEM, [2, 6], [0], name, 50)
    assert not runs.parameters["hidden"][0, 2:].any()
    assert not runs.parameters["output"][0, 2:].any()
    assert runs[0].values["hidden"].shape == (2, 3)
    assert runs.widths.tolist() == [2, 6]


@pytest.mark.parametrize("name", [n for n in OPTIONS if n != "adamw"])
def test_every_optimiser_lowers_the_regularised_objective(name):
    runs = train(PROBLEM, 16, range(4), name, 400)
    assert (runs.objectives < 0.5 * runs.trace[:, 0]).all()
    assert runs.trace[:, -1] == pytest.approx(runs.objectives)
    assert runs.trace[:, 0] == pytest.approx(
        PROBLEM.objective(PROBLEM.architecture.initial(PROBLEM, 16, range(4))).numpy()
    )
    assert (np.diff(runs.trace_seconds) >= 0).all()


def test_adamw_says_that_it_minimises_something_else():
    assert "not the regularised" in train(PROBLEM, 4, [0], "adamw", 5).minimises
    assert train(PROBLEM, 4, [0], "adam", 5).minimises == "the regularised objective"


def test_mini_batches_estimate_the_sum_without_bias():
    """With a constant tiny rate, one epoch of SGD moves like full-batch steps of the sum."""
    full = train(PROBLEM, 4, [0], "sgd", 4, learning_rate=1e-6, schedule="constant")
    parts = train(PROBLEM, 4, [0], "sgd", 4, learning_rate=1e-6, schedule="constant", batch_size=5)
    start = PROBLEM.architecture.initial(PROBLEM, 4, [0])["hidden"]
    moved = full.parameters["hidden"] - start
    torch.testing.assert_close(parts.parameters["hidden"] - start, moved, rtol=1e-2, atol=1e-9)
    again = train(
        PROBLEM, 4, [5, 0], "sgd", 4, learning_rate=1e-6, schedule="constant", batch_size=5
    )
    torch.testing.assert_close(again.parameters["hidden"][1], parts.parameters["hidden"][0])


def test_fixed_gates_are_not_trained():
    problem = PROBLEM.replace(architecture=GatedReLU())
    for name in OPTIONS:
        runs = train(problem, 4, [0, 1], name, 20)
        start = problem.architecture.initial(problem, 4, [0, 1])
        torch.testing.assert_close(runs.parameters["gate"], start["gate"], rtol=0, atol=0)


def test_orthogonalised_singular_values_are_near_one_and_zero_rows_stay_zero():
    matrix = torch.randn(3, 8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix[:, 6:] = 0
    result = orthogonalised(matrix)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.4 and values.max() < 1.4
    assert not result[:, 6:].any()


def test_divergence_is_not_silent():
    with pytest.raises(NotConverged, match="diverged"):
        train(PROBLEM, 8, [0], "sgd", 200, learning_rate=10.0, schedule="constant")
    runs = train(PROBLEM, 8, [0], "sgd", 200, learning_rate=10.0, schedule="constant", throw=False)
    assert "diverged (width 8 seed 0)" in runs.status
    assert not np.isfinite(runs.objectives[0])
    with pytest.raises(NotConverged, match="no run has a finite objective"):
        runs.best  # noqa: B018
    polished = polish(PROBLEM, runs)
    assert np.isnan(polished.residuals[0]) and not polished.directional[0]


def test_one_diverged_run_does_not_touch_the_others():
    start = PROBLEM.architecture.initial(PROBLEM, 8, [0, 1])
    start["hidden"][0] *= 1e6
    runs = train(PROBLEM, 8, [4, 9], "sgd", 100, learning_rate=1e-4, start=start, throw=False)
    assert np.isfinite(runs.objectives).tolist() == [False, True]
    assert "width 8 seed 4" in runs.status
    alone = train(
        PROBLEM, 8, [9], "sgd", 100, learning_rate=1e-4, start={k: v[1:] for k, v in start.items()}
    )
    assert alone.objectives[0] == runs.objectives[1]
    assert PROBLEM.objective(runs.best) == pytest.approx(runs.objectives[1])


def test_runs_survive_saving(tmp_path):
    runs = train(PROBLEM, [2, 3], [0, 1], "adam", 10)
    again = Runs.load(runs.save(tmp_path / "runs"))
    assert again.objectives.tolist() == runs.objectives.tolist()
    assert again.optimizer == "adam" and again.architecture == runs.architecture
    assert PROBLEM.objective(again.best) == PROBLEM.objective(runs.best)
    (tmp_path / "broken.npz").write_bytes(b"")
    with pytest.raises(BadInput, match="no saved runs"):
        Runs.load(tmp_path / "broken.npz")


@pytest.mark.parametrize("name", ["momentum", "adam", "muon", "lbfgs"])
def test_snapshots_are_where_shorter_training_ends(name):
    """A constant rate has no horizon, so 7 steps of 20 are the 7 steps of a run of 7."""
    course = dict(width=[2, 5], seeds=[0, 3], optimizer=name, schedule="constant")
    runs = train(PROBLEM, **course, steps=20, snapshots=[20, 7, 0, 7])
    assert runs.snapshot_steps.tolist() == [0, 7, 20]
    start = PROBLEM.architecture.initial(PROBLEM, 5, [0, 3])
    short = train(PROBLEM, **course, steps=7)
    assert short.snapshots is None and short.snapshot_steps is None
    for key, values in runs.snapshots.items():
        assert values.shape == (3, *runs.parameters[key].shape)
        torch.testing.assert_close(values[0, 2:], start[key], rtol=0, atol=0)
        torch.testing.assert_close(values[1], short.parameters[key], rtol=0, atol=0)
        torch.testing.assert_close(values[2], runs.parameters[key], rtol=0, atol=0)


def test_snapshots_do_not_change_training_and_survive_saving(tmp_path):
    plain = train(PROBLEM, 3, [0, 1], "adam", 10)
    runs = train(PROBLEM, 3, [0, 1], "adam", 10, snapshots=range(0, 11, 5))
    assert runs.objectives.tolist() == plain.objectives.tolist()
    again = Runs.load(runs.save(tmp_path / "runs"))
    assert again.snapshot_steps.tolist() == [0, 5, 10]
    assert again.snapshots.keys() == again.parameters.keys() == runs.parameters.keys()
    for key, values in runs.snapshots.items():
        torch.testing.assert_close(again.snapshots[key], values, rtol=0, atol=0)
    assert Runs.load(plain.save(tmp_path / "plain")).snapshots is None


def test_snapshots_after_lbfgs_has_stopped_hold_its_last_point(monkeypatch):
    monkeypatch.setattr(batched, "lbfgs", lambda _, flat, *args, **options: flat / 2)
    runs = train(PROBLEM, 2, [0], "lbfgs", 50, snapshots=[40, 50])
    for key, values in runs.snapshots.items():
        torch.testing.assert_close(values[0], runs.parameters[key], rtol=0, atol=0)
        torch.testing.assert_close(values[1], runs.parameters[key], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (dict(snapshots=[3]), "snapshots holds 3: training ends after 2"),
        (dict(snapshots=[-1]), "an entry of snapshots is -1"),
        (dict(snapshots=[0.5]), "an entry of snapshots is 0.5"),
        (dict(optimizer="adamm"), "Did you mean 'adam"),
        (dict(schedule="cos"), "Did you mean 'cosine'"),
        (dict(width=0), "an entry of width is 0"),
        (dict(width=[]), "width is empty"),
        (dict(seeds=[0.5]), "an entry of seeds is 0.5"),
        (dict(steps=0), "steps is 0"),
        (dict(batch_size=21), "batch_size is 21"),
        (dict(optimizer="lbfgs", batch_size=5), "full batch"),
        (dict(momentum=0.5), "Unknown option of optimizer 'adam'"),
        (dict(learning_rate=-1.0), "learning_rate is -1"),
        (dict(optimizer="lbfgs", learning_rate=0.1), "L-BFGS searches"),
        (dict(record_every=0), "record_every is 0"),
        (dict(scale=float("nan")), "scale is nan"),
        (dict(dtype="float16"), "Unknown dtype 'float16'"),
        (dict(start={"hidden": torch.ones(1, 2, 3)}), "start has hidden: it must have"),
        (dict(start={"hidden": torch.ones(2, 3), "output": torch.ones(2)}), "leading axis"),
        (dict(start={"hidden": torch.ones(1, 2, 4), "output": torch.ones(1, 2)}), "not fit"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(BadInput, match=sentence):
        train(PROBLEM, **{**dict(width=2, seeds=[0], steps=2), **arguments})


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_polish_reaches_directionally_stationary_points(bias):
    problem = PROBLEM.replace(architecture=TwoLayer(bias=bias))
    runs = train(problem, 8, range(12), "adam", 500)
    polished = polish(problem, runs)
    assert (polished.objectives <= runs.objectives * (1 + 1e-12)).all()
    verdicts = certify(problem, polished.networks)
    reached = [c.stationarity <= 1e-7 and c.wrong_ties <= 1e-9 for c in verdicts]
    assert sum(reached) >= 10
    assert max(c.balance for c in verdicts) <= 1e-9
    assert sum(c.stationarity <= 1e-7 for c in certify(problem, runs.networks)) == 0


def test_polish_ends_at_stationary_points_where_gains_drown_in_rounding():
    """A neuron that is all but redundant: its best size changes the objective by 1e-15 of it."""
    problem = planted(50, 3)
    runs = train(problem, [8, 16, 32, 64], range(12), "lbfgs", steps=150, scale=0.1)
    polished = polish(problem, runs)
    assert polished.directional.all()
    assert polished.residuals.max() <= 1e-7
    assert (polished.objectives <= runs.objectives * (1 + 1e-13)).all()


@pytest.mark.parametrize("factor", [1.0, -1.0, 3.0])
def test_polish_reaches_stationary_points_where_samples_share_a_line(factor):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((18, 3)), rng.standard_normal(26)
    problem = Problem(np.vstack([X, factor * X[:8]]), y, 0.3)
    polished = polish(problem, train(problem, [2, 6, 12], range(3), "lbfgs", 60))
    assert polished.residuals.max() <= 1e-7 and polished.directional.all()


def test_polish_adds_up_neurons_that_come_to_lie_in_one_cone():
    """Collinear neurons left apart made the last Newton steps shrink: residuals stayed at 1e-6."""
    problem = planted(50, 3)
    reached = []
    for scale, width, seeds in (
        (0.1, 16, [3]),
        (0.1, 32, [0, 10]),
        (0.01, 16, [6]),
        (0.01, 32, [7]),
    ):
        runs = train(problem, width, seeds, "lbfgs", steps=300, scale=scale)
        polished = polish(problem, runs)
        assert (polished.objectives <= runs.objectives * (1 + 1e-12)).all()
        reached += polished.residuals.tolist()
    assert max(reached) <= 1e-9


@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
def test_polish_finds_the_zero_network_where_it_is_optimal(bias):
    problem = PROBLEM.replace(beta=1e3, architecture=TwoLayer(bias=bias))
    runs = train(problem, 6, range(4), "adam", 50, polish=True)
    shift = PROBLEM.y.mean() if bias == "free" else 0.0
    assert runs.objectives == pytest.approx(0.5 * ((PROBLEM.y - shift) ** 2).sum(), rel=1e-12)
    assert not runs.parameters["hidden"].any()


def test_polish_reports_and_takes_parameters_too(tmp_path):
    runs = train(PROBLEM, 8, range(4), "adam", 300)
    polished, again = polish(PROBLEM, runs), polish(PROBLEM, runs.parameters)
    assert again.objectives.tolist() == polished.objectives.tolist()
    assert polished.residuals.max() <= 1e-7 and polished.directional.all()
    kept = Runs.load(polished.save(tmp_path / "polished"))
    assert kept.residuals.tolist() == polished.residuals.tolist() and kept.directional.all()
    with pytest.raises(BadInput, match="the problem has two_layer_relu"):
        polish(PROBLEM.replace(architecture=TwoLayer("free")), runs)


def test_polish_works_for_logistic_loss():
    rng = np.random.default_rng(0)
    problem = Problem(
        rng.standard_normal((20, 2)), np.sign(rng.standard_normal(20)), 0.3, loss="logistic"
    )
    polished = polish(problem, train(problem, 6, range(6), "adam", 500))
    assert sum(c.stationarity <= 1e-7 for c in certify(problem, polished.networks)) >= 5


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 12))
def test_polish_never_raises_the_objective(seed, width):
    problem = kgon(5)
    runs = train(problem, width, [seed], "adam", 30)
    assert polish(problem, runs).objectives[0] <= runs.objectives[0] * (1 + 1e-12)


def test_polish_leaves_the_point_that_is_only_clarke_stationary():
    """Zero Clarke residual at .645, but one side of the kink descends."""
    X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    w, nu = np.array([1.0, 0.0]), np.array([0.3, 0.4, 0.2])
    problem = Problem(X, np.maximum(X @ w, 0) + nu, 0.5)
    start = {"hidden": torch.as_tensor(w[None, None]), "output": torch.ones(1, 1).double()}
    # One step at rate zero: the runs are the start itself.
    runs = train(problem, 1, [0], "sgd", 1, learning_rate=0.0, start=start)
    assert runs.objectives[0] == pytest.approx(0.645)
    polished = polish(problem, runs)
    assert polished.objectives[0] <= 0.63
    assert certify(problem, polished[0]).stationarity <= 1e-7
    assert certify(problem, polished[0]).wrong_ties <= 1e-7


def test_polish_takes_other_architectures_downhill_to_stationary_points():
    problem = PROBLEM.replace(architecture=GatedReLU())
    runs = train(problem, [2, 8], range(2), "adam", 20)
    polished = polish(problem, runs)
    assert (polished.objectives <= runs.objectives * (1 + 1e-12)).all()
    assert polished.residuals.max() <= 1e-3  # gates have no kinks: L-BFGS gets there


def test_polish_refuses_what_it_cannot_do():
    labels = Problem(PROBLEM.X, np.sign(PROBLEM.y), 0.1, loss="hinge")
    with pytest.raises(BadInput, match="hinge"):
        polish(labels, train(labels, 2, [0], "adam", 2))


def test_polishing_says_what_did_not_become_stationary():
    """All residuals on the lines of Huber's loss: curvature is zero and sets no length."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 4)), 1e3 * rng.standard_normal(60)
    problem = Problem(X, y, 0.5, "huber", TwoLayer("free"))
    runs = train(problem, [2, 24], range(3), "lbfgs", steps=150)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # steps without a length used to overflow
        polished = polish(problem, runs)
    assert (polished.objectives <= runs.objectives).all()
    reached = (polished.residuals <= 1e-7) & polished.directional
    count = f"{(~reached).sum()} of 6 runs did not" if not reached.all() else "6 of 6 runs are"
    assert count in polished.status
    assert reached.any()
    stopped = polish(problem, runs, iterations=0)
    assert "6 of 6 runs did not become stationary" in stopped.status


def test_a_wrong_sign_at_a_kink_is_no_stationary_run():
    residuals = np.array([1e-9, 1e-9, np.nan, 2e-3])
    status = polishing._status(residuals, np.array([True, False, False, True]))
    assert "2 of 4 runs did not become stationary (largest residual 2.0e-03" in status
    assert "1 of 2 runs are" in polishing._status(residuals[[0, 2]], np.array([True, False]))
