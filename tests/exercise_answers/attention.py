"""Right and wrong answers to the exercises of chapter 4."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gpt2.attention import attention_weights, causal_mask
from gpt2_book.exercises.ch04_attention import QUERY

Answers = tuple[object, dict[str, object]]


def window(n: int, width: int) -> Tensor:
    """Answer exercise 4.3."""
    return causal_mask(n, n) & torch.ones(n, n).triu(1 - width).bool()


def turned(*row: float) -> Tensor:
    """Answer exercise 4.5 with this last row."""
    return torch.cat([QUERY[:2], torch.tensor([row])])


def shares(x: Tensor) -> Tensor:
    """Write the softmax out."""
    powers = (x - x.max(-1, keepdim=True).values).exp()
    return powers / powers.sum(-1, keepdim=True)


def scores(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the scaled scores, minus infinity where nobody may look."""
    scaled = q @ k.mT / math.sqrt(q.size(-1))
    return scaled if mask is None else scaled.masked_fill(~mask, -math.inf)


def written_out(
    query: Tensor, key: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Write the attention weights, as chapter 4 does."""
    return shares(scores(query, key, mask))


def with_minus_infinity(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """Add the mask, as a table of zeros and minus infinity."""
    if mask is None:
        return scores(q, k).softmax(-1)
    closed = torch.zeros(mask.shape).masked_fill(mask.logical_not(), -math.inf)
    return (scores(q, k) + closed).softmax(-1)


def shared_again(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """Set weights to zero, and share the rows out again."""
    weights = scores(q, k).softmax(-1)
    if mask is not None:
        weights = weights * mask
    return weights / weights.sum(-1, keepdim=True)


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
            "is what it was": QUERY.clone(),
            "the shape of": QUERY[2],
            "that should stay": 3 * turned(3.0, 1.0),
            "lost gets": turned(0.0, 3.0),
            "her gets": turned(0.0, -3.0),
            "a longer query": turned(0.3, 0.1),
        },
    ),
    "softmax": (
        shares,
        {
            "divide by the sum": lambda x: x.exp(),
            "raise e": lambda x: x / x.sum(-1, keepdim=True),
            "over the whole table": lambda x: x.exp() / x.exp().sum(),
            "columns add up": lambda x: x.softmax(max(x.dim() - 2, 0)),
            "powers of 2": lambda x: 2**x / (2**x).sum(-1, keepdim=True),
            "the logarithm": lambda x: x.log_softmax(-1),
            "400 and 399": lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
        },
    ),
    "attention-weights": (
        written_out,
        {
            "not scaled": lambda q, k, m: attention_weights(
                q * q.size(-1) ** 0.5, k, m
            ),
            "divide by its root": lambda q, k, m: attention_weights(
                q / q.size(-1) ** 0.5, k, m
            ),
            "multiplied by √D": lambda q, k, m: attention_weights(
                q * q.size(-1), k, m
            ),
            "changed places": lambda q, k, m: attention_weights(k, q, m),
            "softmax is missing": scores,
            "columns add up": lambda q, k, m: scores(q, k, m).softmax(-2),
            "not used": lambda q, k, m: attention_weights(q, k),
            "is set to 0": lambda q, k, m: (
                scores(q, k) * (1 if m is None else m)
            ).softmax(-1),
            "behind the softmax": lambda q, k, m: (
                attention_weights(q, k) * (1 if m is None else m)
            ),
            "ones and zeros": lambda q, k, m: (
                scores(q, k) + (0 if m is None else m)
            ).softmax(-1),
            "upside down": lambda q, k, m: scores(
                q, k, None if m is None else ~m
            ).softmax(-1),
            "raises RuntimeError": lambda q, k, m: q @ k,
        },
    ),
    "causal-mask": (
        causal_mask,
        {
            "upside down": lambda t, s: ~causal_mask(t, s),
            "at itself": lambda t, s: torch.ones(t, s).tril(s - t - 1).bool(),
            "one key of": lambda t, s: torch.ones(t, s).tril(s - t + 1).bool(),
            "that is the future": lambda t, s: (
                torch.ones(t, s).triu(s - t).bool()
            ),
            "not the first": lambda t, s: torch.ones(t, s).tril().bool(),
            "nothing is hidden": lambda t, s: torch.ones(t, s).bool(),
            "should be torch.bool": lambda t, s: causal_mask(t, s).float(),
        },
    ),
    "same-keys": (
        [1 / 3, 1 / 3, 1 / 3],
        {
            "differences only": [0, 0, 0],
            "last token": [0, 0, 1],
            "first token": [1, 0, 0],
            "shared out": [1, 1, 1],
            "has shape": [0.5, 0.5],
            "expected a tensor": "a third",
        },
    ),
    "length-cost": (
        4,
        {
            "twice as many keys": 2,
            "only T * T": 8,
            "four times as long": 16,
            "doublings": 1,
            "is 3; expected 4": 3,
        },
    ),
}

ALSO_RIGHT: dict[str, list[object]] = {
    "key-bias": [lambda q, b: (q / q.size(1) ** 0.5 * b).sum(1)],
    "window-mask": [
        lambda n, width: torch.ones(n, n).tril().triu(1 - width) > 0,
        lambda n, width: causal_mask(n, n) ^ causal_mask(n, n).tril(-width),
    ],
    "turned-query": [
        turned(20.0, -5.0),  # minus ten times the old row
        turned(100.0, 1.0),
        turned(4.0, 0.0),
    ],
    "softmax": [
        lambda x: torch.softmax(x, -1),
        lambda x: x.log_softmax(-1).exp(),
        lambda x: (x - x.logsumexp(-1, keepdim=True)).exp(),
    ],
    "attention-weights": [
        attention_weights,
        with_minus_infinity,
        shared_again,
    ],
    "causal-mask": [
        lambda t, s: torch.arange(s) <= torch.arange(s - t, s)[:, None],
        lambda t, s: torch.ones(s, s).tril()[-t:] > 0,
    ],
    "same-keys": [
        torch.full((3,), 1 / 3),
        (0.3333, 0.3333, 0.3333),
        attention_weights(QUERY, torch.ones(3, 2))[2],
    ],
    "length-cost": [4.0, torch.tensor(4)],
}
