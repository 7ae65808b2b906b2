"""Find the records of a zip archive that is not compressed.

From its end it says where the list of its records begins; each entry of the
list says where a record's own header lies, behind which its bytes are::

    header  name  bytes      one for each record
    ...
    entry   name             the list: one for each record
    ...
    end                      22 bytes: how many entries, and from where
    comment                  at most 65,535 bytes, usually none

Numbers are little-endian. Those that do not fit into 32 bits stand elsewhere,
in 64: of the end in another one before it, of an entry in its extra field.

Source: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from gpt2.weights.errors import CheckpointError

MAGIC = b"PK\3\4"
"""How an archive begins."""
MOST_LIST_BYTES = 1_000_000
"""That of a GPT-2 XL, in PyTorch's format, has 50 KB. The limit makes a
hostile one cheap to refuse."""

# Of each structure what is read; `x` are bytes that say nothing here.
_HEADER = Struct("<4s22xHH")  # how long name and extra field are
_ENTRY = Struct("<4s4xHH4xIIIHHH8xI")  # as `_entries` names it
_END = Struct("<4s6xHII2x")  # how many entries, in how many bytes, from where
_END_64 = Struct("<4s28xQQQ")  # the same
_LOCATOR = Struct("<4s4xQ4x")  # where that one is, if there is one
_LONGEST_COMMENT = 2**16 - 1  # behind the end
_ELSEWHERE = 2**32 - 1  # the number stands in the extra field, in 64 bits


@dataclass(frozen=True)
class Record:
    """Where something lies in a file, and its checksum if it has one."""

    begin: int
    end: int
    crc32: int | None = None

    def check(self, data: memoryview, name: str, path: Path) -> None:
        """Compare it with its checksum.

        Args:
            data: The whole file.
            name: The record's.
            path: What to call the file in a message.

        Raises:
            CheckpointError: They differ.
        """
        if self.crc32 is None:
            return
        found = zlib.crc32(data[self.begin : self.end])
        if found != self.crc32:
            raise CheckpointError(
                f"{path} is damaged: its record {name!r:.80} has CRC-32 "
                f"{found:08x}, and {self.crc32:08x} was expected"
            )


def find_records(data: memoryview, path: Path) -> dict[str, Record]:
    """Return every record of an archive, by name.

    Args:
        data: The whole file.
        path: What to call it in a message.

    Raises:
        CheckpointError: The archive is damaged or compressed, or two of its
            records overlap or have one name.
    """
    begin, end, count = _list(data, path)
    records: dict[str, Record] = {}
    places = {}
    for name, place, size, crc in _entries(data[begin:end], path):
        if name in records:
            raise _damaged(path, f"the name {name!r:.80} comes twice")
        places[name] = place
        if place + _HEADER.size > begin or not _begins(data, place, MAGIC):
            raise _damaged(path, f"{name!r:.80} is not where the list says")
        _, n_name, n_extra = _HEADER.unpack_from(data, place)
        start = place + _HEADER.size + n_name + n_extra
        records[name] = Record(start, start + size, crc)
    if len(records) != count:
        raise _damaged(path, f"{count:,} records, and {len(records):,} listed")
    free = 0
    for name in sorted(records, key=lambda name: places[name]):
        if places[name] < free or records[name].end > begin:
            raise _damaged(path, f"{name!r:.80} overlaps something else")
        free = records[name].end
    return records


def _list(data: memoryview, path: Path) -> tuple[int, int, int]:
    """Find the list of records: its begin and end, and how many there are."""
    tail = bytes(data[-_END.size - _LONGEST_COMMENT :])
    found = tail.rfind(b"PK\5\6", 0, len(tail) - _END.size + 4)
    if len(tail) < _END.size or found < 0:
        raise _damaged(path, "it does not end as an archive does")
    place = len(data) - len(tail) + found
    _, count, size, begin = _END.unpack_from(data, place)
    locator = place - _LOCATOR.size
    if locator >= 0 and _begins(data, locator, b"PK\6\7"):
        _, far = _LOCATOR.unpack_from(data, locator)
        if far + _END_64.size > locator or not _begins(data, far, b"PK\6\6"):
            raise _damaged(path, "its end is not where it says")
        _, count, size, begin = _END_64.unpack_from(data, far)
    if size > MOST_LIST_BYTES or begin + size > place:
        raise _damaged(
            path,
            f"its list of records should have {size:,} bytes from byte "
            f"{begin:,} on",
        )
    return begin, begin + size, count


def _entries(
    data: memoryview, path: Path
) -> Iterator[tuple[str, int, int, int]]:
    """Yield name, place of the header, size and CRC-32 of every record."""
    at = 0
    while at < len(data):
        if len(data) - at < _ENTRY.size or not _begins(data, at, b"PK\1\2"):
            raise _damaged(path, "its list of records is broken")
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
    """Yield the numbers of an extra field's part 1: sizes, then the place."""
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
