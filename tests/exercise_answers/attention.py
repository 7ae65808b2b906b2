"""Right and wrong answers to the exercises of chapter 4."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gpt2.attention import causal_mask
from gpt2_book.exercises.ch04_attention import QUERY

Answers = tuple[object, dict[str, object]]


def window(n: int, width: int) -> Tensor:
    """Answer exercise 4.3."""
    return causal_mask(n, n) & torch.ones(n, n).triu(1 - width).bool()


def turned(*row: float) -> Tensor:
    """Answer exercise 4.5 with this last row."""
    return torch.cat([QUERY[:2], torch.tensor([row])])


ANSWERS: dict[str, Answers] = {
    "key-bias": (
        lambda query, bias: query @ bias / math.sqrt(len(bias)),
        {
            "scores are divided by √D": lambda q, b: q @ b,
            "not by D": lambda q, b: q @ b / len(b),
            "minus": lambda q, b: -q @ b / math.sqrt(len(b)),
            "one number for each query": lambda q, b: (
                q * b / math.sqrt(len(b))
            ),
            "raises RuntimeError": lambda q, b: q.T @ b,
            "expected a function": 0,
        },
    ),
    "window-mask": (
        window,
        {
            "too wide": lambda n, width: window(n, width + 1),
            "too narrow": lambda n, width: window(n, width - 1),
            "the future": lambda n, width: (
                torch.ones(n, n).triu(1 - width).bool()
            ),
            "both ways": lambda n, width: (
                window(n, width) | window(n, width).T
            ),
            "the window is missing": lambda n, width: causal_mask(n, n),
            "swapped": lambda n, width: ~window(n, width),
            "dtype torch.float32": lambda n, width: window(n, width).float(),
        },
    ),
    "turned-query": (
        turned(3.0, 1.0),
        {
            "only longer": QUERY * torch.tensor([[1.0], [1.0], [100.0]]),
            "the shape of": QUERY[2],
            "that should stay": 3 * turned(3.0, 1.0),
            "lost gets": turned(0.0, 3.0),
            "her gets": turned(0.0, -3.0),
            "a longer query": turned(0.3, 0.1),
        },
    ),
}
