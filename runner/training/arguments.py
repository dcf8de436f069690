"""A recipe in the terms of transformers' TrainingArguments, as far as all tasks share them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from advisor.plan import Plan
from advisor.recipe import Recipe
from advisor.registry.lookup import SCHEDULES
from advisor.registry.optimizers import ADAMW
from runner.engines.engine import Engine

_OWN = "constant_with_warmup"
"""What transformers is told where the schedule is ours."""


def common(
    recipe: Recipe, plan: Plan, engine: Engine, *, output_dir: Path, evaluates: bool
) -> dict[str, Any]:
    """The fields of the arguments; evaluations are spaced when the number of rows is known."""
    train, on_cpu = recipe.train, is_on_cpu()
    schedule = SCHEDULES[train.scheduler]
    return {
        "output_dir": str(output_dir),
        "num_train_epochs": train.epochs,
        "max_steps": train.max_steps or -1,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": schedule.kind or _OWN,
        "lr_scheduler_kwargs": dict(schedule.options),
        "warmup_steps": train.warmup,
        "optim": plan.optimizer.optim or ADAMW.optim,
        "weight_decay": train.weight_decay,
        "neftune_noise_alpha": train.neftune_noise_alpha,
        "max_grad_norm": 0.0 if plan.optimizer.steps_in_backward else train.max_grad_norm,
        "per_device_train_batch_size": train.micro_batch,
        "per_device_eval_batch_size": train.micro_batch,
        "gradient_accumulation_steps": train.accumulation,
        "gradient_checkpointing": train.checkpointing,
        "bf16": train.precision == "bf16",
        "fp16": train.precision == "fp16",
        "use_cpu": on_cpu,
        "dataloader_num_workers": train.workers,
        "dataloader_pin_memory": not on_cpu,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": 1,
        "prediction_loss_only": True,
        "save_strategy": "steps",
        "logging_steps": train.log_every,
        "logging_nan_inf_filter": False,  # it would show a diverged run as converged, and sync
        "seed": train.seed,
        "data_seed": train.seed,
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
        **engine.arguments(on_cpu=on_cpu),
    }


def is_on_cpu() -> bool:
    """No accelerator is here."""
    return not torch.cuda.is_available() and not torch.backends.mps.is_available()


def planned_steps(recipe: Recipe, num_rows: int) -> int:
    """Optimizer steps the Trainer will make, for spacing evaluations (packing makes it fewer)."""
    if recipe.train.max_steps is not None:
        return recipe.train.max_steps
    batch = recipe.train.micro_batch * recipe.train.accumulation * recipe.hardware.gpus
    return max(1, int(-(-num_rows // batch) * recipe.train.epochs))


def compute_capability(device: torch.device) -> str | None:
    """Like "8.0"; None without CUDA."""
    if device.type != "cuda":
        return None
    return ".".join(map(str, torch.cuda.get_device_capability(device)))
