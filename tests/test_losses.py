"""Losses against their definitions: suprema, autograd and cvxpy."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from landscape import losses
from landscape.errors import BadInput
from landscape.losses import Hinge, Huber, Logistic, Loss, Squared

LOSSES: list[Loss] = [Squared(), Logistic(), Huber(), Huber(0.3), Hinge()]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=str)


def data(loss: Loss, shape: tuple[int, ...] = (7,), batch: tuple[int, ...] = ()):
    rng = np.random.default_rng(3)
    y = rng.standard_normal(shape)
    return 2.0 * rng.standard_normal((*batch, *shape)), np.sign(y) if loss.classes else y


numbers = st.floats(-30, 30, allow_nan=False)


@each_loss
@settings(max_examples=60, deadline=None)
@given(f=numbers, u=numbers, label=numbers)
def test_fenchel_young(loss, f, u, label):
    y = np.array([(1.0 if label >= 0 else -1.0) if loss.classes else label])
    f = np.array([f])
    value = loss.value(f, y)
    assert value + loss.conjugate(np.array([u]), y) >= f[0] * u - 1e-9
    slope = loss.gradient(f, y)
    assert value + loss.conjugate(slope, y) == pytest.approx(f[0] * slope[0], abs=1e-9)
    assert loss.dual_value(-slope, y) == -loss.conjugate(slope, y)


@each_loss
def test_batches_and_kinds(loss):
    f, y = data(loss, (4, 3), (2, 5))
    for name in ("value", "conjugate", "dual_value", "gradient", "curvature"):
        method = getattr(loss, name)
        whole = method(f, y)
        assert whole.shape == (f.shape if name in ("gradient", "curvature") else (2, 5))
        np.testing.assert_allclose(whole[1, 2], method(f[1, 2], y))
        tensor = method(torch.tensor(f), y)
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_allclose(tensor.numpy(), whole, rtol=1e-14, atol=1e-15)
        assert method(torch.tensor(f, dtype=torch.float32), y).dtype == torch.float32
        assert np.asarray(method(np.ones((4, 3), dtype=int), y)).dtype == np.float64
        np.testing.assert_allclose(method(f, torch.tensor(y)), whole)


@each_loss
def test_derivatives_are_those_of_autograd(loss):
    f, y = data(loss, (9,))
    f[0] = y[0]  # the kink of the hinge, as yf = 1; no residual for the others
    tensor = torch.tensor(f, requires_grad=True)
    target = torch.tensor(y)
    (slope,) = torch.autograd.grad(loss.value(tensor, target), tensor, create_graph=True)
    np.testing.assert_allclose(loss.gradient(f, y), slope.detach(), atol=1e-13)
    if loss.smooth:
        (second,) = torch.autograd.grad(slope.sum(), tensor)
        np.testing.assert_allclose(loss.curvature(f, y), second, atol=1e-13)
    else:
        assert (loss.curvature(f, y) == 0).all()


def test_hinge_at_its_kink():
    y = np.array([1.0, -1.0])
    np.testing.assert_array_equal(Hinge().gradient(y, y), -y / 2)


@each_loss
def test_conjugate_is_the_supremum(loss):
    y = np.array([1.0 if loss.classes else 0.7])
    for u in (-0.95, -0.6, -0.25, 0.2):
        conjugate = float(loss.conjugate(np.array([u]), y))

        def gain(f, u=u):
            return u * f - float(loss.value(np.array([f]), y))

        far = max(gain(-1e6), gain(1e6))
        if np.isinf(conjugate):
            assert far > 1e4
        else:
            best = minimize_scalar(lambda f: -gain(f), bounds=(-20, 20), method="bounded")
            assert conjugate == pytest.approx(-best.fun, abs=2e-5)


@each_loss
def test_conjugate_at_the_edge_of_its_domain(loss):
    if isinstance(loss, Squared):
        return
    edge = loss.delta if isinstance(loss, Huber) else 1.0
    y = np.array([1.0])
    assert np.isfinite(loss.conjugate(np.array([-edge]), y))
    assert loss.conjugate(np.array([-edge * (1 + 1e-15)]), y) == np.inf
    assert loss.dual_value(np.array([edge * (1 + 1e-15)]), y) == -np.inf


def test_logistic_far_out():
    y = np.array([1.0])
    for f in (torch.tensor([-800.0], dtype=torch.float64), np.array([-800.0])):
        assert float(Logistic().value(f, y)) == 800.0
        assert float(Logistic().value(-f, y)) == 0.0
        assert float(Logistic().curvature(f, y)[0]) == 0.0
    near = torch.tensor([25.0], dtype=torch.float64)
    assert float(Logistic().value(near, y)) == pytest.approx(np.log1p(np.exp(-25.0)), rel=1e-12)


@each_loss
def test_cvxpy_expressions(loss):
    f, y = data(loss)
    variable = cvxpy.Variable(7)
    variable.value = f
    expression = loss.expression(variable, y)
    assert expression.is_convex()
    assert expression.value == pytest.approx(float(loss.value(f, y)))
    dual, constraints = loss.dual_expression(variable, y)
    assert dual.is_concave()
    variable.value = -loss.gradient(f, y)
    assert all(constraint.violation().max() < 1e-12 for constraint in constraints)
    assert dual.value == pytest.approx(float(loss.dual_value(variable.value, y)))
    variable.value = np.full(7, 1.5)
    assert any(c.violation().max() > 0 for c in constraints) == bool(
        np.isinf(loss.dual_value(variable.value, y))
    )


@each_loss
def test_strong_duality_of_a_small_regression(loss):
    """Min ℓ(Aθ) + ½‖θ‖² = max −ℓ*(−ν) − ½‖Aᵀν‖²."""
    _, y = data(loss)
    A = np.random.default_rng(5).standard_normal((7, 2))
    theta, nu = cvxpy.Variable(2), cvxpy.Variable(7)
    primal = cvxpy.Problem(
        cvxpy.Minimize(loss.expression(A @ theta, y) + 0.5 * cvxpy.sum_squares(theta))
    )
    value, constraints = loss.dual_expression(nu, y)
    dual = cvxpy.Problem(cvxpy.Maximize(value - 0.5 * cvxpy.sum_squares(A.T @ nu)), constraints)
    assert primal.solve(solver="CLARABEL") == pytest.approx(dual.solve(solver="CLARABEL"), rel=1e-6)


def test_names_and_refusals():
    assert losses.NAMES == ("squared", "logistic", "huber", "hinge")
    assert losses.get("huber") == Huber(1.0)
    assert losses.get(Huber(2.0)).delta == 2.0
    assert not Hinge().smooth
    assert all(losses.get(name).name == name for name in losses.NAMES)
    with pytest.raises(BadInput, match="'logistic'"):
        losses.get("logistik")
    for delta in (0.0, -1.0, float("nan"), "1"):
        with pytest.raises(BadInput, match="delta"):
            Huber(delta)


@each_loss
@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["cat", "dog"], "text"),
        ([1.0, np.nan], "finite"),
        ([1.0, np.inf], "finite"),
        ([], "at least one"),
        ([1j, 2.0], "real"),
        ([None, 1.0], "real numbers"),
    ],
)
def test_labels_that_are_no_numbers_are_refused(loss, labels, sentence):
    with pytest.raises(BadInput, match=sentence):
        loss.check(labels)


@pytest.mark.parametrize("loss", [Logistic(), Hinge()], ids=str)
@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([1, 1, 1], "one class only"),
        ([0, 1, 1], r"numpy\.where\(y == 1, 1\.0, -1\.0\)"),
        ([True, False], "labels 0, 1"),
        ([1, 2, 3], "3 different labels"),
        ([-1.0, 0.0, 1.0], "3 different labels"),
    ],
)
def test_labels_that_are_not_two_signs_are_refused(loss, labels, sentence):
    with pytest.raises(BadInput, match=sentence):
        loss.check(labels)


@each_loss
def test_good_labels_pass_as_float64(loss):
    for labels in ([1, -1], np.array([1, -1], dtype=np.int8), torch.tensor([[1.0], [-1.0]])):
        assert loss.check(labels).dtype == np.float64


@pytest.mark.parametrize("size", [1e-250, 1.0, 1e250])
def test_root_mean_squares_of_any_size(size):
    values = np.array([[3.0, -4.0], [0.0, 1.0]])
    assert losses.rms(size * values) == pytest.approx(size * np.sqrt(26 / 4), rel=1e-14)
    assert losses.rms(-size * np.ones(1)) == pytest.approx(size, rel=1e-15)


def test_where_all_is_zero_or_nothing_is_there_the_unit_is_one():
    for nothing in (np.zeros(3), np.zeros(0), np.zeros((0, 2))):
        assert losses.rms(nothing) == 1.0
    assert Squared().unit([0.0, 0.0]) == 1.0 and Huber().unit([3.0, 4.0]) == np.sqrt(12.5)
    assert Hinge().unit([-1.0, 1.0]) == Logistic().unit([-1.0, 1.0]) == 1.0


@each_loss
@pytest.mark.parametrize("unit", [1e-3, 1.0, 40.0])
def test_a_loss_in_other_units_is_the_same_loss(loss, unit):
    """ℓ(f; y) = unit² ℓ'(f/unit; y/unit): Huber's δ is in the units of y too."""
    if loss.classes:
        unit = 1.0
    f, y = data(loss)
    f[0] = y[0] + 50.0  # a line of Huber's in any case
    other = loss.per_unit(unit)
    assert unit**2 * other.value(f / unit, y / unit) == pytest.approx(loss.value(f, y), rel=1e-12)
    np.testing.assert_allclose(unit * other.gradient(f / unit, y / unit), loss.gradient(f, y))


@each_loss
@pytest.mark.parametrize("value", [1e-4, 0.04, 0.3, 0.8, 5.0, 300.0])
def test_constants_of_a_loss_up_to_a_value_lie_within_its_radius(loss, value):
    """The largest of all such constants, found by bisection, is within it; of one sample at it."""
    _, y = data(loss)
    for labels in (y, y[:1], np.array([1.0, -1.0])):
        radius = loss.constant_radius(value, labels)
        sides = (1.0, -1.0)
        if loss.classes and len(labels) == 1:
            sides = (-labels[0],)  # one class bounds constants on one side only
        for side in sides:
            if loss.value(np.zeros(len(labels)), labels) > value and loss.classes:
                continue

            def paid(c, side=side, labels=labels):
                return float(loss.value(np.full(len(labels), side * c), labels))

            assert paid(radius * (1 + 1e-9) + 1e-9) > value
            if len(labels) == 1 and not loss.classes and side == np.sign(labels[0]):
                assert paid(radius) == pytest.approx(value, rel=1e-9)  # no smaller one is valid


@pytest.mark.parametrize("delta", [0.3, 1.0, 20.0])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.01, 1.3, 2.0])
def test_huber_is_squared_where_no_line_can_be_reached(delta, share):
    """Where zero costs less than ½δ², no network at most as high has a residual beyond δ."""
    for y in (share * delta * np.ones(1), share * delta * np.array([0.6, -0.8])):
        simple = Huber(delta).simplest(y)
        assert simple == (Squared() if share < 1 else Huber(delta))
        f = np.random.default_rng(0).uniform(-3 * delta, 3 * delta, (400, len(y)))
        low = f[Huber(delta).value(f, y) <= Huber(delta).at_zero(y)]
        np.testing.assert_allclose(simple.value(low, y), Huber(delta).value(low, y), rtol=1e-12)
    for loss in (Squared(), Logistic(), Hinge()):
        assert loss.simplest(np.array([1.0, -1.0])) is loss


@each_loss
def test_points_are_brought_to_the_nearest_of_the_domain(loss):
    """The nearest of a fine grid at which the dual value is finite is no nearer."""
    _, y = data(loss)
    y = y[:3]
    grid = np.linspace(-3.0, 3.0, 6001)
    for nu in (np.array([0.05, -0.2, 0.25]), np.array([2.0, -2.5, 0.1]), np.array([-0.4, 1.7, -3])):
        found = loss.into_domain(nu, y)
        assert np.isfinite(loss.dual_value(found, y))
        for k in range(3):
            inside = np.isfinite(loss.dual_value(grid[:, None], y[k : k + 1]))
            assert abs(found[k] - nu[k]) <= np.abs(grid[inside] - nu[k]).min() + 1e-12
        np.testing.assert_array_equal(loss.into_domain(found, y), found)


@each_loss
def test_how_far_a_dual_point_reaches(loss):
    _, y = data(loss)
    nu = loss.into_domain(y * np.random.default_rng(1).uniform(0.01, 0.2, 7), y)
    reach = loss.reach(nu)
    assert loss.reach(np.zeros(7)) == np.inf
    if isinstance(loss, Squared):
        assert reach == np.inf
        return
    assert reach >= 1
    assert np.isfinite(loss.dual_value((1 - 1e-12) * reach * nu, y))
    assert loss.dual_value((1 + 1e-9) * reach * nu, y) == -np.inf


@pytest.mark.parametrize("loss", [Squared(), Huber(), Huber(0.3)], ids=str)
def test_majorants_touch_from_above(loss):
    """A parabola of that curvature through value and slope lies nowhere below the loss.

    It is symmetric about the target, as the loss is, and touches again on the other side: no
    flatter one would do.
    """
    y = np.array([0.7])
    everywhere = np.linspace(-8.0, 8.0, 401)[:, None]
    for f in (-5.0, 0.1, 0.7, 0.95, 1.9, 6.0):
        f = np.array([f])
        value, slope, curve = loss.value(f, y), loss.gradient(f, y), loss.majorant(f, y)
        moved = everywhere - f
        parabola = (value + slope * moved + 0.5 * curve * moved**2)[:, 0]
        assert (parabola >= loss.value(everywhere, y) - 1e-12).all()
        step = 2 * (y - f)
        again = value + slope * step + 0.5 * curve * step**2
        assert again == pytest.approx(loss.value(f + step, y), rel=1e-12, abs=1e-14)


@each_loss
@pytest.mark.parametrize("size", [-1.2, -0.1, 0.1, 0.9, 1.2])
def test_cvxpy_domains_end_where_the_dual_value_does(loss, size):
    """Entries y·size, all on one side of an end: what is feasible is finite, and only that."""
    y = np.array([1.0, -1.0, 1.0])
    variable = cvxpy.Variable(3)
    variable.value = size * getattr(loss, "delta", 1.0) * y
    _, constraints = loss.dual_expression(variable, y)
    inside = all(constraint.violation().max() <= 1e-12 for constraint in constraints)
    assert inside == np.isfinite(loss.dual_value(variable.value, y))
