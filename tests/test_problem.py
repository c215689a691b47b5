"""Refusals at the door, each a sentence that names the argument; unit conversions."""

from __future__ import annotations

import numpy as np
import pytest

from landscape import units
from landscape.architectures import TwoLayer
from landscape.errors import BadInput
from landscape.problem import Problem

X, Y = np.arange(6.0).reshape(3, 2), np.array([1.0, -1.0, 1.0])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(X=np.where(X == 2, np.nan, X)), r"X has 1 entries that are NaN.*\(1, 0\)"),
        (dict(y=np.array([1.0, np.inf, 0])), "y has 1 entries that are NaN or infinite"),
        (dict(X=X[:0]), "X is empty"),
        (dict(X=X[:, 0]), r"X has shape \(3,\).*two axes"),
        (dict(y=Y[:2]), "y has 2 entries for the 3 rows"),
        (dict(y=np.array(["a", "b", "a"])), "y holds .* entries such as a"),
        (dict(X=np.array([["a", "b"]] * 3)), "X holds"),
        (dict(y=np.column_stack([Y, Y])), "one output"),
        (dict(beta=0), "beta is 0: it must be positive"),
        (dict(beta=-1.0), "beta is -1"),
        (dict(beta=np.nan), "beta is nan"),
        (dict(beta="big"), "beta is 'big'"),
        (dict(loss="squarred"), "Unknown loss 'squarred'. Did you mean 'squared'"),
        (dict(loss="logistic", y=np.ones(3)), "y"),
        (dict(loss="hinge", y=np.array([0.0, 1.0, 2.0])), "y"),
        (dict(architecture="two_layer_rel"), "Did you mean 'two_layer_relu'"),
        (
            dict(X=np.column_stack([X, np.ones(3)]), architecture=TwoLayer(bias="penalised")),
            r"X has a constant column \(2\)",
        ),
    ],
)
def test_bad_input_is_refused_with_a_sentence(changes, sentence):
    with pytest.raises(BadInput, match=sentence):
        Problem(**{**dict(X=X, y=Y, beta=0.1), **changes})


def test_lists_integers_and_tensors_are_fine():
    import torch

    assert Problem([[1, 2], [3, 4]], [0, 1], beta=1).X.dtype == np.float64
    assert Problem(torch.eye(2), torch.ones(2), beta=1).y.tolist() == [1.0, 1.0]


def test_the_problem_keeps_its_own_copy():
    mine = X.copy()
    problem = Problem(mine, Y, 0.1)
    mine[:] = 0
    assert problem.X[2, 1] == 5.0


@pytest.mark.parametrize("name", sorted(units.CONVENTIONS))
def test_conversions_map_objectives_at_any_point(name):
    """Write each convention down literally and compare with ours through the factors."""
    rng = np.random.default_rng(0)
    n, lam = 7, 0.3
    f, y, norms = rng.standard_normal(n), rng.standard_normal(n), rng.random(4).sum()
    theirs = {
        "landscape": 0.5 * ((f - y) ** 2).sum() + lam * norms,
        "scnn": ((f - y) ** 2).sum() / (2 * n) + lam * norms,
        "no_half": ((f - y) ** 2).sum() + lam * norms,
        "mean": ((f - y) ** 2).mean() + lam * norms,
    }[name]
    factors = units.convention(name, n)
    ours = 0.5 * ((f - y) ** 2).sum() + factors.beta * lam * norms
    assert ours == pytest.approx(factors.objective * theirs, rel=1e-12)
    with pytest.raises(BadInput, match="convention"):
        units.convention("ours", n)
