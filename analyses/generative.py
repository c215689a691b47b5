"""Generative models beside their certified optima: scores, Wasserstein GANs, densities of bits.

*Scores.*  Two-layer networks learn the score of a Gaussian mixture from samples alone: optimal
ones with a bound in exact arithmetic, and trained ones.  The first figure shows scores, errors
against β (the least β is 1; from the dotted line on the band around the empirical distribution
holds the true one with probability 95 %), objectives under each convention for φ'(0) at kinks, the
dual string in its tube, Langevin chains beside the density that has the learned score, and next
values of a real series drawn by a certified denoising score: they come with the noise of σ, and
spread wider than the series.  Gradients do not see that s' jumps where a kink crosses a sample, so
nothing in them moves kinks for the sake of s': training stops short however long it is.  At small β
the optimum overfits: it puts kinks beside samples for the sake of s' alone.

*Games.*  Saddle points in closed form for linear, quadratic and ReLU discriminators, and samples
that match piecewise means in the plane (between an upper and a relaxed lower bound), beside
gradients with lookahead from several seeds: at the saddle point the price of the best neuron over β
and the energy over the game's value are both 1.  Gradients end infeasible: `trained` is their
energy and `price_trained` what the best neuron prices their samples at, over β (medians over
seeds).  Where that is above 1, an energy below `bound` contradicts nothing.  `pooled` and
`price_pooled` are those of the generators of the second half of training, mixed.

*Densities.*  Digits of 4×4 bits (each pixel of pooled 8×8 digits against its median), one program a
pixel on its four neighbours before: held-out likelihood against β beside independent pixels and
logistic regressions on the same neighbours, the gap of trained networks, real and drawn digits.
As the regressions choose C, β is chosen without held-out digits: by the likelihood of the last
quarter of the training digits (`validated`, networks trained on the others, β in proportion).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from analyses import _generative_figures, sweep
from landscape import data, generative, solve
from landscape.architectures import TwoLayer
from landscape.generative import Autoregressive, Game, Mixture, ScoreMatching
from landscape.problem import Problem
from landscape.solvers import generation, restricted
from landscape.training import batched

VERSIONS = {
    "generative": 2,
    "rooms": generative.VERSION,
    "train": batched.VERSION,
    "generation": generation.VERSION,
    "restricted": restricted.VERSION,
}
SUMMARY = (
    "study", "what", "n", "d", "beta", "objective", "bound", "scope", "gap", "active",
    "price_over_beta", "trained", "price_trained", "pooled", "price_pooled", "error",
    "error_trained", "validated", "likelihood", "bernoulli", "logistic", "seconds",
)  # fmt: skip
MIXTURE = Mixture((0.4, 0.6), (-1.5, 1.0), (0.5, 0.7))
GRID = np.linspace(-4.0, 4.0, 401)


def cell(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Compute one score, game or density, with one β."""
    return STUDIES[cfg.study](cfg)


def _score(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Learn the score of the mixture, by the program and by training."""
    problem = ScoreMatching(MIXTURE.sample(cfg.n, cfg.draw), cfg.beta, cfg.kind)
    began = time.perf_counter()
    score = problem.solve()
    bound, seconds = score.bound, time.perf_counter() - began
    single = {slopes: problem.solve(slopes).value for slopes in ("zero", "one")}
    network = score.network()
    parameters, trace = problem.train(cfg.width, range(cfg.seeds), cfg.steps)
    weight = MIXTURE.density(GRID) / MIXTURE.density(GRID).sum()

    def learned(x: np.ndarray) -> np.ndarray:
        return network(x[:, None]).detach().numpy()

    def error(values: np.ndarray) -> np.ndarray:
        return (weight * (values - MIXTURE.score(GRID)) ** 2).sum(-1)

    trained = problem.architecture.forward(parameters, torch.as_tensor(GRID[:, None]))
    row = {
        "study": "score",
        "what": cfg.kind,
        **_size(cfg.n, 1, cfg.beta),
        "objective": score.objective,
        "bound": bound,
        "scope": "all kinks, exact",
        "gap": score.gap,
        "active": score.active,
        "trained": float(trace.min()),
        "error": float(error(learned(GRID))),
        "error_trained": float(np.median(error(trained.detach().numpy()))),
        "seconds": seconds,
        **{f"only_{slopes}": value for slopes, value in single.items()},
    }
    start = np.random.default_rng(1).choice(problem.x, size=cfg.chains)
    arrays = {
        "score": learned(GRID),
        "trained": trained.detach().numpy(),
        "samples": generative.langevin(learned, start, 0.02, cfg.langevin, seed=2),
        "x": problem.x,
        "nu": score.nu,
    }
    return row, arrays


def _lags(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Learn the score of the next value of a real series by denoising; draw next values."""
    sample = data.load("nino", lags=1, n=cfg.n)
    X, y = generative.denoising(sample.X, sample.y, cfg.sigma, seed=cfg.draw)
    problem = Problem(X, y, cfg.beta, architecture=TwoLayer(bias="free", skip="free"))
    began = time.perf_counter()
    solution = solve(problem, throw=False, tolerance=1e-6, limit=cfg.solver.cones)
    seconds = time.perf_counter() - began
    network, past = solution.network(), np.repeat(np.linspace(-2, 2.5, 10), cfg.chains // 10)

    def score(x: np.ndarray) -> np.ndarray:
        return network(np.stack([past, x], axis=1)).detach().numpy()

    drawn = generative.langevin(score, past.copy(), 0.3 * cfg.sigma**2, cfg.langevin, seed=3)
    certificate = solution.certificate
    row = {
        "study": "lags",
        "sigma": cfg.sigma,
        "what": "nino",
        **_size(len(X), 2, cfg.beta),
        "objective": solution.objective,
        "bound": certificate.dual,
        "scope": certificate.scope,
        "gap": certificate.relative_gap,
        "active": solution.active,
        "seconds": seconds,
    }
    return row, {"past": sample.X[:, 0], "value": sample.y, "from": past, "drawn": drawn}


def _game(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Solve a game in closed form and play it by gradients."""
    rng = np.random.default_rng(cfg.draw)
    if cfg.kind == "relu":
        X = MIXTURE.sample(cfg.n, cfg.draw)[:, None]
    else:
        X = rng.standard_normal((cfg.n, 2)) @ np.array([[1.5, 0.6], [0.0, 0.7]]) + [0.6, 0.3]
    game = Game(X, cfg.beta, cfg.kind)
    began = time.perf_counter()
    found = game.solve()
    price, exact = found.price()
    seconds = time.perf_counter() - began
    rate = dict(cfg.rates)[cfg.kind]
    played = generative.alternate(game, range(cfg.seeds), steps=cfg.steps, rate=rate, record=10)
    prices = played.mismatches / cfg.beta
    pooled = [game.energy(samples) for samples in played.pooled]
    price_pooled = [game.mismatch(samples) / cfg.beta for samples in played.pooled]
    row = {
        "study": "game",
        "what": cfg.kind,
        **_size(len(X), X.shape[1], cfg.beta),
        "objective": found.value,
        "bound": found.bound,
        "scope": "all generators",
        "gap": (found.value - found.bound) / found.value,
        "price_over_beta": price / cfg.beta,
        "price_exact": exact,
        "trained": float(np.median(played.energies[-1])),
        "price_trained": float(np.median(prices[-1])),
        "pooled": float(np.median(pooled)),
        "price_pooled": float(np.median(price_pooled)),
        "seconds": seconds,
    }
    arrays = {
        "X": X,
        "generated": found.sample(cfg.n, seed=1),
        "trained": played.samples[-1, 0],
        "steps": played.steps,
        "energies": played.energies / found.value,
        "prices": prices,
        "clip": found.directions.reshape(-1)[:2],
    }
    return row, arrays


def _pieces(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Match piecewise means of a ring in the plane."""
    rng = np.random.default_rng(cfg.draw)
    angles = rng.uniform(0, 2 * np.pi, cfg.n)
    X = np.stack([1.6 * np.cos(angles), np.sin(angles)], 1) + 0.08 * rng.standard_normal((cfg.n, 2))
    began = time.perf_counter()
    found = generative.match_pieces(Game(X, cfg.beta))
    row = {
        "study": "pieces",
        "what": "relu",
        **_size(len(X), X.shape[1], cfg.beta),
        "objective": found.value,
        "bound": found.bound,
        "scope": "all generators, relaxed",
        "gap": (found.value - found.bound) / found.value,
        "price_over_beta": found.price / cfg.beta,
        "price_exact": found.exact,
        "seconds": time.perf_counter() - began,
    }
    return row, {"X": X, "generated": found.generated}


def _density(cfg: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fit the bits of small digits, one certified program a pixel."""
    X, held = _bits(cfg.n, cfg.draw, cfg.side)
    problem = Autoregressive(X, cfg.beta, generative.above_left(cfg.side, cfg.side))
    began = time.perf_counter()
    density = problem.solve(throw=False, limit=cfg.solver.cones)
    seconds = time.perf_counter() - began
    runs = problem.train(cfg.width, range(cfg.seeds), steps=cfg.steps, learning_rate=0.03)
    first = len(X) * 3 // 4
    part = Autoregressive(X[:first], cfg.beta * first / len(X), problem.parents)
    tried = part.train(cfg.width, range(cfg.seeds), steps=cfg.steps, learning_rate=0.03)
    objectives = np.array([run.objective for run in runs])
    row = {
        "study": "density",
        "what": "digits",
        **_size(len(X), X.shape[1], cfg.beta),
        "objective": density.objective,
        "bound": density.bound,
        "scope": "all patterns, " + ("exact" if density.exact else "relaxed"),
        "gap": (density.objective - density.bound) / density.objective,
        "active": density.active,
        "trained": float(objectives.min()),
        "validated": float(np.mean([r.log_likelihood(X[first:]).mean() for r in tried])),
        "likelihood": float(density.log_likelihood(held).mean()),
        "likelihood_trained": float(np.mean([r.log_likelihood(held).mean() for r in runs])),
        "bernoulli": float(generative.bernoulli(X)(held).mean()),
        "logistic": _logistic(problem, X, held),
        "seconds": seconds,
    }
    shown = {"real": held[:48], "drawn": density.sample(48, seed=5)}
    return row, {**shown, "trained_gaps": 1 - density.bound / objectives}


def _bits(n: int, draw: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return digits as side × side bits: n of them to learn from, the others held out."""
    sample = data.load("digits", classes="all", standardize=False, drop_constant=False, seed=draw)
    images = np.vstack([sample.X, sample.X_test])
    parts = images.reshape(-1, side, 8 // side, side, 8 // side)
    pooled = parts.mean((2, 4)).reshape(-1, side**2)
    order = np.random.default_rng(draw).permutation(len(pooled))
    learned, held = pooled[order[:n]], pooled[order[n:]]
    middle = np.median(learned, axis=0)
    return np.where(learned > middle, 1.0, -1.0), np.where(held > middle, 1.0, -1.0)


def _logistic(problem: Autoregressive, X: np.ndarray, held: np.ndarray) -> float:
    """Return the held-out likelihood of logistic regressions, their C chosen by validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    total, grid = 0.0, {"C": [0.03, 0.3, 3.0]}
    for k in range(X.shape[1]):
        inputs, new = problem.inputs(X, k), problem.inputs(held, k)
        one = GridSearchCV(LogisticRegression(), grid, scoring="neg_log_loss", cv=3)
        one.fit(inputs, X[:, k])
        total -= float(np.logaddexp(0.0, -held[:, k] * one.decision_function(new)).mean())
    return total


def _size(n: int, d: int, beta: float) -> dict[str, Any]:
    return {"n": n, "d": d, "beta": beta}


STUDIES = {
    "score": _score,
    "lags": _lags,
    "game": _game,
    "pieces": _pieces,
    "density": _density,
}


def render(table: Any, store: Any, cfg: Any) -> dict[str, Any]:
    """Draw a figure for each family of models."""
    families = {
        "generative": ("score", "lags"),
        "generative_wgan": ("game", "pieces"),
        "generative_autoregressive": ("density",),
    }
    drawn = {}
    for label, studies in families.items():
        part = table[table["study"].isin(studies)]
        if len(part):
            drawn[label] = _generative_figures.DRAWN[label](part, store, MIXTURE)
    return drawn


if __name__ == "__main__":
    sweep.main(__file__)
