"""Kahneman-Tversky Optimization: good replies become likelier than before, bad ones less likely.

Ethayarajh et al., arXiv 2402.01306, equations 7 and 8. The reference point is a mean over the
micro-batch: how much likelier its replies became to the prompts of other rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from advisor.registry.tasks import Beta
from profiles.data.formats.spec import Example
from runner.training import pairs
from runner.training.batches import IGNORED_LABEL, Counts
from runner.training.data import Render, labelled
from runner.training.on_rows import RunOnRows, arguments, padding_of
from runner.training.pieces import Batch
from runner.training.row_losses import RowValues

__all__ = ["TRAINER", "arguments", "columns"]


def columns(example: Example, render: Render, max_length: int) -> dict[str, Any] | None:
    """A rated reply in tokens; None if it has none within this length."""
    found = labelled(render(example), max_length)
    if found is None:
        return None
    return {"input_ids": found.ids, "labels": found.labels, "is_good": bool(example.is_good)}


@dataclass(frozen=True, slots=True)
class Collator:
    """A batch of rows: each with its own reply, then each with that of the row before it."""

    pad: int
    max_length: int

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        """Sequences of shape (2 * rows, longest); `is_good` and `weight` of shape (rows,)."""
        both = [
            {**row, "rejected_ids": ids, "rejected_labels": labels}
            for row, (ids, labels) in zip(rows, map(self._mixed, rows, _turned(rows)), strict=True)
        ]
        return {
            **pairs.Collator(self.pad)(both),
            "is_good": torch.tensor([row["is_good"] for row in rows]),
            "weight": torch.tensor([row.get("weight", 1.0) for row in rows]),
        }

    def _mixed(self, asked: dict[str, Any], answered: dict[str, Any]) -> tuple[list[int], ...]:
        """The prompt of one row with the reply of another, cut to a length."""
        prompt = asked["input_ids"][: _start(asked)]
        reply = answered["input_ids"][_start(answered) :]
        labels = [IGNORED_LABEL] * len(prompt) + answered["labels"][_start(answered) :]
        return [*prompt, *reply][: self.max_length], labels[: self.max_length]


def _turned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[-1], *rows[:-1]]


def _start(row: dict[str, Any]) -> int:
    """Tokens before the reply."""
    return next(i for i, label in enumerate(row["labels"]) if label != IGNORED_LABEL)


class KtoBatches(pairs.RowBatches):
    """Two sequences a row, of which the first alone is trained on."""

    blocks = 2

    def counts(self, rows: list[dict[str, Any]], batch: Batch) -> Counts:
        """Of what is trained on; the others are asked beside it."""
        return super().counts(rows, _half(batch, 0))


class RunKto(RunOnRows):
    """One attempt of a run that trains on rated replies."""

    batches = KtoBatches()

    def __init__(self, *args: Any, processing_class: Any, eval_dataset: Any, **kw: Any) -> None:
        """As RunOnRows has it."""
        collator = Collator(padding_of(processing_class), args[1].seq_len)
        kw |= {"processing_class": processing_class, "eval_dataset": _balanced(eval_dataset)}
        super().__init__(*args, data_collator=collator, **kw)

    def of_whole(self, model: Any, parts: list[Batch]) -> Batch:
        """How much likelier replies to other prompts became, at least 0; 0 if there is no other."""
        rows = sum(map(self.batches.num_rows, parts))
        gained = torch.zeros((), device=self.args.device)
        for part in parts if rows > 1 else ():
            other = _half(self._prepare_inputs(part), 1)
            with torch.no_grad():
                now, _ = self.log_probs(model, other)
                with self.reference() as before:
                    was, _ = self.log_probs(before, other)
            gained = gained + (now - was).sum()
        return {"gained": (gained / rows).clamp(min=0)}

    def row_losses(self, model: Any, inputs: Any) -> RowValues:
        """1 - sigmoid of how far a reply gained more, if it is good, or less than others."""
        assert isinstance(self.goal, Beta)
        mine, sign = _half(inputs, 0), torch.where(inputs["is_good"], 1.0, -1.0)
        with self.reference() as before:
            reference, _ = self.log_probs(before, mine)
        sums, counts = self.log_probs(model, mine)
        gains = sums - reference
        further = sign * (gains - inputs["gained"])
        losses = 1 - torch.sigmoid(self.goal.beta * further)
        weight = inputs["weight"]
        scores = {
            "margin": weight * sign * (gains / counts).detach(),
            "accuracy": weight * (further.detach() > 0),
        }
        return RowValues(losses, torch.ones_like(losses), scores)


def _half(inputs: Batch, number: int) -> Batch:
    """The rows' own sequences (0), or those with the replies of others (1)."""
    names = ("input_ids", "labels", "attention_mask")
    return {name: inputs[name].chunk(2)[number] for name in names}


def _balanced(sets: Any) -> Any:
    """With a weight for each row, so that good and bad replies count as much in a set's scores."""
    if isinstance(sets, dict):
        return {name: _balanced(rows) for name, rows in sets.items()}
    if sets is None:
        return None
    good = sets["is_good"]
    num_good = sum(good)
    shares = {True: num_good / len(good), False: 1 - num_good / len(good)}
    return sets.add_column(
        "weight", [0.5 / shares[one] if 0 < shares[one] < 1 else 1.0 for one in good]
    )


TRAINER = RunKto
