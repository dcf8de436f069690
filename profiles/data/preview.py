"""Some rows of a file as the model reads them, each with what is learnt of it and what is not.

Goes the way of check and training: formats, rendering, encoding. A row that those refuse is shown
with the reason and ends nothing. Reads the rows up to the last that is shown, and the first ones,
by which the format is found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from typing import TYPE_CHECKING, NamedTuple

from profiles.data.datafile import open_data
from profiles.data.dataset import Reading, numbered_rows, tally_for
from profiles.data.dataset_errors import no_row_there
from profiles.data.formats.spec import Format, Row, RowError
from profiles.data.tally import Tally, shown
from profiles.data.tokens import TokenMeter
from profiles.facts import Origin
from profiles.row_counts import RowCounts

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from profiles.data.encoding import Encoded, Encoder
    from profiles.data.formats.spec import Example, NumberedRow
    from profiles.data.rendering import Renderer, Written


class Part(NamedTuple):
    """Text of a row whose tokens are treated alike."""

    text: str
    is_learnt: bool = False
    """The loss is taken on it."""
    is_cut: bool = False
    """Beyond max_length, so the model does not read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRow:
    """One row of the file."""

    line: int
    number: int
    """From 1, among all rows."""
    parts: tuple[Part, ...] = ()
    """Its text; empty for a row that is refused before it becomes one. Of a pair the text with the
    better reply."""
    worse: tuple[Part, ...] = ()
    """Of a pair the text with the worse reply, which counts too."""
    is_chat: bool = False
    """A chat template wrote it."""
    label: str = ""
    """What the row says of itself: its class, or "good" or "bad" for its reply."""
    num_tokens: int = 0
    """Before it is cut."""
    counts: RowCounts = field(default_factory=RowCounts.none)
    """What is read and learnt of it within max_length."""
    is_refused: bool = False
    """It cannot be trained on; `told` says why."""
    begins: str = ""
    """The beginning of a row that is refused, as the file has it."""
    told: tuple[str, ...] = ()
    """Faults and remarks; each completes "rows like this ..."."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Rows of a file, and how they were read."""

    path: str
    format: str
    origin: Origin
    """MEASURED counts are the tokenizer's, PREDICTED ones from characters."""
    max_length: int | None
    rows: tuple[ShownRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first row that is shown."""

    line: int = 0
    """The row that begins at this line, or the next one; a row counts as a line in Parquet."""
    number: int = 0
    """The row with this number, from 1."""

    def reaches(self, line: int, number: int) -> bool:
        """Whether a row is to be shown."""
        return line >= self.line and number >= self.number

    @property
    def words(self) -> str:
        """Like "line 12", "row 3"."""
        return f"row {self.number}" if self.number else f"line {self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How rows become text and tokens."""

    encoder: Encoder | None = None
    """The model's, if one is known; else"""
    renderer: Renderer | None = None
    """what writes the rows; without one their texts are shown as they are."""
    max_length: int | None = None
    reading: Reading = field(default_factory=Reading)
    """As a recipe says; faulty rows are shown whatever it says of them."""

    def look(self, path: str | os.PathLike[str], num_rows: int, start: Start) -> Preview:
        """Read some rows; UserError for a file without such rows."""
        tally = tally_for({**self.reading, "on_bad": "skip"}, None)
        early: list[NumberedRow] = []

        def keep(row: RowError, line: int, number: int) -> None:
            if start.reaches(line, number) and len(early) < num_rows:
                early.append((line, number, row))

        with open_data(path, self.reading.get("encoding")) as file:
            rows = numbered_rows(file, tally, keep)
            fresh = partial(self._tally, tally.format, set())
            wanted = self._from(start, rows, fresh)
            found = sorted([*early, *islice(wanted, num_rows)], key=lambda one: one[1])[:num_rows]
            if not found:
                raise no_row_there(file.path, start.words)
        return Preview(
            path=file.path,
            format=tally.format.name if tally.format else "",
            origin=Origin.MEASURED if self.encoder else Origin.PREDICTED,
            max_length=self.max_length,
            rows=tuple([self._row(row, line, at, fresh) for line, at, row in found]),
        )

    def _from(
        self, start: Start, rows: Iterator[NumberedRow], fresh: Callable[[], Tally]
    ) -> Iterator[NumberedRow]:
        """The rows from the start; those before it are read where a later one may repeat them."""
        for line, number, row in rows:
            if start.reaches(line, number):
                yield line, number, row
            elif "duplicates" in self.reading.get("clean", ()):
                fresh().read(row, line)

    def _tally(self, form: Format | None, seen: set[int]) -> Tally:
        """For one row of a file whose earlier rows were `seen`."""
        renderer = self.encoder.renderer if self.encoder else self.renderer
        tally = tally_for({**self.reading, "on_bad": "skip"}, renderer)
        tally.format = form
        tally.cleaner.seen = seen
        return tally

    def _row(
        self, row: Row | RowError, line: int, number: int, fresh: Callable[[], Tally]
    ) -> ShownRow:
        """A row by itself, as a file of it and what it may repeat would be read."""
        tally = fresh()
        usable = tally.read(row, line)
        if usable is None:
            begins = "" if isinstance(row, RowError) else shown(row)
            told = tally.kinds_told
            return ShownRow(line=line, number=number, is_refused=True, begins=begins, told=told)
        example, written = usable
        meter = TokenMeter(self.encoder, self.max_length)
        meter.add(example, example.segments, written, line)
        meter.finish()
        parts, *worse = self._texts(example, written)
        rated = {True: "good", False: "bad", None: ""}[example.is_good]
        return ShownRow(
            line=line,
            number=number,
            parts=parts,
            worse=worse[0] if worse else (),
            is_chat=any(one.is_chat for one in written),
            label=example.label or rated,
            num_tokens=meter.stats().total,
            counts=meter.counts,
            told=tally.kinds_told,
        )

    def _texts(self, example: Example, written: Sequence[Written]) -> list[tuple[Part, ...]]:
        """What the model reads of a row: one text, or of a pair both, the better reply's first."""
        if self.encoder is not None and written:
            pairs = zip(written, self.encoder.encode(written), strict=True)
            return [tuple(_by_token(one.text, ids, self.max_length)) for one, ids in pairs]
        texts: list[Example | Written] = [*written]
        texts = texts or [one for one in (example, example.worse) if one]
        return [
            tuple([Part(text, is_learnt) for text, is_learnt in one.segments if text])
            for one in texts
        ]


def _by_token(text: str, encoded: Encoded, max_length: int | None) -> Iterator[Part]:
    """The text in parts as its tokens are treated; marks that are put before it are written out."""
    learnt = {i for first, last in encoded.learnt for i in range(first, last)}
    limit = encoded.num_tokens if max_length is None else max_length
    pieces = [Part("")]
    end = 0
    for i, (token, (first, last)) in enumerate(encoded.tokens):
        pieces.append(pieces[-1]._replace(text=text[end:first]))  # spaces that are in no token
        written = token if first == last else text[max(end, first) : last]
        pieces.append(Part(written, i in learnt, i >= limit))
        end = max(end, last)
    pieces.append(pieces[-1]._replace(text=text[end:]))
    for (is_learnt, is_cut), alike in groupby(pieces, key=lambda part: part[1:]):
        if whole := "".join([part.text for part in alike]):
            yield Part(whole, is_learnt, is_cut)
