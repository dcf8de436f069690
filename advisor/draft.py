"""A Recommendation written down as a recipe: of what is recommended, or the nearest that runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from advisor.choice.choose import Choice
from advisor.choice.compare import machine_name
from advisor.choice.hyperparameters import MAX_GRAD_NORM, PATIENCE, SCHEDULER, WEIGHT_DECAY
from advisor.choice.recommend import Recommendation
from advisor.plan import Plan
from advisor.recipe import SCHEMA, Recipe, validate
from advisor.registry.lookup import TASKS, is_ready
from profiles.errors import ExitCode, UserError

_MAX_NAME = 60
_LOOK = "look at what would make a method fit: `advisor recommend` shows it"


def recipe_of(found: Recommendation, *, model: str, data: str, version: str) -> Recipe:
    """The recipe that runs; `model` and `data` are the paths to write.

    UserError (REFUSED) if nothing that our runner can run fits the machine.
    """
    choice, task = found.runnable, found.fit.plan.task
    if choice is None:
        why, do = found.detour or "this version cannot run what fits this machine", _LOOK
        if not is_ready(task):
            can_be = ", ".join(TASKS.ready)
            why, do = f"this version does not train {task.title} yet", f"it trains {can_be}"
        raise UserError(
            "there is no recipe to write",
            why=why,
            do=do,
            where=found.model.id,
            code=ExitCode.REFUSED,
        )
    plan = choice.fit.plan
    settings: Any = plan.settings
    content = {
        "schema": SCHEMA,
        "task": plan.task.name,
        "name": _name(found, plan),
        "model": {"id": model},
        "data": {
            "train": data,
            "format": found.dataset.format if found.dataset else None,
            "max_length": plan.seq_len,
            "chat_template": "plain" if found.model.has_chat_template is False else "model",
            **(found.dataset.read_with if found.dataset else {}),
        },
        "method": {"name": plan.method.name, **asdict(settings)},
        "objective": {k: v for k, v in asdict(plan.task.objective()).items() if v},
        "train": _train(found, choice),
        "hardware": {"strategy": plan.engine.name, "gpus": plan.num_gpus},
        "plan": _prediction(found, choice, version),
    }
    return validate(content, where=found.model.id)


def _name(found: Recommendation, plan: Plan) -> str:
    base = "".join(c if c.isalnum() or c in "._+-" else "-" for c in found.model.id.split("/")[-1])
    return f"{base[:_MAX_NAME]} {plan.method.name}"


def _train(found: Recommendation, choice: Choice) -> dict[str, Any]:
    plan = choice.fit.plan
    return {
        "epochs": found.epochs,
        "learning_rate": choice.learning_rate,
        "scheduler": SCHEDULER,
        "warmup": choice.warmup,
        "optimizer": plan.optimizer.name,
        "weight_decay": WEIGHT_DECAY,
        "max_grad_norm": MAX_GRAD_NORM,
        "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation,
        "precision": plan.precision,
        "checkpointing": plan.checkpointing,
        "loss": plan.loss,
        "early_stopping": PATIENCE,
        "keep_checkpoints": choice.kept_checkpoints,
    }


def _prediction(found: Recommendation, choice: Choice, version: str) -> dict[str, Any]:
    memory, rates = choice.fit.memory, choice.fit.rates
    path = [str(step) for step in found.path]
    return {
        "machine": machine_name(found.machine),
        "peak_bytes": memory.expected_bytes,
        "peak_low_bytes": memory.low_bytes,
        "peak_high_bytes": memory.high_bytes,
        "tokens_per_second": round(rates[1], 1) if rates else None,
        "hours": round(choice.hours, 3) if choice.hours is not None else None,
        "advisor_version": version,
        "path": [*path, *([choice.why] if choice.why else [])],
    }
