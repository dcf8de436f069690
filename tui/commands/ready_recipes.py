"""`advisor recipe list`: the ready recipes, each with when to take it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from advisor.recipe import Recipe, parse
from profiles import installation
from tui import plain

SCHEMA = 1
_SENTENCE = re.compile(r"(?<=\.)\s")


class Ready(NamedTuple):
    """A recipe that comes with tunedeck."""

    path: Path
    about: str
    """The comment that it begins with."""
    recipe: Recipe

    @property
    def when(self) -> str:
        """The first sentence of its comment."""
        return _SENTENCE.split(self.about, maxsplit=1)[0].removesuffix(".")


def found() -> list[Ready]:
    """All of them, by name; UserError (BAD_RECIPE) where a file was spoilt."""
    paths = installation.recipes_dir().glob("*.toml")
    return [_read(path) for path in sorted(paths, key=lambda path: path.stem)]


def _read(path: Path) -> Ready:
    text = path.read_text(encoding="utf-8")
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return Ready(path, " ".join(comment), parse(text, where=str(path)))


def show(*, as_json: bool) -> int:
    """Print a line for each, and how to take one."""
    ready = found()
    if as_json:
        plain.show_json({"schema": SCHEMA, "recipes": [_document(one) for one in ready]})
        return 0
    width = plain.page_width()
    lines = plain.table([(one.path.stem, one.when) for one in ready], width=width)
    folder = shlex.quote(str(installation.recipes_dir()))
    note = "take one, set model.id and data.train in it, and start it with `advisor run`:"
    plain.show([*lines, "", *plain.wrap(note, width), f"  cp {folder}/NAME.toml ."])
    return 0


def _document(one: Ready) -> dict[str, Any]:
    recipe = one.recipe
    return {
        "name": one.path.stem,
        "path": str(one.path),
        "task": recipe.task,
        "method": recipe.method.name,
        "model": recipe.model.id,
        "about": one.about,
    }
