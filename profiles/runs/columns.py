"""The steps and losses of a run as columns of numbers: eight bytes each, however many there are.

What a later attempt did again is known only at the end, and a median needs all values: so every
step is kept, but no object of it. A run of 500 000 steps takes some 70 MB.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise, repeat
from operator import lt, sub
from typing import Any
from zlib import crc32

from profiles.runs.alike import Alike, Match, Names, like, numbers
from profiles.runs.journal import Tail
from profiles.runs.lines import CRC_LENGTH
from profiles.runs.records import Record
from profiles.runs.records.metrics import PHASES, Loss, Step

NONE = -(1 << 63)
"""In a column of whole numbers what was not written; no record holds it."""
_MOST_SHAPES = 8
"""A file whose lines are all different is read without more: each of them takes its time."""
_STEP_MARK = b'"kind":"step"'
_HEAD = {"attempt": "a", "monotonic_seconds": "m"}
"""Names in JSON that are not those of the fields."""

Given = Mapping[Names, Sequence[Any]]
"""Numbers of some records by their names, as numbers or as their text."""


class Columns:
    """Numbers of the records of one class by the names of its fields, in the order of the file."""

    whole: tuple[str, ...] = ("step",)
    real: tuple[str, ...] = ()
    """Not a number where nothing was written."""
    objects: tuple[str, ...] = ()
    """Fields whose numbers are wanted by `_keep`."""

    def __init__(self) -> None:
        self._columns: dict[str, array[Any]] = {name: array("q") for name in self.whole}
        self._columns |= {name: array("d") for name in self.real}
        wanted = (*self.whole, *self.real, *self.objects)
        self._wanted = frozenset(_HEAD.get(name, name) for name in wanted)
        self._shapes: list[Alike] = []
        self.match: Match = re.compile(b"(?!)").fullmatch
        """Of the shape that is tried first."""
        self.rows: list[tuple[Any, ...]] = []
        """Of that shape, not in the columns yet."""

    def __getitem__(self, name: str) -> array[Any]:
        """A column."""
        return self._columns[name]

    def __len__(self) -> int:
        return len(self._columns["step"])

    def take(self, line: bytes) -> bool:
        """Add the record of a line that is like one before; False if it has to be read."""
        for shape in self._shapes:
            row = shape.read(line)
            if row is not None:
                self._prefer(shape)
                self.rows.append(row)
                return True
        return False

    def _prefer(self, shape: Alike) -> None:
        self.flush()
        self._shapes = [shape, *(s for s in self._shapes if s is not shape)]
        self.match = shape.match

    def add(self, record: Record, line: bytes) -> None:
        """Add a record, and know the lines that are like its own."""
        self.flush()
        head = {short: getattr(record, name) for name, short in _HEAD.items()}
        given = dict(numbers(head | record.content()))
        self._keep({names: [value] for names, value in given.items()}, 1)
        if len(self._shapes) < _MOST_SHAPES and (shape := like(line, self._wanted)) is not None:
            self._prefer(shape)

    def flush(self) -> None:
        """Put everything into the columns."""
        if self.rows:
            columns = zip(*self.rows, strict=True)
            self._keep(dict(zip(self._shapes[0].names, columns, strict=True)), len(self.rows))
            self.rows = []

    def _keep(self, given: Given, num: int) -> None:
        """Extend the columns by `num` records."""
        for name in self.whole:
            values = given.get((_HEAD.get(name, name),))
            self._columns[name].extend(map(int, values) if values else repeat(NONE, num))
        for name in self.real:
            values = given.get((_HEAD.get(name, name),))
            self._columns[name].extend(map(float, values) if values else repeat(math.nan, num))

    def settle(self) -> None:
        """Order by step; of a step that was done again the last counts."""
        steps = self._columns["step"]
        if all(map(lt, steps, islice(steps, 1, None))):
            return
        rows = sorted(range(len(steps)), key=steps.__getitem__)
        lasts = [a for a, b in pairwise(rows) if steps[a] != steps[b]]
        lasts += rows[-1:]
        for name, column in self._columns.items():
            self._columns[name] = array(column.typecode, map(column.__getitem__, lasts))


class Steps(Columns):
    """What the report asks of steps; `PHASES` are columns too, as `Step.phase_seconds` has them."""

    whole = (
        "step",
        "attempt",
        "padded_tokens",
        "tokens",
        "label_tokens",
        "longest",
        "rss_peak_bytes",
        "allocated_peak_bytes",
        "reserved_peak_bytes",
        "num_alloc_retries",
    )
    real = ("monotonic_seconds", "seconds")
    objects = ("phases", "gpu_phases")

    def __init__(self) -> None:
        super().__init__()
        self._columns |= {name: array("d") for name in ("data_wait", *PHASES)}
        """data_wait: of the host, also where the phases are the device's."""

    def _keep(self, given: Given, num: int) -> None:
        super()._keep(given, num)
        host, device = (_inside(name, given) for name in self.objects)
        phases: Mapping[str, Sequence[Any]] = host
        if device:
            phases = {name: list(map(float, values)) for name, values in device.items()}
            taken = map(sum, zip(*phases.values(), strict=True))
            rest = map(sub, self._columns["seconds"][-num:], taken)
            phases["other"] = [seconds if seconds > 0 else 0.0 for seconds in rest]
        none = [0.0] * num
        self._columns["data_wait"].extend(map(float, host.get("data", none)))
        for name in PHASES:
            self._columns[name].extend(map(float, phases.get(name, none)))


class Losses(Columns):
    """Steps and what was logged of them; not a number where it was not finite."""

    real = ("loss", "router_loss", "penalty_loss", "smoothing_loss")


def _inside(name: str, given: Given) -> dict[str, Sequence[Any]]:
    return {names[1]: values for names, values in given.items() if names[0] == name}


def read(tail: Tail) -> tuple[Steps, Losses]:
    """Everything that a tail has not read yet, settled."""
    steps, losses = Steps(), Losses()
    for lines in tail.chunks():
        for line in _not_alike(lines, steps, losses):
            if (steps if _STEP_MARK in line else losses).take(line):
                continue
            for record in tail.parsed([line]):
                if isinstance(record, Step):
                    steps.add(record, line)
                elif isinstance(record, Loss):
                    losses.add(record, line)
        steps.flush()
        losses.flush()
    steps.settle()
    losses.settle()
    return steps, losses


def _not_alike(lines: Iterable[bytes], steps: Steps, losses: Losses) -> Iterator[bytes]:
    """The lines that are not like the one before them; the others are added.

    Without a call of ours for each line: a run has a million.
    """
    for line in lines:
        known = steps if _STEP_MARK in line else losses
        match = known.match(line)
        if match is not None and crc32(line[:-CRC_LENGTH]) == int(line[-10:-2], 16):
            known.rows.append(match.groups())
        else:
            yield line
