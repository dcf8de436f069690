"""Whether the packages are there that a recipe needs, and can be used. Loads no torch."""

from __future__ import annotations

import importlib.util
import sys

from advisor.recipe import Recipe
from advisor.registry.lookup import ENGINES, OPTIMIZERS, TASKS
from profiles import installation
from profiles.errors import ExitCode, UserError
from profiles.facts import Machine
from runner.checks import imports

_NEEDED = ("torch", "transformers", "peft", "trl", "accelerate", "datasets")
_DISTRIBUTIONS = {"optimi": "torch-optimi"}
"""What pip installs, where the module in it has another name."""


def _check_platform() -> None:
    if sys.platform != "linux":
        raise UserError(
            "training runs on Linux only",
            why="a run is watched through /proc and Linux's process signals",
            do="plan here with `advisor recommend --gpu`, run the recipe on the GPU box",
            where="advisor run",
            code=ExitCode.DRIVER,
        )


def check(recipe: Recipe) -> None:
    """UserError if this is no Linux, or if a package is missing or too old."""
    _check_platform()
    missing = [n for n in (*_NEEDED, *_needs(recipe)) if importlib.util.find_spec(n) is None]
    if missing:
        own = [_DISTRIBUTIONS.get(name, name) for name in missing if name not in _NEEDED]
        raise UserError(
            f"training needs packages that are not installed: {', '.join(missing)}",
            why="tunedeck installs without what training needs, so that it can plan on a laptop",
            do=f"pip install 'tunedeck[train]' {' '.join(own)}".rstrip() + " into this environment",
            where="advisor run",
            code=ExitCode.DRIVER,
        )
    installation.check_floors()


def check_usable(recipe: Recipe, here: Machine) -> None:
    """UserError for a package that a GPU's worker would find broken after minutes of loading."""
    for name in _needs(recipe) if here.gpus else ():
        fault = imports.fault(name)
        if fault and not fault.startswith(imports.SLOW):
            raise UserError(
                f"{name} is installed but cannot be used",
                why=fault,
                do=f"pip install --force-reinstall {_DISTRIBUTIONS.get(name, name)}",
                where="advisor run",
                code=ExitCode.DRIVER,
            )


def _needs(recipe: Recipe) -> tuple[str, ...]:
    """Packages that this recipe's choices need beside those of every training, each once."""
    chosen = (
        recipe.method.spec,
        OPTIMIZERS[recipe.train.optimizer],
        ENGINES[recipe.hardware.strategy],
        TASKS[recipe.task],
    )
    return tuple(dict.fromkeys(name for spec in chosen for name in spec.needs))
