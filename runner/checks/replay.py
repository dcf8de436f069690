"""Whether a run meets what its recipe's lock was written for: all that its result depends on.

The lock is `recipe.lock.json` beside the recipe, as every run directory has one. Nothing here
imports torch: the comparison runs before a run is started.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from advisor.recipe import Recipe
from profiles.data import datafile
from profiles.errors import ExitCode, UserError
from profiles.quantities import some_of
from profiles.run_facts import Parent
from profiles.runs import caveats, parents
from profiles.runs.journal import read_all
from profiles.runs.records.worker import Prepared
from profiles.runs.rundir import RunDir, read_json, run_root
from runner import checkpoints

LOCK_NAME = "recipe.lock.json"
_PREFIXES = {"model.id": "model/", "model.adapter": "adapter/", "model.adapters": "adapters/"}
"""Of the names that the lock gives the files of a folder, or of several."""
_GONE = "not there"
_SHOWN = 16
"""Characters of a value that tell two hashes apart."""
_TABLES = {"sha256": "", "recipe": "recipe: ", "surroundings": "", "packages": ""}
"""Of the lock, with what the names of their rows begin with."""
_COMPARED = {"sha256": "data and model", "recipe": "the recipe"}
"""Tables whose absence would hide what refuses a resume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that is not what it was."""

    name: str
    """`data.train`, `model/config.json`, a package, `python`."""
    then: str
    now: str

    @property
    def words(self) -> str:
        """Like "train.seed was 0, is 7"."""
        return f"{self.name} was {self.then[:_SHOWN]}, is {self.now[:_SHOWN]}"

    @property
    def is_of_recipe(self) -> bool:
        """A key of the recipe says something else."""
        return self.name.startswith(_TABLES["recipe"])

    @property
    def recipe_key(self) -> str:
        """Like "train.seed"; empty for what is no key of the recipe."""
        return self.name.removeprefix(_TABLES["recipe"]) if self.is_of_recipe else ""

    @property
    def input_key(self) -> str:
        """Key of the recipe that names it, for data and model; empty for what computes."""
        for key, prefix in _PREFIXES.items():
            if self.name.startswith(prefix):
                return key
        return self.name.partition("/")[0] if self.name.startswith("data.") else ""


def lock_beside(recipe_path: Path, *, allow_changed: bool = False) -> dict[str, Any] | None:
    """The lock of a recipe, None if it has none; UserError if there is one that tells nothing.

    Whoever allows anything to have changed needs no lock: a damaged one counts as none.
    """
    path = recipe_path.with_name(LOCK_NAME)
    lock = read_json(path)
    if lock is None and os.path.lexists(path) and not allow_changed:
        raise UserError(
            "the recipe's lock cannot be read",
            why="it is damaged, so nobody knows what the recipe was run with",
            do="put the file back, or add --allow-changed to go without comparing",
            where=str(path),
            code=ExitCode.BAD_DATA,
        )
    return lock


def not_compared(run: RunDir) -> tuple[str, ...]:
    """What of a run cannot be compared, as its lock is gone or says nothing of it.

    Empty if all can be, or if no attempt came so far that it had a lock.
    """
    lock = read_json(run.recipe_lock)
    if lock is None and not _had_lock(run):
        return ()
    return tuple(what for table, what in _COMPARED.items() if not _dict(lock or {}, table))


def refuse_not_compared(run: RunDir) -> None:
    """UserError (65) if data and model of a run cannot be compared; older locks have no recipe."""
    if _COMPARED["sha256"] not in not_compared(run):
        return
    raise UserError(
        "nobody can say whether the run's data and model changed",
        why=f"{LOCK_NAME}, which has their hashes, is not what the run wrote, or gone",
        do="put the file back, or go on without the comparison with --allow-changed",
        where=str(run.recipe_lock),
        code=ExitCode.BAD_DATA,
    )


def _had_lock(run: RunDir) -> bool:
    """An attempt wrote one: that comes before a run is told to be prepared."""
    prepared = (isinstance(event, Prepared) for event in read_all(run.worker_events))
    return any(prepared) or bool(checkpoints.committed(run))


def base_dir_of(recipe_path: Path) -> Path:
    """Where a recipe's paths begin: its folder, or for a run's own copy where the run began.

    Only a run of this home is believed: a folder from elsewhere could name any place. UserError if
    nothing is left that tells where a run began.
    """
    folder = recipe_path.resolve().parent
    run = RunDir(folder)
    if recipe_path.name != run.recipe.name or folder.parent != run_root().resolve():
        return folder
    caveats.refuse_without_manifest(run, "start it anew")
    return run.base_dir()


def found(
    recipe: Recipe, base_dir: Path, lock: dict[str, Any], around: Mapping[str, str]
) -> dict[str, Any]:
    """What there is now, in the lock's own form.

    Files of data and model are read, those alone that are not as the lock saw them.
    """
    files = input_files(recipe, base_dir)
    seen = {name: stamp(path) for name, path in files.items()}
    return {
        "sha256": {name: _hash(path, name, seen[name], lock) for name, path in files.items()},
        "stamps": seen,
        "recipe": _known_then(recipe, _dict(lock, "recipe")),
        "packages": {name: _version(name) for name in _dict(lock, "packages")},
        "python": platform.python_version(),
        "surroundings": dict(around),
    }


def keys(recipe: Recipe) -> dict[str, str]:
    """What the recipe says, key by key; without its name and its prediction."""
    content = recipe.model_dump(by_alias=True, mode="json", exclude={"name", "plan"})
    data = content["data"]
    if isinstance(data["train"], list):  # a mix: its files are where they are, weights are not
        for place, one in enumerate(data.pop("train")):
            data |= {f"train.{place}.{key}": value for key, value in one.items()}
    return {
        f"{table}.{key}" if key else table: json.dumps(value)
        for table, part in content.items()
        for key, value in (part.items() if isinstance(part, dict) else [("", part)])
    }


def _known_then(recipe: Recipe, then: dict[str, Any]) -> dict[str, str]:
    """What it says, without the defaults of keys that an older version did not know."""
    tables = [(f"{name}.", part) for name, part in recipe if isinstance(part, BaseModel)]
    defaults = {
        prefix + key: json.dumps(one.default, default=str)
        for prefix, part in (("", recipe), *tables)
        for key, one in type(part).model_fields.items()
    }
    return {
        key: value
        for key, value in keys(recipe).items()
        if key in then or not then or value != defaults.get(key)
    }


def changes(lock: dict[str, Any], now: dict[str, Any]) -> tuple[Change, ...]:
    """What differs, inputs first; a file that only one of both knows differs too.

    Tables that the lock of an older version does not have are not compared.
    """
    found: list[Change] = []
    for table, prefix in _TABLES.items():
        then, today = _dict(lock, table), _dict(now, table)
        names = sorted(then) if table == "packages" else sorted(then | today)
        pairs = [(name, then.get(name), today.get(name)) for name in names if then]
        found += [_change(prefix + name, *values) for name, *values in pairs]
    found.append(_change("python", lock.get("python"), now.get("python")))
    return tuple(change for change in found if change.then != change.now)


def _change(name: str, then: Any, now: Any) -> Change:
    return Change(name=name, then=str(then or _GONE), now=str(now or _GONE))


def refuse(changed: Iterable[Change], meant: Collection[str], where: Path) -> None:
    """UserError (65) if data or model are not the lock's; `meant` keys were set on purpose."""
    inputs = [c for c in changed if c.input_key and c.input_key not in meant]
    if not inputs:
        return
    raise UserError(
        f"the inputs changed since this recipe ran: {some_of([c.name for c in inputs])}",
        why="with other data or another model the results cannot be the same",
        do=_way_out(inputs, base_dir_of(where), "put the old files back", "train on the new ones"),
        where=str(where),
        code=ExitCode.BAD_DATA,
    )


def _way_out(changed: Iterable[Change], base_dir: Path, put_back: str, otherwise: str) -> str:
    """What helps: what is not there any more can be allowed, but not read."""
    gone = [change.name for change in changed if change.input_key and change.now == _GONE]
    if gone:
        return (
            f"put back what is gone, where the recipe names it from {base_dir} on: {some_of(gone)}"
        )
    return f"{put_back}, or {otherwise} with --allow-changed"


def refuse_resume(changed: Iterable[Change], where: Path) -> None:
    """UserError if data or model (65) or the recipe (78) are not what the run began with."""
    found = [change for change in changed if change.input_key or change.is_of_recipe]
    if not found:
        return
    inputs = [change for change in found if change.input_key]
    raise UserError(
        f"not as the run began: {some_of([change.name for change in found])}",
        why=some_of([change.words for change in found], between="; "),
        do=_way_out(found, RunDir(where.parent).base_dir(), "put it back", "go on all the same"),
        where=str(where),
        code=ExitCode.BAD_DATA if inputs else ExitCode.BAD_RECIPE,
    )


def input_files(recipe: Recipe, base_dir: Path) -> dict[str, Path]:
    """The files that the result depends on, by the names of the lock: data, model, tokenizer."""
    data = {
        key if len(files) == 1 else f"{key}/{file.name}": file
        for key, name in recipe.data.files.items()
        for files in [datafile.files_of(base_dir / name) or (base_dir / name,)]
        for file in files
    }
    with contextlib.suppress(OSError, UserError):  # the check of the model that follows says why
        for key, folder in folders_of(recipe, base_dir).items():
            names = [name for name in sorted(os.listdir(folder)) if name.endswith(parents.READ)]  # noqa: PTH208
            data |= {_prefix(key) + name: folder / name for name in names}
    return data


def folders_of(recipe: Recipe, base_dir: Path) -> dict[str, Path]:
    """Key -> folder of the recipe's model, and of its adapters; UserError for a run without any."""
    found = {"model.id": parents.model_folder(recipe.model.id, base_dir)}
    if recipe.model.adapter is not None:
        found["model.adapter"] = parents.adapter_folder(recipe.model.adapter, base_dir)
    return found | {
        key: parents.adapter_folder(text, base_dir) for key, text in experts_of(recipe).items()
    }


def experts_of(recipe: Recipe) -> dict[str, str]:
    """Key -> what it says, of the adapters that experts begin as, in their order."""
    return {f"model.adapters.{at}": text for at, text in enumerate(recipe.model.adapters)}


def experts_in(folders: Mapping[str, Path]) -> list[Path]:
    """Those of the experts, of `folders_of` a recipe."""
    return [folder for key, folder in folders.items() if key.startswith("model.adapters.")]


def _prefix(key: str) -> str:
    """Of the names of a folder's files: "model/", "adapters/0/"."""
    name, _, number = key.removeprefix("model.").partition(".")
    return _PREFIXES[f"model.{name}"] + (f"{number}/" if number else "")


def parents_of(recipe: Recipe, now: Mapping[str, Any]) -> tuple[Parent, ...]:
    """The runs that a recipe begins with, by what there is `now`; UserError for a changed result.

    Files of a run's result that are the run's own word are no part of what it has published.
    """
    asked = {"model.id": recipe.model.id, "model.adapter": recipe.model.adapter or ""}
    asked |= experts_of(recipe)
    named = {key: text for key, text in asked.items() if parents.names_run(text)}
    uses = {"model.adapter": recipe.model.adapter_use or "continue"}
    return tuple(
        parents.of(key, text, _beside(_prefix(key), now), uses.get(key, ""))
        for key, text in named.items()
    )


def _beside(prefix: str, now: Mapping[str, Any]) -> dict[str, str | None]:
    """Name -> hash of the files of a folder, but for a run's own word about them."""
    return {
        name.removeprefix(prefix): digest
        for name, digest in now["sha256"].items()
        if name.startswith(prefix) and not name.endswith(parents.MANIFEST)
    }


def stamp(path: Path) -> list[int] | None:
    """What changes when a file's content does: which file it is, its size, its times."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def hash_of(path: Path, name: str, lock: dict[str, Any]) -> str | None:
    """sha256 of a file that a lock calls `name`; None where it cannot be read."""
    return _hash(path, name, stamp(path), lock)


def _hash(path: Path, name: str, now: list[int] | None, lock: dict[str, Any]) -> str | None:
    """sha256; the lock's where the file is as it was then, None where it cannot be read."""
    known = _dict(lock, "sha256").get(name)
    if isinstance(known, str) and now is not None and _dict(lock, "stamps").get(name) == now:
        return known
    try:
        return checkpoints.hash_file(path)
    except OSError:
        return None  # the check of data and model that follows says why


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # not there, or no name
        return None


def _dict(value: dict[str, Any], key: str) -> dict[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}
