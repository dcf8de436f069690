"""Intervals of a difference: how often they hold the truth, and what they refuse to say."""

from __future__ import annotations

import math
import random

import pytest

from profiles.intervals import Difference, paired

PAIRS = 500
ROWS = 100
TRUTH = 0.1


def seeded(number):
    return random.Random(number)  # noqa: S311  # a simulation, no secret


def pair(chance, change):
    """Losses of the same rows before and after, and the tokens of each."""
    tokens = [chance.randint(20, 300) for _ in range(ROWS)]
    before = [chance.gauss(3.0, 0.8) for _ in range(ROWS)]
    after = [loss - change(chance) for loss in before]
    return before, after, tokens


def normal(chance):
    return chance.gauss(TRUTH, 0.5)


def skewed(chance):
    return chance.expovariate(1) * 0.3 - 0.2


@pytest.mark.slow
@pytest.mark.parametrize("change", [pytest.param(normal, marks=pytest.mark.long), skewed])
def test_the_interval_holds_the_truth_as_often_as_it_says(change):
    """In 95 of 100 pairs of models, 2 more or less; also where few rows change much."""
    chance = seeded(20)
    found = [paired(*pair(chance, change)) for _ in range(PAIRS)]

    held = sum(one.low <= TRUTH <= one.high for one in found) / PAIRS

    assert 0.93 <= held <= 0.97


@pytest.mark.long
@pytest.mark.slow
def test_equal_models_are_called_equal():
    """Rows that differ by chance alone are clear in one pair of twenty."""
    chance = seeded(21)
    clear = sum(paired(*pair(chance, lambda c: c.gauss(0.0, 0.5))).is_clear for _ in range(PAIRS))

    assert 0.03 <= clear / PAIRS <= 0.07


def test_the_same_losses_do_not_differ():
    """Nor is that clear."""
    same = paired([2.0, 3.0, 4.0], [2.0, 3.0, 4.0], [1, 5, 9])

    assert (same, same.is_clear) == (Difference(0.0, 0.0, 0.0), False)


def test_a_difference_is_weighed_by_tokens():
    """A long row counts for as many tokens as it has."""
    found = paired([3.0, 2.0], [1.0, 2.0], [10, 30])

    assert found.value == pytest.approx(2.0 * 10 / 40)


@pytest.mark.parametrize(("shift", "clear"), [(0.5, True), (-0.5, True), (0.001, False)])
def test_only_a_difference_that_stands_out_is_clear(shift, clear):
    """In either direction."""
    chance = seeded(3)
    found = paired(*pair(chance, lambda c: c.gauss(shift, 0.5)))

    assert found.is_clear == clear
    assert found.low < found.value < found.high
    assert (found.value > 0) == (shift > 0) or not clear


def test_few_rows_have_a_wider_interval_than_their_spread():
    """Of four rows the fourth of a sample's spread is known badly: Student's t, not the normal."""
    found = paired([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0], [1, 1, 1, 1])
    normal_half = 1.96 * math.sqrt(1.25 / 4)

    assert (found.high - found.low) / 2 > 1.2 * normal_half


def test_many_rows_are_drawn_in_groups_with_the_same_answer():
    """So that the time is bounded: their mean is exact, the interval nearly as wide."""
    chance = seeded(4)
    changes = [chance.gauss(0.1, 0.5) for _ in range(5000)]
    found = paired(changes, [0.0] * 5000, [1] * 5000)
    half = 1.96 * 0.5 / math.sqrt(5000)

    assert found.value == pytest.approx(math.fsum(changes) / 5000)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)


@pytest.mark.parametrize(
    ("before", "after", "tokens"),
    [
        ([], [], []),
        ([3.0], [2.0], [10]),
        ([3.0, 3.0], [2.0, 2.0], [10, 0]),
        ([3.0, math.nan], [2.0, 2.0], [10, 10]),
        ([3.0, 3.0], [2.0, math.inf], [10, 10]),
    ],
)
def test_nothing_is_said_of_fewer_than_two_rows_or_of_losses_that_are_no_numbers(
    before, after, tokens
):
    """Better none than a wrong interval."""
    assert paired(before, after, tokens) is None


def test_a_row_without_tokens_does_not_count():
    """Whatever its loss."""
    with_it = paired([3.0, 2.0, math.nan], [1.0, 2.0, 0.0], [10, 30, 0])

    assert with_it == paired([3.0, 2.0], [1.0, 2.0], [10, 30])


def test_the_same_rows_give_the_same_interval():
    """A report that is made twice says the same."""
    rows = pair(seeded(5), normal)

    assert paired(*rows) == paired(*rows)
