"""Numbers as they lie in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # looking into a file should not wait for torch
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
"""Bytes per number, by the names that safetensors gives the dtypes."""

WEIGHT_DTYPES = ("F32", "F16", "BF16")
"""The dtypes in which weights are read."""

MOST_DIMENSIONS = 8
"""Of a tensor in any kind of file; GPT-2 needs 2, and 4 for its masks."""


def tensor_of(data: memoryview, dtype: str, begin: int) -> Tensor:
    """Return numbers where they lie, or a copy if they lie badly.

    Args:
        data: Their bytes, the least significant first.
        dtype: One of `WEIGHT_DTYPES`.
        begin: Where in the mapped file they begin.

    Returns:
        (N,). Writing to it changes memory and never the file.
    """
    import torch

    kinds = (torch.float32, torch.float16, torch.bfloat16)
    kind = dict(zip(WEIGHT_DTYPES, kinds, strict=True))[dtype]
    if not len(data):
        return torch.empty(0, dtype=kind)
    found = torch.frombuffer(data, dtype=kind)
    # Behind an odd number of smaller numbers, say.
    return found.clone() if begin % kind.itemsize else found
