r"""Letters and digits that are newer than Unicode 16.

`\p{L}` and `\p{N}` mean what a library knows: `regex` of November 2026 knows
Unicode 18, tiktoken 0.14 and tokenizers 0.23 know Unicode 16, of 2024. To them
the characters below are neither letters nor digits, and so they were to the
models that were trained with them. Patterns therefore leave them out, and all
encoders split alike. A test compares the libraries on every code point.
"""

from functools import cache

_LETTERS = """
    558 58B-58C 88F C5C CDC 208F 209D-209F A7CE-A7CF A7D2 A7D4 A7DD A7E2
    A7F1 AB6C-AB6D 107BB-107BF 10940-10959 10EC5-10EC7 10ED9-10EEE 11B0A
    11DB0-11DDB 11DF1 16EA0-16EB8 16EBB-16ED3 16FF2-16FF3 187F8-187FF
    18CD6-18CDA 18D09-18D20 18D80-18DF2 18E00-19191 191A0-191D2
    1B123-1B128 1B168 1D6A6 1DF1F-1DF24 1DF2B-1DF81 1DF90-1DF96
    1DFCD-1DFFF 1E6C0-1E6DE 1E6E0-1E6E2 1E6E4-1E6E5 1E6E7-1E6ED
    1E6F0-1E6F4 1E6FE-1E6FF 2B73A-2B73F 2B81E 2CEA2-2CEAD 323B0-33479
    3D000-3FC3F
"""
_DIGITS = """
    11DE0-11DE9 1246F 12475-1247F 12550-12686 16FF4-16FF6
"""


@cache
def as_of_unicode_16(pattern: str) -> str:
    r"""Return a pattern for `regex` whose `\p{L}` and `\p{N}` are older.

    Its sets may have differences, such as `[\p{L}--[x]]` (`regex`, version 1).
    """
    for name, newer in ((r"\p{L}", _LETTERS), (r"\p{N}", _DIGITS)):
        pattern = pattern.replace(name, f"[{name}--[{_ranges(newer)}]]")
    return f"(?V1){pattern}"


def _ranges(listed: str) -> str:
    """Return the inside of a set of code points that are listed in hex."""
    ranges = [entry.split("-") for entry in listed.split()]
    return "".join(
        "-".join(f"\\U{int(end, 16):08X}" for end in ends) for ends in ranges
    )
