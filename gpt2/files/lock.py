"""Locks between processes, which end with the process that holds them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NO_LOCKS_HERE = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system answers that has no locks, as some on the network."""


class InUseError(OSError):
    """Somebody else holds the lock."""


@contextmanager
def locked(path: Path, seconds: float = 0) -> Iterator[None]:
    """Hold a lock; at most one process, and in it one thread, can.

    It is the system's: however a process ends, its locks end with it. On a
    file system without locks nothing is held, and nobody is kept out.

    Args:
        path: A file to hold the lock on; made, and removed again.
        seconds: How long to wait for whoever holds it.

    Raises:
        InUseError: Somebody still holds it then.
        OSError: The file cannot be made.
    """
    from filelock import FileLock, Timeout  # takes a while, and few write

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
        if error.errno not in _NO_LOCKS_HERE:
            raise
        own = None
    try:
        yield
    finally:
        # Before it is released: whoever has been waiting then sees that this
        # is no longer the file, and locks the next one.
        with suppress(OSError):
            if own is None or os.path.samestat(path.stat(), own):
                path.unlink()
        lock.release()
