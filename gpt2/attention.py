"""Attention: who looks at whom, and the heads that do it.

One convention for masks holds everywhere. Inside the model a mask is boolean,
it has the axes of the scores (B, H, T, S) or broadcasts to them, and **true
means that this query may look at this key**. No mask, `None`, hides nothing.
That a query may not look at later keys is not left to the mask: `causal` says
so, and it is true unless a caller says otherwise.

What callers pass to the model is an `attention_mask` (B, S): true or 1 for a
token, false or 0 for padding; `padding_mask` makes a mask of it.
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
        mask: Boolean, broadcasts to (..., T, S); true where the query may look
            at the key. Every query must be allowed at least one key.

    Returns:
        (..., T, S), each row a probability distribution over the keys.
    """
    scores = query @ key.transpose(-2, -1)  # (..., T, S)
    scores = scores / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)


def causal_mask(
    n_queries: int, n_keys: int, device: torch.device | None = None
) -> Tensor:
    """Return the mask that lets no query look at a later key.

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
    """Return the mask that also hides later keys.

    Args:
        mask: Boolean, broadcasts to (..., T, S); None hides nothing.
        query: (..., T, D), the last T of the positions.
        key: (..., S, D).

    Returns:
        Boolean, broadcasts to (..., T, S). A single query is the last
        position and has no later key: it gets the mask back, which may be
        None.
    """
    n_queries, n_keys = query.size(-2), key.size(-2)
    if n_queries == 1:
        return mask
    causal = causal_mask(n_queries, n_keys, query.device)  # (T, S)
    return causal if mask is None else mask & causal


def padding_mask(attention_mask: Tensor, n_queries: int) -> Tensor:
    """Return the mask that hides padding.

    A query that is padding itself would be left with nothing to look at where
    the padding comes first, and a softmax over nothing is not a number. So
    every position may look at itself: for a token that is so in any case, and
    what a padding position computes is read by nobody.

    Args:
        attention_mask: (B, S), true or 1 where there is a token, for all keys.
        n_queries: T, how many of the last positions ask.

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
    """Mix the values by `attention_weights`, without ever storing these.

    Args:
        query: (..., T, D), the last T of the positions.
        key: (..., S, D).
        value: (..., S, D).
        mask: Boolean, broadcasts to (..., T, S); None hides nothing.
        causal: Whether later keys are hidden as well.
        dropout: The probability that a weight is set to zero.

    Returns:
        (..., T, D).
    """
    attend = F.scaled_dot_product_attention
    # PyTorch's `is_causal` lines up the first query with the first key. That
    # is our mask only where there are as many queries as keys.
    if causal and mask is None and query.size(-2) == key.size(-2):
        return attend(query, key, value, dropout_p=dropout, is_causal=True)
    if causal:
        mask = with_causal_mask(mask, query, key)
    return attend(query, key, value, mask, dropout)


class MultiHeadAttention(nn.Module):
    """Let every query gather from the values, by several heads side by side.

    Each head works on its own D = C / H of the C numbers. `c_attn` is the
    checkpoint's name for the three maps to queries, keys and values, stored
    side by side as one matrix [C, 3C]; `c_proj` mixes what the heads found.
    Vaswani et al. (2017), section 3.2.2; openai/gpt-2 `src/model.py`.

    `fused` chooses who does the arithmetic: PyTorch's fused kernel, or, when
    false, `attention_weights` spelled out. The results are equal; spelled out,
    a forward hook on `attn_dropout` sees the weights (B, H, T, S).
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
            query: (B, T, C), what asks.
            key: (B, S, C), what is asked. None: the query, as in
                self-attention.
            value: (B, S, C), what is gathered. None: the key.
            mask: Boolean, broadcasts to (B, H, T, S); true where the query may
                look at the key. None hides nothing.
            causal: Whether keys that come after the query are hidden, whatever
                the mask says.
            cache: This layer's memory; the new keys and values go behind those
                it holds, and all of them are asked.

        Returns:
            (B, T, C).

        Raises:
            ValueError: The shapes do not go together.
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

        Returns:
            (B, H, T, D), (B, H, S, D) and (B, H, S, D).
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
        """Mix the values by their weights: (B, H, T, D)."""
        if self.fused:
            p = self.attn_dropout.p if self.training else 0.0
            return fused_attention(query, key, value, mask, causal, p)
        if causal:
            mask = with_causal_mask(mask, query, key)
        weights = attention_weights(query, key, mask)  # (B, H, T, S)
        return self.attn_dropout(weights) @ value


def check_shapes(
    query: Tensor, key: Tensor, value: Tensor, width: int
) -> None:
    """Refuse what attention cannot take.

    Raises:
        ValueError: Query and key are not (B, T, width) and (B, S, width), or
            the value has another shape than the key.
    """
    shapes = [tuple(x.shape) for x in (query, key, value)]
    # Without its length, each has to be (B, C).
    rest = [shape[:1] + shape[2:] for shape in shapes]
    if rest != 3 * [(*rest[0][:1], width)] or key.shape != value.shape:
        raise ValueError(
            f"attention takes a query (B, T, {width}), and a key and a value "
            f"of one shape (B, S, {width}); got {shapes}"
        )
