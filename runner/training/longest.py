"""The longest batch before the first step: what does not fit shows at once, and not after hours."""

from __future__ import annotations

import time

import torch

from profiles.runs.records.worker import LongestTried
from runner.training.saving import state_bytes
from runner.training.steps import Steps
from runner.training.telemetry import TOKEN_STATS


class LongestFirst(Steps):
    """The part of the run protocol that tries the longest batch."""

    def try_longest_batch(self) -> None:
        """Forward and backward of the longest rows before the first step, then forget it.

        Random states are put back, so that training goes on as if this had not been. Room for the
        optimizer's state, which comes later, is taken meanwhile. Left out where an engine's
        or an optimizer's backward pass cannot be thrown away.
        """
        if not self.engine.can_forget or self.plan.optimizer.steps_in_backward:
            return
        rows = self.batches.longest(self.train_dataset, self.args.per_device_train_batch_size)
        batch = self.data_collator([self.train_dataset[index] for index in rows])
        longest = batch.pop(TOKEN_STATS).longest
        started, before = time.perf_counter(), self.division.pieces["train"]
        self._try(batch)
        agreed = self.ranks.largest(self.division.pieces["train"])
        if self.ranks.world_size > 1 and agreed > before:
            reason = "the longest batch was too large for one of the GPUs"
            self.division.set("train", agreed, reason, step=self.state.global_step)
        self.recorder.begin()
        self.attempt.events.append(
            LongestTried(
                rows=len(rows),
                longest=longest,
                seconds=round(time.perf_counter() - started, 3),
            )
        )

    def _try(self, batch: dict[str, torch.Tensor]) -> None:
        """On the model itself: a wrapper would wait for other ranks, which may need no retry."""
        device = self.args.device
        devices = [device] if device.type == "cuda" else []
        self.begun, self.is_trial = [], True
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        with torch.random.fork_rng(devices=devices):
            ballast = self._optimizer_room()
            num_items = torch.tensor(self.batches.num_learnt(batch), device=device)
            self.training_step(self.model, batch, num_items.clamp(min=1))
            del ballast
        self.model.zero_grad()
        self.is_trial = False

    def _optimizer_room(self) -> torch.Tensor | None:
        """Memory of the size that the optimizer's state will have, if it has none yet."""
        device = self.args.device
        if device.type != "cuda" or self.optimizer.state or self.plan.optimizer.paged:
            return None
        size = state_bytes(self.model, self.plan.optimizer, self.engine.local)
        return torch.empty(size, dtype=torch.uint8, device=device)
