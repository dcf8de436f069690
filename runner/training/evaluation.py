"""Evaluation: batch by batch, in pieces if memory asks for it, and a stop ends it."""

from __future__ import annotations

import time
from typing import Any

from profiles.runs.records.worker import Evaluated
from runner.training.parts import Part
from runner.training.stopping import StopEarly
from runner.training.telemetry import TOKEN_STATS


class Evaluation(Part):
    """The part of the run protocol that evaluates."""

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """One evaluation batch; out of memory, again in smaller pieces. A stop ends it here."""
        inputs.pop(TOKEN_STATS, None)
        self.attempt.progress.tick()
        if self.attempt.stop.asked and self.ranks.world_size == 1:
            raise StopEarly
        while True:
            try:
                return self._predict_in_pieces(model, inputs, *args, **kwargs)
            except Exception as error:  # what ran out of memory is decided below
                reason = self.division.reason_of(error)
                if not reason:
                    raise
            self.divide("eval", reason, self.batches.num_rows(inputs))

    def _predict_in_pieces(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """(loss, None, None): the mean over the batch, as if it had not been divided."""
        parts, self.share = self.batches.divided(inputs, self.division.pieces["eval"]), 1.0
        if len(parts) == 1:
            return super().prediction_step(model, inputs, *args, **kwargs)
        predict, weigh = super().prediction_step, self.batches.num_learnt
        pairs = [(predict(model, p, *args, **kwargs)[0], weigh(p)) for p in parts]
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
