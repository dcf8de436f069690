"""A trainer under the run protocol, on a model of a few weights: it needs milliseconds."""

from __future__ import annotations

import torch
from plans import made
from real_runs import StillHeart
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments

from advisor.recipe_sections import TrainSection
from profiles.runs import rundir
from profiles.runs.journal import Journal
from runner.training.attempt import Attempt
from runner.training.batches import IGNORED_LABEL
from runner.training.stopping import StopFlag
from runner.training.trainer import RunProtocol

WORDS = 7


class Heart(StillHeart):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def tick(self, number=1):
        self.told.append((self.phase, "tick", number))

    def expect(self, total):
        self.told.append((self.phase, "expect", total))


class Pairs(torch.nn.Module):
    """The next word by the word before it alone."""

    accepts_loss_kwargs = True
    """The Trainer counts the labels of the whole step."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(WORDS, WORDS)
        self.frozen = torch.nn.Parameter(torch.ones(5), requires_grad=False)

    def forward(self, input_ids, attention_mask):
        assert attention_mask.shape == input_ids.shape
        return self.table(input_ids)


class SmallTrainer(RunProtocol, Trainer):
    """Learns every label but the first of a row."""

    def _losses(self, model, inputs):
        labels = inputs["labels"][:, 1:]
        logits = model(**{k: v for k, v in inputs.items() if k != "labels"})[:, :-1]
        losses = cross_entropy(
            logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED_LABEL
        )
        return losses, labels != IGNORED_LABEL

    def compute_loss(self, model, inputs, _outputs=False, num_items_in_batch=None):
        losses, counted = self._losses(model, inputs)
        if num_items_in_batch is None:
            return losses.sum() / counted.sum().clamp(min=1) * self.share
        return losses.sum() / num_items_in_batch

    def row_losses(self, model, inputs):
        losses, counted = self._losses(model, inputs)
        return losses.sum(1), counted.sum(1)


def padded(rows):
    """A batch of rows of different lengths."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = [row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows]
    labels = [row["labels"] + [IGNORED_LABEL] * (width - len(row["labels"])) for row in rows]
    mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
    return {
        "input_ids": torch.tensor(ids),
        "labels": torch.tensor(labels),
        "attention_mask": torch.tensor(mask),
    }


class RowList(list):
    """Rows that are also asked for by column."""

    def __getitem__(self, key):
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)


def row(length, *, learnt=None):
    """Words in a cycle, of which the last `learnt` are learnt."""
    ids = [index * index % WORDS for index in range(length)]
    hidden = 0 if learnt is None else length - learnt
    return {"input_ids": ids, "labels": [IGNORED_LABEL] * hidden + ids[hidden:]}


ROWS = RowList(row(length) for length in (3, 6, 4, 5, 8, 2, 4, 7))


def new_attempt(run, number=1):
    """An attempt that writes what a real one does."""
    paths = (run.worker_events, run.metrics, run.evaluations, run.layers)
    events, metrics, evaluations, layers = (Journal(path, attempt=number) for path in paths)
    return Attempt(
        run=run,
        events=events,
        metrics=metrics,
        evaluations=evaluations,
        layers=layers,
        progress=Heart(),
        stop=StopFlag(),
    )


def small_trainer(  # noqa: PLR0913  # as many as a test may want to set
    *,
    train=ROWS,
    evaluated=None,
    steps=4,
    micro_batch=2,
    accumulation=2,
    save_steps=100,
    eval_steps=100,
    section=None,
    kind=SmallTrainer,
    attempt=None,
    **settings,
):
    """Ready to train a new run; `section`: settings of the recipe's [train]."""
    attempt = attempt or new_attempt(rundir.create("small"))
    torch.manual_seed(0)
    args = TrainingArguments(
        output_dir=str(attempt.run.path / ".trainer"),
        max_steps=steps,
        learning_rate=0.5,
        per_device_train_batch_size=micro_batch,
        per_device_eval_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        use_cpu=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        eval_strategy="steps" if evaluated else "no",
        eval_steps=eval_steps,
        save_strategy="steps",
        save_steps=save_steps,
        prediction_loss_only=True,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    return kind(
        attempt,
        made("full", seq_len=8),
        facts={"seed": 0},
        lighter=["a smaller model", "fewer words"],
        train=TrainSection(**(section or {})),
        model=Pairs(),
        args=args,
        data_collator=padded,
        train_dataset=train,
        eval_dataset=evaluated,
    )
