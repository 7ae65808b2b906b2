"""Right and wrong answers to the exercises of chapter 14."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Answers = tuple[object, dict[str, object]]


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
        },
    ),
}
