"""Records of a run: JSON lines (`lines.py`) in files that only grow.

One writer a file, many readers. A reader never raises on content: a line that is damaged, or that
does not fit its kind of record, is skipped and counted; a line without its newline is not there
yet.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from profiles.runs import parts, reading, records
from profiles.runs.durable import Appender
from profiles.runs.lines import CRC_LENGTH, MAX_LINE_BYTES, VERSION, Content, decode, encode
from profiles.runs.records import Dropped, Record

MAX_PART_BYTES = 64 << 20
MAX_WAITING = 10_000
"""Records that wait in memory while the disk refuses them: some megabytes."""
_LONGEST_LINE = MAX_LINE_BYTES + CRC_LENGTH
_CHUNK_BYTES = 1 << 16
"""Larger pieces of memory go back to the system each time, which costs more than reading."""
_EVERYTHING = 1 << 62
_MOST_SEQ = 1 << 62

Found = TypeVar("Found")
Kind = TypeVar("Kind", bound=Record)


class Journal:
    """The writing end of one file of records. Threads may share it, signal handlers may not.

    A disk that refuses is no reason to stop training: what cannot be written waits in memory, and
    is written in order when there is room. Of more than can wait the oldest are dropped; then a
    record of kind "dropped" says how many.
    """

    def __init__(self, path: Path, *, attempt: int, max_bytes: int = MAX_PART_BYTES) -> None:
        """Continue after the last sound record that `path` and its further parts hold.

        A part of more than `max_bytes` is followed by a new one. OSError if it cannot be opened.
        """
        self._path = path
        self._attempt = attempt
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._num_dropped = self._num_told = self._num_failed_syncs = 0
        self._seq = last_seq(path)
        self._file = Appender(parts.newest(path))

    @property
    def num_waiting(self) -> int:
        """Records that wait in memory for room on the disk."""
        return len(self._waiting)

    @property
    def num_dropped(self) -> int:
        """Records that found no room even in memory, so far."""
        return self._num_dropped

    @property
    def num_failed_syncs(self) -> int:
        """Times that the device did not confirm what was written; records may be lost there."""
        return self._num_failed_syncs

    def append(self, record: Record, *, sync: bool = True) -> None:
        """Add one record, with `sync` onto the device. Never raises OSError."""
        with self._lock:
            self._add(record)
            self._drain(sync=sync)

    def sync(self) -> None:
        """Put the unsynced records on the device. Never raises OSError."""
        with self._lock:
            self._drain(sync=True)

    def close(self) -> None:
        """End writing."""
        with self._lock:
            try:
                self._drain(sync=False)
            finally:
                self._file.close()

    def _add(self, record: Record) -> None:
        head = {
            "v": VERSION,
            "seq": self._seq + 1,
            "t": round(time.time(), 3),
            "m": round(time.monotonic(), 3),
            "a": self._attempt,
            "kind": record.kind,
        }
        self._waiting.append(encode(head | record.content()))
        self._seq += 1

    def _drain(self, *, sync: bool) -> None:
        """Write what waits, in order, until the disk refuses."""
        with suppress(OSError):
            self._write_waiting()
            if self._num_told < self._num_dropped:
                self._add(Dropped(count=self._num_dropped - self._num_told))
                self._num_told = self._num_dropped
                self._write_waiting()
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._num_dropped += 1
        if sync and not self._waiting:
            self._sync()

    def _write_waiting(self) -> None:
        while self._waiting:
            if self._file.num_bytes > self._max_bytes:
                self._begin_part()
            self._file.append(self._waiting[0])
            self._waiting.popleft()

    def _begin_part(self) -> None:
        self._sync()  # or a later part could survive a power loss that takes this one's end
        part = Appender(parts.following(self._path, self._file.path))
        self._file.close()
        self._file = part

    def _sync(self) -> None:
        try:
            self._file.sync()
        except OSError:
            self._num_failed_syncs += 1


class SilentJournal(Journal):
    """Takes records and keeps none: for the ranks that are not the writer."""

    def __init__(self) -> None:
        self._waiting = deque()
        self._num_dropped = self._num_failed_syncs = 0

    def append(self, record: Record, *, sync: bool = True) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class Tail:
    """The reading end: remembers how far it read, and opens the file anew for every poll."""

    path: Path
    """The first part; those that follow it are read on their own."""
    offset: int = 0
    """Bytes read, of all parts together."""
    num_damaged: int = 0
    """Lines passed over: not as they were written, or not as their kind is written."""
    num_newer: int = 0
    """Records of a later version of this format, passed over."""
    _inode: int = field(default=0, repr=False)

    def poll(self, max_bytes: int | None = None) -> list[Record]:
        """The complete records added since the last poll (at most about `max_bytes` of them)."""
        return list(self.parsed(self._lines(max_bytes)))

    def stream(self) -> Iterator[Record]:
        """Everything added since the last poll, in constant memory."""
        for lines in self.chunks():
            yield from self.parsed(lines)

    def chunks(self) -> Iterator[list[bytes]]:
        """The same as lines, some thousands at a time; `parsed` is to be given what is not known.

        Who knows a line must have compared its checksum.
        """
        before = -1
        while self.offset != before:
            before = self.offset
            yield self._lines(_CHUNK_BYTES)

    def _lines(self, max_bytes: int | None) -> list[bytes]:
        found: list[bytes] = []
        left = _EVERYTHING if max_bytes is None else max_bytes
        with suppress(OSError):  # what cannot be read now may be readable later
            known = parts.sizes(self.path)
            self._begin_anew_if_replaced(known)
            end = 0
            for number, (part, size) in enumerate(known, start=1):
                begin, end = end, end + size
                is_newest = number == len(known)
                if left > 0 and (self.offset < end or is_newest):
                    data = _read(part, self.offset - begin, left)
                    left -= len(data)
                    is_over = not is_newest and self.offset + len(data) >= end
                    found += self._take(data, is_over=is_over)
        return found

    def _begin_anew_if_replaced(self, known: list[tuple[Path, int]]) -> None:
        inode = known[0][0].stat().st_ino if known else self._inode
        if inode != self._inode or sum(size for _, size in known) < self.offset:
            self._inode, self.offset = inode, 0

    def _take(self, data: bytes, *, is_over: bool) -> list[bytes]:
        """The lines of what was read; one that is not complete is left for the next poll."""
        end = data.rfind(b"\n") + 1
        lines = data[:end].split(b"\n")
        if is_over:
            self.num_damaged += end < len(data)  # its writer has gone on to the next part
            end = len(data)
        elif end == 0 and len(data) > 2 * MAX_LINE_BYTES:
            end = len(data)  # no line of ours: the rest of it counts as damaged when it ends
        self.offset += end
        return lines

    def parsed(self, lines: Iterable[bytes]) -> Iterator[Record]:
        """The records of whole lines; the others are counted."""
        for line in lines:
            content = decode(line) if len(line) <= _LONGEST_LINE else None
            if content is not None and _is_newer(content):
                self.num_newer += 1
            elif content is not None and (record := records.parse(content)) is not None:
                yield record
            elif line:
                self.num_damaged += 1


def _is_newer(content: Content) -> bool:
    version = content.get("v", 0)
    return isinstance(version, int) and version > VERSION


def _read(part: Path, offset: int, num_bytes: int) -> bytes:
    with reading.open_regular(part) as file:
        file.seek(offset)
        room = parts.size_of(os.fstat(file.fileno())) - offset
        return file.read(max(0, min(num_bytes, room)))


def read_all(path: Path) -> Iterator[Record]:
    """Every sound record of a file, in order, in constant memory; nothing if it cannot be read."""
    return Tail(path).stream()


def last_seq(path: Path) -> int:
    """Sequence number of the last sound line; 0 if there is none. Reads from the end."""
    return _last(path, _seq_of) or 0


def last_record(path: Path, kind: type[Kind]) -> Kind | None:
    """The last sound record of a kind, of any by `Record`; None without one. Reads from the end."""
    mark = f'"kind":"{kind.kind}"'.encode() if kind.kind else b""

    def read(line: bytes) -> Kind | None:
        found = Tail(path).parsed([line]) if mark in line else ()
        return next((record for record in found if isinstance(record, kind)), None)

    return _last(path, read)


def _seq_of(line: bytes) -> int | None:
    """Whatever its kind and version: no number is given twice."""
    seq = (decode(line) or {}).get("seq")
    return seq if isinstance(seq, int) and 0 < seq < _MOST_SEQ else None


def _last(path: Path, read: Callable[[bytes], Found | None]) -> Found | None:
    """What `read` makes of the last line that it makes something of."""
    found = (_last_of(part, read) for part in reversed(parts.existing(path)))
    return next((f for f in found if f is not None), None)


def _last_of(part: Path, read: Callable[[bytes], Found | None]) -> Found | None:
    """Backwards, piece by piece; of a line that goes through a piece's start the end is kept."""
    with reading.open_regular(part) as file:
        end = parts.size_of(os.fstat(file.fileno()))
    rest, is_whole = b"", False
    while end > 0:
        begin = max(0, end - _CHUNK_BYTES)
        first, *lines = (_read(part, begin, end - begin) + rest).split(b"\n")
        for line in reversed([first, *lines] if begin == 0 else lines):
            found = read(line) if is_whole else None  # the last one lacks its newline
            is_whole = True
            if found is not None:
                return found
        end, rest = begin, first if len(first) <= _LONGEST_LINE else b""
    return None
