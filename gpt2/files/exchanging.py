"""Replace several files of a folder in one step, by exchanging the folder.

A complete new folder, the twin, is built beside the old one out of hard links.
Then one system call exchanges the names of the two.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from gpt2.files.place import Place, clear_twin, flush


def exchange(
    place: Place, changed: Sequence[str], gone: Sequence[str]
) -> bool:
    """Exchange a folder for one with the new files.

    Args:
        place: The folder; it is locked, and its stage holds the new files.
        changed: The names of the files that are new or have changed.
        gone: The names of the old files that leave the folder.

    Returns:
        Whether the exchange is possible here. If not, nothing has changed.
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
    # Keep what other programs have put into the old folder in the meantime.
    for path in [p for p in twin.iterdir() if p.name not in left_out]:
        with suppress(OSError):
            if not _is_same(path, folder / path.name):
                path.replace(folder / path.name)
    clear_twin(place)
    return True


def _build_twin(place: Place, left_out: Collection[str]) -> bool:
    """Build a folder with the files that stay, if it can replace the old one.

    It cannot if the old folder has sub-folders, is a mount point or has
    another owner, or if this process is in it.
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
    """Exchange the names of two folders, if the system supports it."""
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None)
    names = os.fsencode(one), os.fsencode(other)
    here, flag = -100, 2  # AT_FDCWD; RENAME_EXCHANGE and RENAME_SWAP
    try:
        if sys.platform == "darwin":
            return bool(library.renamex_np(*names, flag) == 0)
        return bool(
            library.renameat2(here, names[0], here, names[1], flag) == 0
        )
    except AttributeError:  # not in this C library
        return False


def _is_same(path: Path, other: Path) -> bool:
    """Tell whether two paths are the same file."""
    return os.path.lexists(other) and os.path.samestat(
        path.lstat(), other.lstat()
    )
