"""Rows divided so that each value of a column is: counts, what is told, what is refused."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from data_files import word_tokenizer, write_rows
from hypothesis import given
from hypothesis import strategies as st
from small_model import recipe_text, small_model

from advisor import recipe as recipes
from profiles.data import dataset
from profiles.data.parts import Parts, held_out, parts_by_value, parts_of
from profiles.errors import ExitCode, UserError
from runner.checks import splits
from tui.main import run as advisor_here

SHARES = (8, 1, 1)
USES = (1, -1, -2)
"""To train once in an epoch, to evaluate, for neither."""


@pytest.mark.parametrize(
    ("numbers", "wanted"),
    [
        ([60, 40], [(48, 6, 6), (32, 4, 4)]),
        ([100, 10, 10], [(80, 10, 10), (8, 1, 1), (8, 1, 1)]),
        ([5, 5], [(4, 1, 0), (4, 0, 1)]),
        ([2, 2], [(2, 0, 0), (1, 1, 0)]),
        ([7], [tuple(parts_of(7, SHARES))]),
    ],
)
def test_each_value_is_divided_after_the_shares(numbers, wanted):
    """And what does not divide evenly goes to the part that lacks most."""
    assert [tuple(parts) for parts in parts_by_value(numbers, SHARES)] == wanted


def test_many_small_values_leave_no_part_empty():
    """Ten of one row are divided as ten rows."""
    parts = parts_by_value([1] * 10, SHARES)

    assert [sum(numbers) for numbers in zip(*parts, strict=True)] == [8, 1, 1]


SHARES_DRAWN = st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20))


@given(st.lists(st.integers(1, 50), min_size=2, max_size=20), SHARES_DRAWN)
def test_all_together_are_divided_after_the_shares_too(numbers, shares):
    """To about a row, whatever the values; nothing goes to a part without a share."""
    parts = parts_by_value(numbers, shares)

    assert [sum(one) for one in parts] == numbers
    assert all(count >= 0 for one in parts for count in one)
    sums = [sum(one) for one in zip(*parts, strict=True)]
    assert sums[0] >= 1
    for one, share in zip(sums, shares, strict=True):
        assert abs(one - sum(numbers) * share / sum(shares)) <= 1.01
        assert share or not one
    for one, number in zip(parts, numbers, strict=True):
        for count, share in zip(one, shares, strict=True):
            assert abs(count - number * share / sum(shares)) < 2


def test_the_one_row_to_train_on_comes_from_the_part_with_most_above_its_share():
    """Of 2 rows after 1:2:4 evaluation has 0.43 too many, and the test part 0.14 too few."""
    parts = parts_by_value([1, 1], (1, 2, 4))

    assert [sum(numbers) for numbers in zip(*parts, strict=True)] == [1, 0, 1]


def test_keys_are_taken_in_the_order_that_they_were_drawn_in():
    """The first of each value are trained on."""
    keys, value_of = [3, 1, 0, 2, 5, 4], [0, 1, 0, 1, 0, 1]

    assert held_out(keys, value_of, (1, 1, 1)) == ([2, 1], [4, 5])


# --- A recipe -----------------------------------------------------------------------------------


def rows(**numbers):
    return [
        {"prompt": f"{value} {i}", "completion": f"reply {value} {i}", "source": value}
        for value, number in numbers.items()
        for i in range(number)
    ]


def parsed(text):
    return recipes.parse(
        f'schema = 1\nname = "r"\n[model]\nid = "m"\n[method]\nname = "lora"\n'
        f'[data]\ntrain = "train.jsonl"\n{text}',
        where="r.toml",
    )


def uses(tmp_path, given_rows, text):
    """Which rows go where, as a run draws them."""
    pytest.importorskip("datasets")
    from profiles.data.encoding import of_folder
    from runner.training import data

    write_rows(tmp_path, given_rows)
    reading = data.Reading(
        recipe=parsed(text),
        base_dir=tmp_path,
        encoder=of_folder(word_tokenizer(tmp_path)),
        columns=lambda *_: None,
    )
    return reading.draw()


def counted(given_rows, drawn):
    found = Counter((row["source"], use) for row, use in zip(given_rows, drawn, strict=True))
    return {
        value: tuple(found[value, use] for use in USES)
        for value in dict.fromkeys(row["source"] for row in given_rows)
    }


def test_training_draws_what_was_told(tmp_path):
    """To the row, where none repeats another."""
    mixed = sorted(rows(web=60, book=30, chat=13), key=lambda row: row["prompt"][::-1])
    drawn = uses(tmp_path, mixed, 'split_by = "source"')

    recipe = parsed('split_by = "source"')
    found = dataset.check(tmp_path / "train.jsonl", split_by="source")
    told = splits.words(found, recipe.data)

    counts = counted(mixed, drawn)
    assert sorted(sum(one) for one in counts.values()) == [13, 30, 60]
    assert counts["web"][1] in (6, 7)
    assert counts["book"][1] == 3
    for value, (train, evaluation, kept) in counts.items():
        assert f"{value} {train}/{evaluation}/{kept}" in told
    sums = Parts(*(sum(one) for one in zip(*counts.values(), strict=True)))
    assert splits.parts(found, recipe.data) == sums


def test_the_draw_depends_on_the_seed(tmp_path):
    """The counts do not."""
    given_rows = rows(a=50, b=50)
    draws = [
        uses(tmp_path, given_rows, f'split_by = "source"\n[train]\nseed = {seed}')
        for seed in (0, 0, 1)
    ]

    assert draws[0] == draws[1] != draws[2]
    assert {tuple(counted(given_rows, one).items()) for one in draws} == {
        (("a", (40, 5, 5)), ("b", (40, 5, 5)))
    }


def test_without_a_column_a_rare_value_may_be_on_one_side_alone(tmp_path):
    """That is what the key is for."""
    given_rows = rows(common=190, rare=10)

    by_chance = [
        counted(given_rows, uses(tmp_path, given_rows, f"[train]\nseed = {seed}"))["rare"]
        for seed in range(5)
    ]
    meant = counted(given_rows, uses(tmp_path, given_rows, 'split_by = "source"'))["rare"]

    assert meant == (8, 1, 1)
    assert any(one != meant for one in by_chance)


def test_equal_rows_stay_on_one_side_with_whichever_value(tmp_path):
    """The value of the first counts."""
    twice = rows(a=20, b=20)
    twins = [{**row, "source": "b"} for row in twice[:10]]

    drawn = uses(tmp_path, [*twice, *twins], 'split_by = "source"')

    assert list(drawn[:10]) == list(drawn[40:])
    assert counted(twice, drawn[:40]) == {"a": (16, 2, 2), "b": (16, 2, 2)}


def test_numbers_truths_and_rows_without_a_value_are_values_too(tmp_path):
    """Told as (none) where there is none."""
    given_rows = [
        {"prompt": f"p{i}", "completion": "c", "kind": kind}
        for i, kind in enumerate([1, 1, True, None, "x", "x"])
    ]
    given_rows.append({"prompt": "p", "completion": "c"})
    path = write_rows(tmp_path, given_rows)

    found = dataset.check(path, split_by="kind")

    assert found.values == (("1", 2), ("True", 1), ("", 2), ("x", 2))
    assert "(none) 2/0/0" in splits.words(found, parsed('split_by = "kind"\nsplit = "1:0:0"').data)
    assert not any("`kind`" in text for text in found.warnings if "not used" in text)


@pytest.mark.parametrize(
    ("column", "words", "do"),
    [
        ("sources", "no row at the beginning of the file has it", "set data.split_by to 'source'"),
        ("zzz", "there are `prompt`, `completion`, `source`", "name one of these"),
    ],
)
def test_a_column_that_is_not_there_is_told_with_the_nearest(tmp_path, column, words, do):
    """Before the start."""
    path = write_rows(tmp_path, rows(a=5))

    with pytest.raises(UserError, match="cannot be divided by") as caught:
        dataset.check(path, split_by=column)

    assert words in caught.value.why
    assert do in caught.value.do
    assert caught.value.code is ExitCode.BAD_DATA


def test_a_column_with_a_value_for_each_row_is_refused(tmp_path):
    """An id divides nothing."""
    path = write_rows(tmp_path, rows(a=1500))

    with pytest.raises(UserError, match="cannot be divided by `prompt`") as caught:
        dataset.check(path, split_by="prompt")

    assert "more than 1000 values" in caught.value.why


def test_a_column_of_lists_is_refused(tmp_path):
    """As a fault of its rows."""
    path = write_rows(tmp_path, [{"prompt": "p", "completion": "c", "tags": ["a"]}])

    with pytest.raises(UserError, match="have a list in `tags`, to divide rows by"):
        dataset.check(path, split_by="tags")


def test_values_with_too_few_rows_are_told(tmp_path):
    """With their number of rows, the first few."""
    path = write_rows(tmp_path, rows(a=100, b=3, c=2))
    found = dataset.check(path, split_by="source")

    (told,) = splits.warnings(found, parsed('split_by = "source"').data)

    assert told.startswith(
        "2 of 3 values of `source` have too few rows to be in every part of 8:1:1"
    )
    assert told.endswith(": b 3, c 2")
    assert splits.warnings(found, parsed('split_by = "source"\nsplit = "1:0:0"').data) == []


def test_a_run_tells_the_counts_before_it_starts(tmp_path, capsys):
    """And a file to evaluate with needs no such column."""
    small_model(tmp_path / "m")
    (tmp_path / "rows.json").write_text(json.dumps(rows(web=60, book=40)))
    (tmp_path / "held.json").write_text(json.dumps([{"prompt": "p", "completion": "c"}]))
    (tmp_path / "r.toml").write_text(recipe_text(model=str(tmp_path / "m")))
    command = ["run", str(tmp_path / "r.toml"), "--dry-run", "--set", "data.split_by=source"]

    assert advisor_here(command) == 0
    told = " ".join(" ".join(capsys.readouterr()).split())
    assert "80 to train on, 10 to evaluate with, 10 kept from both" in told
    assert "by `source` (train/eval/kept): web 48/6/6, book 32/4/4" in told

    assert advisor_here([*command, "--set", "data.eval=held.json"]) == 0
    told = " ".join(" ".join(capsys.readouterr()).split())
    assert "1 of another file to evaluate with" in told

    assert advisor_here([*command[:-1], "data.split_by=sorce"]) == ExitCode.BAD_DATA
    assert "'source'" in capsys.readouterr().err
