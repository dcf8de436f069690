"""Validates every row of a data set file and counts what training will see.

Decides which rows are used, which faults refuse the file, and what is worth a warning. How bytes
become rows is decided in rows.py, how a row becomes an Example in formats.py, what it costs in
tokens.py. Takes constant memory, but for one digest per row.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from profiles.datafile import DataFile, open_data
from profiles.errors import ExitCode, UserError
from profiles.facts import Dataset
from profiles.formats import (
    FORMATS,
    Example,
    Row,
    RowError,
    Segments,
    detect_format,
    format_of,
    printable,
    require_format,
)
from profiles.rows import read_rows, stream_rows
from profiles.tokens import TokenMeter

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

__all__ = ["OnBad", "check", "read_examples", "read_rows"]

COUNTED_WHILE_WAITING_BYTES: Final = 32 << 20
"""What a tokenizer counts in the time that a person waits for an answer."""
MAX_BAD_SHARE: Final = 0.10
NUM_FIRST_ROWS: Final = 20
"""Rows the format is detected from."""
NUM_FAULT_KINDS: Final = 20
NUM_PLACEHOLDERS: Final = 5
"""How many are named to the user."""

_PLACEHOLDER = re.compile(r"\{\{ ?\w{1,40} ?\}\}")

OnBad = Literal["error", "skip"]


def read_examples(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word of the recipe
    on_bad: OnBad = "error",
) -> Iterator[tuple[str, Example]]:
    """Every usable example with its place; faulty rows are told when the file has been read."""
    with open_data(path) as file:
        yield from _examples(file, _Tally(format=format, on_bad=on_bad))


def check(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word of the recipe
    tokenizer_path: str | os.PathLike[str] | None = None,
    max_length: int | None = None,
    on_bad: OnBad = "error",
    count_up_to_bytes: int | None = None,
) -> Dataset:
    """Validate and count the whole file in one pass.

    In a file larger than `count_up_to_bytes` tokens are predicted, for a tokenizer reads 1 to 2 MB
    a second; the rest is checked in full all the same.
    """
    tally = _Tally(format=format, on_bad=on_bad)
    too_large = count_up_to_bytes is not None and _num_bytes(path) > count_up_to_bytes
    meter = TokenMeter(None if too_large else tokenizer_path, max_length)
    content = _Content()
    with open_data(path) as file:
        for _, example in _examples(file, tally):
            segments = example.segments
            meter.add(segments, is_chat=bool(example.messages))
            content.add(example, segments)
    meter.finish()
    warnings = tally.warnings() + meter.warnings() + content.warnings()
    if too_large and tokenizer_path is not None:
        warnings.append("a large file: token counts are predicted, `advisor data check` measures")
    if file.has_changed():
        warnings.append("the file changed while it was read; is it still being written or copied?")
    return Dataset(
        path=file.path,
        format=tally.format or "",
        num_rows=content.num_rows,
        num_bytes=file.num_bytes,
        sha256=file.sha256.hexdigest(),
        num_empty=tally.num_empty,
        num_duplicates=content.num_duplicates,
        num_truncated=meter.num_truncated,
        num_tasks=max(1, len(tally.tasks)),
        tokens=meter.stats(),
        warnings=tuple(warnings),
    )


def _num_bytes(path: str | os.PathLike[str]) -> int:
    """Size, or 0 where opening it will tell what is wrong."""
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return 0


# --- The pass over the rows -----------------------------------------------------------------


def _examples(file: DataFile, tally: _Tally) -> Iterator[tuple[str, Example]]:
    rows = stream_rows(file, tally.add_bad_line if tally.on_bad == "skip" else None)
    if tally.format:
        require_format(tally.format)
    first = list(islice(rows, NUM_FIRST_ROWS))
    if first:
        tally.settle_format([row for _, _, row in first], file.path)
    num_usable = 0
    for line, row_number, row in chain(first, rows):
        example = tally.read(row, line)
        if example:
            num_usable += 1
            place = f"{file.path}:{line}"
            yield (place if line == row_number else f"{place} (row {row_number})"), example
    tally.raise_faults(file.path)
    if not num_usable:
        why = "there is no row in the file" if file.num_bytes else "the file is empty"
        if tally.num_empty:
            why = f"all {tally.num_empty} rows have an empty reply"
        do = "check that the file was written or copied completely"
        raise _bad_data("0 usable examples", why=why, do=do, where=file.path)


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What one pass over the rows leaves behind besides the examples."""

    format: str | None
    on_bad: OnBad
    detected: str | None = None
    num_rows: int = 0
    num_bad: int = 0
    num_empty: int = 0
    num_with_tools: int = 0
    unused_keys: tuple[str, ...] = ()
    tasks: set[str] = field(default_factory=set)
    faults: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Kind of fault: how many rows, and the line of the first."""

    def settle_format(self, first: list[Row], path: str) -> None:
        keys = dict.fromkeys(key for row in first for key in row)
        if self.format is None:
            self.format = detect_format(first, where=path)
        else:
            self.detected = next(filter(None, map(format_of, first)), None)
        known = FORMATS[self.format]
        used = {*known.required, *known.optional, "tools", "task"}
        self.unused_keys = tuple(key for key in keys if key not in used)

    def read(self, row: Row, line: int) -> Example | None:
        """Count a row, and return its example if it is of use."""
        self.num_rows += 1
        try:
            example = FORMATS[self.format or ""].read(row)
        except RowError as error:
            self._add_fault(str(error), line)
            return None
        if example.is_empty:
            self.num_empty += 1
            return None
        self.num_with_tools += bool(row.get("tools"))
        task = row.get("task")
        if isinstance(task, str):
            self.tasks.add(task)
        return example

    def add_bad_line(self, line: int) -> None:
        """Record a line that is not JSON, which is left out like a faulty row."""
        self.num_rows += 1
        self._add_fault("are not JSON", line)

    def _add_fault(self, kind: str, line: int) -> None:
        if kind not in self.faults and len(self.faults) >= NUM_FAULT_KINDS:
            kind = "have other faults"
        count, first = self.faults.get(kind, (0, line))
        self.faults[kind] = (count + 1, first)
        self.num_bad += 1

    def _describe_faults(self) -> str:
        kinds = sorted(self.faults.items(), key=lambda item: (-item[1][0], item[1][1]))
        return "; ".join(
            f"{count} of {self.num_rows} rows {kind} (first: line {line})"
            for kind, (count, line) in kinds
        )

    def raise_faults(self, path: str) -> None:
        """Refuse the file if rows are faulty and may not, or not so many of them, be left out."""
        too_many = self.num_bad > MAX_BAD_SHARE * self.num_rows
        if not self.num_bad or (self.on_bad == "skip" and not too_many):
            return
        keys = [f"`{key}`" for key in FORMATS[self.format].required] if self.format else ["keys"]
        why = f"each {self.format} row needs usable {', '.join(keys)}"
        if self.detected and self.detected != self.format:
            why += f"; the keys of the first rows look like {self.detected}"
        do = 'repair these rows, or leave them out with on_bad = "skip"'
        if too_many:
            do = f"repair these rows; more than {MAX_BAD_SHARE:.0%} are faulty, too many to skip"
        first = min(line for _, line in self.faults.values())
        raise _bad_data(self._describe_faults(), why=why, do=do, where=f"{path}:{first}")

    def warnings(self) -> list[str]:
        found = []
        if self.num_bad:
            found.append(f"left out: {self._describe_faults()}")
        if self.num_empty:
            found.append(f"left out: {self.num_empty} of {self.num_rows} rows have an empty reply")
        if self.num_with_tools:
            found.append(f"{self.num_with_tools} rows have `tools`, which are not used")
        if self.unused_keys:
            names = ", ".join(f"`{printable(key, 40)}`" for key in self.unused_keys[:8])
            found.append(f"columns that are not used: {names}")
        return found


def _bad_data(what: str, *, why: str, do: str, where: str) -> UserError:
    return UserError(what, why=why, do=do, where=where, code=ExitCode.BAD_DATA)


# --- The content of the examples ------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Content:
    """Repeats, and placeholders that nobody filled in."""

    num_rows: int = 0
    num_unfilled: int = 0
    placeholders: dict[str, None] = field(default_factory=dict)
    """In order of appearance, the first few."""
    digests: set[bytes] = field(default_factory=set)

    @property
    def num_duplicates(self) -> int:
        return self.num_rows - len(self.digests)

    def add(self, example: Example, segments: Segments) -> None:
        self.num_rows += 1
        self.digests.add(_digest(example, segments))
        names = [n for text, _ in segments if "{{" in text for n in _PLACEHOLDER.findall(text)]
        if names:
            self.num_unfilled += 1
            if len(self.placeholders) < NUM_PLACEHOLDERS:
                self.placeholders.update(dict.fromkeys(names))

    def warnings(self) -> list[str]:
        found = []
        if self.num_duplicates:
            found.append(
                f"{self.num_duplicates} of {self.num_rows} rows repeat an earlier row exactly"
            )
        if self.num_unfilled:
            names = ", ".join(islice(self.placeholders, NUM_PLACEHOLDERS))
            found.append(f"{self.num_unfilled} rows hold placeholders not filled in: {names}")
        return found


def _digest(example: Example, segments: Segments) -> bytes:
    """16 bytes: among 10^9 rows a false match has a chance below 10^-20."""
    roles = "|".join([turn.role for turn in example.messages])
    texts = [text.encode() for text, _ in segments]
    lengths = ",".join([str(len(text)) for text in texts])
    data = b"".join([roles.encode(), lengths.encode(), b"\n", *texts])
    return hashlib.blake2b(data, digest_size=16).digest()
