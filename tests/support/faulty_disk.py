"""A disk that fails, crashes or loses power at any operation that is wanted.

It stands in for `durable.disk`. Operations are counted from 1; before the n-th one the fault
happens. What another library writes into a staging directory is not counted: it is not synced
either, so a power loss takes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from profiles.runs.durable import PRIVATE_FILE, Disk

_INNER = len(("runs", "a run", "checkpoints", "step"))


class Crash(BaseException):
    """The process is gone: no handler, no `finally` changes the disk any more."""


@dataclass(frozen=True)
class Fault:
    """What happens before the n-th operation."""

    at: int = 0
    """0 for never."""
    kind: str = "crash"
    """crash, torn (half of a write lands first), error, or power (a crash, then `cut`)."""
    number: int = 0
    """The errno of an error."""
    lasts: bool = False
    """The error comes back until the disk is replaced."""
    keeps_names: str = "no"
    """After a power loss, unsynced names are there: no, yes, some (in some directories), or
    inner (in the directories of checkpoints alone)."""
    zeroes: bool = False
    """After a power loss, unsynced bytes are zeros; else they are cut off."""


@dataclass
class FaultyDisk(Disk):
    """A real disk with one fault, which knows what is synced."""

    root: Path
    fault: Fault = field(default_factory=Fault)
    count: int = 0
    tracks: bool = True
    """Whether it remembers what is synced: wanted for a power loss or a failed sync."""
    contents: dict[int, bytes] = field(default_factory=dict)
    """What is on the device of each file, by inode."""
    listings: dict[int, dict[str, int]] = field(default_factory=dict)
    """What is on the device of each directory: names and inodes."""
    writes: list[int] = field(default_factory=list)
    """Which operations were writes."""
    _held: list[int] = field(default_factory=list)
    """Open files keep the system from giving an inode to another file."""

    def begin(self, fault):
        """Count from here to this fault."""
        self.fault, self.count = fault, 0

    def _step(self, fd=None, data=b""):
        self.count += 1
        if fd is not None:
            self.writes.append(self.count)
        if self.fault.at == 0 or self.count < self.fault.at:
            return
        if self.fault.kind == "error":
            if self.count == self.fault.at or self.fault.lasts:
                self._write_half(fd, data)
                raise OSError(self.fault.number, os.strerror(self.fault.number))
            return
        if self.count == self.fault.at and self.fault.kind == "torn":
            self._write_half(fd, data)
        raise Crash

    def _write_half(self, fd, data):
        if fd is not None and self.fault.number != errno.EROFS:
            super().write(fd, data[: len(data) // 2])

    def open(self, path, flags, mode=PRIVATE_FILE):
        self._step()
        return super().open(path, flags, mode)

    def write(self, fd, data):
        self._step(fd, data)
        super().write(fd, data)

    def truncate(self, fd, num_bytes):
        self._step()
        super().truncate(fd, num_bytes)

    def fsync(self, fd):
        try:
            self._step()
        except OSError:
            self._lose_unsynced(fd)
            raise
        if not self.tracks:
            return
        inode = os.fstat(fd).st_ino
        if inode not in self.contents:
            self._held.append(os.dup(fd))
        self.contents[inode] = Path(f"/proc/self/fd/{fd}").read_bytes()

    def _lose_unsynced(self, fd):
        """A device that refuses loses what was to be written; journals tell by a gap, and keep."""
        if not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
            Path(f"/proc/self/fd/{fd}").write_bytes(self.contents.get(os.fstat(fd).st_ino, b""))

    def fsync_dir(self, path):
        self._step()
        if not self.tracks:
            return
        inode = path.stat().st_ino
        if inode not in self.listings:
            self._held.append(os.open(path, os.O_RDONLY))
        self.listings[inode] = {e.name: e.inode() for e in os.scandir(path)}

    def chmod(self, target, mode):
        self._step()
        super().chmod(target, mode)

    def rename(self, source, target):
        self._step()
        super().rename(source, target)

    def link(self, source, target):
        self._step()
        super().link(source, target)

    def mkdir(self, path):
        self._step()
        super().mkdir(path)

    def unlink(self, path, *, dir_fd=None):
        self._step()
        super().unlink(path, dir_fd=dir_fd)

    def rmdir(self, path, *, dir_fd=None):
        self._step()
        super().rmdir(path, dir_fd=dir_fd)

    def release(self):
        """Let go of what is held open."""
        while self._held:
            os.close(self._held.pop())

    def cut(self):
        """Leave on the disk what a power loss leaves."""
        places = {p.stat().st_ino: p for p in [self.root, *self.root.rglob("*")]}
        after = self.root.with_name(f"{self.root.name}.after")
        after.mkdir()
        self._rebuild(self.root.stat().st_ino, after, places, random.Random(self.fault.at))  # noqa: S311  # no secret
        shutil.rmtree(self.root)
        after.rename(self.root)
        self.release()
        self._learn()

    def _learn(self):
        """What is there after a power loss is on the device."""
        self.contents, self.listings = {}, {}
        for path in [self.root, *self.root.rglob("*")]:
            if path.is_dir():
                listing = {e.name: e.inode() for e in os.scandir(path)}
                self.listings[path.stat().st_ino] = listing
            else:
                self.contents[path.stat().st_ino] = path.read_bytes()

    def _rebuild(self, folder, target, places, chance):
        """Write the directory with the inode `folder` as it is after the loss."""
        place = places.get(folder)
        names = self.listings.get(folder, {})
        if place is not None and self._keeps_names_of(place, chance):
            names = {e.name: e.inode() for e in os.scandir(place)}
        for name, inode in names.items():
            here = places.get(inode)
            if inode in self.contents or (here is not None and here.is_file()):
                (target / name).write_bytes(self._left_of(inode, here))
            elif inode in self.listings or here is not None:
                (target / name).mkdir()
                self._rebuild(inode, target / name, places, chance)

    def _keeps_names_of(self, place, chance):
        depth = len(place.relative_to(self.root).parts)
        ways = {"no": False, "yes": True, "some": chance.random() < 0.5, "inner": depth >= _INNER}
        return ways[self.fault.keeps_names]

    def _left_of(self, inode, here):
        synced = self.contents.get(inode, b"")
        if self.fault.zeroes and here is not None:
            return synced.ljust(here.stat().st_size, b"\0")
        return synced
