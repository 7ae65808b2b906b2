"""A folder for what the package wants to find again, which is nobody else's.

What lies there is believed later: compiled code is even run. So it has to be
a place in which no other user can have put anything.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

NAME = "gpt2-from-scratch"


class NotPrivateError(OSError):
    """Another user could write in a place that must be private."""


def cache_folder() -> Path:
    """Return the package's folder in the user's cache, made if need be.

    It lies in `XDG_CACHE_HOME` if that is an absolute path, else in
    `~/.cache`, and only its owner may read or write it.

    Raises:
        OSError: There is no such place, or it is not private.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not root.is_absolute():
        try:
            root = Path.home() / ".cache"
        except RuntimeError as error:  # a user without a home
            raise OSError(str(error)) from error
    if not root.is_absolute():
        raise OSError(f"the home folder {Path.home()} is not an absolute path")
    folder = root.resolve() / NAME  # what is checked is what is used
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(folder)
    return folder


def check_private(folder: Path) -> None:
    """Refuse a folder that another user could change; keep readers out.

    Raises:
        NotPrivateError: It is a link or no folder, belongs to somebody else,
            or others may write in it or in a folder above it.
    """
    if os.name != "posix":
        return
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise NotPrivateError(f"{folder} is not a folder of its own")
    if info.st_uid != os.geteuid():
        raise NotPrivateError(f"{folder} belongs to another user")
    if info.st_mode & 0o022:
        raise NotPrivateError(f"other users may write in {folder}")
    for parent in folder.resolve().parents:
        _check_above(parent)
    if info.st_mode & 0o077:
        folder.chmod(0o700)


def _check_above(folder: Path) -> None:
    """Refuse a folder in which others could exchange what is ours."""
    info = folder.stat()
    if info.st_uid not in (0, os.geteuid()):
        raise NotPrivateError(f"{folder} belongs to another user")
    mine_alone = info.st_mode & stat.S_ISVTX  # as in /tmp
    group = info.st_mode & 0o020 and info.st_gid not in (0, os.getegid())
    if not mine_alone and (group or info.st_mode & 0o002):
        raise NotPrivateError(f"other users may write in {folder}")


def read_private(path: Path) -> bytes:
    """Read a file that only its owner can have written.

    Raises:
        OSError: It is not there, is a link or no file, belongs to somebody
            else, or others may write to it.
    """
    if os.name != "posix":
        return path.read_bytes()
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 (a number)
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise NotPrivateError(f"{path} is not a file")
        if info.st_uid != os.geteuid() or info.st_mode & 0o022:
            raise NotPrivateError(f"other users may write to {path}")
        return file.read()
