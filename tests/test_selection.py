"""The best step, and when no better one is waited for any longer."""

from __future__ import annotations

import math

import pytest

from profiles.runs.records.evaluation import EarlyStop, Evaluated
from runner.training.selection import Selection


def selection(*losses, patience=None):
    """Evaluations of the steps 2, 4, 6 ..."""
    made = Selection(patience=patience)
    for index, loss in enumerate(losses):
        made.add(2 * index + 2, loss)
    return made


@pytest.mark.parametrize(
    ("losses", "best", "waited"),
    [
        ((), None, 0),
        ((2.0,), 2, 0),
        ((2.0, 1.0, 3.0), 4, 1),
        ((2.0, 1.0, 1.0), 4, 1),
        ((1.0, 2.0, 3.0), 2, 2),
        ((math.nan, 2.0, math.inf), 4, 1),
        ((None, math.nan, math.inf), None, 3),
        ((-1.0, 0.0, None), 2, 2),
    ],
)
def test_the_first_step_with_the_lowest_loss_is_the_best(losses, best, waited):
    """One that is not finite never is."""
    found = selection(*losses)

    assert (found.best, found.num_since_best) == (best, waited)


def test_the_base_model_is_no_step():
    """Its loss does not make it the best."""
    found = selection(2.0)
    found.add(0, 1.0)

    assert found.losses == {2: 2.0}


def test_the_first_step_counts():
    """It may be the best already."""
    found = Selection()
    found.add(1, 1.0)

    assert found.best == 1


def test_of_a_step_that_was_evaluated_again_the_newer_loss_counts():
    """It was made again from an earlier checkpoint."""
    found = selection(1.0, 2.0)
    found.add(2, 3.0)

    assert (found.best, found.losses) == (4, {2: 3.0, 4: 2.0})


def test_training_is_over_after_the_recipes_number_of_evaluations_without_a_lower_loss():
    """Not before, and never where the recipe names none."""
    assert not selection(1.0, 2.0, patience=2).is_over
    assert selection(1.0, 2.0, 2.0, patience=2).is_over
    assert selection(1.0, 2.0, 2.0, 2.0, patience=2).is_over
    assert not selection(1.0, *[2.0] * 50).is_over
    assert selection(math.nan, math.nan, patience=2).is_over


def test_what_earlier_attempts_found_of_the_first_set_is_taken_in():
    """Up to the step that this attempt goes on from; it makes the rest again."""
    found = Selection()
    told = [
        Evaluated(step=0, loss=9.0, seconds=1.0),
        Evaluated(step=2, loss=3.0, seconds=1.0),
        Evaluated(step=2, loss=0.1, seconds=1.0, data="other"),
        EarlyStop(step=2, best_step=2, evaluations=1),
        Evaluated(step=4, loss=None, seconds=1.0),
        Evaluated(step=6, loss=1.0, seconds=1.0),
    ]

    found.recall(told, "", 4)

    assert found.losses == {2: 3.0, 4: math.inf}


def test_of_named_sets_the_first_alone_is_taken_in():
    """It decides."""
    found = Selection()
    told = [
        Evaluated(step=2, loss=loss, seconds=1.0, data=name)
        for name, loss in (("domain", 3.0), ("general", 1.0), (None, 2.0))
    ]

    found.recall(told, "domain", 9)

    assert found.losses == {2: 3.0}
