"""Inner steps of the solvers against their definitions: cones, scalings, faces, rows, roots."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from landscape import arrangements
from landscape.architectures import TwoLayer
from landscape.problem import Problem
from landscape.solvers.blocks import Blocks, rays
from landscape.solvers.kernels import _root
from landscape.solvers.manifold import Manifold
from landscape.solvers.norm_cones import ScaledNorm, factored, longest_step

RNG = np.random.default_rng


def inside(G, p, beta, seed):
    """Points strictly inside the cones ‖z‖ ≤ t and their duals ‖w‖ ≤ β."""
    rng = RNG([seed, G, p])
    z, w = rng.standard_normal((G, p)), rng.standard_normal((G, p))
    t = np.linalg.norm(z, axis=1) * rng.uniform(1.01, 3.0, G)
    w *= beta * rng.uniform(0.1, 0.99, (G, 1)) / np.linalg.norm(w, axis=1, keepdims=True)
    return (torch.as_tensor(v) for v in (z, t, w))


def jordan(a0, a1, b0, b1):
    """The product of the cone's algebra: (aᵀb, a₀ b₁ + b₀ a₁)."""
    return a0 * b0 + (a1 * b1).sum(1), a0[:, None] * b1 + b0[:, None] * a1


@pytest.mark.parametrize(("G", "p"), [(1, 1), (3, 1), (4, 3)])
@pytest.mark.parametrize("beta", [1.0, 0.05])
def test_the_scaling_brings_primal_and_dual_points_together(G, p, beta):
    """W λ-dual = W⁻¹ primal, W its own inverse's inverse, and division undoes multiplication."""
    z, t, w = inside(G, p, beta, 0)
    scaled, rng = ScaledNorm(z, t, w, beta), RNG(1)
    once = scaled.unscale(t, z)
    for own, other in zip(once, (scaled.l0, scaled.l1), strict=True):
        torch.testing.assert_close(own, other)
    assert (scaled.l0 > scaled.l1.norm(dim=1)).all()
    v0, v = torch.as_tensor(rng.standard_normal(G)), torch.as_tensor(rng.standard_normal((G, p)))
    for first, second in ((scaled.scale, scaled.unscale), (scaled.unscale, scaled.scale)):
        back = second(*first(v0, v))
        torch.testing.assert_close(back[0], v0)
        torch.testing.assert_close(back[1], v)
    u = scaled.divide(*jordan(scaled.l0, scaled.l1, v0, v))
    torch.testing.assert_close(u[0], v0)
    torch.testing.assert_close(u[1], v)
    # λ ∘ λ = (tβ + zᵀw, …): the gap of the pair.
    product = jordan(scaled.l0, scaled.l1, scaled.l0, scaled.l1)[0]
    torch.testing.assert_close(product, t * beta + (z * w).sum(1))


@pytest.mark.parametrize("p", [1, 3])
def test_the_reduced_matrix_is_the_inverse_squared_scaling_without_t(p):
    """The Schur complement of its first row and column, written out entry by entry."""
    z, t, w = inside(2, p, 0.7, 3)
    scaled = ScaledNorm(z, t, w, 0.7)
    columns = []
    for k in range(p + 1):
        e0, e = torch.zeros(2, dtype=z.dtype), torch.zeros(2, p, dtype=z.dtype)
        if k:
            e[:, k - 1] = 1.0
        else:
            e0[:] = 1.0
        columns.append(torch.cat([part.reshape(2, -1) for part in scaled.unscale(
            *scaled.unscale(e0, e))], dim=1))  # fmt: skip
    whole = torch.stack(columns, dim=2)
    v = torch.as_tensor(RNG(4).standard_normal((2, p)))
    for g in range(2):
        M = whole[g]
        schur = M[1:, 1:] - M[1:, :1] @ M[:1, 1:] / M[0, 0]
        torch.testing.assert_close(scaled.reduced(v)[g], schur @ v[g])


def test_correctors_solve_the_linearised_complementarity():
    """λ ∘ (λ∖d) = d, d = μe − λ∘λ − (W⁻¹Δx) ∘ (WΔy)."""
    z, t, w = inside(3, 2, 0.5, 5)
    scaled, rng = ScaledNorm(z, t, w, 0.5), RNG(6)
    dt, dz, dw = (torch.as_tensor(rng.standard_normal(s)) for s in (3, (3, 2), (3, 2)))
    u0, u1 = scaled.corrected(0.3, dt, dz, dw)
    d0, d1 = jordan(scaled.l0, scaled.l1, u0, u1)
    own = jordan(scaled.l0, scaled.l1, scaled.l0, scaled.l1)
    cross = jordan(*scaled.unscale(dt, dz), *scaled.scale(torch.zeros_like(dt), dw))
    torch.testing.assert_close(d0, 0.3 - own[0] - cross[0])
    torch.testing.assert_close(d1, -own[1] - cross[1])


@pytest.mark.parametrize("seed", range(30))
def test_the_longest_step_ends_on_the_cone(seed):
    """Inside until then, outside beyond; infinite where the direction is in the cone."""
    rng = RNG(seed)
    G, p = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    z, t, _ = inside(G, p, 1.0, seed)
    dz = torch.as_tensor(rng.standard_normal((G, p)))
    dt = torch.as_tensor(rng.standard_normal(G))
    if seed % 3 == 0:
        dt = dz.norm(dim=1) * 1.01
    alpha = longest_step(t, z, dt, dz)

    def room(a):
        return float((t + a * dt - (z + a * dz).norm(dim=1)).min())

    if np.isinf(alpha):
        assert all(room(a) > 0 for a in np.geomspace(1e-3, 1e6, 40))
        return
    assert seed % 3 != 0
    assert room(alpha) == pytest.approx(0.0, abs=1e-9)
    assert all(room(a * alpha) > 0 for a in np.linspace(0, 0.999, 20))
    assert room(1.001 * alpha) < 0


def test_nearly_singular_matrices_are_raised_and_hopeless_ones_reported():
    good = torch.eye(2, dtype=torch.float64).repeat(2, 1, 1)
    flat = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    H = torch.stack([good[0], flat])
    factor, fine = factored(H.clone())
    assert fine
    torch.testing.assert_close(factor @ factor.mT, H, atol=1e-9, rtol=0)
    assert not factored(torch.stack([good[0], -good[1]]))[1]


@pytest.mark.parametrize("power", [1, 3, 9])
@pytest.mark.parametrize("zero", [0.01, 0.4, 0.93])
def test_roots_of_rising_slopes_are_found_to_a_tenth_of_the_descent(power, zero):
    def slope(s):
        return (s / zero) ** power - 1.0

    found = _root(slope, 1.0)
    assert abs(slope(found)) <= 0.1 or found == 1.0
    if slope(1.0) > 0.1:
        assert found == pytest.approx(brentq(slope, 0.0, 1.0), rel=0.11)
    assert _root(lambda s: -1.0, 1.0) == 1.0


ROWS = {
    "generic": (RNG(7).standard_normal((4, 2)), 4),
    "collinear": (np.array([[1.0, 2.0], [-2.0, -4.0], [0.5, 1.0], [1.0, 0.0]]), 2),
    "zero rows": (np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), 1),
    "one number": (np.array([[2.0], [-3.0], [0.0]]), 1),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_hyperplane_has_one_row_of_length_one(name):
    X, count = ROWS[name]
    unit, first = rays(X)
    assert len(unit) == len(first) == count
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0)
    np.testing.assert_allclose(unit * np.linalg.norm(X[first], axis=1, keepdims=True), X[first])
    cosines = np.abs(unit @ unit.T) - np.eye(count)
    assert cosines.max(initial=0.0) < 1 - 1e-9
    for row in X[X.any(axis=1)]:
        assert np.abs(unit @ row).max() == pytest.approx(np.linalg.norm(row))


@pytest.mark.parametrize("bias", ["none", "free"])
def test_blocks_are_the_program_in_other_units(bias):
    """Fits, slacks, multipliers and values go there and back; X of size 50, y of size 1000."""
    rng = RNG(8)
    X, y = 50.0 * rng.standard_normal((7, 2)), 1000.0 * rng.standard_normal(7)
    problem = Problem(X, y, 3.0, architecture=TwoLayer(bias))
    program = problem.architecture.program(problem, arrangements.enumerate(problem.design)[:6])
    blocks = Blocks(program)
    G, p = program.atoms.size, program.atoms.dimension
    theta, constant = rng.standard_normal((G, p)), rng.standard_normal(program.free.shape[1])
    scaled, c = blocks.scaled(theta), blocks.scaled_free(constant)
    np.testing.assert_allclose(blocks.original(scaled), theta)
    np.testing.assert_allclose(blocks.original_free(c), constant)
    fit = blocks.y_scale * (blocks.apply(scaled) + blocks.free @ c).numpy()
    np.testing.assert_allclose(fit, program.fit(theta, constant), rtol=1e-10, atol=1e-9)
    norms = scaled[:, : blocks.penalised].norm(dim=1).sum()
    value = blocks.loss.value(blocks.apply(scaled) + blocks.free @ c, blocks.y)
    whole = blocks.value_scale * float(value + blocks.beta * norms)
    assert whole == pytest.approx(program.value(theta, constant))
    nu = torch.as_tensor(rng.standard_normal(7))
    pairing = float((blocks.adjoint(nu) * scaled).sum())
    assert pairing == pytest.approx(float(nu @ blocks.apply(scaled)))
    slack = blocks.slack(scaled)
    mu = torch.as_tensor(rng.random(slack.shape))
    pulled = float((blocks.slack_adjoint(mu) * scaled).sum())
    assert pulled == pytest.approx(float((mu * slack).sum()))
    for g in range(G):
        rows = program.cones.rows(g)[blocks.rows] @ theta[g]
        np.testing.assert_array_equal(np.sign(rows), np.sign(slack[g].numpy()))
    # Multipliers weigh the program's own rows as they weighed the scaled ones.
    lam = blocks.multipliers(mu)
    for g in range(G):
        own = lam[g] @ program.cones.rows(g) @ theta[g]
        assert own == pytest.approx(blocks.value_scale * float((mu[g] * slack[g]).sum()))


def test_bases_of_faces_are_what_the_binding_rows_leave():
    rng = RNG(9)
    problem = Problem(rng.standard_normal((5, 3)), rng.standard_normal(5), 0.5)
    program = problem.architecture.program(problem, arrangements.enumerate(problem.design)[:4])
    blocks = Blocks(program)
    active = torch.tensor([0, 2, 5])
    binding = torch.zeros(3, 5, dtype=torch.bool)
    binding[1, 3], binding[2, [0, 4]] = True, True
    faces = Manifold(blocks, active, binding)
    for k, free in enumerate((3, 2, 1)):
        N = faces.bases[k]
        assert int(torch.linalg.matrix_rank(N)) == free
        torch.testing.assert_close(N @ N.T @ N, N)  # orthonormal columns, others zero
        assert (blocks.cone[binding[k]] @ N).abs().max().item() <= 1e-12 if free < 3 else True
    v = torch.as_tensor(rng.standard_normal((3, 3)))
    projected = faces.project(v)
    torch.testing.assert_close(faces.project(projected), projected)
    torch.testing.assert_close(projected[0], v[0])
    z = torch.as_tensor(rng.standard_normal((3, 3)))
    whole = torch.zeros(blocks.size, 3, dtype=torch.float64)
    whole[active] = z
    torch.testing.assert_close(faces.apply(z), blocks.apply(whole))
    nu = torch.as_tensor(rng.standard_normal(5))
    torch.testing.assert_close(faces.adjoint(nu), blocks.adjoint(nu)[active])
    # Slopes are the derivative of the value, by central differences.
    c = torch.zeros(0, dtype=torch.float64)
    value, fit = faces.value(z, c)
    assert value == pytest.approx(
        float(blocks.loss.value(fit, blocks.y) + blocks.beta * z.norm(dim=1).sum())
    )
    slope, _ = faces.slopes(z, fit)
    step = torch.as_tensor(rng.standard_normal((3, 3)))
    ahead, behind = (faces.value(z + s * step, c)[0] for s in (1e-5, -1e-5))
    assert float((slope * step).sum()) == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)
    faces.keep(torch.tensor([True, False, True]))
    torch.testing.assert_close(
        faces.apply(z[[0, 2]]), blocks.apply(whole.index_fill(0, active[1], 0.0))
    )
