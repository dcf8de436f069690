"""Labels that cannot be learnt are refused before the start, and odd ones are told."""

from __future__ import annotations

import pytest
from data_files import write_rows

from profiles.data import classes, dataset
from profiles.errors import UserError


def told(tmp_path, labels):
    """What is said of a file with these labels."""
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    return " ".join(dataset.check(write_rows(tmp_path, rows), kinds=("label",)).warnings)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (["spam"] * 9, "all rows have one label, spam"),
        ([str(i) for i in range(3000)], "1 000 labels or more"),
        (list(range(40)), "40 rows have 40 labels: most stand at one row alone"),
        (["a", "b", *"ccc"], "5 rows have 3 labels"),
    ],
)
def test_labels_that_are_no_classes_are_refused_and_told_by_a_check(tmp_path, labels, why):
    """With what is wrong with them."""
    counts = {str(label): labels.count(label) for label in labels[:1000]}
    with pytest.raises(UserError) as caught:
        classes.refuse(counts, "rows.json")

    assert why in caught.value.why.replace("1000", "1 000")
    assert why in told(tmp_path, labels).replace("1000", "1 000")


def test_classes_with_few_rows_are_told(tmp_path):
    """They are learnt all the same."""
    classes.refuse({"a": 6, "b": 2}, "rows.json")

    assert "1 label stands at fewer than 5 rows, from which little is learnt: b" in told(
        tmp_path, [*"aaaaaabb"]
    )
    assert "fewer than" not in told(tmp_path, [*"aaaaabbbbb"])


def test_a_class_that_is_only_evaluated_is_refused(tmp_path):
    """By its name; classes may come from several files."""
    files = [
        write_rows(tmp_path, [{"text": f"{name} {i}", "label": name} for i in range(6)], name=name)
        for name in ("a.json", "b.json", "c.json")
    ]
    first, second, third = (dataset.check(file, kinds=("label",)) for file in files)

    classes.check([first, second], [first])
    with pytest.raises(UserError, match="that no row to train on has") as caught:
        classes.check([first, second], [second, third])
    assert "c.json" in caught.value.why
    assert caught.value.where == third.path
    with pytest.raises(UserError, match="cannot be learnt"):
        classes.check([first], [])


@pytest.mark.parametrize("label", [0.5, True, None, ["a"], {"a": 1}])
def test_a_label_is_a_word_or_a_whole_number(tmp_path, label):
    """Anything else is a fault of the row."""
    rows = [{"text": "t", "label": "a"}, {"text": "u", "label": label}] * 5
    with pytest.raises(UserError, match="5 of 10 rows"):
        dataset.check(write_rows(tmp_path, rows), kinds=("label",))
