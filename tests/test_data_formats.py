"""What a user sees of CSV, Parquet and packed files, and of data for other kinds of training."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from alarm import alarm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiles.data import csv_rows, dataset, parquet_rows
from profiles.errors import ExitCode, UserError

GOOD = {"prompt": "why?", "completion": "because"}
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(folder, data, name="a.csv"):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def examples(path, **options):
    return [one for _, one in dataset.read_examples(path, **options)]


def refused(path, **options):
    with pytest.raises(UserError) as caught:
        dataset.check(path, **options)
    return caught.value


# --- CSV ---


def test_cells_hold_line_breaks_quotes_and_delimiters(tmp_path):
    """What RFC 4180 allows inside quotes arrives as it was written."""
    path = write(tmp_path, 'prompt,completion\r\n"a, ""b""\r\nc",d\r\n\r\ne,f\r\n')

    assert [(one.prompt, one.completion) for one in examples(path)] == [
        ('a, "b"\r\nc', "d"),
        ("e", "f"),
    ]
    assert [line for line, _, _ in dataset.read_rows(path)] == [2, 5]


@pytest.mark.parametrize(
    ("char", "name"), [(",", "commas"), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")]
)
def test_the_delimiter_is_found_and_said(tmp_path, char, name):
    """A comma inside a quoted name does not mislead."""
    path = write(tmp_path, f'prompt{char}completion{char}"a,b,c"\nx{char}y{char}z\n')

    found = dataset.check(path)

    assert (found.num_rows, found.container) == (1, f"CSV, {name} between the cells")


def test_csv_and_json_lines_give_the_same_examples(tmp_path):
    """History and turns in cells are JSON."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    doubled = json.dumps(turns).replace('"', '""')
    table = write(tmp_path, f'messages\n"{doubled}"\n')
    lines = write(tmp_path, json.dumps({"messages": turns}) + "\n", "a.jsonl")

    assert examples(table) == examples(lines)

    table = write(tmp_path, 'instruction,output,history\nq,a,"[[""u"",""v""]]"\nq,a,\n')
    assert [len(one.messages) for one in examples(table)] == [4, 2]


BAD_CSV = [
    ("latin-1", b"text\ncaf\xe9\n", "looks like Latin-1", ":2:4"),
    ("utf-16", "text\nt\n".encode("utf-16"), "UTF-16", ":1:1"),
    ("nul", b"text\na\0b\n", "NUL bytes", ":2:2"),
    ("empty", b"", "0 usable examples", ".csv"),
    ("header alone", b"text\n", "0 usable examples", ".csv"),
    ("many cells", b"text,id\na,1\nb,2,3\n", "have 3 cells, the header has 2", ":3"),
    ("few cells", b"text,id\na\n", "have 1 cell, the header has 2", ":2"),
    ("open quote", b'text,id\na,1\nb,"2\nc,3\n', "opened here and never closed", ":3:3"),
    ("text after quote", b'text,id\n"a"b,1\n', "not CSV", ":2:4"),
    ("quote too many", b'text,id\n"a,1\nb,"2"\n', "not CSV", ":3:4"),
    ("old mac", b"text,id\ra,1\rb,2\r", "not CSV", ":1:8"),
    ("same name", b"text,text\na,b\n", "two columns are named `text`", ":1:1"),
    ("no header", b"what is up?,not much\na,b\n", "no known data format", ".csv"),
    ("python text", b"messages\n\"[{'role': 'user'}]\"\n", "Python text in `messages`", ":2"),
    ("no json", b"instruction,output,history\nq,a,x\n", "`history` that is not JSON", ":2"),
    ("json inside", b'{"text": "a"}\n', "JSON in a .csv file", ".csv"),
]


@pytest.mark.parametrize(
    ("data", "what", "place"), [case[1:] for case in BAD_CSV], ids=[case[0] for case in BAD_CSV]
)
def test_bad_csv(tmp_path, data, what, place):
    """Every broken table is refused with what is wrong, where, and what to do."""
    error = refused(write(tmp_path, data))

    assert what in error.what
    assert error.where.endswith(place)
    assert (error.code, bool(error.why), bool(error.do)) == (ExitCode.BAD_DATA, True, True)


def test_a_table_whose_first_rows_are_all_ragged_is_refused(tmp_path):
    """The format is found from the rows that are sound."""
    error = refused(write(tmp_path, "text,id\n" + "a\n" * 30 + "b,2\n"))

    assert error.what == "30 of 31 rows have 1 cell, the header has 2 (first: line 2)"
    assert refused(write(tmp_path, "text,id\na\n")).why == "each data row needs usable keys"


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    """Spreadsheet programs write one."""
    assert dataset.check(write(tmp_path, "\ufefftext\na\n")).format == "text"


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
    found = dataset.check(write(tmp_path, data))

    assert (found.format, found.num_rows, found.num_bad) == ("alpaca", 1, 0)
    assert f"columns that are not used: `{column}`" in " ".join(found.warnings)


@pytest.mark.parametrize("line", ["sep=;\r\n", '"sep=;"\n', "\ufeffSEP=;\n", "\n  \nsep=;\n"])
def test_the_line_that_names_the_delimiter_is_no_header(tmp_path, line):
    """As Excel writes it; lines are numbered as an editor does."""
    path = write(tmp_path, f"{line}prompt;completion\na,b,c,d;e\n")

    assert [one.prompt for one in examples(path)] == ["a,b,c,d"]
    assert [at for at, _, _ in dataset.read_rows(path)] == [line.count("\n") + 2]


def test_lines_of_white_space_are_no_rows(tmp_path):
    """As in JSON Lines; a cell of white space in quotes is one."""
    path = write(tmp_path, " \nprompt,completion\na,b\n   \n\t\n \r\nc,d\n")

    assert [line for line, _, _ in dataset.read_rows(path)] == [3, 7]
    path = write(tmp_path, 'text\na\n"  "\n  \nb\n')
    assert [line for line, _, _ in dataset.read_rows(path)] == [2, 3, 5]


def test_white_space_before_turns_takes_linear_time(tmp_path):
    """A cell of spaces alone is a text."""
    path = write(tmp_path, f'prompt,completion\n"{" " * 400_000}",a\n"{" " * 400_000}[",b\n')

    with alarm(20):
        assert dataset.check(path).num_rows == 2


def test_a_quote_that_swallows_the_file_is_bounded(tmp_path, monkeypatch):
    """The record limit ends the search, at the place where the quote was opened."""
    monkeypatch.setattr(csv_rows, "MAX_RECORD_BYTES", 1000)

    error = refused(write(tmp_path, 'text,id\na,1\nb,"2\n' + "c,3\n" * 500))

    assert "larger than" in error.what
    assert error.where.endswith(":3:3")


def test_bad_records_of_a_table_can_be_left_out(tmp_path):
    """Ragged rows and stray quotes are counted by kind, and the rest is read."""
    data = "text,id\n" + "a,1\n" * 28 + 'b\n"c"d,2\n' + "e,3\n"

    found = dataset.check(write(tmp_path, data), on_bad="skip")

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
            dataset.check(write(tmp_path, content), on_bad="skip")
        except UserError as error:
            assert error.code is ExitCode.BAD_DATA  # noqa: PT017  # either outcome is right


# --- Parquet ---


def parquet(folder, rows, **options):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "a.parquet", **options)
    return folder / "a.parquet"


def test_parquet_and_json_lines_give_the_same_examples(tmp_path):
    """Texts and lists of turns alike, over several row groups."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "é中"}]
    rows = [{"messages": turns, "n": number} for number in range(30)]
    lines = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")

    found = parquet(tmp_path, rows, row_group_size=7)

    assert examples(found) == examples(lines)
    assert [line for line, _, _ in dataset.read_rows(found)] == list(range(1, 31))
    assert dataset.check(found).num_bytes == found.stat().st_size


def test_parquet_is_known_by_its_first_bytes(tmp_path):
    """Whatever the name of the file."""
    path = parquet(tmp_path, [GOOD]).rename(tmp_path / "rows.data")

    assert dataset.check(path).container == "Parquet, a row counts as a line"


def test_odd_parquet_types_are_told_as_faults_of_rows(tmp_path):
    """Bytes, dates and missing values are no texts."""
    import datetime as dt

    rows = [GOOD, {**GOOD, "completion": None}]
    assert "1 of 2 rows lack `completion` (first: line 2)" in refused(parquet(tmp_path, rows)).what
    rows = [{"text": b"raw"}]
    assert "have a bytes in `text`, not a text" in refused(parquet(tmp_path, rows)).what
    rows = [{"text": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}]
    assert "have a datetime in `text`" in refused(parquet(tmp_path, rows)).what


def test_an_extension_type_is_read_as_what_it_stores(tmp_path):
    """No code of the file is needed, and none is run."""
    pa = pytest.importorskip("pyarrow")
    stored = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["one", "two"]))

    found = dataset.check(parquet(tmp_path, pa.table({"text": stored})))

    assert found.num_rows == 2


def test_an_empty_parquet_file_has_nothing_to_learn_from(tmp_path):
    """Columns without rows."""
    pa = pytest.importorskip("pyarrow")

    assert refused(parquet(tmp_path, pa.table({"text": pa.array([], pa.string())}))).what == (
        "0 usable examples"
    )


def test_a_parquet_file_cut_anywhere_is_refused(tmp_path):
    """The index stands at the end, so no part is taken for the whole."""
    path = parquet(tmp_path, [GOOD] * 5)
    whole = path.read_bytes()
    for size in (1, 4, 8, len(whole) // 2, len(whole) - 5, len(whole) - 1):
        path.write_bytes(whole[:size])
        error = refused(path)
        assert error.code is ExitCode.BAD_DATA
        assert "Parquet file" in error.what


def test_a_parquet_file_with_changed_bytes_never_ends_in_a_traceback(tmp_path):
    """It reads or is refused, wherever the damage is."""
    path = parquet(tmp_path, [{**GOOD, "n": number} for number in range(50)])
    whole = path.read_bytes()
    chance = random.Random(7)  # noqa: S311  # damage that is the same in every run
    for _ in range(150):
        data = bytearray(whole)
        data[chance.randrange(4, len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            dataset.check(path, on_bad="skip")
        except UserError as error:
            assert error.code is ExitCode.BAD_DATA  # noqa: PT017  # either outcome is right


@given(data=st.binary(max_size=200))
@quick
def test_any_bytes_as_parquet(tmp_path, data):
    """Whatever stands between the magic letters, it is refused as damage."""
    pytest.importorskip("pyarrow")
    for content in (b"PAR1" + data, b"PAR1" + data + b"PAR1"):
        assert refused(write(tmp_path, content, "a.parquet")).code is ExitCode.BAD_DATA


def test_a_giant_row_in_parquet_is_refused(tmp_path, monkeypatch):
    """Texts that compress to nothing are measured as they are read."""
    monkeypatch.setattr(parquet_rows, "MAX_RECORD_BYTES", 100_000)
    rows = [{"text": "a"}, {"text": "b" * 200_000}]

    error = refused(parquet(tmp_path, rows))

    assert "larger than" in error.what
    assert error.where.endswith("a.parquet:2")


def test_a_deep_schema_is_refused(tmp_path):
    """Objects in objects, as deep as no data format is."""
    pa = pytest.importorskip("pyarrow")
    deep = pa.array([1], pa.int8())
    for _ in range(70):
        deep = pa.StructArray.from_arrays([deep], ["a"])

    assert "deeper than 64" in refused(parquet(tmp_path, pa.table({"text": deep}))).what


def test_without_the_library_the_package_is_named(tmp_path, monkeypatch):
    """Parquet comes with the packages for training."""
    path = parquet(tmp_path, [GOOD])
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    error = refused(path)

    assert (error.code, error.do) == (ExitCode.DRIVER, "pip install 'tunedeck[train]'")


def test_parquet_is_read_without_pandas_and_json_without_the_library(tmp_path):
    """A library that nobody asked for is not loaded."""
    parquet(tmp_path, [GOOD])
    write(tmp_path, json.dumps(GOOD) + "\n", "a.jsonl")
    code = (
        "import sys; from profiles.data import dataset; dataset.check(sys.argv[1])\n"
        "print('pyarrow' in sys.modules, 'pandas' in sys.modules)"
    )
    loaded = [
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for name in ("a.jsonl", "a.parquet")
    ]

    assert loaded == [["False", "False"], ["True", "False"]]


# --- Files that are not read ---


@pytest.mark.parametrize(
    ("name", "data", "command"),
    [
        ("a.jsonl.gz", b"\x1f\x8b\x08", "gunzip -c {0} > {1}/a.jsonl"),
        ("a.jsonl", b"\x1f\x8b\x08", "gunzip -c {0} > {1}/a.unpacked.jsonl"),
        ("a.zip", b"PK\x03\x04", "unzip {0}"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd", "unzstd -c {0} > {1}/a.jsonl"),
    ],
)
def test_packed_files_are_answered_with_the_command_that_unpacks(tmp_path, name, data, command):
    """Nothing is unpacked here, for the true size is not known before."""
    path = write(tmp_path, data, name)

    error = refused(path)

    assert "packed" in error.what
    assert error.do == "unpack it: " + command.format(path, tmp_path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.py", b"import os; os.abort()\n"),
        ("a.pkl", b"\x80\x04\x95"),
        ("a.pt", b"PK\x03\x04"),
        ("a.h5", b"\x89HDF"),
        ("a.yaml", b"!!python/object/apply:os.abort []\n"),
    ],
)
def test_only_known_containers_are_read(tmp_path, name, data):
    """No loading script, no pickle, nothing that could run code."""
    error = refused(write(tmp_path, data, name))

    assert error.code is ExitCode.BAD_DATA
    assert "not read" in error.what


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
    path = write(tmp_path, "text,label\nfine,good\nnice,good\nawful,bad\n")

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


def test_a_row_in_another_format_is_told_by_its_line(tmp_path):
    """Two files put together, for instance."""
    other = {"messages": [*ASKED, YES]}
    rows = [GOOD] * 9 + [other] * 2
    path = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")

    expected = "2 of 11 rows look like messages, not prompt_completion (first: line 10)"

    assert refused(path).what == expected
