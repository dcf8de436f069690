"""How the rows of each data format become examples, and how a format is found from the keys."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from data_files import CHAT, GOOD, Row, examples, outcome, quick, refused, write, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.data.dataset import check
from profiles.data.detect import detect_format
from profiles.data.formats import by_name
from profiles.data.formats.spec import Example, Message
from profiles.errors import ExitCode, UserError


def _call(name: str, **arguments: object) -> Row:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


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
                    {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
                    {"from": "observation", "value": "1"},
                    {"from": "gpt", "value": "g"},
                ],
            },
            (
                Message(role="system", content="s"),
                _user("h"),
                Message(role="assistant", content="", calls=(_call("f"),)),
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
    assert Example(prompt="why?").segments == (("why?", False), ("", True))
    assert Example(completion="so").segments == (("", False), ("so", True))
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
        ({"messages": [{"role": "cat", "content": "x"}]}, "have the unknown role `cat`"),
        ({"messages": [{"role": "assistant"}]}, "lack `content` of a turn in `messages`"),
        ({"messages": [{"content": "x"}]}, "lack `role` of a turn in `messages`"),
        ({"messages": [{"role": "r" * 30, "content": ""}]}, f"have the unknown role `{'r' * 24}…`"),
        ({"conversations": [{"from": "gpt", "value": 1}]}, "have a number in `value` of a turn"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "do not end with a reply of the"),
        ({"instruction": "q", "input": 3, "output": "a"}, "have a number in `input`, not a text"),
        ({"text": 1.5}, "have a number in `text`, not a text"),
        ({"text": math.nan}, "have NaN in `text`, not a text"),
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
        (("messages", "chosen", "rejected"), "preference"),
        (("prompt", "completion", "text"), "prompt_completion"),
    ],
)
def test_detect_format_prefers_the_richer_one(keys: tuple[str, ...], expected: str) -> None:
    """Columns of a second format beside a richer one do not change the format."""
    assert expected == detect_format([keys]).name


@pytest.mark.parametrize(
    ("keys", "advice"),
    [
        (("Question", "answer"), "alpaca: rename `Question` to `instruction`, rename `answer`"),
        (("Prompt", "completion"), "prompt_completion: rename `Prompt` to `prompt`"),
        (("instructions", "output"), "alpaca: rename `instructions` to `instruction`"),
        (("Conversation",), "sharegpt: rename `Conversation` to `conversations`"),
        (("question", "answer", "prompt", "response"), "prompt_completion: rename `response` to"),
        (("question", "answers", "completion"), "prompt_completion: add `prompt`"),
        (("Dialog",), "sharegpt: rename `Dialog` to `conversations`"),
        (("question", "Body"), "text: rename `Body` to `text`"),
        (("Body",), "text: rename `Body` to `text`"),
        (("completion",), "prompt_completion: add `prompt`"),
        (("zzz",), "none is near"),
        (("chosens",), "none is near"),
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


def test_keys_are_compared_up_to_a_bound():
    """A row of very many keys takes no time; a format whose keys are all there is still found."""
    many = [f"k{number}" for number in range(1000)]
    with pytest.raises(UserError, match="no known data format") as caught:
        detect_format([[*many, "Text"]])
    assert "none is near" in caught.value.do
    assert detect_format([[*many, "text"]]).name == "text"


def test_the_first_row_is_shown_where_no_format_is_known(tmp_path):
    """Its first three keys, shortened; of a table it may be the second line that is wrong."""
    row = {"a": "x" * 30, "b": 7, "c": [1], "d": "hidden"}
    error = refused(write_rows(tmp_path, [row]))
    shown = f'line 1 is a = "{"x" * 24}…", b = a number, c = a list; '
    assert error.why.startswith(shown + "the formats that are read are preference (")
    table = refused(write(tmp_path, "a\nb\n", "a.csv"))
    assert table.why.startswith(
        "the first line is read as the names of the columns; if it is a row, write names above it; "
        'line 2 is a = "b"; '
    )


def test_unknown_format_name(tmp_path: Path) -> None:
    """A misspelled format is a usage error that names the near one."""
    error = refused(write_rows(tmp_path, [GOOD]), format="aplaca")
    assert (error.code, error.do) == (ExitCode.USAGE, "choose alpaca")


def test_wrong_format_is_named(tmp_path: Path) -> None:
    """A format that was asked for and does not fit is answered with the one that does."""
    error = refused(write_rows(tmp_path, [GOOD]), format="alpaca")
    assert error.why == (
        "each alpaca row needs usable `instruction`, `output`; "
        "the keys of the first rows look like prompt_completion"
    )
    error = refused(write_rows(tmp_path, [GOOD | {"prompt": 1}]), format="prompt_completion")
    assert error.why == "each prompt_completion row needs usable `prompt`, `completion`"


def test_a_row_in_another_format_is_told_by_its_line(tmp_path):
    """Two files put together, for instance."""
    other = {"messages": CHAT}
    rows = [GOOD] * 9 + [other] * 2
    path = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")

    expected = "2 of 11 rows look like messages, not prompt_completion (first: line 10)"

    assert refused(path).what == expected


@pytest.mark.parametrize("name", ["messages", "sharegpt", "alpaca"])
def test_formats_of_turns_need_a_chat_template(name):
    """The others are learnt as they stand."""
    assert by_name(name).is_chat


@pytest.mark.parametrize("name", ["prompt_completion", "text"])
def test_formats_without_turns_need_none(name):
    """Whatever the model has."""
    assert not by_name(name).is_chat
