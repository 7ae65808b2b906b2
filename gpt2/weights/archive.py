"""Find the records of an uncompressed zip archive.

The end record says where the directory begins; each entry of the directory
says where a record's header begins, and the data follow the header::

    header  name  data       one for each record
    ...
    entry   name             the directory: one for each record
    ...
    end                      22 bytes: the number of entries, and their offset
    comment                  at most 65,535 bytes, usually none

Numbers are little-endian. Those that do not fit into 32 bits are stored in 64
bits elsewhere: the end's in a second end before it, an entry's in its extra
field.

Source: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from gpt2.files.pages import release_bytes
from gpt2.weights.errors import CheckpointError

MAGIC = b"PK\3\4"
"""The first bytes of an archive."""
MOST_DIRECTORY_BYTES = 1_000_000
"""GPT-2 XL's, in PyTorch's format, has 50 KB. The limit bounds the cost of a
hostile one."""

# The fields that are read; `x` skips a byte.
_HEADER = Struct("<4s22xHH")  # the lengths of the name and the extra field
_ENTRY = Struct("<4s4xHH4xIIIHHH8xI")  # `_entries` names the fields
_END = Struct("<4s6xHII2x")  # the directory: entries, bytes, offset
_END_64 = Struct("<4s28xQQQ")  # the same in 64 bits
_LOCATOR = Struct("<4s4xQ4x")  # the offset of the 64-bit end
_LONGEST_COMMENT = 2**16 - 1
_PART_BYTES = 2**24  # how much of a record is in memory to be checked
_ELSEWHERE = 2**32 - 1  # the number is in the extra field


@dataclass(frozen=True)
class Record:
    """The place of data in a file, in bytes, and their checksum, if any."""

    begin: int
    end: int
    crc32: int | None = None

    def check(self, data: memoryview, name: str, path: Path) -> None:
        """Compare the data with their checksum.

        Args:
            data: The whole file.
            name: The record's name, for messages.
            path: The file's name, for messages.

        Raises:
            CheckpointError: They differ.
        """
        if self.crc32 is None:
            return
        found = 0
        for begin in range(self.begin, self.end, _PART_BYTES):
            part = data[begin : min(begin + _PART_BYTES, self.end)]
            found = zlib.crc32(part, found)
            release_bytes(part)
        if found != self.crc32:
            raise CheckpointError(
                f"{path} is damaged: its record {name!r:.80} has CRC-32 "
                f"{found:08x}, expected {self.crc32:08x}"
            )


def find_records(data: memoryview, path: Path) -> dict[str, Record]:
    """Return every record of an archive, by name.

    Args:
        data: The whole file.
        path: The file's name, for messages.

    Raises:
        CheckpointError: The archive is damaged or compressed, or two of its
            records overlap or have the same name.
    """
    begin, end, count = _directory(data, path)
    records: dict[str, Record] = {}
    places = {}
    for name, place, size, crc in _entries(data[begin:end], path):
        if name in records:
            raise _damaged(path, f"the name {name!r:.80} appears twice")
        places[name] = place
        if place + _HEADER.size > begin or not _begins(data, place, MAGIC):
            raise _damaged(path, f"{name!r:.80} is not at its offset")
        _, n_name, n_extra = _HEADER.unpack_from(data, place)
        start = place + _HEADER.size + n_name + n_extra
        records[name] = Record(start, start + size, crc)
    if len(records) != count:
        raise _damaged(
            path, f"it has {len(records):,} entries, expected {count:,}"
        )
    free = 0
    for name in sorted(records, key=lambda name: places[name]):
        if places[name] < free or records[name].end > begin:
            raise _damaged(path, f"{name!r:.80} overlaps other data")
        free = records[name].end
    return records


def _directory(data: memoryview, path: Path) -> tuple[int, int, int]:
    """Find the directory: its begin, its end, and its number of entries."""
    tail = bytes(data[-_END.size - _LONGEST_COMMENT :])
    found = tail.rfind(b"PK\5\6", 0, len(tail) - _END.size + 4)
    if len(tail) < _END.size or found < 0:
        raise _damaged(path, "it has no end record")
    place = len(data) - len(tail) + found
    _, count, size, begin = _END.unpack_from(data, place)
    locator = place - _LOCATOR.size
    if locator >= 0 and _begins(data, locator, b"PK\6\7"):
        _, far = _LOCATOR.unpack_from(data, locator)
        if far + _END_64.size > locator or not _begins(data, far, b"PK\6\6"):
            raise _damaged(path, "its 64-bit end record is not at its offset")
        _, count, size, begin = _END_64.unpack_from(data, far)
    if size > MOST_DIRECTORY_BYTES or begin + size > place:
        raise _damaged(
            path,
            f"its directory cannot have {size:,} bytes at byte {begin:,}",
        )
    return begin, begin + size, count


def _entries(
    data: memoryview, path: Path
) -> Iterator[tuple[str, int, int, int]]:
    """Yield the name, header offset, size and CRC-32 of every record."""
    at = 0
    while at < len(data):
        if len(data) - at < _ENTRY.size or not _begins(data, at, b"PK\1\2"):
            raise _damaged(path, "its directory is malformed")
        _, flags, method, crc, packed, size, n_name, n_extra, n_more, place = (
            _ENTRY.unpack_from(data, at)
        )
        at += _ENTRY.size
        name = bytes(data[at : at + n_name]).decode(errors="replace")
        extra = data[at + n_name : at + n_name + n_extra]
        at += n_name + n_extra + n_more
        if flags & 1 or method != 0 or packed != size:
            raise _damaged(path, f"{name!r:.80} is compressed or encrypted")
        wide = _in_64_bits(extra)
        if size == _ELSEWHERE:
            size = next(wide, size)
            if next(wide, size) != size:
                raise _damaged(path, f"{name!r:.80} is compressed")
        if place == _ELSEWHERE:
            place = next(wide, place)
        yield name, place, size, crc


def _in_64_bits(extra: memoryview) -> Iterator[int]:
    """Yield the 64-bit numbers in an extra field: sizes, then the offset."""
    at = 0
    while at + 4 <= len(extra):
        kind = int.from_bytes(extra[at : at + 2], "little")
        size = int.from_bytes(extra[at + 2 : at + 4], "little")
        part = extra[at + 4 : at + 4 + size]
        if kind == 1:
            for start in range(0, len(part) - 7, 8):
                yield int.from_bytes(part[start : start + 8], "little")
        at += 4 + size


def _begins(data: memoryview, at: int, magic: bytes) -> bool:
    return bytes(data[at : at + len(magic)]) == magic


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is a damaged archive: {what}")
