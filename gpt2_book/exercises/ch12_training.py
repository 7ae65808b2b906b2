"""The exercises of chapter 12."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import Mistake, NotYet, call, exercise, same


@exercise("uncorrected-step")
def uncorrected_step(answer: Any) -> str:
    """Exercise 12.2: the steps of Adam without the bias correction."""
    for beta_1, beta_2, t in ((0.9, 0.95, 1), (0.9, 0.999, 7), (0.8, 0.9, 3)):
        m, v = 1 - beta_1**t, 1 - beta_2**t
        before = 0.0
        if t > 1:
            before = (1 - beta_1 ** (t - 1)) / math.sqrt(1 - beta_2 ** (t - 1))
        mistakes = [
            Mistake("divide m by the square root of v", m / v),
            Mistake(
                "the betas are swapped: the first belongs to m",
                (1 - beta_2**t) / math.sqrt(1 - beta_1**t),
            ),
            Mistake(
                "that is the corrected step; without the correction, the "
                "running means are too small",
                1.0,
            ),
            Mistake(
                "that is the first step, whatever t is",
                (1 - beta_1) / math.sqrt(1 - beta_2),
            ),
            Mistake(
                "steps count from 1: after the first step, the power is 1",
                before,
            ),
            Mistake(
                "that is √v over m; the step is m over √v", math.sqrt(v) / m
            ),
            Mistake(
                "beta to the power of t is the weight of the initial value; "
                "the gradients have the rest",
                beta_1**t / math.sqrt(beta_2**t),
            ),
        ]
        got = call(answer, beta_1, beta_2, t)
        what = f"step {t} with betas {beta_1} and {beta_2}"
        same(got, m / math.sqrt(v), what, mistakes)
    return "in the long run it tends to 1, from either side"


@exercise("whole-loss")
def whole_loss(answer: Any) -> str:
    """Exercise 12.3: the mean loss of a batch, from those of its parts."""
    torch.manual_seed(12)
    for lengths in (
        ((9, 3, 5), (2, 2), (7,)),
        ((4,), (2,)),
        ((6, 6), (5, 4, 3, 2), (11, 8), (2,)),
    ):
        masks = [
            torch.arange(max(part)) < torch.tensor(part)[:, None]
            for part in lengths
        ]
        losses = 3 + torch.randn(len(masks))
        counts = [sum(length - 1 for length in part) for part in lengths]
        got = torch.as_tensor(call(answer, losses, masks)).float()
        mistakes = _loss_mistakes(losses, counts, lengths, masks)
        what = f"the loss of {len(masks)} parts"
        same(got, _weighted(losses, counts), what, mistakes)
    return "also where a part has one row, or no padding"


def _weighted(losses: Tensor, counts: list[int]) -> Tensor:
    return (losses * torch.tensor(counts).float()).sum() / sum(counts)


def _loss_mistakes(
    losses: Tensor,
    counts: list[int],
    lengths: tuple[tuple[int, ...], ...],
    masks: list[Tensor],
) -> list[Mistake]:
    return [
        Mistake(
            "that is the mean of the means: weight each part by the number of "
            "tokens that it predicts",
            losses.mean(),
        ),
        Mistake(
            "the first token of a row is read and not predicted, so it does "
            "not count",
            _weighted(losses, [sum(part) for part in lengths]),
        ),
        Mistake(
            "you weight the parts by their rows; weight them by the tokens "
            "that they predict",
            _weighted(losses, [len(part) for part in lengths]),
        ),
        Mistake(
            "you count the padding too; the masks say which tokens are real",
            _weighted(losses, [mask.numel() for mask in masks]),
        ),
        Mistake(
            "you leave out the first column, but you still count the padding",
            _weighted(losses, [mask[:, 1:].numel() for mask in masks]),
        ),
        Mistake(
            "that is the sum of the losses; divide by the number of all "
            "predicted tokens",
            (losses * torch.tensor(counts).float()).sum(),
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
