"""The exercises of chapter 13."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpt2_book.exercises.checking import Mistake, call, exercise, same


@exercise("least-gap")
def least_gap(answer: Any) -> str:
    """Exercise 13.2: the gap that invalid samples imply at least."""
    for share, n_tokens in ((0.795, 131.0), (0.5, 7.0), (0.02, 53.0)):
        bound = -math.log(share) / n_tokens
        mistakes = [
            Mistake(
                "that is nats per story; the gap is in nats per token",
                -math.log(share),
            ),
            Mistake(
                "your bound is negative: so is the logarithm of a share below "
                "1, and it needs a minus",
                -bound,
            ),
            Mistake(
                "that is in bits; use the natural logarithm for nats",
                -math.log2(share) / n_tokens,
            ),
            Mistake(
                "`share` is the share of samples that are stories, not of "
                "those that are none",
                -math.log(1 - share) / n_tokens,
            ),
            Mistake(
                "1 - share is close to -ln(share) when few samples are wrong, "
                "but too small when many are",
                (1 - share) / n_tokens,
            ),
            Mistake(
                "take the logarithm first, then divide it by the tokens; you "
                "take the logarithm of a share per token",
                -math.log(share / n_tokens),
            ),
        ]
        got = call(answer, share, n_tokens)
        what = f"the bound for share={share}, tokens_per_story={n_tokens:g}"
        same(got, bound, what, mistakes)
    got = call(answer, 1.0, 131.0)
    same(got, 0.0, "the bound when every sample is a story")
    return "three shares agree; without invalid samples the bound is 0"


@exercise("word-perplexity")
def word_perplexity(answer: Any) -> str:
    """Exercise 13.3: from a perplexity per token to one per word."""
    for perplexity, n_tokens, n_words in (
        (1.5, 131, 97),
        (20.0, 1300, 1000),
        (3.0, 50, 70),
    ):
        ratio = n_tokens / n_words
        mistakes = [
            Mistake(
                "perplexities do not add up, so you cannot multiply one by "
                "tokens per word; multiply its logarithm",
                perplexity * ratio,
            ),
            Mistake(
                "tokens and words are swapped: a text of more tokens than "
                "words has more surprise per word",
                perplexity ** (1 / ratio),
            ),
            Mistake(
                "that is the loss per word in nats; the perplexity is its "
                "exponential",
                math.log(perplexity) * ratio,
            ),
            Mistake(
                "you raise 2 to a number of nats; logarithm and power need "
                "the same base",
                2 ** (math.log(perplexity) * ratio),
            ),
            Mistake(
                "you divide the perplexity by tokens per word",
                perplexity / ratio,
            ),
        ]
        got = call(answer, perplexity, n_tokens, n_words)
        what = (
            f"the perplexity per word for {perplexity} per token, "
            f"{n_tokens} tokens and {n_words} words"
        )
        same(got, perplexity**ratio, what, mistakes)
    return "three texts agree, one of them with fewer tokens than words"


# For each question, the log-probability of each ending, and the endings.
QUESTIONS: tuple[tuple[list[float], list[str]], ...] = (
    ([-4.0, -6.0], [" no", " of course"]),
    ([-9.0, -5.0, -7.0], [" she laughed a lot", " no", " he did so"]),
    ([-2.0, -2.2, -9.0], [" aaaa", " \u00e9\u00e9\u00e9\u00e9", " b"]),
    ([-3.0, -4.0], [" yes it is", " no"]),
    ([-6.0, -5.0, -30.0], [" twelve long", " a b c d", " e"]),
)


@exercise("per-byte-choice")
def per_byte_choice(answer: Any) -> str:
    """Exercise 13.4: the ending with the most log-probability per byte."""
    mistakes = [
        Mistake(
            "you count characters, and some have more than one byte",
            _choices(len),
        ),
        Mistake(
            "you compare the sums, so short endings win",
            _choices(lambda text: 1),
        ),
        Mistake("you count words", _choices(lambda text: len(text.split()))),
        Mistake(
            "you take the least probable: log-probabilities are negative, and "
            "the largest is the closest to 0",
            _choices(lambda text: -len(text.encode())),
        ),
    ]
    got = [call(answer, list(sums), list(ends)) for sums, ends in QUESTIONS]
    right = _choices(lambda text: len(text.encode()))
    same(got, right, "the choices in five questions", mistakes)
    return "five questions agree, one with letters of two bytes"


def _choices(length: Callable[[str], int]) -> list[int]:
    """Return the best ending of each question, by this measure of length."""
    choices = []
    for sums, endings in QUESTIONS:
        pairs = zip(sums, endings, strict=True)
        means = [total / length(ending) for total, ending in pairs]
        choices.append(means.index(max(means)))
    return choices
