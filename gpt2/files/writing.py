"""Write files atomically: all of them or none.

Files are first written to a folder beside their destination, the stage, and
flushed to the disk. Then `gpt2.files.moving` moves them to their destination
in one step, so that a reader finds the old files or the new ones, whenever
the process may be killed. A lock keeps other processes out meanwhile.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gpt2.files.lock import InUseError, locked
from gpt2.files.moving import finish, move_in
from gpt2.files.place import WORK, Place, clear, clear_twin, flush

_PATIENCE = 60.0
"""Seconds to wait for another process that saves to the same place."""


@contextmanager
def replacing(
    folder: Path,
    name: str = "",
    *,
    leaves: Callable[[str], bool] = lambda name: False,
    first: Sequence[str] = (),
) -> Iterator[Path]:
    """Provide a stage to write files to, and then move them to their folder.

    Files that equal those in the folder are left as they are.

    Args:
        folder: The destination; it is created if missing. Links are followed.
        name: The common name of the files, if they are only some of the
            folder's. Other files of the folder can then be saved at the same
            time, and the folder itself is never exchanged.
        leaves: Tells by its name whether another file of the folder is to be
            removed in the same step. Sub-folders always stay.
        first: Files without which readers ignore the others. If files must be
            moved one by one, these are the first to leave, and in reverse
            order the last to arrive.

    Yields:
        The stage, an empty folder.

    Raises:
        InUseError: Another process is writing them.
        OSError: They cannot be written or moved. Nothing has changed, unless
            the message says so.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, and not a folder")
    with _naming(folder / name) as unrelated, _alone_at(folder, name) as place:
        stage = place.work / "new"
        place.work.mkdir()  # fails if anything, such as a link, is there
        stage.mkdir()
        try:
            try:
                yield stage
            except OSError as error:
                if not _is_about(error, stage):
                    unrelated.append(error)
                raise
            _flush_files(stage)
            if place.folder == folder:
                move_in(place, leaves, first)
            else:
                stage.rename(folder)
            _flush_names(folder)
        finally:
            shutil.rmtree(place.work, ignore_errors=True)


@contextmanager
def _naming(target: Path) -> Iterator[list[OSError]]:
    """Add the target's name to errors of the system.

    Yields:
        A list; errors appended to it pass unchanged.
    """
    unrelated: list[OSError] = []
    try:
        yield unrelated
    except OSError as error:
        # An error of this package has a message, and no number.
        if error.errno is None or error in unrelated:
            raise
        raise OSError(
            error.errno, f"{target} cannot be written: {error.strerror}"
        ) from error


def _is_about(error: OSError, stage: Path) -> bool:
    """Tell whether an error names a file in the stage, or no file."""
    file = error.filename
    return not isinstance(file, str | bytes) or Path(
        os.fsdecode(file)
    ).is_relative_to(stage)


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        OSError: As for `replacing`.
    """
    with replacing(path.parent, path.name) as stage:
        (stage / path.name).write_bytes(content)


def mend(folder: Path) -> None:
    """Clean up after saves to a folder that were killed.

    Moves that had begun are finished, and leftover stages are removed.

    Raises:
        InUseError: A save is still running.
        OSError: A file cannot be moved.
    """
    left = [*folder.glob(".*half-saved"), *folder.glob(".*saving.lock")]
    for name in {
        re.sub(r"\.?(half-saved|saving\.lock)$", "", path.name)
        for path in left
    }:
        with _alone_at(folder.resolve(), name.removeprefix(".")):
            pass


@contextmanager
def _alone_at(folder: Path, name: str) -> Iterator[Place]:
    """Lock a place, and clean up after saves that were killed.

    If the folder does not exist yet, the place is beside it.
    """
    while True:
        if name:
            _make(folder)
        exists = folder.is_dir()
        place = (
            Place(folder, name)
            if exists
            else Place(folder.parent, folder.name)
        )
        _make(place.folder)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(place.lock, _PATIENCE))
            except InUseError:
                raise InUseError(
                    f"{folder / name} is being written by another process"
                ) from None
            if folder.is_dir() != exists:  # created or removed meanwhile
                continue
            if os.path.lexists(place.marker):
                finish(place)
            clear(place.work, WORK)
            if not name:
                _clear_beside(folder, exists)
            yield place
            return


def _clear_beside(folder: Path, exists: bool) -> None:
    """Remove what killed saves have left beside a folder."""
    clear_twin(Place(folder))
    beside = Place(folder.parent, folder.name)
    if exists and beside.lock.exists():
        with suppress(OSError), locked(beside.lock):
            clear(beside.work, WORK)


def _make(folder: Path) -> None:
    """Create a folder and its parents."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def _flush_names(folder: Path) -> None:
    """Flush the entries of a folder and of its parent to the disk."""
    try:
        flush(folder)
        flush(folder.parent)
    except OSError as problem:
        raise OSError(
            f"{folder}: the new files are in place, but a power failure might "
            f"undo that: {problem}"
        ) from problem


def _flush_files(stage: Path) -> None:
    """Flush files to the disk, with the usual permissions of a new file.

    They are taken from the stage; safetensors lets only the owner read.
    """
    mode = stage.stat().st_mode & 0o666
    for path in stage.iterdir():
        path.chmod(mode)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    flush(stage)
