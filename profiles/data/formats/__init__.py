"""The data formats: one file each, and their list, which is all that registers one.

Decides the order in which rows are compared with formats. Reads no file and loads no library, so
that a recipe can ask for the names.
"""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from profiles.data.formats.alpaca import ALPACA
from profiles.data.formats.classification import CLASSIFICATION
from profiles.data.formats.messages import MESSAGES
from profiles.data.formats.preference import PREFERENCE
from profiles.data.formats.prompt_completion import PROMPT_COMPLETION
from profiles.data.formats.rated import RATED
from profiles.data.formats.sharegpt import SHAREGPT
from profiles.data.formats.text import TEXT
from profiles.data.words import printable
from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from profiles.data.formats.spec import Format

FORMATS: Final[list[Format]] = [
    PREFERENCE,
    RATED,
    MESSAGES,
    SHAREGPT,
    ALPACA,
    PROMPT_COMPLETION,
    CLASSIFICATION,
    TEXT,
]
"""In order of preference: the public Alpaca files also have a `text` column, for instance."""


def names(kinds: Collection[str] | None = None) -> tuple[str, ...]:
    """The formats of rows of these kinds; all formats without kinds."""
    return tuple([one.name for one in FORMATS if kinds is None or one.serves(kinds)])


def by_name(name: str) -> Format:
    """Look up a format by the name that a user gave; UserError with the nearest name."""
    known = {one.name: one for one in FORMATS}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise UserError(
        f"unknown data format `{printable(name, 40)}`",
        why=f"the formats that are read are {describe()}",
        do=f"choose {near[0]}" if near else "leave the format out: it is found from the keys",
        where="format",
        code=ExitCode.USAGE,
    )


def describe() -> str:
    """List the formats that are read, with the keys of each."""
    return "; ".join(f"{one.name} ({', '.join(one.keys)})" for one in FORMATS)


def cell_kinds() -> dict[str, str]:
    """What a table's cell holds, by key: "text", "list", or "either" where formats differ."""
    kinds: dict[str, str] = {}
    for field in (one for fmt in FORMATS for one in fmt.fields if one.holds != "flag"):
        for name in (field.name, *field.aliases):
            if kinds.setdefault(name, field.holds) != field.holds:
                kinds[name] = "either"
    return kinds


@contextmanager
def registered(fmt: Format) -> Iterator[Format]:
    """Have one more format, after all others, until the end of the block."""
    assert all(fmt.name != one.name for one in FORMATS)
    FORMATS.append(fmt)
    try:
        yield fmt
    finally:
        FORMATS.remove(fmt)
