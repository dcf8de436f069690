"""Files of the user's own, to share: whole, where they ask, with permissions as they want them.

What a run writes for itself is `profiles/runs/durable.py`'s alone, and private.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from profiles.runs import durable

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
