"""Whether a replay meets what its recipe's lock was written for: same data, model, packages.

The lock is `recipe.lock.json` beside the recipe, as every run directory has one. Nothing here
imports torch: the comparison runs before a run is started.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.recipe import Recipe
from profiles.errors import ExitCode, UserError
from profiles.runs.rundir import RunDir, read_json, run_root
from runner import checkpoints

LOCK_NAME = "recipe.lock.json"
_MODEL_FILES = (".safetensors", ".json", ".jinja")
_GONE = "not there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that is not what it was."""

    name: str
    """`data.train`, `model/config.json`, a package, `python`."""
    then: str
    now: str

    @property
    def input_key(self) -> str:
        """Key of the recipe that names it, for data and model; empty for what computes."""
        if self.name.startswith("model/"):
            return "model.id"
        return self.name if self.name.startswith("data.") else ""


def lock_beside(recipe_path: Path) -> dict[str, Any] | None:
    """The lock of a recipe, None if it has none."""
    return read_json(recipe_path.with_name(LOCK_NAME))


def base_dir_of(recipe_path: Path) -> Path:
    """Where a recipe's paths begin: its folder, or for a run's own copy where the run began.

    Only a run of this home is believed: a folder from elsewhere could name any place.
    """
    folder = recipe_path.resolve().parent
    run = RunDir(folder)
    if recipe_path.name != run.recipe.name or folder.parent != run_root().resolve():
        return folder
    return run.base_dir()


def found(recipe: Recipe, base_dir: Path, lock: dict[str, Any]) -> dict[str, Any]:
    """What there is now, in the lock's own form; reads every file of data and model once."""
    return {
        "sha256": data_hashes(recipe, base_dir) | _model(base_dir / recipe.model.id),
        "packages": {name: _version(name) for name in _dict(lock, "packages")},
        "python": platform.python_version(),
    }


def changes(lock: dict[str, Any], now: dict[str, Any]) -> tuple[Change, ...]:
    """What differs, inputs first; a file that only one of both knows differs too."""
    then_files, files = _dict(lock, "sha256"), _dict(now, "sha256")
    then_packages, packages = _dict(lock, "packages"), _dict(now, "packages")
    pairs = [(n, then_files.get(n), files.get(n)) for n in sorted(then_files | files)]
    pairs += [(n, then_packages[n], packages.get(n)) for n in sorted(then_packages)]
    pairs += [("python", lock.get("python"), now.get("python"))]
    return tuple(
        Change(name=name, then=str(then or _GONE), now=str(today or _GONE))
        for name, then, today in pairs
        if then != today
    )


def refuse(changed: Iterable[Change], meant: Collection[str], where: Path) -> None:
    """UserError (65) if data or model are not the lock's; `meant` keys were set on purpose."""
    inputs = [c for c in changed if c.input_key and c.input_key not in meant]
    if not inputs:
        return
    names = ", ".join(change.name for change in inputs[:5])
    raise UserError(
        f"the inputs changed since this recipe ran: {names}",
        why="with other data or another model the results cannot be the same",
        do="put the old files back, or train on the new ones with --allow-changed",
        where=str(where),
        code=ExitCode.BAD_DATA,
    )


def data_hashes(recipe: Recipe, base_dir: Path) -> dict[str, str | None]:
    """sha256 of the recipe's data files, by their keys; None: unreadable."""
    return {key: _hash(base_dir / name) for key, name in recipe.data.files.items()}


def _model(folder: Path) -> dict[str, str | None]:
    files = [path for path in sorted(folder.glob("*")) if path.suffix in _MODEL_FILES]
    return {f"model/{path.name}": _hash(path) for path in files}


def _hash(path: Path) -> str | None:
    try:
        return checkpoints.hash_file(path)
    except OSError:
        return None  # the check of data and model that follows says why


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _dict(value: dict[str, Any], key: str) -> dict[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}
