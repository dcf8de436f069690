"""The only place that writes files that matter.

A final name means a complete object: content goes to a temporary name, is synced, is renamed, and
the directory is synced. Every system call that changes the disk goes through `disk`, so tests can
fail or crash any of them. What is written is private by choice, files 0600 and directories 0700,
whatever the umask says and other libraries did: a run holds somebody's data. Nothing here knows
what the files mean.

A name with a dot is unfinished business: `.tmp-` is being written, `.old-` is being replaced,
`.del-` is being removed. `clear_leftovers` settles what a crash left of them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700
STAGING_PREFIX = ".tmp-"
OLD_PREFIX = ".old-"
DOOMED_PREFIX = ".del-"
_BLOCK_BYTES = 512
"""What st_blocks counts in (stat(3type))."""
_LEFTOVER = re.compile(r"\.(?P<kind>tmp|old|del)-(?P<name>.+?)(-[0-9a-f]{6})?")
_END_OF_TORN_LINE = b" torn\n"
"""Ends what a crash left of a line, so that it never counts as a whole one, even if it was."""


class Disk:
    """The system calls that change a disk, one method each."""

    def open(self, path: Path, flags: int, mode: int = PRIVATE_FILE) -> int:
        """Open for writing, never through a symbolic link; `mode` of a new file, less the umask."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)

    def write(self, fd: int, data: bytes) -> None:
        """Write all of `data`; a short write is continued."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def truncate(self, fd: int, num_bytes: int) -> None:
        """Cut a file to this length."""
        os.ftruncate(fd, num_bytes)

    def fsync(self, fd: int) -> None:
        """Wait until the content of `fd` is on the device; after a failure never ask it again."""
        os.fsync(fd)

    def fsync_dir(self, path: Path) -> None:
        """Wait until the names inside `path` are on the device."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def chmod(self, target: int | Path, mode: int) -> None:
        """Set the permissions of an open file, or of a directory."""
        os.chmod(target, mode)  # noqa: PTH101  # an open file has no Path

    def rename(self, source: Path, target: Path) -> None:
        """Replace `target` atomically."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file one more name; fails if something has it."""
        target.hardlink_to(source)

    def mkdir(self, path: Path) -> None:
        """Create one directory; fails if it exists."""
        path.mkdir(mode=PRIVATE_DIR)

    def unlink(self, path: Path | str, *, dir_fd: int | None = None) -> None:
        """Remove one file, never what a symbolic link points to."""
        os.unlink(path, dir_fd=dir_fd)

    def rmdir(self, path: Path | str, *, dir_fd: int | None = None) -> None:
        """Remove one empty directory."""
        os.rmdir(path, dir_fd=dir_fd)


disk = Disk()


def sync_dir(path: Path) -> None:
    """Make renames and new names inside `path` survive a power loss."""
    disk.fsync_dir(path)


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader sees the old content or the new, never a part."""
    with staged(path, data) as staging:
        disk.rename(staging, path)
    sync_dir(path.parent)


@contextlib.contextmanager
def staged(path: Path, data: bytes, *, mode: int = PRIVATE_FILE) -> Iterator[Path]:
    """A whole, synced file of another name beside `path`; it goes if what is done with it fails."""
    staging = beside(path, STAGING_PREFIX)
    fd = disk.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        try:
            disk.write(fd, data)
            disk.fsync(fd)
        finally:
            os.close(fd)
        yield staging
    except OSError:
        with contextlib.suppress(OSError):
            disk.unlink(staging)
        raise


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of one JSON value."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """One JSON value, indented, for people who open it; ValueError if JSON cannot say it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, sort_keys=False)
    # A byte of a path that is no UTF-8 is a lone surrogate, which JSON says as \udcXX
    return text.encode(errors="backslashreplace") + b"\n"


def keep_room(path: Path, num_bytes: int) -> None:
    """Put a file of this size aside, for something that must be said on a disk that is full."""
    write_atomic(path, b" " * num_bytes)


def fill_room(room: Path, final: Path, data: bytes) -> None:
    """Give the kept file this content and its final name, which needs no new blocks.

    A file system that copies on write may need some all the same. OSError if it does not fit.
    """
    fd = disk.open(room, os.O_WRONLY)
    try:
        found = os.fstat(fd)
        if len(data) > max(found.st_size, found.st_blocks * _BLOCK_BYTES):
            raise OSError(errno.ENOSPC, "more than the room that was kept", str(room))
        disk.write(fd, data)
        disk.truncate(fd, len(data))
        disk.fsync(fd)
    finally:
        os.close(fd)
    disk.rename(room, final)
    sync_dir(final.parent)


def make_dir(path: Path) -> None:
    """Create one directory exclusively (FileExistsError if somebody was first) and keep it."""
    disk.mkdir(path)
    sync_dir(path.parent)


def beside(path: Path, prefix: str) -> Path:
    """A fresh name in the same directory that says what is being done to `path`."""
    return path.with_name(f"{prefix}{path.name}-{secrets.token_hex(3)}")


def sync_tree(folder: Path) -> None:
    """Make a directory that somebody else filled private, and survive a power loss."""
    for name, _, files in os.walk(folder, topdown=False, onerror=_raise):
        for file in files:
            _sync_file(Path(name, file))
        if Path(name).stat().st_mode & 0o777 != PRIVATE_DIR:
            disk.chmod(Path(name), PRIVATE_DIR)
        sync_dir(Path(name))


def _raise(error: OSError) -> None:
    raise error


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(fd).st_mode & 0o777 != PRIVATE_FILE:
            disk.chmod(fd, PRIVATE_FILE)
        disk.fsync(fd)
    finally:
        os.close(fd)


def publish_dir(staging: Path, final: Path) -> None:
    """Give a finished directory its final name, in place of an older one if there is one.

    At every moment either `final` or an `.old-` that `clear_leftovers` gives its name back is
    there, whole. OSError: nothing was published, the older one stays.
    """
    sync_tree(staging)
    replaced = None
    if os.path.lexists(final):
        replaced = beside(final, OLD_PREFIX)
        disk.rename(final, replaced)
    try:
        disk.rename(staging, final)
    except OSError:
        if replaced is not None:
            with contextlib.suppress(OSError):
                disk.rename(replaced, final)
        raise
    sync_dir(final.parent)
    if replaced is not None:
        with contextlib.suppress(OSError):  # the next attempt clears it
            remove_tree(replaced, inside=final.parent)


def remove_tree(path: Path, *, inside: Path) -> int:
    """Remove a file or a directory with all in it; returns the bytes that this freed.

    Symbolic links are removed, not followed. PermissionError if `path` does not lie in `inside`.
    """
    if not path.parent.resolve().is_relative_to(inside.resolve()):
        raise PermissionError(errno.EPERM, f"not inside {inside}", str(path))
    if not os.path.lexists(path):
        return 0
    if path.is_symlink() or not path.is_dir():
        num_bytes = path.lstat().st_size
        disk.unlink(path)
        return num_bytes
    num_bytes = _empty(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    disk.rmdir(path)
    return num_bytes


def _empty(folder: int) -> int:
    """Remove all in an open directory, then close it; by handles, so no link can lead astray."""
    num_bytes = 0
    try:
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                num_bytes += _empty(os.open(entry.name, flags, dir_fd=folder))
                disk.rmdir(entry.name, dir_fd=folder)
            else:
                num_bytes += entry.stat(follow_symlinks=False).st_size
                disk.unlink(entry.name, dir_fd=folder)
    finally:
        os.close(folder)
    return num_bytes


def clear_leftovers(folder: Path, *names: str) -> int:
    """Settle what a crash left unfinished in `folder`: of these final names, or of all.

    A replaced object whose successor never came gets its name back; all else is removed. Only for
    the one writer of these names. Returns the bytes reclaimed. OSError if a name cannot be given
    back; what cannot be removed stays for the next time.
    """
    found = list(_leftovers(folder, names))
    for path, kind, name in found:
        if kind == "old" and not os.path.lexists(folder / name):
            disk.rename(path, folder / name)
    if found:
        sync_dir(folder)  # before the old ones go: until then the new names may not survive
    num_bytes = 0
    for path, _, _ in found:
        with contextlib.suppress(OSError):
            num_bytes += remove_tree(path, inside=folder)
    return num_bytes


def _leftovers(folder: Path, names: tuple[str, ...]) -> Iterator[tuple[Path, str, str]]:
    for path in sorted(folder.iterdir()):
        match = _LEFTOVER.fullmatch(path.name)
        if match and (not names or match["name"] in names):
            yield path, match["kind"], match["name"]


class Appender:
    """A file that only grows, by whole lines, from one writer."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`; a line torn by a crash is ended by the next one, not cut off."""
        self.path = path
        self.num_bytes = 0
        self._is_torn = False
        self._fd: int | None = None
        self._open()

    def append(self, line: bytes) -> None:
        """Add one line in one write."""
        fd = self._open() if self._fd is None else self._fd
        data = (_END_OF_TORN_LINE if self._is_torn else b"") + line + b"\n"
        self._is_torn = True  # until all of it is there
        disk.write(fd, data)
        self._is_torn = False
        self.num_bytes += len(data)

    def sync(self) -> None:
        """Put everything appended so far on the device.

        OSError: what was not there yet may be lost, and the kernel would say so only once, so the
        file is opened anew for what comes next.
        """
        try:
            disk.fsync(self._open() if self._fd is None else self._fd)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Release the file; what was appended stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        fd = disk.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            sync_dir(self.path.parent)  # always: whoever created it may have crashed before this
            self._is_torn = not _ends_with_newline(self.path)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self.num_bytes = os.fstat(fd).st_size
        return fd


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
        disk.truncate(fd, len(data))
    finally:
        os.close(fd)
