"""Weights of turns: which replies of a chat are learnt from, and which are only read."""

from __future__ import annotations

import pytest
from data_files import examples, refused, write_rows

from profiles.data import dataset
from profiles.data.preview import Reader, Start

ASKS = {"role": "user", "content": "How heavy is the pear?"}
TELLS = {"role": "assistant", "content": "It weighs 180 g."}


@pytest.mark.parametrize(
    ("weights", "learnt"),
    [
        (({"weight": 0}, {"weight": 1}), [False, True]),
        (({"weight": 1.0}, {"weight": 0.0}), [True, False]),
        (({"train": False}, {"train": True}), [False, True]),
        (({"mask": True}, {"mask": False}), [False, True]),
        (({"loss_weight": 0.0}, {}), [False, True]),
        (({"weight": 1, "mask": True}, {"weight": None}), [False, True]),
    ],
)
def test_a_weight_says_whether_a_reply_is_learnt(tmp_path, weights, learnt):
    """By any of the keys in use; without one it is."""
    replies = [TELLS | weight for weight in weights]
    path = write_rows(tmp_path, [{"messages": [ASKS, replies[0], ASKS, replies[1]]}])

    (example,) = examples(path)

    assert [turn.is_learnt for turn in example.messages if turn.role == "assistant"] == learnt
    key = next(iter(weights[learnt.index(False)]))
    told = [one for one in dataset.check(path).warnings if "read but not learnt" in one]
    assert len(told) == 1
    assert told[0].startswith("1 of 1 rows have replies that are read but not learnt, for their `")
    assert ("`mask` is true" in told[0]) == (key == "mask" or "mask" in weights[0])
    assert dataset.check(path).tokens.counts.num_learnt == 4  # of one reply of 16 characters


def test_calls_of_different_weights_stay_apart(tmp_path):
    """Others that follow each other are one turn."""
    calls = [
        {"role": "tool_call", "content": f'{{"name": "f{n}"}}', "weight": weight}
        for n, weight in enumerate((0, 1, 1))
    ]

    (example,) = examples(write_rows(tmp_path, [{"messages": [ASKS, *calls]}]))

    found = [(len(turn.calls), turn.is_learnt) for turn in example.messages[1:]]
    assert found == [(1, False), (2, True)]


def test_a_row_of_which_nothing_is_learnt_is_left_out_and_told(tmp_path):
    """As one with an empty reply is; a file of nothing else is refused with the reason."""
    silent = {"messages": [ASKS, TELLS | {"weight": 0}]}
    path = write_rows(tmp_path, [silent, {"messages": [ASKS, TELLS]}])

    assert len(examples(path)) == 1
    expected = "left out: 1 of 2 rows have no reply that is learnt"
    assert expected in dataset.check(path).warnings
    error = refused(write_rows(tmp_path, [silent]))
    assert error.why == "1 rows have no reply that is learnt"
    assert error.do.startswith("give rows with a reply that is learnt")


def test_a_weight_of_a_question_is_told(tmp_path):
    """Only replies are learnt, whatever it says."""
    path = write_rows(tmp_path, [{"messages": [ASKS | {"weight": 1}, TELLS | {"weight": 1}]}])

    (told,) = dataset.check(path).warnings
    assert told.startswith("1 of 1 rows have `weight` 1 in turns that are no replies")


@pytest.mark.parametrize("says", [{"weight": 0}, {"mask": False}, {"train": False}])
def test_a_question_that_says_what_is_so_anyway_is_not_told(tmp_path, says):
    """Nor is a question that is masked by nobody, for no question is learnt."""
    path = write_rows(tmp_path, [{"messages": [ASKS | says, TELLS]}])

    assert dataset.check(path).warnings == ()


def test_a_preview_says_why_such_a_row_is_left_out(tmp_path):
    """In the words of the check."""
    path = write_rows(tmp_path, [{"messages": [ASKS, TELLS | {"weight": 0}]}])

    (row,) = Reader().look(str(path), 1, Start()).rows

    assert "have no reply that is learnt" in row.told
