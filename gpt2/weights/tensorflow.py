"""Read OpenAI's original GPT-2 checkpoints without TensorFlow.

TensorFlow's Saver writes an index, which says where each tensor is, and data
files, which hold the tensors' bytes one after the other::

    model.ckpt.index                    model.ckpt.data-00000-of-00001
    +-----------------------------+     +----------------------------+
    |   ""          -> header     |  +->| model/h0/attn/c_attn/b     |
    |   "model/..." -> entry -----|--+  | model/h0/attn/c_attn/w     |
    |   ...                       |     | ...                        |
    +-----------------------------+     +----------------------------+

`sorted_table` reads the table in the index; this module reads its entries.
Source: TensorFlow's core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2.files.pages import release_bytes
from gpt2.files.reading import map_file, open_file, read_bytes
from gpt2.weights.crc import masked_crc_of_large
from gpt2.weights.raw import (
    DTYPE_BYTES,
    MOST_DIMENSIONS,
    WEIGHT_DTYPES,
    tensor_of,
)
from gpt2.weights.sorted_table import (
    TensorFlowCheckpointError as TensorFlowCheckpointError,
)
from gpt2.weights.sorted_table import (
    expect,
    read_message,
    read_table,
    within,
)

if TYPE_CHECKING:  # `inspect` needs no torch
    from torch import Tensor

# TensorFlow's numbers of the dtypes, and safetensors' names.
_DTYPES = {1: "F32", 2: "F64", 3: "I32", 9: "I64", 14: "BF16", 19: "F16"}
# GPT-2 124M's index has 5 KB. The limit bounds the cost of a hostile one.
_MOST_INDEX_BYTES = 2**20


@dataclass(frozen=True)
class TensorEntry:
    """The entry of a tensor in an index."""

    name: str
    dtype: str
    """safetensors' name, `F32`; or `DT_` and TensorFlow's number."""
    shape: tuple[int, ...]
    shard: int
    """The number of its data file, from 0."""
    offset: int
    """Its offset in that file, in bytes."""
    size: int
    """Its size, in bytes."""
    crc32c: int
    """The masked CRC-32C of these bytes."""


def _shape(data: bytes) -> tuple[int, ...]:
    """Read a TensorShapeProto: dim 2 (its size 1), unknown_rank 3."""
    numbers, nested = read_message(data)
    counts = [read_message(dim)[0].get(1, 0) for dim in nested.get(2, [])]
    # Varints are unsigned: -1 is stored as 2**64 - 1.
    shape = tuple(n if n < 2**63 else n - 2**64 for n in counts)
    known = len(shape) <= MOST_DIMENSIONS and not numbers.get(3)
    fine = known and all(n >= 0 for n in shape)
    expect(
        fine and math.prod(n or 1 for n in shape) < 2**60,
        f"shape {shape[: MOST_DIMENSIONS + 1]}",
        f"at most {MOST_DIMENSIONS} dimensions, known, none negative or huge",
    )
    return shape


def _entry(name: str, value: bytes, num_shards: int) -> TensorEntry:
    """Read a BundleEntryProto.

    Its fields: dtype 1, shape 2, shard_id 3, offset 4, size 5, crc32c 6.
    """
    # The names of a sliced tensor's parts contain control characters.
    expect(name.isprintable(), "a part of a tensor", "whole, named tensors")
    numbers, nested = read_message(value)
    number, shard, offset, size, crc32c = (
        numbers.get(field, 0) for field in (1, 3, 4, 5, 6)
    )
    expect(shard < num_shards, f"shard {shard}", f"one of {num_shards}")
    shape = _shape(b"".join(nested.get(2, [])))
    dtype = _DTYPES.get(number, f"DT_{number}")
    item_bytes = DTYPE_BYTES.get(dtype, 0)
    fits = size == item_bytes * math.prod(shape)
    kind = f"{item_bytes * math.prod(shape)} for {dtype} of shape {shape}"
    expect(fits or number not in _DTYPES, f"{size} bytes", kind)
    return TensorEntry(name, dtype, shape, shard, offset, size, crc32c)


def _bundle(index_path: Path) -> tuple[int, dict[str, TensorEntry]]:
    """Read an index: the number of data files, and the entries by name."""
    data = read_bytes(index_path, TensorFlowCheckpointError, _MOST_INDEX_BYTES)
    with within(index_path):
        table = read_table(data)
        key, value = next(table, (b"no name", b""))
        expect(key == b"", f"{key!r} first", "the header, whose name is empty")
        # BundleHeaderProto: num_shards 1, endianness 2 (0 is little).
        numbers, _ = read_message(value)
        num_shards, endianness = numbers.get(1, 0), numbers.get(2, 0)
        expect(0 < num_shards < 10**5, f"{num_shards} shards", "1 to 99999")
        expect(endianness == 0, f"endianness {endianness}", "0 (little)")
        entries = {}
        for key, value in table:
            name = key.decode(errors="surrogateescape")
            with within(f"tensor {name!r}"):
                entries[name] = _entry(name, value, num_shards)
    return num_shards, entries


def read_index(index_path: Path) -> dict[str, TensorEntry]:
    """List the tensors of a checkpoint by name, without its data files.

    Args:
        index_path: The file whose name ends in `.index`.

    Raises:
        TensorFlowCheckpointError: It is missing or damaged.
    """
    return _bundle(index_path)[1]


def _mapped(index_path: Path) -> Iterator[tuple[TensorEntry, memoryview]]:
    """Yield every entry with its bytes, mapped from the data files."""
    num_shards, entries = _bundle(index_path)
    stem = index_path.name.removesuffix(".index")
    in_order = sorted(
        entries.values(), key=lambda e: (e.shard, e.offset, e.size)
    )
    for shard, group in groupby(in_order, key=lambda e: e.shard):
        name = f"{stem}.data-{shard:05d}-of-{num_shards:05d}"
        path, end = index_path.with_name(name), 0
        data = map_file(path, TensorFlowCheckpointError)
        with within(path):
            for entry in group:
                start, after = entry.offset, entry.offset + entry.size
                fits = end <= start and after <= len(data)
                came = f"tensor {entry.name!r} from byte {start} to {after}"
                expect(fits, came, f"it from {end} on, up to {len(data)}")
                end = after
                yield entry, data[start:after]


def read_tensors(
    index_path: Path, names: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Map tensors of a checkpoint into memory, by name.

    The system reads a page of a data file when it is first used. Writing to a
    tensor changes memory and never the file.

    Args:
        index_path: The file whose name ends in `.index`.
        names: The tensors to read; all by default.

    Returns:
        The tensors by name, float32, float16 or bfloat16.

    Raises:
        TensorFlowCheckpointError: A file is missing or damaged, the index
            lacks a name, or a tensor has another dtype.
    """
    tensors: dict[str, Tensor] = {}
    for entry, data in _mapped(index_path):
        if names is not None and entry.name not in names:
            continue
        with within(f"{index_path}: tensor {entry.name!r}"):
            known = entry.dtype in WEIGHT_DTYPES
            expect(known, f"dtype {entry.dtype}", " or ".join(WEIGHT_DTYPES))
        found = tensor_of(data, entry.dtype, entry.offset)
        tensors[entry.name] = found.reshape(entry.shape)
    missing = sorted(set(names or ()) - tensors.keys())
    expect(not missing, f"{index_path}: no tensors {missing}", "them all")
    return tensors


def find(folder: Path) -> Path | None:
    """Return the index of the checkpoint in a folder, if there is one.

    It is the one that the text file `checkpoint` names, else
    `model.ckpt.index`, else the only `*.ckpt*.index`.

    Raises:
        TensorFlowCheckpointError: There are several of the last kind.
    """
    preferred = ["model.ckpt.index"]
    if (folder / "checkpoint").is_file():
        with open_file(
            folder / "checkpoint", TensorFlowCheckpointError
        ) as file:
            text = file.read(2**16).decode(errors="replace")
        for key, _, path in (line.partition(":") for line in text.split("\n")):
            if key.strip() == "model_checkpoint_path":
                # The path is that of the machine that wrote the checkpoint.
                last = re.split(r"[/\\]", path.strip().strip('"'))[-1]
                preferred.insert(0, f"{last}.index")
    indexes = [path for path in folder.glob("*.index") if path.is_file()]
    found = {path.name: path for path in sorted(indexes)}
    for name in preferred:
        if name in found:
            return found[name]
    others = [name for name in found if ".ckpt" in name]
    with within(folder):
        expect(len(others) < 2, f"{' and '.join(others)}", "one checkpoint")
    return found[others[0]] if others else None


def verify_checksums(index_path: Path) -> None:
    """Compare the numbers in the data files with their checksums.

    Args:
        index_path: The file whose name ends in `.index`.

    Raises:
        TensorFlowCheckpointError: A checksum differs, or a file is missing or
            damaged.
    """
    for entry, data in _mapped(index_path):
        if entry.dtype.startswith("DT_"):  # text has another checksum
            continue
        came, stored = masked_crc_of_large(data), entry.crc32c
        with within(f"{index_path}: tensor {entry.name!r}"):
            expect(came == stored, f"CRC {came:#x}", f"{stored:#x}")
        release_bytes(data)
