"""The routines of `compiled.c`: a packed matrix, and rows multiplied by it.

There may be no compiler, or one that cannot; then there are no routines, and
nothing else changes. C believes what it is told: so every size that it gets is
compared with the tensors here.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gpt2.inference import compiling

KINDS = (torch.float32, torch.bfloat16, torch.int8)
"""What a word of 32 bits is made of; `enum kind`."""
PER_WORD = {torch.float32: 1, torch.bfloat16: 2, torch.int8: 4}
"""How many numbers of each kind make a word."""
WIDE = 16
"""How many columns of a matrix lie side by side."""
LARGE_PAGE = 1 << 21
"""In bytes."""


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled routines, or None where they cannot be had."""
    found = compiling.load()
    if found is not None:
        kind, p, n = ctypes.c_int, ctypes.c_void_p, ctypes.c_long
        found.pack.argtypes = [kind, p, n, n, p, n, n, p, p, p, n]
        found.product.argtypes = [kind, p, p, p, n, n]
        found.run_layers.argtypes = [p, p, p, n, n, p, n]
    return found


def routines() -> ctypes.CDLL:
    """Return them, for what was packed for them."""
    found = library()
    if found is None:
        raise RuntimeError("there is no compiler for compiled.c")
    return found


_threads_of: int | None = None
"""The process in which several threads have worked."""


def n_workers() -> int:
    """Return how many threads are to work: as many as PyTorch's.

    Raises:
        RuntimeError: This process was forked from one in which several have
            worked. It has none of them, and would wait for them for ever.
    """
    global _threads_of
    count = torch.get_num_threads()
    if count > 1:
        _threads_of = _threads_of or os.getpid()
        if _threads_of != os.getpid():
            raise RuntimeError(
                f"this process was forked from one in which {count} threads "
                f"have run a packed model, and threads do not survive a fork; "
                f"start processes by multiprocessing's 'spawn', or call "
                f"torch.set_num_threads(1) in this one first"
            )
    return count


def fields(names: str, kind: Any) -> list[tuple[str, Any]]:
    """List fields of a C structure that are of one kind."""
    return [(name, kind) for name in names.split()]


class Matrix(ctypes.Structure):
    """`struct matrix`."""

    _fields_ = (
        *fields("words scales totals bias", ctypes.c_void_p),
        *fields("n_in n_out", ctypes.c_long),
    )


class PackedMatrix:
    """A matrix [in, out] as `compiled.c` wants it, and rows multiplied by it.

    Rows are float32, (N, in), and so is what they become, (N, out).
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        shift: Tensor | None = None,
    ) -> None:
        """Pack a matrix.

        Args:
            weight: (in, out).
            bias: (out,).
            dtype: float32, bfloat16 or int8, to which it is rounded; int8 as
                `gpt2.inference.kernels.quantize` does it.
            shift: (in,), taken off every column before it is rounded.

        Raises:
            ValueError: The shapes do not go together, or a number is not
                finite, or not once it is rounded.
        """
        self.kind = KINDS.index(dtype)
        check_shapes(weight, bias, shift)
        self.n_in, self.n_out = weight.shape
        weight = weight.float()
        shift = torch.zeros(self.n_in) if shift is None else shift.float()
        per_word, n_blocks = PER_WORD[dtype], -(-self.n_out // WIDE)
        shape = (n_blocks, -(-self.n_in // per_word), WIDE, per_word)
        self.words = in_large_pages(shape, dtype)
        self.scales = torch.zeros(n_blocks * WIDE)
        self.totals = torch.zeros(n_blocks * WIDE, dtype=torch.int32)
        self.bias = torch.zeros(n_blocks * WIDE)
        if bias is not None:
            self.bias[: self.n_out] = bias
        columns = (self.words, self.scales, self.totals, self.bias)
        pointers = [tensor.data_ptr() for tensor in columns]
        assert not any(pointer % 64 for pointer in pointers)
        not_finite = routines().pack(
            self.kind,
            weight.data_ptr(),
            *weight.stride(),
            shift.contiguous().data_ptr(),
            self.n_in,
            self.n_out,
            *pointers[:3],
            n_workers(),
        )
        if not_finite or not self.bias.isfinite().all():
            raise ValueError(
                f"a matrix {tuple(weight.shape)} has numbers that are not "
                f"finite in {dtype}"
            )
        self.struct = Matrix(*pointers, self.n_in, self.n_out)

    def __call__(self, rows: Tensor) -> Tensor:
        """Multiply.

        Raises:
            ValueError: The rows have another width.
            MemoryError: There is no room to work in.
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
        failed = routines().product(
            self.kind,
            ctypes.byref(self.struct),
            rows.data_ptr(),
            out.data_ptr(),
            len(rows),
            n_workers(),
        )
        if failed:
            raise MemoryError(f"no memory for {len(rows)} rows")
        return out

    def columns(self, which: Tensor) -> Tensor:
        """Look columns 0 to out - 1 up: (...) of int to (..., in), float32."""
        found = self.words[which // WIDE, :, which % WIDE]
        numbers = found.flatten(-2)[..., : self.n_in].float()
        if self.words.dtype != torch.int8:
            return numbers
        return numbers * self.scales[which, None]


def check_shapes(
    weight: Tensor, bias: Tensor | None, shift: Tensor | None = None
) -> None:
    """Refuse what is not a matrix (in, out) with a bias (out,) on the CPU.

    Raises:
        ValueError: It is something else.
    """
    fits = weight.dim() == 2 and weight.numel() > 0
    fits = fits and (bias is None or bias.shape == weight.shape[1:])
    fits = fits and (shift is None or shift.shape == weight.shape[:1])
    if not fits or any(
        tensor is not None and tensor.device.type != "cpu"
        for tensor in (weight, bias, shift)
    ):
        shapes = [
            None if tensor is None else (*tensor.shape, str(tensor.device))
            for tensor in (weight, bias, shift)
        ]
        raise ValueError(
            f"a matrix (in, out), a bias (out,) and a shift (in,), all on the "
            f"CPU, can be packed; got {shapes}"
        )


def in_large_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return zeros, in memory that is fast to read from end to end.

    That is memory in pages of 2 MiB, not of 4 KiB. Linux gives them where it
    is asked before anything is written.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    try:
        memory = mmap.mmap(-1, n_bytes + LARGE_PAGE)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no memory for {n_bytes:,} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    room = torch.frombuffer(memory, dtype=torch.uint8)
    start = -room.data_ptr() % LARGE_PAGE  # where a large page can begin
    return room[start : start + n_bytes].view(dtype).view(shape)


def let_go(tensor: Tensor) -> None:
    """Give the memory of a tensor back, which nobody will read again.

    Of a file that is mapped, what was read is forgotten, and elsewhere its
    numbers become zeros. Where this is not Linux, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = tensor.data_ptr() + tensor.nbytes
    n_bytes = (end - begin) // mmap.PAGESIZE * mmap.PAGESIZE
    if tensor.is_contiguous() and n_bytes > 0:
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        advise(begin, n_bytes, mmap.MADV_DONTNEED)
