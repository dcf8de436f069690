"""Validates every row of a data set file and counts what training will see.

Decides which rows are used, and in which order what was found is told. How bytes become rows is
decided in rows.py, how a row becomes an Example in formats/, what it costs in tokens.py, what
refuses a file in tally.py, what is worth a look in quality.py. Takes constant memory, but for 28
bytes a row.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict, Unpack

from profiles.data import classes, jq_commands
from profiles.data.cleaning import Cleaner
from profiles.data.columns import Columns
from profiles.data.datafile import DataFile, files_of, open_data
from profiles.data.dataset_errors import no_examples, nothing_to_learn, other_training
from profiles.data.formats import by_name
from profiles.data.formats.spec import TEXTS, Example, NumberedRow, Row, RowError
from profiles.data.quality import Quality
from profiles.data.rows import read_rows, stream_rows
from profiles.data.tally import OnBad, Tally
from profiles.data.tokens import TokenMeter
from profiles.data.values_of import Values
from profiles.facts import Dataset, Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from profiles.data.encoding import Encoder
    from profiles.data.rendering import Renderer, Written
    from profiles.data.repeats import Likeness, RowIndex

__all__ = ["Inspected", "OnBad", "check", "inspect", "read_examples", "read_rows"]

COUNTED_WHILE_WAITING_BYTES: Final = 32 << 20
"""What a tokenizer counts in the time that a person waits for an answer."""
NUM_FIRST_ROWS: Final = 20
"""Rows the format is detected from."""
FIRST_BYTES: Final = 8 << 20
"""They are held in memory; where rows are giants, fewer must do."""
ROWS_PER_REPORT: Final = 1000


class Reading(TypedDict, total=False):
    """How a file is read, as the keys of a recipe say; each function here takes these options."""

    format: str | None
    """None to find it from the first rows."""
    on_bad: OnBad
    """Whether a few faulty rows are left out; "error" if not given."""
    encoding: str | None
    """What a file that is not UTF-8 is in, by Python's name."""
    columns: Mapping[str, str] | None
    """Columns, or templates of them, that make the parts of a row (`profiles.data.columns`)."""
    clean: Collection[str]
    """What rows are cleaned of, by the names of `profiles.data.cleaning.STEPS`; nothing if not
    given."""
    mask: tuple[str, ...]
    """Kinds of personal data that are masked, by the names of `profiles.personal`."""
    split_by: str | None
    """A column whose values are counted, for rows to be divided by."""
    kinds: Collection[str]
    """Of rows that are taken; if not given, those that texts are learnt from."""


class UsableRow(NamedTuple):
    """A row that is trained on, and where it stands in its file."""

    line: int
    number: int
    example: Example
    written: tuple[Written, ...]
    """As the model reads it, where a model is known; of a pair both replies, the better first."""
    value: str
    """Of the column by which rows are divided; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """A checked file, and the hashes by which its rows can be found in another one."""

    dataset: Dataset
    index: RowIndex

    def leaks_from(self, train: Inspected) -> Likeness:
        """Rows of this held-out file that are also trained on."""
        return self.index.repeats_of(train.index)

    def compared_with(self, train: Inspected) -> Inspected:
        """The same held-out file, with a warning if rows of it are also trained on."""
        leak = self.leaks_from(train)
        both = leak.exact.count + leak.near.count
        if not both:
            return self
        warning = f"{both} rows of the evaluation are also trained on"
        told = replace(self.dataset, warnings=(*self.dataset.warnings, warning))
        return replace(self, dataset=told)


def read_examples(
    path: str | os.PathLike[str],
    *,
    renderer: Renderer | None = None,
    told: list[str] | None = None,
    **reading: Unpack[Reading],
) -> Iterator[UsableRow]:
    """Every usable row; faulty ones are told when the file has been read.

    UserError at once for a format whose rows are of another kind. Chats that `renderer` cannot
    write are faulty; what it writes otherwise than the rows say, and what they were cleaned of, is
    added to `told` at the end.
    """
    with open_data(path, reading.get("encoding")) as file:
        tally = tally_for(reading, renderer)
        yield from _examples(file, tally)
        if told is not None:
            told += [*tally.cleaner.sentences(tally.num_rows), *tally.of_template()]


def check(path: str | os.PathLike[str], **options: Any) -> Dataset:
    """What `check_to_train` finds, where no other file is compared with it."""
    return check_to_train(path, **options).dataset


def check_to_train(
    path: str | os.PathLike[str],
    *,
    encoder: Encoder | None = None,
    max_length: int | None = None,
    count_up_to_bytes: int | None = None,
    **reading: Unpack[Reading],
) -> Inspected:
    """Validate and count a file to train on, in one pass; UserError where that is not possible.

    `encoder`: the model's. In a file larger than `count_up_to_bytes` tokens are predicted, for a
    tokenizer reads 1 to 2 MB a second; the rest is checked in full all the same.
    """
    too_large = count_up_to_bytes is not None and _num_bytes(path) > count_up_to_bytes
    meter = TokenMeter(None if too_large else encoder, max_length)
    with open_data(path, reading.get("encoding")) as file:
        tally = tally_for(reading, encoder.renderer if encoder else None)
        inspected = _inspect(file, tally, meter, encoder, any_training=False)
    found = inspected.dataset
    warnings = list(found.warnings)
    if found.problem:
        # A prediction is too rough to refuse a run by
        if found.tokens and found.tokens.origin is Origin.MEASURED:
            raise nothing_to_learn(found.path, found.problem)
        warnings.insert(0, found.problem)
    if too_large and encoder is not None:
        warnings.append("a large file: token counts are predicted, `advisor data check` measures")
    return replace(inspected, dataset=replace(found, warnings=tuple(warnings)))


def inspect(
    path: str | os.PathLike[str],
    *,
    encoder: Encoder | None = None,
    max_length: int | None = None,
    progress: Callable[[int, float], None] | None = None,
    **reading: Unpack[Reading],
) -> Inspected:
    """Look at a file whatever it is for: that its rows are of another kind is its `problem`.

    `progress` is told the rows done and the share of the file, every thousand rows.
    """
    meter = TokenMeter(encoder, max_length)
    with open_data(path, reading.get("encoding")) as file:
        tally = tally_for(reading, encoder.renderer if encoder else None)
        return _inspect(file, tally, meter, encoder, any_training=True, progress=progress)


def tally_for(reading: Reading, renderer: Renderer | None) -> Tally:
    """What counts the rows of a file that is read so."""
    name, columns = reading.get("format"), reading.get("columns")
    return Tally(
        format=by_name(name) if name else None,
        on_bad=reading.get("on_bad", "error"),
        kinds=reading.get("kinds", TEXTS),
        renderer=renderer,
        mapping=Columns.of(columns) if columns else None,
        cleaner=Cleaner(reading.get("clean", ()), reading.get("mask", ())),
        values=Values(column) if (column := reading.get("split_by")) else None,
    )


def _num_bytes(path: str | os.PathLike[str]) -> int:
    """Size, or 0 where opening it will tell what is wrong."""
    try:
        return sum(file.stat().st_size for file in files_of(path))
    except (OSError, ValueError):
        return 0


# --- The pass over the rows -----------------------------------------------------------------


def numbered_rows(
    file: DataFile, tally: Tally, faulty: Callable[[RowError, int, int], object]
) -> Iterator[NumberedRow]:
    """Every row in order, after the first have told `tally` the format.

    Rows among those that cannot be parsed go to `faulty` instead, with line and number.
    """
    kinds = tally.mapping.cell_kinds() if tally.mapping else None
    rows = stream_rows(file, skip_bad=tally.on_bad == "skip", cell_kinds=kinds)
    first = _first_sound_rows(rows, file, faulty)
    if first:
        sound = [(line, row) for line, _, row in first]
        tally.settle_format(sound, file)
    return chain(first, rows)


def _examples(file: DataFile, tally: Tally, *, any_training: bool = False) -> Iterator[UsableRow]:
    rows = numbered_rows(file, tally, lambda row, line, _: tally.read(row, line))
    if tally.format and not any_training and not tally.format.serves(tally.kinds):
        instead = jq_commands.for_file(tally.format.instead, file)
        raise other_training(file.path, tally.format, tally.kinds, instead=instead)
    num_usable = 0
    for line, row_number, row in rows:
        if usable := tally.read(row, line):
            num_usable += 1
            assert not isinstance(row, RowError)  # that is of no use
            value = tally.values.add(row, file.path) if tally.values else ""
            yield UsableRow(line, row_number, *usable, value)
    refusal = tally.refusal(file.path)
    if refusal:
        raise refusal
    if not num_usable:
        why = "there is no row in the file" if file.num_bytes else "the file is empty"
        if tally.num_empty:
            why = f"all {tally.num_empty} rows have an empty reply"
        elif tally.num_only_read:
            why = f"{tally.num_only_read} rows have no reply that is learnt"
        has_rows = bool(tally.num_empty or tally.num_only_read)
        raise no_examples(file.path, why, has_rows=has_rows)


def _first_sound_rows(
    rows: Iterator[NumberedRow], file: DataFile, faulty: Callable[[RowError, int, int], object]
) -> list[tuple[int, int, Row]]:
    """The rows to find the format from; what comes before and is no row goes to `faulty`."""
    first = []
    for line, row_number, row in rows:
        if isinstance(row, RowError):
            faulty(row, line, row_number)
            continue
        first.append((line, row_number, row))
        if len(first) >= NUM_FIRST_ROWS or file.num_given > FIRST_BYTES:
            break
    return first


def _inspect(
    file: DataFile,
    tally: Tally,
    meter: TokenMeter,
    encoder: Encoder | None,
    *,
    any_training: bool,
    progress: Callable[[int, float], None] | None = None,
) -> Inspected:
    quality = Quality(encoder.special if encoder is not None else None, tally.cleaner.masks)
    for row in _examples(file, tally, any_training=any_training):
        segments = row.example.segments
        meter.add(row.example, segments, row.written, row.line)
        quality.add(row.example, segments, row.line)
        if progress and row.number % ROWS_PER_REPORT == 0:
            progress(row.number, file.share)
    meter.finish()
    facts = _facts(file, tally, meter, quality)
    if encoder is not None:
        facts = replace(facts, warnings=(*facts.warnings, *encoder.remarks()))
    return Inspected(dataset=facts, index=quality.index)


def _facts(file: DataFile, tally: Tally, meter: TokenMeter, quality: Quality) -> Dataset:
    assert tally.format is not None  # no row, no example: that has been refused
    likeness = quality.index.repeats()
    changed = "the file changed while it was read; is it still being written or copied?"
    warnings = [
        *([changed] if file.has_changed() else []),
        *tally.warnings(),
        *meter.warnings(),
        *quality.warnings(likeness),
        *(classes.remarks(quality.labels) if tally.format.kind == "label" else ()),
        *(classes.one_sided(quality.labels) if tally.format.kind == "rated" else ()),
        *tally.remarks(),
    ]
    problem = meter.problem()
    if not tally.format.serves(tally.kinds):
        problem = f"needs {tally.format.needs}, which this version does not run"
    return Dataset(
        path=file.path,
        format=tally.format.name,
        container=file.words(),
        problem=problem,
        num_rows=quality.num_rows,
        num_bytes=file.num_bytes,
        sha256=file.sha256,
        num_empty=tally.num_empty,
        num_bad=tally.num_bad,
        num_duplicates=likeness.exact.count,
        num_near_duplicates=likeness.near.count,
        num_conflicts=likeness.prompt.count,
        num_truncated=meter.counts.num_cut,
        num_untrainable=meter.counts.num_dropped,
        num_one_sided=quality.one_sided.num_rows,
        num_short_replies=quality.short.num_rows,
        num_html=quality.html.num_rows,
        cleaned=tally.cleaner.counts(),
        personal=quality.personal.counts(),
        values=tuple(tally.values.counts.items()) if tally.values else (),
        num_tasks=max(1, len(tally.row_tasks)),
        columns=tally.columns(),
        scripts=quality.scripts.shares(),
        labels=tuple(quality.labels.most_common()),
        tokens=meter.stats(),
        warnings=tuple(warnings),
    )
