"""What a training step owes to the people who watch: records, requests, pauses, guards.

A callback of transformers' Trainer, called at the ends of steps. What people ask is decided by the
first rank and told to the others, so that all do the same.
"""

from __future__ import annotations

import contextlib
import time
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState

from advisor.plan import Plan
from profiles.runs.records import Record
from profiles.runs.records.metrics import Loss
from profiles.runs.records.worker import (
    Changed,
    Guard,
    Paused,
    StopAccepted,
    TrainBegun,
    Unpaused,
)
from runner import checkpoints
from runner.engines.ranks import Ranks
from runner.supervision import control
from runner.training import endings
from runner.training.attempt import Attempt
from runner.training.guard import Fault, LossGuard
from runner.training.room import Shortfall
from runner.training.selection import Selection
from runner.training.stopping import VERBS, NoStepLeft
from runner.training.telemetry import StepRecorder

_PAUSE_POLL_SECONDS = 0.5
_ROOM_POLL_SECONDS = 5.0
_BLIND_ROOM_POLL_SECONDS = 30.0
"""A quota cannot be measured from here: only trying again tells."""
_ROOM = "room"
_LOGGED = (
    *("loss", "router_loss", "penalty_loss", "smoothing_loss"),
    *("grad_norm", "learning_rate", "epoch"),
)

OnSpike = Literal["warn", "pause", "stop"]


class Asked(NamedTuple):
    """What a person asks of the run."""

    verb: str
    args: dict[str, int] = {}  # noqa: RUF012  # nobody changes it


class Trains(typing.Protocol):
    """What the callback needs of the trainer that calls it."""

    args: Any
    plan: Plan
    control: TrainerControl
    attempt: Attempt
    ranks: Ranks
    recorder: StepRecorder
    selection: Selection
    eval_dataset: Any
    changes: Sequence[Changed]

    def before_steps(self) -> None:
        """What comes first, on the model as it is wrapped."""

    def try_longest_batch(self) -> None:
        """The longest rows, forward and backward, then forgotten."""

    def compare_ranks(self) -> None:
        """UserError if the processes do not train one model."""

    def shortfall(self, needed_bytes: int) -> Shortfall | None:
        """What a checkpoint of this size lacks."""


class ProtocolCallback(TrainerCallback):  # type: ignore[misc]
    """Obeys requests at step boundaries and writes what happens."""

    def __init__(self, trainer: Trains, *, on_spike: OnSpike) -> None:
        self.trainer = trainer
        self.attempt = trainer.attempt
        self.stop = trainer.attempt.stop
        self.stopping = self._tries_no_more = False
        self._is_compared = False
        self._stop_agreed = self._stop_told = False
        self._ranks = trainer.ranks
        self._on_spike = on_spike
        self._guard = LossGuard(
            has_scaler=trainer.args.fp16, can_be_solved=bool(trainer.plan.task.scores)
        )
        self._optimizer_phase: contextlib.AbstractContextManager[None] | None = None

    def on_train_begin(self, _args: Any, state: TrainerState, _control: Any, **_: Any) -> None:
        """On the model as it is wrapped: what comes before the steps, then the longest batch.

        NoStepLeft: all steps were made by an earlier attempt; the Trainer would make one more.
        """
        if state.global_step >= state.max_steps or self.trainer.selection.is_over:
            raise NoStepLeft
        state.compute_steps(self.trainer.args, state.max_steps)  # a checkpoint brings its own
        for earlier in self.trainer.changes:
            self.change(state, earlier, is_new=False)
        self.trainer.before_steps()
        if self.trainer.selection.is_over:  # by an evaluation that was made up for
            raise NoStepLeft
        with self.attempt.during("longest"):
            self.trainer.try_longest_batch()
        self.stop.wait_for_steps()
        seconds = round(time.monotonic() - self.attempt.began, 1)
        begun = TrainBegun(step=state.global_step, num_steps=state.max_steps, seconds=seconds)
        self._tell(begun)

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """The optimizer's time begins."""
        self._optimizer_phase = self.trainer.recorder.phase("optimizer")
        self._optimizer_phase.__enter__()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """The optimizer's time ends; after the first step the ranks are compared."""
        if self._optimizer_phase is not None:
            self._optimizer_phase.__exit__(None, None, None)
        if not self._is_compared:
            self._is_compared = True
            self.trainer.compare_ranks()

    def on_step_end(self, _args: Any, state: TrainerState, flow: TrainerControl, **_: Any) -> None:
        """Close the step's record, then look at what people ask for."""
        recorder = self.trainer.recorder
        if state.global_step >= state.max_steps and self.trainer.eval_dataset is not None:
            flow.should_evaluate = True  # before the last checkpoint, which may be the best
        counts = self._agree()
        if self._ranks.is_main:
            self.attempt.progress.end_step(state.global_step, recorder.seconds)
            recorder.finish(state.global_step, counts)
        for asked in self._asked():
            self._obey(asked, state, flow)

    def on_log(
        self, _args: Any, state: TrainerState, flow: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Keep the loss, and judge it."""
        if not logs or "loss" not in logs:
            return
        values: dict[str, Any] = {name: float(logs[name]) for name in _LOGGED if name in logs}
        if self.trainer.plan.optimizer.steps_in_backward:
            values.pop("grad_norm", None)  # of gradients that are gone: always 0
        if self._ranks.is_main:
            self.attempt.metrics.append(Loss(step=state.global_step, **values), sync=False)
        fault = self._guard.look(values["loss"], values.get("grad_norm"))
        if fault is not None:
            self._answer(fault, state, flow)

    def _answer(self, fault: Fault, state: TrainerState, flow: TrainerControl) -> None:
        """End the run, or say what was seen and keep what was saved before it."""
        run = self.attempt.run
        self._tell(Guard(step=state.global_step, fault=fault.kind, what=fault.what))
        if fault.kind in ("zero_loss", "zero_gradient"):
            raise endings.nothing_learnt(fault.what, state, run)
        if fault.ends_run:
            raise endings.diverged(fault.what, state, run)
        if fault.kind != "loss_spike":
            return
        if self._ranks.is_main and (last := checkpoints.committed(run)):
            with contextlib.suppress(OSError):  # a full disk is no reason to stop
                checkpoints.pin(run, last[0].step, fault.what)
        if self._on_spike == "stop":
            raise endings.spiked(fault.what, state, run)
        if self._on_spike == "pause":
            self._pause(state, flow, fault.what)

    def _tell(self, record: Record) -> None:
        self.attempt.events.append(record)

    def _agree(self) -> dict[str, int]:
        """One sum over the ranks: token counts, and whether any rank got a signal."""
        counts = self.trainer.recorder.counts
        signals, *sums = self._ranks.totals([int(self.stop.asked), *counts.values()])
        # not into `asked`: a signal that comes meanwhile would be lost, or known to one rank alone
        self._stop_agreed |= signals > 0
        return dict(zip(counts, sums, strict=True))

    def _asked(self) -> Iterator[Asked]:
        """What is asked for now, the same on every rank."""
        found = self._ranks.from_main(self._take_requests() if self._ranks.is_main else [])
        if self._stop_agreed and not self._stop_told:
            self._stop_told = True
            yield Asked("stop")
        yield from found

    def _take_requests(self) -> list[Asked]:
        run, found = self.attempt.run, []
        for request in control.pending(run):
            if request.attempt != run.attempt():
                control.answer(run, request, "ignored: meant for another attempt")
                continue
            control.answer(run, request, "obeyed")
            found.append(Asked(request.verb, request.args))
        return found

    def _obey(self, asked: Asked, state: TrainerState, flow: TrainerControl) -> None:
        verb = asked.verb
        if verb == "checkpoint":
            flow.should_save = True
        elif verb == "change":
            self.change(state, Changed(step=state.global_step, **asked.args))
        elif verb == "pause":
            self._pause(state, flow, "asked to pause")
        elif verb in VERBS and not self.stopping:
            self.stopping = flow.should_training_stop = True
            flow.should_save = verb == "stop"
            self._tell(StopAccepted(step=state.global_step, verb=verb))

    def change(self, state: TrainerState, changed: Changed, *, is_new: bool = True) -> None:
        """Log and evaluate at other intervals from here on."""
        state.logging_steps = changed.log_every or state.logging_steps
        state.eval_steps = changed.eval_every or state.eval_steps
        if is_new:
            self._tell(changed)

    def _pause(self, state: TrainerState, flow: TrainerControl, what: str) -> None:
        for asked in self._wait(state, "asked", what, lambda: False):
            self._obey(asked, state, flow)

    def wait_for_room(self, state: TrainerState, lacking: Shortfall, needed_bytes: int) -> bool:
        """Wait until a checkpoint can be written; False if a stop gives it up.

        A stop saves if there is room by then, and tries once: nobody is there to make more.
        """
        if self._tries_no_more:
            return False
        tried = time.monotonic()
        patience = _BLIND_ROOM_POLL_SECONDS if lacking.cause else _ROOM_POLL_SECONDS

        def has_room() -> bool:
            nonlocal tried
            if time.monotonic() - tried < patience:
                return False
            tried = time.monotonic()
            return self.trainer.shortfall(needed_bytes) is None

        lost = self._lost_without_room(state.global_step)
        what = f"{lacking}; make room, or stop: without room by then {lost}"
        asked = self._wait(state, "disk_full", what, has_room)
        stops = VERBS.intersection(one.verb for one in asked)
        if not stops:
            return True
        self._tries_no_more = True
        has_some = self._ranks.from_main(self.trainer.shortfall(needed_bytes)) is None
        saves = has_some and "stop_now" not in stops
        if not self.stopping:
            self.stopping = self.trainer.control.should_training_stop = True
            self._tell(StopAccepted(step=state.global_step, verb="stop" if saves else "stop_now"))
        return saves

    def _lost_without_room(self, step: int) -> str:
        saved = checkpoints.committed(self.attempt.run)
        if saved and saved[0].step >= step:
            return "nothing that was learnt is lost"
        return f"all that was learnt {f'after step {saved[0].step} ' if saved else ''}is lost"

    def _wait(
        self, state: TrainerState, reason: str, what: str, is_over: Callable[[], bool]
    ) -> list[Asked]:
        """Pause until somebody says so, or `is_over`; returns what else was asked for."""
        self._tell(Paused(step=state.global_step, reason=reason, what=what))
        asked: list[Asked] = []
        with self.attempt.progress.during("paused"):
            while not {"unpause", _ROOM, *VERBS}.intersection(one.verb for one in asked):
                time.sleep(_PAUSE_POLL_SECONDS)
                self._agree()
                asked += [one for one in self._asked() if one.verb != "pause"]
                if self._ranks.from_main(is_over()):
                    asked.append(Asked(_ROOM))
        self._tell(Unpaused(step=state.global_step))
        self.trainer.recorder.begin()
        return [one for one in asked if one.verb not in ("unpause", _ROOM)]
