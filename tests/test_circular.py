"""Linear circular convolutions: amplitudes of sinusoids, closed forms, several layers, one ReLU."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
import torch

from landscape import Problem, arrangements, solve, train
from landscape.architectures import Circular
from landscape.architectures.circular import spectrum
from landscape.bounds import EXACT, beta_max
from landscape.errors import BadInput
from landscape.solvers import Solution
from landscape.theory import adversary


def drawn(seed: int, n: int, d: int, architecture: Circular, share: float = 0.05) -> Problem:
    rng = np.random.default_rng(200 + seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    problem = Problem(X, y, 1.0, architecture=architecture)
    return problem.replace(beta=share * beta_max(problem))


@pytest.mark.parametrize("extent", [(1,), (2,), (7,), (8,), (3, 4), (4, 6)])
def test_sinusoids_are_a_basis(extent):
    waves = spectrum(extent)
    N = int(np.prod(extent))
    rows = waves.waves.reshape(-1, N)
    rows = rows[rows.any(axis=1)]
    assert rows.shape == (N, N)
    gram = rows @ rows.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-11 * N)
    assert set(np.round(np.diag(gram) / N, 12)) <= {1.0, 0.5}
    assert waves.waves[waves.single, 1].any() == False  # noqa: E712


@pytest.mark.parametrize("extent", [(6,), (3, 4)])
def test_outputs_are_circular_convolutions(extent):
    own = Circular(layers=3, shape=extent)
    rng = np.random.default_rng(0)
    N = int(np.prod(extent))
    X = rng.standard_normal((4, N))
    problem = Problem(X, np.ones(4), 0.1, architecture=own)
    net = {k: v[0] for k, v in own.initial(problem, 2, [0]).items()}
    z = np.zeros(extent)
    for unit in range(2):
        now = net["output"][unit].numpy().reshape(extent)
        for layer in net["hidden"][unit].numpy():
            after = np.zeros(extent)
            for place in np.ndindex(*extent):
                shifted = np.roll(now, place, axis=tuple(range(len(extent))))
                after += layer.reshape(extent)[place] * shifted
            now = after
        z += now
    np.testing.assert_allclose(own.forward(net, torch.as_tensor(X)), X @ z.ravel(), rtol=1e-12)
    lowered = own.lower(own.lift(problem, net))
    np.testing.assert_allclose(own.filters(lowered).sum(0), z.ravel(), atol=1e-12)
    assert float(own.penalty(lowered)) <= float(own.penalty(net)) * (1 + 1e-14)


@pytest.mark.parametrize("d", [7, 8])
def test_orthogonal_data_threshold_the_spectrum(d):
    """ℓ1 of the unitary transform, all d complex frequencies, written with numpy's transform."""
    rng = np.random.default_rng(d)
    c, y = 1.7, 3 * rng.standard_normal(d)
    X = c * np.linalg.qr(rng.standard_normal((d, d)))[0]
    found = np.abs(np.fft.fft(X.T @ y / c) / np.sqrt(d))
    bar = 1.01 * float(np.median(found))
    beta = bar * c * np.sqrt(d)
    value = np.where(found <= bar, found**2 / 2, bar * found - bar**2 / 2).sum()
    problem = Problem(X, y, beta, architecture=Circular())
    assert (found <= bar).any()
    assert (found > bar).any()
    solution = solve(problem, tolerance=1e-9)
    assert solution.objective == pytest.approx(value, rel=1e-8)
    assert solution.certificate.scope == EXACT
    assert beta_max(problem) == pytest.approx(c * np.sqrt(d) * found.max(), rel=1e-12)


@pytest.mark.parametrize(
    "architecture",
    [Circular(shape=(2, 3)), Circular(layers=3), Circular(layers=4, shape=(3, 2))],
    ids=["image", "three-filters", "four-filters"],
)
def test_training_and_adversaries_reach_the_optimum_and_never_pass_it(architecture):
    problem = drawn(1, 8, 6, architecture)
    solution = solve(problem, tolerance=1e-9)
    assert solution.active >= 3
    runs = train(problem, 8, range(2), "lbfgs", 150)
    assert runs.objectives.min() >= solution.certificate.dual * (1 - 1e-12)
    assert runs.objectives.min() == pytest.approx(solution.objective, rel=1e-6)
    nu = np.random.default_rng(2).standard_normal(len(problem.y))
    largest = beta_max(problem.replace(y=nu))
    assert 0.999 * largest <= adversary(problem, nu, 16) <= largest * (1 + 1e-9)


def test_one_unit_is_enough_for_two_layers_but_not_for_three():
    two = drawn(3, 8, 6, Circular())
    three = two.replace(architecture=Circular(layers=3))
    runs = train(two, 1, range(4), "lbfgs", 400)
    assert runs.objectives.min() == pytest.approx(solve(two).objective, rel=1e-6)
    optimum = solve(three)
    assert optimum.active >= 3
    alone = train(three, 1, range(4), "lbfgs", 400)
    assert alone.objectives.min() > optimum.objective * 1.01


def test_the_count_of_complex_filters_is_too_low_for_three_layers():
    """With pairs at the price of single frequencies the dual would forbid too little."""
    problem = drawn(4, 8, 6, Circular(layers=3))
    wave = np.cos(2 * np.pi * np.arange(6) / 6 + 0.3) + 0.2
    nu = np.linalg.pinv(problem.X.T) @ wave  # a pair prices highest
    spectra = np.abs(np.fft.fft(problem.X.T @ nu))
    complex_count = np.sqrt(6) * spectra.max()  # sup over complex filters of norm one
    single = np.sqrt(6) * spectra[[0, 3]].max()
    pairs = np.sqrt(6) * spectra[[1, 2]].max() / np.sqrt(2)
    assert beta_max(problem.replace(y=nu)) == pytest.approx(max(single, pairs), rel=1e-9)
    assert max(single, pairs) < complex_count * 0.999


def test_a_wrong_constant_shows():
    problem = drawn(5, 8, 6, Circular())
    solution = solve(problem)
    heavier = solve(problem.replace(beta=problem.beta * np.sqrt(2)))
    runs = train(problem, 4, range(2), "lbfgs", 300)
    assert heavier.certificate.dual > runs.objectives.min() * 1.001
    assert runs.objectives.min() == pytest.approx(solution.objective, rel=1e-6)


def test_a_single_relu_behind_circular_filters():
    """Amplitudes of every neuron's z under its cone: f = Σ a (xᵀ(u ⊛ w))_+."""
    rng = np.random.default_rng(7)
    n, d, beta = 5, 3, 0.08
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    waves = spectrum((d,)).waves.reshape(-1, d)[[0, 2, 3]]  # 1, cos, sin
    masks = np.asarray(arrangements.enumerate(X)).astype(float)
    fit, size, inside = 0, 0, []
    for mask in masks:
        for sign in (1, -1):
            theta = cvxpy.Variable(3)
            before = X @ (waves.T @ theta)
            inside.append(cvxpy.multiply(2 * mask - 1, before) >= 0)
            fit = fit + sign * cvxpy.multiply(mask, before)
            size = size + cvxpy.abs(theta[0]) + cvxpy.norm(theta[1:])
    objective = cvxpy.Minimize(0.5 * cvxpy.sum_squares(fit - y) + beta * size)
    optimum = cvxpy.Problem(objective, inside).solve(solver="CLARABEL")
    torch.manual_seed(0)
    leaves = [
        (0.5 * torch.randn(12, 6, k, dtype=torch.float64)).requires_grad_(True) for k in (d, d, 1)
    ]
    rule = torch.optim.Adam(leaves, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(rule, 700)
    inputs, targets = torch.as_tensor(X), torch.as_tensor(y)
    values = torch.zeros(12)
    for _ in range(700):
        rule.zero_grad()
        u, w, a = leaves
        z = torch.fft.irfft(torch.fft.rfft(u) * torch.fft.rfft(w), n=d)
        out = (torch.relu(z @ inputs.T) * a).sum(1)
        norms = sum((leaf.norm(dim=-1) ** 3).sum(1) for leaf in leaves) / 3
        values = 0.5 * ((out - targets) ** 2).sum(1) + beta * norms
        values.sum().backward()
        rule.step()
        schedule.step()
    best = float(values.detach().min())
    assert best >= optimum * (1 - 1e-6)
    assert best <= optimum * 1.002


def test_solutions_are_stored_and_bad_choices_refused(tmp_path):
    problem = drawn(6, 6, 4, Circular())
    solution = solve(problem)
    found = Solution.load(solution.save(tmp_path / "one"), problem)
    assert found.objective == pytest.approx(solution.objective, rel=1e-12)
    assert found.certificate.scope == EXACT
    X, y = np.ones((3, 6)), np.ones(3)
    for options, words in (({"layers": 1}, "layers"), ({"shape": (1, 2, 3)}, "channels")):
        with pytest.raises(BadInput, match=words):
            Circular(**options)
    with pytest.raises(BadInput, match="6 columns"):
        Problem(X, y, 0.1, architecture=Circular(shape=(5,)))
    with pytest.raises(BadInput, match="one output"):
        Problem(X, np.ones((3, 2)), 0.1, architecture=Circular())
    with pytest.raises(BadInput, match="linear"):
        problem.architecture.gates({})
    with pytest.raises(BadInput, match="by name"):
        problem.architecture.program(problem, np.ones((1, 6), dtype=bool))
