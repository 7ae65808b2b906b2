"""Move files from a stage to their folder, as one step.

- If one file changes, it is renamed over the old one.
- If several do, the complete new folder is built beside the old one, out of
  hard links, and the two are exchanged, which to the system is one step.
- Where that cannot be done, the old files are moved out of the folder, one by
  one, and then the new ones in. Meanwhile a folder `.half-saved` in it tells
  readers to keep away. If the writer is killed, the next one finishes its
  work.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpt2.files.reading import field, read_json_object


@dataclass(frozen=True)
class Place:
    """A folder that files go to, and what lies there while they do."""

    folder: Path
    name: str = ""
    """What the files are called together; empty if they are the folder."""

    @property
    def work(self) -> Path:
        """What may be removed at any time; in it, `new` is the stage."""
        return self._hidden("saving")

    @property
    def lock(self) -> Path:
        """A file that is locked meanwhile."""
        return self._hidden("saving.lock")

    @property
    def marker(self) -> Path:
        """What `work` is called while files are moved one by one."""
        return self._hidden("half-saved")

    @property
    def twin(self) -> Path:
        """Where a folder is built that this one is exchanged for."""
        hidden = f".{_short(self.folder.name)}.exchanging"
        return self.folder.parent / hidden / "exchanged"

    def _hidden(self, what: str) -> Path:
        name = f".{_short(self.name)}" if self.name else ""
        return self.folder / f"{name}.{what}"


def _short(name: str) -> str:
    """Return a name with room for more: most systems allow 255 bytes."""
    data = os.fsencode(name)
    return name if len(data) <= 200 else hashlib.sha256(data).hexdigest()


def clear(place: Path, parts: Collection[str]) -> None:
    """Remove a folder that a writer may have left, if it can be a writer's.

    Args:
        place: The folder; it may not be there.
        parts: What writers put into it.

    Raises:
        OSError: It is a link or no folder, or has something else in it.
    """
    if not os.path.lexists(place):
        return
    if place.is_symlink() or not place.is_dir():
        raise NotADirectoryError(
            f"{place} is not a folder; saving needs that name: move it away"
        )
    others = sorted({path.name for path in place.iterdir()} - {*parts})
    if others:
        raise FileExistsError(
            f"{place} holds {others[0]!r:.80}, which no save has put there; "
            f"saving needs that name: move the folder away"
        )
    shutil.rmtree(place, ignore_errors=True)


def clear_twin(place: Place) -> None:
    """Remove the twin of a folder; what is somebody else's stays."""
    with suppress(OSError):
        clear(place.twin.parent, [place.twin.name])


WORK = ("new", "old", "plan.json")
"""What `Place.work` may hold."""


def move_in(
    place: Place, leaves: Callable[[str], bool], first: Sequence[str]
) -> None:
    """Move the files of the stage to their folder.

    Args:
        place: Where; it is locked.
        leaves: As for `gpt2.files.writing.replacing`.
        first: The same.

    Raises:
        OSError: They cannot be moved. Nothing has changed, unless the message
            says so.
    """
    folder, stage = place.folder, place.work / "new"
    new = sorted(path.name for path in stage.iterdir())
    changed = [n for n in new if not _equal(stage / n, folder / n)]
    gone = [
        entry.name
        for entry in os.scandir(folder)
        if entry.name not in new
        and not entry.name.endswith(".saving.lock")
        and not entry.is_dir(follow_symlinks=False)
        and leaves(entry.name)
    ]
    if len(changed) + len(gone) < 2:
        for name in changed:
            (stage / name).replace(folder / name)
        for name in gone:
            (folder / name).unlink()
    elif place.name or not _exchange(place, changed, gone):
        moving = [n for n in new if n in changed or n in first]
        _move_one_by_one(place, moving, gone, first)


def flush(folder: Path) -> None:
    """Send a folder's list of names to the disk, where a system does that."""
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


def _equal(new: Path, old: Path) -> bool:
    """Compare files byte by byte; there may be no old one."""
    if old.is_dir():
        raise IsADirectoryError(f"{old} is a folder, and not a file")
    if not old.is_file() or new.stat().st_size != old.stat().st_size:
        return False
    with new.open("rb") as one, old.open("rb") as other:
        while block := one.read(1 << 20):
            if block != other.read(1 << 20):
                return False
    return True


# All at once.


def _exchange(
    place: Place, changed: Sequence[str], gone: Sequence[str]
) -> bool:
    """Exchange the folder for one with the new files, and without some.

    Returns:
        Whether that can be done here. If not, nothing has changed.
    """
    folder, twin = place.folder, place.twin
    left_out = {place.work.name, *changed, *gone}
    done = False
    try:
        if _build_twin(place, left_out):
            for name in changed:
                os.link(place.work / "new" / name, twin / name)
            flush(twin)
            flush(twin.parent)
            done = _swap(twin, folder)
    except (OSError, NotImplementedError):
        pass
    finally:
        if not done:
            clear_twin(place)
    if not done:
        return False
    # Others may have put something into the old folder in the meantime.
    for path in [p for p in twin.iterdir() if p.name not in left_out]:
        with suppress(OSError):
            if not _is_same(path, folder / path.name):
                path.replace(folder / path.name)
    clear_twin(place)
    return True


def _build_twin(place: Place, left_out: Collection[str]) -> bool:
    """Build a folder with the files that stay, if it can replace the old one.

    It cannot where somebody would miss the old one: its sub-folders, a disk
    that is mounted there, its owner, or a program, such as this one, that is
    in it.
    """
    folder, twin = place.folder, place.twin
    if folder.is_mount() or folder.samefile(Path.cwd()):
        return False
    twin.parent.mkdir()
    twin.mkdir()
    shutil.copystat(folder, twin)
    was, now = folder.stat(), twin.stat()
    if (was.st_uid, was.st_gid) != (now.st_uid, now.st_gid):
        return False
    for entry in os.scandir(folder):
        if entry.name in left_out:
            continue
        if entry.is_dir(follow_symlinks=False):
            return False
        os.link(entry.path, twin / entry.name, follow_symlinks=False)
    return True


def _swap(one: Path, other: Path) -> bool:
    """Exchange the names of two folders, where the system can."""
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None)
    names = os.fsencode(one), os.fsencode(other)
    here, exchange = -100, 2  # AT_FDCWD; RENAME_EXCHANGE and RENAME_SWAP
    try:
        if sys.platform == "darwin":
            return bool(library.renamex_np(*names, exchange) == 0)
        return bool(
            library.renameat2(here, names[0], here, names[1], exchange) == 0
        )
    except AttributeError:  # not in this C library
        return False


def _is_same(path: Path, other: Path) -> bool:
    """Tell whether two names are of one file."""
    return os.path.lexists(other) and os.path.samestat(
        path.lstat(), other.lstat()
    )


# One by one.


def _move_one_by_one(
    place: Place, new: Sequence[str], gone: Sequence[str], first: Sequence[str]
) -> None:
    """Move the old files out of the folder, and then the new ones in."""

    def rank(name: str) -> int:
        return first.index(name) if name in first else len(first)

    folder, work = place.folder, place.work
    old = [n for n in (*new, *gone) if os.path.lexists(folder / n)]
    plan = {
        "out": sorted(old, key=rank),
        "in": sorted(new, key=rank, reverse=True),
    }
    with (work / "plan.json").open("w", encoding="utf-8") as file:
        json.dump(plan, file)
        file.flush()
        os.fsync(file.fileno())
    (work / "old").mkdir()
    flush(work)
    work.rename(place.marker)
    try:
        finish(place)
    except BaseException as problem:
        try:
            _take_back(place, plan)
        except OSError as error:
            raise OSError(
                f"{folder} is half saved, since a file could neither be moved "
                f"({problem}) nor moved back ({error}): see "
                f"{place.marker / 'old'} and {place.marker / 'new'}"
            ) from problem
        raise


def finish(place: Place) -> None:
    """Move the files that the plan names and that are not yet moved.

    Raises:
        OSError: One cannot be moved.
        ValueError: The plan is missing or damaged.
    """
    folder, marker = place.folder, place.marker
    try:
        names = _read_plan(marker)
    except ValueError as problem:
        raise ValueError(
            f"{problem}. {marker} says that a save into {folder} was "
            f"interrupted, and without its plan that cannot be finished: look "
            f"into it, move out what you need, and remove it"
        ) from problem
    flush(folder)
    for name in names["out"]:
        aside = marker / "old" / name
        if not os.path.lexists(aside) and os.path.lexists(folder / name):
            (folder / name).rename(aside)
    flush(marker / "old")
    flush(folder)
    for name in names["in"]:
        if os.path.lexists(marker / "new" / name):
            (marker / "new" / name).replace(folder / name)
    flush(folder)
    marker.rename(place.work)


def _read_plan(marker: Path) -> dict[str, list[str]]:
    """Read which files are to be moved out and in."""
    path = marker / "plan.json"
    if marker.is_symlink():
        raise ValueError(f"{marker} is a link, and not a folder")
    plan = read_json_object(path, ValueError)
    names = {}
    for way in ("out", "in"):
        names[way] = field(plan, way, list, path, ValueError)
        for name in names[way]:
            if not isinstance(name, str) or Path(name).name != name:
                raise ValueError(
                    f"{path} names {name!r:.80}, which is not the name of a "
                    f"file"
                )
    return names


def _take_back(place: Place, plan: dict[str, list[str]]) -> None:
    """Undo what `finish` has done so far."""
    folder, new = place.folder, place.marker / "new"
    for name in plan["in"]:
        if not os.path.lexists(new / name):
            (folder / name).replace(new / name)
    for name in reversed(plan["out"]):
        if os.path.lexists(place.marker / "old" / name):
            (place.marker / "old" / name).replace(folder / name)
    flush(folder)
    place.marker.rename(place.work)
