"""What a recipe resolved to: hashes of data and model, versions, device; for replays to compare."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from advisor.recipe import Recipe
from profiles.run_facts import Parent
from profiles.runs import durable, parents, rundir
from profiles.runs.rundir import RunDir, read_json
from runner.checks import replay

_SCHEMA = 1
_PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes")


def resolve(recipe: Recipe, run: RunDir) -> dict[str, Any]:
    """The content of recipe.lock.json; reads the files of data and model that changed since."""
    before = read_json(run.recipe_lock) or {}
    around = (read_json(run.manifest) or {}).get(rundir.SURROUNDINGS)
    lock = before | {"packages": dict.fromkeys(_PACKAGES)}
    now = replay.found(recipe, run.base_dir(), lock, around if isinstance(around, dict) else {})
    return {
        "schema": _SCHEMA,
        **now,
        parents.LOCK_KEY: parents.for_lock(replay.parents_of(recipe, now)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "num_threads": torch.get_num_threads(),
        "seed": recipe.train.seed,
    }


def begun_with(recipe: Recipe, found: Sequence[Parent]) -> str:
    """What is trained, where it is no base model alone; empty if it is."""
    if recipe.model.adapters:
        return f"{len(recipe.model.adapters)} adapters, one an expert"
    if recipe.model.adapter is None:
        return found[0].words if found else ""
    of_run = next((one.words for one in found if one.key == "model.adapter"), "")
    return of_run or f"the adapter in {recipe.model.adapter}"


def touched(recipe: Recipe, run: RunDir, seen: dict[str, Any]) -> dict[str, Any]:
    """Stamps, by their names, of the files of data and model that are not as `seen`."""
    files = replay.input_files(recipe, run.base_dir())
    now = {name: replay.stamp(files[name]) if name in files else None for name in seen}
    return {name: stamp for name, stamp in now.items() if stamp != seen[name]}


def keep(run: RunDir, content: dict[str, Any]) -> tuple[str, ...]:
    """Write the first attempt's; of a later one, return what is no longer the same.

    Where the first one's is gone, that is told, and what there is now takes its place.
    """
    before = read_json(run.recipe_lock)
    if before is None:
        is_damaged = os.path.lexists(run.recipe_lock)
        is_lost = run.attempt() > 1 and (is_damaged or bool(replay.not_compared(run)))
        durable.write_json(run.recipe_lock, content)
        return (f"{replay.LOCK_NAME} was gone or damaged",) if is_lost else ()
    return tuple(change.words for change in replay.changes(before, content))
