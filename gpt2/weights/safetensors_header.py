"""Read the header of a safetensors file.

The file begins with the length of the header (eight bytes, little-endian) and
the header, a JSON object with the dtype, the shape and the offsets of each
tensor; the data follow. See https://huggingface.co/docs/safetensors.

The libraries' own functions do less. `safetensors.safe_open` needs the file on
this disk, accepts a repeated name, and imports numpy or torch: it takes 90 or
1,200 ms to list GPT-2's 148 tensors, this code 1 ms. `huggingface_hub`'s
`parse_safetensors_file_metadata`, for a file on the hub, accepts overlaps,
gaps, wrong sizes, repeated names and a truncated file.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from gpt2.files.reading import map_file, parse_json
from gpt2.weights.errors import CheckpointError
from gpt2.weights.layout import TensorInfo
from gpt2.weights.raw import DTYPE_BYTES, MOST_DIMENSIONS

_LARGEST_HEADER = 16_000_000  # bytes; GPT-2 XL's has 60,000


def read_safetensors_header(path: Path) -> dict[str, TensorInfo]:
    """List the tensors of a file, by name, without reading their data.

    Raises:
        CheckpointError: The header is damaged, or does not assign every byte
            of the data to exactly one tensor.
    """
    data = map_file(path, CheckpointError)
    end = header_end(data, len(data), path)
    return parse_header(bytes(data[8:end]), len(data) - end, path)


def header_end(start: bytes | memoryview, size: int, path: Path) -> int:
    """Return the offset at which the header of a safetensors file ends.

    Args:
        start: The first bytes of the file, at least 8 if it has them.
        size: The size of the file, in bytes.
        path: The file's name, for messages.

    Raises:
        CheckpointError: The header is longer than the file, or than a GPT-2's
            can be.
    """
    length = int.from_bytes(start[:8], "little")
    if size < 8 or length > min(size - 8, _LARGEST_HEADER):
        raise CheckpointError(
            f"{path} is not a safetensors file: its first 8 bytes say that a "
            f"header of {length:,} bytes follows, and the file has {size:,} "
            f"bytes"
        )
    return 8 + length


def parse_header(text: bytes, room: int, path: Path) -> dict[str, TensorInfo]:
    """Parse the header of a safetensors file.

    Args:
        text: The header.
        room: The size of the data, in bytes.
        path: The file's name, for messages.

    Returns:
        The tensors by name.

    Raises:
        CheckpointError: As for `read_safetensors_header`.
    """
    header = parse_json(text, str(path), CheckpointError)
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is not a JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise CheckpointError(
            f"{path}: field '__metadata__' must be an object of strings"
        )
    infos, places = {}, {}
    for name, entry in header.items():
        infos[name], *places[name] = _entry(path, name, entry)
    _check_places(path, places, room)
    return infos


def _entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    """Parse the entry of a tensor: its description, its begin and its end."""
    tensor = f"{path}: tensor {name!r:.80}"
    try:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or not isinstance(dtype, str) or len(shape) > MOST_DIMENSIONS:
        raise CheckpointError(
            f"{tensor} has the entry {entry!r:.80}, without a valid dtype, "
            f"shape (of at most {MOST_DIMENSIONS} dimensions) or data_offsets"
        )
    if dtype not in DTYPE_BYTES:
        raise CheckpointError(
            f"{tensor} has dtype {dtype:.80}; expected one of "
            f"{', '.join(DTYPE_BYTES)}"
        )
    if (needed := prod(shape) * DTYPE_BYTES[dtype]) != end - begin:
        raise CheckpointError(
            f"{tensor}, {dtype} {list(shape)}, takes {needed:,} bytes, and "
            f"the header gives it {end - begin:,}"
        )
    return TensorInfo(dtype, shape, path.name), begin, end


def _check_places(
    path: Path, places: Mapping[str, list[int]], room: int
) -> None:
    """Refuse tensors that overlap, leave a gap or exceed the data."""
    in_order = sorted(places.items(), key=lambda item: item[1])
    for name, (begin, end) in in_order:
        if end > room:
            raise CheckpointError(
                f"{path}: tensor {name!r:.80} should be at bytes {begin:,} to "
                f"{end:,} of the data, which has only {room:,}; the download "
                f"may be incomplete"
            )
    free = 0
    for name, (begin, end) in in_order:
        if begin != free:
            raise CheckpointError(
                f"{path}: tensor {name!r:.80} begins at byte {begin:,} of the "
                f"data, and the one before it ends at byte {free:,}"
            )
        free = end
    if free != room:
        raise CheckpointError(
            f"{path}: {room - free:,} bytes of the data belong to no tensor"
        )
