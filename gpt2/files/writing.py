"""Write files whole or not at all.

Files are first written into a folder beside their place, the stage, and
flushed to the disk. From there they go to their place in one step (see
`gpt2.files.moving`), so that a reader finds the old files or the new ones,
whenever the writer may be killed. Meanwhile their place is locked.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from gpt2.files.lock import InUseError, locked
from gpt2.files.moving import (
    WORK,
    Place,
    clear,
    clear_twin,
    finish,
    flush,
    move_in,
)

Value = TypeVar("Value")

_PATIENCE = 60.0
"""Seconds to wait for another process that writes to the same place."""


@contextmanager
def replacing(
    folder: Path,
    name: str = "",
    *,
    leaves: Callable[[str], bool] = lambda name: False,
    first: Sequence[str] = (),
) -> Iterator[Path]:
    """Give a stage to write files into, and then move them to their folder.

    Files that are equal to those in the folder are left as they are.

    Args:
        folder: Where they go; made if it is not there. Links are followed.
        name: What to call them together, if they are only some files of a
            folder: then others can be written into it at the same time, and
            the folder itself is never exchanged.
        leaves: Which of the folder's other files leave it in the same step,
            by their names. Sub-folders stay.
        first: Files without which no reader takes the others for a whole. If
            files have to be moved one by one, the old ones of these leave
            first, and the new ones come last, in reverse.

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
    with _naming(folder / name) as others, _alone_at(folder, name) as place:
        stage = place.work / "new"
        place.work.mkdir()  # its own, and no link that was put there
        stage.mkdir()
        try:
            try:
                yield stage
            except OSError as error:
                if not _is_about(error, stage):
                    others.append(error)
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
    """Name what was to be written in what the system says.

    Yields:
        A list, for errors that are about something else.
    """
    others: list[OSError] = []
    try:
        yield others
    except OSError as error:
        # Without a number, it is a sentence of ours.
        if error.errno is None or error in others:
            raise
        raise OSError(
            error.errno, f"{target} cannot be written: {error.strerror}"
        ) from error


def _is_about(error: OSError, stage: Path) -> bool:
    """Tell whether an error is about a file in the stage, or about none."""
    file = error.filename
    return not isinstance(file, str | bytes) or Path(
        os.fsdecode(file)
    ).is_relative_to(stage)


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; errors as from `replacing`."""
    with replacing(path.parent, path.name) as stage:
        (stage / path.name).write_bytes(content)


def check_whole(folder: Path, error: type[ValueError], name: str = "") -> None:
    """Refuse files of which some are old and some are new.

    Args:
        folder: Where they are about to be read.
        error: What to raise.
        name: As for `replacing`.
    """
    marker = Place(folder, name).marker
    if os.path.lexists(marker):
        raise error(
            f"{folder / name} is half saved: whoever was writing there was "
            f"killed, or is at it now. Old files that have left are in "
            f"{marker / 'old'}, new ones that have not come are in "
            f"{marker / 'new'}; the next time something is saved there, the "
            f"new ones are put in place first"
        )


def read_whole(
    folder: Path, read: Callable[[], Value], error: type[ValueError]
) -> Value:
    """Read files of a folder that belong together.

    If somebody saves there in the meantime, all are read once more.

    Args:
        folder: Where they are; it may not be there.
        read: What opens them, the first to the last.
        error: What to raise.

    Raises:
        ValueError: `error`: somebody saved there both times; or what `read`
            raises while nobody does.
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
            del result  # two models may be one too many
    raise error(f"{folder} was saved to while it was read; load it again")


_MODEL_FILE = re.compile(
    r".+\.(json|safetensors|bin|pt|pth|index|bpe)|merges\.txt"
    r"|.*\.ckpt\..*|checkpoint"
)
"""Files that a model is read from; a log beside them may grow meanwhile."""


def _state(folder: Path) -> object:
    """Note what a save changes: which folder it is, and which files.

    A number of a file can be given to another one, later; not along with its
    size and its time.
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
    except OSError:  # it has just left, or is a link to nothing
        return ()
    return info.st_ino, info.st_size, info.st_mtime_ns


def mend(folder: Path) -> None:
    """Put in order what writers have left in a folder who were killed.

    What they had begun to move is finished, and their stages are removed.

    Raises:
        InUseError: One is alive.
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
    """Lock a place, and clear away what those left there who were killed.

    Where there is no folder yet, the place is the one beside it.
    """
    while True:
        if name:
            _make(folder)
        there = folder.is_dir()
        place = (
            Place(folder, name) if there else Place(folder.parent, folder.name)
        )
        _make(place.folder)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(place.lock, _PATIENCE))
            except InUseError:
                raise InUseError(
                    f"{folder / name} is being written by another process"
                ) from None
            if folder.is_dir() != there:  # made, or removed, meanwhile
                continue
            if os.path.lexists(place.marker):
                finish(place)
            clear(place.work, WORK)
            if not name:
                _clear_beside(folder, there)
            yield place
            return


def _clear_beside(folder: Path, there: bool) -> None:
    """Clear away what lies beside a folder for want of one, or for a twin."""
    clear_twin(Place(folder))
    beside = Place(folder.parent, folder.name)
    if there and beside.lock.exists():
        with suppress(OSError), locked(beside.lock):
            clear(beside.work, WORK)


def _make(folder: Path) -> None:
    """Make a folder, and those that it is in."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def _flush_names(folder: Path) -> None:
    """Send to the disk what has been moved."""
    try:
        flush(folder)
        flush(folder.parent)
    except OSError as problem:
        raise OSError(
            f"{folder}: the new files are in place, and might not outlive a "
            f"power cut: {problem}"
        ) from problem


def _flush_files(stage: Path) -> None:
    """Send files to the disk, with the permissions of any new file.

    Those are the folder's. safetensors lets nobody but the owner read.
    """
    mode = stage.stat().st_mode & 0o666
    for path in stage.iterdir():
        path.chmod(mode)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    flush(stage)
