"""Cross-entropy in chunks, to save memory.

Over GPT-2's vocabulary, the logits of 4 times 256 tokens are 50 million
numbers. PyTorch's cross-entropy holds their probabilities and then their
gradients in float32, which takes more memory than the rest of the step. Here,
only some rows at a time are converted to float32, and only the gradient is
kept, in the precision of the logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpt2.model import IGNORED

_NUMBERS_AT_A_TIME = 2**22


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute `F.cross_entropy(logits.float(), targets)` with less memory.

    The gradient is computed with the loss and scaled in place, so `backward`
    can run only once.

    Args:
        logits: (N, V) of any floating dtype.
        targets: (N,) int64 token ids; rows with `IGNORED` do not count.

    Returns:
        The mean of -log p of the targets that count, in nats; a float32
        scalar.
    """
    return _CrossEntropy.apply(logits, targets)


class _CrossEntropy(torch.autograd.Function):
    """The gradient of -log p(target) with respect to the logits is p - y.

    Here y is 1 at the target and 0 elsewhere. Loss and gradient need the same
    probabilities, so `forward` computes both.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        n_rows = max(1, _NUMBERS_AT_A_TIME // logits.size(1))
        counts = targets != IGNORED  # (N,)
        n_targets = counts.sum()
        tokens = targets.where(counts, 0)[:, None]  # (N, 1)
        needed = ctx.needs_input_grad[0]
        gradient = torch.empty_like(logits) if needed else None
        total = logits.new_zeros((), dtype=torch.float32)
        for i in range(0, len(logits), n_rows):
            rows = slice(i, i + n_rows)
            log_p = logits[rows].float().log_softmax(-1)
            surprise = -log_p.gather(1, tokens[rows])[:, 0]
            total += surprise.where(counts[rows], 0).sum()
            if gradient is not None:
                p = log_p.exp_()
                p.scatter_add_(1, tokens[rows], -torch.ones_like(p[:, :1]))
                gradient[rows] = p * counts[rows, None]
        ctx.save_for_backward(gradient, n_targets)
        return total / n_targets

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        gradient, n_targets = ctx.saved_tensors
        return gradient.mul_(upstream[0] / n_targets), None
