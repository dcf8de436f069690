"""JSON Lines and JSON lists, good or broken, as a user sees them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from data_files import GOOD, Row, outcome, quick, refused, write
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.data import datafile
from profiles.data import json_rows as row_reader
from profiles.data.dataset import check, read_rows
from profiles.errors import ExitCode, UserError

TRICKY_ROWS: list[Row] = [
    {"prompt": "é中🙂\n", "completion": 'a "b" \\ ] } , \u2028', "n": [1, -2.5e-3, True, None]},
    {"prompt": "🙂 again", "completion": "x" * 30, "deep": {"a": [{"b": [0.0]}]}},
    {"prompt": "", "completion": "last", "n": 120, "flag": False},
]


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
        (line, number, row["n"]) for line, number, row in read_rows(write(tmp_path, data, name))
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
    path = write(tmp_path, text.encode("utf-8", "replace"), "a.json")
    expected = json.loads(path.read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_reader, "CHUNK_BYTES", chunk)
        assert expected == [row for _, _, row in read_rows(path)]


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Reading a list of 8 MB takes a few chunks of memory, not the file."""
    row = json.dumps({"text": "x" * 1000})
    path = write(tmp_path, "[" + ",\n".join([row] * 8000) + "]", "a.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_reader, "CHUNK_BYTES", 1 << 16)
        tracemalloc.start()
        num_rows = sum(1 for _ in read_rows(path))
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert num_rows == 8000
    assert peak_bytes < 1_000_000


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
    ("one line", "a.json", b'[{"a": "\xc3\xa9"},\n{"a": "\xe9"}]', "looks like Latin-1", ":2:8"),
    ("cp1252", "a.jsonl", b'{"text": "\x93x\x94"}\n', "looks like Windows-1252", ":1:11"),
    ("gbk", "a.jsonl", '{"text": "中文数据"}\n'.encode("gbk"), "looks like GB18030", ":1:11"),
    ("damaged", "a.jsonl", '{"text": "é\udcff"}\n'.encode(errors="surrogateescape"), "0xff", ":12"),
    ("utf-16", "a.jsonl", '{"text": "t"}\n'.encode("utf-16"), "UTF-16", ":1:1"),
    ("utf-16 bare", "a.json", '[{"text": "t"}]'.encode("utf-16-le"), "UTF-16LE", ":1:1"),
    ("nul", "a.jsonl", b'{"text": "t"}\n{"text": "\0"}\n', "NUL bytes", ":2:11"),
    ("nul head", "a.jsonl", b"\0\0\0\0\n", "NUL bytes", ":1:1"),
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
    ("twice behind another", "a.jsonl", b'{"a": 1, "b": 2, "b": 3}\n', "key `b` twice", ":1"),
    ("two twice", "a.jsonl", b'{"x": [{"a": 1, "a": 1}, {"b": 2, "b": 3}]}\n', "`a` twice", ":1"),
    ("twice in list", "a.json", b'[{"text": "t", "a": [{"b": 1, "b": 2}]}]', "key `b` twice", ":1"),
    ("no number", "a.jsonl", b'{"text": NaN}\n', "have NaN in `text`, not a text", "a.jsonl:1"),
    ("half a character", "a.jsonl", b'{"text": "\\ud800"}\n', "half of a character", "a.jsonl:1"),
    ("pickle", "a.pkl", b"\x80\x04\x95", "not read (a pickle", "a.pkl"),
    ("prose", "a.doc", b"once upon a time\n", "not read", "a.doc"),
]


@pytest.mark.parametrize(
    ("name", "data", "what", "place"),
    [case[1:] for case in NAMED_BAD_FILES],
    ids=[case[0] for case in NAMED_BAD_FILES],
)
def test_bad_files(tmp_path: Path, name: str, data: bytes, what: str, place: str) -> None:
    """Every broken file is refused with what is wrong, where, and what to do."""
    error = refused(write(tmp_path, data, name))
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
    path = write(tmp_path, text, "a.json")
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
        error = outcome(lambda: list(read_rows(path)))
        assert is_complete == (error is None)
        assert error is None or "middle of a record" in error.what, whole[:size]


@given(data=st.binary(max_size=80) | st.text('[]{}":,tx0\\u\n\ud83d ', max_size=60))
@settings(quick, max_examples=250)
def test_any_bytes(tmp_path: Path, data: bytes | str) -> None:
    """Whatever the bytes, a check ends in success or in an error that a user can act on."""
    raw = data if isinstance(data, bytes) else data.encode(errors="surrogatepass")
    for name in ("a.json", "a.jsonl"):
        path = write(tmp_path, raw, name)
        error = outcome(lambda path=path: check(path, on_bad="skip"))
        assert error is None or error.code is ExitCode.BAD_DATA


def test_encoding_advice_converts(tmp_path: Path) -> None:
    """The command for an old encoding is complete, with the path quoted."""
    path = write(tmp_path, b'{"text": "caf\xe9"}\n', "my data.jsonl")
    expected = f"iconv -f ISO-8859-1 -t UTF-8 '{path}' > '{tmp_path / 'my data.utf8.jsonl'}'"
    assert expected == refused(path).do.partition("; or ")[0]


def test_damage_to_one_character_is_no_old_encoding(tmp_path):
    """The rest of the file is UTF-8, so that a conversion would spoil it."""
    error = refused(write(tmp_path, '{"text": "é'.encode() + b'\xff"}\n'))

    assert error.what == "line 1: byte 0xff is not UTF-8"
    assert error.do == "repair the damaged characters of the line"


def test_what_is_around_a_fault_is_shown(tmp_path):
    """30 characters to each side, and a mark where more came before."""
    far = refused(write(tmp_path, '{"a": "' + "b" * 50 + '", bad, "c": "' + "d" * 50 + '"}\n'))
    near = refused(write(tmp_path, "{bad}\n"))

    assert far.what == "not JSON: …" + "b" * 27 + '", bad, "c": "' + "d" * 19
    assert near.what == "not JSON: {bad}"


@pytest.mark.parametrize(("levels", "reads"), [(63, True), (64, False)])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_row_may_be_as_deep_as_the_limit(tmp_path, name, levels, reads):
    """64 levels with the row's own."""
    row = '{"text": "t", "b": [], "a": ' + "[" * levels + "]" * levels + "}"

    error = outcome(lambda: check(write(tmp_path, f"[{row}]" if name == "a.json" else row, name)))

    assert (error is None) == reads


def test_lone_object_advice_names_the_list(tmp_path: Path) -> None:
    """Rows wrapped in an object are found by the key of the list."""
    path = write(tmp_path, json.dumps({"version": 1, "data": [GOOD]}, indent=1), "a.json")
    assert "jq '.[\"data\"]'" in refused(path).do


def test_a_list_that_holds_no_rows_is_not_named(tmp_path: Path) -> None:
    """A file of columns has a list under each key, and a head may have one before the rows."""
    columns = write(tmp_path, json.dumps({"text": ["a", "b"], "id": [1, 2]}), "a.json")
    assert "jq" not in refused(columns).do
    path = write(tmp_path, json.dumps({"tags": ["a"], "rows": [GOOD]}), "b.json")
    assert "jq '.[\"rows\"]'" in refused(path).do


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_record_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A record above the size limit is refused before the rest of the file is read."""
    monkeypatch.setattr(row_reader, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(row_reader, "CHUNK_BYTES", 256)
    text = json.dumps({"text": "x" * 2000})
    path = write(
        tmp_path, f"[\n{text}]" if name == "a.json" else f'{{"text": "t"}}\n{text}\n', name
    )
    error = refused(path)
    assert "larger than" in error.what
    assert error.where.endswith(":2:1")


@pytest.mark.parametrize(("spare", "is_read"), [(0, True), (1, False)])
def test_a_line_may_be_as_long_as_the_limit(tmp_path, monkeypatch, spare, is_read):
    """To the byte, its end included."""
    line = b'{"text": "t"}\n'
    monkeypatch.setattr(row_reader, "MAX_RECORD_BYTES", len(line) - spare)
    path = tmp_path / "a.jsonl"
    path.write_bytes(line)

    if is_read:
        assert check(path).num_rows == 1
    else:
        assert "larger than" in refused(path).what


@pytest.mark.parametrize("end", ["", '"}]'])
@pytest.mark.parametrize("chunk", [256, 1 << 20])
def test_a_record_of_a_list_above_the_limit_is_refused_wherever_chunks_end(
    tmp_path, monkeypatch, chunk, end
):
    """Before its end is seen, and where one chunk holds all of it."""
    monkeypatch.setattr(row_reader, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(row_reader, "CHUNK_BYTES", chunk)

    error = refused(write(tmp_path, '[{"text": "' + "x" * 2000 + end, "a.json"))

    assert "larger than" in error.what


def test_a_row_over_many_chunks_is_parsed_a_few_times_only(tmp_path, monkeypatch):
    """Each time with twice the text, or a row of 64 MB would take hours."""
    monkeypatch.setattr(row_reader, "CHUNK_BYTES", 64)
    sizes = []
    read = datafile.DataFile.read
    monkeypatch.setattr(
        datafile.DataFile, "read", lambda file, size: sizes.append(size) or read(file, size)
    )

    list(read_rows(write(tmp_path, json.dumps([{"text": "x" * 64 * 1000}]), "a.json")))

    assert len(sizes) < 20


def test_the_end_of_a_torn_record_is_shown(tmp_path):
    """Its last 40 characters."""
    error = refused(write(tmp_path, '{"text": "t"}\n{"text": "' + "a" * 50 + "b" * 39))
    assert error.why == "the last record is incomplete: …a" + "b" * 39


def test_a_file_that_is_gone_has_changed(tmp_path):
    """As one that is written over."""
    path = write(tmp_path, '{"text": "a"}\n{"text": "b')
    rows = read_rows(path)
    next(rows)
    path.unlink()
    with pytest.raises(UserError) as caught:
        list(rows)
    assert "it changed while it was read" in caught.value.why


def test_growing_file_is_told(tmp_path: Path) -> None:
    """A file that is appended to while it is read gives a torn record that says so."""
    path = write(tmp_path, '{"text": "a"}\n{"text": "b')
    rows = read_rows(path)
    next(rows)
    with path.open("a") as file:
        file.write("b" * 10)
    with pytest.raises(UserError) as caught:
        list(rows)
    assert "it changed while it was read" in caught.value.why


@pytest.mark.parametrize(("char", "name"), [(b"\xe9", "ISO-8859-1"), (b"\x93", "CP1252")])
def test_the_advice_on_another_encoding_names_it_as_iconv_does(tmp_path, char, name):
    """So that the command can be pasted."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "x' + char + b'y"}\n')

    assert f"iconv -f {name} -t UTF-8" in refused(path).do
