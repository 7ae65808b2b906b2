"""Keeping the memory that a step frees for the next one.

A step of training asks for activations and gradients, frees them, and the next
one asks for as much again. The C library gives freed memory back to the system
as soon as there is much of it, and the system hands it out anew, page by page
and filled with zeros: in a small model a sixth of the time of a step.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# From glibc's malloc.h and malloc.c.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Let this process keep what it frees, for as long as this lasts.

    Pieces of more than 32 MB go back all the same: kept, they leave holes that
    nothing else fits into.

    Args:
        device: Where the tensors are. On a GPU, PyTorch does this by itself.
            Where the C library is not glibc, nothing happens either.
    """
    libc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if device.type != "cpu" or not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    libc.mallopt(_TRIM_THRESHOLD, -1)  # as a size_t, the largest there is
    try:
        yield
    finally:
        # What glibc would have arrived at after freeing pieces of this size.
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)
        libc.malloc_trim(0)
