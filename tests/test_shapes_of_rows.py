"""The ways in which files write chats: each becomes turns, or is refused with the reason."""

from __future__ import annotations

import json

import pytest
from data_files import Row, examples, refused, write, write_rows

from profiles.data import dataset
from profiles.data.formats.spec import Example, Message


def user(text: str) -> Message:
    return Message(role="user", content=text)


def reply(text: str, **more: object) -> Message:
    return Message(role="assistant", content=text, **more)  # type: ignore[arg-type]


def call(name: str, **arguments: object) -> Row:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


WEIGH = {"name": "weigh", "description": "Weighs a fruit", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": WEIGH}
ASKED = [user("How heavy is the pear?")]
CALLED = reply("", calls=(call("weigh", fruit="pear"),))
ANSWERED = [Message(role="tool", content="180"), reply("It weighs 180 g.")]
CHAT = (*ASKED, reply("It weighs 180 g."))
ASKS = {"role": "user", "content": "How heavy is the pear?"}
TELLS = {"role": "assistant", "content": "It weighs 180 g."}


def openai_call(**more: object) -> Row:
    function = {"name": "weigh", "arguments": '{"fruit": "pear"}'}
    return {"role": "assistant", "tool_calls": [{"id": "c1", "function": function}], **more}


def with_id(message: Message) -> Message:
    return reply("", calls=tuple({**one, "id": "c1"} for one in message.calls))


OPENAI = [*ASKED, with_id(CALLED), Message(role="tool", content="180", call_id="c1")]
OPENAI_ANSWER = {"role": "tool", "tool_call_id": "c1", "content": "180"}
SHAREGPT = [
    {"from": "human", "value": "How heavy is the pear?"},
    {"from": "function_call", "value": '{"name": "weigh", "arguments": {"fruit": "pear"}}'},
    {"from": "observation", "value": "180"},
    {"from": "gpt", "value": "It weighs 180 g."},
]

SHAPES: dict[str, tuple[Row, Example]] = {
    "call with empty content": (
        {"messages": [ASKS, openai_call(content=""), OPENAI_ANSWER, TELLS], "tools": [TOOL]},
        Example(messages=(*OPENAI, ANSWERED[1]), tools=(TOOL,)),
    ),
    "call with null content at the end": (
        {"messages": [ASKS, openai_call(content=None)], "tools": [TOOL]},
        Example(messages=tuple(OPENAI[:2]), tools=(TOOL,)),
    ),
    "call without content, bare tool in JSON": (
        {"messages": [ASKS, openai_call()], "tools": json.dumps([WEIGH])},
        Example(messages=tuple(OPENAI[:2]), tools=(TOOL,)),
    ),
    "legacy function_call and functions": (
        {
            "messages": [
                ASKS,
                {
                    "role": "assistant",
                    "content": None,
                    "function_call": {"name": "weigh", "arguments": '{"fruit": "pear"}'},
                },
                {"role": "function", "name": "weigh", "content": "180"},
                TELLS,
            ],
            "functions": [WEIGH],
        },
        Example(
            messages=(*ASKED, CALLED, Message(role="tool", content="180", name="weigh"), CHAT[1]),
            tools=(TOOL,),
        ),
    ),
    "ShareGPT call": (
        {"conversations": SHAREGPT, "tools": json.dumps([WEIGH])},
        Example(messages=(*ASKED, CALLED, *ANSWERED), tools=(TOOL,)),
    ),
    "ShareGPT with an empty list of tools": (
        {"conversations": SHAREGPT, "tools": "[]"},
        Example(messages=(*ASKED, CALLED, *ANSWERED)),
    ),
    "ShareGPT with two calls at once": (
        {
            "conversations": [
                SHAREGPT[0],
                {"from": "function_call", "value": '[{"name": "a"}, {"name": "b"}]'},
            ],
            "tools": "",
        },
        Example(messages=(*ASKED, reply("", calls=(call("a"), call("b"))))),
    ),
    "calls that follow each other": (
        {
            "messages": [
                ASKS,
                {"role": "tool_call", "content": '{"name": "a", "arguments": {"n": 1}}'},
                {"role": "tool_call", "content": '{"name": "b", "parameters": {"n": 2}}'},
                {"role": "tool_response", "content": "180"},
                TELLS,
            ],
            "tools": None,
        },
        Example(messages=(*ASKED, reply("", calls=(call("a", n=1), call("b", n=2))), *ANSWERED)),
    ),
    "a call after a turn that says and calls something": (
        {
            "messages": [
                ASKS,
                openai_call(content="I weigh it."),
                {"role": "tool_call", "content": '{"name": "b", "arguments": " "}'},
            ]
        },
        Example(
            messages=(
                *ASKED,
                reply("I weigh it.", calls=with_id(CALLED).calls),
                reply("", calls=(call("b"),)),
            )
        ),
    ),
    "pairs": (
        {
            "system": "Be brief.",
            "conversation": [{"human": "A?", "assistant": "a"}, {"human": "B?", "assistant": "b"}],
        },
        Example(
            messages=(
                Message(role="system", content="Be brief."),
                *(user("A?"), reply("a"), user("B?"), reply("b")),
            )
        ),
    ),
    "pairs with a system text inside": (
        {"conversation": [{"system": "Be brief.", "input": "A?", "output": "a"}]},
        Example(messages=(Message(role="system", content="Be brief."), user("A?"), reply("a"))),
    ),
    "role and content under conversations": (
        {"conversations": [ASKS, TELLS]},
        Example(messages=CHAT),
    ),
    "turns as JSON in a text": ({"messages": json.dumps([ASKS, TELLS])}, Example(messages=CHAT)),
    "from and value under messages": (
        {"messages": [SHAREGPT[0], SHAREGPT[3]]},
        Example(messages=CHAT),
    ),
    "roles in any case": (
        {"messages": [{**ASKS, "role": "Human"}, {**TELLS, "role": " ChatGPT"}]},
        Example(messages=CHAT),
    ),
    "content in parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "How heavy is the pear?"}]},
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "It weighs"}, " 180 g."],
                },
            ]
        },
        Example(messages=CHAT),
    ),
    "thought in a part": (
        {
            "messages": [
                ASKS,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "On the scales."},
                        {"type": "text", "text": "It weighs 180 g."},
                    ],
                },
            ]
        },
        Example(messages=(*ASKED, reply("It weighs 180 g.", reasoning="On the scales."))),
    ),
    "prompt and response": (
        {"prompt": "How heavy is the pear?", "response": "It weighs 180 g."},
        Example(messages=CHAT),
    ),
    "question and answer with a system prompt": (
        {"system_prompt": "s", "question": "How heavy is the pear?", "answer": "It weighs 180 g."},
        Example(messages=(Message(role="system", content="s"), *CHAT)),
    ),
    "instruction, context and response": (
        {"instruction": "How heavy?", "context": "A pear.", "response": "180 g."},
        Example(messages=(user("How heavy?\nA pear."), reply("180 g."))),
    ),
    "query and response with a history": (
        {"query": "B?", "response": "b", "history": [["A?", "a"]]},
        Example(messages=(user("A?"), reply("a"), user("B?"), reply("b"))),
    ),
    "a history of turns": (
        {"query": "B?", "response": "b", "history": [ASKS, TELLS]},
        Example(messages=(*CHAT, user("B?"), reply("b"))),
    ),
    "conversational prompt and completion": (
        {"prompt": [ASKS], "completion": [TELLS], "tools": [WEIGH]},
        Example(messages=CHAT, tools=(TOOL,)),
    ),
    "prompt of turns, completion of text": (
        {"prompt": [ASKS, TELLS, ASKS], "completion": "180 g."},
        Example(
            messages=(*ASKED, reply("It weighs 180 g.", is_learnt=False), *ASKED, reply("180 g."))
        ),
    ),
    "null columns beside": (
        {
            "messages": [
                ASKS | {"tool_calls": None, "name": None, "weight": None},
                TELLS | {"tool_calls": None, "tool_call_id": None, "thinking": None},
            ],
            "tools": None,
            "images": None,
        },
        Example(messages=CHAT),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_read(tmp_path, shape):
    """To the turns, calls and tools that it stands for."""
    row, expected = SHAPES[shape]

    assert examples(write_rows(tmp_path, [row])) == [expected]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_what_is_thought_before_a_reply_is_kept(tmp_path, key):
    """Under any of the names in use."""
    path = write_rows(tmp_path, [{"messages": [ASKS, TELLS | {key: "On the scales."}]}])

    assert examples(path)[0].messages[1] == reply("It weighs 180 g.", reasoning="On the scales.")


# --- What is refused ----------------------------------------------------------------------------

PICTURE = {"type": "image_url", "image_url": {"url": "pear.png"}}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"messages": [ASKS, TELLS], "images": ["pear.png"]}, "come with `images`, of which"),
        ({"conversations": SHAREGPT, "image": "pear.png"}, "come with `image`, of which nothing"),
        (
            {"messages": [{"role": "user", "content": [PICTURE]}, TELLS]},
            "have a part of the type `image_url` of a turn in `messages`: only texts are learnt",
        ),
        ({"messages": [ASKS, TELLS | {"weight": 0.5}]}, "weigh a turn 0.5 (`weight`)"),
        ({"messages": [ASKS, TELLS | {"train": "no"}]}, "have a text in `train` of a turn"),
        (
            {"messages": [ASKS, TELLS | {"train_detail": [{"begin_offset": 0}]}]},
            "learn parts of a turn (`train_detail`), which is not supported",
        ),
        (
            {"messages": [ASKS, openai_call() | {"tool_calls": [{"function": {"name": ""}}]}]},
            "have a call that names no function",
        ),
        (
            {
                "messages": [
                    ASKS,
                    {"role": "assistant", "function_call": {"name": "f", "arguments": "{"}},
                ]
            },
            "have a text in `arguments` of a call of `f` that is not JSON",
        ),
        (
            {"messages": [ASKS, {"role": "assistant", "tool_calls": [{"name": "f", "args": [1]}]}]},
            "call a tool with a list as `arguments`, not an object",
        ),
        (
            {"conversations": [SHAREGPT[0], {"from": "function_call", "value": "weigh()"}]},
            "have a text in `function_call` that is not JSON",
        ),
        (
            {"conversations": [SHAREGPT[0], {"from": "function_call", "value": "[]"}]},
            "have an empty list of calls",
        ),
        (
            {"messages": [ASKS, {"role": "assistant", "tool_calls": [call("f", n="\ud83d")]}]},
            "have half of a character (a lone \\ud8..) in `tool_calls`",
        ),
        (
            {"messages": [ASKS | {"tool_calls": [call("f")]}, TELLS]},
            "have a call of a tool in a turn of",
        ),
        ({"messages": [ASKS, TELLS], "tools": {"a": 1}}, "have an object in `tools`, not a list"),
        ({"messages": [ASKS, TELLS], "tools": "weigh"}, "have a text in `tools` that is not JSON"),
        (
            {"messages": [ASKS, TELLS], "tools": [{"x": 1}]},
            "have an entry in `tools` that names no",
        ),
        (
            {"messages": [ASKS, TELLS], "tools": [{"name": "\ud83d"}]},
            "have half of a character (a lone \\ud8..) in `tools`",
        ),
        ({"messages": [ASKS, {"role": "assistant"}]}, "lack `content` of a turn in `messages`"),
        ({"conversation": [{"human": "A?"}]}, "lack `role` of a turn in `conversations`"),
        ({"prompt": [ASKS], "completion": [ASKS]}, "do not end with a reply of the assistant"),
    ],
)
def test_what_cannot_be_learnt_is_refused_with_the_reason(tmp_path, row, fault):
    """Nothing of a row is dropped in silence."""
    assert refused(write_rows(tmp_path, [row])).what.startswith(f"1 of 1 rows {fault}")


# --- What is guessed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "guess"),
    [
        (
            {"prompt": "q", "response": "r"},
            "alpaca: `prompt` as `instruction`, `response` as `output`",
        ),
        ({"conversation": [ASKS, TELLS]}, "sharegpt: `conversation` as `conversations`"),
        ({"instruction": "q", "output": "r", "context": "c"}, "alpaca: `context` as `input`"),
    ],
)
def test_a_name_that_is_taken_for_another_is_told(tmp_path, row, guess):
    """With the number of rows, and none of these columns is told as not used."""
    warnings = dataset.check(write_rows(tmp_path, [row])).warnings

    assert f"1 of 1 rows are read as {guess} (first: line 1)" in warnings
    assert not any("not used" in one for one in warnings)


def test_where_two_names_could_stand_for_one_nothing_is_guessed(tmp_path):
    """A person must say which; the name of the format itself wins."""
    error = refused(write_rows(tmp_path, [{"question": "q", "query": "p", "answer": "a"}]))
    assert "no known data format" in error.what

    path = write_rows(tmp_path, [{"instruction": "q", "query": "p", "output": "a"}])
    assert examples(path)[0].messages[0] == user("q")
    assert "columns that are not used: `query`" in dataset.check(path).warnings


def test_what_a_turn_has_besides_is_told(tmp_path):
    """With its name, for it may matter."""
    path = write_rows(tmp_path, [{"messages": [ASKS | {"mood": "glad"}, TELLS | {"x": None}]}])

    told = [one for one in dataset.check(path).warnings if "have turns with" in one]
    assert told == ["1 of 1 rows have turns with `mood`, which is not used (first: line 1)"]


def test_of_many_things_that_are_not_used_the_first_are_named(tmp_path):
    """A file may bring a key of its own in every row."""
    rows = [{"messages": [ASKS | {f"mood{n}": "glad"}, TELLS]} for n in range(30)]

    told = [one for one in dataset.check(write_rows(tmp_path, rows)).warnings if "not used" in one]

    assert len(told) == 21
    assert "10 of 30 rows have more that is not used or was guessed (first: line 21)" in told


def test_turns_in_a_text_are_looked_at_too(tmp_path):
    """As those of a list are."""
    turns = json.dumps([ASKS | {"mood": "glad"}, TELLS])
    path = write_rows(tmp_path, [{"messages": turns}])

    assert any("`mood`, which is not used" in one for one in dataset.check(path).warnings)
    error = refused(write_rows(tmp_path, [{"messages": "USER: hi"}]))
    assert error.what.startswith("1 of 1 rows have a text in `messages` that is not JSON")


def test_a_system_text_beside_another_one_is_told(tmp_path):
    """That of the turns is used."""
    turns = [{"role": "system", "content": "a"}, ASKS, TELLS]
    path = write_rows(tmp_path, [{"messages": turns, "system": "b"}])

    assert "1 of 1 rows have another text in `system`" in dataset.check(path).warnings[0]


@pytest.mark.parametrize("answer", [{"completion": "c"}, {"chosen": "c", "rejected": "d"}])
def test_a_system_text_beside_plain_texts_is_told(tmp_path, answer):
    """Nothing writes it."""
    path = write_rows(tmp_path, [{"prompt": "p", "system": "s", "tools": [TOOL]} | answer])

    told = "1 of 1 rows have `system` and `tools` beside plain texts, where it is not used"
    assert any(one.startswith(told) for one in dataset.inspect(path).dataset.warnings)


def test_a_list_under_another_name_is_json_in_a_table_too(tmp_path):
    """As under its own."""
    turns = json.dumps([ASKS, TELLS])
    cell = turns.replace('"', '""')

    assert examples(write(tmp_path, f'conversation\n"{cell}"\n', "a.csv")) == [
        Example(messages=CHAT)
    ]
    error = refused(write(tmp_path, f'{{"conversation": {turns}}}', "a.json"))
    assert "jq" not in error.do  # which would take turns for rows


def test_tools_of_a_table_are_read(tmp_path):
    """A cell of them is JSON."""
    cells = [json.dumps(value).replace('"', '""') for value in ([ASKS, TELLS], [TOOL])]
    path = write(tmp_path, f'messages,tools\n"{cells[0]}","{cells[1]}"\n"{cells[0]}",\n', "a.csv")

    assert [one.tools for one in examples(path)] == [(TOOL,), ()]


# --- Equal rows ---------------------------------------------------------------------------------


def test_rows_that_differ_in_their_tools_are_different_rows(tmp_path):
    """They repeat nothing and contradict nothing."""
    rows = [
        {"conversations": [*SHAREGPT[:3], {"from": "gpt", "value": f"reply {n} of a few"}]}
        | {"tools": [WEIGH | {"name": f"weigh{n}"}]}
        for n in range(3)
    ]
    rows.append(rows[0])

    found = dataset.check(write_rows(tmp_path, rows))

    assert (found.num_conflicts, found.num_duplicates) == (0, 1)


def test_rows_that_differ_in_what_is_thought_or_in_a_tools_name_are_different_rows(tmp_path):
    """The model reads both."""
    thoughts = [{"messages": [ASKS, TELLS | {"thinking": text}]} for text in ("a", "b")]
    names = [
        {"messages": [ASKS, {"role": "tool", "content": "180", "name": name}, TELLS]}
        for name in ("a", "b")
    ]

    found = dataset.check(write_rows(tmp_path, thoughts + names))

    assert (found.num_duplicates, found.num_near_duplicates) == (0, 0)


def test_ids_of_calls_make_no_row_a_different_one(tmp_path):
    """They are drawn by chance."""
    first = {"messages": [ASKS, openai_call()]}
    again = json.loads(json.dumps(first).replace('"c1"', '"c2"'))

    assert dataset.check(write_rows(tmp_path, [first, again])).num_duplicates == 1
