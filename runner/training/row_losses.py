"""The losses of all rows of the evaluation sets: kept on disk, compared with the base model's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

from profiles.intervals import Difference, paired
from profiles.runs.journal import Journal, read_all
from profiles.runs.records.evaluation import RowLosses
from profiles.runs.rundir import RunDir

_ROWS_IN_A_RECORD = 400
"""So that a record stays within the length of a line."""
_DIGITS = 6


class Rows(NamedTuple):
    """An evaluation of a set, row by row."""

    losses: list[float]
    """Mean over a row's tokens that count, in nats."""
    tokens: list[int]

    @property
    def mean(self) -> float:
        """Over all tokens that count; not a number without any."""
        total = math.fsum(loss * n for loss, n in zip(self.losses, self.tokens, strict=True) if n)
        return total / num if (num := sum(self.tokens)) else math.nan


def in_order(by_rank: Sequence[Sequence[Rows]], num_rows: int) -> Rows:
    """The rows of a set from the batches of all ranks, which take them in turns.

    The last batches are filled up with rows from the beginning, so that every rank has as many.
    """
    batches = [b for turn in zip_longest(*by_rank) for b in turn if b is not None]
    losses = list(chain.from_iterable(batch.losses for batch in batches))
    tokens = list(chain.from_iterable(batch.tokens for batch in batches))
    rounded = [round(loss, _DIGITS) for loss in losses[:num_rows]]  # as the record keeps them
    return Rows(rounded, tokens[:num_rows])


def write(journal: Journal, step: int, data: str, rows: Rows) -> None:
    """Keep an evaluation; what is not finite is kept as None."""
    finite = [loss if math.isfinite(loss) else None for loss in rows.losses]
    for first in range(0, len(finite), _ROWS_IN_A_RECORD):
        part = slice(first, first + _ROWS_IN_A_RECORD)
        record = RowLosses(
            step=step,
            data=data or None,
            first=first,
            losses=tuple(finite[part]),
            tokens=tuple(rows.tokens[part]),
        )
        journal.append(record, sync=False)
    journal.sync()


def read(run: RunDir, step: int, data: str) -> Rows | None:
    """The newest evaluation of a set at a step; None if there is none."""
    kept = [r for r in read_all(run.evaluations) if isinstance(r, RowLosses)]
    mine = {r.first: r for r in kept if (r.step, r.data or "") == (step, data)}
    rows = Rows([], [])
    while (part := mine.get(len(rows.losses))) is not None and part.losses:
        rows.losses.extend(math.nan if loss is None else loss for loss in part.losses)
        rows.tokens.extend(part.tokens)
    return rows if rows.losses else None


def gain(base: Rows | None, now: Rows) -> Difference | None:
    """How much lower the loss is than the base model's; None if the rows are not the same."""
    if base is None or base.tokens != now.tokens:
        return None
    return paired(base.losses, now.losses, now.tokens)
