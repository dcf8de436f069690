"""Committing what the Trainer has staged, and whether there is room for it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from advisor.registry.optimizer_spec import OptimizerSpec
from profiles.runs.records.worker import Checkpoint, Rotated
from profiles.runs.rundir import RunDir
from runner import checkpoints
from runner.engines import loading
from runner.optimizers.weights import layer_matrices
from runner.training import room
from runner.training.attempt import Attempt
from runner.training.endings import diverged
from runner.training.room import Shortfall
from runner.training.selection import Selection

Value = TypeVar("Value")
_UNTRUSTED = "training_args.bin"
"""A pickle that the Trainer leaves in checkpoints and nobody needs."""


@dataclass(slots=True, kw_only=True)
class Saver:
    """The checkpoints of one attempt; used by the first rank alone."""

    attempt: Attempt
    keep: int
    optimizer: OptimizerSpec
    facts: dict[str, Any]
    """What the position in the data depends on, for the manifests."""
    selection: Selection
    """The evaluations so far."""

    @property
    def run(self) -> RunDir:
        """Where the checkpoints go."""
        return self.attempt.run

    def needed_bytes(self, model: torch.nn.Module) -> int:
        """Size of the checkpoint to come: like the last one, or weights and their states."""
        if last := checkpoints.committed(self.run):
            return _size(last[0].path)
        return weights_bytes(model) + state_bytes(model, self.optimizer)

    def shortfall(self, needed_bytes: int) -> Shortfall | None:
        """What a checkpoint of this size lacks."""
        return room.shortfall(self.run.checkpoints, needed_bytes)

    def try_to(self, write: Callable[[], Value], needed_bytes: int) -> Value | Shortfall:
        """What `write` returns, or the room that it lacked; any other OSError goes up."""
        try:
            return write()
        except OSError as error:
            lacking = room.shortfall_of(error, self.run.checkpoints, needed_bytes)
            if lacking is None:
                raise
            return lacking

    def commit(self, staging: Path, step: int, *, epoch: float | None, started: float) -> None:
        """Give a staged checkpoint its name, tell of it, and remove what is too old."""
        events = self.attempt.events
        folder = staging / f"checkpoint-{step}"
        (folder / _UNTRUSTED).unlink(missing_ok=True)
        done = checkpoints.commit(self.run, folder, step, epoch=epoch, **self.facts)
        checkpoints.drop(staging)
        self.mark_best()
        seconds = round(time.perf_counter() - started, 4)
        events.append(Checkpoint(step=step, seconds=seconds, bytes=_size(done.path)))
        if removed := checkpoints.rotate(self.run, self.keep):
            events.append(Rotated(steps=tuple(removed)))

    def mark_best(self) -> None:
        """Of the checkpoints, the one with the lowest evaluation loss is kept."""
        losses = self.selection.losses
        known = [
            (losses[c.step], c.step) for c in checkpoints.committed(self.run) if c.step in losses
        ]
        loss, step = min(known, default=(math.inf, 0))
        if math.isfinite(loss):
            with contextlib.suppress(OSError):  # the checkpoint itself is committed
                checkpoints.mark_best(self.run, step, loss)


def weights_bytes(model: torch.nn.Module) -> int:
    """Size of the weights that a checkpoint and the final artefact hold.

    Those that train, and all others of a model that is saved whole.
    """
    whole = loading.is_saved_whole(model)
    saved = [p for p in model.parameters() if whole or p.requires_grad]
    return sum(int(p.numel() * p.element_size()) for p in saved)


def state_bytes(
    model: torch.nn.Module,
    optimizer: OptimizerSpec,
    local: Callable[[torch.Tensor], torch.Tensor] = lambda weight: weight,
) -> int:
    """Size of what the optimizer will keep of all weights, or of those parts that are here."""
    matrices = set(layer_matrices(model))
    return sum(
        optimizer.bytes_for(tuple(part.shape), part.element_size(), in_layer=name in matrices)
        for name, part in (
            (n, local(p.detach())) for n, p in model.named_parameters() if p.requires_grad
        )
    )


def refuse_nonfinite(
    model: torch.nn.Module,
    local: Callable[[torch.Tensor], torch.Tensor],
    state: Any,
    run: RunDir,
) -> None:
    """UserError (82) if a trained weight is not finite: such a model is never saved.

    `local`: the part of a weight that this process holds.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(local(parameter.detach())).all():
            raise diverged(f"the weights {name} are not finite", state, run)


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
