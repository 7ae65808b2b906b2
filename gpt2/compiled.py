"""The routines of `compiled.c`, compiled for this processor when first wanted.

There may be no compiler, or one that cannot; then there are no routines, and
nothing else changes. What was compiled is kept in the user's cache.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

SOURCE = Path(__file__).with_name("compiled.c")
# Sums may be taken in another order. Not by `-ffast-math`: what is linked with
# it sets tiny numbers to 0, in all of the process.
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"),
    *("-ffinite-math-only", "-fno-math-errno"),
)
PER_WORD = {torch.float32: 1, torch.bfloat16: 2, torch.int8: 4}
"""How many numbers of each kind make a word of 32 bits."""
WIDE = 16
"""How many columns of a matrix lie side by side."""
LARGE_PAGE = 1 << 21
"""In bytes; see `ask_for_large_pages` in `compiled.c`."""


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
    pointer, number = ctypes.c_void_p, ctypes.c_long
    for name in ("float32", "bfloat16", "int8"):
        product = getattr(found, f"product_{name}")
        product.argtypes = [pointer] * 6 + [number] * 3
    found.ask_for_large_pages.argtypes = [pointer, number]
    found.attend.argtypes = [pointer] * 4 + [number] * 6
    return found


class PackedMatrix:
    """A matrix [in, out] as `compiled.c` wants it, and rows multiplied by it.

    Rows are float32, (N, in), and so is what they become, (N, out).
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        scale: Tensor | None = None,
    ) -> None:
        """Pack a matrix.

        Args:
            weight: (in, out).
            bias: (out,).
            dtype: float32, bfloat16 or int8, to which `weight` is rounded.
            scale: (out,), the step of each column; for int8.
        """
        name = str(dtype).removeprefix("torch.")
        self.multiply = getattr(library(), f"product_{name}")
        self.n_in, self.n_out = weight.shape
        totals = torch.zeros(self.n_out, dtype=torch.int32)
        if dtype == torch.int8:
            totals = weight.sum(dim=0, dtype=torch.int32)
        columns = (
            torch.ones(self.n_out) if scale is None else scale,
            totals,
            torch.zeros(self.n_out) if bias is None else bias.float(),
        )
        lacking = -self.n_out % WIDE
        self.tensors = (
            _laid_out(weight, dtype),
            *(F.pad(column, (0, lacking)).contiguous() for column in columns),
        )
        self.pointers = [tensor.data_ptr() for tensor in self.tensors]
        assert not any(pointer % 64 for pointer in self.pointers)

    def __call__(self, rows: Tensor) -> Tensor:
        """Multiply."""
        rows = rows.float().contiguous()
        n_rows = len(rows)
        out = torch.empty(n_rows, self.n_out)
        failed = self.multiply(
            rows.data_ptr(),
            *self.pointers,
            out.data_ptr(),
            n_rows,
            self.n_out,
            self.n_in,
        )
        if failed:
            raise MemoryError(f"no memory for {n_rows} rows")
        return out


def _laid_out(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy a matrix (in, out) to (out / 16, words, 16, numbers per word)."""
    n_in, n_out = weight.shape
    per_word = PER_WORD[dtype]
    n_blocks, n_words = -(-n_out // WIDE), -(-n_in // per_word)
    blocks = _in_large_pages((n_blocks, n_words, WIDE, per_word), dtype)
    step = 4096  # columns at a time: what is copied on the way stays small
    for first in range(0, n_out, step):
        some = weight[:, first : first + step].to(dtype)
        lacking = (0, -some.size(1) % WIDE, 0, -n_in % per_word)
        some = F.pad(some, lacking) if any(lacking) else some
        some = some.unflatten(0, (-1, per_word)).unflatten(2, (-1, WIDE))
        start = first // WIDE
        some = some.permute(2, 0, 3, 1)
        blocks[start : start + len(some)] = some
    return blocks


def _in_large_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return memory that is fast to read from end to end."""
    n_bytes = math.prod(shape) * dtype.itemsize
    room = torch.empty(n_bytes + LARGE_PAGE, dtype=torch.uint8)
    start = -room.data_ptr() % LARGE_PAGE
    piece = room[start : start + n_bytes]
    routines = library()
    assert routines is not None
    routines.ask_for_large_pages(piece.data_ptr(), n_bytes)
    return piece.view(dtype).view(shape)


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Let the last position of each sequence attend to all there are.

    Args:
        query: (B, H, 1, D), float32, a view of rows (B, 3 * H * D).
        keys: (B, H, S, D), float32, the beginning of a cache with more room.
        values: The same.

    Returns:
        (B, H * D).
    """
    n_sequences, n_heads, n_keys, size = keys.shape
    out = torch.empty(n_sequences, n_heads * size)
    routines = library()
    assert routines is not None
    failed = routines.attend(
        query.data_ptr(),
        keys.data_ptr(),
        values.data_ptr(),
        out.data_ptr(),
        n_sequences,
        n_heads,
        query.stride(0),
        n_keys,
        keys.stride(1) // size,
        size,
    )
    if failed:
        raise MemoryError(f"no memory for {n_keys} keys")
    return out
