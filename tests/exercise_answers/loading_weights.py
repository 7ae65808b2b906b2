"""Right and wrong answers to the exercises of chapter 8."""

from __future__ import annotations

import json
import math
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


def header_of(path: Path) -> tuple[bytes, int, dict[str, Any]]:
    """Give the file, the length of its header, and the header."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return content, length, json.loads(content[8 : 8 + length])


DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}


def reader(skip: int = 8, whole_header: bool = True) -> Any:
    """Read one tensor, after so many bytes and the header."""

    def read(path: Path, name: str) -> Tensor:
        content, length, header = header_of(path)
        start = skip + (length if whole_header else 0)
        begin, end = header[name]["data_offsets"]
        raw = bytearray(content[start + begin : start + end])
        flat = torch.frombuffer(raw, dtype=DTYPES[header[name]["dtype"]])
        return flat.view(header[name]["shape"])

    return read


def from_the_file(path: Path, name: str) -> Tensor:
    """Read one tensor with seek and read."""
    _, length, header = header_of(path)
    begin, end = header[name]["data_offsets"]
    with path.open("rb") as file:
        file.seek(8 + length + begin)
        raw = torch.tensor(list(file.read(end - begin)), dtype=torch.uint8)
    typed = raw.view(DTYPES[header[name]["dtype"]])
    return typed.reshape(header[name]["shape"])


def always_the_first(path: Path, name: str) -> Tensor:
    """Begin where the data begin."""
    content, length, header = header_of(path)
    begin, end = header[name]["data_offsets"]
    raw = bytearray(content[8 + length : 8 + length + end - begin])
    flat = torch.frombuffer(raw, dtype=DTYPES[header[name]["dtype"]])
    return flat.view(header[name]["shape"])


ALSO_RIGHT: dict[str, list[object]] = {
    "bits-needed": [1.0],
    "read-tensor": [from_the_file],
    "blank-table": [math.log(1440), torch.tensor(1440.0).log(), 7.27],
    "file-size": [lambda c, n, masks: float(size(c, n, masks))],
}

ANSWERS: dict[str, Answers] = {
    "bits-needed": (
        1,
        {"one more": 0, "fewer": 3, "one of 7": 4},
    ),
    "blank-table": (
        7.272,
        {
            "sure of nothing": 0,
            "in bits": math.log2(1440),
            "1,440 of them": math.log(192),
            "the perplexity": 1440,
            "the healthy model": 0.319,
            "expected a number": "ln V",
        },
    ),
    "read-tensor": (
        reader(),
        {
            "from the end of the header": reader(0, whole_header=False),
            "8 bytes of the length": reader(0),
            "the first tensor of the file": always_the_first,
            "which `view` makes of it": lambda path, name: reader()(
                path, name
            ).flatten(),
            "its header says torch.bfloat16": lambda path, name: reader()(
                path, name
            ).float(),
            "expected a tensor": lambda path, name: reader()(
                path, name
            ).tolist(),
        },
    ),
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
            "of the header's length": lambda c, n, masks: (
                8 + size(c, n, masks)
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
