"""Right and wrong answers to the exercises of chapter 8."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Answers = tuple[object, dict[str, object]]


def numbers(width: int, n_layer: int) -> int:
    """Count those of a model."""
    layer = 12 * width**2 + 13 * width
    return (50257 + 1024 + 2) * width + n_layer * layer


def size(width: int, n_layer: int, masks: bool) -> int:
    """Answer exercise 8.2."""
    return 4 * (numbers(width, n_layer) + masks * n_layer * 1024**2)


def in_c_order(tensor: Tensor) -> bytes:
    """Give the bytes of a tensor."""
    return tensor.contiguous().numpy().tobytes()


def in_memory_order(tensor: Tensor) -> bytes:
    """Give the bytes as they lie."""
    return tensor.numpy().tobytes(order="A")


def writer(
    to_bytes: Callable[[Tensor], bytes] = in_c_order,
    length: Callable[[bytes], bytes] = lambda text: struct.pack(
        "<Q", len(text)
    ),
    offsets: Callable[[int, int], list[int]] = lambda at, n: [at, at + n],
    order: int = 1,
    shape: Callable[[Tensor], Any] = lambda tensor: list(tensor.shape),
    dtype: str = "F32",
    pad: bytes = b"",
) -> object:
    """Write the file in this way."""

    def write(path: Path, tensors: dict[str, Tensor]) -> None:
        header, data, at = {}, [], 0
        for name, tensor in tensors.items():
            raw = to_bytes(tensor)
            header[name] = {
                "dtype": dtype,
                "shape": shape(tensor),
                "data_offsets": offsets(at, len(raw)),
            }
            data.append(raw + pad)
            at += len(raw + pad)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(length(text) + text + b"".join(data[::order]))

    return write


ANSWERS: dict[str, Answers] = {
    "file-size": (
        size,
        {
            "in float32 each has four bytes": lambda c, n, masks: (
                size(c, n, masks) / 4
            ),
            "that is in bits": lambda c, n, masks: 8 * size(c, n, masks),
            "that is for float16": lambda c, n, masks: size(c, n, masks) // 2,
            "that includes the masks": lambda c, n, masks: size(c, n, True),
            "the masks are missing": lambda c, n, masks: size(c, n, False),
            "one mask for the whole model": lambda c, n, masks: (
                4 * (numbers(c, n) + masks * 1024**2)
            ),
            "one byte for each number": lambda c, n, masks: (
                4 * numbers(c, n) + masks * n * 1024**2
            ),
            "in the file once": lambda c, n, masks: (
                size(c, n, masks) + 4 * 50257 * c
            ),
            "is 1557611200": lambda c, n, masks: 1_557_611_200,
            "expected a function": 6_230_444_800,
        },
    ),
    "write-tensors": (
        writer(),
        {
            "8 bytes in front": writer(length=lambda text: b""),
            "little-endian": writer(
                length=lambda text: struct.pack(">Q", len(text))
            ),
            "takes eight": writer(
                length=lambda text: struct.pack("<I", len(text))
            ),
            "not JSON": writer(
                length=lambda text: struct.pack("<Q", len(text.rstrip()) - 1)
            ),
            "count bytes": writer(
                offsets=lambda at, n: [at // 4, (at + n) // 4]
            ),
            "where the tensor ends": writer(offsets=lambda at, n: [at, n]),
            "from the end of the header": writer(
                offsets=lambda at, n: [at + 300, at + 300 + n]
            ),
            "order of its memory": writer(to_bytes=in_memory_order),
            "come back changed": writer(order=-1),
            "the shape of": writer(shape=lambda tensor: [tensor.numel()]),
            "read F32": writer(dtype="float32"),
            "there are gaps": writer(pad=bytes(8)),
            "wrote no file": lambda path, tensors: None,
            "raises": lambda path, tensors: torch.save(
                tensors, path / "model"
            ),
        },
    ),
}
