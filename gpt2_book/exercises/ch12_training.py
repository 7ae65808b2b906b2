"""The exercises of chapter 12."""

from __future__ import annotations

import math
from typing import Any

import torch

from gpt2_book.exercises.checking import NotYet, call, exercise, same


@exercise("uncorrected-step")
def uncorrected_step(answer: Any) -> str:
    """Exercise 12.2: the steps of an Adam that corrects nothing."""
    for beta_1, beta_2, t in ((0.9, 0.95, 1), (0.9, 0.999, 7), (0.8, 0.9, 3)):
        m, v = 1 - beta_1**t, 1 - beta_2**t
        mistakes = {
            "it is the root of v by which m is divided": m / v,
            "the betas are exchanged: m has the first": (
                (1 - beta_2**t) / math.sqrt(1 - beta_1**t)
            ),
            "that is the corrected step; without the correction the means "
            "are too small": 1.0,
            "that is the first step, whatever t is": (
                (1 - beta_1) / math.sqrt(1 - beta_2)
            ),
            "steps count from 1: after the first, the power is 1": (
                (1 - beta_1 ** (t - 1)) / math.sqrt(1 - beta_2 ** (t - 1))
                if t > 1
                else 0.0
            ),
            "that is the root of v over m; the step is m over the root of "
            "v": math.sqrt(v) / m,
            "beta to the power of t is the share of the beginning; what has "
            "come since is the rest": beta_1**t / math.sqrt(beta_2**t),
        }
        came = call(answer, beta_1, beta_2, t)
        what = f"step {t} with betas {beta_1} and {beta_2}"
        same(came, m / math.sqrt(v), what, mistakes)
    return "in the long run it tends to 1, from whichever side"


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
        counts = {
            "": [sum(length - 1 for length in part) for part in lengths],
            "that is the mean of the means: a part counts for as many tokens "
            "as it predicts": [1] * len(masks),
            "the first token of a row is read and not predicted, so it does "
            "not count": [sum(part) for part in lengths],
            "parts are weighted by their rows; what counts are the tokens "
            "that are predicted": [len(part) for part in lengths],
            "the padding counts too; the masks say what is real": [
                mask.numel() for mask in masks
            ],
            "the padding counts too, though the first column does not": [
                mask[:, 1:].numel() for mask in masks
            ],
        }
        means = {
            why: (losses * torch.tensor(n).float()).sum() / sum(n)
            for why, n in counts.items()
        }
        expected = means.pop("")
        means["that is the sum of the losses; divide by the count of all"] = (
            losses * torch.tensor(counts[""]).float()
        ).sum()
        came = torch.as_tensor(call(answer, losses, masks)).float()
        same(came, expected, f"the loss of {len(masks)} parts", means)
    return "also where a part has one row, or none of its rows is padded"


@exercise("plateau-rate")
def plateau_rate(answer: Any) -> str:
    """Exercise 12.4: up in a line, level, and down in a line."""
    for n_steps, n_warmup, n_decay in ((10, 4, 2), (31, 5, 7), (8, 1, 3)):
        sizes = (n_steps, n_warmup, n_decay)
        came = []
        for step in range(n_steps):
            rate = call(answer, step, *sizes)
            if not isinstance(rate, int | float):
                raise NotYet(f"a number is wanted; got {rate!r}")
            came.append(float(rate))
        up = [min(1, (s + 1) / n_warmup) for s in range(n_steps)]
        down = [min(1, (n_steps - s) / n_decay) for s in range(n_steps)]
        expected = [min(pair) for pair in zip(up, down, strict=True)]
        what = f"{n_steps} steps, {n_warmup} of warm-up, {n_decay} of decay"
        mistakes = {
            "the last steps do not fall": up,
            "the warm-up is missing": down,
            "the warm-up begins at 0, so the first step is wasted: step 0 "
            "has 1 / n_warmup": [
                min(s / n_warmup, 1, rate) for s, rate in enumerate(down)
            ],
            "the last step has 0 and is wasted; it should have 1 / n_decay": [
                min(rate, (n_steps - 1 - s) / n_decay)
                for s, rate in enumerate(up)
            ],
            "the fall begins right after the warm-up; it should wait for the "
            "last n_decay steps": [
                rate if s < n_warmup else (n_steps - s) / (n_steps - n_warmup)
                for s, rate in enumerate(up)
            ],
            "the rate goes above 1: the plateau is missing": [
                min((s + 1) / n_warmup, (n_steps - s) / n_decay)
                for s in range(n_steps)
            ],
        }
        same(
            torch.tensor(came),
            torch.tensor(expected),
            f"the rate ({what})",
            {why: torch.tensor(wrong) for why, wrong in mistakes.items()},
        )
    return (
        "and a run can be lengthened for as long as it has not begun to fall"
    )
