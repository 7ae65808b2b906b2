"""Right and wrong answers to the exercises of chapter 6."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

Answers = tuple[object, dict[str, object]]


def moved(
    gamma: Tensor, beta: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Answer exercise 6.2."""
    return gamma[:, None] * weight, beta @ weight + bias


def scaled(gamma: Tensor, weight: Tensor) -> Tensor:
    """Give the right weight."""
    return gamma[:, None] * weight


def rms(x: Tensor) -> Tensor:
    """Answer exercise 6.3."""
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def root(x: Tensor) -> Tensor:
    """Give the root of the mean square."""
    return x.square().mean(-1, keepdim=True).sqrt()


ANSWERS: dict[str, Answers] = {
    "scale-and-shift": (
        moved,
        {
            "the columns of W by gamma": lambda g, b, w, c: (g * w, b @ w + c),
            "raises RuntimeError": lambda g, b, w, c: (
                scaled(g, w),
                b @ (w if w.size(0) == w.size(1) else w.T) + c,
            ),
            "adds up the rows": lambda g, b, w, c: (g @ w, b @ w + c),
            "still the old weight": lambda g, b, w, c: (w, b @ w + c),
            "gone into the weight": lambda g, b, w, c: (
                scaled(g + b, w),
                c,
            ),
            "beta is lost": lambda g, b, w, c: (scaled(g, w), c),
            "the old bias is lost": lambda g, b, w, c: (scaled(g, w), b @ w),
            "as it is; it should": lambda g, b, w, c: (scaled(g, w), b + c),
            "multiply beta by gamma": lambda g, b, w, c: (
                scaled(g, w),
                b @ scaled(g, w) + c,
            ),
            "multiply the old bias by gamma": lambda g, b, w, c: (
                scaled(g, w),
                b @ w + g * c,
            ),
            "that is W @ beta": lambda g, b, w, c: (scaled(g, w), w @ b + c),
            "expected two tensors": lambda g, b, w, c: scaled(g, w),
            "modifies a tensor": lambda g, b, w, c: (
                w.mul_(g[:, None]),
                b @ w + c,
            ),
        },
    ),
    "rms-norm": (
        rms,
        {
            "that is the layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
            "still subtract the": lambda x: (x - x.mean(-1, True)) / root(x),
            "standard deviation": lambda x: (
                x / x.std(-1, keepdim=True, correction=0)
            ),
            "take its root": lambda x: x / root(x) ** 2,
            "add up the squares": lambda x: F.normalize(x, dim=-1),
            "multiply by the root": lambda x: x * root(x),
            "not the quotient": lambda x: root(x).expand_as(x),
            "absolute value": lambda x: x / x.abs().mean(-1, keepdim=True),
            "over all vectors": lambda x: x / x.square().mean().sqrt(),
            "over the positions": lambda x: (
                x / x.square().mean(max(x.dim() - 2, 0), True).sqrt()
            ),
            "becomes NaN": lambda x: x / root(x),
            "raises RuntimeError": lambda x: (
                x / x.square().mean(-1).sqrt() if x.dim() > 1 else rms(x)
            ),
        },
    ),
}
