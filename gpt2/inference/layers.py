"""All layers of a packed model, run in one call of `compiled.c`.

With one token in a step, the overhead of a call from Python is as large as
some of the products. So C runs the whole stack, and keeps the keys and values
in a layout of its own.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Iterator
from typing import NoReturn, TypeGuard

import torch
from torch import Tensor

from gpt2.cache import KeyValueCache
from gpt2.config import GPT2Config
from gpt2.inference.compiled import (
    PANEL,
    PRECISIONS,
    WORD,
    CompiledMatrix,
    MatrixStruct,
    Precision,
    fields,
    n_threads,
    panels_shape,
    routines,
    row_words,
    zeros_on_huge_pages,
)
from gpt2.inference.plain import frozen
from gpt2.layer import GPT2Layer
from gpt2.layer_norm import LayerNorm
from gpt2.linear import Linear

EPILOGUES = ("", "", "gelu_new", "gelu", "relu")
"""`enum epilogue`, from the activations on."""
ALIGNMENT = 64
"""Bytes of a vector, and the alignment that C's vector loads need."""
NOT_ITS_OWN = (
    "the cache was made by a model of another shape, or packed differently; "
    "this model's `new_cache` makes one that fits"
)


class _Layer(ctypes.Structure):
    _fields_ = (
        *fields("ln_1_weight ln_1_bias", ctypes.c_void_p),
        *fields("ln_2_weight ln_2_bias", ctypes.c_void_p),
        *fields("attn_c_attn attn_c_proj", MatrixStruct),
        *fields("mlp_c_fc mlp_c_proj", MatrixStruct),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *fields(
            "dtype n_layer n_head n_embd n_inner activation", ctypes.c_long
        ),
        ("epsilon", ctypes.c_float),
        ("layers", ctypes.POINTER(_Layer)),
    )


class _Cache(ctypes.Structure):
    _fields_ = (
        *fields("keys values", ctypes.c_void_p),
        *fields("length capacity per_layer", ctypes.c_long),
    )


class PackedCache(KeyValueCache):
    """The keys and values of every layer, in the layout of `compiled.c`."""

    length = 0
    """The number of positions that are filled."""

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
            batch_size: B, the number of sequences.
            n_positions: The most positions that the cache can hold.
            dtype: float32 or bfloat16.
            n_layers: The number of layers with a cache of their own.

        Raises:
            ValueError: A size is negative.
            MemoryError: There is not enough memory.
        """
        if batch_size < 0 or n_positions < 0:
            raise ValueError(
                f"a cache is for 0 sequences and positions or more; got "
                f"{batch_size} and {n_positions}"
            )
        self.config, self.dtype, self.n_layers = config, dtype, n_layers
        self.batch_size, self.n_positions = batch_size, n_positions
        keys, values = self._shapes()
        self.keys = zeros_on_huge_pages(keys, dtype)
        self.values = zeros_on_huge_pages(values, dtype)

    def of_layers(self, n_layer: int) -> NoReturn:
        """Raise an error: no other model can use this layout.

        Raises:
            ValueError: Always.
        """
        raise ValueError(NOT_ITS_OWN)

    @property
    def capacity(self) -> int:
        """The number of positions, rounded up to whole panels."""
        return -(-self.n_positions // PANEL) * PANEL

    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of keys and values, as in `struct kv_cache`."""
        head_size, itemsize = self.config.head_size, self.dtype.itemsize
        heads = (self.n_layers, self.batch_size, self.config.n_head)
        n_words, n_panels = (
            row_words(itemsize, head_size),
            -(-head_size // PANEL),
        )
        capacity, per_word = self.capacity, WORD // itemsize
        return (
            (*heads, capacity // PANEL, n_words, PANEL, per_word),
            (*heads, n_panels, capacity // per_word, PANEL, per_word),
        )

    def check(self, batch_size: int, n_new: int) -> None:
        """Raise an error if new positions do not fit.

        Args:
            batch_size: B of the new positions.
            n_new: T of the new positions.

        Raises:
            ValueError: B differs, there is no room, or the tensors are no
                longer those of `__init__` or `select`.
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
                    f"the cache must hold contiguous, aligned {self.dtype} of "
                    f"shape {shape}; got {tensor.dtype} of shape "
                    f"{tuple(tensor.shape)}"
                )

    def select(self, rows: Tensor) -> None:
        """Keep the sequences `rows`, in that order; one may be repeated.

        Args:
            rows: (new B,) of int64.
        """
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.batch_size = self.keys.size(1)


class CompiledLayers:
    """All layers of a model, run in one call of `compiled.c`."""

    def __init__(
        self,
        layers: Iterable[GPT2Layer],
        config: GPT2Config,
        precision: Precision,
        consume: bool = False,
    ) -> None:
        """Pack the layers of a model.

        Args:
            layers: Nothing is shared with them.
            config: The model's.
            precision: The format of the matrices.
            consume: Release their matrices; otherwise they are left as they
                are.

        Raises:
            ValueError: A weight is not finite, before or after rounding, or
                has another shape than the config says.
        """
        self.config = config
        float32 = precision == "float32"
        self.cache_dtype = torch.float32 if float32 else torch.bfloat16
        self._held: list[object] = []  # C has pointers into these
        self._layers = (_Layer * config.n_layer)()
        with torch.device("meta"):
            expected = GPT2Layer(config)
        memory = _memory_for(expected, config.n_layer, precision)
        for struct, layer in zip(self._layers, layers, strict=True):
            check_layer(layer, expected)
            self._pack(struct, layer, precision, memory, consume)
        self._struct = _Model(
            PRECISIONS.index(precision),
            config.n_layer,
            config.n_head,
            config.n_embd,
            config.inner_size,
            EPILOGUES.index(config.activation),
            config.layer_norm_epsilon,
            self._layers,
        )

    def _pack(
        self,
        struct: _Layer,
        layer: GPT2Layer,
        precision: Precision,
        memory: Iterator[Tensor],
        consume: bool,
    ) -> None:
        for name, part in layer.named_modules():
            field = name.replace(".", "_")
            if isinstance(part, Linear):
                matrix = CompiledMatrix(
                    *(part.weight, part.bias, precision),
                    memory=next(memory),
                    consume=consume,
                )
                setattr(struct, field, matrix.struct)
                self._held.append(matrix)
            elif isinstance(part, LayerNorm):
                norm = frozen(part)
                setattr(struct, f"{field}_weight", norm.weight.data_ptr())
                setattr(struct, f"{field}_bias", norm.bias.data_ptr())
                self._held.append(norm)

    def new_cache(
        self, batch_size: int, n_positions: int | None
    ) -> PackedCache:
        """Reserve a cache; float32 for a float32 model, else bfloat16."""
        room = self.config.n_ctx if n_positions is None else n_positions
        n_layer = self.config.n_layer
        return PackedCache(
            self.config, batch_size, room, self.cache_dtype, n_layer
        )

    def __call__(
        self,
        x: Tensor,
        attention_mask: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        """Run the layers.

        Args:
            x: (B, T, C), the residual stream, float32. It is overwritten.
            attention_mask: (B, past + T), true or 1 for a token, or None.
            cache: From `new_cache`; the new positions are appended. Or None.

        Returns:
            (B, T, C), float32.

        Raises:
            ValueError: The cache is another model's, for another number of
                sequences, or full; or the shapes do not match.
            MemoryError: There is no memory for the workspace.
        """
        past, per_layer = 0 if cache is None else cache.length, True
        batch_size, n_new = self.check(x, attention_mask, past)
        if cache is None:  # keys and values are used only within a layer
            dtype, per_layer = self.cache_dtype, False
            cache = PackedCache(self.config, batch_size, n_new, dtype, 1)
        elif not self.made(cache):
            raise ValueError(NOT_ITS_OWN)
        cache.check(batch_size, n_new)
        # `select` in another thread replaces these: hold them until the end.
        keys, values = cache.keys, cache.values
        struct = _Cache(
            *(keys.data_ptr(), values.data_ptr()),
            *(cache.length, cache.capacity, per_layer),
        )
        x, mask = x.contiguous(), None
        if attention_mask is not None:
            mask = attention_mask.bool().contiguous()
        failed = routines().run_layers(
            ctypes.byref(self._struct),
            x.data_ptr(),
            ctypes.byref(struct),
            batch_size,
            n_new,
            None if mask is None else mask.data_ptr(),
            n_threads(),
        )
        if failed:
            raise MemoryError(f"no memory for {batch_size} x {n_new} tokens")
        cache.length += n_new
        return x

    def made(self, cache: KeyValueCache) -> TypeGuard[PackedCache]:
        """Return whether a model of this shape and precision made it."""
        return isinstance(cache, PackedCache) and (
            cache.dtype,
            cache.n_layers,
            cache.config.n_head,
            cache.config.head_size,
        ) == (
            self.cache_dtype,
            self.config.n_layer,
            self.config.n_head,
            self.config.head_size,
        )

    def check(
        self, x: Tensor, attention_mask: Tensor | None, past: int
    ) -> tuple[int, int]:
        """Raise an error for shapes beyond which C would read or write.

        Args:
            x: Must be (B, T, C), float32.
            attention_mask: Must be (B, past + T), or None.
            past: The number of positions in the cache.

        Returns:
            B and T.

        Raises:
            ValueError: They are something else.
        """
        width = self.config.n_embd
        if x.dim() != 3 or x.size(2) != width or x.dtype != torch.float32:
            raise ValueError(
                f"the residual stream must be float32 (B, T, {width}), got "
                f"{x.dtype} {tuple(x.shape)}"
            )
        batch_size, n_new, _ = x.shape
        shape = (batch_size, past + n_new)
        if attention_mask is not None and attention_mask.shape != shape:
            raise ValueError(
                f"attention_mask must have shape {shape}, got "
                f"{tuple(attention_mask.shape)}"
            )
        return batch_size, n_new


def _memory_for(
    layer: GPT2Layer, n_layer: int, precision: Precision
) -> Iterator[Tensor]:
    """Yield the memory of each matrix, all of it from one block.

    A block of its own for each would waste a huge page or two each time.

    Args:
        layer: A layer, of which only the shapes matter.
        n_layer: The number of such layers.
        precision: The format of the matrices.
    """
    sizes = n_layer * [
        math.prod(panels_shape(matrix.size(0), matrix.size(1), precision))
        for matrix in layer.parameters()
        if matrix.dim() == 2
    ]
    return iter(zeros_on_huge_pages((sum(sizes),), torch.uint8).split(sizes))


def check_layer(layer: GPT2Layer, expected: GPT2Layer) -> None:
    """Raise an error for a layer with other sizes than C will assume.

    Args:
        layer: One layer of a model.
        expected: One that was built from the config that the C code is given.

    Raises:
        ValueError: The shape of a parameter differs.
    """
    shapes = {n: tuple(p.shape) for n, p in expected.named_parameters()}
    for name, parameter in layer.named_parameters():
        if tuple(parameter.shape) != shapes[name]:
            raise ValueError(
                f"{name} must have the shape {shapes[name]}, got "
                f"{tuple(parameter.shape)}"
            )
