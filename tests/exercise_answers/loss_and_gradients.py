"""Right and wrong answers to the exercises of chapter 11."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Answers = tuple[object, dict[str, object]]


def off(logits: Tensor, target: int) -> Tensor:
    """Return p - onehot."""
    one_hot = F.one_hot(torch.tensor(target), len(logits))
    return logits.softmax(-1) - one_hot


def squared_error(logits: Tensor, target: int) -> Tensor:
    """Answer exercise 11.2."""
    p, dp = logits.softmax(-1), 2 * off(logits, target)
    return p * (dp - (p * dp).sum())


def root(x: Tensor) -> Tensor:
    """Return what RMSNorm divides by."""
    return (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def rms(dy: Tensor, x: Tensor) -> Tensor:
    """Answer exercise 11.3."""
    leaf = x.clone().requires_grad_()
    (dx,) = torch.autograd.grad(leaf / root(leaf), leaf, dy)
    return dx


def padded(logits: Tensor, targets: Tensor) -> Tensor:
    """Answer exercise 11.4."""
    leaf = logits.clone().requires_grad_()
    F.cross_entropy(leaf.mT, targets).backward()
    assert leaf.grad is not None
    return leaf.grad


def all_off(logits: Tensor, targets: Tensor) -> Tensor:
    """Return p - onehot, with token 0 in place of padding."""
    one_hot = F.one_hot(targets.clamp(min=0), logits.size(-1))
    return logits.softmax(-1) - one_hot


ANSWERS: dict[str, Answers] = {
    "squared-error-gradient": (
        squared_error,
        {
            "of the cross-entropy": off,
            "at the probabilities": lambda z, y: 2 * off(z, y),
            "the factor 2": lambda z, y: squared_error(z, y) / 2,
            "sign is wrong": lambda z, y: -squared_error(z, y),
            "only the path": lambda z, y: (
                2 * off(z, y) * z.softmax(-1) * (1 - z.softmax(-1))
            ),
            "the average": lambda z, y: 2 * off(z, y) * z.softmax(-1),
            "has shape": lambda z, y: squared_error(z, y)[:1],
        },
    ),
    "rms-norm-backward": (
        rms,
        {
            "path through r": lambda dy, x: dy / root(x),
            "does not subtract the mean": lambda dy, x: (
                rms(dy, x) - dy.mean(-1, keepdim=True) / root(x)
            ),
            "wrong sign": lambda dy, x: 2 * dy / root(x) - rms(dy, x),
            "not a sum": lambda dy, x: (
                (dy - x * (dy * x).sum(-1, keepdim=True) / root(x) ** 2)
                / root(x)
            ),
            "the normalised n": lambda dy, x: (
                (dy - x * (dy * x).mean(-1, keepdim=True)) / root(x)
            ),
            "divide by r": lambda dy, x: rms(dy, x) * root(x),
            "(120 of 120 entries": lambda dy, x: rms(x, dy),
        },
    ),
    "padded-loss-gradient": (
        padded,
        {
            "the mean is over the real targets": lambda z, y: (
                padded(z, y) * (y != -100).sum() / y.numel()
            ),
            "nothing is predicted at padding": lambda z, y: (
                all_off(z, y) / (y != -100).sum()
            ),
            "padding like a real target": lambda z, y: (
                all_off(z, y) / y.numel()
            ),
            "is a mean": lambda z, y: padded(z, y) * (y != -100).sum(),
            "keep the probabilities": lambda z, y: (
                padded(z, y)
                + z.softmax(-1) * (y == -100)[..., None] / (y != -100).sum()
            ),
            "sign is wrong": lambda z, y: -padded(z, y),
            "by itself": lambda z, y: (
                torch.cat(
                    [padded(z[i : i + 1], y[i : i + 1]) for i in range(len(y))]
                )
                / len(y)
            ),
            "raises RuntimeError": lambda z, y: F.one_hot(y),
        },
    ),
}
