"""The hidden files and folders that a save uses beside the files it writes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """A folder that is saved to, and the hidden paths that a save uses."""

    folder: Path
    name: str = ""
    """The common name of the files; empty if they are the whole folder."""

    @property
    def work(self) -> Path:
        """The work folder, safe to remove at any time; `new` is the stage."""
        return self._hidden("saving")

    @property
    def lock(self) -> Path:
        """The lock file; it is locked during a save."""
        return self._hidden("saving.lock")

    @property
    def marker(self) -> Path:
        """The name of `work` while files are moved one by one."""
        return self._hidden("half-saved")

    @property
    def twin(self) -> Path:
        """The path of the complete new folder, before the exchange."""
        hidden = f".{_short(self.folder.name)}.exchanging"
        return self.folder.parent / hidden / "exchanged"

    def _hidden(self, what: str) -> Path:
        name = f".{_short(self.name)}" if self.name else ""
        return self.folder / f"{name}.{what}"


def _short(name: str) -> str:
    """Return a name that can be extended: most systems allow 255 bytes."""
    data = os.fsencode(name)
    return name if len(data) <= 200 else hashlib.sha256(data).hexdigest()


WORK = ("new", "old", "plan.json")
"""What `Place.work` may contain."""


def clear(folder: Path, parts: Collection[str]) -> None:
    """Remove a folder that a killed save may have left.

    Args:
        folder: The folder; it may be missing.
        parts: The names that a save creates in it.

    Raises:
        OSError: It is a link or not a folder, or contains anything else.
    """
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise NotADirectoryError(
            f"{folder} is not a folder; saving needs that name: move it away"
        )
    others = sorted({path.name for path in folder.iterdir()} - {*parts})
    if others:
        raise FileExistsError(
            f"{folder} holds {others[0]!r:.80}, which no save created; saving "
            f"needs that name: move the folder away"
        )
    shutil.rmtree(folder, ignore_errors=True)


def clear_twin(place: Place) -> None:
    """Remove a leftover twin; leave alone what no save created."""
    with suppress(OSError):
        clear(place.twin.parent, [place.twin.name])


def flush(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system supports it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
