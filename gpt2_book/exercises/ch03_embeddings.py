"""The exercises of chapter 3."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import call, exercise, same


@exercise("random-cosine")
def random_cosine(answer: Any) -> str:
    """Exercise 3.2: the standard deviation of a random cosine."""
    for width in (3, 192, 768):
        mistakes = {
            "that is the variance; the standard deviation is its root": (
                1 / width
            ),
            "that grows with C, and no cosine is above 1": math.sqrt(width),
            "that divides by C - 1; it is C squares that add up to 1": (
                1 / math.sqrt(width - 1)
            ),
            "that takes both directions for random; turn the first onto an "
            "axis, and only one coordinate is left": (math.sqrt(2 / width)),
            "that is the mean; asked is how far from it the cosines are": 0.0,
        }
        came = call(answer, width)
        what = f"the standard deviation in {width} dimensions"
        same(came, 1 / math.sqrt(width), what, mistakes)
    return "in many dimensions nearly everything is at a right angle"


@exercise("sine-table")
def sine_table(answer: Any) -> str:
    """Exercise 3.3: the table of Vaswani et al. (2017)."""
    for n, width in ((7, 10), (11, 6), (3, 4)):
        even = torch.arange(0, width, 2)  # (C / 2,)
        rates = 10_000 ** (-even / width)
        right = angles(n, rates)
        half = width // 2
        mistakes = {
            "the sines and cosines of one `i` stand side by side, not in two "
            "halves": torch.cat([right[:, ::2], right[:, 1::2]], dim=1),
            "sine and cosine are exchanged; the sine should come first": (
                right.unflatten(1, (half, 2)).flip(2).flatten(1)
            ),
            "the exponent is i / width here, and should be 2 * i / width": (
                angles(n, 10_000 ** (-torch.arange(half) / width))
            ),
            "every column has an angle of its own here; both of a pair "
            "should have the same": columns(n, width),
            "the exponent is twice what it should be; 2 * i is the number of "
            "the column already": (angles(n, 10_000 ** (-2 * even / width))),
            "the position is to be divided by the power, not multiplied": (
                angles(n, 10_000 ** (even / width))
            ),
            "the first position is 1 here; it should be 0": angles(
                n, rates, start=1
            ),
            "it is turned round: a row belongs to a position": right.T,
            "the base is 1,000 here; it should be 10,000": angles(
                n, 1000 ** (-even / width)
            ),
        }
        came = call(answer, n, width)
        same(came, right, f"the table for n={n}, width={width}", mistakes)
    return "a row for each position, a speed for each pair of columns"


def angles(n: int, rates: Tensor, start: int = 0) -> Tensor:
    """Give the table whose pairs of columns turn at these speeds."""
    turned = torch.arange(start, start + n)[:, None] * rates  # (n, C / 2)
    return torch.stack([turned.sin(), turned.cos()], dim=-1).flatten(1)


def columns(n: int, width: int) -> Tensor:
    """Give the table in which every column has a speed of its own."""
    every = 10_000 ** (-torch.arange(width) / width)  # (C,)
    turned = torch.arange(n)[:, None] * every  # (n, C)
    odd = torch.arange(width) % 2 == 1
    return torch.where(odd, turned.cos(), turned.sin())
