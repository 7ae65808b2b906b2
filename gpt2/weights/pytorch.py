"""Read PyTorch's own files, without PyTorch's own reader.

Since version 1.6, `torch.save` writes an uncompressed zip archive. Its record
`data.pkl` is a pickle that names the tensors and describes each as a view of a
storage; the storages are the records `data/0` and so on. The older format is a
sequence of five pickles, followed by the storages. `pickle_program` interprets
the pickles without running them. No size in a file is trusted until it has
been compared with the file.

Source: torch/serialization.py.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.files.reading import map_file
from gpt2.weights.archive import MAGIC, Record, find_records
from gpt2.weights.containers import State, find_state
from gpt2.weights.errors import CheckpointError
from gpt2.weights.pickle_objects import Storage, View
from gpt2.weights.pickle_program import interpret
from gpt2.weights.pickle_values import Dictionary, PlainObject
from gpt2.weights.raw import DTYPE_BYTES, tensor_of

if TYPE_CHECKING:  # `inspect` needs no torch
    from torch import Tensor

# GPT-2 XL's has 60 KB. The limit bounds the cost of a hostile one.
_MOST_PICKLE_BYTES = 1_000_000

# The first two pickles of the older format.
_OLD_MAGIC, _OLD_VERSION = 0x1950A86A20F9469CFC6C, 1001


@dataclass(frozen=True)
class PyTorchFile:
    """An opened file; only its numbers have not been read."""

    path: Path
    data: memoryview
    """The whole file, mapped."""
    views: Mapping[str, View]
    """Every tensor, by name."""
    records: Mapping[str, Record]
    """The records by their names in an archive: storage `0` is `data/0`."""
    state: State
    """The dictionary of the tensors, and the config saved beside it."""

    def storage_of(self, name: str) -> memoryview:
        """Return the part of the file that holds a tensor's storage."""
        record = self.records[f"data/{self.views[name].storage.key}"]
        return self.data[record.begin : record.end]

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, mapped if it is contiguous.

        Writing to it changes memory and never the file.
        """
        view, data = self.views[name], self.storage_of(name)
        begin = self.records[f"data/{view.storage.key}"].begin
        flat = tensor_of(data, view.storage.dtype, begin)
        seen = flat.as_strided(view.shape, view.strides, view.offset)
        return seen.contiguous()

    def verify(self) -> None:
        """Compare all records with their checksums, if they have any.

        Raises:
            CheckpointError: A checksum differs.
        """
        for name, record in self.records.items():
            record.check(self.data, name, self.path)


def open_pytorch(path: Path) -> PyTorchFile:
    """Open a file that holds a dictionary of tensors.

    Raises:
        CheckpointError: It is damaged, or holds anything else.
    """
    data = map_file(path, CheckpointError)
    read = _read_archive if data[:4] == MAGIC else _read_old
    state, views, records = read(data, path)
    for name, view in views.items():
        storage = view.storage
        record = records.get(f"data/{storage.key}", Record(0, 0))
        expected = storage.n_numbers * DTYPE_BYTES[storage.dtype]
        if (found := record.end - record.begin) != expected:
            raise CheckpointError(
                f"{path}: the storage of tensor {name!r:.80} should have "
                f"{expected:,} bytes, and has {found:,}"
            )
    return PyTorchFile(path, data, views, records, state)


def _state(value: Any, path: Path) -> tuple[State, dict[str, View]]:
    """Find the state dict in what a file holds, and check it."""
    state = find_state(value, str(path))
    return state, _views(state.tensors, path)


def _views(value: Any, path: Path) -> dict[str, View]:
    """Check that a value is a dictionary from names to tensors."""
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds a {_kind(value)}; expected a dictionary from names "
            f"to tensors"
        )
    if isinstance(value, Dictionary) and value.other_key:
        raise CheckpointError(
            f"{path} holds a dictionary with a key of type "
            f"{value.other_key}; expected a dictionary from names to tensors"
        )
    for name, view in value.items():
        if not isinstance(view, View):
            raise CheckpointError(
                f"{path} holds a {_kind(view)} under {name!r:.80}; expected a "
                f"plain tensor under each name"
            )
    return value


def _kind(value: Any) -> str:
    match value:
        case View():
            return "Tensor"
        case PlainObject():
            return f"{value.kind.partition(' ')[2]!r:.80} object"
        case Dictionary():
            return "dict"
    return type(value).__name__


def _read_archive(
    data: memoryview, path: Path
) -> tuple[State, dict[str, View], dict[str, Record]]:
    """Find the records of an archive, and read its pickle."""
    listed = find_records(data, path)
    # torch.serialization.set_crc32_options(False) writes 0 for every CRC.
    summed = any(record.crc32 for record in listed.values())
    records = {
        name.partition("/")[2]: (
            record if summed else Record(record.begin, record.end)
        )
        for name, record in listed.items()
    }
    if len(records) < len(listed) or "data.pkl" not in records:
        raise CheckpointError(
            f"{path} is an archive, but not one of PyTorch's: expected one "
            f"folder with a data.pkl"
        )
    order = _contents("byteorder", records, data, path) or b"little"
    if order != b"little":
        raise _unreadable(path, f"its numbers are {order[:20]!r}-endian")
    program = _contents("data.pkl", records, data, path)
    value = interpret(io.BytesIO(program), str(path))
    return *_state(value, path), records


def _contents(
    name: str, records: Mapping[str, Record], data: memoryview, path: Path
) -> bytes:
    """Return the data of a small record; nothing if there is no such one."""
    if name not in records:
        return b""
    record = records[name]
    if record.end - record.begin > _MOST_PICKLE_BYTES:
        raise _unreadable(
            path,
            f"its {name} has {record.end - record.begin:,} bytes, more than "
            f"{_MOST_PICKLE_BYTES:,}",
        )
    record.check(data, name, path)
    return bytes(data[record.begin : record.end])


def _read_old(
    data: memoryview, path: Path
) -> tuple[State, dict[str, View], dict[str, Record]]:
    """Read the five pickles of the older format, and find the storages."""
    stream = io.BytesIO(data[:_MOST_PICKLE_BYTES])
    if interpret(stream, str(path)) != _OLD_MAGIC:
        raise _unreadable(path, "it begins with another pickle")
    version, system = (interpret(stream, str(path)) for _ in "12")
    storages: dict[str, Storage] = {}
    value = interpret(stream, str(path), storages)
    keys = interpret(stream, str(path))
    if version != _OLD_VERSION or not isinstance(system, dict):
        raise _unreadable(path, "it has an unknown version")
    if system.get("little_endian") is not True:
        raise _unreadable(path, "its numbers are big-endian")
    state, views = _state(value, path)
    if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
        raise _unreadable(path, "it has no list of storages")
    if sorted(keys) != sorted(storages):
        raise _unreadable(path, "its storages are not those of its tensors")
    end = stream.tell()
    records = {}
    for key in keys:
        begin = end + 8
        count = int.from_bytes(data[end:begin], "little")
        end = begin + count * DTYPE_BYTES[storages[key].dtype]
        if end > len(data):
            raise _unreadable(
                path,
                f"its storage {key!r:.80} should end at byte {end:,} of "
                f"{len(data):,}; the download may be incomplete",
            )
        records[f"data/{key}"] = Record(begin, end)
    if end != len(data):
        raise _unreadable(path, f"{len(data) - end:,} bytes are left over")
    return state, views, records


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read as a PyTorch file: {reason}"
    )
