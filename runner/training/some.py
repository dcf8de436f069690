"""Some of the rows to train on as batches, for a method that begins with a look at them."""

from __future__ import annotations

from typing import Any

import torch

from runner import methods
from runner.resume import Start
from runner.training.batches import IGNORED_LABEL
from runner.training.telemetry import TOKEN_STATS

_MOST_ROWS = 256


def make_from_rows(trainer: Any, start: Start) -> None:
    """What the method adds, where it follows from the data; a checkpoint has its shapes.

    Before the optimizer is made, which holds the weights that there are by then.
    """
    plan, attempt = trainer.plan, trainer.attempt
    if not (least := methods.reads_rows(plan)):
        return
    if start.path is not None:
        methods.restore(trainer.model, plan, start.path)
        return
    with attempt.during("directions"):
        attempt.events.append(methods.from_rows(trainer.model, plan, batches(trainer, least)))


def batches(trainer: Any, least_tokens: int) -> list[dict[str, Any]]:
    """Rows from all over the set, in its order, each batch with so many tokens to learn at least.

    What is left at the end has fewer, and is left out. The order of training is not touched.
    """
    rows = trainer.train_dataset
    found: list[dict[str, Any]] = []
    chosen: list[dict[str, Any]] = []
    for index in range(0, len(rows), -(-len(rows) // _MOST_ROWS)):
        chosen.append(rows[index])
        if len(chosen) < trainer.args.per_device_train_batch_size:
            continue
        batch = trainer.data_collator(list(chosen))
        batch.pop(TOKEN_STATS, None)
        if int((batch["labels"] != IGNORED_LABEL).sum()) >= least_tokens:
            found.append({name: _placed(v, trainer.args.device) for name, v in batch.items()})
            chosen = []
    return found


def _placed(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value
