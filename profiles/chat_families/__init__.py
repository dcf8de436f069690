"""Chat templates of families, for base models that bring none: one file each, NAME.jinja.

A file is all that a family takes. It begins with a comment that says what the family is, which
`advisor methods` shows, and marks what is learnt of a reply, its end mark included, with
`{% generation %}`. Reads its own folder alone, so that a recipe can ask for the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Final

SUFFIX: Final = ".jinja"
_FOLDER: Final = resources.files(__name__)


def names() -> tuple[str, ...]:
    """The families, as a recipe writes them."""
    files = (file.name for file in _FOLDER.iterdir() if file.name.endswith(SUFFIX))
    return tuple(sorted(name.removesuffix(SUFFIX) for name in files))


def _read(name: str) -> str:
    return (_FOLDER / f"{name}{SUFFIX}").read_text(encoding="utf-8")


TEMPLATES: Final[Mapping[str, str]] = {name: _read(name) for name in names()}
"""The text of each family's template."""


def title(name: str) -> str:
    """What a family is, in a line: the comment that its file begins with."""
    return TEMPLATES[name].split("#}")[0].strip("{#- \n")
