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
