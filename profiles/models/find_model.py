"""Which model a user means by `--model X`.

Decides the order: a local folder, then the catalog, then the hub. The catalog goes first because
it needs no network and its counts were verified. Everything else is an error with near names.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.installation import home
from profiles.models import catalog
from profiles.models.model import CONFIG_NAME, HUB_ID, RUN, from_folder, near_folders


def resolve(text: str) -> Model:
    """The model behind a folder, a name of the catalog or an id on the hub; else UserError.

    `run:ID` is what that run has published.
    """
    if text.startswith(RUN):
        return named(text, Path())
    folder = Path(text).expanduser()
    if (folder / CONFIG_NAME).exists() or _is_path(text):
        return from_folder(text)
    known = catalog.find(text)
    if known is not None:
        return known
    if folder.is_dir():
        return from_folder(text)  # tells what it lacks
    siblings = near_folders(folder)
    if HUB_ID.fullmatch(text) and not siblings:
        from profiles.models import hub  # noqa: PLC0415 - the client library takes 0.2 s

        return hub.fetch(text, cache_dir=home() / "hub")
    raise _unknown(text, folder, siblings)


def named(text: str, base_dir: Path) -> Model:
    """The model that a recipe in `base_dir` names: a folder, or what a run has published."""
    if not text.startswith(RUN):
        return from_folder(base_dir / text)
    from profiles.runs import parents  # noqa: PLC0415 - who plans without runs does not wait for it

    return replace(from_folder(parents.model_folder(text, base_dir)), id=text)


def _is_path(text: str) -> bool:
    """Written as a path, so never a name."""
    return text.startswith(("/", "./", "../", "~")) or text in {".", ".."}


def _unknown(text: str, folder: Path, siblings: list[str]) -> UserError:
    near = catalog.near(text)
    found = [f"near folders: {', '.join(siblings)}"] if siblings else []
    found += [f"near names in the catalog: {', '.join(near)}"] if near else []
    best = str(folder.parent / siblings[0]) if siblings else near[0] if near else None
    return UserError(
        f"no model {text!r}",
        why="; ".join(found) or "no folder and no name in the catalog is near it",
        do=f"use {best}" if best else "give a folder with config.json, or an id such as org/name",
        where="--model",
        code=ExitCode.NO_INPUT,
    )
