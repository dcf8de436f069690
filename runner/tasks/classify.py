"""Classification: the class of a text, by a head on what the model makes of all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from advisor.plan import Plan
from advisor.registry.tasks import COMMONEST
from profiles.class_facts import Classes
from profiles.data import classes
from profiles.data.formats.spec import Example
from runner.training import class_scores
from runner.training.attempt import Attempt
from runner.training.data import Render, Splits
from runner.training.on_rows import RunOnRows, arguments, padding_of
from runner.training.pairs import padded
from runner.training.pieces import Batch
from runner.training.row_losses import Rows, RowValues

__all__ = ["TRAINER", "arguments", "columns"]

_MOST_FOR_AUC = 100
"""Classes whose probabilities are kept for all rows of a set until it is judged."""


def columns(example: Example, render: Render, max_length: int) -> dict[str, Any] | None:
    """A text in tokens, and its label."""
    return {"input_ids": render(example).ids[:max_length], "label": example.label}


@dataclass(frozen=True, slots=True)
class Collator:
    """Texts with a class each to a batch."""

    pad: int
    """Token id that fills up."""
    place: dict[str, int]
    """Of each class among the numbers of the head."""

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        """Tokens of shape (rows, longest), and the class of each row."""
        ids = [row["input_ids"] for row in rows]
        return {
            "input_ids": padded(ids, self.pad),
            "attention_mask": padded([[1] * len(one) for one in ids], 0),
            "labels": torch.tensor([self.place[row["label"]] for row in rows]),
        }


class RunClassify(RunOnRows):
    """One attempt of a run that trains a classifier."""

    def __init__(
        self, attempt: Attempt, plan: Plan, *, model: Any, train_dataset: Any, **kw: Any
    ) -> None:
        """As RunOnRows has it; the model says which number of its head is which class."""
        self.place: dict[str, int] = model.config.label2id
        commonest, _ = Counter(sorted(train_dataset["label"])).most_common(1)[0]
        self.commonest = self.place[commonest]
        kw["data_collator"] = Collator(padding_of(kw["processing_class"]), self.place)
        super().__init__(attempt, plan, model=model, train_dataset=train_dataset, **kw)

    @staticmethod
    def head(splits: Splits) -> dict[str, Any]:
        """A number for each class that any row has; UserError unless they can be told apart."""
        assert splits.train.rows is not None
        trained = Counter(splits.train.rows["label"])
        classes.refuse(trained, "data.train")
        sets = [part.rows for part in (splits.train, *splits.eval.values(), splits.test)]
        names = ordered({name for rows in sets if rows is not None for name in rows["label"]})
        return {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
        }

    def row_losses(self, model: Any, inputs: Any) -> RowValues:
        """-log of the probability of each row's class."""
        numbers, labels = self.outputs(model, inputs), inputs["labels"]
        losses = cross_entropy(numbers, labels, reduction="none")
        found, known = numbers.detach().argmax(1), labels
        scores = {"accuracy": found == known, COMMONEST: known == self.commonest}
        told = [known[:, None], found[:, None]]
        if numbers.shape[1] <= _MOST_FOR_AUC:
            told.append(numbers.detach().softmax(1))
        return RowValues(
            losses,
            torch.ones_like(losses),
            {name: values.float() for name, values in scores.items()},
            torch.cat([one.double() for one in told], 1),
        )

    def of_set(self, rows: Rows) -> Classes | None:
        """How the rows were sorted."""
        actual, found = ([int(row[i]) for row in rows.outputs] for i in range(2))
        shares = [row[2:] for row in rows.outputs] if len(self.place) <= _MOST_FOR_AUC else []
        return class_scores.classes_of(list(self.place), actual, found, shares)


def ordered(names: Iterable[str]) -> list[str]:
    """Whole numbers by size, words by the alphabet."""
    known = set(names)
    if all(name.lstrip("-").isdecimal() for name in known):
        return sorted(known, key=lambda name: (int(name), name))
    return sorted(known)


TRAINER = RunClassify
