"""Room on a disk: how much there is, and whether a failed save failed for the want of it.

torch.save reports a full disk as a broken zip archive ("enforce fail at inline_container.cc"), so
after any failure the file system is asked.
"""

from __future__ import annotations

import errno
import os
import re
import resource
from dataclasses import dataclass
from pathlib import Path

from profiles.quantities import bytes_text

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MARGIN_BYTES = 16 << 20
_MIN_FREE_INODES = 100


@dataclass(frozen=True, slots=True)
class Shortfall:
    """There is too little room for what is to be written."""

    folder: Path
    needed_bytes: int
    free_bytes: int
    cause: str = ""
    """Other than plain room: a quota, or no file names left."""

    def __str__(self) -> str:
        """For a person who has to make room."""
        if self.cause:
            return f"{self.folder}: {self.cause}"
        needed = self.needed_bytes + _MARGIN_BYTES
        needed_text, free = (bytes_text(size) for size in (needed, self.free_bytes))
        return f"{self.folder} has {free} free, the checkpoint needs {needed_text}"


def shortfall(folder: Path, needed_bytes: int) -> Shortfall | None:
    """What is lacking to write `needed_bytes` into `folder`; None if there is room.

    A file system that cannot be asked counts as one with room: the write will tell.
    """
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    free = found.f_bavail * found.f_frsize
    if free < needed_bytes + _MARGIN_BYTES:
        return Shortfall(folder, needed_bytes, free)
    if found.f_files and found.f_favail < _MIN_FREE_INODES:
        return Shortfall(folder, needed_bytes, free, cause="no file names (inodes) are left")
    return None


def _number_told(error: BaseException) -> int | None:
    """Safetensors tells the system's error in its text: "... (os error 28)"."""
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


def is_file_limit(error: BaseException) -> bool:
    """A file may not grow larger here, whatever room there is: by ulimit, or by the file system."""
    number = error.errno if isinstance(error, OSError) else _number_told(error)
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    is_limited = limit != resource.RLIM_INFINITY
    # what torch.save says when a write was cut short
    return number == errno.EFBIG or (is_limited and "inline_container" in str(error))


def shortfall_of(error: BaseException, folder: Path, needed_bytes: int) -> Shortfall | None:
    """What was lacking when a save failed with `error`; None if that was not the reason."""
    number = error.errno if isinstance(error, OSError) else _number_told(error)
    lacking = shortfall(folder, needed_bytes)
    if lacking is not None:
        return lacking
    if number == errno.EDQUOT:
        return Shortfall(folder, needed_bytes, 0, cause="your quota is used up")
    if number in _FULL:
        return Shortfall(folder, needed_bytes, 0, cause="the disk is full")
    return None
