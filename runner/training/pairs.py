"""Rows that are preference pairs: two replies to one prompt, the chosen and the rejected one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from profiles.data.formats.spec import Example
from runner.training.batches import IGNORED_LABEL, Batches, Counts
from runner.training.data import Render, labelled
from runner.training.pieces import Batch

_SIDES = (("input_ids", "labels"), ("rejected_ids", "rejected_labels"))
"""Columns of the chosen and of the rejected sequence."""


def columns(example: Example, render: Render, max_length: int) -> dict[str, Any] | None:
    """Both sequences in tokens; None if either reply has no token within this length."""
    assert example.worse is not None  # the task takes nothing but pairs
    chosen, rejected = (labelled(render(one), max_length) for one in (example, example.worse))
    if chosen is None or rejected is None:
        return None
    values = (*chosen, *rejected)
    return dict(zip([name for side in _SIDES for name in side], values, strict=True))


@dataclass(frozen=True, slots=True)
class Collator:
    """Sequences to a batch: the first of every row, then the second of every row."""

    pad: int
    """Token id that fills up."""
    sides: tuple[tuple[str, str], ...] = _SIDES

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        """Tensors of shape (sides * rows, longest)."""
        ids = [row[name] for name, _ in self.sides for row in rows]
        labels = [row[name] for _, name in self.sides for row in rows]
        return {
            "input_ids": padded(ids, self.pad),
            "labels": padded(labels, IGNORED_LABEL),
            "attention_mask": padded([[1] * len(one) for one in ids], 0),
        }


def padded(rows: list[list[int]], filling: int) -> torch.Tensor:
    """Rows of several lengths as one tensor, filled up on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filling] * (width - len(row))] for row in rows])


class RowBatches(Batches):
    """Rows of one sequence, each of which counts once."""

    def num_learnt(self, batch: Batch) -> int:
        """The loss is a mean over rows."""
        return int(batch["input_ids"].shape[0]) // self.blocks


class PairBatches(RowBatches):
    """Two sequences a row, which stay together."""

    blocks = 2
    columns = ("input_ids", "rejected_ids")

    def lengths(self, dataset: Any) -> list[int]:
        """Of each pair that of its longer sequence, to which both are filled up."""
        columns = [dataset[name] for name in self.columns]
        return [max(map(len, row)) for row in zip(*columns, strict=True)]

    def counts(self, rows: list[dict[str, Any]], batch: Batch) -> Counts:
        """As of rows of one sequence, but for the longest."""
        longest = max(len(row[name]) for row in rows for name in self.columns)
        return super().counts(rows, batch)._replace(longest=longest)
