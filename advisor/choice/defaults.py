"""What is planned for where the user did not say: row length, batch, epochs, complexity.

All are heuristics on the data set's size and the length of its rows, and every one says so.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from advisor.choice.answers import Answer, Answers, Complexity
from advisor.choice.devices import Batch
from advisor.choice.lengths import Lengths
from advisor.registry.lookup import TASKS
from profiles.facts import Dataset, Model, Origin
from profiles.joining import joined

MANY_ROWS: Final = 10_000
_VERY_MANY_ROWS: Final = 100_000
_LENGTH_STEP: Final = 64
_TEMPLATE_MARGIN: Final = 1.1
_TEMPLATE_TOKENS: Final = 32
_DEFAULT_SEQ_LEN: Final = 2048
_DEFAULT_BATCH: Final = 16
_MIN_STEPS_AN_EPOCH: Final = 20
_SHORT_REPLY: Final = 16
"""Tokens: a label, a name, a number."""
_MUCH_TO_LEARN: Final = 5_000_000
"""Tokens of replies: as 25 000 answers of 200 tokens."""
_LONG_ROW: Final = 2048


def seq_len(model: Model, dataset: Dataset | None, answers: Answers) -> int:
    """Asked for, or the longest row rounded up, within what the model can read."""
    most = model.max_positions if model.max_positions > 0 else 1 << 20
    if answers.seq_len is not None:
        return min(answers.seq_len.value, most)
    if dataset is None or dataset.tokens is None:
        return min(_DEFAULT_SEQ_LEN, most)
    if TASKS[answers.task.value].joins:
        return min(_DEFAULT_SEQ_LEN, dataset.tokens.total, most)
    longest = float(dataset.tokens.max)
    if dataset.tokens.origin is not Origin.MEASURED:
        # A cap that cuts the replies costs far more than one that is too high
        longest = _TEMPLATE_MARGIN * longest + _TEMPLATE_TOKENS
    return min(math.ceil(longest / _LENGTH_STEP) * _LENGTH_STEP, most)


def as_trained(model: Model, dataset: Dataset | None, answers: Answers) -> Dataset | None:
    """The data in rows as the task makes them of the file's."""
    if dataset is None or not TASKS[answers.task.value].joins:
        return dataset
    return joined(dataset, seq_len(model, dataset, answers))


def batch(dataset: Dataset | None, answers: Answers, seq_len: int) -> Batch:
    """16 rows, fewer for small data so that an epoch still has steps to learn in."""
    lengths = Lengths.of(dataset.tokens, seq_len) if dataset and dataset.tokens else None
    if answers.effective_batch is not None:
        asked = answers.effective_batch.origin is Origin.USER
        return Batch(rows=answers.effective_batch.value, asked=asked, lengths=lengths)
    if dataset is None:
        return Batch(rows=_DEFAULT_BATCH)
    most = max(1, dataset.num_rows // _MIN_STEPS_AN_EPOCH)
    rows = min(_DEFAULT_BATCH, 1 << (most.bit_length() - 1))
    return Batch(rows=rows, lengths=lengths)


def epochs(dataset: Dataset | None) -> float:
    """The fewer rows, the more often they are seen."""
    if dataset is None or dataset.num_rows < MANY_ROWS:
        return 3.0
    return 2.0 if dataset.num_rows < _VERY_MANY_ROWS else 1.0


def with_complexity(answers: Answers, dataset: Dataset | None) -> Answers:
    """The complexity that the data suggests, unless the user named one."""
    if answers.complexity.origin is Origin.USER or dataset is None or dataset.tokens is None:
        return answers
    tokens, learnt = dataset.tokens, dataset.tokens.counts.num_learnt
    reply = learnt / max(1, dataset.num_rows)
    found: Complexity = "medium"
    if reply <= _SHORT_REPLY:
        found = "low"
    elif learnt >= _MUCH_TO_LEARN or tokens.p95 >= _LONG_ROW:
        found = "high"
    words = (
        f"a heuristic: {dataset.num_rows} rows, replies of {reply:.0f} tokens on average, "
        f"rows of up to {tokens.p95} tokens (p95)"
    )
    return replace(answers, complexity=Answer(found, tokens.origin), complexity_words=words)
