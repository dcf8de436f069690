"""A recommendation saved as a recipe, and what there is to do before it can run."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path

from advisor.choice.recommend import Recommendation
from advisor.draft import recipe_of
from advisor.recipe import Recipe
from profiles import chat_families, installation, paths
from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.models import catalog
from profiles.runs import parents
from tui.output import Target
from tui.pages.recommendation import in_short

_LATER = Path("R.toml")
"""A recipe that went to standard output, by the name that it may get."""


def draft(found: Recommendation, folder: Path | None) -> Recipe:
    """The recipe, with paths relative to where it will lie; in full where nobody knows (None).

    A model that is not on this disk keeps its id, which is where `told` has it downloaded to.
    """
    assert found.dataset is not None
    model, read_with = found.model, dict(found.dataset.read_with)
    if read_with.get("chat_template", "").endswith(chat_families.SUFFIX):
        read_with["chat_template"] = _relative(read_with["chat_template"], folder)
    return recipe_of(
        replace(found, dataset=replace(found.dataset, read_with=read_with)),
        model=model.id
        if parents.names_run(model.id) or not model.path
        else _relative(model.path, folder),
        data=_relative(found.dataset.path, folder),
        version=installation.version(),
    )


def write(found: Recommendation, place: Target) -> None:
    """Save the recipe of what can be run."""
    place.write(draft(found, place.folder).to_toml())
    if found.dataset is not None:  # named by hand: its owner is not asked about it again
        paths.remember([found.dataset.path, *([found.model.path] if found.model.path else [])])


def told(found: Recommendation, place: Target) -> list[str]:
    """What was written, and how to start it."""
    path, wrote = place.path or _LATER, place.wrote
    choice, start = found.runnable, f"start it with: advisor run {shlex.quote(str(path))}"
    what = f": {in_short(choice.rung, choice.fit)}" if choice is not None and choice.why else ""
    if found.model.path:
        return [f"{wrote}{what}", start] if what else [f"{wrote}; {start}"]
    return [
        f"{wrote}{what}",
        "before it can run, its model must be downloaded:",
        f"  {download(found.model.id, path.parent)}",
        f"then {start}",
    ]


def download(model_id: str, folder: Path) -> str:
    """The command that puts a model where a recipe in `folder` looks for it."""
    return f"hf download {model_id} --local-dir {shlex.quote(str(folder / model_id))}"


def check_downloaded(model_id: str, folder: Path) -> None:
    """UserError where a recipe's model is one of the hub's that is not here yet."""
    if os.path.lexists(folder / model_id) or catalog.find(model_id) is None:
        return
    raise not_downloaded(model_id, folder)


def not_downloaded(model_id: str, folder: Path) -> UserError:
    """Only the model's dimensions are known here."""
    return UserError(
        f"{model_id} is not on this disk",
        why="a plan needs its dimensions only, training needs its weights and tokenizer",
        do=download(model_id, folder),
        where=str(folder / model_id),
        code=ExitCode.NO_INPUT,
    )


def download_first(base: Model, folder: Path) -> None:
    """UserError if the weights of a model are not here."""
    if base.path is None:
        raise not_downloaded(base.id, folder)


def _relative(target: str, folder: Path | None) -> str:
    """Relative where the recipe and its input can move together, else absolute."""
    path = Path(target).resolve()
    if folder is None:
        return str(path)
    return os.path.relpath(path, folder) if path.is_relative_to(folder) else str(path)
