"""Locks of a run: taken for as long as a process lives, tried for an instant by readers.

Some file systems grant a lock to everybody or have none (Lustre without `-o flock`: ENOSYS); NFS
turns flock(2) into byte-range locks, which want a file that is open for writing. So a lock is a
second opinion: who may start an attempt is decided by its claim, who works on it by identities.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path

_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF}
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_TRIAL_SECONDS = 0.02


def take(fd: int, kind: int) -> bool:
    """Lock an open file as flock(2) does; True too where the file system has no locks."""
    try:
        fcntl.flock(fd, kind)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def is_held(lock: Path) -> bool:
    """Somebody holds this lock, shared or alone, for longer than a reader that tries it."""
    if not _is_taken(lock):
        return False
    time.sleep(_TRIAL_SECONDS)
    return _is_taken(lock)


def _is_taken(lock: Path) -> bool:
    try:
        fd = _open(lock)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _TAKEN
    finally:
        os.close(fd)
    return False


def _open(lock: Path) -> int:
    """For writing where that is allowed: NFS locks no other file.

    Nothing but a regular file is a lock of ours: what else lies there is not even opened.
    """
    if not stat.S_ISREG(lock.lstat().st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(lock))
    try:
        return os.open(lock, os.O_RDWR | _FLAGS)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        return os.open(lock, os.O_RDONLY | _FLAGS)
