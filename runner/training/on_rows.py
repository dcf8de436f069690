"""Tasks whose loss is a mean over rows: what they share, whatever a row is.

So a step's loss is the sum over its rows, however they are divided into pieces, and a batch that
is not full counts as much as it has rows. Formulas are the papers'; the fused head that never
holds a micro-batch's logits is TRL's.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments
from trl.trainer.utils import add_fused_lm_head

from advisor.plan import Plan
from advisor.recipe_data import DataSection
from runner.training.attempt import Attempt
from runner.training.batches import IGNORED_LABEL
from runner.training.pairs import RowBatches
from runner.training.row_losses import RowValues
from runner.training.switched_off import without_adapter
from runner.training.trainer import RunProtocol


def arguments(_data: DataSection, **common: Any) -> TrainingArguments:
    """`common` are the fields of transformers' TrainingArguments."""
    return TrainingArguments(remove_unused_columns=False, **common)


def padding_of(tokenizer: Any) -> int:
    """The token that fills rows up: masked, so that any will do where there is none for it."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((token for token in known if token is not None), 0)


def balance_of(config: Any) -> float:
    """The weight that a mixture's own config gives the balance of its experts; 0 without any."""
    has_router = hasattr(config, "output_router_logits")
    return float(getattr(config, "router_aux_loss_coef", 0.0)) if has_router else 0.0


class RunOnRows(RunProtocol, Trainer):  # type: ignore[misc]
    """One attempt of a run whose loss is a mean over rows."""

    batches = RowBatches()

    def __init__(self, attempt: Attempt, plan: Plan, *, model: Any, **kw: Any) -> None:
        """As RunProtocol's; the reference is made of the model as it is before training."""
        is_adapted = isinstance(model, PeftModel)
        frozen = None
        if plan.task.reference and not is_adapted:
            frozen = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
        whole = model.get_base_model() if is_adapted else model
        if plan.task.head == "lm":
            for one in filter(None, (whole, frozen)):
                add_fused_lm_head(one)
        elif hasattr(whole, "score"):  # reads a row's last token, which is found by the padding
            model.config.get_text_config().pad_token_id = padding_of(kw["processing_class"])
        self._pad = whole.config.get_text_config().pad_token_id
        if is_adapted and kw["args"].gradient_checkpointing:
            model.enable_input_require_grads()  # transformers issue 42489
        super().__init__(attempt, plan, model=model, **kw)
        self.model_accepts_loss_kwargs = True  # the loss is by the rows of the whole step
        self._frozen = frozen.to(self.args.device) if frozen is not None else None
        self._balance = balance_of(model.config.get_text_config()) if plan.task.head == "lm" else 0
        self._imbalance: Any = None
        """Of the experts, as the newest forward pass with gradients saw it."""

    @contextlib.contextmanager
    def reference(self) -> Iterator[Any]:
        """The model as it was before training, for a forward pass without gradients."""
        with torch.no_grad():
            if self._frozen is not None:
                yield self._frozen
                return
            with without_adapter(self.model):
                yield self.model

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """With a head beside an adapter goes the configuration that it needs to be loaded.

        In training the Trainer makes the padding the tokenizer's; RoBERTa counts positions from it.
        """
        if self.plan.task.head != "lm":
            self.model.config.get_text_config().pad_token_id = self._pad
        super().save_model(output_dir, _internal_call)
        is_whole = not isinstance(self.model, PeftModel)
        if self.plan.task.head == "lm" or is_whole or not self.ranks.is_main:
            return
        self.model.config.save_pretrained(output_dir or self.args.output_dir)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Rows of all micro-batches of a step, on all ranks."""
        mine = torch.tensor(sum(map(self.batches.num_learnt, batch_samples)), device=device)
        return self.accelerator.gather(mine).sum().clamp(min=1)

    def compute_loss(
        self, model: Any, inputs: Any, _outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The sum of the rows' losses by the rows of the step."""
        with self.recorder.phase("forward"):
            losses = self.row_losses(model, inputs).losses
        if num_items_in_batch is None:
            loss = losses.mean() * self.share + self._of_router(1)
            return loss + self.of_weights(None)
        # DDP takes the mean of the ranks' gradients
        loss = losses.sum() * self.accelerator.num_processes / num_items_in_batch
        loss = loss + self._of_router(self.current_gradient_accumulation_steps)
        return loss + self.of_weights(num_items_in_batch)

    def _of_router(self, parts: int) -> Any:
        """What keeps a mixture's experts in balance: a mean over micro-batches, as TRL has it."""
        seen, self._imbalance = self._imbalance, None
        return 0.0 if seen is None else self._balance * seen * self.share / parts

    def row_losses(self, model: Any, inputs: Any) -> RowValues:
        """The loss of each row and its scores; the task's."""
        raise NotImplementedError

    def outputs(self, model: Any, inputs: Any) -> torch.Tensor:
        """What a score head says of each sequence, of shape (sequences, numbers)."""
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        scores: torch.Tensor = model(**read).logits
        return scores.float()

    def log_probs(self, model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the log-probabilities of each sequence's labels, in nats, and their number.

        The first token of a sequence is never predicted.
        """
        labels = inputs["labels"]
        counts = (labels[:, 1:] != IGNORED_LABEL).sum(1)
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        if routed := bool(self._balance) and torch.is_grad_enabled():
            read["output_router_logits"] = True
        fused = {"labels": labels, "fused_lm_head": True} if self.plan.loss == "chunked" else {}
        found = model(**read, **fused, use_cache=False)
        self._imbalance = found.aux_loss if routed else self._imbalance
        if fused:
            return found.log_probs.float().sum(1), counts
        width = labels.shape[1]  # a soft prompt stands before it
        logits = found.logits[:, -width:-1].float()
        losses = cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
        return -losses.sum(1), counts
