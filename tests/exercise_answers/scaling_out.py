"""Right and wrong answers to the exercises of chapter 17."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2.config import GPT2Config

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


def flops(
    config: GPT2Config,
    n_tokens: int,
    maps: int = 12,
    tables: int = 1,
    meetings: int = 2,
) -> int:
    """Count the FLOPs of a forward pass."""
    width, layers = config.n_embd, config.n_layer
    per_token = maps * layers * width**2 + tables * config.n_vocab * width
    return 2 * n_tokens * (per_token + meetings * layers * n_tokens * width)


def rotate(
    x: Tensor, positions: Tensor, base: float = 5e5, step: float = 2
) -> Tensor:
    """Turn pairs of neighbours, as complex numbers."""
    size = x.size(-1)
    speeds = base ** (-step * torch.arange(size // 2) / size)
    angles = positions[:, None] * speeds
    turns = torch.polar(torch.ones_like(angles), angles)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)


def by_sines(x: Tensor, positions: Tensor, base: float = 5e5) -> Tensor:
    """Turn pairs of neighbours, with sines and cosines."""
    size = x.size(-1)
    angles = positions[:, None] / base ** (torch.arange(0, size, 2) / size)
    out = torch.empty_like(x)
    even, odd = x[..., 0::2], x[..., 1::2]
    out[..., 0::2] = even * angles.cos() - odd * angles.sin()
    out[..., 1::2] = odd * angles.cos() + even * angles.sin()
    return out


def halves(x: Tensor, positions: Tensor) -> Tensor:
    """Turn the pairs (i, i + D / 2)."""
    half = x.size(-1) // 2
    order = torch.arange(2 * half).view(2, half).T.flatten()
    turned = torch.empty_like(x)
    turned[..., order] = rotate(x[..., order], positions)
    return turned


def grouped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool = True,
    near: bool = True,
) -> Tensor:
    """Let neighbours share keys and values."""
    heads, groups = query.size(1), key.size(1)
    which = torch.arange(heads)
    which = which // (heads // groups) if near else which % groups
    return F.scaled_dot_product_attention(
        query, key[:, which], value[:, which], is_causal=causal
    )


def by_groups(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Give each group its queries, without copies of the keys."""
    own = query.unflatten(1, (key.size(1), -1))  # (B, G, H / G, T, D)
    scores = own @ key[:, :, None].mT / math.sqrt(query.size(-1))
    future = torch.ones(scores.shape[-2:]).triu(1).bool()
    weights = scores.masked_fill(future, -math.inf).softmax(-1)
    return (weights @ value[:, :, None]).flatten(1, 2)


ANSWERS: dict[str, Answers] = {
    "where-it-stops": (
        4,
        {
            "the true sum": 20,
            "still moves": 2.0,
            "even a whole step": 1,
            "from 4 on": 8,
            "where ones stop": 256,
            "256 hundredths": 2.56,
            "expected a number": "four",
        },
    ),
    "forward-flops": (
        flops,
        {
            "for one token, not": lambda c, n: flops(c, n) // n,
            "comes with an addition": lambda c, n: flops(c, n) // 2,
            "the output is missing": lambda c, n: flops(c, n, tables=0),
            "mix are missing": lambda c, n: flops(c, n, meetings=0),
            "meets all T keys twice": lambda c, n: flops(c, n, meetings=1),
            "4 in attention": lambda c, n: flops(c, n, maps=8),
            "costs nothing": lambda c, n: flops(c, n, tables=2),
        },
    ),
    "rotary": (
        rotate,
        {
            "nothing is turned": lambda x, at: x.clone(),
            "you pair number i with": halves,
            "the other way round": lambda x, at: rotate(x, -at),
            "the exponent is -i / D": lambda x, at: rotate(x, at, step=1),
            "the exponent is -4": lambda x, at: rotate(x, at, step=4),
            "the base is 10,000": lambda x, at: rotate(x, at, 1e4),
            "by the place in the row": lambda x, at: rotate(
                x, torch.arange(len(at))
            ),
        },
    ),
    "grouped-attention": (
        grouped,
        {
            "dealt out in turn": lambda *given: grouped(*given, near=False),
            "mask is missing": lambda *given: grouped(*given, causal=False),
            "root of D is missing": lambda q, k, v: grouped(
                q * math.sqrt(q.size(-1)), k, v
            ),
            "are exchanged": lambda q, k, v: grouped(q, v, k),
        },
    ),
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


ALSO_RIGHT: dict[str, list[object]] = {
    "forward-flops": [lambda c, n: float(flops(c, n))],
    "rotary": [by_sines],
    "grouped-attention": [by_groups],
}
