"""The run protocol as a part of any trainer: what makes training an attempt of a run.

A task's trainer is a class of `RunProtocol` and of the library's own trainer, in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advisor.plan import Plan
from advisor.recipe_sections import TrainSection
from advisor.registry.lookup import SCHEDULES
from advisor.registry.task_spec import NO_OBJECTIVE, Objective
from profiles.runs.records.worker import Changed
from runner import methods
from runner.engines import engine_of
from runner.engines.ranks import Ranks
from runner.training.attempt import Attempt
from runner.training.batches import Batches
from runner.training.between_steps import BetweenSteps
from runner.training.checkpointing import Checkpointing
from runner.training.data import Splits
from runner.training.division import Division
from runner.training.evaluation import Evaluation
from runner.training.layers import LayerStats
from runner.training.longest import LongestFirst
from runner.training.optimizing import Optimizing
from runner.training.protocol import ProtocolCallback
from runner.training.saving import Saver
from runner.training.selection import Selection
from runner.training.steps import Unlogged
from runner.training.telemetry import CountingCollator, StepRecorder


def nothing_more() -> None:
    """Nothing comes before the first step of an attempt, nor after an evaluation."""


class RunProtocol(LongestFirst, Evaluation, Checkpointing, Optimizing):
    """Steps in pieces, evaluation, checkpoints, records and people's requests."""

    batches: Batches = Batches()

    @staticmethod
    def head(_splits: Splits) -> dict[str, Any]:
        """from_pretrained's options of a head that is new; none for the base model's own."""
        return {}

    def __init__(
        self,
        attempt: Attempt,
        plan: Plan,
        *,
        facts: dict[str, Any],
        lighter: Sequence[str],
        train: TrainSection,
        goal: Objective = NO_OBJECTIVE,
        **kw: Any,
    ) -> None:
        """`facts`: of every manifest; `lighter`: what saves memory; `kw`: the library's own."""
        super().__init__(**kw)
        self.attempt, self.plan, self.goal = attempt, plan, goal
        self.engine = engine_of(plan.engine)
        self.ranks = Ranks(self.args.world_size, is_main=self.is_world_process_zero())
        self.recorder = StepRecorder(attempt.metrics, self.args.device)
        self.selection = Selection(patience=train.early_stopping)
        self.keeps_best = train.keep == "best"
        self.follows_evaluations = SCHEDULES[train.scheduler].needs_evaluation
        self.layers = LayerStats(self, train.stats_every)
        self.saver = Saver(
            attempt=attempt,
            keep=train.keep_checkpoints,
            facts=facts,
            optimizer=plan.optimizer,
            selection=self.selection,
        )
        self.division = Division(
            attempt=attempt,
            device=self.args.device,
            rows=self.args.per_device_train_batch_size,
            accumulation=self.args.gradient_accumulation_steps,
            lighter=lighter,
        )
        self.before_steps = self.after_evaluation = self.after_saving = nothing_more
        self.base_rows, self.unlogged = {}, Unlogged()
        self.changes: list[Changed] = []
        self.begun, self.staging, self.is_trial, self.share = [], None, False, 1.0
        self.data_collator: Any = CountingCollator(self.data_collator, self.batches)
        self._time_backward()
        self.engine.before_wrapping(self.accelerator)
        self.protocol = ProtocolCallback(self, on_spike=train.on_spike)
        for callback in (BetweenSteps(self), self.protocol, self.layers):
            self.add_callback(callback)

    def create_optimizer(self, model: Any = None) -> Any:
        """With the learning rates that the method has."""
        is_new = self.optimizer is None
        made = super().create_optimizer(model)
        if is_new:
            methods.divide_rates(made, self.model, self.plan)
        return made

    def _time_backward(self) -> None:
        backward = self.accelerator.backward

        def timed(*args: Any, **kwargs: Any) -> None:
            with self.recorder.phase("backward"):
                backward(*args, **kwargs)

        self.accelerator.backward = timed

    def compare_ranks(self) -> None:
        """UserError if the processes do not train one model; right after an optimizer step."""
        if self.ranks.world_size > 1:
            step = self.state.global_step + 1
            self.engine.refuse_apart(self.model, self.ranks, step, self.attempt.run)
