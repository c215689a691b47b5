"""Score matching on a line: the program, its conventions at kinks, its exact certificate."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from landscape import Problem, solve
from landscape.architectures import TwoLayer
from landscape.errors import BadInput, NotConverged
from landscape.generative import Mixture, ScoreMatching, denoising, langevin

SKIPS = ("none", "free")
MIXTURE = Mixture((0.4, 0.6), (-1.5, 1.0), (0.5, 0.7))


def _problem(seed, n=9, share=0.1, skip="none", ties=0):
    """Draw a problem a share of the way from the least β to the largest."""
    x = np.random.default_rng(seed).standard_normal(n)
    x[:ties] = x[n // 2]
    low = ScoreMatching(x, 1e6, skip)
    room = max(low.beta_max - low.beta_min, 0.5)
    return ScoreMatching(x, low.beta_min + share * room, skip)


def _reference(problem, slopes="both"):
    """Return primal and dual optimum by cvxpy, from ramps written out here."""
    x = problem.x
    columns, sums = [], []
    for t in x:
        for at in {"both": (0, 1), "zero": (0,), "one": (1,)}[slopes]:
            columns += [np.maximum(x - t, 0), np.maximum(t - x, 0)]
            sums += [(x >= t).sum(), -(x <= t).sum()] if at else [(x > t).sum(), -(x < t).sum()]
    A, b, n = np.array(columns).T, np.array(sums, dtype=float), len(x)
    free = np.stack([np.ones(n), x], axis=1) if problem.skip == "free" else np.ones((n, 1))
    tilt = np.array([0.0, n])[: free.shape[1]]
    z, xi, nu = cp.Variable(A.shape[1]), cp.Variable(free.shape[1]), cp.Variable(n)
    loss = 0.5 * cp.sum_squares(A @ z + free @ xi) + b @ z + tilt @ xi
    primal = cp.Problem(cp.Minimize(loss + problem.beta * cp.norm1(z)))
    limits = [cp.abs(A.T @ nu - b) <= problem.beta, free.T @ nu == tilt]
    dual = cp.Problem(cp.Maximize(-0.5 * cp.sum_squares(nu)), limits)
    for program in (primal, dual):
        program.solve(solver="CLARABEL")
    return primal.value, dual.value


@pytest.mark.parametrize("skip", SKIPS)
def test_the_optimum_is_the_reference_s_and_its_network_s(skip):
    used = []
    for seed in range(12):
        problem = _problem(seed, skip=skip, share=0.04, ties=2 * (seed % 3 == 0))
        score = problem.solve()
        primal, dual = _reference(problem)
        size = abs(primal)
        assert abs(score.value - primal) <= 1e-6 * size and abs(score.value - dual) <= 1e-6 * size
        assert abs(score.objective - score.value) <= 1e-6 * size
        assert score.bound <= score.value + 1e-12 * size and score.gap <= 1e-6
        used.append(score.active)
    assert np.mean(np.array(used) >= 3) > 0.6


@pytest.mark.parametrize("skip", SKIPS)
def test_no_kink_anywhere_prices_above_beta(skip):
    """Kinks at random places, on samples and next to them: νᵀa − b never leaves [−β, β]."""
    for seed in range(10):
        problem = _problem(seed, skip=skip)
        nu, x, beta = problem.solve().nu, problem.x, problem.beta
        near = np.concatenate([x, np.nextafter(x, -9), np.nextafter(x, 9), x - 1e-7, x + 1e-7])
        kinks = np.concatenate([near, np.random.default_rng(seed).uniform(-4, 4, 2000)])
        apart = x[:, None] - kinks
        prices = nu @ np.maximum(apart, 0) - (apart > 0).sum(0)
        found = [prices, nu @ np.maximum(-apart, 0) + (apart < 0).sum(0)]
        largest = max(np.abs(one).max() for one in found[: 2 - (skip == "free")])
        assert largest <= beta * (1 + 1e-9)
        assert largest >= beta * (1 - 1e-5)  # attained where there are neurons
        # without limits from one side the dictionary is not complete
        assert np.abs(problem.prices(nu)).max() >= largest * (1 - 1e-9)


@pytest.mark.parametrize("slopes", ["zero", "one"])
def test_one_convention_alone_costs_more(slopes):
    """Kinks on samples with one φ'(0): another program; networks near its kinks beat it."""
    dearer = 0
    for seed in range(6):
        problem = _problem(seed, share=0.02)
        both, one = problem.solve(), problem.solve(slopes)
        assert one.value == pytest.approx(_reference(problem, slopes)[0], rel=1e-6)
        assert both.value <= one.value + 1e-9
        dearer += both.objective < one.value - 1e-3 * abs(one.value)
    assert dearer >= 4


@pytest.mark.parametrize("skip", SKIPS)
def test_networks_stay_above_the_bound_and_lift_never_raises(skip):
    for seed in range(2):
        problem = _problem(seed, skip=skip, share=0.3)
        score = problem.solve()
        trained, trace = problem.train(8, range(4), steps=40)
        values = problem.objective(trained).detach().numpy()
        np.testing.assert_allclose(values, np.nanmin(trace, axis=0), rtol=1e-12)
        assert values.min() >= score.bound
        for run in range(4):
            one = {k: v[run].detach() for k, v in trained.items()}
            assert problem.value(*problem.lift(one)) <= values[run] + 1e-9 * abs(values[run])
        own = problem.value(*problem.lift(score.network().values))
        assert abs(own - score.objective) <= 1e-8 * abs(own)


def test_training_comes_close_where_kinks_need_not_meet_samples():
    """Gradients do not see jumps of s'; with a large β little depends on them."""
    problem = ScoreMatching(MIXTURE.sample(40, 0), 12.0)
    score = problem.solve()
    _, trace = problem.train(16, range(4), steps=500)
    assert score.bound <= trace.min() <= score.value + 0.06 * abs(score.value)


@pytest.mark.parametrize("skip", SKIPS)
def test_any_dual_point_gives_a_bound(skip):
    problem = _problem(3, skip=skip)
    score, rng = problem.solve(), np.random.default_rng(0)
    for size in (0.0, 1e-6, 1.0, 30.0):
        moved = score.nu + size * rng.standard_normal(len(problem.x))
        assert problem.lower_bound(moved) <= score.value + 1e-12 * abs(score.value)
    assert problem.lower_bound(score.nu) >= score.value - 1e-9 * abs(score.value)


@pytest.mark.parametrize("skip", SKIPS)
def test_exact_prices_and_the_middle_of_the_tube(skip):
    problem = _problem(1, skip=skip, ties=3)
    middle = problem.tube.middle()
    assert sum(middle) == 0
    assert problem.tube.largest_price(middle) <= problem.tube.least
    nu = np.array([float(v) for v in middle])
    assert float(problem.tube.largest_price(middle)) == pytest.approx(
        np.abs(problem.prices(nu)).max()
    )


@pytest.mark.parametrize("slopes", ["zero", "one"])
def test_with_a_free_skip_connection_conventions_do_not_matter(slopes):
    """Left ramps are right ones with the other slope, less a linear part."""
    problem = _problem(1, share=0.02, skip="free")
    one = problem.solve(slopes)
    assert one.value == pytest.approx(_reference(problem, slopes)[0], rel=1e-6)
    assert one.value == pytest.approx(problem.solve().value, rel=1e-9)


@pytest.mark.parametrize("slopes", ["zero", "one"])
def test_bounds_of_one_convention_are_those_of_its_program(slopes):
    problem = _problem(2, share=0.02)
    one, rng = problem.solve(slopes), np.random.default_rng(0)
    assert one.value - 1e-6 * abs(one.value) <= one.bound <= one.value + 1e-12 * abs(one.value)
    assert one.bound > problem.solve().value + 1e-3 * abs(one.value)  # none of all networks
    at = np.unique(one.ramps.slopes).tolist()
    for size in (1e-6, 1.0, 30.0):
        moved = one.nu + size * rng.standard_normal(len(problem.x))
        assert problem.tube.lower_bound(moved, problem.beta, at) <= one.value * (1 - 1e-12)


@pytest.mark.parametrize("skip", SKIPS)
def test_what_is_not_solved_says_so(skip):
    """Samples 1e-9 apart near the least β: floating point cannot resolve the network."""
    base = np.random.default_rng(0).standard_normal(40)
    close = ScoreMatching(np.concatenate([base, base + 1e-9]), 1.5, skip)
    far = ScoreMatching(base + 1e9, 1.5, skip)
    for problem in (close, far):
        with pytest.raises(NotConverged, match="centre and scale"):
            problem.solve()
        assert problem.solve(throw=False).gap > 1e-6
    sharp = ScoreMatching(base, 1.5, skip)
    assert sharp.solve(tolerance=1e-7).gap <= 1e-7
    with pytest.raises(NotConverged, match="above tolerance 0"):
        sharp.solve(tolerance=0.0)


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e6])
@pytest.mark.parametrize("seed", [3, 11])
def test_values_that_vanish_at_the_largest_beta_count_as_rounding_of_the_data(seed, unit):
    """The value goes to zero with (β_max − β)², its rounding with β_max − β."""
    x = unit * np.random.default_rng(seed).standard_normal(9)
    problem = ScoreMatching(x, 1e6)
    assert problem.scale == pytest.approx(9 / (2 * x.var()), rel=1e-12)
    for share in (1e-10, 1e-13):
        score = ScoreMatching(x, problem.beta_max * (1 - share)).solve()
        assert score.active == 1 and -1e-17 * problem.scale < score.value < 0
        assert score.gap == (score.objective - score.bound) / (2.0**-52 * problem.scale)
    below = ScoreMatching(x, problem.beta_min + 0.3 * (problem.beta_max - problem.beta_min)).solve()
    assert below.gap == (below.objective - below.bound) / abs(below.objective)


@pytest.mark.parametrize("skip", SKIPS)
def test_offsets_cost_the_program_nothing(skip):
    base = np.round(np.random.default_rng(0).standard_normal(40), 3)
    at_home = ScoreMatching(base, 1.5, skip).solve()
    away = ScoreMatching(base + 2.0**30, 1.5, skip).solve(throw=False)
    assert away.value == pytest.approx(at_home.value, rel=1e-3)  # the samples are rounded
    assert away.bound == pytest.approx(away.value, rel=1e-8)


def test_below_the_least_beta_a_network_falls_for_ever():
    x = np.array([0.0, 1.0, 2.0])
    problem = ScoreMatching(x, 1.001)
    problem.beta = 0.9  # past the door
    values = []
    for size in (1.0, 1e2, 1e4):
        root = size**0.5  # an increasing kink just below the last sample, of slope −size
        network = {
            "hidden": torch.tensor([[root, -root * (2.0 - 1e-9)]], dtype=torch.float64),
            "output": torch.tensor([-root], dtype=torch.float64),
            "constant": torch.tensor(0.0, dtype=torch.float64),
        }
        values.append(float(problem.objective(network)))
    assert values[2] < values[1] < values[0] < 0
    for wrong in (0.9, 1.0):
        with pytest.raises(BadInput, match="above 1"):
            ScoreMatching(x, wrong)


def test_without_neurons_a_free_skip_is_the_gaussian_score():
    """β above β_max leaves s(x) = −(x − mean)/variance."""
    problem = _problem(2, n=30, skip="free", share=1.001)
    score = problem.solve()
    assert score.active == 0
    x, points = problem.x, np.linspace(-2, 2, 5)
    fitted = score.network()(points[:, None]).detach().numpy()
    np.testing.assert_allclose(fitted, -(points - x.mean()) / x.var(), rtol=1e-9)
    below = _problem(2, n=30, skip="free", share=0.97)
    assert below.solve().active > 0


def test_the_learned_score_nears_the_truth_and_samples_from_it():
    grid = np.linspace(-4, 4, 801)
    weight = MIXTURE.density(grid) * (grid[1] - grid[0])
    assert weight.sum() == pytest.approx(1.0, abs=1e-3)
    slope = np.gradient(np.log(MIXTURE.density(grid)), grid)
    np.testing.assert_allclose(MIXTURE.score(grid)[1:-1], slope[1:-1], atol=2e-3)
    errors = []
    for n in (50, 400):
        network = ScoreMatching(MIXTURE.sample(n, 0), 0.6 * n**0.5).solve().network()
        learned = network(grid[:, None]).detach().numpy()
        errors.append(float((weight * (learned - MIXTURE.score(grid)) ** 2).sum()))
    truth = float((weight * MIXTURE.score(grid) ** 2).sum())
    assert errors[1] < 0.2 * truth and errors[1] < errors[0]

    def score(x):
        return network(x[:, None]).detach().numpy()

    drawn = langevin(score, np.zeros(2000), 0.02, 400, seed=1)
    assert abs(drawn.mean() - 0.0) < 0.25 and abs(drawn.std() - 1.39) < 0.25
    with pytest.raises(BadInput, match="step"):
        langevin(lambda x: x**3, np.ones(3), 1.0, 100)


def test_langevin_has_the_moments_of_its_recursion():
    """With a Gaussian score it is x ← (1 − η/σ²)x + √(2η)ε, whose moments are known."""
    chains, variance, step = 40_000, 0.5, 0.1
    shrunk = 1.0 - step / variance
    for steps in (1, 3, 40):
        drawn = langevin(lambda x: -x / variance, np.full(chains, 2.0), step, steps, seed=steps)
        spread = 2 * step * (1 - shrunk ** (2 * steps)) / (1 - shrunk**2)
        assert abs(drawn.mean() - 2.0 * shrunk**steps) < 5 * (spread / chains) ** 0.5
        assert abs(drawn.var() / spread - 1) < 5 * (2 / chains) ** 0.5


def test_every_noisy_value_keeps_its_own_past():
    """The value is noisy + σ² target; with several draws of the noise it stays beside its past."""
    value = np.random.default_rng(1).standard_normal(7)
    X, y = denoising(np.stack([value, -2 * value], axis=1), value, 0.3, copies=3)
    kept = X[:, 2] + 0.3**2 * y
    np.testing.assert_allclose(X[:, :2], np.stack([kept, -2 * kept], axis=1), atol=1e-12)
    np.testing.assert_allclose(np.sort(kept), np.sort(np.tile(value, 3)), atol=1e-12)
    assert len(np.unique(y)) == 21


def test_denoising_scores_are_certified_regressions():
    """On lags: the conditional score of a Gaussian autoregression is linear and known."""
    rng, series = np.random.default_rng(0), [0.0]
    for _ in range(150):
        series.append(0.7 * series[-1] + 0.5 * rng.standard_normal())
    past, value = np.array(series[:-1])[:, None], np.array(series[1:])
    X, y = denoising(past, value, sigma=0.4)
    assert X.shape == (150, 2) and y.shape == (150,)
    problem = Problem(X, y, 12.0, architecture=TwoLayer(bias="free", skip="free"))
    solution = solve(problem)
    assert solution.certificate.scope == "all patterns, exact"
    true = -(X[:, 1] - 0.7 * X[:, 0]) / (0.25 + 0.16)
    fitted = solution.network()(X).detach().numpy()
    assert np.mean((fitted - true) ** 2) < 0.1 * np.mean(true**2)
    assert denoising(past, value, 0.1, copies=3)[0].shape == (450, 2)
    with pytest.raises(BadInput, match=r"\(n, k\)"):
        denoising(value, value, 0.1)


def test_refusals():
    for wrong, said in (([[1.0]], r"\(n,\)"), ([1.0, 1.0], "two values"), ([1.0, np.nan], "NaN")):
        with pytest.raises(BadInput, match=said):
            ScoreMatching(wrong, 3.0)
    with pytest.raises(BadInput, match="skip"):
        ScoreMatching([0.0, 1.0], 3.0, skip="yes")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadInput, match="slopes"):
        ScoreMatching([0.0, 1.0], 3.0).ramps("half")
