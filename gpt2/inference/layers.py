"""All layers of a packed model, run in one call of `compiled.c`.

What is left to Python between two products would cost as much time as some of
the products. So the routines are handed the whole stack, and the memory of
earlier positions as well, which they keep in an order of their own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NoReturn, TypeGuard

import torch
from torch import Tensor, nn

from gpt2.cache import KeyValueCache
from gpt2.config import GPT2Config
from gpt2.inference.compiled import (
    KINDS,
    PER_WORD,
    WIDE,
    Matrix,
    fields,
    in_large_pages,
    n_workers,
    routines,
)

KEPT = torch.bfloat16
"""In what keys and values are kept, unless the matrices are float32."""
AFTER = ("", "", "gelu_new", "gelu", "relu")
"""`enum after`."""
ALIGNMENT = 4 * WIDE
"""Of what C reads a register at a time, in bytes."""
NOT_ITS_OWN = (
    "the cache was made by a model of another shape, or packed in another way;"
    " this model's `new_cache` makes one that fits"
)


class _Layer(ctypes.Structure):
    _fields_ = (
        *fields("ln_1_weight ln_1_bias", ctypes.c_void_p),
        *fields("ln_2_weight ln_2_bias", ctypes.c_void_p),
        *fields("c_attn c_proj c_fc c_mlp", Matrix),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *fields(
            "kind n_layer n_head n_embd n_inner activation", ctypes.c_long
        ),
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
        if batch_size < 0 or n_positions < 0:
            raise ValueError(
                f"a cache is for 0 sequences and positions or more; got "
                f"{batch_size} and {n_positions}"
            )
        self.config, self.dtype, self.n_layers = config, dtype, n_layers
        self.batch_size, self.n_positions = batch_size, n_positions
        keys, values = self._shapes()
        self.keys = in_large_pages(keys, dtype)
        self.values = in_large_pages(values, dtype)

    def of_layers(self, n_layer: int) -> NoReturn:
        """Refuse to be the cache of a model that is not packed so."""
        raise ValueError(NOT_ITS_OWN)

    @property
    def room(self) -> int:
        """The number of positions, rounded up to whole blocks."""
        return -(-self.n_positions // WIDE) * WIDE

    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of keys and values, as `compiled.c` has them."""
        size, per_word = self.config.head_size, PER_WORD[self.dtype]
        heads = (self.n_layers, self.batch_size, self.config.n_head)
        words, blocks = -(-size // per_word), -(-size // WIDE)
        return (
            (*heads, self.room // WIDE, words, WIDE, per_word),
            (*heads, blocks, self.room // per_word, WIDE, per_word),
        )

    def check(self, batch_size: int, n_new: int) -> None:
        """Refuse what does not fit.

        Raises:
            ValueError: It is another number of sequences, there is no room, or
                the tensors are no longer those of `__init__` or `select`.
        """
        if batch_size != self.batch_size:
            raise ValueError(
                f"the cache is for {self.batch_size} sequences, and got "
                f"{batch_size}"
            )
        if not 0 <= self.length <= self.n_positions - n_new:
            raise ValueError(
                f"the cache has room for {self.n_positions} positions and "
                f"holds {self.length}; {n_new} more do not fit"
            )
        for tensor, shape in zip(
            (self.keys, self.values), self._shapes(), strict=True
        ):
            if (
                tensor.shape != shape
                or tensor.dtype != self.dtype
                or tensor.device.type != "cpu"
                or not tensor.is_contiguous()
                or tensor.data_ptr() % ALIGNMENT
            ):
                raise ValueError(
                    f"the cache holds {tensor.dtype} of shape "
                    f"{tuple(tensor.shape)}, and not {self.dtype} of shape "
                    f"{shape} in one piece"
                )

    def select(self, rows: Tensor) -> None:
        """Keep the sequences `rows`, in that order; one may come twice."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.batch_size = self.keys.size(1)


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
        self.held: list[object] = []  # what C points to must stay
        sizes = (config.n_embd, config.inner_size)
        for struct, layer in zip(self.array, layers, strict=True):
            check_layer(layer, *sizes)
            for norm in ("ln_1", "ln_2"):
                for part in ("weight", "bias"):
                    tensor = getattr(getattr(layer, norm), part).detach()
                    self.held.append(tensor)
                    setattr(struct, f"{norm}_{part}", tensor.data_ptr())
            for name in ("c_attn", "c_proj", "c_fc", "c_mlp"):
                matrix = getattr(layer, name)
                self.held.append(matrix)
                setattr(struct, name, matrix.struct)
        self.struct = _Model(
            KINDS.index(dtype),
            len(layers),
            config.n_head,
            *sizes,
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
            ValueError: The cache is another model's, for another number of
                sequences, or full; or the shapes do not go together.
            MemoryError: There is no room to work in.
        """
        past, alone = 0 if cache is None else cache.length, cache is not None
        batch_size, n_new = self.check(x, attention_mask, past)
        if cache is None:  # nothing to remember: one layer's room does
            cache = PackedCache(self.config, batch_size, n_new, self.kept, 1)
        elif not self.made(cache):
            raise ValueError(NOT_ITS_OWN)
        cache.check(batch_size, n_new)
        # Another thread may select others meanwhile: these stay until the end.
        keys, values = cache.keys, cache.values
        memory = _Memory(
            keys.data_ptr(),
            values.data_ptr(),
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
            n_workers(),
        )
        if failed:
            raise MemoryError(f"no memory for {batch_size} x {n_new} tokens")
        cache.length += n_new
        return x

    def made(self, cache: KeyValueCache) -> TypeGuard[PackedCache]:
        """Tell whether `new_cache` of this model, or of its like, made it."""
        return isinstance(cache, PackedCache) and (
            cache.dtype,
            cache.n_layers,
            cache.config.n_head,
            cache.config.head_size,
        ) == (
            self.kept,
            self.config.n_layer,
            self.config.n_head,
            self.config.head_size,
        )

    def check(
        self, x: Tensor, attention_mask: Tensor | None, past: int
    ) -> tuple[int, int]:
        """Refuse what C would read or write beyond; return B and T."""
        width = self.config.n_embd
        if x.dim() != 3 or x.size(2) != width or x.dtype != torch.float32:
            raise ValueError(
                f"the stream must be float32 (B, T, {width}), got {x.dtype} "
                f"{tuple(x.shape)}"
            )
        batch_size, n_new, _ = x.shape
        shape = (batch_size, past + n_new)
        if attention_mask is not None and attention_mask.shape != shape:
            raise ValueError(
                f"attention_mask must have shape {shape}, got "
                f"{tuple(attention_mask.shape)}"
            )
        return batch_size, n_new


def check_layer(layer: nn.Module, n_embd: int, n_inner: int) -> None:
    """Refuse a layer whose parts have other sizes than C is told.

    Raises:
        ValueError: One has, and which.
    """
    sizes = {
        "c_attn": (n_embd, 3 * n_embd),
        "c_proj": (n_embd, n_embd),
        "c_fc": (n_embd, n_inner),
        "c_mlp": (n_inner, n_embd),
    }
    for name, size in sizes.items():
        matrix = getattr(layer, name)
        if (matrix.n_in, matrix.n_out) != size:
            raise ValueError(
                f"{name} must be a matrix {size}, got "
                f"{(matrix.n_in, matrix.n_out)}"
            )
    for name in ("ln_1", "ln_2"):
        for part in ("weight", "bias"):
            tensor = getattr(getattr(layer, name), part)
            if tensor.shape != (n_embd,) or tensor.dtype != torch.float32:
                raise ValueError(
                    f"{name}.{part} must be float32 ({n_embd},), got "
                    f"{tensor.dtype} {tuple(tensor.shape)}"
                )
