"""Several files in one epoch: how many rows of each are drawn, and what they are together.

The weight of a file is how often each of its rows is in an epoch on average. Of a file with 1000
rows, weight 0.05 takes 50, none twice; weight 1 takes all; weight 2.5 takes all of them twice, and
500 a third time. Which rows these are depends on the seed and on the place of the file in the list,
and on nothing else, so that a replay draws the same.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from profiles.data.repeats import RowIndex
from profiles.data.tokens import stats_of
from profiles.facts import Dataset, Origin, TokenStats

if TYPE_CHECKING:
    from profiles.data.dataset import Inspected

    Pairs = tuple[tuple[int, int], ...]


class Drawn(NamedTuple):
    """Of the usable rows of one file."""

    num_rows: int
    num_distinct: int
    """Rows that are drawn at all."""
    num_drawn: int
    """With those that are repeated."""


def drawn(num_rows: int, weight: float) -> Drawn:
    """How many rows of a file are in an epoch; one at least."""
    num_drawn = max(1, int(num_rows * weight + 0.5))
    return Drawn(num_rows, min(num_rows, num_drawn), num_drawn)


def times(counts: Sequence[int], weights: Sequence[float], seed: int) -> array[int]:
    """How often each row is in an epoch, file after file, with 0 for those left out."""
    found = array("H")
    for place, (num_rows, weight) in enumerate(zip(counts, weights, strict=True)):
        whole, rest = divmod(drawn(num_rows, weight).num_drawn, num_rows)
        of_file = array("H", [whole]) * num_rows
        draw = random.Random(f"{seed}:{place}")  # noqa: S311  # a choice of rows, no secret
        for row in draw.sample(range(num_rows), rest):
            of_file[row] += 1
        found += of_file
    return found


def mixed(files: Sequence[Inspected], weights: Sequence[float]) -> Inspected:
    """Checked files as the one data set that they are together."""
    datasets = [one.dataset for one in files]
    draws = [drawn(one.num_rows, weight) for one, weight in zip(datasets, weights, strict=True)]
    names = [Path(one.path).name for one in datasets]
    sums = {
        key: sum(getattr(one, key) for one in datasets)
        for key in ("num_bytes", "num_empty", "num_bad", "num_duplicates", "num_near_duplicates")
    }
    told = [
        f"{name}: {draw.num_drawn} of {draw.num_rows} rows an epoch (weight {weight:g})"
        for name, draw, weight in zip(names, draws, weights, strict=True)
    ]
    warnings = [
        f"{name}: {warning}"
        for name, one in zip(names, datasets, strict=True)
        for warning in one.warnings
    ]
    whole = replace(
        datasets[0],
        path=", ".join(one.path for one in datasets),
        format=", ".join(dict.fromkeys(one.format for one in datasets)),
        container="; ".join(told),
        sha256="",
        num_rows=sum(draw.num_drawn for draw in draws),
        num_distinct_rows=sum(draw.num_distinct for draw in draws),
        tokens=_tokens(datasets, draws),
        values=_values(datasets, draws),
        warnings=(*warnings, *_in_both(names, files)),
        **sums,
    )
    index = RowIndex()
    for one in files:
        index.extend(one.index)
    return replace(files[0], dataset=whole, index=index)


def _in_both(names: Sequence[str], files: Sequence[Inspected]) -> Iterator[str]:
    """Rows that two files share are drawn from both."""
    for (name, one), (other_name, other) in combinations(zip(names, files, strict=True), 2):
        likeness = other.index.repeats_of(one.index)
        if number := likeness.exact.count + likeness.near.count:
            yield f"{number} rows of {other_name} are also in {name}"


def _values(datasets: Sequence[Dataset], draws: Sequence[Drawn]) -> tuple[tuple[str, int], ...]:
    """Distinct rows that are to be expected of each value, in order of appearance."""
    found = Counter[str]()
    for one, draw in zip(datasets, draws, strict=True):
        numbers = tuple((place, count) for place, (_, count) in enumerate(one.values))
        for place, number in _scaled(numbers, draw.num_distinct, draw.num_rows):
            found[one.values[place][0]] += number
    return tuple(found.items())


def _tokens(datasets: Iterable[Dataset], draws: Sequence[Drawn]) -> TokenStats | None:
    """What is to be expected: of each file the lengths of all its rows, for so many of them."""
    found = [one.tokens for one in datasets]
    stats = [one for one in found if one is not None]
    if len(stats) != len(found):
        return None
    scales = [(draw.num_drawn, draw.num_rows) for draw in draws]

    def together(key: str) -> list[tuple[int, int]]:
        pairs = (_scaled(getattr(one, key), *by) for one, by in zip(stats, scales, strict=True))
        return [pair for of_file in pairs for pair in of_file]

    origins = {one.origin for one in stats}
    return stats_of(
        together("lengths"),
        together("starts"),
        together("unlearnt"),
        together("edges"),
        beside=together("beside"),
        max_length=stats[0].max_length,
        origin=origins.pop() if len(origins) == 1 else Origin.PREDICTED,
    )


def _scaled(pairs: Pairs, number: int, of: int) -> Iterator[tuple[int, int]]:
    """The counts of a distribution for another number of rows; sums are rounded, not each count."""
    total = given = 0
    for value, count in pairs:
        total += count
        part = (2 * total * number + of) // (2 * of) - given
        given += part
        if part:
            yield value, part
