"""The exercises of chapter 11."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2_book.exercises.checking import Mistake, call, exercise, same


@exercise("squared-error-gradient")
def squared_error_gradient(answer: Any) -> str:
    """Exercise 11.2: the squared error of a softmax, at the logits."""
    torch.manual_seed(11)
    for size, target in ((3, 1), (5, 4), (17, 0)):
        logits = torch.randn(size)
        p = logits.softmax(-1)
        off = p - F.one_hot(torch.tensor(target), size)
        through = p * (off - (p * off).sum())
        mistakes = [
            Mistake("that is the gradient of the cross-entropy", off),
            Mistake(
                "that is the gradient at the probabilities; take it through "
                "the softmax to the logits",
                2 * off,
            ),
            Mistake("the factor 2 of the square is missing", through),
            Mistake(
                "the sign is wrong: a gradient points to where the loss grows",
                -2 * through,
            ),
            Mistake(
                "each probability depends on all logits; you followed only "
                "the path from each logit to its own probability",
                2 * off * p * (1 - p),
            ),
            Mistake(
                "the average that the softmax subtracts is missing",
                2 * off * p,
            ),
        ]
        got = call(answer, logits, target)
        same(got, 2 * through, f"the gradient for V={size}", mistakes)
    return "where a token has next to no probability, the gradient vanishes"


@exercise("rms-norm-backward")
def rms_norm_backward(answer: Any) -> str:
    """Exercise 11.3: the backward pass of RMSNorm without its scale."""
    torch.manual_seed(11)
    for shape, loudness in (((2, 5, 12), 1.0), ((3, 7), 5.0), ((4,), 0.01)):
        x = loudness * torch.randn(shape)
        dy = torch.randn(shape)
        r = (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        n = x / r
        along = n * (dy * n).mean(-1, keepdim=True)
        summed = n * (dy * n).sum(-1, keepdim=True)
        along_x = x * (dy * x).mean(-1, keepdim=True)
        mistakes = [
            Mistake(
                "the path through r is missing: r depends on x too", dy / r
            ),
            Mistake(
                "this norm does not subtract the mean, so the gradient's mean "
                "stays as well",
                (dy - dy.mean(-1, keepdim=True) - along) / r,
            ),
            Mistake("the second term has the wrong sign", (dy + along) / r),
            Mistake(
                "the part along n is a mean over the vector, not a sum",
                (dy - summed) / r,
            ),
            Mistake(
                "the second term needs the normalised n; you use x there",
                (dy - along_x) / r,
            ),
            Mistake("divide by r at the end", dy - along),
        ]
        same(call(answer, dy, x), (dy - along) / r, "dx", mistakes)
    return "dx has no part along x, and its mean need not be 0"


@exercise("padded-loss-gradient")
def padded_loss_gradient(answer: Any) -> str:
    """Exercise 11.4: p - onehot, where there is something to predict."""
    torch.manual_seed(11)
    for n, length, size in ((2, 3, 5), (3, 4, 7), (1, 5, 3)):
        logits = torch.randn(n, length, size)
        targets = torch.randint(size, (n, length))
        targets[:, -1] = -100
        targets[-1, -2] = -100
        real = (targets != -100)[..., None]  # (B, T, 1)
        one_hot = F.one_hot(targets.clamp(min=0), size)
        off = logits.softmax(-1) - one_hot
        got = call(answer, logits, targets)
        what = f"the gradient for B={n}, T={length}, V={size}"
        mistakes = _padding_mistakes(off, one_hot, real)
        same(got, off * real / real.sum(), what, mistakes)
    return "padding gets no gradient and is not counted"


def _padding_mistakes(
    off: Tensor, one_hot: Tensor, real: Tensor
) -> list[Mistake]:
    n_real, n_targets = real.sum(), real.numel()
    return [
        Mistake(
            "the mean is over the real targets; divide by the number of "
            "targets that are not -100",
            off * real / n_targets,
        ),
        Mistake(
            "nothing is predicted at padding, so the gradient there is 0",
            off / n_real,
        ),
        Mistake("you treat padding like a real target", off / n_targets),
        Mistake(
            "the loss is a mean; divide by the number of real targets",
            off * real,
        ),
        Mistake(
            "you keep the probabilities at padding; the whole row should be "
            "0 there",
            (off + one_hot * ~real) / n_real,
        ),
        Mistake("the sign is wrong: p - onehot", -off * real / n_real),
        Mistake(
            "you average each sequence by itself; the mean is over all "
            "targets of the batch",
            off * real / real.sum(1, keepdim=True) / len(real),
        ),
    ]
