"""The optimizer and the schedule of a recipe, in the trainer's hands."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from runner.optimizers import module_of
from runner.optimizers.weights import Asked
from runner.training import plateau
from runner.training.parts import Part
from runner.training.selection import Selection


class Optimizing(Part):
    """The part of the run protocol that makes the optimizer and the schedule."""

    optimizer: Any
    lr_scheduler: Any
    selection: Selection
    follows_evaluations: bool
    """The rate is lowered where the evaluation loss stays."""

    def create_optimizer(self, model: Any = None) -> Any:
        """By its own module, where it has one."""
        spec, chosen = self.plan.optimizer, model or self.model
        if self.optimizer is None and spec.module:
            asked = Asked(
                rate=self.args.learning_rate,
                decay=self.args.weight_decay,
                decays=set(self.get_decay_parameter_names(chosen)),
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
                spec=spec,
            )
            self.optimizer = module_of(spec).make(chosen, asked)
        return super().create_optimizer(model)

    def get_optimizer_cls_and_kwargs(self, args: Any, model: Any = None) -> tuple[Any, Any]:
        """The library's class, with the options of the spec over the Trainer's."""
        kind, given = super().get_optimizer_cls_and_kwargs(args, model)
        return kind, {**given, **self.plan.optimizer.options}

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The Trainer's, or the one that follows the evaluations."""
        if self.lr_scheduler is None and self.follows_evaluations:
            rising = self.args.get_warmup_steps(num_training_steps)
            share = plateau.share_of(self.selection, rising)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, share)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def rest(self) -> None:
        """The weights are those to evaluate and to publish: some optimizers train at others."""
        to_rest = getattr(self.optimizer, "eval", None)
        if to_rest is not None:
            to_rest()
