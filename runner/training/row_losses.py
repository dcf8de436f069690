"""Losses and scores of all rows of the evaluation sets: kept on disk, compared with the base's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from profiles.intervals import Difference, paired
from profiles.runs.journal import Journal, read_all
from profiles.runs.records.evaluation import RowLosses, RowScores, Scored
from profiles.runs.rundir import RunDir

if TYPE_CHECKING:
    import torch

    from advisor.registry.task_spec import Score

_ROWS_IN_A_RECORD = 400
"""So that a record stays within the length of a line."""
_DIGITS = 6


class RowValues(NamedTuple):
    """What a task finds for the rows of a batch; each tensor of shape (rows,)."""

    losses: torch.Tensor
    """Sum over the row's tokens that count, or the row's own."""
    counts: torch.Tensor
    """Those tokens, or ones."""
    scores: Mapping[str, torch.Tensor] = {}  # nobody changes it
    """By name: the higher, the better."""
    outputs: torch.Tensor | None = None
    """Of shape (rows, numbers), for what is told of a whole set; not kept."""


class Rows(NamedTuple):
    """An evaluation of a set, row by row."""

    losses: list[float]
    """Mean over a row's tokens that count, in nats."""
    tokens: list[int]
    scores: dict[str, list[float]] = {}  # noqa: RUF012  # nobody changes it
    outputs: list[list[float]] = []  # noqa: RUF012
    """As RowValues has them, row by row."""

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
    names = batches[0].scores if batches else {}

    def joined(parts: Sequence[list[float]]) -> list[float]:
        values = list(chain.from_iterable(parts))[:num_rows]
        return [round(value, _DIGITS) for value in values]  # as the record keeps them

    tokens = list(chain.from_iterable(batch.tokens for batch in batches))
    return Rows(
        joined([batch.losses for batch in batches]),
        tokens[:num_rows],
        {name: joined([batch.scores[name] for batch in batches]) for name in names},
        list(chain.from_iterable(batch.outputs for batch in batches))[:num_rows],
    )


def write(journal: Journal, step: int, data: str, rows: Rows) -> None:
    """Keep an evaluation; what is not finite is kept as None."""
    losses = _finite(rows.losses)
    scores = {name: _finite(values) for name, values in rows.scores.items()}
    for first in range(0, len(losses), _ROWS_IN_A_RECORD):
        part = slice(first, first + _ROWS_IN_A_RECORD)
        mine = tuple(RowScores(name=n, values=tuple(values[part])) for n, values in scores.items())
        record = RowLosses(
            step=step,
            data=data or None,
            first=first,
            losses=tuple(losses[part]),
            tokens=tuple(rows.tokens[part]),
            scores=mine or None,
        )
        journal.append(record, sync=False)
    journal.sync()


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def read(run: RunDir, step: int, data: str) -> Rows | None:
    """The newest evaluation of a set at a step; None if there is none."""
    kept = [r for r in read_all(run.evaluations) if isinstance(r, RowLosses)]
    mine = {r.first: r for r in kept if (r.step, r.data or "") == (step, data)}
    rows = Rows([], [], {})
    while (part := mine.get(len(rows.losses))) is not None and part.losses:
        for score in part.scores or ():
            rows.scores.setdefault(score.name, []).extend(_numbers(score.values))
        rows.losses.extend(_numbers(part.losses))
        rows.tokens.extend(part.tokens)
    return rows if rows.losses else None


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def gain(base: Rows | None, now: Rows) -> Difference | None:
    """How much lower the loss is than the base model's; None if the rows are not the same."""
    if base is None or base.tokens != now.tokens:
        return None
    return paired(base.losses, now.losses, now.tokens)


def scored(
    base: Rows | None, now: Rows, known: Sequence[Score], begun_with: str = ""
) -> tuple[Scored, ...]:
    """Each score of a set, compared row by row with the base model's, or with what knows nothing.

    `base`: None where there is nothing to compare with, as for the base model itself; `begun_with`:
    what it is of, if not of a base model.
    """
    found = (_scored(base, now, score) for score in known if score.name in now.scores)
    by_rows = {score.name for score in known if score.chance is None and not score.than}
    return tuple(
        replace(one, against=begun_with) if begun_with and one.name in by_rows else one
        for one in found
    )


def _scored(base: Rows | None, now: Rows, score: Score) -> Scored:
    values, before = now.scores[score.name], _before(base, now, score)
    difference = paired(values, before, [1] * len(values)) if before else None
    mean, was = fmean(values), fmean(before) if before else math.nan
    return Scored(
        name=score.name,
        value=mean if math.isfinite(mean) else None,
        before=was if math.isfinite(was) else None,
        against=score.against,
        gain=difference.ends if difference else None,
    )


def _before(base: Rows | None, now: Rows, score: Score) -> list[float]:
    """What each row is compared with; empty where there is nothing."""
    if base is None or base.tokens != now.tokens:
        return []
    if score.chance is not None:
        return [score.chance] * len(now.losses)
    if score.than:
        return now.scores[score.than]
    return base.scores.get(score.name, [])
