"""Numbers as they are stored in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `inspect` needs no torch
    from torch import Tensor

DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes per number, by safetensors' names of the dtypes."""

WEIGHT_DTYPES = ("F32", "F16", "BF16")
"""The dtypes that weights may have."""

MOST_DIMENSIONS = 8
"""Limit for a tensor in any file; GPT-2 needs 2, and 4 for its masks."""


def tensor_of(data: memoryview, dtype: str, begin: int) -> Tensor:
    """Return numbers as a view of the file, or as a copy if misaligned.

    Args:
        data: Their bytes, little-endian.
        dtype: One of `WEIGHT_DTYPES`.
        begin: The offset of the data in the mapped file, in bytes.

    Returns:
        (N,) of that dtype. Writing to it changes memory and never the file.
    """
    import torch

    kinds = (torch.float32, torch.float16, torch.bfloat16)
    kind = dict(zip(WEIGHT_DTYPES, kinds, strict=True))[dtype]
    if not len(data):
        return torch.empty(0, dtype=kind)
    found = torch.frombuffer(data, dtype=kind)
    # Misaligned, for instance, after an odd number of 2-byte values.
    return found.clone() if begin % kind.itemsize else found
