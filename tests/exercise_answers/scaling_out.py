"""Right and wrong answers to the exercises of chapter 17."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Answers = tuple[object, dict[str, object]]


def best_size(
    flops: float, A: float, alpha: float, B: float, beta: float
) -> float:
    """Answer exercise 17.2."""
    power = 1 / (alpha + beta)
    return float((alpha * A / (beta * B) * (flops / 6) ** beta) ** power)


def reorder(weight: Tensor, n_head: int) -> Tensor:
    """Answer exercise 17.3."""
    columns = weight.unflatten(1, (n_head, -1, 2))
    return columns.transpose(-1, -2).flatten(1)


def backwards(weight: Tensor, n_head: int) -> Tensor:
    """Take halves to neighbours."""
    columns = weight.unflatten(1, (n_head, 2, -1))
    return columns.transpose(-1, -2).flatten(1)


def normed_scores(query: Tensor, key: Tensor) -> Tensor:
    """Answer exercise 17.5."""
    size = query.size(-1)
    q, k = (F.rms_norm(x, (size,), eps=1e-5) for x in (query, key))
    return q @ k.transpose(-2, -1) / math.sqrt(size)


def scores(query: Tensor, key: Tensor) -> Tensor:
    """Do not norm at all."""
    return query @ key.mT / math.sqrt(query.size(-1))


ANSWERS: dict[str, Answers] = {
    "compute-optimal": (
        best_size,
        {
            "the number of tokens": lambda f, *rest: (
                f / 6 / best_size(f, *rest)
            ),
            "not N D": lambda f, *rest: best_size(6 * f, *rest),
            "the forward pass": lambda f, *rest: best_size(3 * f, *rest),
            "the derivative brings down": lambda f, a, x, b, y: best_size(
                f, a / x, x, b / y, y
            ),
            "N stands to the power": lambda f, a, x, b, y: (
                x * a / (y * b) * (f / 6) ** y
            ),
            "beta B are swapped": lambda f, a, x, b, y: (
                (y * b / (x * a) * (f / 6) ** y) ** (1 / (x + y))
            ),
            "raise the FLOPs to alpha": lambda f, a, x, b, y: (
                (x * a / (y * b) * (f / 6) ** x) ** (1 / (x + y))
            ),
            "the size for 5e+20 FLOPs": lambda f, *rest: math.sqrt(f / 6 / 20),
            "is 'many'": lambda *given: "many",
            "expected a function": 1e9,
        },
    ),
    "rotary-halves": (
        reorder,
        {
            "where they were": lambda weight, n_head: weight.clone(),
            "wrong way round": backwards,
            "of the whole width": lambda weight, n_head: reorder(weight, 1),
            "are swapped": lambda weight, n_head: reorder(
                weight.unflatten(1, (-1, 2)).flip(-1).flatten(1), n_head
            ),
            "you reorder the rows": lambda weight, n_head: (
                reorder(weight.T, n_head).T
            ),
            "has shape": lambda weight, n_head: reorder(
                weight, n_head
            ).unflatten(1, (n_head, -1)),
            "raises": lambda weight, n_head: weight.view(n_head, 2, 99),
        },
    ),
    "normed-scores": (
        normed_scores,
        {
            "nothing is normalised": scores,
            "by √D is missing": lambda q, k: (
                normed_scores(q, k) * math.sqrt(q.size(-1))
            ),
            "you divide by D": lambda q, k: (
                normed_scores(q, k) / math.sqrt(q.size(-1))
            ),
            "length 1": lambda q, k: scores(
                F.normalize(q, dim=-1), F.normalize(k, dim=-1)
            ),
            "layer norm": lambda q, k: scores(
                F.layer_norm(q, q.shape[-1:]), F.layer_norm(k, k.shape[-1:])
            ),
            "only the queries": lambda q, k: scores(
                F.rms_norm(q, q.shape[-1:], eps=1e-5), k
            ),
            "over the positions": lambda q, k: scores(
                q / q.square().mean(-2, keepdim=True).sqrt(),
                k / k.square().mean(-2, keepdim=True).sqrt(),
            ),
            "over the heads": lambda q, k: scores(
                q / q.square().mean((1, 3), keepdim=True).sqrt(),
                k / k.square().mean((1, 3), keepdim=True).sqrt(),
            ),
            "softmax": lambda q, k: torch.softmax(normed_scores(q, k), -1),
            "the `return`": lambda q, k: None,
        },
    ),
}
