"""Right and wrong answers to the exercises of chapter 6."""

from __future__ import annotations

import math

import torch
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


def norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Write a layer norm out."""
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return gamma * (x - mean) / (variance + 1e-5).sqrt() + beta


def bent(x: Tensor, inner: Tensor) -> Tensor:
    """Give the GELU with this inside its tanh."""
    return 0.5 * x * (1 + inner.tanh())


def forward(
    x: Tensor, up: Tensor, b_up: Tensor, down: Tensor, b_down: Tensor
) -> Tensor:
    """Widen, bend, narrow."""
    return F.gelu(x @ up + b_up, approximate="tanh") @ down + b_down


# a + b, its negative, a - b and its negative; and what to make of them.
PAIRED = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, -1.0, -1.0, 1.0]])
SORTED = torch.tensor([[0.5, 0.5], [-0.5, -0.5], [0.5, -0.5], [0.5, -0.5]])

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
            "outside the root": lambda x: x / (root(x) + 1e-5),
            "raises RuntimeError": lambda x: (
                x / x.square().mean(-1).sqrt() if x.dim() > 1 else rms(x)
            ),
        },
    ),
    "layer-norm": (
        norm,
        {
            "unbiased": lambda x, g, b: (
                g * (x - x.mean(-1, True)) / x.std(-1, keepdim=True) + b
            ),
            "all positions": lambda x, g, b: g * F.layer_norm(x, x.shape) + b,
            "not subtracted": lambda x, g, b: (
                g * x / (x.var(-1, False, keepdim=True) + 1e-5).sqrt() + b
            ),
            "take its root": lambda x, g, b: (
                g
                * (x - x.mean(-1, True))
                / (x.var(-1, False, keepdim=True) + 1e-5)
                + b
            ),
            "scale and shift are": lambda x, g, b: norm(x, g * 0 + 1, b * 0),
            "the shift is missing": lambda x, g, b: norm(x, g, b * 0),
            "after the scale": lambda x, g, b: norm(x, g, b * g),
            "inside the root": lambda x, g, b: (
                g
                * (x - x.mean(-1, True))
                / (x.var(-1, False, keepdim=True).sqrt() + 1e-5)
                + b
            ),
            "ε is missing": lambda x, g, b: (
                g
                * (x - x.mean(-1, True))
                / x.var(-1, False, keepdim=True).sqrt()
                + b
            ),
        },
    ),
    "gelu": (
        lambda x: bent(x, (2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)),
        {
            "the exact GELU": F.gelu,
            "a ReLU": F.relu,
            "a SiLU": F.silu,
            "the probability": lambda x: bent(
                torch.ones(13), (2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)
            ),
            "factor ½": lambda x: 2 * F.gelu(x, approximate="tanh"),
            "of x alone": lambda x: bent(
                x, (2 / math.pi) ** 0.5 * (x + (0.044715 * x) ** 3)
            ),
            "also multiplies": lambda x: bent(
                x, (2 / math.pi) ** 0.5 * x + 0.044715 * x**3
            ),
        },
    ),
    "feed-forward": (
        forward,
        {
            "bend is missing": lambda x, u, b, d, c: (x @ u + b) @ d + c,
            "other GELU": lambda x, u, b, d, c: F.gelu(x @ u + b) @ d + c,
            "a ReLU": lambda x, u, b, d, c: (x @ u + b).relu() @ d + c,
            "second bias": lambda x, u, b, d, c: forward(x, u, b, d, c * 0),
            "first bias": lambda x, u, b, d, c: forward(x, u, b * 0, d, c),
            "second bend": lambda x, u, b, d, c: F.gelu(
                forward(x, u, b, d, c), approximate="tanh"
            ),
        },
    ),
    "equal-numbers": (
        [0, 0, 0],
        {
            "subtracted first": [7, 7, 7],
            "brought to 1": [1, 1, 1],
            "divided by √ε": [math.nan] * 3,
            "expected a tensor": "zero",
        },
    ),
    "neurons-needed": (
        64,
        {"fewer are": 256, "too few": 16, "one of": 100},
    ),
    "sort-two": (
        (PAIRED, SORTED),
        {
            "the smaller first": (PAIRED, SORTED.flip(1)),
            "the larger twice": (PAIRED, SORTED[:, :1].expand(4, 2)),
            "twice as large": (PAIRED, 2 * SORTED),
            "a negative sum": (PAIRED[:, [0, 2, 3]], SORTED[[0, 2, 3]]),
            "a negative difference": (PAIRED[:, :3], SORTED[:3]),
            "expected two tensors": (PAIRED, SORTED.T),
            "got 5": 5,
            "what your network makes": (torch.eye(2), torch.eye(2)),
        },
    ),
}

ALSO_RIGHT: dict[str, list[object]] = {
    "scale-and-shift": [
        lambda g, b, w, c: [torch.diag(g) @ w, c + b @ w],
        lambda g, b, w, c: ((w.T * g).T, (b[:, None] * w).sum(0) + c),
    ],
    "rms-norm": [
        lambda x: F.rms_norm(x, x.shape[-1:], eps=1e-5),
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
    ],
    "layer-norm": [
        lambda x, g, b: F.layer_norm(x, x.shape[-1:], g, b),
        lambda x, g, b: (
            (x - x.mean(-1, True))
            * torch.rsqrt(x.var(-1, False, keepdim=True) + 1e-5)
            * g
            + b
        ),
    ],
    "gelu": [
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: x * torch.sigmoid(1.5957691216 * (x + 0.044715 * x**3)),
    ],
    "feed-forward": [
        lambda x, u, b, d, c: F.linear(
            F.gelu(F.linear(x, u.T, b), approximate="tanh"), d.T, c
        ),
    ],
    "equal-numbers": [torch.zeros(3), (0.0, 0.0, 0.0)],
    "sort-two": [
        [  # b and a - b: the larger is b + (a - b), if that is positive
            torch.tensor([[0.0, 0, 1, -1, 1], [1, -1, 0, 0, -1]]),
            torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [1, -1]]),
        ],
    ],
}
