"""What a method does to the model between two optimizer steps."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerState

from runner import methods


class BetweenSteps(TrainerCallback):  # type: ignore[misc]
    """Hands each step to the method of the trainer's plan, and tells what comes of it."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, _args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """How many steps there will be is known; UserError if they are too few."""
        methods.begin(self.trainer.model, self.trainer.plan, state.max_steps)

    def on_optimizer_step(self, _args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """The Trainer counts a step when it has let the gradients go."""
        trainer = self.trainer
        told = methods.after_step(
            trainer.model,
            trainer.plan,
            state.global_step + 1,
            was_skipped=trainer.accelerator.optimizer_step_was_skipped,
        )
        if told is not None:
            trainer.attempt.events.append(told)
