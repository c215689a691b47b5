"""What generative models refuse: one sentence that names the argument, nothing of numpy's own."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from landscape import Problem, generative
from landscape.errors import BadInput, reals
from landscape.generative import (
    Autoregressive,
    Equilibrium,
    Game,
    Mixture,
    ScoreMatching,
    alternate,
    axes_bound,
    bernoulli,
    denoising,
    langevin,
    match_pieces,
)

RNG = np.random.default_rng(0)
X, x, SIGNS = RNG.standard_normal((6, 2)), RNG.standard_normal(9), np.array([[1.0], [-1.0]])
PLANE, MEANS = Game(X, 0.2), Game(X, 0.1, "linear")
SCORE, BITS = ScoreMatching(x, 3.0), Autoregressive(SIGNS, 1.0)
MIXED, ZEROS = Mixture((0.4, 0.6), (-1.5, 1.0), (0.5, 0.7)), np.zeros(3)
LISTED, RAGGED, TEXT = ["relu"], [[1.0, 2.0], [3.0]], [["a", "b"]]


def inward(points):
    return -points


REFUSED = [
    (r"X holds <U1 entries such as a", lambda: Game(TEXT, 0.1)),
    (r"X is no array: its lists have different lengths", lambda: Game(RAGGED, 0.1)),
    (r"X holds complex128", lambda: Game(X * 1j, 0.1)),
    (r"X has shape \(\): it must have two axes", lambda: Game(3.0, 0.1)),
    (r"X is empty", lambda: Game([], 0.1)),
    (r"discriminator \['relu'\]. Did you mean 'relu'", lambda: Game(X, 0.1, LISTED)),
    (r"x holds <U1", lambda: ScoreMatching(["a"], 2.0)),
    (r"x is no array", lambda: ScoreMatching(RAGGED, 2.0)),
    (r"x has shape \(\): it must be \(n,\)", lambda: ScoreMatching(2.0, 2.0)),
    (r"skip \['none'\]", lambda: ScoreMatching(x, 2.0, ["none"])),
    (r"X holds <U1", lambda: Autoregressive([["a"]], 0.1)),
    (r"X is no array", lambda: Autoregressive(RAGGED, 0.1)),
    (r"seeds is 3", lambda: BITS.train(4, 3)),
    (r"an entry of seeds is 'a'", lambda: BITS.train(4, ["a"])),
    (r"seed is -1", lambda: BITS.solve().sample(3, seed=-1)),
    (r"X holds <U1", lambda: BITS.solve().logits([["a"]])),
    (r"X is no array", lambda: bernoulli(RAGGED)),
    (r"Z has shape \(1, 2\): it must be \(n, 1\)", lambda: bernoulli(SIGNS)([[1.0, 1.0]])),
    (r"slopes \['both'\]. Did you mean 'both'", lambda: SCORE.solve(["both"])),
    (r"nu has shape \(3,\): it must be \(9,\)", lambda: SCORE.lower_bound(ZEROS)),
    (r"nu has shape \(\)", lambda: SCORE.lower_bound(np.nan)),
    (r"nu has 9 entries that are NaN", lambda: SCORE.lower_bound(np.nan * x)),
    (r"nu has shape \(3,\)", lambda: SCORE.prices(ZEROS)),
    (r"z has shape \(3,\): it must be \(36,\)", lambda: SCORE.value(ZEROS, [0.0])),
    (r"free has shape \(3,\): it must be \(1,\)", lambda: SCORE.value(np.zeros(36), ZEROS)),
    (r"width is 0", lambda: SCORE.train(0, [0])),
    (r"seeds is empty", lambda: SCORE.train(3, [])),
    (r"seeds is 3: it must be a list", lambda: SCORE.train(3, 3)),
    (r"an entry of seeds is -1", lambda: SCORE.train(3, [-1])),
    (r"steps is -1", lambda: SCORE.train(3, [0], steps=-1)),
    (r"learning_rate is 0", lambda: SCORE.train(3, [0], learning_rate=0.0)),
    (r"G is no array", lambda: PLANE.price(RAGGED)),
    (r"G holds complex128", lambda: PLANE.energy(X * 1j)),
    (r"G holds <U1", lambda: MEANS.mismatch(TEXT)),
    (r"G has a sample of size 1e-60", lambda: PLANE.price([[1e-60, 0.0]])),
    (r"G has a sample of size 1e\+60", lambda: PLANE.price([[1e60, 0.0]])),
    (r"seeds is 3: it must be a list", lambda: alternate(MEANS, 3)),
    (r"an entry of seeds is 'a'", lambda: alternate(MEANS, ["a"])),
    (r"an entry of seeds is -1", lambda: alternate(MEANS, [-1])),
    (r"an entry of seeds is 0.5", lambda: alternate(MEANS, [0.5])),
    (r"seed is -1", lambda: match_pieces(PLANE, seed=-1)),
    (r"seed is -1", lambda: axes_bound(PLANE, seed=-1)),
    (r"x has shape \(3,\): it must be \(N, 2\)", lambda: MEANS.solve().discriminate(ZEROS)),
    (r"x has shape \(3,\)", lambda: Game(x, 0.1).solve().discriminate(ZEROS)),
    (r"x holds <U1", lambda: MEANS.solve().discriminate(TEXT)),
    (r"seed is -1", lambda: MEANS.solve().sample(3, seed=-1)),
    (r"start is empty", lambda: langevin(inward, np.zeros(0), 0.1, 3)),
    (r"start holds <U1", lambda: langevin(inward, ["a"], 0.1, 3)),
    (r"score has shape \(3, 1\)", lambda: langevin(lambda v: v[:, None], ZEROS, 0.1, 3)),
    (r"seed is 'a'", lambda: langevin(inward, ZEROS, 0.1, 3, seed="a")),
    (r"deviations are .*must be positive", lambda: Mixture((0.5, 0.5), (0, 1), (-1, 1))),
    (r"means has shape \(1,\): it must be \(2,\)", lambda: Mixture((0.5, 0.5), (0,), (1, 1))),
    (r"deviations has shape \(1,\)", lambda: Mixture((0.5, 0.5), (0, 1), (1,))),
    (r"weights are .*sum to one", lambda: Mixture((0.5, 0.6), (0, 1), (1, 1))),
    (r"weights are .*at least 0", lambda: Mixture((1.5, -0.5), (0, 1), (1, 1))),
    (r"x has 1 entries that are NaN", lambda: MIXED.score([np.nan])),
    (r"x holds <U1", lambda: MIXED.density(["a"])),
    (r"n is -1", lambda: MIXED.sample(-1)),
    (r"past has 3 entries that are NaN", lambda: denoising(np.full((3, 1), np.nan), ZEROS, 0.1)),
    (r"value has 1 entries", lambda: denoising(np.zeros((3, 1)), [0.0, np.nan, 1.0], 0.1)),
    (r"value is empty", lambda: denoising(np.zeros((0, 1)), np.zeros(0), 0.1)),
]


@pytest.mark.parametrize(("said", "call"), REFUSED)
def test_bad_input_is_refused_by_name(said, call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadInput, match="^(?:Unknown )?" + said):
            call()


def test_what_fits_is_taken():
    """No lags, points of any shape, no points at all, lists and tensors."""
    inputs, targets = denoising(np.zeros((3, 0)), [0.0, 1.0, 2.0], 0.1)
    assert inputs.shape == (3, 1) and targets.shape == (3,)
    assert MIXED.density([[0.0, 1.0]]).shape == (1, 2) == MIXED.score([[0.0, 1.0]]).shape
    assert MEANS.solve().discriminate(np.zeros((0, 2))).shape == (0,)
    assert PLANE.energy(torch.tensor(X, requires_grad=True)) == PLANE.energy(X.tolist())
    assert langevin(inward, 0.0, 0.1, 3).shape == ()
    assert SCORE.train(2, range(2), steps=0)[1].shape == (1, 2)
    assert isinstance(Game(torch.tensor(X), 0.1, "linear").solve(), Equilibrium)
    assert generative.Game(x.tolist(), 0.1).X.shape == (9, 1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (RAGGED, "v is no array"),
        ([10**400, 1], "v holds object entries such as 1000"),
        ([{}], "v holds object"),
        (np.longdouble("1e4000"), "v has 1 entries that are NaN or infinite"),
        (torch.zeros(2, dtype=torch.complex64), "v holds complex64"),
        ([torch.ones(2, requires_grad=True), [1.0]], "v is no array"),
        ([], "v is empty"),
        ([1.0], r"v has shape \(1,\): it must be \(n, 2\)"),
        ([[1.0]], r"v has shape \(1, 1\): it must be \(n, 2\)"),
    ],
)
def test_an_array_holds_finite_real_numbers(values, said):
    shape = ("n", 2) if "shape" in said else None
    with pytest.raises(BadInput, match=said) as refused:
        reals("v", values, shape)
    assert len(str(refused.value)) < 200


def test_an_array_is_copied_and_kept_in_its_shape():
    given = np.arange(6, dtype=np.int32).reshape(3, 2)
    taken = reals("v", given, ("n", 2))
    assert taken.dtype == np.float64 and (taken == given).all()
    own = np.ones(2)
    assert reals("v", own) is not own and not np.shares_memory(reals("v", own), own)
    assert reals("v", [], empty=True).shape == (0,)
    with pytest.raises(BadInput, match="X is no array"):
        Problem(RAGGED, [1.0, 2.0], 0.1)
