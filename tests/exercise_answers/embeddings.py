"""Right and wrong answers to the exercises of chapter 3."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Answers = tuple[object, dict[str, object]]


def sines(n: int, width: int) -> Tensor:
    """Answer exercise 3.3."""
    steps = 10_000 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(n)[:, None] * steps
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def multiplied(n: int, width: int) -> Tensor:
    """Forget the minus of the exponent."""
    steps = 10_000 ** (torch.arange(0, width, 2) / width)
    angles = torch.arange(n)[:, None] * steps
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def by_loop(power: float, base: float = 1e4, start: int = 0) -> object:
    """Write the table entry by entry, with this factor before `i`."""

    def table(n: int, width: int) -> Tensor:
        result = torch.zeros(n, width)
        for row in range(n):
            for i in range(width // 2):
                angle = (row + start) / base ** (power * i / width)
                result[row, 2 * i] = math.sin(angle)
                result[row, 2 * i + 1] = math.cos(angle)
        return result

    return table


def all_different(n: int, width: int) -> Tensor:
    """Give a column's own number to the exponent."""
    result = torch.zeros(n, width)
    for row in range(n):
        for column in range(width):
            turn = (math.sin, math.cos)[column % 2]
            result[row, column] = turn(row / 1e4 ** (column / width))
    return result


def halves(n: int, width: int) -> Tensor:
    """Put all sines before all cosines."""
    table = sines(n, width)
    return torch.cat([table[:, ::2], table[:, 1::2]], dim=1)


ANSWERS: dict[str, Answers] = {
    "random-cosine": (
        lambda c: c**-0.5,
        {
            "that is the variance": lambda c: 1 / c,
            "that grows": lambda c: c**0.5,
            "divide by C - 1": lambda c: (c - 1) ** -0.5,
            "both directions as random": lambda c: (2 / c) ** 0.5,
            "that is the mean": lambda c: 0,
            "in 192 dimensions is": lambda c: 0.57735,
            "expected a function": 0.036,
        },
    ),
    "sine-table": (
        by_loop(2),
        {
            "in two halves": halves,
            "are swapped": lambda n, width: (
                sines(n, width).unflatten(1, (-1, 2)).flip(2).flatten(1)
            ),
            "your exponent is i / width": by_loop(1),
            "yours have one each": all_different,
            "is doubled": by_loop(4),
            "do not multiply": multiplied,
            "first position is 1": by_loop(2, start=1),
            "is transposed": lambda n, width: sines(n, width).T,
            "your base is": by_loop(2, base=1000),
        },
    ),
}
