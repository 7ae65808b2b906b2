"""The SHA-256 of large files, taken once for each file as it stands.

What was found is remembered in the package's folder in the user's cache, with
the file's size and times; a file that has other ones is read again. So is
every file where nothing can be remembered, or where somebody else could have
written what is: then it only takes longer.
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

_MEMORY = "verified.json"
_MOST_FILES = 100
"""How many are remembered, the latest ones."""


def sha256(path: Path, expected: str) -> str:
    """Return a file's SHA-256, in hexadecimal.

    Args:
        path: The file.
        expected: What it should be. Only if that is what is remembered, the
            file is not read.

    Raises:
        CheckpointError: It cannot be read.
    """
    key = str(path.resolve())
    try:
        with open_file(path, CheckpointError) as file:
            state = _state(file)
            memory = _recall()
            if memory.get(key) == {"state": state, "sha256": expected}:
                return expected
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            unchanged = _state(file) == state
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if unchanged and digest == expected:
        memory.pop(key, None)
        _remember({**memory, key: {"state": state, "sha256": digest}})
    return digest


def _state(file: BinaryIO) -> list[int]:
    """Return what changes when a file does: its size and two times."""
    info = os.fstat(file.fileno())
    return [info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def _recall() -> dict[str, Any]:
    """Return what is remembered; nothing where it is damaged or not ours."""
    try:
        path = cache_folder() / _MEMORY
        memory = parse_json(read_private(path), str(path), CheckpointError)
    except (OSError, CheckpointError):
        return {}
    return memory if isinstance(memory, dict) else {}


def _remember(memory: dict[str, Any]) -> None:
    """Write it all down, whole or not at all."""
    latest = dict(list(memory.items())[-_MOST_FILES:])
    with contextlib.suppress(OSError):
        path = cache_folder() / _MEMORY
        # One name, so that what a killed process leaves is written over.
        new = path.with_suffix(".new")
        with locked(path.with_suffix(".lock"), seconds=1):
            new.write_text(json.dumps(latest, indent=1), encoding="utf-8")
            new.chmod(0o600)
            new.replace(path)
