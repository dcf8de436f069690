"""What a user sees of CSV files."""

from __future__ import annotations

import json

import pytest
from alarm import alarm
from data_files import examples, quick, refused, write
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.data import csv_rows, dataset
from profiles.errors import ExitCode, UserError


def csv_file(folder, data):
    return write(folder, data, "a.csv")


def test_cells_hold_line_breaks_quotes_and_delimiters(tmp_path):
    """What RFC 4180 allows inside quotes arrives as it was written."""
    path = csv_file(tmp_path, 'prompt,completion\r\n"a, ""b""\r\nc",d\r\n\r\ne,f\r\n')

    assert [(one.prompt, one.completion) for one in examples(path)] == [
        ('a, "b"\r\nc', "d"),
        ("e", "f"),
    ]
    assert [(line, number) for line, number, _ in dataset.read_rows(path)] == [(2, 1), (5, 2)]


@pytest.mark.parametrize(
    ("char", "name"), [(",", "commas"), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")]
)
def test_the_delimiter_is_found_and_said(tmp_path, char, name):
    """A comma inside a quoted name does not mislead."""
    path = csv_file(tmp_path, f'prompt{char}completion{char}"a,b,c"\nx{char}y{char}z\n')

    found = dataset.check(path)

    assert (found.num_rows, found.container) == (1, f"CSV, {name} between the cells")


def test_csv_and_json_lines_give_the_same_examples(tmp_path):
    """History and turns in cells are JSON."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    doubled = json.dumps(turns).replace('"', '""')
    table = csv_file(tmp_path, f'messages\n"{doubled}"\n')
    lines = write(tmp_path, json.dumps({"messages": turns}) + "\n", "a.jsonl")

    assert examples(table) == examples(lines)

    table = csv_file(tmp_path, 'instruction,output,history\nq,a,"[[""u"",""v""]]"\nq,a,\n')
    assert [len(one.messages) for one in examples(table)] == [4, 2]


BAD_CSV = [
    ("latin-1", b"text\ncaf\xe9\n", "looks like Latin-1", ":2:4"),
    ("after a wide character", "text\né".encode() + b"\xe9x\n", "0xe9", ":2:2"),
    ("utf-16", "text\nt\n".encode("utf-16"), "UTF-16", ":1:1"),
    ("nul", b"text\na\0b\n", "NUL bytes", ":2:2"),
    ("empty", b"", "0 usable examples", ".csv"),
    ("header alone", b"text\n", "0 usable examples", ".csv"),
    ("many cells", b"text,id\na,1\nb,2,3\n", "have 3 cells, the header has 2", ":3"),
    ("few cells", b"text,id\na\n", "have 1 cell, the header has 2", ":2"),
    ("open quote", b'text,id\na,1\nb,"2\nc,3\n', "opened here and never closed", ":3:3"),
    ("text after quote", b'text,id\n"a"b,1\n', "not CSV", ":2:4"),
    ("text after doubled quotes", b'text,id\n"a""b"c,1\n', "not CSV", ":2:7"),
    ("quote too many", b'text,id\n"a,1\nb,"2"\n', "not CSV", ":3:4"),
    ("old mac", b"text,id\ra,1\rb,2\r", "lines end with a carriage return alone", ":1:8"),
    ("same name", b"id,a,b,a\n", "two columns are named `a` (columns 2 and 4)", ":1:1"),
    ("no header", b"what is up?,not much\na,b\n", "no known data format", ".csv"),
    ("python text", b"messages\n\"[{'role': 'user'}]\"\n", "Python text in `messages`", ":2"),
    ("no json", b"instruction,output,history\nq,a,x\n", "`history` that is not JSON", ":2"),
    ("json inside", b'{"text": "a"}\n', "JSON in a .csv file", ".csv"),
    ("json inside, indented", b' {"text": "a"}\n', "JSON in a .csv file", ".csv"),
    ("deep", b"messages\n" + b"[" * 65 + b"]" * 65, "deeper than 64 levels", ":2"),
    ("bomb", b"messages\n" + b"[" * 200_000, "deeper than 64 levels", ":2"),
]


@pytest.mark.parametrize(
    ("data", "what", "place"), [case[1:] for case in BAD_CSV], ids=[case[0] for case in BAD_CSV]
)
def test_bad_csv(tmp_path, data, what, place):
    """Every broken table is refused with what is wrong, where, and what to do."""
    error = refused(csv_file(tmp_path, data))

    assert what in error.what
    assert error.where.endswith(place)
    assert (error.code, bool(error.why), bool(error.do)) == (ExitCode.BAD_DATA, True, True)


def test_a_table_whose_first_rows_are_all_ragged_is_refused(tmp_path):
    """The format is found from the rows that are sound."""
    error = refused(csv_file(tmp_path, "text,id\n" + "a\n" * 30 + "b,2\n"))

    assert error.what == "30 of 31 rows have 1 cell, the header has 2 (first: line 2)"
    assert refused(csv_file(tmp_path, "text,id\na\n")).why == "each data row needs usable keys"


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    """Spreadsheet programs write one."""
    assert dataset.check(csv_file(tmp_path, "\ufefftext\na\n")).format == "text"


@pytest.mark.parametrize(
    ("data", "column"),
    [
        (",instruction,output\n0,q,a\n", "column 1 (no name)"),
        ("instruction,output,\nq,a,\n", "column 3 (no name)"),
    ],
    ids=["index of pandas", "delimiter at the end"],
)
def test_a_column_without_a_name_is_read_and_told(tmp_path, data, column):
    """Its cells are of no use; the others are."""
    found = dataset.check(csv_file(tmp_path, data))

    assert (found.format, found.num_rows, found.num_bad) == ("alpaca", 1, 0)
    assert f"columns that are not used: `{column}`" in " ".join(found.warnings)


@pytest.mark.parametrize("line", ["sep=;\r\n", '"sep=;"\n', "\ufeffSEP=;\n", "\n  \nsep=;\n"])
def test_the_line_that_names_the_delimiter_is_no_header(tmp_path, line):
    """As Excel writes it; lines are numbered as an editor does."""
    path = csv_file(tmp_path, f"{line}prompt;completion\na,b,c,d;e\n")

    assert [one.prompt for one in examples(path)] == ["a,b,c,d"]
    assert [at for at, _, _ in dataset.read_rows(path)] == [line.count("\n") + 2]


def test_lines_of_white_space_are_no_rows(tmp_path):
    """As in JSON Lines; a cell of white space in quotes is one."""
    path = csv_file(tmp_path, " \nprompt,completion\na,b\n   \n\t\n \r\nc,d\n")

    assert [line for line, _, _ in dataset.read_rows(path)] == [3, 7]
    path = csv_file(tmp_path, 'text\na\n"  "\n  \nb\n')
    assert [line for line, _, _ in dataset.read_rows(path)] == [2, 3, 5]


def test_white_space_before_turns_takes_linear_time(tmp_path):
    """A cell of spaces alone is a text."""
    path = csv_file(tmp_path, f'prompt,completion\n"{" " * 400_000}",a\n"{" " * 400_000}[",b\n')

    with alarm(20):
        assert dataset.check(path).num_rows == 2


def test_a_quote_that_swallows_the_file_is_bounded(tmp_path, monkeypatch):
    """The record limit ends the search, at the place where the quote was opened."""
    monkeypatch.setattr(csv_rows, "MAX_RECORD_BYTES", 1000)

    error = refused(csv_file(tmp_path, 'text,id\na,1\nb,"2\n' + "c,3\n" * 500))

    assert "larger than" in error.what
    assert error.where.endswith(":3:3")


def test_a_tsv_file_is_a_table(tmp_path):
    """By its name, for it could be anything by its content."""
    path = write(tmp_path, "prompt\tcompletion\nwhy, then?\tso\n", "a.tsv")

    assert [one.prompt for one in examples(path)] == ["why, then?"]


def test_rows_alone_end_at_the_first_that_is_none(tmp_path):
    """Where nobody counts them."""
    rows = dataset.read_rows(csv_file(tmp_path, "text,id\na,1\nb\n"))

    assert next(rows) == (2, 1, {"text": "a", "id": "1"})
    with pytest.raises(UserError, match="1 row or more have 1 cell") as caught:
        next(rows)
    assert caught.value.where.endswith("a.csv:3")


def test_a_record_may_be_as_large_as_the_limit(tmp_path, monkeypatch):
    """Each is measured by itself, in bytes."""
    monkeypatch.setattr(csv_rows, "MAX_RECORD_BYTES", 20)
    largest = "é" * 8 + ",12\n"

    assert len(examples(csv_file(tmp_path, "text,id\n" + largest * 30))) == 30
    assert "larger than" in refused(csv_file(tmp_path, "text,id\n1" + largest)).what


def test_a_fault_far_into_a_line_is_told_without_its_column(tmp_path, monkeypatch):
    """The search for it is bounded."""
    monkeypatch.setattr(csv_rows, "_SEARCHED_CHARS", 10)

    error = refused(csv_file(tmp_path, 'text,id\n"' + "a" * 20 + '"b,1\n'))

    assert (error.what, error.where[-4:]) == ("not CSV", ":2:1")


def test_an_open_quote_is_never_left_out(tmp_path):
    """Nobody knows how many rows are in it; the number of lines is told."""
    path = csv_file(tmp_path, "text,id\n" + "a,1\n" * 30 + '"b,2\nc,3\nd,4\n')

    error = refused(path, on_bad="skip")

    assert error.what == "a quote is opened here and never closed"
    assert error.why.startswith("3 lines from here on")


def test_text_after_a_quote_that_was_opened_lines_before_is_told_with_that_line(tmp_path):
    """For the first quote may be the one too many."""
    assert refused(csv_file(tmp_path, 'text,id\n"a,1\nb,"2"\n')).why == (
        "text follows a closing quote; the row begins on line 2, perhaps with a quote too many"
    )


def test_bad_records_of_a_table_can_be_left_out(tmp_path):
    """Ragged rows and stray quotes are counted by kind, and the rest is read."""
    data = "text,id\n" + "a,1\n" * 28 + 'b\n"c"d,2\n' + "e,3\n"

    found = dataset.check(csv_file(tmp_path, data), on_bad="skip")

    assert (found.num_rows, found.num_bad) == (29, 2)
    assert "have 1 cell, the header has 2 (first: line 30)" in found.warnings[0]
    assert "1 of 31 rows are not CSV (first: line 31)" in found.warnings[0]


@given(data=st.binary(max_size=80) | st.text('",;\t|\r\nab\0é', max_size=60))
@settings(quick, max_examples=200)
def test_any_bytes_as_csv(tmp_path, data):
    """Whatever the bytes, a table reads or is refused with an error that a user can act on."""
    raw = data if isinstance(data, bytes) else data.encode()
    for content in (raw, b"text,id\n" + raw):
        try:
            dataset.check(csv_file(tmp_path, content), on_bad="skip")
        except UserError as error:
            assert error.code is ExitCode.BAD_DATA  # noqa: PT017  # either outcome is right
