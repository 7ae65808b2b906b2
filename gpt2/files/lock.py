"""Locks between processes; the system releases them when a process ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of file systems without locks, such as some network file systems."""


class InUseError(OSError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, seconds: float = 0) -> Iterator[None]:
    """Hold a lock that one thread of one process can hold at a time.

    The system releases the lock however the process ends. On a file system
    without locks, nothing is locked and nobody is kept out.

    Args:
        path: The file to lock; it is created, and removed afterwards.
        seconds: How long to wait for another process to release it.

    Raises:
        InUseError: Another process still holds the lock.
        OSError: The file cannot be created.
    """
    from filelock import FileLock, Timeout  # a slow import that few need

    if path.is_symlink():
        raise OSError(f"{path} is a link, and cannot be locked; remove it")
    lock = FileLock(
        path, timeout=seconds, thread_local=False, fallback_to_soft=False
    )
    try:
        lock.acquire()
        own = path.stat()
    except Timeout:
        raise InUseError(f"{path} is locked by another process") from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        own = None
    try:
        yield
    finally:
        # Remove the file before releasing the lock: a waiting process then
        # sees that its file is gone, and locks a new one.
        with suppress(OSError):
            if own is None or os.path.samestat(path.stat(), own):
                path.unlink()
        lock.release()
