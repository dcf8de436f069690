"""Runs whose published result another one begins with: `run:ID` where a folder could stand.

ID is a run's whole id or its end. Another part of it would name several runs one day, and a recipe
is to mean the same one for good.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from profiles.errors import ExitCode, UserError
from profiles.models.model import RUN
from profiles.quantities import some_of
from profiles.run_facts import Parent
from profiles.runs import advice, find_run, listing, reading
from profiles.runs.records.form import MisfitError, form_of
from profiles.runs.rundir import RunDir, read_json
from profiles.runs.state import State, status

_MOST: Final = 20
"""Ancestors that are told."""
LOCK_KEY: Final = "parents"
"""Of a run's recipe.lock.json."""
MANIFEST: Final = "MANIFEST.json"
_ADAPTERS: Final = ("adapter_config.json", "bottleneck_config.json", "lora_experts_config.json")
"""Of these files one is beside every adapter."""
READ: Final = (".safetensors", ".json", ".jinja")
"""Ends of the names of the files that training reads of a model."""


def names_run(text: str) -> bool:
    """Whether a recipe's path is no path."""
    return text.startswith(RUN)


def model_folder(text: str, base_dir: Path) -> Path:
    """The folder of the model that a recipe in `base_dir` names; UserError if a run has none."""
    if not names_run(text):
        return base_dir / text
    run = run_of(text)
    found = result_of(run)
    if is_adapter(found):
        base = reading.words(read_json(found / _ADAPTERS[0]) or {}, "base_model_name_or_path")
        raise UserError(
            f"run {run.id} has published an adapter, not a model",
            why="model.id names what is loaded whole",
            do=f"write model.id = {json.dumps(base or 'the model that it was trained on')} and "
            f'model.adapter = "{text}"; with model.adapter_use = "merge" it is added to the model, '
            "else it is trained on",
            where="model.id",
            code=ExitCode.BAD_RECIPE,
        )
    return found


def adapter_folder(text: str, base_dir: Path) -> Path:
    """The folder of the adapter that a recipe in `base_dir` names; UserError if a run has none."""
    if not names_run(text):
        return base_dir / text
    run = run_of(text)
    found = result_of(run)
    if not is_adapter(found):
        raise UserError(
            f"run {run.id} has published a whole model, not an adapter",
            why="model.adapter names what is put on the model of model.id",
            do=f'write model.id = "{text}", and leave model.adapter out',
            where="model.adapter",
            code=ExitCode.BAD_RECIPE,
        )
    return found


def is_adapter(folder: Path) -> bool:
    """What lies there is put on a model."""
    return any(reading.is_file(folder / name) for name in _ADAPTERS)


def run_of(text: str) -> RunDir:
    """The one run that `run:ID` names; UserError for none, several, and a part of an id."""
    name = text.removeprefix(RUN)
    runs = [run for run in listing.all_runs() if name in (run.id, run.end)]
    if len(runs) == 1:
        return runs[0]
    if runs:
        raise _refusal(
            f"{text!r} names {len(runs)} runs",
            f"their ids are {some_of([run.id for run in runs])}",
            f"write the whole id, like {RUN}{runs[0].id}",
        )
    found = find_run.find(name)
    if not listing.is_at_home(found):
        raise _refusal(
            f"{text!r} is a path",
            "after run: stands an id, of a run in the directory of all runs",
            f"write the folder of its result: {found.model}",
        )
    raise _refusal(
        f"{text!r} is only a part of a run's id",
        "one day it may be a part of another run's too",
        f"write {RUN}{found.end}, which is {found.id}",
    )


def result_of(run: RunDir) -> Path:
    """The folder that a run has published; UserError if it has none."""
    if reading.is_folder(run.model):
        return run.model
    state = status(run).state
    if not state.is_over:
        do = f"wait for its end, {advice.command('watch', run)} shows it"
    elif state in (State.FINISHED, State.DAMAGED):
        do = advice.anew(run)
    else:
        do = f"let it go on with {advice.command('resume', run)}; or {advice.anew(run)}"
    raise UserError(
        f"run {run.id} has no result",
        why=f"it is {state}, and {run.model} is not there",
        do=do,
        where=str(run.path),
        code=ExitCode.NO_INPUT,
    )


def of(key: str, text: str, hashes: Mapping[str, str | None], use: str = "") -> Parent:
    """What is known of the run that a key of the recipe names, by the hashes of its files as read.

    UserError (65) if these are not the files that it has published.
    """
    run = run_of(text)
    known = published(run.model)
    changed = sorted(n for n in {*hashes, *known} if hashes.get(n) != known.get(n))
    if changed:
        raise UserError(
            f"the result of run {run.id} is not what it has published",
            why=f"these files are not as its {MANIFEST} says: {some_of(changed)}",
            do=f"put them back; or, if they are meant to be so, write {key} = {str(run.model)!r}",
            where=str(run.model),
            code=ExitCode.BAD_DATA,
        )
    own = of_run(run)
    return Parent(
        key=key,
        run=run.id,
        path=str(run.model),
        step=reading.whole(read_json(run.model / MANIFEST) or {}, "step"),
        fingerprint=fingerprint(known),
        use=use,
        ancestors=tuple(name for one in own for name in (one.run, *one.ancestors))[:_MOST],
    )


def fingerprint(hashes: Mapping[str, str]) -> str:
    """One hash of the names and hashes of all files that training reads of a result."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(hashes.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def published(folder: Path) -> dict[str, str]:
    """Name -> sha256 of what training reads of a result, as its run wrote it down."""
    files = (read_json(folder / MANIFEST) or {}).get("files")
    known = files.items() if isinstance(files, dict) else ()
    return {
        name: reading.words(about, "sha256")
        for name, about in known
        if isinstance(about, dict) and name.endswith(READ) and name != MANIFEST and "/" not in name
    }


def of_run(run: RunDir) -> tuple[Parent, ...]:
    """The parents of a run that has come so far as to have a lock."""
    return of_lock(read_json(run.recipe_lock) or {})


def since(parent: Parent) -> str:
    """What became of a parent's result since it was begun with, in words; empty if it is the same.

    By what it says of its files: none of them is read.
    """
    folder = Path(parent.path)
    if not reading.is_file(folder / MANIFEST):
        return "which is gone"
    return "" if fingerprint(published(folder)) == parent.fingerprint else "which changed since"


def for_lock(found: Iterable[Parent]) -> list[dict[str, Any]]:
    """As `of_lock` reads them."""
    return [form_of(Parent).content(one) for one in found]


def of_lock(lock: Mapping[str, Any]) -> tuple[Parent, ...]:
    """The parents that a run's lock names; none where it says none, or nothing sound."""
    kept = lock.get(LOCK_KEY)
    try:
        return tuple(form_of(Parent).read(one) for one in kept) if isinstance(kept, list) else ()
    except (MisfitError, AttributeError):
        return ()


def _refusal(what: str, why: str, do: str) -> UserError:
    return UserError(what, why=why, do=do, where="model.id", code=ExitCode.BAD_RECIPE)
