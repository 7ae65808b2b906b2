"""Checkers of chapter 13, how good is it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpt2_book.exercises.checking import call, exercise, same


@exercise("least-gap")
def least_gap(answer: Any) -> str:
    """Exercise 13.2: the gap that samples which are no stories must cost."""
    for share, n_tokens in ((0.795, 131.0), (0.5, 7.0), (0.02, 53.0)):
        slips = -math.log(share)
        mistakes = {
            "it is per story; the gap is in nats per token": slips,
            "it is negative: the logarithm of a share below 1 is, so it needs "
            "a minus": -slips / n_tokens,
            "it is in bits; a natural logarithm gives nats": (
                -math.log2(share) / n_tokens
            ),
            "`share` is the share that are stories, not of those that are "
            "none": -math.log(1 - share) / n_tokens,
            "1 - share is near -ln(share) while few samples are wrong, and "
            "too small when many are": (1 - share) / n_tokens,
            "the logarithm is per story, so it is divided by the tokens, and "
            "not taken of a share per token": -math.log(share / n_tokens),
        }
        came = call(answer, share, n_tokens)
        what = f"the bound for share={share}, tokens_per_story={n_tokens:g}"
        same(came, slips / n_tokens, what, mistakes)
    came = call(answer, 1.0, 131.0)
    same(came, 0.0, "the bound where every sample is a story")
    return "three shares agree, and without slips there is no bound but 0"


@exercise("word-perplexity")
def word_perplexity(answer: Any) -> str:
    """Exercise 13.3: from a perplexity per token to one per word."""
    for perplexity, n_tokens, n_words in (
        (1.5, 131, 97),
        (20.0, 1300, 1000),
        (3.0, 50, 70),
    ):
        ratio = n_tokens / n_words
        mistakes = {
            "a perplexity is no sum, so it cannot be multiplied by tokens per "
            "word; its logarithm can": perplexity * ratio,
            "tokens and words are exchanged: a text of more tokens than words "
            "has more surprise per word": perplexity ** (1 / ratio),
            "it is the loss per word, in nats; the perplexity is its "
            "exponential": math.log(perplexity) * ratio,
            "2 to the number of nats: logarithm and power need the same "
            "base": 2 ** (math.log(perplexity) * ratio),
            "it is divided by words per token": perplexity / ratio,
        }
        came = call(answer, perplexity, n_tokens, n_words)
        what = (
            f"the perplexity per word for {perplexity} per token, "
            f"{n_tokens} tokens and {n_words} words"
        )
        same(came, perplexity**ratio, what, mistakes)
    return "three texts agree, one with fewer tokens than words among them"


@exercise("per-byte-choice")
def per_byte_choice(answer: Any) -> str:
    """Exercise 13.4: the ending with the most log-probability per byte."""
    tests: tuple[tuple[list[float], list[str]], ...] = (
        ([-4.0, -6.0], [" no", " of course"]),
        ([-9.0, -5.0, -7.0], [" she laughed a lot", " no", " he did so"]),
        ([-2.0, -2.2, -9.0], [" aaaa", " \u00e9\u00e9\u00e9\u00e9", " b"]),
        ([-3.0, -4.0], [" yes it is", " no"]),
        ([-6.0, -5.0, -30.0], [" twelve long", " a b c d", " e"]),
    )
    lengths: dict[str, Callable[[str], int]] = {
        "": lambda text: len(text.encode()),
        "it counts characters, and some have more than one byte": len,
        "it compares sums, so short endings win": lambda text: 1,
        "it counts words": lambda text: len(text.split()),
    }
    choices: dict[str, list[int]] = {
        explanation: [
            _largest([a / length(b) for a, b in zip(*test, strict=True)])
            for test in tests
        ]
        for explanation, length in lengths.items()
    }
    choices[
        "it takes the least probable: log-probabilities are negative, and "
        "the largest is nearest to zero"
    ] = [
        _largest([-a / len(b.encode()) for a, b in zip(*test, strict=True)])
        for test in tests
    ]
    came = [call(answer, list(sums), list(ends)) for sums, ends in tests]
    same(came, choices.pop(""), "the choices in five questions", choices)
    return "five questions agree, one with letters of two bytes"


def _largest(numbers: list[float]) -> int:
    return numbers.index(max(numbers))
