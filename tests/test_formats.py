"""How the rows of each data format become examples, and how a format is found from the keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_files import CHAT, GOOD, Row, examples, outcome, quick, refused, write, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.data import dataset
from profiles.data.dataset import check
from profiles.data.detect import detect_format
from profiles.data.formats.spec import Example, Message
from profiles.errors import ExitCode, UserError


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "q", "input": "", "output": "a"}, (_user("q"), _assistant("a"))),
        ({"instruction": "q", "input": "x", "output": "a"}, (_user("q\nx"), _assistant("a"))),
        ({"instruction": "q", "input": None, "output": "a"}, (_user("q"), _assistant("a"))),
        ({"instruction": "", "input": "x", "output": "a"}, (_user("x"), _assistant("a"))),
        (
            {"instruction": "q", "output": "a", "system": "s", "history": [["u1", "a1"]]},
            (
                Message(role="system", content="s"),
                _user("u1"),
                _assistant("a1"),
                _user("q"),
                _assistant("a"),
            ),
        ),
        (
            {
                "system": "s",
                "conversations": [
                    {"from": "human", "value": "h"},
                    {"from": "function_call", "value": "f()"},
                    {"from": "observation", "value": "1"},
                    {"from": "gpt", "value": "g"},
                ],
            },
            (
                Message(role="system", content="s"),
                _user("h"),
                _assistant("f()"),
                Message(role="tool", content="1"),
                _assistant("g"),
            ),
        ),
        (
            {
                "messages": [
                    {"role": "developer", "content": "d"},
                    {"role": "function", "content": "t"},
                    *CHAT,
                ]
            },
            (
                Message(role="system", content="d"),
                Message(role="tool", content="t"),
                _user("hi"),
                _assistant("yes"),
            ),
        ),
    ],
)
def test_chat_formats(tmp_path: Path, row: Row, expected: tuple[Message, ...]) -> None:
    """Every chat format becomes the same messages with the same role names."""
    assert [Example(messages=expected)] == examples(write_rows(tmp_path, [row]))


def test_plain_formats(tmp_path: Path) -> None:
    """A prompt with a completion and a plain text keep their own shape."""
    pair = write_rows(tmp_path, [GOOD], "pair.jsonl")
    text = write_rows(tmp_path, [{"text": "t"}], "text.jsonl")
    assert [Example(prompt="why?", completion="because")] == examples(pair)
    assert [Example(text="t")] == examples(text)


def test_system_turn_wins(tmp_path: Path) -> None:
    """A system turn inside the conversation is not doubled by the system column."""
    turns = [{"from": "system", "value": "in"}, {"from": "gpt", "value": "g"}]
    path = write_rows(tmp_path, [{"system": "out", "conversations": turns}])
    expected = (Message(role="system", content="in"), _assistant("g"))
    assert expected == examples(path)[0].messages


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": []}, "have no turns in `messages`"),
        ({"messages": {"role": "user"}}, "have an object in `messages`, not a list"),
        ({"messages": ["hi"]}, "have a turn in `messages` that is not an object"),
        ({"messages": CHAT[:1]}, "do not end with a reply of the assistant"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "have the unknown role `bot`"),
        ({"messages": [{"role": "assistant"}]}, "lack `content` of a turn in `messages`"),
        ({"conversations": [{"from": "gpt", "value": 1}]}, "have a number in `value` of a turn"),
        ({"instruction": "q", "output": "a", "history": [["u"]]}, "have an entry in `history`"),
        ({"prompt": "p", "completion": "\ud83d"}, "have half of a character"),
        ({"prompt": True, "completion": "c"}, "have true or false in `prompt`, not a text"),
    ],
)
def test_row_faults(tmp_path: Path, row: Row, expected: str) -> None:
    """Each fault of a row has a sentence of its own."""
    assert f"1 of 1 rows {expected}" in refused(write_rows(tmp_path, [row])).what


@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(
                ["instruction", "input", "output", "history", "system", "conversations"]
            ),
            st.recursive(
                st.none() | st.integers() | st.text("a \ud800", max_size=2),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["from", "value"]), inner)
                ),
                max_leaves=6,
            ),
        ),
        min_size=1,
        max_size=5,
    ),
    name=st.sampled_from(["alpaca", "sharegpt"]),
)
@settings(quick, max_examples=100)
def test_any_row(tmp_path: Path, rows: list[Row], name: str) -> None:
    """Whatever the types inside the rows, they are examples or told as faults."""
    path = write_rows(tmp_path, rows)
    error = outcome(lambda: check(path, format=name, on_bad="skip"))
    assert error is None or error.code is ExitCode.BAD_DATA


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("instruction", "output", "text"), "alpaca"),
        (("text", "label"), "classification"),
        (("prompt", "chosen", "rejected"), "preference"),
        (("messages", "prompt", "completion"), "messages"),
    ],
)
def test_detect_format_prefers_the_richer_one(keys: tuple[str, ...], expected: str) -> None:
    """Columns of a second format beside a richer one do not change the format."""
    assert expected == detect_format([keys]).name


@pytest.mark.parametrize(
    ("keys", "advice"),
    [
        (("question", "answer"), "alpaca: rename `question` to `instruction`, rename `answer`"),
        (("Prompt", "completion"), "prompt_completion: rename `Prompt` to `prompt`"),
        (("instructions", "output"), "alpaca: rename `instructions` to `instruction`"),
        (("conversation",), "sharegpt: rename `conversation` to `conversations`"),
        (("zzz",), "none is near"),
    ],
)
def test_detect_format_names_the_nearest(keys: tuple[str, ...], advice: str) -> None:
    """Unknown keys are shown with the formats there are and the renames to the nearest."""
    with pytest.raises(UserError) as caught:
        detect_format([keys], where="f.jsonl")
    assert advice in caught.value.do
    assert all(f"`{key}`" in caught.value.what for key in keys)
    assert "alpaca (instruction, output)" in caught.value.why
    assert (caught.value.where, caught.value.code) == ("f.jsonl", ExitCode.BAD_DATA)


def test_unknown_format_name(tmp_path: Path) -> None:
    """A misspelled format is a usage error that names the near one."""
    error = refused(write_rows(tmp_path, [GOOD]), format="aplaca")
    assert (error.code, error.do) == (ExitCode.USAGE, "choose alpaca")


def test_wrong_format_is_named(tmp_path: Path) -> None:
    """A format that was asked for and does not fit is answered with the one that does."""
    error = refused(write_rows(tmp_path, [GOOD]), format="alpaca")
    assert "look like prompt_completion" in error.why


def test_a_row_in_another_format_is_told_by_its_line(tmp_path):
    """Two files put together, for instance."""
    other = {"messages": [*ASKED, YES]}
    rows = [GOOD] * 9 + [other] * 2
    path = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")

    expected = "2 of 11 rows look like messages, not prompt_completion (first: line 10)"

    assert refused(path).what == expected


# --- Data for other kinds of training ---


ASKED = [{"role": "user", "content": "q"}]


YES, NO = [{"role": "assistant", "content": text} for text in ("yes", "no")]


PAIRS = {
    "texts": {"prompt": "q", "chosen": "yes", "rejected": "no"},
    "no prompt": {"chosen": "q yes", "rejected": "q no"},
    "turns": {"prompt": ASKED, "chosen": [YES], "rejected": [NO]},
    "whole": {"chosen": [*ASKED, YES], "rejected": [*ASKED, NO]},
    "whole with prompt": {"prompt": "q", "chosen": [*ASKED, YES], "rejected": [*ASKED, NO]},
    "text and turns": {"prompt": "q", "chosen": [YES], "rejected": [NO]},
    "turns and texts": {"prompt": ASKED, "chosen": "yes", "rejected": "no"},
    "alpaca": {"instruction": "q", "input": "", "chosen": "yes", "rejected": "no"},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "yes"},
        "rejected": {"from": "gpt", "value": "no"},
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_preference_pairs_are_counted_and_not_trained_on(tmp_path, name):
    """All ways to write a pair are understood; training says what it would need."""
    path = write(tmp_path, json.dumps(PAIRS[name]) + "\n", "a.jsonl")

    found = dataset.inspect(path).dataset

    assert (found.format, found.num_rows) == ("preference", 1)
    assert found.problem == "needs preference training (DPO), which this version does not run"
    with pytest.raises(UserError, match="preference training"):
        examples(path)
    assert "`chosen` replies as `output`" in refused(path).do


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rejected": None}, "lack `rejected`"),
        ({"chosen": 3}, "have a number in `chosen`"),
        ({"chosen": [YES]}, "have a text and turns in `chosen` and `rejected`"),
        ({"chosen": ASKED, "rejected": [NO]}, "do not end with a reply"),
        ({"chosen": [], "rejected": [NO]}, "have no turns in `chosen`"),
    ],
)
def test_faults_of_preference_pairs(tmp_path, change, fault):
    """Each has a sentence of its own."""
    path = write(tmp_path, json.dumps(PAIRS["texts"] | change) + "\n", "a.jsonl")

    with pytest.raises(UserError, match="1 of 1 rows") as caught:
        dataset.inspect(path)

    assert fault in caught.value.what


def test_labelled_texts_are_counted_by_label(tmp_path):
    """Labels are texts or whole numbers; the texts alone can be learnt if asked for."""
    path = write(tmp_path, "text,label\nfine,good\nnice,good\nawful,bad\n", "a.csv")

    found = dataset.inspect(path).dataset

    assert (found.format, found.labels) == ("classification", (("good", 2), ("bad", 1)))
    assert 'set the format to "text"' in refused(path).do
    assert dataset.check(path, format="text").num_rows == 3


@pytest.mark.parametrize("label", [None, True, "", 1.5, ["a"]])
def test_faulty_labels(tmp_path, label):
    """What is no class is a fault of the row."""
    path = write(tmp_path, json.dumps({"text": "t", "label": label}) + "\n", "a.jsonl")

    with pytest.raises(UserError, match="`label`"):
        dataset.inspect(path)
