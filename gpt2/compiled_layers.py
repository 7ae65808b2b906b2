"""All layers of a packed model, run in one call of `compiled.c`.

What is left to Python between two products would cost as much time as some of
the products. So the routines are handed the whole stack, and the memory of
earlier positions as well, which they keep in an order of their own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gpt2.attention import KeyValueCache
from gpt2.compiled import (
    KINDS,
    PER_WORD,
    WIDE,
    Matrix,
    fields,
    in_large_pages,
    routines,
)
from gpt2.config import GPT2Config

KEPT = torch.bfloat16
"""In what keys and values are kept, unless the matrices are float32."""
AFTER = ("", "", "gelu_new", "gelu", "relu")
"""`enum after`."""


class _Layer(ctypes.Structure):
    _fields_ = (
        *fields("ln_1_weight ln_1_bias", ctypes.c_void_p),
        *fields("ln_2_weight ln_2_bias", ctypes.c_void_p),
        *fields("c_attn c_proj c_fc c_mlp", Matrix),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *fields("kind n_layer n_head n_embd activation", ctypes.c_long),
        ("epsilon", ctypes.c_float),
        ("layers", ctypes.POINTER(_Layer)),
    )


class _Memory(ctypes.Structure):
    _fields_ = (
        *fields("keys values", ctypes.c_void_p),
        *fields("past room alone", ctypes.c_long),
    )


class PackedCache(KeyValueCache):
    """The keys and values of every layer, as `compiled.c` keeps them.

    In float32 for a model that is packed so, and else in bfloat16.
    """

    length = 0
    """How many positions are filled."""

    def __init__(
        self,
        config: GPT2Config,
        batch_size: int,
        n_positions: int,
        dtype: torch.dtype,
        n_layers: int,
    ) -> None:
        """Reserve a cache.

        Args:
            config: The model's.
            batch_size: B.
            n_positions: How many positions there is room for.
            dtype: float32 or bfloat16.
            n_layers: How many layers have one of their own.
        """
        size, per_word = config.head_size, PER_WORD[dtype]
        self.n_positions = n_positions
        self.room = -(-n_positions // WIDE) * WIDE
        heads = (n_layers, batch_size, config.n_head)
        words, blocks = -(-size // per_word), -(-size // WIDE)
        shape = (*heads, self.room // WIDE, words, WIDE, per_word)
        self.keys = in_large_pages(shape, dtype)
        shape = (*heads, blocks, self.room // per_word, WIDE, per_word)
        self.values = in_large_pages(shape, dtype)

    def check(self, batch_size: int, n_new: int) -> None:
        """Refuse what does not fit."""
        if batch_size != self.keys.size(1):
            raise ValueError(
                f"the cache is for {self.keys.size(1)} sequences, and got "
                f"{batch_size}"
            )
        if self.length + n_new > self.n_positions:
            raise ValueError(
                f"the cache has room for {self.n_positions} positions and "
                f"holds {self.length}; {n_new} more do not fit"
            )

    def select(self, rows: Tensor) -> None:
        """Keep the sequences `rows`, in that order; one may come twice."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]


class CompiledLayers:
    """All layers of a model, run in one call.

    They do what `PackedLayer.forward` does, one after the other.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        config: GPT2Config,
        precision: str,
    ) -> None:
        """Take layers whose matrices are `PackedMatrix`.

        Args:
            layers: Their numbers stay where they are.
            config: The model's.
            precision: Of the matrices.
        """
        self.config, self.packed = config, layers
        dtype = getattr(torch, precision)
        self.kept = dtype if dtype == torch.float32 else KEPT
        self.array = (_Layer * len(layers))()
        for struct, layer in zip(self.array, layers, strict=True):
            for norm in ("ln_1", "ln_2"):
                for part in ("weight", "bias"):
                    tensor = getattr(getattr(layer, norm), part)
                    setattr(struct, f"{norm}_{part}", tensor.data_ptr())
            for matrix in ("c_attn", "c_proj", "c_fc", "c_mlp"):
                setattr(struct, matrix, getattr(layer, matrix).struct)
        self.struct = _Model(
            KINDS.index(dtype),
            len(layers),
            config.n_head,
            config.n_embd,
            AFTER.index(config.activation),
            config.layer_norm_epsilon,
            self.array,
        )

    def new_cache(self, batch_size: int, n_positions: int) -> PackedCache:
        """Reserve a cache for all layers."""
        n_layer = self.config.n_layer
        return PackedCache(
            self.config, batch_size, n_positions, self.kept, n_layer
        )

    def __call__(
        self,
        x: Tensor,
        attention_mask: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        """Run the layers.

        Args:
            x: (B, T, C), the stream, float32. It is changed.
            attention_mask: (B, past + T), true where there is a token.
            cache: From `new_cache`.

        Returns:
            (B, T, C).

        Raises:
            ValueError: The cache is for another number of sequences, or full.
        """
        batch_size, n_new, _ = x.shape
        alone = cache is not None
        if cache is None:  # nothing to remember: one layer's room does
            cache = PackedCache(self.config, batch_size, n_new, self.kept, 1)
        assert isinstance(cache, PackedCache)
        cache.check(batch_size, n_new)
        memory = _Memory(
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            cache.length,
            cache.room,
            alone,
        )
        x = x.contiguous()
        real = None
        if attention_mask is not None:
            real = attention_mask.bool().contiguous()
        failed = routines().run_layers(
            ctypes.byref(self.struct),
            x.data_ptr(),
            ctypes.byref(memory),
            batch_size,
            n_new,
            None if real is None else real.data_ptr(),
            torch.get_num_threads(),
        )
        if failed:
            raise MemoryError(f"no memory for {batch_size} x {n_new} tokens")
        cache.length += n_new
        return x
