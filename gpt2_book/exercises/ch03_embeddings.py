"""The exercises of chapter 3."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import Mistake, call, exercise, same


@exercise("random-cosine")
def random_cosine(answer: Any) -> str:
    """Exercise 3.2: the standard deviation of a random cosine."""
    for width in (3, 192, 768):
        mistakes = [
            Mistake(
                "that is the variance; the standard deviation is its square "
                "root",
                1 / width,
            ),
            Mistake(
                "that grows with C, and no cosine is above 1",
                math.sqrt(width),
            ),
            Mistake(
                "you divide by C - 1, but C squares add up to 1",
                1 / math.sqrt(width - 1),
            ),
            Mistake(
                "you treat both directions as random; rotate the first onto "
                "an axis, and the cosine is one coordinate of the second",
                math.sqrt(2 / width),
            ),
            Mistake(
                "that is the mean; the exercise asks how far the cosines "
                "spread around it",
                0.0,
            ),
        ]
        got = call(answer, width)
        what = f"the standard deviation in {width} dimensions"
        same(got, 1 / math.sqrt(width), what, mistakes)
    return "in many dimensions nearly everything is at a right angle"


@exercise("sine-table")
def sine_table(answer: Any) -> str:
    """Exercise 3.3: the position table of Vaswani et al. (2017)."""
    for n, width in ((7, 10), (11, 6), (3, 4)):
        rates = 10_000 ** (-torch.arange(0, width, 2) / width)  # (C / 2,)
        got = call(answer, n, width)
        what = f"the table for n={n}, width={width}"
        same(got, _angles(n, rates), what, _table_mistakes(n, width))
    return "one row for each position, one speed for each pair of columns"


def _table_mistakes(n: int, width: int) -> list[Mistake]:
    even = torch.arange(0, width, 2)  # (C / 2,)
    rates = 10_000 ** (-even / width)
    right = _angles(n, rates)
    return [
        Mistake(
            "the sine and cosine of one `i` should be next to each other, "
            "not in two halves",
            torch.cat([right[:, ::2], right[:, 1::2]], dim=1),
        ),
        Mistake(
            "sine and cosine are swapped; the sine comes first",
            right.unflatten(1, (-1, 2)).flip(2).flatten(1),
        ),
        Mistake(
            "your exponent is i / width; it should be 2 * i / width",
            _angles(n, 10_000 ** (-torch.arange(width // 2) / width)),
        ),
        Mistake(
            "the two columns of a pair share an angle; yours have one each",
            _columns(n, width),
        ),
        Mistake(
            "your exponent is doubled; 2 * i is the column's number already",
            _angles(n, 10_000 ** (-2 * even / width)),
        ),
        Mistake(
            "divide the position by the power; do not multiply",
            _angles(n, 10_000 ** (even / width)),
        ),
        Mistake(
            "your first position is 1; it should be 0",
            _angles(n, rates, start=1),
        ),
        Mistake("the table is transposed: a row is a position", right.T),
        Mistake(
            "your base is 1,000; it should be 10,000",
            _angles(n, 1000 ** (-even / width)),
        ),
    ]


def _angles(n: int, rates: Tensor, start: int = 0) -> Tensor:
    """Return the table whose pairs of columns turn at these rates."""
    turned = torch.arange(start, start + n)[:, None] * rates  # (n, C / 2)
    return torch.stack([turned.sin(), turned.cos()], dim=-1).flatten(1)


def _columns(n: int, width: int) -> Tensor:
    """Return the table in which every column has a rate of its own."""
    every = 10_000 ** (-torch.arange(width) / width)  # (C,)
    turned = torch.arange(n)[:, None] * every  # (n, C)
    odd = torch.arange(width) % 2 == 1
    return torch.where(odd, turned.cos(), turned.sin())
