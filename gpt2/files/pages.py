"""Give memory back to the system while its owner is still in use."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from functools import cache


def release_pages(address: int, n_bytes: int) -> None:
    """Give the whole pages of a piece of memory back to the system.

    On Linux, the pages of a file that is mapped are read again when they are
    next used, and other memory becomes zeros. Elsewhere nothing happens.

    Args:
        address: The first byte.
        n_bytes: How many bytes are no longer needed.
    """
    if not sys.platform.startswith("linux"):
        return
    begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if begin < end:
        _madvise()(begin, end - begin, mmap.MADV_DONTNEED)


@cache
def _madvise() -> Callable[[int, int, int], int]:
    """Return the C library's function; looking it up takes a while."""
    found = ctypes.CDLL(None).madvise
    found.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return found


def release_bytes(data: memoryview) -> None:
    """Release the pages of a part of a file that `map_file` has mapped."""
    if len(data):
        start = ctypes.c_char.from_buffer(data)
        release_pages(ctypes.addressof(start), len(data))
