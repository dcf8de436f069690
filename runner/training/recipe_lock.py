"""What a recipe resolved to: hashes of data and model, versions, device; for replays to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from advisor.recipe import Recipe
from profiles.runs import durable
from profiles.runs.rundir import RunDir, read_json
from runner.checks import replay

_SCHEMA = 1
_PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes")


def resolve(recipe: Recipe, base_dir: Path) -> dict[str, Any]:
    """The content of recipe.lock.json; reads every file of data and model once."""
    return {
        "schema": _SCHEMA,
        **replay.found(recipe, base_dir, {"packages": dict.fromkeys(_PACKAGES)}),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "num_threads": torch.get_num_threads(),
        "seed": recipe.train.seed,
    }


def keep(run: RunDir, content: dict[str, Any]) -> tuple[str, ...]:
    """Write the first attempt's; of a later one, return what is no longer the same."""
    before = read_json(run.recipe_lock)
    if before is None:
        durable.write_json(run.recipe_lock, content)
        return ()
    return tuple(change.name for change in replay.changes(before, content))
