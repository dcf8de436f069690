"""Everything that can be found wrong before a run is started; nothing is written or started."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from advisor import fit
from advisor.devices import stack_on
from advisor.fit import Fit
from advisor.recipe import Recipe
from profiles import dataset, machine, model, rundir
from profiles.errors import ExitCode, UserError
from profiles.facts import Dataset, Machine, Model

_NEEDED = ("torch", "transformers", "peft", "trl", "accelerate", "datasets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What was found; the run may start."""

    model: Model
    machine: Machine
    dataset: Dataset
    fit: Fit
    devices: tuple[str, ...]
    """GPUs to use, the emptiest first: the ones whose free memory was judged."""
    warnings: tuple[str, ...]


def check(recipe: Recipe, base_dir: Path) -> Ready:
    """Model, data, packages, devices and memory of a recipe; UserError on the first that fails."""
    _platform()
    _packages(recipe)
    base = model.from_folder(base_dir / recipe.model.id)
    files = [recipe.data.train] + ([recipe.data.eval] if recipe.data.eval else [])
    checked = [
        dataset.check(
            str(base_dir / name),
            format=recipe.data.format,
            tokenizer_path=base.path,
            max_length=recipe.data.max_length,
            on_bad=recipe.data.on_bad,
            count_up_to_bytes=dataset.COUNTED_WHILE_WAITING_BYTES,
        )
        for name in files
    ]
    here = machine.probe(rundir.home())
    if here.gpus and len(here.gpus) < recipe.hardware.gpus:
        raise UserError(
            f"the recipe wants {recipe.hardware.gpus} GPUs, this machine has {len(here.gpus)}",
            why="hardware.gpus processes would be started, one a GPU",
            do="run it elsewhere, or let `advisor recommend` plan for this machine",
            where=str(base_dir),
            code=ExitCode.DRIVER,
        )
    longest = checked[0].tokens.max if checked[0].tokens else None
    plan = replace(recipe.to_plan(longest), stack=stack_on(here))
    predicted = fit.judge(base, here, plan)
    warnings = [w for data in checked for w in data.warnings]
    if base.unmodelled:
        warnings.append(f"no estimate holds for this model: {base.unmodelled}")
    elif not predicted.fits:
        warnings.append(
            f"predicted to need up to {predicted.memory.high_bytes / 2**30:.1f} GiB of "
            f"{predicted.budget_bytes / 2**30:.1f} GiB free: it may run out of memory"
        )
    return Ready(
        model=base,
        machine=here,
        dataset=checked[0],
        fit=predicted,
        devices=_emptiest(here, recipe.hardware.gpus),
        warnings=tuple(warnings),
    )


def _emptiest(here: Machine, num_gpus: int) -> tuple[str, ...]:
    gpus = sorted(here.gpus, key=lambda gpu: gpu.vram_free_bytes, reverse=True)
    return tuple(gpu.uuid or str(gpu.index) for gpu in gpus[:num_gpus])


def _platform() -> None:
    if sys.platform != "linux":
        raise UserError(
            "training runs on Linux only",
            why="a run is watched through /proc and Linux's process signals",
            do="plan here with `advisor recommend --gpu`, run the recipe on the GPU box",
            where="advisor run",
            code=ExitCode.DRIVER,
        )


def _packages(recipe: Recipe) -> None:
    needed = [*_NEEDED, *(["bitsandbytes"] if _needs_bitsandbytes(recipe) else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"training needs packages that are not installed: {', '.join(missing)}",
            why="tunedeck installs without torch, so that it can plan on a laptop",
            do="pip install 'tunedeck[train]' into this environment",
            where="advisor run",
            code=ExitCode.DRIVER,
        )


def _needs_bitsandbytes(recipe: Recipe) -> bool:
    return recipe.method.name == "qlora" or "8bit" in recipe.train.optimizer
