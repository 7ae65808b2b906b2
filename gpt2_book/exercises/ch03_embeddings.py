"""The exercises of chapter 3."""

from __future__ import annotations

import math
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
)


@exercise("one-hot")
def one_hot(answer: Any) -> str:
    """Section 3.1: one-hot rows, whose product with a table is a lookup."""
    for ids, n in (([2, 0, 2], 4), ([1], 5), ([4, 3, 1, 0], 6)):
        given = torch.tensor(ids)
        right = torch.eye(n)[given]  # (T, n)
        got = call(answer, given, n)
        if isinstance(got, Tensor) and not got.is_floating_point():
            raise NotYet(
                f"the result has dtype {got.dtype}; a product with a table "
                "of floats needs floats"
            )
        same(
            got,
            right,
            f"the result for ids={ids}, n={n}",
            [
                Mistake("it is transposed: a row is a token", right.T),
                Mistake(
                    "all ids are in one row; each has a row of its own",
                    right.sum(dim=0),
                ),
                Mistake(
                    "all ids are in one row; each has a row of its own",
                    right.sum(dim=0).clamp(max=1),
                ),
                Mistake(
                    "the 1 is one column too far to the right; ids count "
                    "from 0",
                    right.roll(1, dims=1),
                ),
                Mistake(
                    "the 1 is one column too far to the left; ids count "
                    "from 0",
                    right.roll(-1, dims=1),
                ),
                Mistake(
                    "ones and zeros are swapped: a 1 stands in the column of "
                    "the id alone",
                    1 - right,
                ),
                Mistake(
                    "you wrote the id itself; a 1 says that it is this one",
                    right * given[:, None],
                ),
            ],
        )
    return "each row picks one row of a table"


@exercise("cosines")
def cosines(answer: Any) -> str:
    """Section 3.3: the cosine of each row with every other."""
    generator = torch.Generator().manual_seed(3)
    for table in (
        torch.tensor([[3.0, 4.0], [4.0, 3.0], [-6.0, -8.0]]),
        torch.randn(5, 3, generator=generator),
        torch.randn(2, 7, generator=generator) * 3,
    ):
        dots = table @ table.T  # (N, N)
        norms = table.norm(dim=1)
        by_column = table / table.norm(dim=0)
        mistakes = [
            Mistake("those are dot products; divide by both lengths", dots),
            Mistake(
                "divide by the lengths of both rows; you divide by one",
                dots / norms[:, None],
            ),
            Mistake(
                "divide by the lengths of both rows; you divide by one",
                dots / norms,
            ),
            Mistake(
                "the length is the root of the sum of squares; the root is "
                "missing",
                dots / (norms[:, None] * norms) ** 2,
            ),
            Mistake(
                "you divide columns by their lengths; rows are the vectors",
                by_column @ by_column.T,
            ),
            Mistake(
                "you compare columns; rows are the vectors",
                by_column.T @ by_column,
            ),
            Mistake(
                "you divide by the length of the whole table; every row has "
                "its own",
                dots / table.norm() ** 2,
            ),
        ]
        right = dots / (norms[:, None] * norms)
        what = f"the result for a table {tuple(table.shape)}"
        same(call(answer, table), right, what, mistakes)
    return "with rows of length 1, a product gives all cosines"


@exercise("embed")
def embed(answer: Any) -> str:
    """Section 3.6: the row of the token plus the row of its place."""
    generator = torch.Generator().manual_seed(3)
    for shape, n_vocab, n_ctx, width in (
        ((1, 5), 7, 8, 3),
        ((3, 4), 11, 11, 5),
        ((2, 6), 9, 6, 4),
    ):
        tokens = torch.randint(n_vocab - 2, shape, generator=generator)
        wte = torch.randn(n_vocab, width, generator=generator)
        wpe = torch.randn(n_ctx, width, generator=generator)
        n = shape[1]
        looked_up, places = wte[tokens], wpe[:n]
        mistakes = [
            Mistake("the rows of the positions are missing", looked_up),
            Mistake(
                "every token has the row of position 0; it needs that of its "
                "own place",
                looked_up + wpe[0],
            ),
            Mistake(
                "you look up the token in the table of positions; look up "
                "its place",
                looked_up + wpe[tokens % n_ctx],
            ),
            Mistake(
                "you look up the place in the table of tokens",
                looked_up + wte[:n],
            ),
            Mistake(
                "the first position is 0, not 1", looked_up + _next(wpe, n)
            ),
            Mistake(
                "you put the two side by side; add them",
                torch.cat([looked_up, places.expand_as(looked_up)], dim=-1),
            ),
            Mistake("you multiply the two; add them", looked_up * places),
            Mistake(
                "you take the last rows of the table; a text begins at 0",
                looked_up + wpe[n_ctx - n :],
            ),
        ]
        what = f"x for tokens of shape {shape}"
        got = call(answer, tokens, wte, wpe)
        same(got, looked_up + places, what, mistakes)
    return "a row for what it is, plus a row for where it stands"


def _next(wpe: Tensor, n: int) -> Tensor:
    """Return the rows from position 1 on; the last has nothing behind it."""
    return torch.cat([wpe[1:], wpe[-1:]])[:n]


@exercise("same-difference")
def same_difference(answer: Any) -> str:
    """Exercise 3.1: what is left when the token's row cancels."""
    distance = number(answer)
    if distance < 0:
        raise NotYet("a distance is not negative")
    if distance > 1e-3:
        raise NotYet("less; write out both sums, and see what cancels")
    return "the token's row cancels, whatever the token"


@exercise("rows-not-missed")
def rows_not_missed(answer: Any) -> str:
    """Exercise 3.4: the rows of the position table that cost nothing."""
    try:
        rows = {int(row) for row in answer}
    except (TypeError, ValueError):
        raise NotYet(
            f"expected a list of rows; got {describe(answer)}"
        ) from None
    if unknown := rows - {0, 1, 2, 5, 20, 60, 100}:
        raise NotYet(f"{min(unknown)} is none of the seven rows")
    if 0 not in rows:
        raise NotYet(
            "one more: what stands at position 0, in every single story?"
        )
    if missed := rows & {1, 2, 5}:
        raise NotYet(
            f"row {min(missed)} is missed: without it, the loss rises by more "
            "than 0.01"
        )
    if len(rows) < 4:
        raise NotYet(
            "there are more; how much depends on the exact place of a single "
            "token far from the beginning?"
        )
    return "a single token can do without its place, except near the beginning"


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
            "your exponent is 2 * c / width with c the number of the column; "
            "`i` is the number of the pair, c // 2",
            _columns(n, width, 2),
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


def _columns(n: int, width: int, factor: int = 1) -> Tensor:
    """Return the table in which every column has a rate of its own."""
    every = 10_000 ** (-factor * torch.arange(width) / width)  # (C,)
    turned = torch.arange(n)[:, None] * every  # (n, C)
    odd = torch.arange(width) % 2 == 1
    return torch.where(odd, turned.cos(), turned.sin())
