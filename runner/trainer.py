"""TRL's SFTTrainer with our run protocol: staged checkpoints, requests, telemetry, a NaN stop."""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from trl import SFTTrainer

from profiles.errors import ExitCode, UserError
from profiles.journal import Journal
from profiles.rundir import RunDir
from runner import checkpoints, control
from runner.telemetry import TOKEN_STATS, CountingCollator, StepRecorder

_PAUSE_POLL_SECONDS = 0.5
_ENDS_PAUSE = frozenset({"unpause", "stop", "stop_now"})
_UNTRUSTED = "training_args.bin"
"""A pickle that the Trainer leaves in checkpoints and nobody needs."""


class Progress(Protocol):
    """What the heartbeat shows."""

    step: int
    phase: str


def shard_by_layer(plugin: Any) -> None:
    """Make each layer an FSDP unit of its own, under PEFT too.

    transformers gives PEFT's models a policy that Accelerate's FSDP2 does not know; it then leaves
    all layers in one unit, which gathers the whole model at once.
    """
    plugin.auto_wrap_policy = transformer_auto_wrap_policy


class RunTrainer(SFTTrainer):  # type: ignore[misc]
    """One attempt of a run."""

    def __init__(
        self,
        *,
        run: RunDir,
        events: Journal,
        metrics: Journal,
        progress: Progress,
        full_logits: bool,
        keep: int,
        **kw: Any,
    ) -> None:
        super().__init__(**kw)
        self.run = run
        self.events = events
        self.progress = progress
        self.recorder = StepRecorder(metrics, self.args.device)
        self.full_logits = full_logits
        self._keep = keep
        self._staging: Path | None = None
        self.data_collator: Any = CountingCollator(self.data_collator)
        self._time_backward()
        if self.is_fsdp_enabled:
            self._shard_by_layer()
        self.add_callback(ProtocolCallback(self, metrics))

    def _time_backward(self) -> None:
        backward = self.accelerator.backward

        def timed(*args: Any, **kwargs: Any) -> None:
            with self.recorder.phase("backward"):
                backward(*args, **kwargs)

        self.accelerator.backward = timed

    def _shard_by_layer(self) -> None:
        """Just before Accelerate wraps the model, after the Trainer has chosen for PEFT."""
        prepare, plugin = self.accelerator.prepare, self.accelerator.state.fsdp_plugin

        def prepared(*args: Any, **kwargs: Any) -> Any:
            shard_by_layer(plugin)
            return prepare(*args, **kwargs)

        self.accelerator.prepare = prepared

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """All micro-batches of a step are fetched here: the data wait of the step."""
        self.recorder.begin()
        with self.recorder.phase("data"):
            batches, num_items = super().get_batch_samples(*args, **kwargs)
        for batch in batches:
            self.recorder.count(batch.pop(TOKEN_STATS))
        return batches, num_items

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss alone: TRL's would read entropy and accuracy back from the device each time."""
        if return_outputs:
            return super().compute_loss(model, inputs, True, num_items_in_batch)
        with self.recorder.phase("forward"):
            inputs = {**inputs, "use_cache": False}
            if self.full_logits:
                return Trainer.compute_loss(self, model, inputs, False, num_items_in_batch)
            loss = model(**inputs, fused_lm_head=True, num_items_in_batch=num_items_in_batch).loss
            if self.args.average_tokens_across_devices and num_items_in_batch is not None:
                loss = loss * self.accelerator.num_processes
            return loss

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluation batches carry the token counts too."""
        inputs.pop(TOKEN_STATS, None)
        return super().prediction_step(model, inputs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, and keep the result as an event."""
        started = time.perf_counter()
        result: dict[str, float] = super().evaluate(*args, **kwargs)
        self.recorder.begin()
        if self.is_world_process_zero() and "eval_loss" in result:
            self.events.append(
                "evaluated",
                step=self.state.global_step,
                loss=result["eval_loss"],
                seconds=round(time.perf_counter() - started, 4),
            )
        return result

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No model card: it would name local paths, and nothing is published."""

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ARG002  # the Trainer's signature
        return str(self._staging)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Stage, check, commit; the Trainer writes into the staging directory only."""
        step, started = self.state.global_step, time.perf_counter()
        self._refuse_nonfinite_weights()
        if self.is_world_process_zero():
            self.events.append("save_begun", step=step)
            self._staging = checkpoints.stage(self.run, step)
        self._staging = Path(self._from_rank_zero(str(self._staging)))
        try:
            Trainer._save_checkpoint(self, model, trial)  # noqa: SLF001  # ours adds no model card
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                self._commit(self._staging, step, started)
        except OSError:
            shutil.rmtree(self._staging, ignore_errors=True)  # half a checkpoint fills the disk
            raise
        self.accelerator.wait_for_everyone()
        self.recorder.begin()

    def _commit(self, staging: Path, step: int, started: float) -> None:
        folder = staging / f"checkpoint-{step}"
        (folder / _UNTRUSTED).unlink(missing_ok=True)
        done = checkpoints.commit(
            self.run, folder, step, epoch=self.state.epoch, world_size=self.args.world_size
        )
        staging.rmdir()
        seconds = round(time.perf_counter() - started, 4)
        num_bytes = sum(f.stat().st_size for f in done.path.rglob("*") if f.is_file())
        self.events.append("checkpoint", step=step, seconds=seconds, bytes=num_bytes)
        if removed := checkpoints.rotate(self.run, self._keep):
            self.events.append("rotated", steps=removed)

    def _from_rank_zero(self, value: str) -> str:
        if self.args.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def _refuse_nonfinite_weights(self) -> None:
        for name, parameter in self.model.named_parameters():
            local = getattr(parameter, "_local_tensor", parameter)
            if parameter.requires_grad and not torch.isfinite(local).all():
                raise _diverged(f"the weights {name} are not finite", self.state, self.run)


def _diverged(what: str, state: TrainerState, run: RunDir) -> UserError:
    losses = [
        entry["loss"] for entry in state.log_history if math.isfinite(entry.get("loss", math.nan))
    ]
    last = f"the last finite loss was {losses[-1]:.3f}" if losses else "no step had a finite loss"
    return UserError(
        f"training diverged at step {state.global_step}: {what}",
        why=last,
        do="lower train.learning_rate, warm up longer, or use bf16 instead of fp16; "
        "no checkpoint was written after the fault",
        where=str(run.metrics),
        code=ExitCode.DIVERGED,
    )


class ProtocolCallback(TrainerCallback):  # type: ignore[misc]
    """Obeys requests at step boundaries and writes what happens."""

    def __init__(self, trainer: RunTrainer, metrics: Journal) -> None:
        self.trainer = trainer
        self.metrics = metrics
        self.stopping = False
        self._asked_by_signal = False
        self._group: Any = None
        self._optimizer_phase: contextlib.AbstractContextManager[None] | None = None
        if trainer.args.world_size > 1:
            self._group = dist.new_group(backend="gloo")  # on the CPU: no device is waited for
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self._asked_by_signal:  # the second time means now
            raise SystemExit(ExitCode.STOPPED)
        self._asked_by_signal = True

    def on_train_begin(self, _args: Any, state: TrainerState, _control: Any, **_: Any) -> None:
        """Say how long the run will be."""
        if self.trainer.is_world_process_zero():
            self.trainer.events.append(
                "train_begun", step=state.global_step, num_steps=state.max_steps
            )

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """The optimizer's time begins."""
        self._optimizer_phase = self.trainer.recorder.phase("optimizer")
        self._optimizer_phase.__enter__()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """The optimizer's time ends."""
        if self._optimizer_phase is not None:
            self._optimizer_phase.__exit__(None, None, None)

    def on_step_end(self, _args: Any, state: TrainerState, flow: TrainerControl, **_: Any) -> None:
        """Close the step's record, then look at what people ask for."""
        self.trainer.progress.step = state.global_step
        counts = self._agree()
        if self.trainer.is_world_process_zero():
            self.trainer.recorder.finish(state.global_step, counts)
        for verb in self._verbs():
            self._obey(verb, state, flow)

    def on_log(
        self, _args: Any, state: TrainerState, _control: Any, logs: Any = None, **_: Any
    ) -> None:
        """Keep the loss; stop at the first one that is not finite."""
        if not logs or "loss" not in logs:
            return
        if self.trainer.is_world_process_zero():
            names = ("loss", "grad_norm", "learning_rate", "epoch")
            values = {n: float(logs[n]) for n in names if n in logs}
            self.metrics.append("loss", sync=False, step=state.global_step, **values)
        if not math.isfinite(float(logs["loss"])):
            raise _diverged(f"the loss became {logs['loss']}", state, self.trainer.run)

    def _agree(self) -> dict[str, int]:
        """One sum over the ranks, on the CPU: token counts, and whether any rank got a signal."""
        counts = self.trainer.recorder.counts
        if self._group is not None:
            mine = torch.tensor([int(self._asked_by_signal), *counts.values()])
            dist.all_reduce(mine, group=self._group)
            signals, *sums = (int(value) for value in mine)
            self._asked_by_signal = signals > 0
            counts = dict(zip(counts, sums, strict=True))
        return counts

    def _verbs(self) -> Iterator[str]:
        """What is asked for now, the same on every rank."""
        verbs = [""]
        if self.trainer.is_world_process_zero():
            verbs = self._take_requests()
        if self._group is not None:
            dist.broadcast_object_list(verbs, src=0, group=self._group)
        if self._asked_by_signal:
            yield "stop"
        yield from filter(None, verbs[0].split())

    def _take_requests(self) -> list[str]:
        run, verbs = self.trainer.run, []
        for request in control.pending(run):
            if request.attempt != run.attempt():
                control.answer(run, request, "ignored: meant for another attempt")
                continue
            control.answer(run, request, "obeyed")
            verbs.append(request.verb)
        return [" ".join(verbs)]

    def _obey(self, verb: str, state: TrainerState, flow: TrainerControl) -> None:
        events, main = self.trainer.events, self.trainer.is_world_process_zero()
        if verb == "checkpoint":
            flow.should_save = True
        elif verb == "pause":
            self._pause(state, flow)
        elif verb in ("stop", "stop_now") and not self.stopping:
            self.stopping = flow.should_training_stop = True
            flow.should_save = verb == "stop"
            if main:
                events.append("stop_accepted", step=state.global_step, verb=verb)

    def _pause(self, state: TrainerState, flow: TrainerControl) -> None:
        events, main = self.trainer.events, self.trainer.is_world_process_zero()
        if main:
            events.append("paused", step=state.global_step)
        asked: list[str] = []
        while not _ENDS_PAUSE.intersection(asked):
            time.sleep(_PAUSE_POLL_SECONDS)
            self._agree()
            asked += [verb for verb in self._verbs() if verb != "pause"]
        if main:
            events.append("unpaused", step=state.global_step)
        self.trainer.recorder.begin()
        for verb in asked:
            if verb != "unpause":
                self._obey(verb, state, flow)
