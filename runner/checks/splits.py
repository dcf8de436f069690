"""How the rows of a file are divided, by the values of a column too, before a run is started."""

from __future__ import annotations

from typing import Final

from advisor.recipe_data import DataSection
from profiles.data.parts import Parts, parts_by_value, parts_of
from profiles.data.words import printable
from profiles.facts import Dataset
from profiles.quantities import count_text, some_of

_SHOWN: Final = 8
"""Values that are told."""
_SHOWN_FEW: Final = 5


def parts(found: Dataset, data: DataSection) -> Parts:
    """All rows by their use."""
    distinct = found.num_distinct_rows
    by_value = [parts for _, parts in _by(found, data)]
    divided = parts_of(found.num_rows if distinct is None else distinct, data.shares)
    if by_value:
        divided = Parts(*(sum(numbers) for numbers in zip(*by_value, strict=True)))
    if distinct is None:
        return divided
    # of a mix the rows that repeat others are trained on alone
    return divided._replace(train=divided.train * found.num_rows // distinct)


def words(found: Dataset, data: DataSection) -> str:
    """Like "; by `label` (train/eval/kept): a 48/6/6, b 32/4/4"; empty if nothing is asked."""
    if not found.values:
        return ""
    told = [f"{_name(value)} {'/'.join(map(count_text, of))}" for value, of in _by(found, data)]
    is_mix = found.num_distinct_rows is not None
    about = "about " if found.num_duplicates or is_mix else ""  # equal rows go to one side
    return f"; by {_column(data)} ({about}train/eval/kept): {some_of(told, _SHOWN)}"


def warnings(found: Dataset, data: DataSection) -> list[str]:
    """Values with too few rows for one of each part."""
    wanted = [i for i, share in enumerate(data.shares) if share]
    by_value = _by(found, data)
    few = [(value, of) for value, of in by_value if not all(of[i] for i in wanted)]
    if not few:
        return []
    shown = some_of([f"{_name(value)} {sum(of)}" for value, of in few], _SHOWN_FEW)
    values = f"{len(few)} of {len(by_value)} values of {_column(data)}"
    return [f"{values} have too few rows to be in every part of {data.split}: {shown}"]


def _column(data: DataSection) -> str:
    return f"`{printable(data.split_by or '', 40)}`"


def _by(found: Dataset, data: DataSection) -> list[tuple[str, Parts]]:
    """Value and its rows, as they appear in the file, in which they are drawn too."""
    if not found.values:
        return []
    names, numbers = zip(*found.values, strict=True)
    return list(zip(names, parts_by_value(numbers, data.shares), strict=True))


def _name(value: str) -> str:
    return printable(value, 30) if value else "(none)"
