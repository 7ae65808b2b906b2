"""CRC-32C, the checksum in TensorFlow's checkpoints.

Sources: RFC 3720, section 12.1, for the polynomial; LevelDB's util/crc32c.h
for the mask.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `inspect` needs no numpy
    import numpy as np

_ALL_ONES = 0xFFFFFFFF
_ROW_WORDS = 4096


def masked_crc(data: bytes | memoryview) -> int:
    """Return the CRC-32C of data, masked as TensorFlow stores it."""
    return _masked(_remainder(data, _ALL_ONES))


def masked_crc_of_large(data: memoryview) -> int:
    """Return the same as `masked_crc`, much faster for large data.

    Half a gigabyte takes about a second; byte by byte, it would take minutes.
    The data are cut into rows of 4,096 words, and numpy processes all words
    of a row at once: it advances their remainders by one row, and adds them
    to the next row. The last row then has the same remainder as all the data.
    """
    import numpy as np

    low, high = _row_tables()
    first = len(data) % (4 * _ROW_WORDS)
    register = _remainder(data[:first], _ALL_ONES)
    rows = np.frombuffer(data[first:], "<u4").reshape(-1, _ROW_WORDS)
    if len(rows):
        row = rows[0].copy()
        row[0] ^= register
        for following in rows[1:]:
            row = low[row & 0xFFFF] ^ high[row >> 16] ^ following
        register = _remainder(row.tobytes(), 0)
    return _masked(register)


@cache
def _row_tables() -> tuple[np.ndarray, np.ndarray]:
    """Tabulate, for each half of a word, its remainder one row later.

    Returns:
        The tables for the low and the high half, (65536,) of uint32 each.
    """
    import numpy as np

    # The remainder is linear: XOR combines those of the 32 single bits.
    row = bytes(4 * _ROW_WORDS)
    bits = [np.uint32(_remainder(row, 1 << bit)) for bit in range(32)]
    low = high = np.zeros(1, np.uint32)
    for low_bit, high_bit in zip(bits[:16], bits[16:], strict=True):
        low = np.concatenate([low, low ^ low_bit])
        high = np.concatenate([high, high ^ high_bit])
    return low, high


def _masked(register: int) -> int:
    """Finish a CRC and mask it: data may contain CRCs themselves."""
    crc = register ^ _ALL_ONES
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _remainder(data: bytes | memoryview, register: int) -> int:
    """Divide data by the polynomial, starting from a 32-bit register."""
    for byte in data:
        register = _REMAINDERS[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register


def _remainder_of_byte(register: int) -> int:
    for _ in range(8):
        register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register


_REMAINDERS = [_remainder_of_byte(byte) for byte in range(256)]
