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
from typing import Any

import torch
from torch import Tensor

from gpt2.files.pages import release_pages
from gpt2.inference import compiling

DTYPES = (torch.float32, torch.bfloat16, torch.int8)
"""`enum dtype`."""
PER_WORD = {torch.float32: 1, torch.bfloat16: 2, torch.int8: 4}
"""How many values a word of 32 bits holds."""
LANES = 16
"""How many columns a panel has."""
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
        dtype: torch.dtype,
        offsets: Tensor | None = None,
        *,
        memory: Tensor | None = None,
        consume: bool = False,
    ) -> None:
        """Pack a matrix.

        Args:
            weight: (in, out), floating point, on the CPU.
            bias: (out,), or None for zeros.
            dtype: float32, bfloat16 or int8, the format to round to; int8 as
                in `gpt2.inference.kernels.quantize`.
            offsets: (in,), subtracted from every column before rounding.
            memory: (n,) zero bytes to pack into, as many as `panels_shape`
                says, or None for new ones.
            consume: Release `weight` piece by piece as it is packed.

        Raises:
            ValueError: The shapes do not match, or a value is not finite,
                before or after rounding.
        """
        check_shapes(weight, bias, offsets)
        self.dtype = DTYPES.index(dtype)
        self.n_in, self.n_out = weight.shape
        offsets = torch.zeros(self.n_in) if offsets is None else offsets
        offsets = offsets.float().contiguous()
        shape = panels_shape(self.n_in, self.n_out, dtype)
        if memory is None:
            memory = zeros_on_huge_pages((math.prod(shape),), dtype)
        self.panels = memory.view(dtype).view(shape)
        self.scales = torch.zeros(shape[0] * LANES)
        self.column_sums = torch.zeros(shape[0] * LANES, dtype=torch.int32)
        self.bias = torch.zeros(shape[0] * LANES)
        if bias is not None:
            self.bias[: self.n_out] = bias
        tensors = (self.panels, self.scales, self.column_sums, self.bias)
        pointers = [tensor.data_ptr() for tensor in tensors]
        assert not any(pointer % 64 for pointer in pointers)
        finite = self._pack(weight, offsets, consume)
        if not finite or not self.bias.isfinite().all():
            raise ValueError(
                f"a matrix {tuple(weight.shape)} has values that are not "
                f"finite in {dtype}"
            )
        self.struct = MatrixStruct(*pointers, self.n_in, self.n_out)

    def _pack(self, weight: Tensor, offsets: Tensor, consume: bool) -> bool:
        """Pack a few columns at a time; return whether all are finite."""
        failed, n_columns = 0, max(1, PIECE // self.n_in // LANES) * LANES
        for at in range(0, self.n_out, n_columns):
            columns = weight[:, at : at + n_columns]
            values = columns.float()
            failed |= routines().pack(
                self.dtype,
                values.data_ptr(),
                *values.stride(),
                offsets.data_ptr(),
                *values.shape,
                self.panels[at // LANES].data_ptr(),
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
            self.dtype,
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
        panels = self.panels[ids // LANES, :, ids % LANES]
        values = panels.flatten(-2)[..., : self.n_in].float()
        if self.panels.dtype != torch.int8:
            return values
        return values * self.scales[ids, None]


def panels_shape(n_in: int, n_out: int, dtype: torch.dtype) -> tuple[int, ...]:
    """Return the shape of a matrix [in, out] that is packed into panels."""
    per_word = PER_WORD[dtype]
    return -(-n_out // LANES), -(-n_in // per_word), LANES, per_word


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
    takes 7 % less time in float32, and 22 % in int8
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
