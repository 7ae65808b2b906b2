"""Right and wrong answers to the exercises of chapter 9."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Answers = tuple[object, dict[str, object]]
Forbid = Callable[[Tensor, Tensor, int], Tensor]


def forbid(logits: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Answer exercise 9.3."""
    ids, logits = tokens[0].tolist(), logits.clone()
    begun = ids[len(ids) - n + 1 :]
    for i in range(len(ids) - n + 1):
        if ids[i : i + n - 1] == begun:
            logits[0, ids[i + n - 1]] = -math.inf
    return logits


def shifted(by: int) -> Forbid:
    """Answer for a run of another length."""
    return lambda logits, tokens, n: forbid(logits, tokens, max(n + by, 1))


def first_place(logits: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Stop at the first place."""
    ids, logits = tokens[0].tolist(), logits.clone()
    begun = ids[len(ids) - n + 1 :]
    for i in range(len(ids) - n + 1):
        if ids[i : i + n - 1] == begun:
            logits[0, ids[i + n - 1]] = -math.inf
            break
    return logits


def no_overlap(logits: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Stop one place too early."""
    ids, logits = tokens[0].tolist(), logits.clone()
    begun = ids[len(ids) - n + 1 :]
    for i in range(len(ids) - n):
        if ids[i : i + n - 1] == begun:
            logits[0, ids[i + n - 1]] = -math.inf
    return logits


def too_far(logits: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Look one place too far."""
    ids, logits = tokens[0].tolist(), logits.clone()
    begun = ids[len(ids) - n + 1 :]
    for i in range(len(ids)):
        if ids[i : i + n - 1] == begun:
            logits[0, ids[i + n - 1]] = -math.inf
    return logits


def in_place(logits: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Change what was given."""
    logits.copy_(forbid(logits, tokens, n))
    return logits


ANSWERS: dict[str, Answers] = {
    "heat-and-cut": (
        torch.tensor([0.75, 0.15, 0.10]),
        {
            "still 0.75": [0.9, 0.1, 0.0],
            "it takes two even before": [0.6, 0.3, 0.1],
            "all 3 tokens are left": torch.ones(3) / 3,
            "add up to 1.5": [0.5, 0.5, 0.5],
            "those are logarithms": torch.tensor([0.75, 0.15, 0.10]).log(),
            "cannot be negative": [1.2, -0.1, -0.1],
            "expected three probabilities; got 2": [0.8, 0.2],
            "probabilities; got '0.75": "0.75, 0.15, 0.10",
        },
    ),
    "repeated-runs": (
        forbid,
        {
            "0 is a good logit": lambda logits, tokens, n: forbid(
                logits, tokens, n
            ).nan_to_num(neginf=0.0),
            "one token too long": shifted(1),
            "forbid too much": shifted(-1),
            "every token of the text": lambda logits, tokens, n: forbid(
                logits, tokens, 1
            ),
            "stop at the first place": first_place,
            "may overlap": no_overlap,
            "raises IndexError": too_far,
            "forbid nothing": lambda logits, tokens, n: logits,
            "modifies a tensor": in_place,
        },
    ),
}
