"""A recommendation saved as a recipe, and what there is to do before it can run."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, replace
from pathlib import Path

from advisor.choice.recommend import Recommendation
from advisor.draft import recipe_of
from advisor.recipe import Recipe
from advisor.registry.lookup import preset_of
from profiles import chat_families, installation, paths
from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.models import catalog
from profiles.runs import parents
from tui.output import Target
from tui.pages.recommendation import MIXTURE_SUFFIX, in_short, mixture_path, upcycling

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
    mixture = _mixture(found, folder or Path.cwd())
    named = model.id
    if mixture or (model.path and not parents.names_run(model.id)):
        named = _relative(str(mixture or model.path), folder)
    return recipe_of(
        replace(found, dataset=replace(found.dataset, read_with=read_with)),
        model=named,
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
    first = [] if found.model.path else [download(found.model.id, path.parent)]
    words = ["before it can run, its model must be downloaded:"] if first else []
    mixture = _mixture(found, path.parent)
    if mixture and not _is_made(mixture):
        words += ["then its mixture be made:" if words else "before it can run, make its mixture:"]
        first += [upcycling(_dense(found, path.parent), str(mixture))]
    if not first:
        return [f"{wrote}{what}", start] if what else [f"{wrote}; {start}"]
    steps = [line for said, line in zip(words, first, strict=True) for line in (said, f"  {line}")]
    return [f"{wrote}{what}", *steps, f"then {start}"]


def _mixture(found: Recommendation, folder: Path) -> Path | None:
    """Where the mixture lies that the recipe trains; None where it trains the model itself."""
    if found.runnable is None or not preset_of(found.runnable.rung).upcycles:
        return None
    return folder / mixture_path(found.model)


def _is_made(mixture: Path) -> bool:
    """It is there, with the numbers that the recommendation counts with."""
    from runner.upcycling import making  # noqa: PLC0415

    usual = asdict(making.Asked())
    told = making.made_of(mixture) or {}
    return all(told.get(key) == usual[key] for key in ("experts", "top_k"))


def _dense(found: Recommendation, folder: Path) -> str:
    """What `advisor upcycle` makes it of."""
    base = found.model
    return base.id if parents.names_run(base.id) else base.path or str(folder / base.id)


def download(model_id: str, folder: Path) -> str:
    """The command that puts a model where a recipe in `folder` looks for it."""
    return f"hf download {model_id} --local-dir {shlex.quote(str(folder / model_id))}"


def check_downloaded(model_id: str, folder: Path) -> None:
    """UserError where a recipe's model is one of the hub's that is not here yet, or a mixture."""
    if parents.names_run(model_id) or os.path.lexists(folder / model_id):
        return
    dense = str(folder / model_id).removesuffix(MIXTURE_SUFFIX)
    if dense != str(folder / model_id) and os.path.isdir(dense):  # noqa: PTH112  # any name
        raise _not_made(folder / model_id, dense)
    if catalog.find(model_id) is not None:
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


def make_first(found: Recommendation, folder: Path) -> None:
    """UserError if what the recipe trains is a mixture that is not there yet."""
    mixture = _mixture(found, folder)
    if mixture is None or _is_made(mixture):
        return
    raise _not_made(mixture, _dense(found, folder))


def _not_made(mixture: Path, dense: str) -> UserError:
    return UserError(
        f"{mixture.name} is not made yet",
        why=f"it is the mixture of experts that is trained, made of {Path(dense).name}",
        do=upcycling(dense, str(mixture)),
        where=str(mixture),
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
