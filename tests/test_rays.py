"""Constructive paths and pruning of any architecture, through points of its convex program."""

from __future__ import annotations

import numpy as np
import pytest

from landscape import connect, prune, solve, train
from landscape.architectures import DeepNarrow, GatedReLU, TwoLayer
from landscape.errors import BadInput
from landscape.network import Network
from landscape.sparsity.blocks import reductions
from landscape.theory import instance

KINDS = [DeepNarrow(3), DeepNarrow(3, "abs"), GatedReLU(), TwoLayer("free")]
LABELS = [kind.label for kind in KINDS]


def balanced(problem, network):
    architecture = problem.architecture
    lowered = architecture.lower(architecture.lift(problem, architecture.read(network)))
    return Network(architecture, lowered)


@pytest.fixture(scope="module", params=KINDS, ids=LABELS)
def trained(request):
    problem = instance(request.param, 3, n=10)
    runs = train(problem, 20, [0, 1], steps=200, learning_rate=0.02)
    return problem, [balanced(problem, network) for network in runs.networks]


def test_constructive_paths_do_not_rise_above_their_ends(trained):
    problem, (a, b) = trained
    optimum = solve(problem, tolerance=1e-9).network()
    for method in ("level", "valley"):
        path = connect(problem, a, b, method, optimum=optimum)
        assert path.ends == pytest.approx((problem.objective(a), problem.objective(b)), rel=1e-9)
        assert path.barrier <= 1e-10
        assert path.objectives(33)[1].max() <= path.upper
    down = connect(problem, a, optimum, "monotone")
    values = down.objectives(33)[1]
    assert down.rise <= 1e-10
    assert np.diff(values).max() <= 1e-10
    assert values[-1] == pytest.approx(problem.objective(optimum), rel=1e-9)


def test_pieces_keep_the_fit_while_they_prune_and_end_independent(trained):
    problem, (a, _) = trained
    architecture = problem.architecture
    point = architecture.lift(problem, architecture.read(a))
    F, sizes = point.features, point.program.gauge.value(point.theta)
    fit = F.sum(axis=1) + point.program.free @ point.constant
    before, used = sizes.sum(), len(sizes)
    for shares, constant in reductions(point):
        np.testing.assert_allclose(F @ shares + point.program.free @ constant, fit, atol=1e-9)
        assert sizes @ shares <= before * (1 + 1e-12)
        assert (shares > 0).sum() < used
        before, used = sizes @ shares, int((shares > 0).sum())
    left = np.hstack([F[:, shares > 0], point.program.free])
    assert np.linalg.matrix_rank(left) == left.shape[1] <= len(problem.y)


def test_pruned_networks_are_not_higher(trained):
    problem, (a, _) = trained
    minimal = prune(problem, a)
    assert problem.objective(minimal) <= problem.objective(a) * (1 + 1e-10)
    assert len(minimal.values["output"]) <= len(problem.y)


def test_what_is_only_proved_for_plain_networks_is_refused():
    problem = instance(DeepNarrow(3), 3, n=8)
    a, b = train(problem, 4, [0, 1], steps=20).networks
    with pytest.raises(BadInput, match="for every architecture are monotone"):
        connect(problem, a, b, "straight")
    with pytest.raises(BadInput, match="balance it first"):
        connect(problem, a, b, "level")
    low, high = solve(problem).network(), balanced(problem, a)
    with pytest.raises(BadInput, match="above the start's"):
        connect(problem, low, high, "monotone")
