"""The only place that writes files that matter.

A final name means a complete object: content goes to a temporary name, is synced, is renamed, and
the directory is synced. Every system call goes through `disk`, so tests can fail or crash any of
them. Nothing here knows what the files mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700
STAGING_PREFIX = ".tmp-"


class Disk:
    """The system calls that change a disk, one method each."""

    def open(self, path: Path, flags: int) -> int:
        """Open for writing, never through a symbolic link."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)

    def write(self, fd: int, data: bytes) -> None:
        """Write all of `data`; a short write is continued."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def fsync(self, fd: int) -> None:
        """Wait until the content of `fd` is on the device."""
        os.fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Replace `target` atomically."""
        source.replace(target)

    def mkdir(self, path: Path) -> None:
        """Create one directory; fails if it exists."""
        path.mkdir(mode=PRIVATE_DIR)

    def unlink(self, path: Path) -> None:
        """Remove one file."""
        path.unlink()


disk = Disk()


def sync_dir(path: Path) -> None:
    """Make renames and new names inside `path` survive a power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make a file that somebody else wrote survive a power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        disk.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader sees the old content or the new, never a part."""
    staging = path.with_name(f"{STAGING_PREFIX}{path.name}-{secrets.token_hex(4)}")
    fd = disk.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            disk.write(fd, data)
            disk.fsync(fd)
        finally:
            os.close(fd)
        disk.rename(staging, path)
    except OSError:
        with contextlib.suppress(OSError):
            staging.unlink()
        raise
    sync_dir(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of one JSON value, indented, for people who open it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, sort_keys=False)
    write_atomic(path, text.encode() + b"\n")


def make_dir(path: Path) -> None:
    """Create one directory exclusively (FileExistsError if somebody was first) and keep it."""
    disk.mkdir(path)
    sync_dir(path.parent)


def publish_dir(staging: Path, final: Path) -> None:
    """Give a finished directory its final name: sync every file and directory, rename, sync."""
    for folder, _, names in os.walk(staging, topdown=False):
        for name in names:
            sync_file(Path(folder, name))
        sync_dir(Path(folder))
    disk.rename(staging, final)
    sync_dir(final.parent)


class Appender:
    """A file that only grows, by whole lines, from one writer."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`; a line torn by a crash is ended, not cut off."""
        is_new = not path.exists()
        self._fd = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if is_new:
            sync_dir(path.parent)
        elif not _ends_with_newline(path):
            disk.write(self._fd, b"\n")

    def append(self, line: bytes, *, sync: bool) -> None:
        """Add one line in one write; with `sync`, return only once it is on the device."""
        disk.write(self._fd, line + b"\n")
        if sync:
            self.sync()

    def sync(self) -> None:
        """Put everything appended so far on the device."""
        disk.fsync(self._fd)

    def close(self) -> None:
        """Release the file; what was appended stays."""
        os.close(self._fd)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"


def overwrite(path: Path, data: bytes) -> None:
    """Rewrite a small file in place, unsynced: for heartbeats, which are worthless when old."""
    fd = disk.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        disk.write(fd, data)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)
