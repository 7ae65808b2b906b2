"""Attention: who looks at whom, the heads that do it, and their memory.

One convention for masks holds everywhere. Inside the model a mask is boolean,
it has the axes of the scores (B, H, T, S) or such as broadcast to them, and
**true means that this query may look at this key**. What callers pass to the
model is an `attention_mask` (B, S): true or 1 for a token, false or 0 for
padding; `padding_mask` turns the one into the other.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    """Merge a mask with the causal one.

    Args:
        mask: Boolean, broadcasts to (..., T, S); None allows everything.
        query: (..., T, D), at the last of the positions.
        key: (..., S, D).

    Returns:
        Boolean, broadcasts to (..., T, S). None where everything is allowed:
        a single query, which is the last position, has no later key.
    """
    n_queries, n_keys = query.size(-2), key.size(-2)
    if n_queries == 1:
        return mask
    causal = causal_mask(n_queries, n_keys, query.device)  # (T, S)
    return causal if mask is None else mask & causal


def padding_mask(attention_mask: Tensor, n_queries: int) -> Tensor:
    """Return the mask that is causal and hides padding.

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
    n_keys = attention_mask.size(1)
    causal = causal_mask(n_queries, n_keys, attention_mask.device)  # (T, S)
    itself = causal & ~causal.tril(diagonal=n_keys - n_queries - 1)  # (T, S)
    real = attention_mask.bool()[:, None, None, :]  # (B, 1, 1, S)
    return causal & real | itself  # (B, 1, T, S)


class LayerCache:
    """The keys and values that one layer has computed so far.

    They go into memory reserved beforehand. This is for inference only:
    writing into reserved memory is nothing a gradient can follow.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int = 0) -> None:
        """Take over memory, of which `length` positions are filled.

        Args:
            keys: (B, H, n_positions, D).
            values: The same shape.
            length: Positions that hold something already.
        """
        self.keys, self.values, self.length = keys, values, length

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Remember the new positions and return all there are.

        Args:
            key: (B, H, T, D).
            value: (B, H, T, D).

        Returns:
            Keys and values of all positions so far, each (B, H, S, D), without
            a copy.

        Raises:
            ValueError: There is no room for them, or they are of another
                dtype, number of sequences or shape of heads.
        """
        if key.size(0) != self.keys.size(0):
            raise ValueError(
                f"the cache is for {self.keys.size(0)} sequences, and got "
                f"{key.size(0)}"
            )
        heads, kept = (
            (tensor.dtype, tensor.size(1), tensor.size(3))
            for tensor in (key, self.keys)
        )
        if heads != kept:
            raise ValueError(
                f"the cache holds {kept[0]} for {kept[1]} heads of width "
                f"{kept[2]}, and got {heads[0]} for {heads[1]} of width "
                f"{heads[2]}; the model's `new_cache` makes one that fits"
            )
        end = self.length + key.size(2)
        if end > self.keys.size(2):
            raise ValueError(
                f"the cache has room for {self.keys.size(2)} positions and "
                f"holds {self.length}; {key.size(2)} more do not fit"
            )
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KeyValueCache:
    """The keys and values of every layer: no position is computed twice."""

    def __init__(
        self,
        config: GPT2Config,
        batch_size: int,
        n_positions: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        """Reserve `2 * n_layer * batch_size * n_positions * n_embd` numbers.

        Args:
            config: The model's.
            batch_size: B, how many sequences go side by side.
            n_positions: How many positions there is room for; `config.n_ctx`
                by default.
            dtype: The model's.
            device: The model's.
        """
        shape = (
            batch_size,
            config.n_head,
            config.n_ctx if n_positions is None else n_positions,
            config.head_size,
        )

        def reserve() -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.layers = [
            LayerCache(reserve(), reserve()) for _ in range(config.n_layer)
        ]

    @property
    def length(self) -> int:
        """How many positions are filled."""
        return self.layers[0].length

    def of_layers(self, n_layer: int) -> list[LayerCache]:
        """Return each layer's part, of which there must be `n_layer`.

        Raises:
            ValueError: The cache was made by a model with more or fewer.
        """
        if len(self.layers) != n_layer:
            raise ValueError(
                f"the cache has {len(self.layers)} layers, and the model "
                f"{n_layer}; the model's `new_cache` makes one that fits"
            )
        return self.layers

    def select(self, rows: Tensor) -> None:
        """Keep the sequences `rows`, in that order; one may come twice.

        Args:
            rows: (new B,) of int64.
        """
        for layer in self.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_empty(len(rows), *old.shape[1:])
                filled = slice(0, layer.length)
                new[:, :, filled] = old[rows, :, filled]
                setattr(layer, name, new)


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
            key: (B, S, C), what is asked. None: the query itself, which is
                self-attention.
            value: (B, S, C), what is gathered. None: the key.
            mask: Boolean, broadcasts to (B, H, T, S); true where the query may
                look at the key. None allows everything.
            causal: Whether the keys that come after the query are forbidden,
                whatever the mask says.
            cache: This layer's memory; the new keys and values go behind those
                it holds.

        Returns:
            (B, T, C).

        Raises:
            ValueError: The shapes do not go together.
        """
        q, k, v = self.project(query, key, value)
        if cache is not None:
            k, v = cache.append(k, v)
        attend = self.attend_fused if self.fused else self.attend
        mixed = attend(q, k, v, mask, causal)  # (B, H, T, D)
        merged = mixed.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.resid_dropout(self.c_proj(merged))

    def project(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
    ) -> list[Tensor]:
        """Map to queries, keys and values, and split them into heads.

        Args:
            query: As in `forward`, like the others.

        Returns:
            (B, H, T, D), and twice (B, H, S, D).
        """
        inputs = [
            query if x is None else x
            for x in (query, key, value if key is None else value)
        ]
        self.check_shapes(*inputs)
        if key is None:  # one product with the whole matrix, not three
            parts = self.c_attn(query).split(self.n_embd, dim=-1)
        else:
            weights = self.c_attn.weight.split(self.n_embd, dim=1)
            biases = self.c_attn.bias.split(self.n_embd)
            maps = zip(inputs, weights, biases, strict=True)
            parts = [x @ weight + bias for x, weight, bias in maps]
        return [self.split_heads(part) for part in parts]

    def check_shapes(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Refuse inputs of different batch sizes or widths."""
        if (
            not query.dim() == key.dim() == 3
            or query.shape[::2] != key.shape[::2]
            or query.size(2) != self.n_embd
            or key.shape != value.shape
        ):
            shapes = [tuple(x.shape) for x in (query, key, value)]
            raise ValueError(
                f"attention takes a query (B, T, {self.n_embd}), and a key and "
                f"a value of one shape (B, S, {self.n_embd}); got {shapes}"
            )

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
        """Mix the values by their weights, spelled out: (B, H, T, D)."""
        if causal:
            mask = with_causal_mask(mask, query, key)
        weights = attention_weights(query, key, mask)  # (B, H, T, S)
        return self.attn_dropout(weights) @ value

    def attend_fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
    ) -> Tensor:
        """Do the same in one kernel, which never stores the (T, S) weights."""
        attend = F.scaled_dot_product_attention
        p = self.attn_dropout.p if self.training else 0.0
        # PyTorch's `is_causal` lines up the first query with the first key.
        # That is our mask where there are as many queries as keys.
        if causal and mask is None and query.size(2) == key.size(2):
            return attend(query, key, value, dropout_p=p, is_causal=True)
        if causal:
            mask = with_causal_mask(mask, query, key)
        return attend(query, key, value, mask, p)
