"""The exercises of chapter 11."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2_book.exercises.checking import call, exercise, same


@exercise("squared-error-gradient")
def squared_error_gradient(answer: Any) -> str:
    """Exercise 11.2: the squared error of a softmax, at the logits."""
    torch.manual_seed(11)
    for size, target in ((3, 1), (5, 4), (17, 0)):
        logits = torch.randn(size)
        p = logits.softmax(-1)
        off = p - F.one_hot(torch.tensor(target), size)
        through = _through_softmax(off, p)
        mistakes = {
            "that is the gradient of the cross-entropy": off,
            "that is the gradient at the probabilities; it has to go on "
            "through the softmax": 2 * off,
            "the factor 2 of the square is missing": through,
            "the sign is wrong: a gradient points to where the loss grows": -2
            * through,
            "each probability depends on all the logits; you have followed "
            "only the road from a logit to its own one": (
                2 * off * p * (1 - p)
            ),
            "the average that the softmax subtracts is missing": 2 * off * p,
        }
        same(
            call(answer, logits, target),
            2 * through,
            f"the gradient for V={size}",
            mistakes,
        )
    return "and where a token has next to no probability, it vanishes"


@exercise("rms-norm-backward")
def rms_norm_backward(answer: Any) -> str:
    """Exercise 11.3: the backward pass of RMSNorm without its scale."""
    torch.manual_seed(11)
    for shape, loudness in (((2, 5, 12), 1.0), ((3, 7), 5.0), ((4,), 0.01)):
        x = loudness * torch.randn(shape)
        dy = torch.randn(shape)
        r = (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        n = x / r
        of_length = n * (dy * n).mean(-1, keepdim=True)
        mistakes = {
            "the road through r is missing: r is made of x too": dy / r,
            "this norm hears the mean, so nothing of the gradient's mean is "
            "taken away": (dy - dy.mean(-1, keepdim=True) - of_length) / r,
            "the second term has the wrong sign": (dy + of_length) / r,
            "the share along n is a mean over the vector, not a sum": (
                dy - n * (dy * n).sum(-1, keepdim=True)
            )
            / r,
            "the second term takes the normalised n where you have x": (
                dy - x * (dy * x).mean(-1, keepdim=True)
            )
            / r,
            "divide by r at the end": dy - of_length,
        }
        same(call(answer, dy, x), (dy - of_length) / r, "dx", mistakes)
    return "it has no share along x, and may have one in the mean"


@exercise("padded-loss-gradient")
def padded_loss_gradient(answer: Any) -> str:
    """Exercise 11.4: p - onehot, where there is something to predict."""
    torch.manual_seed(11)
    for n, length, size in ((2, 3, 5), (3, 4, 7), (1, 5, 3)):
        logits = torch.randn(n, length, size)
        targets = torch.randint(size, (n, length))
        targets[:, -1] = -100
        targets[-1, -2] = -100
        counts = (targets != -100)[..., None]
        off = logits.softmax(-1) - F.one_hot(targets.clamp(min=0), size)
        asked = off * counts
        mistakes = {
            "the mean is over what counts; divide by the number of targets "
            "that are not -100": asked / targets.numel(),
            "at padding nothing was asked, so the gradient there is zero": off
            / counts.sum(),
            "padding is treated as if it counted": off / targets.numel(),
            "the loss is a mean, so divide by the number of targets that "
            "count": asked,
            "at padding you have kept the probabilities; the whole row is "
            "zero there": (
                off + F.one_hot(targets.clamp(min=0), size) * ~counts
            )
            / counts.sum(),
            "the sign is wrong: p - onehot": -asked / counts.sum(),
            "each sequence is averaged by itself; the mean is over all "
            "targets of the batch": asked / counts.sum(1, keepdim=True) / n,
        }
        same(
            call(answer, logits, targets),
            asked / counts.sum(),
            f"the gradient for B={n}, T={length}, V={size}",
            mistakes,
        )
    return "padding gets nothing, and does not count"


def _through_softmax(dp: Tensor, p: Tensor) -> Tensor:
    return p * (dp - (p * dp).sum())
