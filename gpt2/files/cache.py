"""The package's private folder in the user's cache.

The package trusts what it finds there: it even runs compiled code from it. So
no other user may be able to write to it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

NAME = "gpt2-from-scratch"


class NotPrivateError(OSError):
    """Another user can write to a place that must be private."""


def cache_folder() -> Path:
    """Return the package's folder in the user's cache; create it if needed.

    It is in `XDG_CACHE_HOME` if that is an absolute path, else in `~/.cache`.
    Only its owner may read or write it.

    Raises:
        OSError: The folder cannot be created, or is not private.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not root.is_absolute():
        try:
            root = Path.home() / ".cache"
        except RuntimeError as error:  # a user without a home
            raise OSError(str(error)) from error
    if not root.is_absolute():
        raise OSError(f"the home folder {Path.home()} is not an absolute path")
    folder = root.resolve() / NAME  # check and use the same path
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(folder)
    return folder


def check_private(folder: Path) -> None:
    """Refuse a folder that other users can write to; make it unreadable.

    Raises:
        NotPrivateError: It is a link or not a folder, belongs to another
            user, or others can write to it or to one of its parents.
    """
    if os.name != "posix":
        return
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise NotPrivateError(f"{folder} is a link or not a folder")
    if info.st_uid != os.geteuid():
        raise NotPrivateError(f"{folder} belongs to another user")
    if info.st_mode & 0o022:
        raise NotPrivateError(f"other users may write in {folder}")
    for parent in folder.resolve().parents:
        _check_parent(parent)
    if info.st_mode & 0o077:
        folder.chmod(0o700)


def _check_parent(folder: Path) -> None:
    """Refuse a parent in which other users could replace our folder."""
    info = folder.stat()
    if info.st_uid not in (0, os.geteuid()):
        raise NotPrivateError(f"{folder} belongs to another user")
    sticky = info.st_mode & stat.S_ISVTX  # as in /tmp
    group = info.st_mode & 0o020 and info.st_gid not in (0, os.getegid())
    if not sticky and (group or info.st_mode & 0o002):
        raise NotPrivateError(f"other users may write in {folder}")


def read_private(path: Path) -> bytes:
    """Read a file that only its owner can have written.

    Raises:
        OSError: It is missing, is a link or not a regular file, belongs to
            another user, or others can write to it.
    """
    if os.name != "posix":
        return path.read_bytes()
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 (a number)
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise NotPrivateError(f"{path} is not a regular file")
        if info.st_uid != os.geteuid() or info.st_mode & 0o022:
            raise NotPrivateError(f"other users may write to {path}")
        return file.read()
