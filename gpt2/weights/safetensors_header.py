"""What a file of safetensors holds, read from its header alone.

The file begins with the length of the header (eight bytes, little-endian) and
the header, a JSON object with dtype, shape and place of each tensor; the data
follow. See https://huggingface.co/docs/safetensors.
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

# A header that is larger than this is not one of a GPT-2; its JSON is not
# even parsed. The one of GPT-2 XL has some 60 kilobytes.
_LARGEST_HEADER = 16_000_000


def read_safetensors_header(path: Path) -> dict[str, TensorInfo]:
    """Read what a file holds, and nothing of the data.

    Raises:
        CheckpointError: The header is damaged, or does not say of every byte
            of the data to which one tensor it belongs.
    """
    data = map_file(path, CheckpointError)
    end = header_end(data, len(data), path)
    return parse_header(bytes(data[8:end]), len(data) - end, path)


def header_end(start: bytes | memoryview, size: int, path: Path) -> int:
    """Return where the header of a safetensors file ends.

    Args:
        start: The file's first bytes, 8 at least if it has them.
        size: How many it has in all.
        path: What to call it in a message.

    Raises:
        CheckpointError: It is longer than the file, or than that of a GPT-2.
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
    """Read the header of a safetensors file.

    Args:
        text: The header.
        room: How many bytes of data follow.
        path: What to call the file in a message.

    Raises:
        CheckpointError: As `read_safetensors_header`.
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
    """Read one tensor's entry: what it is, and where it begins and ends."""
    tensor = f"{path}: tensor {name!r:.80}"
    try:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or not isinstance(dtype, str) or len(shape) > MOST_DIMENSIONS:
        raise CheckpointError(
            f"{tensor} has the entry {entry!r:.80}, without a proper dtype, "
            f"shape (of at most {MOST_DIMENSIONS} dimensions) and data_offsets"
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
    """Refuse tensors that do not lie one behind the other in all the data."""
    in_order = sorted(places.items(), key=lambda item: item[1])
    for name, (begin, end) in in_order:
        if end > room:
            raise CheckpointError(
                f"{path}: tensor {name!r:.80} should lie at bytes {begin:,} "
                f"to {end:,} of the data, and there are only {room:,}; the "
                f"file may not have been fetched whole"
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
