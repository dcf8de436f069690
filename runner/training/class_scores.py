"""How well rows were sorted into classes: exact, in plain Python, as scikit-learn defines it.

With its zero_division of 0, and its labels: the classes that some row is of or was put into.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean

from profiles.class_facts import Classes

MOST_IN_TABLE = 20
"""Classes of which the whole table is kept: 400 numbers."""
_MOST_CHARS = 40
"""Of a name in the table."""
_TWO = 2

Table = list[list[int]]
"""Rows by their class, and in it by the class that they were put into."""


def classes_of(
    names: Sequence[str],
    actual: Sequence[int],
    found: Sequence[int],
    shares: Sequence[Sequence[float]],
) -> Classes:
    """All that is told of a set.

    `actual`, `found`: the class of each row and the one that it was put into, as places in `names`;
    `shares`: of each row the probability of each class, or nothing where no AUC is wanted.
    """
    table = table_of(actual, found, len(names))
    precision, recall, f1 = (fmean(values) for values in zip(*_by_class(table), strict=True))
    is_small = len(names) <= MOST_IN_TABLE
    return Classes(
        precision=precision,
        recall=recall,
        macro_f1=f1,
        micro_f1=sum(table[i][i] for i in range(len(names))) / len(actual),
        auc=mean_auc(actual, shares, len(names)) if shares else None,
        names=tuple(name[:_MOST_CHARS] for name in names) if is_small else (),
        table=tuple(map(tuple, table)) if is_small else (),
    )


def table_of(actual: Sequence[int], found: Sequence[int], num_classes: int) -> Table:
    """The confusion matrix."""
    table = [[0] * num_classes for _ in range(num_classes)]
    for one, other in zip(actual, found, strict=True):
        table[one][other] += 1
    return table


def _by_class(table: Table) -> list[tuple[float, float, float]]:
    """Precision, recall and F1 of each class that occurs."""
    put = [sum(column) for column in zip(*table, strict=True)]
    values = []
    for i, row in enumerate(table):
        right, of_it = row[i], sum(row)
        if of_it or put[i]:
            f1 = 2 * right / (of_it + put[i])
            values.append((right / put[i] if put[i] else 0.0, right / of_it if of_it else 0.0, f1))
    return values


def mean_auc(
    actual: Sequence[int], shares: Sequence[Sequence[float]], num_classes: int
) -> float | None:
    """Of the second of two classes; of more, the mean of each against the rest."""
    wanted = range(1, _TWO) if num_classes == _TWO else range(num_classes)
    each = [auc([a == i for a in actual], [row[i] for row in shares]) for i in wanted]
    known = [value for value in each if value is not None]
    return fmean(known) if known else None


def auc(is_positive: Sequence[bool], values: Sequence[float]) -> float | None:
    """That a positive row has the higher value of two, a tie counting half (Mann and Whitney).

    None where all rows are of one kind.
    """
    num_positive = sum(is_positive)
    num_negative = len(is_positive) - num_positive
    if not num_positive or not num_negative:
        return None
    won, below = 0.0, 0
    ordered = sorted(zip(values, is_positive, strict=True))
    for _, equal in groupby(ordered, key=lambda row: row[0]):
        kinds = [positive for _, positive in equal]
        good = sum(kinds)
        bad = len(kinds) - good
        won += good * (below + bad / 2)
        below += bad
    return won / (num_positive * num_negative)
