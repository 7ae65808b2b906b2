"""The exercises of chapter 12."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    exercise,
    number,
    same,
    unpack,
)


@exercise("adamw-step")
def adamw_step(answer: Any) -> str:
    """Chapter 12, on the way: one step of AdamW."""
    torch.manual_seed(12)
    for t, decay in ((1, 0.1), (4, 0.0), (2, 0.5)):
        w, g = torch.randn(2, 3), torch.randn(2, 3)
        m, v = (torch.zeros(2, 3), torch.zeros(2, 3))
        if t > 1:
            m, v = torch.randn(2, 3), torch.rand(2, 3)
        what = "three tensors: the weight, m and v"
        got = unpack(call(answer, w.clone(), g, m, v, t, 0.01, decay), 3, what)
        new_m, new_v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        swapped = Mistake(
            "beta is the share of the old mean, 1 - beta that of the new "
            "gradient",
            0.1 * m + 0.9 * g,
        )
        pulled = Mistake(
            "the decay has gone into the gradient, and will be divided by "
            "its size; keep it out",
            0.9 * m + 0.1 * (g + decay * w),
        )
        same(got[1], new_m, "m", [swapped, pulled])
        no_square = Mistake(
            "v is a mean of the gradient's square", 0.95 * v + 0.05 * g
        )
        other_beta = Mistake(
            "v has a beta of its own, 0.95", 0.9 * v + 0.1 * g**2
        )
        same(got[2], new_v, "v", [no_square, other_beta])
        mistakes = _step_mistakes(w, new_m, new_v, t, decay)
        same(got[0], _stepped(w, new_m, new_v, t, decay), "w", mistakes)
    return "the first step has the length of the rate, whatever the gradient"


def _stepped(w: Tensor, m: Tensor, v: Tensor, t: int, decay: float) -> Tensor:
    mean, size = m / (1 - 0.9**t), (v / (1 - 0.95**t)).sqrt() + 1e-8
    return w - 0.01 * (mean / size + decay * w)


def _step_mistakes(
    w: Tensor, m: Tensor, v: Tensor, t: int, decay: float
) -> list[Mistake]:
    mean, square = m / (1 - 0.9**t), v / (1 - 0.95**t)
    pull = decay * w
    return [
        Mistake(
            "the correction is missing: both means began at 0",
            w - 0.01 * (m / v.sqrt() + pull),
        ),
        Mistake(
            "divide by the square root of v", w - 0.01 * (mean / square + pull)
        ),
        Mistake(
            "the weight decay is missing", w - 0.01 * mean / square.sqrt()
        ),
        Mistake(
            "the decay should be a part of the step too: times the rate",
            w - 0.01 * mean / square.sqrt() - pull,
        ),
        Mistake(
            "the step goes against the gradient, and so does the pull",
            w + 0.01 * (mean / square.sqrt() + pull),
        ),
        Mistake(
            "the decay pulls towards 0: it is subtracted",
            w - 0.01 * (mean / square.sqrt() - pull),
        ),
        Mistake(
            "the correction of v comes before the root",
            w - 0.01 * (mean / (v.sqrt() / (1 - 0.95**t)) + pull),
        ),
    ]


@exercise("thousandfold")
def thousandfold(answer: Any) -> str:
    """Exercise 12.1: by what a step grows with a loss 1,000 times as large."""
    what = "three factors: descent, AdamW, and descent after clipping"
    factors = [float(one) for one in unpack(answer, 3, what)]
    always = Mistake("the gradient is 1,000 times as large, not equal", 1.0)
    root = Mistake("the root is of v, and m has grown as well", 1000**0.5)
    same(factors[0], 1000.0, "the factor of plain descent", [always])
    adam = [
        Mistake("the size, by which AdamW divides, has grown as well", 1000.0),
        Mistake("m has grown as well as the root of v", 0.001),
        root,
    ]
    same(factors[1], 1.0, "the factor of AdamW", adam)
    clipped = Mistake(
        "clipping scales a gradient longer than 1 down to 1, however long it "
        "was",
        1000.0,
    )
    same(factors[2], 1.0, "the factor after clipping", [clipped])
    return "only plain descent notices, and clipping hides it even there"


@exercise("orthogonalise")
def orthogonalise(answer: Any) -> str:
    """Chapter 12, on the way: all directions of a matrix equally strong."""
    torch.manual_seed(12)
    for shape in ((4, 4), (6, 3), (3, 8)):
        matrix = torch.randn(shape)
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        got = call(answer, matrix)
        if not isinstance(got, Tensor) or got.shape != matrix.shape:
            same(got, matrix, "the result")
        mistakes = [
            Mistake("the matrix has come back as it was", matrix),
            Mistake("that is only scaled", matrix / matrix.norm()),
            Mistake("that is only scaled", matrix / s[0]),
            Mistake(
                "the sign of each entry says nothing about directions",
                matrix.sign(),
            ),
        ]
        strengths = torch.linalg.svdvals(u.T @ got.float().detach() @ v.T)
        if not 0.6 <= float(strengths.min()) <= float(strengths.max()) <= 1.3:
            same(got.float(), u @ v, f"the result for {shape}", mistakes)
        turned = u.T @ got.float() @ v.T
        same(
            turned - turned.diagonal().diag(),
            torch.zeros_like(turned),
            "what is off the diagonal in the matrix's own directions",
            tolerance=0.05,
        )
    return "every direction of the matrix is still there, with one strength"


@exercise("same-story")
def same_story(answer: Any) -> str:
    """Exercise 12.2: the mask of a packed row whose stories are alone."""
    for ids in ([3, 1, 9, 2, 2, 4, 9, 5], [9, 6, 9, 9, 1, 2], [4, 1, 3]):
        row = torch.tensor(ids)
        number = (row == 9).cumsum(0)
        # The end of text, put into the story before it.
        late = number - (row == 9).long()
        right = (number[:, None] == number).tril()
        mistakes = [
            Mistake(
                "a position looks ahead; the mask must stay causal",
                number[:, None] == number,
            ),
            Mistake(
                "the stories still see those to their left",
                torch.ones_like(right).tril(),
            ),
            Mistake(
                "an end of text belongs to the story after it",
                (late[:, None] == late).tril(),
            ),
            Mistake("a position may look at itself, too", right.tril(-1)),
            Mistake("true is where a position may look", ~right),
            Mistake("rows ask, and columns are looked at", right.T),
        ]
        got = call(answer, row, 9)
        same(got, right, f"the mask of {ids} with 9 as the end", mistakes)
    return "a packed row, in which each story is as if alone"


@exercise("batch-floor")
def batch_floor(answer: Any) -> str:
    """Exercise 12.3: the lowest loss on a batch that is known by heart."""
    for rows in BATCHES:
        n, length = len(rows), len(rows[0]) - 1
        got = number(call(answer, torch.tensor(rows)))
        total = -sum(math.log(rows.count(row) / n) for row in rows)
        right = total / (n * length)
        mistakes = _floor_mistakes(rows, right)
        what = f"the floor of {n} rows with {length} tokens to predict"
        same(got, right, what, mistakes)
    return "where rows part does not matter, only how many are equal"


# Rows that part at once, rows that part twice, and rows that are equal.
BATCHES: tuple[list[list[int]], ...] = (
    [[0, 5, 1, 2], [0, 6, 1, 2], [0, 7, 3, 3]],
    [[0, 5, 5, 1, 1], [0, 5, 5, 1, 2], [0, 6, 5, 1, 3], [0, 6, 5, 1, 4]],
    [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 6]],
)


def _floor_mistakes(rows: list[list[int]], right: float) -> list[Mistake]:
    n, length = len(rows), len(rows[0]) - 1
    first = [row[1] for row in rows]
    of_first = -sum(math.log(first.count(t) / n) for t in first) / n
    columns = list(zip(*rows, strict=True))[1:]
    blind = [
        -sum(math.log(column.count(t) / n) for t in column) / n
        for column in columns
    ]
    return [
        Mistake("a model with a mask cannot know which row it is in", 0.0),
        Mistake(
            "that is for a whole row; the loss is a mean over its tokens",
            right * length,
        ),
        Mistake("that is the sum; the loss is a mean", right * n * length),
        Mistake(
            "the first token is read and not predicted, so it does not count",
            right * length / (length + 1),
        ),
        Mistake("that is in bits; take ln", right / math.log(2)),
        Mistake(
            "equal rows need not be told apart: what counts is the share of "
            "the batch that is equal to a row",
            math.log(n) / length,
        ),
        Mistake(
            "rows may also part after their first token",
            of_first / length,
        ),
        Mistake(
            "whoever has read a row up to here knows which rows are left; you "
            "look at each position by itself",
            sum(blind) / length,
        ),
    ]


@exercise("plateau-rate")
def plateau_rate(answer: Any) -> str:
    """Exercise 12.4: up in a line, level, and down in a line."""
    for n_steps, n_warmup, n_decay in ((10, 4, 2), (31, 5, 7), (8, 1, 3)):
        got = []
        for step in range(n_steps):
            rate = call(answer, step, n_steps, n_warmup, n_decay)
            if not isinstance(rate, int | float):
                raise NotYet(f"expected a number; got {rate!r}")
            got.append(float(rate))
        steps = torch.arange(n_steps)
        up, down = (steps + 1) / n_warmup, (n_steps - steps) / n_decay
        what = (
            f"the rate ({n_steps} steps, {n_warmup} of warm-up, {n_decay} of "
            "decay)"
        )
        mistakes = _rate_mistakes(up, down, n_warmup, n_decay)
        right = up.minimum(down).clamp(max=1)
        same(torch.tensor(got), right, what, mistakes)
    return "you can still extend the run until the rate begins to fall"


def _rate_mistakes(
    up: Tensor, down: Tensor, n_warmup: int, n_decay: int
) -> list[Mistake]:
    steps = torch.arange(len(up))
    early = (len(up) - steps) / (len(up) - n_warmup)
    return [
        Mistake("the rate does not fall at the end", up.clamp(max=1)),
        Mistake("the warm-up is missing", down.clamp(max=1)),
        Mistake(
            "your warm-up begins at 0 and wastes the first step; step 0 "
            "should have 1 / n_warmup",
            (steps / n_warmup).minimum(down).clamp(max=1),
        ),
        Mistake(
            "your last step has 0 and is wasted; it should have 1 / n_decay",
            up.minimum(down - 1 / n_decay).clamp(max=1),
        ),
        Mistake(
            "your rate falls right after the warm-up; it should fall in the "
            "last n_decay steps only",
            torch.where(steps < n_warmup, up.clamp(max=1), early),
        ),
        Mistake(
            "your rate goes above 1: the plateau is missing", up.minimum(down)
        ),
    ]
