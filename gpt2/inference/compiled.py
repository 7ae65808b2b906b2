"""Matrices that `compiled.c` packs and multiplies, and its library.

Where there is no C compiler, or compiling fails, there are no routines, and
`gpt2.inference.kernels` falls back to plain PyTorch. The C code trusts its
arguments, so every size is checked here before the call.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from gpt2.files.pages import release_pages
from gpt2.inference import compiling

Precision = Literal["float32", "bfloat16", "int8", "int4"]
"""The format of a packed matrix. `int8` stores one byte for each value, and a
scale for each column; `int4` half a byte, and a scale for each group of 32
values of a column."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
"""In the order of `enum dtype`."""
PANEL = 32
"""How many columns a panel has."""
GROUP = 32
"""How many int4 values of a column share a scale."""
WORD = 4
"""Bytes of a word."""
STRIP = 8
"""Words of a row that loops take at a time."""
HUGE_PAGE = 1 << 21
"""Bytes in a huge page."""
PIECE = 1 << 22
"""How many values are packed, and perhaps released, at a time."""


@cache
def library() -> ctypes.CDLL | None:
    """Load the compiled routines; None where they are unavailable."""
    found = compiling.load()
    if found is not None:
        i, p, n = ctypes.c_int, ctypes.c_void_p, ctypes.c_long
        found.pack.argtypes = [i, p, n, n, p, n, n, p, p, p, n]
        found.matmul.argtypes = [i, p, p, p, n, n]
        found.run_layers.argtypes = [p, p, p, n, n, p, n]
    return found


def routines() -> ctypes.CDLL:
    """Load the compiled routines.

    Raises:
        RuntimeError: They are unavailable.
    """
    found = library()
    if found is None:
        raise RuntimeError("compiled.c needs a C compiler, and there is none")
    return found


_threads_of: int | None = None
"""The process in which several threads have run."""


def n_threads() -> int:
    """Return the number of threads to use, which is PyTorch's.

    Raises:
        RuntimeError: This process was forked from one in which several threads
            have run. The fork has none of them and would wait for them
            forever.
    """
    global _threads_of
    count = torch.get_num_threads()
    if count > 1:
        _threads_of = _threads_of or os.getpid()
        if _threads_of != os.getpid():
            raise RuntimeError(
                f"this process was forked from one in which {count} threads "
                f"have run a packed model, and threads do not survive a fork; "
                f"start processes with multiprocessing's 'spawn', or call "
                f"torch.set_num_threads(1) in this one first"
            )
    return count


def fields(names: str, kind: Any) -> list[tuple[str, Any]]:
    """List the fields of a C structure that share a type."""
    return [(name, kind) for name in names.split()]


class MatrixStruct(ctypes.Structure):
    """`struct matrix`."""

    _fields_ = (
        *fields("panels scales column_sums bias", ctypes.c_void_p),
        *fields("n_in n_out", ctypes.c_long),
    )


class CompiledMatrix:
    """A matrix [in, out] and a bias, packed and multiplied by `compiled.c`."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        precision: Precision,
        offsets: Tensor | None = None,
        *,
        memory: Tensor | None = None,
        consume: bool = False,
    ) -> None:
        """Pack a matrix.

        Args:
            weight: (in, out), floating point, on the CPU.
            bias: (out,), or None for zeros.
            precision: The format to round to; int8 and int4 as in
                `gpt2.inference.kernels`.
            offsets: (in,), subtracted from every column before rounding.
            memory: (n,) zero bytes to pack into, as many as `panels_shape`
                says, or None for new ones.
            consume: Release `weight` piece by piece as it is packed.

        Raises:
            ValueError: The shapes do not match, or a value is not finite,
                before or after rounding.
        """
        check_shapes(weight, bias, offsets)
        self.precision = precision
        self.n_in, self.n_out = weight.shape
        offsets = torch.zeros(self.n_in) if offsets is None else offsets
        offsets = offsets.float().contiguous()
        shape = panels_shape(self.n_in, self.n_out, precision)
        if memory is None:
            memory = zeros_on_huge_pages((math.prod(shape),), torch.uint8)
        self.panels, n_columns = memory.view(shape), shape[0] * PANEL
        self.scales = torch.zeros(n_columns)
        self.column_sums = torch.zeros(n_columns, dtype=torch.int32)
        self.bias = torch.zeros(n_columns)
        if bias is not None:
            self.bias[: self.n_out] = bias
        tensors = (self.panels, self.scales, self.column_sums, self.bias)
        pointers = [tensor.data_ptr() for tensor in tensors]
        assert not any(pointer % 64 for pointer in pointers)
        finite = self._pack(weight, offsets, consume)
        if not finite or not self.bias.isfinite().all():
            raise ValueError(
                f"a matrix {tuple(weight.shape)} has values that are not "
                f"finite in {precision}"
            )
        self.struct = MatrixStruct(*pointers, self.n_in, self.n_out)

    def _pack(self, weight: Tensor, offsets: Tensor, consume: bool) -> bool:
        """Pack a few columns at a time; return whether all are finite."""
        failed, n_columns = 0, max(1, PIECE // self.n_in // PANEL) * PANEL
        for at in range(0, self.n_out, n_columns):
            columns = weight[:, at : at + n_columns]
            values = columns.float()
            failed |= routines().pack(
                PRECISIONS.index(self.precision),
                values.data_ptr(),
                *values.stride(),
                offsets.data_ptr(),
                *values.shape,
                self.panels[at // PANEL].data_ptr(),
                self.scales[at:].data_ptr(),
                self.column_sums[at:].data_ptr(),
                n_threads(),
            )
            if consume:
                release(columns)
        if consume:
            release(weight)
        return not failed

    def __call__(self, rows: Tensor) -> Tensor:
        """Multiply rows by the matrix and add the bias.

        Args:
            rows: (N, in), floating point.

        Returns:
            (N, out), float32.

        Raises:
            ValueError: The rows have another width.
            MemoryError: There is no memory for the workspace.
        """
        if rows.dim() != 2 or rows.size(1) != self.n_in:
            raise ValueError(
                f"rows must have the shape (N, {self.n_in}), got "
                f"{tuple(rows.shape)}"
            )
        rows = rows.float().contiguous()
        out = torch.empty(len(rows), self.n_out)
        if len(rows) == 0:
            return out
        failed = routines().matmul(
            PRECISIONS.index(self.precision),
            ctypes.byref(self.struct),
            rows.data_ptr(),
            out.data_ptr(),
            len(rows),
            n_threads(),
        )
        if failed:
            raise MemoryError(f"no memory for {len(rows)} rows")
        return out

    def columns(self, ids: Tensor) -> Tensor:
        """Look up columns, without the bias.

        Args:
            ids: Any shape, int64 or int32, each from 0 to out - 1.

        Returns:
            (*ids.shape, in), float32.
        """
        panel, column = ids // PANEL, ids % PANEL
        if self.precision == "int4":
            values = self._int4_columns(panel, column)
        else:
            words = self.panels[panel, :, column]  # (..., n_words, 4)
            values = words.view(getattr(torch, self.precision)).float()
        values = values.flatten(-2)[..., : self.n_in]
        if self.precision == "int8":
            values *= self.scales[ids, None]
        return values

    def _int4_columns(self, panel: Tensor, column: Tensor) -> Tensor:
        """Look up columns of groups: (..., n_groups, GROUP), float32."""
        n_scales = PANEL // 2  # words, each with the scales of two columns
        nibbles = self.panels[:, :, :-n_scales].unflatten(2, (-1, PANEL))
        nibbles = nibbles[panel, :, :, column]  # (..., n_groups, 4, WORD)
        values = torch.stack([nibbles & 15, nibbles >> 4], dim=-2)
        scales = self.panels[:, :, -n_scales:][panel, :, column % n_scales]
        scales = scales.view(torch.bfloat16)  # (..., n_groups, 2)
        second = (column >= n_scales)[..., None, None].long()
        scales = scales.take_along_dim(second, dim=-1)
        return (values.flatten(-3).float() - 8) * scales


def row_words(itemsize: int, n: int) -> int:
    """Count the words of a row of `n` values, in whole strips."""
    return -(-n * itemsize // (STRIP * WORD)) * STRIP


def panels_shape(
    n_in: int, n_out: int, precision: Precision
) -> tuple[int, int, int, int]:
    """Return the shape of a packed matrix [in, out], in bytes."""
    n_panels = -(-n_out // PANEL)
    if precision == "int4":
        return n_panels, -(-n_in // GROUP), 4 * PANEL + PANEL // 2, WORD
    n_words = row_words(getattr(torch, precision).itemsize, n_in)
    return n_panels, n_words, PANEL, WORD


def check_shapes(
    weight: Tensor, bias: Tensor | None, offsets: Tensor | None = None
) -> None:
    """Raise an error for a matrix, bias or offsets that cannot be packed.

    Args:
        weight: Must be (in, out) and not empty.
        bias: Must be (out,) or None.
        offsets: Must be (in,) or None.

    Raises:
        ValueError: A shape is wrong, or a tensor is not on the CPU.
    """
    fits = weight.dim() == 2 and weight.numel() > 0
    fits = fits and (bias is None or bias.shape == weight.shape[1:])
    fits = fits and (offsets is None or offsets.shape == weight.shape[:1])
    if not fits or any(
        tensor is not None and tensor.device.type != "cpu"
        for tensor in (weight, bias, offsets)
    ):
        shapes = [
            None if tensor is None else (*tensor.shape, str(tensor.device))
            for tensor in (weight, bias, offsets)
        ]
        raise ValueError(
            f"to be packed, a matrix must be (in, out), its bias (out,) and "
            f"its offsets (in,), all on the CPU; got {shapes}"
        )


def zeros_on_huge_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return zeros in memory with pages of 2 MiB instead of 4 KiB.

    Linux provides huge pages for private mappings if `madvise` requests them
    before the first write; elsewhere the pages are ordinary ones. Reading all
    weights then causes fewer TLB misses: with GPT-2 124M, a step of generation
    took 4 % less time in float32, 8 % in bfloat16 and 1 % in int8
    (`benchmarks/huge_pages.py`).

    Raises:
        MemoryError: There is not enough memory.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    try:
        memory = mmap.mmap(-1, n_bytes + HUGE_PAGE, **_PRIVATE)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no memory for {n_bytes:,} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    buffer = torch.frombuffer(memory, dtype=torch.uint8)
    start = -buffer.data_ptr() % HUGE_PAGE  # where a huge page can begin
    return buffer[start : start + n_bytes].view(dtype).view(shape)


# Without flags, Python makes a shared mapping, which gets no huge pages.
_PRIVATE: dict[str, Any] = {}
if hasattr(mmap, "MAP_PRIVATE"):
    _PRIVATE["flags"] = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def release(tensor: Tensor) -> None:
    """Give the memory of a tensor that is no longer needed back to the system.

    On Linux, the pages of a memory-mapped file are dropped, and other values
    become zeros. On other systems nothing happens, nor with a tensor that has
    gaps. `benchmarks/memory.py` measures what that saves.
    """
    if tensor.is_contiguous() or tensor.mT.is_contiguous():
        release_pages(tensor.data_ptr(), tensor.nbytes)
