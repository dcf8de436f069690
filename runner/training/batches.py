"""What a batch of a task is made of: its rows, the tokens that count, and those that are learnt.

As it is with rows of tokens and a label for each; a task with other batches overrides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from runner.training import pieces
from runner.training.pieces import Batch

IGNORED_LABEL = -100
"""torch's ignore index: a position that is not learnt."""


class Counts(NamedTuple):
    """What a batch holds, for the step's record."""

    rows: int
    padded_tokens: int
    tokens: int
    label_tokens: int
    longest: int
    """Tokens of the longest row."""


class Batches:
    """Rows of tokens with labels."""

    blocks = 1
    """Sequences of a row. A batch holds first one of every row, then the next of every row."""
    columns: tuple[str, ...] = ("input_ids",)
    """Of a tokenised row, those that hold its tokens."""

    def lengths(self, dataset: Any) -> list[int]:
        """Tokens of each row of a tokenised data set."""
        columns = [dataset[name] for name in self.columns]
        return [sum(map(len, row)) for row in zip(*columns, strict=True)]

    def longest(self, dataset: Any, rows: int) -> list[int]:
        """Indices of the `rows` longest examples: no micro-batch of the run can be larger."""
        lengths = self.lengths(dataset)
        return sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)[:rows]

    def num_rows(self, batch: Batch) -> int:
        """Into so many pieces a batch can be divided."""
        return pieces.num_rows(batch, self.blocks)

    def divided(self, batch: Batch, num_pieces: int) -> list[Batch]:
        """The batch as up to so many smaller ones."""
        return pieces.pieces_of(batch, num_pieces, self.blocks)

    def num_learnt(self, batch: Batch) -> int:
        """By which the loss of a batch is weighted among those of others.

        The tokens that count in it; the first of a row is never predicted.
        """
        return int((batch["labels"][:, 1:] != IGNORED_LABEL).sum())

    def counts(self, rows: list[dict[str, Any]], batch: Batch) -> Counts:
        """What a batch holds that was made of these tokenised rows; on the CPU."""
        lengths = [sum(len(row[name]) for name in self.columns) for row in rows]
        return Counts(
            rows=len(rows),
            padded_tokens=batch["input_ids"].numel(),
            tokens=sum(lengths),
            label_tokens=int((batch["labels"] != IGNORED_LABEL).sum()),
            longest=max(lengths),
        )
