"""Reads a data set file row by row, validates every row, and counts rows and tokens.

Decides what a broken file looks like to its owner (path, line and column, what to do) and which
rows are used. A file of any size is read in constant memory, but for 4 bytes of length and one
digest per row. How a row becomes an Example is decided in formats.py. The chat template is not
known here: its marks are a constant.
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
import io
import json
import os
import re
import shlex
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Self

from profiles.errors import ExitCode, UserError
from profiles.facts import Dataset, Origin, TokenStats
from profiles.formats import (
    FORMATS,
    Example,
    Row,
    RowError,
    Segments,
    describe_formats,
    detect_format,
    format_of,
    printable,
    require_format,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

CHUNK_BYTES = 1 << 20
MAX_RECORD_BYTES = 64_000_000
MAX_DEPTH = 64
MAX_BAD_SHARE: Final = 0.10
NUM_FIRST_ROWS: Final = 20
"""Rows the format is detected from."""
NUM_FAULT_KINDS: Final = 20

# ChatML, which most templates resemble: <|im_start|>, role, newline before the content, and
# <|im_end|>, newline after it.
MARK_TOKENS_BEFORE: Final = 3
MARK_TOKENS_AFTER: Final = 2
MARK_TOKENS_PER_MESSAGE: Final = MARK_TOKENS_BEFORE + MARK_TOKENS_AFTER

# Without a tokenizer: English and code run near 4 bytes a token in current vocabularies; other
# scripts take 2 to 4 bytes a character and about one token a character or two.
ASCII_BYTES_PER_TOKEN: Final = 4
OTHER_BYTES_PER_TOKEN: Final = 3

_BATCH_CHARS = 1 << 20
_SUFFIXES = (".json", ".jsonl", ".ndjson")
_OTHER_SUFFIXES = re.compile(
    r"\.(parquet|arrow|feather|csv|tsv|xlsx?|pkl|pickle|pt|np[yz]|h5|safetensors|db|sqlite"
    r"|xml|ya?ml|toml|gz|bz2|xz|zst|zip|tar|tgz|7z)"
)
_MAGIC = {
    b"PAR1": "Parquet",
    b"\x80": "a pickle or another binary file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"ARROW1": "Arrow",
    b"SQLite": "SQLite",
}
_ASCII = bytes(range(128))
_SPACE = re.compile(r"[ \t\r\n]*")
_PLACEHOLDER = re.compile(r"\{\{ ?\w{1,40} ?\}\}")
_LIST_KEY = re.compile(rb'"([^"\\]{1,60})"\s*:\s*\[')
# What is left after the last complete token when a JSON text is cut off.
_CUT_TAILS = frozenset(
    [word[:end] for word in ("true", "false", "null", "NaN", "-Infinity", "Infinity")
     for end in range(1, len(word))] + ["", ",", ".", "e", "E", "e+", "e-", "E+", "E-"]
)  # fmt: skip

OnBad = Literal["error", "skip"]
NumberedRow = tuple[int, int, Row]
"""Line (1-based) at which the row begins, row number (1-based), the row."""


def read_rows(path: str | os.PathLike[str]) -> Iterator[NumberedRow]:
    """Every row of a .json or .jsonl file, in order, in constant memory."""
    with _Source(path) as source:
        yield from _rows(source, None)


def read_examples(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word of the recipe
    on_bad: OnBad = "error",
) -> Iterator[tuple[str, Example]]:
    """Every usable example with its place; faulty rows are told when the file has been read."""
    with _Source(path) as source:
        yield from _examples(source, _Tally(format=format, on_bad=on_bad))


def check(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word of the recipe
    tokenizer_path: str | os.PathLike[str] | None = None,
    max_length: int | None = None,
    on_bad: OnBad = "error",
) -> Dataset:
    """Validate and count the whole file in one pass."""
    tally = _Tally(format=format, on_bad=on_bad)
    meter = _Meter(tokenizer_path, max_length)
    digests: set[bytes] = set()
    num_placeholders, placeholders = 0, dict[str, None]()
    with _Source(path) as source:
        for _, example in _examples(source, tally):
            segments = example.segments
            digests.add(_digest(example, segments))
            meter.add(segments, is_chat=bool(example.messages))
            names = [name for text, _ in segments if "{{" in text for name in _placeholders(text)]
            if names:
                num_placeholders += 1
                placeholders.update(dict.fromkeys(islice(names, max(0, 5 - len(placeholders)))))
    meter.finish()
    num_rows = len(meter.lengths)
    num_duplicates = num_rows - len(digests)
    warnings = tally.warnings() + meter.warnings()
    if num_duplicates:
        warnings.append(f"{num_duplicates} of {num_rows} rows repeat an earlier row exactly")
    if num_placeholders:
        names_shown = ", ".join(islice(placeholders, 5))
        warnings.append(f"{num_placeholders} rows hold placeholders not filled in: {names_shown}")
    if source.has_changed():
        warnings.append("the file changed while it was read; is it still being written or copied?")
    return Dataset(
        path=source.path,
        format=tally.format or "",
        num_rows=num_rows,
        num_bytes=source.num_bytes,
        sha256=source.sha256.hexdigest(),
        num_empty=tally.num_empty,
        num_duplicates=num_duplicates,
        num_truncated=meter.num_truncated,
        num_tasks=max(1, len(tally.tasks)),
        tokens=meter.stats(),
        warnings=tuple(warnings),
    )


def _digest(example: Example, segments: Segments) -> bytes:
    """16 bytes: among 10^9 rows a false match has a chance below 10^-20."""
    roles = "|".join([turn.role for turn in example.messages])
    texts = [text.encode() for text, _ in segments]
    lengths = ",".join([str(len(text)) for text in texts])
    data = b"".join([roles.encode(), lengths.encode(), b"\n", *texts])
    return hashlib.blake2b(data, digest_size=16).digest()


def _placeholders(text: str) -> list[str]:
    return _PLACEHOLDER.findall(text)


# --- Examples and faulty rows ---------------------------------------------------------------


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

    def add_fault(self, kind: str, line: int) -> None:
        if kind not in self.faults and len(self.faults) >= NUM_FAULT_KINDS:
            kind = "have other faults"
        count, first = self.faults.get(kind, (0, line))
        self.faults[kind] = (count + 1, first)
        self.num_bad += 1

    def add_bad_line(self, line: int) -> None:
        """Record a line that is not JSON, which is left out like a faulty row."""
        self.num_rows += 1
        self.add_fault("are not JSON", line)

    def describe_faults(self) -> str:
        kinds = sorted(self.faults.items(), key=lambda item: -item[1][0])
        return "; ".join(
            f"{count} of {self.num_rows} rows {kind} (first: line {line})"
            for kind, (count, line) in kinds
        )

    def raise_faults(self, path: str) -> None:
        """Refuse the file if rows are faulty and may not, or not so many of them, be left out."""
        too_many = self.num_bad > MAX_BAD_SHARE * self.num_rows
        if not self.num_bad or (self.on_bad == "skip" and not too_many):
            return
        why = f"each {self.format} row needs usable {_keys_of(self.format)}"
        if self.detected and self.detected != self.format:
            why += f"; the keys of the first rows look like {self.detected}"
        do = 'repair these rows, or leave them out with on_bad = "skip"'
        if too_many:
            do = f"repair these rows; more than {MAX_BAD_SHARE:.0%} are faulty, too many to skip"
        first = min(line for _, line in self.faults.values())
        raise _bad_data(self.describe_faults(), why=why, do=do, where=f"{path}:{first}")

    def warnings(self) -> list[str]:
        found = []
        if self.num_bad:
            found.append(f"left out: {self.describe_faults()}")
        if self.num_empty:
            found.append(f"left out: {self.num_empty} of {self.num_rows} rows have an empty reply")
        if self.num_with_tools:
            found.append(f"{self.num_with_tools} rows have `tools`, which are not used")
        if self.unused_keys:
            names = ", ".join(f"`{printable(key, 40)}`" for key in self.unused_keys[:8])
            found.append(f"columns that are not used: {names}")
        return found


def _keys_of(name: str | None) -> str:
    return ", ".join(f"`{key}`" for key in FORMATS[name].required) if name else "keys"


def _examples(source: _Source, tally: _Tally) -> Iterator[tuple[str, Example]]:
    rows = _rows(source, tally.add_bad_line if tally.on_bad == "skip" else None)
    if tally.format:
        require_format(tally.format)
    first = list(islice(rows, NUM_FIRST_ROWS))
    if first:
        _settle_format(tally, [row for _, _, row in first], source.path)
    num_usable = 0
    for line, row_number, row in chain(first, rows):
        tally.num_rows += 1
        try:
            example = FORMATS[tally.format or ""].read(row)
        except RowError as error:
            tally.add_fault(str(error), line)
            continue
        if example.is_empty:
            tally.num_empty += 1
            continue
        num_usable += 1
        tally.num_with_tools += bool(row.get("tools"))
        task = row.get("task")
        if isinstance(task, str):
            tally.tasks.add(task)
        place = f"{source.path}:{line}"
        yield (place if line == row_number else f"{place} (row {row_number})"), example
    tally.raise_faults(source.path)
    if not num_usable:
        why = "the file is empty" if not source.num_bytes else "there is no row in the file"
        if tally.num_empty:
            why = f"all {tally.num_empty} rows have an empty reply"
        do = "check that the file was written or copied completely"
        raise _bad_data("0 usable examples", why=why, do=do, where=source.path)


def _settle_format(tally: _Tally, first: list[Row], path: str) -> None:
    keys = dict.fromkeys(key for row in first for key in row)
    if tally.format is None:
        tally.format = detect_format(first, where=path)
    else:
        tally.detected = next(filter(None, map(format_of, first)), None)
    known = FORMATS[tally.format]
    used = {*known.required, *known.optional, "tools", "task"}
    tally.unused_keys = tuple(key for key in keys if key not in used)


# --- Token counts ---------------------------------------------------------------------------


def _count_by_bytes(texts: list[str]) -> list[int]:
    return [_predict_tokens(text) for text in texts]


def _predict_tokens(text: str) -> int:
    if text.isascii():
        return -(-len(text) // ASCII_BYTES_PER_TOKEN)
    data = text.encode()
    num_other = len(data.translate(None, _ASCII))
    num_ascii = len(data) - num_other
    return round(0.5 + num_ascii / ASCII_BYTES_PER_TOKEN + num_other / OTHER_BYTES_PER_TOKEN)


def _tokenizer_count(folder: str | os.PathLike[str]) -> Callable[[list[str]], list[int]]:
    from tokenizers import Tokenizer  # noqa: PLC0415 - costs 50 ms and is not always needed

    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise UserError(
            f"no tokenizer.json in {folder}",
            why="token counts need the tokenizer of the model",
            do="give the folder of the model, or leave it out for a prediction from bytes",
            where=str(file),
            code=ExitCode.NO_INPUT,
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise _bad_data(
            "the tokenizer cannot be read",
            why=printable(str(error), 200),
            do="copy or download tokenizer.json again",
            where=str(file),
        ) from error
    # Files saved during a training carry its truncation and padding, which would cap the counts.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: list[str]) -> list[int]:
        pieces = [_pieces(text) for text in texts]
        encoded = iter(tokenizer.encode_batch([*chain(*pieces)], add_special_tokens=False))
        return [sum(len(next(encoded).ids) for _ in one) for one in pieces]

    return count


def _pieces(text: str) -> list[str]:
    """Cut a giant text at spaces: an encoding takes 100 bytes a token, so not all at once."""
    pieces = []
    start = 0
    while len(text) - start > _BATCH_CHARS:
        end = text.rfind(" ", start + 1, start + _BATCH_CHARS)
        end = start + _BATCH_CHARS if end < 0 else end
        pieces.append(text[start:end])
        start = end
    pieces.append(text[start:])
    return pieces


class _Meter:
    """Token lengths of the examples, counted in batches."""

    def __init__(
        self, tokenizer_path: str | os.PathLike[str] | None, max_length: int | None
    ) -> None:
        self._count = _tokenizer_count(tokenizer_path) if tokenizer_path else _count_by_bytes
        self._origin = Origin.MEASURED if tokenizer_path else Origin.PREDICTED
        self._max_length = max_length
        self._batch: list[tuple[Segments, bool]] = []
        self._batch_chars = 0
        self.lengths = array("I")
        self.trainable_total = 0
        self.num_truncated = 0
        self.num_untrainable = 0

    def add(self, segments: Segments, *, is_chat: bool) -> None:
        self._batch.append((segments, is_chat))
        self._batch_chars += sum([len(text) for text, _ in segments])
        if self._batch_chars >= _BATCH_CHARS:
            self.finish()

    def finish(self) -> None:
        """Count what is waiting."""
        counts = iter(self._count([text for one, _ in self._batch for text, _ in one]))
        for segments, is_chat in self._batch:
            self._measure(segments, counts, is_chat=is_chat)
        self._batch.clear()
        self._batch_chars = 0

    def _measure(self, segments: Segments, counts: Iterator[int], *, is_chat: bool) -> None:
        before, after = (MARK_TOKENS_BEFORE, MARK_TOKENS_AFTER) if is_chat else (0, 0)
        length = 0
        first_trained: int | None = None
        for (_, is_trained), num_tokens in zip(segments, counts, strict=False):
            if is_trained:
                self.trainable_total += num_tokens
                first_trained = length + before if first_trained is None else first_trained
            length += before + num_tokens + after
        self.lengths.append(length)
        if self._max_length is not None and length > self._max_length:
            self.num_truncated += 1
            self.num_untrainable += first_trained is None or first_trained >= self._max_length

    def stats(self) -> TokenStats:
        by_length = sorted(Counter(self.lengths).items())
        num_rows = len(self.lengths)
        total = sum(length * count for length, count in by_length)
        return TokenStats(
            min=by_length[0][0],
            median=_percentile(by_length, 0.5 * num_rows),
            p95=_percentile(by_length, 0.95 * num_rows),
            max=by_length[-1][0],
            mean=total / num_rows,
            total=total,
            trainable_total=self.trainable_total,
            origin=self._origin,
        )

    def warnings(self) -> list[str]:
        if not self.num_truncated:
            return []
        num_rows, limit, stats = len(self.lengths), self._max_length, self.stats()
        cut = f"{self.num_truncated} of {num_rows} rows are longer than max_length {limit}"
        found = [f"{cut} and will be cut (p95 {stats.p95}, longest {stats.max} tokens)"]
        if self.num_untrainable * 2 > num_rows:
            found.append(
                f"{self.num_untrainable} of {num_rows} examples have no trainable token at "
                f"max_length {limit}; p95 length {stats.p95}"
            )
        return found


def _percentile(by_length: list[tuple[int, int]], rank: float) -> int:
    """The smallest length that at least `rank` rows do not exceed."""
    seen = 0
    for length, count in by_length:
        seen += count
        if seen >= rank:
            return length
    return by_length[-1][0]


# --- Reading --------------------------------------------------------------------------------


class _Source:
    """The bytes of one file, hashed and counted as they are read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0
        _require_file(self.path)
        try:
            self._file = io.BufferedReader(io.FileIO(self.path), CHUNK_BYTES)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def head(self) -> bytes:
        return self._file.peek(CHUNK_BYTES)

    def read(self, size: int) -> bytes:
        try:
            return self._passed(self._file.read(size))
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Numbered lines, none of them longer than a record may be by more than a byte."""
        number = 0
        try:
            while line := self._file.readline(MAX_RECORD_BYTES + 1):
                number += 1
                yield number, self._passed(line)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _passed(self, data: bytes) -> bytes:
        self.sha256.update(data)
        self.num_bytes += len(data)
        return data

    def has_changed(self) -> bool:
        """After the last byte: the file is not as long as what was read, or is gone."""
        try:
            return os.stat(self.path).st_size != self.num_bytes  # noqa: PTH116
        except OSError:
            return True


def _rows(source: _Source, skip: Callable[[int], None] | None) -> Iterator[NumberedRow]:
    head = source.head()
    _require_text(source.path, head)
    if _first_byte(head) == b"[":
        return _array_rows(source)
    rows = _line_rows(source, skip)
    if Path(source.path).suffix.lower() == ".json":
        return _at_least_two(rows, source)
    return rows


def _first_byte(head: bytes) -> bytes:
    return head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]


def _at_least_two(rows: Iterator[NumberedRow], source: _Source) -> Iterator[NumberedRow]:
    """JSON Lines named .json: only the second row tells them from a lone object."""
    first = list(islice(rows, 2))
    if len(first) == 1:
        raise _lone_object(source)
    yield from first
    yield from rows


def _line_rows(source: _Source, skip: Callable[[int], None] | None) -> Iterator[NumberedRow]:
    """Rows of JSON Lines. `skip` is told the lines that are not JSON, else they are errors."""
    row_number = 0
    for line_number, raw in source.lines():
        line = raw.removeprefix(codecs.BOM_UTF8) if line_number == 1 else raw
        if not line or line.isspace():
            continue
        row_number += 1
        text = _decode_line(source, line_number, line)
        try:
            row = json.loads(text)
        except RecursionError:
            raise _too_deep(source.path, line_number) from None
        except ValueError as error:
            is_cut = _is_cut(text, error)
            if is_cut and not line.endswith(b"\n"):
                raise _torn(source, f"{source.path}:{line_number}:{len(text) + 1}", text) from None
            if is_cut and row_number == 1:
                raise _lone_object(source) from None
            if skip is None:
                _raise_not_json(source.path, line_number, text, error)
            skip(line_number)
            continue
        _require_object(row, text, f"{source.path}:{line_number}:1")
        yield line_number, row_number, row


def _decode_line(source: _Source, line_number: int, line: bytes) -> str:
    if len(line) > MAX_RECORD_BYTES:
        raise _too_big(source.path, line_number)
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        text = line[: error.start].decode()
        if error.reason == "unexpected end of data" and not line.endswith(b"\n"):
            raise _torn(source, f"{source.path}:{line_number}:{len(text) + 1}", text) from None
        raise _not_utf8(source.path, line_number, len(text) + 1, error) from None


class _ArrayText:
    """A moving window of text over a JSON array, which knows the line and column it is at."""

    def __init__(self, source: _Source) -> None:
        self.line = 1
        self._source = source
        self._text = ""
        self._pos = 0
        self._line_start = 0
        """Where the current line starts in the window; negative once that has been dropped."""
        self._pending = b""
        """The first bytes of a character that the last chunk cut in two."""

    def place(self, index: int | None = None) -> str:
        """path:line:column of a character of the window, by default of the current one."""
        index = self._pos if index is None else index
        line = self.line + self._text.count("\n", self._pos, index)
        start = self._text.rfind("\n", self._pos, index) + 1 or self._line_start
        return f"{self._source.path}:{line}:{index - start + 1}"

    def next_char(self) -> str:
        """The next character that is not white space, "" at the end of the file."""
        while True:
            found = _SPACE.match(self._text, self._pos)
            self.advance(found.end() if found else self._pos)
            if self._pos < len(self._text):
                return self._text[self._pos]
            if not self._more():
                return ""

    def advance(self, to: int | None = None) -> None:
        """Move on, by default over one character."""
        to = self._pos + 1 if to is None else to
        num_newlines = self._text.count("\n", self._pos, to)
        if num_newlines:
            self.line += num_newlines
            self._line_start = self._text.rindex("\n", self._pos, to) + 1
        self._pos = to

    def take_row(self) -> Row:
        """Parse the object that begins here and move behind it."""
        while True:
            try:
                row, end = _DECODER.raw_decode(self._text, self._pos)
            except RecursionError:
                raise _too_deep(self._source.path, self.line) from None
            except ValueError as error:
                if not _is_cut(self._text, error):
                    self.raise_not_json(error)
                if len(self._text) - self._pos > MAX_RECORD_BYTES:
                    raise _too_big(self._source.path, self.line) from None
                if not self._more():
                    raise self.torn() from None
                continue
            if end - self._pos > MAX_RECORD_BYTES:
                raise _too_big(self._source.path, self.line)
            _require_object(row, self._text[self._pos : end], self.place())
            self.advance(end)
            return row  # type: ignore[no-any-return]

    def torn(self) -> UserError:
        return _torn(self._source, self.place(len(self._text)), self._text)

    def raise_not_json(self, error: ValueError | str) -> NoReturn:
        index = error.pos if isinstance(error, json.JSONDecodeError) else self._pos
        reason = error if isinstance(error, str) else _reason(error)
        raise _not_json(self.place(index), reason, self._text, index)

    def _more(self) -> bool:
        """Drop what has been used and read on, twice as much when a row does not fit."""
        data = self._source.read(max(CHUNK_BYTES, len(self._text) - self._pos))
        raw = self._pending + data
        try:
            text, num_used = codecs.utf_8_decode(raw, "strict", not data)
        except UnicodeDecodeError as error:
            self._append(raw[: error.start].decode())
            if error.reason == "unexpected end of data" and not data:
                raise self.torn() from None
            path, line, column = self.place(len(self._text)).rsplit(":", 2)
            raise _not_utf8(path, int(line), int(column), error) from None
        self._pending = raw[num_used:]
        self._append(text)
        return bool(data)

    def _append(self, text: str) -> None:
        self._text = self._text[self._pos :] + text
        self._line_start -= self._pos
        self._pos = 0


_DECODER = json.JSONDecoder()


def _array_rows(source: _Source) -> Iterator[NumberedRow]:
    """Rows of a top-level JSON array."""
    window = _ArrayText(source)
    if window.next_char() == "\ufeff":
        window.advance()
        window.next_char()
    window.advance()
    row_number = 0
    mark = window.next_char()
    while mark != "]":
        row_number += 1
        if not mark:
            raise window.torn()
        if mark != "{":
            _raise_no_object(window, row_number, mark)
        line = window.line
        yield line, row_number, window.take_row()
        mark = window.next_char()
        if mark == ",":
            window.advance()
            mark = window.next_char()
            if mark == "]":
                window.raise_not_json("a comma after the last row")
        elif mark not in ("]", ""):
            window.raise_not_json("expected a comma or ] after a row")
    window.advance()
    if window.next_char():
        window.raise_not_json("text after the end of the array")


def _raise_no_object(window: _ArrayText, row_number: int, mark: str) -> NoReturn:
    if mark in '["tfn-0123456789':
        raise _no_object(f"row {row_number}", window.place())
    window.raise_not_json("expected a row")


def _require_object(row: object, text: str, place: str) -> None:
    if not isinstance(row, dict):
        raise _no_object("the row", place)
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(row) > MAX_DEPTH:
        path, line, _ = place.rsplit(":", 2)
        raise _too_deep(path, int(line))


def _depth(value: object) -> int:
    """Levels of lists and objects, counted without recursion."""
    depth = 0
    level = [value]
    while level:
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(one.values())
            elif isinstance(one, list):
                inner.extend(one)
        depth += any(isinstance(one, (dict, list)) for one in level)
        level = inner
    return depth


def _is_cut(text: str, error: ValueError) -> bool:
    """The text is JSON so far and only ends too early."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    if error.msg.startswith("Unterminated string"):
        return True
    if error.msg.startswith("Invalid \\u"):
        return len(text) - error.pos <= len("uXXXX") and '"' not in text[error.pos :]
    return text[error.pos :].strip() in _CUT_TAILS


# --- What the user is told ------------------------------------------------------------------


def _bad_data(what: str, *, why: str, do: str, where: str) -> UserError:
    return UserError(what, why=why, do=do, where=where, code=ExitCode.BAD_DATA)


def _reason(error: ValueError) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def _raise_not_json(path: str, line: int, text: str, error: ValueError) -> NoReturn:
    index = error.pos if isinstance(error, json.JSONDecodeError) else 0
    raise _not_json(f"{path}:{line}:{index + 1}", _reason(error), text, index)


def _not_json(place: str, reason: str, text: str, index: int) -> UserError:
    if "\0" in text[max(0, index - 1) : index + 1]:
        return _bad_data(
            "the file holds NUL bytes",
            why="a copy or a disk failed: NUL bytes are never part of JSON",
            do="copy or write the file again",
            where=place,
        )
    start = max(0, index - 30)
    excerpt = printable(text[start : index + 30].strip(), 60)
    return _bad_data(
        f"not JSON: {'…' if start else ''}{excerpt}",
        why=reason,
        do="repair the line; in JSON Lines each line is one complete object",
        where=place,
    )


def _torn(source: _Source, place: str, text: str) -> UserError:
    grown = " (its size changed while it was read)" if source.has_changed() else ""
    return _bad_data(
        "the file ends in the middle of a record - is the file still being written or copied?",
        why=f"the last record is incomplete{grown}: …{printable(text[-40:], 40)}",
        do="wait until the file is complete, or copy it again",
        where=place,
    )


def _too_big(path: str, line: int) -> UserError:
    return _bad_data(
        f"a single record is larger than {MAX_RECORD_BYTES // 1_000_000} MB",
        why="a record is held in memory whole; usually a line break or a quote is missing",
        do="split the record, or write one object per line",
        where=f"{path}:{line}:1",
    )


def _too_deep(path: str, line: int) -> UserError:
    return _bad_data(
        f"a record is nested deeper than {MAX_DEPTH} levels",
        why="no data format needs more than 4 levels",
        do="check how the file was written",
        where=f"{path}:{line}:1",
    )


def _no_object(subject: str, place: str) -> UserError:
    return _bad_data(
        f"{subject} is not an object",
        why='each row must be a JSON object such as {"prompt": "…", "completion": "…"}',
        do=f"write the rows in one of the formats: {describe_formats()}",
        where=place,
    )


def _lone_object(source: _Source) -> UserError:
    quoted = shlex.quote(source.path)
    do = "put the rows in a list: [ {…}, {…} ], or write one object per line in a .jsonl file"
    with open(source.path, "rb") as file:  # noqa: PTH123
        key = _LIST_KEY.search(file.read(4096))
    if key and key[1] not in (b"messages", b"conversations", b"history"):
        name = printable(key[1].decode(errors="replace"), 60)
        do += f"; if the rows are in `{name}`: jq '.[\"{name}\"]' {quoted} > rows.json"
    elif Path(source.path).suffix.lower() != ".json":
        do += f": jq -c . {quoted} > rows.jsonl"
    return _bad_data(
        "the file is a single object, or objects spread over lines, not a list of rows",
        why="a .json file must hold a list of objects, a .jsonl file one object per line",
        do=do,
        where=f"{source.path}:1:1",
    )


def _not_utf8(path: str, line: int, column: int, error: UnicodeDecodeError) -> UserError:
    data = error.object
    start = data.rfind(b"\n", 0, error.start) + 1
    end = data.find(b"\n", error.start)
    encoding = _guess_encoding(data[start : end if end >= 0 else len(data)])
    what = f"line {line}: byte 0x{data[error.start]:02x} is not UTF-8"
    return _bad_data(
        what + (f"; looks like {encoding}" if encoding else ""),
        why="data files are read as UTF-8" if encoding else "the rest of the line is UTF-8",
        do=_iconv(path, encoding) if encoding else "repair the damaged characters of the line",
        where=f"{path}:{line}:{column}",
    )


def _guess_encoding(line: bytes) -> str | None:
    """The likeliest old encoding, or None for a line that is damaged UTF-8."""
    if not line.decode(errors="ignore").isascii():
        return None
    runs = re.findall(rb"[\x80-\xff]+", line)
    if all(len(run) % 2 == 0 for run in runs):
        try:
            line.decode("gb18030")
        except UnicodeDecodeError:
            pass
        else:
            return "GB18030"
    return "Windows-1252" if re.search(rb"[\x80-\x9f]", line) else "Latin-1"


def _iconv(path: str, encoding: str) -> str:
    name = {"Latin-1": "LATIN1", "Windows-1252": "CP1252"}.get(encoding, encoding)
    file = Path(path)
    new = file.with_name(f"{file.stem}.utf8{file.suffix}")
    return f"iconv -f {name} -t UTF-8 {shlex.quote(path)} > {shlex.quote(str(new))}"


def _require_text(path: str, head: bytes) -> None:
    """Refuse what is visibly not a JSON text, by the first bytes and by the suffix."""
    for bom, name in _BOMS.items():
        if head.startswith(bom):
            raise _wide(path, name, "its byte order mark")
    if len(head) > 1 and b"\0" in head[:2] and head[:2] != b"\0\0":
        raise _wide(path, "UTF-16LE" if head[1] == 0 else "UTF-16BE", "every other byte is NUL")
    suffix = Path(path).suffix.lower()
    found = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if _OTHER_SUFFIXES.fullmatch(suffix):
        found = found or f"a {suffix} file"
    elif suffix not in _SUFFIXES and _first_byte(head) not in (b"", b"[", b"{"):
        found = found or "no JSON"
    if found:
        raise _bad_data(
            f"this kind of file is not read ({found})",
            why=f"data is read from .json (a list of objects) and .jsonl (one object per line), "
            f"in the formats {describe_formats()}",
            do="convert the file to JSON Lines (.jsonl) in UTF-8",
            where=path,
        )


_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def _wide(path: str, name: str, evidence: str) -> UserError:
    return _bad_data(
        f"the file is {name}, not UTF-8",
        why=f"seen from {evidence}",
        do=_iconv(path, name),
        where=f"{path}:1:1",
    )


def _no_input(what: str, *, why: str, do: str, path: str) -> UserError:
    return UserError(what, why=why, do=do, where=path, code=ExitCode.NO_INPUT)


def _require_file(path: str) -> None:
    file = Path(path)
    try:
        exists, is_file, is_dir = file.exists(), file.is_file(), file.is_dir()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if is_file:
        return
    if is_dir:
        names = sorted(one.name for one in _siblings(file) if one.suffix.lower() in _SUFFIXES)
        raise _no_input(
            f"{path} is a folder, not a file",
            why="a data set is one .json or .jsonl file",
            do=f"give one of its files: {', '.join(names[:5]) or 'it has no .json or .jsonl'}",
            path=path,
        )
    if exists:
        why = "a pipe or a device can be read only once"
        do = "write the rows to a .jsonl file first"
        raise _no_input(f"{path} is not a regular file", why=why, do=do, path=path)
    near = difflib.get_close_matches(file.name, [one.name for one in _siblings(file.parent)])
    raise _no_input(
        f"there is no file {path}",
        why=f"the folder {file.parent} {'exists' if file.parent.is_dir() else 'does not exist'}",
        do=f"did you mean {' or '.join(near)}?" if near else "check the path",
        path=path,
    )


def _siblings(folder: Path) -> list[Path]:
    try:
        return list(islice(folder.iterdir(), 10_000))
    except OSError:
        return []


def _unreadable(path: str, error: OSError | ValueError) -> UserError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, OSError) and not isinstance(error, PermissionError):
        why, do = f"the system says: {reason}", "check the disk or the network mount, then retry"
        return UserError(
            f"{printable(path, 200)} cannot be read",
            why=why,
            do=do,
            where=path,
            code=ExitCode.IO_ERROR,
        )
    do = f"give yourself the right to read it: chmod u+r {shlex.quote(path)}"
    if isinstance(error, ValueError):
        do = "check the path"
    return _no_input(f"{printable(path, 200)} cannot be opened", why=reason, do=do, path=path)
