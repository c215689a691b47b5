"""Barriers, lengths and alignment of paths against fine grids, brute force and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from cases import kgon, planted

from landscape import connect, polish, solve, train
from landscape.architectures import TwoLayer
from landscape.errors import BadInput
from landscape.optimal_set import OptimalSet
from landscape.paths import align, alignment
from landscape.problem import Problem

FREE = ("straight", "aligned", "bezier", "polygon")
EVERY = (*FREE, "valley", "level", "monotone")


def problem_of(loss="squared", bias="none", n=15, d=2):
    base = planted(n, d)
    y = base.y if loss == "squared" else np.where(base.y > np.median(base.y), 1.0, -1.0)
    return Problem(base.X, y, 0.3, loss=loss, architecture=TwoLayer(bias))


def networks_of(problem, widths=(6, 4), seed=0):
    """Networks of different widths; neither is balanced."""
    found = []
    for number, width in enumerate(widths):
        draw = problem.architecture.initial(problem, width, [10 * seed + number], 2.0)
        found.append({k: v[0] for k, v in draw.items()})
        found[-1]["hidden"] *= 2.0
    return found


def trained(n=30, d=3):
    """Two polished networks of one problem that are different points."""
    problem = problem_of(n=n, d=d)
    runs = polish(problem, train(problem, 6, range(2), "adam", steps=500))
    assert abs(np.diff(runs.objectives)[0]) > 1e-4
    return problem, *[{k: v.detach() for k, v in one.values.items()} for one in runs.networks]


def path_of(problem, method, a, b, **options):
    if method == "monotone":
        b = solve(problem, tolerance=1e-9).network()
    return connect(problem, a, b, method, steps=60, **options)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize(
    ("loss", "bias"), [("squared", "none"), ("squared", "free"), ("logistic", "penalised")]
)
def test_no_point_of_a_fine_grid_is_above_any_of_the_three_barriers(method, loss, bias):
    problem = problem_of(loss, bias)
    path = path_of(problem, method, *networks_of(problem))
    position, values = path.objectives(10_001)
    share = position / position[-1]
    a, b = values[0], values[-1]
    assert path.ends == pytest.approx((a, b), rel=1e-14)
    size = max(a, b)
    on_grid = (
        values.max() - max(a, b),
        (values - (1 - share) * a - share * b).max(),
        values.max() - (a + b) / 2,
    )
    for grid, found, bound in zip(on_grid, path.attained, path.barriers, strict=True):
        assert grid <= bound
        assert found <= bound <= found + 1e-8 * size
        assert found == pytest.approx(grid, rel=1e-5, abs=1e-9 * size)


@pytest.mark.parametrize("method", ["monotone", "valley", "level"])
@pytest.mark.parametrize("bias", ["none", "penalised", "free"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_constructive_paths_are_nowhere_above_their_ends(loss, bias, method):
    problem = problem_of(loss, bias)
    for seed in range(3):
        a, b = networks_of(problem, (40, 6), seed)
        path = path_of(problem, method, a, b)
        assert path.barrier <= 1e-10 * max(path.ends)
        if method == "monotone":
            assert path.rise <= 1e-10 * path.ends[0]
        values = path.objectives(301)[1]
        assert (values - np.minimum.accumulate(values)).max() <= path.rise


def test_an_end_that_is_an_optimum_needs_no_other():
    """Trained networks can be optima, and lower than the solver's by rounding."""
    problem = problem_of()
    a, higher = networks_of(problem)
    best = solve(problem, tolerance=1e-9).network()
    for ends in ((a, best), (best, a)):
        path = connect(problem, *ends, "valley", optimum=higher)
        assert path.barrier <= 1e-10 * max(path.ends)
        assert path.objectives(301)[1].max() <= path.upper
    with pytest.raises(BadInput, match="above the start's"):
        connect(problem, best, higher, "monotone")


def test_optima_that_differ_by_rounding_are_connected():
    """Neurons in another order add up to another last digit; the rise says how much."""
    problem = problem_of()
    values = {k: v.detach() for k, v in solve(problem, tolerance=1e-9).network().values.items()}
    for seed in range(20):
        order = torch.as_tensor(np.random.default_rng(seed).permutation(len(values["output"])))
        scale = 1.0 + seed / 7.0
        other = {"hidden": values["hidden"][order] * scale, "output": values["output"][order]}
        other["output"] = other["output"] / scale
        balanced = problem.architecture.balanced(problem, other)[0]
        path = connect(problem, balanced, values, "monotone")
        assert 0 <= path.rise <= 1e-12 * path.ends[0]


def test_copies_in_another_order_and_scale_are_one_network_once_aligned():
    problem, a, _ = trained()
    m = len(a["output"])
    order, scale = torch.arange(m).roll(2), torch.linspace(0.2, 3.0, m).double()
    b = {
        "hidden": (a["hidden"] * scale[:, None])[order],
        "output": (a["output"] / scale)[order],
    }
    straight, aligned = (connect(problem, a, b, method) for method in ("straight", "aligned"))
    assert straight.barrier > 0.1 * max(straight.ends)
    assert aligned.barrier <= 1e-10 * max(aligned.ends)
    assert aligned.convex_length <= 1e-9
    one, two = align(problem, a, b)
    assert torch.allclose(one["hidden"], two["hidden"], atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_alignment_is_the_best_of_all_permutations(seed):
    problem = problem_of()
    a, b = align(problem, *networks_of(problem, (5, 4), seed))

    def apart(order):
        return sum(float((a[k] - b[k][list(order)]).square().sum()) for k in a)

    everything = [apart(order) for order in itertools.permutations(range(5))]
    assert apart(range(5)) == pytest.approx(min(everything), rel=1e-12)


def test_a_wrong_assignment_is_seen(monkeypatch):
    problem, a, _ = trained()
    b = {k: v.flip(0) for k, v in a.items()}
    assert connect(problem, a, b, "aligned").barrier <= 1e-10 * float(problem.objective(a))
    monkeypatch.setattr(
        alignment, "linear_sum_assignment", lambda gains, **_: (None, range(len(gains)))
    )
    assert connect(problem, a, b, "aligned").barrier > 0.1 * float(problem.objective(a))


@pytest.mark.parametrize("method", ["bezier", "polygon"])
@pytest.mark.parametrize("align_first", [False, True])
def test_trained_curves_keep_their_ends_and_lower_the_barrier(method, align_first):
    problem, *networks = trained()
    plain = connect(problem, *networks, "aligned" if align_first else "straight")
    path = connect(problem, *networks, method, align=align_first, steps=200)
    assert path.ends == pytest.approx(plain.ends, rel=1e-12)
    assert path.barrier < 0.5 * plain.barrier
    again = connect(problem, *networks, method, align=align_first, steps=200)
    assert again.upper == path.upper  # the seed decides


def test_lengths_are_those_of_closed_forms():
    problem = problem_of()
    a, b = networks_of(problem, (5, 5))
    straight = connect(problem, a, b, "straight")
    flat = [torch.cat([one["hidden"].reshape(-1), one["output"]]) for one in (a, b)]
    assert straight.length == pytest.approx(float((flat[0] - flat[1]).norm()), rel=1e-9)
    # One neuron that grows along its own direction from nothing: length of √2 (√c) and of c.
    grown = {"hidden": 2 * torch.eye(1, 2).double(), "output": torch.tensor([2.0]).double()}
    nothing = {k: torch.zeros_like(v) for k, v in grown.items()}
    level = connect(problem, nothing, grown, "level")
    assert level.length == pytest.approx(2 * 2**0.5, rel=1e-6)
    assert level.convex_length == pytest.approx(4.0, rel=1e-6)


def test_paths_within_the_set_are_constant_and_through_width():
    problem = kgon(5)
    optima = OptimalSet(solve(problem, tolerance=1e-10))
    low = optima.solution.objective
    first, last = (optima.network(optima.vertices[i]) for i in (0, -1))
    path = connect(problem, first, last, "optimal", optima=optima)
    assert path.width <= optima.connected_width
    assert path.upper - low <= 1e-10 * low and path.rise <= 1e-10 * low
    assert path.objectives(1001)[1].max() <= path.upper


def test_what_cannot_be_connected_is_said():
    problem = problem_of()
    a, b = networks_of(problem)
    with pytest.raises(BadInput, match="width is 5: the networks have 6 and 4"):
        connect(problem, a, b, "straight", width=5)
    with pytest.raises(BadInput, match="needs 2n neurons"):
        connect(problem, *networks_of(problem, (20, 20)), "level", width=16)
    with pytest.raises(BadInput, match="n \\+ m\\* neurons"):
        connect(problem, *networks_of(problem, (20, 20)), "valley", width=6)
    for options, message in (
        ({"steps": 0}, "steps is 0"),
        ({"bends": 0.5}, "bends is 0.5"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"width": "a"}, "width is 'a'"),
    ):
        with pytest.raises(BadInput, match=message):
            connect(problem, a, b, "polygon", **options)
    with pytest.raises(BadInput, match="position is nan"):
        connect(problem, a, b, "straight").network(float("nan"))
