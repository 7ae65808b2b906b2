"""Read files of a folder that belong together, all from the same save."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gpt2.files.place import Place

Value = TypeVar("Value")


def check_whole(folder: Path, error: type[ValueError], name: str = "") -> None:
    """Refuse a folder in which some files are old and some are new.

    Args:
        folder: The folder to be read.
        error: The exception to raise.
        name: As for `gpt2.files.writing.replacing`.

    Raises:
        ValueError: `error`: a save is in progress, or was killed.
    """
    marker = Place(folder, name).marker
    if os.path.lexists(marker):
        raise error(
            f"{folder / name} is half saved: a save was killed, or is still "
            f"running. Old files that have been moved out are in "
            f"{marker / 'old'}, new files not yet moved in are in "
            f"{marker / 'new'}; the next save there puts the new ones in "
            f"place first"
        )


def read_whole(
    folder: Path, read: Callable[[], Value], error: type[ValueError]
) -> Value:
    """Read files that belong together; read again if a save changes them.

    Args:
        folder: Their folder; it may be missing.
        read: The function that opens and reads them all.
        error: The exception to raise.

    Returns:
        What `read` returns.

    Raises:
        ValueError: `error`: a save changed them both times; or whatever
            `read` raises while nothing changes.
    """
    for _ in range(2):
        before = _state(folder)
        try:
            result = read()
        except ValueError:
            if _state(folder) == before:
                raise
        else:
            if _state(folder) == before:
                return result
            del result  # there may be no memory for two models
    raise error(f"{folder} was saved to while it was read; load it again")


_MODEL_FILE = re.compile(
    r".+\.(json|safetensors|bin|pt|pth|index|bpe)|merges\.txt"
    r"|.*\.ckpt\..*|checkpoint"
)
"""The files of a model; a log beside them may grow while they are read."""


def _state(folder: Path) -> object:
    """Return what a save changes: the folder's identity, and its files'.

    A later file may reuse an inode number, but hardly with the same size and
    modification time.
    """
    files = {}
    try:
        own = folder.stat()
        for entry in os.scandir(folder):
            if _MODEL_FILE.fullmatch(entry.name):
                files[entry.name] = _version(entry)
    except (OSError, ValueError) as problem:  # ValueError: NUL in the name
        return str(problem)
    marked = os.path.lexists(Place(folder).marker)
    return own.st_dev, own.st_ino, files, marked


def _version(entry: os.DirEntry[str]) -> tuple[int, ...]:
    try:
        info = entry.stat()
    except OSError:  # just removed, or a broken link
        return ()
    return info.st_ino, info.st_size, info.st_mtime_ns
