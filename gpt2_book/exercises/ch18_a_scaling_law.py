"""The exercises of chapter 18."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import Mistake, NotYet, call, exercise, same


@exercise("scaling-law")
def scaling_law(answer: Any) -> str:
    """Section "A fit without a floor": the logarithm of the gap."""
    n = torch.tensor([3e4, 2e5, 2e6], dtype=torch.float64)
    d = torch.tensor([4e6, 1e6, 3e7], dtype=torch.float64)
    for numbers in ((5.0, 0.6, 9.0, 0.7), (8.0, 0.9, 4.0, 0.3)):
        theta = torch.tensor(numbers, dtype=torch.float64)
        a, alpha, b, beta = theta
        size, data = a - alpha * n.log(), b - beta * d.log()
        right = torch.logaddexp(size, data)
        mistakes = [
            Mistake("that is the gap; return its logarithm", right.exp()),
            Mistake(
                "you add the logarithms of the two terms; add the terms, and "
                "take the logarithm of the sum",
                size + data,
            ),
            Mistake(
                "the gap should fall as N and D grow: the exponents are "
                "-alpha and -beta",
                torch.logaddexp(a + alpha * n.log(), b + beta * d.log()),
            ),
            Mistake(
                "theta[0] and theta[2] are ln A and ln B, not A and B",
                torch.logaddexp(
                    a.log() - alpha * n.log(), b.log() - beta * d.log()
                ),
            ),
            Mistake(
                "N and D are exchanged",
                torch.logaddexp(a - alpha * d.log(), b - beta * n.log()),
            ),
            Mistake("the term of the tokens is missing", size),
            Mistake("the term of the parameters is missing", data),
            Mistake(
                "that is a logarithm to the base 10; use the natural one",
                right / math.log(10),
            ),
        ]
        got = call(answer, theta, n, d)
        same(got, right, "the logarithm of the gap", mistakes)
    return "six gaps agree"


@exercise("conditional-entropy")
def conditional_entropy(answer: Any) -> str:
    """Section "Exponents from the language": entropy after one token."""
    for rows in ([[2, 2, 0], [0, 6, 2], [1, 0, 0]], [[5, 3], [1, 1]]):
        counts = torch.tensor(rows, dtype=torch.float64)
        joint = counts / counts.sum()
        before = counts.sum(1)
        each = _entropies(counts)
        right = float(before @ each / before.sum())
        together = float(_entropies(joint.flatten()[None])[0])
        mistakes = [
            Mistake("that is in bits; return nats", right / math.log(2)),
            Mistake(
                "every row counts alike; a row should count as often as its "
                "token comes",
                float(each.mean()),
            ),
            Mistake(
                "that is the entropy of the pair; take off that of the first "
                "token",
                together,
            ),
            Mistake(
                "that is the entropy of the next token when nothing is known "
                "of the one before",
                float(_entropies(counts.sum(0)[None])[0]),
            ),
            Mistake(
                "rows and columns are exchanged: a row belongs to the token "
                "before",
                float(counts.sum(0) @ _entropies(counts.T) / counts.sum()),
            ),
            Mistake("the sign is wrong: an entropy is not negative", -right),
        ]
        got = call(answer, counts)
        if isinstance(got, Tensor) and got.numel() == 1:
            got = got.item()
        if isinstance(got, float) and math.isnan(got):
            raise NotYet(
                "the entropy is NaN: 0 ln 0 counts as 0, and your logarithm "
                "of 0 does not"
            )
        same(got, right, f"the entropy for {rows}", mistakes)
    return "two tables agree, one of them with zeros"


def _entropies(counts: Tensor) -> Tensor:
    """Return the entropy of each row of counts, in nats."""
    return torch.special.entr(counts / counts.sum(1, keepdim=True)).sum(1)


@exercise("floor-from-three")
def floor_from_three(answer: Any) -> str:
    """Exercise 18.2: the floor from three losses."""
    for floor, first, fall in ((1.0, 1.0, 0.5), (0.3, 0.4, 0.8), (2, 5, 0.1)):
        one, two, three = (floor + first * fall**k for k in range(3))
        mistakes = [
            Mistake(
                "you take the last loss for the floor; the gap has not yet "
                "closed",
                three,
            ),
            Mistake(
                "that goes on in a straight line; it is the gap that falls by "
                "the same factor",
                2 * three - two,
            ),
            Mistake(
                "the factor is that of the losses; it should be that of their "
                "gaps",
                three * three / two,
            ),
            Mistake("that is the factor of the gaps; return the floor", fall),
            Mistake(
                "that is the first gap; take it off the first loss",
                float(first),
            ),
            Mistake("that is the last gap; take it off", three - floor),
            Mistake(
                "the sign of the correction is wrong: the floor lies below "
                "the last loss",
                2 * three - floor,
            ),
        ]
        got = call(answer, one, two, three)
        if isinstance(got, Tensor) and got.numel() == 1:
            got = got.item()
        what = f"the floor of {one:.4g}, {two:.4g} and {three:.4g}"
        same(got, float(floor), what, mistakes)
    return "three floors agree"


@exercise("huber")
def huber(answer: Any) -> str:
    """Exercise 18.3: squares near zero, straight lines far out."""
    residuals = torch.tensor(
        [0.0, 0.0005, -0.001, 0.02, -0.3, 1.7], dtype=torch.float64
    )
    for delta in (1e-3, 0.1, 1.0):
        size = residuals.abs()
        half = residuals.square() / 2
        right = torch.where(size <= delta, half, delta * (size - delta / 2))
        mistakes = [
            Mistake("those are half the squares, far out as well", half),
            Mistake("the half is missing", 2 * right),
            Mistake(
                "the two pieces do not meet at delta: far out it is "
                "delta * (|r| - delta / 2)",
                torch.where(size <= delta, half, delta * size),
            ),
            Mistake(
                "far out the line has the slope 1; it should be delta, as the "
                "parabola has there",
                torch.where(size <= delta, half, size - delta / 2),
            ),
            Mistake(
                "the pieces are exchanged: squares near zero, lines far out",
                torch.where(size <= delta, delta * (size - delta / 2), half),
            ),
            Mistake(
                "negative residuals cost as much as positive ones; take |r|",
                torch.where(
                    residuals <= delta,
                    half,
                    delta * (residuals - delta / 2),
                ),
            ),
            Mistake("return one number for each residual", right.sum()),
            Mistake("return one number for each residual", right.mean()),
        ]
        got = call(answer, residuals, delta)
        # Costs are as small as 1e-7, so they are compared in units of delta².
        if not isinstance(got, Tensor):
            same(got, right, f"the cost for delta={delta:g}")
        scaled = [m._replace(wrong=m.wrong / delta**2) for m in mistakes]
        what = f"the cost for delta={delta:g}, in units of delta squared,"
        same(got / delta**2, right / delta**2, what, scaled)
    return "three deltas agree, on both sides of zero"


@exercise("gap-exponent")
def gap_exponent(answer: Any) -> str:
    """Exercise 18.5: how fast the best gap falls with the FLOPs."""
    for alpha, beta in ((0.34, 0.28), (0.9, 0.5), (0.2, 0.8)):
        right = alpha * beta / (alpha + beta)
        mistakes = [
            Mistake(
                "that is the exponent of the best N; put it into the gap",
                beta / (alpha + beta),
            ),
            Mistake(
                "that is the exponent of the best D; put it into the gap",
                alpha / (alpha + beta),
            ),
            Mistake(
                "that is the mean of the exponents; the FLOPs are shared "
                "between N and D",
                (alpha + beta) / 2,
            ),
            Mistake("that is their product; divide by the sum", alpha * beta),
            Mistake("that is the harmonic mean, twice too much", 2 * right),
            Mistake(
                "the smaller exponent would do if all FLOPs went there",
                min(alpha, beta),
            ),
            Mistake(
                "return how fast the gap falls, as a positive number", -right
            ),
        ]
        got = call(answer, alpha, beta)
        if isinstance(got, Tensor) and got.numel() == 1:
            got = got.item()
        what = f"the exponent for alpha={alpha:g} and beta={beta:g}"
        same(got, right, what, mistakes)
    return "it is the exponent of the FLOPs, for three laws"
