"""Records of a run: JSON lines with a sequence number and a checksum.

One writer a file, many readers. A reader never raises on content: a damaged line is skipped and
counted, a line without its newline is not there yet. Line format (reference: run protocol §3.6):
`{"v":1,"seq":7,"t":unix,"m":monotonic,"a":attempt,"kind":"step",...,"crc":"9f3a11c0"}`.
"""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiles.durable import Appender

VERSION = 1
MAX_LINE_BYTES = 16 * 1024
_CRC_MARK = b',"crc":"'
_CRC_LENGTH = len(b',"crc":"00000000"}')
_MAX_TEXT = 4000
_CHUNK_BYTES = 1 << 20

Record = dict[str, Any]


def encode(record: Record) -> bytes:
    """One line without its newline; numbers that JSON cannot say become null and are named."""
    finite, nonfinite = _without_nonfinite(record)
    if nonfinite:
        finite["nonfinite"] = nonfinite
    body = _dump(finite)
    if len(body) > MAX_LINE_BYTES:
        body = _dump(
            {k: v[:_MAX_TEXT] if isinstance(v, str) else v for k, v in finite.items()}
            | {"cut": True}
        )
    if len(body) > MAX_LINE_BYTES:
        raise ValueError(f"a {record.get('kind')!r} record of {len(body)} bytes")
    crc = zlib.crc32(body[:-1])
    return body[:-1] + _CRC_MARK + f'{crc:08x}"}}'.encode()


def decode(line: bytes) -> Record | None:
    """The record of a line, or None if it is damaged."""
    body, tail = line[:-_CRC_LENGTH], line[-_CRC_LENGTH:]
    if not tail.startswith(_CRC_MARK):
        return None
    if f"{zlib.crc32(body):08x}".encode() != tail[len(_CRC_MARK) : -2]:
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _dump(record: Record) -> bytes:
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", errors="replace")


def _without_nonfinite(record: Record, prefix: str = "") -> tuple[Record, list[str]]:
    clean: Record = {}
    names: list[str] = []
    for key, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
            clean[key] = None
            names.append(prefix + key)
        elif isinstance(value, dict):
            clean[key], inner = _without_nonfinite(value, f"{prefix}{key}.")
            names += inner
        else:
            clean[key] = value
    return clean, names


class Journal:
    """The writing end of one file of records."""

    def __init__(self, path: Path, *, attempt: int) -> None:
        """Continue after the last sound record that `path` holds."""
        self._attempt = attempt
        self._seq = max((r["seq"] for r in read_all(path)), default=0) if path.exists() else 0
        self._file = Appender(path)

    def append(self, kind: str, *, sync: bool = True, **fields: Any) -> None:
        """Add one record; with `sync` it survives a power loss once this returns."""
        self._seq += 1
        record = {
            "v": VERSION,
            "seq": self._seq,
            "t": round(time.time(), 3),
            "m": round(time.monotonic(), 3),
            "a": self._attempt,
            "kind": kind,
        }
        self._file.append(encode(record | fields), sync=sync)

    def sync(self) -> None:
        """Put the unsynced records on the device."""
        self._file.sync()

    def close(self) -> None:
        """End writing."""
        self._file.close()


class SilentJournal(Journal):
    """Takes records and keeps none: for the ranks that are not the writer."""

    def __init__(self) -> None:
        pass

    def append(self, kind: str, *, sync: bool = True, **fields: Any) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class Tail:
    """The reading end: remembers how far it read, and opens the file anew for every poll."""

    path: Path
    offset: int = 0
    num_damaged: int = 0
    _inode: int = field(default=0, repr=False)

    def poll(self, max_bytes: int | None = None) -> list[Record]:
        """The complete records added since the last poll (at most about `max_bytes` of them)."""
        try:
            file = self.path.open("rb")
        except OSError:
            return []
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self.offset:
                self._inode, self.offset = status.st_ino, 0
            file.seek(self.offset)
            data = file.read(-1 if max_bytes is None else max_bytes)
        end = data.rfind(b"\n") + 1
        self.offset += end
        return list(self._decoded(data[:end]))

    def _decoded(self, data: bytes) -> Iterator[Record]:
        for line in data.split(b"\n"):
            record = decode(line)
            if record is not None and record.get("v", 0) <= VERSION:
                yield record
            elif line:
                self.num_damaged += 1


def read_all(path: Path) -> Iterator[Record]:
    """Every sound record of a file, in order, in constant memory; nothing if it cannot be read."""
    tail = Tail(path)
    while True:
        before = tail.offset
        yield from tail.poll(_CHUNK_BYTES)
        if tail.offset == before:
            return
