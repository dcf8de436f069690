"""What becomes of a recipe that was edited between two attempts: takes effect, or is refused.

One line for each key. What the checkpoint to go on from cannot be brought in line with is refused
before the start, whatever is allowed; all else is as the recipe has it from the next step on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Final

from advisor.recipe import Recipe
from profiles.errors import ExitCode, UserError
from profiles.quantities import some_of
from profiles.runs import advice
from profiles.runs.journal import read_all
from profiles.runs.records.worker import Changed
from profiles.runs.rundir import RunDir
from runner import checkpoints
from runner.checks.replay import Change

TAKES_EFFECT: Final = ""
_FILE_OF_MIX: Final = re.compile(r"data\.train\.\d+\.file")
_POSITION = "the position in the data would not be the same"
_ROWS = "rows that were held out may have been learnt, and losses would be of other rows"
_GOAL = "losses before and after would be of another objective"
_WEIGHTS = "the weights of the checkpoint were trained with the other value"
_STATES = "the checkpoint has the states of the other optimizer"
_TYPES = "the checkpoint has weights and states of the other type"
_DIVISION = "the checkpoint was divided among processes in the other way"
_UNKNOWN = "nobody has said what it would mean for a run that is under way"

EDITS: Final = MappingProxyType(
    {
        "schema": TAKES_EFFECT,
        "task": _WEIGHTS,
        # paths: whether there is the same at the new place, the lock's hashes tell
        "model.id": TAKES_EFFECT,
        "model.new_tokens": _WEIGHTS,
        "model.rope_type": _WEIGHTS,
        "model.rope_factor": _WEIGHTS,
        "model.rope_theta": _WEIGHTS,
        "model.adapter": TAKES_EFFECT,
        "model.adapters": TAKES_EFFECT,
        "model.adapter_use": _WEIGHTS,
        "data.train": TAKES_EFFECT,
        "method.dropout": TAKES_EFFECT,
        "train.epochs": TAKES_EFFECT,
        "train.max_steps": TAKES_EFFECT,
        "train.learning_rate": TAKES_EFFECT,
        "train.scheduler": TAKES_EFFECT,
        "train.warmup": TAKES_EFFECT,
        "train.optimizer": _STATES,
        "train.weight_decay": TAKES_EFFECT,
        "train.max_grad_norm": TAKES_EFFECT,
        "train.micro_batch": _POSITION,
        "train.accumulation": _POSITION,
        "train.precision": _TYPES,
        "train.checkpointing": TAKES_EFFECT,
        "train.loss": TAKES_EFFECT,
        "train.neftune_noise_alpha": TAKES_EFFECT,
        "train.router_aux_loss_coef": TAKES_EFFECT,
        "train.shifted_attention": TAKES_EFFECT,
        "train.workers": TAKES_EFFECT,
        "train.eval_every": TAKES_EFFECT,
        "train.save_every": TAKES_EFFECT,
        "train.log_every": TAKES_EFFECT,
        "train.stats_every": TAKES_EFFECT,
        "train.keep_checkpoints": TAKES_EFFECT,
        "train.keep": TAKES_EFFECT,
        "train.early_stopping": TAKES_EFFECT,
        "train.samples": TAKES_EFFECT,
        "train.on_spike": TAKES_EFFECT,
        "train.seed": _POSITION,
        "hardware.strategy": _DIVISION,
        "hardware.gpus": _DIVISION,
    }
)
"""Key of the recipe -> takes effect, or why it is refused."""
TABLES: Final = MappingProxyType({"data": _ROWS, "method": _WEIGHTS, "objective": _GOAL})
"""Of a whole table: why each of its keys is refused that has no line of its own."""


def refusal(key: str) -> str:
    """Why another value of this key is refused; empty if it takes effect."""
    if _FILE_OF_MIX.fullmatch(key):
        key = "data.train"
    return EDITS.get(key, TABLES.get(key.partition(".")[0], _UNKNOWN))


def refuse(changed: Iterable[Change], run: RunDir) -> None:
    """UserError (78) if a key was edited with which no checkpoint of the run can go on.

    Without a checkpoint there is nothing that would not fit.
    """
    if not checkpoints.committed(run):
        return
    edited = [change for change in changed if change.is_of_recipe and refusal(change.recipe_key)]
    if not edited:
        return
    told = [f"{one.recipe_key} was {one.then}, is {one.now}" for one in edited]
    reasons = dict.fromkeys(refusal(change.recipe_key) for change in edited)
    raise UserError(
        f"a run cannot go on with another {some_of([c.recipe_key for c in edited])}",
        why=f"{some_of(told, between='; ')}: {'; '.join(reasons)}",
        do=f"put it back in the run's recipe.toml; {advice.anew(run)} as it is now",
        where=str(run.recipe),
        code=ExitCode.BAD_RECIPE,
    )


def words(changed: Iterable[Change], run: RunDir, recipe: Recipe, step: int) -> Iterator[str]:
    """What a resume after this step says of each change that it goes on with."""
    for change in changed:
        told = f"not as the run began: {change.words}"
        if change.input_key:
            told += "; losses before and after cannot be compared"
        elif change.is_of_recipe:
            told += _since(change.recipe_key, run, step)
        yield told
    if (last := recipe.train.max_steps) is not None and last < step:
        yield f"train.max_steps is {last}, and step {step} is made: what is left is to publish"


def _since(key: str, run: RunDir, step: int) -> str:
    name = key.rpartition(".")[2]
    earlier = (e for e in read_all(run.worker_events) if isinstance(e, Changed) and e.step <= step)
    asked = [steps for e in earlier if (steps := getattr(e, name, None)) is not None]
    if asked:
        return f"; but `advisor change` asked for {asked[-1]}, which holds"
    return f"; it takes effect after step {step}" if step else ""
