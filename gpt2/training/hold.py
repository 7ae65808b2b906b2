"""A lock that admits one run at a time to a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpt2.files.lock import InUseError, locked
from gpt2.files.writing import mend
from gpt2.training.checkpoint import ResumeError

_LOCK = ".running"


@dataclass(frozen=True)
class Hold:
    """A run's lock on its folder."""

    folder: Path
    inode: tuple[int, int]
    """Device and inode of the lock file."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Check for the folder before writing and, if that fails, after it.

        Raises:
            OSError: The folder was removed or moved.
        """
        self._check()
        try:
            yield
        except OSError:
            self._check()
            raise

    def _check(self) -> None:
        try:
            inode = _inode(self.folder / _LOCK)
        except OSError:
            inode = None
        if inode != self.inode:
            raise OSError(
                f"{self.folder} was removed or replaced while a run was "
                f"training in it; the run stops without saving"
            )


@contextmanager
def hold(folder: Path) -> Iterator[Hold]:
    """Keep other runs out of a folder, and repair what a killed one left.

    Raises:
        ResumeError: Another run is training in it.
        OSError: The folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / _LOCK))
        except InUseError:
            raise ResumeError(
                f"{folder} is in use: another run is training in it; wait for "
                f"it, stop it, or choose another folder"
            ) from None
        (folder / _LOCK).touch()  # for file systems without locks
        for place in (folder, folder / "checkpoints", folder / "snapshots"):
            mend(place)
        yield Hold(folder, _inode(folder / _LOCK))


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
