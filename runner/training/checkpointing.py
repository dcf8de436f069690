"""Checkpoints of the trainer: staged, checked, committed; and loaded back to the last bit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiles.runs.records.worker import SaveBegun, SaveFailed
from runner import checkpoints, methods
from runner.engines import loading
from runner.training import rates, room
from runner.training.parts import Part
from runner.training.room import Shortfall
from runner.training.saving import refuse_nonfinite


class Checkpointing(Part):
    """The part of the run protocol that saves and loads."""

    staging: Path | None
    """Where the checkpoint is written that is being saved."""
    after_saving: Callable[[], None]
    """What the run does then, if anything."""
    rest: Callable[[], None]
    """Makes the weights those to publish."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No model card: it would name local paths, and nothing is published."""

    def shortfall(self, needed_bytes: int) -> Shortfall | None:
        """What a checkpoint of this size lacks."""
        return self.saver.shortfall(needed_bytes)

    def load_weights(self, checkpoint: Path) -> None:
        """Take the weights of a checkpoint and nothing else of it."""
        self._load_from_checkpoint(str(checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Every trained weight, or UserError."""
        checkpoint = Path(resume_from_checkpoint)
        methods.restore(self.model, self.plan, checkpoint)
        if self.plan.method.own_checkpoint:
            loading.load_trained(model or self.model, checkpoint)
            return
        self.engine.load(self.accelerator, model or self.model, checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Their states, at the recipe's rate and decay."""
        with rates.of_the_recipe(self.optimizer, self.lr_scheduler):
            super()._load_optimizer_and_scheduler(checkpoint)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A model to publish, or (the Trainer's own call) a checkpoint to load back."""
        methods.before_saving(self.model, self.plan)
        names = loading.own_names(self.model) if _internal_call else contextlib.nullcontext()
        with names:
            super().save_model(output_dir, _internal_call)
        if self.ranks.is_main:
            self._complete(Path(str(output_dir)), is_checkpoint=_internal_call)

    def _complete(self, folder: Path, *, is_checkpoint: bool) -> None:
        """What was saved, as the method wants it."""
        if not is_checkpoint:
            methods.publish(self.model, self.plan, folder)
            return
        methods.keep(self.model, self.plan, folder)
        if self.plan.method.own_checkpoint:
            loading.keep_trained(self.model, folder)

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ARG002  # the Trainer's signature
        return str(self.staging)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Stage, check, commit; on a full disk wait for room, or for a stop that has none."""
        step, progress, events = self.state.global_step, self.attempt.progress, self.attempt.events
        self.layers.tell(step)
        self.rest()
        refuse_nonfinite(self.model, self.engine.local, self.state, self.attempt.run)
        events.append(SaveBegun(step=step))
        needed = self.ranks.from_main(self.saver.needed_bytes(self.model))
        with progress.during("checkpoint"):
            while (lacking := self._write_checkpoint(model, trial, needed)) is not None:
                if not self.protocol.wait_for_room(self.state, lacking, needed):
                    events.append(SaveFailed(step=step, what=str(lacking)))
                    break
        self.after_saving()
        self.recorder.begin()

    def _write_checkpoint(self, model: Any, trial: Any, needed: int) -> Shortfall | None:
        """Write and commit, or say what room is lacking, the same on every rank."""
        run, step, started = self.attempt.run, self.state.global_step, time.perf_counter()
        if lacking := self.ranks.from_main(self.saver.shortfall(needed)):
            return lacking
        mine: Path | Shortfall | None = None
        if self.ranks.is_main:
            mine = self.saver.try_to(lambda: checkpoints.stage(run, step), needed)
        staging = self.ranks.from_main(mine)
        if isinstance(staging, Shortfall):
            return staging
        assert staging is not None
        self.staging = staging
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:  # whatever a library raises, the file system is asked
            lacking = room.shortfall_of(error, run.checkpoints, needed)
            checkpoints.drop(staging)
            if lacking is None or self.ranks.world_size > 1:  # the others wait in a collective
                raise
            return lacking
        self.accelerator.wait_for_everyone()
        return self.ranks.from_main(self._commit(staging, started, needed))

    def _commit(self, staging: Path, started: float, needed: int) -> Shortfall | None:
        """By the first rank; what room was lacking."""
        if not self.ranks.is_main:
            return None
        step, epoch = self.state.global_step, self.state.epoch
        done = self.saver.try_to(
            lambda: self.saver.commit(staging, step, epoch=epoch, started=started), needed
        )
        if not isinstance(done, Shortfall):
            return None
        checkpoints.drop(staging)
        return done
