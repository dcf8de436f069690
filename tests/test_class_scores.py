"""How rows were sorted into classes: against values by hand, and as a run and a page tell it."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from profiles.class_facts import Classes
from profiles.runs.records.evaluation import Evaluated
from profiles.runs.records.form import form_of
from profiles.runs.result import result_of
from runner.tasks.classify import ordered
from runner.training import class_scores
from tui.pages import classes as page

ACTUAL = [0, 0, 0, 1, 1, 2, 2, 2, 2, 0]
FOUND = [0, 0, 1, 1, 2, 2, 2, 2, 0, 1]


def test_means_over_classes_are_those_by_hand():
    """Precisions 2/3, 1/3, 3/4; recalls 2/4, 1/2, 3/4; F1 4/7, 2/5, 3/4."""
    found = class_scores.classes_of(("a", "b", "c"), ACTUAL, FOUND, [])

    assert found.table == ((2, 2, 0), (0, 1, 1), (1, 0, 3))
    assert found.precision == pytest.approx((2 / 3 + 1 / 3 + 3 / 4) / 3)
    assert found.recall == pytest.approx((2 / 4 + 1 / 2 + 3 / 4) / 3)
    assert found.macro_f1 == pytest.approx((4 / 7 + 2 / 5 + 3 / 4) / 3)
    assert found.micro_f1 == pytest.approx(6 / 10)
    assert found.auc is None


def test_a_class_that_no_row_has_counts_only_where_one_was_put_into_it():
    """As scikit-learn's labels and its zero_division of 0."""
    absent = class_scores.classes_of(("a", "b", "c"), [0, 1], [0, 1], [])
    taken = class_scores.classes_of(("a", "b", "c"), [0, 1], [0, 2], [])

    assert (absent.precision, absent.recall, absent.macro_f1) == (1, 1, 1)
    assert taken.precision == taken.recall == taken.macro_f1 == pytest.approx(1 / 3)
    assert taken.micro_f1 == 0.5


@pytest.mark.parametrize(
    ("positive", "values", "area"),
    [
        ([False, False, True, True], [0.1, 0.4, 0.35, 0.8], 3 / 4),
        ([False, True, True], [0.5, 0.5, 0.9], (0.5 + 1) / 2),
        ([True, False], [0.2, 0.7], 0),
        ([True, False, True, False], [0.5] * 4, 0.5),
        ([True, True], [0.2, 0.7], None),
        ([False], [0.2], None),
    ],
)
def test_the_area_is_the_share_of_pairs_in_order(positive, values, area):
    """Ties count half; without both kinds of rows there is none."""
    assert class_scores.auc(positive, values) == area


def test_of_two_classes_the_second_is_the_positive_one_and_of_more_each_is():
    """A mean over those that can be told."""
    two = class_scores.mean_auc([0, 1, 1], [(0.9, 0.1), (0.8, 0.2), (0.95, 0.05)], 2)
    shares = [(0.8, 0.1, 0.1), (0.3, 0.6, 0.1), (0.5, 0.4, 0.1)]
    three = class_scores.mean_auc([0, 1, 0], shares, 3)

    assert two == 0.5
    assert three == (1 + 1) / 2
    assert class_scores.mean_auc([1, 1], [(0.9, 0.1), (0.8, 0.2)], 2) is None


def test_classes_are_in_the_order_of_numbers_or_of_the_alphabet():
    """Whatever order the rows have."""
    assert ordered(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert ordered(["10", "9", "b"]) == ["10", "9", "b"]


def sorted_rows(names=("a", "b", "c")):
    """A judgement of rows."""
    return class_scores.classes_of(names, ACTUAL, FOUND, [])


def test_a_record_keeps_what_was_told_and_the_result_has_it():
    """Of the weights that are judged."""
    record = Evaluated(step=4, loss=0.5, seconds=1, rows=10, classes=sorted_rows())

    assert form_of(Classes).read(form_of(Classes).content(sorted_rows())) == sorted_rows()
    assert "F1 0.574 (macro), 0.600 (micro)" in record.words
    assert result_of([record]).classes == sorted_rows()


def test_a_page_shows_the_table_where_it_is_small():
    """Rows in the order of the classes; without it where there are many, or no room."""
    lines = page.lines(sorted_rows(("spam", "ham", "a name of some length")), 80)
    many = class_scores.classes_of([str(i) for i in range(30)], ACTUAL, FOUND, [])

    assert [line.split()[-3:] for line in lines[-3:]] == [list("220"), list("011"), list("103")]
    assert lines[-3].split()[:2] == ["1", "spam"]
    assert lines[-4].split() == ["1", "2", "3"]
    assert max(map(len, lines)) <= 80
    assert (many.names, many.table) == ((), ())


def test_the_words_of_a_page_fit_its_width():
    """Nothing is cut."""
    assert all(len(line) <= 40 for line in page.lines(sorted_rows(), 40))
