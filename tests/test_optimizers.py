"""Pieces of optimisers against dense formulas: L-BFGS, its line search, Muon's iteration."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.training.optimizers import _muon, _two_loop, lbfgs, orthogonalised


def inverse_hessian(pairs, size):
    """Return the dense BFGS approximation of pairs, those that were accepted only."""
    pairs = [(s, y) for s, y, accepted in pairs if accepted]
    if not pairs:
        return np.eye(size)
    s, y = pairs[-1]
    H = (s @ y) / (y @ y) * np.eye(size)
    for s, y in pairs:
        V = np.eye(size) - np.outer(y, s) / (s @ y)
        H = V.T @ H @ V + np.outer(s, s) / (s @ y)
    return H


@pytest.mark.parametrize("count", [0, 1, 3, 6])
@pytest.mark.parametrize("size", [1, 4])
def test_two_loops_apply_the_dense_inverse_row_by_row(count, size):
    """Each row has its own pairs; those that it did not accept are as good as not there."""
    rng, rows = np.random.default_rng(count), 3
    root = rng.standard_normal((rows, size, size))
    s = rng.standard_normal((count, rows, size))
    y = np.einsum("rij,rkj,crk->cri", root, root, s) + s
    accepted = rng.random((count, rows)) < 0.7
    accepted[:, 0] = False  # a row without any pair descends along its gradient
    gradient = rng.standard_normal((rows, size))
    inverse = np.where(accepted, 1.0 / (s * y).sum(axis=2), 0.0)
    pairs = [tuple(map(torch.as_tensor, one)) for one in zip(s, y, inverse, strict=True)]
    before = torch.as_tensor(gradient).clone()
    found = _two_loop(before, pairs)
    assert torch.equal(before, torch.as_tensor(gradient))
    for r in range(rows):
        own = [(s[c, r], y[c, r], accepted[c, r]) for c in range(count)]
        theirs = inverse_hessian(own, size) @ gradient[r]
        np.testing.assert_allclose(found[r], theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("memory", [1, 3, 20])
def test_a_batch_of_quadratic_functions_is_minimised_row_by_row(memory):
    rng = np.random.default_rng(0)
    root = torch.as_tensor(rng.standard_normal((4, 5, 5)))
    A = root @ root.mT + 0.5 * torch.eye(5, dtype=torch.float64)
    b = torch.as_tensor(rng.standard_normal((4, 5)))
    asked, seen = [], []

    def objective(points, rows):
        asked.append(len(rows))
        image = (A[rows] @ points[..., None])[..., 0]
        return (points * (0.5 * image - b[rows])).sum(1), image - b[rows]

    steps = 80
    found = lbfgs(
        objective, torch.zeros(4, 5).double(), steps,
        lambda step, points, values: seen.append((step, values.clone())), memory,
    )  # fmt: skip
    exact = torch.linalg.solve(A, b)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-3 if memory == 1 else 1e-5)
    values = torch.stack([v for _, v in seen])
    assert (values[1:] <= values[:-1]).all()  # Armijo: no step goes up
    numbers = [step for step, _ in seen]
    assert numbers[0] == 0 and numbers[-1] == steps and numbers[:-1] == list(range(len(seen) - 1))
    assert asked[0] == 4 and max(asked) == 4 and min(asked) >= 1


def test_a_row_at_a_kink_stays_and_the_others_go_on():
    """Of |x| at a point where its slope is said to be 1 no step is accepted."""

    def objective(points, rows):
        kinked = (rows == 0)[:, None]
        values = torch.where(kinked, points.abs(), (points - 3.0) ** 2).sum(1)
        slopes = torch.where(kinked, torch.ones_like(points), 2 * (points - 3.0))
        return values, slopes

    found = lbfgs(objective, torch.tensor([[0.0], [0.0]]).double(), 30, lambda *_: None)
    assert found[0].item() == 0.0 and found[1].item() == pytest.approx(3.0, abs=1e-6)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 6), (2, 3, 5)])
@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_newton_schulz_acts_on_singular_values_alone(shape, size):
    """Five times 3.4445 σ − 4.775 σ³ + 2.0315 σ⁵ from σ over the Frobenius norm, U and V kept."""
    matrix = size * np.random.default_rng(0).standard_normal(shape)
    U, sizes, V = np.linalg.svd(matrix, full_matrices=False)
    sizes = sizes / np.linalg.norm(sizes, axis=-1, keepdims=True)
    for _ in range(5):
        sizes = 3.4445 * sizes - 4.7750 * sizes**3 + 2.0315 * sizes**5
    found = orthogonalised(torch.as_tensor(matrix))
    np.testing.assert_allclose(found, (U * sizes[..., None, :]) @ V, atol=1e-10)
    assert not orthogonalised(torch.zeros(shape)).any()


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(("m", "d"), [(6, 2), (2, 6)])
def test_muon_steps_by_nesterov_momentum_and_counts_real_neurons(m, d, padding):
    rng = np.random.default_rng(1)
    first = np.vstack([rng.standard_normal((m, d)), np.zeros((padding, d))])
    hidden, output = torch.as_tensor(first[None]), torch.zeros(1, m + padding).double()
    own = hidden.clone()
    step = _muon(["hidden", "output"], [own, output], {"momentum": 0.8})
    velocity, expected = torch.zeros_like(hidden), hidden.clone()
    for rate in (0.1, 0.03):
        gradient = torch.as_tensor(rng.standard_normal((1, m + padding, d)))
        gradient[:, m:] = 0.0
        step([gradient, torch.ones_like(output)], rate)
        velocity = 0.8 * velocity + gradient
        direction = orthogonalised(gradient + 0.8 * velocity)
        expected = expected - rate * max(1.0, m / d) ** 0.5 * direction
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-14)
    assert (output < 0).all()  # Adam's: against a slope of one
