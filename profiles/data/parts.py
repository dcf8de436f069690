"""How many rows of one file are trained on, evaluated with, and kept from both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Parts(NamedTuple):
    """A number of rows, or of groups of equal rows, for each use."""

    train: int
    evaluation: int
    test: int
    """Touched by no training: their prompts are answered."""


def parts_of(number: int, shares: Sequence[int]) -> Parts:
    """A number divided after three shares, as a recipe's `data.split` has them.

    One row at least is trained on; what does not divide evenly is kept from both, or evaluated
    with where nothing is kept.
    """
    total = sum(shares)
    train = number * shares[0] // total or 1
    evaluation = min(number - train, number * shares[1] // total)
    if shares[2] == 0:
        evaluation = number - train
    return Parts(train, evaluation, number - train - evaluation)


def parts_by_value(numbers: Sequence[int], shares: Sequence[int]) -> list[Parts]:
    """The rows of each value divided after the shares, so that all together are too.

    What does not divide evenly goes to the part that lacks most, counted over the values so far: a
    part is off its share by less than two rows of a value, by about one of all. One row at least is
    trained on.
    """
    if len(numbers) == 1:
        return [parts_of(numbers[0], shares)]
    total = sum(shares)
    missing = [0, 0, 0]
    """Of each part, in rows times `total`."""
    found = []
    for number in numbers:
        missing = [m + number * share for m, share in zip(missing, shares, strict=True)]
        given = [max(0, m // total) for m in missing]
        while sum(given) != number:
            step = 1 if sum(given) < number else -1
            left = [step * (m - total * n) for m, n in zip(missing, given, strict=True)]
            can = [i for i in range(3) if shares[i] and given[i] + step >= 0]
            given[max(can, key=left.__getitem__)] += step
        missing = [m - total * n for m, n in zip(missing, given, strict=True)]
        found.append(Parts(*given))
    if not any(parts.train for parts in found):
        most = min((1, 2), key=missing.__getitem__)  # more rows than its share, so some
        at = next(i for i, parts in enumerate(found) if parts[most])
        given = list(found[at])
        given[0], given[most] = 1, given[most] - 1
        found[at] = Parts(*given)
    return found


def held_out(
    keys: Sequence[int], value_of: Sequence[int], shares: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Which keys are evaluated with and which are kept from both, in the order that they have.

    `value_of`: the number of each key's value; the rows of each value are divided for themselves.
    """
    by_value: dict[int, list[int]] = {}
    for key in keys:
        by_value.setdefault(value_of[key], []).append(key)
    values = [by_value[value] for value in sorted(by_value)]
    evaluated: list[int] = []
    kept: list[int] = []
    for of_value, parts in zip(
        values, parts_by_value([len(one) for one in values], shares), strict=True
    ):
        end = parts.train + parts.evaluation
        evaluated += of_value[parts.train : end]
        kept += of_value[end:]
    return evaluated, kept
