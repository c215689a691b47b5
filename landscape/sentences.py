r"""Sentences of a small grammar, written for this project, as sequences of vectors.

    [today | often]  the  [adjective]  noun(-s)  preposition  the  noun(-s)  verb(-s)

What decides is whether the verb agrees with its subject, the first noun: *the keys near the cabinet
shine* does (+1), *the keys near the cabinet shines* does not (−1).  The noun in between is there to
mislead, optional words move the others, and no word alone says anything: the label is a product of
two of them, which a linear function of the tokens cannot see and a head of attention can.

A word is the sum of four Gaussian vectors: of its class, of its stem (a tenth as large), of the
suffix -s where it has one, of its position.  They are drawn once from a seed of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.errors import BadInput, whole

TOKENS = 8
"""Words of the longest sentence; shorter ones end in vectors of zeros."""
WORDS: dict[str, tuple[str, ...]] = {
    "adverb": ("today", "often"),
    "article": ("the",),
    "adjective": ("old", "small", "red", "heavy"),
    "noun": ("key", "lamp", "boat", "stone", "letter", "bird", "wheel", "flag"),
    "preposition": ("near", "behind", "above", "beside"),
    "verb": ("shine", "fall", "turn", "move", "float", "wait"),
}
SHARE = 0.1
"""Size of a stem's own vector."""
FRESH = 1000
"""Test sentences."""
EMBEDDED = 2022
"""Seed of the vectors."""
Word = tuple[str, str, bool]


def sentence(rng: np.random.Generator) -> tuple[list[Word], float]:
    """Return the words of a random sentence (class, stem, whether it ends in -s), and its label."""

    def word(kind: str, suffix: bool = False) -> Word:
        return kind, str(rng.choice(WORDS[kind])), suffix

    plural, other, agrees = (bool(rng.integers(2)) for _ in range(3))
    words = [word("adverb")] if rng.integers(2) else []
    words.append(word("article"))
    if rng.integers(2):
        words.append(word("adjective"))
    words += [word("noun", plural), word("preposition"), word("article"), word("noun", other)]
    words.append(word("verb", suffix=plural != agrees))  # of verbs the singular ends in -s
    return words, 1.0 if agrees else -1.0


def text(words: list[Word]) -> str:
    """Return the sentence as it is written."""
    return " ".join(stem + "s" * suffix for _, stem, suffix in words)


def agreement(n: int = 200, d: int = 8, seed: int = 0) -> Any:
    """Return sentences as rows of 8 tokens and ±1 for verbs that agree, β, and test sentences.

    Args:
        n: training sentences.
        d: length of a token's vector; X has 8 d columns.
        seed: of the sentences.

    Raises:
        BadInput: for no sentences or no entries.
    """
    for name, value in (("n", n), ("d", d)):
        whole(name, value)
    if d > 64:
        raise BadInput(f"d is {d}: tokens of this little grammar have at most 64 entries.")
    rng = np.random.default_rng(seed)
    drawn = [sentence(rng) for _ in range(n + FRESH)]
    vectors = _vectors(d)
    X = np.array([_row(words, vectors) for words, _ in drawn])
    y = np.array([label for _, label in drawn])
    return X[:n], y[:n], 0.05 * n**0.5, X[n:], y[n:]


def _vectors(d: int) -> dict[Any, NDArray[np.float64]]:
    """Return the vectors of classes, stems, the suffix and the positions."""
    rng = np.random.default_rng(EMBEDDED)
    names: list[Any] = [*WORDS, *(stem for stems in WORDS.values() for stem in stems), "-s"]
    found = {name: rng.standard_normal(d) / d**0.5 for name in [*names, *range(TOKENS)]}
    for stems in WORDS.values():
        for stem in stems:
            found[stem] = SHARE * found[stem]
    return found


def _row(words: list[Word], vectors: dict[Any, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return one sentence as a row of 8 d numbers."""
    tokens = np.zeros((TOKENS, len(vectors["-s"])))
    for place, (kind, stem, suffix) in enumerate(words):
        tokens[place] = vectors[kind] + vectors[stem] + vectors[place] + suffix * vectors["-s"]
    return tokens.reshape(-1)
