"""A Recommendation written down as a recipe."""

from __future__ import annotations

from typing import Any

from advisor.memory import MemoryEstimate
from advisor.recipe import SCHEMA, Recipe
from advisor.recommend import Recommendation

_MAX_NAME = 60


def recipe_of(found: Recommendation, *, model: str, data: str, version: str) -> Recipe:
    """The recipe that runs the recommended plan; `model` and `data` are the paths to write."""
    plan, memory = found.fit.plan, found.fit.memory
    method: dict[str, Any] = {"name": plan.method}
    if plan.adapts:
        method |= {"rank": plan.rank, "alpha": plan.alpha, "dropout": plan.dropout}
    content = {
        "schema": SCHEMA,
        "name": _name(found),
        "model": {"id": model},
        "data": {
            "train": data,
            "format": found.dataset.format if found.dataset else None,
            "max_length": plan.seq_len,
            "chat_template": "plain" if found.model.has_chat_template is False else "model",
        },
        "method": method,
        "train": {
            "epochs": found.epochs,
            "learning_rate": found.learning_rate,
            "optimizer": plan.optimizer,
            "micro_batch": plan.micro_batch,
            "accumulation": plan.accumulation,
            "precision": plan.precision,
            "checkpointing": plan.checkpointing,
            "loss": plan.loss,
        },
        "hardware": {"strategy": plan.strategy, "gpus": plan.num_gpus},
        "plan": _prediction(found, memory, version),
    }
    return Recipe.model_validate(content)


def _name(found: Recommendation) -> str:
    base = "".join(c if c.isalnum() or c in "._+-" else "-" for c in found.model.id.split("/")[-1])
    return f"{base[:_MAX_NAME]} {found.fit.plan.method}"


def _prediction(found: Recommendation, memory: MemoryEstimate, version: str) -> dict[str, Any]:
    speed = found.fit.speed
    gpus = found.machine.gpus
    machine = f"{len(gpus)}x {gpus[0].name}" if gpus else found.machine.cpu_name
    return {
        "machine": machine,
        "peak_bytes": memory.expected_bytes,
        "peak_low_bytes": memory.low_bytes,
        "peak_high_bytes": memory.high_bytes,
        "tokens_per_second": round(speed.tokens_per_second, 1) if speed else None,
        "hours": round(found.hours, 3) if found.hours is not None else None,
        "advisor_version": version,
        "path": [str(step) for step in found.path],
    }
