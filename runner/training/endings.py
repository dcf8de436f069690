"""Why a run ends for what its numbers say: the errors that a person is told."""

from __future__ import annotations

import math
from pathlib import Path

from transformers import TrainerState

from advisor.recipe import Recipe
from profiles.errors import ExitCode, UserError
from profiles.runs import advice, devices
from profiles.runs.rundir import RunDir
from runner import checkpoints


def diverged(what: str, state: TrainerState, run: RunDir) -> UserError:
    """The numbers are no longer of use; what was saved before them still is."""
    losses = [
        entry["loss"] for entry in state.log_history if math.isfinite(entry.get("loss", math.nan))
    ]
    last = f"the last finite loss was {losses[-1]:.3f}" if losses else "no step had a finite loss"
    saved = checkpoints.committed(run)
    kept = f"; the weights of step {saved[0].step} are finite and kept" if saved else ""
    return UserError(
        f"training diverged at step {state.global_step}: {what}",
        why=last + kept,
        do="lower train.learning_rate, warm up longer, or use bf16 instead of fp16; look at the "
        "data with `advisor data check`",
        where=str(run.metrics),
        code=ExitCode.DIVERGED,
    )


def nothing_learnt(what: str, state: TrainerState, run: RunDir) -> UserError:
    """Loss or gradient are exactly zero."""
    return UserError(
        f"stopped at step {state.global_step}: {what}",
        why="no token of these batches is learnt, or no weight takes part",
        do="see with `advisor data check` how many replies are left at data.max_length",
        where=str(run.metrics),
        code=ExitCode.DIVERGED,
    )


def spiked(what: str, state: TrainerState, run: RunDir) -> UserError:
    """The recipe says that a loss spike ends the run."""
    return UserError(
        f"stopped on a loss spike at step {state.global_step}: {what}",
        why='the recipe says train.on_spike = "stop"',
        do="lower train.learning_rate, or look at the rows of these steps; the checkpoint before "
        "the spike is pinned",
        where=str(run.metrics),
        code=ExitCode.LOSS_SPIKE,
    )


def gpus_gone(run: RunDir) -> UserError:
    """The run began on GPUs, and none of them can be used now."""
    return UserError(
        "the GPUs of this run cannot be used any more",
        why=f"it was started for {', '.join(devices.of(run))}, and CUDA finds none of them",
        do=f"look with `advisor probe`; {advice.command('resume', run)} takes those that are there",
        where=str(run.path),
        code=ExitCode.GPU_LOST,
    )


def nothing_to_learn(recipe: Recipe, base_dir: Path) -> UserError:
    """Of all rows nothing is left to train on."""
    return UserError(
        "no example has a token to learn from",
        why=f"the prompts alone fill data.max_length = {recipe.data.max_length}",
        do="raise data.max_length; `advisor data check` shows the lengths",
        where=str(base_dir / recipe.data.train_files[0].file),
        code=ExitCode.BAD_DATA,
    )
