"""Attention: which positions a query reads, and how much it takes from each.

Three things decide whether a query sees a key:

    mask       boolean, broadcasts to the scores (B, H, T, S); **true means
               that this query may see this key**; None hides nothing
    causal     hides every key that comes after the query, whatever the mask
               says; on unless a caller turns it off
    padding    a mask like any other: `padding_mask` makes it from the
               `attention_mask` (B, S) that callers pass to the model, where 1
               stands for a token and 0 for padding

A key is seen if nothing hides it:

    mask=None, causal=True      all keys up to the query's own: GPT-2
    mask=m,    causal=True      those of them where m is true: GPT-2, padded
    mask=m,    causal=False     all keys where m is true
    mask=None, causal=False     all keys
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.cache import LayerCache
from gpt2.config import GPT2Config
from gpt2.linear import Linear


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None = None
) -> Tensor:
    r"""Return how much each query takes from each key.

    $\mathrm{softmax}(QK^T / \sqrt{D})$: Vaswani et al. (2017), equation 1.

    Args:
        query: (..., T, D).
        key: (..., S, D).
        mask: Boolean, broadcasts to (..., T, S); true where the query may see
            the key. Every query must see at least one key.

    Returns:
        (..., T, S), the dtype of the query. Each row is a probability
        distribution over the keys.
    """
    scores = query @ key.transpose(-2, -1)  # (..., T, S)
    scores = scores / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)


def causal_mask(
    n_queries: int, n_keys: int, device: torch.device | None = None
) -> Tensor:
    """Return the mask that hides from each query the keys after it.

    The queries are the *last* `n_queries` of the `n_keys` positions: with a
    cache, the keys of earlier calls come first. Query t therefore sees keys 0
    to t + (n_keys - n_queries).

    Returns:
        (T, S), boolean.
    """
    everything = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
    return everything.tril(diagonal=n_keys - n_queries)


def with_causal_mask(
    mask: Tensor | None, query: Tensor, key: Tensor
) -> Tensor | None:
    """Return the mask that also hides the keys after each query.

    Args:
        mask: Boolean, broadcasts to (..., T, S); None hides nothing.
        query: (..., T, D), the last T of the S positions.
        key: (..., S, D).

    Returns:
        Boolean, broadcasts to (..., T, S). A single query is at the last
        position, so no key comes after it: the mask is returned unchanged,
        and may be None.
    """
    n_queries, n_keys = query.size(-2), key.size(-2)
    if n_queries == 1:
        return mask
    causal = causal_mask(n_queries, n_keys, query.device)  # (T, S)
    return causal if mask is None else mask & causal


def padding_mask(attention_mask: Tensor, n_queries: int) -> Tensor:
    """Return the mask that hides padding.

    Where padding comes first, a query that is padding itself would see no key
    at all, and a softmax over nothing is NaN. So every position may see
    itself: a token may do so anyway, and nothing reads the output at padding.

    Args:
        attention_mask: (B, S), any dtype; true or 1 for a token, false or 0
            for padding. It covers all keys.
        n_queries: T; the queries are the last T positions.

    Returns:
        (B, 1, T, S), boolean.
    """
    real = attention_mask.bool()[:, None, None, :]  # (B, 1, 1, S)
    positions = torch.arange(real.size(-1), device=real.device)  # (S,)
    itself = positions[-n_queries:, None] == positions  # (T, S)
    return real | itself  # (B, 1, T, S)


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    causal: bool = True,
    dropout: float = 0.0,
) -> Tensor:
    """Average the values by `attention_weights`, without storing the weights.

    Args:
        query: (..., T, D), the last T of the S positions.
        key: (..., S, D).
        value: (..., S, D).
        mask: Boolean, broadcasts to (..., T, S); None hides nothing.
        causal: Whether to hide the keys after each query as well.
        dropout: The probability of setting a weight to zero.

    Returns:
        (..., T, D), the dtype of the values.
    """
    # PyTorch's `is_causal` takes no mask beside it, and aligns the first query
    # with the first key: with a cache, the wrong corner.
    if causal and (mask is not None or query.size(-2) != key.size(-2)):
        mask, causal = with_causal_mask(mask, query, key), False
    return F.scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal=causal
    )


class MultiHeadAttention(nn.Module):
    """Let every query gather from the values, through H heads in parallel.

    Each head works on its own D = C / H numbers of each vector. `c_attn` is
    the checkpoint's name for the three maps to queries, keys and values,
    stored side by side as one matrix [C, 3C]; `c_proj` mixes the heads'
    results. Vaswani et al. (2017), section 3.2.2; openai/gpt-2
    `src/model.py`.

    `fused` selects the arithmetic: PyTorch's fused kernel, or, when false,
    `attention_weights` step by step. Both give the same result, but only the
    second computes the weights, which a forward hook on `attn_dropout` then
    sees: (B, H, T, S).
    """

    def __init__(self, config: GPT2Config, fused: bool = True) -> None:
        """Build the maps of one layer's attention."""
        super().__init__()
        width = config.n_embd
        self.n_embd, self.n_head, self.fused = width, config.n_head, fused
        self.c_attn = Linear(width, 3 * width)
        self.c_proj = Linear(width, width, std=config.residual_std)
        self.attn_dropout = nn.Dropout(config.attn_dropout)
        self.resid_dropout = nn.Dropout(config.resid_dropout)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        causal: bool = True,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: (B, T, C), one vector for each query.
            key: (B, S, C). None means the query, as in self-attention.
            value: (B, S, C). None means the key.
            mask: Boolean, broadcasts to (B, H, T, S); true where the query may
                see the key. None hides nothing.
            causal: Whether to hide the keys after each query as well.
            cache: This layer's cache. The new keys and values are appended to
                it, and the queries see all that it then holds.

        Returns:
            (B, T, C), the dtype of the query.

        Raises:
            ValueError: The shapes do not match.
        """
        q, k, v = self.project(query, key, value)
        if cache is not None:
            k, v = cache.append(k, v)
        mixed = self.attend(q, k, v, mask, causal)  # (B, H, T, D)
        merged = mixed.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.resid_dropout(self.c_proj(merged))

    def project(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map to queries, keys and values, and split them into heads.

        Args:
            query: (B, T, C).
            key: (B, S, C). None means the query.
            value: (B, S, C). None means the key.

        Returns:
            (B, H, T, D), (B, H, S, D) and (B, H, S, D).

        Raises:
            ValueError: The shapes do not match.
        """
        self_attention = key is None and value is None
        key = query if key is None else key
        value = key if value is None else value
        check_shapes(query, key, value, self.n_embd)
        if self_attention:  # one product with the whole matrix, not three
            parts = self.c_attn(query).split(self.n_embd, dim=-1)
        else:
            weights = self.c_attn.weight.split(self.n_embd, dim=1)
            biases = self.c_attn.bias.split(self.n_embd)
            maps = zip((query, key, value), weights, biases, strict=True)
            parts = tuple(x @ weight + bias for x, weight, bias in maps)
        q, k, v = (self.split_heads(part) for part in parts)
        return q, k, v

    def split_heads(self, x: Tensor) -> Tensor:
        """Cut each vector into H pieces: (B, T, C) to (B, H, T, D)."""
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
    ) -> Tensor:
        """Average the values, head by head.

        Args:
            query: (B, H, T, D).
            key: (B, H, S, D).
            value: (B, H, S, D).
            mask: As in `forward`.
            causal: As in `forward`.

        Returns:
            (B, H, T, D).
        """
        if self.fused:
            p = self.attn_dropout.p if self.training else 0.0
            return fused_attention(query, key, value, mask, causal, p)
        if causal:
            mask = with_causal_mask(mask, query, key)
        weights = attention_weights(query, key, mask)  # (B, H, T, S)
        return self.attn_dropout(weights) @ value

    def extra_repr(self) -> str:
        """Show what `repr` says beside the parts."""
        return f"n_embd={self.n_embd}, n_head={self.n_head}"


def check_shapes(
    query: Tensor, key: Tensor, value: Tensor, width: int
) -> None:
    """Raise an error for inputs that attention cannot combine.

    Args:
        query: Must be (B, T, width).
        key: Must be (B, S, width).
        value: Must have the shape of the key.
        width: C.

    Raises:
        ValueError: One of them has another shape.
    """
    shapes = [tuple(x.shape) for x in (query, key, value)]
    outer = [shape[:1] + shape[2:] for shape in shapes]  # without T and S
    if outer != 3 * [(*outer[0][:1], width)] or key.shape != value.shape:
        raise ValueError(
            f"attention takes a query (B, T, {width}), and a key and a value "
            f"of one shape (B, S, {width}); got {shapes}"
        )
