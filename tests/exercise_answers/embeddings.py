"""Right and wrong answers to the exercises of chapter 3."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
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


def all_different(factor: int) -> object:
    """Give a column's own number to the exponent."""

    def table(n: int, width: int) -> Tensor:
        result = torch.zeros(n, width)
        for row in range(n):
            for column in range(width):
                turn = (math.sin, math.cos)[column % 2]
                angle = row / 1e4 ** (factor * column / width)
                result[row, column] = turn(angle)
        return result

    return table


def halves(n: int, width: int) -> Tensor:
    """Put all sines before all cosines."""
    table = sines(n, width)
    return torch.cat([table[:, ::2], table[:, 1::2]], dim=1)


def one_hot(ids: Tensor, n: int) -> Tensor:
    """Write ones into zeros."""
    rows = torch.zeros(len(ids), n)
    for row, token in enumerate(ids):
        rows[row, token] = 1
    return rows


def in_one_row(ids: Tensor, n: int) -> Tensor:
    """Forget that each token has a row."""
    row = torch.zeros(n)
    row[ids] = 1
    return row


def embed(tokens: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
    """Add the rows, text by text and token by token."""
    return torch.stack(
        [
            torch.stack([wte[i] + wpe[place] for place, i in enumerate(text)])
            for text in tokens
        ]
    )


def unit(table: Tensor) -> Tensor:
    """Return rows of length 1."""
    return table / (table**2).sum(dim=1, keepdim=True).sqrt()


ANSWERS: dict[str, Answers] = {
    "one-hot": (
        one_hot,
        {
            "needs floats": lambda ids, n: F.one_hot(ids, n),
            "is transposed": lambda ids, n: one_hot(ids, n).T,
            "in one row": in_one_row,
            "each has a row": lambda ids, n: one_hot(ids, n).sum(dim=0),
            "to the right": lambda ids, n: one_hot((ids + 1) % n, n),
            "to the left": lambda ids, n: one_hot((ids - 1) % n, n),
            "are swapped": lambda ids, n: (
                ids[:, None] != torch.arange(n)
            ).float(),
            "the id itself": lambda ids, n: one_hot(ids, n) * ids[:, None],
        },
    ),
    "cosines": (
        lambda table: F.cosine_similarity(table[:, None], table, dim=2),
        {
            "those are dot products": lambda table: table @ table.T,
            "you divide by one": lambda table: table @ unit(table).T,
            "by the lengths of both": lambda table: unit(table) @ table.T,
            "the root is missing": lambda table: (
                (table / (table**2).sum(dim=1, keepdim=True))
                @ (table / (table**2).sum(dim=1, keepdim=True)).T
            ),
            "you divide columns": lambda table: (
                F.normalize(table, dim=0) @ F.normalize(table, dim=0).T
            ),
            "you compare columns": lambda table: (
                F.normalize(table, dim=0).T @ F.normalize(table, dim=0)
            ),
            "the whole table": lambda table: (
                (table / table.norm()) @ (table / table.norm()).T
            ),
        },
    ),
    "embed": (
        embed,
        {
            "are missing": lambda tokens, wte, wpe: wte[tokens],
            "row of position 0": lambda tokens, wte, wpe: wte[tokens] + wpe[0],
            "its place": lambda tokens, wte, wpe: (
                wte[tokens] + wpe[tokens % len(wpe)]
            ),
            "in the table of tokens": lambda tokens, wte, wpe: (
                wte[tokens] + wte[torch.arange(tokens.size(1))]
            ),
            "is 0, not 1": lambda tokens, wte, wpe: (
                wte[tokens]
                + wpe[
                    torch.arange(1, tokens.size(1) + 1).clamp(max=len(wpe) - 1)
                ]
            ),
            "side by side": lambda tokens, wte, wpe: torch.cat(
                [
                    wte[tokens],
                    wpe[: tokens.size(1)].expand(len(tokens), -1, -1),
                ],
                dim=-1,
            ),
            "you multiply": lambda tokens, wte, wpe: (
                wte[tokens] * wpe[: tokens.size(1)]
            ),
            "the last rows": lambda tokens, wte, wpe: (
                wte[tokens] + wpe[-tokens.size(1) :]
            ),
        },
    ),
    "same-difference": (
        0,
        {
            "less": 0.5,
            "not negative": -1,
            "expected a number": "nothing",
        },
    ),
    "rows-not-missed": (
        (100, 60, 20, 0),
        {
            "stands at position 0": [20, 60, 100],
            "row 1 is missed": [0, 1],
            "there are more": [0, 100],
            "3 is none": [0, 3],
            "a list of rows": 0,
        },
    ),
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
            "yours have one each": all_different(1),
            "the number of the pair": all_different(2),
            "is doubled": by_loop(4),
            "do not multiply": multiplied,
            "first position is 1": by_loop(2, start=1),
            "is transposed": lambda n, width: sines(n, width).T,
            "your base is": by_loop(2, base=1000),
        },
    ),
}
