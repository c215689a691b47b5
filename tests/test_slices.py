"""Slices: what is given is exact, directions are what they say, extrema hold off any grid."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from cases import kgon, planted

from landscape import slices, solve
from landscape.architectures import Attention, GatedReLU, TwoLayer
from landscape.errors import BadInput
from landscape.losses import Huber
from landscape.network import Network
from landscape.problem import Problem
from landscape.slices import planes, segments
from landscape.slices.directions import _scaled, aligned, flat, unflat

BIASES = ("none", "penalised", "free")


def one(problem, width=5, seed=0, scale=2.0):
    """Return one random network, its constants not zero."""
    values = {
        k: v[0] for k, v in problem.architecture.initial(problem, width, [seed], scale).items()
    }
    if "constant" in values:
        values["constant"] = values["constant"] + 0.3 * (seed + 1)
    return Network(problem.architecture, values)


def values_of(network):
    return {k: v.detach() for k, v in network.values.items()}


def made(bias="none", loss="squared", n=12, d=3, beta=0.3):
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    y = np.sign(y) if loss in ("logistic", "hinge") else y
    return Problem(X, y, beta, loss=loss, architecture=TwoLayer(bias))


def gated():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((12, 3)), rng.standard_normal(12)
    return Problem(X, y, 0.3, architecture=GatedReLU())


PROBLEMS = {**{bias: made(bias) for bias in BIASES}, "gated": gated(), "thin": made(d=1)}


def at(found, *coordinates):
    """Return the network of a slice at these coordinates."""
    parts = [
        {k: c * v for k, v in way.items()}
        for c, way in zip(coordinates, found.directions, strict=True)
    ]
    return {k: v + sum(part[k] for part in parts) for k, v in found.origin.items()}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("kind", ["plain", "filter"])
def test_directions_are_orthogonal_after_normalisation(name, kind):
    problem = PROBLEMS[name]
    network = one(problem)
    ways = slices.directions(problem, network, kind)
    names = [k for k in ways[0] if k not in problem.architecture.fixed]
    rows = [flat(way, names) for way in ways]
    lengths = [np.linalg.norm(row) for row in rows]
    assert abs(rows[0] @ rows[1]) <= 1e-12 * lengths[0] * lengths[1]
    assert lengths[0] == pytest.approx(np.linalg.norm(flat(values_of(network), names)))
    for way in ways if kind == "filter" and name != "thin" else ():  # thin: one filter a matrix
        for row, like in zip(way["hidden"], network.values["hidden"], strict=True):
            assert row.norm().item() == pytest.approx(like.norm().item(), rel=1e-12)


def test_directions_are_seeded_and_nearly_parallel_draws_stay_orthogonal():
    problem = made()
    network = one(problem)
    draws = [slices.directions(problem, network, seed=s)[0]["hidden"] for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    first = np.random.default_rng(0).standard_normal((3, 6))
    near = first + 1e-6 * np.random.default_rng(1).standard_normal((3, 6))
    found = _scaled(near, first, [first])
    cosines = (found * first).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(first, axis=1)
    assert abs(cosines).max() <= 1e-12


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("points", [8, 9])
def test_the_centre_is_exact_and_the_network_untouched(name, points):
    problem = PROBLEMS[name]
    network = one(problem)
    before = {k: v.detach().clone() for k, v in network.values.items()}
    found = slices.around(problem, network, points=points)
    where = tuple(int(np.flatnonzero(axis == 0.0)[0]) for axis in found.axes)
    assert found.objectives[where] == problem.objective(network) == found.sanity["centre"]
    assert found.objectives.shape == (9, 9)
    slices.segment_extrema(problem, network, one(problem, seed=2)) if name != "gated" else None
    for key, value in network.values.items():
        assert torch.equal(value, before[key])
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("bias", BIASES)
def test_given_networks_are_in_the_grid_exactly(bias):
    problem = made(bias)
    networks = [one(problem, width, seed) for seed, width in enumerate((5, 3, 7))]
    for count in (2, 3):
        found = slices.through(problem, networks[:count], points=11)
        assert found.sanity["largest_cosine"] <= 1e-12
        for mark, value, network in zip(found.marks, found.marked, networks, strict=False):
            where = tuple(
                int(np.flatnonzero(a == c)[0]) for a, c in zip(found.axes, mark, strict=True)
            )
            assert found.objectives[where] == value == problem.objective(network)
            placed = at(found, *mark)
            assert float(problem.objective(placed)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
def test_entry_i_j_is_the_regularised_objective_at_x_i_y_j(name):
    problem = PROBLEMS[name]
    found = slices.around(problem, one(problem), points=4)
    axes = (np.array([-0.7, 0.1, 0.2, 2.0]), np.array([0.3, -1.0, 0.9]))
    values = slices.evaluate(problem, found.origin, found.directions, axes)
    assert values.shape == (4, 3)
    for i, x in enumerate(axes[0]):
        for j, y in enumerate(axes[1]):
            network = at(found, x, y)
            fit = problem.architecture.forward(network, torch.as_tensor(problem.X))
            loss = 0.5 * float(((fit - torch.as_tensor(problem.y)) ** 2).sum())
            whole = loss + problem.beta * float(problem.architecture.penalty(network))
            assert values[i, j] == pytest.approx(whole, rel=1e-12)


def test_linear_activations_give_what_networks_give_and_single_precision_is_near():
    problem = made("free", "logistic")
    ways = slices.directions(problem, one(problem))
    origin = values_of(one(problem))
    axes = (np.linspace(-1, 1, 7), np.linspace(-2, 1, 5))
    grid = torch.as_tensor(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2))
    fast, slow = (f(problem, origin, ways, grid) for f in (planes._two_layer, planes._any))
    assert fast.numpy() == pytest.approx(slow.numpy(), rel=1e-12)
    single = slices.evaluate(problem, origin, ways, axes, "float32").reshape(-1)
    assert single == pytest.approx(slow.numpy(), rel=1e-5) and (single != slow.numpy()).any()


def test_what_is_not_finite_stays_so():
    problem = made()
    network = one(problem)
    ways = slices.directions(problem, network)
    wild = (np.array([0.0, 1e200]),) * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = slices.evaluate(problem, values_of(network), ways, wild)
    assert np.isfinite(values).tolist() == [[True, False], [False, False]]
    broken = {**values_of(network), "output": torch.full((5,), torch.nan)}
    assert np.isnan(slices.evaluate(problem, broken, ways, wild)).all()


def test_balanced_slices_ignore_rescaling_and_filter_slices_do_not():
    problem = made()
    network = values_of(one(problem))
    scale = torch.tensor([0.1, 3.0, 1.0, 7.0, 0.5], dtype=torch.float64)
    hidden, output = network["hidden"] * scale[:, None], network["output"] / scale
    other = {"hidden": hidden, "output": output}
    for kind, same in (("balanced", True), ("filter", False)):
        values = [
            slices.around(problem, one, kind, points=5).objectives for one in (network, other)
        ]
        assert np.allclose(*values, rtol=1e-10) == same
    balanced = slices.balanced(problem, other)
    assert balanced["hidden"].norm(dim=1).numpy() == pytest.approx(balanced["output"].abs().numpy())
    X = torch.as_tensor(problem.X)
    fits = [problem.architecture.forward(one, X).numpy() for one in (balanced, network)]
    assert fits[0] == pytest.approx(fits[1], rel=1e-12)
    assert problem.objective(balanced) <= problem.objective(network)


def test_balancing_moves_constants_to_a_free_bias_and_drops_dead_neurons():
    problem = made("free")
    values = {
        "hidden": torch.tensor([[0.0, 0, 0, 2.0], [1.0, 2, 2, 1], [3.0, 0, 0, 0]]).double(),
        "output": torch.tensor([1.5, 12.0, 0.0]).double(),
        "constant": torch.tensor(0.5).double(),
    }
    balanced = slices.balanced(problem, values)
    assert balanced["output"].tolist() == pytest.approx([0.0, 6.0, 0.0])
    assert float(balanced["constant"]) == 3.5
    assert balanced["hidden"][1].tolist() == pytest.approx([2.0, 4.0, 4.0, 2.0])
    assert not balanced["hidden"][2].any()
    X = torch.as_tensor(problem.X)
    fits = [problem.architecture.forward(one, X).numpy() for one in (balanced, values)]
    assert fits[0] == pytest.approx(fits[1], rel=1e-12)
    assert problem.objective(balanced) < problem.objective(values)


def test_a_slice_stays_as_it_is_when_its_network_is_trained_on():
    problem = made()
    network = one(problem)
    found = slices.around(problem, network, points=3)
    before = found.origin["hidden"].clone()
    with torch.no_grad():
        network.hidden.add_(1.0)
    assert torch.equal(found.origin["hidden"], before)


def test_gaps_stand_on_a_certified_floor():
    problem = planted(12, 2)
    solution = solve(problem)
    found = slices.around(problem, solution.network(), points=11)
    gaps = found.gaps(solution.certificate.dual)
    assert gaps.min() == gaps[5, 5] == pytest.approx(0.0, abs=1e-6)
    expected = found.objectives[0, 3] / solution.certificate.dual - 1
    assert gaps[0, 3] == pytest.approx(expected, rel=1e-9)
    for wrong in (1.01 * solution.objective, -np.inf):
        with pytest.raises(BadInput, match="no floor"):
            found.gaps(wrong)


def test_a_planar_trajectory_is_explained_wholly_and_ends_exactly():
    problem = made()
    origin, (one_way, other) = values_of(one(problem)), slices.directions(problem, one(problem))
    places = [(0.0, 0.0), (1.0, 0.1), (2.0, -0.2), (3.0, 0.5)]
    path = [{k: v + x * one_way[k] + y * other[k] for k, v in origin.items()} for x, y in places]
    found = slices.trajectory(problem, path, points=7)
    assert found.explained.sum() == pytest.approx(1.0) and found.explained[0] > 0.9
    assert found.distances.max() <= 1e-12 and not found.coordinates[-1].any()
    assert found.objectives.tolist() == [float(problem.objective(p)) for p in path]
    where = tuple(int(np.flatnonzero(axis == 0.0)[0]) for axis in found.plane.axes)
    assert found.plane.objectives[where] == found.objectives[-1]


def test_what_leaves_the_plane_is_counted():
    problem = made()
    origin = values_of(one(problem))
    names = list(origin)
    rows = np.zeros((4, 20))
    rows[0, 0], rows[1, 1], rows[2, 2] = 3.0, 2.0, 1.0
    path = [unflat(flat(origin, names) + row, origin, names) for row in rows]
    found = slices.trajectory(problem, path, points=5)
    spread = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2
    assert found.explained == pytest.approx(spread[:2] / spread.sum())
    square = (rows**2).sum(1)
    assert found.distances**2 == pytest.approx(square - (found.coordinates**2).sum(1), abs=1e-9)
    assert found.sanity["farthest"] == found.distances.max() > 0.1


def dense(problem, a, b, points=20_001):
    """Return objectives along a segment on a fine grid."""
    ends = aligned(problem, [a, b])
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    values = {
        k: ends[0][k] + t.reshape(-1, *[1] * v.ndim) * (v - ends[0][k]) for k, v in ends[1].items()
    }
    return problem.objective(values).numpy()


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("loss", ["squared", "logistic", "huber", "hinge"])
def test_extrema_enclose_a_dense_grid_and_are_attained(bias, loss):
    problem = made(bias, loss)
    for seed in range(3):
        a, b = one(problem, 6, seed), one(problem, 4, seed + 3)
        found, values = slices.segment_extrema(problem, a, b), dense(problem, a, b)
        assert found.lower <= values.min() and values.max() <= found.upper
        assert found.maximum == pytest.approx(values.max(), rel=1e-5)
        assert found.minimum == pytest.approx(values.min(), rel=1e-4)
        assert found.upper - found.maximum <= 1e-9 * found.maximum
        assert found.minimum - found.lower <= 1e-9 * found.maximum
        X = torch.as_tensor(problem.design)
        z = [X @ end["hidden"].T for end in aligned(problem, [a, b])]
        assert len(found.breakpoints) == int((z[0] * z[1] < 0).sum())


def spike(position, half=5e-5, steep=1e5):
    """Return networks whose output is a triangle of height 5 within ±half of a position."""
    problem = Problem(np.array([[1.0]]), np.array([0.0]), 1e-15)
    corners = torch.tensor([[position - half], [position], [position + half]], dtype=torch.double)
    output = torch.tensor([1.0, -2.0, 1.0]).double()
    return problem, *({"hidden": steep * (t - corners), "output": output} for t in (0.0, 1.0))


@pytest.mark.parametrize("position", [0.50045, 0.12345])
def test_a_peak_between_grid_points_is_found(position):
    problem, a, b = spike(position)
    sampled = slices.through(problem, [a, b], 0.0, points=1001).objectives.max()
    found = slices.segment_extrema(problem, a, b)
    assert sampled < 0.01
    assert found.maximum == pytest.approx(12.5, rel=1e-4)
    assert found.at_maximum == pytest.approx(position, abs=1e-9)
    assert found.maximum <= found.upper <= 12.51


def test_quartics_and_convex_bounds_agree():
    problem = made()
    a, b = one(problem, 6, 0), one(problem, 6, 1)
    exact = slices.segment_extrema(problem, a, b)
    same = slices.segment_extrema(problem.replace(loss=Huber(1e6)), a, b)
    assert same.maximum == pytest.approx(exact.maximum, rel=1e-12)
    assert same.minimum == pytest.approx(exact.minimum, rel=1e-11)


def exactly(problem, a, b, t):
    """Return the squared loss's objective at (1 − t)·a + t·b as a fraction."""

    def between(name):
        ends = [np.vectorize(Fraction, otypes=[object])(end[name].numpy()) for end in (a, b)]
        return ends[0] + t * (ends[1] - ends[0])

    X, y = (np.vectorize(Fraction, otypes=[object])(v) for v in (problem.X, problem.y))
    hidden, output = between("hidden"), between("output")
    fit = np.maximum(X @ hidden.T, 0) @ output
    penalty = (hidden**2).sum() + (output**2).sum()
    return (((fit - y) ** 2).sum() + Fraction(problem.beta) * penalty) / 2


def test_bounds_hold_in_exact_arithmetic_where_neurons_cancel():
    rng = np.random.default_rng(0)
    for seed in range(8):
        problem = made(n=4, d=2, beta=1e-8)
        ends = []
        for nudge in (1.0, 1.0 + 1e-9):  # the copies cancel: rounding is most of what is left
            network = values_of(one(problem, 3, seed + int(1e3 * (nudge > 1)), 100.0))
            hidden = torch.cat([network["hidden"], network["hidden"] * nudge])
            ends.append(
                {"hidden": hidden, "output": torch.cat([network["output"], -network["output"]])}
            )
        found = slices.segment_extrema(problem, *ends)
        for t in (found.at_minimum, found.at_maximum, *rng.uniform(size=5)):
            value = exactly(problem, *ends, Fraction(float(t)))
            assert Fraction(found.lower) <= value <= Fraction(found.upper)


def test_pieces_may_come_in_any_number_of_batches(monkeypatch):
    problem = made(loss="logistic")
    a, b = one(problem, 6, 0), one(problem, 6, 1)
    whole = slices.segment_extrema(problem, a, b)
    monkeypatch.setattr(segments, "HELD", 1)
    assert slices.segment_extrema(problem, a, b).upper == pytest.approx(whole.upper, rel=1e-12)
    assert slices.segment_extrema(problem, a, b).lower == pytest.approx(whole.lower, rel=1e-11)


@pytest.mark.parametrize("loss", ["squared", Huber(10.0)])
def test_extrema_inside_a_smooth_piece_are_found(loss):
    problem = Problem(np.array([[1.0]]), np.array([0.0]), 1e-9, loss=loss)
    a = {"hidden": torch.tensor([[2.0]]).double(), "output": torch.tensor([0.0]).double()}
    b = {"hidden": torch.tensor([[0.0]]).double(), "output": torch.tensor([2.0]).double()}
    found = slices.segment_extrema(problem, a, b)  # f = 2(1 − t)·2t: largest at ½, where it is 1
    assert found.maximum == pytest.approx(0.5, rel=1e-8) and len(found.breakpoints) == 0
    assert found.at_maximum == pytest.approx(0.5, abs=1e-5)
    assert found.minimum == pytest.approx(2e-9, rel=1e-6)


def test_a_segment_of_one_point_is_flat():
    problem = kgon(4)
    network = one(problem)
    found = slices.segment_extrema(problem, network, network)
    assert found.minimum == found.maximum == problem.objective(network)
    assert found.upper - found.lower <= 1e-10


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda p, a: slices.around(p, a, "fliter"), "filter"),
        (lambda p, a: slices.around(p, a, dimensions=3), "count"),
        (lambda p, a: slices.around(p, a, reach=0.0), "reach"),
        (lambda p, a: slices.around(p, a, points=1), "points"),
        (lambda p, a: slices.around(p, a, dtype="float16"), "float32"),
        (lambda p, a: slices.through(p, [a]), "networks"),
        (lambda p, a: slices.through(p, [a, a]), "one point"),
        (lambda p, a: slices.through(p, [a, one(p, seed=1)], margin=-1.0), "margin"),
        (lambda p, a: slices.trajectory(p, [a, a]), "three snapshots"),
        (lambda p, a: slices.trajectory(p, [a, a, a]), "one line"),
        (lambda p, a: slices.segment_extrema(p, a, a, tolerance=0.0), "tolerance"),
        (
            lambda p, a: slices.around(p, {k: 0 * v.detach() for k, v in a.values.items()}),
            "zero",
        ),
        (
            lambda p, a: slices.segment_extrema(
                p, a, {k: v.detach() * torch.nan for k, v in a.values.items()}
            ),
            "NaN",
        ),
    ],
)
def test_bad_input_ends_in_a_sentence(call, sentence):
    problem = made()
    with pytest.raises(BadInput, match=sentence):
        call(problem, one(problem))


def test_heads_without_gates_are_joined():
    """Heads name gates among what is fixed; linear ones have none."""
    rng = np.random.default_rng(1)
    problem = Problem(
        rng.standard_normal((6, 4)), rng.standard_normal(6), 0.3, architecture=Attention(2)
    )
    networks = [one(problem, seed=k) for k in range(2)]
    assert "gate" not in networks[0].values and "gate" in problem.architecture.fixed
    plane = slices.through(problem, networks, points=5)
    assert plane.marked == pytest.approx([float(problem.objective(k)) for k in networks])


def test_networks_of_their_own_gates_share_them_side_by_side():
    problem = gated()
    networks = [one(problem, width=3 + k, seed=k) for k in range(3)]
    wide = slices.side_by_side(problem, networks)
    for before, after in zip(networks, wide, strict=True):
        assert torch.equal(after["gate"], wide[0]["gate"]) and len(after["output"]) == 12
        assert float(problem.objective(after)) == pytest.approx(float(problem.objective(before)))
    plane = slices.through(problem, wide, points=5)
    assert plane.marked == pytest.approx([float(problem.objective(k)) for k in networks])
    same = slices.side_by_side(problem, networks[:1] * 2)
    assert all(len(k["output"]) == 3 for k in same)


def test_gates_must_be_shared_and_other_architectures_are_refused():
    problem = gated()
    a, b = one(problem), one(problem, seed=1)
    with pytest.raises(BadInput, match="gate"):
        slices.through(problem, [a, b])
    with pytest.raises(BadInput, match="two-layer"):
        slices.segment_extrema(problem, a, a)
    with pytest.raises(BadInput, match="balancing"):
        slices.around(problem, a, "balanced")
