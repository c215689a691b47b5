"""Mixers and Fourier mixing: what is particular to them, and the sentences they are tried on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from landscape import Problem, data, sentences, solve
from landscape.architectures import FourierMixing, Mixer
from landscape.architectures.tokens import TokenHeads
from landscape.bounds import EXACT, beta_max
from landscape.errors import BadInput
from landscape.pricing.heads import ReLUHeads
from landscape.theory import adversary


def gaussian(
    architecture: TokenHeads, n: int = 6, d: int = 6, c: int = 2, seed: int = 0
) -> Problem:
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal((n, c))
    problem = Problem(X, y, 1.0, architecture=architecture)
    return problem.replace(beta=0.05 * beta_max(problem))


def test_convolutions_over_tokens_multiply_their_transforms():
    """A head that puts out its one score at every token is a product in frequency."""
    problem = gaussian(FourierMixing(3, pooling="none"), c=3)
    rng = np.random.default_rng(1)
    W = rng.standard_normal((3, 2))
    network = {
        "hidden": torch.as_tensor(W[None]),
        "output": torch.ones(1, 1, 1, dtype=torch.float64),
    }
    out = problem.architecture.forward(network, torch.as_tensor(problem.X)).numpy()
    x, w = (np.fft.fft(part, axis=-2) for part in (problem.X.reshape(-1, 3, 2), W))
    wanted = np.fft.ifft((x * w.conj()).sum(-1), axis=-1)
    np.testing.assert_allclose(wanted.imag, 0.0, atol=1e-14)
    np.testing.assert_allclose(out.reshape(-1, 3), wanted.real, atol=1e-14)


def test_shifting_tokens_changes_no_pooled_convolution():
    rng = np.random.default_rng(2)
    for activation in ("linear", "relu"):
        problem = gaussian(FourierMixing(3, activation=activation))
        batch = problem.architecture.initial(problem, 4, [0])
        X = rng.standard_normal((5, 3, 2))
        one, other = (torch.as_tensor(np.roll(X, k, axis=1).reshape(5, 6)) for k in (0, 1))
        out = [problem.architecture.forward(batch, rows) for rows in (one, other)]
        torch.testing.assert_close(*out)


def test_pooled_relu_mixers_do_best_with_equal_rows():
    """Prices over R^s are those over R^(s×s): climbs in the large space find no more."""
    rng = np.random.default_rng(3)
    for seed in range(2):
        problem = gaussian(Mixer(3, activation="relu"), seed=seed)
        own = problem.architecture
        small = own.oracle(problem, 2000)
        large = ReLUHeads(
            lambda problem=problem, own=own: TokenHeads.rows(own, problem),
            lambda w: w.reshape(-1, 3, 3),
            own.reach(problem),
            (2, 2),
            2000,
        )
        nu = rng.standard_normal(len(problem.y))
        here, there = small(nu), large(nu)
        assert there.attained <= here.attained * (1 + 1e-9)
        assert here.attained <= here.bound
        found = adversary(problem, nu, 16)
        assert 0.99 * here.attained <= found <= here.bound
        unit = {k: v[:1] for k, v in here.units.items()}
        assert np.ptp(unit["first"][0], axis=0).max() <= 1e-15
        column = own.program(problem, unit).atoms.values[:, 0]
        assert abs(nu @ column) == pytest.approx(here.attained)


def test_a_linear_head_under_the_mean_sees_the_mean_token():
    problem = gaussian(FourierMixing(3))
    tokens = problem.X.reshape(-1, 3, 2).mean(axis=1)
    alone = Problem(tokens, problem.y.reshape(6, 2), 1.0, architecture=FourierMixing(1))
    # Three equal copies of the mean: weights are shared among them, √3 times cheaper.
    alone = alone.replace(beta=problem.beta / 3**0.5)
    assert solve(problem).objective == pytest.approx(solve(alone).objective, rel=1e-7)


def test_more_gates_never_fit_worse():
    """Gates of one seed are nested where few are a part of many."""
    many = gaussian(Mixer(3, activation="gated", gate_count=4))
    few = replace(many.architecture, gate_count=2)
    shared = few.drawn(2), many.architecture.drawn(2)[:2]
    torch.testing.assert_close(*shared)
    best = [solve(many.replace(architecture=one)).objective for one in (few, many.architecture)]
    assert best[1] <= best[0] * (1 + 1e-9)


def test_relu_heads_stand_above_every_gated_bound_of_their_own_gates():
    """A ReLU head is a gated one whose gate is its own: gates drawn apart are another program."""
    problem = gaussian(Mixer(3, activation="relu"))
    own = problem.architecture
    batch = own.initial(problem, 5, [0])
    W = {k: v[0] for k, v in batch.items()}
    X = torch.as_tensor(problem.X)
    S = own.scores(W["hidden"], own.sequences(X), False)
    gated = ((S >= 0) * S).mean(-2, keepdim=True) @ W["output"][:, None]
    torch.testing.assert_close(own.forward(W, X), gated.flatten(-3).sum(0))


def test_digits_as_rows_of_pixels():
    sample = data.load("digits", n=60, side=8, classes=[3, 8], standardize=False)
    problem = Problem(sample.X, sample.y, 1.0, architecture=Mixer(8, 8))
    solution = solve(problem)
    assert solution.certificate.scope == EXACT
    assert solution.certificate.relative_gap <= 1e-7
    assert solution.active >= 2
    outputs = solution.network()(sample.X_test).detach().numpy()
    assert np.mean(np.sign(outputs) != sample.y_test) <= 0.1


def test_sentences_agree_or_do_not():
    rng = np.random.default_rng(0)
    for _ in range(200):
        words, label = sentences.sentence(rng)
        kinds = [kind for kind, _, _ in words]
        subject, other = (i for i, kind in enumerate(kinds) if kind == "noun")
        assert subject < kinds.index("preposition") < other < kinds.index("verb")
        assert (words[-1][2] != words[subject][2]) == (label > 0)
        assert 6 <= len(words) <= sentences.TOKENS
    assert sentences.text([("noun", "key", True), ("verb", "shine", False)]) == "keys shine"


def test_sentences_are_data():
    sample = data.load("agreement", n=50, seed=3)
    assert sample.X.shape == (50, 64)
    assert sample.task == "binary"
    assert sample.X_test.shape == (1000, 64)
    assert abs(sample.y_test.mean()) < 0.1
    again = data.load("agreement", n=50, seed=3)
    np.testing.assert_array_equal(sample.X, again.X)
    linear = np.linalg.lstsq(sample.X, sample.y, rcond=None)[0]
    assert np.mean(np.sign(sample.X_test @ linear) != sample.y_test) > 0.4  # chance is 0.5
    with pytest.raises(BadInput, match="at most 64"):
        data.load("agreement", d=65)
