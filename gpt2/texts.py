"""Text files: which ones a folder holds, what they say, and their documents.

`gpt2 train --data` and `gpt2 eval` both read text through these functions, so
that a file means the same to both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from gpt2.tokenizer.bpe import END_OF_TEXT

SUFFIXES = (".txt", ".text", ".md")
"""How the names of text files end, in upper or lower case."""

_BLOCK_CHARACTERS = 1 << 20


def find_texts(
    paths: Iterable[Path], leave_out: Path | None = None
) -> list[Path]:
    """Replace each folder by the text files below it.

    These are the regular files whose names end in one of `SUFFIXES`, sorted by
    path. Hidden files and folders, whose names begin with a dot, are skipped,
    and links to folders are not followed.

    Args:
        paths: Files, which are returned as they are, and folders.
        leave_out: A folder to skip, such as one that is about to be written.

    Raises:
        ValueError: A folder holds no such file.
        OSError: A folder cannot be read.
    """
    skipped = leave_out and leave_out.resolve()
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        below = sorted(_below(path, skipped), key=lambda file: file.parts)
        if not below:
            but = f" outside {leave_out}" if leave_out else ""
            raise ValueError(
                f"{path} holds no text files{but}: expected names ending in "
                f"{', '.join(SUFFIXES)}"
            )
        found += below
    return found


def _below(folder: Path, skipped: Path | None) -> Iterator[Path]:
    """Yield the text files below a folder, in any order."""

    def fail(error: OSError) -> None:
        raise error

    for name, folders, files in os.walk(folder, onerror=fail):
        place = Path(name)
        if place.resolve() == skipped:
            folders.clear()
            continue
        folders[:] = [each for each in folders if not each.startswith(".")]
        for file in files:
            if file.startswith(".") or not file.lower().endswith(SUFFIXES):
                continue
            if (place / file).is_file():
                yield place / file


# Up to the last place where a visible character is followed by white space:
# no token crosses such a place.
_UP_TO_SEAM = re.compile(r".*\S(?=[ \n])", re.DOTALL)


def read_blocks(path: Path) -> Iterator[str]:
    r"""Read a text file in blocks that can be encoded one by one.

    A byte-order mark is no part of the text, and every line ends in `\n`. The
    tokens are those of the whole file, unless a block is a single word or
    nothing but white space: then it is cut anywhere, perhaps within a token.

    Raises:
        ValueError: The file is not UTF-8.
        OSError: The file cannot be read.
    """
    rest = ""
    longest = len(END_OF_TEXT)
    with path.open(encoding="utf-8-sig") as file:
        while block := _read(file):
            rest += block
            found = _UP_TO_SEAM.match(rest)
            cut = max(found.end() if found else 0, rest.rfind(END_OF_TEXT))
            if cut <= 0 and len(rest) > 2 * longest:
                cut = len(rest) - longest  # never within an end of text
            if cut > 0:
                yield rest[:cut]
                rest = rest[cut:]
    if rest:
        yield rest


def _read(file: TextIO) -> str:
    try:
        return file.read(_BLOCK_CHARACTERS)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not UTF-8: {error}") from error


def split_documents(text: str, separator: str = END_OF_TEXT) -> list[str]:
    """Split a text at the end of every document; leave out empty ones."""
    return [part for part in text.split(separator) if part]
