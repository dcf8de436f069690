"""Whether documents that are packed into one row stay apart, measured on the model itself.

Some families make masks of their own (Falcon, OPT, BLOOM, MPT) or look past borders otherwise
(gpt-oss): there a document reads those before it, and learns from them, without an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainingArguments
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from advisor.plan import Plan
from profiles.data.words import printable
from profiles.runs.journal import read_all
from profiles.runs.records.packing import Packing
from profiles.runs.records.worker import Prepared
from runner.engines import engine_of
from runner.engines.ranks import Ranks
from runner.training.attempt import Attempt

_MOST_TOKENS = 64
"""Of each document: enough to be read, and a moment's work on a CPU."""
_TOLERANCE = 1e-5
"""Of the largest logit: fp32 rounds to a hundredth of it."""
_TIMES_ROUNDING = 8.0
"""In 16 bits rounding alone is larger, so it is measured too."""


def decide(
    attempt: Attempt, plan: Plan, model: Any, rows: Any, settings: TrainingArguments
) -> bool:
    """Whether rows are packed, told as an event; all ranks ask, and the first one finds out.

    It holds for the whole run: the position in the data depends on it. A model that fits a device
    is put there, where the Trainer would put it.
    """
    if engine_of(plan.engine).forwards_alone:
        model.to(settings.device)
    ranks = Ranks(settings.world_size, is_main=settings.process_index == 0)
    return ranks.from_main(ranks.is_main and _decide(attempt, model, rows))


def _decide(attempt: Attempt, model: Any, rows: Any) -> bool:
    earlier = list(read_all(attempt.run.worker_events))
    if known := [event.apart for event in earlier if isinstance(event, Packing)]:
        return known[-1]
    if any(isinstance(event, Prepared) for event in earlier):
        return True  # begun by a version that packed whatever it was told to
    found = measure(model, rows[0]["input_ids"], rows[len(rows) - 1]["input_ids"])
    attempt.events.append(found)
    return found.apart


def measure(model: Any, first: Sequence[int], second: Sequence[int]) -> Packing:
    """Compare the second document's logits behind the first one with those it has alone.

    What rounding does is seen with the documents in the other order: causal attention keeps the
    one in front from reading the other, packed apart or not.
    """
    one, other = (list(ids[:_MOST_TOKENS]) for ids in (first, second))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = _logits(model, {"input_ids": [other], "attention_mask": [[1] * len(other)]})
            front = _packed(model, other, one)[: len(other)]
            behind = _packed(model, one, other)[-len(other) :]
    except Exception as error:  # noqa: BLE001  # a family may refuse packed rows in any way
        return Packing(apart=False, what=f"{_UNPACKED}: {printable(str(error), 200)}")
    finally:
        model.train(was_training)
    return judged(_distance(behind, alone), _distance(front, alone), float(alone.abs().max()))


def judged(difference: float, rounding: float, largest: float) -> Packing:
    """By the distance behind another document, that of rounding, and the largest logit alone."""
    most = max(_TOLERANCE * largest, _TIMES_ROUNDING * rounding)
    what = "" if difference <= most else _leaks(difference, rounding)
    return Packing(apart=not what, difference=difference, rounding=rounding, what=what)


_UNPACKED = "rows are not packed, though data.packing asks for it"


def _leaks(difference: float, rounding: float) -> str:
    return (
        f"{_UNPACKED}: a document would read the one before it in its row (its logits differ by "
        f"{difference:.2g} from those it has alone; rounding makes {rounding:.0e})"
    )


def _packed(model: Any, *documents: list[int]) -> torch.Tensor:
    """Logits of one row of documents, given as training gives it."""
    ids = [token for document in documents for token in document]
    row = {"input_ids": ids, "labels": ids, "seq_lengths": [len(one) for one in documents]}
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)([row])
    del batch["labels"]
    return _logits(model, batch)


def _logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    device = next(model.parameters()).device
    moved = {
        name: value if isinstance(value, int) else torch.as_tensor(value, device=device)
        for name, value in batch.items()
    }
    logits: torch.Tensor = model(**moved, use_cache=False).logits[0].float()
    return logits


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference; infinite if something is no number."""
    found = float((one - other).abs().max())
    return found if found == found else torch.inf  # noqa: PLR0124  # not a number
