"""Read the sorted table and the protobuf messages of TensorFlow's index.

The table maps names to values, and has LevelDB's format::

    +-----------------------------+
    | data block:                 |     footer   handles of the meta block and
    |   name -> value             |              of the index block, zeros up
    |   ...                       |              to 40 bytes, magic number (8)
    | more data blocks, if needed |     handle   offset and size of a block's
    | meta block (empty)          |              body (two varints)
    | index block: name -> handle |     block    body, type (1 byte, 0 = not
    | footer: the last 48 bytes   |              compressed), masked CRC-32C
    +-----------------------------+              of both (4 bytes)

    body     records, offsets of restarts (4 bytes each), their number (4)
    record   shared, unshared, length (three varints), the name's last
             `unshared` bytes, the value's `length` bytes

Numbers are little-endian. The names are sorted, and each shares its first
`shared` bytes with the name before it. A varint stores seven bits per byte,
lowest first; the eighth bit is set if another byte follows. The values are
protobuf messages: each field is a tag (8 * field number + wire type) and a
value, whose encoding depends on the wire type.

Sources: TensorFlow's core/lib/io/format.cc and core/lib/io/table_format.txt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gpt2.weights.crc import masked_crc
from gpt2.weights.errors import CheckpointError

_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_FOOTER_BYTES = 48
# GPT-2's names have at most 23 bytes. The limit bounds the cost of a hostile
# index.
_MAX_NAME_BYTES = 512


class TensorFlowCheckpointError(CheckpointError):
    """A TensorFlow checkpoint is damaged, or of an unsupported kind."""


def expect(fine: bool, came: str, expected: str) -> None:
    """Raise an error that says what was found and expected, unless fine."""
    if not fine:
        raise TensorFlowCheckpointError(f"{came}, expected {expected}")


@contextmanager
def within(place: object) -> Iterator[None]:
    """Prefix errors raised within with a place."""
    try:
        yield
    except TensorFlowCheckpointError as error:
        raise TensorFlowCheckpointError(f"{place}: {error}") from None


class _Cursor:
    """Read bytes in order, never past their end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def more(self) -> bool:
        return self.position < len(self.data)

    def take(self, count: int) -> bytes:
        left = len(self.data) - self.position
        expect(count <= left, f"{left} bytes are left", f"{count}")
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        fine = byte < 0x80 and value < 2**64
        expect(fine, "a varint of more than 64 bits", "64 at most")
        return value


def _block(data: bytes, offset: int, size: int) -> bytes:
    """Check one block of an index and return its body."""
    end, footer = offset + size, len(data) - _FOOTER_BYTES
    block = f"a block from byte {offset} to byte {end + 5}"
    expect(end + 5 <= footer, block, f"its end before byte {footer}")
    came = masked_crc(data[offset : end + 1])
    stored = int.from_bytes(data[end + 1 : end + 5], "little")
    expect(came == stored, f"{block} with CRC {came:#x}", f"{stored:#x}")
    kind = "1 (compressed with snappy)" if data[end] == 1 else data[end]
    expect(kind == 0, f"{block} of type {kind}", "0 (not compressed)")
    return data[offset:end]


def _records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of one block."""
    # Restarts, where keys are stored whole, serve binary search. Reading from
    # the start needs none.
    restarts = int.from_bytes(body[-4:], "little")
    end = len(body) - 4 - 4 * restarts
    expect(end >= 0, f"a block of {len(body)} bytes", f"{restarts} restarts")
    cursor, key = _Cursor(body[:end]), b""
    while cursor.more():
        shared, unshared = cursor.varint(), cursor.varint()
        length = cursor.varint()
        most = min(len(key), _MAX_NAME_BYTES - unshared)
        came = f"a name of {shared} shared and {unshared} other bytes"
        expect(shared <= most, came, f"at most {most} shared")
        key = key[:shared] + cursor.take(unshared)
        yield key, cursor.take(length)


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of an index, in order."""
    fine = len(data) >= _FOOTER_BYTES and data.endswith(_MAGIC)
    came = f"{len(data)} bytes that end in {data[-8:].hex() or 'nothing'}"
    expect(fine, came, f"{_FOOTER_BYTES} or more, ending in {_MAGIC.hex()}")
    footer = _Cursor(data[-_FOOTER_BYTES:-8])
    footer.varint(), footer.varint()  # the meta block, which is empty
    index_block = _block(data, footer.varint(), footer.varint())
    end, previous = 0, None
    for _, value in _records(index_block):
        handle = _Cursor(value)
        offset, size = handle.varint(), handle.varint()
        # This bounds the work: no block is read twice.
        expect(offset >= end, f"a block at byte {offset}", f"from {end} on")
        end = offset + size
        for key, record in _records(_block(data, offset, size)):
            came = f"the name {key!r} after {previous!r}"
            ascending = previous is None or previous < key
            expect(ascending, came, "ascending names")
            previous = key
            yield key, record


def read_message(data: bytes) -> tuple[dict[int, int], dict[int, list[bytes]]]:
    """Split a protobuf message: numbers and nested messages, by field."""
    numbers: dict[int, int] = {}
    nested: dict[int, list[bytes]] = {}
    cursor = _Cursor(data)
    while cursor.more():
        field, wire_type = divmod(cursor.varint(), 8)
        if wire_type == 0:
            numbers[field] = cursor.varint()
        elif wire_type == 2:
            part = cursor.take(cursor.varint())
            nested.setdefault(field, []).append(part)
        else:
            expect(wire_type in (1, 5), f"wire type {wire_type}", "0 1 2 5")
            fixed = cursor.take(8 if wire_type == 1 else 4)
            numbers[field] = int.from_bytes(fixed, "little")
    return numbers, nested
