"""The routines of `compiled.c`, compiled for this processor when first wanted.

There may be no compiler, or one that cannot; then there are no routines, and
nothing else changes. What was compiled is kept in the user's cache.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import mmap
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("compiled.c")
# Sums may be taken in another order. Not by `-ffast-math`: what is linked with
# it sets tiny numbers to 0, in all of the process.
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"),
    *("-ffinite-math-only", "-fno-math-errno"),
)
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
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or os.name != "posix":
        return None
    try:
        return _declared(ctypes.CDLL(str(_compile(compiler))))
    except (OSError, subprocess.SubprocessError):
        return None


def _compile(compiler: str) -> Path:
    """Compile, unless that was done before, and return where the result is."""
    facts = (compiler, *FLAGS, platform.machine(), _processor())
    key = hashlib.sha256(SOURCE.read_bytes() + repr(facts).encode())
    place = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(place) / "gpt2-from-scratch"
    target = folder / f"compiled-{key.hexdigest()[:16]}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        result = Path(draft, "compiled.so")
        command = [compiler, *FLAGS, str(SOURCE), "-o", str(result), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        result.replace(target)
    return target


def _processor() -> str:
    """Describe what the processor can do: a home may be on several."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = [x for x in lines if x.startswith(("flags", "Features"))]
    return flags[0] if flags else platform.processor()


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
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
                `gpt2.kernels.quantize` does it.
            shift: (in,), taken off every column before it is rounded.
        """
        self.kind = KINDS.index(dtype)
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
        routines().pack(
            self.kind,
            weight.data_ptr(),
            *weight.stride(),
            shift.contiguous().data_ptr(),
            self.n_in,
            self.n_out,
            *pointers[:3],
            torch.get_num_threads(),
        )
        self.struct = Matrix(*pointers, self.n_in, self.n_out)

    def __call__(self, rows: Tensor) -> Tensor:
        """Multiply."""
        rows = rows.float().contiguous()
        out = torch.empty(len(rows), self.n_out)
        failed = routines().product(
            self.kind,
            ctypes.byref(self.struct),
            rows.data_ptr(),
            out.data_ptr(),
            len(rows),
            torch.get_num_threads(),
        )
        if failed:
            raise MemoryError(f"no memory for {len(rows)} rows")
        return out

    def columns(self, which: Tensor) -> Tensor:
        """Look columns up: (...) of int to (..., in), float32."""
        found = self.words[which // WIDE, :, which % WIDE]
        numbers = found.flatten(-2)[..., : self.n_in].float()
        if self.words.dtype != torch.int8:
            return numbers
        return numbers * self.scales[which, None]


def in_large_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return zeros, in memory that is fast to read from end to end.

    That is memory in pages of 2 MiB, not of 4 KiB. Linux gives them where it
    is asked before anything is written.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, n_bytes + LARGE_PAGE)
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
