"""How long a run takes: its start, its steps, its evaluations, its checkpoints and its end.

The steps take what the speed estimate says. What goes on beside them is added up from the same
rates, and from times that were measured once (2 shared x86 cores, warm files, torch 2.13,
transformers 5.14): a start on a slow disk or a busy machine takes longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from advisor.choice import storage
from advisor.choice.lengths import Lengths
from advisor.cost.flops import flops_per_token
from advisor.cost.rates import BANDWIDTH_SHARE
from advisor.cost.speed import CPU_BYTES_PER_SECOND
from advisor.cost.weights import base_bytes

if TYPE_CHECKING:
    from advisor.choice.fit import Fit
    from advisor.plan import Plan
    from profiles.facts import Dataset, Machine, Model

PERIODS: Final = 5
"""Evaluations and checkpoints in a run, unless the recipe says otherwise."""
NEW_TOKENS: Final = 64
"""The most of an answer to a held-out prompt."""
_SHARES: Final = (8, 1, 1)
"""Of the rows for training, for evaluation, and for neither: a recipe's default."""

_IMPORT_SECONDS: Final = 4.5
"""Of the process, with torch and the libraries."""
_LAUNCHER_SECONDS: Final = 4.0
"""More where a launcher starts a process for each GPU: it imports torch before they do."""
_CUDA_SECONDS: Final = 4.0
"""Until a GPU can be used: context, kernels, the caching allocator. Assumed."""
_READ_BYTES_PER_SECOND: Final = 1e9
"""Of weights from a disk: an NVMe drive's, or half of what the page cache gives. Assumed."""
_WRITE_BYTES_PER_SECOND: Final = 5e8
"""Of checkpoints, forced to the disk. Assumed."""
_LOOK_BYTES_PER_SECOND: Final = 4e9
"""Of weights that are looked through for what is not finite."""
_HASH_BYTES_PER_SECOND: Final = 1.3e9
"""By SHA-256, of files that were read a moment ago."""
_BUILD_SECONDS: Final = 0.4
"""Of the network and the adapters, and"""
_OPTIMIZER_SECONDS: Final = 0.3
"""of what the trainer sets up before its first step."""
_TOKENIZER_SECONDS: Final = 0.1
"""Until a tokenizer is there, and for"""
_READ_SECONDS: Final = 30e-6
"""each row that is read and checked."""
_ROW_SECONDS: Final = 0.6e-3
"""Of a row that is rendered and tokenised, and"""
_TOKEN_SECONDS: Final = 0.6e-6
"""of each of its tokens."""
_LAYER_SECONDS: Final = 0.5e-3
"""Of the host, for one layer and one token of an answer."""


class Rows(NamedTuple):
    """Of the data, by what is done with them."""

    trained: int
    evaluated: int
    """All evaluation sets together."""
    held_out: int
    """Kept from both; their prompts may be answered."""


class Wanted(NamedTuple):
    """What the recipe says of how long a run is; its defaults."""

    epochs: float
    max_steps: int | None = None
    eval_every: int | None = None
    save_every: int | None = None
    samples: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What a run goes through, by its recipe and its data; tokens are those of rows as cut."""

    rows: Rows
    mean_tokens: float
    longest: int
    """Tokens of the longest row."""
    trained_tokens: float
    """In all steps together."""
    num_evaluations: int
    """After the start."""
    num_checkpoints: int
    num_answers: int
    """Prompts that are answered at each evaluation."""


def schedule(plan: Plan, lengths: Lengths, rows: Rows, wanted: Wanted) -> Schedule:
    """What a run of the plan on such rows goes through; packed ones are as many as they fill."""
    batches, tokens = float(rows.trained), lengths.mean
    if plan.packing:
        batches, tokens = rows.trained * lengths.mean / plan.seq_len, plan.seq_len
    tokens *= plan.task.sequences_per_row
    an_epoch = max(1, math.ceil(batches / plan.effective_batch))
    num_steps = wanted.max_steps or max(1, math.ceil(an_epoch * wanted.epochs))
    every = interval(num_steps)
    answered = min(wanted.samples, rows.held_out or rows.evaluated)
    return Schedule(
        rows=rows,
        mean_tokens=lengths.mean * plan.task.sequences_per_row,
        longest=lengths.max,
        trained_tokens=num_steps * batches / an_epoch * tokens,
        # The last step is evaluated too, whatever the interval.
        num_evaluations=math.ceil(num_steps / (wanted.eval_every or every)),
        num_checkpoints=num_steps // (wanted.save_every or every),
        num_answers=answered if plan.num_gpus == 1 else 0,
    )


def usual(
    found: Fit, model: Model, machine: Machine, dataset: Dataset | None, epochs: float
) -> Duration | None:
    """How long it takes with the recipe's defaults; None where data or rate are not known."""
    if dataset is None or dataset.tokens is None:
        return None
    lengths = Lengths.of(dataset.tokens, found.plan.seq_len)
    trained, evaluated = (dataset.num_rows * share // sum(_SHARES) for share in _SHARES[:2])
    rows = Rows(max(1, trained), evaluated, dataset.num_rows - trained - evaluated)
    return duration(found, model, machine, schedule(found.plan, lengths, rows, Wanted(epochs)))


def interval(num_steps: int) -> int:
    """Steps from an evaluation to the next, and between checkpoints, where nobody says."""
    return max(1, num_steps // PERIODS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """Expected seconds of a run; an early stop makes it shorter."""

    start: tuple[tuple[str, float], ...]
    """From the launch to the first step, by the phases that a run tells."""
    training: float
    evaluating: float
    """After the start."""
    answering: float
    """The same, of held-out prompts."""
    saving: float
    """Checkpoints and the result."""

    @property
    def until_first_step(self) -> float:
        """Seconds from the launch to the first step."""
        return sum(seconds for _, seconds in self.start)

    @property
    def seconds(self) -> float:
        """From the launch to the end."""
        beside = self.evaluating + self.answering + self.saving
        return self.until_first_step + self.training + beside

    @property
    def hours(self) -> float:
        """The same in hours."""
        return self.seconds / 3600


def duration(
    found: Fit,
    model: Model,
    machine: Machine,
    through: Schedule,
    *,
    merges: bool = False,
    continues: bool = False,
) -> Duration | None:
    """How long the fit's plan takes; None where the device's rate is not known.

    `merges`: an adapter is added to the model first, which is written anew; `continues`: one is
    trained on, and the model is evaluated without it too.
    """
    if found.rates is None:
        return None
    plan, disk = found.plan, storage.disk(model, found.plan)
    rate = found.rates[1]
    evaluation = through.rows.evaluated * through.mean_tokens * _forward_share(model, plan) / rate
    answers = through.num_answers * NEW_TOKENS * _token_seconds(model, plan, machine)
    written = through.num_checkpoints * disk.checkpoint_bytes + disk.artefact_bytes
    return Duration(
        start=(
            *_preparation(model, plan, through, merges=merges),
            ("evaluating", 2 * evaluation if continues else evaluation),
            ("answering", answers),
            ("longest", plan.sequences * through.longest / rate),
        ),
        training=through.trained_tokens / rate,
        evaluating=through.num_evaluations * evaluation,
        # Those of the last evaluation are answered again with the weights that are published.
        answering=(through.num_evaluations + 1) * answers if through.rows.evaluated else answers,
        saving=written / _WRITE_BYTES_PER_SECOND,
    )


def _preparation(
    model: Model, plan: Plan, through: Schedule, *, merges: bool
) -> tuple[tuple[str, float], ...]:
    """Up to where model and data are there; the phases in their order."""
    importing, loading = _IMPORT_SECONDS, _BUILD_SECONDS
    importing += _LAUNCHER_SECONDS if plan.num_gpus > 1 else 0.0
    loading += 0.0 if plan.framework.on_cpu else _CUDA_SECONDS
    weights = storage.weight_bytes(model)
    reading = _TOKENIZER_SECONDS + _READ_SECONDS * sum(through.rows)
    rows = through.rows.trained + through.rows.evaluated
    rates = (_READ_BYTES_PER_SECOND, _WRITE_BYTES_PER_SECOND, _HASH_BYTES_PER_SECOND)
    merging = sum(weights / rate for rate in rates)
    return (
        ("importing", importing),
        ("reading", reading),
        *([("merging", merging)] if merges else []),
        ("loading", loading + weights / _READ_BYTES_PER_SECOND),
        ("checking", weights / _LOOK_BYTES_PER_SECOND),
        ("tokenising", rows * (_ROW_SECONDS + through.mean_tokens * _TOKEN_SECONDS)),
        ("hashing", weights / _HASH_BYTES_PER_SECOND),
        ("preparing", _OPTIMIZER_SECONDS),
    )


def _forward_share(model: Model, plan: Plan) -> float:
    """How much of a training step's work an evaluation of the same rows is."""
    flops = flops_per_token(model, plan)
    return flops.forward_flops / flops.hardware_flops


def _token_seconds(model: Model, plan: Plan, machine: Machine) -> float:
    """One token of an answer: the host starts every layer's kernels, and all weights are read."""
    rate = machine.gpus[0].memory_bytes_per_second if machine.gpus else CPU_BYTES_PER_SECOND
    reading = base_bytes(model, plan) / (BANDWIDTH_SHARE * rate) if rate else 0.0
    return model.num_layers * _LAYER_SECONDS + reading
