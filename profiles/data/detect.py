"""Which data format rows are in, found from their keys, and what a user is told if in none.

Decides the nearest format. Knows no values: the formats read the rows.
"""

from __future__ import annotations

import difflib
import shlex
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from profiles.data import formats
from profiles.data.formats.spec import TEXTS, is_flag
from profiles.data.words import printable
from profiles.errors import ExitCode, UserError
from profiles.quantities import some_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from profiles.data.formats.spec import Field, Format

MAX_KEYS_SHOWN: Final = 1000
"""Keys of a row that are compared with known ones; no format has more than a few."""

MAX_OTHER_SHARE: Final = 0.25
"""Of values that are no flags, up to which a format of flags is still meant."""
_MOST_IN_ADVICE: Final = 6
"""Keys of a row up to which it is shown how to make parts of them."""


def format_of(row: Collection[str], but: Collection[str] = ()) -> Format | None:
    """Find the first format whose required keys are all there, else by other names in use.

    `but`: names of formats that it is not.
    """
    for by_alias in (False, True):
        for one in formats.FORMATS:
            if one.name not in but and one.fits(row, by_alias=by_alias):
                return one
    return None


def _with_other_values(rows: Sequence[Collection[str]]) -> list[str]:
    """Formats with a flag that is none in a share of the rows: 0 and 1 of a rating from 0 to 4."""
    found = []
    for one in formats.FORMATS:
        for key in (key for key in one.required if key.holds == "flag"):
            given = [
                row[name] for row in rows if isinstance(row, dict) and (name := key.name_in(row))
            ]
            num_others = sum(value is not None and not is_flag(value) for value in given)
            found += [one.name] if num_others > MAX_OTHER_SHARE * len(rows) else []
    return found


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
    but = _with_other_values(rows)
    votes = Counter(one.name for row in rows if (one := format_of(row, but)))
    if votes:
        return formats.by_name(votes.most_common(1)[0][0])
    shown = some_of([f"`{printable(key, 40)}`" for key, _ in found.most_common()], 12)
    raise UserError(
        f"no known data format has these keys: {shown or 'none'}",
        why=f"{first_row}the formats that are read are {formats.describe()}",
        do=_advise_nearest(found, kinds, _structured(rows)),
        where=where,
        code=ExitCode.BAD_DATA,
    )


def _structured(rows: Iterable[Collection[str]]) -> set[str]:
    """Keys that hold a list or an object in some row, so that no text can be made of them."""
    whole = [row for row in rows if isinstance(row, dict)]
    return {key for row in whole for key in islice(row, MAX_KEYS_SHOWN) if _is_structure(row[key])}


def _is_structure(value: object) -> bool:
    return isinstance(value, list | dict)


def _advise_nearest(
    found: Collection[str], kinds: Collection[str], structured: Collection[str]
) -> str:
    """Name the format with the most recognisable keys, the renames that lead there, or --column.

    `structured`: keys that no text can be made of.
    """
    best, best_share, sources = "", 0.0, dict[str, str | None]()
    served = [one for one in formats.FORMATS if one.serves(kinds)]
    for one in served:
        found_keys = {field.name: _source_key(field, found) for field in one.required}
        known = {key: source for key, source in found_keys.items() if source}
        share = len(known) / len(found_keys) + sum(key == src for key, src in known.items()) / 100
        if share > best_share:
            best, best_share, sources = one.name, share, found_keys
    if not best:
        sources = _any_texts(served, len(found))
    by_columns = _by_columns(sources, found, structured)
    if not best:
        none = "rename the keys to those of one format; none is near"
        return f"{none}; or say what they are, such as {by_columns}" if by_columns else none
    steps = [
        f"add `{key}`" if not source else f"rename `{printable(source, 40)}` to `{key}`"
        for key, source in sources.items()
        if source != key
    ]
    renamed = f"the nearest is {best}: {', '.join(steps)}"
    return f"{renamed}; or leave the file as it is: {by_columns}" if by_columns else renamed


def _any_texts(served: Sequence[Format], num_keys: int) -> dict[str, str | None]:
    """The fields, without a key, of the first format that is texts alone and no more than these."""
    for one in served:
        if len(one.required) <= num_keys and all(key.holds == "text" for key in one.required):
            return {field.name: None for field in one.required}
    return {}


def _by_columns(
    sources: Mapping[str, str | None], found: Collection[str], structured: Collection[str]
) -> str:
    """The options that make the fields of columns; the last column is what is answered.

    Columns of texts that no field has are shared among the fields that have none; what is answered
    is of one column. "" where that cannot be, or where it may be in a list or an object.
    """
    spare = [key for key in found if key not in sources.values() and key not in structured]
    missing = [name for name, source in sources.items() if source is None]
    if missing == list(sources)[-1:]:
        spare = [] if structured else spare[-1:]
    if not sources or len(missing) > len(spare) or len(found) > _MOST_IN_ADVICE:
        return ""
    if not all(map(_is_plain, found)):
        return ""
    parts = {name: source for name, source in sources.items() if source}
    for name, keys in zip(missing, _shared(spare, len(missing)), strict=True):
        parts[name] = keys[0] if len(keys) == 1 else "\\n".join(f"{{{key}}}" for key in keys)
    options = [f"--column {shlex.quote(f'{name}={parts[name]}')}" for name in sources]
    return f"{' '.join(options)} ([data.columns] in a recipe)"


def _shared(keys: list[str], number: int) -> list[list[str]]:
    """The keys in order, shared among so many: the last has one, the one before it most of them."""
    if number < 2:
        return [keys][:number]
    return [*([key] for key in keys[: number - 2]), keys[number - 2 : -1], keys[-1:]]


def _is_plain(key: str) -> bool:
    return key.isprintable() and not {"{", "}", "\\"} & set(key)


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
