"""How fast this machine can read memory and multiply: see `probe.c`.

The best form of a loop over memory differs between machines. So all forms are
tried, and the few fastest are measured again next to whatever they are to
bound.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from gpt2.inference.compiling import find_compiler

SOURCE = Path(__file__).with_name("probe.c")
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    "-Wno-psabi",  # no vector is passed to a function that is not inlined
)
LINE = 64
"""Bytes in a cache line."""
NO_PREFETCH = -1
LOCALITIES = {
    NO_PREFETCH: "no prefetch",
    0: "non-temporal prefetch",
    2: "prefetch to L2",
    3: "prefetch to L1",
}
DISTANCES = (16, 32, 64, 128, 256, 512)
"""How far ahead to prefetch, in cache lines."""
STREAMS = (1, 2, 4, 8)
SEARCHED = 1 << 28
"""Bytes that are read to find the fastest forms, beyond any cache."""
KINDS = ("float32", "bfloat16", "int8")
"""Of products, in the order of `probe.c`."""


@dataclass(frozen=True)
class Form:
    """A way to read memory."""

    huge: bool
    threads: int
    streams: int
    locality: int
    distance: int

    def __str__(self) -> str:
        ahead = f", {self.distance * LINE} bytes ahead"
        return (
            f"{'huge' if self.huge else 'ordinary'} pages, "
            f"{self.threads} threads, {self.streams} streams each, "
            f"{LOCALITIES[self.locality]}"
            f"{'' if self.locality == NO_PREFETCH else ahead}"
        )


@cache
def library() -> ctypes.CDLL:
    """Compile and load `probe.c`.

    Raises:
        RuntimeError: There is no C compiler.
    """
    compiler = find_compiler()
    if compiler is None:
        raise RuntimeError("the probe needs a C compiler, cc or gcc")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "probe.so")
        command = [compiler, *FLAGS, str(SOURCE), "-o", str(made)]
        subprocess.run(command, check=True)
        found = ctypes.CDLL(str(made))
    i, n, p = ctypes.c_int, ctypes.c_long, ctypes.c_void_p
    found.read_memory.argtypes = [p, n, i, i, i, n, i, p]
    found.read_memory.restype = None
    found.multiply.argtypes = [i, n, i]
    found.multiply.restype = ctypes.c_double
    return found


class Memory:
    """Memory to read, on huge or on ordinary pages."""

    def __init__(self, n_bytes: int, huge: bool) -> None:
        """Reserve it and write to each page."""
        size = max(n_bytes, LINE * LINE)
        self.map = mmap.mmap(-1, size + mmap.PAGESIZE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            advice = mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE
            self.map.madvise(advice)
        self.numbers = torch.frombuffer(self.map, dtype=torch.uint8)[:size]
        self.numbers.fill_(1)
        self.huge = huge

    def rate(self, form: Form, passes: int) -> list[float]:
        """Return the bytes per second of each pass of a form."""
        seconds = (ctypes.c_double * passes)()
        library().read_memory(
            self.numbers.data_ptr(),
            self.numbers.nbytes,
            form.threads,
            form.streams,
            form.locality,
            form.distance,
            passes,
            seconds,
        )
        return [self.numbers.nbytes / one for one in seconds]


def forms(threads: int) -> list[Form]:
    """Return all forms to try, with up to so many threads."""
    counts = sorted({1, max(1, threads // 2), threads})
    ahead = [(NO_PREFETCH, 0), *itertools.product((0, 2, 3), DISTANCES)]
    return [
        Form(huge, count, streams, *how)
        for huge in (True, False)
        for count in counts
        for streams in STREAMS
        for how in ahead
    ]


def fastest_forms(
    threads: int, n_bytes: int = SEARCHED, best: int = 3
) -> list[Form]:
    """Return the few forms that read the fastest, best first.

    All are tried twice, in turn, and those that are not far behind seven
    times more.
    """
    tried = forms(threads)
    found: dict[Form, list[float]] = {form: [] for form in tried}
    memory = {huge: Memory(n_bytes, huge) for huge in (True, False)}

    def ranked() -> list[Form]:
        return sorted(found, key=lambda f: -statistics.median(found[f]))

    for _ in range(2):
        for form in tried:
            found[form] += memory[form.huge].rate(form, 1)
    for form in ranked()[4 * best :]:
        del found[form]
    for _ in range(7):
        for form in found:
            found[form] += memory[form.huge].rate(form, 1)
    return ranked()[:best]


def peak(kind: str, threads: int) -> float | None:
    """Return the most operations per second in registers, if it can."""
    compiled, number = library().multiply, KINDS.index(kind)
    if compiled(number, 1000, threads) == 0:
        return None
    return max(compiled(number, 2_000_000, threads) for _ in range(5))


@torch.inference_mode()
def products(kind: str, size: int = 1024) -> float | None:
    """Return the operations per second of PyTorch's fastest product.

    Of two shapes: a square one, and the widest layer of GPT-2 124M.
    """
    if kind == "int8":
        return None  # PyTorch's products of int8 are part of other layers
    dtype, best = getattr(torch, kind), 0.0
    for n, n_in, n_out in ((size, size, size), (512, 768, 3072)):
        a, b = torch.rand(n, n_in).to(dtype), torch.rand(n_in, n_out).to(dtype)
        b = b.T.contiguous().T  # the layout that oneDNN multiplies faster
        times = []
        for _ in range(9):
            began = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - began)
        best = max(best, 2 * n * n_in * n_out / statistics.median(times[2:]))
    return best
