"""Read PyTorch's own files, without PyTorch's own reader.

Since version 1.6, `torch.save` writes a zip archive of records that are not
compressed: a pickle, `data.pkl`, which says what the tensors are called and
how each looks into its storage, and the storages, `data/0` and so on. The
older format has five pickles behind one another, and then the storages. What
a pickle says is found out without running it (`pickle_program`). No size in a
file is believed until it has been held against the file.

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
from gpt2.weights.pickle_program import Storage, View, follow
from gpt2.weights.pickle_values import Dictionary, PlainObject
from gpt2.weights.raw import DTYPE_BYTES, tensor_of

if TYPE_CHECKING:  # looking into a file should not wait for torch
    from torch import Tensor

# That of a GPT-2 XL has 60 KB. The limit makes a hostile one cheap to refuse.
_MOST_PICKLE_BYTES = 1_000_000

# The first two pickles of the older format.
_OLD_MAGIC, _OLD_VERSION = 0x1950A86A20F9469CFC6C, 1001


@dataclass(frozen=True)
class PyTorchFile:
    """An opened file: all but the numbers has been read."""

    path: Path
    data: memoryview
    """The whole file, mapped."""
    views: Mapping[str, View]
    """Every tensor, by name."""
    records: Mapping[str, Record]
    """What lies where, by the names that an archive has for it: the storage
    `0` is `data/0`."""
    state: State
    """The dictionary of the tensors, and what was saved beside it."""

    def tensor(self, name: str) -> Tensor:
        """Return a tensor where it lies; writing to it spares the file."""
        view = self.views[name]
        record = self.records[f"data/{view.storage.key}"]
        data = self.data[record.begin : record.end]
        flat = tensor_of(data, view.storage.dtype, record.begin)
        seen = flat.as_strided(view.shape, view.strides, view.offset)
        return seen.contiguous()

    def verify(self) -> None:
        """Compare everything with its checksum; the older format has none.

        Raises:
            CheckpointError: One differs.
        """
        for name, record in self.records.items():
            record.check(self.data, name, self.path)


def open_pytorch(path: Path) -> PyTorchFile:
    """Open a file with a dictionary of tensors.

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
                f"{path}: tensor {name!r:.80} lies in a storage that should "
                f"have {expected:,} bytes, and the file has {found:,} of it"
            )
    return PyTorchFile(path, data, views, records, state)


def _views(value: Any, path: Path) -> dict[str, View]:
    """Refuse what is not a dictionary from names to tensors."""
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds a {_kind(value)}, and a dictionary from names to "
            f"tensors was expected"
        )
    if isinstance(value, Dictionary) and value.other_key:
        raise CheckpointError(
            f"{path} holds a dictionary with a name of type "
            f"{value.other_key}, and a dictionary from texts to tensors was "
            f"expected"
        )
    for name, view in value.items():
        if not isinstance(view, View):
            raise CheckpointError(
                f"{path} holds a {_kind(view)} under {name!r:.80}, and a "
                f"plain tensor under a name was expected"
            )
    return value


def _kind(value: Any) -> str:
    match value:
        case View():
            return "Tensor"
        case PlainObject():
            return f"{value.kind.partition(' ')[2]:.80} object"
        case Dictionary():
            return "dict"
    return type(value).__name__


def _state(value: Any, path: Path) -> tuple[State, dict[str, View]]:
    """Find the state dict in what a file holds, and check it."""
    state = find_state(value, str(path))
    return state, _views(state.tensors, path)


def _read_archive(
    data: memoryview, path: Path
) -> tuple[State, dict[str, View], dict[str, Record]]:
    """Find the records of an archive, and read its pickle."""
    listed = find_records(data, path)
    # torch.serialization.set_crc32_options(False) leaves 0 everywhere.
    summed = any(record.crc32 for record in listed.values())
    records = {
        name.partition("/")[2]: (
            record if summed else Record(record.begin, record.end)
        )
        for name, record in listed.items()
    }
    if len(records) < len(listed) or "data.pkl" not in records:
        raise CheckpointError(
            f"{path} is an archive, but not one that PyTorch writes: it "
            f"should have one folder with a data.pkl"
        )
    order = _contents("byteorder", records, data, path) or b"little"
    if order != b"little":
        raise _unreadable(path, f"its numbers are {order[:20]!r}-endian")
    program = _contents("data.pkl", records, data, path)
    value = follow(io.BytesIO(program), str(path))
    return *_state(value, path), records


def _contents(
    name: str, records: Mapping[str, Record], data: memoryview, path: Path
) -> bytes:
    """Return a small record; nothing if it is not there."""
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
    if follow(stream, str(path)) != _OLD_MAGIC:
        raise _unreadable(path, "it begins with some other pickle")
    version, system = (follow(stream, str(path)) for _ in "12")
    storages: dict[str, Storage] = {}
    value = follow(stream, str(path), storages)
    keys = follow(stream, str(path))
    if version != _OLD_VERSION or not isinstance(system, dict):
        raise _unreadable(path, "it is of some other version")
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
                f"{len(data):,}; it may not have been fetched whole",
            )
        records[f"data/{key}"] = Record(begin, end)
    if end != len(data):
        raise _unreadable(path, f"{len(data) - end:,} bytes are left over")
    return state, views, records


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read as a PyTorch file: {reason}"
    )
