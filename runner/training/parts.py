"""What the parts of the run protocol share: they are one trainer in the end.

The parts extend transformers' Trainer and stand before a task's own trainer, so that `super()` is
the task's.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer

from advisor.plan import Plan
from runner import methods
from runner.engines.engine import Engine
from runner.engines.ranks import Ranks
from runner.training.attempt import Attempt
from runner.training.batches import Batches
from runner.training.division import Division, During
from runner.training.layers import LayerStats
from runner.training.pieces import Batch
from runner.training.protocol import ProtocolCallback
from runner.training.saving import Saver
from runner.training.telemetry import StepRecorder


class Part(Trainer):  # type: ignore[misc]
    """A part of the run protocol; `RunProtocol` sets all of this."""

    attempt: Attempt
    plan: Plan
    engine: Engine
    batches: Batches
    ranks: Ranks
    recorder: StepRecorder
    layers: LayerStats
    division: Division
    saver: Saver
    protocol: ProtocolCallback
    share: float
    """Of the loss that is being computed, in its whole micro-batch; 1 if that is not divided."""
    beside: dict[str, torch.Tensor]
    """Of the micro-batch's loss so far, what is not of its rows, as it is logged."""
    is_trial: bool
    """The gradients that are being computed will be thrown away."""

    def whole_parts(self, model: Any, inputs: Any, during: During) -> list[Batch]:
        """A micro-batch in so many pieces, each with what its loss needs of the whole."""
        parts = self.batches.divided(inputs, self.division.pieces[during])
        known = self.of_whole(model, parts)
        return [part | known for part in parts] if known else parts

    def of_whole(self, model: Any, parts: list[Batch]) -> Batch:  # noqa: ARG002  # most need none
        """What a loss needs of the whole micro-batch, found piece by piece; most need nothing."""
        return {}

    def add_beside(self, loss: torch.Tensor, name: str = "router_loss") -> None:
        """Part of a loss that is minimised with that of the rows, as a mixture's router's is.

        It is told apart; the gradient is of both.
        """
        self.beside[name] = self.beside.get(name, 0.0) + loss.detach()

    def of_weights(self, num_items: Any) -> Any:
        """The method's penalty: of the weights alone, so that it counts once in a step."""
        penalty = methods.penalty(self.model, self.plan)
        if penalty is None:
            return 0.0
        parts = 1 if num_items is None else self.current_gradient_accumulation_steps
        penalty = penalty * (self.share / parts)
        self.add_beside(penalty, "penalty_loss")
        return penalty

    def divide(self, during: During, reason: str, rows: int) -> None:
        """Twice as many pieces from here on, if no other rank waits for this one."""
        is_local = (during == "eval" or self.is_trial) and self.engine.forwards_alone
        is_alone = self.ranks.world_size == 1 or is_local
        step = self.state.global_step
        self.division.divide(during, reason, rows=rows, step=step, is_alone=is_alone)
        if self.args.device.type == "cuda":
            torch.cuda.empty_cache()
