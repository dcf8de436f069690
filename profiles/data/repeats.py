"""Which rows of a data set say what an earlier row said, or contradict it.

Keeps 28 bytes a row: three 64-bit hashes and the line. Python keys its hash of texts by a random
number drawn at start, so hashes mean something within one process only; among 10^7 rows a false
match has a chance below 10^-5. Does not know what rows look like: quality.py hashes them.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUM_BUCKETS: Final = 256
"""Rows are compared one bucket at a time, so that this takes little memory besides."""


class RowHashes(NamedTuple):
    """One row. Rows that ask the same have the same prompt; white space and case do not count."""

    exact: int
    prompt: int
    reply: int


@dataclass(slots=True)
class Repeats:
    """How many rows repeat another one, with the first of them and the row that it repeats."""

    count: int = 0
    line: int = 0
    other_line: int = 0

    def add(self, line: int, other_line: int) -> None:
        """Count a row."""
        if not self.count or line < self.line:
            self.line, self.other_line = line, other_line
        self.count += 1

    def __str__(self) -> str:
        return f"first: line {self.line}, as line {self.other_line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Rows by what they share with an earlier row of their file, or with any row of another."""

    exact: Repeats = field(default_factory=Repeats)
    near: Repeats = field(default_factory=Repeats)
    """The same but for white space and case."""
    prompt: Repeats = field(default_factory=Repeats)
    """The same prompt, another reply."""


class _Seen:
    """The first line that had each hash, within one bucket."""

    def __init__(self) -> None:
        self._exact: dict[int, int] = {}
        self._near: dict[tuple[int, int], int] = {}
        self._prompts: dict[int, int] = {}

    def add(self, row: RowHashes, line: int) -> None:
        self._exact.setdefault(row.exact, line)
        self._near.setdefault((row.prompt, row.reply), line)
        self._prompts.setdefault(row.prompt, line)

    def compare(self, row: RowHashes, line: int, found: Likeness) -> None:
        if (other := self._exact.get(row.exact)) is not None:
            found.exact.add(line, other)
        elif (other := self._near.get((row.prompt, row.reply))) is not None:
            found.near.add(line, other)
        elif (other := self._prompts.get(row.prompt)) is not None:
            found.prompt.add(line, other)


class RowIndex:
    """The hashes of all rows of a file, by prompt."""

    def __init__(self) -> None:
        self._hashes = [array("q") for _ in range(_NUM_BUCKETS)]
        self._lines = [array("I") for _ in range(_NUM_BUCKETS)]

    def add(self, row: RowHashes, line: int) -> None:
        """Take a row."""
        bucket = row.prompt % _NUM_BUCKETS
        self._hashes[bucket].extend((row.exact, row.prompt, row.reply))
        self._lines[bucket].append(line)

    def extend(self, other: RowIndex) -> None:
        """Take the rows of another file too."""
        for bucket in range(_NUM_BUCKETS):
            self._hashes[bucket].extend(other._hashes[bucket])
            self._lines[bucket].extend(other._lines[bucket])

    def repeats(self) -> Likeness:
        """Rows that are like an earlier one."""
        found = Likeness()
        for bucket in range(_NUM_BUCKETS):
            seen = _Seen()
            for row, line in self._rows(bucket):
                seen.compare(row, line, found)
                seen.add(row, line)
        return found

    def repeats_of(self, other: RowIndex) -> Likeness:
        """Rows that are like one of another file."""
        found = Likeness()
        for bucket in range(_NUM_BUCKETS):
            seen = _Seen()
            for row, line in other._rows(bucket):
                seen.add(row, line)
            for row, line in self._rows(bucket):
                seen.compare(row, line, found)
        return found

    def _rows(self, bucket: int) -> Iterator[tuple[RowHashes, int]]:
        hashes = iter(self._hashes[bucket])
        for line, exact, prompt, reply in zip(
            self._lines[bucket], hashes, hashes, hashes, strict=False
        ):
            yield RowHashes(exact=exact, prompt=prompt, reply=reply), line
