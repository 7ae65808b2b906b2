"""SHA-256 checksums of the files in a folder, as `sha256sum` writes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from gpt2.files.reading import is_there

SUMS = "SHA256SUMS"
"""The file of checksums; `sha256sum -c SHA256SUMS` checks the others."""

_MOST_BYTES = 100_000
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\\\0]+)")


def write_sums(folder: Path, names: Iterable[str] | None = None) -> None:
    """Write the SHA-256 of files in a folder to `SHA256SUMS` beside them.

    Args:
        folder: The folder.
        names: Which files; all by default.
    """
    if names is None:
        names = [path.name for path in folder.iterdir()]
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in sorted(names)]
    (folder / SUMS).write_text("".join(lines), "utf-8", newline="\n")


def check_sums(
    folder: Path, known: Collection[str], error: type[ValueError]
) -> None:
    """Compare the files in a folder with their checksums.

    Args:
        folder: The folder.
        known: Names of files that must have a checksum if they exist.
        error: The exception to raise.

    Raises:
        ValueError: `error`: a file is damaged or missing, or the file of
            checksums is.
    """
    if not is_there(folder / SUMS):
        raise error(
            f"{folder} has no {SUMS}: either it was written by an older "
            f"version, which kept no checksums, or the file was removed. If "
            f"you trust the other files, write their checksums by running "
            f"`sha256sum * > {SUMS}` in that folder"
        )
    sums = _read_sums(folder / SUMS, error)
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise error(f"{path} is missing, but {SUMS} lists it")
        try:
            found = _sha256(path)
        except OSError as problem:
            raise error(f"{path} cannot be read: {problem}") from problem
        if found != expected:
            raise error(
                f"{path} has changed since it was written, or {SUMS} has: the "
                f"file has SHA-256 {found}, and {SUMS} says {expected}"
            )
    for name in known:
        if name not in sums and (folder / name).exists():
            raise error(f"{folder / SUMS} has no line for {name}")


def _read_sums(path: Path, error: type[ValueError]) -> dict[str, str]:
    """Read the expected checksum of each file, by name."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1).decode("utf-8")
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be read: {problem}") from problem
    if len(text) > _MOST_BYTES:
        raise error(f"{path} has more than {_MOST_BYTES:,} bytes")
    sums: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in sums:
            raise error(
                f"{path}, line {number}: expected a SHA-256 and the name of a "
                f"file, got {line!r:.90}"
            )
        sums[match[2]] = match[1]
    return sums


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
