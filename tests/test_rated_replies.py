"""Replies that are rated, alone or in pairs: each is read for its own task, and by no other."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from data_files import examples, refused, write, write_rows

from profiles.data import dataset
from profiles.data.formats.spec import Example, Message

ASKS = {"role": "user", "content": "How heavy is the pear?"}
TELLS = {"role": "assistant", "content": "It weighs 180 g."}
CHAT = (
    Message(role="user", content="How heavy is the pear?"),
    Message(role="assistant", content="It weighs 180 g."),
)
CALLS = {"role": "assistant", "tool_calls": [{"function": {"name": "weigh"}}]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [ASKS, TELLS], "label": True}, Example(messages=CHAT, is_good=True)),
        ({"messages": [ASKS, TELLS], "kto_tag": False}, Example(messages=CHAT, is_good=False)),
        (
            {"prompt": "p", "completion": "c", "label": 0},
            Example(prompt="p", completion="c", is_good=False),
        ),
        (
            {"prompt": "p", "completion": "c", "label": "0"},
            Example(prompt="p", completion="c", is_good=False),
        ),
        (
            {"prompt": "p", "completion": "c", "label": "True"},
            Example(prompt="p", completion="c", is_good=True),
        ),
        (
            {"prompt": [ASKS], "completion": [TELLS], "label": False},
            Example(messages=CHAT, is_good=False),
        ),
        (
            {"question": "How heavy is the pear?", "answer": "It weighs 180 g.", "label": False},
            Example(messages=CHAT, is_good=False),
        ),
    ],
)
def test_rated_replies_are_read_for_their_task_and_refused_by_others(tmp_path, row, expected):
    """A bad reply is no example of a good one."""
    path = write_rows(tmp_path, [row])

    assert examples(path, kinds=("rated",)) == [expected]
    error = refused(path)
    assert error.what.startswith("rated data is for training on good and bad replies (KTO)")
    assert 'task = "kto"' in error.do


def test_the_good_replies_alone_are_taken_out_as_the_refusal_says(tmp_path):
    """Whatever the label is called, and whether it is true or 1."""
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("jq is not here")
    chat = {"messages": [ASKS, TELLS]}
    ratings = [{key: given} for key in ("label", "kto_tag") for given in (True, False, 1, 0)]
    path = write_rows(tmp_path, [chat | one for one in ratings])
    _, _, program = refused(path).do.partition("jq -c '")

    done = subprocess.run(
        [jq, "-c", program.partition("'")[0], path], capture_output=True, text=True, check=True
    )

    assert examples(write(tmp_path, done.stdout, "good.jsonl")) == [Example(messages=CHAT)] * 4


def test_a_label_that_says_something_else_is_passed_over_where_the_format_is_named(tmp_path):
    """As the refusal says."""
    path = write_rows(tmp_path, [{"messages": [ASKS, TELLS], "label": 1}])

    assert 'set the format to that of the rest of the row, such as "messages"' in refused(path).do
    assert examples(path, format="messages") == [Example(messages=CHAT)]
    assert "columns that are not used: `label`" in dataset.check(path, format="messages").warnings


def test_a_label_that_rates_nothing_makes_no_rated_row(tmp_path):
    """A class stays a column that is not used."""
    path = write_rows(tmp_path, [{"prompt": "p", "completion": "c", "label": "weather"}])

    assert examples(path) == [Example(prompt="p", completion="c")]
    assert "columns that are not used: `label`" in dataset.check(path).warnings


def test_a_label_among_rated_rows_must_be_true_or_false(tmp_path):
    """Told with its line."""
    rated = {"prompt": "p", "completion": "c"}
    path = write_rows(tmp_path, [*[rated | {"label": True}] * 3, rated | {"label": 7}])

    error = refused(path, kinds=("rated",))
    expected = "1 of 4 rows have a number in `label`, not true or false (first: line 4)"
    assert error.what == expected


def test_ratings_are_counted_and_contradictions_told(tmp_path):
    """Several replies to one question are the rule; one reply that is good and bad is not."""
    rows = [
        {"prompt": "p", "completion": f"a reply of some words {n}", "label": label}
        for n, label in ((0, True), (1, False), (2, False), (2, False), (0, False))
    ]

    found = dataset.check(write_rows(tmp_path, rows), kinds=("rated",))

    assert found.labels == (("false", 4), ("true", 1))
    assert (found.num_duplicates, found.num_conflicts) == (1, 1)


# --- Preference pairs ---------------------------------------------------------------------------


def test_a_pair_has_its_question_under_the_names_in_use(tmp_path):
    """Else nothing would be asked."""
    path = write_rows(tmp_path, [{"question": "q", "chosen": "yes", "rejected": "no"}])

    assert examples(path, kinds=("preference",)) == [
        Example(prompt="q", completion="yes", rejected="no")
    ]


def test_a_pair_may_say_its_question_once(tmp_path):
    """Before the chosen reply or before the rejected one."""
    whole, alone = [ASKS, TELLS], [TELLS | {"content": "no idea"}]
    path = write_rows(
        tmp_path, [{"chosen": whole, "rejected": alone}, {"chosen": whole, "rejected": whole}]
    )

    found = examples(path, kinds=("preference",))

    assert [one.rejected for one in found] == ["no idea", "It weighs 180 g."]
    assert [one.messages for one in found] == [CHAT] * 2


@pytest.mark.parametrize(
    ("rejected", "fault"),
    [
        ([{**ASKS, "content": "another"}, TELLS], "have other turns before the rejected reply"),
        ([ASKS, CALLS], "reject a call or reasoning"),
        ([ASKS, TELLS | {"thinking": "t"}], "reject a call or reasoning"),
    ],
)
def test_a_pair_that_differs_in_more_than_its_last_text_is_refused(tmp_path, rejected, fault):
    """What differs besides would be lost."""
    path = write_rows(tmp_path, [{"chosen": [ASKS, TELLS], "rejected": rejected}])

    assert fault in refused(path, kinds=("preference",)).what


@pytest.mark.parametrize(("label", "told"), [(True, "labelled true"), (False, "labelled false")])
def test_replies_that_are_all_rated_alike_are_told(tmp_path, label, told):
    """The loss holds good ones against bad ones."""
    row = {"messages": [ASKS, TELLS], "label": label}

    def warnings(*rows):
        path = write_rows(tmp_path, rows)
        return " ".join(dataset.check(path, kinds=("rated",)).warnings)

    assert told in warnings(row, row)
    assert "are labelled" not in warnings(row, row | {"label": not label})


@pytest.mark.parametrize(
    ("good", "bad"), [("good", "bad"), ("Yes", "no"), ("thumbs_up", "thumbs_down"), (1, 0)]
)
def test_words_that_rate_are_read_and_told(tmp_path, good, bad):
    """A file may mean a class by them, so what they are taken for is never silent."""
    rows = [{"prompt": "p", "completion": f"c {i}", "label": (good, bad)[i % 2]} for i in range(6)]
    path = write_rows(tmp_path, rows)

    assert [row.is_good for row in examples(path, kinds=("rated",))] == [True, False] * 3
    told = dataset.check(path, kinds=("rated",)).warnings
    assert f"3 of 6 rows have `label` {good}, which is read as a good reply (first: line 1)" in told
    assert f"3 of 6 rows have `label` {bad}, which is read as a bad reply (first: line 2)" in told
    assert refused(path).what.startswith("rated data is for training on good and bad replies")


def test_the_good_replies_of_a_list_and_of_words_are_taken_out_by_the_file_s_own_command(tmp_path):
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("jq is not here")
    labels = ("good", "Bad", "YES", 1.0, 0.0, "false")
    rows = [{"prompt": "p", "completion": str(one), "label": one} for one in labels]
    path = write(tmp_path, json.dumps(rows), "my rows.json")
    _, _, command = refused(path).do.partition("as in ")
    command = command.partition("; or, where")[0]

    subprocess.run(command, shell=True, cwd=tmp_path, check=True)  # noqa: S602

    kept = examples(tmp_path / "good.jsonl")
    assert [row.completion for row in kept] == ["good", "YES", "1.0"]


@pytest.mark.parametrize(
    ("column", "values", "num_good"),
    [
        ("label", (0, 1, 2, 3, 4), 2),
        ("rating", (1, 5), 3),
        ("score", (0.0, 0.4, 0.6), 4),
        ("stars", ("1", "3", "5"), 2),
        ("feedback", ("good", "so so"), 3),
    ],
)
def test_ratings_that_are_no_truth_are_told_with_a_command_that_makes_it(
    tmp_path, column, values, num_good
):
    """Trained on alike they teach the bad replies too."""
    rows = [
        {"prompt": "p", "completion": f"c {i}", column: values[i % len(values)]} for i in range(6)
    ]
    path = write_rows(tmp_path, rows)
    found = dataset.check(path)
    (told,) = [one for one in found.warnings if "may say which replies are good" in one]

    assert found.format == "prompt_completion"
    assert told.startswith(f"`{column}` ({values[0]}, {values[1]}")
    if shutil.which("jq"):
        command = told.partition("as by ")[2].partition(", --task")[0]
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)  # noqa: S602
        rated = examples(tmp_path / "rated.jsonl", kinds=("rated",))
        assert sum(bool(row.is_good) for row in rated) == num_good


def test_a_column_of_truths_is_told_with_the_options_that_take_it(tmp_path):
    rows = [{"messages": [ASKS, TELLS], "is_correct": i % 2 == 0, "id": i} for i in range(6)]
    path = write_rows(tmp_path, rows)
    (told,) = [one for one in dataset.check(path).warnings if "may say which" in one]

    assert "--column messages=messages --column label=is_correct --task kto" in told
    columns = {"messages": "messages", "label": "is_correct"}
    rated = examples(path, columns=columns, kinds=("rated",))
    assert [row.is_good for row in rated] == [True, False] * 3


@pytest.mark.parametrize(
    "more", [{"id": 1}, {"rating": 3}, {"label": "a text\nof lines"}, {"score": None}, {"good": []}]
)
def test_columns_that_rate_nothing_are_no_ratings(tmp_path, more):
    """One value alone says nothing, and neither does what is no number and no word."""
    path = write_rows(tmp_path, [{"prompt": "p", "completion": f"c {i}"} | more for i in range(6)])

    assert not [one for one in dataset.check(path).warnings if "may say which" in one]


def test_ratings_of_a_table_are_told_without_a_command_that_reads_json(tmp_path):
    rows = "".join(f"p,c {n},{n % 5}\n" for n in range(10))
    path = write(tmp_path, f"prompt,completion,rating\n{rows}", "rows.csv")
    (told,) = [one for one in dataset.check(path).warnings if "may say which" in one]

    assert told.startswith("`rating` (0, 1, 2, 3, 4) may say")
    assert "with a `label` of true or false made of it, --task kto" in told
