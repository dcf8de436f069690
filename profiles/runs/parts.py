"""A long file of records is written in parts; here they are named, and read as one.

`metrics.jsonl` is followed by `metrics.00001.jsonl` and so on. A part that has a successor never
changes again, so an offset into all of them together keeps its meaning.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from itertools import count, takewhile
from pathlib import Path

from profiles.runs import reading

MOST_BYTES = 1 << 30
"""Of a part as readers take it: a writer begins another one long before."""


def existing(path: Path) -> list[Path]:
    """The parts that are there, in order, up to the first gap; `path` names the first."""
    return list(takewhile(os.path.lexists, (_numbered(path, n) for n in count())))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number:05d}{path.suffix}") if number else path


def newest(path: Path) -> Path:
    """The part that grows; `path` itself if there is none."""
    return (existing(path) or [path])[-1]


def following(path: Path, part: Path) -> Path:
    """The name of the part after `part`, in the file that `path` names."""
    number = 0 if part == path else int(part.name.removeprefix(f"{path.stem}.")[:5])
    return _numbered(path, number + 1)


def size(path: Path) -> int:
    """Bytes of all parts."""
    return sum(num_bytes for _, num_bytes in sizes(path))


def sizes(path: Path) -> list[tuple[Path, int]]:
    """Each part that is a regular file, with its bytes: those that are read."""
    found = []
    for part in existing(path):
        with suppress(OSError):
            about = part.lstat()
            if stat.S_ISREG(about.st_mode):
                found.append((part, size_of(about)))
    return found


def size_of(about: os.stat_result) -> int:
    """Bytes of a part, as far as it is read."""
    return min(about.st_size, MOST_BYTES)


def read(known: list[tuple[Path, int]], offset: int, num_bytes: int) -> bytes:
    """What lies at `offset` in all parts together, given their `sizes`; OSError if unreadable."""
    data = b""
    for part, length in known:
        if offset < length and num_bytes > len(data):
            with reading.open_regular(part) as file:
                file.seek(offset)
                data += file.read(num_bytes - len(data))
        offset = max(0, offset - length)
    return data
