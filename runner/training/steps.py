"""One optimizer step: its batches, and its gradients in as many pieces as memory asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from runner.training.parts import Part
from runner.training.pieces import Batch
from runner.training.telemetry import TOKEN_STATS


@dataclass(slots=True)
class Unlogged:
    """What has come together since the Trainer last logged."""

    steps: int = 0
    beside: dict[str, torch.Tensor] = field(default_factory=dict)
    """Sums over the steps, of this rank."""


class Steps(Part):
    """The part of the run protocol that makes steps."""

    begun: list[Batch]
    """Micro-batches of this step whose gradients are there, or are being computed."""
    unlogged: Unlogged

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """All micro-batches of a step are fetched here: the data wait of the step."""
        self.recorder.begin()
        self.begun = []
        self.unlogged.steps += 1
        with self.recorder.phase("data"):
            batches, num_items = super().get_batch_samples(*args, **kwargs)
        for batch in batches:
            self.recorder.count(batch.pop(TOKEN_STATS))
        return batches, num_items

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The loss is the rows'; a router's part of what is minimised, or a penalty, is apart."""
        if "loss" in logs:
            for name, beside in self.unlogged.beside.items():
                mean = float(self.accelerator.reduce(beside, "mean")) / max(1, self.unlogged.steps)
                logs |= {"loss": logs["loss"] - mean, name: mean}
            self.unlogged = Unlogged()
        super().log(logs, start_time)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Gradients of one micro-batch; out of memory, the whole step again in smaller pieces.

        The step's gradients so far are thrown away with the failed ones, so what is added up in
        the end is the step as planned, on the same rows.
        """
        self.begun.append(inputs)
        todo = [inputs]
        while True:
            try:
                loss = [self._in_pieces(model, one, num_items_in_batch) for one in todo][-1]
            except Exception as error:  # what ran out of memory is decided below
                reason = self.division.reason_of(error)
                if not reason:
                    raise
            else:
                if not self.is_trial:
                    for name, part in self.beside.items():
                        self.unlogged.beside[name] = self.unlogged.beside.get(name, 0.0) + part
                return loss
            # outside of the handler: the error's frames hold on to the tensors that were too many
            # what is trained already cannot be trained again, so such a batch is not divided
            rows = max(map(self.batches.num_rows, self.begun))
            self.divide("train", reason, 1 if self.plan.optimizer.steps_in_backward else rows)
            model.zero_grad()
            self.layers.forget_step()
            todo = self.begun

    def _in_pieces(self, model: Any, inputs: Any, num_items: Any) -> torch.Tensor:
        """The loss of a micro-batch: the sum over its pieces, each a share of what is learnt."""
        *early, last = self.whole_parts(model, inputs, "train")
        learnt, total = max(1, self.batches.num_learnt(inputs)) if early else 0, 0.0
        self.beside = {}
        for piece in early:
            with self.engine.unsynced(self.accelerator, model):
                total = total + self._one_piece(model, piece, num_items, learnt)
        loss: torch.Tensor = self._one_piece(model, last, num_items, learnt) + total
        if num_items is None:  # the Trainer takes the mean over micro-batches
            parts = self.current_gradient_accumulation_steps
            self.beside = {name: part / parts for name, part in self.beside.items()}
        return loss

    def _one_piece(self, model: Any, piece: Any, num_items: Any, learnt: int) -> Any:
        """`learnt`: what the whole micro-batch learns; 0 if it is not divided."""
        self.share = self.batches.num_learnt(piece) / learnt if learnt else 1.0
        self.attempt.progress.tick()
        return super().training_step(model, piece, num_items)
