"""The SHA-256 of large files, computed once for each version of a file.

Digests are stored in the package's folder in the user's cache, with the size
and the times of the file; a file whose size or times have changed is read
again. If the cache is unavailable or other users can write to it, every file
is read each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from gpt2.files.cache import cache_folder, read_private
from gpt2.files.lock import locked
from gpt2.files.reading import open_file, parse_json
from gpt2.weights.errors import CheckpointError

_CACHE = "verified.json"
_MOST_FILES = 100
"""How many files the cache keeps, the most recent ones."""


def sha256(path: Path, expected: str) -> str:
    """Return a file's SHA-256, in hexadecimal.

    Args:
        path: The file.
        expected: The digest that it should have. If the cache has this one,
            the file is not read.

    Raises:
        CheckpointError: The file cannot be read.
    """
    key = str(path.resolve())
    try:
        with open_file(path, CheckpointError) as file:
            state = _state(file)
            known = _read_cache()
            if known.get(key) == {"state": state, "sha256": expected}:
                return expected
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            unchanged = _state(file) == state
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if unchanged and digest == expected:
        known.pop(key, None)
        _write_cache({**known, key: {"state": state, "sha256": digest}})
    return digest


def _state(file: BinaryIO) -> list[int]:
    """Return a file's size in bytes, and its two times in nanoseconds."""
    info = os.fstat(file.fileno())
    return [info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def _read_cache() -> dict[str, Any]:
    """Read the cache; return nothing if it is damaged or not private."""
    try:
        path = cache_folder() / _CACHE
        known = parse_json(read_private(path), str(path), CheckpointError)
    except (OSError, CheckpointError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(known: dict[str, Any]) -> None:
    """Write the cache atomically, if it can be written."""
    latest = dict(list(known.items())[-_MOST_FILES:])
    with contextlib.suppress(OSError):
        path = cache_folder() / _CACHE
        # A fixed name: the next process overwrites what a killed one leaves.
        new = path.with_suffix(".new")
        with locked(path.with_suffix(".lock"), seconds=1):
            new.write_text(json.dumps(latest, indent=1), encoding="utf-8")
            new.chmod(0o600)
            new.replace(path)
