"""One optimizer step: its batches, and its gradients in as many pieces as memory asks for."""

from __future__ import annotations

from typing import Any

import torch

from runner.training.parts import Part
from runner.training.pieces import Batch
from runner.training.telemetry import TOKEN_STATS


class Steps(Part):
    """The part of the run protocol that makes steps."""

    begun: list[Batch]
    """Micro-batches of this step whose gradients are there, or are being computed."""

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """All micro-batches of a step are fetched here: the data wait of the step."""
        self.recorder.begin()
        self.begun = []
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
        self.begun.append(inputs)
        todo = [inputs]
        while True:
            try:
                return [self._in_pieces(model, one, num_items_in_batch) for one in todo][-1]
            except Exception as error:  # what ran out of memory is decided below
                reason = self.division.reason_of(error)
                if not reason:
                    raise
            # outside of the handler: the error's frames hold on to the tensors that were too many
            self.divide("train", reason, max(map(self.batches.num_rows, self.begun)))
            model.zero_grad()
            todo = self.begun

    def _in_pieces(self, model: Any, inputs: Any, num_items: Any) -> torch.Tensor:
        """The loss of a micro-batch: the sum over its pieces, each a share of what is learnt."""
        *early, last = self.whole_parts(model, inputs, "train")
        learnt, total = max(1, self.batches.num_learnt(inputs)) if early else 0, 0.0
        for piece in early:
            with self.engine.unsynced(self.accelerator, model):
                total = total + self._one_piece(model, piece, num_items, learnt)
        loss: torch.Tensor = self._one_piece(model, last, num_items, learnt) + total
        return loss

    def _one_piece(self, model: Any, piece: Any, num_items: Any, learnt: int) -> Any:
        """`learnt`: what the whole micro-batch learns; 0 if it is not divided."""
        self.share = self.batches.num_learnt(piece) / learnt if learnt else 1.0
        self.attempt.progress.tick()
        return super().training_step(model, piece, num_items)
