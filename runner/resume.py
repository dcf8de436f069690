"""Where an attempt goes on, and whether it may: the newest checkpoint that is sound and fits.

An optimizer's state and random states are loaded only from what this user's run has written; of a
checkpoint that somebody else put there, the weights alone are taken.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advisor.recipe import Recipe
from profiles.errors import ExitCode, UserError
from profiles.runs import advice, reading
from profiles.runs.journal import read_all
from profiles.runs.records.worker import OutOfMemory
from profiles.runs.rundir import RunDir, read_json
from runner import checkpoints

_NAMES = {
    "micro_batch": "train.micro_batch",
    "accumulation": "train.accumulation",
    "world_size": "hardware.gpus",
    "seed": "train.seed",
    "packing": "data.packing",
    "max_length": "data.max_length",
    "method": "method.name",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where training begins."""

    path: Path | None = None
    """The checkpoint, or None for the base model."""
    step: int = 0
    weights_only: bool = False
    what: str = ""
    """The choice with its reason, for people; empty for a fresh start."""
    passed_over: tuple[str, ...] = ()
    faulty: tuple[checkpoints.Checkpoint, ...] = ()
    """Newer ones that do not verify, for whoever sets them aside."""


def facts(recipe: Recipe, world_size: int) -> dict[str, Any]:
    """What the position in the data and the optimizer's state depend on, for manifests."""
    return {
        "micro_batch": recipe.train.micro_batch,
        "accumulation": recipe.train.accumulation,
        "world_size": world_size,
        "seed": recipe.train.seed,
        "packing": recipe.data.packing,
        "max_length": recipe.data.max_length,
        "method": recipe.method.name,
    }


def choose(run: RunDir, now: dict[str, Any]) -> Start:
    """The newest checkpoint that is sound; UserError if none is, or if it does not fit `now`."""
    sound, faults = checkpoints.newest_sound(run)
    reasons = tuple(f"step {checkpoint.step}: {fault}" for checkpoint, fault in faults.items())
    if sound is None:
        if reasons:
            raise _none_left(run, reasons)
        return Start(what="no checkpoint was saved: going on from the base model")
    passed: dict[str, Any] = {"passed_over": reasons, "faulty": tuple(faults)}
    because = f" ({'; '.join(reasons)})" if reasons else ""
    if not _is_ours(sound.path):
        what = f"going on with the weights of step {sound.step}, which another user wrote, and a "
        what += "new optimizer"
        return Start(path=sound.path, weights_only=True, what=what + because, **passed)
    saved = read_json(sound.path / checkpoints.MANIFEST) or {}
    _refuse_change(run, saved, now, sound)
    return Start(
        path=sound.path,
        step=sound.step,
        what=f"going on from step {sound.step}, the newest that verifies{because}",
        **passed,
    )


def set_foreign_aside(run: RunDir, start: Start) -> Start:
    """Give another user's checkpoints names that do not count; the chosen one under its new name.

    Steps begin at 1 again, so theirs would be taken for newer than what this run will save.
    """
    path = start.path
    for checkpoint in checkpoints.committed(run):
        aside = checkpoints.set_aside(checkpoint)
        path = aside if checkpoint.path == start.path else path
    checkpoints.forget_marks(run)
    return replace(start, path=path)


def _is_ours(folder: Path) -> bool:
    """Written by this user: an optimizer's state is a pickle, and only loaded from oneself."""
    return all(path.lstat().st_uid == os.getuid() for path in (folder, *folder.rglob("*")))


def pieces(run: RunDir, during: str) -> int:
    """Into how many pieces earlier attempts had to divide a micro-batch."""
    divided = [e for e in read_all(run.worker_events) if isinstance(e, OutOfMemory)]
    found = [e.pieces for e in divided if e.during == during]
    error = read_json(run.error) or {}
    if during == "train" and error.get("clean_restart"):
        found.append(max(1, reading.whole(error, "pieces")))
    return max(found, default=1)


def _refuse_change(
    run: RunDir, saved: dict[str, Any], now: dict[str, Any], checkpoint: checkpoints.Checkpoint
) -> None:
    changed = [
        f"{_NAMES[key]} was {saved[key]}, is {value}"
        for key, value in now.items()
        if key in saved and saved[key] != value
    ]
    if changed:
        raise UserError(
            f"step {checkpoint.step} cannot be gone on from with other settings",
            why="; ".join(changed) + ": the position in the data would not be the same",
            do=f"put them back; or {advice.anew(run)}",
            where=str(checkpoint.path),
            code=ExitCode.BAD_RECIPE,
        )


def _none_left(run: RunDir, reasons: tuple[str, ...]) -> UserError:
    return UserError(
        "no checkpoint can be resumed from",
        why="; ".join(reasons),
        do=advice.anew(run),
        where=str(run.checkpoints),
        code=ExitCode.NO_CHECKPOINT,
    )
