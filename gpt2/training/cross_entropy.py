"""The loss of the training loop, from hidden states, piece by piece.

Over GPT-2's vocabulary, the logits of 4 times 256 tokens are 50 million
numbers. Computed one operation after the other, they, their probabilities and
the gradient of each lie in memory at the same time, and every operation reads
and writes all of them. Here there are the logits alone, in the precision of
the products. A few rows at a time, small enough for the processor's cache,
they become the gradient, in place; and both products with the table of
embeddings take it a few columns at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gpt2.model import GPT2, IGNORED, next_token_loss

_NUMBERS_AT_A_TIME = 2**18
"""Per thread: as float32, a piece fits into the cache of a core."""
_COLUMNS_AT_A_TIME = 2048


class NextTokenLoss(nn.Module):
    """A model and its loss in one module, which the training loop calls.

    The loss needs the table of embeddings, which is whole only inside of a
    module that is sharded among several processes.
    """

    def __init__(self, model: GPT2, dtype: torch.dtype) -> None:
        """Take the model, and the dtype of its matrix products."""
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the mean surprise at each next token.

        Args:
            tokens: (B, T + 1), int64.
            mask: (B, T + 1), boolean, true for real tokens; or None.

        Returns:
            What `gpt2.next_token_loss` does: a float32 scalar, in nats per
            token.
        """

        def loss(hidden: Tensor, targets: Tensor) -> Tensor:
            table = self.model.wte.weight
            return cross_entropy(hidden, table, targets, self.dtype)

        return next_token_loss(self.model.hidden_states, tokens, mask, loss)


def cross_entropy(
    hidden: Tensor, table: Tensor, targets: Tensor, dtype: torch.dtype
) -> Tensor:
    """Compute `F.cross_entropy(F.linear(hidden, table), targets)`.

    The gradient of the logits is computed with the loss, in place of them.

    Args:
        hidden: (N, C) of float32.
        table: (V, C) of float32: the embeddings.
        targets: (N,) int64 token ids; rows with `IGNORED` do not count.
        dtype: That of the products, and of the logits.

    Returns:
        The mean of -log p of the targets that count, in nats; a float32
        scalar.
    """
    if not torch.is_grad_enabled():  # a parameter asks for one even then
        table = table.detach()
    return _CrossEntropy.apply(hidden, table, targets, dtype)


class _CrossEntropy(torch.autograd.Function):
    """The gradient of -log p(target) with respect to the logits is p - y.

    Here y is 1 at the target and 0 elsewhere. Loss and gradient need the same
    probabilities, so `forward` computes both.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        table: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        x = hidden.to(dtype)  # (N, C)
        logits = x.new_empty(len(x), len(table))  # (N, V)
        for columns in _pieces(len(table), _COLUMNS_AT_A_TIME):
            piece = table[columns].to(dtype).T
            torch.mm(x, piece, out=logits[:, columns])
        counts = targets != IGNORED  # (N,)
        tokens = targets.where(counts, 0)[:, None]  # (N, 1)
        surprise = torch.empty_like(tokens, dtype=torch.float32)  # (N, 1)
        numbers = _NUMBERS_AT_A_TIME * torch.get_num_threads()
        for rows in _pieces(len(x), numbers // len(table)):
            log_p = logits[rows].float().log_softmax(-1)
            surprise[rows] = -log_p.gather(1, tokens[rows])
            if any(ctx.needs_input_grad):
                p = log_p.exp_()
                p.scatter_add_(1, tokens[rows], -torch.ones_like(p[:, :1]))
                logits[rows] = p
        share = (counts / counts.sum())[:, None]  # (N, 1)
        ctx.save_for_backward(hidden, table, logits, share)
        return (surprise * share).sum()

    @staticmethod
    def backward(
        ctx: Any, *upstream: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        hidden, table, gradient, share = ctx.saved_tensors
        share = share * upstream[0]
        x = (hidden * share).to(gradient.dtype)  # (N, C)
        of_hidden, of_table = torch.zeros_like(hidden), torch.empty_like(table)
        for columns in _pieces(len(table), _COLUMNS_AT_A_TIME):
            piece = gradient[:, columns]
            of_hidden += piece @ table[columns].to(piece.dtype)
            of_table[columns] = piece.T @ x
        return of_hidden * share, of_table, None, None


def _pieces(length: int, size: int) -> list[slice]:
    """Cut a dimension into slices of `size`, at least 1."""
    size = max(1, size)
    return [slice(i, i + size) for i in range(0, length, size)]
