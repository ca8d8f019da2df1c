"""A file that only one process writes, by a lock that the system frees when that process ends, however it ends."""

from __future__ import annotations

import errno
import os

#: Locking a byte far behind the text leaves the text readable on Windows, whose locks are mandatory.
_LOCKED_BYTE = 2**30


def lock(descriptor: int) -> bool:
    """Whether the lock of an open file could be taken; where the file system knows no locks, it counts as taken."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
    return True
