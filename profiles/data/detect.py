"""Which data format rows are in, found from their keys, and what a user is told if in none.

Decides the nearest format. Knows no values: the formats read the rows.
"""

from __future__ import annotations

import difflib
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from profiles.data import formats
from profiles.data.formats.spec import TEXTS
from profiles.data.words import printable
from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from profiles.data.formats.spec import Field, Format

MAX_KEYS_SHOWN: Final = 1000
"""Keys of a row that are compared with known ones; no format has more than a few."""


def format_of(row: Collection[str]) -> Format | None:
    """Find the first format whose required keys are all there, else by other names in use."""
    for by_alias in (False, True):
        for one in formats.FORMATS:
            if one.fits(row, by_alias=by_alias):
                return one
    return None


def detect_format(
    row_keys: Iterable[Collection[str]],
    *,
    kinds: Collection[str] = TEXTS,
    where: str = "",
    first_row: str = "",
) -> Format:
    """Find the format that most of the first rows are in.

    UserError if none fits; it shows `first_row` and names the nearest format for `kinds`.
    """
    rows = list(row_keys)
    found = Counter(key for keys in rows for key in islice(keys, MAX_KEYS_SHOWN))
    votes = Counter(one.name for one in map(format_of, rows) if one)
    if votes:
        return formats.by_name(votes.most_common(1)[0][0])
    shown = ", ".join(f"`{printable(key, 40)}`" for key, _ in found.most_common(12))
    raise UserError(
        f"no known data format has these keys: {shown or 'none'}",
        why=f"{first_row}the formats that are read are {formats.describe()}",
        do=_advise_nearest(found, kinds),
        where=where,
        code=ExitCode.BAD_DATA,
    )


def _advise_nearest(found: Collection[str], kinds: Collection[str]) -> str:
    """Name the format with the most recognisable keys, and the renames that lead there."""
    best, best_share, best_steps = "", 0.0, ""
    for one in formats.FORMATS:
        if not one.serves(kinds):
            continue
        sources = {field.name: _source_key(field, found) for field in one.required}
        known = {key: source for key, source in sources.items() if source}
        share = len(known) / len(sources) + sum(key == src for key, src in known.items()) / 100
        if share > best_share:
            steps = [
                f"add `{key}`" if not source else f"rename `{printable(source, 40)}` to `{key}`"
                for key, source in sources.items()
                if source != key
            ]
            best, best_share, best_steps = one.name, share, ", ".join(steps)
    if not best:
        return "rename the keys to those of one format; none is near"
    return f"the nearest is {best}: {best_steps}"


def _source_key(field: Field, found: Collection[str]) -> str | None:
    """The key that stands for a field: its name, an alias in any case, or a misspelling."""
    if field.name in found:
        return field.name
    lowered = {name.lower(): name for name in found}
    for other in (field.name, *field.aliases, *field.near):
        if other in lowered:
            return lowered[other]
    near = difflib.get_close_matches(field.name, lowered, n=1, cutoff=0.8)
    return lowered[near[0]] if near else None
