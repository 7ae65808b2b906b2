"""The one door through which files come in, whoever wrote them."""

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
"""More than any file of a GPT-2 has: the `tokenizer.json` of one with 50,257
tokens has 2 to 4 MB."""
SETTINGS_BYTES = 1_000_000
"""More than any file has that only says how something is set: GPT-2's
`config.json` has 665 bytes."""
MOST_DEPTH = 32
"""Objects and lists within each other; a `tokenizer.json` needs 6."""
MOST_DIGITS = 40
"""Of a whole number: the `model_max_length` that `transformers` writes where
there is none, int(1e30), has 31."""


_LFS = b"version https://git-lfs.github.com/spec/"


def _refuse_pointer(
    start: bytes | memoryview, path: Path, error: type[ValueError]
) -> None:
    """Refuse the text that a repository has in place of a large file."""
    if bytes(start[: len(_LFS)]) == _LFS:
        raise error(
            f"{path} is a pointer of Git LFS, and the file itself has not been "
            f"fetched: run `git lfs pull`, or download the file"
        )


def is_there(path: Path) -> bool:
    """Tell whether something has a name, be it a file or not.

    Where that cannot be told, the answer is yes: whoever opens it then says
    what is wrong.
    """
    try:
        return path.exists()
    except OSError:
        return True


def open_file(path: Path, error: type[ValueError]) -> BufferedReader:
    """Open a regular file for reading.

    Whatever else may have a file's name is refused: to open a pipe would wait
    for somebody who writes to it, and a device has no end.

    Args:
        path: The file.
        error: What to raise; its message names the file.

    Raises:
        ValueError: `error`: it is not there, is none, or cannot be opened.
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
    """Read a regular file, if it has no more than `most_bytes`.

    Raises:
        ValueError: `error`: it cannot be read, or is larger.
    """
    try:
        with open_file(path, error) as file:
            # To read n bytes takes memory for n, however short the file is.
            size = os.fstat(file.fileno()).st_size
            data = file.read(min(size, most_bytes) + 1)
    except OSError as problem:
        raise error(_unreadable(path, problem)) from problem
    _refuse_pointer(data, path, error)
    if len(data) > most_bytes:
        raise error(
            f"{path} has more than {most_bytes:,} bytes, too many for such a "
            f"file of a GPT-2"
        )
    return data


def map_file(path: Path, error: type[ValueError]) -> memoryview:
    """Map a regular file into memory.

    A page is read when it is first used. Writing to it changes memory and
    never the file.

    Raises:
        ValueError: `error`: it cannot be read.
    """
    try:
        with open_file(path, error) as file:
            number = file.fileno()
            if not os.fstat(number).st_size:  # which cannot be mapped
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
        error: What to raise; its message names the file.
        most_bytes: Of a larger file, no more is read.

    Returns:
        The value: an object has no name twice, numbers are finite, and
        nothing is nested deeper than `MOST_DEPTH`.

    Raises:
        ValueError: `error`: the file cannot be read, is not JSON, or breaks
            one of these bounds.
    """
    data = read_bytes(path, error, most_bytes)
    return parse_json(data, str(path), error)


def read_json_object(
    path: Path, error: type[ValueError], most_bytes: int = MOST_BYTES
) -> dict[str, Any]:
    """Read a JSON file that must hold an object; otherwise as `read_json`."""
    value = read_json(path, error, most_bytes)
    if not isinstance(value, dict):
        raise error(f"{path} must hold a JSON object, got {_shown(value)}")
    return value


def parse_json(data: bytes, name: str, error: type[ValueError]) -> Any:
    """Parse JSON in UTF-8; bounds as in `read_json`.

    Args:
        data: The text.
        name: What to call it in a message: a file's path.
        error: What to raise.
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
    """Return a field of a JSON object, which must be there and of a kind.

    Args:
        fields: The object.
        name: The field's.
        kind: `int`, `str`, `dict`, ...; true and false are no `int`, and a
            whole number is a `float`, too.
        file: What to call the file in a message.
        error: What to raise.
    """
    if name not in fields:
        raise error(f"{file} has no field {name!r}")
    value = fields[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    accepted = (*kinds, int) if float in kinds else kinds
    if not isinstance(value, accepted) or (
        isinstance(value, bool) and bool not in kinds
    ):
        wanted = " or ".join(_KINDS[kind] for kind in kinds)
        raise error(
            f"{file}: field {name!r} must be {wanted}, got {_shown(value)}"
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
    """Show a value's kind, and the value itself where it is short."""
    if isinstance(value, dict | list):
        return f"{_KINDS[type(value)]} of {len(value):,}"
    return f"{value!r:.60}"


def _too_deep(name: str) -> str:
    return (
        f"{name} cannot be read: objects and lists are nested more than "
        f"{MOST_DEPTH} deep"
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, in which no name may come twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = sorted(name for name, _ in pairs)
        twice = next(a for a, b in pairwise(names) if a == b)
        raise ValueError(f"the name {twice!r:.80} comes twice")
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
    """Tell whether objects and lists are nested more than `most` deep."""
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
