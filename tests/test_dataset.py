"""What a user sees of a data file, good or broken."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiles.data import datafile
from profiles.data import json_rows as row_reader
from profiles.data import tokens as token_counts
from profiles.data.dataset import check, read_examples, read_rows
from profiles.data.detect import detect_format
from profiles.data.formats.spec import Example, Message
from profiles.data.tokens import MARK_TOKENS_PER_MESSAGE
from profiles.errors import ExitCode, UserError
from profiles.facts import Origin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Row = dict[str, Any]

GOOD: Row = {"prompt": "p", "completion": "c"}
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
TRICKY_ROWS: list[Row] = [
    {"prompt": "é中🙂\n", "completion": 'a "b" \\ ] } , \u2028', "n": [1, -2.5e-3, True, None]},
    {"prompt": "🙂 again", "completion": "x" * 30, "deep": {"a": [{"b": [0.0]}]}},
    {"prompt": "", "completion": "last", "n": 120, "flag": False},
]

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _write(folder: Path, data: bytes | str, name: str = "train.jsonl") -> Path:
    """Write the text as UTF-8, or the bytes as they are."""
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def _write_rows(folder: Path, rows: list[Row], name: str = "train.jsonl") -> Path:
    return _write(folder, "".join(json.dumps(row) + "\n" for row in rows), name)


def _examples_of(path: Path, **options: Any) -> list[Example]:
    return [example for _, example in read_examples(path, **options)]


def _refused(path: Path, **options: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        check(path, **options)
    return caught.value


def _outcome(run: Callable[[], object]) -> UserError | None:
    """Catch the error that a user gets, if any; any other exception is a failure of the test."""
    try:
        run()
    except UserError as error:
        return error
    return None


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


# --- Formats ---


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
    assert [Example(messages=expected)] == _examples_of(_write_rows(tmp_path, [row]))


def test_plain_formats(tmp_path: Path) -> None:
    """A prompt with a completion and a plain text keep their own shape."""
    pair = _write_rows(tmp_path, [GOOD], "pair.jsonl")
    text = _write_rows(tmp_path, [{"text": "t"}], "text.jsonl")
    assert [Example(prompt="p", completion="c")] == _examples_of(pair)
    assert [Example(text="t")] == _examples_of(text)


def test_system_turn_wins(tmp_path: Path) -> None:
    """A system turn inside the conversation is not doubled by the system column."""
    turns = [{"from": "system", "value": "in"}, {"from": "gpt", "value": "g"}]
    path = _write_rows(tmp_path, [{"system": "out", "conversations": turns}])
    expected = (Message(role="system", content="in"), _assistant("g"))
    assert expected == _examples_of(path)[0].messages


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
    error = _refused(_write_rows(tmp_path, [GOOD]), format="aplaca")
    assert (error.code, error.do) == (ExitCode.USAGE, "choose alpaca")


# --- Files that read ---


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.jsonl", '{"n": 1}\n\n  \n{"n": 2}', [(1, 1, 1), (4, 2, 2)]),
        ("a.jsonl", '\ufeff{"n": 1}\r\n{"n": 2}\r\n', [(1, 1, 1), (2, 2, 2)]),
        ("a.json", '[{"n": 1},\n\n {"n":\n2}, {"n": 3}\n]\n', [(1, 1, 1), (3, 2, 2), (4, 3, 3)]),
        ("a.json", '\ufeff \n[{"n": 1}]', [(2, 1, 1)]),
        ("a.jsonl", '[{"n": 1}]', [(1, 1, 1)]),
        ("a.json", '{"n": 1}\n{"n": 2}\n', [(1, 1, 1), (2, 2, 2)]),
        ("a.data", '{"n": 1}\n', [(1, 1, 1)]),
        ("a.json", "[]", []),
    ],
)
def test_read_rows(
    tmp_path: Path, name: str, data: str, expected: list[tuple[int, int, int]]
) -> None:
    """Lists and lines are told apart by content, with line and row numbers of the file."""
    rows = [
        (line, number, row["n"]) for line, number, row in read_rows(_write(tmp_path, data, name))
    ]
    assert expected == rows


@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=5), st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3), max_leaves=5,
        ), max_size=4),
        max_size=6,
    ),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
)  # fmt: skip
@quick
def test_chunk_borders_do_not_matter(
    tmp_path: Path, rows: list[Row], chunk: int, indent: int | None, ascii_only: bool
) -> None:
    """A list read in chunks of any size gives the rows that json.loads gives."""
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    path = _write(tmp_path, text.encode("utf-8", "replace"), "a.json")
    expected = json.loads(path.read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_reader, "CHUNK_BYTES", chunk)
        assert expected == [row for _, _, row in read_rows(path)]


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Reading a list of 8 MB takes a few chunks of memory, not the file."""
    row = json.dumps({"text": "x" * 1000})
    path = _write(tmp_path, "[" + ",\n".join([row] * 8000) + "]", "a.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_reader, "CHUNK_BYTES", 1 << 16)
        tracemalloc.start()
        num_rows = sum(1 for _ in read_rows(path))
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert num_rows == 8000
    assert peak_bytes < 1_000_000


# --- Files that do not read ---

NAMED_BAD_FILES: list[tuple[str, str, bytes, str, str]] = [
    ("word", "a.jsonl", b'{"text": "t"}\n{"text": bad}\n', "not JSON: ", ":2:10"),
    ("bare comma", "a.jsonl", b'{"text": "t"},\n', "not JSON", ":1:14"),
    ("raw newline", "a.jsonl", b'{"text": "t"}\n{"text": "a\nb"}\n', "not JSON", ":2:12"),
    ("huge number", "a.jsonl", b'{"text": ' + b"1" * 5000 + b"}\n", "not JSON", ":1:1"),
    ("torn line", "a.jsonl", b'{"text": "t"}\n{"text": "t', "middle of a record", ":2:12"),
    ("torn character", "a.jsonl", b'{"text": "\xe4\xb8', "middle of a record", ":1:11"),
    ("torn list", "a.json", b'[{"text": "t"},\n', "middle of a record", ":2:1"),
    ("open list", "a.json", b'[{"text": "t"}', "middle of a record", ":1:15"),
    ("latin-1", "a.jsonl", b'{"text": "t"}\n{"text": "caf\xe9"}\n', "looks like Latin-1", ":2:14"),
    ("latin-1 list", "a.json", b'[\n{"text": "caf\xe9"}]', "looks like Latin-1", ":2:14"),
    ("cp1252", "a.jsonl", b'{"text": "\x93x\x94"}\n', "looks like Windows-1252", ":1:11"),
    ("gbk", "a.jsonl", '{"text": "中文数据"}\n'.encode("gbk"), "looks like GB18030", ":1:11"),
    ("damaged", "a.jsonl", '{"text": "é\udcff"}\n'.encode(errors="surrogateescape"), "0xff", ":12"),
    ("utf-16", "a.jsonl", '{"text": "t"}\n'.encode("utf-16"), "UTF-16", ":1:1"),
    ("utf-16 bare", "a.json", '[{"text": "t"}]'.encode("utf-16-le"), "UTF-16LE", ":1:1"),
    ("nul", "a.jsonl", b'{"text": "t"}\n{"text": "\0"}\n', "NUL bytes", ":2:11"),
    ("nul tail", "a.jsonl", b'{"text": "t"}\n\0\0\0\0\n', "NUL bytes", ":2:1"),
    ("nul list", "a.json", b'[{"text": "t\0"}]', "NUL bytes", ":1:13"),
    ("empty", "a.jsonl", b"", "0 usable examples", "a.jsonl"),
    ("blank", "a.json", b" \n\n\t\n", "0 usable examples", "a.json"),
    ("empty list", "a.json", b"[]", "0 usable examples", "a.json"),
    ("no object", "a.jsonl", b'{"text": "t"}\n"t"\n', "is not an object", ":2:1"),
    ("no object in list", "a.json", b'[{"text": "t"},\n 5]', "row 2 is not an object", ":2:2"),
    ("list of lists", "a.json", b"[[1]]", "row 1 is not an object", ":1:2"),
    ("deep", "a.jsonl", b'{"text": ' + b"[" * 64 + b"]" * 64 + b"}\n", "deeper than 64", ":1:1"),
    ("bomb", "a.jsonl", b'{"text": ' + b"[" * 200_000 + b"\n", "deeper than 64", ":1:1"),
    ("bomb in list", "a.json", b'[\n{"text": ' + b"[" * 200_000, "deeper than 64", ":2:1"),
    ("last comma", "a.json", b'[{"text": "t"},]', "not JSON", ":1:16"),
    ("no comma", "a.json", b'[{"text": "t"}\n{"text": "t"}]', "not JSON", ":2:1"),
    ("after the list", "a.json", b'[{"text": "t"}]\n[]', "not JSON", ":2:1"),
    ("lone object", "a.json", b'{"text": "t"}\n', "single object", ":1:1"),
    ("spread object", "a.jsonl", b'{\n"text": "t"\n}\n', "single object", ":1:1"),
    ("spreadsheet", "a.xlsx", b"PK\x03\x04", "not read (a .xlsx file)", "a.xlsx"),
    ("twice", "a.jsonl", b'{"text": "t", "text": "u"}\n', "key `text` twice", "a.jsonl:1"),
    ("twice in list", "a.json", b'[{"text": "t", "a": [{"b": 1, "b": 2}]}]', "key `b` twice", ":1"),
    ("no number", "a.jsonl", b'{"text": NaN}\n', "have NaN in `text`, not a text", "a.jsonl:1"),
    ("half a character", "a.jsonl", b'{"text": "\\ud800"}\n', "half of a character", "a.jsonl:1"),
    ("pickle", "a.pkl", b"\x80\x04\x95", "not read (a pickle", "a.pkl"),
    ("prose", "a.txt", b"once upon a time\n", "not read", "a.txt"),
]


@pytest.mark.parametrize(
    ("name", "data", "what", "place"),
    [case[1:] for case in NAMED_BAD_FILES],
    ids=[case[0] for case in NAMED_BAD_FILES],
)
def test_bad_files(tmp_path: Path, name: str, data: bytes, what: str, place: str) -> None:
    """Every broken file is refused with what is wrong, where, and what to do."""
    error = _refused(_write(tmp_path, data, name))
    assert what in error.what
    assert error.where.endswith(place)
    assert (error.code, bool(error.why), bool(error.do)) == (ExitCode.BAD_DATA, True, True)
    assert all(part.isprintable() for part in (error.what, error.why, error.do, error.where))


@pytest.mark.parametrize("bad", ['{"a": x}', '{"a" 1}', '{"a": "é\x01"}', "{1: 2}", '{"a": 1,,}'])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_column_in_list(tmp_path: Path, bad: str, chunk: int) -> None:
    """The place of a fault in a list does not depend on where the chunks end."""
    text = '[\n {"a": "中"}, {"a":\n2},' + bad + ', {"a": 3}]'
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(text)
    expected = f"{caught.value.lineno}:{caught.value.colno}"
    path = _write(tmp_path, text, "a.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_reader, "CHUNK_BYTES", chunk)
        with pytest.raises(UserError) as refusal:
            list(read_rows(path))
    assert expected == refusal.value.where.removeprefix(f"{path}:")
    assert "not JSON" in refusal.value.what


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_list_cut_at_every_byte(tmp_path: Path, chunk: int, ascii_only: bool) -> None:
    """A list cut anywhere is known to be incomplete, and never gives a wrong row."""
    whole = json.dumps(TRICKY_ROWS, ensure_ascii=ascii_only, indent=1).encode()
    path = tmp_path / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_reader, "CHUNK_BYTES", chunk)
        for size in range(1, len(whole)):
            path.write_bytes(whole[:size])
            rows = []
            with pytest.raises(UserError) as caught:
                rows.extend(row for _, _, row in read_rows(path))
            assert "middle of a record" in caught.value.what, whole[:size]
            assert rows == TRICKY_ROWS[: len(rows)]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_lines_cut_at_every_byte(tmp_path: Path, ascii_only: bool) -> None:
    """Lines cut between two records read; cut anywhere else they are known to be incomplete."""
    lines = [json.dumps(row, ensure_ascii=ascii_only).encode() for row in TRICKY_ROWS]
    whole = b"\n".join(lines)
    path = tmp_path / "a.jsonl"
    for size in range(1, len(whole) + 1):
        path.write_bytes(whole[:size])
        is_complete = whole[:size].rstrip(b"\n").split(b"\n")[-1] in lines
        error = _outcome(lambda: list(read_rows(path)))
        assert is_complete == (error is None)
        assert error is None or "middle of a record" in error.what, whole[:size]


@given(data=st.binary(max_size=80) | st.text('[]{}":,tx0\\u\n\ud83d ', max_size=60))
@settings(quick, max_examples=250)
def test_any_bytes(tmp_path: Path, data: bytes | str) -> None:
    """Whatever the bytes, a check ends in success or in an error that a user can act on."""
    raw = data if isinstance(data, bytes) else data.encode(errors="surrogatepass")
    for name in ("a.json", "a.jsonl"):
        path = _write(tmp_path, raw, name)
        error = _outcome(lambda path=path: check(path, on_bad="skip"))
        assert error is None or error.code is ExitCode.BAD_DATA


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
    path = _write_rows(tmp_path, rows)
    error = _outcome(lambda: check(path, format=name, on_bad="skip"))
    assert error is None or error.code is ExitCode.BAD_DATA


def test_encoding_advice_converts(tmp_path: Path) -> None:
    """The command for an old encoding is complete, with the path quoted."""
    path = _write(tmp_path, b'{"text": "caf\xe9"}\n', "my data.jsonl")
    expected = f"iconv -f LATIN1 -t UTF-8 '{path}' > '{tmp_path / 'my data.utf8.jsonl'}'"
    assert expected == _refused(path).do


def test_lone_object_advice_names_the_list(tmp_path: Path) -> None:
    """Rows wrapped in an object are found by the key of the list."""
    path = _write(tmp_path, json.dumps({"version": 1, "data": [GOOD]}, indent=1), "a.json")
    assert "jq '.[\"data\"]'" in _refused(path).do


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_record_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A record above the size limit is refused before the rest of the file is read."""
    monkeypatch.setattr(row_reader, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(row_reader, "CHUNK_BYTES", 256)
    text = json.dumps({"text": "x" * 2000})
    path = _write(
        tmp_path, f"[\n{text}]" if name == "a.json" else f'{{"text": "t"}}\n{text}\n', name
    )
    error = _refused(path)
    assert "larger than" in error.what
    assert error.where.endswith(":2:1")


def test_growing_file_is_told(tmp_path: Path) -> None:
    """A file that is appended to while it is read gives a torn record that says so."""
    path = _write(tmp_path, '{"text": "a"}\n{"text": "b')
    rows = read_rows(path)
    next(rows)
    with path.open("a") as file:
        file.write("b" * 10)
    with pytest.raises(UserError) as caught:
        list(rows)
    assert "it changed while it was read" in caught.value.why


def test_missing_file_names_the_near_one(tmp_path: Path) -> None:
    """A misspelled path is answered with the file that is there."""
    _write_rows(tmp_path, [GOOD], "train.jsonl")
    error = _refused(tmp_path / "trian.jsonl")
    assert (error.code, error.do) == (ExitCode.NO_INPUT, "did you mean train.jsonl?")


def test_folder_names_its_files(tmp_path: Path) -> None:
    """A folder is answered with the data files inside."""
    _write_rows(tmp_path, [GOOD], "train.jsonl")
    error = _refused(tmp_path)
    assert (error.code, error.do) == (ExitCode.NO_INPUT, "give one of its files: train.jsonl")


def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """A named pipe is refused and not waited for."""
    os.mkfifo(tmp_path / "p.jsonl")
    assert "not a regular file" in _refused(tmp_path / "p.jsonl").what


@pytest.mark.parametrize("name", ["a\0b.jsonl", "x" * 300 + ".jsonl"])
def test_impossible_path(tmp_path: Path, name: str) -> None:
    """A path the system cannot even look up is an error of the user, not ours."""
    assert _refused(tmp_path / name).code in (ExitCode.NO_INPUT, ExitCode.IO_ERROR)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without read permission is answered with the command that gives it."""

    def refuse(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(datafile.io, "FileIO", refuse)
    error = _refused(_write_rows(tmp_path, [GOOD]))
    assert (error.code, error.why) == (ExitCode.NO_INPUT, "Permission denied")
    assert "chmod u+r" in error.do


# --- Faulty rows ---


def test_faults_are_counted_per_kind(tmp_path: Path) -> None:
    """The whole file is read, then every kind of fault is told once, with its first place."""
    rows = [GOOD] * 3 + [{"prompt": "p"}] * 2 + [{"prompt": "p", "completion": ["c"]}]
    error = _refused(_write_rows(tmp_path, rows))
    expected = (
        "2 of 6 rows lack `completion` (first: line 4); "
        "1 of 6 rows have a list in `completion`, not a text (first: line 6)"
    )
    assert expected == error.what
    assert error.where.endswith("train.jsonl:4")


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
    assert f"1 of 1 rows {expected}" in _refused(_write_rows(tmp_path, [row])).what


def test_skip_leaves_out_a_few(tmp_path: Path) -> None:
    """Up to a tenth of faulty rows or lines can be left out, and that is told."""
    lines = [json.dumps({**GOOD, "prompt": str(number)}) for number in range(18)]
    path = _write(tmp_path, "\n".join([*lines, '{"prompt": "p"}', "{bad}"]) + "\n")
    found = check(path, on_bad="skip")
    assert found.num_rows == 18
    assert "left out: 1 of 20 rows lack `completion` (first: line 19)" in found.warnings[0]
    assert "1 of 20 rows are not JSON (first: line 20)" in found.warnings[0]


def test_skip_refuses_many(tmp_path: Path) -> None:
    """More than a tenth of faulty rows is an error even when rows may be left out."""
    error = _refused(_write_rows(tmp_path, [GOOD] * 17 + [{"prompt": "p"}] * 2), on_bad="skip")
    assert "2 of 19 rows lack `completion`" in error.what


def test_wrong_format_is_named(tmp_path: Path) -> None:
    """A format that was asked for and does not fit is answered with the one that does."""
    error = _refused(_write_rows(tmp_path, [GOOD]), format="alpaca")
    assert "look like prompt_completion" in error.why


def test_read_examples_tells_faults_at_the_end(tmp_path: Path) -> None:
    """Iterating gives the good rows with their places first and raises after the last."""
    path = _write(tmp_path, json.dumps([GOOD, {"prompt": "p"}, GOOD], indent=1), "a.json")
    places = []
    with pytest.raises(UserError) as caught:
        places.extend(place for place, _ in read_examples(path))
    assert [f"{path}:2 (row 1)", f"{path}:9 (row 3)"] == places
    assert "1 of 3 rows lack" in caught.value.what


def test_many_kinds_are_summed_up(tmp_path: Path) -> None:
    """Faults that differ in every row do not fill the memory or the screen."""
    rows = [{"messages": [{"role": f"r{number}", "content": ""}]} for number in range(100)]
    assert "80 of 100 rows have other faults" in _refused(_write_rows(tmp_path, rows)).what


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """Text of the file that is shown cannot move the cursor."""
    row = {"messages": [{"role": "\x1b[2J", "content": ""}]}
    assert "`\\x1b[2J`" in _refused(_write_rows(tmp_path, [row])).what


# --- Counts ---


def test_counts(tmp_path: Path) -> None:
    """Rows, empties, repeats, tasks, bytes and the hash are those of the file."""
    rows = [
        {**GOOD, "task": "a"},
        {**GOOD, "task": "b"},
        {"prompt": "p", "completion": " \n"},
        {"prompt": "pc", "completion": ""},
        {"prompt": "", "completion": "pc", "task": "a"},
    ]
    path = _write_rows(tmp_path, rows)
    found = check(path)
    assert (
        found.format,
        found.num_rows,
        found.num_empty,
        found.num_duplicates,
        found.num_tasks,
    ) == ("prompt_completion", 3, 2, 1, 2)
    data = path.read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (found.num_bytes, found.sha256)
    assert str(path) == found.path
    assert any("2 of 5 rows have an empty reply" in warning for warning in found.warnings)
    assert any("1 of 3 rows repeat" in warning for warning in found.warnings)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_hash_covers_the_whole_file(tmp_path: Path, name: str) -> None:
    """White space after the last row is part of the hash."""
    text = json.dumps([GOOD]) if name == "a.json" else json.dumps(GOOD)
    path = _write(tmp_path, text + "\n \n" * 9, name)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == check(path).sha256


def test_repeats_are_not_confused(tmp_path: Path) -> None:
    """The same letters cut differently between prompt and completion are not a repeat."""
    rows = [{"prompt": "a", "completion": "bc"}, {"prompt": "ab", "completion": "c"}]
    assert check(_write_rows(tmp_path, rows)).num_duplicates == 0


def test_all_empty(tmp_path: Path) -> None:
    """A file in which every reply is empty has nothing to train on."""
    error = _refused(_write_rows(tmp_path, [{"text": " "}]))
    assert (error.what, error.why) == ("0 usable examples", "all 1 rows have an empty reply")


def test_warnings(tmp_path: Path) -> None:
    """Tools, unused columns and unfilled placeholders are told."""
    turns = [{"role": "assistant", "content": "I am {{name}} by {{ author }}"}]
    found = check(_write_rows(tmp_path, [{"messages": turns, "tools": "[]", "id": 7}]))
    unfilled = "1 of 1 rows hold placeholders that nobody filled in (first: line 1)"
    expected = (
        "1 of 1 rows have a reply but nothing that it replies to (first: line 1)",
        f"{unfilled}: {{{{name}}}}, {{{{ author }}}}",
        "1 rows have `tools`, which are not used",
        "columns that are not used: `id`",
    )
    assert expected == found.warnings


def test_predicted_tokens(tmp_path: Path) -> None:
    """Without a tokenizer, 4 ASCII bytes or 3 other bytes make a token, rounded up."""
    rows = [
        {"prompt": "a" * 9, "completion": "中" * 4},
        {"prompt": "", "completion": "é" * 3 + "a"},
    ]
    tokens = check(_write_rows(tmp_path, rows)).tokens
    assert tokens is not None
    assert (
        tokens.origin,
        tokens.total,
        tokens.trainable_total,
    ) == (Origin.PREDICTED, 3 + 4 + 3, 4 + 3)


def test_chat_marks_are_added(tmp_path: Path) -> None:
    """Each message costs its content and the marks of the template, only the reply is learnt."""
    tokens = check(_write_rows(tmp_path, [{"messages": CHAT}])).tokens
    assert tokens is not None
    assert (tokens.total, tokens.trainable_total) == (2 + 2 * MARK_TOKENS_PER_MESSAGE, 1)


def test_token_statistics(tmp_path: Path) -> None:
    """Minimum, median, 95th percentile, maximum and mean are those of the lengths."""
    path = _write_rows(tmp_path, [{"text": "a" * 4 * number} for number in range(100, 0, -1)])
    tokens = check(path).tokens
    assert tokens is not None
    assert (
        tokens.min,
        tokens.median,
        tokens.p95,
        tokens.max,
        tokens.mean,
        tokens.total,
    ) == (1, 50, 95, 100, 50.5, 5050)


def _write_tokenizer(folder: Path, *, truncated_to: int | None = None) -> Path:
    """Save a tokenizer with one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if truncated_to:
        tokenizer.enable_truncation(truncated_to)
        tokenizer.enable_padding(length=truncated_to)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("truncated_to", [None, 2])
def test_measured_tokens(tmp_path: Path, truncated_to: int | None) -> None:
    """A tokenizer is asked, and truncation or padding saved in its file does not count."""
    folder = _write_tokenizer(tmp_path, truncated_to=truncated_to)
    rows = [{"prompt": "a b c", "completion": "d e"}, {"prompt": "a", "completion": "b"}]
    tokens = check(_write_rows(tmp_path, rows), tokenizer_path=folder).tokens
    assert tokens is not None
    assert (
        tokens.origin,
        tokens.min,
        tokens.max,
        tokens.total,
        tokens.trainable_total,
    ) == (Origin.MEASURED, 2, 5, 7, 3)


def test_batches_do_not_change_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches and texts cut at spaces count as one whole text does."""
    rows = [{"prompt": "a b " * number, "completion": "c " * 40} for number in range(1, 30)]
    path, folder = _write_rows(tmp_path, rows), _write_tokenizer(tmp_path)
    expected = check(path, tokenizer_path=folder).tokens
    monkeypatch.setattr(token_counts, "BATCH_CHARS", 16)
    assert expected == check(path, tokenizer_path=folder).tokens


@pytest.mark.parametrize(
    ("content", "code"), [(None, ExitCode.NO_INPUT), ("{}", ExitCode.BAD_DATA)]
)
def test_bad_tokenizer(tmp_path: Path, content: str | None, code: ExitCode) -> None:
    """A folder without a tokenizer, or with a broken one, is told by its path."""
    if content is not None:
        _write(tmp_path, content, "tokenizer.json")
    error = _refused(_write_rows(tmp_path, [GOOD]), tokenizer_path=tmp_path)
    assert (code, str(tmp_path / "tokenizer.json")) == (error.code, error.where)


@pytest.mark.parametrize(
    ("max_length", "num_truncated", "num_warnings"),
    [(None, 0, 0), (30, 0, 0), (20, 2, 1), (10, 3, 2)],
)
def test_truncation(
    tmp_path: Path, max_length: int | None, num_truncated: int, num_warnings: int
) -> None:
    """Rows above max_length are counted; prompts that leave no room for the reply are told."""
    long_prompt = {"prompt": "a" * 60, "completion": "b" * 60}
    long_reply = {"prompt": "a" * 4, "completion": "b" * 60}
    rows = [long_prompt, {**long_prompt, "prompt": "c" * 60}, long_reply]
    found = check(_write_rows(tmp_path, rows), max_length=max_length)
    assert (num_truncated, num_warnings) == (found.num_truncated, len(found.warnings))
    assert (found.num_untrainable == 2) == (max_length == 10)
    if num_warnings == 2:
        assert "2 of 3 examples have no trainable token at max_length 10" in found.warnings[0]
