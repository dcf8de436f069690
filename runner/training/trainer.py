"""TRL's SFTTrainer with our run protocol: batches in pieces, staged checkpoints, telemetry."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers import Trainer
from trl import SFTTrainer

from profiles.runs.records.worker import Evaluated, LongestTried, SaveBegun, SaveFailed
from runner import checkpoints
from runner.training import loading, pieces, room
from runner.training.attempt import Attempt
from runner.training.division import Division, During
from runner.training.protocol import OnSpike, ProtocolCallback
from runner.training.ranks import Ranks
from runner.training.room import Shortfall
from runner.training.saving import STATES_PER_WEIGHT, Saver, refuse_nonfinite
from runner.training.stopping import StopEarly
from runner.training.telemetry import TOKEN_STATS, CountingCollator, StepRecorder


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
        attempt: Attempt,
        *,
        full_logits: bool,
        keep: int,
        facts: dict[str, Any],
        lighter: Sequence[str],
        on_spike: OnSpike,
        **kw: Any,
    ) -> None:
        """`facts` go into every checkpoint's manifest; `lighter` are changes that save memory."""
        super().__init__(**kw)
        self.attempt = attempt
        self.ranks = Ranks(self.args.world_size, is_main=self.is_world_process_zero())
        self.recorder = StepRecorder(attempt.metrics, self.args.device)
        self.full_logits = full_logits
        self.saver = Saver(attempt=attempt, keep=keep, facts=facts)
        self.division = Division(
            attempt=attempt,
            device=self.args.device,
            rows=self.args.per_device_train_batch_size,
            accumulation=self.args.gradient_accumulation_steps,
            lighter=lighter,
        )
        self.before_steps: Callable[[], None] = lambda: None
        """Called once the model is wrapped, before the first step of an attempt."""
        self._staging: Path | None = None
        self._begun: list[pieces.Batch] = []
        self._is_trial = False
        self._share = 1.0
        self.data_collator: Any = CountingCollator(self.data_collator)
        self._time_backward()
        if self.is_fsdp_enabled:
            self._shard_by_layer()
        self.protocol = ProtocolCallback(self, on_spike=on_spike)
        self.add_callback(self.protocol)

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

    # --- One optimizer step -----------------------------------------------------------------

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """All micro-batches of a step are fetched here: the data wait of the step."""
        self.recorder.begin()
        self._begun = []
        with self.recorder.phase("data"):
            batches, num_items = super().get_batch_samples(*args, **kwargs)
        for batch in batches:
            self.recorder.count(batch.pop(TOKEN_STATS))
        return batches, num_items

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Gradients of one micro-batch; out of memory, the whole step again in smaller pieces.

        The step's gradients so far are thrown away with the failed ones, so what is added up in
        the end is the step as planned, on the same rows.
        """
        self._begun.append(inputs)
        todo = [inputs]
        while True:
            try:
                return [self._in_pieces(model, one, num_items_in_batch) for one in todo][-1]
            except Exception as error:  # what ran out of memory is decided below
                reason = self.division.reason_of(error)
                if not reason:
                    raise
            # outside of the handler: the error's frames hold on to the tensors that were too many
            self._divide("train", reason, max(pieces.num_rows(one) for one in self._begun))
            model.zero_grad()
            todo = self._begun

    def _in_pieces(self, model: Any, inputs: Any, num_items: Any) -> torch.Tensor:
        """The loss of a micro-batch: the sum over its pieces, each a share of the step's tokens."""
        *early, last = pieces.pieces_of(inputs, self.division.pieces["train"])
        learnt, total = max(1, pieces.num_learnt(inputs)) if early else 0, 0.0
        for piece in early:
            with self._unsynced(model):
                total = total + self._one_piece(model, piece, num_items, learnt)
        loss: torch.Tensor = self._one_piece(model, last, num_items, learnt) + total
        return loss

    def _one_piece(self, model: Any, piece: Any, num_items: Any, learnt: int) -> Any:
        """`learnt`: tokens that the whole micro-batch learns; 0 if it is not divided."""
        self._share = pieces.num_learnt(piece) / learnt if learnt else 1.0
        self.attempt.progress.tick()
        return super().training_step(model, piece, num_items)

    def _unsynced(self, model: Any) -> contextlib.AbstractContextManager[None]:
        """DDP adds up the gradients of the ranks once a micro-batch; shards are added each time."""
        if self.args.world_size == 1 or self.is_fsdp_enabled:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = self.accelerator.no_sync(model=model)
        return context

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss alone: TRL's would read entropy and accuracy back from the device each time."""
        if return_outputs:
            return super().compute_loss(model, inputs, True, num_items_in_batch)
        with self.recorder.phase("forward"):
            inputs = {**inputs, "use_cache": False}
            if self.aux_loss_enabled:
                inputs["output_router_logits"] = True
            if self.full_logits:
                return self._full_loss(model, inputs, num_items_in_batch)
            return self._fused_loss(model, inputs, num_items_in_batch)

    def _fused_loss(self, model: Any, inputs: Any, num_items: Any) -> Any:
        """As TRL's: the sum over tokens by the step's tokens; of a micro-batch's mean its share."""
        outputs = model(**inputs, fused_lm_head=True)
        count = outputs.label_mask.sum() if num_items is None else num_items
        loss = -outputs.log_probs.sum() / torch.as_tensor(count).clamp(min=1)
        loss = loss * (self._share if num_items is None else self._num_averaged)
        if self.aux_loss_enabled:
            loss = loss + self._aux_weight(num_items) * outputs.aux_loss
        return loss

    def _full_loss(self, model: Any, inputs: Any, num_items: Any) -> Any:
        """The model's own loss; the router's part of it is weighted as it should be."""
        loss, outputs = Trainer.compute_loss(self, model, inputs, True, num_items)
        if num_items is None:
            return loss * self._share
        if self.aux_loss_enabled:
            inside = self.router_aux_loss_coef * self._num_averaged
            loss = loss + (self._aux_weight(num_items) - inside) * outputs.aux_loss
        return loss

    @property
    def _num_averaged(self) -> int:
        """Ranks over whose gradients DDP takes a mean, while the tokens counted are all ranks'."""
        return self.accelerator.num_processes if self.args.average_tokens_across_devices else 1

    def _aux_weight(self, num_items: Any) -> float:
        """Of the router's loss: a mean over micro-batches; over pieces it is nearly the same."""
        parts = 1 if num_items is None else self.current_gradient_accumulation_steps
        weight: float = self.router_aux_loss_coef * self._share / parts
        return weight

    # --- Out of memory ----------------------------------------------------------------------

    def _divide(self, during: During, reason: str, rows: int) -> None:
        """Twice as many pieces from here on, if no other rank waits for this one."""
        is_local = (during == "eval" or self._is_trial) and not self.is_fsdp_enabled
        is_alone = self.args.world_size == 1 or is_local
        step = self.state.global_step
        self.division.divide(during, reason, rows=rows, step=step, is_alone=is_alone)
        if self.args.device.type == "cuda":
            torch.cuda.empty_cache()

    def try_longest_batch(self, model: Any) -> None:
        """Forward and backward of the longest rows before the first step, then forget it.

        Random states are put back, so that training goes on as if this had not been. Room for the
        optimizer's state, which comes later, is taken meanwhile.
        """
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        rows = pieces.longest_batch(lengths, self.args.per_device_train_batch_size)
        batch = self.data_collator([self.train_dataset[index] for index in rows])
        batch.pop(TOKEN_STATS)
        device = self.args.device
        devices = [device] if device.type == "cuda" else []
        started = time.perf_counter()
        self._begun, self._is_trial, before = [], True, self.division.pieces["train"]
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        with torch.random.fork_rng(devices=devices), self._unsynced(model):
            ballast = self._optimizer_room()
            num_items = torch.tensor(pieces.num_learnt(batch), device=device)
            self.training_step(model, batch, num_items.clamp(min=1))
            del ballast
        model.zero_grad()
        self._is_trial = False
        agreed = self.ranks.largest(self.division.pieces["train"])
        if self.ranks.world_size > 1 and agreed > before:
            reason = "the longest batch was too large for one of the GPUs"
            self.division.set("train", agreed, reason, step=self.state.global_step)
        self.recorder.begin()
        tried = LongestTried(
            rows=len(rows),
            longest=max(lengths[index] for index in rows),
            seconds=round(time.perf_counter() - started, 3),
        )
        self.attempt.events.append(tried)

    def _optimizer_room(self) -> torch.Tensor | None:
        """Memory of the size that the optimizer's state will have, if it has none yet."""
        name = getattr(self.args.optim, "value", self.args.optim)
        is_elsewhere = name.startswith("paged") or self.is_fsdp_enabled
        if self.args.device.type != "cuda" or self.optimizer.state or is_elsewhere:
            return None
        trained = [p for p in self.model.parameters() if p.requires_grad]
        eight_bit = "8bit" in name
        num_bytes = sum(p.numel() * (1 if eight_bit else p.element_size()) for p in trained)
        size = STATES_PER_WEIGHT * num_bytes
        return torch.empty(size, dtype=torch.uint8, device=self.args.device)

    # --- Evaluation -------------------------------------------------------------------------

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """One evaluation batch; out of memory, again in smaller pieces. A stop ends it here."""
        inputs.pop(TOKEN_STATS, None)
        self.attempt.progress.tick()
        if self.attempt.stop.asked and self.args.world_size == 1:
            raise StopEarly
        while True:
            try:
                return self._predict_in_pieces(model, inputs, *args, **kwargs)
            except Exception as error:  # what ran out of memory is decided below
                reason = self.division.reason_of(error)
                if not reason:
                    raise
            self._divide("eval", reason, pieces.num_rows(inputs))

    def _predict_in_pieces(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """(loss, None, None): the mean over the batch's tokens, as if it had not been divided."""
        parts, self._share = pieces.pieces_of(inputs, self.division.pieces["eval"]), 1.0
        if len(parts) == 1:
            return super().prediction_step(model, inputs, *args, **kwargs)
        predict = super().prediction_step
        pairs = [(predict(model, p, *args, **kwargs)[0], pieces.num_learnt(p)) for p in parts]
        shares = [loss * weight for loss, weight in pairs if weight] or [pairs[0][0] * 0]
        return sum(shares) / max(1, sum(weight for _, weight in pairs)), None, None

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, and keep the result as an event; a stop during training leaves it out."""
        started, progress = time.perf_counter(), self.attempt.progress
        phase, progress.phase = progress.phase, "evaluating"
        try:
            result: dict[str, float] = super().evaluate(*args, **kwargs)
        except StopEarly:
            if self.attempt.stop.may_interrupt:
                raise
            self.control.should_evaluate = False
            return {}
        finally:
            progress.phase = phase
            self.recorder.begin()
        if "eval_loss" in result:
            step, loss = self.state.global_step, result["eval_loss"]
            self.saver.newest_loss = step, loss
            seconds = round(time.perf_counter() - started, 4)
            self.attempt.events.append(Evaluated(step=step, loss=loss, seconds=seconds))
        return result

    # --- Checkpoints ------------------------------------------------------------------------

    def load_weights(self, checkpoint: Path) -> None:
        """Take the weights of a checkpoint and nothing else of it."""
        self._load_from_checkpoint(str(checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Every trained weight, or UserError."""
        model, checkpoint = model or self.model, Path(resume_from_checkpoint)
        if not self.is_fsdp_enabled:
            loading.load(model, checkpoint)
            return
        with loading.complete(model, checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A model to publish, or (the Trainer's own call) a checkpoint to load back."""
        names = loading.own_names(self.model) if _internal_call else contextlib.nullcontext()
        with names:
            super().save_model(output_dir, _internal_call)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No model card: it would name local paths, and nothing is published."""

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ARG002  # the Trainer's signature
        return str(self._staging)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Stage, check, commit; on a full disk wait for room, or for a stop without saving."""
        step, progress, events = self.state.global_step, self.attempt.progress, self.attempt.events
        refuse_nonfinite(self.model, self.state, self.attempt.run)
        phase, progress.phase = progress.phase, "checkpoint"
        events.append(SaveBegun(step=step))
        needed = self.ranks.from_main(self.saver.needed_bytes(self.model))
        while (lacking := self._write_checkpoint(model, trial, needed)) is not None:
            if not self.protocol.wait_for_room(self.state, lacking, needed):
                events.append(SaveFailed(step=step, what=str(lacking)))
                break
        progress.phase = phase
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
        self._staging = staging
        try:
            Trainer._save_checkpoint(self, model, trial)  # noqa: SLF001  # ours adds no model card
        except Exception as error:  # whatever a library raises, the file system is asked
            lacking = room.shortfall_of(error, run.checkpoints, needed)
            checkpoints.drop(staging)
            if lacking is None or self.args.world_size > 1:  # the others wait in a collective
                raise
            return lacking
        self.accelerator.wait_for_everyone()
        lacking = None
        if self.ranks.is_main:
            epoch = self.state.epoch
            done = self.saver.try_to(
                lambda: self.saver.commit(staging, step, epoch=epoch, started=started), needed
            )
            if isinstance(done, Shortfall):
                checkpoints.drop(staging)
                lacking = done
        return self.ranks.from_main(lacking)
