"""Supervised fine-tuning: the next token of a text, or of the replies in it."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import Trainer
from trl import SFTConfig, SFTTrainer

from advisor.recipe_data import DataSection
from profiles.data.formats.spec import Example
from runner.training.batches import IGNORED_LABEL
from runner.training.data import Render, labelled
from runner.training.row_losses import RowValues
from runner.training.smoothing import sums
from runner.training.trainer import RunProtocol


def columns(example: Example, render: Render, max_length: int) -> dict[str, Any] | None:
    """TRL's columns of a row in tokens; None if nothing is learnt within this length."""
    found = labelled(render(example), max_length)
    return found and {"input_ids": found.ids, "labels": found.labels}


def arguments(data: DataSection, **common: Any) -> SFTConfig:
    """TRL's configuration; `common` are the fields of transformers' TrainingArguments."""
    return SFTConfig(
        max_length=data.max_length,
        packing=data.packing,
        eval_packing=False,
        # Rows come in tokens and cut; what is left to be done is packing
        dataset_kwargs={"skip_prepare_dataset": not data.packing},
        **common,
    )


class RunSft(RunProtocol, SFTTrainer):  # type: ignore[misc]
    """One attempt of a run that fine-tunes on texts."""

    def __init__(self, *given: Any, model: Any, **kw: Any) -> None:
        """As RunProtocol's; TRL makes all that trains beside few bits bf16, and some stays fp32."""
        wide = [p for p in model.parameters() if getattr(p, "stays_wide", False)]
        values = [parameter.data for parameter in wide]  # TRL puts others in their place
        super().__init__(*given, model=model, **kw)
        for parameter, value in zip(wide, values, strict=True):
            if parameter.dtype != value.dtype:
                parameter.data = value.to(parameter.device)

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
            of_rows = self._full_loss if self.plan.loss == "full" else self._fused_loss
            of_rows = self._smoothed_loss if self.plan.label_smoothing else of_rows
            loss = of_rows(model, inputs, num_items_in_batch)
            return loss + self.of_weights(num_items_in_batch)

    def _fused_loss(self, model: Any, inputs: Any, num_items: Any) -> Any:
        """As TRL's: the sum over tokens by the step's tokens; of a micro-batch's mean its share."""
        outputs = model(**inputs, fused_lm_head=True)
        loss = self._mean(-outputs.log_probs.sum(), outputs.label_mask, num_items)
        return loss + self._of_router(outputs, num_items)

    def _smoothed_loss(self, model: Any, inputs: Any, num_items: Any) -> Any:
        """The same of whole logits, with what smoothing adds told apart."""
        labels = inputs.pop("labels")[:, 1:]
        outputs = model(**inputs)
        found = sums(outputs.logits[:, -labels.shape[1] - 1 : -1], labels)  # past a soft prompt
        counted, share = labels != IGNORED_LABEL, self.plan.label_smoothing
        smoothed = self._mean(found.smoothed(share), counted, num_items)
        plain = self._mean(found.plain.detach(), counted, num_items)
        self.add_beside(smoothed - plain, "smoothing_loss")
        return smoothed + self._of_router(outputs, num_items)

    def _mean(self, total: torch.Tensor, counted: torch.Tensor, num_items: Any) -> torch.Tensor:
        """A sum over tokens by those of the step, or by these."""
        count = counted.sum() if num_items is None else num_items
        mean: torch.Tensor = total / torch.as_tensor(count).clamp(min=1)
        return mean * (self.share if num_items is None else self._num_averaged)

    def _of_router(self, outputs: Any, num_items: Any) -> Any:
        if not self.aux_loss_enabled:
            return 0.0
        router = self._aux_weight(num_items) * outputs.aux_loss
        self.add_beside(router)
        return router

    def _full_loss(self, model: Any, inputs: Any, num_items: Any) -> Any:
        """The model's own loss; the router's part of it is weighted as it should be."""
        loss, outputs = Trainer.compute_loss(self, model, inputs, True, num_items)
        if self.aux_loss_enabled:
            self.add_beside(self._aux_weight(num_items) * outputs.aux_loss)
        if num_items is None:
            return loss * self.share
        if self.aux_loss_enabled:
            inside = self.router_aux_loss_coef * self._num_averaged
            loss = loss + (self._aux_weight(num_items) - inside) * outputs.aux_loss
        return loss

    def row_losses(self, model: Any, inputs: Any) -> RowValues:
        """Each row's sum of losses and number of tokens that count; the router's part left out."""
        inputs = {**inputs, "use_cache": False}
        if self.plan.loss != "full":
            outputs = model(**inputs, fused_lm_head=True)
            return RowValues(-outputs.log_probs.sum(1), outputs.label_mask.sum(1))
        labels = inputs.pop("labels")[:, 1:]
        logits = model(**inputs).logits[:, -labels.shape[1] - 1 : -1].float()  # past a soft prompt
        losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return RowValues(losses.sum(1), (labels != IGNORED_LABEL).sum(1))

    @property
    def _num_averaged(self) -> int:
        """Ranks over whose gradients DDP takes a mean, while the tokens counted are all ranks'."""
        return self.accelerator.num_processes if self.args.average_tokens_across_devices else 1

    def _aux_weight(self, num_items: Any) -> float:
        """Of the router's loss: a mean over micro-batches; over pieces it is nearly the same."""
        parts = 1 if num_items is None else self.current_gradient_accumulation_steps
        weight: float = self.router_aux_loss_coef * self.share / parts
        return weight


TRAINER = RunSft
