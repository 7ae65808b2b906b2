"""Right and wrong answers to the exercises of chapter 13."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Answers = tuple[object, dict[str, object]]
Spans = list[tuple[int, int, int]]


def surprises(logits: Tensor, ids: list[int], dim: int = -1) -> Tensor:
    """Answer the first try, or with the softmax over the wrong axis."""
    came = torch.tensor(ids[1:])[:, None]
    return -logits.log_softmax(dim).gather(-1, came)[:, 0]


def surprises_by_loop(logits: Tensor, ids: list[int]) -> list[float]:
    """Answer the first try with a list of numbers."""
    return [
        -math.log(row.softmax(0)[token])
        for row, token in zip(logits, ids[1:], strict=True)
    ]


def windows(n: int, n_ctx: int, stride: int) -> Spans:
    """Answer the second try."""
    spans, done = [], 1
    for begin in range(0, n, stride):
        stop = min(begin + n_ctx + 1, n)
        if stop > done:
            spans.append((begin, stop, stop - done))
        done = max(done, stop)
    return spans


def windows_one_by_one(n: int, n_ctx: int, stride: int) -> object:
    """Answer the second try with a generator of lists."""
    begin, done = 0, 1
    while done < n:
        stop = min(begin + n_ctx + 1, n)
        yield [begin, stop, stop - done]
        begin, done = begin + stride, stop


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


def mean_of(numbers: Sequence[float]) -> float:
    """Return the mean."""
    return sum(numbers) / len(numbers)


def endings(
    total: Callable[[Sequence[float]], float] = sum,
    mean: Callable[[Sequence[float]], float] = mean_of,
    pick: Callable[[list[float]], float] = min,
) -> Callable[[list[list[float]]], tuple[int, int]]:
    """Answer the try-it of the best ending, by these two numbers."""

    def choose(surprises: list[list[float]]) -> tuple[int, int]:
        sums, means = map(total, surprises), map(mean, surprises)
        by_sum, by_mean = list(sums), list(means)
        return by_sum.index(pick(by_sum)), by_mean.index(pick(by_mean))

    return choose


Surprises = list[list[float]]


def by_gain(
    score: Callable[[float, float, int], float],
) -> Callable[[Surprises, Surprises], int]:
    """Answer exercise 3 of the page about scoring, by this score."""

    def choose(with_context: Surprises, without: Surprises) -> int:
        scores = [
            score(sum(after), sum(alone), len(after))
            for after, alone in zip(with_context, without, strict=True)
        ]
        return scores.index(max(scores))

    return choose


ANSWERS: dict[str, Answers] = {
    "lowest-loss": (
        1,
        {
            "too sure": 0.7,
            "to the tail": 1.3,
            "one of 0.7, 1 and 1.3": 0.9,
        },
    ),
    "token-surprises": (
        surprises,
        {
            "were read": lambda logits, ids: surprises(logits, [0, *ids[:-1]]),
            "change the sign": lambda logits, ids: -surprises(logits, ids),
            "in bits": lambda logits, ids: (
                surprises(logits, ids) / math.log(2)
            ),
            "are probabilities": lambda logits, ids: (
                -surprises(logits, ids)
            ).exp(),
            "still missing": lambda logits, ids: (
                -logits.gather(-1, torch.tensor(ids[1:])[:, None])
            ),
            "over the positions": lambda logits, ids: surprises(
                logits, ids, dim=0
            ),
            "the sum": lambda logits, ids: surprises(logits, ids).sum(),
            "the mean": lambda logits, ids: F.cross_entropy(
                logits, torch.tensor(ids[1:])
            ),
        },
    ),
    "sliding-windows": (
        windows,
        {
            "one more to guess": lambda n, n_ctx, stride: windows(
                n, n_ctx - 1, stride
            ),
            "with the text": lambda n, n_ctx, stride: [
                (begin, begin + n_ctx + 1, n_new)
                for begin, _, n_new in windows(n, n_ctx, stride)
            ],
            "no window before": lambda n, n_ctx, stride: [
                (begin, stop, stop - begin - 1)
                for begin, stop, _ in windows(n, n_ctx, stride)
            ],
            "is never guessed": lambda n, n_ctx, stride: [
                (begin, stop, n_new + (begin == 0))
                for begin, stop, n_new in windows(n, n_ctx, stride)
            ],
            "all but its first": lambda n, n_ctx, stride: [
                (begin, stop, min(n_new, stride))
                for begin, stop, n_new in windows(n, n_ctx, stride)
            ],
            "nothing new": lambda n, n_ctx, stride: [
                *windows(n, n_ctx, stride),
                *(
                    (begin, n, 0)
                    for begin in range(
                        windows(n, n_ctx, stride)[-1][0] + stride, n, stride
                    )
                ),
            ],
            "list of triples": lambda n, n_ctx, stride: [n, n_ctx, stride],
        },
    ),
    "best-ending": (
        endings(),
        {
            "most surprising": endings(pick=max),
            "are swapped": lambda surprises: endings()(surprises)[::-1],
            "divide it by": endings(mean=sum),
            "do not divide": endings(total=mean_of),
            "expected two": lambda surprises: endings()(surprises)[0],
        },
    ),
    "turned-round": (
        (0, 16),
        {
            "now the right": (16, 16),
            "not choose by chance": (4, 16),
            "far more": (0, 4),
            "expected two numbers": 0,
        },
    ),
    "avoidable-with": (
        lambda curve, stride: curve[-stride:].mean().item(),
        {
            "over the whole window": lambda curve, stride: curve.mean().item(),
            "at its end": lambda curve, stride: curve[:stride].mean().item(),
            "what the overlap would": lambda curve, stride: (
                curve[:-stride].mean().item()
            ),
            "that is a sum": lambda curve, stride: (
                curve[-stride:].sum().item()
            ),
            "not only the last": lambda curve, stride: curve[-1].item(),
        },
    ),
    "best-by-gain": (
        by_gain(lambda after, alone, n: alone - after),
        {
            "by the sum": by_gain(lambda after, alone, n: -after),
            "the other way round": by_gain(
                lambda after, alone, n: after - alone
            ),
            "per token": by_gain(lambda after, alone, n: (alone - after) / n),
            "divide the surprises": by_gain(
                lambda after, alone, n: alone / after
            ),
        },
    ),
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
            "the rate of slips": lambda share, n: 1 - share ** (1 / n),
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
            "the space before": best(
                lambda ending: len(ending.strip().encode())
            ),
            "raises": lambda sums: 0,
        },
    ),
}

# More right answers, of other forms.
ALSO_RIGHT: dict[str, list[object]] = {
    "token-surprises": [
        surprises_by_loop,
        lambda logits, ids: F.cross_entropy(
            logits, torch.tensor(ids[1:]), reduction="none"
        ),
        lambda logits, ids: surprises(logits, ids)[:, None],
    ],
    "sliding-windows": [windows_one_by_one],
    "best-ending": [
        lambda all_of: [
            min(range(len(all_of)), key=lambda i: sum(all_of[i])),
            torch.tensor([mean_of(one) for one in all_of]).argmin(),
        ]
    ],
    "avoidable-with": [
        lambda curve, stride: curve[len(curve) - stride :].sum() / stride
    ],
    "best-by-gain": [
        lambda after, alone: torch.tensor(
            [sum(a) - sum(b) for a, b in zip(after, alone, strict=True)]
        ).argmin()
    ],
    "least-gap": [lambda s, n: math.log(1 / s) / n],
    "per-byte-choice": [
        lambda sums, endings: max(
            range(len(sums)),
            key=lambda i: sums[i] / len(endings[i].encode("utf-8")),
        )
    ],
}
