"""Right and wrong answers to the exercises of chapter 12."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Answers = tuple[object, dict[str, object]]


def batch_floor(rows: Tensor) -> float:
    """Answer exercise 12.3."""
    told = [tuple(row) for row in rows.tolist()]
    shares = [told.count(row) / len(told) for row in told]
    return -sum(map(math.log, shares)) / rows[:, 1:].numel()


def batch_floor_by_tokens(rows: Tensor) -> float:
    """Answer exercise 12.3 token by token, as a loss is computed."""
    surprises = []
    for row in rows:
        left = rows
        for place, token in enumerate(row[1:], start=1):
            fitting = left[left[:, place] == token]
            surprises.append(math.log(len(left) / len(fitting)))
            left = fitting
    return sum(surprises) / len(surprises)


def alone(row: Tensor, end: int) -> Tensor:
    """Answer exercise 12.2 position by position."""
    mask = torch.zeros(len(row), len(row), dtype=torch.bool)
    for i in range(len(row)):
        for j in range(i, -1, -1):
            mask[i, j] = True
            if row[j] == end:
                break
    return mask


def of_columns(columns: Tensor) -> float:
    """Return the mean entropy of columns, each by itself."""
    entropies = [
        torch.distributions.Categorical(column.bincount().float()).entropy()
        for column in columns.T
    ]
    return float(sum(entropies))


def plateau(
    first: int = 1, last: int = 0, top: float = 1.0
) -> Callable[..., float]:
    """Answer exercise 12.4, with lines that may be shifted."""

    def rate(step: int, n_steps: int, n_warmup: int, n_decay: int) -> float:
        rising = (step + first) / n_warmup
        falling = (n_steps - last - step) / n_decay
        return min(top, rising, falling)

    return rate


def adamw(change: Any = None) -> Any:
    """Answer the try-it of AdamW, with another step if asked."""

    def answer(
        w: Tensor,
        g: Tensor,
        m: Tensor,
        v: Tensor,
        t: int,
        rate: float,
        decay: float,
    ) -> Any:
        m, v = m.lerp(g, 0.1), v.lerp(g * g, 0.05)
        mean, square = m / (1 - 0.9**t), v / (1 - 0.95**t)
        if change is None:
            return w * (1 - rate * decay) - rate * mean / square.sqrt(), m, v
        return change(w, mean, square, rate, decay, m, v), m, v

    return answer


def svd(matrix: Tensor) -> Tensor:
    """Answer the try-it of Muon exactly."""
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return u @ v


ANSWERS: dict[str, Answers] = {
    "thousandfold": (
        (1000, 1, 1),
        {
            "not equal": (1, 1, 1),
            "has grown as well": (1000, 1000, 1),
            "as well as the root": (1000, 0.001, 1),
            "however long": (1000, 1, 1000.0),
            "expected three factors": 1000,
        },
    ),
    "adamw-step": (
        adamw(),
        {
            "correction is missing": adamw(
                lambda w, a, b, rate, decay, m, v: (
                    w - rate * (m / v.sqrt() + decay * w)
                )
            ),
            "square root of v": adamw(
                lambda w, a, b, rate, decay, m, v: (
                    w - rate * (a / b + decay * w)
                )
            ),
            "decay is missing": adamw(
                lambda w, a, b, rate, decay, m, v: w - rate * a / b.sqrt()
            ),
            "times the rate": adamw(
                lambda w, a, b, rate, decay, m, v: (
                    w - rate * a / b.sqrt() - decay * w
                )
            ),
            "against the gradient": adamw(
                lambda w, a, b, rate, decay, m, v: (
                    w + rate * (a / b.sqrt() + decay * w)
                )
            ),
            "it is subtracted": adamw(
                lambda w, a, b, rate, decay, m, v: (
                    w - rate * (a / b.sqrt() - decay * w)
                )
            ),
            "share of the old mean": lambda w, g, m, v, t, rate, decay: (
                w,
                0.1 * m + 0.9 * g,
                v,
            ),
            "gone into the gradient": lambda w, g, m, v, t, rate, decay: (
                adamw()(w, g + decay * w, m, v, t, rate, 0.0)
            ),
            "a beta of its own": lambda w, g, m, v, t, rate, decay: (
                w,
                m.lerp(g, 0.1),
                v.lerp(g * g, 0.1),
            ),
            "gradient's square": lambda w, g, m, v, t, rate, decay: (
                w,
                m.lerp(g, 0.1),
                v.lerp(g, 0.05),
            ),
            "expected three tensors": lambda w, g, m, v, t, rate, decay: w,
        },
    ),
    "orthogonalise": (
        svd,
        {
            "as it was": lambda x: x,
            "only scaled": lambda x: x / x.norm(),
            "says nothing about directions": lambda x: x.sign(),
            "has shape": lambda x: svd(x).T if len(x) != x.size(1) else svd(x),
            "off the diagonal": lambda x: svd(torch.flip(x, [0])),
        },
    ),
    "same-story": (
        alone,
        {
            "must stay causal": lambda row, end: (
                alone(row, end) | alone(row, end).T
            ),
            "to their left": lambda row, end: torch.ones(
                len(row), len(row), dtype=torch.bool
            ).tril(),
            "the story after it": lambda row, end: alone(
                torch.cat([row[:1] * 0, row[:-1]]), end
            ),
            "at itself": lambda row, end: alone(row, end).tril(-1),
            "may look": lambda row, end: ~alone(row, end),
            "columns are looked at": lambda row, end: alone(row, end).T,
            "has shape": lambda row, end: alone(row, end)[0],
        },
    ),
    "batch-floor": (
        batch_floor,
        {
            "which row it is in": lambda rows: 0,
            "for a whole row": lambda rows: (
                batch_floor(rows) * rows[:, 1:].size(1)
            ),
            "that is the sum": lambda rows: (
                batch_floor(rows) * rows[:, 1:].numel()
            ),
            "read and not predicted": lambda rows: (
                batch_floor(rows) * rows[:, 1:].numel() / rows.numel()
            ),
            "in bits": lambda rows: batch_floor(rows) / math.log(2),
            "need not be told apart": lambda rows: (
                math.log(len(rows)) / rows[:, 1:].size(1)
            ),
            "after their first token": lambda rows: (
                of_columns(rows[:, 1:2]) / rows[:, 1:].size(1)
            ),
            "each position by itself": lambda rows: (
                of_columns(rows[:, 1:]) / rows[:, 1:].size(1)
            ),
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

# More right answers, of other forms.
ALSO_RIGHT: dict[str, list[object]] = {
    "batch-floor": [
        batch_floor_by_tokens,
        lambda rows: torch.tensor(batch_floor(rows)),
    ],
}
