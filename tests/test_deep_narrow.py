"""Deep narrow networks: dictionaries against lists, closed forms and continuous adversaries."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from landscape import Problem, beta_max, certify, losses, solve, solve_path, train
from landscape.architectures import DeepNarrow
from landscape.arrangements import mirrors
from landscape.bounds import AllPatterns
from landscape.dictionary import Columns, Lasso
from landscape.errors import BadInput
from landscape.solvers import reference
from landscape.theory import adversary, exactness, instance

CLOSED = np.array([0.0, 4, 5, 7, 10, 11]), np.array([0.0, 0, 0, 2, 3, 3])
MIDPOINT = np.array([0.0, 5, 6, 11]), np.array([0.472, -1.775, 1.684, -0.381])


def problem_of(x, y, beta, depth, activation="relu", loss="squared"):
    return Problem(
        np.asarray(x)[:, None], y, beta, loss=loss, architecture=DeepNarrow(depth, activation)
    )


def data(seed, n=7):
    """Random inputs; every third set on whole numbers, where kinks coincide."""
    rng = np.random.default_rng(seed)
    x = rng.choice(np.arange(-9.0, 10), n, replace=False) if seed % 3 == 0 else rng.normal(size=n)
    return x, rng.standard_normal(n)


# --- the dictionaries of the papers, listed ---


def relu_features(x, depth, reflections=True):
    """f_{l+1} = (s (f_l − f_l(a_l)))_+ over all signs and samples a_l; at L = 4 also a_1 = R."""
    first = list(x)
    if depth == 4 and reflections:
        first += [2 * b - a for a in x for b in x]
    found = [((s, a),) for s in (1, -1) for a in first]
    for _ in range(depth - 2):
        found = [(*one, (s, a)) for one in found for s in (1, -1) for a in x]

    columns = []
    for one in found:
        # The anchors travel through the layers beside the samples.
        values = np.concatenate([x, [a for _, a in one]])
        for level, (s, _) in enumerate(one):
            values = np.maximum(s * (values - values[len(x) + level]), 0)
        columns.append(values[: len(x)])
    return np.array(columns).T


def abs_features(x, midpoints=True):
    """||x − a_1| − |a_2 − a_1||, a_2 a sample and a_1 a sample, or the middle of two."""
    columns = [np.abs(np.abs(x - a) - abs(b - a)) for a in x for b in x]
    columns += [np.abs(x - a) for a in x]
    if midpoints:
        for a, b in combinations(x, 2):
            columns.append(np.abs(np.abs(x - (a + b) / 2) - abs(a - b) / 2))
    return np.array(columns).T


def abs_vertices(x):
    """Every |||x − a| − c| − d| of which three kinks are samples, or c, d, c − d are zero."""
    kinks = [(1, 0, 0), (1, -1, 0), (1, 1, 0), (1, -1, -1), (1, -1, 1), (1, 1, -1), (1, 1, 1)]
    lines = [(k, at) for k in kinks for at in x] + [
        (k, 0.0) for k in ((0, 1, 0), (0, 0, 1), (0, 1, -1))
    ]
    rows, right = (np.array(part, dtype=float) for part in zip(*lines, strict=True))
    triples = np.array(list(combinations(range(len(rows)), 3)))
    regular = np.abs(np.linalg.det(rows[triples])) > 0.5
    points = np.linalg.solve(rows[triples[regular]], right[triples[regular]][..., None])[..., 0]
    points = points[(points[:, 1:] >= 0).all(axis=1)]
    return mirrors.nested(x, np.unique(points.round(9), axis=0))


def listed_optimum(problem, columns):
    """The Lasso over a list of columns, by cvxpy and Clarabel."""
    columns = np.unique(columns.round(12), axis=1)
    columns = columns[:, np.ptp(columns, axis=0) > 1e-9]
    units = {"place": np.arange(columns.shape[1])}
    atoms = Columns(columns, units, problem.architecture.reach(problem))
    free = np.ones((len(problem.y), 1))
    program = Lasso.of(problem.loss, problem.y, problem.beta, atoms, free)
    return reference.solve_primal(program).value, reference.solve_dual(program)[0]


LISTS = {
    (2, "relu"): lambda x: relu_features(x, 2),
    (3, "relu"): lambda x: relu_features(x, 3),
    (4, "relu"): lambda x: relu_features(x, 4),
    (2, "abs"): lambda x: np.abs(x[:, None] - x),
    (3, "abs"): abs_features,
    (4, "abs"): abs_vertices,
}
KINDS = list(LISTS)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_optima_equal_the_listed_dictionaries_and_the_mapped_networks(kind, seed):
    size = 6 if kind[0] == 4 else 7
    x, y = data(seed, size)
    problem = problem_of(x, y, 1.0, *kind)
    problem = problem.replace(beta=0.08 * beta_max(problem))
    solution = solve(problem, tolerance=1e-9)
    assert solution.certificate.scope == "all patterns, exact"
    assert float(problem.objective(solution.network())) == pytest.approx(solution.objective)
    if kind[0] == 4 and seed >= 3:
        return  # long lists
    primal, dual = listed_optimum(problem, LISTS[kind](x))
    assert solution.objective == pytest.approx(primal, rel=1e-6)
    assert solution.objective == pytest.approx(dual, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_beyond_three_layers_a_relu_gains_nothing(seed):
    x, y = data(seed, 12)
    optima = [
        solve(problem_of(x, y, 0.1, depth), tolerance=1e-9).objective for depth in (3, 4, 5, 6)
    ]
    assert np.ptp(optima) <= 1e-9 * optima[0]
    assert optima[0] <= solve(problem_of(x, y, 0.1, 2)).objective
    mirrored = solve(problem_of(x, y, 0.1, 2, "abs"), tolerance=1e-9).objective
    assert mirrored <= optima[0] * (1 + 1e-9)


def test_absolute_values_need_midpoints_and_reflections():
    x, y = MIDPOINT
    problem = problem_of(x, y, 3.505, 3, "abs")
    without = listed_optimum(problem, abs_features(x, midpoints=False))[0]
    assert without == pytest.approx(3.177213, abs=1e-6)
    solution = solve(problem, tolerance=1e-9)
    assert solution.objective == pytest.approx(3.168668, abs=1e-6)
    assert solution.active == 1
    centre = -solution.patterns["biases"][0, 0]
    assert centre in (
        (0 + 5) / 2,
        (0 + 11) / 2,
        (5 + 6) / 2,
        (6 + 11) / 2,
        (0 + 6) / 2,
        (5 + 11) / 2,
    )
    # Reflections: an input at which no sample lies bends the function at the optimum.
    x, y = np.array([0.0, 1.0, 3.0, 7.0]), np.array([0.0, 1.0, -1.0, 3.0])
    problem = problem_of(x, y, 0.05, 3, "abs")
    kinks = np.array([a + b * c for a, c in -solve(problem).patterns["biases"] for b in (-1, 0, 1)])
    inside = kinks[(kinks > 0) & (kinks < 7)]
    assert (np.abs(inside[:, None] - x).min(axis=1) > 1e-6).any()


# --- closed forms ---


@pytest.mark.parametrize(("depth", "norm"), [(2, 2.0), (3, 1.0), (4, 1.0), (5, 1.0)])
def test_minimum_norms_of_the_interpolators(depth, norm):
    x, y = CLOSED
    # p*(β) = β·norm − O(β²): the quotient at two values of β extrapolates to the norm.
    far, near = (
        solve(problem_of(x, y, b, depth), tolerance=1e-9).objective / b for b in (2e-6, 1e-6)
    )
    assert 2 * near - far == pytest.approx(norm, abs=1e-8)


def test_the_feature_with_a_reflected_breakpoint_is_one_of_many_optima():
    """ramp(5, 8), 8 = R(0, 4), has norm 1, and so has 2/3 ramp(5, 7) + 1/3 ramp(5, 10)."""
    x, y = CLOSED

    def ramp(low, high):
        return np.maximum(x - low, 0) - np.maximum(x - high, 0)

    np.testing.assert_allclose(ramp(5, 8), y, atol=1e-15)
    np.testing.assert_allclose(2 / 3 * ramp(5, 7) + 1 / 3 * ramp(5, 10), y, atol=1e-15)
    for depth in (3, 4):
        architecture, units = DeepNarrow(depth), {"signs": np.ones((1, depth - 1))}
        units["signs"][0, :2], units["biases"] = -1.0, np.zeros((1, depth - 1))
        units["biases"][0, :2] = 8.0, 3.0  # (3 − (8 − x)_+)_+
        network = architecture.scaled(units, np.ones(1))
        gaps = []
        for beta in (1e-5, 1e-6):
            problem = problem_of(x, y, beta, depth)
            dual = solve(problem, tolerance=1e-9).dual
            certificate = certify(problem, network, dual=dual)
            assert certificate.primal == pytest.approx(beta, rel=1e-12)  # it interpolates
            gaps.append(certificate.relative_gap)
        assert gaps[1] == pytest.approx(gaps[0] / 10, rel=1e-3)  # optimal as β falls to zero


def test_largest_beta_is_the_price_of_the_centred_targets():
    x, y = data(1, 9)
    centred = y - y.mean()
    for kind, features in LISTS.items():
        if kind[0] < 4:
            largest = np.abs(centred @ features(x)).max()
            assert beta_max(problem_of(x, y, 1.0, *kind)) == pytest.approx(largest, rel=1e-12)
            above = solve(problem_of(x, y, largest * (1 + 1e-9), *kind))
            assert above.active == 0 and above.objective == pytest.approx(0.5 * centred @ centred)
            assert solve(problem_of(x, y, largest * (1 - 1e-3), *kind)).active >= 1


# --- prices ---


@pytest.mark.parametrize("kind", [*KINDS, (5, "relu"), (5, "abs"), (6, "abs")], ids=str)
def test_no_continuous_unit_prices_above_the_oracle(kind):
    """Thousands of units with random kinks; the best of them climb on."""
    depth, activation = kind
    rng = np.random.default_rng(depth)
    for seed in range(3):
        x, _ = data(seed, 9)
        problem = problem_of(x, x, 1.0, *kind)
        oracle = AllPatterns(problem, 100_000)
        for _ in range(4):
            nu = rng.standard_normal(len(x)) * (rng.random(len(x)) < 0.8)
            nu -= nu.mean()
            bound, priced = oracle.priced(nu)
            shape = (2000, depth - 1)
            units = {
                "signs": rng.choice([-1.0, 1.0], shape),
                "biases": np.ptp(x) * rng.standard_normal(shape) * rng.random(shape),
            }
            columns = problem.architecture.program(problem, units).atoms
            prices = np.abs(columns.adjoint(nu)[:, 0])
            assert prices.max() <= bound.ratio * (1 + 1e-12)
            own = problem.architecture.program(problem, priced.units).atoms.adjoint(nu)
            if priced.exact:
                assert np.abs(own).max() == pytest.approx(bound.ratio, rel=1e-10)
            best = np.argsort(-prices)[:8]
            if activation == "abs":
                start = np.abs(units["biases"][best]) * np.where(np.arange(depth - 1) > 0, 1, -1)
                raised = mirrors.climb(mirrors.Line(x, nu), start, rounds=3).largest
                assert raised <= bound.ratio * (1 + 1e-12)
    assert adversary(problem, nu, 16, steps=40) <= bound.ratio * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(16))
def test_prices_of_three_nested_absolute_values_equal_those_of_all_vertices(seed):
    rng = np.random.default_rng(seed)
    x, y = data(seed, int(rng.integers(2, 7)))
    nu = rng.standard_normal(len(x)) * (rng.random(len(x)) < 0.9)
    nu -= nu.mean()
    if seed % 2:  # where all units of three layers price alike, those of four have to differ
        x, y = data(seed, 7)
        problem = problem_of(x, y, 1.0, 3, "abs")
        nu = solve(problem.replace(beta=0.15 * beta_max(problem))).dual
    line = mirrors.Line(x, nu)
    found = mirrors.three(line, 5)
    assert found.largest == pytest.approx(np.abs(nu @ abs_vertices(x)).max(), rel=1e-8, abs=1e-12)
    np.testing.assert_allclose(
        np.abs(nu @ mirrors.nested(x, found.parameters)), found.prices, atol=1e-12
    )
    assert found.largest <= line.wiggle(7) <= line.wiggle(100)
    variation = np.abs(np.cumsum(line.nu)[:-1]) @ np.diff(line.x)
    assert line.wiggle(100) == pytest.approx(variation, rel=1e-12)


def test_functions_of_few_bends_price_below_their_bound():
    rng = np.random.default_rng(0)
    x, _ = data(1, 8)
    nu = rng.standard_normal(8)
    nu -= nu.mean()
    line = mirrors.Line(x, nu)
    gaps = np.diff(np.sort(x))
    for kinks in range(4):
        every = [s for s in product([1, -1], repeat=7) if np.count_nonzero(np.diff(s)) <= kinks]
        values = np.concatenate(
            [np.zeros((len(every), 1)), np.cumsum(np.array(every) * gaps, axis=1)], axis=1
        )
        best = (values @ line.nu).max()
        assert line.wiggle(kinks) == pytest.approx(best, rel=1e-12)


def test_deeper_absolute_values_are_bounded_by_a_relaxation():
    x, y = data(2, 10)
    three, four = (solve(problem_of(x, y, 0.1, depth, "abs")) for depth in (3, 4))
    deep = solve(problem_of(x, y, 0.1, 5, "abs"), throw=False)
    assert deep.certificate.scope == "all patterns, relaxed"
    assert deep.certificate.dual <= deep.objective <= four.objective * (1 + 1e-9)
    assert four.objective <= three.objective * (1 + 1e-9)
    # Where four layers have too many vertices for the effort, the bound is relaxed as well.
    short = solve(problem_of(x, y, 0.1, 4, "abs"), limit=0, throw=False).certificate
    assert short.scope == "all patterns, relaxed" and short.dual <= four.objective


# --- invariances, training, other losses ---


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_shifts_scales_reflections_and_orders_of_inputs(kind):
    x, y = data(4, 8)
    value = solve(problem_of(x, y, 0.2, *kind), tolerance=1e-9).objective
    order = np.random.default_rng(0).permutation(len(x))
    for inputs, targets, beta in (
        (x + 1000, y, 0.2),
        (-x, y, 0.2),
        (x[order], y[order], 0.2),
        (8 * x, y, 1.6),  # a unit's output grows with x, and so may its price
        (x, y + 5, 0.2),
        (x, -y, 0.2),
    ):
        found = solve(problem_of(inputs, targets, beta, *kind), tolerance=1e-9).objective
        assert found == pytest.approx(value, rel=1e-8)


def test_repeated_inputs_count_as_one_with_their_mean():
    x, y = data(1, 6)
    both = np.concatenate([x, x]), np.concatenate([y + 1, y - 1])
    for kind in ((3, "relu"), (3, "abs")):
        once = solve(problem_of(x, y, 0.1, *kind), tolerance=1e-9).objective
        twice = solve(problem_of(*both, 0.2, *kind), tolerance=1e-9).objective
        assert twice == pytest.approx(2 * once + 6.0, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_networks_of_any_depth_are_rebuilt_with_balanced_layers(kind):
    x, y = data(5, 8)
    problem = problem_of(x, y, 0.1, *kind)
    solution = solve(problem)
    values = solution.network().values
    weights = values["hidden"][..., 0].detach().abs().numpy()
    np.testing.assert_allclose(
        weights, values["output"].detach().abs().numpy()[:, None] + 0 * weights
    )
    assert float(problem.architecture.penalty(values).detach()) == pytest.approx(
        float(np.abs(solution.point.theta).sum())
    )
    new = np.linspace(-12, 12, 41)[:, None]  # also between samples it is the sum of its units
    units = problem.architecture.program(
        Problem(new, new[:, 0], 1.0, architecture=problem.architecture), solution.patterns
    )
    np.testing.assert_allclose(
        solution.network()(new).detach().numpy(),
        units.fit(solution.point.theta, solution.point.constant),
        atol=1e-9,
    )


@pytest.mark.parametrize("kind", [(3, "relu")], ids=str)
def test_training_comes_close_to_the_optimum_and_stays_above_the_bound(kind):
    problem = instance(DeepNarrow(*kind), 1)
    found = exactness(problem, width=24, seeds=range(2), steps=300, starts=8, draws=1)
    assert found.scope == "all patterns, exact" and found.gap <= 1e-9
    assert max(found.primal, found.dual, found.mapped) <= 1e-6
    assert found.below == 0.0 and found.adversary <= 1 + 1e-9 and found.duality == 0.0
    assert found.raised <= 1e-12 and found.active >= 3 and found.signs == 2
    assert found.trained <= 0.05


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_optima_are_stationary_along_every_weight_and_bias_and_others_are_not(kind):
    x, y = data(5, 8)
    problem = problem_of(x, y, 0.1, *kind)
    solution = solve(problem, tolerance=1e-9)
    found = solution.certificate
    assert max(found.stationarity, found.wrong_ties, found.balance) <= 1e-9
    values = {k: v.detach().clone() for k, v in solution.network().values.items()}
    values["hidden"][0, 0, 1] += 0.1  # a kink moves off its sample: sizes and balance stay
    moved = certify(problem, values)
    assert moved.balance <= 1e-9 and moved.wrong_ties > 1e-3
    # The rate is a difference quotient's: no single bias lowers the objective at the optimum.
    best = float(problem.objective(solution.network()))
    for way in (1e-6, -1e-6):
        for layer in range(kind[0] - 1):
            other = {k: v.detach().clone() for k, v in solution.network().values.items()}
            other["hidden"][0, layer, 1] += way
            assert float(problem.objective(other)) >= best * (1 - 1e-12)


@pytest.mark.parametrize("loss", ["logistic", "huber"])
def test_other_losses_are_certified(loss):
    x, y = data(2, 16)
    y = np.sign(y) if loss == "logistic" else y
    for kind in ((2, "relu"), (3, "relu"), (3, "abs")):
        problem = problem_of(x, y, 1.0, *kind, loss=loss)
        solution = solve(problem.replace(beta=0.02 * beta_max(problem)))
        assert solution.certificate.relative_gap <= 1e-7
        assert solution.problem.loss.name == losses.get(loss).name


def test_paths_fall_with_beta():
    x, y = data(1, 30)
    path = solve_path(problem_of(x, y, 1.0, 3), 6)
    assert (np.diff([one.objective for one in path]) < 0).all()
    assert path[0].active <= 1 < path[-1].active
    assert all(one.certificate.relative_gap <= 1e-7 for one in path)


def test_shapes_and_words_are_checked():
    with pytest.raises(BadInput, match="one input"):
        Problem(np.zeros((3, 2)), np.zeros(3), 0.1, architecture=DeepNarrow(3))
    with pytest.raises(BadInput, match="depth is 1"):
        DeepNarrow(1)
    with pytest.raises(BadInput, match="Did you mean 'relu'"):
        DeepNarrow(3, "rellu")
    runs = train(problem_of(*data(1), 0.1, 3), 4, [0], "adam", 5)
    assert certify(problem_of(*data(1), 0.1, 3), runs[0]).dual <= runs.objectives[0]
