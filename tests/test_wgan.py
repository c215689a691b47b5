"""WGANs: saddle points in closed form against cvxpy, prices, training; pieces in the plane."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from landscape.errors import BadInput, NotConverged
from landscape.generative import Game, alternate, axes_bound, match_pieces

KINDS = (("linear", 3), ("quadratic", 3), ("relu", 1))


def _game(kind, d, seed, share=0.3, n=20):
    """Draw data off the origin; β is a share of what the zero generator is priced at."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * rng.uniform(0.5, 2, d) + rng.uniform(-1, 1, d)
    zero = np.zeros((1, d))
    return Game(X, share * Game(X, 1.0, kind).mismatch(zero), kind)


def _reference(game):
    """Return the least energy of generators that no neuron prices above β, by cvxpy."""
    X, beta, n = game.X, game.beta, len(game.X)
    if game.discriminator == "linear":
        m = cp.Variable(X.shape[1])
        program = cp.Problem(cp.Minimize(cp.sum_squares(m) / 2), [cp.norm(X.mean(0) - m) <= beta])
    elif game.discriminator == "quadratic":
        S = cp.Variable((X.shape[1],) * 2, PSD=True)
        program = cp.Problem(cp.Minimize(cp.trace(S) / 2), [cp.sigma_max(X.T @ X / n - S) <= beta])
    else:  # any distribution on a fine grid that contains the data and the clip's ends
        x = X[:, 0]
        grid = np.union1d(np.linspace(-4, 4, 81), np.append(x, game.solve().directions))
        p = cp.Variable(len(grid), nonneg=True)
        limits = [cp.sum(p) == 1]
        for side in (1.0, -1.0):
            seen = np.maximum(side * (x[:, None] - grid), 0).mean(0)
            made = np.maximum(side * (grid[:, None] - grid), 0).T
            limits.append(cp.abs(seen - made @ p) <= beta)
        program = cp.Problem(cp.Minimize((grid**2 / 2) @ p), limits)
    program.solve(solver="CLARABEL")
    return program.value


@pytest.mark.parametrize(("kind", "d"), KINDS)
def test_closed_forms_are_saddle_points(kind, d):
    for seed in range(20):
        game = _game(kind, d, seed, share=(0.02, 0.1, 0.5)[seed % 3])
        found = game.solve()
        price, exact = found.price()
        assert exact and price == pytest.approx(game.mismatch(found.generated), rel=1e-9)
        assert price <= game.beta * (1 + 1e-9) and price >= game.beta * (1 - 1e-9)
        assert found.value == pytest.approx(found.bound, rel=1e-12)
        assert found.value == pytest.approx(_reference(game), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("kind", "d"), KINDS)
def test_the_discriminator_holds_every_generator_down(kind, d):
    """V(G, D) ≥ bound for all G: pointwise ½‖g‖² − D(g) is least where the optimum has its mass."""
    rng = np.random.default_rng(0)
    for seed in range(5):
        game = _game(kind, d, seed)
        found = game.solve()
        cost = 0.5 * (found.generated**2).sum(1) - found.discriminate(found.generated)
        anywhere = 3 * rng.standard_normal((2000, d))
        least = (0.5 * (anywhere**2).sum(1) - found.discriminate(anywhere)).min()
        assert least >= cost.min() - 1e-9
        if kind != "linear":
            np.testing.assert_allclose(cost, 0.0, atol=1e-9)
        if game.mismatch(game.X * 0.9) <= game.beta:
            assert game.energy(game.X * 0.9) >= found.bound


def test_huber_s_function_is_a_network_of_that_size():
    """Many ramps: E_X D − βR − max_g (D(g) − ½g²) of a real network nears the bound from below."""
    game = _game("relu", 1, 3)
    found = game.solve()
    low, high = found.directions[0]
    count, bounds = 400, []
    for k in (20, count):
        kinks = [np.linspace(0, end, k, endpoint=False) + end / k / 2 for end in (low, high)]
        t, side = np.concatenate(kinks), np.repeat([-1.0, 1.0], k)
        size = np.sqrt(np.repeat([-low / k, high / k], k))
        network = {
            "hidden": torch.tensor(np.stack([side * size, -side * size * t], axis=1)),
            "output": torch.tensor(size),
            "constant": torch.zeros((), dtype=torch.float64),
        }
        own = game.architecture
        assert float(own.penalty(network)) == pytest.approx(high - low)
        grid = torch.linspace(-6, 6, 20_001, dtype=torch.float64)[:, None]
        worst = float((own.forward(network, grid) - grid[:, 0] ** 2 / 2).max())
        seen = float(own.forward(network, torch.tensor(game.X)).mean())
        bounds.append(seen - game.beta * (high - low) - worst)
    assert bounds[0] < bounds[1] <= found.bound + 1e-9
    assert bounds[1] == pytest.approx(found.bound, rel=1e-4)


@pytest.mark.parametrize(("kind", "d"), KINDS)
def test_faults_are_priced(kind, d):
    """A generator moved a little further than the optimum is told from the data."""
    game = _game(kind, d, 1)
    found = game.solve()
    wrong = Game(game.X, 1.05 * game.beta, kind).solve().generated
    assert game.price(wrong)[0] > 1.04 * game.beta
    assert game.energy(wrong) < found.value
    assert game.price(-found.generated)[0] > game.beta or kind == "quadratic"


@pytest.mark.parametrize(("kind", "d"), KINDS)
def test_large_beta_leaves_nothing(kind, d):
    found = _game(kind, d, 2, share=1.01).solve()
    assert found.value == 0.0 == found.bound
    assert not found.discriminate(found.game.X).any()


def test_samples_have_the_matched_moments():
    game = _game("quadratic", 3, 4, share=0.1)
    found = game.solve()
    drawn = found.sample(100_000, seed=1)
    np.testing.assert_allclose(
        drawn.T @ drawn / 100_000, found.generated.T @ found.generated / 20, atol=0.1
    )
    assert game.mismatch(drawn) < 1.2 * game.beta
    line = _game("relu", 1, 4).solve()
    drawn, (low, high) = line.sample(50, seed=2), line.directions[0]
    assert drawn.shape == (50, 1) and low <= drawn.min() and drawn.max() <= high


def test_alternating_gradients_come_to_the_saddle_point():
    game = _game("linear", 2, 0)
    found, played = game.solve(), alternate(game, [0], steps=300, rate=0.2, width=4)
    assert played.energies[-1] == pytest.approx([found.value], rel=1e-2)
    assert played.mismatches[-1] == pytest.approx([game.beta], rel=1e-2)
    game = _game("relu", 1, 0, n=12)
    found, played = game.solve(), alternate(game, [0], steps=150, rate=0.1, record=10)
    away = np.abs(played.mismatches[:, 0] / game.beta - 1)
    assert away[-5:].mean() < 0.2 * away[0]
    assert played.energies[-5:].mean() == pytest.approx(found.value, rel=0.1)


def test_generators_along_the_way_are_mixed_seed_by_seed():
    game = _game("linear", 2, 0)
    played = alternate(game, [0, 1], samples=3, steps=5, record=1, width=2)
    for seed in range(2):
        np.testing.assert_array_equal(
            played.pooled[seed], np.vstack([played.samples[t, seed] for t in (3, 4, 5)])
        )
    game = _game("relu", 1, 0, n=12)
    played = alternate(game, [0], steps=150, rate=0.1, record=10)
    prices, energies = played.mismatches[8:, 0], played.energies[8:, 0]
    assert game.mismatch(played.pooled[0]) < 0.99 * prices.mean()  # a price is convex in mixtures
    assert game.energy(played.pooled[0]) == pytest.approx(energies.mean(), rel=1e-12)


def test_steps_without_lookahead_circle_further_out():
    game = _game("quadratic", 2, 0, n=10, share=0.1)
    away = []
    for lookahead in (True, False):
        played = alternate(game, [0], steps=150, rate=0.06, record=10, lookahead=lookahead)
        away.append(np.abs(played.mismatches[5:] / game.beta - 1).mean())
    assert away[0] < 0.5 * away[1]
    with pytest.raises(NotConverged, match="rate"):
        alternate(game, [0], steps=50, rate=50.0)


def test_pieces_on_a_line_are_the_clip():
    game = _game("relu", 1, 5, n=12)
    found = match_pieces(game)
    assert found.exact and found.price <= game.beta
    assert found.bound == pytest.approx(game.solve().value)
    assert game.solve().value <= found.value <= 1.02 * game.solve().value


def test_pieces_do_not_depend_on_units():
    X, found = np.random.default_rng(0).standard_normal((8, 2)), {}
    for unit in (1.0, 1e-6, 1e6):
        found[unit] = match_pieces(Game(unit * X, 0.25 * unit))
        assert found[unit].value == pytest.approx(unit**2 * found[1.0].value, rel=1e-6)
        assert found[unit].bound == pytest.approx(unit**2 * found[1.0].bound, rel=1e-6)
        assert found[unit].price == pytest.approx(unit * found[1.0].price, rel=1e-6)
        assert found[unit].history == pytest.approx(
            [unit**2 * value for value in found[1.0].history], rel=1e-6
        )
        np.testing.assert_allclose(found[unit].generated / unit, found[1.0].generated, atol=1e-5)


@pytest.mark.parametrize("unit", [1e-40, 1e45])
def test_pieces_of_tiny_and_huge_data_on_a_slanted_line(unit):
    """Across the line data are rounding of 1e-16: a size that nobody gave is not refused."""
    X = np.outer([1.0, -0.4, 0.3, 2.0, -1.5], [0.7, 0.3])
    at_home, away = match_pieces(Game(X, 0.2)), match_pieces(Game(unit * X, 0.2 * unit))
    assert away.value == pytest.approx(unit**2 * at_home.value, rel=1e-6)
    assert away.bound == pytest.approx(unit**2 * at_home.bound, rel=1e-6)


@pytest.mark.parametrize(("seed", "n", "beta"), [(1, 8, 0.2), (2, 10, 0.3), (4, 6, 0.3)])
def test_the_best_samples_that_settled_are_kept(seed, n, beta):
    """The last program may end higher than one before it."""
    d = {2: 1}.get(seed, 2)
    found = match_pieces(Game(np.random.default_rng(seed).standard_normal((n, d)), beta))
    assert found.price <= beta and found.value <= found.history[-1] * (1 + 1e-9)


def test_samples_that_a_neuron_out_of_sight_prices_give_way_to_those_before():
    X = np.random.default_rng(5).standard_normal((8, 2))
    found = match_pieces(Game(X, 0.1))
    assert found.price <= 0.1 and found.bound <= found.value <= found.history[-1] * (1 + 1e-9)


def test_what_did_not_match_says_why():
    X = np.random.default_rng(0).standard_normal((6, 2))
    with pytest.raises(NotConverged, match=r"last of rounds=1, so that no samples settled: raise"):
        match_pieces(Game(X, 0.1), rounds=1)
    X = np.random.default_rng(3).standard_normal((12, 3))
    with pytest.raises(NotConverged, match=r"not searched may price 1\.0\d* β: take"):
        match_pieces(Game(X, 0.1))


def test_pieces_in_the_plane_are_between_their_bounds():
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, 12)
    X = np.stack([2 * np.cos(angles), np.sin(angles)], axis=1)
    game = Game(X, 0.2)
    found = match_pieces(game)
    assert found.exact and 0.9 * game.beta < found.price <= game.beta
    assert 0 < found.bound <= found.value < game.energy(X)
    assert (np.diff(found.history) <= 0).all()
    assert axes_bound(game) <= game.energy(X)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda game: alternate(game, []), "seeds is empty"),
        (lambda game: game.price(np.zeros((3, 5))), r"G has shape \(3, 5\).*\(m, 2\)"),
        (lambda game: game.mismatch(np.zeros(3)), r"G has shape \(3,\)"),
        (lambda game: game.mismatch(np.zeros((0, 2))), r"G is empty \(shape \(0, 2\)\)"),
        (lambda game: game.energy(np.zeros(2)), r"G has shape \(2,\)"),
        (lambda game: game.price(np.full((3, 2), np.nan)), "G has 6 entries that are NaN"),
    ],
)
def test_samples_and_seeds_are_refused_by_name(call, said):
    with pytest.raises(BadInput, match=said):
        call(Game(np.ones((3, 2)), 0.1, "linear"))


def test_refusals():
    X = np.random.default_rng(0).standard_normal((5, 2))
    with pytest.raises(BadInput, match="discriminator"):
        Game(X, 0.1, "cubic")
    with pytest.raises(BadInput, match="match_pieces"):
        Game(X, 0.1).solve()
    with pytest.raises(BadInput, match="linear"):
        match_pieces(Game(X, 0.1, "linear"))
    with pytest.raises(BadInput, match="NaN"):
        Game(X * np.nan, 0.1)
