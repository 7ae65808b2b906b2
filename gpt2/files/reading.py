"""Read files that anybody may have written: bounded, and regular files only.

Everything that the package reads goes through these functions.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import stat
from collections.abc import Mapping
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES = 64_000_000
"""Limit for any file but the weights. GPT-2's `tokenizer.json` has 2 to 4
MB."""
SETTINGS_BYTES = 1_000_000
"""Limit for a file of settings. GPT-2's `config.json` has 665 bytes."""
MOST_DEPTH = 32
"""Limit for nested objects and lists; a `tokenizer.json` needs 6."""
MOST_DIGITS = 40
"""Limit for the digits of an integer. If a model has no maximum length,
`transformers` writes int(1e30) as `model_max_length`, which has 31."""


_LFS = b"version https://git-lfs.github.com/spec/"


def _refuse_pointer(
    start: bytes | memoryview, path: Path, error: type[ValueError]
) -> None:
    """Refuse the text that a repository has in place of a large file."""
    if bytes(start[: len(_LFS)]) == _LFS:
        raise error(
            f"{path} is a pointer of Git LFS, and the file itself was not "
            f"fetched: run `git lfs pull`, or download the file"
        )


def is_there(path: Path) -> bool:
    """Tell whether a path exists, as a file or as anything else.

    If the system cannot tell, the answer is yes: opening the path will then
    raise an error that says why.
    """
    try:
        return path.exists()
    except OSError:
        return True


def open_file(path: Path, error: type[ValueError]) -> BufferedReader:
    """Open a regular file for reading.

    Anything else is refused: opening a pipe would block until somebody writes
    to it, and a device has no end.

    Args:
        path: The file.
        error: The exception to raise; its message names the file.

    Raises:
        ValueError: `error`: the file is missing, is not a regular file, or
            cannot be opened.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path.open("rb")
    except (OSError, ValueError) as problem:  # ValueError: NUL in the name
        raise error(_unreadable(path, problem)) from problem
    kind = _NOT_REGULAR.get(stat.S_IFMT(mode), "a device")
    raise error(f"{path} cannot be read: it is {kind}, not a regular file")


_NOT_REGULAR = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def _unreadable(path: Path, problem: Exception) -> str:
    reason = getattr(problem, "strerror", None) or problem
    return f"{path} cannot be read: {reason}"


def read_bytes(path: Path, error: type[ValueError], most_bytes: int) -> bytes:
    """Read a regular file of at most `most_bytes` bytes.

    Raises:
        ValueError: `error`: it cannot be read, or is larger.
    """
    try:
        with open_file(path, error) as file:
            # read(n) allocates n bytes, however short the file is.
            size = os.fstat(file.fileno()).st_size
            data = file.read(min(size, most_bytes) + 1)
    except OSError as problem:
        raise error(_unreadable(path, problem)) from problem
    _refuse_pointer(data, path, error)
    if len(data) > most_bytes:
        raise error(
            f"{path} has more than {most_bytes:,} bytes, too many for this "
            f"file of a GPT-2"
        )
    return data


def map_file(path: Path, error: type[ValueError]) -> memoryview:
    """Map a regular file into memory, copy-on-write.

    The system reads a page when it is first used. Writing to the map changes
    memory and never the file.

    Raises:
        ValueError: `error`: it cannot be read.
    """
    try:
        with open_file(path, error) as file:
            number = file.fileno()
            if not os.fstat(number).st_size:  # mmap refuses an empty file
                return memoryview(b"")
            data = memoryview(mmap.mmap(number, 0, access=mmap.ACCESS_COPY))
    except OSError as problem:
        raise error(_unreadable(path, problem)) from problem
    _refuse_pointer(data, path, error)
    return data


def read_json(
    path: Path, error: type[ValueError], most_bytes: int = MOST_BYTES
) -> Any:
    """Read a JSON file.

    Args:
        path: The file, in UTF-8.
        error: The exception to raise; its message names the file.
        most_bytes: The most bytes that it may have.

    Returns:
        The value. No object has the same name twice, all numbers are finite,
        and nothing is nested deeper than `MOST_DEPTH`.

    Raises:
        ValueError: `error`: the file cannot be read, is not JSON, or breaks
            one of these bounds.
    """
    data = read_bytes(path, error, most_bytes)
    return parse_json(data, str(path), error)


def read_json_object(
    path: Path, error: type[ValueError], most_bytes: int = MOST_BYTES
) -> dict[str, Any]:
    """Read a JSON file that holds an object; otherwise as `read_json`."""
    value = read_json(path, error, most_bytes)
    if not isinstance(value, dict):
        raise error(f"{path} must hold a JSON object, got {_shown(value)}")
    return value


def parse_json(data: bytes, name: str, error: type[ValueError]) -> Any:
    """Parse JSON in UTF-8, with the bounds of `read_json`.

    Args:
        data: The text.
        name: The file's name, for messages.
        error: The exception to raise.

    Raises:
        ValueError: `error`: as for `read_json`.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_decimal,
            parse_constant=_constant,
        )
    except RecursionError:
        raise error(_too_deep(name)) from None
    except ValueError as problem:
        raise error(f"{name} cannot be read: {problem}") from problem
    if _is_deeper(value, MOST_DEPTH):
        raise error(_too_deep(name))
    return value


def field(
    fields: Mapping[str, Any],
    name: str,
    kind: type | tuple[type, ...],
    file: Path | str,
    error: type[ValueError],
) -> Any:
    """Return a field of a JSON object, and check its type.

    Args:
        fields: The object.
        name: The name of the field.
        kind: `int`, `str`, `dict`, ...; a boolean is not an `int`, and an
            integer is also a `float`.
        file: The file's name, for messages.
        error: The exception to raise.

    Raises:
        ValueError: `error`: the field is missing, or of another type.
    """
    if name not in fields:
        raise error(f"{file} has no field {name!r}")
    value = fields[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    accepted = (*kinds, int) if float in kinds else kinds
    if not isinstance(value, accepted) or (
        isinstance(value, bool) and bool not in kinds
    ):
        expected = " or ".join(_KINDS[kind] for kind in kinds)
        raise error(
            f"{file}: field {name!r} must be {expected}, got {_shown(value)}"
        )
    return value


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _shown(value: Any) -> str:
    """Describe a list or an object by its length; quote any other value."""
    if isinstance(value, dict | list):
        return f"{_KINDS[type(value)]} of {len(value):,}"
    return f"{value!r:.60}"


def _too_deep(name: str) -> str:
    return (
        f"{name} cannot be read: objects and lists are nested more than "
        f"{MOST_DEPTH} deep"
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; refuse a repeated name."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = sorted(name for name, _ in pairs)
        repeated = next(a for a, b in pairwise(names) if a == b)
        raise ValueError(f"the name {repeated!r:.80} appears twice")
    return fields


def _whole(digits: str) -> int:
    count = len(digits.lstrip("-"))
    if count > MOST_DIGITS:
        raise ValueError(
            f"a whole number has {count:,} digits, more than {MOST_DIGITS}"
        )
    return int(digits)


def _decimal(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text:.40} is too large")
    return number


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _is_deeper(value: Any, most: int) -> bool:
    """Tell whether objects and lists are nested more than `most` levels."""
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
