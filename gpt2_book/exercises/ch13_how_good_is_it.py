"""The exercises of chapter 13, and of the page about scoring."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    number,
    same,
    unpack,
    whole_numbers,
)


@exercise("token-surprises")
def token_surprises(answer: Any) -> str:
    """Try it yourself: the surprise at every token that came."""
    torch.manual_seed(13)
    for n, n_vocab in ((5, 7), (3, 11)):
        logits = 2 * torch.randn(n, n_vocab)
        ids = torch.randint(n_vocab, (n + 1,)).tolist()
        log_p, came = logits.log_softmax(dim=-1), (range(n), ids[1:])
        right = -log_p[came]
        mistakes = [
            Mistake(
                "you look up the tokens that were read; a position guesses "
                "the next one, so look up `ids[1:]`",
                -log_p[range(n), ids[:-1]],
            ),
            Mistake("log-probabilities are negative; change the sign", -right),
            Mistake("that is in bits; nats were asked", right / math.log(2)),
            Mistake(
                "those are probabilities; the surprise is -log p",
                log_p.exp()[came],
            ),
            Mistake("the softmax is still missing", -logits[came]),
            Mistake(
                "your softmax runs over the positions; at each position it "
                "runs over the vocabulary, dim=-1",
                -logits.log_softmax(dim=0)[came],
            ),
            Mistake("that is the sum; return every token's", right.sum()),
            Mistake("that is the mean; return every token's", right.mean()),
        ]
        got = call(answer, logits, ids)
        if isinstance(got, list | tuple):
            got = torch.tensor([float(one) for one in got])
        if isinstance(got, Tensor) and got.shape == (n, 1):
            got = got[:, 0]
        same(got, right, f"the surprise at {n} tokens", mistakes)
    return "one number for every token that came"


Spans = list[tuple[int, int, int]]


@exercise("sliding-windows")
def sliding_windows(answer: Any) -> str:
    """Try it yourself: windows that overlap."""
    for n, n_ctx, stride in ((11, 4, 2), (11, 4, 4), (30, 8, 3), (5, 8, 4)):
        right = _windows(n, n_ctx, stride)
        first, *more = right
        mistakes = [
            Mistake(
                "a window holds `n_ctx` ids to read and one more to guess",
                _windows(n, n_ctx - 1, stride) if stride < n_ctx else None,
            ),
            Mistake(
                "a window ends with the text at the latest",
                [
                    (begin, begin + n_ctx + 1, n_new)
                    for begin, _, n_new in right
                ],
            ),
            Mistake(
                "`n_new` counts what no window before has guessed",
                [(begin, stop, stop - begin - 1) for begin, stop, _ in right],
            ),
            Mistake(
                "the very first id is never guessed",
                [(*first[:2], first[2] + 1), *more],
            ),
            Mistake(
                "the first window guesses all but its first id; only the "
                "later ones have `stride` new ones or fewer",
                [(*first[:2], min(stride, first[2])), *more],
            ),
            Mistake(
                "stop as soon as the whole text has been guessed; your last "
                "windows have nothing new",
                [
                    *right,
                    *(
                        (begin, n, 0)
                        for begin in range(right[-1][0] + stride, n, stride)
                    ),
                ],
            ),
        ]
        got = call(answer, n, n_ctx, stride)
        try:
            spans = [tuple(int(number) for number in span) for span in got]
        except (TypeError, ValueError):
            what = f"expected a list of triples; got {describe(got)}"
            raise NotYet(what) from None
        what = f"the list for n={n}, n_ctx={n_ctx}, stride={stride}"
        same(spans, right, what, mistakes)
    return "four texts agree, one of them shorter than a window"


def _windows(n: int, n_ctx: int, stride: int) -> Spans:
    spans, begin, done = [], 0, 1
    while done < n:
        stop = min(begin + n_ctx + 1, n)
        spans.append((begin, stop, stop - done))
        begin, done = begin + stride, stop
    return spans


@exercise("lowest-loss")
def lowest_loss(answer: Any) -> str:
    """Exercise 13.1: the temperature with the lowest loss."""
    if answer not in (0.7, 1, 1.3):
        raise NotYet(f"one of 0.7, 1 and 1.3; got {describe(answer)}")
    mistakes = [
        Mistake(
            "0.7 makes odds that are nearly right too sure, and a rare word "
            "that comes then costs more than the frequent ones save",
            0.7,
        ),
        Mistake(
            "1.3 takes probability from what comes and gives it to the tail",
            1.3,
        ),
    ]
    same(float(answer), 1.0, "the temperature", mistakes)
    return "odds that are nearly right get worse in either direction"


@exercise("best-ending")
def best_ending(answer: Any) -> str:
    """Try it yourself: the ending to take, by the sum and by the mean."""
    questions: tuple[list[list[float]], ...] = (
        [[0.7, 0.7, 0.7], [1.8], [3.0]],
        [[3.0, 0.2], [0.5, 0.5, 0.5], [1.2, 1.2]],
        [[1.9], [0.9, 0.9, 0.9, 0.9], [1.7, 0.4]],
    )
    for surprises in questions:
        sums = [sum(one) for one in surprises]
        means = [sum(one) / len(one) for one in surprises]
        right = (sums.index(min(sums)), means.index(min(means)))
        mistakes = [
            Mistake(
                "you take the most surprising ending; the likeliest is the "
                "one with the smallest surprise",
                (sums.index(max(sums)), means.index(max(means))),
            ),
            Mistake("the two are swapped: the sum comes first", right[::-1]),
            Mistake(
                "your mean is the sum: divide it by the tokens", 2 * right[:1]
            ),
            Mistake("your sum is the mean: do not divide it", 2 * right[1:]),
        ]
        got = unpack(
            call(answer, [list(one) for one in surprises]),
            2,
            "two indices, by the sum and by the mean",
        )
        what = f"the pair for {surprises}"
        same(tuple(whole_numbers(got, "two indices")), right, what, mistakes)
    return "three questions agree, and the two ways differ in two of them"


@exercise("turned-round")
def turned_round(answer: Any) -> str:
    """Exercise 1 of the page about scoring: right by the sum, of 16."""
    what = "two numbers, for the untrained and the trained model"
    counts = whole_numbers(unpack(answer, 2, what), what)
    untrained = [
        Mistake(
            "the shortest ending is the likeliest to it, and now the right "
            "one is the longest",
            16,
        ),
        Mistake(
            "that is chance; but by the sum it does not choose by chance, it "
            "takes the shortest",
            4,
        ),
    ]
    same(counts[0], 0, "the count of the untrained model", untrained)
    trained = [
        Mistake(
            "what a line from another story costs the trained model is far "
            "more than a line of the right one",
            wrong,
        )
        for wrong in (0, 4)
    ]
    same(counts[1], 16, "the count of the trained model", trained)
    return "length decides only where the model knows nothing better"


@exercise("avoidable-with")
def avoidable_with(answer: Any) -> str:
    """Exercise 2 of the page about scoring: what a stride must cost."""
    torch.manual_seed(13)
    for n_ctx, stride in ((8, 3), (12, 12), (10, 1)):
        curve = torch.rand(n_ctx).sort(descending=True).values
        new = curve[-stride:]
        mistakes = [
            Mistake(
                "that is the mean over the whole window; only what is new in "
                "it counts",
                curve.mean().item(),
            ),
            Mistake(
                "what is new in a window is at its end, where most of it has "
                "been read",
                curve[:stride].mean().item(),
            ),
            Mistake(
                "that is what the overlap would cost; take the positions "
                "after it",
                curve[:-stride].mean().item() if stride < n_ctx else None,
            ),
            Mistake("that is a sum; the loss is a mean", new.sum().item()),
            Mistake(
                "every guess that is new counts, not only the last",
                curve[-1].item(),
            ),
        ]
        got = number(call(answer, curve, stride))
        what = f"the mean for n_ctx={n_ctx}, stride={stride}"
        same(got, new.mean().item(), what, mistakes)
    return "the last positions of a window, as many as the stride"


@exercise("best-by-gain")
def best_by_gain(answer: Any) -> str:
    """Exercise 3 of the page about scoring: what the context adds."""
    got, gains, others = [], [], []
    for after, alone in GAINS:
        pair = [list(one) for one in after], [list(one) for one in alone]
        got.append(call(answer, *pair))
        sums = [[sum(one) for one in side] for side in (after, alone)]
        gain = [b - a for a, b in zip(*sums, strict=True)]
        per_token = [g / len(one) for g, one in zip(gain, after, strict=True)]
        ratio = [b / a for a, b in zip(*sums, strict=True)]
        gains.append(gain.index(max(gain)))
        others.append(
            (
                sums[0].index(min(sums[0])),
                gain.index(min(gain)),
                per_token.index(max(per_token)),
                ratio.index(max(ratio)),
            )
        )
    by_sum, swapped, by_token, by_ratio = (
        list(one) for one in zip(*others, strict=True)
    )
    mistakes = [
        Mistake("that is by the sum; the context is to be compared", by_sum),
        Mistake(
            "the other way round: the context should lower the surprise",
            swapped,
        ),
        Mistake(
            "the gain is of the whole ending, not per token of it", by_token
        ),
        Mistake(
            "a factor of probabilities is a difference of surprises; you "
            "divide the surprises",
            by_ratio,
        ),
    ]
    what = f"the indices for {len(GAINS)} questions"
    same(whole_numbers(got, "indices"), gains, what, mistakes)
    return "four questions agree, and the sum would differ in three of them"


# For each question, the surprises after the context, and without it.
Surprises = list[list[float]]
GAINS: tuple[tuple[Surprises, Surprises], ...] = (
    ([[1.0], [2.0, 2.0], [3.0]], [[1.5], [4.0, 5.0], [3.0]]),
    ([[0.5, 0.5], [2.5, 2.5, 2.5, 2.5]], [[3.0, 3.0], [4.0, 4.0, 4.0, 4.0]]),
    ([[3.0, 1.0], [0.1]], [[3.5, 3.0], [2.0]]),
    ([[2.0], [0.5, 0.5]], [[4.0], [2.0, 1.9]]),
)


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
            Mistake(
                "that is the rate of slips per token, not what they cost; the "
                "two are close only while slips are rare",
                1 - share ** (1 / n_tokens),
            ),
        ]
        got = call(answer, share, n_tokens)
        what = f"the bound for share={share}, tokens_per_story={n_tokens:g}"
        same(got, bound, what, mistakes)
    got = call(answer, 1.0, 131.0)
    same(got, 0.0, "the bound when every sample is a story")
    return "three shares agree; without invalid samples the bound is 0"


# For each question, the log-probability of each ending, and the endings.
QUESTIONS: tuple[tuple[list[float], list[str]], ...] = (
    ([-4.0, -6.0], [" no", " of course"]),
    ([-9.0, -5.0, -7.0], [" she laughed a lot", " no", " he did so"]),
    ([-2.0, -2.2, -9.0], [" aaaa", " \u00e9\u00e9\u00e9\u00e9", " b"]),
    ([-3.0, -4.0], [" yes it is", " no"]),
    ([-6.0, -5.0, -30.0], [" twelve long", " a b c d", " e"]),
    ([-3.0, -10.5], [" no", " of course"]),  # right only with the space
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
            "the space before an ending belongs to it, and is a byte, too",
            _choices(lambda text: len(text.strip().encode())),
        ),
        Mistake(
            "you take the least probable: log-probabilities are negative, and "
            "the largest is the closest to 0",
            _choices(lambda text: -len(text.encode())),
        ),
    ]
    got = [call(answer, list(sums), list(ends)) for sums, ends in QUESTIONS]
    right = _choices(lambda text: len(text.encode()))
    same(got, right, "the choices in six questions", mistakes)
    return "six questions agree, one with letters of two bytes"


def _choices(length: Callable[[str], int]) -> list[int]:
    """Return the best ending of each question, by this measure of length."""
    choices = []
    for sums, endings in QUESTIONS:
        pairs = zip(sums, endings, strict=True)
        means = [total / length(ending) for total, ending in pairs]
        choices.append(means.index(max(means)))
    return choices
