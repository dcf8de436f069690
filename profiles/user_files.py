"""Files of the user's own, to share: whole, where they ask, with permissions as they want them.

What a run writes for itself is `profiles/runs/durable.py`'s alone, and private.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from profiles.runs import durable, locks

_SHARED = 0o666
"""Less what the user's umask takes away."""


def create(path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole; FileExistsError if anything is there, so one of many wins."""
    with durable.staged(path, data, mode=_SHARED) as staging:
        try:
            durable.disk.link(staging, path)
        except OSError:  # the name is taken, which this tells too, or there are no links here
            _rename_to_free(staging, path)
        else:
            with contextlib.suppress(OSError):
                durable.disk.unlink(staging)
    durable.sync_dir(path.parent)


def _rename_to_free(source: Path, target: Path) -> None:
    """Whoever makes the empty file has the name; FileExistsError for others."""
    os.close(durable.disk.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    try:
        durable.disk.rename(source, target)
    except OSError:
        with contextlib.suppress(OSError):
            durable.disk.unlink(target)
        raise


def replace(path: Path, data: bytes) -> None:
    """Put `data` in place of what is at `path`, whose permissions stay."""
    mode = stat.S_IMODE(path.stat().st_mode)
    with durable.staged(path, data) as staging:
        durable.disk.chmod(staging, mode)
        durable.disk.rename(staging, path)
    durable.sync_dir(path.parent)


def try_out(path: Path, num_bytes: int) -> None:
    """OSError if a file of this size cannot lie at `path`: no folder, no right, no room."""
    with durable.staged(path, bytes(num_bytes)) as staging:
        durable.disk.unlink(staging)


@contextlib.contextmanager
def folder(final: Path, *, replaces: bool = False) -> Iterator[Path]:
    """A folder to be filled, with synced files, that gets the name `final` when that went well.

    So what has its final name is whole. Else it goes, and what a crash left of an earlier one goes
    before. There may be folders of files in it. `replaces`: a folder of this name makes way at the
    end. FileExistsError if something has the name that is not to be replaced, BlockingIOError if
    another process is making it.
    """
    clear(final)
    staging = durable.beside(final, durable.STAGING_PREFIX)
    durable.disk.mkdir(staging)
    handle = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        locks.take(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # told to others for as long as we live
        yield staging
        for inner in (*staging.glob("*/"), staging):
            durable.disk.chmod(inner, 0o777 & ~_umask())
            durable.sync_dir(inner)
        _publish(staging, final, replaces=replaces)
    except BaseException:
        with contextlib.suppress(OSError):
            durable.remove_tree(staging, inside=final.parent)
        raise
    finally:
        os.close(handle)


def _publish(staging: Path, final: Path, *, replaces: bool) -> None:
    replaced = None
    if os.path.lexists(final):
        if not replaces:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
        replaced = durable.beside(final, durable.OLD_PREFIX)
        durable.disk.rename(final, replaced)
    try:
        durable.disk.rename(staging, final)
    except OSError:
        if replaced is not None:
            durable.disk.rename(replaced, final)
        raise
    durable.sync_dir(final.parent)
    if replaced is not None:
        with contextlib.suppress(OSError):  # the next one clears it
            durable.remove_tree(replaced, inside=final.parent)


def clear(final: Path) -> None:
    """Settle what a crash left of `folder`; BlockingIOError where the one who fills it is alive."""
    for path in final.parent.glob(f"{durable.STAGING_PREFIX}*"):
        if not path.name.startswith(f"{durable.STAGING_PREFIX}{final.name}-") or path.is_symlink():
            continue
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not locks.take(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                raise BlockingIOError(errno.EBUSY, "another process is making it", str(path))
        finally:
            os.close(handle)
    durable.clear_leftovers(final.parent, final.name)


def _umask() -> int:
    """There is no way to ask but to set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
