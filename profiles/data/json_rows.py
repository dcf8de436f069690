"""Reads the rows of JSON Lines, or of one JSON list of any size, one by one.

Decides where each row stands, and what is too big, too deep, cut off or said twice. Holds one row
and one chunk in memory. Does not know which keys a row should have.
"""

from __future__ import annotations

import codecs
import json
import re
from itertools import islice
from typing import TYPE_CHECKING

from profiles.data.charset_errors import not_utf8
from profiles.data.datafile import MAX_RECORD_BYTES, Container
from profiles.data.dataset_errors import (
    lone_object,
    no_object,
    not_json,
    too_big,
    too_deep,
    torn,
)
from profiles.data.formats.spec import NumberedRow, Row, RowError
from profiles.data.json_values import DECODER, MAX_DEPTH, depth, said_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiles.data.datafile import DataFile
    from profiles.errors import UserError

CHUNK_BYTES = 1 << 20

_SPACE = re.compile(r"[ \t\r\n]*")
# What is left after the last complete token when a JSON text is cut off.
_CUT_TAILS = frozenset(
    [word[:end] for word in ("true", "false", "null", "NaN", "-Infinity", "Infinity")
     for end in range(1, len(word))] + ["", ",", ".", "e", "E", "e+", "e-", "E+", "E-"]
)  # fmt: skip


def json_rows(file: DataFile, *, skip_bad: bool) -> Iterator[NumberedRow]:
    """Rows of an open file; a line that is not JSON raises, or is a RowError with `skip_bad`."""
    if file.container is Container.LIST:
        return _array_rows(file)
    rows = _line_rows(file, skip_bad=skip_bad)
    if file.suffix == ".json":
        return _at_least_two(rows, file)
    return rows


# --- JSON Lines -----------------------------------------------------------------------------


def _at_least_two(rows: Iterator[NumberedRow], file: DataFile) -> Iterator[NumberedRow]:
    """JSON Lines named .json: only the second row tells them from a lone object."""
    first = list(islice(rows, 2))
    if len(first) == 1:
        raise _lone(file)
    yield from first
    yield from rows


def _lone(file: DataFile) -> UserError:
    return lone_object(file.path, file.head, suffix=file.suffix, is_packed=file.is_packed)


def _line_rows(file: DataFile, *, skip_bad: bool) -> Iterator[NumberedRow]:
    row_number = 0
    for line_number, raw in file.lines(MAX_RECORD_BYTES + 1):
        line = raw.removeprefix(codecs.BOM_UTF8) if line_number == 1 else raw
        if not line or line.isspace():
            continue
        row_number += 1
        text = _decode_line(file, line_number, line)
        try:
            row = DECODER.decode(text)
        except RecursionError:
            raise too_deep(f"{file.path}:{line_number}:1", MAX_DEPTH) from None
        except ValueError as error:
            place = f"{file.path}:{line_number}"
            is_cut = _is_cut(text, error)
            if is_cut and not line.endswith(b"\n"):
                raise _torn_line(file, place, text) from None
            if is_cut and row_number == 1:
                raise _lone(file) from None
            if not skip_bad:
                reason, index = _fault(error, 0)
                raise not_json(f"{place}:{index + 1}", reason, text, index) from None
            yield line_number, row_number, RowError("are not JSON")
            continue
        if not isinstance(row, dict) or _may_be_deep(text):
            _require_object(row, f"{file.path}:{line_number}:1")
        yield line_number, row_number, said_once(row)


def _decode_line(file: DataFile, line_number: int, line: bytes) -> str:
    if len(line) > MAX_RECORD_BYTES:
        raise too_big(f"{file.path}:{line_number}:1", MAX_RECORD_BYTES)
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        place = f"{file.path}:{line_number}"
        text = line[: error.start].decode()
        if error.reason == "unexpected end of data" and not line.endswith(b"\n"):
            raise _torn_line(file, place, text) from None
        raise not_utf8(file.path, f"{place}:{len(text) + 1}", error) from None


def _torn_line(file: DataFile, place: str, text: str) -> UserError:
    return torn(f"{place}:{len(text) + 1}", text, has_changed=file.has_changed())


# --- One list -------------------------------------------------------------------------------


def _array_rows(file: DataFile) -> Iterator[NumberedRow]:
    window = _ArrayText(file)
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
        if mark in '"[tfn-0123456789':
            raise no_object(f"row {row_number}", window.place())
        if mark != "{":
            raise window.not_json("expected a row")
        line = window.line
        yield line, row_number, said_once(window.take_row())
        mark = window.next_char()
        if mark == ",":
            window.advance()
            mark = window.next_char()
            if mark == "]":
                raise window.not_json("a comma after the last row")
        elif mark not in ("]", ""):
            raise window.not_json("expected a comma or ] after a row")
    window.advance()
    if window.next_char():
        raise window.not_json("text after the end of the array")


class _ArrayText:
    """A moving window of text over a JSON list, which knows the line and column it is at."""

    def __init__(self, file: DataFile) -> None:
        self.line = 1
        self._file = file
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
        return f"{self._file.path}:{line}:{index - start + 1}"

    def next_char(self) -> str:
        """Skip white space and show the next character, "" at the end of the file."""
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
        row: Row
        while True:
            try:
                row, end = DECODER.scan(self._text, self._pos)
                break
            except RecursionError:
                raise too_deep(self.place(), MAX_DEPTH) from None
            except ValueError as error:
                if not _is_cut(self._text, error):
                    raise self.not_json(*_fault(error, self._pos)) from None
            if len(self._text) - self._pos > MAX_RECORD_BYTES:
                raise too_big(self.place(), MAX_RECORD_BYTES)
            if not self._more():
                raise self.torn()
        if end - self._pos > MAX_RECORD_BYTES:
            raise too_big(self.place(), MAX_RECORD_BYTES)
        if _may_be_deep(self._text[self._pos : end]):
            _require_object(row, self.place())
        self.advance(end)
        return row

    def torn(self) -> UserError:
        end = len(self._text)
        return torn(self.place(end), self._text, has_changed=self._file.has_changed())

    def not_json(self, reason: str, index: int | None = None) -> UserError:
        index = self._pos if index is None else index
        return not_json(self.place(index), reason, self._text, index)

    def _more(self) -> bool:
        """Drop what has been used and read on, twice as much when a row does not fit."""
        data = self._file.read(max(CHUNK_BYTES, len(self._text) - self._pos))
        raw = self._pending + data
        try:
            text, num_used = codecs.utf_8_decode(raw, "strict", not data)
        except UnicodeDecodeError as error:
            self._append(raw[: error.start].decode())
            if error.reason == "unexpected end of data":
                raise self.torn() from None
            raise not_utf8(self._file.path, self.place(len(self._text)), error) from None
        self._pending = raw[num_used:]
        self._append(text)
        return bool(data)

    def _append(self, text: str) -> None:
        self._text = self._text[self._pos :] + text
        self._line_start -= self._pos
        self._pos = 0


# --- One row --------------------------------------------------------------------------------


def _fault(error: ValueError, start: int) -> tuple[str, int]:
    """Reason and index; a number with too many digits is known only by where its row starts."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg, error.pos
    return str(error), start


def _is_cut(text: str, error: ValueError) -> bool:
    """Tell whether the text is JSON so far and only ends too early."""
    if not isinstance(error, json.JSONDecodeError) or error.msg == "Extra data":
        return False
    if error.msg.startswith("Unterminated string"):
        return True
    if error.msg.startswith("Invalid \\u"):
        return len(text) - error.pos <= len("uXXXX") and '"' not in text[error.pos :]
    return text[error.pos :].strip() in _CUT_TAILS


def _may_be_deep(text: str) -> bool:
    return text.count("{") + text.count("[") > MAX_DEPTH


def _require_object(row: object, place: str) -> None:
    if not isinstance(row, dict):
        raise no_object("the row", place)
    if depth(row) > MAX_DEPTH:
        raise too_deep(place, MAX_DEPTH)
