"""Reads the rows of a CSV or TSV file one by one, with Python's own parser in its strict mode.

Decides what stands between cells, where each row begins, and what a quote that is not closed is
told as. Cells are texts; those of the columns that hold lists in some format are JSON. Holds
one record in memory. Does not know which keys a row should have.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Final

from profiles.data import formats
from profiles.data.datafile import MAX_RECORD_BYTES
from profiles.data.dataset_errors import (
    bad_header,
    not_csv,
    open_quote,
    too_big,
)
from profiles.data.formats.spec import RowError
from profiles.data.json_values import parse_cell
from profiles.data.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from profiles.data.datafile import DataFile
    from profiles.data.formats.spec import NumberedRow, Row
    from profiles.errors import UserError

DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LOOKS_LIKE_TURNS = re.compile(r'\s*(?:\[\s*)?\{\s*"(role|from|content|value)"')
_NAMES_DELIMITER = re.compile(r'"?sep=([,;\t|])"?\s*', re.IGNORECASE)
"""The line that Excel reads, and writes on request, before the header."""
_QUOTED = re.compile(r'"[^"]*"?')
_SEARCHED_CHARS: Final = 1 << 20
"""Of a line, for the column of a fault."""


def csv_rows(
    file: DataFile, *, skip_bad: bool, cell_kinds: Mapping[str, str] | None = None
) -> Iterator[NumberedRow]:
    """Rows of an open file; a record that is not CSV raises, or is a RowError with `skip_bad`.

    `cell_kinds`: what cells hold, by column; None if that is what formats say.
    """
    lines = _Lines(file)
    records = _records(lines, skip_bad=skip_bad)
    names = next(records, None)
    if names is None:
        return
    header = _header(names, f"{file.path}:{lines.begin}:1")
    file.detail = f"{DELIMITERS[lines.delimiter]} between the cells"
    known = formats.cell_kinds() if cell_kinds is None else cell_kinds
    kinds = {key: kind for key, kind in known.items() if key in header}
    for row_number, cells in enumerate(records, 1):
        row = cells if isinstance(cells, RowError) else _row(header, cells, kinds)
        yield lines.begin, row_number, row


def _records(lines: _Lines, *, skip_bad: bool) -> Iterator[list[str] | RowError]:
    """The cells of each record; lines without any are passed over."""
    csv.field_size_limit(MAX_RECORD_BYTES)
    reader = csv.reader(lines.texts(), delimiter=lines.delimiter, strict=True)
    while True:
        try:
            cells: list[str] | RowError = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if lines.at_end or not skip_bad:
                raise lines.fault(str(error)) from None
            cells = RowError("are not CSV")
        if cells and not lines.is_blank:
            yield cells
        lines.start_record()


def _delimiter(first: str) -> str:
    """The one that is in the first line most often; quoted names do not count."""
    counts = Counter(_QUOTED.sub("", first))
    return max(DELIMITERS, key=lambda char: counts[char])


def _header(cells: list[str] | RowError, place: str) -> list[str]:
    if isinstance(cells, RowError):
        raise bad_header(place, "the first line is not CSV")
    # The index of pandas and a delimiter at the end of each line make columns without a name
    names = [cell.strip() or f"column {number} (no name)" for number, cell in enumerate(cells, 1)]
    for number, name in enumerate(names, 1):
        if name in names[: number - 1]:
            what = f"two columns are named `{printable(name, 40)}`"
            raise bad_header(place, f"{what} (columns {names.index(name) + 1} and {number})")
    return names


def _row(header: list[str], cells: list[str], kinds: dict[str, str]) -> Row | RowError:
    if len(cells) != len(header):
        found = f"{len(cells)} cell" if len(cells) == 1 else f"{len(cells)} cells"
        return RowError(f"have {found}, the header has {len(header)}")
    row: Row = dict(zip(header, cells, strict=True))
    try:
        for key, kind in kinds.items():
            if kind == "list":
                row[key] = parse_cell(row[key], key) if row[key].strip() else None
            elif kind == "either" and _LOOKS_LIKE_TURNS.match(row[key]):
                row[key] = parse_cell(row[key], key)
    except RowError as error:
        return error
    return row


class _Lines:
    """The lines of the file as texts, and where the record that is being read began."""

    def __init__(self, file: DataFile) -> None:
        self.begin = 1
        self.at_end = False
        self._file = file
        self._number = 0
        self._num_bytes = 0
        """Of the record, up to here."""
        self._first = ""
        """The line in which the record began."""
        self._last = ""
        self._texts = self._read()
        self.delimiter = ""
        head = self._head()
        self.delimiter = self.delimiter or _delimiter(head)
        self._texts = chain([head], self._texts)

    @property
    def is_blank(self) -> bool:
        """The record is one line of nothing but white space."""
        return self.begin == self._number and self._last.isspace()

    def texts(self) -> Iterator[str]:
        """The lines, with their ends."""
        return self._texts

    def start_record(self) -> None:
        """The next line begins a record."""
        self.begin = self._number + 1
        self._num_bytes = 0

    def _head(self) -> str:
        """The header's first line; blank lines and one that names the delimiter come before it."""
        for text in self._texts:
            named = None if self.delimiter else _NAMES_DELIMITER.fullmatch(text)
            if named:
                self.delimiter = named[1]
            elif not text.isspace():
                return text
            self.start_record()
        return ""

    def _read(self) -> Iterator[str]:
        for number, raw in self._file.lines(MAX_RECORD_BYTES + 1):
            self._number = number
            self._last = self._file.text(number, raw)
            if number == self.begin:
                self._first = self._last
            self._num_bytes += len(raw)
            if self._num_bytes > MAX_RECORD_BYTES:
                raise too_big(self._where_the_quote_opened(), MAX_RECORD_BYTES)
            yield self._last
        self.at_end = True

    def _where_the_quote_opened(self) -> str:
        column, _ = _quote_columns(self._first, self.delimiter, quoted=False)
        return f"{self._file.path}:{self.begin}:{column or 1}"

    def fault(self, reason: str) -> UserError:
        """What the parser refused, at the place where a person would look."""
        place = f"{self._file.path}:{self._number}"
        if self.at_end:
            return open_quote(self._where_the_quote_opened(), self._number - self.begin + 1)
        if "new-line" in reason:
            column = self._last.find("\r") + 1
            return not_csv(f"{place}:{column}", "a carriage return stands inside a cell")
        is_continued = self._number > self.begin
        _, column = _quote_columns(self._last, self.delimiter, quoted=is_continued)
        why = "text follows a closing quote"
        if is_continued:
            why += f"; the row begins on line {self.begin}, perhaps with a quote too many"
        return not_csv(f"{place}:{column or 1}", why)


def _quote_columns(text: str, delimiter: str, *, quoted: bool) -> tuple[int, int]:
    """Columns of the quote still open at the end, and of the first text after a closing quote.

    0 where there is none. `quoted`: the text begins inside quotes.
    """
    opened, index, at_start = 0, 0, not quoted
    text = text[:_SEARCHED_CHARS]
    while index < len(text):
        char = text[index]
        if quoted and char == '"':
            after = text[index + 1 : index + 2]
            if after == '"':
                index += 1
            elif after in ("", delimiter, "\r", "\n"):
                quoted, opened = False, 0
            else:
                return 0, index + 2
        elif char == '"' and at_start:
            quoted, opened = True, index + 1
        at_start = not quoted and char == delimiter
        index += 1
    return opened, 0
