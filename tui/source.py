"""One file of records for who shows a run: all that is new, of much that is new a sample.

A few megabytes are read whole; of more come even excerpts and the whole end, so that a run of a
million steps is shown as soon as one of a hundred. What is between the excerpts is not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.runs import parts
from profiles.runs.journal import Tail

if TYPE_CHECKING:
    from pathlib import Path

    from profiles.runs.records import Record

_WHOLE_BYTES = 4 << 20
_END_BYTES = 256 << 10
_NUM_EXCERPTS = 256
_EXCERPT_BYTES = 4 << 10


class Source:
    """One file of records."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail = Tail(path)

    @property
    def num_damaged(self) -> int:
        """Lines that were passed over."""
        return self._tail.num_damaged

    def poll(self) -> list[Record]:
        """Read what is new; at first, the past."""
        if parts.size(self._path) - self._tail.offset <= _WHOLE_BYTES:
            return self._tail.poll(_WHOLE_BYTES)
        # One byte is no line: the tail learns which file it follows, and stays where it is.
        self._tail.poll(1)
        return self._excerpts() + self._tail.poll(_WHOLE_BYTES)

    def _excerpts(self) -> list[Record]:
        """Lines at even distances from where the tail is up to about its new place near the end."""
        records: list[Record] = []
        known = parts.sizes(self._path)
        begin, end = self._tail.offset, sum(size for _, size in known) - _END_BYTES
        for number in range(_NUM_EXCERPTS):
            offset = begin + number * (end - begin - _EXCERPT_BYTES) // (_NUM_EXCERPTS - 1)
            lines = parts.read(known, offset, _EXCERPT_BYTES).split(b"\n")[1:-1]
            records += self._tail.parsed(lines)
        self._tail.offset = end + parts.read(known, end, _END_BYTES).find(b"\n") + 1
        return records
