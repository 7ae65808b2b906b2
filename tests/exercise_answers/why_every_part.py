"""Right and wrong answers to the exercises of chapter 14."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Answers = tuple[object, dict[str, object]]


def no_positions(model: Any) -> None:
    """Answer the first try."""
    model.wpe.weight.requires_grad_(False).zero_()


def new_table(model: Any) -> None:
    """Answer the first try with another table."""
    model.wpe.weight = nn.Parameter(torch.zeros_like(model.wpe.weight))


def own_forward(model: Any) -> None:
    """Answer the first try with another function."""
    width = model.config.n_embd
    model.wpe.forward = lambda positions: torch.zeros(len(positions), width)


def mean_position(model: Any) -> None:
    """Leave the mean of the positions."""
    table = model.wpe.weight
    table.copy_(table.mean(dim=0).expand_as(table))


def honest(
    model: Any, rows: Tensor, lengths: Sequence[int], shift: int = 0
) -> Tensor:
    """Answer the second try, or ask for another token."""
    losses = [
        F.cross_entropy(model(rows[:, :n], last_only=True), rows[:, n + shift])
        for n in lengths
    ]
    return torch.stack(losses).mean()


def honest_by_hand(model: Any, rows: Tensor, lengths: Sequence[int]) -> float:
    """Answer the second try one row and one length at a time."""
    total = 0.0
    for row in rows:
        for n in lengths:
            log_p = model(row[None, :n])[0, -1].log_softmax(0)
            total -= log_p[row[n]].item()
    return total / len(rows) / len(lengths)


def absorbed(
    weight: Tensor,
    bias: Tensor,
    n_head: int,
    factor: float | None = None,
    both: bool = False,
    with_bias: bool = True,
) -> tuple[Tensor, Tensor]:
    """Answer exercise 14.2, or with some mistake."""
    width = weight.size(0)
    if factor is None:
        factor = (width // n_head) ** -0.5
    factors = torch.ones(3 * width)
    factors[: 2 * width if both else width] = factor
    return weight * factors, bias * factors if with_bias else bias


def folded(
    w_1: Tensor, b_1: Tensor, w_2: Tensor, b_2: Tensor
) -> tuple[Tensor, Tensor]:
    """Answer exercise 14.3."""
    return w_1 @ w_2, b_1 @ w_2 + b_2


def fixed(x: Tensor, sigma: float, weight: Tensor, bias: Tensor) -> Tensor:
    """Answer exercise 14.4."""
    return (x - x.mean(-1, keepdim=True)) / sigma * weight + bias


ANSWERS: dict[str, Answers] = {
    "bag-of-words": (
        (False, True),
        {
            "has no order": (True, True),
            "who sees whom": (False, False),
            "expected True or False": ("no", "yes"),
            "expected two truth values": True,
        },
    ),
    "without-positions": (
        no_positions,
        {
            "nothing has changed": lambda model: no_positions(
                copy.deepcopy(model)
            ),
            "the table of the tokens": lambda model: model.wte.weight.zero_(),
            "the same row": mean_position,
            "does not run": lambda model: delattr(model, "wpe"),
            "a logit is": lambda model: model.wpe.weight.mul_(0.5),
        },
    ),
    "honest-loss": (
        honest,
        {
            "still sees": lambda model, rows, lengths: (
                sum(
                    F.cross_entropy(model(rows)[:, n - 1], rows[:, n])
                    for n in lengths
                )
                / len(lengths)
            ),
            "was handed over": lambda model, rows, lengths: honest(
                model, rows, lengths, shift=-1
            ),
            "after the next": lambda model, rows, lengths: honest(
                model, rows, lengths, shift=1
            ),
            "the first guess": lambda model, rows, lengths: (
                sum(
                    F.cross_entropy(model(rows[:, :n])[:, 0], rows[:, n])
                    for n in lengths
                )
                / len(lengths)
            ),
            "take the mean": lambda model, rows, lengths: (
                honest(model, rows, lengths) * len(lengths)
            ),
        },
    ),
    "absorbed-scale": (
        absorbed,
        {
            "nothing has changed": lambda w, b, h: (w, b),
            "divided by D instead of √D": lambda w, b, h: absorbed(
                w, b, h, both=True
            ),
            "divided by √C": lambda w, b, h: absorbed(
                w, b, h, factor=w.size(0) ** -0.5
            ),
            "multiply by the scale": lambda w, b, h: absorbed(
                w, b, h, factor=math.sqrt(w.size(0) // h)
            ),
            "divide it too": lambda w, b, h: absorbed(
                w, b, h, with_bias=False
            ),
            "the values have changed": lambda w, b, h: (w / 2, b / 2),
            "should keep its shape": lambda w, b, h: (w[:, : w.size(0)], b),
            "expected two things": lambda w, b, h: w,
        },
    ),
    "folded-feed-forward": (
        folded,
        {
            "wrong order": lambda w_1, b_1, w_2, b_2: (w_2 @ w_1, b_2),
            "transposed": lambda w_1, b_1, w_2, b_2: ((w_1 @ w_2).T, b_2),
            "through the second map": lambda w_1, b_1, w_2, b_2: (
                w_1 @ w_2,
                b_2,
            ),
            "still to be added": lambda w_1, b_1, w_2, b_2: (
                w_1 @ w_2,
                b_1 @ w_2,
            ),
            "raises RuntimeError": lambda w_1, b_1, w_2, b_2: (
                w_1 @ w_2,
                b_1 + b_2,
            ),
            "expected two things": lambda w_1, b_1, w_2, b_2: w_1 @ w_2,
        },
    ),
    "fixed-norm": (
        fixed,
        {
            "own deviation": lambda x, s, w, b: fixed(
                x, x.std(-1, keepdim=True, correction=0), w, b
            ),
            "still to be subtracted": lambda x, s, w, b: x / s * w + b,
            "one mean from all": lambda x, s, w, b: (x - x.mean()) / s * w + b,
            "not a variance": lambda x, s, w, b: fixed(x, math.sqrt(s), w, b),
            "still to be applied": lambda x, s, w, b: fixed(x, s, 1, 0),
            "not multiplied": lambda x, s, w, b: (fixed(x, s, 1, 0) + b) * w,
            "after the division": lambda x, s, w, b: fixed(x, s, w, b / s),
        },
    ),
}

# More right answers, of other forms.
ALSO_RIGHT: dict[str, list[object]] = {
    "without-positions": [new_table, own_forward],
    "honest-loss": [honest_by_hand],
    "absorbed-scale": [lambda w, b, h: list(absorbed(w, b, h))],
    "folded-feed-forward": [
        lambda w_1, b_1, w_2, b_2: ((w_2.T @ w_1.T).T, b_2 + w_2.T @ b_1)
    ],
    "fixed-norm": [lambda x, s, w, b: b + w / s * (x - x.mean(-1)[..., None])],
}
