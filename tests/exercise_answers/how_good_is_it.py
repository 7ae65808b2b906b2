"""Right and wrong answers to the exercises of chapter 13."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Answers = tuple[object, dict[str, object]]


def best(
    length: Callable[[str], float], pick: Callable[[list[float]], float] = max
) -> Callable[[Sequence[float], Sequence[str]], int]:
    """Answer exercise 13.4 with this measure of length."""

    def choose(sums: Sequence[float], endings: Sequence[str]) -> int:
        means = [
            total / length(ending)
            for total, ending in zip(sums, endings, strict=True)
        ]
        return means.index(pick(means))

    return choose


ANSWERS: dict[str, Answers] = {
    "least-gap": (
        lambda share, n: -math.log(share) / n,
        {
            "per story": lambda share, n: -math.log(share),
            "needs a minus": lambda share, n: math.log(share) / n,
            "in bits": lambda share, n: -math.log2(share) / n,
            "not of those that are none": lambda share, n: (
                -math.log(1 - share) / n
            ),
            "too small when many are": lambda share, n: (1 - share) / n,
            "a share per token": lambda share, n: -math.log(share / n),
        },
    ),
    "word-perplexity": (
        lambda perplexity, n_tokens, n_words: math.exp(
            math.log(perplexity) * n_tokens / n_words
        ),
        {
            "do not add up": lambda p, n_tokens, n_words: (
                p * n_tokens / n_words
            ),
            "are swapped": lambda p, n_tokens, n_words: (
                p ** (n_words / n_tokens)
            ),
            "the loss per word": lambda p, n_tokens, n_words: (
                math.log(p) * n_tokens / n_words
            ),
            "the same base": lambda p, n_tokens, n_words: (
                2 ** (math.log(p) * n_tokens / n_words)
            ),
            "divide the perplexity": lambda p, n_tokens, n_words: (
                p * n_words / n_tokens
            ),
        },
    ),
    "per-byte-choice": (
        best(lambda ending: len(ending.encode())),
        {
            "the least probable": best(
                lambda ending: len(ending.encode()), min
            ),
            "characters": best(len),
            "short endings win": best(lambda ending: 1),
            "count words": best(lambda ending: len(ending.split())),
            "raises": lambda sums: 0,
        },
    ),
}
