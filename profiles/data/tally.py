"""Counts what is wrong with the rows of a data file, and which types stand under its keys.

Decides when faults refuse the file and how they are told. Takes constant memory: only the first
kinds of fault and the first keys are told apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from profiles.data import remedies
from profiles.data.cleaning import Cleaner
from profiles.data.datafile import Container, DataFile
from profiles.data.dataset_errors import faulty_rows
from profiles.data.detect import detect_format, format_of
from profiles.data.formats.spec import TEXTS, Example, Format, MediaError, Row, RowError
from profiles.data.ratings import Ratings
from profiles.data.rendering import Renderer, TemplateRowError, Written
from profiles.data.values_of import Values
from profiles.data.words import printable, type_name
from profiles.facts import Column
from profiles.quantities import some_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from profiles.data.columns import Columns
    from profiles.errors import UserError

NUM_KINDS: Final = 20
NUM_UNUSED: Final = 8
"""Columns that are named to the user."""
NUM_COLUMNS: Final = 64
"""Keys whose types are counted."""

ENDLESS: Final = "end with no mark, so the model will not learn to stop"

OnBad = Literal["error", "skip"]


@dataclass(slots=True, kw_only=True)
class Tally:
    """What one pass over the rows leaves behind besides the examples."""

    format: Format | None
    """None until it is found from the first rows."""
    on_bad: OnBad
    kinds: Collection[str] = TEXTS
    """Of rows that are taken, as formats name theirs."""
    renderer: Renderer | None = None
    """Writes the rows for a model; None where none is known."""
    mapping: Columns | None = None
    """Makes the parts that formats read; None where they are columns of the file."""
    cleaner: Cleaner = field(default_factory=Cleaner)
    values: Values | None = None
    """Of the column by which rows are divided, if there is one."""
    file: DataFile | None = None
    """That is read; None before its format is settled."""
    detected: Format | None = None
    """What the keys of the first rows look like, where a format was asked for."""
    num_rows: int = 0
    num_bad: int = 0
    num_empty: int = 0
    num_endless: int = 0
    """Chats whose last reply ends with no mark."""
    unused_keys: tuple[str, ...] = ()
    row_tasks: set[str] = field(default_factory=set)
    """Values of a `task` column."""
    faults: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Kind of fault: how many rows, and the line of the first."""
    changed: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What a chat template writes otherwise than the row says: the same."""
    taken: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What rows were taken to mean: the same."""
    num_only_read: int = 0
    """Rows of which no reply is learnt."""
    num_refused_by_template: int = 0
    takes_merged: bool = False
    """Some of these would be written with the system text in the first question."""
    num_with_media: int = 0
    """Rows with pictures or sound."""
    types: dict[str, dict[type, list[int]]] = field(default_factory=dict)
    """Key, type: how many rows, and the line of the first."""
    ratings: Ratings | None = None
    """Of unused columns that may rate the replies, if there are any."""
    _unseen: set[str] = field(init=False)
    """Columns that were asked for and that no row had yet."""

    def __post_init__(self) -> None:
        self._unseen = set(self.mapping.sources if self.mapping else ())

    def settle_format(self, first: list[tuple[int, Row]], file: DataFile) -> None:
        """Find the format from the first rows, unless one was asked for."""
        self.file = file
        path, is_table = file.path, file.container is Container.CSV
        given = [row for _, row in first]
        rows = self.mapping.applied(given) if self.mapping else given
        keys = dict.fromkeys(key for row in given for key in row)
        if self.mapping and is_table and (missing := self._unseen.difference(keys)):
            raise self.mapping.unknown(sorted(missing), keys, path)
        if self.format is None:
            told = f"line {first[0][0]} is {shown(given[0])}; "
            if is_table:
                told = (
                    "the first line is read as the names of the columns; if it is a row, write "
                    f"names above it; {told}"
                )
            self.format = detect_format(rows, kinds=self.kinds, where=path, first_row=told)
        else:
            self.detected = next(filter(None, map(format_of, rows)), None)
        used = {"task", *(one.name_in(row) for one in self.format.fields for row in rows)}
        if self.mapping:
            used = {"task", *self.mapping.sources}
        if self.values:
            self.values.settle(keys, path)
            used.add(self.values.column)
        self.unused_keys = tuple(key for key in keys if key not in used)
        if not self.mapping:
            self.ratings = Ratings.among(self.unused_keys, self.format, file)

    def read(self, row: Row | RowError, line: int) -> tuple[Example, tuple[Written, ...]] | None:
        """Count a row, and return its example, and its texts for the model, if it is of use.

        A text for each reply of a pair, the better one first; none where no model is known.
        """
        self.num_rows += 1
        if isinstance(row, RowError):
            self._add_fault(str(row), line)
            return None
        self._add_types(row, line)
        assert self.format is not None
        task = row.get("task")
        try:
            if self.values is not None:
                self.values.of(row)
            if self.mapping is not None:
                self._unseen.difference_update(row)
                row = self.mapping.apply(row)
            example = self.format.example(row)
        except RowError as error:
            self._add_error(error, _other_format(row, self.format) or str(error), line)
            return None
        example = self.cleaner.clean(example, line)
        if example.is_empty:
            self.num_empty += 1
            return None
        try:
            written = self._write(example, line) if self.renderer else ()
        except RowError as error:
            self._add_error(error, str(error), line)
            return None
        if self._teaches_nothing(example, written, line):
            return None
        for kind in example.remarks:
            _count(self.taken, kind, line, others="have more that is not used or was guessed")
        if isinstance(task, str):
            self.row_tasks.add(task)
        return example, written

    def _teaches_nothing(self, example: Example, written: tuple[Written, ...], line: int) -> bool:
        """Nothing of it is learnt, or an earlier row has taught it where repeats are left out."""
        if example.is_only_read or not all(one.learnt for one in written):
            self.num_only_read += 1
            return True
        return self.cleaner.is_repeat(example, written, line)

    def _write(self, example: Example, line: int) -> tuple[Written, ...]:
        assert self.renderer is not None
        replies = filter(None, (example, example.worse))
        written = tuple([self.renderer.write(one) for one in replies])
        for kind in dict.fromkeys(fault for one in written for fault in one.faults):
            _count(self.changed, kind, line)
        self.num_endless += any(one.is_chat and one.learnt and not one.end for one in written)
        return written

    def _add_types(self, row: Row, line: int) -> None:
        if self.ratings is not None:
            self.ratings.add(row)
        for key, value in row.items():
            types = self.types.get(key)
            if types is None:
                if len(self.types) >= NUM_COLUMNS:
                    continue
                types = self.types[key] = {}
            seen = types.get(type(value))
            if seen is None:
                types[type(value)] = [1, line]
            else:
                seen[0] += 1

    def _add_error(self, error: RowError, kind: str, line: int) -> None:
        """Count a fault, and what can be done about it."""
        self.num_with_media += isinstance(error, MediaError)
        if isinstance(error, TemplateRowError):
            self.num_refused_by_template += 1
            self.takes_merged = self.takes_merged or error.takes_merged
        self._add_fault(kind, line)

    def _add_fault(self, kind: str, line: int) -> None:
        _count(self.faults, kind, line)
        self.num_bad += 1

    @property
    def kinds_told(self) -> tuple[str, ...]:
        """What was found, without counts; each completes "rows like this ..."."""
        empty = ["have an empty reply"] if self.num_empty else []
        endless = [ENDLESS] if self.num_endless else []
        unlearnt = ["have no reply that is learnt"] if self.num_only_read else []
        return (*self.faults, *empty, *unlearnt, *self.cleaner.kinds_told, *self.changed, *endless)

    def _describe_faults(self) -> str:
        return "; ".join(self._sentences(self.faults))

    def _sentences(self, kinds: dict[str, tuple[int, int]]) -> list[str]:
        ranked = sorted(kinds.items(), key=lambda item: (-item[1][0], item[1][1]))
        return [
            f"{count} of {self.num_rows} rows {kind} (first: line {line})"
            for kind, (count, line) in ranked
        ]

    def refusal(self, path: str) -> UserError | None:
        """The error if rows are faulty and may not, or not so many of them, be left out."""
        if self.mapping and self._unseen:
            return self.mapping.unknown(sorted(self._unseen), self.types, path)
        too_many = self.num_bad > remedies.MAX_BAD_SHARE * self.num_rows
        if not self.num_bad or (self.on_bad == "skip" and not too_many):
            return None
        first = min(line for _, line in self.faults.values())
        why, do = remedies.why(self), remedies.do(self, too_many=too_many)
        return faulty_rows(f"{path}:{first}", self._describe_faults(), why=why, do=do)

    def columns(self) -> tuple[Column, ...]:
        """The keys of the rows and the types of their values, the commonest type first."""
        found = []
        for key, types in self.types.items():
            ranked = sorted(types.items(), key=lambda item: -item[1][0])
            counts = tuple((type_name(kind), count, line) for kind, (count, line) in ranked)
            found.append(Column(name=printable(key, 60), types=counts))
        return tuple(found)

    def warnings(self) -> list[str]:
        """What was left out, and which types change from row to row."""
        found = []
        if self.num_bad:
            found.append(f"left out: {self._describe_faults()}")
        if self.num_empty:
            found.append(f"left out: {self.num_empty} of {self.num_rows} rows have an empty reply")
        if self.num_only_read:
            rows = f"{self.num_only_read} of {self.num_rows} rows"
            found.append(f"left out: {rows} have no reply that is learnt")
        found += self.cleaner.sentences(self.num_rows)
        return found + self.of_template() + self._drift()

    def of_template(self) -> list[str]:
        """What the chat template does not write as the rows say."""
        found = self._sentences(self.changed)
        if self.num_endless:
            rows = f"{self.num_endless} of {self.num_rows} rows"
            found.append(f"{rows} {ENDLESS}: {remedies.OTHER_TEMPLATE}")
        return found

    def _drift(self) -> list[str]:
        """Keys with values of several types; null stands for a key that is not there."""
        found = []
        for column in self.columns():
            types = [one for one in column.types if one[0] != "null"]
            if len(types) > 1 and not self.num_bad:
                odd, count, line = types[-1]
                rows = f"{count} of {self.num_rows} rows (first: line {line})"
                found.append(f"`{column.name}` is {odd} in {rows}, else {types[0][0]}")
        return found

    def remarks(self) -> list[str]:
        """What the rows were taken to mean, and what is in them and is not used."""
        found = self._sentences(self.taken)
        if self.ratings is not None:
            found += self.ratings.sentences(self.types)
        if self.unused_keys:
            names = [f"`{printable(key, 40)}`" for key in self.unused_keys]
            found.append(f"columns that are not used: {some_of(names, NUM_UNUSED)}")
        return found


def _count(
    kinds: dict[str, tuple[int, int]], kind: str, line: int, others: str = "have other faults"
) -> None:
    """Count a row under a sentence; only the first few are told apart from the `others`."""
    if kind not in kinds and len(kinds) >= NUM_KINDS:
        kind = others
    count, first = kinds.get(kind, (0, line))
    kinds[kind] = (count + 1, first)


def _other_format(row: Row, wanted: Format) -> str:
    """The fault of a row whose keys are those of another format."""
    found = format_of(row)
    if found is None or wanted.fits(row.keys(), by_alias=True):
        return ""
    return f"look like {found.name}, not {wanted.name}"


def shown(row: Row) -> str:
    """The beginning of a row, for a person who knows the file."""
    parts = []
    for key in list(row)[:3]:
        value = row[key]
        text = f'"{printable(value, 24)}"' if isinstance(value, str) else type_name(type(value))
        parts.append(f"{printable(key, 24)} = {text}")
    return ", ".join(parts) or "empty"
