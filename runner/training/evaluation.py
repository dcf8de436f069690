"""Evaluation: batch by batch, in pieces if memory asks for it, and a stop ends it.

Every row's loss is kept, so that the model can be compared with the base model row by row; the
loss of a set is the mean over all of its tokens that count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from profiles.class_facts import Classes
from profiles.runs.records.evaluation import BaseEvaluated, EarlyStop, Evaluated
from runner.training import row_losses
from runner.training.parts import Part
from runner.training.row_losses import Rows, RowValues
from runner.training.selection import Selection
from runner.training.stopping import StopEarly
from runner.training.switched_off import without_adapter
from runner.training.telemetry import TOKEN_STATS

_PREFIX = "eval"


def _prefix(name: str) -> str:
    """Of the metrics of a set."""
    return f"{_PREFIX}_{name}" if name else _PREFIX


class Evaluation(Part):
    """The part of the run protocol that evaluates."""

    selection: Selection
    after_evaluation: Callable[[], None]
    keeps_best: bool
    """The best step's weights are published, so they are saved."""
    base_rows: dict[str, Rows | None]
    """The base model's, by set."""
    begun_with: str = ""
    """What is trained, if it is not a base model: "the result of run ..."."""
    is_switched_off: bool = False
    """The base model is evaluated, without the adapter that training begins with."""
    batch_rows: list[Rows]
    """Of the evaluation that goes on, batch by batch, those of this rank."""

    def row_losses(self, model: Any, inputs: Any) -> tuple[Any, ...]:
        """The loss of each row, and the scores that its task has: RowValues."""
        raise NotImplementedError

    def of_set(self, rows: Rows) -> Classes | None:  # noqa: ARG002  # a task's
        """What is told of a set as a whole, if the task sorts rows into classes."""
        return None

    def prediction_step(self, model: Any, inputs: Any, *_args: Any, **_kwargs: Any) -> Any:
        """One evaluation batch; out of memory, again in smaller pieces. A stop ends it here."""
        inputs.pop(TOKEN_STATS, None)
        self.attempt.progress.tick()
        if self.attempt.stop.asked and self.ranks.world_size == 1:
            raise StopEarly
        while True:
            try:
                return self._predict_in_pieces(model, inputs)
            except Exception as error:  # what ran out of memory is decided below
                reason = self.division.reason_of(error)
                if not reason:
                    raise
            self.divide("eval", reason, self.batches.num_rows(inputs))

    def _predict_in_pieces(self, model: Any, inputs: Any) -> Any:
        """(loss, None, None): the mean over the batch, as if it had not been divided."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            parts = self.whole_parts(model, inputs, "eval")
            found = [RowValues(*self.row_losses(model, part)) for part in parts]
        sums, counts = (torch.cat([one[i] for one in found]).float() for i in range(2))
        names = found[0].scores
        self.batch_rows.append(
            Rows(
                (sums / counts.clamp(min=1)).tolist(),
                [int(count) for count in counts],
                {name: torch.cat([one.scores[name] for one in found]).tolist() for name in names},
                [row for one in found if one.outputs is not None for row in one.outputs.tolist()],
            )
        )
        return sums.sum() / counts.sum().clamp(min=1), None, None

    def evaluation_loop(
        self, dataloader: Any, *args: Any, metric_key_prefix: str = _PREFIX, **kwargs: Any
    ) -> Any:
        """As the Trainer's, with the rows of the set kept and its loss taken from them."""
        self.batch_rows, started = [], time.perf_counter()
        self.attempt.progress.expect(len(dataloader))
        found = super().evaluation_loop(
            dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs
        )
        rows = row_losses.in_order(self.ranks.gathered(self.batch_rows), found.num_samples)
        found.metrics[f"{metric_key_prefix}_loss"] = rows.mean
        name = metric_key_prefix.removeprefix(_PREFIX).removeprefix("_")
        self._keep(name, rows, time.perf_counter() - started)
        return found

    def _keep(self, name: str, rows: Rows, seconds: float) -> None:
        """What an evaluation of a set found, with what the base model had on the same rows."""
        step = self.state.global_step
        if self.is_switched_off:
            told = BaseEvaluated(loss=rows.mean, seconds=round(seconds, 4), data=name or None)
            self.attempt.events.append(told)
            return
        if step == 0:
            self.base_rows[name] = rows
        elif name not in self.base_rows:
            self.base_rows[name] = row_losses.read(self.attempt.run, 0, name)
        row_losses.write(self.attempt.evaluations, step, name, rows)
        base = self.base_rows[name] if step else None
        gain = row_losses.gain(base, rows)
        event = Evaluated(
            step=step,
            loss=rows.mean,
            seconds=round(seconds, 4),
            data=name or None,
            rows=len(rows.losses),
            gain=gain.ends if gain else None,
            scores=row_losses.scored(base, rows, self.plan.task.scores, self.begun_with) or None,
            classes=self.of_set(rows),
            before=self.begun_with or None,
        )
        self.attempt.events.append(event)
        if name == self.eval_names[0]:
            self.selection.add(step, event.loss)

    def evaluate_base(self) -> None:
        """All sets without the adapter that training begins with: told, and compared by people."""
        self.is_switched_off = True
        try:
            with without_adapter(self.model), self.attempt.progress.during("evaluating"):
                for name in self.eval_names:
                    super().evaluate(name or None, metric_key_prefix=_prefix(name))
        finally:
            self.is_switched_off = False
            self.recorder.begin()

    def evaluate(self, ignore_keys: Any = None) -> dict[str, float]:  # noqa: ARG002  # the Trainer's
        """Evaluate all sets, and judge the step; a stop during training leaves it out."""
        found: dict[str, float] = {}
        try:
            with self.attempt.progress.during("evaluating"):
                for name in self.eval_names:
                    found |= super().evaluate(name or None, metric_key_prefix=_prefix(name))
        except StopEarly:
            if self.attempt.stop.may_interrupt:
                raise
            self.control.should_evaluate = False
            return {}
        finally:
            self.recorder.begin()
        self._judge()
        if 0 < self.state.global_step < self.state.max_steps and self.is_in_train:
            self.after_evaluation()
        return found

    def _judge(self) -> None:
        """Keep the weights of the best step; end the training that has got no better."""
        step, is_last = self.state.global_step, self.state.global_step >= self.state.max_steps
        if self.keeps_best and self.selection.best == step:
            self.control.should_save = True
        if self.ranks.is_main:
            self.saver.mark_best()
        if self.selection.is_over and not is_last:
            self.control.should_training_stop = self.control.should_save = True
            best, waited = self.selection.best or 0, self.selection.num_since_best
            self.attempt.events.append(EarlyStop(step=step, best_step=best, evaluations=waited))

    @property
    def eval_names(self) -> list[str]:
        """Of the evaluation sets, the one first that decides; empty for one without a name."""
        return list(self.eval_dataset) if isinstance(self.eval_dataset, dict) else [""]
