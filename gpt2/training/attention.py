"""Attention as the training loop computes it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gpt2.attention import MultiHeadAttention, with_causal_mask
from gpt2.model import GPT2


class TrainingAttention(MultiHeadAttention):
    """Explicit attention whose scores pass through memory less often.

    One operation multiplies queries and keys, divides by the square root of D
    and adds the mask. The mask is 0 where a key is seen and -inf where it is
    hidden: an addition has the gradient 1, which costs nothing.
    """

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
    ) -> Tensor:
        """Average the values, head by head, as the parent does.

        Args:
            query: (B, H, T, D).
            key: (B, H, S, D).
            value: (B, H, S, D).
            mask: As for the parent.
            causal: As for the parent.

        Returns:
            (B, H, T, D).
        """
        if self.fused:
            return super().attend(query, key, value, mask, causal)
        if causal:
            mask = with_causal_mask(mask, query, key)
        heads = query.shape[:2]
        hidden = query.new_zeros(())
        if mask is not None:
            hidden = query.new_zeros(mask.shape)
            hidden = hidden.masked_fill_(~mask, -math.inf)
        if hidden.dim() > 2:  # it differs between the rows of the batch
            hidden = hidden.expand(*heads, -1, -1).flatten(0, 1)
        q, k = query.flatten(0, 1), key.flatten(0, 1)
        scale = 1 / math.sqrt(q.size(-1))
        scores = torch.baddbmm(hidden, q, k.mT, alpha=scale)  # (B * H, T, S)
        weights = scores.softmax(dim=-1).unflatten(0, heads)  # (B, H, T, S)
        return self.attn_dropout(weights) @ value


def choose_attention(model: GPT2, fused: bool) -> None:
    """Let all layers compute attention by PyTorch's fused kernel, or not."""
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module.__class__ = TrainingAttention
            module.fused = fused
