"""Right and wrong answers to the exercises of chapter 12."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Answers = tuple[object, dict[str, object]]


def weighted(count: Callable[[Tensor], float]) -> Callable[..., Tensor]:
    """Answer exercise 12.3, with this number of tokens for each mask."""

    def whole_loss(losses: Tensor, masks: list[Tensor]) -> Tensor:
        counts = torch.tensor([float(count(mask)) for mask in masks])
        return (losses * counts).sum() / counts.sum()

    return whole_loss


def plateau(
    first: int = 1, last: int = 0, top: float = 1.0
) -> Callable[..., float]:
    """Answer exercise 12.4, with lines that may be shifted."""

    def rate(step: int, n_steps: int, n_warmup: int, n_decay: int) -> float:
        rising = (step + first) / n_warmup
        falling = (n_steps - last - step) / n_decay
        return min(top, rising, falling)

    return rate


ANSWERS: dict[str, Answers] = {
    "uncorrected-step": (
        lambda b1, b2, t: (1 - b1**t) / math.sqrt(1 - b2**t),
        {
            "by the square root of v": lambda b1, b2, t: (
                (1 - b1**t) / (1 - b2**t)
            ),
            "swapped": lambda b1, b2, t: (1 - b2**t) / math.sqrt(1 - b1**t),
            "the corrected step": lambda b1, b2, t: 1,
            "whatever t is": lambda b1, b2, t: (1 - b1) / math.sqrt(1 - b2),
            "m over √v": lambda b1, b2, t: math.sqrt(1 - b2**t) / (1 - b1**t),
            "the weight of the initial value": lambda b1, b2, t: (
                b1**t / math.sqrt(b2**t)
            ),
            "raises ZeroDivisionError": lambda b1, b2, t: (
                (1 - b1 ** (t - 1)) / math.sqrt(1 - b2 ** (t - 1))
            ),
        },
    ),
    "whole-loss": (
        weighted(lambda mask: mask[:, 1:].sum().item()),
        {
            "mean of the means": lambda losses, masks: losses.mean(),
            "read and not predicted": weighted(lambda mask: mask.sum().item()),
            "weight the parts by their rows": weighted(len),
            "the padding too; the masks": weighted(lambda mask: mask.numel()),
            "leave out the first column": weighted(
                lambda mask: mask[:, 1:].numel()
            ),
            "the sum of the losses": lambda losses, masks: (
                losses
                * torch.tensor([mask[:, 1:].sum().item() for mask in masks])
            ).sum(),
        },
    ),
    "plateau-rate": (
        plateau(),
        {
            "does not fall": lambda step, n, warmup, decay: min(
                1.0, (step + 1) / warmup
            ),
            "the warm-up is missing": lambda step, n, warmup, decay: min(
                1.0, (n - step) / decay
            ),
            "begins at 0": plateau(first=0),
            "has 0 and is wasted": plateau(last=1),
            "right after the warm-up": lambda step, n, warmup, decay: (
                (step + 1) / warmup
                if step < warmup
                else (n - step) / (n - warmup)
            ),
            "goes above 1": plateau(top=math.inf),
            "expected a number": lambda step, n, warmup, decay: "1",
        },
    ),
}
