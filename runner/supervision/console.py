"""The console log: bounded in size, and asked for its end.

The worker appends to the file, so that a supervisor that dies takes nothing away from it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO

from profiles.runs import durable, reading
from profiles.runs.rundir import RunDir

LIMIT_BYTES = 8 << 20
"""Of each of the two parts, console.log and console.log.1."""
_READ_BYTES = 4 * LIMIT_BYTES
_TAIL_BYTES = 64 << 10
_RANK_FAILED = re.compile(
    r"failed \(exitcode: -(?P<signal>\d+)\) local_rank: (?P<rank>\d+) \(pid: (?P<pid>\d+)\)"
)


def open_log(path: Path) -> BinaryIO:
    """Open a log to append to, private whatever the umask: it may say what the data does."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, durable.PRIVATE_FILE), "ab")


class _Lossy(io.FileIO):
    """An open file that takes everything: what it has no room for is lost."""

    def write(self, data: Any, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(data) or 0
        return len(memoryview(data))


def print_what_fits() -> None:
    """From now on nothing that this process prints can end it, whatever the disk of its log does.

    Libraries print the loss of every step; on a full disk that would be an error in the midst of
    training, and at the end of the process another one.
    """
    for name in ("stdout", "stderr"):
        lossy = io.BufferedWriter(_Lossy(getattr(sys, name).fileno(), "w", closefd=False))
        stream = io.TextIOWrapper(
            lossy, encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
        setattr(sys, name, stream)


def older_part(run: RunDir) -> Path:
    """What was cut off last."""
    return run.console.with_suffix(".log.1")


def rotate(run: RunDir) -> bool:
    """Cut a log that is over its limit, keeping its end aside; True if it was cut.

    The worker's descriptor appends, so after the cut it goes on at the start of the file.
    """
    try:
        if run.console.stat().st_size <= LIMIT_BYTES:
            return False
        kept = collapse(reading.end_of(run.console, _READ_BYTES))[-LIMIT_BYTES:]
        durable.write_atomic(older_part(run), kept)
    except OSError:
        pass  # without room for the copy the end is lost, but the disk does not fill up
    try:
        os.truncate(run.console, 0)
    except OSError:
        return False
    return True


def collapse(content: bytes) -> bytes:
    """What a terminal would still show: text that a carriage return overwrote is dropped."""
    return b"\n".join(map(_last_written, content.split(b"\n")))


def _last_written(line: bytes) -> bytes:
    """Without what lies before the last carriage return that has text after it."""
    end = b"\r" if line.endswith(b"\r") else b""
    return line.removesuffix(b"\r").rpartition(b"\r")[2] + end


def size(run: RunDir) -> int:
    """Bytes in the log now: where the output of an attempt that starts now will begin."""
    try:
        return run.console.stat().st_size
    except OSError:
        return 0


def tail(run: RunDir, since: int = 0) -> str:
    """The last 64 KiB that came after offset `since`; after a cut, of what is there."""
    now = size(run)
    wanted = now - since if now >= since else now
    try:
        return reading.end_of(run.console, min(wanted, _TAIL_BYTES)).decode(errors="replace")
    except OSError:
        return ""


def killed_rank(text: str) -> tuple[int, int, int] | None:
    """(signal, rank, pid) of the rank whose death by a signal ended torchrun's group, or None.

    torchrun ends with 1 whatever became of its ranks, and no error file is written on SIGKILL. Its
    agent logs the first failure, with the exit code as Python's subprocess gives it: minus the
    signal (torch/distributed/elastic/multiprocessing/api.py, SubprocessContext._poll).
    """
    found = _RANK_FAILED.search(text)
    return (int(found["signal"]), int(found["rank"]), int(found["pid"])) if found else None
