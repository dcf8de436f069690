"""Which data format rows are in, found from their keys, and what a user is told if in none.

Decides the order of preference and the nearest format. Knows no values: formats.py reads the rows.
"""

from __future__ import annotations

import difflib
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from profiles.data.formats import FORMATS, Format, printable
from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

MAX_KEYS_SHOWN: Final = 1000
"""Keys of a row that are compared with known ones; no format has more than a few."""

_OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "instruction": ("question", "query"),
    "output": ("response", "answer"),
    "prompt": ("input", "source"),
    "completion": ("response", "answer", "target"),
    "conversations": ("conversation", "dialogue", "dialog"),
    "messages": ("chat", "turns"),
    "text": ("content", "document", "body"),
}


def describe_formats() -> str:
    """List the formats that are read, with the keys of each."""
    return "; ".join(f"{name} ({', '.join(fmt.required)})" for name, fmt in FORMATS.items())


def require_format(name: str) -> Format:
    """Look up a format by the name that a user gave."""
    if name in FORMATS:
        return FORMATS[name]
    near = difflib.get_close_matches(name, FORMATS, n=1)
    raise UserError(
        f"unknown data format `{printable(name, 40)}`",
        why=f"the formats that are read are {describe_formats()}",
        do=f"choose {near[0]}" if near else "leave the format out: it is found from the keys",
        where="format",
        code=ExitCode.USAGE,
    )


def format_of(keys: Collection[str]) -> str | None:
    """Find the first format whose required keys are all there."""
    for name, fmt in FORMATS.items():
        if all(key in keys for key in fmt.required):
            return name
    return None


def detect_format(
    row_keys: Iterable[Collection[str]], *, where: str = "", first_row: str = ""
) -> str:
    """Find the format that most of the first rows are in; `first_row` is shown if none fits."""
    rows = list(row_keys)
    found = Counter(key for keys in rows for key in islice(keys, MAX_KEYS_SHOWN))
    votes = Counter(name for name in map(format_of, rows) if name)
    if votes:
        return votes.most_common(1)[0][0]
    shown = ", ".join(f"`{printable(key, 40)}`" for key, _ in found.most_common(12))
    raise UserError(
        f"no known data format has these keys: {shown or 'none'}",
        why=f"{first_row}the formats that are read are {describe_formats()}",
        do=_advise_nearest(found),
        where=where,
        code=ExitCode.BAD_DATA,
    )


def _advise_nearest(found: Collection[str]) -> str:
    """Name the format with the most recognisable keys, and the renames that lead there."""
    best, best_share, best_steps = "", 0.0, ""
    for name, fmt in FORMATS.items():
        if fmt.needs:
            continue
        sources = {key: _source_key(key, found) for key in fmt.required}
        known = {key: source for key, source in sources.items() if source}
        share = len(known) / len(sources) + sum(key == src for key, src in known.items()) / 100
        if share > best_share:
            steps = [
                f"add `{key}`" if not source else f"rename `{printable(source, 40)}` to `{key}`"
                for key, source in sources.items()
                if source != key
            ]
            best, best_share, best_steps = name, share, ", ".join(steps)
    if not best:
        return "rename the keys to those of one format; none is near"
    return f"the nearest is {best}: {best_steps}"


def _source_key(key: str, found: Collection[str]) -> str | None:
    if key in found:
        return key
    lowered = {name.lower(): name for name in found}
    for other in (key, *_OTHER_NAMES[key]):
        if other in lowered:
            return lowered[other]
    near = difflib.get_close_matches(key, lowered, n=1, cutoff=0.8)
    return lowered[near[0]] if near else None
